//! Derivatives of the losses on whole networks, and the losses against finite differences in time.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::check::{check_first_order, check_tangent_axis, check_vjp, random_values};
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::vjp;
use boltzmap_kernels::random::Stream;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{DitConfig, MlpConfig, NetworkConfig};
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::losses::{
    ConsistencyWeights, DiagonalWeights, LossShape, StopGradient, corrections_program,
    diagonal_loss, lagrangian_loss,
};

const BLOCK: usize = 2;
const TOKENS: usize = 3;
const CHANNELS: usize = 2;
const SIZE: usize = BLOCK * TOKENS * CHANNELS;

/// A transformer on the mean-free subspace and a perceptron on the full space.
fn maps() -> [FlowMap; 2] {
    let dit = NetworkConfig::Dit(DitConfig {
        tokens: TOKENS,
        channels: CHANNELS,
        width: 8,
        layers: 1,
        heads: 2,
        mlp_ratio: 2,
        conditioning_width: 6,
        time_frequencies: 3,
    });
    let mlp = NetworkConfig::Mlp(MlpConfig {
        tokens: TOKENS,
        channels: CHANNELS,
        width: 8,
        blocks: 1,
        conditioning_width: 6,
        time_frequencies: 3,
    });
    [(dit, Subspace::MeanFree), (mlp, Subspace::Full)]
        .map(|(network, subspace)| FlowMap::new(&FlowMapConfig { subspace, network }).unwrap())
}

fn shape(map: &FlowMap) -> LossShape {
    LossShape {
        block: BLOCK,
        tokens: TOKENS,
        channels: CHANNELS,
        kappa: map.share(),
    }
}

fn lagrangian(map: &FlowMap, stop: StopGradient) -> Program {
    let weights = ConsistencyWeights {
        map: 1.3,
        divergence: 0.7,
    };
    let corrections = corrections_program(map, BLOCK);
    let loss = lagrangian_loss(&corrections, shape(map), weights, stop);
    loss.program().clone()
}

fn diagonal(map: &FlowMap) -> Program {
    let weights = DiagonalWeights {
        velocity: 1.3,
        divergence: 0.7,
    };
    let loss = diagonal_loss(&corrections_program(map, BLOCK), shape(map), weights);
    loss.program().clone()
}

/// `sets` sets of random parameters, heads and gates included, each in a range where networks are smooth.
fn parameters(map: &FlowMap, sets: usize, seed: u64) -> Vec<Vec<f64>> {
    let specs = map.layout().specs();
    (0..sets * specs.len())
        .map(|i| {
            let values = random_values(seed + i as u64, specs[i % specs.len()].len());
            values.iter().map(|value| 0.5 * value).collect()
        })
        .collect()
}

/// Data and noise on the subspace.
fn states(map: &FlowMap, seed: u64) -> [Vec<f64>; 2] {
    [0, 1].map(|which| {
        let mut values = vec![0.0; SIZE];
        Stream::new(seed, 5, which).fill_standard_normal(&mut values);
        map.subspace().project_states(&mut values, TOKENS, CHANNELS);
        values
    })
}

fn diagonal_inputs(map: &FlowMap, seed: u64) -> Vec<Vec<f64>> {
    let mut inputs = parameters(map, 1, seed);
    inputs.extend(states(map, seed));
    inputs.push(vec![0.35, 0.9]);
    inputs
}

fn lagrangian_inputs(map: &FlowMap, seed: u64) -> Vec<Vec<f64>> {
    let mut inputs = parameters(map, 2, seed);
    inputs.extend(states(map, seed));
    inputs.extend([vec![0.1, 0.6], vec![0.4, 0.95]]);
    inputs
}

/// The program with some of its outputs only.
fn only(program: &Program, outputs: &[usize]) -> Program {
    let builder = Builder::new();
    let inputs: Vec<Var> = (0..program.inputs.len())
        .map(|i| builder.input(&program.input_names[i], program.input_shape(i)))
        .collect();
    let all = builder.call(program, &inputs);
    let named: Vec<(&str, Var)> = outputs
        .iter()
        .map(|&i| (program.output_names[i].as_str(), all[i]))
        .collect();
    builder.finish(&named)
}

/// Parameters of the divergence head alone: no velocity depends on them, so no stop-gradient hides them.
fn divergence_head(map: &FlowMap) -> Vec<usize> {
    let head: Vec<usize> = (0..map.layout().count())
        .filter(|&i| map.layout().specs()[i].name.starts_with("final.divergence"))
        .collect();
    assert_eq!(head.len(), 2, "weight and bias");
    head
}

#[track_caller]
fn differences_agree(program: &Program, inputs: &[Vec<f64>], wrt: &[usize], seed: u64) {
    check_first_order(program, inputs, wrt, seed).unwrap_or_else(|error| panic!("{error}"));
}

/// Forward against reverse mode only, where central differences would see through a stop-gradient.
#[track_caller]
fn modes_agree(program: &Program, inputs: &[Vec<f64>], wrt: &[usize], seed: u64) {
    check_vjp(program, inputs, wrt, seed).unwrap_or_else(|error| panic!("{error}"));
    check_tangent_axis(program, inputs, wrt, seed).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn diagonal_loss_of_networks() {
    for map in maps() {
        let all: Vec<usize> = (0..map.layout().count()).collect();
        for seed in [1, 2] {
            let (loss, inputs) = (diagonal(&map), diagonal_inputs(&map, seed));
            differences_agree(&only(&loss, &[1]), &inputs, &all, seed);
            differences_agree(&loss, &inputs, &divergence_head(&map), seed);
            modes_agree(&loss, &inputs, &all, seed);
        }
    }
}

/// The target of the divergence is held fixed: its loss does not move the velocity head.
#[test]
fn the_divergence_target_does_not_train_the_velocity() {
    for map in maps() {
        let loss = only(&diagonal(&map), &[2]);
        let position = map.layout().position("final.velocity.weight").unwrap();
        let mut inputs = diagonal_inputs(&map, 3);
        inputs.push(vec![1.0]);
        let outputs = interpret(&vjp(&loss, &[position]), &inputs);
        assert!(outputs[0][0] > 0.0);
        assert!(outputs[1].iter().all(|gradient| *gradient == 0.0));
    }
}

#[test]
fn lagrangian_loss_of_networks() {
    for map in maps() {
        let count = map.layout().count();
        let student: Vec<usize> = (0..count).collect();
        let both: Vec<usize> = (0..2 * count).collect();
        for seed in [1, 2] {
            let inputs = lagrangian_inputs(&map, seed);
            // Nothing is held fixed: all derivatives are visible to differences.
            let loss = lagrangian(&map, StopGradient::None);
            differences_agree(&loss, &inputs, &both, seed);
            // Only the teacher, which is an input of its own.
            let loss = lagrangian(&map, StopGradient::Target);
            differences_agree(&loss, &inputs, &student, seed);
            modes_agree(&loss, &inputs, &both, seed);
            let loss = lagrangian(&map, StopGradient::TargetAndArgument);
            differences_agree(&loss, &inputs, &divergence_head(&map), seed);
            modes_agree(&loss, &inputs, &both, seed);
        }
    }
}

#[test]
fn a_held_teacher_gets_no_gradient() {
    for map in maps() {
        let count = map.layout().count();
        let teacher: Vec<usize> = (count..2 * count).collect();
        for (stop, held) in [
            (StopGradient::Target, true),
            (StopGradient::TargetAndArgument, true),
            (StopGradient::None, false),
        ] {
            let loss = only(&lagrangian(&map, stop), &[0]);
            let mut inputs = lagrangian_inputs(&map, 4);
            inputs.push(vec![1.0]);
            let outputs = interpret(&vjp(&loss, &teacher), &inputs);
            let largest = outputs[1..]
                .iter()
                .flatten()
                .fold(0.0f64, |largest, gradient| largest.max(gradient.abs()));
            assert_eq!(largest == 0.0, held, "{stop:?}: {largest}");
        }
    }
}

/// The losses as the design states them, ∂_t X = v'(X, t) and ∂_t Λ_i = D'_i(X, t, t), with ∂_t by differences of the
/// flow map itself.
#[test]
fn lagrangian_loss_is_the_residual_of_the_flow_map() {
    for map in maps() {
        let count = map.layout().count();
        let step = {
            let builder = Builder::new();
            let bound = map.layout().bind(&builder);
            let x = builder.input("x", &[BLOCK, TOKENS, CHANNELS]);
            let (s, t) = (builder.input("s", &[BLOCK]), builder.input("t", &[BLOCK]));
            let step = map.step(&bound, x, s, t);
            builder.finish(&[("state", step.state), ("terms", step.log_det_terms)])
        };
        let loss = lagrangian(&map, StopGradient::TargetAndArgument);
        let inputs = lagrangian_inputs(&map, 6);
        let (student, rest) = inputs.split_at(count);
        let (teacher, rest) = rest.split_at(count);
        let [data, noise, s, t] = rest else {
            panic!("data, noise, s, t")
        };
        let per_sample = TOKENS * CHANNELS;
        let x: Vec<f64> = (0..SIZE)
            .map(|i| s[i / per_sample] * data[i] + (1.0 - s[i / per_sample]) * noise[i])
            .collect();
        let at = |shift: f64| {
            let end: Vec<f64> = t.iter().map(|t| t + shift).collect();
            let mut inputs = student.to_vec();
            inputs.extend([x.clone(), s.clone(), end]);
            interpret(&step, &inputs)
        };
        let h = 2e-4;
        let values = [h, -h, 0.5 * h, -0.5 * h].map(at);
        let rate = |output: usize, i: usize| {
            let [plus, minus, half_plus, half_minus] = [0, 1, 2, 3].map(|v| values[v][output][i]);
            let (coarse, fine) = ((plus - minus) / (2.0 * h), (half_plus - half_minus) / h);
            (4.0 * fine - coarse) / 3.0
        };
        let mapped = at(0.0).swap_remove(0);
        let mut inputs_of_target = teacher.to_vec();
        inputs_of_target.extend([mapped, t.clone()]);
        let target = interpret(&map.diagonal_program(BLOCK), &inputs_of_target);
        let squares = |output: usize| -> f64 {
            (0..SIZE)
                .map(|i| (rate(output, i) - target[output][i]).powi(2))
                .sum::<f64>()
                / per_sample as f64
        };
        let outputs = interpret(&loss, &inputs);
        for (output, expected) in [(1, squares(0)), (2, squares(1))] {
            let found = outputs[output][0];
            assert!(
                (found - expected).abs() < 1e-7 * (1.0 + expected),
                "{found} {expected}"
            );
            assert!(found > 1e-3, "the residual must not vanish");
        }
    }
}
