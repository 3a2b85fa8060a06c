//! Kernels over the rows of row-major matrices: softmax, layer-norm, their tangents, and sums.
//!
//! A row operand with fewer rows than the result is used periodically: row i of the result reads row i modulo the
//! operand's rows, which is broadcasting along leading axes. The functions of one row are for other kernels' bodies.
//!
//! Sums keep one order of additions on all tiers, so the AVX2 and AVX-512 tiers give the same bits.

use crate::elementwise::{fixed_sum, map};
use crate::math;
use crate::real::Real;
use crate::simd::{Kernel, Lanes, Simd, dispatch};

/// yᵢ = exp(xᵢ − max x) / Σⱼ exp(xⱼ − max x) in each row; the kernel of [`softmax_rows`].
pub struct SoftmaxRows<'a, T> {
    /// x `[rows, columns]`
    pub x: &'a [T],
    /// Length of a row.
    pub columns: usize,
    /// y `[rows, columns]`
    pub y: &'a mut [T],
}

impl<T: Real> Kernel for SoftmaxRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let SoftmaxRows { x, columns, y } = self;
        assert_eq!(
            x.len(),
            y.len(),
            "softmax_rows: the result must be as long as the argument"
        );
        if columns == 0 {
            return;
        }
        for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
            softmax_row::<T, S>(x, y);
        }
    }
}

/// The softmax of one row.
#[inline(always)]
pub fn softmax_row<T: Real, S: Simd>(x: &[T], y: &mut [T]) {
    let lowest = T::neg_infinity();
    let mut largest = T::Lanes::<S>::splat(lowest);
    for part in x.chunks(T::Lanes::<S>::WIDTH) {
        largest = T::Lanes::<S>::load_partial(part, lowest).max(largest);
    }
    let largest = T::Lanes::<S>::splat(largest.reduce_max());
    map!(T::Lanes<S>, output = &mut *y; x = x; { math::exp(x - largest) });
    let sum = fixed_sum!(T::Lanes<S>, y.len(); |sum, part| y = y, T::zero(); { sum.add(part, y); });
    let factor = T::Lanes::<S>::splat(T::one() / sum);
    map!(T::Lanes<S>, output = y; y = output; { y * factor });
}

/// Softmax of each row of `columns` elements. A row holding +∞ or NaN, or only −∞, gives NaN.
///
/// # Panics
/// When the lengths differ.
pub fn softmax_rows<T: Real>(x: &[T], columns: usize, y: &mut [T]) {
    dispatch(SoftmaxRows { x, columns, y });
}

/// Row `i` modulo the number of rows of a matrix.
#[inline(always)]
fn periodic_row<T>(matrix: &[T], columns: usize, i: usize) -> &[T] {
    let rows = matrix.len() / columns;
    &matrix[(i % rows) * columns..][..columns]
}

/// out = y ⊙ (v − Σ y⊙v) in each row; the kernel of [`softmax_tangent_rows`].
pub struct SoftmaxTangentRows<'a, T> {
    /// Output y of the softmax, `[rows of y, columns]`, periodic.
    pub softmax: &'a [T],
    /// Direction v, `[rows of v, columns]`, periodic.
    pub direction: &'a [T],
    /// Length of a row.
    pub columns: usize,
    /// Result `[rows, columns]`.
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for SoftmaxTangentRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let SoftmaxTangentRows {
            softmax,
            direction,
            columns,
            out,
        } = self;
        if columns == 0 {
            return;
        }
        for (i, out) in out.chunks_exact_mut(columns).enumerate() {
            let y = periodic_row(softmax, columns, i);
            let v = periodic_row(direction, columns, i);
            softmax_tangent_row::<T, S>(y, v, out);
        }
    }
}

/// y ⊙ (v − Σ y⊙v) of one row.
#[inline(always)]
pub fn softmax_tangent_row<T: Real, S: Simd>(y: &[T], v: &[T], out: &mut [T]) {
    let sum = fixed_sum!(T::Lanes<S>, out.len(); |sum, part| y = y, T::zero(); v = v, T::zero(); {
        sum.add_product(part, y, v);
    });
    let sum = T::Lanes::<S>::splat(sum);
    map!(T::Lanes<S>, output = out; y = y; v = v; { y * (v - sum) });
}

/// The Jacobian of softmax at output y applied to v: y ⊙ (v − Σ y⊙v) in each row, y and v periodic.
///
/// # Panics
/// When an operand has no rows while the result has.
pub fn softmax_tangent_rows<T: Real>(
    softmax: &[T],
    direction: &[T],
    columns: usize,
    out: &mut [T],
) {
    dispatch(SoftmaxTangentRows {
        softmax,
        direction,
        columns,
        out,
    });
}

/// Mean of a row and 1/√(variance + ε).
#[inline(always)]
fn moments<T: Real, S: Simd>(x: &[T], epsilon: T) -> (T, T) {
    let count = T::from_f64(x.len() as f64);
    let sum = fixed_sum!(T::Lanes<S>, x.len(); |sum, part| x = x, T::zero(); { sum.add(part, x); });
    let mean = sum / count;
    let center = T::Lanes::<S>::splat(mean);
    let squares = fixed_sum!(T::Lanes<S>, x.len(); |sum, part| x = x, mean; {
        let deviation = x - center;
        sum.add_product(part, deviation, deviation);
    });
    (mean, T::one() / (squares / count + epsilon).sqrt())
}

/// y = (x − mean)·r and r = 1/√(variance + ε) in each row; the kernel of [`layer_norm_rows`].
pub struct LayerNormRows<'a, T> {
    /// x `[rows, columns]`
    pub x: &'a [T],
    /// Length of a row.
    pub columns: usize,
    /// ε
    pub epsilon: f64,
    /// y `[rows, columns]`
    pub y: &'a mut [T],
    /// r `[rows]`, or empty when not wanted
    pub reciprocal_std: &'a mut [T],
}

impl<T: Real> Kernel for LayerNormRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let LayerNormRows {
            x,
            columns,
            epsilon,
            y,
            reciprocal_std,
        } = self;
        assert_eq!(
            x.len(),
            y.len(),
            "layer_norm_rows: the result must be as long as the argument"
        );
        if columns == 0 {
            return;
        }
        let epsilon = T::from_f64(epsilon);
        for (i, (x, y)) in x
            .chunks_exact(columns)
            .zip(y.chunks_exact_mut(columns))
            .enumerate()
        {
            let r = layer_norm_row::<T, S>(x, epsilon, y);
            if !reciprocal_std.is_empty() {
                reciprocal_std[i] = r;
            }
        }
    }
}

/// The layer-norm of one row, without gain or bias; returns 1/√(variance + ε).
#[inline(always)]
pub fn layer_norm_row<T: Real, S: Simd>(x: &[T], epsilon: T, y: &mut [T]) -> T {
    let (mean, r) = moments::<T, S>(x, epsilon);
    let (mean, scale) = (T::Lanes::<S>::splat(mean), T::Lanes::<S>::splat(r));
    map!(T::Lanes<S>, output = y; x = x; { (x - mean) * scale });
    r
}

/// 1/√(variance + ε) of one row.
#[inline(always)]
pub fn reciprocal_std_row<T: Real, S: Simd>(x: &[T], epsilon: T) -> T {
    moments::<T, S>(x, epsilon).1
}

/// Layer-norm of each row, without gain or bias: y = (x − mean)·r with r = 1/√(variance + ε), the variance divided by
/// the row's length. `reciprocal_std` receives r `[rows]` unless it is empty.
///
/// # Panics
/// When the lengths do not match.
pub fn layer_norm_rows<T: Real>(
    x: &[T],
    columns: usize,
    epsilon: f64,
    y: &mut [T],
    reciprocal_std: &mut [T],
) {
    dispatch(LayerNormRows {
        x,
        columns,
        epsilon,
        y,
        reciprocal_std,
    });
}

/// r = 1/√(variance + ε) of each row; the kernel of [`reciprocal_std_rows`].
pub struct ReciprocalStdRows<'a, T> {
    /// x `[rows, columns]`
    pub x: &'a [T],
    /// Length of a row.
    pub columns: usize,
    /// ε
    pub epsilon: f64,
    /// r `[rows]`
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for ReciprocalStdRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        assert_eq!(
            self.x.len(),
            self.columns * self.out.len(),
            "reciprocal_std_rows: one result for each row"
        );
        if self.columns == 0 {
            return;
        }
        for (x, out) in self.x.chunks_exact(self.columns).zip(self.out) {
            *out = reciprocal_std_row::<T, S>(x, T::from_f64(self.epsilon));
        }
    }
}

/// r = 1/√(variance + ε) of each row.
///
/// # Panics
/// When the lengths do not match.
pub fn reciprocal_std_rows<T: Real>(x: &[T], columns: usize, epsilon: f64, out: &mut [T]) {
    dispatch(ReciprocalStdRows {
        x,
        columns,
        epsilon,
        out,
    });
}

/// out = r ⊙ (v − mean v − y·mean(y⊙v)) in each row; the kernel of [`layer_norm_tangent_rows`].
pub struct LayerNormTangentRows<'a, T> {
    /// Output y of the layer-norm, `[rows of y, columns]`, periodic.
    pub normalized: &'a [T],
    /// r `[rows of r]`, periodic.
    pub reciprocal_std: &'a [T],
    /// Direction v, `[rows of v, columns]`, periodic.
    pub direction: &'a [T],
    /// Length of a row.
    pub columns: usize,
    /// Result `[rows, columns]`.
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for LayerNormTangentRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let LayerNormTangentRows {
            normalized,
            reciprocal_std,
            direction,
            columns,
            out,
        } = self;
        if columns == 0 {
            return;
        }
        for (i, out) in out.chunks_exact_mut(columns).enumerate() {
            let y = periodic_row(normalized, columns, i);
            let v = periodic_row(direction, columns, i);
            let r = reciprocal_std[i % reciprocal_std.len()];
            layer_norm_tangent_row::<T, S>(y, r, v, out);
        }
    }
}

/// r ⊙ (v − mean v − y·mean(y⊙v)) of one row.
#[inline(always)]
pub fn layer_norm_tangent_row<T: Real, S: Simd>(y: &[T], r: T, v: &[T], out: &mut [T]) {
    let count = T::from_f64(out.len() as f64);
    let r = T::Lanes::<S>::splat(r);
    let sum =
        fixed_sum!(T::Lanes<S>, out.len(); |sum, part| v = v, T::zero(); { sum.add(part, v); });
    let product = fixed_sum!(T::Lanes<S>, out.len(); |sum, part| y = y, T::zero(); v = v, T::zero(); {
        sum.add_product(part, y, v);
    });
    let mean = T::Lanes::<S>::splat(sum / count);
    let slope = T::Lanes::<S>::splat(product / count);
    map!(T::Lanes<S>, output = out; y = y; v = v; { r * y.neg_mul_add(slope, v - mean) });
}

/// The Jacobian of layer-norm at output y applied to v: r ⊙ (v − mean v − y·mean(y⊙v)) in each row; y, r and v periodic.
///
/// # Panics
/// When an operand has no rows while the result has.
pub fn layer_norm_tangent_rows<T: Real>(
    normalized: &[T],
    reciprocal_std: &[T],
    direction: &[T],
    columns: usize,
    out: &mut [T],
) {
    dispatch(LayerNormTangentRows {
        normalized,
        reciprocal_std,
        direction,
        columns,
        out,
    });
}

/// outᵢ = Σⱼ xᵢⱼ; the kernel of [`row_sums`].
pub struct RowSums<'a, T> {
    /// x `[rows, columns]`
    pub x: &'a [T],
    /// Length of a row.
    pub columns: usize,
    /// Result `[rows]`.
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for RowSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let RowSums { x, columns, out } = self;
        assert_eq!(
            x.len(),
            columns * out.len(),
            "row_sums: one result for each row"
        );
        if columns == 0 {
            out.fill(T::zero());
            return;
        }
        for (x, out) in x.chunks_exact(columns).zip(out) {
            *out = row_sum::<T, S>(x);
        }
    }
}

/// The sum of one row.
#[inline(always)]
pub fn row_sum<T: Real, S: Simd>(x: &[T]) -> T {
    fixed_sum!(T::Lanes<S>, x.len(); |sum, part| x = x, T::zero(); { sum.add(part, x); })
}

/// The sum of each row.
///
/// # Panics
/// When `x.len()` is not `columns · out.len()`.
pub fn row_sums<T: Real>(x: &[T], columns: usize, out: &mut [T]) {
    dispatch(RowSums { x, columns, out });
}

/// outⱼ += Σᵢ xᵢⱼ; the kernel of [`add_column_sums`].
pub struct AddColumnSums<'a, T> {
    /// x `[rows, columns]`
    pub x: &'a [T],
    /// Result `[columns]`, added to.
    pub out: &'a mut [T],
}

impl<T: Real> Kernel for AddColumnSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let AddColumnSums { x, out } = self;
        if out.is_empty() {
            return;
        }
        assert_eq!(x.len() % out.len(), 0, "add_column_sums: whole rows only");
        for x in x.chunks_exact(out.len()) {
            map!(T::Lanes<S>, output = &mut *out; sum = output; x = x; { sum + x });
        }
    }
}

/// Adds every row of x `[rows, columns]` to `out` `[columns]`, first row first: the gradient of a bias.
///
/// # Panics
/// When x does not consist of whole rows.
pub fn add_column_sums<T: Real>(x: &[T], out: &mut [T]) {
    dispatch(AddColumnSums { x, out });
}
