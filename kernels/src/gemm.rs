//! Matrix products of row-major matrices, on one thread.
//!
//! [`gemm`] hands one product to faer. [`batched_gemm`] multiplies many small matrices, such as the heads of an attention
//! layer, by an own kernel, because there the call into a general routine costs more than the product.

mod small;

use crate::real::Real;
use crate::simd::{Tier, dispatch, dispatch_on};

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
/// nothing beyond faer's thread-local packing buffers.
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
    assert!(
        a.len() >= m * k && b.len() >= k * n && c.len() >= m * n,
        "gemm {shape:?} needs A of {}, B of {} and C of {} elements, got {}, {} and {}",
        m * k,
        k * n,
        m * n,
        a.len(),
        b.len(),
        c.len()
    );
    let c = &mut c[..m * n];
    if beta == T::zero() {
        if k == 0 {
            c.fill(T::zero());
        }
    } else if beta != T::one() {
        c.iter_mut().for_each(|value| *value *= beta);
    }
    if m * n * k == 0 {
        return;
    }
    T::matmul(
        shape,
        alpha,
        &a[..m * k],
        transpose_a,
        &b[..k * n],
        transpose_b,
        beta != T::zero(),
        c,
    );
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

/// Largest m, n and k for which [`batched_gemm`] uses its own kernel instead of one [`gemm`] per product.
pub const SMALL_LIMIT: usize = 64;

/// Cᵢ ← α·Aᵢ·Bᵢ + β·Cᵢ for every product of the batch, with the layouts of [`gemm`].
///
/// Up to [`SMALL_LIMIT`] in every dimension each element of C is one chain of multiply-adds over k in increasing order,
/// the same on all tiers with fused multiply-add.
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
    if m.max(n).max(k) <= SMALL_LIMIT {
        let kernel = small::SmallGemm {
            batch,
            alpha,
            a,
            transpose_a,
            b,
            transpose_b,
            beta,
            c,
        };
        match tier {
            Some(tier) => dispatch_on(tier, kernel),
            None => dispatch(kernel),
        }
    } else {
        for i in 0..count {
            let c = &mut c[i * stride_c..][..m * n];
            gemm(
                shape,
                alpha,
                &a[i * stride_a..],
                transpose_a,
                &b[i * stride_b..],
                transpose_b,
                beta,
                c,
            );
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The element types faer multiplies; an implementation detail of [`Real`].
#[doc(hidden)]
pub trait Backend: sealed::Sealed + Sized {
    /// C ← α·A·B (+ C when `accumulate`).
    fn matmul(
        shape: GemmShape,
        alpha: Self,
        a: &[Self],
        transpose_a: bool,
        b: &[Self],
        transpose_b: bool,
        accumulate: bool,
        c: &mut [Self],
    );
}

macro_rules! backend {
    ($scalar:ident) => {
        impl Backend for $scalar {
            #[inline]
            fn matmul(
                shape: GemmShape,
                alpha: $scalar,
                a: &[$scalar],
                transpose_a: bool,
                b: &[$scalar],
                transpose_b: bool,
                accumulate: bool,
                c: &mut [$scalar],
            ) {
                use faer::{Accum, MatMut, MatRef, Par};
                let GemmShape { m, n, k } = shape;
                let a = if transpose_a {
                    MatRef::from_row_major_slice(a, k, m).transpose()
                } else {
                    MatRef::from_row_major_slice(a, m, k)
                };
                let b = if transpose_b {
                    MatRef::from_row_major_slice(b, n, k).transpose()
                } else {
                    MatRef::from_row_major_slice(b, k, n)
                };
                let c = MatMut::from_row_major_slice_mut(c, m, n);
                let accumulation = if accumulate {
                    Accum::Add
                } else {
                    Accum::Replace
                };
                faer::linalg::matmul::matmul(c, accumulation, a, b, alpha, Par::Seq);
            }
        }
    };
}

backend!(f32);
backend!(f64);
