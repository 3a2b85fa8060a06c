//! Matrix products over strided views: one tall product where the batch allows it, many small ones otherwise.

use super::layout::{View, collapse, for_each_offset};
use super::memory::Memory;
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
    /// Added to.
    Add,
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
            Store::Add => true,
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
        let columns = n.next_multiple_of(width);
        let mut packed = [T::zero(); SMALL * SMALL];
        let mut packed_from = usize::MAX;
        for &([start_a, start_b, start_c], written) in &self.product.entries {
            let add = self.add || written;
            let length = |matrix: Matrix, rows: usize, columns: usize| {
                (rows - 1) * matrix.row_stride + (columns - 1) * matrix.column_stride + 1
            };
            // SAFETY: the views were checked to lie in their buffers; C is no factor's memory.
            let (a_data, b_data, c_data) = unsafe {
                (
                    self.memory.read(a.buffer, start_a, length(a, m, k)),
                    self.memory.read(b.buffer, start_b, length(b, k, n)),
                    self.memory.write(c.buffer, start_c, length(c, m, n)),
                )
            };
            let direct = b.column_stride == 1 && columns == n;
            if !direct && packed_from != start_b {
                pack(b_data, b, k, n, columns, &mut packed);
                packed_from = start_b;
            }
            let (b_rows, b_step) = if direct {
                (b_data, b.row_stride)
            } else {
                (&packed[..k * columns], columns)
            };
            let mut column = 0;
            while column < columns {
                let job = Tile {
                    a: a_data,
                    a_layout: a,
                    b: b_rows,
                    b_step,
                    c_step: c.row_stride,
                    n,
                    k,
                    column,
                    add,
                };
                if columns - column >= 2 * width {
                    job.all_rows::<S, 2>(c_data, m);
                    column += 2 * width;
                } else {
                    job.all_rows::<S, 1>(c_data, m);
                    column += width;
                }
            }
        }
    }
}

/// Copies B to rows of `columns` elements; the padding's products are never stored.
#[inline(always)]
fn pack<T: Real>(data: &[T], layout: Matrix, k: usize, n: usize, columns: usize, packed: &mut [T]) {
    if layout.column_stride == 1 {
        for p in 0..k {
            packed[p * columns..p * columns + n]
                .copy_from_slice(&data[p * layout.row_stride..][..n]);
        }
    } else {
        for j in 0..n {
            let column = &data[j * layout.column_stride..];
            for p in 0..k {
                packed[p * columns + j] = column[p * layout.row_stride];
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Tile<'a, T> {
    a: &'a [T],
    a_layout: Matrix,
    b: &'a [T],
    b_step: usize,
    c_step: usize,
    n: usize,
    k: usize,
    column: usize,
    add: bool,
}

impl<T: Real> Tile<'_, T> {
    #[inline(always)]
    fn all_rows<S: Simd, const V: usize>(self, c: &mut [T], m: usize) {
        let mut row = 0;
        while row + 8 <= m {
            self.rows::<S, 8, V>(c, row);
            row += 8;
        }
        if row + 4 <= m {
            self.rows::<S, 4, V>(c, row);
            row += 4;
        }
        if row + 2 <= m {
            self.rows::<S, 2, V>(c, row);
            row += 2;
        }
        if row < m {
            self.rows::<S, 1, V>(c, row);
        }
    }

    /// `R` rows by `V` vectors of C, kept in registers over the whole sum.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const V: usize>(self, c: &mut [T], row: usize) {
        let width = T::Lanes::<S>::WIDTH;
        let mut sums = [[T::Lanes::<S>::zero(); V]; R];
        for p in 0..self.k {
            let b_row = &self.b[p * self.b_step + self.column..][..V * width];
            let mut b = [T::Lanes::<S>::zero(); V];
            for v in 0..V {
                b[v] = T::Lanes::<S>::load(&b_row[v * width..]);
            }
            for r in 0..R {
                let a =
                    self.a[(row + r) * self.a_layout.row_stride + p * self.a_layout.column_stride];
                let a = T::Lanes::<S>::splat(a);
                for v in 0..V {
                    sums[r][v] = a.mul_add(b[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            let c_row = &mut c[(row + r) * self.c_step..][..self.n];
            for v in 0..V {
                let start = self.column + v * width;
                if start + width <= self.n {
                    let target = &mut c_row[start..start + width];
                    let old = if self.add {
                        T::Lanes::<S>::load(target)
                    } else {
                        T::Lanes::<S>::zero()
                    };
                    (sums[r][v] + old).store(target);
                } else if start < self.n {
                    let target = &mut c_row[start..];
                    let old = if self.add {
                        T::Lanes::<S>::load_partial(target, T::zero())
                    } else {
                        T::Lanes::<S>::zero()
                    };
                    (sums[r][v] + old).store_partial(target);
                }
            }
        }
    }
}
