//! The divergence of a velocity along a trajectory: exactly, or by Hutchinson's estimator.
//!
//! Hutchinson: with E v = 0 and E v vᵀ = P, the projection to the states' subspace, E vᵀ J v = tr P J P. With S the
//! symmetric part of P J P, one probe has the variance
//!
//! * 2 Σ_{i≠j} S_ij² for Rademacher probes P ε, ε_i = ±1;
//! * 2 Σ_ij S_ij² for Gaussian probes P ε, ε_i ~ N(0, 1), which is never less;
//!
//! and k probes have it over k. A trajectory keeps its probes, so that what is integrated is one smooth function of time
//! and state; each probe gives an estimate of the whole integral, and their scatter the variance of the mean.

use boltzmap_autodiff::jacobian::Jacobian;
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::real::Real;

use crate::error::ModelError;
use crate::flow_map::FlowMap;
use crate::jacobians::{velocity_along_probes, velocity_jacobian};

/// A number with the variance of its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Variance of its error: 0 where it is exact, `None` where nothing is known of it.
    pub variance: Option<f64>,
}

/// Velocity and divergence of blocks of states, the latter as one or several estimates of equal weight.
///
/// A trajectory asks for its probes once and passes them to every evaluation.
pub trait Divergence<T: Real>: Send + Sync {
    /// B, states that are evaluated together.
    fn block(&self) -> usize;

    /// E, estimates for each state.
    fn estimates(&self) -> usize;

    /// What is random, `[E, samples, T, C]` for the samples of these numbers; empty where nothing is. It depends on
    /// nothing but a sample's number.
    fn probes(&self, samples: &[u64]) -> Vec<T>;

    /// Velocities `[n, T, C]` of n states, and the estimates of tr P (∂v/∂x) P, `[n, E]`. `inputs` are those of
    /// [`FlowMap::velocity_program`] for n states, `probes` belong to the same samples.
    fn evaluate(&self, n: usize, inputs: &[&[T]], probes: &[T], velocity: &mut [T]) -> Vec<f64>;

    /// The E estimates of one state, or of anything linear in them, as one number.
    fn combine(&self, estimates: &[f64]) -> Estimate;
}

/// The trace from tangents along a basis of the subspace.
#[derive(Debug)]
pub struct ExactTrace<T: Real> {
    velocity: Jacobian<T>,
    block: usize,
}

impl<T: Real> ExactTrace<T> {
    /// Compiles the velocity's Jacobian for blocks of `block` states.
    ///
    /// # Errors
    /// If `block` is 0.
    pub fn new(map: &FlowMap, block: usize) -> Result<Self, ModelError> {
        require_block(block)?;
        Ok(Self {
            velocity: velocity_jacobian(map, block),
            block,
        })
    }
}

impl<T: Real> Divergence<T> for ExactTrace<T> {
    fn block(&self) -> usize {
        self.block
    }

    fn estimates(&self) -> usize {
        1
    }

    fn probes(&self, _: &[u64]) -> Vec<T> {
        Vec::new()
    }

    fn evaluate(&self, n: usize, inputs: &[&[T]], _: &[T], velocity: &mut [T]) -> Vec<f64> {
        self.velocity.trace(n, inputs, Some(velocity))
    }

    fn combine(&self, estimates: &[f64]) -> Estimate {
        Estimate {
            value: estimates[0],
            variance: Some(0.0),
        }
    }
}

/// How the components of a probe are distributed, before its projection to the subspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeDistribution {
    /// ±1 with equal probability.
    Rademacher,
    /// Standard normal.
    Gaussian,
}

/// Hutchinson's estimator with probes from counter-based streams.
#[derive(Debug)]
pub struct Hutchinson<T: Real> {
    map: FlowMap,
    velocity: Jacobian<T>,
    block: usize,
    count: usize,
    distribution: ProbeDistribution,
    seed: u64,
    domain: u64,
}

impl<T: Real> Hutchinson<T> {
    /// `count` probes for each sample; those of sample i come from the stream (seed, domain, i). Compiles the velocity's
    /// derivative along them for blocks of `block` states.
    ///
    /// # Errors
    /// If `block` or `count` is 0.
    pub fn new(
        map: &FlowMap,
        block: usize,
        count: usize,
        distribution: ProbeDistribution,
        seed: u64,
        domain: u64,
    ) -> Result<Self, ModelError> {
        require_block(block)?;
        if count == 0 {
            return Err(ModelError::Configuration(
                "Hutchinson's estimator has 0 probes; give it at least 1".into(),
            ));
        }
        Ok(Self {
            map: map.clone(),
            velocity: velocity_along_probes(map, block, count),
            block,
            count,
            distribution,
            seed,
            domain,
        })
    }
}

impl<T: Real> Divergence<T> for Hutchinson<T> {
    fn block(&self) -> usize {
        self.block
    }

    fn estimates(&self) -> usize {
        self.count
    }

    fn probes(&self, samples: &[u64]) -> Vec<T> {
        let size = self.map.state_size();
        let mut probes = vec![T::zero(); self.count * samples.len() * size];
        let mut own = vec![0.0; self.count * size];
        for (place, &sample) in samples.iter().enumerate() {
            let mut stream = Stream::new(self.seed, self.domain, sample);
            match self.distribution {
                ProbeDistribution::Gaussian => stream.fill_standard_normal(&mut own),
                ProbeDistribution::Rademacher => {
                    for values in own.chunks_mut(64) {
                        let bits = stream.next_u64();
                        for (k, value) in values.iter_mut().enumerate() {
                            *value = if bits >> k & 1 == 0 { 1.0 } else { -1.0 };
                        }
                    }
                }
            }
            let subspace = self.map.subspace();
            subspace.project_states(&mut own, self.map.tokens(), self.map.channels());
            for (k, probe) in own.chunks_exact(size).enumerate() {
                let target = &mut probes[(k * samples.len() + place) * size..][..size];
                for (target, value) in target.iter_mut().zip(probe) {
                    *target = T::from_f64(*value);
                }
            }
        }
        probes
    }

    fn evaluate(&self, n: usize, inputs: &[&[T]], probes: &[T], velocity: &mut [T]) -> Vec<f64> {
        self.velocity
            .quadratic_forms(n, inputs, probes, Some(velocity))
    }

    fn combine(&self, estimates: &[f64]) -> Estimate {
        let count = estimates.len() as f64;
        let value = estimates.iter().sum::<f64>() / count;
        let squares: f64 = estimates.iter().map(|e| (e - value).powi(2)).sum();
        Estimate {
            value,
            variance: (estimates.len() > 1).then(|| squares / (count * (count - 1.0))),
        }
    }
}

fn require_block(block: usize) -> Result<(), ModelError> {
    if block == 0 {
        return Err(ModelError::Configuration(
            "the block of a continuous flow is 0; give it at least 1".into(),
        ));
    }
    Ok(())
}
