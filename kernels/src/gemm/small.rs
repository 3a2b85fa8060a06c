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
        // k steps of A are read as a[row·row_step + step·depth_step].
        let (row_step, depth_step) = if self.transpose_a { (1, m) } else { (k, 1) };
        for i in 0..self.batch.batch {
            let a = &self.a[i * self.batch.stride_a..][..m * k];
            let b = &self.b[i * self.batch.stride_b..][..k * n];
            let c = &mut self.c[i * self.batch.stride_c..][..m * n];
            let b = if !self.transpose_b && columns == n {
                b
            } else {
                if i == 0 || self.batch.stride_b != 0 {
                    pack::<T>(b, self.transpose_b, n, k, columns, &mut packed);
                }
                &packed[..k * columns]
            };
            let step = (row_step, depth_step);
            let scale = (self.alpha, self.beta);
            let mut column = 0;
            while column < columns {
                let remaining = (columns - column) / width;
                if remaining >= 2 {
                    column_panel::<T, S, 2>(
                        a,
                        step,
                        b,
                        columns,
                        column,
                        scale,
                        c,
                        self.batch.shape,
                    );
                    column += 2 * width;
                } else {
                    column_panel::<T, S, 1>(
                        a,
                        step,
                        b,
                        columns,
                        column,
                        scale,
                        c,
                        self.batch.shape,
                    );
                    column += width;
                }
            }
        }
    }
}

/// Copies B to `[k, columns]`; padding keeps whatever it held, since those columns are never stored.
#[inline(always)]
fn pack<T: Real>(b: &[T], transposed: bool, n: usize, k: usize, columns: usize, packed: &mut [T]) {
    if transposed {
        for (j, row) in b.chunks_exact(k.max(1)).enumerate() {
            for (p, &value) in row.iter().enumerate() {
                packed[p * columns + j] = value;
            }
        }
    } else {
        for (source, target) in b.chunks_exact(n).zip(packed.chunks_exact_mut(columns)) {
            target[..n].copy_from_slice(source);
        }
    }
}

/// All rows of `V` vectors of columns of C.
#[inline(always)]
fn column_panel<T: Real, S: Simd, const V: usize>(
    a: &[T],
    step: (usize, usize),
    b: &[T],
    columns: usize,
    column: usize,
    scale: (T, T),
    c: &mut [T],
    shape: GemmShape,
) {
    let mut row = 0;
    while row + 8 <= shape.m {
        tile::<T, S, 8, V>(a, step, b, columns, row, column, scale, c, shape);
        row += 8;
    }
    if row + 4 <= shape.m {
        tile::<T, S, 4, V>(a, step, b, columns, row, column, scale, c, shape);
        row += 4;
    }
    if row + 2 <= shape.m {
        tile::<T, S, 2, V>(a, step, b, columns, row, column, scale, c, shape);
        row += 2;
    }
    if row < shape.m {
        tile::<T, S, 1, V>(a, step, b, columns, row, column, scale, c, shape);
    }
}

/// `R` rows by `V` vectors of C, kept in registers over the whole sum.
#[inline(always)]
fn tile<T: Real, S: Simd, const R: usize, const V: usize>(
    a: &[T],
    (row_step, depth_step): (usize, usize),
    b: &[T],
    columns: usize,
    row: usize,
    column: usize,
    (alpha, beta): (T, T),
    c: &mut [T],
    shape: GemmShape,
) {
    let width = T::Lanes::<S>::WIDTH;
    let GemmShape { n, k, .. } = shape;
    let mut sums = [[T::Lanes::<S>::zero(); V]; R];
    for p in 0..k {
        let b_row = &b[p * columns + column..][..V * width];
        let mut b_vectors = [T::Lanes::<S>::zero(); V];
        for v in 0..V {
            b_vectors[v] = T::Lanes::<S>::load(&b_row[v * width..]);
        }
        for r in 0..R {
            let a_value = T::Lanes::<S>::splat(a[(row + r) * row_step + p * depth_step]);
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
            result.store_partial(target);
        }
    }
}
