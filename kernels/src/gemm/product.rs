//! The kernel behind every matrix product.
//!
//! C is cut into tiles of a few rows by two vectors of columns that stay in registers while the sum over k runs. A is
//! read one element at a time, wherever its strides put it, so neither A nor a transposed A is ever copied. B is read
//! in whole vectors along its rows: in place where its rows are contiguous, else from a copy of one panel of columns.
//! A factor that many products share can be laid out in panels beforehand ([`pack_panels`](super::pack_panels)).
//!
//! Every element of C is one chain of multiply-adds over k in increasing order, from its start on. The chain does not
//! depend on the tile it falls in, on how k is cut, or on the width of the vectors, so the AVX2 and AVX-512 tiers give
//! the same bits.

use super::pack::pack_panel;
use crate::real::Real;
use crate::simd::{Kernel, Lanes, Simd, Tier, dispatch};
use std::mem::MaybeUninit;

/// A factor: element (i, j) lies at `data + i·row + j·column`.
#[derive(Clone, Copy, Debug)]
pub struct Factor<T> {
    /// Element (0, 0).
    pub data: *const T,
    /// Elements from a row to the next.
    pub row: usize,
    /// Elements from a column to the next.
    pub column: usize,
}

/// The right factor of a product.
#[derive(Clone, Copy, Debug)]
pub enum RightFactor<T> {
    /// As it lies.
    Strided(Factor<T>),
    /// As [`pack_panels`](super::pack_panels) laid it out, on the tier now active.
    Panels(*const T),
}

/// What the product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Start<T> {
    /// 0.
    Zero,
    /// What C holds.
    Target,
    /// The same row of n elements for every row of C.
    Row(*const T),
    /// A matrix with contiguous rows, this many elements apart; it may be C itself.
    Matrix(*const T, usize),
}

/// What happens to the finished sums.
#[derive(Clone, Copy, Debug)]
pub enum Finish<T> {
    /// Stored as they are.
    Keep,
    /// Each multiplied by an element of a matrix of `period` contiguous rows, `row` elements apart, which starts anew
    /// after its last row.
    Multiply {
        /// Element (0, 0).
        data: *const T,
        /// Elements from a row to the next.
        row: usize,
        /// Number of rows, at least 1.
        period: usize,
    },
    /// Each multiplied by this number.
    Scale(T),
}

/// C = (start + A·B), finished: C is m × n with contiguous rows `c_row` apart, A is m × k, B is k × n.
#[derive(Clone, Copy, Debug)]
pub struct Product<T> {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Left factor.
    pub a: Factor<T>,
    /// Right factor.
    pub b: RightFactor<T>,
    /// Element (0, 0) of the result.
    pub c: *mut T,
    /// Elements from a row of the result to the next.
    pub c_row: usize,
    /// What is added to.
    pub start: Start<T>,
    /// What happens to the sums.
    pub finish: Finish<T>,
}

/// Computes every product that `next` yields, one after another.
///
/// # Safety
/// Every element that the sizes and strides of a product reach must be readable, those of C writable; C must not
/// overlap A, B or a [`Start::Row`], and a [`Start::Matrix`] or [`Finish::Multiply`] either not at all or, a start, with
/// the same first element and row stride.
pub unsafe fn multiply<T: Real>(products: impl Iterator<Item = Product<T>>) {
    dispatch(Multiply { products });
}

/// As [`multiply`] on a given tier.
///
/// # Safety
/// As [`multiply`].
pub(super) unsafe fn multiply_on<T: Real>(tier: Tier, products: impl Iterator<Item = Product<T>>) {
    crate::simd::dispatch_on(tier, Multiply { products });
}

struct Multiply<I> {
    products: I,
}

impl<T: Real, I: Iterator<Item = Product<T>>> Kernel for Multiply<I> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for product in self.products {
            // SAFETY: the promise of the caller of `multiply`.
            unsafe { multiply_one::<T, S>(&product) };
        }
    }
}

/// Rows of B in one pass over C when B is copied: a panel of them fills the first-level cache.
pub(super) const PACKED_DEPTH: usize = 256;

/// Rows of B in one pass over C when B is read in place.
const DEPTH: usize = 512;

/// Bytes of A that are used again for every panel of B, a part of the second-level cache.
const LEFT_BYTES: usize = 384 * 1024;

/// Bytes of B that stay in the first-level cache beside rows of C.
const RIGHT_BYTES: usize = 20 * 1024;

/// Columns from which on rows of C lie far apart.
const WIDE: usize = 256;

/// Most rows of C whose sums leave registers for B and an element of A.
#[inline(always)]
fn tallest_tile<S: Simd>() -> usize {
    if matches!(S::TIER, Tier::Avx512) {
        8
    } else {
        6
    }
}

/// Rows of B further apart than this share too few sets of the caches to be read in place.
const FAR: usize = 4096;

/// Vectors in a panel's row.
pub(super) const PANEL_VECTORS: usize = 2;

/// Most elements of a panel's row: two vectors of sixteen `f32`.
pub(super) const WIDEST_PANEL: usize = 32;

/// One product.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn multiply_one<T: Real, S: Simd>(product: &Product<T>) {
    let Product { m, n, k, .. } = *product;
    let width = T::Lanes::<S>::WIDTH;
    let panel = PANEL_VECTORS * width;
    let in_place = match product.b {
        RightFactor::Panels(_) => true,
        RightFactor::Strided(b) => {
            (b.column == 1 || n == 1)
                && (b.row * size_of::<T>() < FAR || m <= 16)
                && (n.is_multiple_of(width) || T::Lanes::<S>::PARTIAL_IS_FAST)
        }
    };
    let depth = if in_place { DEPTH } else { PACKED_DEPTH };
    let rows = if in_place && n >= WIDE && n * k * size_of::<T>() <= RIGHT_BYTES {
        // All of B stays in the first-level cache: C is written row after row, not in columns of panels far apart.
        tallest_tile::<S>()
    } else {
        (LEFT_BYTES / (size_of::<T>() * depth.min(k.max(1)))).max(64) / 8 * 8
    };
    let mut copy = MaybeUninit::<[T; WIDEST_PANEL * PACKED_DEPTH]>::uninit();
    let copy = copy.as_mut_ptr().cast::<T>();
    let mut k_start = 0;
    loop {
        let k_now = depth.min(k - k_start);
        let mut row = 0;
        while row < m {
            let rows_now = rows.min(m - row);
            let mut column = 0;
            while column < n {
                let columns = panel.min(n - column);
                // SAFETY: everything stays inside the matrices the caller vouches for; the copy holds
                // `PACKED_DEPTH` rows of a panel.
                unsafe {
                    let (b, b_step, masked) = match product.b {
                        RightFactor::Panels(data) => {
                            (data.add(column * k + k_start * panel), panel, false)
                        }
                        RightFactor::Strided(b) => {
                            let source = Factor {
                                data: b.data.add(k_start * b.row + column * b.column),
                                ..b
                            };
                            if in_place {
                                (source.data, b.row, !columns.is_multiple_of(width))
                            } else {
                                pack_panel::<T, S>(source, k_now, columns, copy);
                                (copy.cast_const(), panel, false)
                            }
                        }
                    };
                    let start = if k_start == 0 {
                        product.start.at(row, column, product)
                    } else {
                        Start::Target
                    };
                    let strip = Strip {
                        a: product
                            .a
                            .data
                            .add(row * product.a.row + k_start * product.a.column),
                        a_row: product.a.row,
                        a_step: product.a.column,
                        b,
                        b_step,
                        c: product.c.add(row * product.c_row + column),
                        c_row: product.c_row,
                        k: k_now,
                        columns,
                        start,
                        finish: match product.finish {
                            _ if k_start + k_now < k => Finish::Keep,
                            Finish::Multiply {
                                data,
                                row: step,
                                period,
                            } => Finish::Multiply {
                                data: data.add(column),
                                row: step,
                                period,
                            },
                            finish => finish,
                        },
                        finish_row: match product.finish {
                            Finish::Multiply { period, .. } => row % period,
                            Finish::Keep | Finish::Scale(_) => 0,
                        },
                    };
                    strip.run::<S>(rows_now, masked);
                }
                column += panel;
            }
            row += rows_now;
        }
        k_start += k_now;
        if k_start >= k {
            return;
        }
    }
}

impl<T: Real> Start<T> {
    /// The start of the part of C at a row and column.
    ///
    /// # Safety
    /// The part lies inside C.
    #[inline(always)]
    unsafe fn at(self, row: usize, column: usize, product: &Product<T>) -> Self {
        debug_assert!(row <= product.m && column <= product.n);
        // SAFETY: the caller's.
        unsafe {
            match self {
                Start::Zero => Start::Zero,
                Start::Target => Start::Target,
                Start::Row(data) => Start::Row(data.add(column)),
                Start::Matrix(data, step) => Start::Matrix(data.add(row * step + column), step),
            }
        }
    }
}

/// All rows of one panel of columns of C.
#[derive(Clone, Copy)]
struct Strip<T> {
    a: *const T,
    a_row: usize,
    a_step: usize,
    b: *const T,
    b_step: usize,
    c: *mut T,
    c_row: usize,
    k: usize,
    /// At most a panel's.
    columns: usize,
    start: Start<T>,
    finish: Finish<T>,
    /// The row of a [`Finish::Multiply`] at the strip's first, less than its period.
    finish_row: usize,
}

impl<T: Real> Strip<T> {
    /// `masked`: B's rows end with the columns, so the last vector is loaded in part.
    ///
    /// # Safety
    /// As [`multiply`].
    #[inline(always)]
    unsafe fn run<S: Simd>(self, rows: usize, masked: bool) {
        let one = self.columns <= T::Lanes::<S>::WIDTH;
        // SAFETY: the caller's.
        unsafe {
            match (one, masked) {
                (true, false) => self.all_rows::<S, 1, false>(rows),
                (true, true) => self.all_rows::<S, 1, true>(rows),
                (false, false) => self.all_rows::<S, 2, false>(rows),
                (false, true) => self.all_rows::<S, 2, true>(rows),
            }
        }
    }

    /// # Safety
    /// As [`multiply`].
    #[inline(always)]
    unsafe fn all_rows<S: Simd, const V: usize, const MASKED: bool>(mut self, rows: usize) {
        let mut left = rows;
        // SAFETY: the caller's.
        unsafe {
            if tallest_tile::<S>() == 8 {
                while left >= 8 {
                    self.tile::<S, 8, V, MASKED>();
                    self.advance(8);
                    left -= 8;
                }
            } else {
                while left >= 6 {
                    self.tile::<S, 6, V, MASKED>();
                    self.advance(6);
                    left -= 6;
                }
            }
            if left >= 4 {
                self.tile::<S, 4, V, MASKED>();
                self.advance(4);
                left -= 4;
            }
            if left >= 2 {
                self.tile::<S, 2, V, MASKED>();
                self.advance(2);
                left -= 2;
            }
            if left > 0 {
                self.tile::<S, 1, V, MASKED>();
            }
        }
    }

    /// Moves on by some rows.
    #[inline(always)]
    fn advance(&mut self, rows: usize) {
        self.a = self.a.wrapping_add(rows * self.a_row);
        self.c = self.c.wrapping_add(rows * self.c_row);
        if let Start::Matrix(data, step) = self.start {
            self.start = Start::Matrix(data.wrapping_add(rows * step), step);
        }
        if let Finish::Multiply { period, .. } = self.finish {
            self.finish_row = wrapped(self.finish_row + rows, period);
        }
    }

    /// `R` rows by `V` vectors of C.
    ///
    /// # Safety
    /// As [`multiply`].
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize, const MASKED: bool>(self) {
        let width = T::Lanes::<S>::WIDTH;
        let last = self.columns - (V - 1) * width;
        // SAFETY: rows 0..R of A and C and `columns` columns of B and C are the caller's promise; whole vectors of B are
        // read from a panel, which has them, or where the columns fill them.
        unsafe {
            let mut sums = [[T::Lanes::<S>::zero(); V]; R];
            match self.start {
                Start::Zero => {}
                Start::Target => {
                    for r in 0..R {
                        sums[r] = load_row::<T, S, V>(self.c.add(r * self.c_row), last);
                    }
                }
                Start::Row(data) => sums = [load_row::<T, S, V>(data, last); R],
                Start::Matrix(data, step) => {
                    for r in 0..R {
                        sums[r] = load_row::<T, S, V>(data.add(r * step), last);
                    }
                }
            }
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.k {
                let b_row: [T::Lanes<S>; V] = if MASKED {
                    load_row::<T, S, V>(b, last)
                } else {
                    load_row::<T, S, V>(b, width)
                };
                for r in 0..R {
                    let value = T::Lanes::<S>::splat(*a.add(r * self.a_row));
                    for v in 0..V {
                        sums[r][v] = value.mul_add(b_row[v], sums[r][v]);
                    }
                }
                a = a.wrapping_add(self.a_step);
                b = b.wrapping_add(self.b_step);
            }
            match self.finish {
                Finish::Keep => {}
                Finish::Multiply { data, row, period } => {
                    for r in 0..R {
                        let at = wrapped(self.finish_row + r, period);
                        let row = load_row::<T, S, V>(data.add(at * row), last);
                        for v in 0..V {
                            sums[r][v] = sums[r][v] * row[v];
                        }
                    }
                }
                Finish::Scale(factor) => {
                    let factor = T::Lanes::<S>::splat(factor);
                    for row in &mut sums {
                        for sum in row {
                            *sum = *sum * factor;
                        }
                    }
                }
            }
            for r in 0..R {
                let c_row = self.c.add(r * self.c_row);
                for v in 0..V - 1 {
                    let target = std::slice::from_raw_parts_mut(c_row.add(v * width), width);
                    sums[r][v].store(target);
                }
                let target = std::slice::from_raw_parts_mut(c_row.add((V - 1) * width), last);
                if last == width {
                    sums[r][V - 1].store(target);
                } else {
                    sums[r][V - 1].store_partial(target);
                }
            }
        }
    }
}

/// A row counted from the first, at most a tile's rows beyond the end. Periods shorter than a tile are rare.
#[inline(always)]
fn wrapped(mut row: usize, period: usize) -> usize {
    while row >= period {
        row -= period;
    }
    row
}

/// `V` vectors, of the last one `last` lanes.
///
/// # Safety
/// That many elements are readable.
#[inline(always)]
unsafe fn load_row<T: Real, S: Simd, const V: usize>(
    data: *const T,
    last: usize,
) -> [T::Lanes<S>; V] {
    let width = T::Lanes::<S>::WIDTH;
    let mut row = [T::Lanes::<S>::zero(); V];
    // SAFETY: the caller's.
    unsafe {
        for v in 0..V - 1 {
            row[v] = T::Lanes::<S>::load(std::slice::from_raw_parts(data.add(v * width), width));
        }
        let rest = std::slice::from_raw_parts(data.add((V - 1) * width), last);
        row[V - 1] = if last == width {
            T::Lanes::<S>::load(rest)
        } else {
            T::Lanes::<S>::load_partial(rest, T::zero())
        };
    }
    row
}
