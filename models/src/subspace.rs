//! The linear subspace on which states live.

use boltzmap_autodiff::builder::Var;
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::real::Real;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which states `[T, C]` are reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subspace {
    /// All of them: d = T·C.
    Full,
    /// Those whose mean over tokens vanishes in every channel (translations removed): d = (T−1)·C.
    MeanFree,
}

impl Subspace {
    /// Dimension d of the subspace.
    pub fn dimension(self, tokens: usize, channels: usize) -> usize {
        match self {
            Subspace::Full => tokens * channels,
            Subspace::MeanFree => (tokens - 1) * channels,
        }
    }

    /// d / (T·C): what the identity on the subspace contributes to one coordinate of a Jacobian's diagonal.
    pub fn share(self, tokens: usize) -> f64 {
        match self {
            Subspace::Full => 1.0,
            Subspace::MeanFree => 1.0 - 1.0 / tokens as f64,
        }
    }

    /// Orthonormal basis Q, row-major `[T·C, d]`. For [`Subspace::MeanFree`] the columns are Helmert contrasts between
    /// tokens, one set per channel: column k, channel c is (1, …, 1, −(k+1), 0, …)/√((k+1)(k+2)) over tokens.
    pub fn basis(self, tokens: usize, channels: usize) -> Vec<f64> {
        let full = tokens * channels;
        let dimension = self.dimension(tokens, channels);
        let mut basis = vec![0.0; full * dimension];
        match self {
            Subspace::Full => {
                for i in 0..full {
                    basis[i * dimension + i] = 1.0;
                }
            }
            Subspace::MeanFree => {
                for k in 0..tokens - 1 {
                    let n = (k + 1) as f64;
                    let scale = 1.0 / (n * (n + 1.0)).sqrt();
                    for c in 0..channels {
                        let column = k * channels + c;
                        for token in 0..=k {
                            basis[(token * channels + c) * dimension + column] = scale;
                        }
                        basis[((k + 1) * channels + c) * dimension + column] = -n * scale;
                    }
                }
            }
        }
        basis
    }

    /// Orthogonal projection of a traced array `[B, T, C]`.
    pub fn project<'b>(self, x: Var<'b>) -> Var<'b> {
        match self {
            Subspace::Full => x,
            Subspace::MeanFree => {
                let tokens = x.shape()[1];
                x - x.sum_keep(&[1]) * (1.0 / tokens as f64)
            }
        }
    }

    /// Orthogonal projection of states `[n, T, C]` in place. Means are summed in f64 in token order.
    pub fn project_states<T: Real>(self, states: &mut [T], tokens: usize, channels: usize) {
        if self == Subspace::Full {
            return;
        }
        for state in states.chunks_exact_mut(tokens * channels) {
            for c in 0..channels {
                let sum: f64 = (0..tokens)
                    .map(|token| Real::as_f64(state[token * channels + c]))
                    .sum();
                let mean = sum / tokens as f64;
                for token in 0..tokens {
                    let value = &mut state[token * channels + c];
                    *value = T::from_f64(Real::as_f64(*value) - mean);
                }
            }
        }
    }

    /// Standard Gaussian noise on the subspace, `[n, T, C]`. Sample i comes from stream `(seed, domain, first + i)` and
    /// is the same whatever else is drawn.
    pub fn noise<T: Real>(
        self,
        tokens: usize,
        channels: usize,
        seed: u64,
        domain: u64,
        first: u64,
        n: usize,
    ) -> Vec<T> {
        let indices: Vec<u64> = (first..first + n as u64).collect();
        self.noise_of(tokens, channels, seed, domain, &indices)
    }

    /// The same of any samples: sample i comes from stream `(seed, domain, i)`.
    pub fn noise_of<T: Real>(
        self,
        tokens: usize,
        channels: usize,
        seed: u64,
        domain: u64,
        indices: &[u64],
    ) -> Vec<T> {
        let size = tokens * channels;
        let mut noise = vec![T::zero(); indices.len() * size];
        let states = noise.par_chunks_exact_mut(size).zip(indices);
        states.for_each(|(state, &index)| {
            Stream::new(seed, domain, index).fill_standard_normal(state);
            self.project_states(state, tokens, channels);
        });
        noise
    }

    /// Log-density of the standard Gaussian on the subspace for each state `[n, T, C]`:
    /// −½|x|² − ½ d ln 2π, summed in f64.
    pub fn gaussian_log_density<T: Real>(
        self,
        states: &[T],
        tokens: usize,
        channels: usize,
    ) -> Vec<f64> {
        let constant =
            0.5 * self.dimension(tokens, channels) as f64 * (2.0 * std::f64::consts::PI).ln();
        states
            .chunks_exact(tokens * channels)
            .map(|state| {
                let squares: f64 = state
                    .iter()
                    .map(|&v| Real::as_f64(v) * Real::as_f64(v))
                    .sum();
                -0.5 * squares - constant
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basis_is_orthonormal_and_spans_the_projection() {
        for subspace in [Subspace::Full, Subspace::MeanFree] {
            let (tokens, channels) = (5, 3);
            let full = tokens * channels;
            let d = subspace.dimension(tokens, channels);
            let q = subspace.basis(tokens, channels);
            for a in 0..d {
                for b in 0..d {
                    let dot: f64 = (0..full).map(|i| q[i * d + a] * q[i * d + b]).sum();
                    assert!((dot - f64::from(a == b)).abs() < 1e-14);
                }
            }
            let mut x: Vec<f64> = (0..full).map(|i| ((i * i) as f64 * 0.37).sin()).collect();
            let mut projected = vec![0.0; full];
            for a in 0..d {
                let dot: f64 = (0..full).map(|i| q[i * d + a] * x[i]).sum();
                for i in 0..full {
                    projected[i] += dot * q[i * d + a];
                }
            }
            subspace.project_states(&mut x, tokens, channels);
            assert!(x.iter().zip(&projected).all(|(a, b)| (a - b).abs() < 1e-14));
        }
    }

    #[test]
    fn noise_of_a_sample_does_not_depend_on_the_others() {
        let all: Vec<f32> = Subspace::MeanFree.noise(4, 3, 11, 2, 0, 6);
        let some: Vec<f32> = Subspace::MeanFree.noise(4, 3, 11, 2, 3, 2);
        assert_eq!(all[3 * 12..5 * 12], some[..]);
    }
}
