//! AdamW with decoupled weight decay, gradient clipping by global norm, and an exponential moving average.

use boltzmap_kernels::elementwise::{AdamWStep, adamw_ema, squared_norm};
use serde::{Deserialize, Serialize};

/// Constants of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay β₁ of the mean of gradients.
    pub beta1: f64,
    /// Decay β₂ of the mean of squared gradients.
    pub beta2: f64,
    /// ε added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay λ: parameters shrink by lr·λ each step.
    pub weight_decay: f64,
    /// Largest global gradient norm; longer gradients are scaled down to it.
    pub clip_norm: f64,
    /// Decay of the moving average at the end; early steps use min(decay, (1+k)/(10+k)).
    pub ema_decay: f64,
}

/// State of the optimiser over one flat parameter buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Constants.
    pub config: AdamWConfig,
    /// Steps taken.
    pub step: u64,
    /// First moments.
    pub first_moment: Vec<f32>,
    /// Second moments.
    pub second_moment: Vec<f32>,
    /// Moving average of the parameters.
    pub average: Vec<f32>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Whether the update was applied; a gradient that is not finite is skipped.
    pub applied: bool,
}

impl AdamW {
    /// A fresh state; the moving average starts at the parameters.
    pub fn new(config: AdamWConfig, parameters: &[f32]) -> Self {
        Self {
            config,
            step: 0,
            first_moment: vec![0.0; parameters.len()],
            second_moment: vec![0.0; parameters.len()],
            average: parameters.to_vec(),
        }
    }

    /// One update of `parameters` along `gradients`, each multiplied by `gradient_scale` first (one over the batch
    /// size, when gradients are sums over samples).
    pub fn update(
        &mut self,
        parameters: &mut [f32],
        gradients: &[f32],
        gradient_scale: f64,
        learning_rate: f64,
    ) -> StepReport {
        let gradient_norm = squared_norm(gradients).sqrt() * gradient_scale;
        if !gradient_norm.is_finite() {
            return StepReport {
                gradient_norm,
                applied: false,
            };
        }
        self.step += 1;
        let clip = if gradient_norm > self.config.clip_norm {
            self.config.clip_norm / gradient_norm
        } else {
            1.0
        };
        let k = self.step as f64;
        let step = AdamWStep {
            step: self.step,
            learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            epsilon: self.config.epsilon,
            weight_decay: self.config.weight_decay,
            gradient_scale: gradient_scale * clip,
            ema_decay: self.config.ema_decay.min((1.0 + k) / (10.0 + k)),
        };
        adamw_ema(
            parameters,
            gradients,
            &mut self.first_moment,
            &mut self.second_moment,
            &mut self.average,
            step,
        );
        StepReport {
            gradient_norm,
            applied: true,
        }
    }
}
