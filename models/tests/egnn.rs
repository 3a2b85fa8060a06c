//! Symmetries of the equivariant network and of the flow map made with it.

mod common;

use boltzmap_autodiff::builder::Builder;
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::ir::Program;
use boltzmap_kernels::random::Stream;
use boltzmap_models::ModelError;
use boltzmap_models::control::Control;
use boltzmap_models::deploy::ExactSampler;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{Egnn, EgnnConfig, NetworkConfig};
use boltzmap_models::parameters::{ParameterLayout, Parameters};
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use common::random_parameters;
use proptest::prelude::*;

const BATCH: usize = 2;
const TOKENS: usize = 5;
/// Tokens 0, 2 and 4 are alike.
const TYPES: [usize; TOKENS] = [1, 0, 1, 2, 1];

fn config(channels: usize) -> EgnnConfig {
    EgnnConfig {
        tokens: TOKENS,
        channels,
        token_types: TYPES.to_vec(),
        width: 7,
        layers: 3,
        conditioning_width: 6,
        time_frequencies: 2,
    }
}

/// A random orthogonal matrix `[C, C]` by Gram–Schmidt, a rotation or a reflection.
fn orthogonal(channels: usize, stream: &mut Stream) -> Vec<f64> {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    while rows.len() < channels {
        let mut row: Vec<f64> = (0..channels).map(|_| stream.standard_normal()).collect();
        for other in &rows {
            let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
        }
        let norm = row.iter().map(|a| a * a).sum::<f64>().sqrt();
        rows.push(row.iter().map(|a| a / norm).collect());
    }
    rows.concat()
}

fn turned(states: &[f64], matrix: &[f64], channels: usize) -> Vec<f64> {
    states
        .chunks_exact(channels)
        .flat_map(|point| {
            matrix
                .chunks_exact(channels)
                .map(|row| row.iter().zip(point).map(|(a, b)| a * b).sum::<f64>())
                .collect::<Vec<f64>>()
        })
        .collect()
}

fn relabelled(states: &[f64], order: [usize; TOKENS], channels: usize) -> Vec<f64> {
    states
        .chunks_exact(TOKENS * channels)
        .flat_map(|state| order.map(|i| state[i * channels..(i + 1) * channels].to_vec()))
        .flatten()
        .collect()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| (a - b).abs() <= 1e-11 * (1.0 + b.abs()))
}

/// The bare network (parameters…, x, s, t) → (n, h), with random parameters.
fn network(channels: usize, seed: u64) -> (Program, Vec<Vec<f64>>) {
    let network = Egnn::new(config(channels)).unwrap();
    let layout = ParameterLayout::new(network.parameters());
    let b = Builder::new();
    let p = layout.bind(&b);
    let x = b.input("x", &[BATCH, TOKENS, channels]);
    let (s, t) = (b.input("s", &[BATCH]), b.input("t", &[BATCH]));
    let (n, h) = network.build(&p, x, s, t);
    let mut parameters = Parameters::<f64>::initialize(&layout, seed);
    let mut noise = vec![0.0; parameters.flat().len()];
    Stream::new(seed, 77, 0).fill_standard_normal(&mut noise);
    for (value, noise) in parameters.flat_mut().iter_mut().zip(noise) {
        *value += 0.3 * noise;
    }
    let values = parameters.slices().iter().map(|v| v.to_vec()).collect();
    (b.finish(&[("n", n), ("h", h)]), values)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn outputs_follow_rotations_reflections_shifts_and_labels(seed in 0u64..1 << 40, channels in 1usize..4) {
        let (program, parameters) = network(channels, seed);
        let run = |x: &[f64]| {
            let mut inputs = parameters.clone();
            inputs.extend([x.to_vec(), vec![0.2, 0.7], vec![0.5, 0.9]]);
            let mut outputs = interpret(&program, &inputs);
            let h = outputs.pop().unwrap();
            (outputs.pop().unwrap(), h)
        };
        let mut stream = Stream::new(seed, 1, 0);
        let x: Vec<f64> = (0..BATCH * TOKENS * channels).map(|_| stream.standard_normal()).collect();
        let (n, h) = run(&x);
        prop_assert!(n.iter().any(|v| v.abs() > 1e-3), "points must move");

        let matrix = orthogonal(channels, &mut stream);
        let (n_turned, h_turned) = run(&turned(&x, &matrix, channels));
        prop_assert!(close(&n_turned, &turned(&n, &matrix, channels)));
        prop_assert!(close(&h_turned, &h));
        let mirror: Vec<f64> = (0..channels * channels)
            .map(|i| if i % (channels + 1) > 0 { 0.0 } else if i == 0 { -1.0 } else { 1.0 })
            .collect();
        let (n_mirrored, h_mirrored) = run(&turned(&x, &mirror, channels));
        prop_assert!(close(&n_mirrored, &turned(&n, &mirror, channels)));
        prop_assert!(close(&h_mirrored, &h));

        let shift: Vec<f64> = (0..channels).map(|_| 3.0 * stream.standard_normal()).collect();
        let shifted: Vec<f64> = x.iter().enumerate().map(|(i, v)| v + shift[i % channels]).collect();
        let (n_shifted, h_shifted) = run(&shifted);
        prop_assert!(close(&n_shifted, &n) && close(&h_shifted, &h));

        // Tokens 0, 2 and 4 are alike, tokens 0 and 1 are not.
        for (order, alike) in [([2, 1, 4, 3, 0], true), ([1, 0, 2, 3, 4], false)] {
            let (n_renamed, h_renamed) = run(&relabelled(&x, order, channels));
            let same = close(&n_renamed, &relabelled(&n, order, channels))
                && close(&h_renamed, &relabelled(&h, order, channels));
            prop_assert_eq!(same, alike);
        }
        // h is one number per token.
        for token in h.chunks_exact(channels) {
            prop_assert!(token.iter().all(|v| *v == token[0]));
        }
    }
}

#[test]
fn few_step_densities_do_not_depend_on_orientation_handedness_or_equal_labels() {
    let map = FlowMap::new(&FlowMapConfig {
        subspace: Subspace::MeanFree,
        network: NetworkConfig::Egnn(config(3)),
    })
    .unwrap();
    let parameters = random_parameters(&map, 3, 0.1);
    let schedule = Schedule::uniform(3, 0.02).unwrap();
    let sampler = ExactSampler::new(&map, &parameters, &schedule);
    let run = |noise: &[f64]| {
        sampler
            .exact_log_density(noise, &Control::default())
            .unwrap()
    };
    let noise: Vec<f64> = map.subspace().noise(TOKENS, 3, 1, 1, 0, 4);
    let plain = run(&noise);
    let mut stream = Stream::new(9, 1, 0);
    let matrix = orthogonal(3, &mut stream);
    let mirror = [1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0];
    let order = [4, 1, 0, 3, 2];
    type Transform<'a> = &'a dyn Fn(&[f64]) -> Vec<f64>;
    let transforms: [Transform; 3] = [
        &|x| turned(x, &matrix, 3),
        &|x| turned(x, &mirror, 3),
        &|x| relabelled(x, order, 3),
    ];
    for transform in transforms {
        let other = run(&transform(&noise));
        assert!(close(&other.states, &transform(&plain.states)));
        assert!(close(&other.log_density_head, &plain.log_density_head));
        assert!(close(&other.log_density_exact, &plain.log_density_exact));
    }
    let reference = map.subspace().gaussian_log_density(&noise, TOKENS, 3);
    assert!(!close(&plain.log_density_exact, &reference));
}

#[test]
fn published_sizes_and_refusals() {
    let plain = EgnnConfig::ecnf(3, TYPES.to_vec());
    let larger = EgnnConfig::ecnf_plus_plus(3, TYPES.to_vec());
    assert_eq!((plain.width, plain.layers, plain.tokens), (64, 5, TOKENS));
    assert_eq!((larger.width, larger.layers), (256, 5));
    let refused = |config: EgnnConfig, subspace: Subspace| -> String {
        let network = NetworkConfig::Egnn(config);
        match FlowMap::new(&FlowMapConfig { subspace, network }) {
            Err(error @ ModelError::Configuration(_)) => error.to_string(),
            other => panic!("must be refused, got {other:?}"),
        }
    };
    let mean_free = Subspace::MeanFree;
    assert!(refused(config(3), Subspace::Full).contains("mean-free"));
    let short = EgnnConfig {
        token_types: vec![0; 3],
        ..config(3)
    };
    assert!(refused(short, mean_free).contains("3 token_types for 5 tokens"));
    let gap = EgnnConfig {
        token_types: vec![0, 0, 0, 0, 9],
        ..config(3)
    };
    assert!(refused(gap, mean_free).contains("token type 9"));
    let single = EgnnConfig {
        tokens: 1,
        token_types: vec![0],
        ..config(3)
    };
    assert!(refused(single, mean_free).contains("at least 2 tokens"));
    let narrow = EgnnConfig {
        width: 0,
        ..config(3)
    };
    assert!(refused(narrow, mean_free).contains("width is 0"));
}
