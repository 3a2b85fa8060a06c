//! Matrix products over strided views: one tall product where the batch allows it, many small ones otherwise.

use super::layout::{View, collapse, for_each_offset};
use super::memory::Memory;
use boltzmap_kernels::Real;
use boltzmap_kernels::gemm::{self, Factor, Finish, RightFactor, Start};

/// What happens to the old content of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Store {
    /// Overwritten.
    Replace,
    /// Added to when the run accumulates into its outputs, else overwritten.
    AddIfAccumulating,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Matrix {
    buffer: usize,
    row_stride: usize,
    column_stride: usize,
}

/// What else happens to a product, with an array D or a number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Combine<'v> {
    /// The sums start from D.
    Add(&'v View),
    /// The sums are multiplied by D.
    Multiply(&'v View),
    /// The sums are multiplied by a number.
    Scale(f64),
}

impl<'v> Combine<'v> {
    pub(super) fn view(&self) -> Option<&'v View> {
        match self {
            Combine::Add(view) | Combine::Multiply(view) => Some(view),
            Combine::Scale(_) => None,
        }
    }
}

/// Where D lies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    None,
    /// Added: the same row for every row of C.
    AddRow(usize),
    /// Added: a matrix for every C, with this row stride.
    AddMatrix(usize, usize),
    /// Multiplied: a matrix for every C, with this row stride.
    Multiply(usize, usize),
    /// No array, but a factor.
    Scale(f64),
}

/// C = D + A·B or D ⊙ A·B for every entry of a batch; entries may share C, whose contributions then add up in order.
#[derive(Clone, Debug)]
pub(super) struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    other: Other,
    /// B lies in panels in the buffer of the prepared factors.
    panels: bool,
    pub(super) store: Store,
    entries: Vec<Entry>,
}

/// One matrix product of a batch.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// First elements of A, B, C and D.
    starts: [usize; 4],
    /// An earlier entry has written this C.
    written: bool,
}

/// One batch axis: entries, and the strides of A, B, C and D.
#[derive(Clone, Copy)]
struct BatchAxis(usize, [usize; 4]);

/// A right factor that is the same for every entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SharedFactor {
    pub(super) buffer: usize,
    pub(super) offset: usize,
    pub(super) strides: [usize; 2],
    pub(super) k: usize,
    pub(super) n: usize,
}

impl Product {
    /// `a`, `b` and `c` are `[…, m, k]`, `[…, k, n]` and `[…, m, n]` with equal batch axes (stride 0 where repeated; a
    /// stride 0 in `c` sums over the axis). The last axis of `c` must have stride 1. An array to combine with has the shape of `c`
    /// and the stride 1 on the last axis; a row stride of 0 only when it is added.
    pub(super) fn new(a: &View, b: &View, c: &View, combine: Option<Combine<'_>>) -> Self {
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
        // Without one, any stand-in: its strides must not hinder merging.
        let d = combine.and_then(|combine| combine.view()).unwrap_or(c);
        let mut md = matrix(d);
        let (shape, strides) = collapse(
            &c.shape[..batch],
            &[
                &a.strides[..batch],
                &b.strides[..batch],
                &c.strides[..batch],
                &d.strides[..batch],
            ],
        );
        let mut batch: Vec<BatchAxis> = (0..shape.len())
            .map(|i| {
                BatchAxis(
                    shape[i],
                    [strides[0][i], strides[1][i], strides[2][i], strides[3][i]],
                )
            })
            .collect();
        // Batch axes become rows of A and C where B is shared, or part of the summed axis where C is.
        while let Some(i) = batch.iter().rposition(|&BatchAxis(_, [sa, sb, sc, sd])| {
            (sb == 0
                && sc != 0
                && (m == 1
                    || (sa == m * ma.row_stride
                        && sc == m * mc.row_stride
                        && sd == m * md.row_stride)))
                || (sc == 0
                    && combine.is_none()
                    && (k == 1 || (sa == k * ma.column_stride && sb == k * mb.row_stride)))
        }) {
            let BatchAxis(size, [sa, sb, sc, sd]) = batch.remove(i);
            if sc != 0 {
                if m == 1 {
                    (ma.row_stride, mc.row_stride, md.row_stride) = (sa, sc, sd);
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
            [&stride(0), &stride(1), &stride(2), &stride(3)],
            [a.offset, b.offset, c.offset, d.offset],
            |starts| {
                entries.push(Entry {
                    starts,
                    written: last == Some(starts[2]),
                });
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
            other: match combine {
                None => Other::None,
                Some(Combine::Scale(factor)) => Other::Scale(factor),
                Some(Combine::Multiply(view)) => Other::Multiply(view.buffer, md.row_stride),
                Some(Combine::Add(view)) if md.row_stride == 0 || m == 1 => {
                    Other::AddRow(view.buffer)
                }
                Some(Combine::Add(view)) => Other::AddMatrix(view.buffer, md.row_stride),
            },
            panels: false,
            store: Store::Replace,
            entries,
        }
    }

    /// Whether a factor can be read: no repetition inside.
    pub(super) fn readable(view: &View) -> bool {
        let axes = view.shape.len();
        (view.shape[axes - 2] == 1 || view.strides[axes - 2] != 0)
            && (view.shape[axes - 1] == 1 || view.strides[axes - 1] != 0)
    }

    /// The right factor, when every entry has the same and enough rows use it.
    pub(super) fn shared_factor(&self) -> Option<SharedFactor> {
        let first = self.entries.first()?.starts[1];
        let shared = self.entries.iter().all(|entry| entry.starts[1] == first);
        (shared && self.m * self.entries.len() >= 4 && !self.panels).then_some(SharedFactor {
            buffer: self.b.buffer,
            offset: first,
            strides: [self.b.row_stride, self.b.column_stride],
            k: self.k,
            n: self.n,
        })
    }

    /// Reads the right factor in panels from here instead.
    pub(super) fn use_panels(&mut self, buffer: usize, offset: usize) {
        self.b.buffer = buffer;
        self.panels = true;
        self.entries
            .iter_mut()
            .for_each(|entry| entry.starts[1] = offset);
    }

    /// Buffers read, and the one written.
    pub(super) fn buffers(&self) -> (impl Iterator<Item = usize>, usize) {
        let other = match self.other {
            Other::None | Other::Scale(_) => None,
            Other::AddRow(buffer) | Other::AddMatrix(buffer, _) | Other::Multiply(buffer, _) => {
                Some(buffer)
            }
        };
        let factors = [self.a.buffer, self.b.buffer];
        (factors.into_iter().chain(other), self.c.buffer)
    }

    /// The buffer that the result may overwrite, supposing nothing reads it later: an addend laid out as the result.
    pub(super) fn may_overwrite(&self) -> Option<usize> {
        match self.other {
            Other::AddMatrix(buffer, row_stride)
                if (row_stride == self.c.row_stride)
                    && buffer != self.a.buffer
                    && buffer != self.b.buffer
                    && self
                        .entries
                        .iter()
                        .all(|entry| entry.starts[3] == entry.starts[2] && !entry.written) =>
            {
                Some(buffer)
            }
            Other::None
            | Other::AddRow(_)
            | Other::AddMatrix(..)
            | Other::Multiply(..)
            | Other::Scale(_) => None,
        }
    }

    /// Whether the result is the bare product, so that runs can add it up.
    pub(super) fn can_accumulate(&self) -> bool {
        self.other == Other::None
    }

    /// Floating-point operations.
    pub(super) fn operations(&self) -> usize {
        2 * self.m * self.n * self.k * self.entries.len()
    }

    pub(super) fn describe(&self) -> String {
        let other = match self.other {
            Other::None => "",
            Other::AddRow(_) => " plus row",
            Other::AddMatrix(..) => " plus matrix",
            Other::Multiply(..) => " times matrix",
            Other::Scale(_) => " scaled",
        };
        format!(
            "{} x [{} x {} x {}]{}{other}",
            self.entries.len(),
            self.m,
            self.k,
            self.n,
            if self.panels { " panels" } else { "" }
        )
    }

    pub(super) fn run<T: Real>(&self, memory: &Memory<'_, T>, accumulate: bool) {
        let add = match self.store {
            Store::Replace => false,
            Store::AddIfAccumulating => accumulate,
        };
        let products = self.entries.iter().map(|entry| {
            let [a, b, c, d] = entry.starts;
            let right = memory.at(self.b.buffer, b).cast_const();
            gemm::Product {
                m: self.m,
                n: self.n,
                k: self.k,
                a: Factor {
                    data: memory.at(self.a.buffer, a).cast_const(),
                    row: self.a.row_stride,
                    column: self.a.column_stride,
                },
                b: if self.panels {
                    RightFactor::Panels(right)
                } else {
                    RightFactor::Strided(Factor {
                        data: right,
                        row: self.b.row_stride,
                        column: self.b.column_stride,
                    })
                },
                c: memory.at(self.c.buffer, c),
                c_row: self.c.row_stride,
                start: if add || entry.written {
                    Start::Target
                } else {
                    match self.other {
                        Other::None | Other::Multiply(..) | Other::Scale(_) => Start::Zero,
                        Other::AddRow(buffer) => Start::Row(memory.at(buffer, d)),
                        Other::AddMatrix(buffer, step) => Start::Matrix(memory.at(buffer, d), step),
                    }
                },
                finish: match self.other {
                    Other::Multiply(buffer, step) => Finish::Multiply(memory.at(buffer, d), step),
                    Other::Scale(factor) => Finish::Scale(T::from_f64(factor)),
                    Other::None | Other::AddRow(_) | Other::AddMatrix(..) => Finish::Keep,
                },
            }
        });
        // SAFETY: the views were checked to lie in their buffers; C is no factor's memory, and an addend's only when it
        // is laid out as C.
        unsafe { gemm::multiply(products) };
    }
}
