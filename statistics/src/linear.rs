//! The solution of a positive definite system.

use faer::linalg::solvers::{Llt, Solve};
use faer::{MatRef, Side};

/// The Cholesky factors of a symmetric positive definite matrix.
#[derive(Clone, Debug)]
pub(crate) struct PositiveDefinite {
    factors: Llt<f64>,
}

impl PositiveDefinite {
    /// Factors A `[d, d]`, row-major; `None` if it is not positive definite.
    pub(crate) fn factor(a: &[f64], d: usize) -> Option<Self> {
        let factors = MatRef::from_row_major_slice(a, d, d)
            .llt(Side::Lower)
            .ok()?;
        Some(Self { factors })
    }

    /// The x with A x = b.
    pub(crate) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let x = self
            .factors
            .solve(MatRef::from_column_major_slice(b, b.len(), 1));
        (0..b.len()).map(|i| x[(i, 0)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solution_of_a_known_system() {
        let a = vec![4.0, 1.0, 0.0, 1.0, 3.0, -1.0, 0.0, -1.0, 2.0];
        let x = PositiveDefinite::factor(&a, 3)
            .unwrap()
            .solve(&[6.0, 4.0, 4.0]);
        for (found, expected) in x.iter().zip([1.0, 2.0, 3.0]) {
            assert!((found - expected).abs() < 1e-14);
        }
        assert!(PositiveDefinite::factor(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(PositiveDefinite::factor(&[f64::NAN], 1).is_none());
    }
}
