//! Shape rules: the result shape of every operation from its operands' shapes.

use crate::ir::Op;

/// An operation applied to operands whose shapes do not fit it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{op} cannot be applied to operands of shapes {operands:?}: {reason}")]
pub struct ShapeError {
    /// Name of the operation.
    pub op: String,
    /// Shapes of its operands, in order.
    pub operands: Vec<Vec<usize>>,
    /// What does not fit.
    pub reason: String,
}

/// Number of elements of a shape (1 for a scalar).
pub fn element_count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The numpy broadcast of two shapes, aligned at their last axes; `None` if they do not fit.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let entry = |shape: &[usize], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or(1, |i| shape[i])
    };
    (0..rank)
        .map(|axis| match (entry(a, axis), entry(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Whether `from` broadcasts to exactly `to`.
pub fn broadcasts_to(from: &[usize], to: &[usize]) -> bool {
    from.len() <= to.len() && broadcast_shapes(from, to).as_deref() == Some(to)
}

/// The shape of the result of `op`, given its operands' shapes. `declared` is the shape written at the instruction; it
/// decides the result of the operations that carry their target there (inputs, constants, broadcast, sum, reshape) and
/// is not looked at by the others.
pub fn result_shape(
    op: &Op,
    operands: &[&[usize]],
    declared: &[usize],
) -> Result<Vec<usize>, ShapeError> {
    let fail = |reason: String| {
        Err(ShapeError {
            op: op.name(),
            operands: operands.iter().map(|s| s.to_vec()).collect(),
            reason,
        })
    };
    let axis_error =
        |axis: usize, rank: usize| format!("axis {axis} is out of range for rank {rank}");
    match op {
        Op::Input(_) | Op::Constant(_) => Ok(declared.to_vec()),
        Op::ConstantTensor(values) => {
            if values.len() != element_count(declared) {
                return fail(format!(
                    "{} values do not fill the shape {declared:?}",
                    values.len()
                ));
            }
            Ok(declared.to_vec())
        }
        Op::Unary(_, _) | Op::StopGradient(_) => Ok(operands[0].to_vec()),
        Op::Binary(_, _, _) => match broadcast_shapes(operands[0], operands[1]) {
            Some(shape) => Ok(shape),
            None => fail("the shapes do not broadcast".into()),
        },
        Op::Select { .. } => {
            let branches = broadcast_shapes(operands[1], operands[2]);
            match branches.and_then(|shape| broadcast_shapes(&shape, operands[0])) {
                Some(shape) => Ok(shape),
                None => fail("the shapes do not broadcast".into()),
            }
        }
        Op::BroadcastTo(_) => {
            if !broadcasts_to(operands[0], declared) {
                return fail(format!("it does not broadcast to {declared:?}"));
            }
            Ok(declared.to_vec())
        }
        Op::SumTo(_) => {
            if !broadcasts_to(declared, operands[0]) {
                return fail(format!("{declared:?} does not broadcast back to it"));
            }
            Ok(declared.to_vec())
        }
        Op::Reshape(_) => {
            if element_count(operands[0]) != element_count(declared) {
                return fail(format!("{declared:?} has another number of elements"));
            }
            Ok(declared.to_vec())
        }
        Op::Permute { permutation, .. } => {
            let rank = operands[0].len();
            let mut seen = vec![false; rank];
            for &axis in permutation {
                if axis >= rank || std::mem::replace(&mut seen[axis], true) {
                    return fail(format!(
                        "{permutation:?} is not a permutation of its {rank} axes"
                    ));
                }
            }
            if permutation.len() != rank {
                return fail(format!(
                    "{permutation:?} is not a permutation of its {rank} axes"
                ));
            }
            Ok(permutation.iter().map(|&axis| operands[0][axis]).collect())
        }
        Op::Slice {
            axis,
            start,
            length,
            ..
        } => {
            let mut shape = operands[0].to_vec();
            match shape.get_mut(*axis) {
                None => return fail(axis_error(*axis, operands[0].len())),
                Some(size) if start + length > *size => {
                    return fail(format!(
                        "entries {start}..{} exceed axis {axis} of size {size}",
                        start + length
                    ));
                }
                Some(size) => *size = *length,
            }
            Ok(shape)
        }
        Op::Pad {
            axis,
            before,
            after,
            ..
        } => {
            let mut shape = operands[0].to_vec();
            match shape.get_mut(*axis) {
                None => return fail(axis_error(*axis, operands[0].len())),
                Some(size) => *size += before + after,
            }
            Ok(shape)
        }
        Op::Concat { axis, .. } => {
            let Some(first) = operands.first() else {
                return fail("there is nothing to join".into());
            };
            if *axis >= first.len() {
                return fail(axis_error(*axis, first.len()));
            }
            let mut shape = first.to_vec();
            shape[*axis] = 0;
            for operand in operands {
                let fits = operand.len() == first.len()
                    && operand
                        .iter()
                        .zip(*first)
                        .enumerate()
                        .all(|(i, (x, y))| i == *axis || x == y);
                if !fits {
                    return fail(format!("the shapes differ outside axis {axis}"));
                }
                shape[*axis] += operand[*axis];
            }
            Ok(shape)
        }
        Op::Gather { axis, indices, .. } => {
            let mut shape = operands[0].to_vec();
            match shape.get_mut(*axis) {
                None => return fail(axis_error(*axis, operands[0].len())),
                Some(size) => {
                    if let Some(index) = indices.iter().find(|&&i| i >= *size) {
                        return fail(format!("index {index} exceeds axis {axis} of size {size}"));
                    }
                    *size = indices.len();
                }
            }
            Ok(shape)
        }
        Op::ScatterAdd {
            axis,
            indices,
            size,
            ..
        } => {
            let mut shape = operands[0].to_vec();
            match shape.get_mut(*axis) {
                None => return fail(axis_error(*axis, operands[0].len())),
                Some(length) => {
                    if *length != indices.len() {
                        return fail(format!(
                            "axis {axis} has {length} entries for {} indices",
                            indices.len()
                        ));
                    }
                    *length = *size;
                }
            }
            match indices.iter().find(|&&i| i >= *size) {
                Some(index) => fail(format!("index {index} exceeds the target size {size}")),
                None => Ok(shape),
            }
        }
        Op::MatMul {
            transpose_a,
            transpose_b,
            ..
        } => {
            let (a, b) = (operands[0], operands[1]);
            if a.len() < 2 || b.len() < 2 {
                return fail("both factors need two axes or more".into());
            }
            let (batch_a, matrix_a) = a.split_at(a.len() - 2);
            let (batch_b, matrix_b) = b.split_at(b.len() - 2);
            let (m, k) = if *transpose_a {
                (matrix_a[1], matrix_a[0])
            } else {
                (matrix_a[0], matrix_a[1])
            };
            let (k_b, n) = if *transpose_b {
                (matrix_b[1], matrix_b[0])
            } else {
                (matrix_b[0], matrix_b[1])
            };
            if k != k_b {
                return fail(format!(
                    "the inner sizes {k} and {k_b} differ (transpose_a={transpose_a}, transpose_b={transpose_b})"
                ));
            }
            match broadcast_shapes(batch_a, batch_b) {
                None => fail("the leading axes do not broadcast".into()),
                Some(mut shape) => {
                    shape.extend([m, n]);
                    Ok(shape)
                }
            }
        }
        Op::Softmax(_) | Op::LayerNorm { .. } => {
            if operands[0].is_empty() {
                return fail("a last axis is needed".into());
            }
            Ok(operands[0].to_vec())
        }
        Op::RowReciprocalStd { .. } => {
            let mut shape = operands[0].to_vec();
            match shape.last_mut() {
                None => return fail("a last axis is needed".into()),
                Some(size) => *size = 1,
            }
            Ok(shape)
        }
        Op::SoftmaxTangent { .. } => {
            if operands[0].is_empty() || operands[0].last() != operands[1].last() {
                return fail("the last axes must be the same".into());
            }
            match broadcast_shapes(operands[0], operands[1]) {
                Some(shape) => Ok(shape),
                None => fail("the leading axes do not broadcast".into()),
            }
        }
        Op::LayerNormTangent { .. } => {
            let (normalized, reciprocal_std, direction) = (operands[0], operands[1], operands[2]);
            if normalized.is_empty()
                || normalized.last() != direction.last()
                || reciprocal_std.last() != Some(&1)
            {
                return fail(
                    "the last axes must be the same, and 1 in the reciprocal standard deviation"
                        .into(),
                );
            }
            let shape = broadcast_shapes(normalized, direction);
            match shape.and_then(|shape| broadcast_shapes(&shape, reciprocal_std)) {
                Some(shape) => Ok(shape),
                None => fail("the leading axes do not broadcast".into()),
            }
        }
    }
}
