//! What a training goes on from, and whether the configuration lets it.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use boltzmap_models::checkpoint::Checkpoint;

use super::super::Stage;
use super::super::model::{Change, ModelMetadata};
use super::super::settings::{self, Difference};
use super::diverged::diverged;
use crate::config::Config;
use crate::progress;
use crate::run_dir::RunDir;

/// Settings of the course of a training rather than of its aim: they may be others from some step on.
const OF_THE_COURSE: &[&str] = &[
    "training.steps",
    "training.batch",
    "training.learning_rate",
    "training.warmup",
    "training.ema",
    "training.weight_decay",
    "training.clip",
    "training.diagonal_fraction",
    "training.start_fraction",
    "training.end_fraction",
    "training.data_end_fraction",
    "training.teacher",
    "training.velocity_weight",
    "training.divergence_weight",
    "training.map_weight",
    "training.log_det_weight",
    "training.falcon_average_weight",
    "training.falcon_cycle_weight",
];

/// A training that can go on.
pub(super) struct Held {
    /// Its checkpoint.
    pub(super) checkpoint: Checkpoint,
    /// The metadata of that.
    pub(super) metadata: ModelMetadata,
    /// Whether its calibration was made with other settings.
    pub(super) recalibrate: bool,
}

/// The training of a run directory that a resumed one goes on with; none where there is none, or none that took a step.
///
/// # Errors
/// If the checkpoint is damaged, or the configuration asks for something that going on would not give.
pub(super) fn held(run: &RunDir, config: &Config, data_sha256: &str) -> Result<Option<Held>> {
    let path = run.checkpoint();
    if !path.exists() {
        return Ok(None);
    }
    let checkpoint = Checkpoint::read(&path)?;
    let mut metadata = ModelMetadata::of(&checkpoint, &path)?;
    let root = run.root().display();
    if let Some(before) = &metadata.diverged
        && settings::differences(&before.settings, Stage::Train, config).is_empty()
    {
        bail!(
            "with the settings of {} {}; then go on from step {} with 'boltzmap train {root} --resume', or start anew without --resume",
            run.config().display(),
            diverged(&before.divergence, config),
            metadata.step
        );
    }
    if metadata.step == 0 {
        return Ok(None);
    }
    if let Some(trained_on) = &metadata.data_sha256 {
        ensure!(
            trained_on == data_sha256,
            "cannot resume: {} was trained on other data than {} holds now; train from the start with 'boltzmap train {root}'",
            path.display(),
            run.data().display()
        );
    }
    let recalibrate = compare(run, config, &mut metadata, &path)?;
    metadata.diverged = None;
    Ok(Some(Held {
        checkpoint,
        metadata,
        recalibrate,
    }))
}

/// Holds the settings of a checkpoint against those of the configuration and notes in the metadata what changes from here on; says whether the
/// calibration must be made again.
fn compare(
    run: &RunDir,
    config: &Config,
    metadata: &mut ModelMetadata,
    path: &Path,
) -> Result<bool> {
    let Some(made) = &metadata.settings else {
        return Ok(false);
    };
    let (root, shown) = (run.root().display(), path.display());
    let found = settings::differences(made, Stage::Train, config);
    let (calibration, found): (Vec<Difference>, Vec<Difference>) = found
        .into_iter()
        .partition(|d| d.path.starts_with("calibration."));
    let (course, aim): (Vec<Difference>, Vec<Difference>) = found
        .into_iter()
        .partition(|d| OF_THE_COURSE.contains(&d.path.as_str()));
    ensure!(
        aim.is_empty(),
        "cannot resume: {shown} was trained with {}; train from the start with 'boltzmap train {root}', or set that back in {}",
        settings::words(&aim),
        run.config().display()
    );
    let (step, steps) = (metadata.step, config.training.steps as u64);
    ensure!(
        step <= steps,
        "cannot resume: {shown} has taken {step} steps, more than training.steps ({steps}); set that back, or train from the start with 'boltzmap train {root}'"
    );
    ensure!(
        course.is_empty() || step < steps,
        "cannot resume: {shown} is a finished training with {}, and no step is left to take; train from the start with 'boltzmap train {root}', raise training.steps to go on, or set that back",
        settings::words(&course)
    );
    if !course.is_empty() {
        progress::note(&format!(
            "train: from step {step} on with other settings; before, {}",
            settings::words(&course)
        ));
    }
    metadata
        .changes
        .extend(course.into_iter().map(|change| Change {
            step,
            path: change.path,
            before: change.made,
            after: change.now,
        }));
    metadata.settings = Some(Stage::Train.settings(config));
    Ok(!calibration.is_empty())
}
