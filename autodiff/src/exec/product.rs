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

/// What else happens to a product: its sums start from an array D, and are multiplied by an array E or a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Combine<'v> {
    pub(super) start: Option<&'v View>,
    pub(super) multiply: Option<&'v View>,
    pub(super) scale: Option<f64>,
}

/// Where D lies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Addend {
    None,
    /// The same row for every row of C.
    Row(usize),
    /// A matrix for every C, with this row stride.
    Matrix(usize, usize),
}

/// What the sums are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Multiplier {
    None,
    /// A matrix E for every C, with this row stride and number of rows, after which it starts anew.
    Rows(usize, usize, usize),
    Number(f64),
}

/// C = E ⊙ (D + A·B) for every entry of a batch; entries may share C, whose contributions then add up in order.
#[derive(Clone, Debug)]
pub(super) struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    addend: Addend,
    multiplier: Multiplier,
    /// B lies in panels in the buffer of the prepared factors.
    panels: bool,
    pub(super) store: Store,
    entries: Vec<Entry>,
}

/// One matrix product of a batch.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// First elements of A, B, C, D and E.
    starts: [usize; 5],
    /// An earlier entry has written this C.
    written: bool,
}

/// One batch axis: entries, and the strides of A, B, C, D and E.
#[derive(Clone, Copy)]
struct BatchAxis(usize, [usize; 5]);

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
    pub(super) fn new(a: &View, b: &View, c: &View, combine: Combine<'_>) -> Self {
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
        let (d, e) = (combine.start.unwrap_or(c), combine.multiply.unwrap_or(c));
        let (mut md, mut me) = (matrix(d), matrix(e));
        let bare = combine.start.is_none() && combine.multiply.is_none() && combine.scale.is_none();
        // Rows of E; those of C are a multiple.
        let mut period = m;
        let (shape, strides) = collapse(
            &c.shape[..batch],
            &[
                &a.strides[..batch],
                &b.strides[..batch],
                &c.strides[..batch],
                &d.strides[..batch],
                &e.strides[..batch],
            ],
        );
        let mut batch: Vec<BatchAxis> = (0..shape.len())
            .map(|i| BatchAxis(shape[i], std::array::from_fn(|operand| strides[operand][i])))
            .collect();
        // Batch axes become rows of A and C where B is shared, or part of the summed axis where C is.
        while let Some(i) = batch
            .iter()
            .rposition(|&BatchAxis(_, [sa, sb, sc, sd, se])| {
                (sb == 0
                    && sc != 0
                    && (m == 1
                        || (sa == m * ma.row_stride
                            && sc == m * mc.row_stride
                            && sd == m * md.row_stride))
                    && (se == 0 || (period == m && (m == 1 || se == m * me.row_stride))))
                    || (sc == 0
                        && bare
                        && (k == 1 || (sa == k * ma.column_stride && sb == k * mb.row_stride)))
            })
        {
            let BatchAxis(size, [sa, sb, sc, sd, se]) = batch.remove(i);
            if sc != 0 {
                if m == 1 {
                    (ma.row_stride, mc.row_stride, md.row_stride) = (sa, sc, sd);
                    me.row_stride = se;
                }
                if se != 0 {
                    period *= size;
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
            [&stride(0), &stride(1), &stride(2), &stride(3), &stride(4)],
            [a.offset, b.offset, c.offset, d.offset, e.offset],
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
            addend: match combine.start {
                None => Addend::None,
                Some(view) if md.row_stride == 0 || m == 1 => Addend::Row(view.buffer),
                Some(view) => Addend::Matrix(view.buffer, md.row_stride),
            },
            multiplier: match (combine.multiply, combine.scale) {
                (Some(view), _) => Multiplier::Rows(view.buffer, me.row_stride, period),
                (None, Some(factor)) => Multiplier::Number(factor),
                (None, None) => Multiplier::None,
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
        let addend = match self.addend {
            Addend::None => None,
            Addend::Row(buffer) | Addend::Matrix(buffer, _) => Some(buffer),
        };
        let factors = [self.a.buffer, self.b.buffer];
        let others = addend.into_iter().chain(self.multiplied_by());
        (factors.into_iter().chain(others), self.c.buffer)
    }

    fn multiplied_by(&self) -> Option<usize> {
        match self.multiplier {
            Multiplier::Rows(buffer, ..) => Some(buffer),
            Multiplier::None | Multiplier::Number(_) => None,
        }
    }

    /// The buffer that the result may overwrite, supposing nothing reads it later: an addend laid out as the result.
    pub(super) fn may_overwrite(&self) -> Option<usize> {
        match self.addend {
            Addend::Matrix(buffer, row_stride)
                if (row_stride == self.c.row_stride)
                    && buffer != self.a.buffer
                    && buffer != self.b.buffer
                    && self.multiplied_by() != Some(buffer)
                    && self
                        .entries
                        .iter()
                        .all(|entry| entry.starts[3] == entry.starts[2] && !entry.written) =>
            {
                Some(buffer)
            }
            Addend::None | Addend::Row(_) | Addend::Matrix(..) => None,
        }
    }

    /// Whether the result is the bare product, so that runs can add it up.
    pub(super) fn can_accumulate(&self) -> bool {
        self.addend == Addend::None && self.multiplier == Multiplier::None
    }

    /// Floating-point operations.
    pub(super) fn operations(&self) -> usize {
        2 * self.m * self.n * self.k * self.entries.len()
    }

    pub(super) fn describe(&self) -> String {
        let addend = match self.addend {
            Addend::None => "",
            Addend::Row(_) => " plus row",
            Addend::Matrix(..) => " plus matrix",
        };
        let multiplier = match self.multiplier {
            Multiplier::None => "",
            Multiplier::Rows(..) => " times matrix",
            Multiplier::Number(_) => " scaled",
        };
        format!(
            "{} x [{} x {} x {}]{}{addend}{multiplier}",
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
            let [a, b, c, d, e] = entry.starts;
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
                    match self.addend {
                        Addend::None => Start::Zero,
                        Addend::Row(buffer) => Start::Row(memory.at(buffer, d)),
                        Addend::Matrix(buffer, step) => Start::Matrix(memory.at(buffer, d), step),
                    }
                },
                finish: match self.multiplier {
                    Multiplier::None => Finish::Keep,
                    Multiplier::Rows(buffer, row, period) => Finish::Multiply {
                        data: memory.at(buffer, e),
                        row,
                        period,
                    },
                    Multiplier::Number(factor) => Finish::Scale(T::from_f64(factor)),
                },
            }
        });
        // SAFETY: the views were checked to lie in their buffers; C is no factor's memory, and an addend's only when it
        // is laid out as C.
        unsafe { gemm::multiply(products) };
    }
}
