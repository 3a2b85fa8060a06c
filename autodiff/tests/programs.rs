//! Whole programs: a perceptron's loss, an attention block, a loss containing a derivative in time; and what the
//! transformations must leave of them.

use boltzmap_autodiff::check::{check_program, random_values};
use boltzmap_autodiff::ir::{Op, Program, Unary};
use boltzmap_autodiff::shape::element_count;
use boltzmap_autodiff::verify::verify;
use boltzmap_autodiff::{Builder, Var, grad, interpret, jvp, linearize, optimize, vjp};

fn random_inputs(program: &Program, seed: u64) -> Vec<Vec<f64>> {
    (0..program.inputs.len())
        .map(|i| random_values(seed + i as u64, element_count(program.input_shape(i))))
        .collect()
}

fn check_all(program: &Program, seed: u64) {
    let wrt: Vec<usize> = (0..program.inputs.len()).collect();
    if let Err(error) = check_program(program, &random_inputs(program, seed), &wrt, seed) {
        panic!("{error}\n{program}");
    }
}

fn count(program: &Program, matches: impl Fn(&Op) -> bool) -> usize {
    program
        .instructions
        .iter()
        .filter(|i| matches(&i.op))
        .count()
}

/// y = W₂ gelu(W₁ x + b₁) + b₂ over `[batch, tokens, features]`.
fn perceptron<'b>(x: Var<'b>, weights: &[Var<'b>]) -> Var<'b> {
    (x.matmul(weights[0]) + weights[1])
        .gelu()
        .matmul(weights[2])
        + weights[3]
}

fn perceptron_loss(batch: usize, tokens: usize) -> Program {
    let b = Builder::new();
    let x = b.input("x", &[batch, tokens, 3]);
    let target = b.input("target", &[batch, tokens, 2]);
    let weights = [
        b.input("w1", &[3, 5]),
        b.input("b1", &[5]),
        b.input("w2", &[5, 2]),
        b.input("b2", &[2]),
    ];
    let loss = (perceptron(x, &weights) - target).square().mean(&[0, 1, 2]);
    b.finish(&[("loss", loss)])
}

/// Adaptive layer-norm, self-attention of two heads and a perceptron, with residual connections.
fn attention_block<'b>(x: Var<'b>, condition: Var<'b>, weights: &[Var<'b>]) -> Var<'b> {
    let shape = x.shape(); // [B, T, C]
    let (batch, tokens, channels, heads) = (shape[0], shape[1], shape[2], 2);
    let scale = condition.matmul(weights[0]).reshape(&[batch, 1, channels]);
    let normalized = x.layer_norm(1e-2) * (scale + 1.0); // [B, T, C]
    let projected = normalized.matmul(weights[1]); // [B, T, 3C]
    let head = |i: usize| {
        projected
            .slice(2, i * channels, channels)
            .reshape(&[batch, tokens, heads, channels / heads])
            .permute(&[0, 2, 1, 3]) // [B, H, T, C/H]
    };
    let (query, key, value) = (head(0), head(1), head(2));
    let attention = (query.matmul_t(key) * (channels as f64 / heads as f64).powf(-0.5)).softmax();
    let mixed = attention
        .matmul(value)
        .permute(&[0, 2, 1, 3])
        .reshape(&[batch, tokens, channels]);
    let x = x + mixed.matmul(weights[2]);
    x + perceptron(x.layer_norm(1e-2), &weights[3..])
}

fn attention_program() -> Program {
    let b = Builder::new();
    let x = b.input("x", &[2, 3, 4]);
    let condition = b.input("condition", &[2, 3]);
    let weights = [
        b.input("modulation", &[3, 4]),
        b.input("qkv", &[4, 12]),
        b.input("out", &[4, 4]),
        b.input("w1", &[4, 5]),
        b.input("b1", &[5]),
        b.input("w2", &[5, 4]),
        b.input("b2", &[4]),
    ];
    b.finish(&[("y", attention_block(x, condition, &weights))])
}

#[test]
fn perceptron_loss_has_right_derivatives() {
    check_all(&perceptron_loss(2, 3), 1);
}

#[test]
fn attention_block_has_right_derivatives() {
    check_all(&attention_program(), 2);
}

/// A flow map u(x, s, t) with a loss on its total derivative in t: reverse over forward.
#[test]
fn loss_with_a_time_derivative_has_right_derivatives() {
    let b = Builder::new();
    let x = b.input("x", &[2, 3]);
    let time = b.input("t", &[2, 1]);
    let weights = [
        b.input("w1", &[4, 5]),
        b.input("b1", &[5]),
        b.input("w2", &[5, 3]),
        b.input("b2", &[3]),
    ];
    let network = b.finish(&[("u", perceptron(b.concat(&[x, time], 1), &weights))]);
    let derivative = jvp(&network, &[0, 1], None);

    let b = Builder::new();
    let mut arguments: Vec<Var> = (0..6)
        .map(|i| b.input(&network.input_names[i], network.input_shape(i)))
        .collect();
    let velocity = b.input("velocity", &[2, 3]);
    arguments.extend([velocity, b.constant(1.0, &[2, 1])]);
    let outputs = b.call(&derivative, &arguments);
    let (u, rate) = (outputs[0], outputs[1]);
    let loss = (u + arguments[1] * rate - velocity).square().mean(&[0, 1]);
    let loss = b.finish(&[("loss", loss)]);
    check_all(&loss, 3);
}

#[test]
fn stop_gradient_keeps_the_value_and_stops_the_derivative() {
    let b = Builder::new();
    let x = b.input("x", &[3]);
    let program = b.finish(&[("y", (x.square() * x.stop_gradient()).sum(&[0]))]);
    let x = [0.5, -1.0, 2.0];
    let outputs = interpret(&grad(&program, &[0]), &[x]);
    assert_eq!(outputs[0], [x.iter().map(|x| x * x * x).sum::<f64>()]);
    assert_eq!(outputs[1], x.map(|x| 2.0 * x * x));
}

#[test]
fn gradient_of_a_tie_goes_to_the_first_operand() {
    let b = Builder::new();
    let (x, y) = (b.input("x", &[]), b.input("y", &[]));
    let program = b.finish(&[("z", x.maximum(y) + x.minimum(y) * 10.0)]);
    let outputs = interpret(&grad(&program, &[0, 1]), &[[1.5], [1.5]]);
    assert_eq!(outputs[1..], [vec![11.0], vec![0.0]]);
}

#[test]
fn gradient_program_of_a_perceptron_is_lean() {
    let program = perceptron_loss(8, 7);
    let gradient = grad(&program, &[2, 3, 4, 5]);
    verify(&gradient).unwrap();
    // Two products forward, one for the hidden cotangent, one per weight; none batched, no repetition written out.
    assert_eq!(
        count(&gradient, |op| matches!(op, Op::MatMul { .. })),
        5,
        "{gradient}"
    );
    assert_eq!(
        count(&gradient, |op| matches!(op, Op::BroadcastTo(_))),
        0,
        "{gradient}"
    );
    assert_eq!(
        count(&gradient, |op| matches!(op, Op::Unary(Unary::Gelu, _))),
        1,
        "{gradient}"
    );
    for instruction in &gradient.instructions {
        if let Op::MatMul {
            transpose_a: true, ..
        } = instruction.op
        {
            assert_eq!(
                instruction.shape.len(),
                2,
                "a weight's gradient is one tall product\n{gradient}"
            );
        }
    }
    assert_eq!(
        optimize(&gradient).instructions.len(),
        gradient.instructions.len(),
        "{gradient}"
    );
    // Sums over batch and tokens: the loss and two biases.
    assert_eq!(
        count(&gradient, |op| matches!(op, Op::SumTo(_))),
        3,
        "{gradient}"
    );
}

#[test]
fn cotangents_of_neighbouring_slices_join_without_additions() {
    let gradient = vjp(&attention_program(), &[0, 3]);
    assert_eq!(
        count(&gradient, |op| matches!(op, Op::Pad { .. })),
        0,
        "{gradient}"
    );
    assert_eq!(
        count(&gradient, |op| matches!(op, Op::Concat { .. })),
        1,
        "{gradient}"
    );
}

#[test]
fn linear_part_evaluates_no_nonlinearity() {
    let program = attention_program();
    let parts = linearize(&program, &[0], Some(4));
    verify(&parts.primal).unwrap();
    verify(&parts.linear).unwrap();
    let nonlinear = |op: &Op| {
        matches!(
            op,
            Op::Softmax(_) | Op::LayerNorm { .. } | Op::RowReciprocalStd { .. }
        ) || matches!(op, Op::Unary(function, _) if *function != Unary::Neg)
    };
    assert_eq!(count(&parts.linear, nonlinear), 0, "{}", parts.linear);
    assert_eq!(parts.linear.inputs.len(), parts.residual_count + 1);
}

#[test]
fn common_subexpressions_and_dead_code_disappear() {
    let b = Builder::new();
    let (x, unused) = (b.input("x", &[2]), b.input("unused", &[5]));
    let _dead = unused.exp();
    let (first, second) = (x.exp() + 1.0, 1.0 + x.exp());
    let program = b.finish(&[("y", first * second)]);
    assert_eq!(
        count(&program, |op| matches!(op, Op::Unary(Unary::Exp, _))),
        1,
        "{program}"
    );
    assert_eq!(
        count(&program, |op| matches!(op, Op::Binary(..))),
        2,
        "{program}"
    );
    assert_eq!(program.inputs.len(), 2, "inputs stay, used or not");
    let outputs = interpret(&program, &[vec![0.0, 1.0], vec![0.0; 5]]);
    assert_eq!(outputs, [[4.0, (1f64.exp() + 1.0).powi(2)]]);
}

#[test]
fn constants_fold_and_trivial_operations_vanish() {
    let b = Builder::new();
    let x = b.input("x", &[2, 3]);
    let scale = (b.constant(2.0, &[]).ln().exp() * 2.0).sqrt(); // 2
    let same = (x + 0.0) * 1.0 / 1.0 - 0.0;
    let same = same
        .reshape(&[6])
        .reshape(&[2, 3])
        .permute(&[1, 0])
        .permute(&[1, 0])
        .slice(0, 0, 2)
        .pad(1, 0, 0);
    let same = -(-same
        .broadcast_to(&[2, 3])
        .sum_to(&[2, 3])
        .gather(0, &[0, 1]));
    assert_eq!(format!("{same:?}"), format!("{x:?}"));
    let table = b
        .tensor(vec![1.0, 2.0, 3.0], &[3])
        .square()
        .pad(0, 1, 0)
        .slice(0, 1, 3);
    let program = b.finish(&[("y", same * scale * table)]);
    assert_eq!(
        count(&program, |op| matches!(op, Op::ConstantTensor(_))),
        1,
        "{program}"
    );
    assert_eq!(program.instructions.len(), 5, "{program}");
    let outputs = interpret(&program, &[vec![1.0; 6]]);
    for (found, expected) in outputs[0].iter().zip([2.0, 8.0, 18.0, 2.0, 8.0, 18.0]) {
        assert!((found - expected).abs() < 1e-14 * expected);
    }
}

#[test]
fn broadcasts_stay_implicit() {
    let b = Builder::new();
    let (x, bias) = (b.input("x", &[4, 2, 3]), b.input("bias", &[3]));
    let sum = x + bias.broadcast_to(&[4, 2, 3]) * b.constant(2.0, &[4, 2, 3]);
    let mask = b
        .constant(0.5, &[4, 2, 3])
        .greater(x)
        .select(bias.broadcast_to(&[4, 2, 3]), sum);
    let program = b.finish(&[
        ("y", mask),
        ("repeated", bias.exp().broadcast_to(&[2, 3]).sum_to(&[3])),
    ]);
    assert_eq!(
        count(&program, |op| matches!(
            op,
            Op::BroadcastTo(_) | Op::SumTo(_)
        )),
        0,
        "{program}"
    );
    let outputs = interpret(&program, &[vec![1.0; 24], vec![1.0, 2.0, 3.0]]);
    assert_eq!(outputs[0][..3], [3.0, 5.0, 7.0]);
    assert_eq!(outputs[1], [1.0, 2.0, 3.0].map(|x: f64| 2.0 * x.exp()));
}

#[test]
fn verify_refuses_broken_programs() {
    let good = perceptron_loss(1, 2);
    verify(&good).unwrap();
    let message = |program: &Program| verify(program).unwrap_err().to_string();
    let mut order = good.clone();
    order.instructions.swap(6, 7);
    assert!(
        message(&order).contains("is not made before it"),
        "{}",
        message(&order)
    );
    let mut declared = good.clone();
    declared.instructions[6].shape = vec![1, 2, 6];
    assert!(
        message(&declared).contains("declares the shape [1, 2, 6]"),
        "{}",
        message(&declared)
    );
    let mut table = good.clone();
    table.inputs.swap(0, 1);
    assert!(
        message(&table).contains("the table of inputs"),
        "{}",
        message(&table)
    );
    let mut outputs = good;
    outputs.output_names.clear();
    assert!(
        message(&outputs).contains("the table of outputs"),
        "{}",
        message(&outputs)
    );
}

#[test]
fn programs_print_one_line_per_instruction() {
    let b = Builder::new();
    let (x, w) = (b.input("x", &[2, 3]), b.input("w", &[4, 3]));
    let program = b.finish(&[("y", x.matmul_t(w).gelu() * 2.0)]);
    let expected = "program(x: [2, 3], w: [4, 3]) {\n  %0 [2, 3] = input x\n  %1 [4, 3] = input w\n  \
                    %2 [2, 4] = matmul transpose_b %0 %1\n  %3 [2, 4] = gelu %2\n  %4 [] = constant 2.0\n  \
                    %5 [2, 4] = mul %3 %4\n} -> (y: %5)\n";
    assert_eq!(program.to_string(), expected);
}

#[test]
#[should_panic(expected = "matmul cannot be applied to operands of shapes [[2, 3], [4, 3]]")]
fn shape_errors_name_operation_and_shapes() {
    let b = Builder::new();
    b.input("x", &[2, 3]).matmul(b.input("w", &[4, 3]));
}

#[test]
#[should_panic(expected = "transpose: exp is not linear here")]
fn transposing_a_nonlinear_program_is_refused() {
    let b = Builder::new();
    let x = b.input("x", &[2]);
    boltzmap_autodiff::transpose(&b.finish(&[("y", x.exp())]), &[0]);
}

#[test]
fn transpose_of_a_linear_program_is_its_transposed_matrix() {
    let b = Builder::new();
    let (w, x) = (b.input("w", &[2, 3]), b.input("x", &[3, 1]));
    let program = b.finish(&[("y", w.matmul(x))]);
    let transposed = boltzmap_autodiff::transpose(&program, &[1]);
    let outputs = interpret(
        &transposed,
        &[vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], vec![1.0, 10.0]],
    );
    assert_eq!(outputs, [[41.0, 52.0, 63.0]]);
}

#[test]
#[should_panic(expected = "derivative with respect to target is asked for twice")]
fn repeated_inputs_are_refused() {
    jvp(&perceptron_loss(1, 1), &[1, 0, 1], None);
}
