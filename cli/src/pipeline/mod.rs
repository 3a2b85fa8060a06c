//! The stages of a run: data, training, sampling with its audit, evaluation.

use anyhow::{Result, bail};

use crate::config::Config;
use crate::molecule::Molecule;
use crate::run_dir::RunDir;

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
    Molecule::from_sequence(&config.system.sequence, &config.system.force_field)?;
    Ok(())
}

/// Runs one stage in a run directory; with `resume` from where it was left.
pub fn run_stage(_run: &RunDir, _config: &Config, stage: Stage, _resume: bool) -> Result<()> {
    bail!("the stage '{}' is not part of this build", stage.name());
}
