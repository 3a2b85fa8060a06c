//! Project automation: `cargo xtask <task>`.

use boltzmap_physics::forcefield::{ffxml, table};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

mod ci;

const USAGE: &str = "usage: cargo xtask ci   (format, clippy, documentation and tests, as continuous integration runs them) \
     or cargo xtask import-forcefield DIRECTORY   (the folder openmm/app/data of the openmm package)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["ci"] => return ci::run(),
        ["import-forcefield", directory] => import_force_fields(Path::new(directory)),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the tables of `physics/data` from OpenMM's files.
fn import_force_fields(source: &Path) -> Result<(), Box<dyn Error>> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../physics/data");
    let tables: [(&str, &[&str]); 2] = [
        (
            "amber99sbildn.bin",
            &["amber99sbildn.xml", "amber99_obc.xml"],
        ),
        ("ff14sb.bin", &["amber14/protein.ff14SB.xml"]),
    ];
    for (name, files) in tables {
        let read = |file: &&str| {
            let path = source.join(file);
            std::fs::read_to_string(&path)
                .map_err(|error| format!("{} cannot be read: {error}; {USAGE}", path.display()))
        };
        let texts: Vec<String> = files.iter().map(read).collect::<Result<_, _>>()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let force_field = ffxml::parse(&texts)?.proteins_only();
        let bytes = table::compress(&force_field);
        if table::decompress(&bytes)? != force_field {
            return Err(format!("{name} does not read back as it was written").into());
        }
        std::fs::write(target.join(name), &bytes)?;
        println!(
            "{name}: {} templates, {} types, {} bytes",
            force_field.templates.len(),
            force_field.types.len(),
            bytes.len()
        );
    }
    Ok(())
}
