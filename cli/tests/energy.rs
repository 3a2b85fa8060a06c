//! `boltzmap energy` and `boltzmap build`: what they write against reference values, and what they refuse.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use boltzmap_cli::npz::{NpzFile, NpzWriter};
use npyz::WriterBuilder;

const PDB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ala2.pdb");
/// Energies and forces of three conformations by OpenMM's reference platform in double precision.
const REFERENCE: &str = include_str!("data/ala2.json");
const ATOMS: usize = 22;

fn reference() -> serde_json::Value {
    serde_json::from_str(REFERENCE).expect("valid JSON")
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    match value {
        serde_json::Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().expect("a number")],
    }
}

fn boltzmap(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boltzmap"))
        .args(arguments)
        .output()
        .expect("the command starts")
}

fn energy(pdb: &str, positions: Option<&Path>, out: &Path, more: &[&str]) -> Output {
    let mut arguments = vec![
        "energy",
        pdb,
        "--force-field",
        "amber99sbildn+obc2",
        "--out",
        out.to_str().unwrap(),
    ];
    if let Some(path) = positions {
        arguments.extend(["--positions", path.to_str().unwrap()]);
    }
    arguments.extend(more);
    boltzmap(&arguments)
}

#[track_caller]
fn sentence(output: &Output) -> String {
    let complaint = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.starts_with("error: ") && complaint.lines().count() == 1,
        "{complaint}"
    );
    assert_eq!(complaint.matches("error:").count(), 1, "{complaint}");
    assert!(!complaint.contains("panicked"), "{complaint}");
    complaint
}

fn write_npy<T: npyz::AutoSerialize + Copy>(path: &Path, shape: &[u64], values: &[T]) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(shape)
        .writer(file)
        .begin_nd()
        .unwrap();
    writer.extend(values.iter().copied()).unwrap();
    writer.finish().unwrap();
}

/// Largest difference relative to the largest reference value.
fn deviation(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected
        .iter()
        .fold(1.0, |scale: f64, value| scale.max(value.abs()));
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() / scale)
        .fold(0.0, f64::max)
}

fn check(out: &Path, tolerance: f64) {
    let reference = reference();
    let file = NpzFile::open(out).unwrap();
    let n = reference["positions"].as_array().unwrap().len();
    let forces = file
        .finite::<f64>("forces", &[Some(n), Some(ATOMS), Some(3)])
        .unwrap();
    assert!(deviation(&forces.values, &numbers(&reference["forces"])) < tolerance);
    for (name, key) in [
        ("energy", "total"),
        ("bond", "bond"),
        ("angle", "angle"),
        ("torsion", "torsion"),
        ("nonbonded", "nonbonded"),
        ("gb", "gb"),
    ] {
        let found = file.finite::<f64>(name, &[Some(n)]).unwrap();
        let off = deviation(&found.values, &numbers(&reference["energies"][key]));
        assert!(off < tolerance, "{name}: {off:e}");
    }
}

#[test]
fn energies_are_those_of_the_reference() {
    let directory = tempfile::tempdir().unwrap();
    let positions = numbers(&reference()["positions"]);
    let shape = [positions.len() as u64 / 66, ATOMS as u64, 3];
    let npy = directory.path().join("x.npy");
    write_npy(&npy, &shape, &positions);
    let out = directory.path().join("e.npz");
    let output = energy(PDB, Some(&npy), &out, &["--json"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["n"], &summary["atoms"]),
        (&serde_json::json!(3), &serde_json::json!(22))
    );
    check(&out, 1e-10);

    // Single precision agrees to its own accuracy, whatever the type of the input.
    let single: Vec<f32> = positions.iter().map(|&x| x as f32).collect();
    write_npy(&npy, &shape, &single);
    let output = energy(PDB, Some(&npy), &out, &["--precision", "f32"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    check(&out, 2e-4);

    // Without positions the PDB file's own.
    let output = energy(PDB, None, &out, &[]);
    assert!(output.status.success());
    let one = NpzFile::open(&out)
        .unwrap()
        .finite::<f64>("energy", &[Some(1)])
        .unwrap();
    assert!(
        one.values[0] < 0.0
            && String::from_utf8(output.stdout)
                .unwrap()
                .contains("nonbonded")
    );
}

#[test]
fn bad_positions_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let npy = directory.path().join("x.npy");
    let out = directory.path().join("e.npz");
    let mut positions = numbers(&reference()["positions"]);

    positions[66 + 3 * 8 + 1] = f64::NAN;
    write_npy(&npy, &[3, 22, 3], &positions);
    let complaint = sentence(&energy(PDB, Some(&npy), &out, &[]));
    assert!(
        complaint.contains("conformation 1, atom 8 (CA of ALA 2)"),
        "{complaint}"
    );

    write_npy(&npy, &[198], &positions);
    let complaint = sentence(&energy(PDB, Some(&npy), &out, &[]));
    assert!(
        complaint.contains("has the shape [198], expected [n, 22, 3]"),
        "{complaint}"
    );
    write_npy(&npy, &[9, 22], &positions);
    sentence(&energy(PDB, Some(&npy), &out, &[]));
    write_npy(&npy, &[0, 22, 3], &[] as &[f64]);
    let complaint = sentence(&energy(PDB, Some(&npy), &out, &[]));
    assert!(complaint.contains("no conformations"), "{complaint}");
    write_npy(&npy, &[1, 22, 3], &[1_i32; 66]);
    let complaint = sentence(&energy(PDB, Some(&npy), &out, &[]));
    assert!(complaint.contains("i4"), "{complaint}");

    write_npy(&npy, &[3, 22, 3], &numbers(&reference()["positions"]));
    let whole = std::fs::read(&npy).unwrap();
    for length in [0, 5, 60, 130, whole.len() - 1] {
        std::fs::write(&npy, &whole[..length]).unwrap();
        sentence(&energy(PDB, Some(&npy), &out, &[]));
    }
    NpzWriter::new()
        .array("x", &[1], &[1.0_f64])
        .write(&npy)
        .unwrap();
    let complaint = sentence(&energy(PDB, Some(&npy), &out, &[]));
    assert!(complaint.contains("not in the npy format"), "{complaint}");
    sentence(&energy(
        PDB,
        Some(&directory.path().join("none.npy")),
        &out,
        &[],
    ));
    assert!(
        !out.exists() && std::fs::read_dir(directory.path()).unwrap().count() == 1,
        "nothing else was made"
    );
}

#[test]
fn bad_molecules_and_places_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("e.npz");
    let text = std::fs::read_to_string(PDB).unwrap();
    let pdb = directory.path().join("x.pdb");
    let with = |text: String| -> PathBuf {
        std::fs::write(&pdb, text).unwrap();
        pdb.clone()
    };

    // A hydrogen is missing.
    let lacking: String = text
        .lines()
        .filter(|line| !line.contains(" HB3 ALA"))
        .map(|line| format!("{line}\n"))
        .collect();
    let complaint = sentence(&energy(with(lacking).to_str().unwrap(), None, &out, &[]));
    assert!(complaint.contains("ALA 2"), "{complaint}");
    // A coordinate is no number; a coordinate is missing; no atoms.
    sentence(&energy(
        with(text.replacen("-3.390", "  nan ", 1)).to_str().unwrap(),
        None,
        &out,
        &[],
    ));
    sentence(&energy(
        with(text[..text.find("-3.390").unwrap()].to_owned())
            .to_str()
            .unwrap(),
        None,
        &out,
        &[],
    ));
    sentence(&energy(
        with("END\n".into()).to_str().unwrap(),
        None,
        &out,
        &[],
    ));
    sentence(&energy("no-such-file.pdb", None, &out, &[]));

    let arguments = [
        "energy",
        PDB,
        "--force-field",
        "amber99sbildn+obc1",
        "--out",
        out.to_str().unwrap(),
    ];
    let complaint = sentence(&boltzmap(&arguments));
    assert!(
        complaint.contains("did you mean amber99sbildn+obc2?"),
        "{complaint}"
    );
    let under_a_file = pdb.join("e.npz");
    let complaint = sentence(&energy(PDB, None, &under_a_file, &[]));
    assert!(complaint.contains("cannot write"), "{complaint}");
    sentence(&energy(PDB, None, directory.path(), &[]));
    assert!(
        !out.exists() && std::fs::read_dir(directory.path()).unwrap().count() == 1,
        "nothing else was made"
    );
}

#[test]
fn built_peptides_can_be_evaluated() {
    let directory = tempfile::tempdir().unwrap();
    let pdb = directory.path().join("built.pdb");
    let out = directory.path().join("e.npz");
    for (sequence, atoms) in [("Ace-A-Nme", 22), ("Ace-AAA-Nme", 42), ("AAA", 33)] {
        let output = boltzmap(&["build", sequence, "--out", pdb.to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let output = energy(pdb.to_str().unwrap(), None, &out, &[]);
        assert!(
            output.status.success(),
            "{sequence}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        NpzFile::open(&out)
            .unwrap()
            .finite::<f64>("forces", &[Some(1), Some(atoms), Some(3)])
            .unwrap();
    }
    let before = std::fs::read(&pdb).unwrap();
    for sequence in ["Ace-X-Nme", "", "Ace-A-Foo", "Ace-a-Nme"] {
        sentence(&boltzmap(&[
            "build",
            sequence,
            "--out",
            pdb.to_str().unwrap(),
        ]));
    }
    assert_eq!(before, std::fs::read(&pdb).unwrap());
    let run = directory.path().join("run");
    let complaint = sentence(&boltzmap(&[
        "run",
        "--out",
        run.to_str().unwrap(),
        "--set",
        "system.sequence=Ace-B-Nme",
    ]));
    assert!(complaint.contains("'B'") && !run.exists(), "{complaint}");
    sentence(&boltzmap(&[
        "build",
        "AAA",
        "--out",
        pdb.join("x.pdb").to_str().unwrap(),
    ]));
}

/// Four chains of all twenty residues side by side: as long as a protein, several chains in one file.
fn write_crowd(path: &Path) -> usize {
    use boltzmap_physics::{Atom, Topology, build_sequence};
    let (one, built) = build_sequence("ACDEFGHIKLMNPQRSTVWY").unwrap();
    let (mut atoms, mut bonds, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    for (copy, chain) in ['A', 'B', 'C', 'D'].into_iter().enumerate() {
        let first = copy * one.n_atoms();
        atoms.extend(one.atoms.iter().map(|atom| Atom {
            chain,
            residue_index: atom.residue_index + copy * one.n_residues(),
            ..atom.clone()
        }));
        bonds.extend(one.bonds.iter().map(|bond| bond.map(|atom| atom + first)));
        let shift = [0.0, 1.7 * (copy % 2) as f64, 1.7 * (copy / 2) as f64];
        for atom in built.as_chunks::<3>().0 {
            positions.extend((0..3).map(|axis| atom[axis] + shift[axis]));
        }
    }
    let topology = Topology::new(atoms, bonds);
    boltzmap_cli::molecule::write_pdb(path, &topology, &positions).unwrap();
    topology.n_atoms()
}

/// The command gives the reference's terms and forces for a large molecule, but not by the reference's path: sums in another order round
/// otherwise, so that forces equal to the last bit would be the reference's own.
#[test]
fn large_molecules_do_not_take_the_reference_path() {
    let directory = tempfile::tempdir().unwrap();
    let pdb = directory.path().join("crowd.pdb");
    let atoms = write_crowd(&pdb);
    assert!(atoms > 1000, "{atoms}");
    for cutoff in [None, Some("1.1")] {
        let field = boltzmap_cli::molecule::force_field_with_cutoff(
            "ff14sb+obc1",
            cutoff.map(|cutoff| cutoff.parse().unwrap()),
        )
        .unwrap();
        let molecule = boltzmap_cli::molecule::Molecule::read(&pdb, &field).unwrap();
        let (expected, expected_forces) =
            boltzmap_physics::energy_forces_reference(&molecule.system, &molecule.positions);
        let mut files = Vec::new();
        for threads in ["1", "2"] {
            let out = directory.path().join(format!("{}.npz", files.len()));
            let mut arguments = vec![
                "energy",
                pdb.to_str().unwrap(),
                "--force-field",
                "ff14sb+obc1",
                "--threads",
                threads,
                "--json",
                "--out",
                out.to_str().unwrap(),
            ];
            if let Some(cutoff) = cutoff {
                arguments.extend(["--cutoff", cutoff]);
            }
            let output = boltzmap(&arguments);
            assert!(output.status.success(), "{output:?}");
            let file = NpzFile::open(&out).unwrap();
            let mut all = Vec::new();
            for (name, value) in [
                ("bond", expected.bond),
                ("angle", expected.angle),
                ("torsion", expected.torsion),
                ("nonbonded", expected.nonbonded),
                ("gb", expected.generalized_born),
                ("energy", expected.total()),
            ] {
                let found = file.finite::<f64>(name, &[Some(1)]).unwrap().values;
                assert!(
                    (found[0] - value).abs() < 1e-10 * value.abs().max(1.0),
                    "{name}: {} for {value}",
                    found[0]
                );
                all.extend(found);
            }
            let forces = file
                .finite::<f64>("forces", &[Some(1), Some(atoms), Some(3)])
                .unwrap()
                .values;
            assert!(deviation(&forces, &expected_forces) < 1e-10);
            assert_ne!(forces, expected_forces, "the reference's own bits");
            all.extend(forces);
            files.push(all);
        }
        assert!(
            files.iter().all(|file| *file == files[0]),
            "two threads give other bits than one"
        );
    }
}
