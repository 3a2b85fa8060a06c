//! Operations along the last axis: softmax, layer-norm, and their Jacobians applied to directions.

use super::functions;
use super::layout::{View, collapse, for_each_offset};
use super::memory::Memory;
use boltzmap_kernels::{Kernel, Lanes, Real, Simd, dispatch};

/// What is computed for each row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RowFunction {
    /// softmax(x)
    Softmax,
    /// y ⊙ (v − Σ y⊙v), operands y, v
    SoftmaxTangent,
    /// (x − mean)·r
    LayerNorm { epsilon: f64 },
    /// r
    ReciprocalStd { epsilon: f64 },
    /// Both of the above, in this order of outputs.
    LayerNormAndStd { epsilon: f64 },
    /// r ⊙ (v − mean(v) − y·mean(y⊙v)), operands y, r, v
    LayerNormTangent,
}

/// A row function over all rows of broadcast operands.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    function: RowFunction,
    length: usize,
    pub(super) operands: Vec<usize>,
    /// Dense.
    pub(super) outputs: Vec<usize>,
    /// Starts of the operands' runs of `rows` rows.
    starts: Vec<[usize; 3]>,
    rows: usize,
    /// Elements from an operand's row to its next.
    steps: [usize; 3],
}

impl Rows {
    /// Operands have equal shapes but for the last axis (1 for r), whose stride is 1.
    pub(super) fn new(function: RowFunction, operands: &[View], outputs: Vec<usize>) -> Self {
        let wide = operands.last().map_or(&[][..], |view| &view.shape[..]);
        let axes = wide.len();
        let mut strides: Vec<&[usize]> = operands
            .iter()
            .map(|view| &view.strides[..axes - 1])
            .collect();
        while strides.len() < 3 {
            strides.push(strides[0]);
        }
        let (mut shape, mut merged) = collapse(&wide[..axes - 1], &strides);
        let rows = shape.pop().unwrap_or(1);
        let mut steps = [0; 3];
        for (step, merged) in steps.iter_mut().zip(&mut merged) {
            *step = merged.pop().unwrap_or(0);
        }
        let mut first = [operands[0].offset; 3];
        for (first, view) in first.iter_mut().zip(operands) {
            *first = view.offset;
        }
        let mut starts = Vec::new();
        for_each_offset(
            &shape,
            [&merged[0], &merged[1], &merged[2]],
            first,
            |offsets| starts.push(offsets),
        );
        Self {
            function,
            length: wide[axes - 1],
            operands: operands.iter().map(|view| view.buffer).collect(),
            outputs,
            starts,
            rows,
            steps,
        }
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{:?} {} x {} x {}",
            self.function,
            self.starts.len(),
            self.rows,
            self.length
        )
    }

    pub(super) fn run<T: Real>(&self, memory: &Memory<'_, T>) {
        dispatch(RunRows { rows: self, memory });
    }
}

struct RunRows<'a, 'm, T> {
    rows: &'a Rows,
    memory: &'a Memory<'m, T>,
}

impl<T: Real> Kernel for RunRows<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { rows: job, memory } = self;
        let n = job.length;
        let mut row = 0;
        for starts in &job.starts {
            for i in 0..job.rows {
                let at = |operand: usize| starts[operand] + i * job.steps[operand];
                // SAFETY: the views were checked to lie in their buffers; outputs are dense, one row after another,
                // and this step's alone.
                let (operand, output) = unsafe {
                    let operand = |which: usize, length: usize| {
                        memory.read(job.operands[which], at(which), length)
                    };
                    let width = if matches!(job.function, RowFunction::ReciprocalStd { .. }) {
                        1
                    } else {
                        n
                    };
                    (operand, memory.write(job.outputs[0], row * width, width))
                };
                match job.function {
                    RowFunction::Softmax => softmax::<T, S>(operand(0, n), output),
                    RowFunction::SoftmaxTangent => {
                        softmax_tangent::<T, S>(operand(0, n), operand(1, n), output)
                    }
                    RowFunction::LayerNorm { epsilon } => {
                        let (mean, r) = moments::<T, S>(operand(0, n), epsilon);
                        normalize::<T, S>(operand(0, n), mean, r, output);
                    }
                    RowFunction::ReciprocalStd { epsilon } => {
                        output[0] = moments::<T, S>(operand(0, n), epsilon).1;
                    }
                    RowFunction::LayerNormAndStd { epsilon } => {
                        let (mean, r) = moments::<T, S>(operand(0, n), epsilon);
                        normalize::<T, S>(operand(0, n), mean, r, output);
                        // SAFETY: as above, one element per row.
                        unsafe { memory.write(job.outputs[1], row, 1)[0] = r };
                    }
                    RowFunction::LayerNormTangent => {
                        layer_norm_tangent::<T, S>(
                            operand(0, n),
                            operand(1, 1)[0],
                            operand(2, n),
                            output,
                        );
                    }
                }
                row += 1;
            }
        }
    }
}

/// Sum of a row in one vector, the last part padded with zeros.
macro_rules! row_total {
    ($n:expr, |$i:ident, $load:ident| $term:expr) => {{
        let width = T::Lanes::<S>::WIDTH;
        let mut total = T::Lanes::<S>::zero();
        let mut $i = 0;
        while $i + width <= $n {
            #[allow(unused_macros)]
            macro_rules! $load {
                ($row:expr) => {
                    T::Lanes::<S>::load(&$row[$i..])
                };
                ($row:expr, $fill:expr) => {
                    T::Lanes::<S>::load(&$row[$i..])
                };
            }
            total = total + $term;
            $i += width;
        }
        if $i < $n {
            #[allow(unused_macros)]
            macro_rules! $load {
                ($row:expr) => {
                    T::Lanes::<S>::load_partial(&$row[$i..], T::zero())
                };
                ($row:expr, $fill:expr) => {
                    T::Lanes::<S>::load_partial(&$row[$i..], $fill)
                };
            }
            total = total + $term;
        }
        total.reduce_sum()
    }};
}

/// Writes a row, the last part in part.
macro_rules! row_map {
    ($output:expr, |$load:ident| $term:expr) => {{
        let width = T::Lanes::<S>::WIDTH;
        let n = $output.len();
        let mut i = 0;
        while i + width <= n {
            macro_rules! $load {
                ($row:expr) => {
                    T::Lanes::<S>::load(&$row[i..])
                };
            }
            $term.store(&mut $output[i..]);
            i += width;
        }
        if i < n {
            macro_rules! $load {
                ($row:expr) => {
                    T::Lanes::<S>::load_partial(&$row[i..], T::zero())
                };
            }
            $term.store_partial(&mut $output[i..]);
        }
    }};
}

#[inline(always)]
fn softmax<T: Real, S: Simd>(x: &[T], y: &mut [T]) {
    let width = T::Lanes::<S>::WIDTH;
    let n = x.len();
    let lowest = T::neg_infinity();
    let mut largest = T::Lanes::<S>::splat(lowest);
    let mut i = 0;
    while i + width <= n {
        largest = largest.max(T::Lanes::<S>::load(&x[i..]));
        i += width;
    }
    if i < n {
        largest = largest.max(T::Lanes::<S>::load_partial(&x[i..], lowest));
    }
    let largest = T::Lanes::<S>::splat(largest.reduce_max());
    let mut total = T::Lanes::<S>::zero();
    let mut i = 0;
    while i + width <= n {
        let e = functions::exp(T::Lanes::<S>::load(&x[i..]) - largest);
        total = total + e;
        e.store(&mut y[i..]);
        i += width;
    }
    if i < n {
        let e = functions::exp(T::Lanes::<S>::load_partial(&x[i..], lowest) - largest);
        total = total + e;
        e.store_partial(&mut y[i..]);
    }
    let scale = T::Lanes::<S>::splat(T::one() / total.reduce_sum());
    row_map!(y, |load| load!(y) * scale);
}

#[inline(always)]
fn softmax_tangent<T: Real, S: Simd>(y: &[T], v: &[T], output: &mut [T]) {
    let dot = row_total!(y.len(), |i, load| load!(y) * load!(v));
    let dot = T::Lanes::<S>::splat(dot);
    row_map!(output, |load| load!(y) * (load!(v) - dot));
}

/// Mean and 1/√(variance + ε).
#[inline(always)]
fn moments<T: Real, S: Simd>(x: &[T], epsilon: f64) -> (T, T) {
    let scale = T::one() / T::from_f64(x.len() as f64);
    let mean = row_total!(x.len(), |i, load| load!(x)) * scale;
    let center = T::Lanes::<S>::splat(mean);
    let variance = row_total!(x.len(), |i, load| {
        let d = load!(x, mean) - center;
        d * d
    });
    (
        mean,
        T::one() / (variance * scale + T::from_f64(epsilon)).sqrt(),
    )
}

#[inline(always)]
fn normalize<T: Real, S: Simd>(x: &[T], mean: T, r: T, output: &mut [T]) {
    let (mean, r) = (T::Lanes::<S>::splat(mean), T::Lanes::<S>::splat(r));
    row_map!(output, |load| (load!(x) - mean) * r);
}

#[inline(always)]
fn layer_norm_tangent<T: Real, S: Simd>(y: &[T], r: T, v: &[T], output: &mut [T]) {
    let scale = T::one() / T::from_f64(y.len() as f64);
    let mean = T::Lanes::<S>::splat(row_total!(v.len(), |i, load| load!(v)) * scale);
    let dot = T::Lanes::<S>::splat(row_total!(v.len(), |i, load| load!(y) * load!(v)) * scale);
    let r = T::Lanes::<S>::splat(r);
    row_map!(output, |load| r * (load!(v) - mean - load!(y) * dot));
}
