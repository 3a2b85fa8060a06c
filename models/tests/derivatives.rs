//! Every layer, the networks and the flow map through the derivative checks, to second order and including a network's
//! own derivative in time.

mod common;

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::check::{check_first_order, check_program, random_values};
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::jvp::jvp;
use boltzmap_models::jacobians::{step_jacobian, velocity_jacobian};
use boltzmap_models::layers;
use boltzmap_models::network::Network;
use boltzmap_models::parameters::{Bound, ParameterLayout, ParameterSpec};
use common::{dit, egnn, inputs, maps, mlp, random_parameters};
use proptest::prelude::*;

const BATCH: usize = 2;
const TOKENS: usize = 3;
const WIDTH: usize = 4;
const CONDITIONING: usize = 3;

/// Traces a layer of (x + (0, 2, 4, …) `[B, T, W]`, c `[B, M]`, s `[B]`, t `[B]`).
fn layer_program(
    specs: Vec<ParameterSpec>,
    trace: impl for<'b> Fn(&Bound<'b>, Var<'b>, Var<'b>, Var<'b>, Var<'b>) -> Var<'b>,
) -> Program {
    let b = Builder::new();
    let p = ParameterLayout::new(specs).bind(&b);
    let (x, c) = (
        b.input("x", &[BATCH, TOKENS, WIDTH]),
        b.input("c", &[BATCH, CONDITIONING]),
    );
    let (s, t) = (b.input("s", &[BATCH]), b.input("t", &[BATCH]));
    // Spread out: the third derivatives of a layer-norm grow with the seventh power of a row's reciprocal spread, and
    // with them the error of central differences.
    let spread = b.tensor((0..WIDTH).map(|i| 2.0 * i as f64).collect(), &[WIDTH]);
    let output = trace(&p, x + spread, c, s, t);
    b.finish(&[("output", output)])
}

/// The program with every time written as centre + τ/64, the centre within [0.05, 0.95]. The checks move all inputs by
/// the same small distance; time features turn 16π times faster than the other inputs' functions, and in units of τ
/// they are as smooth. Weights and biases are taken as quarters, in the range of a trained network's.
fn in_smooth_units(program: &Program, seed: u64) -> Program {
    let b = Builder::new();
    let arguments: Vec<Var> = (0..program.inputs.len())
        .map(|i| {
            let (name, shape) = (program.input_names[i].as_str(), program.input_shape(i));
            let value = b.input(name, shape);
            if name == "s" || name == "t" {
                let centres = random_values(seed + 1000 + i as u64, shape.iter().product());
                value * (1.0 / 64.0)
                    + b.tensor(centres.iter().map(|v| 0.5 + 0.45 * v).collect(), shape)
            } else if name.ends_with("weight") || name.ends_with("bias") {
                value * 0.25
            } else {
                value
            }
        })
        .collect();
    let outputs = b.call(program, &arguments);
    let named: Vec<(&str, Var)> = program
        .output_names
        .iter()
        .map(String::as_str)
        .zip(outputs)
        .collect();
    b.finish(&named)
}

fn check(program: &Program, seed: u64, second: bool) {
    let program = in_smooth_units(program, seed);
    let values: Vec<Vec<f64>> = (0..program.inputs.len())
        .map(|i| random_values(seed + i as u64, program.input_shape(i).iter().product()))
        .collect();
    let all: Vec<usize> = (0..program.inputs.len()).collect();
    let result = if second {
        check_program(&program, &values, &all, seed)
    } else {
        check_first_order(&program, &values, &all, seed)
    };
    result.unwrap_or_else(|error| panic!("{error}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn time_conditioning(seed in 0u64..1 << 40) {
        check(&layer_program(layers::conditioning_parameters("c", 3, 5), |p, _, _, s, t| {
            layers::conditioning(p, "c", 3, s, t)
        }), seed, true);
    }

    #[test]
    fn adaptive_layer_norm(seed in 0u64..1 << 40) {
        let specs = layers::modulation_parameters("m", CONDITIONING, 2, WIDTH).to_vec();
        check(&layer_program(specs, |p, x, c, _, _| {
            let m = layers::modulation(p, "m", c, 2, 3);
            layers::adaptive_layer_norm(x, m[0], m[1])
        }), seed, true);
    }

    #[test]
    fn attention(seed in 0u64..1 << 40) {
        check(&layer_program(layers::attention_parameters("a", WIDTH), |p, x, _, _, _| {
            layers::attention(p, "a", 2, x)
        }), seed, true);
    }

    #[test]
    fn feed_forward(seed in 0u64..1 << 40) {
        check(&layer_program(layers::feed_forward_parameters("f", WIDTH, 5), |p, x, _, _, _| {
            layers::feed_forward(p, "f", x)
        }), seed, true);
    }

    #[test]
    fn flow_map_steps(seed in 0u64..1 << 40) {
        for map in maps(3, 2) {
            check(&map.step_program(BATCH), seed, false);
            check(&map.diagonal_program(BATCH), seed, false);
        }
    }
}

#[test]
fn networks_to_second_order() {
    for config in [dit(3, 2), mlp(3, 2), egnn(3, 2)] {
        let network = Network::new(&config).unwrap();
        let b = Builder::new();
        let p = ParameterLayout::new(network.parameters()).bind(&b);
        let x = b.input("x", &[BATCH, 3, 2]);
        let (s, t) = (b.input("s", &[BATCH]), b.input("t", &[BATCH]));
        let (n, h) = network.build(&p, x, s, t);
        check(&b.finish(&[("n", n), ("h", h)]), 17, true);
    }
}

/// The Lagrangian residual ∂_t X − v(X, t) of a whole network, differentiated in the parameters: reverse over forward.
#[test]
fn a_loss_with_a_derivative_in_time() {
    for map in maps(3, 2) {
        let step = map.step_program(BATCH);
        let time = map.layout().count() + 2;
        let derivative = jvp(&step, &[time], None);
        let b = Builder::new();
        let p = map.layout().bind(&b);
        let x = b.input("x", &[BATCH, 3, 2]);
        let (s, t) = (b.input("s", &[BATCH]), b.input("t", &[BATCH]));
        let mut arguments = p.variables().to_vec();
        arguments.extend([x, s, t, b.constant(1.0, &[BATCH])]);
        let outputs = b.call(&derivative, &arguments);
        let (state, time_derivative) = (outputs[0], outputs[2]);
        let residual = time_derivative - map.velocity(&p, state, t);
        let loss = residual.square().mean(&[0, 1, 2]);
        check(&b.finish(&[("loss", loss)]), 23, false);
    }
}

#[test]
fn jacobians_agree_with_finite_differences() {
    for map in maps(3, 2) {
        let parameters = random_parameters(&map, 8, 0.4);
        let (size, d) = (map.state_size(), map.dimension());
        let x: Vec<f64> = map.subspace().noise(3, 2, 3, 0, 0, BATCH);
        let (s, t) = ([0.1, 0.6], [0.5, 0.99]);
        let q = map.subspace().basis(3, 2);
        // Qᵀ (∂f/∂x) Q by central differences, for the first output of a program, sample by sample.
        let numerical = |program: &Program, times: &[&[f64]]| {
            let mut jacobians = vec![0.0; BATCH * d * d];
            let h = 1e-5;
            for k in 0..d {
                let moved = |sign: f64| {
                    let x: Vec<f64> = x
                        .iter()
                        .enumerate()
                        .map(|(i, x)| x + sign * h * q[(i % size) * d + k])
                        .collect();
                    let mut rest: Vec<&[f64]> = vec![&x];
                    rest.extend_from_slice(times);
                    interpret(program, &inputs(&parameters, &rest)).swap_remove(0)
                };
                let (plus, minus) = (moved(1.0), moved(-1.0));
                for (i, j) in jacobians.iter_mut().enumerate().filter(|(i, _)| i % d == k) {
                    let (sample, row) = (i / (d * d), i / d % d);
                    *j = (0..size)
                        .map(|e| {
                            q[e * d + row] * (plus[sample * size + e] - minus[sample * size + e])
                                / (2.0 * h)
                        })
                        .sum();
                }
            }
            jacobians
        };
        let jacobians = numerical(&map.step_program(BATCH), &[&s, &t]);
        let of_step = inputs(&parameters, &[&x, &s, &t]);
        let mut states = vec![0.0; x.len()];
        let exact = step_jacobian::<f64>(&map, BATCH).matrix(BATCH, &of_step, Some(&mut states));
        let plain = interpret(&map.step_program(BATCH), &of_step);
        assert!(
            states
                .iter()
                .zip(&plain[0])
                .all(|(a, b)| (a - b).abs() < 1e-12)
        );
        assert!(
            exact
                .iter()
                .zip(&jacobians)
                .all(|(a, b)| (a - b).abs() < 1e-7)
        );

        let jacobians = numerical(&map.velocity_program(BATCH), &[&t]);
        let of_velocity = inputs(&parameters, &[&x, &t]);
        let exact = velocity_jacobian::<f64>(&map, BATCH).trace(BATCH, &of_velocity, None);
        for i in 0..BATCH {
            let trace: f64 = (0..d).map(|k| jacobians[i * d * d + k * d + k]).sum();
            assert!((exact[i] - trace).abs() < 1e-6, "{} {trace}", exact[i]);
        }
    }
}
