//! One block of an autoregressive affine flow whose shifts and scales come from a causal transformer (TarFlow: Zhai et
//! al. 2024, arXiv 2412.06329; for molecules Tan et al. 2025, arXiv 2502.18462).
//!
//! With x `[B, T, C]` and the causal transformer g, whose output at token i depends on x_0 … x_i only,
//!
//! * (a_i, b_i) = g(x)_{i−1} for i > 0, and a_0 = b_0 = 0;
//! * z_i = (x_i − b_i) e^{−a_i}, so that ∂z/∂x is block-triangular and log|det ∂z/∂x| = −Σ_i Σ_c a_ic;
//! * x_i = z_i e^{a_i} + b_i token by token, as a_i and b_i depend on earlier tokens only.
//!
//! A flow alternates blocks in the order of the tokens and in the reversed order.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::exec::{Arena, Executable};
use boltzmap_autodiff::ir::Program;
use boltzmap_kernels::real::Real;
use serde::{Deserialize, Serialize};

use super::require_positive;
use crate::error::ModelError;
use crate::layers::{
    LAYER_NORM_EPSILON, MASKED, attention_parameters, causal_attention, feed_forward,
    feed_forward_parameters, linear, linear_parameters,
};
use crate::parameters::{Bound, Initializer, ParameterLayout, ParameterSpec, Parameters};

/// Sizes of a [`TarFlowBlock`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TarFlowConfig {
    /// T, tokens of a state.
    pub tokens: usize,
    /// C, channels of a token.
    pub channels: usize,
    /// W, width of a token's activation.
    pub width: usize,
    /// Number of attention layers.
    pub layers: usize,
    /// H, attention heads; divides `width`.
    pub heads: usize,
    /// Hidden width of the feed-forward layers, as a multiple of `width`.
    pub mlp_ratio: usize,
    /// Whether tokens are visited from the last to the first.
    pub reversed: bool,
}

/// Embedding of the tokens plus one learned vector each, pre-norm causal layers, zero-initialised output of (a, b). The
/// norms have no gain or bias of their own, which the linear layer behind each would absorb.
#[derive(Clone, Debug, PartialEq)]
pub struct TarFlowBlock {
    config: TarFlowConfig,
    layout: ParameterLayout,
}

impl TarFlowBlock {
    /// Checks the sizes.
    ///
    /// # Errors
    /// If a size is zero, there is only one token, or `heads` does not divide `width`.
    pub fn new(config: TarFlowConfig) -> Result<Self, ModelError> {
        require_positive(
            "tarflow",
            &[
                ("tokens", config.tokens),
                ("channels", config.channels),
                ("width", config.width),
                ("layers", config.layers),
                ("heads", config.heads),
                ("mlp_ratio", config.mlp_ratio),
            ],
        )?;
        if config.tokens < 2 {
            return Err(ModelError::Configuration(
                "tarflow: a block never moves its first token; give it at least 2 tokens".into(),
            ));
        }
        if !config.width.is_multiple_of(config.heads) {
            return Err(ModelError::Configuration(format!(
                "tarflow: width {} is not divisible by heads {}; choose a multiple",
                config.width, config.heads
            )));
        }
        let layout = ParameterLayout::new(parameters(&config));
        Ok(Self { config, layout })
    }

    /// The sizes.
    pub fn config(&self) -> &TarFlowConfig {
        &self.config
    }

    /// Order, names and shapes of the parameters.
    pub fn layout(&self) -> &ParameterLayout {
        &self.layout
    }

    /// Traces z `[B, T, C]` and log|det ∂z/∂x| `[B]` of x `[B, T, C]`.
    pub fn build<'b>(&self, p: &Bound<'b>, x: Var<'b>) -> (Var<'b>, Var<'b>) {
        let x = self.in_order(x, 1); // [B, T, C]
        let position = self.in_order(p.get("token_embedding"), 0); // [T, W]
        let mut hidden = linear(p, "embedding", x) + position; // [B, T, W]
        for layer in 0..self.config.layers {
            let name = format!("blocks.{layer}");
            let normed = hidden.layer_norm(LAYER_NORM_EPSILON);
            let heads = self.config.heads;
            hidden = hidden + causal_attention(p, &format!("{name}.attention"), heads, normed);
            let normed = hidden.layer_norm(LAYER_NORM_EPSILON);
            hidden = hidden + feed_forward(p, &format!("{name}.feed_forward"), normed);
        }
        let (tokens, channels) = (self.config.tokens, self.config.channels);
        // Token i is moved by what the network says after token i − 1.
        let shifted = linear(p, "output", hidden)
            .slice(1, 0, tokens - 1)
            .pad(1, 1, 0); // [B, T, 2 C]
        let log_scale = shifted.slice(2, 0, channels); // [B, T, C]
        let shift = shifted.slice(2, channels, channels); // [B, T, C]
        let z = (x - shift) * (-log_scale).exp(); // [B, T, C]
        (self.in_order(z, 1), -log_scale.sum(&[1, 2]))
    }

    /// Program (parameters…, x `[B, T, C]`) → `z` `[B, T, C]`, `log_det` `[B]`.
    pub fn forward_program(&self, batch: usize) -> Program {
        let b = Builder::new();
        let p = self.layout.bind(&b);
        let x = b.input("x", &[batch, self.config.tokens, self.config.channels]);
        let (z, log_det) = self.build(&p, x);
        b.finish(&[("z", z), ("log_det", log_det)])
    }

    /// Tokens in the order in which the block visits them; its own inverse.
    fn in_order<'b>(&self, x: Var<'b>, axis: usize) -> Var<'b> {
        if !self.config.reversed {
            return x;
        }
        let indices: Vec<usize> = (0..self.config.tokens).rev().collect();
        x.gather(axis, &indices)
    }

    /// One token through the network, for [`TarFlowInverse`]. With keys and values of all layers in caches
    /// `[B, T, W]`, of which the mask hides the part not yet written:
    ///
    /// Inputs after the parameters: `x` `[B, C]`, `position` `[T]` (1 at the token's place, else 0), `mask` `[T]`
    /// (0 up to the token's place, else very negative), then keys and values of each layer. Outputs: `log_scale` and
    /// `shift` of the next token `[B, C]`, then the new keys and values of each layer `[B, T, W]`.
    fn token_program(&self, batch: usize) -> Program {
        let TarFlowConfig {
            tokens,
            channels,
            width,
            layers,
            heads,
            ..
        } = self.config;
        let head_width = width / heads;
        let b = Builder::new();
        let p = self.layout.bind(&b);
        let x = b.input("x", &[batch, channels]);
        let position = b.input("position", &[tokens]);
        let mask = b.input("mask", &[tokens]);
        let caches: Vec<[Var<'_>; 2]> = (0..layers)
            .map(|layer| {
                ["keys", "values"]
                    .map(|kind| b.input(&format!("{kind}.{layer}"), &[batch, tokens, width]))
            })
            .collect();
        let place = position.reshape(&[1, tokens, 1]);
        let embedding = position
            .reshape(&[1, tokens])
            .matmul(self.in_order(p.get("token_embedding"), 0)); // [1, W]
        let mut hidden = linear(&p, "embedding", x) + embedding; // [B, W]
        let mut written = Vec::new();
        for (layer, [keys, values]) in caches.iter().enumerate() {
            let name = format!("blocks.{layer}");
            let normed = hidden.layer_norm(LAYER_NORM_EPSILON);
            let qkv = linear(&p, &format!("{name}.attention.qkv"), normed); // [B, 3 W]
            let part = |i: usize| qkv.slice(1, i * width, width); // [B, W]
            let keys = write_row(*keys, part(1), place); // [B, T, W]
            let values = write_row(*values, part(2), place); // [B, T, W]
            let query = (part(0) * (1.0 / (head_width as f64).sqrt()))
                .reshape(&[batch, heads, 1, head_width]);
            let scores = query.matmul_t(by_head(keys, heads)) + mask; // [B, H, 1, T]
            let mixed = scores.softmax().matmul(by_head(values, heads)); // [B, H, 1, E]
            let joined = mixed.reshape(&[batch, width]);
            hidden = hidden + linear(&p, &format!("{name}.attention.output"), joined); // [B, W]
            let normed = hidden.layer_norm(LAYER_NORM_EPSILON);
            hidden = hidden + feed_forward(&p, &format!("{name}.feed_forward"), normed);
            written.push((format!("keys.{layer}"), keys));
            written.push((format!("values.{layer}"), values));
        }
        let output = linear(&p, "output", hidden); // [B, 2 C]
        let mut outputs = vec![
            ("log_scale", output.slice(1, 0, channels)),
            ("shift", output.slice(1, channels, channels)),
        ];
        outputs.extend(written.iter().map(|(name, cache)| (name.as_str(), *cache)));
        b.finish(&outputs)
    }
}

/// The cache `[B, T, W]` with the row `[B, W]` at the place `[1, T, 1]`. Mixed, not added: what an earlier use left
/// there is replaced.
fn write_row<'b>(cache: Var<'b>, row: Var<'b>, place: Var<'b>) -> Var<'b> {
    let (batch, width) = (cache.shape()[0], cache.shape()[2]);
    cache * (1.0 - place) + row.reshape(&[batch, 1, width]) * place
}

/// `[B, T, W]` as `[B, H, T, E]`.
fn by_head(cache: Var<'_>, heads: usize) -> Var<'_> {
    let (batch, tokens, width) = (cache.shape()[0], cache.shape()[1], cache.shape()[2]);
    cache
        .reshape(&[batch, tokens, heads, width / heads])
        .permute(&[0, 2, 1, 3])
}

/// Name, shape and start value of every tensor, in order.
fn parameters(config: &TarFlowConfig) -> Vec<ParameterSpec> {
    let TarFlowConfig {
        tokens,
        channels,
        width,
        layers,
        mlp_ratio,
        ..
    } = *config;
    let embedding = Initializer::fan_in(channels);
    let mut specs = linear_parameters("embedding", channels, width, embedding).to_vec();
    specs.push(ParameterSpec::new(
        "token_embedding",
        &[tokens, width],
        Initializer::Normal {
            standard_deviation: 1.0,
        },
    ));
    for layer in 0..layers {
        let name = format!("blocks.{layer}");
        specs.extend(attention_parameters(&format!("{name}.attention"), width));
        specs.extend(feed_forward_parameters(
            &format!("{name}.feed_forward"),
            width,
            mlp_ratio * width,
        ));
    }
    let zeros = Initializer::Zeros;
    specs.extend(linear_parameters("output", width, 2 * channels, zeros));
    specs
}

/// The exact inverse x(z), token by token, with the keys and values of earlier tokens kept.
pub struct TarFlowInverse<T: Real> {
    config: TarFlowConfig,
    parameters: Parameters<T>,
    program: Executable<T>,
    arena: Arena<T>,
    /// Keys and values of every layer, before and after a token.
    caches: [Vec<Vec<T>>; 2],
    batch: usize,
}

impl<T: Real> TarFlowInverse<T> {
    /// Compiles the step of one token for `batch` states.
    ///
    /// # Errors
    /// If `batch` is 0 or the parameters are those of another network.
    pub fn new(
        block: &TarFlowBlock,
        parameters: &Parameters<T>,
        batch: usize,
    ) -> Result<Self, ModelError> {
        if batch == 0 {
            return Err(ModelError::Configuration(
                "the batch of an inverse is 0; give it at least 1".into(),
            ));
        }
        if parameters.layout() != block.layout() {
            return Err(ModelError::Configuration(
                "the parameters belong to another network; take those of this block".into(),
            ));
        }
        let config = block.config().clone();
        let program = Executable::compile(&block.token_program(batch));
        let size = batch * config.tokens * config.width;
        let cache = || vec![vec![T::zero(); size]; 2 * config.layers];
        Ok(Self {
            arena: program.arena(),
            caches: [cache(), cache()],
            parameters: parameters.clone(),
            program,
            config,
            batch,
        })
    }

    /// x `[B, T, C]` and log|det ∂x/∂z| `[B]` of z `[B, T, C]`.
    ///
    /// # Errors
    /// If `z` is not `batch` states.
    pub fn run(&mut self, z: &[T]) -> Result<(Vec<T>, Vec<T>), ModelError> {
        let TarFlowConfig {
            tokens, channels, ..
        } = self.config;
        let (batch, size) = (self.batch, tokens * channels);
        if z.len() != batch * size {
            return Err(ModelError::Length {
                what: "the states to invert".into(),
                expected: batch * size,
                found: z.len(),
            });
        }
        let mut x = vec![T::zero(); z.len()];
        let mut log_det = vec![T::zero(); batch];
        let mut log_scale = vec![T::zero(); batch * channels];
        let mut shift = vec![T::zero(); batch * channels];
        let mut token = vec![T::zero(); batch * channels];
        let mut position = vec![T::zero(); tokens];
        let mut mask = vec![T::from_f64(MASKED); tokens];
        for visit in 0..tokens {
            let place = if self.config.reversed {
                tokens - 1 - visit
            } else {
                visit
            };
            for sample in 0..batch {
                for channel in 0..channels {
                    let own = sample * channels + channel;
                    let at = sample * size + place * channels + channel;
                    x[at] = z[at] * log_scale[own].exp() + shift[own];
                    token[own] = x[at];
                    log_det[sample] += log_scale[own];
                }
            }
            if visit + 1 == tokens {
                break;
            }
            position.fill(T::zero());
            position[visit] = T::one();
            mask[visit] = T::zero();
            let [before, after] = &mut self.caches;
            let mut inputs = self.parameters.slices();
            inputs.extend([token.as_slice(), &position, &mask]);
            inputs.extend(before.iter().map(Vec::as_slice));
            let mut outputs = vec![log_scale.as_mut_slice(), shift.as_mut_slice()];
            outputs.extend(after.iter_mut().map(Vec::as_mut_slice));
            self.program
                .run_into(&mut self.arena, &inputs, &mut outputs);
            self.caches.swap(0, 1);
        }
        Ok((x, log_det))
    }
}
