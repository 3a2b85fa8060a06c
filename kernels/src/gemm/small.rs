//! The kernel for many small products.

use super::{BatchedGemmShape, GemmShape, SMALL_LIMIT};
use crate::real::Real;
use crate::simd::{Kernel, Lanes, Simd};

/// A batch with every dimension at most [`SMALL_LIMIT`].
pub(super) struct SmallGemm<'a, T> {
    pub(super) batch: BatchedGemmShape,
    pub(super) alpha: T,
    pub(super) a: &'a [T],
    pub(super) transpose_a: bool,
    pub(super) b: &'a [T],
    pub(super) transpose_b: bool,
    pub(super) beta: T,
    pub(super) c: &'a mut [T],
}

impl<T: Real> Kernel for SmallGemm<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let width = T::Lanes::<S>::WIDTH;
        let GemmShape { m, n, k } = self.batch.shape;
        let vectors = n.div_ceil(width);
        let columns = vectors * width;
        // B with its rows padded to whole vectors: what the inner loop reads.
        let mut packed = [T::zero(); SMALL_LIMIT * SMALL_LIMIT];
        for i in 0..self.batch.batch {
            let a = &self.a[i * self.batch.stride_a..][..m * k];
            let b = &self.b[i * self.batch.stride_b..][..k * n];
            let c = &mut self.c[i * self.batch.stride_c..][..m * n];
            let b = if !self.transpose_b && columns == n {
                b
            } else {
                if i == 0 || self.batch.stride_b != 0 {
                    pack::<T, S>(b, self.transpose_b, n, k, columns, &mut packed);
                }
                &packed[..k * columns]
            };
            let panel = Panel {
                b,
                columns,
                scale: (self.alpha, self.beta),
                shape: self.batch.shape,
            };
            if self.transpose_a {
                product::<T, S, true>(a, panel, c);
            } else {
                product::<T, S, false>(a, panel, c);
            }
        }
    }
}

/// Copies B to `[k, columns]`; what the padding holds does not matter, since those columns are never stored.
#[inline(always)]
fn pack<T: Real, S: Simd>(
    b: &[T],
    transposed: bool,
    n: usize,
    k: usize,
    columns: usize,
    packed: &mut [T],
) {
    if !transposed {
        for (source, target) in b.chunks_exact(n).zip(packed.chunks_exact_mut(columns)) {
            target[..n].copy_from_slice(source);
        }
        return;
    }
    let width = T::Lanes::<S>::WIDTH;
    for j in (0..n).step_by(width) {
        for p in (0..k).step_by(width) {
            let mut square = [T::Lanes::<S>::zero(); 16];
            let whole = p + width <= k;
            for r in 0..width.min(n - j) {
                let row = &b[(j + r) * k + p..(j + r + 1) * k];
                square[r] = if whole {
                    T::Lanes::<S>::load(row)
                } else {
                    T::Lanes::<S>::load_partial(row, T::zero())
                };
            }
            T::Lanes::<S>::transpose(&mut square);
            for r in 0..width.min(k - p) {
                square[r].store(&mut packed[(p + r) * columns + j..]);
            }
        }
    }
}

/// What all tiles of one product share.
#[derive(Clone, Copy)]
struct Panel<'a, T> {
    /// B with `columns` ≥ n columns, a multiple of the vector's width.
    b: &'a [T],
    columns: usize,
    /// α and β
    scale: (T, T),
    shape: GemmShape,
}

/// One product; A is stored `[k, m]` when `TRANSPOSED`.
#[inline(always)]
fn product<T: Real, S: Simd, const TRANSPOSED: bool>(a: &[T], panel: Panel<'_, T>, c: &mut [T]) {
    let width = T::Lanes::<S>::WIDTH;
    let mut column = 0;
    while column < panel.columns {
        if column + 2 * width <= panel.columns {
            all_rows::<T, S, 2, TRANSPOSED>(a, panel, column, c);
            column += 2 * width;
        } else {
            all_rows::<T, S, 1, TRANSPOSED>(a, panel, column, c);
            column += width;
        }
    }
}

/// All rows of `V` vectors of columns of C.
#[inline(always)]
fn all_rows<T: Real, S: Simd, const V: usize, const TRANSPOSED: bool>(
    a: &[T],
    panel: Panel<'_, T>,
    column: usize,
    c: &mut [T],
) {
    let m = panel.shape.m;
    let mut row = 0;
    while row + 8 <= m {
        tile::<T, S, 8, V, TRANSPOSED>(a, panel, row, column, c);
        row += 8;
    }
    if row + 4 <= m {
        tile::<T, S, 4, V, TRANSPOSED>(a, panel, row, column, c);
        row += 4;
    }
    if row + 2 <= m {
        tile::<T, S, 2, V, TRANSPOSED>(a, panel, row, column, c);
        row += 2;
    }
    if row < m {
        tile::<T, S, 1, V, TRANSPOSED>(a, panel, row, column, c);
    }
}

/// `R` rows by `V` vectors of C, kept in registers over the whole sum.
#[inline(always)]
fn tile<T: Real, S: Simd, const R: usize, const V: usize, const TRANSPOSED: bool>(
    a: &[T],
    panel: Panel<'_, T>,
    row: usize,
    column: usize,
    c: &mut [T],
) {
    let width = T::Lanes::<S>::WIDTH;
    let Panel {
        b,
        columns,
        scale: (alpha, beta),
        shape: GemmShape { m, n, k },
    } = panel;
    let mut sums = [[T::Lanes::<S>::zero(); V]; R];
    // Slices of one known length, so that the loop over k checks no bounds of A.
    let mut a_rows = [a; R];
    if !TRANSPOSED {
        for r in 0..R {
            a_rows[r] = &a[(row + r) * k..][..k];
        }
    }
    for (p, b_row) in b.chunks_exact(columns).take(k).enumerate() {
        let b_row = &b_row[column..][..V * width];
        let mut b_vectors = [T::Lanes::<S>::zero(); V];
        for v in 0..V {
            b_vectors[v] = T::Lanes::<S>::load(&b_row[v * width..]);
        }
        let a_column = if TRANSPOSED {
            &a[p * m + row..][..R]
        } else {
            a
        };
        for r in 0..R {
            let a_value = T::Lanes::<S>::splat(if TRANSPOSED {
                a_column[r]
            } else {
                a_rows[r][p]
            });
            for v in 0..V {
                sums[r][v] = a_value.mul_add(b_vectors[v], sums[r][v]);
            }
        }
    }
    let alpha_vector = T::Lanes::<S>::splat(alpha);
    let beta_vector = T::Lanes::<S>::splat(beta);
    for r in 0..R {
        let c_row = &mut c[(row + r) * n..][..n];
        for v in 0..V {
            let start = column + v * width;
            let target = &mut c_row[start.min(n)..];
            let product = alpha_vector * sums[r][v];
            let result = if beta == T::zero() {
                product
            } else {
                beta_vector.mul_add(T::Lanes::<S>::load_partial(target, T::zero()), product)
            };
            if target.len() >= width {
                result.store(target);
            } else {
                result.store_partial(target);
            }
        }
    }
}
