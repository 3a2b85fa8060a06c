//! Every rule against the operation on the bundle written out.

use super::{Factored, Form, LEAD, Tangents, Term, Window, identity};
use crate::builder::Builder;
use crate::check::Random;
use crate::interpret;
use crate::ir::{Binary, Op, Unary, ValueId};
use crate::linearize::lift;
use crate::var::Var;
use proptest::prelude::*;

const TANGENTS: Tangents = Tangents {
    tokens: 3,
    channels: 2,
};

/// Samples, tokens, heads and their width.
const SHAPE: [usize; 4] = [2, 3, 4, 2];

/// A sum of up to four terms with factors, supports and windows of any kind.
fn any_value<'b>(builder: &'b Builder, random: &mut Random) -> Factored<'b> {
    let terms = (0..1 + random.below(4))
        .map(|_| {
            let support = [None, Some(1)][random.below(2)];
            let mut windows = Vec::new();
            let mut extents = SHAPE;
            for axis in 0..SHAPE.len() {
                let length = 1 + random.below(SHAPE[axis]);
                if Some(axis) == support {
                    extents[axis] = 1;
                } else if length < SHAPE[axis] && random.below(3) == 0 {
                    let start = random.below(SHAPE[axis] - length + 1);
                    extents[axis] = length;
                    windows.push(Window {
                        axis,
                        start,
                        length,
                    });
                }
            }
            let factors = (0..1 + random.below(3))
                .map(|_| {
                    let full = [&[TANGENTS.tokens, TANGENTS.channels][..], &extents].concat();
                    let shape: Vec<usize> = full
                        .iter()
                        .map(|&size| [1, size][random.below(2)])
                        .collect();
                    constant(builder, random, &shape)
                })
                .collect();
            Term {
                factors,
                support,
                windows,
            }
        })
        .collect();
    Factored {
        shape: SHAPE.to_vec(),
        terms,
    }
}

fn constant<'b>(builder: &'b Builder, random: &mut Random, shape: &[usize]) -> Var<'b> {
    let n = shape.iter().product();
    builder.tensor(random.numbers(n), shape)
}

fn written<'b>(builder: &'b Builder, value: &Factored<'b>) -> Var<'b> {
    let n = TANGENTS.tokens;
    let place = builder.tensor(identity(n), &[n, n]);
    TANGENTS.dense(
        &TANGENTS.gathered(value),
        n,
        builder,
        Some(place),
        |factor| factor,
    )
}

/// An operation on the value, other operands known, and its result's shape.
fn any_operation<'b>(
    builder: &'b Builder,
    random: &mut Random,
    number: usize,
) -> (Op, Vec<Option<Var<'b>>>, Vec<usize>) {
    let [samples, tokens, heads, width] = SHAPE;
    let v = ValueId(0);
    let axis = random.below(4);
    let mut known = |shape: &[usize]| Some(constant(builder, random, shape));
    let matmul = |transpose_a, transpose_b| Op::MatMul {
        a: v,
        b: v,
        transpose_a,
        transpose_b,
    };
    let softmax = |y: Option<Var<'b>>| y.map(Var::softmax);
    match number {
        0 => (
            Op::Permute {
                operand: v,
                permutation: vec![0, 2, 1, 3],
            },
            vec![None],
            vec![samples, heads, tokens, width],
        ),
        1 => (
            Op::Reshape(v),
            vec![None],
            vec![samples, tokens, heads * width],
        ),
        2 => (
            Op::Reshape(v),
            vec![None],
            vec![samples, tokens, 2, 2, width],
        ),
        3 => {
            let mut shape = SHAPE.to_vec();
            let (start, length) = (SHAPE[axis] / 2, SHAPE[axis] - SHAPE[axis] / 2);
            shape[axis] = length;
            (
                Op::Slice {
                    operand: v,
                    axis,
                    start,
                    length,
                },
                vec![None],
                shape,
            )
        }
        4 => {
            let mut shape = SHAPE.to_vec();
            shape[axis] += 3;
            (
                Op::Pad {
                    operand: v,
                    axis,
                    before: 1,
                    after: 2,
                },
                vec![None],
                shape,
            )
        }
        5 => (
            Op::Binary(Binary::Mul, v, v),
            vec![known(&[tokens, 1, width]), None],
            SHAPE.to_vec(),
        ),
        6 => (Op::SumTo(v), vec![None], vec![tokens, 1, width]),
        7 => (
            matmul(false, true),
            vec![None, known(&[5, width])],
            vec![samples, tokens, heads, 5],
        ),
        8 => (
            matmul(true, false),
            vec![known(&[samples, tokens, heads, 3]), None],
            vec![samples, tokens, 3, width],
        ),
        9 => (
            Op::SoftmaxTangent {
                softmax: v,
                direction: v,
            },
            vec![softmax(known(&SHAPE)), None],
            SHAPE.to_vec(),
        ),
        10 => (
            Op::LayerNormTangent {
                normalized: v,
                reciprocal_std: v,
                direction: v,
            },
            vec![known(&SHAPE), known(&[samples, tokens, heads, 1]), None],
            SHAPE.to_vec(),
        ),
        11 => (Op::Unary(Unary::Neg, v), vec![None], SHAPE.to_vec()),
        _ => (
            Op::Concat {
                operands: vec![v, v],
                axis,
            },
            vec![None, Some(builder.constant(0.0, &SHAPE))],
            (0..4)
                .map(|i| SHAPE[i] * (1 + usize::from(i == axis)))
                .collect(),
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_agree_with_operations_on_whole_arrays(number in 0usize..13, seed in any::<u64>()) {
        let (builder, mut random) = (Builder::new(), Random(seed));
        let value = any_value(&builder, &mut random);
        let (op, known, shape) = any_operation(&builder, &mut random, number);
        let forms: Vec<Form> = known
            .iter()
            .map(|known| match known {
                Some(known) => Form::Known(*known),
                None => Form::Linear(value.clone()),
            })
            .collect();
        // Where a rule has no answer there is nothing to compare.
        if let Some(Form::Linear(result)) = TANGENTS.apply(&builder, &op, &forms, &shape) {
            prop_assert_eq!(&result.shape, &shape);
            let fragment = Builder::new();
            let operands: Vec<Var> = (0..known.len())
                .map(|i| {
                    let shape = known[i].map_or(SHAPE.to_vec(), Var::shape);
                    fragment.input(&i.to_string(), &shape)
                })
                .collect();
            let mut next = operands.iter();
            let op = op.map_operands(|_| next.next().expect("one for each operand").id);
            let program = fragment.finish(&[("y", fragment.emit(op, &shape))]);
            let linear: Vec<usize> =
                (0..known.len()).filter(|&i| known[i].is_none()).collect();
            let lifted = lift(&program, &linear, &[TANGENTS.tokens, TANGENTS.channels]);
            let whole = written(&builder, &value);
            let arguments: Vec<Var> = known.iter().map(|known| known.unwrap_or(whole)).collect();
            let expected = builder.call(&lifted, &arguments)[0];
            let found = written(&builder, &result);
            let program = builder.finish(&[("expected", expected), ("found", found)]);
            let values = interpret(&program, &[] as &[&[f64]]);
            for (e, f) in values[0].iter().zip(&values[1]) {
                prop_assert!((e - f).abs() < 1e-11, "operation {} of {:?}: {} for {}", number, value, f, e);
            }
        }
    }
}

/// A value whose heads are told apart by one factor and not by another.
#[test]
fn merging_heads_gives_a_term_for_each() {
    let builder = Builder::new();
    let mut random = Random(1);
    let [samples, tokens, heads, width] = SHAPE;
    let lead = [TANGENTS.tokens, TANGENTS.channels];
    let coefficients = constant(
        &builder,
        &mut random,
        &[lead[0], lead[1], samples, tokens, heads, 1],
    );
    let vectors = constant(
        &builder,
        &mut random,
        &[lead[0], 1, samples, 1, heads, width],
    );
    let value = Factored {
        shape: SHAPE.to_vec(),
        terms: vec![Term {
            factors: vec![coefficients, vectors],
            ..Term::default()
        }],
    };
    let shape = [samples, tokens, heads * width];
    let merged = TANGENTS.apply(
        &builder,
        &Op::Reshape(ValueId(0)),
        &[Form::Linear(value)],
        &shape,
    );
    let Some(Form::Linear(merged)) = merged else {
        panic!("the rule has an answer");
    };
    let windows: Vec<Window> = merged
        .terms
        .iter()
        .flat_map(|term| term.windows.clone())
        .collect();
    let expected: Vec<Window> = (0..heads)
        .map(|head| Window {
            axis: 2,
            start: head * width,
            length: width,
        })
        .collect();
    assert_eq!(windows, expected);
    let sizes: Vec<usize> = merged.terms[0]
        .factors
        .iter()
        .map(|f| f.shape()[LEAD + 2])
        .collect();
    assert_eq!(sizes, [1, width]);
}
