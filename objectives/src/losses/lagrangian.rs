//! The Lagrangian condition: a trajectory's end moves with the velocity at that end.

use boltzmap_autodiff::builder::Builder;
use boltzmap_autodiff::ir::Program;

use super::tracing::Tracing;
use super::{ConsistencyTerms, Loss, LossShape, StopGradient};
use crate::interpolant::Interpolant;

/// Lagrangian distillation of the map and of its log-determinant (LSD: Boffi et al., arXiv 2406.07507 and 2505.18825; for
/// the divergence F2D2, arXiv 2512.02636).
///
/// Inputs after θ and the teacher's θ': what the interpolant is made of, probes, `s`, `t` `[B]`.
/// Outputs: `loss`, `map_consistency`, `divergence_consistency`.
///
/// With x = x_s and X = X_{s,t}(x) = x + (t−s) u:
///
/// * ∂_t X = v'(X, t), that is u + (t−s) ∂_t u = v'(X, t);
/// * ∂_t[(t−s) D_i] = ∂_i v'_i(X, t), that is D + (t−s) ∂_t D = ∂v'(X, t), from the teacher's head, or by Hutchinson
///   and then multiplied with γ_t.
///
/// One JVP in t serves both. [`StopGradient::Target`] holds θ', [`StopGradient::TargetAndArgument`] also X in the
/// right-hand sides.
pub fn lagrangian_fields_loss(
    fields: &Program,
    shape: LossShape,
    interpolant: &Interpolant,
    terms: ConsistencyTerms,
) -> Loss {
    let builder = Builder::new();
    let tracing = Tracing::new(&builder, fields, shape, true);
    let ingredients = tracing.ingredients(interpolant);
    let probes = tracing.probes(terms.probe_count());
    let (start, end) = tracing.times();
    let interval = shape.column(end) - shape.column(start);

    let x = interpolant.point(ingredients, shape.column(start)).state;
    let moved = tracing.along_end(x, start, end);
    let mapped = x + interval * moved.velocity;
    let argument = match terms.stop {
        StopGradient::None | StopGradient::Target => mapped,
        StopGradient::TargetAndArgument => mapped.stop_gradient(),
    };
    let teacher = tracing.held_teacher(terms.stop);
    let (velocity, divergence) = tracing.diagonal(&teacher, argument, end, &probes);
    let residual = moved.divergence + interval * moved.divergence_rate - divergence;
    tracing.finish_consistency(
        terms,
        moved.velocity + interval * moved.velocity_rate - velocity,
        tracing.probe_scale(interpolant, end, &probes) * residual,
    )
}
