//! Operations along the last axis: softmax, layer-norm, and their Jacobians applied to directions.

use super::layout::{View, collapse, for_each_offset};
use super::memory::Memory;
use boltzmap_kernels::rows::{
    layer_norm_row, layer_norm_tangent_row, reciprocal_std_row, softmax_row, softmax_tangent_row,
};
use boltzmap_kernels::{Kernel, Real, Simd, dispatch};

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
                    RowFunction::Softmax => softmax_row::<T, S>(operand(0, n), output),
                    RowFunction::SoftmaxTangent => {
                        softmax_tangent_row::<T, S>(operand(0, n), operand(1, n), output)
                    }
                    RowFunction::LayerNorm { epsilon } => {
                        layer_norm_row::<T, S>(operand(0, n), T::from_f64(epsilon), output);
                    }
                    RowFunction::ReciprocalStd { epsilon } => {
                        output[0] = reciprocal_std_row::<T, S>(operand(0, n), T::from_f64(epsilon));
                    }
                    RowFunction::LayerNormAndStd { epsilon } => {
                        let r = layer_norm_row::<T, S>(operand(0, n), T::from_f64(epsilon), output);
                        // SAFETY: as above, one element per row.
                        unsafe { memory.write(job.outputs[1], row, 1)[0] = r };
                    }
                    RowFunction::LayerNormTangent => {
                        layer_norm_tangent_row::<T, S>(
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
