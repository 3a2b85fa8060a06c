//! Training at the size of a test: draws from a mixture, settings that suit a small map.

use boltzmap_kernels::random::Stream;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::schedule::Schedule;
use boltzmap_objectives::base::BaseDensity;
use boltzmap_objectives::method::Method;
use boltzmap_objectives::optimizer::AdamWConfig;
use boltzmap_objectives::oracles::GaussianMixture;
use boltzmap_objectives::schedule::WarmupCosine;
use boltzmap_objectives::trainer::{DataSource, Trainer, TrainerConfig};

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
    let start = TrainerConfig::scallop(schedule, steps, seed);
    TrainerConfig {
        method,
        block: 16,
        learning_rate: WarmupCosine {
            warmup_steps: 50,
            ..start.learning_rate
        },
        ..start
    }
}

/// A trainer from the start.
pub(crate) fn trainer(map: &FlowMap, config: TrainerConfig) -> Trainer {
    Trainer::start(map, config).unwrap()
}
