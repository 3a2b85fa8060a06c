//! Self-guidance of likelihood flow maps (F2D2, arXiv 2512.02636): one gradient step on the noise before it is
//! transported, x₀ ↦ x₀' = x₀ + η ∇ℓ(x₀), where ℓ(x₀) = log p₀(x₀) − Σ_k Λ_k is the head's log-density of the sample that
//! x₀ becomes. With η > 0 samples move to where the model is denser. It costs one evaluation of all steps and one
//! backward pass more.
//!
//! **Guided samples are not distributed as the model.** Their density is that of another map, the update followed by the
//! steps:
//!
//! log q̃(x₁) = log p₀(x₀) − log|det(I + η H(x₀))| − Σ_k log|det ∂X_k/∂x|, H the Hessian of ℓ on the states' subspace,
//! the steps taken from x₀'.
//!
//! ℓ(x₀') is *not* log q̃(x₁), and as an importance weight it would be wrong. [`GuidedSampler::exact_log_density`]
//! takes I + η H as the Jacobian of the update, forward mode over reverse mode with d tangents through all steps, which
//! is dear for large d. Where the determinant of I + η H is not positive the update folds space over, and the change of
//! variables is only a lower bound of the density.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::exec::{Batched, OutputRole};
use boltzmap_autodiff::grad;
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::jacobian::Jacobian;
use boltzmap_kernels::real::Real;

use crate::control::Control;
use crate::deploy::{ExactSampler, FewStepSampler, count_states};
use crate::error::ModelError;
use crate::flow_map::FlowMap;
use crate::jacobians::{input_roles, jacobian};
use crate::parameters::Parameters;
use crate::schedule::Schedule;
use crate::walk::require_finite;

/// States per block: every step of a block is kept for the backward pass.
const BLOCK: usize = 4;
/// States between two looks at the cancel flag.
const CHUNK: usize = 256;

/// Noise after the gradient step.
#[derive(Clone, Debug, PartialEq)]
pub struct GuidedNoise<T> {
    /// x₀' `[n, T, C]`.
    pub noise: Vec<T>,
    /// ℓ(x₀), the head's log-density of the sample without guidance, `[n]`.
    pub log_density_before: Vec<f64>,
    /// ∇ℓ(x₀) on the subspace, `[n, T, C]`.
    pub gradients: Vec<T>,
}

/// Guided samples without their density.
#[derive(Clone, Debug, PartialEq)]
pub struct GuidedSamples<T> {
    /// `[n, T, C]`, at time 1 − ε.
    pub states: Vec<T>,
    /// ℓ(x₀), the head's log-density of the sample without guidance, `[n]`.
    pub log_density_before: Vec<f64>,
    /// ℓ(x₀'), what the head says of the guided sample, `[n]`: a score, not the density that guided samples have.
    pub log_density_after: Vec<f64>,
    /// Network evaluations per sample: the steps twice, and once backwards.
    pub evaluations: usize,
}

/// Guided samples with the density of the guided sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct ExactGuidedSamples<T> {
    /// `[n, T, C]`, at time 1 − ε.
    pub states: Vec<T>,
    /// log q̃, `[n]`.
    pub log_density: Vec<f64>,
    /// log|det(I + η H)|, `[n]`.
    pub update_log_det: Vec<f64>,
    /// Steps, over all samples and the update among them, whose determinant was not positive.
    pub folded_steps: usize,
}

/// Few-step sampler with self-guidance.
pub struct GuidedSampler<T: Real> {
    map: FlowMap,
    parameters: Parameters<T>,
    sampler: FewStepSampler<T>,
    exact: ExactSampler<T>,
    update: Batched<T>,
    update_jacobian: Jacobian<T>,
}

/// Program (parameters…, x₀ `[B, T, C]`) → `total` (the sum of ℓ over the block), `log_density` `[B]`: ℓ.
fn log_density_program(map: &FlowMap, schedule: &Schedule, batch: usize) -> Program {
    let b = Builder::new();
    let p = map.layout().bind(&b);
    let noise = b.input("x", &[batch, map.tokens(), map.channels()]);
    let constant = 0.5 * map.dimension() as f64 * (2.0 * std::f64::consts::PI).ln();
    let mut log_density = noise.square().sum(&[1, 2]) * -0.5 - constant; // [B]
    let mut state = noise;
    // Traced, not walked: all steps become one program, which is differentiated as a whole.
    for (s, t) in schedule.intervals() {
        let (s, t) = (b.constant(s, &[batch]), b.constant(t, &[batch]));
        let step = map.step(&p, state, s, t);
        log_density = log_density - step.log_det;
        state = step.state;
    }
    b.finish(&[
        ("total", log_density.sum(&[0])),
        ("log_density", log_density),
    ])
}

/// Program (parameters…, x₀ `[B, T, C]`) → `noise` (x₀') and `gradient` `[B, T, C]`, `log_density` `[B]`.
fn update_program(map: &FlowMap, schedule: &Schedule, step_size: f64, batch: usize) -> Program {
    let input = map.layout().count();
    let gradient = grad(&log_density_program(map, schedule, batch), &[input]);
    let b = Builder::new();
    let arguments: Vec<Var> = (0..gradient.inputs.len())
        .map(|i| b.input(&gradient.input_names[i], gradient.input_shape(i)))
        .collect();
    let outputs = b.call(&gradient, &arguments);
    let gradient = map.subspace().project(outputs[2]);
    b.finish(&[
        ("noise", arguments[input] + gradient * step_size),
        ("gradient", gradient),
        ("log_density", outputs[1]),
    ])
}

impl<T: Real> GuidedSampler<T> {
    /// Compiles the update of step size η, and the steps.
    ///
    /// # Errors
    /// If the step size is not finite.
    pub fn new(
        map: &FlowMap,
        parameters: &Parameters<T>,
        schedule: &Schedule,
        step_size: f64,
    ) -> Result<Self, ModelError> {
        if !step_size.is_finite() {
            return Err(ModelError::Configuration(format!(
                "the step size of the guidance is {step_size}; give it a finite number"
            )));
        }
        let outputs = vec![OutputRole::PerBlock { axis: 0 }; 3];
        let update = update_program(map, schedule, step_size, BLOCK);
        Ok(Self {
            map: map.clone(),
            parameters: parameters.clone(),
            sampler: FewStepSampler::new(map, parameters, schedule),
            exact: ExactSampler::new(map, parameters, schedule),
            update: Batched::compile(&update, input_roles(map.layout().count(), 1), outputs),
            update_jacobian: jacobian(map, &update_program(map, schedule, step_size, 1), 1),
        })
    }

    /// Takes the gradient step on noise `[n, T, C]`.
    ///
    /// # Errors
    /// If the array is not a whole number of finite states, the caller cancels, or a result is not finite.
    pub fn guide(&self, noise: &[T], control: &Control) -> Result<GuidedNoise<T>, ModelError> {
        let n = count_states(&self.map, "the base noise", noise)?;
        let size = self.map.state_size();
        require_finite("the state", noise, size)?;
        let mut result = GuidedNoise {
            noise: vec![T::zero(); n * size],
            log_density_before: Vec::with_capacity(n),
            gradients: vec![T::zero(); n * size],
        };
        for first in (0..n).step_by(CHUNK) {
            control.check()?;
            let count = CHUNK.min(n - first);
            let range = first * size..(first + count) * size;
            let mut inputs = self.parameters.slices();
            inputs.push(&noise[range.clone()]);
            let mut log_density = vec![T::zero(); count];
            self.update.run(
                count,
                &inputs,
                &mut [
                    &mut result.noise[range.clone()],
                    &mut result.gradients[range.clone()],
                    &mut log_density,
                ],
            );
            require_finite("the gradient", &result.gradients[range], size)
                .map_err(|error| error.of_later_sample(first))?;
            let values = log_density.iter().map(|&v| Real::as_f64(v));
            result.log_density_before.extend(values);
        }
        Ok(result)
    }

    /// Guides base noise `[n, T, C]` and transports it to data.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or a result is not finite.
    pub fn transport(
        &self,
        noise: &[T],
        control: &Control,
    ) -> Result<GuidedSamples<T>, ModelError> {
        let guided = self.guide(noise, control)?;
        let samples = self.sampler.transport(&guided.noise, control)?;
        Ok(GuidedSamples {
            states: samples.states,
            log_density_before: guided.log_density_before,
            log_density_after: samples.log_density,
            evaluations: 3 * samples.evaluations,
        })
    }

    /// Guides base noise `[n, T, C]` and transports it to data, with the density of what comes out.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or a result is not finite.
    pub fn exact_log_density(
        &self,
        noise: &[T],
        control: &Control,
    ) -> Result<ExactGuidedSamples<T>, ModelError> {
        let guided = self.guide(noise, control)?;
        let samples = self.exact.exact_log_density(&guided.noise, control)?;
        let n = samples.log_density_exact.len();
        let size = self.map.state_size();
        let mut result = ExactGuidedSamples {
            states: samples.states,
            log_density: Vec::with_capacity(n),
            update_log_det: Vec::with_capacity(n),
            folded_steps: samples.folded_steps,
        };
        for first in (0..n).step_by(CHUNK) {
            control.check()?;
            let count = CHUNK.min(n - first);
            let mut inputs = self.parameters.slices();
            inputs.push(&noise[first * size..(first + count) * size]);
            for (log_det, sign) in self.update_jacobian.log_abs_det(count, &inputs, None) {
                result.update_log_det.push(log_det);
                result.folded_steps += usize::from(sign <= 0.0);
            }
        }
        require_finite(
            "the log-determinant of the guidance",
            &result.update_log_det,
            1,
        )?;
        let base = |noise: &[T]| {
            self.map
                .subspace()
                .gaussian_log_density(noise, self.map.tokens(), self.map.channels())
        };
        let (before, after) = (base(noise), base(&guided.noise));
        for i in 0..n {
            // The steps' determinants alone are what the plain density differs by from the base at the guided noise.
            let steps = after[i] - samples.log_density_exact[i];
            result
                .log_density
                .push(before[i] - result.update_log_det[i] - steps);
        }
        Ok(result)
    }
}
