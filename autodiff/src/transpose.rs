//! Reverse mode: transposition of linear programs, and `vjp` and `grad` as the transpose of forward mode.

use crate::builder::Builder;
use crate::ir::{Binary, Op, Program, Unary};
use crate::jvp::jvp;
use crate::linearize::depends_on;
use crate::shape::element_count;
use crate::var::Var;
use crate::verify::debug_verify;

/// The transpose of a program that is linear in `linear_inputs` (jointly).
///
/// Inputs: the other inputs, then a cotangent for each output, named `ct_<output>`. Outputs: a cotangent for each of
/// `linear_inputs`, named `ct_<input>`.
///
/// # Panics
/// If the program is not linear in these inputs.
pub fn transpose(program: &Program, linear_inputs: &[usize]) -> Program {
    let builder = Builder::new();
    let known_inputs: Vec<Option<Var>> = (0..program.inputs.len())
        .map(|i| {
            (!linear_inputs.contains(&i))
                .then(|| builder.input(&program.input_names[i], program.input_shape(i)))
        })
        .collect();
    let cotangents: Vec<Option<Var>> = (0..program.outputs.len())
        .map(|i| {
            Some(builder.input(
                &format!("ct_{}", program.output_names[i]),
                program.output_shape(i),
            ))
        })
        .collect();
    let (_, result) = pull_back(&builder, program, linear_inputs, &known_inputs, &cotangents);
    let names: Vec<String> = linear_inputs
        .iter()
        .map(|&i| format!("ct_{}", program.input_names[i]))
        .collect();
    let named: Vec<(&str, Var)> = names.iter().map(String::as_str).zip(result).collect();
    debug_verify(builder.finish(&named))
}

/// The program that computes a program's outputs and pulls cotangents back.
///
/// Inputs: the originals, then a cotangent for each output, named `ct_<output>`. Outputs: the originals, then the
/// cotangent of each input in `wrt`, named `ct_<input>`.
pub fn vjp(program: &Program, wrt: &[usize]) -> Program {
    reverse(program, wrt, "ct", |builder| {
        (0..program.outputs.len())
            .map(|i| {
                Some(builder.input(
                    &format!("ct_{}", program.output_names[i]),
                    program.output_shape(i),
                ))
            })
            .collect()
    })
}

/// The gradient of a program's first output, which has one element.
///
/// Inputs: the originals. Outputs: the originals, then the gradient with respect to each input in `wrt`, named
/// `grad_<input>`.
///
/// # Panics
/// If the first output has more than one element.
pub fn grad(program: &Program, wrt: &[usize]) -> Program {
    let shape = program.output_shape(0);
    assert!(
        element_count(shape) == 1,
        "grad: the first output must have one element, its shape is {shape:?}"
    );
    reverse(program, wrt, "grad", |builder| {
        let mut cotangents = vec![None; program.outputs.len()];
        cotangents[0] = Some(builder.constant(1.0, shape));
        cotangents
    })
}

fn reverse<'p>(
    program: &'p Program,
    wrt: &[usize],
    prefix: &str,
    cotangents: impl for<'b> Fn(&'b Builder) -> Vec<Option<Var<'b>>> + 'p,
) -> Program {
    let derivative = jvp(program, wrt, None);
    let builder = Builder::new();
    let (originals, outputs) = (program.inputs.len(), program.outputs.len());
    let mut known_inputs: Vec<Option<Var>> = (0..originals)
        .map(|i| Some(builder.input(&program.input_names[i], program.input_shape(i))))
        .collect();
    known_inputs.resize(derivative.inputs.len(), None);
    let mut seeds = vec![None; outputs];
    seeds.extend(cotangents(&builder));
    let tangent_inputs: Vec<usize> = (originals..derivative.inputs.len()).collect();
    let (values, result) = pull_back(
        &builder,
        &derivative,
        &tangent_inputs,
        &known_inputs,
        &seeds,
    );
    let mut named: Vec<(String, Var)> = Vec::new();
    for (name, value) in program.output_names.iter().zip(&derivative.outputs) {
        named.push((
            name.clone(),
            values[value.index()].expect("original outputs do not depend on tangents"),
        ));
    }
    for (&i, cotangent) in wrt.iter().zip(result) {
        named.push((format!("{prefix}_{}", program.input_names[i]), cotangent));
    }
    let named: Vec<(&str, Var)> = named.iter().map(|(name, v)| (name.as_str(), *v)).collect();
    debug_verify(builder.finish(&named))
}

/// Records what does not depend on the linear inputs, then runs the rest backwards from the outputs' cotangents.
/// Returns the values of the first and the cotangents of the linear inputs.
fn pull_back<'b>(
    builder: &'b Builder,
    program: &Program,
    linear_inputs: &[usize],
    known_inputs: &[Option<Var<'b>>],
    cotangents: &[Option<Var<'b>>],
) -> (Vec<Option<Var<'b>>>, Vec<Var<'b>>) {
    let linear = depends_on(program, linear_inputs);
    let mut values: Vec<Option<Var<'b>>> = Vec::with_capacity(program.instructions.len());
    for (position, instruction) in program.instructions.iter().enumerate() {
        values.push(match &instruction.op {
            Op::Input(i) => known_inputs[*i],
            _ if linear[position] => None,
            op => {
                let op = op.map_operands(|v| {
                    values[v.index()]
                        .expect("known operands of a known value")
                        .id
                });
                Some(builder.emit(op, &instruction.shape))
            }
        });
    }
    let mut accumulated: Vec<Option<Var<'b>>> = vec![None; program.instructions.len()];
    let add = |slot: &mut Option<Var<'b>>, term: Var<'b>| {
        *slot = Some(match *slot {
            Some(sum) => sum + term,
            None => term,
        });
    };
    for (output, cotangent) in program.outputs.iter().zip(cotangents) {
        match cotangent {
            Some(cotangent) if linear[output.index()] => {
                add(&mut accumulated[output.index()], *cotangent)
            }
            _ => {}
        }
    }
    for (position, instruction) in program.instructions.iter().enumerate().rev() {
        let Some(cotangent) = accumulated[position] else {
            continue;
        };
        let operands = instruction.op.operands();
        let arguments: Vec<Argument> = (operands.iter())
            .map(|v| match (linear[v.index()], values[v.index()]) {
                (false, Some(value)) => Argument::Known(value),
                _ => Argument::Linear(program.shape(*v).to_vec()),
            })
            .collect();
        for (number, term) in transpose_rule(&instruction.op, &arguments, cotangent) {
            debug_assert_eq!(
                term.shape(),
                program.shape(operands[number]),
                "cotangent in {:?}",
                instruction.op
            );
            add(&mut accumulated[operands[number].index()], term);
        }
    }
    let result = (linear_inputs.iter())
        .map(|&i| {
            accumulated[program.inputs[i].index()]
                .unwrap_or_else(|| builder.constant(0.0, program.input_shape(i)))
        })
        .collect();
    (values, result)
}

/// An operand of an instruction to transpose.
enum Argument<'b> {
    /// Independent of the linear inputs.
    Known(Var<'b>),
    /// Linear in the linear inputs, of this shape.
    Linear(Vec<usize>),
}

/// The cotangent of each linear operand, by its number.
fn transpose_rule<'b>(
    op: &Op,
    arguments: &[Argument<'b>],
    cotangent: Var<'b>,
) -> Vec<(usize, Var<'b>)> {
    let not_linear =
        |reason: &str| -> ! { panic!("transpose: {} is not linear here: {reason}", op.name()) };
    // An operand that must be linear because the operation has no other.
    let shape_of = |number: usize| match &arguments[number] {
        Argument::Linear(shape) => shape.as_slice(),
        Argument::Known(_) => not_linear("the operand does not depend on the linear inputs"),
    };
    let known = |number: usize| match &arguments[number] {
        Argument::Known(value) => *value,
        Argument::Linear(_) => not_linear("a coefficient depends on the linear inputs"),
    };
    // Terms of a sum: each linear one gets its share, the others must be zero.
    let share = |number: usize, cotangent: Var<'b>| match &arguments[number] {
        Argument::Linear(shape) => Some((number, cotangent.sum_to(shape))),
        Argument::Known(value) if value.is_zero() => None,
        Argument::Known(_) => {
            not_linear("a term that is not zero does not depend on the linear inputs")
        }
    };
    match op {
        Op::Input(_) | Op::Constant(_) | Op::ConstantTensor(_) => Vec::new(),
        Op::Unary(function, _) => match function {
            Unary::Neg => vec![(0, -cotangent)],
            Unary::Abs
            | Unary::Sign
            | Unary::Exp
            | Unary::Ln
            | Unary::Tanh
            | Unary::Sin
            | Unary::Cos
            | Unary::Sqrt
            | Unary::Rsqrt
            | Unary::Reciprocal
            | Unary::Square
            | Unary::Sigmoid
            | Unary::Erf
            | Unary::Gelu
            | Unary::GeluPrime => not_linear("the function is nonlinear"),
        },
        Op::Binary(function, _, _) => match function {
            Binary::Add => [share(0, cotangent), share(1, cotangent)]
                .into_iter()
                .flatten()
                .collect(),
            Binary::Sub => share(0, cotangent)
                .into_iter()
                .chain(share(1, -cotangent))
                .collect(),
            Binary::Mul => match (&arguments[0], &arguments[1]) {
                (Argument::Linear(shape), Argument::Known(b)) => {
                    vec![(0, (cotangent * *b).sum_to(shape))]
                }
                (Argument::Known(a), Argument::Linear(shape)) => {
                    vec![(1, (cotangent * *a).sum_to(shape))]
                }
                _ => not_linear("both factors depend on the linear inputs"),
            },
            Binary::Div => vec![(0, (cotangent / known(1)).sum_to(shape_of(0)))],
            Binary::Max | Binary::Min | Binary::Greater => not_linear("the function is nonlinear"),
        },
        Op::Select { .. } => {
            let mask = known(0);
            let on_true = share(1, mask.select(cotangent, 0.0));
            on_true
                .into_iter()
                .chain(share(2, mask.select(0.0, cotangent)))
                .collect()
        }
        Op::StopGradient(_) => not_linear("its derivative is zero by definition"),
        Op::BroadcastTo(_) => vec![(0, cotangent.sum_to(shape_of(0)))],
        Op::SumTo(_) => vec![(0, cotangent.broadcast_to(shape_of(0)))],
        Op::Reshape(_) => vec![(0, cotangent.reshape(shape_of(0)))],
        Op::Permute { permutation, .. } => {
            let mut inverse = vec![0; permutation.len()];
            permutation
                .iter()
                .enumerate()
                .for_each(|(i, &axis)| inverse[axis] = i);
            vec![(0, cotangent.permute(&inverse))]
        }
        Op::Slice {
            axis,
            start,
            length,
            ..
        } => {
            vec![(
                0,
                cotangent.pad(*axis, *start, shape_of(0)[*axis] - start - length),
            )]
        }
        Op::Pad { axis, before, .. } => {
            vec![(0, cotangent.slice(*axis, *before, shape_of(0)[*axis]))]
        }
        Op::Concat { axis, .. } => {
            let mut start = 0;
            let mut terms = Vec::new();
            for (number, argument) in arguments.iter().enumerate() {
                let length = match argument {
                    Argument::Linear(shape) => shape[*axis],
                    Argument::Known(value) => value.shape()[*axis],
                };
                terms.extend(share(number, cotangent.slice(*axis, start, length)));
                start += length;
            }
            terms
        }
        Op::Gather { axis, indices, .. } => {
            vec![(0, cotangent.scatter_add(*axis, indices, shape_of(0)[*axis]))]
        }
        Op::ScatterAdd { axis, indices, .. } => vec![(0, cotangent.gather(*axis, indices))],
        Op::MatMul {
            transpose_a,
            transpose_b,
            ..
        } => match (&arguments[0], &arguments[1]) {
            (Argument::Linear(shape), Argument::Known(b)) => {
                // y = op(a) op(b), so the cotangent of op(a) is ȳ op(b)ᵀ
                let full = if *transpose_a {
                    b.matmul_flags(cotangent, *transpose_b, true)
                } else {
                    cotangent.matmul_flags(*b, false, !transpose_b)
                };
                vec![(0, full.sum_to(shape))]
            }
            (Argument::Known(a), Argument::Linear(shape)) => {
                vec![(
                    1,
                    transpose_right_factor(*a, *transpose_a, *transpose_b, shape, cotangent),
                )]
            }
            _ => not_linear("both factors depend on the linear inputs"),
        },
        Op::SoftmaxTangent { .. } => {
            vec![(1, known(0).softmax_tangent(cotangent).sum_to(shape_of(1)))]
        }
        Op::LayerNormTangent { .. } => {
            vec![(
                2,
                known(0)
                    .layer_norm_tangent(known(1), cotangent)
                    .sum_to(shape_of(2)),
            )]
        }
        Op::Softmax(_) | Op::LayerNorm { .. } | Op::RowReciprocalStd { .. } => {
            not_linear("the function is nonlinear")
        }
    }
}

/// The cotangent of b, of shape `shape`, in ȳ = op(a) op(b): op(a)ᵀ ȳ, transposed where b is stored so.
///
/// Batch axes along which b was repeated are summed over. Where they are the innermost batch axes they join the rows,
/// so that the sum happens inside one tall product (`[B·T, C]ᵀ [B·T, D]` for a weight `[C, D]`) instead of over B
/// products written out.
fn transpose_right_factor<'b>(
    a: Var<'b>,
    transpose_a: bool,
    transpose_b: bool,
    shape: &[usize],
    cotangent: Var<'b>,
) -> Var<'b> {
    let (mut a, mut cotangent) = (a, cotangent);
    let batch = cotangent.rank() - 2;
    let size_in = |shape: &[usize], axis: usize| {
        (axis + shape.len())
            .checked_sub(batch + 2)
            .map_or(1, |i| shape[i])
    };
    let joined = (0..batch)
        .rev()
        .take_while(|&axis| size_in(shape, axis) == 1)
        .count();
    let split = batch - joined;
    let join_rows = !transpose_a && joined > 0;
    if join_rows {
        let join = |v: Var<'b>| {
            let shape = v.shape();
            let sizes: Vec<usize> = (0..batch).map(|axis| size_in(&shape, axis)).collect();
            let rows = element_count(&sizes[split..]) * shape[shape.len() - 2];
            let mut target = sizes[..split].to_vec();
            target.extend([rows, shape[shape.len() - 1]]);
            v.reshape(&target)
        };
        (a, cotangent) = (join(a), join(cotangent));
    }
    let full = if transpose_b {
        cotangent.matmul_flags(a, true, transpose_a)
    } else {
        a.matmul_flags(cotangent, !transpose_a, false)
    };
    if !join_rows {
        return full.sum_to(shape);
    }
    // The axes that joined the rows come back with size 1, and go where b never had them.
    let mut restored = full.shape();
    let matrix = restored.split_off(split);
    restored.extend(std::iter::repeat_n(1, joined));
    restored.extend(matrix);
    full.reshape(&restored).sum_to(shape)
}
