//! Bases of the subspaces on which states live.

use boltzmap_kernels::gemm::{GemmShape, gemm};

/// An orthonormal basis Q of the subspace on which states live: row-major `[rows, columns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Basis {
    /// D, elements of a sample.
    pub rows: usize,
    /// d, dimension of the subspace.
    pub columns: usize,
    /// Q, row-major.
    pub values: Vec<f64>,
}

impl Basis {
    /// The whole space.
    pub fn identity(dimension: usize) -> Self {
        let mut values = vec![0.0; dimension * dimension];
        (0..dimension).for_each(|i| values[i * (dimension + 1)] = 1.0);
        Self {
            rows: dimension,
            columns: dimension,
            values,
        }
    }

    /// From row-major values.
    ///
    /// # Panics
    /// When the length is not rows · columns.
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(
            values.len(),
            rows * columns,
            "a basis of {columns} vectors in {rows} dimensions"
        );
        Self {
            rows,
            columns,
            values,
        }
    }

    /// Whether this is the whole space with its own coordinates.
    pub(super) fn is_identity(&self) -> bool {
        *self == Self::identity(self.rows)
    }

    /// Qᵀ J of J `[rows, n]`: `[columns, n]`.
    pub(super) fn rows_of(&self, j: &[f64], n: usize) -> Vec<f64> {
        let shape = GemmShape {
            m: self.columns,
            n,
            k: self.rows,
        };
        let mut product = vec![0.0; self.columns * n];
        gemm(shape, 1.0, &self.values, true, j, false, 0.0, &mut product);
        product
    }

    /// J Q of J `[n, rows]`: `[n, columns]`.
    pub(super) fn columns_of(&self, j: &[f64], n: usize) -> Vec<f64> {
        let shape = GemmShape {
            m: n,
            n: self.columns,
            k: self.rows,
        };
        let mut product = vec![0.0; n * self.columns];
        gemm(shape, 1.0, j, false, &self.values, false, 0.0, &mut product);
        product
    }
}
