//! Matrix products on one thread, by one own kernel ([`multiply`]) whatever the sizes and strides.
//!
//! [`gemm`] and [`batched_gemm`] are its safe faces for contiguous row-major matrices.

mod pack;
mod product;

pub use pack::{pack_panels, panel_columns, panels_length};
pub use product::{Factor, Finish, Product, RightFactor, Start, multiply};

use crate::real::Real;
use crate::simd::Tier;

/// Sizes of a product C (`m` × `n`) = A (`m` × `k`) B (`k` × `n`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmShape {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

/// C ← α·A·B + β·C, all row-major and contiguous.
///
/// A is stored `[m, k]`, or `[k, m]` when `transpose_a`; B is stored `[k, n]`, or `[n, k]` when `transpose_b`; C is
/// `[m, n]`. With β = 0 the old contents of C are not read, so they may be NaN. Longer slices are allowed. Allocates
/// nothing. Each element of C is one chain of multiply-adds over k in increasing order, the same on all tiers with
/// fused multiply-add.
///
/// # Panics
/// When a slice is shorter than its matrix.
pub fn gemm<T: Real>(
    shape: GemmShape,
    alpha: T,
    a: &[T],
    transpose_a: bool,
    b: &[T],
    transpose_b: bool,
    beta: T,
    c: &mut [T],
) {
    let GemmShape { m, n, k } = shape;
    let batch = BatchedGemmShape::contiguous(1, m, n, k);
    batched_gemm(batch, alpha, a, transpose_a, b, transpose_b, beta, c);
}

/// A batch of products of one shape. Matrix i of an operand starts at i times its stride; a stride of 0 uses one
/// matrix for the whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchedGemmShape {
    /// Number of products.
    pub batch: usize,
    /// Sizes of each.
    pub shape: GemmShape,
    /// Elements from one A to the next.
    pub stride_a: usize,
    /// Elements from one B to the next.
    pub stride_b: usize,
    /// Elements from one C to the next, at least m·n.
    pub stride_c: usize,
}

impl BatchedGemmShape {
    /// Densely stored batches.
    pub fn contiguous(batch: usize, m: usize, n: usize, k: usize) -> Self {
        Self {
            batch,
            shape: GemmShape { m, n, k },
            stride_a: m * k,
            stride_b: k * n,
            stride_c: m * n,
        }
    }
}

/// Cᵢ ← α·Aᵢ·Bᵢ + β·Cᵢ for every product of the batch, with the layouts of [`gemm`].
///
/// # Panics
/// When a slice is too short or matrices of C overlap.
pub fn batched_gemm<T: Real>(
    batch: BatchedGemmShape,
    alpha: T,
    a: &[T],
    transpose_a: bool,
    b: &[T],
    transpose_b: bool,
    beta: T,
    c: &mut [T],
) {
    batched(None, batch, alpha, a, transpose_a, b, transpose_b, beta, c);
}

/// [`batched_gemm`] on a given tier, for tests and benches.
pub fn batched_gemm_on<T: Real>(
    tier: Tier,
    batch: BatchedGemmShape,
    alpha: T,
    a: &[T],
    transpose_a: bool,
    b: &[T],
    transpose_b: bool,
    beta: T,
    c: &mut [T],
) {
    batched(
        Some(tier),
        batch,
        alpha,
        a,
        transpose_a,
        b,
        transpose_b,
        beta,
        c,
    );
}

fn batched<T: Real>(
    tier: Option<Tier>,
    batch: BatchedGemmShape,
    alpha: T,
    a: &[T],
    transpose_a: bool,
    b: &[T],
    transpose_b: bool,
    beta: T,
    c: &mut [T],
) {
    let BatchedGemmShape {
        batch: count,
        shape,
        stride_a,
        stride_b,
        stride_c,
    } = batch;
    let GemmShape { m, n, k } = shape;
    if count == 0 || m * n == 0 {
        return;
    }
    let last = count - 1;
    assert!(
        a.len() >= last * stride_a + m * k
            && b.len() >= last * stride_b + k * n
            && c.len() >= last * stride_c + m * n,
        "{batch:?} does not fit operands of {}, {} and {} elements",
        a.len(),
        b.len(),
        c.len()
    );
    assert!(
        count == 1 || stride_c >= m * n,
        "{batch:?}: the results overlap"
    );
    if alpha == T::zero() {
        for i in 0..count {
            let c = &mut c[i * stride_c..][..m * n];
            if beta == T::zero() {
                c.fill(T::zero());
            } else {
                c.iter_mut().for_each(|value| *value *= beta);
            }
        }
        return;
    }
    // The kernel adds to what C holds: with other factors than 1 that is brought to the product's scale before, and both
    // to the result's after.
    let add = beta != T::zero();
    for i in 0..count {
        let c = &mut c[i * stride_c..][..m * n];
        if add && beta != alpha {
            c.iter_mut().for_each(|value| *value *= beta / alpha);
        }
    }
    let factor = |data: &[T], transposed: bool, rows: usize, columns: usize| {
        let (row, column) = if transposed { (1, rows) } else { (columns, 1) };
        Factor {
            data: data.as_ptr(),
            row,
            column,
        }
    };
    let (a, b) = (factor(a, transpose_a, m, k), factor(b, transpose_b, k, n));
    let data = c.as_mut_ptr();
    let products = (0..count).map(|i| Product {
        m,
        n,
        k,
        a: Factor {
            data: a.data.wrapping_add(i * stride_a),
            ..a
        },
        b: RightFactor::Strided(Factor {
            data: b.data.wrapping_add(i * stride_b),
            ..b
        }),
        c: data.wrapping_add(i * stride_c),
        c_row: n,
        start: if add { Start::Target } else { Start::Zero },
        finish: Finish::Keep,
    });
    // SAFETY: the lengths were checked above, the results do not overlap each other, and C is borrowed exclusively.
    unsafe {
        match tier {
            Some(tier) => product::multiply_on(tier, products),
            None => multiply(products),
        }
    }
    if alpha != T::one() {
        for i in 0..count {
            let c = &mut c[i * stride_c..][..m * n];
            c.iter_mut().for_each(|value| *value *= alpha);
        }
    }
}
