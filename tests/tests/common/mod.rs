//! Small flow maps with random parameters.
#![allow(dead_code)]

pub(crate) mod training;

use boltzmap_kernels::random::Stream;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{DitConfig, EgnnConfig, MlpConfig, NetworkConfig};
use boltzmap_models::parameters::Parameters;
use boltzmap_models::subspace::Subspace;

pub(crate) fn dit(tokens: usize, channels: usize, subspace: Subspace) -> FlowMap {
    let network = NetworkConfig::Dit(DitConfig {
        tokens,
        channels,
        width: 8,
        layers: 1,
        heads: 2,
        mlp_ratio: 2,
        conditioning_width: 8,
        time_frequencies: 3,
    });
    FlowMap::new(&FlowMapConfig { subspace, network }).expect("sizes fit")
}

pub(crate) fn mlp(tokens: usize, channels: usize, subspace: Subspace) -> FlowMap {
    let network = NetworkConfig::Mlp(MlpConfig {
        tokens,
        channels,
        width: 10,
        blocks: 1,
        conditioning_width: 8,
        time_frequencies: 3,
    });
    FlowMap::new(&FlowMapConfig { subspace, network }).expect("sizes fit")
}

/// Tokens of one type, on the mean-free subspace.
pub(crate) fn egnn(tokens: usize, channels: usize) -> FlowMap {
    let network = NetworkConfig::Egnn(EgnnConfig {
        tokens,
        channels,
        token_types: vec![0; tokens],
        width: 6,
        layers: 2,
        conditioning_width: 8,
        time_frequencies: 3,
    });
    FlowMap::new(&FlowMapConfig {
        subspace: Subspace::MeanFree,
        network,
    })
    .expect("sizes fit")
}

/// Start values plus noise in every tensor, so that heads and gates do not vanish.
pub(crate) fn random_parameters(map: &FlowMap, seed: u64, size: f64) -> Parameters<f64> {
    let mut parameters = Parameters::<f64>::initialize(map.layout(), seed);
    let mut noise = vec![0.0; parameters.flat().len()];
    Stream::new(seed, 77, 0).fill_standard_normal(&mut noise);
    for (value, noise) in parameters.flat_mut().iter_mut().zip(noise) {
        *value += size * noise;
    }
    parameters
}

/// Random parameters of maps that do not fold: offsets before the layer norm, which turns a line through its origin
/// into a jump, and small velocities; of equivariant networks, small shifts of the points.
pub(crate) fn gentle_parameters(map: &FlowMap, seed: u64) -> Parameters<f64> {
    let mut parameters = random_parameters(map, seed, 0.3);
    for spec in map.layout().specs() {
        let factor = match spec.name.as_str() {
            "embedding.bias" => 5.0,
            "final.velocity.weight" | "final.velocity.bias" => 0.2,
            name if name.ends_with("shift.weight") => 0.02,
            _ => continue,
        };
        let values = parameters.get_mut(&spec.name).expect("a tensor of the map");
        values.iter_mut().for_each(|value| *value *= factor);
    }
    parameters
}
