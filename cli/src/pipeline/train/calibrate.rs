//! The calibration after the training.

use anyhow::Result;
use boltzmap_models::checkpoint::Checkpoint;
use boltzmap_models::control::Control;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_objectives::calibration::{Calibration, CalibrationError, CalibrationReport};

use super::super::Stage;
use super::super::model::{self, AVERAGE_PREFIX, HEAD_PREFIX, ModelMetadata};
use super::{Diverged, calibration_config, calibration_diverged};
use crate::config::Config;
use crate::progress::{self, Progress, with_progress};
use crate::run_dir::RunDir;

/// Fits a divergence head of its own to the finished map, unless the checkpoint says that this was done. It starts anew when
/// it was interrupted, and with `again`, because its settings changed.
pub(super) fn calibrate(run: &RunDir, config: &Config, again: bool) -> Result<()> {
    let path = run.checkpoint();
    let mut checkpoint = Checkpoint::read(&path)?;
    let mut metadata = ModelMetadata::of(&checkpoint, &path)?;
    if again {
        progress::note("calibrate: with other settings than before");
        metadata.calibration = None;
        metadata.settings = Some(Stage::Train.settings(config));
        checkpoint
            .tensors
            .retain(|name, _| !name.starts_with(HEAD_PREFIX));
        if config.calibration.steps == 0 {
            checkpoint.metadata = serde_json::to_value(metadata)?;
            return Ok(checkpoint.write(&path)?);
        }
    }
    if config.calibration.steps == 0 || metadata.calibration.is_some() {
        return Ok(());
    }
    let flow_map = FlowMap::new(&metadata.flow_map)?;
    let parameters = checkpoint.parameters(AVERAGE_PREFIX, flow_map.layout())?;
    let schedule = model::schedule(config)?;
    let settings = calibration_config(config);
    let steps = settings.steps;
    let trajectories = settings.trajectories + settings.held_out;
    let calibration = with_progress("calibration data", trajectories, |control| {
        Calibration::new(&flow_map, &parameters, &schedule, settings, control)
    })?;
    let mut progress = Progress::new("calibrate", steps, 0);
    let control = Control {
        progress: None,
        cancel: Some(progress::interrupt_flag()),
    };
    let result = calibration.run(&control, |done, error, held_out| {
        progress.set(done, || {
            format!(
                "step {:.3} nats, held out {:.3}, std of log q {:.3}",
                error.sqrt(),
                held_out.step_rms,
                held_out.gap_deviation
            )
        });
    });
    progress::check_interrupt()?;
    let (head, report) = match result {
        Err(CalibrationError::Diverged(divergence)) => {
            let text = format!(
                "{}; {} keeps the trained map without a calibrated head: change {} and go on with 'boltzmap train {} --resume'",
                calibration_diverged(&divergence, config),
                path.display(),
                run.config().display(),
                run.root().display()
            );
            return Err(Diverged(text).into());
        }
        result => result?,
    };
    progress.finish(&outcome(&report));
    if report.best_step > 0 {
        checkpoint.insert_parameters(HEAD_PREFIX, &head);
    }
    metadata.calibration = Some(report);
    checkpoint.metadata = serde_json::to_value(metadata)?;
    Ok(checkpoint.write(&path)?)
}

/// What a user should know of a finished calibration besides that.
fn outcome(report: &CalibrationReport) -> String {
    let mut notes = Vec::new();
    if report.skipped > 0 {
        notes.push(format!(
            "{} of {} steps skipped, for their gradient was not finite",
            report.skipped, report.steps
        ));
    }
    if report.best_step == 0 {
        notes.push("no head was better than the trained one, which is kept; lower calibration.learning_rate or raise calibration.trajectories".into());
    }
    notes.join("; ")
}
