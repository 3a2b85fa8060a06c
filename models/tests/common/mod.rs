//! Small flow maps with random parameters, shared by the tests.
#![allow(dead_code)]

use boltzmap_kernels::random::Stream;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{DitConfig, EgnnConfig, MlpConfig, NetworkConfig};
use boltzmap_models::parameters::Parameters;
use boltzmap_models::subspace::Subspace;

pub(crate) fn dit(tokens: usize, channels: usize) -> NetworkConfig {
    NetworkConfig::Dit(DitConfig {
        tokens,
        channels,
        width: 8,
        layers: 2,
        heads: 2,
        mlp_ratio: 2,
        conditioning_width: 8,
        time_frequencies: 3,
    })
}

pub(crate) fn mlp(tokens: usize, channels: usize) -> NetworkConfig {
    NetworkConfig::Mlp(MlpConfig {
        tokens,
        channels,
        width: 10,
        blocks: 2,
        conditioning_width: 8,
        time_frequencies: 3,
    })
}

/// The last token is of another type than the rest.
pub(crate) fn egnn(tokens: usize, channels: usize) -> NetworkConfig {
    NetworkConfig::Egnn(EgnnConfig {
        tokens,
        channels,
        token_types: (0..tokens).map(|i| usize::from(i + 1 == tokens)).collect(),
        width: 6,
        layers: 2,
        conditioning_width: 8,
        time_frequencies: 3,
    })
}

/// Transformer and perceptron on both subspaces, and the equivariant network on the one it is for.
pub(crate) fn maps(tokens: usize, channels: usize) -> Vec<FlowMap> {
    [
        (dit(tokens, channels), Subspace::MeanFree),
        (dit(tokens, channels), Subspace::Full),
        (mlp(tokens, channels), Subspace::MeanFree),
        (mlp(tokens, channels), Subspace::Full),
        (egnn(tokens, channels), Subspace::MeanFree),
    ]
    .into_iter()
    .map(|(network, subspace)| FlowMap::new(&FlowMapConfig { subspace, network }).unwrap())
    .collect()
}

/// Start values plus noise in every tensor, heads and gates included; a tenth of it where points are shifted, which the
/// equivariant network multiplies by its range and sums over neighbours.
pub(crate) fn random_parameters(map: &FlowMap, seed: u64, size: f64) -> Parameters<f64> {
    let mut parameters = Parameters::<f64>::initialize(map.layout(), seed);
    let mut noise = vec![0.0; parameters.flat().len()];
    Stream::new(seed, 77, 0).fill_standard_normal(&mut noise);
    for (value, noise) in parameters.flat_mut().iter_mut().zip(noise) {
        *value += size * noise;
    }
    for spec in map.layout().specs() {
        if spec.name.ends_with("shift.weight") {
            let values = parameters.get_mut(&spec.name).expect("a tensor of the map");
            values.iter_mut().for_each(|value| *value *= 0.1);
        }
    }
    parameters
}

/// The inputs of a program: parameters, then the rest.
pub(crate) fn inputs<'a>(parameters: &'a Parameters<f64>, rest: &[&'a [f64]]) -> Vec<&'a [f64]> {
    let mut all = parameters.slices();
    all.extend_from_slice(rest);
    all
}
