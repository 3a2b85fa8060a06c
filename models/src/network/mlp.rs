//! Residual perceptron on the flattened state, conditioned on two times as the transformer is.

use boltzmap_autodiff::builder::Var;
use serde::{Deserialize, Serialize};

use super::require_positive;
use crate::error::ModelError;
use crate::layers::{
    adaptive_layer_norm, conditioning, conditioning_parameters, feed_forward,
    feed_forward_parameters, linear, linear_parameters, modulation, modulation_parameters,
};
use crate::parameters::{Bound, Initializer, ParameterSpec};

/// Sizes of an [`Mlp`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// T, tokens of a state (1 for plain vectors).
    pub tokens: usize,
    /// C, channels of a token.
    pub channels: usize,
    /// W, width of the activation.
    pub width: usize,
    /// Number of residual blocks.
    pub blocks: usize,
    /// M, width of the conditioning vector.
    pub conditioning_width: usize,
    /// F, frequencies in the Fourier features of each time.
    pub time_frequencies: usize,
}

/// Residual blocks x += gate ⊙ feed_forward(adaLN(x)) between a linear embedding and two zero-initialised heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    config: MlpConfig,
}

impl Mlp {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If a size is zero.
    pub fn new(config: MlpConfig) -> Result<Self, ModelError> {
        require_positive(
            "mlp",
            &[
                ("tokens", config.tokens),
                ("channels", config.channels),
                ("width", config.width),
                ("blocks", config.blocks),
                ("conditioning_width", config.conditioning_width),
                ("time_frequencies", config.time_frequencies),
            ],
        )?;
        Ok(Self { config })
    }

    /// The sizes.
    pub fn config(&self) -> &MlpConfig {
        &self.config
    }

    /// Name, shape and start value of every tensor, in order.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let MlpConfig {
            tokens,
            channels,
            width,
            blocks,
            conditioning_width,
            time_frequencies,
        } = self.config;
        let flat = tokens * channels;
        let mut specs = conditioning_parameters("times", time_frequencies, conditioning_width);
        specs.extend(linear_parameters(
            "embedding",
            flat,
            width,
            Initializer::fan_in(flat),
        ));
        for block in 0..blocks {
            let block = format!("blocks.{block}");
            specs.extend(modulation_parameters(
                &format!("{block}.modulation"),
                conditioning_width,
                3,
                width,
            ));
            specs.extend(feed_forward_parameters(
                &format!("{block}.feed_forward"),
                width,
                2 * width,
            ));
        }
        specs.extend(modulation_parameters(
            "final.modulation",
            conditioning_width,
            2,
            width,
        ));
        specs.extend(linear_parameters(
            "final.velocity",
            width,
            flat,
            Initializer::Zeros,
        ));
        specs.extend(linear_parameters(
            "final.divergence",
            width,
            flat,
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
        let shape = x.shape().to_vec(); // B, T, C
        let flat = shape[1] * shape[2];
        let c = conditioning(p, "times", self.config.time_frequencies, s, t); // [B, M]
        let mut hidden = linear(p, "embedding", x.reshape(&[shape[0], flat])); // [B, W]
        for block in 0..self.config.blocks {
            let name = format!("blocks.{block}");
            let m = modulation(p, &format!("{name}.modulation"), c, 3, 2); // 3 × [B, W]
            let normed = adaptive_layer_norm(hidden, m[0], m[1]); // [B, W]
            hidden = hidden + m[2] * feed_forward(p, &format!("{name}.feed_forward"), normed); // [B, W]
        }
        let m = modulation(p, "final.modulation", c, 2, 2); // 2 × [B, W]
        let hidden = adaptive_layer_norm(hidden, m[0], m[1]); // [B, W]
        let velocity = linear(p, "final.velocity", hidden).reshape(&shape); // [B, T, C]
        let divergence = linear(p, "final.divergence", hidden).reshape(&shape); // [B, T, C]
        (velocity, divergence)
    }
}
