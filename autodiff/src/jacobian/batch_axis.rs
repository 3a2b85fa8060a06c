//! Which axis of every value of a linear program runs over the samples.

use crate::ir::{Op, Program};

/// For every value, its axis along which the samples of input `input` (its axis 0) lie; `None` where the value does not
/// depend on that input or no single axis holds the samples.
pub(super) fn batch_axes(program: &Program, input: usize) -> Vec<Option<usize>> {
    let batch = program.input_shape(input)[0];
    let mut axes: Vec<Option<usize>> = Vec::with_capacity(program.instructions.len());
    for instruction in &program.instructions {
        let shape = &instruction.shape;
        let operands = instruction.op.operands();
        // Axes that operands' batch axes become when shapes are aligned at the end.
        let aligned: Vec<usize> = operands
            .iter()
            .filter_map(|v| {
                Some(axes[v.index()]? + shape.len().checked_sub(program.shape(*v).len())?)
            })
            .collect();
        let agreed = aligned
            .first()
            .copied()
            .filter(|first| aligned.iter().all(|axis| axis == first));
        let axis = match &instruction.op {
            Op::Input(number) => (*number == input).then_some(0),
            Op::Constant(_) | Op::ConstantTensor(_) => None,
            Op::Unary(..)
            | Op::Binary(..)
            | Op::Select { .. }
            | Op::StopGradient(_)
            | Op::BroadcastTo(_) => agreed,
            Op::Softmax(_)
            | Op::SoftmaxTangent { .. }
            | Op::LayerNorm { .. }
            | Op::RowReciprocalStd { .. }
            | Op::LayerNormTangent { .. } => agreed.filter(|axis| axis + 1 < shape.len()),
            Op::SumTo(operand) => {
                let missing = program.shape(*operand).len() - shape.len();
                axes[operand.index()].and_then(|axis| axis.checked_sub(missing))
            }
            Op::Reshape(operand) => axes[operand.index()].and_then(|axis| {
                let before: usize = program.shape(*operand)[..axis].iter().product();
                (0..shape.len()).find(|&image| {
                    shape[image] == batch && shape[..image].iter().product::<usize>() == before
                })
            }),
            Op::Permute {
                operand,
                permutation,
            } => axes[operand.index()]
                .and_then(|axis| permutation.iter().position(|&source| source == axis)),
            Op::Slice { axis: cut, .. }
            | Op::Pad { axis: cut, .. }
            | Op::Concat { axis: cut, .. }
            | Op::Gather { axis: cut, .. }
            | Op::ScatterAdd { axis: cut, .. } => agreed.filter(|axis| axis != cut),
            Op::MatMul {
                a,
                b,
                transpose_a,
                transpose_b,
            } => {
                let rank = shape.len();
                let image = |operand: usize, transposed: bool, kept: usize| {
                    let axis = axes[operand]?;
                    let own = program.instructions[operand].shape.len();
                    if axis + 2 < own {
                        return Some(axis + rank - own);
                    }
                    // Of the matrix axes, rows of op(a) and columns of op(b) stay.
                    let position = (axis + 2 - own) ^ usize::from(transposed);
                    (position == kept).then_some(rank - 2 + kept)
                };
                match (axes[a.index()], axes[b.index()]) {
                    (Some(_), None) => image(a.index(), *transpose_a, 0),
                    (None, Some(_)) => image(b.index(), *transpose_b, 1),
                    _ => None,
                }
            }
        };
        axes.push(axis.filter(|&axis| shape.get(axis) == Some(&batch)));
    }
    axes
}
