//! Dense linear algebra in `f64`, row-major.

use crate::simd::{Kernel, Lanes, Simd, Tier, dispatch, dispatch_on};

/// ln|det A| and the sign of det A (−1, 0 or 1), A `[n, n]` being overwritten by its LU factors.
///
/// Gaussian elimination with partial pivoting, on the calling thread and without allocation. The sums run in one order on
/// all tiers, so tiers with fused multiply-add agree bit by bit. A singular matrix gives (−∞, 0), one with NaN gives NaN.
///
/// # Panics
/// When `a` does not hold n² numbers.
pub fn log_abs_det_in_place(a: &mut [f64], n: usize) -> (f64, f64) {
    dispatch(LogAbsDet { a, n })
}

/// [`log_abs_det_in_place`] on a given tier, for tests and benches.
pub fn log_abs_det_in_place_on(tier: Tier, a: &mut [f64], n: usize) -> (f64, f64) {
    dispatch_on(tier, LogAbsDet { a, n })
}

/// [`log_abs_det_in_place`] of a copy.
///
/// # Panics
/// When `a` does not hold n² numbers.
pub fn log_abs_det(a: &[f64], n: usize) -> (f64, f64) {
    log_abs_det_in_place(&mut a.to_vec(), n)
}

struct LogAbsDet<'a> {
    a: &'a mut [f64],
    n: usize,
}

impl Kernel for LogAbsDet<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn run<S: Simd>(self) -> (f64, f64) {
        let LogAbsDet { a, n } = self;
        assert_eq!(
            a.len(),
            n * n,
            "a matrix of order {n} has {} elements, not {}",
            n * n,
            a.len()
        );
        let (mut log, mut sign) = (0.0, 1.0);
        for step in 0..n {
            let (mut pivot_row, mut largest) = (step, a[step * n + step].abs());
            for row in step + 1..n {
                let size = a[row * n + step].abs();
                // A NaN wins, so that it reaches the result.
                if size > largest || size.is_nan() {
                    (pivot_row, largest) = (row, size);
                }
            }
            if largest == 0.0 {
                return (f64::NEG_INFINITY, 0.0);
            }
            if pivot_row != step {
                let (above, below) = a.split_at_mut(pivot_row * n);
                above[step * n..][..n].swap_with_slice(&mut below[..n]);
                sign = -sign;
            }
            let (above, below) = a.split_at_mut((step + 1) * n);
            let pivot = &above[step * n + step..];
            sign *= pivot[0].signum();
            log += largest.ln();
            let reciprocal = 1.0 / pivot[0];
            let pivot = &pivot[1..];
            let mut rows = below.chunks_exact_mut(4 * n);
            for block in &mut rows {
                eliminate::<S, 4>(block, n, step, reciprocal, pivot);
            }
            for row in rows.into_remainder().chunks_exact_mut(n) {
                eliminate::<S, 1>(row, n, step, reciprocal, pivot);
            }
        }
        (log, sign)
    }
}

/// Subtracts the pivot row from the columns right of the pivot in `R` rows.
#[inline(always)]
fn eliminate<S: Simd, const R: usize>(
    rows: &mut [f64],
    n: usize,
    step: usize,
    reciprocal: f64,
    pivot: &[f64],
) {
    let width = S::F64::WIDTH;
    let mut factors = [S::F64::zero(); R];
    for r in 0..R {
        factors[r] = S::F64::splat(rows[r * n + step] * reciprocal);
    }
    let length = pivot.len();
    let whole = length - length % width;
    let mut at = 0;
    while at < whole {
        let pivot = S::F64::load(&pivot[at..]);
        for r in 0..R {
            let row = &mut rows[r * n + step + 1 + at..][..width];
            factors[r].neg_mul_add(pivot, S::F64::load(row)).store(row);
        }
        at += width;
    }
    if at < length {
        let pivot = S::F64::load_partial(&pivot[at..], 0.0);
        for r in 0..R {
            let row = &mut rows[r * n + step + 1 + at..][..length - at];
            factors[r]
                .neg_mul_add(pivot, S::F64::load_partial(row, 0.0))
                .store_partial(row);
        }
    }
}

/// Why a decomposition or solution failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearError {
    /// The matrix has no inverse to working precision.
    Singular {
        /// Its order.
        order: usize,
    },
    /// The eigenvalue iteration did not converge, as with NaN or infinite entries.
    NoConvergence {
        /// The matrix's order.
        order: usize,
    },
}

impl std::fmt::Display for LinearError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinearError::Singular { order } => {
                write!(
                    formatter,
                    "the {order} by {order} matrix of a linear system is singular; remove dependent equations"
                )
            }
            LinearError::NoConvergence { order } => {
                write!(
                    formatter,
                    "the eigenvalues of a {order} by {order} matrix did not converge; check it for NaN and infinities"
                )
            }
        }
    }
}

impl std::error::Error for LinearError {}

/// Eigenvalues and eigenvectors of a symmetric matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct SymmetricEigen {
    /// Eigenvalues λ, smallest first.
    pub values: Vec<f64>,
    /// `[n, n]` row-major: column j is the eigenvector of λⱼ, of length 1 and of arbitrary sign.
    pub vectors: Vec<f64>,
}

/// A = V diag(λ) Vᵀ of a symmetric matrix `[n, n]`, of which the lower triangle is read.
///
/// # Errors
/// When the iteration does not converge.
///
/// # Panics
/// When `a` does not hold n² numbers.
pub fn symmetric_eigen(a: &[f64], n: usize) -> Result<SymmetricEigen, LinearError> {
    assert_eq!(
        a.len(),
        n * n,
        "a matrix of order {n} has {} elements, not {}",
        n * n,
        a.len()
    );
    if !a.iter().all(|value| value.is_finite()) {
        return Err(LinearError::NoConvergence { order: n });
    }
    let decomposition = faer::MatRef::from_row_major_slice(a, n, n)
        .self_adjoint_eigen(faer::Side::Lower)
        .map_err(|_| LinearError::NoConvergence { order: n })?;
    let vectors = decomposition.U();
    Ok(SymmetricEigen {
        values: decomposition.S().column_vector().iter().copied().collect(),
        vectors: (0..n * n).map(|i| vectors[(i / n, i % n)]).collect(),
    })
}

/// X `[n, columns]` with A X = B, by LU with partial pivoting.
///
/// # Errors
/// When A is singular.
///
/// # Panics
/// When the lengths do not match.
pub fn solve(a: &[f64], n: usize, b: &[f64], columns: usize) -> Result<Vec<f64>, LinearError> {
    use faer::linalg::solvers::Solve;
    assert!(
        a.len() == n * n && b.len() == n * columns,
        "a system of order {n} with {columns} right sides does not fit {} and {} elements",
        a.len(),
        b.len()
    );
    let factors = faer::MatRef::from_row_major_slice(a, n, n).partial_piv_lu();
    let solution = factors.solve(faer::MatRef::from_row_major_slice(b, n, columns));
    let solution: Vec<f64> = (0..n * columns)
        .map(|i| solution[(i / columns, i % columns)])
        .collect();
    if solution.iter().all(|value| value.is_finite()) {
        Ok(solution)
    } else {
        Err(LinearError::Singular { order: n })
    }
}
