//! The mean-flow identity: the Eulerian condition with the conditional velocity of the data in the teacher's place.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;
use serde::{Deserialize, Serialize};

use super::tracing::Tracing;
use super::{ConsistencyTerms, Loss, LossShape, StopGradient};
use crate::interpolant::{Interpolant, Point};

/// At which of the two times s < t the state of a mean velocity is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// x = x_s: the map from s to t.
    Start,
    /// x = x_t: the map from t back to s.
    End,
}

/// Mean-flow training of the map and of its log-determinant (MeanFlow: Geng et al., arXiv 2505.13447; for the divergence
/// F2D2, arXiv 2512.02636).
///
/// Inputs after θ, and the teacher's θ' where the divergence is trained: what the interpolant is made of, probes, `s`,
/// `t` `[B]`. Outputs: `loss`, `map_consistency`, `divergence_consistency`.
///
/// With x = x_s and the conditional velocity ṽ, whose mean given x is v(x, s):
///
/// * x at the start: u = ṽ + (t−s)(∂_s + ṽ·∇) u and D = ∂v' + (t−s)(∂_s + ṽ·∇) D, both linear in ṽ, so that their
///   minimisers obey the Eulerian condition with v;
/// * x at the end, x = x_t: u = ṽ − (t−s)(∂_t + ṽ·∇) u, with u the mean velocity as a function of the end; it is the
///   field from t to s, and the equation above with s and t exchanged.
///
/// ∂v' is the teacher's head or Hutchinson's estimate of its divergence, with which the residual is multiplied with γ at the
/// state's time. [`StopGradient::Target`] holds θ',
/// [`StopGradient::TargetAndArgument`] the whole right-hand sides (as Geng et al. do).
pub fn mean_flow_loss(
    fields: &Program,
    shape: LossShape,
    interpolant: &Interpolant,
    side: Side,
    terms: ConsistencyTerms,
) -> Loss {
    let builder = Builder::new();
    let with_teacher = terms.weights.divergence != 0.0;
    let tracing = Tracing::new(&builder, fields, shape, with_teacher);
    let ingredients = tracing.ingredients(interpolant);
    let probes = tracing.probes(terms.probe_count());
    let (start, end) = tracing.times();
    let (from, to) = match side {
        Side::Start => (start, end),
        Side::End => (end, start),
    };
    let point = interpolant.point(ingredients, shape.column(from));
    let (map, divergence_rates) = mean_flow_residual(&tracing, point, from, to, terms.stop);
    let divergence = if with_teacher {
        let teacher = tracing.held_teacher(terms.stop);
        let (_, divergence) = tracing.diagonal(&teacher, point.state, from, &probes);
        tracing.probe_scale(interpolant, from, &probes) * (divergence_rates - divergence)
    } else {
        divergence_rates
    };
    tracing.finish_consistency(terms, map, divergence)
}

/// u − ṽ − (t−s)(∂_s + ṽ·∇) u and D − (t−s)(∂_s + ṽ·∇) D at a point of time `from`.
pub(super) fn mean_flow_residual<'b>(
    tracing: &Tracing<'b, '_>,
    point: Point<'b>,
    from: Var<'b>,
    to: Var<'b>,
    stop: StopGradient,
) -> (Var<'b>, Var<'b>) {
    let interval = tracing.shape.column(to) - tracing.shape.column(from);
    let moved = tracing.along_start(point.state, from, to, point.rate);
    let rates = [moved.velocity_rate, moved.divergence_rate].map(|rate| match stop {
        StopGradient::None | StopGradient::Target => rate,
        StopGradient::TargetAndArgument => rate.stop_gradient(),
    });
    (
        moved.velocity - point.rate - interval * rates[0],
        moved.divergence - interval * rates[1],
    )
}
