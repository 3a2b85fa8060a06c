//! Few-step sampling with the flow map, its likelihood by the head, and the exact likelihood of the same samples.

use boltzmap_autodiff::exec::{Batched, OutputRole};
use boltzmap_autodiff::jacobian::Jacobian;
use boltzmap_kernels::real::Real;

use crate::control::Control;
use crate::error::ModelError;
use crate::flow_map::FlowMap;
use crate::jacobians::{input_roles, step_jacobian};
use crate::parameters::Parameters;
use crate::schedule::Schedule;
use crate::walk::{Leg, Walk, require_finite};

/// States per block of the sampler: large enough for tall products, small enough for the cache.
const SAMPLER_BLOCK: usize = 16;
/// States per block when every state carries tangents.
const JACOBIAN_BLOCK: usize = 1;
/// Blocks between two progress reports.
const BLOCKS_PER_REPORT: usize = 64;

/// Final states with their log-density.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples<T> {
    /// `[n, T, C]`, at time 1 − ε.
    pub states: Vec<T>,
    /// log q by the head, `[n]`.
    pub log_density: Vec<f64>,
    /// Network evaluations per sample: one per step, two where the divergence head has parameters of its own.
    pub evaluations: usize,
}

/// Final states with log-densities by head and by exact Jacobians.
#[derive(Clone, Debug, PartialEq)]
pub struct ExactSamples<T> {
    /// `[n, T, C]`, at time 1 − ε.
    pub states: Vec<T>,
    /// log q by the head, `[n]`.
    pub log_density_head: Vec<f64>,
    /// log q of the sampler itself: Σ_k −log|det ∂X_k/∂x| on the subspace, `[n]`.
    pub log_density_exact: Vec<f64>,
    /// Head minus exact log-density each step adds, `[n, K]`; a row sums to `log_density_head − log_density_exact`.
    pub step_gaps: Vec<f64>,
    /// Steps, over all samples, whose determinant was not positive. Where there are any the map folds space over, is not
    /// injective, and even the exact change of variables is only a lower bound of the density.
    pub folded_steps: usize,
}

/// One step of many states, with both log-determinants.
#[derive(Clone, Debug, PartialEq)]
pub struct ExactStep<T> {
    /// X_{s,t}(x) `[n, T, C]`.
    pub states: Vec<T>,
    /// Λ_{s,t}(x) by the head, `[n]`.
    pub log_det_head: Vec<f64>,
    /// log|det ∂X_{s,t}/∂x| on the subspace, `[n]`.
    pub log_det_exact: Vec<f64>,
    /// Sign of the determinant, `[n]`.
    pub signs: Vec<f64>,
}

/// Runs the steps of a schedule with fixed parameters.
pub struct FewStepSampler<T: Real> {
    map: FlowMap,
    parameters: Parameters<T>,
    head: Option<Parameters<T>>,
    schedule: Schedule,
    step: Batched<T>,
}

/// Runs the same steps with the Jacobian of each, for exact determinants.
pub struct ExactSampler<T: Real> {
    map: FlowMap,
    parameters: Parameters<T>,
    schedule: Schedule,
    step: Batched<T>,
    jacobian: Jacobian<T>,
}

/// The step of a flow map over a batch: (parameters…, x, s, t) to (state, log-determinant by the head).
fn compiled_step<T: Real>(map: &FlowMap) -> Batched<T> {
    let outputs = vec![OutputRole::PerBlock { axis: 0 }; 2];
    let inputs = input_roles(map.layout().count(), 3);
    Batched::compile(&map.step_program(SAMPLER_BLOCK), inputs, outputs)
}

/// The same with a divergence head of its own: (parameters…, the head's parameters…, x, s, t).
fn compiled_step_with_head<T: Real>(map: &FlowMap) -> Batched<T> {
    let outputs = vec![OutputRole::PerBlock { axis: 0 }; 2];
    let inputs = input_roles(2 * map.layout().count(), 3);
    Batched::compile(&map.step_program_with_head(SAMPLER_BLOCK), inputs, outputs)
}

/// Number of states in an array.
///
/// # Errors
/// If the array is not a whole number of states.
pub(crate) fn count_states<T>(
    map: &FlowMap,
    what: &str,
    states: &[T],
) -> Result<usize, ModelError> {
    let size = map.state_size();
    if !states.len().is_multiple_of(size) {
        return Err(ModelError::Length {
            what: what.into(),
            expected: states.len().next_multiple_of(size),
            found: states.len(),
        });
    }
    Ok(states.len() / size)
}

impl<T: Real> FewStepSampler<T> {
    /// Compiles the step.
    pub fn new(map: &FlowMap, parameters: &Parameters<T>, schedule: &Schedule) -> Self {
        Self {
            map: map.clone(),
            parameters: parameters.clone(),
            head: None,
            schedule: schedule.clone(),
            step: compiled_step(map),
        }
    }

    /// As [`FewStepSampler::new`], with the log-density by a divergence head of its own, for example a calibrated one. The
    /// states are the same; each step evaluates the network twice.
    pub fn with_head(
        map: &FlowMap,
        parameters: &Parameters<T>,
        head: &Parameters<T>,
        schedule: &Schedule,
    ) -> Self {
        Self {
            map: map.clone(),
            parameters: parameters.clone(),
            head: Some(head.clone()),
            schedule: schedule.clone(),
            step: compiled_step_with_head(map),
        }
    }

    /// Draws samples `first .. first + n`. Sample i starts from the noise of stream `(seed, domain, i)` and is the same
    /// whatever else is drawn and however many threads run.
    ///
    /// # Errors
    /// If the caller cancels or a state or log-density is not finite.
    pub fn sample(
        &self,
        seed: u64,
        domain: u64,
        first: u64,
        n: usize,
        control: &Control,
    ) -> Result<Samples<T>, ModelError> {
        let (tokens, channels) = (self.map.tokens(), self.map.channels());
        let noise: Vec<T> = self
            .map
            .subspace()
            .noise(tokens, channels, seed, domain, first, n);
        self.transport(&noise, control)
    }

    /// Transports base noise `[n, T, C]` to data.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or a result is not finite.
    pub fn transport(&self, noise: &[T], control: &Control) -> Result<Samples<T>, ModelError> {
        count_states(&self.map, "the base noise", noise)?;
        let size = self.map.state_size();
        let mut states = noise.to_vec();
        let mut log_density =
            self.map
                .subspace()
                .gaussian_log_density(noise, self.map.tokens(), self.map.channels());
        let chunk = SAMPLER_BLOCK * BLOCKS_PER_REPORT;
        let mut next = vec![T::zero(); chunk * size];
        let [mut log_det, mut s, mut t] = [(); 3].map(|()| vec![T::zero(); chunk]);
        let mut parameters = self.parameters.slices();
        parameters.extend(self.head.iter().flat_map(Parameters::slices));
        let walk = Walk {
            schedule: &self.schedule,
            size,
            chunk,
        };
        walk.forwards(&mut states, control, |leg, states| {
            let n = leg.count;
            s[..n].fill(T::from_f64(leg.s));
            t[..n].fill(T::from_f64(leg.t));
            let mut inputs = parameters.clone();
            inputs.extend([&*states, &s[..n], &t[..n]]);
            let (next, log_det) = (&mut next[..n * size], &mut log_det[..n]);
            self.step.run(n, &inputs, &mut [&mut *next, &mut *log_det]);
            states.copy_from_slice(next);
            for (total, log_det) in log_density[leg.first..].iter_mut().zip(log_det) {
                *total -= Real::as_f64(*log_det);
            }
            Ok(())
        })?;
        require_finite("the log-density", &log_density, 1)?;
        Ok(Samples {
            states,
            log_density,
            evaluations: self.schedule.steps() * if self.head.is_some() { 2 } else { 1 },
        })
    }

    /// The schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

impl<T: Real> ExactSampler<T> {
    /// Compiles the step with its Jacobian. Tangents run in `T`; determinants are factorised in f64.
    pub fn new(map: &FlowMap, parameters: &Parameters<T>, schedule: &Schedule) -> Self {
        Self {
            map: map.clone(),
            parameters: parameters.clone(),
            schedule: schedule.clone(),
            step: compiled_step(map),
            jacobian: step_jacobian(map, JACOBIAN_BLOCK),
        }
    }

    /// One step of states x `[n, T, C]` from times s to times t `[n]`, for calibration of the head.
    ///
    /// # Errors
    /// If the arrays do not fit each other or a determinant is zero or not finite.
    pub fn step(&self, x: &[T], s: &[T], t: &[T]) -> Result<ExactStep<T>, ModelError> {
        let n = count_states(&self.map, "the states", x)?;
        for (what, times) in [("the start times", s), ("the end times", t)] {
            if times.len() != n {
                return Err(ModelError::Length {
                    what: what.into(),
                    expected: n,
                    found: times.len(),
                });
            }
        }
        let mut inputs = self.parameters.slices();
        inputs.extend([x, s, t]);
        let (mut states, mut log_det) = (vec![T::zero(); x.len()], vec![T::zero(); n]);
        self.step.run(n, &inputs, &mut [&mut states, &mut log_det]);
        let determinants = self.jacobian.log_abs_det(n, &inputs, None);
        let log_det_exact: Vec<f64> = determinants.iter().map(|d| d.0).collect();
        require_finite("the log-determinant of a step", &log_det_exact, 1)?;
        Ok(ExactStep {
            states,
            log_det_head: log_det.iter().map(|&v| Real::as_f64(v)).collect(),
            log_det_exact,
            signs: determinants.iter().map(|d| d.1).collect(),
        })
    }

    /// Transports base noise `[n, T, C]` to data with the schedule's steps and both likelihoods.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or a result is not finite.
    pub fn exact_log_density(
        &self,
        noise: &[T],
        control: &Control,
    ) -> Result<ExactSamples<T>, ModelError> {
        let n = count_states(&self.map, "the base noise", noise)?;
        let steps = self.schedule.steps();
        let base =
            self.map
                .subspace()
                .gaussian_log_density(noise, self.map.tokens(), self.map.channels());
        let mut result = ExactSamples {
            states: noise.to_vec(),
            log_density_head: base.clone(),
            log_density_exact: base,
            step_gaps: vec![0.0; n * steps],
            folded_steps: 0,
        };
        self.walk(&mut result.states, control, |leg, _, step| {
            for i in 0..leg.count {
                let at = leg.first + i;
                result.log_density_head[at] -= step.log_det_head[i];
                result.log_density_exact[at] -= step.log_det_exact[i];
                result.step_gaps[at * steps + leg.step] =
                    step.log_det_exact[i] - step.log_det_head[i];
            }
            result.folded_steps += step.signs.iter().filter(|sign| **sign <= 0.0).count();
        })?;
        Ok(result)
    }

    /// Takes base noise `[n, T, C]` through all steps, in place. After each, `visit` is told the leg, the chunk's states
    /// before the step and what the step made of them.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or a result is not finite.
    pub fn walk(
        &self,
        states: &mut [T],
        control: &Control,
        mut visit: impl FnMut(Leg, &[T], &ExactStep<T>),
    ) -> Result<(), ModelError> {
        count_states(&self.map, "the base noise", states)?;
        let walk = Walk {
            schedule: &self.schedule,
            size: self.map.state_size(),
            chunk: JACOBIAN_BLOCK * BLOCKS_PER_REPORT,
        };
        walk.forwards(states, control, |leg, states| {
            let [s, t] = [leg.s, leg.t].map(|time| vec![T::from_f64(time); leg.count]);
            let step = self.step(states, &s, &t)?;
            visit(leg, states, &step);
            states.copy_from_slice(&step.states);
            Ok(())
        })
    }
}
