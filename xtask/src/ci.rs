//! What continuous integration runs: format, clippy, documentation, tests.

use std::process::{Command, ExitCode};
use std::time::Instant;

/// The commands of continuous integration, in order: the cheap refusals first. The last is the README's test command.
const STAGES: [(&str, &[&str], Option<(&str, &str)>); 4] = [
    ("format", &["fmt", "--all", "--check"], None),
    (
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
        None,
    ),
    (
        "documentation",
        &[
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ],
        Some(("RUSTDOCFLAGS", "--deny warnings")),
    ),
    ("tests", &["test", "--workspace"], None),
];

/// Runs all stages, stopping at the first that fails.
pub(crate) fn run() -> ExitCode {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    for (name, arguments, environment) in STAGES {
        eprintln!("ci: {name}: cargo {}", arguments.join(" "));
        let start = Instant::now();
        let mut command = Command::new(&cargo);
        command.args(arguments).envs(environment);
        match command.status() {
            Ok(status) if status.success() => {
                eprintln!(
                    "ci: {name} passed in {:.0} s",
                    start.elapsed().as_secs_f64()
                );
            }
            Ok(status) => {
                eprintln!(
                    "ci: {name} failed ({status}): cargo {}",
                    arguments.join(" ")
                );
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("ci: {name} could not start {cargo}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    eprintln!("ci: all stages passed");
    ExitCode::SUCCESS
}
