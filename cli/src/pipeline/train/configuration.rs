//! The configuration as the trainer's and the calibration's own settings.

use anyhow::Result;
use boltzmap_objectives::calibration::CalibrationConfig;
use boltzmap_objectives::interpolant::Interpolant;
use boltzmap_objectives::losses::{ConsistencyWeights, DiagonalWeights, StopGradient};
use boltzmap_objectives::method::{F2d2, Instantiation, Method, ProbeDistribution};
use boltzmap_objectives::optimizer::AdamWConfig;
use boltzmap_objectives::schedule::WarmupCosine;
use boltzmap_objectives::times::{PairDistribution, TimeDistribution};
use boltzmap_objectives::trainer::{Teacher, TrainerConfig};

use super::super::model;
use crate::config::{
    Config, InstantiationKind, InterpolantKind, MethodKind, ProbeKind, TeacherKind, TrainingConfig,
};

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

pub(super) fn optimizer(training: &TrainingConfig) -> AdamWConfig {
    AdamWConfig {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: training.weight_decay,
        clip_norm: training.clip,
        ema_decay: training.ema,
    }
}
