//! SCALLOP with Lagrangian self-distillation, written in the corrections of a flow map around its Gaussian reference.
//!
//! Both losses take the *corrections program*: inputs `(θ…, x [B,T,C], s [B], t [B])`, outputs
//! `(n [B,T,C], h [B,T,C])`, in the parametrisation around the exact flow map of unit Gaussian data
//! (S_t² = t² + (1−t)²; κ = 1 on the full space, 1 − 1/T on the mean-free subspace):
//!
//! * X_{s,t}(x) = x S_t/S_s + (t−s) n, v(x,t) = x (2t−1)/S_t² + n(x,t,t);
//! * Λ_i = κ ln(S_t/S_s) + (t−s) h_i, ∂_i v_i = D_i(x,t,t) = κ(2t−1)/S_t² + h_i(x,t,t).
//!
//! The reference obeys the conditions itself and cancels from them, which leaves fewer operations and less rounding than
//! the same losses over the fields (`diagonal.rs`, `lagrangian.rs`). The interpolant is the linear one.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;
use boltzmap_models::flow_map::FlowMap;

use super::tracing::Tracing;
use super::{ConsistencyWeights, DiagonalWeights, Loss, LossInput, LossShape, StopGradient};

/// S_t² = t² + (1−t)²
fn spread_squared(t: Var<'_>) -> Var<'_> {
    t.square() + (1.0 - t).square()
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
pub fn diagonal_loss(corrections: &Program, shape: LossShape, weights: DiagonalWeights) -> Loss {
    let builder = Builder::new();
    let tracing = Tracing::new(&builder, corrections, shape, false);
    let data = tracing.input(LossInput::Data);
    let noise = tracing.input(LossInput::Noise);
    let time = tracing.time();
    let t = shape.column(time);

    let x = t * data + (1.0 - t) * noise; // [B, T, C]
    let (n, h) = tracing.at(&tracing.student, x, time, time);
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
    tracing.finish_outputs(&outputs)
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
) -> Loss {
    let builder = Builder::new();
    let tracing = Tracing::new(&builder, corrections, shape, true);
    let data = tracing.input(LossInput::Data);
    let noise = tracing.input(LossInput::Noise);
    let (start, end) = tracing.times();
    let (s, t) = (shape.column(start), shape.column(end));
    let interval = t - s;

    let x = s * data + (1.0 - s) * noise;
    let moved = tracing.along_end(x, start, end);
    let (n, h) = (moved.velocity, moved.divergence);

    let spread = spread_squared(t);
    let gaussian = x * (spread / spread_squared(s)).sqrt(); // x S_t/S_s, free of parameters
    let mapped = gaussian + interval * n; // X_{s,t}(x)
    let teacher = tracing.held_teacher(stop);
    let argument = match stop {
        StopGradient::None | StopGradient::Target => mapped,
        StopGradient::TargetAndArgument => mapped.stop_gradient(),
    };
    let (n_target, h_target) = tracing.at(&teacher, argument, end, end);
    let target = (argument - gaussian) * ((2.0 * t - 1.0) / spread) + n_target;
    let map = shape.reduce((n + interval * moved.velocity_rate - target).square());
    let divergence = shape.reduce((h + interval * moved.divergence_rate - h_target).square());

    let loss = weights.map * map + weights.divergence * divergence;
    let outputs = [
        ("loss", loss),
        ("map_consistency", map),
        ("divergence_consistency", divergence),
    ];
    tracing.finish_outputs(&outputs)
}
