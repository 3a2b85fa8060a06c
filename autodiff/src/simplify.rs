//! What the builder does to an operation before recording it: constant folding and algebraic simplification. Each rule
//! returns a value that was recorded already or one made of fewer or smaller operations, so simplification ends.

use std::sync::Arc;

use crate::builder::Builder;
use crate::interpret::{Operand, evaluate};
use crate::ir::{Binary, Instruction, Op, Unary, ValueId};
use crate::shape::{broadcasts_to, element_count, result_shape};
use crate::var::Var;

/// Constant arrays larger than this are folded only where the result is no larger than what it is made of.
const FOLDED_ELEMENTS: usize = 1024;

impl Builder {
    /// A simpler value equal to the operation, if there is one. `shape` is the operation's result shape.
    pub(crate) fn simplify(&self, op: &Op, shape: &[usize]) -> Option<Var<'_>> {
        let emit = |op: Op| Some(self.emit(op, shape));
        if let Some(folded) = self.fold_constants(op, shape) {
            return Some(folded);
        }
        let keep = |id: ValueId| Some(self.var(id));
        match op {
            Op::Input(_)
            | Op::Constant(_)
            | Op::Softmax(_)
            | Op::LayerNorm { .. }
            | Op::RowReciprocalStd { .. } => None,
            Op::ConstantTensor(values) => {
                let first = values.first()?;
                let uniform = values.iter().all(|v| v.to_bits() == first.to_bits());
                uniform.then(|| self.constant(*first, shape))
            }
            Op::Unary(function, operand) => match (function, self.instruction(*operand).op) {
                (Unary::Neg, Op::Unary(Unary::Neg, inner)) => keep(inner),
                (Unary::Neg, Op::Binary(Binary::Sub, a, b)) => emit(Op::Binary(Binary::Sub, b, a)),
                (_, Op::BroadcastTo(inner)) => {
                    let inner = self.emit(Op::Unary(*function, inner), &[]);
                    emit(Op::BroadcastTo(inner.id))
                }
                _ => None,
            },
            Op::Binary(function, a, b) => self.simplify_binary(*function, *a, *b, shape),
            Op::Select {
                mask,
                on_true,
                on_false,
            } => match self.instruction(*mask).op {
                Op::Constant(value) => emit(Op::BroadcastTo(if value != 0.0 {
                    *on_true
                } else {
                    *on_false
                })),
                _ => self.broadcast_implicitly(op, shape, true),
            },
            Op::MatMul {
                a,
                b,
                transpose_a,
                transpose_b,
            } => {
                if let Some(a) = self.exchanges_last_axes(*a) {
                    return emit(Op::MatMul {
                        a,
                        b: *b,
                        transpose_a: !transpose_a,
                        transpose_b: *transpose_b,
                    });
                }
                if let Some(b) = self.exchanges_last_axes(*b) {
                    return emit(Op::MatMul {
                        a: *a,
                        b,
                        transpose_a: *transpose_a,
                        transpose_b: !transpose_b,
                    });
                }
                self.broadcast_implicitly(op, shape, false)
            }
            Op::SoftmaxTangent { .. } | Op::LayerNormTangent { .. } => {
                self.broadcast_implicitly(op, shape, false)
            }
            Op::StopGradient(operand) => {
                matches!(self.instruction(*operand).op, Op::StopGradient(_))
                    .then(|| self.var(*operand))
            }
            Op::BroadcastTo(operand) => {
                let inner = self.instruction(*operand);
                if inner.shape == shape {
                    return keep(*operand);
                }
                if element_count(&inner.shape) == element_count(shape) {
                    return emit(Op::Reshape(*operand));
                }
                match inner.op {
                    Op::BroadcastTo(source) => emit(Op::BroadcastTo(source)),
                    _ => None,
                }
            }
            Op::SumTo(operand) => self.simplify_sum(*operand, shape),
            Op::Reshape(operand) => {
                let inner = self.instruction(*operand);
                if inner.shape == shape {
                    return keep(*operand);
                }
                match inner.op {
                    Op::Reshape(source) => emit(Op::Reshape(source)),
                    _ => None,
                }
            }
            Op::Permute {
                operand,
                permutation,
            } => {
                if permutation.iter().enumerate().all(|(i, &axis)| i == axis) {
                    return keep(*operand);
                }
                match self.instruction(*operand).op {
                    Op::Permute {
                        operand,
                        permutation: first,
                    } => {
                        let permutation = permutation.iter().map(|&axis| first[axis]).collect();
                        emit(Op::Permute {
                            operand,
                            permutation,
                        })
                    }
                    _ => None,
                }
            }
            Op::Slice {
                operand,
                axis,
                start,
                length,
            } => {
                let inner = self.instruction(*operand);
                if inner.shape == shape {
                    return keep(*operand);
                }
                match inner.op {
                    Op::Slice {
                        operand,
                        axis: first,
                        start: offset,
                        ..
                    } if first == *axis => emit(Op::Slice {
                        operand,
                        axis: first,
                        start: start + offset,
                        length: *length,
                    }),
                    Op::Concat {
                        operands,
                        axis: joined,
                    } if joined == *axis => {
                        let mut offset = 0;
                        for part in operands {
                            let size = self.var(part).shape()[*axis];
                            if *start >= offset && start + length <= offset + size {
                                let start = start - offset;
                                return emit(Op::Slice {
                                    operand: part,
                                    axis: *axis,
                                    start,
                                    length: *length,
                                });
                            }
                            offset += size;
                        }
                        None
                    }
                    _ => None,
                }
            }
            Op::Pad {
                operand,
                axis,
                before,
                after,
            } => {
                if before + after == 0 {
                    return keep(*operand);
                }
                match self.instruction(*operand).op {
                    Op::Pad {
                        operand,
                        axis: first,
                        before: b,
                        after: a,
                    } if first == *axis => emit(Op::Pad {
                        operand,
                        axis: first,
                        before: before + b,
                        after: after + a,
                    }),
                    _ => None,
                }
            }
            Op::Concat { operands, axis } => {
                if operands.len() == 1 {
                    return keep(operands[0]);
                }
                let mut flat = Vec::new();
                for &part in operands {
                    match self.instruction(part) {
                        Instruction {
                            op:
                                Op::Concat {
                                    operands,
                                    axis: inner,
                                },
                            ..
                        } if inner == *axis => {
                            flat.extend(operands);
                        }
                        Instruction { shape, .. } if shape[*axis] == 0 => {}
                        _ => flat.push(part),
                    }
                }
                if flat.is_empty() || flat == *operands {
                    return None;
                }
                emit(Op::Concat {
                    operands: flat,
                    axis: *axis,
                })
            }
            Op::Gather {
                operand,
                axis,
                indices,
            } => {
                let start = consecutive(indices)?;
                emit(Op::Slice {
                    operand: *operand,
                    axis: *axis,
                    start,
                    length: indices.len(),
                })
            }
            Op::ScatterAdd {
                operand,
                axis,
                indices,
                size,
            } => {
                let before = consecutive(indices)?;
                let after = size - before - indices.len();
                emit(Op::Pad {
                    operand: *operand,
                    axis: *axis,
                    before,
                    after,
                })
            }
        }
    }

    fn simplify_binary(
        &self,
        function: Binary,
        a: ValueId,
        b: ValueId,
        shape: &[usize],
    ) -> Option<Var<'_>> {
        let (first, second) = (self.instruction(a), self.instruction(b));
        let emit = |function, a, b| Some(self.emit(Op::Binary(function, a, b), shape));
        // Commuting operands in one order, a constant last, let equal expressions meet.
        if matches!(function, Binary::Add | Binary::Mul) {
            let rank = |op: &Op, id: ValueId| (matches!(op, Op::Constant(_)), id);
            if rank(&first.op, a) > rank(&second.op, b) {
                return emit(function, b, a);
            }
        }
        // Compute on the operands as they were before broadcasting.
        let (source_a, source_b) = (
            self.before_broadcast(a, true),
            self.before_broadcast(b, true),
        );
        if (source_a, source_b) != (a, b) {
            let small = self.emit(Op::Binary(function, source_a, source_b), &[]);
            return Some(small.broadcast_to(shape));
        }
        let keep = |id: ValueId| Some(self.var(id).broadcast_to(shape));
        let negate = |id: ValueId| Some((-self.var(id)).broadcast_to(shape));
        match (function, &first.op, &second.op) {
            (Binary::Add, _, Op::Constant(0.0)) | (Binary::Sub, _, Op::Constant(0.0)) => keep(a),
            (Binary::Mul, _, Op::Constant(1.0)) | (Binary::Div, _, Op::Constant(1.0)) => keep(a),
            (Binary::Mul, _, Op::Constant(-1.0)) | (Binary::Div, _, Op::Constant(-1.0)) => {
                negate(a)
            }
            (Binary::Sub, Op::Constant(0.0), _) => negate(b),
            (Binary::Add, _, &Op::Unary(Unary::Neg, inner)) => emit(Binary::Sub, a, inner),
            (Binary::Add, &Op::Unary(Unary::Neg, inner), _) => emit(Binary::Sub, b, inner),
            (Binary::Sub, _, &Op::Unary(Unary::Neg, inner)) => emit(Binary::Add, a, inner),
            (Binary::Mul, &Op::Unary(Unary::Neg, x), &Op::Unary(Unary::Neg, y)) => {
                emit(Binary::Mul, x, y)
            }
            (Binary::Mul, &Op::Unary(Unary::Neg, inner), &Op::Constant(c)) => {
                emit(Binary::Mul, inner, self.constant(-c, &[]).id)
            }
            (Binary::Mul, &Op::Binary(Binary::Mul, inner, scale), &Op::Constant(c)) => {
                match self.instruction(scale).op {
                    Op::Constant(d) => emit(Binary::Mul, inner, self.constant(c * d, &[]).id),
                    _ => None,
                }
            }
            (
                Binary::Add,
                &Op::Pad {
                    operand: x,
                    axis,
                    before: before_x,
                    after: after_x,
                },
                &Op::Pad {
                    operand: y,
                    axis: axis_y,
                    before: before_y,
                    after: after_y,
                },
            ) if axis == axis_y && first.shape == second.shape => {
                // The cotangents of neighbouring slices join without any addition.
                let (size_x, size_y) = (self.var(x).shape()[axis], self.var(y).shape()[axis]);
                let (parts, before, after) = if before_x + size_x == before_y {
                    ([x, y], before_x, after_y)
                } else if before_y + size_y == before_x {
                    ([y, x], before_y, after_x)
                } else {
                    return None;
                };
                Some(
                    self.emit(
                        Op::Concat {
                            operands: parts.to_vec(),
                            axis,
                        },
                        &[],
                    )
                    .pad(axis, before, after),
                )
            }
            _ => None,
        }
    }

    fn simplify_sum(&self, operand: ValueId, shape: &[usize]) -> Option<Var<'_>> {
        let inner = self.instruction(operand);
        if element_count(&inner.shape) == element_count(shape) {
            return Some(self.var(operand).reshape(shape));
        }
        match inner.op {
            Op::SumTo(source) => Some(self.var(source).sum_to(shape)),
            Op::Constant(value) => {
                let terms = element_count(&inner.shape) as f64 / element_count(shape).max(1) as f64;
                Some(self.constant(value * terms, shape))
            }
            // Summing repetitions is multiplying by their number.
            Op::BroadcastTo(source) => {
                let source = self.var(source);
                let source_shape = source.shape();
                let repeated = element_count(&inner.shape) as f64;
                if broadcasts_to(shape, &source_shape) {
                    Some(source.sum_to(shape) * (repeated / element_count(&source_shape) as f64))
                } else if broadcasts_to(&source_shape, shape) {
                    Some((source * (repeated / element_count(shape) as f64)).broadcast_to(shape))
                } else {
                    None
                }
            }
            Op::Unary(Unary::Neg, source) => Some(-self.var(source).sum_to(shape)),
            _ => None,
        }
    }

    /// The operand a value was broadcast from, or the value itself; constants become scalars if `scalars` says so.
    fn before_broadcast(&self, value: ValueId, scalars: bool) -> ValueId {
        let instruction = self.instruction(value);
        match instruction.op {
            Op::BroadcastTo(source) => source,
            Op::Constant(c) if scalars && !instruction.shape.is_empty() => self.constant(c, &[]).id,
            _ => value,
        }
    }

    /// Replaces operands by what they were broadcast from, where the operation broadcasts them to the same result.
    fn broadcast_implicitly(&self, op: &Op, shape: &[usize], scalars: bool) -> Option<Var<'_>> {
        let operands = op.operands();
        for position in 0..operands.len() {
            let source = self.before_broadcast(operands[position], scalars);
            if source == operands[position] {
                continue;
            }
            let mut images = operands.clone();
            images[position] = source;
            let mut next = images.iter();
            let candidate = op.map_operands(|_| *next.next().expect("one image per operand"));
            let shapes: Vec<Vec<usize>> = images.iter().map(|&v| self.var(v).shape()).collect();
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            if result_shape(&candidate, &shapes, shape).as_deref() == Ok(shape) {
                return Some(self.emit(candidate, shape));
            }
        }
        None
    }

    /// The operand of a permutation that exchanges the last two axes and leaves the others.
    fn exchanges_last_axes(&self, value: ValueId) -> Option<ValueId> {
        match self.instruction(value).op {
            Op::Permute {
                operand,
                permutation,
            } => {
                let rank = permutation.len();
                let exchanged = rank >= 2
                    && permutation[rank - 2..] == [rank - 1, rank - 2]
                    && permutation[..rank - 2]
                        .iter()
                        .enumerate()
                        .all(|(i, &axis)| i == axis);
                exchanged.then_some(operand)
            }
            _ => None,
        }
    }

    /// The result of an operation on constants.
    fn fold_constants(&self, op: &Op, shape: &[usize]) -> Option<Var<'_>> {
        let operands: Vec<Instruction> =
            op.operands().iter().map(|&v| self.instruction(v)).collect();
        let constant = |i: &Instruction| matches!(i.op, Op::Constant(_) | Op::ConstantTensor(_));
        if operands.is_empty() || !operands.iter().all(constant) {
            return None;
        }
        if let (Op::Constant(value), true) = (&operands[0].op, keeps_uniform(op)) {
            return Some(self.constant(*value, shape));
        }
        if let (Op::Constant(a), Op::Unary(_, _)) = (&operands[0].op, op) {
            let folded = evaluate(
                op,
                &[Operand {
                    values: &[*a],
                    shape: &[],
                }],
                &[],
            )[0];
            return Some(self.constant(folded, shape));
        }
        if let (
            Op::Binary(_, _, _),
            [
                Instruction {
                    op: Op::Constant(a),
                    ..
                },
                Instruction {
                    op: Op::Constant(b),
                    ..
                },
            ],
        ) = (op, operands.as_slice())
        {
            let scalars = [
                Operand {
                    values: &[*a],
                    shape: &[],
                },
                Operand {
                    values: &[*b],
                    shape: &[],
                },
            ];
            return Some(self.constant(evaluate(op, &scalars, &[])[0], shape));
        }
        let sizes: usize = operands.iter().map(|i| element_count(&i.shape)).sum();
        if sizes.max(element_count(shape)) > FOLDED_ELEMENTS {
            return None;
        }
        let values: Vec<Vec<f64>> = (operands.iter())
            .map(|i| match &i.op {
                Op::Constant(value) => vec![*value; element_count(&i.shape)],
                Op::ConstantTensor(values) => values.to_vec(),
                _ => unreachable!("all operands are constants"),
            })
            .collect();
        let arguments: Vec<Operand> = values
            .iter()
            .zip(&operands)
            .map(|(values, i)| Operand {
                values,
                shape: &i.shape,
            })
            .collect();
        Some(self.emit(
            Op::ConstantTensor(Arc::new(evaluate(op, &arguments, shape))),
            shape,
        ))
    }
}

/// Whether an operation of one operand only moves elements, so that a uniform operand gives a uniform result.
fn keeps_uniform(op: &Op) -> bool {
    matches!(
        op,
        Op::StopGradient(_)
            | Op::BroadcastTo(_)
            | Op::Reshape(_)
            | Op::Permute { .. }
            | Op::Slice { .. }
            | Op::Gather { .. }
    )
}

/// The first of consecutive rising indices.
fn consecutive(indices: &[usize]) -> Option<usize> {
    let start = *indices.first()?;
    indices
        .iter()
        .enumerate()
        .all(|(i, &index)| index == start + i)
        .then_some(start)
}
