//! The Eulerian condition: a map does not change when its start moves along the trajectory.

use boltzmap_autodiff::builder::Builder;
use boltzmap_autodiff::ir::Program;

use super::tracing::Tracing;
use super::{ConsistencyTerms, Loss, LossShape, StopGradient};
use crate::interpolant::Interpolant;

/// Eulerian distillation of the map and of its log-determinant (ESD: Boffi et al., arXiv 2406.07507 and 2505.18825; for
/// the divergence F2D2, arXiv 2512.02636).
///
/// Inputs after θ and the teacher's θ': what the interpolant is made of, probes, `s`, `t` `[B]`.
/// Outputs: `loss`, `map_consistency`, `divergence_consistency`.
///
/// With x = x_s and the teacher's velocity v' = v'(x, s):
///
/// * ∂_s X + ∇X · v' = 0, that is u = v' + (t−s)(∂_s + v'·∇) u;
/// * (∂_s + v'·∇)[(t−s) D_i] = −∂_i v'_i(x, s), that is D = ∂v' + (t−s)(∂_s + v'·∇) D; with Hutchinson's
///   probes multiplied with γ_s.
///
/// One JVP in (x, s) serves both. [`StopGradient::Target`] holds θ', [`StopGradient::TargetAndArgument`] also the
/// derivatives of u and D, so that the gradient flows through u and D themselves alone.
pub fn eulerian_fields_loss(
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
    let teacher = tracing.held_teacher(terms.stop);
    let (velocity, divergence) = tracing.diagonal(&teacher, x, start, &probes);
    let moved = tracing.along_start(x, start, end, velocity);
    let rates = [moved.velocity_rate, moved.divergence_rate].map(|rate| match terms.stop {
        StopGradient::None | StopGradient::Target => rate,
        StopGradient::TargetAndArgument => rate.stop_gradient(),
    });
    tracing.finish_consistency(
        terms,
        moved.velocity - velocity - interval * rates[0],
        tracing.probe_scale(interpolant, start, &probes)
            * (moved.divergence - divergence - interval * rates[1]),
    )
}
