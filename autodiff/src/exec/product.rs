//! Matrix products over strided views: one tall product where the batch allows it, many small ones otherwise.

use super::layout::{View, collapse, for_each_offset};
use super::memory::{Memory, load, store};
use boltzmap_kernels::{Kernel, Lanes, Real, Simd, dispatch};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use std::any::TypeId;

/// Largest size of every dimension for the own kernel of small products.
const SMALL: usize = 64;

/// What happens to the old content of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Store {
    /// Overwritten.
    Replace,
    /// Added to when the run accumulates into its outputs, else overwritten.
    AddIfAccumulating,
}

#[derive(Clone, Copy, Debug)]
struct Matrix {
    buffer: usize,
    row_stride: usize,
    column_stride: usize,
}

/// C = A·B for every entry of a batch; entries may share C, whose contributions then add up in order.
#[derive(Clone, Debug)]
pub(super) struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    pub(super) store: Store,
    /// Starts of A, B and C, and whether an earlier entry has written this C.
    entries: Vec<([usize; 3], bool)>,
}

/// One batch axis: entries, and the strides of A, B and C.
#[derive(Clone, Copy)]
struct BatchAxis(usize, [usize; 3]);

impl Product {
    /// `a`, `b` and `c` are `[…, m, k]`, `[…, k, n]` and `[…, m, n]` with equal batch axes (stride 0 where repeated; a
    /// stride 0 in `c` sums over the axis). The last axis of `c` must have stride 1.
    pub(super) fn new(a: &View, b: &View, c: &View) -> Self {
        let axes = c.shape.len();
        let batch = axes - 2;
        let (mut m, mut k) = (a.shape[axes - 2], a.shape[axes - 1]);
        let n = b.shape[axes - 1];
        let matrix = |view: &View| Matrix {
            buffer: view.buffer,
            row_stride: view.strides[axes - 2],
            column_stride: view.strides[axes - 1],
        };
        let (mut ma, mut mb, mut mc) = (matrix(a), matrix(b), matrix(c));
        let (shape, strides) = collapse(
            &c.shape[..batch],
            &[
                &a.strides[..batch],
                &b.strides[..batch],
                &c.strides[..batch],
            ],
        );
        let mut batch: Vec<BatchAxis> = (0..shape.len())
            .map(|i| BatchAxis(shape[i], [strides[0][i], strides[1][i], strides[2][i]]))
            .collect();
        // Batch axes become rows of A and C where B is shared, or part of the summed axis where C is.
        while let Some(i) = batch.iter().rposition(|&BatchAxis(_, [sa, sb, sc])| {
            (sb == 0 && sc != 0 && (m == 1 || (sa == m * ma.row_stride && sc == m * mc.row_stride)))
                || (sc == 0 && (k == 1 || (sa == k * ma.column_stride && sb == k * mb.row_stride)))
        }) {
            let BatchAxis(size, [sa, sb, sc]) = batch.remove(i);
            if sc != 0 {
                if m == 1 {
                    (ma.row_stride, mc.row_stride) = (sa, sc);
                }
                m *= size;
            } else {
                if k == 1 {
                    (ma.column_stride, mb.row_stride) = (sa, sb);
                }
                k *= size;
            }
        }
        // Sums run innermost, so that each C is finished before the next.
        batch.sort_by_key(|axis| axis.1[2] == 0);
        let mut entries = Vec::new();
        let sizes: Vec<usize> = batch.iter().map(|axis| axis.0).collect();
        let stride = |i: usize| batch.iter().map(|axis| axis.1[i]).collect::<Vec<_>>();
        let mut last = None;
        for_each_offset(
            &sizes,
            [&stride(0), &stride(1), &stride(2)],
            [a.offset, b.offset, c.offset],
            |starts| {
                entries.push((starts, last == Some(starts[2])));
                last = Some(starts[2]);
            },
        );
        Self {
            m,
            n,
            k,
            a: ma,
            b: mb,
            c: mc,
            store: Store::Replace,
            entries,
        }
    }

    /// Whether both factors can be read in place: a unit stride on one axis of each, and no repetition inside.
    pub(super) fn readable(view: &View) -> bool {
        let axes = view.shape.len();
        let (rows, columns) = (view.shape[axes - 2], view.shape[axes - 1]);
        let (row_stride, column_stride) = (view.strides[axes - 2], view.strides[axes - 1]);
        (column_stride == 1 || columns == 1 || row_stride == 1 || rows == 1)
            && (rows == 1 || row_stride != 0)
            && (columns == 1 || column_stride != 0)
    }

    pub(super) fn buffers(&self) -> [usize; 3] {
        [self.a.buffer, self.b.buffer, self.c.buffer]
    }

    /// Floating-point operations.
    pub(super) fn operations(&self) -> usize {
        2 * self.m * self.n * self.k * self.entries.len()
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} x [{} x {} x {}]",
            self.entries.len(),
            self.m,
            self.k,
            self.n
        )
    }

    pub(super) fn run<T: Real>(&self, memory: &Memory<'_, T>, accumulate: bool) {
        let add = match self.store {
            Store::Replace => false,
            Store::AddIfAccumulating => accumulate,
        };
        if self.entries.len() > 1 && self.m.max(self.n).max(self.k) <= SMALL {
            dispatch(SmallProducts {
                product: self,
                memory,
                add,
            });
            return;
        }
        for &([a, b, c], written) in &self.entries {
            // SAFETY: the views were checked to lie in their buffers; C is no factor's memory.
            unsafe {
                general_product(
                    [self.m, self.n, self.k],
                    (
                        memory.at(self.a.buffer, a).cast_const(),
                        self.a.row_stride,
                        self.a.column_stride,
                    ),
                    (
                        memory.at(self.b.buffer, b).cast_const(),
                        self.b.row_stride,
                        self.b.column_stride,
                    ),
                    (
                        memory.at(self.c.buffer, c),
                        self.c.row_stride,
                        self.c.column_stride,
                    ),
                    add || written,
                );
            }
        }
    }
}

/// One factor or the result: first element, row stride, column stride.
type RawMatrix<P> = (P, usize, usize);

/// C = A·B, added to C's content when `add`.
///
/// # Safety
/// The matrices lie inside valid memory, and C overlaps neither factor.
#[inline]
unsafe fn general_product<T: Real>(
    sizes: [usize; 3],
    a: RawMatrix<*const T>,
    b: RawMatrix<*const T>,
    c: RawMatrix<*mut T>,
    add: bool,
) {
    // SAFETY: the caller's; a pointer to T is a pointer to the type that T was found to be.
    unsafe {
        if TypeId::of::<T>() == TypeId::of::<f32>() {
            typed_product(
                sizes,
                (a.0.cast::<f32>(), a.1, a.2),
                (b.0.cast(), b.1, b.2),
                (c.0.cast(), c.1, c.2),
                1.0,
                add,
            );
        } else {
            assert!(
                TypeId::of::<T>() == TypeId::of::<f64>(),
                "matrix products are in f32 or f64, not {}",
                T::NAME
            );
            typed_product(
                sizes,
                (a.0.cast::<f64>(), a.1, a.2),
                (b.0.cast(), b.1, b.2),
                (c.0.cast(), c.1, c.2),
                1.0,
                add,
            );
        }
    }
}

/// # Safety
/// As [`general_product`].
#[inline]
unsafe fn typed_product<T: faer::traits::ComplexField>(
    [m, n, k]: [usize; 3],
    a: RawMatrix<*const T>,
    b: RawMatrix<*const T>,
    c: RawMatrix<*mut T>,
    one: T,
    add: bool,
) {
    // SAFETY: the caller's.
    let (a, b, c) = unsafe {
        (
            MatRef::from_raw_parts(a.0, m, k, a.1 as isize, a.2 as isize),
            MatRef::from_raw_parts(b.0, k, n, b.1 as isize, b.2 as isize),
            MatMut::from_raw_parts_mut(c.0, m, n, c.1 as isize, c.2 as isize),
        )
    };
    matmul(
        c,
        if add { Accum::Add } else { Accum::Replace },
        a,
        b,
        one,
        Par::Seq,
    );
}

struct SmallProducts<'a, 'm, T> {
    product: &'a Product,
    memory: &'a Memory<'m, T>,
    add: bool,
}

impl<T: Real> Kernel for SmallProducts<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Product {
            m, n, k, a, b, c, ..
        } = *self.product;
        let width = T::Lanes::<S>::WIDTH;
        // Rows of B are read in whole vectors: B itself when its rows are long enough, else a copy with padded rows.
        let direct = b.column_stride == 1 && n >= width;
        let columns = n.next_multiple_of(width);
        let mut packed = [T::zero(); SMALL * SMALL];
        let mut packed_from = usize::MAX;
        for &([start_a, start_b, start_c], written) in &self.product.entries {
            let b_data = self.memory.at(b.buffer, start_b).cast_const();
            if !direct && packed_from != start_b {
                // SAFETY: B lies in its buffer, as checked at compile time.
                unsafe { pack(b_data, b, k, n, columns, &mut packed) };
                packed_from = start_b;
            }
            let job = Tile {
                a: self.memory.at(a.buffer, start_a).cast_const(),
                a_row: a.row_stride,
                a_step: a.column_stride,
                b: if direct { b_data } else { packed.as_ptr() },
                b_step: if direct { b.row_stride } else { columns },
                c: self.memory.at(c.buffer, start_c),
                c_row: c.row_stride,
                m,
                k,
                add: self.add || written,
            };
            // SAFETY: A, B and C lie in their buffers, as checked at compile time, and C is no factor's memory; the
            // columns of every tile end at n, except the last, partial one of packed rows.
            unsafe {
                let mut column = 0;
                while n - column > 2 * width {
                    job.all_rows::<S, 2>([column, column + width], width);
                    column += 2 * width;
                }
                let rest = n - column;
                if rest > width && (rest == 2 * width || n >= width) {
                    // The second vector ends at n, over columns of the first: both hold the same sums.
                    job.all_rows::<S, 2>([column, n - width], width);
                } else if rest == width {
                    job.all_rows::<S, 1>([column, 0], width);
                } else if column >= width && !job.add {
                    job.all_rows::<S, 1>([n - width, 0], width);
                } else if !direct {
                    job.all_rows::<S, 1>([column, 0], rest);
                } else {
                    // Few columns to be added to: through a packed copy.
                    pack(b_data.add(column), b, k, rest, width, &mut packed);
                    let job = Tile {
                        b: packed.as_ptr(),
                        b_step: width,
                        c: job.c.add(column),
                        ..job
                    };
                    job.all_rows::<S, 1>([0, 0], rest);
                }
            }
        }
    }
}

/// Copies B to rows of `columns` elements; the padding's products are never stored.
///
/// # Safety
/// B's `k` rows of `n` elements are readable.
#[inline(always)]
unsafe fn pack<T: Real>(
    data: *const T,
    layout: Matrix,
    k: usize,
    n: usize,
    columns: usize,
    packed: &mut [T],
) {
    for p in 0..k {
        let row = &mut packed[p * columns..][..n];
        let source = data.wrapping_add(p * layout.row_stride);
        for (j, value) in row.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *value = unsafe { *source.add(j * layout.column_stride) };
        }
    }
}

#[derive(Clone, Copy)]
struct Tile<T> {
    a: *const T,
    a_row: usize,
    a_step: usize,
    b: *const T,
    b_step: usize,
    c: *mut T,
    c_row: usize,
    m: usize,
    k: usize,
    add: bool,
}

impl<T: Real> Tile<T> {
    /// Vectors of columns at the given starts, `count` columns of the last one, over all rows.
    ///
    /// # Safety
    /// Whole vectors of B's rows and `count` columns of C are valid at the starts.
    #[inline(always)]
    unsafe fn all_rows<S: Simd, const V: usize>(self, starts: [usize; 2], count: usize) {
        let mut row = 0;
        // SAFETY: the caller's.
        unsafe {
            while row + 8 <= self.m {
                self.rows::<S, 8, V>(row, starts, count);
                row += 8;
            }
            if row + 4 <= self.m {
                self.rows::<S, 4, V>(row, starts, count);
                row += 4;
            }
            if row + 2 <= self.m {
                self.rows::<S, 2, V>(row, starts, count);
                row += 2;
            }
            if row < self.m {
                self.rows::<S, 1, V>(row, starts, count);
            }
        }
    }

    /// `R` rows by `V` vectors of C, kept in registers over the whole sum.
    ///
    /// # Safety
    /// As [`Tile::all_rows`].
    #[inline(always)]
    unsafe fn rows<S: Simd, const R: usize, const V: usize>(
        self,
        row: usize,
        starts: [usize; 2],
        count: usize,
    ) {
        let width = T::Lanes::<S>::WIDTH;
        let mut sums = [[T::Lanes::<S>::zero(); V]; R];
        for p in 0..self.k {
            let mut b = [T::Lanes::<S>::zero(); V];
            for v in 0..V {
                // SAFETY: the caller's.
                b[v] = unsafe { load::<T, S>(self.b.add(p * self.b_step + starts[v])) };
            }
            for r in 0..R {
                // SAFETY: the caller's.
                let a = unsafe { *self.a.add((row + r) * self.a_row + p * self.a_step) };
                let a = T::Lanes::<S>::splat(a);
                for v in 0..V {
                    sums[r][v] = a.mul_add(b[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            let c_row = self.c.wrapping_add((row + r) * self.c_row);
            // SAFETY: the caller's.
            unsafe {
                if count == width {
                    if self.add {
                        for v in 0..V {
                            sums[r][v] = sums[r][v] + load::<T, S>(c_row.add(starts[v]));
                        }
                    }
                    for v in 0..V {
                        store::<T, S>(c_row.add(starts[v]), sums[r][v]);
                    }
                } else {
                    let target = std::slice::from_raw_parts_mut(c_row.add(starts[0]), count);
                    let sum = if self.add {
                        sums[r][0] + T::Lanes::<S>::load_partial(target, T::zero())
                    } else {
                        sums[r][0]
                    };
                    sum.store_partial(target);
                }
            }
        }
    }
}
