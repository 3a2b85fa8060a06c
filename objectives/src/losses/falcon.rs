//! FALCON's off-diagonal terms: mean flow, and a cycle that keeps the map invertible.

use boltzmap_autodiff::builder::Builder;
use boltzmap_autodiff::ir::Program;

use super::mean_flow::mean_flow_residual;
use super::tracing::Tracing;
use super::{Loss, LossShape, StopGradient};
use crate::interpolant::Interpolant;

/// Weights of FALCON's off-diagonal terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FalconWeights {
    /// λ_avg, of the mean-flow condition.
    pub average: f64,
    /// λ_r, of the cycle; 10 worked best in the paper.
    pub cycle: f64,
}

/// Mean flow and invertibility of a few-step map (FALCON, arXiv 2512.09914); flow matching is a diagonal loss of its own.
///
/// Inputs after θ: what the interpolant is made of, `s`, `t` `[B]` in either order. Outputs: `loss`, `mean_flow`, `cycle`.
///
/// With x = x_s:
///
/// * `mean_flow`: u = ṽ + (t−s)(∂_s + ṽ·∇) u, see [`mean_flow_loss`](super::mean_flow_loss);
/// * `cycle`: ‖x − X_{t,s}(X_{s,t}(x))‖², nothing held fixed.
///
/// D takes no part: the likelihood is log|det ∂X/∂x|, the full Jacobian's.
pub fn falcon_loss(
    fields: &Program,
    shape: LossShape,
    interpolant: &Interpolant,
    weights: FalconWeights,
    stop: StopGradient,
) -> Loss {
    let builder = Builder::new();
    let tracing = Tracing::new(&builder, fields, shape, false);
    let ingredients = tracing.ingredients(interpolant);
    let (start, end) = tracing.times();
    let interval = shape.column(end) - shape.column(start);
    let point = interpolant.point(ingredients, shape.column(start));
    let (residual, _) = mean_flow_residual(&tracing, point, start, end, stop);

    let (forwards, _) = tracing.at(&tracing.student, point.state, start, end);
    let mapped = point.state + interval * forwards;
    let (backwards, _) = tracing.at(&tracing.student, mapped, end, start);
    // x − X_{t,s}(X) = x − X − (s−t) u_{t,s}(X), and X − x = (t−s) u_{s,t}(x).
    let loop_error = interval * (backwards - forwards);
    tracing.finish(&[
        (
            "mean_flow",
            weights.average,
            shape.reduce(residual.square()),
        ),
        ("cycle", weights.cycle, shape.reduce(loop_error.square())),
    ])
}
