//! Every operation through the derivative checks, at random shapes with broadcasting and rank differences.

use boltzmap_autodiff::check::{check_program, random_values};
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::shape::element_count;
use boltzmap_autodiff::{Builder, Var};
use proptest::prelude::*;

/// Traces a function of inputs of these shapes and checks it at random inputs `offset + scale · (−1, 1)`.
fn check(
    shapes: &[&[usize]],
    offset: f64,
    scale: f64,
    seed: u64,
    function: impl for<'b> Fn(&'b Builder, &[Var<'b>]) -> Var<'b>,
) -> Result<(), TestCaseError> {
    let program = trace(shapes, function);
    let inputs: Vec<Vec<f64>> = (shapes.iter().enumerate())
        .map(|(i, shape)| {
            let values = random_values(seed + i as u64, element_count(shape));
            values.into_iter().map(|x| offset + scale * x).collect()
        })
        .collect();
    let wrt: Vec<usize> = (0..shapes.len()).collect();
    if let Err(error) = check_program(&program, &inputs, &wrt, seed) {
        return Err(TestCaseError::fail(format!("{error}\n{program}")));
    }
    for i in 0..shapes.len() {
        // One input alone leaves other tangents symbolically zero.
        if let Err(error) = check_program(&program, &inputs, &[i], seed) {
            return Err(TestCaseError::fail(format!(
                "with respect to {i}: {error}\n{program}"
            )));
        }
    }
    Ok(())
}

fn trace(
    shapes: &[&[usize]],
    function: impl for<'b> Fn(&'b Builder, &[Var<'b>]) -> Var<'b>,
) -> Program {
    let builder = Builder::new();
    let inputs: Vec<Var> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| builder.input(&format!("x{i}"), shape))
        .collect();
    let output = function(&builder, &inputs);
    builder.finish(&[("y", output)])
}

/// Two shapes that broadcast: a common shape with axes of either shrunk to 1 and leading axes of one removed.
fn broadcasting_pair() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    (
        proptest::collection::vec((1usize..4, 0u8..4), 0..4),
        0usize..3,
        any::<bool>(),
    )
        .prop_map(|(axes, dropped, from_first)| {
            let first: Vec<usize> = axes
                .iter()
                .map(|&(size, which)| if which == 1 { 1 } else { size })
                .collect();
            let second: Vec<usize> = axes
                .iter()
                .map(|&(size, which)| if which == 2 { 1 } else { size })
                .collect();
            let dropped = dropped.min(axes.len());
            if from_first {
                (first[dropped..].to_vec(), second)
            } else {
                (first, second[dropped..].to_vec())
            }
        })
}

fn shape(rank: std::ops::Range<usize>) -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1usize..4, rank)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unary_functions(s in shape(0..3), seed in 0u64..1000) {
        type Function = for<'b> fn(Var<'b>) -> Var<'b>;
        let anywhere: [(&str, Function); 12] = [
            ("neg", |x| -x), ("exp", |x| x.exp()), ("tanh", |x| x.tanh()), ("sin", |x| x.sin()),
            ("cos", |x| x.cos()), ("square", |x| x.square()), ("sigmoid", |x| x.sigmoid()), ("silu", |x| x.silu()),
            ("erf", |x| x.erf()), ("gelu", |x| x.gelu()), ("gelu_prime", |x| x.gelu_prime()),
            ("neg of difference", |x| -(x - 0.5)),
        ];
        for (name, function) in anywhere {
            check(&[&s], 0.0, 1.5, seed, |_, x| function(x[0]))
                .map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
        }
        let positive: [(&str, Function); 7] = [
            ("ln", |x| x.ln()), ("sqrt", |x| x.sqrt()), ("rsqrt", |x| x.rsqrt()), ("reciprocal", |x| x.reciprocal()),
            ("abs", |x| x.abs()), ("abs of negative", |x| (-x).abs()), ("sign", |x| x.sign() * x),
        ];
        for (name, function) in positive {
            check(&[&s], 1.5, 0.7, seed, |_, x| function(x[0]))
                .map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
        }
    }

    #[test]
    fn binary_functions((a, b) in broadcasting_pair(), seed in 0u64..1000) {
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0] + x[1])?;
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0] - x[1])?;
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0] * x[1])?;
        check(&[&a, &b], 1.8, 0.8, seed, |_, x| x[0] / x[1])?;
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| (2.0 - x[0]) * (x[1] * 3.0 + 1.0) / 2.0 - 0.5)?;
        // Far from ties: the second operand is shifted by three to either side.
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0].square().maximum(x[1] - 3.0))?;
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0].square().maximum((x[1] + 3.0).square()))?;
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0].minimum(x[1].square() + 3.0))?;
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0].minimum(x[1].square() - 3.0))?;
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0].greater(3.0) * x[1] + x[1].square() * x[0])?;
        check(&[&a, &b], 0.0, 1.0, seed, |_, x| x[0].maximum(-3.0) * x[1].minimum(3.0))?;
    }

    #[test]
    fn select_and_stop_gradient((a, b) in broadcasting_pair(), seed in 0u64..1000) {
        check(&[&a, &b], 0.0, 1.0, seed, |builder, x| {
            let mask = random_values(seed, element_count(&a)).iter().map(|x| f64::from(*x > 0.0)).collect();
            builder.tensor(mask, &a).select(x[0].square(), x[1].sin())
        })?;
        check(&[&a, &b], 0.0, 1.0, seed, |builder, x| {
            let mask = random_values(seed, element_count(&b)).iter().map(|x| f64::from(*x > 0.0)).collect();
            builder.tensor(mask, &b).select(x[0].square() * x[1], 2.0)
        })?;
    }

    #[test]
    fn broadcasting_and_summing((a, b) in broadcasting_pair(), seed in 0u64..1000) {
        let sum = trace(&[&a, &b], |_, x| x[0] + x[1]);
        let joint = sum.output_shape(0).to_vec();
        check(&[&a], 0.0, 1.0, seed, |_, x| x[0].square().broadcast_to(&joint))?;
        check(&[&joint], 0.0, 1.0, seed, |_, x| x[0].square().sum_to(&a).sin())?;
        check(&[&joint, &b], 0.0, 1.0, seed, |_, x| (x[0] * x[1]).sum_to(&b) * x[1])?;
        check(&[&a, &joint], 0.0, 1.0, seed, |_, x| (x[0].exp().broadcast_to(&joint) * x[1]).square())?;
        check(&[&a], 0.0, 1.0, seed, |_, x| x[0].square().broadcast_to(&joint).sum_to(&a) * x[0])?;
    }

    #[test]
    fn moving_elements(s in proptest::collection::vec(2usize..5, 2..4), seed in 0u64..1000) {
        let rank = s.len();
        let axis = seed as usize % rank;
        let size = s[axis];
        check(&[&s], 0.0, 1.0, seed, |_, x| x[0].square().reshape(&[element_count(&s), 1]) * x[0].sum(&[0, 1]).sum_to(&[]))?;
        let rotated: Vec<usize> = (0..rank).map(|i| (i + 1) % rank).collect();
        check(&[&s], 0.0, 1.0, seed, |_, x| x[0].square().permute(&rotated).sin())?;
        check(&[&s], 0.0, 1.0, seed, |_, x| x[0].sin().slice(axis, 1, size - 1).square())?;
        check(&[&s], 0.0, 1.0, seed, |_, x| (x[0].sin().pad(axis, 2, 1) + 1.0).square())?;
        check(&[&s, &s], 0.0, 1.0, seed, |b, x| {
            let zero = b.constant(0.5, &s);
            b.concat(&[x[0].sin(), zero, x[1].square(), x[0]], axis).square()
        })?;
        let indices: Vec<usize> = (0..size + 2).map(|i| (i * 2 + seed as usize) % size).collect();
        check(&[&s], 0.0, 1.0, seed, |_, x| x[0].sin().gather(axis, &indices).square())?;
        let targets: Vec<usize> = (0..size).map(|i| (i * 2 + seed as usize) % 3).collect();
        check(&[&s], 0.0, 1.0, seed, |_, x| x[0].sin().scatter_add(axis, &targets, 4).square())?;
        check(&[&s], 0.0, 1.0, seed, |_, x| x[0].square().mean(&[axis]).sin())?;
        check(&[&s], 0.0, 1.0, seed, |_, x| x[0] * x[0].square().mean_keep(&[axis]))?;
        // Slices of one array: their cotangents join again.
        check(&[&s], 0.0, 1.0, seed, |_, x| {
            x[0].slice(axis, 0, 1) * x[0].slice(axis, 1, size - 1).square()
        })?;
    }

    #[test]
    fn matrix_products((a, b) in broadcasting_pair(), sizes in (1usize..4, 1usize..4, 1usize..4), seed in 0u64..1000) {
        let (m, k, n) = sizes;
        for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let (mut shape_a, mut shape_b) = (a.clone(), b.clone());
            shape_a.extend(if transpose_a { [k, m] } else { [m, k] });
            shape_b.extend(if transpose_b { [n, k] } else { [k, n] });
            check(&[&shape_a, &shape_b], 0.0, 1.0, seed, |_, x| {
                let left = if transpose_a { x[0].transpose_last() } else { x[0] };
                if transpose_b { left.matmul_t(x[1]) } else { left.matmul(x[1]) }
            })?;
        }
    }

    #[test]
    fn softmax((a, b) in broadcasting_pair(), width in 2usize..5, seed in 0u64..1000) {
        let (mut shape_a, mut shape_b) = (a, b);
        shape_a.push(width);
        shape_b.push(width);
        check(&[&shape_a], 0.0, 2.0, seed, |_, x| x[0].softmax())?;
        check(&[&shape_a, &shape_b], 0.0, 1.0, seed, |_, x| x[0].softmax_tangent(x[1]))?;
    }

    #[test]
    fn layer_norm((a, b) in broadcasting_pair(), width in 3usize..6, seed in 0u64..1000) {
        let (mut shape_a, mut shape_b) = (a.clone(), b);
        shape_a.push(width);
        shape_b.push(width);
        let mut row = a;
        row.push(1);
        check(&[&shape_a], 0.3, 1.0, seed, |_, x| x[0].layer_norm(0.1))?;
        check(&[&shape_a], 0.3, 1.0, seed, |_, x| x[0].row_reciprocal_std(0.1))?;
        check(&[&shape_a, &row, &shape_b], 0.0, 1.0, seed, |_, x| x[0].layer_norm_tangent(x[1], x[2]))?;
        check(&[&shape_b, &row, &shape_a], 0.0, 1.0, seed, |_, x| x[0].layer_norm_tangent(x[1], x[2]))?;
    }
}
