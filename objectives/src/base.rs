//! Bases of interpolants: distributions that can be drawn from and whose density is known.

use std::f64::consts::TAU;

use boltzmap_kernels::random::Stream;
use boltzmap_models::subspace::Subspace;

use crate::oracles::GaussianMixture;

/// A distribution of states with a known density.
pub trait BaseDensity: Send + Sync {
    /// Draws one state.
    fn sample(&self, stream: &mut Stream, state: &mut [f64]);

    /// Natural logarithm of the density at a state, with respect to the volume of the states' subspace.
    fn log_density(&self, state: &[f64]) -> f64;
}

/// N(0, σ² I) on a subspace of states `[T, C]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gaussian {
    /// σ.
    pub standard_deviation: f64,
    /// The subspace.
    pub subspace: Subspace,
    /// T.
    pub tokens: usize,
    /// C.
    pub channels: usize,
}

impl Gaussian {
    /// N(0, I).
    pub fn standard(subspace: Subspace, tokens: usize, channels: usize) -> Self {
        Self {
            standard_deviation: 1.0,
            subspace,
            tokens,
            channels,
        }
    }
}

impl BaseDensity for Gaussian {
    fn sample(&self, stream: &mut Stream, state: &mut [f64]) {
        for value in state.iter_mut() {
            *value = self.standard_deviation * stream.standard_normal();
        }
        self.subspace
            .project_states(state, self.tokens, self.channels);
    }

    fn log_density(&self, state: &[f64]) -> f64 {
        let variance = self.standard_deviation.powi(2);
        let dimension = self.subspace.dimension(self.tokens, self.channels) as f64;
        let squares: f64 = state.iter().map(|x| x * x).sum();
        -0.5 * squares / variance - 0.5 * dimension * (TAU * variance).ln()
    }
}

/// A mixture of Gaussians over all coordinates of a state.
impl BaseDensity for GaussianMixture {
    fn sample(&self, stream: &mut Stream, state: &mut [f64]) {
        let mut rest = stream.uniform();
        let mut component = 0;
        while component + 1 < self.weights.len() && rest >= self.weights[component] {
            rest -= self.weights[component];
            component += 1;
        }
        let scale = self.standard_deviations[component];
        for (value, mean) in state.iter_mut().zip(&self.means[component]) {
            *value = mean + scale * stream.standard_normal();
        }
    }

    fn log_density(&self, state: &[f64]) -> f64 {
        GaussianMixture::log_density(self, state, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E_q[p/q] = 1 over draws of q ties a base's draws to its density, with p another distribution of known density.
    fn normalised(base: &dyn BaseDensity, other: &dyn Fn(&[f64]) -> f64, size: usize) {
        let mut stream = Stream::new(3, 1, 4);
        let n = 40_000;
        let ratios: Vec<f64> = (0..n)
            .map(|_| {
                let mut state = vec![0.0; size];
                base.sample(&mut stream, &mut state);
                (other(&state) - base.log_density(&state)).exp()
            })
            .collect();
        let mean = ratios.iter().sum::<f64>() / n as f64;
        let variance = ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n as f64;
        let error = (variance / n as f64).sqrt();
        assert!(error < 0.02, "the ratio is too wild to test with: {error}");
        assert!((mean - 1.0).abs() < 5.0 * error, "{mean} ± {error}");
    }

    #[test]
    fn draws_follow_the_stated_density() {
        let wide = Gaussian {
            standard_deviation: 1.3,
            subspace: Subspace::MeanFree,
            tokens: 3,
            channels: 2,
        };
        let standard = Gaussian::standard(Subspace::MeanFree, 3, 2);
        normalised(&wide, &|x| standard.log_density(x), 6);
        let mixture = GaussianMixture {
            weights: vec![0.7, 0.3],
            means: vec![vec![0.4, 0.1], vec![-0.5, 0.3]],
            standard_deviations: vec![0.8, 0.7],
        };
        let narrow = Gaussian {
            standard_deviation: 0.6,
            subspace: Subspace::Full,
            tokens: 1,
            channels: 2,
        };
        normalised(&mixture, &|x| narrow.log_density(x), 2);
    }
}
