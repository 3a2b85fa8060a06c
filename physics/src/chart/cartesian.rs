//! Mean-free Cartesian coordinates divided by one scalar standard deviation.

use super::{ChartError, Decoded, Encoded, check_shape};
use serde::{Deserialize, Serialize};

/// y = (x − mean over atoms of x)/s: the state is `[tokens = atoms, channels = 3]` on the mean-free subspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CartesianChart {
    n_atoms: usize,
    scale: f64,
}

impl CartesianChart {
    /// Sets s to the root-mean-square coordinate of the mean-free `frames` `[n, atoms, 3]`, nm.
    ///
    /// # Errors
    /// A wrong length, no frame, a position that is not finite, atoms all in one place.
    pub fn fit<T: Copy + Into<f64>>(n_atoms: usize, frames: &[T]) -> Result<Self, ChartError> {
        let n = check_shape("the array of positions", frames.len(), 3 * n_atoms)?;
        if n == 0 {
            return Err(ChartError::TooFewFrames {
                what: "the scale of the Cartesian chart",
                found: 0,
                needed: 1,
            });
        }
        let mut squares = 0.0;
        let mut frame = vec![0.0; 3 * n_atoms];
        for (k, source) in frames.chunks_exact(3 * n_atoms).enumerate() {
            copy_mean_free(source, &mut frame);
            let sum: f64 = frame.iter().map(|v| v * v).sum();
            if !sum.is_finite() {
                return Err(ChartError::NotFinite(k));
            }
            squares += sum;
        }
        let scale = (squares / (n * 3 * n_atoms) as f64).sqrt();
        if scale > 0.0 {
            Ok(Self { n_atoms, scale })
        } else {
            Err(ChartError::NoVariance(0))
        }
    }

    /// The chart with a given scale s > 0, nm.
    pub fn with_scale(n_atoms: usize, scale: f64) -> Self {
        Self { n_atoms, scale }
    }

    /// s, nm
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Tokens (atoms) and channels (3) of the state.
    pub fn state_shape(&self) -> [usize; 2] {
        [self.n_atoms, 3]
    }

    /// Dimension of the subspace, 3·atoms − 3.
    pub fn dimension(&self) -> usize {
        3 * self.n_atoms - 3
    }

    /// The orthonormal basis Q of the mean-free subspace, row-major `[3 atoms, 3 atoms − 3]`.
    pub fn basis(&self) -> Vec<f64> {
        mean_free_basis(self.n_atoms)
    }

    /// log|dx/dy| = (3·atoms − 3) ln s.
    pub fn log_det(&self) -> f64 {
        self.dimension() as f64 * self.scale.ln()
    }

    /// Positions `[n, atoms, 3]` to states.
    ///
    /// # Errors
    /// A wrong length or a position that is not finite.
    pub fn encode<T: Copy + Into<f64>>(&self, positions: &[T]) -> Result<Encoded, ChartError> {
        let width = 3 * self.n_atoms;
        let n = check_shape("the array of positions", positions.len(), width)?;
        let mut state = vec![0.0; positions.len()];
        for (k, (source, out)) in positions
            .chunks_exact(width)
            .zip(state.chunks_exact_mut(width))
            .enumerate()
        {
            copy_mean_free(source, out);
            out.iter_mut().for_each(|v| *v /= self.scale);
            if !out.iter().all(|v| v.is_finite()) {
                return Err(ChartError::NotFinite(k));
            }
        }
        Ok(Encoded {
            state,
            log_det: vec![-self.log_det(); n],
            log_share: vec![0.0; n],
            in_domain: vec![true; n],
        })
    }

    /// States to mean-free positions. A component of the state along the mean is removed.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode<T: Copy + Into<f64>>(&self, state: &[T]) -> Result<Decoded, ChartError> {
        let width = 3 * self.n_atoms;
        let n = check_shape("the array of states", state.len(), width)?;
        let mut positions = vec![0.0; state.len()];
        let mut in_domain = Vec::with_capacity(n);
        for (source, out) in state
            .chunks_exact(width)
            .zip(positions.chunks_exact_mut(width))
        {
            copy_mean_free(source, out);
            out.iter_mut().for_each(|v| *v *= self.scale);
            in_domain.push(out.iter().all(|v| v.is_finite()));
        }
        Ok(Decoded {
            positions,
            log_det: vec![self.log_det(); n],
            log_share: vec![0.0; n],
            in_domain,
        })
    }
}

/// Copies one frame `[atoms, 3]` with its mean position removed.
pub(crate) fn copy_mean_free<T: Copy + Into<f64>>(source: &[T], out: &mut [f64]) {
    let n_atoms = source.len() / 3;
    for axis in 0..3 {
        let mean = (0..n_atoms)
            .map(|i| source[3 * i + axis].into())
            .sum::<f64>()
            / n_atoms as f64;
        for i in 0..n_atoms {
            out[3 * i + axis] = source[3 * i + axis].into() - mean;
        }
    }
}

/// Orthonormal basis of the mean-free subspace of `[atoms, 3]`, row-major `[3 atoms, 3 atoms − 3]`.
///
/// Helmert's: column (k, axis) is (1, …, 1, −k, 0, …)/√(k(k+1)) over the atoms, k = 1 … atoms − 1.
pub fn mean_free_basis(n_atoms: usize) -> Vec<f64> {
    let columns = 3 * n_atoms.saturating_sub(1);
    let mut basis = vec![0.0; 3 * n_atoms * columns];
    for k in 1..n_atoms {
        let scale = 1.0 / ((k * (k + 1)) as f64).sqrt();
        for axis in 0..3 {
            let column = 3 * (k - 1) + axis;
            for i in 0..k {
                basis[(3 * i + axis) * columns + column] = scale;
            }
            basis[(3 * k + axis) * columns + column] = -(k as f64) * scale;
        }
    }
    basis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basis_is_orthonormal_and_mean_free() {
        let n = 5;
        let (rows, columns) = (3 * n, 3 * n - 3);
        let q = mean_free_basis(n);
        for a in 0..columns {
            for b in 0..columns {
                let product: f64 = (0..rows)
                    .map(|r| q[r * columns + a] * q[r * columns + b])
                    .sum();
                assert!((product - f64::from(u8::from(a == b))).abs() < 1e-14);
            }
            for axis in 0..3 {
                let sum: f64 = (0..n).map(|i| q[(3 * i + axis) * columns + a]).sum();
                assert!(sum.abs() < 1e-14);
            }
        }
    }

    #[test]
    fn round_trip_and_unit_scale() {
        let frames: Vec<f32> = (0..4 * 12).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let chart = CartesianChart::fit(4, &frames).unwrap();
        let encoded = chart.encode(&frames).unwrap();
        let mean_square: f64 =
            encoded.state.iter().map(|v| v * v).sum::<f64>() / encoded.state.len() as f64;
        assert!((mean_square - 1.0).abs() < 1e-12);
        let decoded = chart.decode(&encoded.state).unwrap();
        let again = chart.encode(&decoded.positions).unwrap();
        for (a, b) in again.state.iter().zip(&encoded.state) {
            assert!((a - b).abs() < 1e-12);
        }
        assert!((decoded.log_det[0] + encoded.log_det[0]).abs() < 1e-15);
        assert!(
            chart
                .encode(&[f64::NAN; 12])
                .unwrap_err()
                .to_string()
                .contains("frame 0")
        );
        assert!(
            chart
                .encode(&[0.0f64; 13])
                .unwrap_err()
                .to_string()
                .contains("13")
        );
    }
}
