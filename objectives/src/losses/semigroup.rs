//! The semigroup condition: one step equals two.

use boltzmap_autodiff::builder::Builder;
use boltzmap_autodiff::ir::Program;
use serde::{Deserialize, Serialize};

use super::tracing::Tracing;
use super::{ConsistencyTerms, Loss, LossInput, LossShape, StopGradient};
use crate::interpolant::Interpolant;

/// Where the one step is cut in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// At r = h s + (1−h) t, with the input `h [B]` in (0, 1).
    Anywhere,
    /// In the middle. With the input `finest [B]`: where it is 1, the two halves are so short that the diagonal stands for
    /// them, u(x,r,r) instead of u(x,r,t).
    Halves,
}

/// Semigroup distillation of the map and of its log-determinant (PSD: Boffi et al., arXiv 2505.18825; with
/// [`Split::Halves`] and dyadic steps the shortcut models of Frans et al., arXiv 2410.12557; for the divergence F2D2,
/// arXiv 2512.02636).
///
/// Inputs after θ and the teacher's θ': what the interpolant is made of, `s`, `t` `[B]`, and `h` or `finest` `[B]`.
/// Outputs: `loss`, `map_consistency`, `divergence_consistency`.
///
/// X_{s,t} = X_{r,t} ∘ X_{s,r} with r = h s + (1−h) t and x = x_s is
///
/// * u_{s,t}(x) = (1−h) u'_{s,r}(x) + h u'_{r,t}(X_{s,r}(x));
/// * D_{s,t}(x) = (1−h) D'_{s,r}(x) + h D'_{r,t}(X_{s,r}(x)).
///
/// [`StopGradient::Target`] holds θ' and takes X_{s,r} from the student, [`StopGradient::TargetAndArgument`] takes it from
/// the teacher and holds it too. The condition needs no divergence of a velocity: `terms.divergence` is not used.
pub fn semigroup_loss(
    fields: &Program,
    shape: LossShape,
    interpolant: &Interpolant,
    split: Split,
    terms: ConsistencyTerms,
) -> Loss {
    let builder = Builder::new();
    let tracing = Tracing::new(&builder, fields, shape, true);
    let ingredients = tracing.ingredients(interpolant);
    let (start, end) = tracing.times();
    let half = builder.constant(0.5, &[shape.block]);
    let (h, finest) = match split {
        Split::Anywhere => (tracing.input(LossInput::Fraction), None),
        Split::Halves => (half, Some(tracing.input(LossInput::Finest))),
    };
    let middle = h * start + (1.0 - h) * end; // r
    // Where the halves are infinitesimal for the model, each is evaluated on the diagonal at its start.
    let ends = [(middle, start), (end, middle)]
        .map(|(end, start)| finest.map_or(end, |finest| finest.select(start, end)));
    let x = interpolant.point(ingredients, shape.column(start)).state;

    let (velocity, divergence) = tracing.at(&tracing.student, x, start, end);
    let teacher = tracing.held_teacher(terms.stop);
    let (first_velocity, first_divergence) = tracing.at(&teacher, x, start, ends[0]);
    let distance = shape.column(middle) - shape.column(start);
    let argument = match terms.stop {
        StopGradient::TargetAndArgument => (x + distance * first_velocity).stop_gradient(),
        StopGradient::Target | StopGradient::None => {
            x + distance * tracing.at(&tracing.student, x, start, ends[0]).0
        }
    };
    let (second_velocity, second_divergence) = tracing.at(&teacher, argument, middle, ends[1]);
    let h = shape.column(h);
    let mixed = |first, second| (1.0 - h) * first + h * second;
    tracing.finish_consistency(
        terms,
        velocity - mixed(first_velocity, second_velocity),
        divergence - mixed(first_divergence, second_divergence),
    )
}
