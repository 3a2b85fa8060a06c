//! The continuous flow: the ordinary differential equation dx/dt = v(x, t) integrated together with
//! d log q/dt = −tr ∂v/∂x, the trace exact. The truth that few-step maps are compared with.

use boltzmap_autodiff::jacobian::Jacobian;
use boltzmap_kernels::real::Real;
use rayon::prelude::*;

use crate::control::Control;
use crate::deploy::{count_states, require_finite};
use crate::error::ModelError;
use crate::flow_map::FlowMap;
use crate::jacobians::velocity_jacobian;
use crate::ode::{Statistics, Tableau, Tolerances, integrate_adaptive, integrate_fixed};
use crate::parameters::Parameters;

/// How to integrate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Integrator {
    /// Dormand–Prince 5(4) with adaptive steps.
    Adaptive(Tolerances),
    /// Equal steps of any method.
    Fixed {
        /// The method.
        tableau: Tableau,
        /// Number of steps.
        steps: usize,
    },
}

/// Result of an integration.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSamples<T> {
    /// States at the end of the integration `[n, T, C]`: data forwards, noise backwards.
    pub states: Vec<T>,
    /// log q at the data end `[n]`.
    pub log_density: Vec<f64>,
    /// The largest counts over the blocks.
    pub statistics: Statistics,
}

/// Continuous flow of a flow map's diagonal velocity between t = 0 and t = 1 − ε.
pub struct ContinuousFlow<T: Real> {
    map: FlowMap,
    parameters: Parameters<T>,
    velocity: Jacobian<T>,
    block: usize,
    end: f64,
    integrator: Integrator,
}

impl<T: Real> ContinuousFlow<T> {
    /// Compiles the velocity with its exact trace for blocks of `block` states. A block shares its steps, which follow its
    /// most demanding state, so results depend on the block size within the tolerance, but never on the threads.
    ///
    /// # Errors
    /// If `block` is 0 or `epsilon` is outside [0, 1).
    pub fn new(
        map: &FlowMap,
        parameters: &Parameters<T>,
        epsilon: f64,
        block: usize,
        integrator: Integrator,
    ) -> Result<Self, ModelError> {
        if block == 0 {
            return Err(ModelError::Configuration(
                "the block of a continuous flow is 0; give it at least 1".into(),
            ));
        }
        if !(0.0..1.0).contains(&epsilon) {
            return Err(ModelError::Configuration(format!(
                "ε is {epsilon}; it must lie in [0, 1)"
            )));
        }
        Ok(Self {
            map: map.clone(),
            parameters: parameters.clone(),
            velocity: velocity_jacobian(map, block),
            block,
            end: 1.0 - epsilon,
            integrator,
        })
    }

    /// Transports base noise `[n, T, C]` to data: log q(x) = log p₀(z) − ∫ tr ∂v/∂x dt.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or the integration fails.
    pub fn transport(&self, noise: &[T], control: &Control) -> Result<FlowSamples<T>, ModelError> {
        let (mut result, divergence) = self.integrate(noise, 0.0, self.end, control)?;
        let base =
            self.map
                .subspace()
                .gaussian_log_density(noise, self.map.tokens(), self.map.channels());
        result.log_density = base
            .iter()
            .zip(divergence)
            .map(|(base, integral)| base - integral)
            .collect();
        Ok(result)
    }

    /// Log-density of given data states `[n, T, C]`, integrating backwards to their noise.
    ///
    /// # Errors
    /// If the array is not a whole number of states, the caller cancels, or the integration fails.
    pub fn log_density(
        &self,
        states: &[T],
        control: &Control,
    ) -> Result<FlowSamples<T>, ModelError> {
        let (mut result, divergence) = self.integrate(states, self.end, 0.0, control)?;
        let base = self.map.subspace().gaussian_log_density(
            &result.states,
            self.map.tokens(),
            self.map.channels(),
        );
        // The integral runs from data to noise, so it already has the sign that the sum over time reversed needs.
        result.log_density = base
            .iter()
            .zip(divergence)
            .map(|(base, integral)| base + integral)
            .collect();
        Ok(result)
    }

    /// Integrates states and ∫ tr ∂v/∂x dt from `from` to `to`.
    fn integrate(
        &self,
        states: &[T],
        from: f64,
        to: f64,
        control: &Control,
    ) -> Result<(FlowSamples<T>, Vec<f64>), ModelError> {
        let n = count_states(&self.map, "the states", states)?;
        let size = self.map.state_size();
        require_finite("the state", states, size, 0)?;
        let blocks: Vec<usize> = (0..n).step_by(self.block).collect();
        let done = std::sync::Mutex::new(0);
        let results: Result<Vec<_>, ModelError> = blocks
            .par_iter()
            .map(|&start| {
                let count = self.block.min(n - start);
                let result = self.integrate_block(
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
            statistics: Statistics::default(),
        };
        let mut integrals = Vec::with_capacity(n);
        for (rows, count, statistics) in results? {
            for row in rows.chunks_exact(size + 1).take(count) {
                samples.states.extend_from_slice(&row[..size]);
                integrals.push(Real::as_f64(row[size]));
            }
            samples.statistics = samples.statistics.worst(statistics);
        }
        Ok((samples, integrals))
    }

    /// One block; rows of the result are (state, integral of the divergence).
    fn integrate_block(
        &self,
        states: &[T],
        from: f64,
        to: f64,
        control: &Control,
    ) -> Result<(Vec<T>, usize, Statistics), ModelError> {
        let (size, block) = (self.map.state_size(), self.block);
        let count = states.len() / size;
        let row = size + 1;
        let mut y = vec![T::zero(); block * row];
        for (i, target) in y.chunks_exact_mut(row).enumerate() {
            // A short last block repeats its last state.
            let source = i.min(count - 1);
            target[..size].copy_from_slice(&states[source * size..(source + 1) * size]);
        }
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
            let divergence = self.velocity.trace(block, &inputs, Some(&mut velocity));
            for (i, row) in slope.chunks_exact_mut(row).enumerate() {
                row[..size].copy_from_slice(&velocity[i * size..(i + 1) * size]);
                row[size] = T::from_f64(divergence[i]);
            }
            Ok(())
        };
        let statistics = match &self.integrator {
            Integrator::Adaptive(tolerances) => integrate_adaptive(
                &Tableau::DORMAND_PRINCE,
                system,
                &mut y,
                row,
                from,
                to,
                tolerances,
            )?,
            Integrator::Fixed { tableau, steps } => {
                integrate_fixed(tableau, system, &mut y, from, to, *steps)?
            }
        };
        Ok((y, count, statistics))
    }
}
