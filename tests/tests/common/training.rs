//! Training at the size of a test: draws from a mixture, settings that suit a small map.

use boltzmap_kernels::random::Stream;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_objectives::base::BaseDensity;
use boltzmap_objectives::interpolant::Interpolant;
use boltzmap_objectives::losses::{ConsistencyWeights, DiagonalWeights, StopGradient};
use boltzmap_objectives::method::Method;
use boltzmap_objectives::optimizer::{AdamW, AdamWConfig};
use boltzmap_objectives::oracles::GaussianMixture;
use boltzmap_objectives::schedule::WarmupCosine;
use boltzmap_objectives::times::{PairDistribution, TimeDistribution};
use boltzmap_objectives::trainer::{DataSource, Teacher, Trainer, TrainerConfig};

/// Unlimited independent draws.
pub(crate) struct Draws(pub(crate) GaussianMixture);

impl DataSource for Draws {
    fn len(&self) -> usize {
        1 << 30
    }

    fn write(&self, _index: usize, stream: &mut Stream, state: &mut [f32]) {
        let mut drawn = vec![0.0; state.len()];
        self.0.sample(stream, &mut drawn);
        for (value, drawn) in state.iter_mut().zip(drawn) {
            *value = drawn as f32;
        }
    }
}

/// AdamW with the moving average given.
pub(crate) fn optimizer(ema_decay: f64) -> AdamWConfig {
    AdamWConfig {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        clip_norm: 1.0,
        ema_decay,
    }
}

/// Settings of one method over `steps` steps.
pub(crate) fn config(method: Method, seed: u64, steps: u64, schedule: &Schedule) -> TrainerConfig {
    TrainerConfig {
        seed,
        method,
        interpolant: Interpolant::linear(),
        block: 16,
        diagonal_batch: 96,
        consistency_batch: 32,
        diagonal_weights: DiagonalWeights {
            velocity: 1.0,
            divergence: 1.0,
        },
        consistency_weights: ConsistencyWeights {
            map: 1.0,
            divergence: 1.0,
        },
        stop_gradient: StopGradient::TargetAndArgument,
        teacher: Teacher::MovingAverage,
        consistency_from: steps / 4,
        times: TimeDistribution {
            epsilon: schedule.epsilon(),
            data_end_fraction: 0.3,
        },
        pairs: PairDistribution {
            times: schedule.times().to_vec(),
            start_fraction: 0.5,
            end_fraction: 0.25,
        },
        learning_rate: WarmupCosine {
            peak: 3e-3,
            warmup_steps: 50,
            total_steps: steps,
            final_fraction: 0.0,
        },
        optimizer: optimizer(0.995),
    }
}

/// A trainer from the start.
pub(crate) fn trainer(map: &FlowMap, config: TrainerConfig) -> Trainer {
    let parameters = Parameters::<f32>::initialize(map.layout(), config.seed);
    let optimizer = AdamW::new(config.optimizer, parameters.flat());
    Trainer::new(map, parameters, optimizer, config).unwrap()
}
