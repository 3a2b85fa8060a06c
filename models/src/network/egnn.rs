//! E(n)-equivariant graph network on all pairs of tokens (Satorras et al., arXiv 2102.09844), in the form of the
//! equivariant continuous flows ECNF (Klein et al., arXiv 2306.15030) and ECNF++ (Tan et al., arXiv 2502.18462).
//!
//! Tokens are points in C dimensions with invariant features h_i that start from a learned vector per type of token and
//! from the two times. With d_ij = x_i − x_j, r_ij = ‖d_ij‖² and r⁰_ij its value before the first layer, each of L layers is
//!
//! * m_ij = φ_e(h_i, h_j, r_ij, r⁰_ij), times the gate σ(w·m_ij + b), for j ≠ i;
//! * x_i ← x_i + (15/L) Σ_j d_ij/(√(r_ij + 10⁻⁸) + 1) · tanh φ_x(m_ij);
//! * h_i ← h_i + φ_h(h_i, Σ_j m_ij),
//!
//! with perceptrons φ of one hidden layer. n is the displacement of the points, h one number per token for all channels.
//! Turning or reflecting x turns or reflects n and leaves h alone; shifting x changes neither; exchanging tokens of one
//! type exchanges their n and h. A density made of such a map cannot tell a molecule from its mirror image.

use boltzmap_autodiff::builder::Var;
use serde::{Deserialize, Serialize};

use super::require_positive;
use crate::error::ModelError;
use crate::layers::{conditioning, conditioning_parameters, linear, linear_parameters};
use crate::parameters::{Bound, Initializer, ParameterSpec};

/// How far all layers together move a point per neighbour, at most, in units of the state's spread.
const RANGE: f64 = 15.0;
/// Added to squared distances under a root, which has no derivative at 0.
const DISTANCE_EPSILON: f64 = 1e-8;

/// Sizes of an [`Egnn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgnnConfig {
    /// T, tokens of a state: the points.
    pub tokens: usize,
    /// C, channels of a token: the dimension of space.
    pub channels: usize,
    /// Type of every token, `[T]`; the map treats tokens of one type alike.
    pub token_types: Vec<usize>,
    /// W, width of features and messages.
    pub width: usize,
    /// L, layers.
    pub layers: usize,
    /// M, width of the conditioning vector.
    pub conditioning_width: usize,
    /// F, frequencies in the Fourier features of each time.
    pub time_frequencies: usize,
}

impl EgnnConfig {
    /// The published ECNF: five layers 64 wide.
    pub fn ecnf(channels: usize, token_types: Vec<usize>) -> Self {
        Self {
            tokens: token_types.len(),
            channels,
            token_types,
            width: 64,
            layers: 5,
            conditioning_width: 64,
            time_frequencies: 5,
        }
    }

    /// The published ECNF++: ECNF with layers 256 wide. What else it changes, a moving average of the parameters and
    /// weight decay, are settings of the training.
    pub fn ecnf_plus_plus(channels: usize, token_types: Vec<usize>) -> Self {
        Self {
            width: 256,
            conditioning_width: 256,
            ..Self::ecnf(channels, token_types)
        }
    }
}

/// Message passing between all pairs of points. At initialisation no point moves and h is zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Egnn {
    config: EgnnConfig,
}

impl Egnn {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If a size is zero, there is one token only, or there is not one type for each token.
    pub fn new(config: EgnnConfig) -> Result<Self, ModelError> {
        require_positive(
            "egnn",
            &[
                ("tokens", config.tokens),
                ("channels", config.channels),
                ("width", config.width),
                ("layers", config.layers),
                ("conditioning_width", config.conditioning_width),
                ("time_frequencies", config.time_frequencies),
            ],
        )?;
        if config.tokens < 2 {
            return Err(ModelError::Configuration(
                "egnn: messages pass between pairs of tokens; give it at least 2 tokens".into(),
            ));
        }
        if config.token_types.len() != config.tokens {
            return Err(ModelError::Configuration(format!(
                "egnn: {} token_types for {} tokens; give one for each",
                config.token_types.len(),
                config.tokens
            )));
        }
        // A type without a token would be a parameter without use; far too large a number, far too many of them.
        if let Some(largest) = config
            .token_types
            .iter()
            .find(|&&kind| kind >= config.tokens)
        {
            return Err(ModelError::Configuration(format!(
                "egnn: token type {largest} where there are {} tokens; number the types from 0",
                config.tokens
            )));
        }
        Ok(Self { config })
    }

    /// The sizes.
    pub fn config(&self) -> &EgnnConfig {
        &self.config
    }

    /// Name, shape and start value of every tensor, in order.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let EgnnConfig {
            tokens,
            width,
            layers,
            conditioning_width,
            time_frequencies,
            ..
        } = self.config;
        let types = self
            .config
            .token_types
            .iter()
            .max()
            .map_or(0, |kind| kind + 1);
        let linear = |name: String, input: usize, output: usize, fan_in: usize| {
            linear_parameters(&name, input, output, Initializer::fan_in(fan_in))
        };
        let weight = |name: String, shape: &[usize], fan_in: usize| {
            ParameterSpec::new(name, shape, Initializer::fan_in(fan_in))
        };
        let mut specs = conditioning_parameters("times", time_frequencies, conditioning_width);
        specs.push(ParameterSpec::new(
            "type_embedding",
            &[types, width],
            Initializer::Normal {
                standard_deviation: 1.0,
            },
        ));
        specs.extend(linear(
            "time_embedding".into(),
            conditioning_width,
            width,
            conditioning_width,
        ));
        for layer in 0..layers {
            let name = format!("layers.{layer}");
            // The first layer of φ_e, cut into the columns of its four arguments.
            let edge = 2 * width + 2;
            specs.push(weight(format!("{name}.edge.own"), &[width, width], edge));
            specs.extend(linear(format!("{name}.edge.other"), width, width, edge));
            specs.push(weight(format!("{name}.edge.distance"), &[width], edge));
            specs.push(weight(
                format!("{name}.edge.first_distance"),
                &[width],
                edge,
            ));
            specs.extend(linear(format!("{name}.message"), width, width, width));
            specs.extend(linear(format!("{name}.gate"), width, 1, width));
            specs.extend(linear(format!("{name}.shift.hidden"), width, width, width));
            specs.push(ParameterSpec::new(
                format!("{name}.shift.weight"),
                &[1, width],
                Initializer::Zeros,
            ));
            specs.extend(linear(format!("{name}.node.own"), width, width, 2 * width));
            // The sum of T − 1 messages.
            specs.push(weight(
                format!("{name}.node.messages"),
                &[width, width],
                2 * width * (tokens - 1),
            ));
            specs.extend(linear(format!("{name}.node.output"), width, width, width));
        }
        specs.extend(linear_parameters(
            "final.divergence",
            width,
            1,
            Initializer::Zeros,
        ));
        specs
    }

    /// Traces (n, h) `[B, T, C]` of the state x `[B, T, C]` and the times s and t `[B]`.
    pub fn build<'b>(
        &self,
        p: &Bound<'b>,
        x: Var<'b>,
        s: Var<'b>,
        t: Var<'b>,
    ) -> (Var<'b>, Var<'b>) {
        let shape = x.shape(); // B, T, C
        let (batch, tokens, width) = (shape[0], shape[1], self.config.width);
        let c = conditioning(p, "times", self.config.time_frequencies, s, t); // [B, M]
        let time = linear(p, "time_embedding", c).reshape(&[batch, 1, width]);
        let kind = p.get("type_embedding").gather(0, &self.config.token_types); // [T, W]
        let mut features = kind + time; // [B, T, W]
        let others: Vec<f64> = (0..tokens * tokens)
            .map(|i| f64::from(i / tokens != i % tokens))
            .collect();
        let others = p.builder().tensor(others, &[tokens, tokens, 1]);
        let first_distances = squared_distances(x); // [B, T, T, 1]
        let mut points = x; // [B, T, C]
        for layer in 0..self.config.layers {
            let name = format!("layers.{layer}");
            let get = |part: &str| p.get(&format!("{name}.{part}"));
            let distances = squared_distances(points); // [B, T, T, 1]
            let own = features.matmul_t(get("edge.own")); // [B, T, W]
            let other = linear(p, &format!("{name}.edge.other"), features); // [B, T, W]
            let edge = own.reshape(&[batch, tokens, 1, width])
                + other.reshape(&[batch, 1, tokens, width])
                + distances * get("edge.distance")
                + first_distances * get("edge.first_distance"); // [B, T, T, W]
            let message = linear(p, &format!("{name}.message"), edge.silu()).silu(); // [B, T, T, W]
            let gate = linear(p, &format!("{name}.gate"), message).sigmoid(); // [B, T, T, 1]
            let message = message * (gate * others); // [B, T, T, W]

            let hidden = linear(p, &format!("{name}.shift.hidden"), message).silu(); // [B, T, T, W]
            let bounded = hidden.matmul_t(get("shift.weight")).tanh(); // [B, T, T, 1]
            let reach = (distances + DISTANCE_EPSILON).sqrt() + 1.0;
            let pull = bounded * (RANGE / self.config.layers as f64) / reach; // [B, T, T, 1]
            let pull = pull.reshape(&[batch, tokens, tokens]);
            // Σ_j pull_ij (x_i − x_j)
            points = points + points * pull.sum_keep(&[2]) - pull.matmul(points); // [B, T, C]

            let messages = message.sum(&[2]); // [B, T, W]
            let hidden = (linear(p, &format!("{name}.node.own"), features)
                + messages.matmul_t(get("node.messages")))
            .silu(); // [B, T, W]
            features = features + linear(p, &format!("{name}.node.output"), hidden); // [B, T, W]
        }
        let divergence = linear(p, "final.divergence", features); // [B, T, 1]
        (points - x, divergence.broadcast_to(&shape))
    }
}

/// ‖x_i − x_j‖² of points `[B, T, C]`: `[B, T, T, 1]`.
fn squared_distances(x: Var<'_>) -> Var<'_> {
    let [batch, tokens, channels] = x.shape()[..] else {
        unreachable!("states have three axes")
    };
    let difference =
        x.reshape(&[batch, tokens, 1, channels]) - x.reshape(&[batch, 1, tokens, channels]); // [B, T, T, C]
    difference.square().sum_keep(&[3])
}
