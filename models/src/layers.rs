//! Layers shared by the networks: each declares its parameters and traces its formula.
//!
//! Dimension names: B batch, T tokens, C channels, W width, H heads, E = W/H, F frequencies, M conditioning width.
//! Weights are stored `[out, in]`, so that a layer is y = x Wᵀ + b.

use boltzmap_autodiff::builder::Var;

use crate::parameters::{Bound, Initializer, ParameterSpec};

/// Added to the variance in layer normalisation.
pub const LAYER_NORM_EPSILON: f64 = 1e-6;

/// Offset δ of the logarithmic time feature ln(1 − t + δ)/ln δ: resolves the data end, where stiff coordinates settle
/// last, while its slope stays below 1/(δ |ln δ|) ≈ 22.
const LOG_TIME_OFFSET: f64 = 0.01;

/// Added to the scores of pairs that attention must not see: finite, and far below every score, so that their weights
/// and the derivatives of these are exactly zero.
pub(crate) const MASKED: f64 = -1e30;

/// Declares a linear layer `name.weight [out, in]` and `name.bias [out]`.
pub fn linear_parameters(
    name: &str,
    input: usize,
    output: usize,
    weight: Initializer,
) -> [ParameterSpec; 2] {
    [
        ParameterSpec::new(format!("{name}.weight"), &[output, input], weight),
        ParameterSpec::new(format!("{name}.bias"), &[output], Initializer::Zeros),
    ]
}

/// y = x Wᵀ + b over the last axis: `[…, in]` to `[…, out]`.
pub fn linear<'b>(p: &Bound<'b>, name: &str, x: Var<'b>) -> Var<'b> {
    x.matmul_t(p.get(&format!("{name}.weight"))) + p.get(&format!("{name}.bias"))
}

/// Number of features [`time_features`] makes of one time.
pub fn time_feature_count(frequencies: usize) -> usize {
    2 * frequencies + 1
}

/// Features of a time `[B]`: sin(ω_j t) and cos(ω_j t) with ω_j spaced geometrically from π/2 to `2⁴ π`, and
/// ln(1 − t + δ)/ln δ. The highest frequency is modest because losses differentiate the network in time.
/// Result `[B, 2F + 1]`.
pub fn time_features<'b>(p: &Bound<'b>, frequencies: usize, t: Var<'b>) -> Var<'b> {
    let lowest = 0.5 * std::f64::consts::PI;
    let ratio: f64 = 32.0;
    let omegas: Vec<f64> = (0..frequencies)
        .map(|j| lowest * ratio.powf(j as f64 / (frequencies.max(2) - 1) as f64))
        .collect();
    let omegas = p.builder().tensor(omegas, &[1, frequencies]); // [1, F]
    let batch = t.shape()[0];
    let t = t.reshape(&[batch, 1]); // [B, 1]
    let angles = t * omegas; // [B, F]
    let logarithm = (-t + (1.0 + LOG_TIME_OFFSET)).ln() * (1.0 / LOG_TIME_OFFSET.ln()); // [B, 1]
    p.builder()
        .concat(&[angles.sin(), angles.cos(), logarithm], 1) // [B, 2F + 1]
}

/// Parameters of [`conditioning`], below `name`.
pub fn conditioning_parameters(name: &str, frequencies: usize, width: usize) -> Vec<ParameterSpec> {
    let features = 2 * time_feature_count(frequencies);
    let mut specs = linear_parameters(
        &format!("{name}.features"),
        features,
        width,
        Initializer::fan_in(features),
    )
    .to_vec();
    specs.extend(linear_parameters(
        &format!("{name}.output"),
        width,
        width,
        Initializer::fan_in(width),
    ));
    specs
}

/// Conditioning vector of a pair of times s, t `[B]`: silu(W₂ silu(W₁ [φ(s), φ(t)] + b₁) + b₂), `[B, M]`. The outer
/// silu is the one every modulation would apply to it first.
pub fn conditioning<'b>(
    p: &Bound<'b>,
    name: &str,
    frequencies: usize,
    s: Var<'b>,
    t: Var<'b>,
) -> Var<'b> {
    let features = p.builder().concat(
        &[
            time_features(p, frequencies, s),
            time_features(p, frequencies, t),
        ],
        1,
    ); // [B, 2(2F + 1)]
    let hidden = linear(p, &format!("{name}.features"), features).silu(); // [B, M]
    linear(p, &format!("{name}.output"), hidden).silu() // [B, M]
}

/// Parameters of a zero-initialised modulation that makes `parts` vectors of `width` from the conditioning vector.
pub fn modulation_parameters(
    name: &str,
    conditioning: usize,
    parts: usize,
    width: usize,
) -> [ParameterSpec; 2] {
    linear_parameters(name, conditioning, parts * width, Initializer::Zeros)
}

/// `parts` modulation vectors of the conditioning vector c `[B, M]`, each `[B, 1, …, 1, W]` with `rank` axes so that
/// it broadcasts against activations of that rank.
pub fn modulation<'b>(
    p: &Bound<'b>,
    name: &str,
    c: Var<'b>,
    parts: usize,
    rank: usize,
) -> Vec<Var<'b>> {
    let all = linear(p, name, c); // [B, parts W]
    let (batch, width) = (all.shape()[0], all.shape()[1] / parts);
    let mut shape = vec![1; rank];
    shape[0] = batch;
    shape[rank - 1] = width;
    (0..parts)
        .map(|i| all.slice(1, i * width, width).reshape(&shape))
        .collect()
}

/// Adaptive layer normalisation: norm(x) ⊙ (1 + scale) + shift, the norm without gain or bias of its own.
pub fn adaptive_layer_norm<'b>(x: Var<'b>, shift: Var<'b>, scale: Var<'b>) -> Var<'b> {
    x.layer_norm(LAYER_NORM_EPSILON) * (scale + 1.0) + shift
}

/// Parameters of [`attention`], below `name`.
pub fn attention_parameters(name: &str, width: usize) -> Vec<ParameterSpec> {
    let mut specs = linear_parameters(
        &format!("{name}.qkv"),
        width,
        3 * width,
        Initializer::fan_in(width),
    )
    .to_vec();
    specs.extend(linear_parameters(
        &format!("{name}.output"),
        width,
        width,
        Initializer::fan_in(width),
    ));
    specs
}

/// Multi-head self-attention over tokens without mask: softmax(q kᵀ/√E) v per head, heads joined, one output layer.
/// x and result `[B, T, W]`.
pub fn attention<'b>(p: &Bound<'b>, name: &str, heads: usize, x: Var<'b>) -> Var<'b> {
    masked_attention(p, name, heads, x, None)
}

/// [`attention`] in which a token sees itself and the tokens before it.
pub fn causal_attention<'b>(p: &Bound<'b>, name: &str, heads: usize, x: Var<'b>) -> Var<'b> {
    let tokens = x.shape()[1];
    let mask = (0..tokens * tokens)
        .map(|i| if i % tokens > i / tokens { MASKED } else { 0.0 })
        .collect();
    let mask = p.builder().tensor(mask, &[tokens, tokens]); // [T (query), T (key)]
    masked_attention(p, name, heads, x, Some(mask))
}

/// Attention with a mask `[T, T]` added to the scores.
fn masked_attention<'b>(
    p: &Bound<'b>,
    name: &str,
    heads: usize,
    x: Var<'b>,
    mask: Option<Var<'b>>,
) -> Var<'b> {
    let (batch, tokens, width) = (x.shape()[0], x.shape()[1], x.shape()[2]);
    let head_width = width / heads;
    let qkv = linear(p, &format!("{name}.qkv"), x); // [B, T, 3 W], one product for all three
    let qkv = qkv
        .reshape(&[batch, tokens, 3, heads, head_width])
        .permute(&[2, 0, 3, 1, 4]); // [3, B, H, T, E]
    let part = |i: usize| {
        qkv.slice(0, i, 1)
            .reshape(&[batch, heads, tokens, head_width])
    }; // [B, H, T, E]
    let (query, key, value) = (part(0), part(1), part(2));
    let scale = 1.0 / (head_width as f64).sqrt();
    let scores = query.matmul_t(key) * scale; // [B, H, T, T]
    let scores = mask.map_or(scores, |mask| scores + mask);
    let mixed = scores.softmax().matmul(value); // [B, H, T, E]
    let joined = mixed
        .permute(&[0, 2, 1, 3])
        .reshape(&[batch, tokens, width]); // [B, T, W]
    linear(p, &format!("{name}.output"), joined) // [B, T, W]
}

/// Parameters of [`feed_forward`], below `name`.
pub fn feed_forward_parameters(name: &str, width: usize, hidden: usize) -> Vec<ParameterSpec> {
    let mut specs = linear_parameters(
        &format!("{name}.hidden"),
        width,
        hidden,
        Initializer::fan_in(width),
    )
    .to_vec();
    specs.extend(linear_parameters(
        &format!("{name}.output"),
        hidden,
        width,
        Initializer::fan_in(hidden),
    ));
    specs
}

/// W₂ gelu(W₁ x + b₁) + b₂ over the last axis.
pub fn feed_forward<'b>(p: &Bound<'b>, name: &str, x: Var<'b>) -> Var<'b> {
    linear(
        p,
        &format!("{name}.output"),
        linear(p, &format!("{name}.hidden"), x).gelu(),
    )
}
