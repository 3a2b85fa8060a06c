//! The continuous flow: the ordinary differential equation dx/dt = v(x, t) integrated together with
//! d log q/dt = −tr ∂v/∂x, the trace exact or by Hutchinson's estimator. With the exact trace it is the truth that
//! few-step maps are compared with.

use boltzmap_kernels::real::Real;
use rayon::prelude::*;

use crate::control::Control;
use crate::deploy::count_states;
use crate::divergence::{Divergence, Estimate, ExactTrace};
use crate::error::ModelError;
use crate::flow_map::FlowMap;
use crate::ode::{Statistics, Tableau, Tolerances, integrate_adaptive, integrate_fixed};
use crate::parameters::Parameters;
use crate::walk::require_finite;

/// How to integrate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Integrator {
    /// Steps chosen by the error estimate of a method with an embedded solution.
    Adaptive {
        /// The method.
        tableau: Tableau,
        /// Errors allowed.
        tolerances: Tolerances,
    },
    /// Equal steps of any method.
    Fixed {
        /// The method.
        tableau: Tableau,
        /// Number of steps.
        steps: usize,
    },
}

impl Integrator {
    /// Dormand–Prince 5(4) with adaptive steps.
    pub const fn dormand_prince(tolerances: Tolerances) -> Self {
        Integrator::Adaptive {
            tableau: Tableau::DORMAND_PRINCE,
            tolerances,
        }
    }

    /// Tsitouras 5(4) with adaptive steps.
    pub const fn tsitouras(tolerances: Tolerances) -> Self {
        Integrator::Adaptive {
            tableau: Tableau::TSITOURAS,
            tolerances,
        }
    }
}

/// Result of an integration.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSamples<T> {
    /// States at the end of the integration `[n, T, C]`: data forwards, noise backwards.
    pub states: Vec<T>,
    /// log q at the data end `[n]`.
    pub log_density: Vec<f64>,
    /// Variance of `log_density` `[n]` that comes from the estimate of the divergence: 0 with the exact trace, `None`
    /// with a single probe, which tells nothing of it.
    pub log_density_variance: Option<Vec<f64>>,
    /// The largest counts over the blocks.
    pub statistics: Statistics,
}

/// Continuous flow of a flow map's diagonal velocity between t = 0 and t = 1 − ε.
pub struct ContinuousFlow<T: Real, D = ExactTrace<T>> {
    map: FlowMap,
    parameters: Parameters<T>,
    divergence: D,
    end: f64,
    integrator: Integrator,
}

impl<T: Real> ContinuousFlow<T> {
    /// Compiles the velocity with its exact trace for blocks of `block` states. A block shares its steps, which follow its
    /// most demanding state, so results of adaptive steps depend on the block size within the tolerance, but never on the
    /// threads.
    ///
    /// # Errors
    /// If `block` is 0, `epsilon` is outside [0, 1), or the integrator cannot work: [`ContinuousFlow::with_divergence`].
    pub fn new(
        map: &FlowMap,
        parameters: &Parameters<T>,
        epsilon: f64,
        block: usize,
        integrator: Integrator,
    ) -> Result<Self, ModelError> {
        let divergence = ExactTrace::new(map, block)?;
        Self::with_divergence(map, parameters, epsilon, divergence, integrator)
    }
}

impl<T: Real, D: Divergence<T>> ContinuousFlow<T, D> {
    /// As [`ContinuousFlow::new`], with the divergence and block of `divergence`, which was made for the same map.
    ///
    /// # Errors
    /// If `epsilon` is outside [0, 1), a method without an error estimate is to choose its steps, or there are no steps.
    pub fn with_divergence(
        map: &FlowMap,
        parameters: &Parameters<T>,
        epsilon: f64,
        divergence: D,
        integrator: Integrator,
    ) -> Result<Self, ModelError> {
        if !(0.0..1.0).contains(&epsilon) {
            return Err(ModelError::Configuration(format!(
                "ε is {epsilon}; it must lie in [0, 1)"
            )));
        }
        match integrator {
            Integrator::Adaptive { tableau, .. } if tableau.embedded.is_none() => {
                return Err(ModelError::Configuration(format!(
                    "the {} method has no error estimate to choose its steps by; take equal steps, or Tsitouras 5(4)",
                    tableau.name
                )));
            }
            Integrator::Fixed { steps: 0, .. } => {
                return Err(ModelError::Configuration(
                    "an integration has 0 steps; give it at least 1".into(),
                ));
            }
            Integrator::Adaptive { .. } | Integrator::Fixed { .. } => {}
        }
        Ok(Self {
            map: map.clone(),
            parameters: parameters.clone(),
            divergence,
            end: 1.0 - epsilon,
            integrator,
        })
    }

    /// Transports base noise `[n, T, C]` to data: log q(x) = log p₀(z) − ∫ tr ∂v/∂x dt. The samples have the numbers
    /// `first ..`, which is what random probes depend on.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or the integration fails.
    pub fn transport_from(
        &self,
        first: u64,
        noise: &[T],
        control: &Control,
    ) -> Result<FlowSamples<T>, ModelError> {
        let (mut result, divergence) = self.integrate(first, noise, 0.0, self.end, control)?;
        let base =
            self.map
                .subspace()
                .gaussian_log_density(noise, self.map.tokens(), self.map.channels());
        result.set_density(&base, &divergence, -1.0);
        Ok(result)
    }

    /// [`ContinuousFlow::transport_from`] of samples numbered from 0.
    ///
    /// # Errors
    /// As there.
    pub fn transport(&self, noise: &[T], control: &Control) -> Result<FlowSamples<T>, ModelError> {
        self.transport_from(0, noise, control)
    }

    /// Log-density of given data states `[n, T, C]`, integrating backwards to their noise. The samples have the numbers
    /// `first ..`, which is what random probes depend on.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or the integration fails.
    pub fn log_density_from(
        &self,
        first: u64,
        states: &[T],
        control: &Control,
    ) -> Result<FlowSamples<T>, ModelError> {
        let (mut result, divergence) = self.integrate(first, states, self.end, 0.0, control)?;
        let base = self.map.subspace().gaussian_log_density(
            &result.states,
            self.map.tokens(),
            self.map.channels(),
        );
        // The integral runs from data to noise, so it already has the sign that the sum over time reversed needs.
        result.set_density(&base, &divergence, 1.0);
        Ok(result)
    }

    /// [`ContinuousFlow::log_density_from`] of samples numbered from 0.
    ///
    /// # Errors
    /// As there.
    pub fn log_density(
        &self,
        states: &[T],
        control: &Control,
    ) -> Result<FlowSamples<T>, ModelError> {
        self.log_density_from(0, states, control)
    }

    /// Integrates states and ∫ tr ∂v/∂x dt from `from` to `to`.
    fn integrate(
        &self,
        first: u64,
        states: &[T],
        from: f64,
        to: f64,
        control: &Control,
    ) -> Result<(FlowSamples<T>, Vec<Estimate>), ModelError> {
        let n = count_states(&self.map, "the states", states)?;
        let (size, block) = (self.map.state_size(), self.divergence.block());
        require_finite("the state", states, size)?;
        let blocks: Vec<usize> = (0..n).step_by(block).collect();
        let done = std::sync::Mutex::new(0);
        let results: Result<Vec<_>, ModelError> = blocks
            .par_iter()
            .map(|&start| {
                let count = block.min(n - start);
                let result = self.integrate_block(
                    first + start as u64,
                    &states[start * size..(start + count) * size],
                    from,
                    to,
                    control,
                )?;
                let mut done = done
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                *done += count;
                control.report(*done, n);
                Ok(result)
            })
            .collect();
        let mut samples = FlowSamples {
            states: Vec::with_capacity(states.len()),
            log_density: Vec::new(),
            log_density_variance: None,
            statistics: Statistics::default(),
        };
        let mut integrals = Vec::with_capacity(n);
        for (rows, count, statistics) in results? {
            let estimates = self.divergence.estimates();
            for row in rows.chunks_exact(size + estimates).take(count) {
                samples.states.extend_from_slice(&row[..size]);
                let of_row: Vec<f64> = row[size..].iter().map(|&v| Real::as_f64(v)).collect();
                integrals.push(self.divergence.combine(&of_row));
            }
            samples.statistics = samples.statistics.worst(statistics);
        }
        Ok((samples, integrals))
    }

    /// One block; rows of the result are (state, integrals of the estimates of the divergence).
    fn integrate_block(
        &self,
        first: u64,
        states: &[T],
        from: f64,
        to: f64,
        control: &Control,
    ) -> Result<(Vec<T>, usize, Statistics), ModelError> {
        let (size, block) = (self.map.state_size(), self.divergence.block());
        let count = states.len() / size;
        let row = size + self.divergence.estimates();
        let mut y = vec![T::zero(); block * row];
        // A short last block repeats its last state.
        let source = |i: usize| i.min(count - 1);
        for (i, target) in y.chunks_exact_mut(row).enumerate() {
            target[..size].copy_from_slice(&states[source(i) * size..(source(i) + 1) * size]);
        }
        let numbers: Vec<u64> = (0..block).map(|i| first + source(i) as u64).collect();
        let probes = self.divergence.probes(&numbers);
        let parameters = self.parameters.slices();
        let (mut x, mut velocity) = (vec![T::zero(); block * size], vec![T::zero(); block * size]);
        let system = |t: f64, y: &[T], slope: &mut [T]| {
            control.check()?;
            for (x, row) in x.chunks_exact_mut(size).zip(y.chunks_exact(row)) {
                x.copy_from_slice(&row[..size]);
            }
            let times = vec![T::from_f64(t); block];
            let mut inputs = parameters.clone();
            inputs.extend([x.as_slice(), &times]);
            let divergence = self
                .divergence
                .evaluate(block, &inputs, &probes, &mut velocity);
            let estimates = divergence.chunks_exact(row - size);
            for ((row, velocity), estimates) in slope
                .chunks_exact_mut(row)
                .zip(velocity.chunks_exact(size))
                .zip(estimates)
            {
                row[..size].copy_from_slice(velocity);
                for (slope, estimate) in row[size..].iter_mut().zip(estimates) {
                    *slope = T::from_f64(*estimate);
                }
            }
            Ok(())
        };
        let statistics = match &self.integrator {
            Integrator::Adaptive {
                tableau,
                tolerances,
            } => integrate_adaptive(tableau, system, &mut y, row, from, to, tolerances)?,
            Integrator::Fixed { tableau, steps } => {
                integrate_fixed(tableau, system, &mut y, from, to, *steps)?
            }
        };
        Ok((y, count, statistics))
    }
}

impl<T> FlowSamples<T> {
    /// log q = base + sign · integral, with the integrals' variances.
    fn set_density(&mut self, base: &[f64], integrals: &[Estimate], sign: f64) {
        let pairs = base.iter().zip(integrals);
        self.log_density = pairs
            .map(|(base, integral)| base + sign * integral.value)
            .collect();
        self.log_density_variance = integrals.iter().map(|integral| integral.variance).collect();
    }
}
