//! Networks of a state and two times with two heads, velocity correction n and divergence correction h; and the causal
//! transformer of an autoregressive flow ([`tarflow`]), which has no time.

pub mod dit;
pub mod egnn;
pub mod mlp;
pub mod tarflow;

pub use dit::{Dit, DitConfig};
pub use egnn::{Egnn, EgnnConfig};
pub use mlp::{Mlp, MlpConfig};
pub use tarflow::{TarFlowBlock, TarFlowConfig, TarFlowInverse};

use boltzmap_autodiff::builder::Var;
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::parameters::{Bound, ParameterSpec};

/// Which network, and its sizes. In TOML: `kind = "dit"`, `"mlp"` or `"egnn"` beside the sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NetworkConfig {
    /// Transformer over tokens.
    Dit(DitConfig),
    /// Residual perceptron on the flattened state.
    Mlp(MlpConfig),
    /// Equivariant message passing between points.
    Egnn(EgnnConfig),
}

/// A network f(x, s, t) = (n, h), both `[B, T, C]`. At initialisation both heads are exactly zero.
#[derive(Clone, Debug, PartialEq)]
pub enum Network {
    /// Transformer over tokens.
    Dit(Dit),
    /// Residual perceptron on the flattened state.
    Mlp(Mlp),
    /// Equivariant message passing between points.
    Egnn(Egnn),
}

impl Network {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If a size is zero or sizes do not fit each other.
    pub fn new(config: &NetworkConfig) -> Result<Self, ModelError> {
        Ok(match config {
            NetworkConfig::Dit(config) => Network::Dit(Dit::new(config.clone())?),
            NetworkConfig::Mlp(config) => Network::Mlp(Mlp::new(config.clone())?),
            NetworkConfig::Egnn(config) => Network::Egnn(Egnn::new(config.clone())?),
        })
    }

    /// The configuration the network was made from.
    pub fn config(&self) -> NetworkConfig {
        match self {
            Network::Dit(network) => NetworkConfig::Dit(network.config().clone()),
            Network::Mlp(network) => NetworkConfig::Mlp(network.config().clone()),
            Network::Egnn(network) => NetworkConfig::Egnn(network.config().clone()),
        }
    }

    /// T.
    pub fn tokens(&self) -> usize {
        match self {
            Network::Dit(network) => network.config().tokens,
            Network::Mlp(network) => network.config().tokens,
            Network::Egnn(network) => network.config().tokens,
        }
    }

    /// C.
    pub fn channels(&self) -> usize {
        match self {
            Network::Dit(network) => network.config().channels,
            Network::Mlp(network) => network.config().channels,
            Network::Egnn(network) => network.config().channels,
        }
    }

    /// Name, shape and start value of every tensor, in order.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        match self {
            Network::Dit(network) => network.parameters(),
            Network::Mlp(network) => network.parameters(),
            Network::Egnn(network) => network.parameters(),
        }
    }

    /// Traces (n, h) `[B, T, C]` of the state x `[B, T, C]` and the times s and t `[B]`.
    pub fn build<'b>(
        &self,
        p: &Bound<'b>,
        x: Var<'b>,
        s: Var<'b>,
        t: Var<'b>,
    ) -> (Var<'b>, Var<'b>) {
        match self {
            Network::Dit(network) => network.build(p, x, s, t),
            Network::Mlp(network) => network.build(p, x, s, t),
            Network::Egnn(network) => network.build(p, x, s, t),
        }
    }
}

/// Refuses zero sizes, naming the first.
fn require_positive(kind: &str, sizes: &[(&str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(ModelError::Configuration(format!(
            "{kind}: {name} is 0; give it at least 1"
        ))),
        None => Ok(()),
    }
}
