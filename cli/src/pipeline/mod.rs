//! The stages of a run: data, training, sampling with its audit, evaluation.

pub mod coverage;
pub mod data;
pub mod evaluate;
pub mod frames;
pub mod model;
pub mod molecule;
pub mod normalisation;
pub mod proposals;
pub mod sample;
pub mod samples;
pub mod settings;
pub mod train;

use std::time::Instant;

use anyhow::Result;

use crate::config::Config;
use crate::progress::Interrupted;
use crate::run_dir::RunDir;
use train::Diverged;

/// A stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reference dynamics: `data.npz`.
    Data,
    /// Training: `checkpoint.safetensors`, `metrics.jsonl`.
    Train,
    /// Samples and their audit: `samples.npz`.
    Sample,
    /// Metrics and report: `summary.json`, `report.html`.
    Evaluate,
}

impl Stage {
    /// All stages in their order.
    pub const ALL: [Stage; 4] = [Stage::Data, Stage::Train, Stage::Sample, Stage::Evaluate];

    /// The stage's name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Data => "data",
            Stage::Train => "train",
            Stage::Sample => "sample",
            Stage::Evaluate => "evaluate",
        }
    }
}

/// Checks, before anything is written, all of a configuration that only the molecule can tell (sequence, force field).
pub fn check(config: &Config) -> Result<()> {
    molecule::Molecule::new(config)?;
    model::schedule(config)?;
    Ok(())
}

/// Runs one stage in a run directory; with `resume` from where it was left, doing nothing where it is done.
pub fn run_stage(run: &RunDir, config: &Config, stage: Stage, resume: bool) -> Result<()> {
    let start = Instant::now();
    match stage {
        Stage::Data if resume && run.data().exists() => settings::require_same_data(run, config),
        Stage::Data => {
            data::generate(run, config)?;
            run.set_seconds(stage.name(), start.elapsed().as_secs_f64())
        }
        Stage::Train => {
            let goes_on = resume && run.checkpoint().exists();
            let trained = train::train(run, config, resume);
            // A training that was interrupted or diverged took its time too; one that was refused leaves everything as it was.
            if trained
                .as_ref()
                .err()
                .is_none_or(|error| error.is::<Interrupted>() || error.is::<Diverged>())
            {
                let seconds = start.elapsed().as_secs_f64();
                if goes_on {
                    run.add_seconds(stage.name(), seconds)?;
                } else {
                    run.set_seconds(stage.name(), seconds)?;
                }
            }
            trained
        }
        // Sampling counts its own seconds, apart from those of the audit; the evaluation's stand in its own summary.
        Stage::Sample => sample::sample(run, config),
        Stage::Evaluate => evaluate::evaluate(run, config),
    }
}
