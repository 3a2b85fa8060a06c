//! Diffusion transformer over tokens with adaLN-zero conditioning on two times (Peebles & Xie, arXiv 2212.09748).

use boltzmap_autodiff::builder::Var;
use serde::{Deserialize, Serialize};

use super::require_positive;
use crate::error::ModelError;
use crate::layers::{
    adaptive_layer_norm, attention, attention_parameters, conditioning, conditioning_parameters,
    feed_forward, feed_forward_parameters, linear, linear_parameters, modulation,
    modulation_parameters,
};
use crate::parameters::{Bound, Initializer, ParameterSpec};

/// Sizes of a [`Dit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// T, tokens of a state (atoms, for molecules).
    pub tokens: usize,
    /// C, channels of a token.
    pub channels: usize,
    /// W, width of a token's activation.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// H, attention heads; divides `width`.
    pub heads: usize,
    /// Hidden width of the feed-forward layers, as a multiple of `width`.
    pub mlp_ratio: usize,
    /// M, width of the conditioning vector.
    pub conditioning_width: usize,
    /// F, frequencies in the Fourier features of each time.
    pub time_frequencies: usize,
}

/// Transformer: token-wise embedding of the state plus one learned vector per token, blocks of attention and
/// feed-forward whose norms and gates are set by the two times, two zero-initialised heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Dit {
    config: DitConfig,
}

impl Dit {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If a size is zero or `heads` does not divide `width`.
    pub fn new(config: DitConfig) -> Result<Self, ModelError> {
        require_positive(
            "dit",
            &[
                ("tokens", config.tokens),
                ("channels", config.channels),
                ("width", config.width),
                ("layers", config.layers),
                ("heads", config.heads),
                ("mlp_ratio", config.mlp_ratio),
                ("conditioning_width", config.conditioning_width),
                ("time_frequencies", config.time_frequencies),
            ],
        )?;
        if !config.width.is_multiple_of(config.heads) {
            return Err(ModelError::Configuration(format!(
                "dit: width {} is not divisible by heads {}; choose a multiple",
                config.width, config.heads
            )));
        }
        Ok(Self { config })
    }

    /// The sizes.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Name, shape and start value of every tensor, in order.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let DitConfig {
            tokens,
            channels,
            width,
            layers,
            mlp_ratio,
            conditioning_width,
            time_frequencies,
            ..
        } = self.config;
        let mut specs = conditioning_parameters("times", time_frequencies, conditioning_width);
        specs.extend(linear_parameters(
            "embedding",
            channels,
            width,
            Initializer::fan_in(channels),
        ));
        specs.push(ParameterSpec::new(
            "token_embedding",
            &[tokens, width],
            Initializer::Normal {
                standard_deviation: 1.0,
            },
        ));
        for layer in 0..layers {
            let block = format!("blocks.{layer}");
            specs.extend(modulation_parameters(
                &format!("{block}.modulation"),
                conditioning_width,
                6,
                width,
            ));
            specs.extend(attention_parameters(&format!("{block}.attention"), width));
            specs.extend(feed_forward_parameters(
                &format!("{block}.feed_forward"),
                width,
                mlp_ratio * width,
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
            channels,
            Initializer::Zeros,
        ));
        specs.extend(linear_parameters(
            "final.divergence",
            width,
            channels,
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
        let c = conditioning(p, "times", self.config.time_frequencies, s, t); // [B, M]
        let mut tokens = linear(p, "embedding", x) + p.get("token_embedding"); // [B, T, W]
        for layer in 0..self.config.layers {
            tokens = self.block(p, &format!("blocks.{layer}"), tokens, c); // [B, T, W]
        }
        let shift_scale = modulation(p, "final.modulation", c, 2, 3); // 2 × [B, 1, W]
        let tokens = adaptive_layer_norm(tokens, shift_scale[0], shift_scale[1]); // [B, T, W]
        let velocity = linear(p, "final.velocity", tokens); // [B, T, C]
        let divergence = linear(p, "final.divergence", tokens); // [B, T, C]
        (velocity, divergence)
    }

    /// One block: x += gate₁ ⊙ attention(adaLN(x)); x += gate₂ ⊙ feed_forward(adaLN(x)). The identity at initialisation.
    pub(crate) fn block<'b>(&self, p: &Bound<'b>, name: &str, x: Var<'b>, c: Var<'b>) -> Var<'b> {
        let m = modulation(p, &format!("{name}.modulation"), c, 6, 3); // 6 × [B, 1, W]
        let normed = adaptive_layer_norm(x, m[0], m[1]); // [B, T, W]
        let x = x + m[2] * attention(p, &format!("{name}.attention"), self.config.heads, normed); // [B, T, W]
        let normed = adaptive_layer_norm(x, m[3], m[4]); // [B, T, W]
        x + m[5] * feed_forward(p, &format!("{name}.feed_forward"), normed) // [B, T, W]
    }
}
