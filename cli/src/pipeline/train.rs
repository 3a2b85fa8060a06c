//! Training: `checkpoint.safetensors` and `metrics.jsonl`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use boltzmap_models::checkpoint::{Checkpoint, Tensor};
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::Parameters;
use boltzmap_objectives::losses::{ConsistencyWeights, DiagonalWeights, StopGradient};
use boltzmap_objectives::optimizer::{AdamW, AdamWConfig};
use boltzmap_objectives::schedule::WarmupCosine;
use boltzmap_objectives::times::{PairDistribution, TimeDistribution};
use boltzmap_objectives::trainer::{StepMetrics, Teacher, Trainer, TrainerConfig};

use super::data::Data;
use super::model::{self, AVERAGE_PREFIX, Coordinates, Frames, ModelMetadata};
use super::molecule::Molecule;
use super::sample::require_atoms;
use crate::config::{Chart, Config, TeacherKind};
use crate::progress::{self, Progress};
use crate::run_dir::{MetricsLog, RunDir};

/// Steps between two lines of `metrics.jsonl`, which hold means over those steps.
const METRICS_INTERVAL: u64 = 10;
/// Largest number of samples in one block of the batch. Fixed, because sums over a block are rounded as a block.
const LARGEST_BLOCK: usize = 32;

/// Batch sizes of the two losses and their common block.
fn batches(config: &Config) -> (usize, usize, usize) {
    let batch = config.training.batch;
    let diagonal = (batch as f64 * config.training.diagonal_fraction).round() as usize;
    let diagonal = diagonal.clamp(1, batch);
    let consistency = batch - diagonal;
    // The largest block that divides both.
    let block = (1..=LARGEST_BLOCK.min(diagonal))
        .rev()
        .find(|block| diagonal.is_multiple_of(*block) && consistency.is_multiple_of(*block))
        .unwrap_or(1);
    (diagonal, consistency, block)
}

fn trainer_config(config: &Config) -> Result<TrainerConfig> {
    let training = &config.training;
    let (diagonal_batch, consistency_batch, block) = batches(config);
    Ok(TrainerConfig {
        seed: config.seed,
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
        optimizer: AdamWConfig {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: training.weight_decay,
            clip_norm: training.clip,
            ema_decay: training.ema,
        },
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
    };
    let mut checkpoint = Checkpoint::new(serde_json::to_value(metadata)?);
    checkpoint.insert_parameters("", &trainer.parameters);
    let average = Parameters::from_flat(
        trainer.parameters.layout(),
        trainer.optimizer.average.clone(),
    )?;
    checkpoint.insert_parameters(AVERAGE_PREFIX, &average);
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
    let mean = |part: fn(&StepMetrics) -> f64| {
        metrics.iter().map(part).sum::<f64>() / metrics.len() as f64
    };
    let last = metrics[metrics.len() - 1];
    serde_json::json!({
        "step": last.step,
        "flow_matching": mean(|m| m.flow_matching),
        "divergence": mean(|m| m.divergence),
        "map_consistency": mean(|m| m.map_consistency),
        "divergence_consistency": mean(|m| m.divergence_consistency),
        "gradient_norm": mean(|m| m.gradient_norm),
        "learning_rate": last.learning_rate,
        "skipped": metrics.iter().filter(|m| !m.applied).count(),
    })
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
    let map_config = model::flow_map_config(config, &coordinates);
    let flow_map = FlowMap::new(&map_config)?;
    let (parameters, optimizer, skipped) = match &held {
        None => {
            let parameters = Parameters::initialize(flow_map.layout(), config.seed);
            let optimizer = AdamW::new(optimizer_config, parameters.flat());
            (parameters, optimizer, 0)
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
            let parameters = parameters("")?;
            let moment = |name: &str| moment(checkpoint, name, &parameters, &path);
            let optimizer = AdamW {
                config: optimizer_config,
                step: applied_steps(metadata, &path)?,
                first_moment: moment(MOMENTS[0])?,
                second_moment: moment(MOMENTS[1])?,
                average: average.flat().to_vec(),
            };
            (parameters, optimizer, metadata.skipped)
        }
    };
    let mut trainer = Trainer::new(&flow_map, parameters, optimizer, settings);
    trainer.skipped = skipped;

    let first = trainer.next_step();
    let mut log = MetricsLog::open(&run.metrics(), first.checked_sub(1))?;
    let mut progress = Progress::new("train", steps, first);
    let mut recent = Vec::new();
    while trainer.next_step() < steps {
        let metrics = trainer.step(&frames);
        recent.push(metrics);
        let done = trainer.next_step();
        let at_checkpoint =
            done.is_multiple_of(config.training.checkpoint_every as u64) || done == steps;
        // A checkpoint ends a line of the metrics, so that what is resumed from it logs the same lines.
        let at_line = done.is_multiple_of(METRICS_INTERVAL) || at_checkpoint;
        if at_line {
            log.append(&line(&recent))?;
            recent.clear();
        }
        progress.set(done, || {
            format!(
                "flow matching {:.4}, divergence {:.3}, map {:.2e}, log-det {:.2e}",
                metrics.flow_matching,
                metrics.divergence,
                metrics.map_consistency,
                metrics.divergence_consistency
            )
        });
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
    Ok(())
}
