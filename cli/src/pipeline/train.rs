//! Training and calibration: `checkpoint.safetensors` and `metrics.jsonl`.

mod calibrate;
mod checkpoint;
mod configuration;
mod diverged;
mod resume;

pub(crate) use configuration::{calibration_config, trainer_config};
pub use configuration::{interpolant, method};
pub use diverged::{Diverged, calibration_diverged, diverged};

use anyhow::{Result, ensure};
use boltzmap_models::checkpoint::Checkpoint;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::Parameters;
use boltzmap_objectives::divergence::{Divergence, DivergenceWatch, Symptom};
use boltzmap_objectives::optimizer::AdamW;
use boltzmap_objectives::trainer::{LEADING_LOSS, StepMetrics, Trainer};
use boltzmap_physics::chart::Coordinates;

use super::Stage;
use super::data::Data;
use super::model::require_atoms;
use super::model::{self, Change, Failure, Frames, ModelMetadata};
use super::molecule::Molecule;
use super::settings;
use crate::card;
use crate::config::{Chart, Config};
use crate::progress::{self, Progress};
use crate::run_dir::{MetricsLog, RunDir};
use checkpoint::State;
use resume::Held;

/// Steps between two lines of `metrics.jsonl`, which hold means over those steps.
const METRICS_INTERVAL: u64 = 10;

fn line(metrics: &[StepMetrics]) -> serde_json::Value {
    let count = metrics.len() as f64;
    let last = &metrics[metrics.len() - 1];
    let mut line = serde_json::Map::new();
    line.insert("step".into(), last.step.into());
    for (i, (name, _)) in last.parts.iter().enumerate() {
        let mean = metrics.iter().map(|m| m.parts[i].1).sum::<f64>() / count;
        line.insert(name.clone(), mean.into());
    }
    let gradient_norm = metrics.iter().map(|m| m.gradient_norm).sum::<f64>() / count;
    line.insert("gradient_norm".into(), gradient_norm.into());
    line.insert("learning_rate".into(), last.learning_rate.into());
    let skipped = metrics.iter().filter(|m| !m.applied).count();
    line.insert("skipped".into(), skipped.into());
    line.into()
}

/// The parts of a step's losses, for the progress bar.
fn parts_of(metrics: &StepMetrics) -> String {
    let parts: Vec<String> = (metrics.parts.iter())
        .map(|(name, value)| format!("{} {value:.2e}", name.replace('_', " ")))
        .collect();
    parts.join(", ")
}

/// Trains, from the checkpoint if `resume` finds one, and calibrates.
///
/// # Errors
/// If an input is missing or damaged or does not belong to the configuration, the user interrupts, or the training diverges: then the
/// checkpoint is the last one before that, and tells of it.
pub fn train(run: &RunDir, config: &Config, resume: bool) -> Result<()> {
    let molecule = Molecule::new(config)?;
    let data = Data::read(run, &molecule)?;
    settings::check_data(run, config)?;
    let data_sha256 = match card::read(&run.data())? {
        Some(card) => card.sha256,
        None => card::digest(&run.data())?,
    };
    let held = match resume {
        true => resume::held(run, config, &data_sha256)?,
        false => None,
    };
    let recalibrate = held.as_ref().is_some_and(|held| held.recalibrate);
    let coordinates = coordinates(run, config, &molecule, &data, held.as_ref())?;
    let frames = Frames::new(&coordinates, &data.train)?;
    let map_config = model::flow_map_config(config, &coordinates, &molecule);
    let flow_map = FlowMap::new(&map_config)?;
    let course = Course::start(run, config, flow_map, coordinates, data_sha256, held)?;
    course.run(&frames)?;
    calibrate::calibrate(run, config, recalibrate)
}

/// The coordinates of a held training, or those that the configuration and the data give a new one.
fn coordinates(
    run: &RunDir,
    config: &Config,
    molecule: &Molecule,
    data: &Data,
    held: Option<&Held>,
) -> Result<Coordinates> {
    let Some(Held { metadata, .. }) = held else {
        return model::fit_coordinates(config, molecule, &data.train);
    };
    require_atoms(&metadata.coordinates, molecule, &run.checkpoint())?;
    let same = match metadata.coordinates {
        Coordinates::Internal(_) => config.coordinates.chart == Chart::Internal,
        Coordinates::Cartesian(_) => config.coordinates.chart == Chart::Cartesian,
    };
    ensure!(
        same,
        "{} holds a map in other coordinates than coordinates.chart asks for; train into another directory",
        run.checkpoint().display()
    );
    Ok(metadata.coordinates.clone())
}

/// A training under way.
struct Course<'a> {
    run: &'a RunDir,
    config: &'a Config,
    flow_map: FlowMap,
    coordinates: Coordinates,
    data_sha256: String,
    changes: Vec<Change>,
    trainer: Trainer,
    watch: DivergenceWatch,
    /// Whether the checkpoint that lies in the run directory is this training's.
    saved: bool,
}

impl<'a> Course<'a> {
    /// A new training, or one that goes on.
    fn start(
        run: &'a RunDir,
        config: &'a Config,
        flow_map: FlowMap,
        coordinates: Coordinates,
        data_sha256: String,
        held: Option<Held>,
    ) -> Result<Self> {
        let trainer_settings = trainer_config(config)?;
        let path = run.checkpoint();
        let saved = held.is_some();
        let (state, metadata) = match held {
            None => (initial(&flow_map, config), None),
            Some(Held {
                checkpoint,
                metadata,
                ..
            }) => {
                ensure!(
                    metadata.flow_map == flow_map.config(),
                    "{} holds another network than the configuration asks for; train into another directory",
                    path.display()
                );
                // The teacher is frozen in the first step that needs it.
                let freezes = trainer_settings.method.freezes_teacher()
                    && metadata.step > trainer_settings.consistency_from;
                let optimizer = trainer_settings.optimizer;
                let state = checkpoint::unpack(
                    &checkpoint,
                    &metadata,
                    &flow_map,
                    optimizer,
                    freezes,
                    &path,
                )?;
                (state, Some(metadata))
            }
        };
        let (optimizer, parameters) = (state.optimizer, state.parameters);
        let mut trainer = Trainer::new(&flow_map, parameters, optimizer, trainer_settings)?;
        trainer.frozen = state.frozen;
        trainer.skipped = metadata.as_ref().map_or(0, |m| m.skipped);
        let (watch, changes) = match metadata {
            Some(metadata) => (metadata.watch, metadata.changes),
            None => (None, Vec::new()),
        };
        Ok(Course {
            run,
            config,
            flow_map,
            coordinates,
            data_sha256,
            changes,
            trainer,
            watch: watch.unwrap_or_else(|| DivergenceWatch::new(LEADING_LOSS)),
            saved,
        })
    }

    /// Takes the steps that are left.
    fn run(mut self, frames: &Frames) -> Result<()> {
        let steps = self.config.training.steps as u64;
        let every = self.config.training.checkpoint_every as u64;
        let first = self.trainer.next_step();
        let mut log = MetricsLog::open(&self.run.metrics(), first.checked_sub(1))?;
        let mut progress = Progress::new("train", steps, first);
        let mut recent = Vec::new();
        let mut due = false;
        while self.trainer.next_step() < steps {
            let metrics = self.trainer.step(frames);
            let done = self.trainer.next_step();
            let at_checkpoint = done.is_multiple_of(every) || done == steps;
            // A checkpoint ends a line of the metrics, so that what is resumed from it logs the same lines.
            let at_line = done.is_multiple_of(METRICS_INTERVAL) || at_checkpoint;
            progress.set(done, || parts_of(&metrics));
            let mut found = self.watch.observe(metrics.observed());
            recent.push(metrics);
            if at_line || found.is_some() {
                log.append(&line(&recent))?;
                recent.clear();
            }
            // An interrupted training stops where a line of the metrics ends, so that resuming repeats nothing.
            let stop = at_line && done < steps && progress::interrupted();
            // A state in trouble is not kept: the one before it is still there, and the next line tries again.
            due |= at_checkpoint;
            if found.is_none() && at_line && (due || stop) {
                log.flush()?;
                match self.trouble(frames) {
                    None => {
                        self.save()?;
                        due = false;
                    }
                    Some(symptom) if done == steps => found = Some(self.watch.ends_with(symptom)),
                    Some(_) => {}
                }
            }
            if let Some(found) = found {
                log.flush()?;
                return self.fail(found);
            }
            if stop {
                return Err(progress::Interrupted.into());
            }
        }
        progress.finish("");
        if let Some(text) = self.metadata().unsteadiness() {
            progress::note(&format!(
                "note: {text}; a lower training.learning_rate may do better"
            ));
        }
        Ok(())
    }

    /// What is wrong with the state after the latest step. Its losses alone tell: those of a step are of the parameters before it.
    fn trouble(&mut self, frames: &Frames) -> Option<Symptom> {
        let losses = self.trainer.losses(frames)?;
        let symptom = self.watch.symptom(losses.observed());
        symptom.or_else(|| {
            (!self.trainer.is_finite()).then(|| Symptom {
                step: losses.step,
                part: "parameters".into(),
                value: None,
                start: None,
            })
        })
    }

    fn metadata(&self) -> ModelMetadata {
        ModelMetadata {
            flow_map: self.flow_map.config(),
            coordinates: self.coordinates.clone(),
            step: self.trainer.next_step(),
            skipped: self.trainer.skipped,
            calibration: None,
            settings: Some(Stage::Train.settings(self.config)),
            data_sha256: Some(self.data_sha256.clone()),
            changes: self.changes.clone(),
            watch: Some(self.watch.clone()),
            diverged: None,
        }
    }

    fn save(&mut self) -> Result<()> {
        let (trainer, metadata) = (&self.trainer, self.metadata());
        let frozen = trainer.frozen.as_deref();
        checkpoint::pack(&trainer.parameters, &trainer.optimizer, frozen, &metadata)?
            .write(&self.run.checkpoint())?;
        self.saved = true;
        Ok(())
    }

    /// Ends a training that diverges. The last checkpoint before that stays and is told; where there is none, it is the start.
    fn fail(&self, divergence: Divergence) -> Result<()> {
        let path = self.run.checkpoint();
        let (mut checkpoint, mut metadata) = if self.saved {
            let checkpoint = Checkpoint::read(&path)?;
            let metadata = ModelMetadata::of(&checkpoint, &path)?;
            (checkpoint, metadata)
        } else {
            let state = initial(&self.flow_map, self.config);
            let metadata = ModelMetadata {
                step: 0,
                skipped: 0,
                watch: None,
                ..self.metadata()
            };
            let packed = checkpoint::pack(&state.parameters, &state.optimizer, None, &metadata)?;
            (packed, metadata)
        };
        let text = format!(
            "{}; {} is the training before that, at step {}: change {} and go on with 'boltzmap train {root} --resume', or start anew without --resume",
            diverged(&divergence, self.config),
            path.display(),
            metadata.step,
            self.run.config().display(),
            root = self.run.root().display()
        );
        metadata.diverged = Some(Failure {
            divergence,
            settings: Stage::Train.settings(self.config),
        });
        checkpoint.metadata = serde_json::to_value(metadata)?;
        checkpoint.write(&path)?;
        Err(Diverged(text).into())
    }
}

/// The state before the first step.
fn initial(flow_map: &FlowMap, config: &Config) -> State {
    let parameters = Parameters::initialize(flow_map.layout(), config.seed);
    let optimizer = AdamW::new(
        configuration::optimizer(&config.training),
        parameters.flat(),
    );
    State {
        parameters,
        optimizer,
        frozen: None,
    }
}
