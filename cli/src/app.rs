//! From arguments to an exit code.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Arguments, BenchCommand, Command, StudyCommand};
use crate::bench;
use crate::commands;
use crate::pipeline::Stage;
use crate::progress::{self, Abandoned, Interrupted};
use crate::study;
use crate::verify;

/// Exit code of bad input and of failures.
const FAILURE: u8 = 1;
/// Exit code of a command line that cannot be understood.
const USAGE: u8 = 2;
/// Exit code of a bug.
const BUG: i32 = 101;
/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs the command line; the process's `main`.
pub fn main() -> ExitCode {
    install_panic_hook();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() || error.is::<Abandoned>() => {
            complain(&sentence(&error));
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            complain(&format!("error: {}", sentence(&error)));
            ExitCode::from(FAILURE)
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()
            .with_context(|| format!("cannot start {threads} threads"))?;
    }
    progress::set_quiet(arguments.quiet);
    match arguments.command {
        Command::Run(arguments) => commands::run(&arguments),
        Command::Build(arguments) => commands::build(&arguments),
        Command::Energy(arguments) => commands::energy(&arguments),
        Command::Minimize(arguments) => commands::minimize(&arguments),
        Command::Remd(arguments) => commands::remd(&arguments),
        Command::Umbrella(arguments) => commands::umbrella(&arguments),
        Command::Md(arguments) => commands::stage(Stage::Data, &arguments),
        Command::Train(arguments) => commands::stage(Stage::Train, &arguments),
        Command::Sample(arguments) => commands::stage(Stage::Sample, &arguments),
        Command::Evaluate(arguments) => commands::stage(Stage::Evaluate, &arguments),
        Command::Verify(arguments) => verify::verify(&arguments),
        Command::Bench(arguments) => match &arguments.command {
            BenchCommand::Engine(arguments) => bench::engine(arguments),
            BenchCommand::Physics(arguments) => bench::physics::physics(arguments),
            BenchCommand::Memory { workload, task } => bench::memory(workload, *task),
        },
        Command::Study(arguments) => match &arguments.command {
            StudyCommand::Estimators(arguments) => study::estimators(arguments),
        },
        Command::Info(arguments) => commands::info(&arguments),
    }
}

/// An error and its causes in one line, without the causes that the text before them already tells.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().replace('\n', " ");
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

/// Writes to standard error and ignores a closed one.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints clap's help, or its complaint as one sentence.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(USAGE);
    }
    let text = error.to_string();
    let mut sentence = String::new();
    for line in text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
    {
        let line = line.trim();
        if !sentence.is_empty() && !line.is_empty() {
            // Hints and lists of choices come in paragraphs of their own.
            sentence += if line.starts_with("tip:") || line.starts_with('[') {
                "; "
            } else {
                " "
            };
        }
        sentence += line;
    }
    complain(&format!("{sentence}; see boltzmap --help"));
    ExitCode::from(USAGE)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A panic is a bug, wherever it happens: say so in one sentence and stop.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|information| {
        let place = information
            .location()
            .map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        let message = information
            .payload_as_str()
            .unwrap_or("unknown cause")
            .replace('\n', " ");
        complain(&format!(
            "error: boltzmap {} has a bug ({message}{place}); please report this sentence and the command you ran",
            env!("CARGO_PKG_VERSION")
        ));
        std::process::exit(BUG);
    }));
}
