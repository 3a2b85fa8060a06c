//! Steps that move or add elements: strided copies, sums, indexed copies.

use super::layout::{View, collapse, for_each_offset};
use super::memory::Memory;
use super::product::Store;
use boltzmap_kernels::rows::row_sum;
use boltzmap_kernels::{Kernel, Lanes, Real, Simd, dispatch};
use std::sync::Arc;

/// Copies one view to another of the same shape, or adds it.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) source: usize,
    pub(super) target: usize,
    shape: Vec<usize>,
    source_strides: Vec<usize>,
    target_strides: Vec<usize>,
    starts: [usize; 2],
    store: Store,
}

impl Copy {
    pub(super) fn new(source: &View, target: &View, store: Store) -> Self {
        let (mut shape, mut strides) = collapse(&target.shape, &[&source.strides, &target.strides]);
        if shape.is_empty() {
            shape.push(1);
            strides.iter_mut().for_each(|s| s.push(1));
        }
        let target_strides = strides.pop().unwrap_or_default();
        let source_strides = strides.pop().unwrap_or_default();
        Self {
            source: source.buffer,
            target: target.buffer,
            shape,
            source_strides,
            target_strides,
            starts: [source.offset, target.offset],
            store,
        }
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn run<T: Real>(&self, memory: &Memory<'_, T>, accumulate: bool) {
        let add = match self.store {
            Store::Replace => false,
            Store::AddIfAccumulating => accumulate,
        };
        let outer = self.shape.len() - 1;
        let length = self.shape[outer];
        let (source_step, target_step) = (self.source_strides[outer], self.target_strides[outer]);
        let dense = source_step == 1 && target_step == 1;
        for_each_offset(
            &self.shape[..outer],
            [&self.source_strides[..outer], &self.target_strides[..outer]],
            self.starts,
            |[from, to]| {
                let source = memory.at(self.source, from).cast_const();
                let target = memory.at(self.target, to);
                // SAFETY: both views were checked to lie in their buffers; the target is a buffer of its own.
                unsafe {
                    if dense && !add {
                        std::ptr::copy_nonoverlapping(source, target, length);
                    } else if add {
                        for i in 0..length {
                            *target.add(i * target_step) += *source.add(i * source_step);
                        }
                    } else {
                        for i in 0..length {
                            *target.add(i * target_step) = *source.add(i * source_step);
                        }
                    }
                }
            },
        );
    }
}

/// Sums a view over some axes into a dense buffer.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) source: usize,
    pub(super) target: usize,
    target_length: usize,
    /// Starts in source and target over the axes before the last two.
    starts: Vec<[usize; 2]>,
    rows: usize,
    row_strides: [usize; 2],
    columns: usize,
    column_summed: bool,
    pub(super) store: Store,
}

impl Sum {
    /// `target_strides` are those of the result broadcast to the source's shape. The last axis of the source longer
    /// than 1 must have stride 1.
    pub(super) fn new(
        source: &View,
        target: usize,
        target_length: usize,
        target_strides: &[usize],
    ) -> Self {
        let (mut shape, mut strides) = collapse(&source.shape, &[&source.strides, target_strides]);
        while shape.len() < 2 {
            let unit = usize::from(shape.is_empty());
            shape.insert(0, 1);
            strides.iter_mut().for_each(|s| s.insert(0, unit));
        }
        let last = shape.len() - 1;
        let mut starts = Vec::new();
        for_each_offset(
            &shape[..last - 1],
            [&strides[0][..last - 1], &strides[1][..last - 1]],
            [source.offset, 0],
            |offsets| starts.push(offsets),
        );
        Self {
            source: source.buffer,
            target,
            target_length,
            starts,
            rows: shape[last - 1],
            row_strides: [strides[0][last - 1], strides[1][last - 1]],
            columns: shape[last],
            column_summed: shape[last] > 1 && strides[1][last] == 0,
            store: Store::Replace,
        }
    }

    pub(super) fn describe(&self) -> String {
        let last = if self.column_summed { "summed" } else { "kept" };
        format!(
            "{} x [{} x {} {last}]",
            self.starts.len(),
            self.rows,
            self.columns
        )
    }

    pub(super) fn run<T: Real>(&self, memory: &Memory<'_, T>, accumulate: bool) {
        let add = match self.store {
            Store::Replace => false,
            Store::AddIfAccumulating => accumulate,
        };
        if !add {
            // SAFETY: the target buffer has this length and is this step's alone.
            unsafe { memory.write(self.target, 0, self.target_length) }.fill(T::zero());
        }
        dispatch(RunSum { sum: self, memory });
    }
}

struct RunSum<'a, 'm, T> {
    sum: &'a Sum,
    memory: &'a Memory<'m, T>,
}

/// Rows added up before their sum joins the total, which bounds the growth of rounding errors.
const ROW_BLOCK: usize = 64;

impl<T: Real> Kernel for RunSum<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let sum = self.sum;
        for &[from, to] in &sum.starts {
            let row_span = (sum.rows - 1) * sum.row_strides[0] + sum.columns;
            // SAFETY: the view was checked to lie in its buffer.
            let source = unsafe { self.memory.read(sum.source, from, row_span) };
            let target_span = if sum.column_summed { 1 } else { sum.columns };
            let target_span = (sum.rows - 1) * sum.row_strides[1] + target_span;
            // SAFETY: the target's strides stay inside it, and it is this step's alone.
            let target = unsafe { self.memory.write(sum.target, to, target_span) };
            if sum.column_summed {
                for row in 0..sum.rows {
                    let total = row_sum::<T, S>(&source[row * sum.row_strides[0]..][..sum.columns]);
                    target[row * sum.row_strides[1]] += total;
                }
            } else if sum.row_strides[1] == 0 {
                column_sums::<T, S>(
                    source,
                    sum.row_strides[0],
                    sum.rows,
                    &mut target[..sum.columns],
                );
            } else {
                for row in 0..sum.rows {
                    let source = &source[row * sum.row_strides[0]..][..sum.columns];
                    column_sums::<T, S>(
                        source,
                        0,
                        1,
                        &mut target[row * sum.row_strides[1]..][..sum.columns],
                    );
                }
            }
        }
    }
}

/// Adds `rows` rows, `step` apart, to the target.
#[inline(always)]
fn column_sums<T: Real, S: Simd>(source: &[T], step: usize, rows: usize, target: &mut [T]) {
    let width = T::Lanes::<S>::WIDTH;
    let columns = target.len();
    let mut column = 0;
    while column + 4 * width <= columns {
        column_block::<T, S, 4>(source, step, rows, column, target);
        column += 4 * width;
    }
    while column + width <= columns {
        column_block::<T, S, 1>(source, step, rows, column, target);
        column += width;
    }
    for column in column..columns {
        let mut row = 0;
        while row < rows {
            let end = (row + ROW_BLOCK).min(rows);
            let mut part = T::zero();
            for r in row..end {
                part += source[r * step + column];
            }
            target[column] += part;
            row = end;
        }
    }
}

#[inline(always)]
fn column_block<T: Real, S: Simd, const V: usize>(
    source: &[T],
    step: usize,
    rows: usize,
    column: usize,
    target: &mut [T],
) {
    let width = T::Lanes::<S>::WIDTH;
    let mut totals = [T::Lanes::<S>::zero(); V];
    let mut row = 0;
    while row < rows {
        let end = (row + ROW_BLOCK).min(rows);
        let mut parts = [T::Lanes::<S>::zero(); V];
        for r in row..end {
            let values = &source[r * step + column..][..V * width];
            for v in 0..V {
                parts[v] = parts[v] + T::Lanes::<S>::load(&values[v * width..]);
            }
        }
        for v in 0..V {
            totals[v] = totals[v] + parts[v];
        }
        row = end;
    }
    for v in 0..V {
        let target = &mut target[column + v * width..][..width];
        (T::Lanes::<S>::load(target) + totals[v]).store(target);
    }
}

/// Sets a whole buffer.
#[derive(Clone, Debug)]
pub(super) struct Fill {
    pub(super) target: usize,
    pub(super) length: usize,
    pub(super) value: f64,
}

impl Fill {
    pub(super) fn run<T: Real>(&self, memory: &Memory<'_, T>) {
        // SAFETY: the buffer has this length and is this step's alone.
        unsafe { memory.write(self.target, 0, self.length) }.fill(T::from_f64(self.value));
    }
}

/// Copies (gather) or adds (scatter) blocks of `inner` elements between dense arrays `[outer, source_entries, inner]`
/// and `[outer, target_entries, inner]`.
#[derive(Clone, Debug)]
pub(super) struct Indexed {
    pub(super) source: usize,
    pub(super) source_start: usize,
    pub(super) target: usize,
    pub(super) outer: usize,
    pub(super) source_entries: usize,
    pub(super) target_entries: usize,
    pub(super) inner: usize,
    pub(super) indices: Arc<Vec<usize>>,
    /// Scatter-add instead of gather.
    pub(super) scatter: bool,
}

impl Indexed {
    pub(super) fn run<T: Real>(&self, memory: &Memory<'_, T>) {
        let inner = self.inner;
        // SAFETY: the buffers have these lengths; the target is this step's alone.
        let (source, target) = unsafe {
            (
                memory.read(
                    self.source,
                    self.source_start,
                    self.outer * self.source_entries * inner,
                ),
                memory.write(self.target, 0, self.outer * self.target_entries * inner),
            )
        };
        if self.scatter {
            target.fill(T::zero());
        }
        for outer in 0..self.outer {
            let source =
                &source[outer * self.source_entries * inner..][..self.source_entries * inner];
            let target =
                &mut target[outer * self.target_entries * inner..][..self.target_entries * inner];
            for (j, &index) in self.indices.iter().enumerate() {
                if self.scatter {
                    let from = &source[j * inner..][..inner];
                    for (value, &add) in target[index * inner..][..inner].iter_mut().zip(from) {
                        *value += add;
                    }
                } else {
                    target[j * inner..][..inner].copy_from_slice(&source[index * inner..][..inner]);
                }
            }
        }
    }
}
