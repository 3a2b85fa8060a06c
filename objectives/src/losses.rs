//! Training losses as traced programs.
//!
//! Every loss is built on the *corrections program* of a flow map: inputs `(θ…, x [B,T,C], s [B], t [B])`, outputs
//! `(n [B,T,C], h [B,T,C])`, in the parametrisation around the exact flow map of unit Gaussian data
//! (S_t² = t² + (1−t)²; κ = 1 on the full space, 1 − 1/T on the mean-free subspace):
//!
//! * X_{s,t}(x) = x S_t/S_s + (t−s) n, v(x,t) = x (2t−1)/S_t² + n(x,t,t);
//! * Λ_i = κ ln(S_t/S_s) + (t−s) h_i, ∂_i v_i = D_i(x,t,t) = κ(2t−1)/S_t² + h_i(x,t,t).
//!
//! [`likelihood_loss`] alone belongs to exact flows, which give their own log-determinant.
//!
//! A loss program has the inputs `(θ…, …)` named in its function's documentation, and outputs `loss`, then the
//! parts it is made of; each is summed over the block's samples and averaged over the T·C coordinates.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::jvp;
use boltzmap_models::flow_map::FlowMap;
use serde::{Deserialize, Serialize};

/// Which part of a consistency condition the gradient flows through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopGradient {
    /// The target field is held fixed, the point at which it is evaluated is not.
    Target,
    /// The target field and the point at which it is evaluated are held fixed.
    TargetAndArgument,
    /// Nothing is held fixed.
    None,
}

/// Shapes and constants that every loss shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossShape {
    /// Samples B in one block.
    pub block: usize,
    /// Tokens T.
    pub tokens: usize,
    /// Channels C.
    pub channels: usize,
    /// κ: the trace of the noise covariance per coordinate, 1 or 1 − 1/T.
    pub kappa: f64,
}

impl LossShape {
    fn state(&self) -> [usize; 3] {
        [self.block, self.tokens, self.channels]
    }

    /// Per sample sums over tokens and channels divided by T·C, then the sum over the block.
    fn reduce<'b>(&self, terms: Var<'b>) -> Var<'b> {
        terms.sum(&[0, 1, 2]) * (1.0 / (self.tokens * self.channels) as f64)
    }

    /// `[B]` to `[B, 1, 1]`, which broadcasts against states.
    fn column<'b>(&self, time: Var<'b>) -> Var<'b> {
        time.reshape(&[self.block, 1, 1])
    }
}

/// Weights of the diagonal terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiagonalWeights {
    /// Of flow matching.
    pub velocity: f64,
    /// Of the variance form of SCALLOP's divergence target.
    pub divergence: f64,
}

/// Weights of the off-diagonal terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsistencyWeights {
    /// Of the Lagrangian condition on the map.
    pub map: f64,
    /// Of the Lagrangian condition on the log-determinant.
    pub divergence: f64,
}

/// S_t² = t² + (1−t)²
fn spread_squared(t: Var<'_>) -> Var<'_> {
    t.square() + (1.0 - t).square()
}

/// The parameters θ as inputs of the program being built, named and shaped as in `corrections`.
fn parameter_inputs<'b>(builder: &'b Builder, corrections: &Program, prefix: &str) -> Vec<Var<'b>> {
    (0..corrections.inputs.len() - 3)
        .map(|i| {
            let name = format!("{prefix}{}", corrections.input_names[i]);
            builder.input(&name, corrections.input_shape(i))
        })
        .collect()
}

/// The corrections program of a flow map over blocks of `batch` samples.
pub fn corrections_program(flow_map: &FlowMap, batch: usize) -> Program {
    let builder = Builder::new();
    let parameters = flow_map.layout().bind(&builder);
    let x = builder.input("x", &[batch, flow_map.tokens(), flow_map.channels()]);
    let (s, t) = (builder.input("s", &[batch]), builder.input("t", &[batch]));
    let (n, h) = flow_map.corrections(&parameters, x, s, t);
    builder.finish(&[("n", n), ("h", h)])
}

/// Number of parameter tensors of a corrections program.
pub fn parameter_count(corrections: &Program) -> usize {
    corrections.inputs.len() - 3
}

fn apply<'b>(
    builder: &'b Builder,
    corrections: &Program,
    parameters: &[Var<'b>],
    x: Var<'b>,
    s: Var<'b>,
    t: Var<'b>,
) -> (Var<'b>, Var<'b>) {
    let mut arguments = parameters.to_vec();
    arguments.extend([x, s, t]);
    let outputs = builder.call(corrections, &arguments);
    (outputs[0], outputs[1])
}

/// Flow matching and SCALLOP's vectorised divergence target on the diagonal s = t.
///
/// Inputs after θ: `data [B,T,C]` (x₁), `noise [B,T,C]` (z, on the subspace), `t [B]`.
/// Outputs: `loss`, `flow_matching`, `divergence`.
///
/// With x_t = t x₁ + (1−t) z, ṽ = x₁ − z and r = ṽ − v(x_t, t):
///
/// * flow matching (likelihood-flow-maps, section 2): r_i²;
/// * variance form (section 5): D_i = (t Var(ṽ_i|x) − κ)/(1−t), regressed on r_i² with the weight (1−t)², which in
///   the parametrisation above is [(1−t) h_i − t (sg r_i² − κ/S_t²)]². Its minimiser is h_i = D_i − κ(2t−1)/S_t².
pub fn diagonal_loss(corrections: &Program, shape: LossShape, weights: DiagonalWeights) -> Program {
    let builder = Builder::new();
    let parameters = parameter_inputs(&builder, corrections, "");
    let data = builder.input("data", &shape.state());
    let noise = builder.input("noise", &shape.state());
    let time = builder.input("t", &[shape.block]);
    let t = shape.column(time);

    let x = t * data + (1.0 - t) * noise; // [B, T, C]
    let (n, h) = apply(&builder, corrections, &parameters, x, time, time);
    let spread = spread_squared(t);
    let velocity = x * ((2.0 * t - 1.0) / spread) + n;
    let residual = data - noise - velocity;
    let flow_matching = shape.reduce(residual.square());

    let target = t * (residual.stop_gradient().square() - shape.kappa / spread);
    let divergence = shape.reduce(((1.0 - t) * h - target).square());

    let loss = weights.velocity * flow_matching + weights.divergence * divergence;
    let outputs = [
        ("loss", loss),
        ("flow_matching", flow_matching),
        ("divergence", divergence),
    ];
    builder.finish(&outputs)
}

/// Lagrangian self-distillation of the map and of its log-determinant.
///
/// Inputs after θ: the teacher's parameters θ' (the same list; pass θ again for self-distillation by the online
/// network, or its moving average), then `data [B,T,C]`, `noise [B,T,C]`, `s [B]`, `t [B]`.
/// Outputs: `loss`, `map_consistency`, `divergence_consistency`.
///
/// With x = s x₁ + (1−s) z and X = X_{s,t}(x) (likelihood-flow-maps, sections 3 and 4):
///
/// * ∂_t X = v'(X, t), which after the Gaussian reference cancels is
///   n + (t−s) ∂_t n = (t−s) n (2t−1)/S_t² + n'(X, t, t);
/// * ∂_t[(t−s) D_i] = D'_i(X, t, t), in which the reference cancels too: h + (t−s) ∂_t h = h'(X, t, t).
///
/// One JVP in t serves both. Targets are the network's own diagonal: no Hutchinson probe anywhere.
pub fn lagrangian_loss(
    corrections: &Program,
    shape: LossShape,
    weights: ConsistencyWeights,
    stop: StopGradient,
) -> Program {
    let count = parameter_count(corrections);
    let with_rate = jvp(corrections, &[count + 2], None);

    let builder = Builder::new();
    let parameters = parameter_inputs(&builder, corrections, "");
    let teacher = parameter_inputs(&builder, corrections, "teacher.");
    let data = builder.input("data", &shape.state());
    let noise = builder.input("noise", &shape.state());
    let start = builder.input("s", &[shape.block]);
    let end = builder.input("t", &[shape.block]);
    let (s, t) = (shape.column(start), shape.column(end));
    let interval = t - s;

    let x = s * data + (1.0 - s) * noise;
    let mut arguments = parameters.clone();
    arguments.extend([x, start, end, builder.constant(1.0, &[shape.block])]);
    let outputs = builder.call(&with_rate, &arguments);
    let (n, h, n_rate, h_rate) = (outputs[0], outputs[1], outputs[2], outputs[3]);

    let spread = spread_squared(t);
    let gaussian = x * (spread / spread_squared(s)).sqrt(); // x S_t/S_s, free of parameters
    let mapped = gaussian + interval * n; // X_{s,t}(x)
    let held: Vec<Var<'_>> = teacher.iter().map(|p| p.stop_gradient()).collect();
    let (teacher, argument) = match stop {
        StopGradient::None => (teacher, mapped),
        StopGradient::Target => (held, mapped),
        StopGradient::TargetAndArgument => (held, mapped.stop_gradient()),
    };
    let (n_target, h_target) = apply(&builder, corrections, &teacher, argument, end, end);
    let target = (argument - gaussian) * ((2.0 * t - 1.0) / spread) + n_target;
    let map = shape.reduce((n + interval * n_rate - target).square());
    let divergence = shape.reduce((h + interval * h_rate - h_target).square());

    let loss = weights.map * map + weights.divergence * divergence;
    let outputs = [
        ("loss", loss),
        ("map_consistency", map),
        ("divergence_consistency", divergence),
    ];
    builder.finish(&outputs)
}

/// Negative log-likelihood of an exact flow with a standard normal base, per coordinate.
///
/// `flow` has the inputs (θ…, x `[B,T,C]`) and the outputs (z `[B,T,C]`, log|det ∂z/∂x| `[B]`). Inputs: those of
/// `flow`. Output: `loss` = Σ_b [½‖z_b‖² + ½TC ln 2π − log|det ∂z_b/∂x_b|]/(TC).
pub fn likelihood_loss(flow: &Program) -> Program {
    let builder = Builder::new();
    let arguments: Vec<Var<'_>> = (0..flow.inputs.len())
        .map(|i| builder.input(&flow.input_names[i], flow.input_shape(i)))
        .collect();
    let outputs = builder.call(flow, &arguments);
    let (z, log_det) = (outputs[0], outputs[1]);
    let shape = z.shape();
    let (batch, coordinates) = (shape[0] as f64, (shape[1] * shape[2]) as f64);
    let quadratic = z.square().sum(&[0, 1, 2]) * 0.5 - log_det.sum(&[0]);
    let normaliser = 0.5 * batch * std::f64::consts::TAU.ln();
    let loss = quadratic * (1.0 / coordinates) + normaliser;
    builder.finish(&[("loss", loss)])
}
