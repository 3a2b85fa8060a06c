//! Forward mode: one rule per operation, giving the tangent of its result from the tangents of its operands.
//!
//! A tangent has its value's shape, or `[K, shape]` when K tangents are carried at once. A tangent that is zero is
//! absent (`None`) and costs nothing. Rules read the primal values only through operations without tangent axis, so
//! every nonlinearity is evaluated once for all K tangents.

use crate::builder::Builder;
use crate::ir::{Binary, Op, Program, Unary};
use crate::var::Var;
use crate::verify::debug_verify;

/// The program that computes a program's outputs and their directional derivatives.
///
/// Inputs: the originals, then one tangent for each input in `wrt` (shape `[K, …]` with `tangents: Some(K)`), named
/// `d_<input>`. Outputs: the originals, then the tangent of each, named `d_<output>`.
///
/// # Panics
/// If an entry of `wrt` is not the number of an input, or comes twice.
pub fn jvp(program: &Program, wrt: &[usize], tangents: Option<usize>) -> Program {
    let builder = Builder::new();
    let lift = Lift { tangents };
    let inputs: Vec<Var> = (0..program.inputs.len())
        .map(|i| builder.input(&program.input_names[i], program.input_shape(i)))
        .collect();
    let mut input_tangents: Vec<Option<Var>> = vec![None; inputs.len()];
    for (position, &i) in wrt.iter().enumerate() {
        let inputs = &program.input_names;
        assert!(
            i < inputs.len(),
            "derivative with respect to input {i}, but the inputs are {inputs:?}"
        );
        assert!(
            !wrt[..position].contains(&i),
            "derivative with respect to {} is asked for twice",
            inputs[i]
        );
        let name = format!("d_{}", program.input_names[i]);
        input_tangents[i] = Some(builder.input(&name, &lift.shape(program.input_shape(i))));
    }
    let values = builder.replay(program, &inputs);
    let mut tangent_of: Vec<Option<Var>> = Vec::with_capacity(values.len());
    for (position, instruction) in program.instructions.iter().enumerate() {
        let tangent = if let Op::Input(i) = instruction.op {
            input_tangents[i]
        } else {
            let operands = instruction.op.operands();
            let primals: Vec<Var> = operands.iter().map(|v| values[v.index()]).collect();
            let directions: Vec<Option<Var>> =
                operands.iter().map(|v| tangent_of[v.index()]).collect();
            if directions.iter().all(Option::is_none) {
                None
            } else {
                tangent_rule(
                    lift,
                    &instruction.op,
                    &primals,
                    values[position],
                    &directions,
                )
            }
        };
        // A tangent that turns out to be zero (the branch a constant mask never takes) is absent from here on.
        let tangent = tangent.filter(|tangent| !tangent.is_zero());
        if let Some(tangent) = tangent {
            debug_assert_eq!(
                tangent.shape(),
                lift.shape(&instruction.shape),
                "tangent of {:?}",
                instruction.op
            );
        }
        tangent_of.push(tangent);
    }
    let mut outputs: Vec<(String, Var)> = Vec::new();
    for (name, value) in program.output_names.iter().zip(&program.outputs) {
        outputs.push((name.clone(), values[value.index()]));
    }
    for (name, value) in program.output_names.iter().zip(&program.outputs) {
        let zero = || builder.constant(0.0, &lift.shape(program.shape(*value)));
        outputs.push((
            format!("d_{name}"),
            tangent_of[value.index()].unwrap_or_else(zero),
        ));
    }
    let named: Vec<(&str, Var)> = outputs
        .iter()
        .map(|(name, v)| (name.as_str(), *v))
        .collect();
    debug_verify(builder.finish(&named))
}

/// How tangents are laid out: with a leading axis of K, or without.
#[derive(Clone, Copy)]
struct Lift {
    tangents: Option<usize>,
}

impl Lift {
    /// Number of axes in front.
    fn axes(self) -> usize {
        usize::from(self.tangents.is_some())
    }

    /// Shape of the tangent of a value.
    fn shape(self, shape: &[usize]) -> Vec<usize> {
        self.tangents
            .into_iter()
            .chain(shape.iter().copied())
            .collect()
    }

    /// Gives the tangent of an operand the rank of the result's tangent, with axes of size 1 after the tangent axis.
    fn align<'b>(self, tangent: Var<'b>, result_rank: usize) -> Var<'b> {
        let Some(k) = self.tangents else {
            return tangent;
        };
        let shape = tangent.shape();
        let missing = result_rank + 1 - shape.len();
        let aligned: Vec<usize> = std::iter::once(k)
            .chain(std::iter::repeat_n(1, missing))
            .chain(shape[1..].iter().copied())
            .collect();
        tangent.reshape(&aligned)
    }

    /// The tangent of an operand repeated to the result's shape.
    fn expand<'b>(self, tangent: Var<'b>, result_shape: &[usize]) -> Var<'b> {
        self.align(tangent, result_shape.len())
            .broadcast_to(&self.shape(result_shape))
    }
}

/// The tangent of `y = op(x)` in the directions `d`, of which at least one is there.
fn tangent_rule<'b>(
    lift: Lift,
    op: &Op,
    x: &[Var<'b>],
    y: Var<'b>,
    d: &[Option<Var<'b>>],
) -> Option<Var<'b>> {
    let builder = y.builder;
    let shape = y.shape();
    let rank = shape.len();
    let axes = lift.axes();
    let align = |tangent: Var<'b>| lift.align(tangent, rank);
    match op {
        Op::Input(_) | Op::Constant(_) | Op::ConstantTensor(_) | Op::StopGradient(_) => None,
        Op::Unary(function, _) => unary_rule(*function, x[0], y, d[0]?),
        Op::Binary(function, _, _) => {
            let (a, b) = (x[0], x[1]);
            let (da, db) = (d[0].map(align), d[1].map(align));
            match function {
                Binary::Add => match (da, db) {
                    (Some(da), Some(db)) => Some(da + db),
                    (Some(only), None) | (None, Some(only)) => Some(lift.expand(only, &shape)),
                    (None, None) => None,
                },
                Binary::Sub => match (da, db) {
                    (Some(da), Some(db)) => Some(da - db),
                    (Some(da), None) => Some(lift.expand(da, &shape)),
                    (None, Some(db)) => Some(lift.expand(-db, &shape)),
                    (None, None) => None,
                },
                Binary::Mul => sum(da.map(|da| da * b), db.map(|db| db * a)),
                Binary::Div => {
                    let reciprocal = b.reciprocal();
                    sum(
                        da.map(|da| da * reciprocal),
                        db.map(|db| -(db * (y * reciprocal))),
                    )
                }
                Binary::Max => Some(choose(b.greater(a), db, da)),
                Binary::Min => Some(choose(a.greater(b), db, da)),
                Binary::Greater => None,
            }
        }
        Op::Select { .. } => match (d[1], d[2]) {
            (None, None) => None,
            (on_true, on_false) => {
                let zero = builder.constant(0.0, &[]);
                let (on_true, on_false) =
                    (on_true.map_or(zero, align), on_false.map_or(zero, align));
                Some(
                    x[0].select(on_true, on_false)
                        .broadcast_to(&lift.shape(&shape)),
                )
            }
        },
        Op::BroadcastTo(_) => Some(lift.expand(d[0]?, &shape)),
        Op::SumTo(_) => {
            let tangent = d[0]?;
            let missing = x[0].rank() - rank;
            let kept: Vec<usize> = std::iter::repeat_n(1, missing)
                .chain(shape.iter().copied())
                .collect();
            Some(
                tangent
                    .sum_to(&lift.shape(&kept))
                    .reshape(&lift.shape(&shape)),
            )
        }
        Op::Reshape(_) => Some(d[0]?.reshape(&lift.shape(&shape))),
        Op::Permute { permutation, .. } => {
            let lifted: Vec<usize> = (0..axes)
                .chain(permutation.iter().map(|axis| axis + axes))
                .collect();
            Some(d[0]?.permute(&lifted))
        }
        Op::Slice {
            axis,
            start,
            length,
            ..
        } => Some(d[0]?.slice(axis + axes, *start, *length)),
        Op::Pad {
            axis,
            before,
            after,
            ..
        } => Some(d[0]?.pad(axis + axes, *before, *after)),
        Op::Concat { axis, .. } => {
            let parts: Vec<Var> = (x.iter().zip(d))
                .map(|(x, d)| d.unwrap_or_else(|| builder.constant(0.0, &lift.shape(&x.shape()))))
                .collect();
            Some(builder.concat(&parts, axis + axes))
        }
        Op::Gather { axis, indices, .. } => Some(d[0]?.gather(axis + axes, indices)),
        Op::ScatterAdd {
            axis,
            indices,
            size,
            ..
        } => Some(d[0]?.scatter_add(axis + axes, indices, *size)),
        Op::MatMul {
            transpose_a,
            transpose_b,
            ..
        } => sum(
            d[0].map(|da| align(da).matmul_flags(x[1], *transpose_a, *transpose_b)),
            d[1].map(|db| x[0].matmul_flags(align(db), *transpose_a, *transpose_b)),
        ),
        Op::Softmax(_) => Some(y.softmax_tangent(d[0]?)),
        Op::SoftmaxTangent { .. } => {
            let (softmax, direction) = (x[0], x[1]);
            let through_softmax = d[0].map(align).map(|ds| {
                let dot = (softmax * direction).sum_keep(&[rank - 1]);
                let last = rank - 1 + axes;
                ds * (direction - dot) - softmax * (ds * direction).sum_keep(&[last])
            });
            sum(
                through_softmax,
                d[1].map(align).map(|dv| softmax.softmax_tangent(dv)),
            )
        }
        Op::LayerNorm { epsilon, .. } => {
            let reciprocal_std = x[0].row_reciprocal_std(*epsilon);
            Some(y.layer_norm_tangent(reciprocal_std, d[0]?))
        }
        Op::RowReciprocalStd { epsilon, .. } => {
            // dr = −r² mean(y ⊙ dx), y the layer-norm of x
            let normalized = x[0].layer_norm(*epsilon);
            let correlation = (normalized * d[0]?).mean_keep(&[rank - 1 + axes]);
            Some(-(correlation * y.square()))
        }
        Op::LayerNormTangent { .. } => {
            let (normalized, reciprocal_std, direction) = (x[0], x[1], x[2]);
            let last = rank - 1 + axes;
            let correlation = || (normalized * direction).mean_keep(&[rank - 1]);
            let through_normalized = d[0].map(align).map(|dy| {
                -((dy * correlation() + normalized * (dy * direction).mean_keep(&[last]))
                    * reciprocal_std)
            });
            let through_std = d[1].map(align).map(|dr| {
                let mean = direction.mean_keep(&[direction.rank() - 1]);
                dr * (direction - mean - normalized * correlation())
            });
            let through_direction = d[2]
                .map(align)
                .map(|dv| normalized.layer_norm_tangent(reciprocal_std, dv));
            sum(sum(through_normalized, through_std), through_direction)
        }
    }
}

/// The tangent of an elementwise function: its derivative, from x or y = f(x), times the direction.
fn unary_rule<'b>(function: Unary, x: Var<'b>, y: Var<'b>, dx: Var<'b>) -> Option<Var<'b>> {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
    Some(match function {
        Unary::Neg => -dx,
        Unary::Abs => dx * x.sign(),
        Unary::Sign => return None,
        Unary::Exp => dx * y,
        Unary::Ln => dx * x.reciprocal(),
        Unary::Tanh => dx * (1.0 - y.square()),
        Unary::Sin => dx * x.cos(),
        Unary::Cos => -(dx * x.sin()),
        Unary::Sqrt => dx * (y.reciprocal() * 0.5),
        Unary::Rsqrt => dx * (y.square() * y * -0.5),
        Unary::Reciprocal => -(dx * y.square()),
        Unary::Square => dx * (x * 2.0),
        Unary::Sigmoid => dx * (y * (1.0 - y)),
        Unary::Erf => dx * ((-x.square()).exp() * FRAC_2_SQRT_PI),
        Unary::Gelu => dx * x.gelu_prime(),
        // φ(x) (2 − x²), φ(x) = e^(−x²/2)/√(2π)
        Unary::GeluPrime => {
            let density = (x.square() * -0.5).exp() * (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            dx * (density * (2.0 - x.square()))
        }
    })
}

/// The sum of tangents of which either may be zero.
fn sum<'b>(a: Option<Var<'b>>, b: Option<Var<'b>>) -> Option<Var<'b>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

/// `mask ? on_true : on_false`, an absent tangent being zero.
fn choose<'b>(mask: Var<'b>, on_true: Option<Var<'b>>, on_false: Option<Var<'b>>) -> Var<'b> {
    let zero = mask.builder.constant(0.0, &[]);
    mask.select(on_true.unwrap_or(zero), on_false.unwrap_or(zero))
}
