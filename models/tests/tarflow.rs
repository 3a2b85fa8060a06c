//! The autoregressive block: its inverse, its log-determinant against the whole Jacobian, causality, derivatives.

use boltzmap_autodiff::check::{check_program, random_values};
use boltzmap_autodiff::exec::{Executable, InputRole};
use boltzmap_autodiff::{Jacobian, interpret};
use boltzmap_kernels::linalg::log_abs_det;
use boltzmap_kernels::random::Stream;
use boltzmap_models::network::{TarFlowBlock, TarFlowConfig, TarFlowInverse};
use boltzmap_models::parameters::Parameters;
use proptest::prelude::*;

fn config(tokens: usize, channels: usize, reversed: bool) -> TarFlowConfig {
    TarFlowConfig {
        tokens,
        channels,
        width: 8,
        layers: 2,
        heads: 2,
        mlp_ratio: 2,
        reversed,
    }
}

fn block(tokens: usize, channels: usize, reversed: bool) -> TarFlowBlock {
    TarFlowBlock::new(config(tokens, channels, reversed)).unwrap()
}

/// Start values plus noise in every tensor, so that scales and shifts do not vanish.
fn parameters(block: &TarFlowBlock, seed: u64) -> Parameters<f64> {
    let mut parameters = Parameters::<f64>::initialize(block.layout(), seed);
    let mut noise = vec![0.0; parameters.flat().len()];
    Stream::new(seed, 77, 0).fill_standard_normal(&mut noise);
    for (value, noise) in parameters.flat_mut().iter_mut().zip(noise) {
        *value += 0.3 * noise;
    }
    parameters
}

fn normals(count: usize, seed: u64) -> Vec<f64> {
    let mut values = vec![0.0; count];
    Stream::new(seed, 1, 0).fill_standard_normal(&mut values);
    values
}

fn forward(
    block: &TarFlowBlock,
    parameters: &Parameters<f64>,
    batch: usize,
    x: &[f64],
) -> [Vec<f64>; 2] {
    let mut inputs = parameters.slices();
    inputs.push(x);
    Executable::compile(&block.forward_program(batch))
        .run(&inputs)
        .try_into()
        .expect("two outputs")
}

/// ∂z/∂x of every sample, row-major.
fn jacobians(
    block: &TarFlowBlock,
    parameters: &Parameters<f64>,
    batch: usize,
    x: &[f64],
) -> Vec<f64> {
    let count = block.layout().count();
    let mut roles = vec![InputRole::Shared; count];
    roles.push(InputRole::PerBlock { axis: 0 });
    let program = block.forward_program(1);
    let jacobian = Jacobian::<f64>::compile(&program, count, 0, roles, None, 4);
    let mut inputs = parameters.slices();
    inputs.push(x);
    jacobian.matrix(batch, &inputs, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_inverse_inverts(
        seed in 0u64..1 << 40, tokens in 2usize..7, channels in 1usize..4, batch in 1usize..4, reversed: bool,
    ) {
        let block = block(tokens, channels, reversed);
        let parameters = parameters(&block, seed);
        let x = normals(batch * tokens * channels, seed);
        let [z, log_det] = forward(&block, &parameters, batch, &x);
        let mut inverse = TarFlowInverse::new(&block, &parameters, batch).unwrap();
        // Twice, because the second run finds what the first has left in the caches.
        for _ in 0..2 {
            let (back, back_log_det) = inverse.run(&z).unwrap();
            for (a, b) in back.iter().zip(&x) {
                prop_assert!((a - b).abs() < 1e-10 * (1.0 + b.abs()), "{a} {b}");
            }
            for (a, b) in back_log_det.iter().zip(&log_det) {
                prop_assert!((a + b).abs() < 1e-10, "{a} {b}");
            }
        }
    }

    #[test]
    fn the_log_determinant_is_that_of_the_jacobian_which_is_triangular(
        seed in 0u64..1 << 40, tokens in 2usize..6, channels in 1usize..4, reversed: bool,
    ) {
        let (batch, d) = (2, tokens * channels);
        let block = block(tokens, channels, reversed);
        let parameters = parameters(&block, seed);
        let x = normals(batch * d, seed);
        let [_, log_det] = forward(&block, &parameters, batch, &x);
        let matrices = jacobians(&block, &parameters, batch, &x);
        for (matrix, log_det) in matrices.chunks(d * d).zip(&log_det) {
            let (exact, sign) = log_abs_det(matrix, d);
            prop_assert!((exact - log_det).abs() < 1e-10 && sign == 1.0, "{exact} {log_det}");
            for row in 0..d {
                for column in 0..d {
                    let (to, from) = (row / channels, column / channels);
                    let earlier = if reversed { from > to } else { from < to };
                    let entry = matrix[row * d + column];
                    if from == to {
                        prop_assert!((entry != 0.0) == (row == column));
                    } else {
                        // Zero exactly for later tokens; a generic network sees every earlier one.
                        prop_assert!((entry != 0.0) == earlier, "{row} {column} {entry}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_untrained_block_is_the_identity() {
    let block = block(5, 3, true);
    let parameters = Parameters::<f64>::initialize(block.layout(), 1);
    let x = normals(2 * 15, 3);
    let [z, log_det] = forward(&block, &parameters, 2, &x);
    assert_eq!((z, log_det), (x, vec![0.0; 2]));
}

#[test]
fn a_reversed_block_does_to_reversed_tokens_what_a_plain_one_does() {
    let (plain, reversed) = (block(4, 2, false), block(4, 2, true));
    let parameters = parameters(&plain, 5);
    let mut turned = Parameters::from_flat(reversed.layout(), parameters.flat().to_vec()).unwrap();
    let flip = |values: &[f64], width: usize| -> Vec<f64> {
        values.chunks(width).rev().flatten().copied().collect()
    };
    let embedding = flip(parameters.get("token_embedding").unwrap(), 8);
    turned
        .get_mut("token_embedding")
        .unwrap()
        .copy_from_slice(&embedding);
    let x = normals(8, 6);
    let [z, log_det] = forward(&plain, &parameters, 1, &x);
    let [back, back_log_det] = forward(&reversed, &turned, 1, &flip(&x, 2));
    assert!(
        flip(&back, 2)
            .iter()
            .zip(&z)
            .all(|(a, b)| (a - b).abs() < 1e-13)
    );
    assert!((log_det[0] - back_log_det[0]).abs() < 1e-13);
}

#[test]
fn derivatives_to_second_order() {
    for reversed in [false, true] {
        let program = block(3, 2, reversed).forward_program(2);
        // Weights in the range of a trained network's; activations of order one, on which layer norms are smooth.
        let values: Vec<Vec<f64>> = (0..program.inputs.len())
            .map(|i| {
                let name = &program.input_names[i];
                let linear = name.ends_with("weight") || name.ends_with("bias");
                let scale = if linear { 0.25 } else { 1.0 };
                let values = random_values(40 + i as u64, program.input_shape(i).iter().product());
                values.iter().map(|value| scale * value).collect()
            })
            .collect();
        let all: Vec<usize> = (0..values.len()).collect();
        check_program(&program, &values, &all, 7).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_executor_agrees_with_the_interpreter_in_single_precision() {
    let block = block(6, 3, false);
    let parameters = parameters(&block, 9);
    let x = normals(3 * 18, 2);
    let program = block.forward_program(3);
    let mut inputs = parameters.slices();
    inputs.push(&x);
    let expected = interpret(&program, &inputs);
    let narrow: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    let single = parameters.convert::<f32>();
    let mut inputs = single.slices();
    inputs.push(&narrow);
    let found = Executable::compile(&program).run(&inputs);
    for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!(
            (f64::from(*a) - b).abs() < 1e-4 * (1.0 + b.abs()),
            "{a} {b}"
        );
    }
}

#[test]
fn sizes_that_make_no_block_are_refused() {
    let refused = |change: fn(&mut TarFlowConfig)| {
        let mut config = config(4, 2, false);
        change(&mut config);
        TarFlowBlock::new(config).unwrap_err().to_string()
    };
    assert!(refused(|c| c.layers = 0).contains("layers is 0"));
    assert!(refused(|c| c.heads = 3).contains("not divisible by heads 3"));
    assert!(refused(|c| c.tokens = 1).contains("at least 2 tokens"));
    let one = block(4, 2, false);
    let parameters = parameters(&one, 1);
    assert!(TarFlowInverse::new(&one, &parameters, 0).is_err());
    assert!(TarFlowInverse::new(&block(5, 2, false), &parameters, 1).is_err());
    let mut inverse = TarFlowInverse::new(&one, &parameters, 2).unwrap();
    assert!(inverse.run(&[0.0; 8]).is_err());
}
