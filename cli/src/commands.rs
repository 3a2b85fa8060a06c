//! The subcommands.

mod build;
mod energy;
mod free_energy;
mod info;
mod minimize;
mod outputs;
mod remd;
mod umbrella;

pub use build::build;
pub use energy::energy;
pub use info::info;
pub use minimize::minimize;
pub use remd::remd;
pub use umbrella::umbrella;

use std::io::Write;

use anyhow::{Context, Result};

use crate::args::{RunArguments, StageArguments};
use crate::config::Config;
use crate::pipeline::{self, Stage};
use crate::progress;
use crate::run_dir::RunDir;

/// Writes to standard output. A closed pipe is an error that `main` turns into a quiet end.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .context("cannot write to standard output")
}

/// `boltzmap run`: all stages.
pub fn run(arguments: &RunArguments) -> Result<()> {
    let config = Config::resolve(&arguments.config)?;
    pipeline::check(&config)?;
    let root = arguments
        .out
        .clone()
        .unwrap_or_else(|| RunDir::default_path(&config));
    progress::install_interrupt_handler()?;
    let run = RunDir::create(&root, &config, arguments.resume)?;
    progress::note(&format!(
        "{}: {} in {}",
        config.name,
        config.system.sequence,
        run.root().display()
    ));
    for stage in Stage::ALL {
        pipeline::run_stage(&run, &config, stage, arguments.resume)?;
    }
    print(&format!("{}\n", run.report().display()))
}

/// `boltzmap md`, `train`, `sample` and `evaluate`: one stage.
pub fn stage(stage: Stage, arguments: &StageArguments) -> Result<()> {
    let (run, config) = RunDir::open(&arguments.directory)?;
    pipeline::check(&config)?;
    progress::install_interrupt_handler()?;
    pipeline::run_stage(&run, &config, stage, arguments.resume)
}
