//! A Gaussian with independent coordinates: the simplest proposal, and a target whose answers are known.

use boltzmap_kernels::random::{Stream, domain};
use std::f64::consts::TAU;

use crate::control::Control;
use crate::error::SamplingError;
use crate::likelihood::LogDensity;
use crate::proposal::{Draws, Proposal};
use crate::target::{DensityAndGradient, Target, count_states};

/// Stream domain of the draws; sample i uses stream (seed, domain, i).
const DOMAIN_DRAWS: u64 = domain::GAUSSIAN_DRAWS;

/// N(μ, diag σ²) over states `[T, C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DiagonalGaussian {
    shape: [usize; 2],
    means: Vec<f64>,
    standard_deviations: Vec<f64>,
    seed: u64,
}

impl DiagonalGaussian {
    /// With means and standard deviations `[T, C]`; `seed` is that of its draws.
    ///
    /// # Errors
    /// If an array has another length, a number is not finite or a standard deviation is not positive.
    pub fn new(
        shape: [usize; 2],
        means: Vec<f64>,
        standard_deviations: Vec<f64>,
        seed: u64,
    ) -> Result<Self, SamplingError> {
        let size = shape[0] * shape[1];
        for found in [means.len(), standard_deviations.len()] {
            if found != size {
                return Err(SamplingError::Length { found, size });
            }
        }
        let finite = means.iter().all(|mean| mean.is_finite());
        let positive = standard_deviations
            .iter()
            .all(|sigma| sigma.is_finite() && *sigma > 0.0);
        if !(finite && positive) {
            return Err(SamplingError::Setting(
                "a Gaussian needs finite means and positive standard deviations".into(),
            ));
        }
        Ok(Self {
            shape,
            means,
            standard_deviations,
            seed,
        })
    }

    /// N(0, I).
    pub fn standard(shape: [usize; 2], seed: u64) -> Self {
        let size = shape[0] * shape[1];
        Self {
            shape,
            means: vec![0.0; size],
            standard_deviations: vec![1.0; size],
            seed,
        }
    }

    fn coordinates(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let sigmas = self.standard_deviations.iter().copied();
        self.means.iter().copied().zip(sigmas)
    }
}

impl Target for DiagonalGaussian {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn log_density(&self, states: &[f64]) -> Result<Vec<f64>, SamplingError> {
        let size = self.means.len();
        count_states(states, size)?;
        let of_state = |state: &[f64]| -> f64 {
            let terms = state.iter().zip(self.coordinates());
            terms
                .map(|(x, (mean, sigma))| {
                    -0.5 * ((x - mean) / sigma).powi(2) - sigma.ln() - 0.5 * TAU.ln()
                })
                .sum()
        };
        Ok(states.chunks_exact(size).map(of_state).collect())
    }

    fn log_density_and_gradient(
        &self,
        states: &[f64],
    ) -> Result<DensityAndGradient, SamplingError> {
        // First, for it refuses what is no whole number of states.
        let log_density = Target::log_density(self, states)?;
        let gradients = states.chunks_exact(self.means.len()).flat_map(|state| {
            let terms = state.iter().zip(self.coordinates());
            terms.map(|(x, (mean, sigma))| (mean - x) / (sigma * sigma))
        });
        Ok(DensityAndGradient {
            log_density,
            gradients: gradients.collect(),
        })
    }
}

impl Proposal for DiagonalGaussian {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn draw(&self, indices: &[u64], control: &Control<'_>) -> Result<Draws, SamplingError> {
        control.check()?;
        let size = self.means.len();
        let mut states = Vec::with_capacity(size * indices.len());
        for &index in indices {
            let mut state = vec![0.0; size];
            Stream::new(self.seed, DOMAIN_DRAWS, index).fill_standard_normal(&mut state);
            let moved = state.iter().zip(self.coordinates());
            states.extend(moved.map(|(z, (mean, sigma))| mean + sigma * z));
        }
        Ok(Draws {
            log_density: LogDensity::Exact(Target::log_density(self, &states)?),
            states,
            evaluations: 0,
            folds: 0,
        })
    }

    fn log_density(
        &self,
        states: &[f64],
        _control: &Control<'_>,
    ) -> Result<LogDensity, SamplingError> {
        Ok(LogDensity::Exact(Target::log_density(self, states)?))
    }

    fn log_density_and_gradient(
        &self,
        states: &[f64],
        _control: &Control<'_>,
    ) -> Result<Option<(LogDensity, Vec<f64>)>, SamplingError> {
        let found = Target::log_density_and_gradient(self, states)?;
        Ok(Some((
            LogDensity::Exact(found.log_density),
            found.gradients,
        )))
    }
}
