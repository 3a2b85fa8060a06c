//! What continuous integration runs: format, clippy, documentation, tests.

use std::process::{Command, ExitCode};
use std::time::Instant;

/// One command of continuous integration.
struct Stage {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: Option<(&'static str, &'static str)>,
}

/// The commands in order: the cheap refusals first. The last is the README's test command.
const STAGES: [Stage; 4] = [
    Stage {
        name: "format",
        arguments: &["fmt", "--all", "--check"],
        environment: None,
    },
    Stage {
        name: "clippy",
        arguments: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
        environment: None,
    },
    Stage {
        name: "documentation",
        arguments: &[
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ],
        environment: Some(("RUSTDOCFLAGS", "--deny warnings")),
    },
    Stage {
        name: "tests",
        arguments: &["test", "--workspace"],
        environment: None,
    },
];

/// Runs all stages, stopping at the first that fails.
pub(crate) fn run() -> ExitCode {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    for Stage {
        name,
        arguments,
        environment,
    } in STAGES
    {
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
