//! Training and calibration: `checkpoint.safetensors` and `metrics.jsonl`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use boltzmap_models::checkpoint::{Checkpoint, Tensor};
use boltzmap_models::control::Control;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::Parameters;
use boltzmap_objectives::calibration::{Calibration, CalibrationConfig};
use boltzmap_objectives::interpolant::Interpolant;
use boltzmap_objectives::losses::{ConsistencyWeights, DiagonalWeights, StopGradient};
use boltzmap_objectives::method::{F2d2, Instantiation, Method, ProbeDistribution};
use boltzmap_objectives::optimizer::{AdamW, AdamWConfig};
use boltzmap_objectives::schedule::WarmupCosine;
use boltzmap_objectives::times::{PairDistribution, TimeDistribution};
use boltzmap_objectives::trainer::{StepMetrics, Teacher, Trainer, TrainerConfig};

use super::data::Data;
use super::model::{
    self, AVERAGE_PREFIX, Coordinates, Frames, HEAD_PREFIX, ModelMetadata, TEACHER_PREFIX,
};
use super::molecule::Molecule;
use super::sample::{require_atoms, with_progress};
use crate::config::{
    Chart, Config, InstantiationKind, InterpolantKind, MethodKind, ProbeKind, TeacherKind,
    TrainingConfig,
};
use crate::progress::{self, Progress};
use crate::run_dir::{MetricsLog, RunDir};

/// Steps between two lines of `metrics.jsonl`, which hold means over those steps.
const METRICS_INTERVAL: u64 = 10;
/// Decay of the moving average during the calibration, which is shorter than the training.
const CALIBRATION_AVERAGE: f64 = 0.99;
/// Largest number of samples in one block of the batch. Fixed, because sums over a block are rounded as a block.
const LARGEST_BLOCK: usize = 32;

/// Batch sizes of the two losses and their common block.
fn batches(config: &Config) -> (usize, usize, usize) {
    let batch = config.training.batch;
    let diagonal = (batch as f64 * config.training.diagonal_fraction).round() as usize;
    let diagonal = match method(config) {
        Method::FlowMatching => batch,
        _ => diagonal.clamp(1, batch),
    };
    let consistency = batch - diagonal;
    // The largest block that divides both.
    let block = (1..=LARGEST_BLOCK.min(diagonal))
        .rev()
        .find(|block| diagonal.is_multiple_of(*block) && consistency.is_multiple_of(*block))
        .unwrap_or(1);
    (diagonal, consistency, block)
}

/// The method of a configuration.
pub fn method(config: &Config) -> Method {
    let training = &config.training;
    match training.method {
        MethodKind::Scallop => Method::Scallop,
        MethodKind::ScallopScalar => Method::ScallopScalar,
        MethodKind::F2d2 => Method::F2d2(F2d2 {
            instantiation: match training.f2d2_instantiation {
                InstantiationKind::Shortcut => Instantiation::Shortcut,
                InstantiationKind::MeanFlow => Instantiation::MeanFlow,
                InstantiationKind::Distilled => Instantiation::Distilled,
                InstantiationKind::Lagrangian => Instantiation::Lagrangian,
            },
            probes: training.f2d2_probes,
            probe_distribution: match training.f2d2_probe_distribution {
                ProbeKind::Rademacher => ProbeDistribution::Rademacher,
                ProbeKind::Gaussian => ProbeDistribution::Gaussian,
            },
        }),
        MethodKind::Falcon => Method::Falcon {
            average_weight: training.falcon_average_weight,
            cycle_weight: training.falcon_cycle_weight,
        },
        MethodKind::FlowMatching => Method::FlowMatching,
    }
}

/// The path between noise and data.
pub fn interpolant(config: &Config) -> Interpolant {
    match config.training.interpolant {
        InterpolantKind::Linear => Interpolant::linear(),
        InterpolantKind::Trigonometric => Interpolant::trigonometric(),
    }
}

/// The trainer's settings of a configuration.
pub(crate) fn trainer_config(config: &Config) -> Result<TrainerConfig> {
    let training = &config.training;
    let (diagonal_batch, consistency_batch, block) = batches(config);
    Ok(TrainerConfig {
        seed: config.seed,
        method: method(config),
        interpolant: interpolant(config),
        block,
        diagonal_batch,
        consistency_batch,
        diagonal_weights: DiagonalWeights {
            velocity: training.velocity_weight,
            divergence: training.divergence_weight,
        },
        consistency_weights: ConsistencyWeights {
            map: training.map_weight,
            divergence: training.log_det_weight,
        },
        stop_gradient: StopGradient::TargetAndArgument,
        teacher: match training.teacher {
            TeacherKind::Online => Teacher::Online,
            TeacherKind::Average => Teacher::MovingAverage,
        },
        consistency_from: (training.steps as f64 * training.distillation_start) as u64,
        times: TimeDistribution {
            epsilon: training.epsilon,
            data_end_fraction: training.data_end_fraction,
        },
        pairs: PairDistribution {
            times: model::schedule(config)?.times().to_vec(),
            start_fraction: training.start_fraction,
            end_fraction: training.end_fraction,
        },
        learning_rate: WarmupCosine {
            peak: training.learning_rate,
            warmup_steps: training.warmup as u64,
            total_steps: training.steps as u64,
            final_fraction: 0.0,
        },
        optimizer: optimizer(training),
    })
}

/// Names of the tensors that only the training needs.
const MOMENTS: [&str; 2] = ["optimizer/first_moment", "optimizer/second_moment"];

fn save(
    run: &RunDir,
    flow_map: &FlowMap,
    coordinates: &Coordinates,
    trainer: &Trainer,
) -> Result<()> {
    let metadata = ModelMetadata {
        flow_map: flow_map.config(),
        coordinates: coordinates.clone(),
        step: trainer.next_step(),
        skipped: trainer.skipped,
        calibration: None,
    };
    let mut checkpoint = Checkpoint::new(serde_json::to_value(metadata)?);
    checkpoint.insert_parameters("", &trainer.parameters);
    let average = Parameters::from_flat(
        trainer.parameters.layout(),
        trainer.optimizer.average.clone(),
    )?;
    checkpoint.insert_parameters(AVERAGE_PREFIX, &average);
    if let Some(frozen) = &trainer.frozen {
        let teacher = Parameters::from_flat(trainer.parameters.layout(), frozen.clone())?;
        checkpoint.insert_parameters(TEACHER_PREFIX, &teacher);
    }
    let moments = [
        &trainer.optimizer.first_moment,
        &trainer.optimizer.second_moment,
    ];
    for (name, values) in MOMENTS.into_iter().zip(moments) {
        checkpoint.tensors.insert(
            name.into(),
            Tensor {
                shape: vec![values.len()],
                values: values.clone(),
            },
        );
    }
    Ok(checkpoint.write(&run.checkpoint())?)
}

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

/// Reads one of the optimiser's moments, which has one number per parameter.
fn moment(
    checkpoint: &Checkpoint,
    name: &str,
    parameters: &Parameters<f32>,
    path: &Path,
) -> Result<Vec<f32>> {
    let values = &checkpoint.tensor(name)?.values;
    let (held, expected) = (values.len(), parameters.flat().len());
    ensure!(
        held == expected,
        "{name} in {} holds {held} numbers where the network has {expected} parameters; train again",
        path.display()
    );
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        bail!(
            "{name} in {} holds {} at element {at}; train again",
            path.display(),
            values[at]
        );
    }
    Ok(values.clone())
}

/// Steps of the optimiser: those of the training that were not skipped.
fn applied_steps(metadata: &ModelMetadata, path: &Path) -> Result<u64> {
    metadata
        .step
        .checked_sub(metadata.skipped)
        .with_context(|| {
            format!(
                "{} counts more skipped steps ({}) than steps ({}); train again",
                path.display(),
                metadata.skipped,
                metadata.step
            )
        })
}

/// Trains, from the checkpoint if `resume` finds one.
pub fn train(run: &RunDir, config: &Config, resume: bool) -> Result<()> {
    let molecule = Molecule::new(config)?;
    let data = Data::read(run, &molecule)?;
    let settings = trainer_config(config)?;
    let optimizer_config = settings.optimizer;
    let steps = config.training.steps as u64;

    let path = run.checkpoint();
    let held = if resume && path.exists() {
        let checkpoint = Checkpoint::read(&path)?;
        let metadata = ModelMetadata::of(&checkpoint, &path)?;
        Some((checkpoint, metadata))
    } else {
        None
    };
    let coordinates = match &held {
        Some((_, metadata)) => {
            require_atoms(&metadata.coordinates, &molecule, &path)?;
            let same = match metadata.coordinates {
                Coordinates::Internal(_) => config.coordinates.chart == Chart::Internal,
                Coordinates::Cartesian(_) => config.coordinates.chart == Chart::Cartesian,
            };
            ensure!(
                same,
                "{} holds a map in other coordinates than coordinates.chart asks for; train into another directory",
                path.display()
            );
            metadata.coordinates.clone()
        }
        None => Coordinates::fit(config, &molecule, &data.train)?,
    };
    let frames = Frames::new(&coordinates, &data.train)?;
    let map_config = model::flow_map_config(config, &coordinates, &molecule);
    let flow_map = FlowMap::new(&map_config)?;
    let freezing = settings.method.freezes_teacher();
    let (parameters, optimizer, skipped, frozen) = match &held {
        None => {
            let parameters = Parameters::initialize(flow_map.layout(), config.seed);
            let optimizer = AdamW::new(optimizer_config, parameters.flat());
            (parameters, optimizer, 0, None)
        }
        Some((checkpoint, metadata)) => {
            ensure!(
                metadata.flow_map == map_config,
                "{} holds another network than the configuration asks for; train into another directory",
                path.display()
            );
            let parameters = |prefix: &str| {
                checkpoint
                    .parameters(prefix, flow_map.layout())
                    .with_context(|| format!("cannot use {}", path.display()))
            };
            let average = parameters(AVERAGE_PREFIX)?;
            // The teacher is frozen in the first step that needs it.
            let frozen = if freezing && metadata.step > settings.consistency_from {
                Some(parameters(TEACHER_PREFIX)?.flat().to_vec())
            } else {
                None
            };
            let parameters = parameters("")?;
            let moment = |name: &str| moment(checkpoint, name, &parameters, &path);
            let optimizer = AdamW {
                config: optimizer_config,
                step: applied_steps(metadata, &path)?,
                first_moment: moment(MOMENTS[0])?,
                second_moment: moment(MOMENTS[1])?,
                average: average.flat().to_vec(),
            };
            (parameters, optimizer, metadata.skipped, frozen)
        }
    };
    let mut trainer = Trainer::new(&flow_map, parameters, optimizer, settings);
    trainer.skipped = skipped;
    trainer.frozen = frozen;

    let first = trainer.next_step();
    let mut log = MetricsLog::open(&run.metrics(), first.checked_sub(1))?;
    let mut progress = Progress::new("train", steps, first);
    let mut recent = Vec::new();
    while trainer.next_step() < steps {
        let metrics = trainer.step(&frames);
        let done = trainer.next_step();
        let at_checkpoint =
            done.is_multiple_of(config.training.checkpoint_every as u64) || done == steps;
        // A checkpoint ends a line of the metrics, so that what is resumed from it logs the same lines.
        let at_line = done.is_multiple_of(METRICS_INTERVAL) || at_checkpoint;
        progress.set(done, || parts_of(&metrics));
        recent.push(metrics);
        if at_line {
            log.append(&line(&recent))?;
            recent.clear();
        }
        // An interrupted training stops where a line of the metrics ends, so that resuming repeats nothing.
        let stop = at_line && done < steps && progress::interrupted();
        if stop || at_checkpoint {
            log.flush()?;
            save(run, &flow_map, &coordinates, &trainer)?;
        }
        if stop {
            return Err(progress::Interrupted.into());
        }
    }
    progress.finish("");
    calibrate(run, config)
}

/// Fits a divergence head of its own to the finished map, unless the checkpoint says that this was done. It starts anew when
/// it was interrupted.
fn calibrate(run: &RunDir, config: &Config) -> Result<()> {
    let path = run.checkpoint();
    let mut checkpoint = Checkpoint::read(&path)?;
    let mut metadata = ModelMetadata::of(&checkpoint, &path)?;
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
    let (head, report) = result?;
    progress.finish("");
    if report.best_step > 0 {
        checkpoint.insert_parameters(HEAD_PREFIX, &head);
    }
    metadata.calibration = Some(report);
    checkpoint.metadata = serde_json::to_value(metadata)?;
    Ok(checkpoint.write(&path)?)
}

/// The settings of a calibration.
pub(crate) fn calibration_config(config: &Config) -> CalibrationConfig {
    let (calibration, training) = (&config.calibration, &config.training);
    let block = (1..=LARGEST_BLOCK.min(calibration.batch))
        .rev()
        .find(|block| calibration.batch.is_multiple_of(*block))
        .unwrap_or(1);
    CalibrationConfig {
        seed: config.seed,
        steps: calibration.steps as u64,
        batch: calibration.batch,
        block,
        trajectories: calibration.trajectories,
        held_out: calibration.held_out,
        refresh: calibration.refresh as u64,
        evaluate_every: calibration.evaluate_every as u64,
        patience: calibration.patience as u64,
        learning_rate: WarmupCosine {
            peak: calibration.learning_rate,
            warmup_steps: 0,
            total_steps: calibration.steps as u64,
            final_fraction: 0.0,
        },
        optimizer: AdamWConfig {
            ema_decay: CALIBRATION_AVERAGE,
            ..optimizer(training)
        },
    }
}

fn optimizer(training: &TrainingConfig) -> AdamWConfig {
    AdamWConfig {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: training.weight_decay,
        clip_norm: training.clip,
        ema_decay: training.ema,
    }
}
