//! Velocity and divergence on the diagonal s = t, where the data is.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;
use serde::{Deserialize, Serialize};

use super::tracing::Tracing;
use super::{DiagonalWeights, Loss, LossShape, Reduction};
use crate::interpolant::{Ingredients, Interpolant, Point};

/// What the velocity is matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VelocityTarget {
    /// ṽ, whose mean given x is the velocity: flow matching (Lipman et al. 2023).
    Conditional,
    /// The teacher's velocity v'(x, t).
    Teacher,
}

/// Whose velocity Hutchinson's probes are applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probed {
    /// The network's own, held fixed.
    Own,
    /// The teacher's.
    Teacher,
}

/// SCALLOP's estimators of ∂_i v_i (arXiv 2606.29110; likelihood-flow-maps, section 5). With v the network's own velocity,
/// held fixed, and γ ∂_i log p_t = −E[z_i|x], which v determines:
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScallopForm {
    /// κ γ̇ − (ṽ_i − v_i) z_i. Needs no score, so it works for every interpolant with latent noise.
    Plain,
    /// κ γ̇ − ṽ_i (z_i + γ ∂_i log p_t).
    Score,
    /// κ γ̇ − (ṽ_i − v_i)(z_i + γ ∂_i log p_t), on the linear path κ γ̇ + t (ṽ_i − v_i)²: a variance.
    Centred,
}

/// The target of D on the diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiagonalDivergence {
    /// Hutchinson's ε ⊙ (∂v/∂x ε), averaged over probes (F2D2, arXiv 2512.02636). Residuals are weighted with γ², unless
    /// the path starts from a base of its own: one scale for every problem, in the place of the released programs' constants.
    Hutchinson {
        /// Probes per sample.
        probes: usize,
        /// Whose velocity they probe.
        of: Probed,
    },
    /// SCALLOP's conditional expectations: no derivative of the network. Residuals are weighted with γ², as the targets
    /// grow like 1/γ.
    Scallop(ScallopForm),
}

/// What the diagonal loss consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiagonalTerms {
    /// Weights of both parts; without weight, the divergence is left out.
    pub weights: DiagonalWeights,
    /// What the velocity is matched with.
    pub velocity: VelocityTarget,
    /// What the divergence is matched with.
    pub divergence: DiagonalDivergence,
    /// Which numbers of the divergence residual are squared.
    pub reduction: Reduction,
}

impl DiagonalTerms {
    fn probes(&self) -> usize {
        match self.divergence {
            DiagonalDivergence::Hutchinson { probes, .. } if self.weights.divergence != 0.0 => {
                probes
            }
            _ => 0,
        }
    }

    fn has_teacher(&self) -> bool {
        let probed = matches!(
            self.divergence,
            DiagonalDivergence::Hutchinson {
                of: Probed::Teacher,
                ..
            }
        );
        self.velocity == VelocityTarget::Teacher || (probed && self.weights.divergence != 0.0)
    }
}

/// Velocity and divergence matching on the diagonal.
///
/// Inputs after θ, and the teacher's θ' where something of it is a target: what the interpolant is made of, probes, `t`
/// `[B]`. Outputs: `loss`, `flow_matching` (`velocity_distillation` where the teacher's velocity is matched), `divergence`.
///
/// With x = x_t: ‖u(x,t,t) − ṽ‖² (or the teacher's velocity in ṽ's place), and ‖D(x,t,t) − target‖² with the targets of
/// [`DiagonalDivergence`], times γ². Targets are held fixed.
///
/// # Panics
/// If SCALLOP is asked of an interpolant without latent noise, or a form with a score of one with a base.
pub fn diagonal_fields_loss(
    fields: &Program,
    shape: LossShape,
    interpolant: &Interpolant,
    terms: DiagonalTerms,
) -> Loss {
    let builder = Builder::new();
    let tracing = Tracing::new(&builder, fields, shape, terms.has_teacher());
    let ingredients = tracing.ingredients(interpolant);
    let probes = tracing.probes(terms.probes());
    let time = tracing.time();
    let held: Vec<Var<'_>> = tracing.teacher.iter().map(|p| p.stop_gradient()).collect();

    let point = interpolant.point(ingredients, shape.column(time));
    let (velocity, divergence) = tracing.at(&tracing.student, point.state, time, time);
    let velocity_target = match terms.velocity {
        VelocityTarget::Conditional => point.rate,
        VelocityTarget::Teacher => tracing.at(&held, point.state, time, time).0,
    };
    let flow_matching = shape.reduce((velocity_target - velocity).square());
    let name = match terms.velocity {
        VelocityTarget::Conditional => "flow_matching",
        VelocityTarget::Teacher => "velocity_distillation",
    };
    let mut parts = vec![(name, terms.weights.velocity, flow_matching)];
    if terms.weights.divergence != 0.0 {
        let residual = match terms.divergence {
            DiagonalDivergence::Hutchinson { of, .. } => {
                let parameters = match of {
                    Probed::Teacher => held,
                    Probed::Own => tracing.student.iter().map(|p| p.stop_gradient()).collect(),
                };
                let target = tracing.hutchinson(&parameters, point.state, time, &probes);
                tracing.probe_scale(interpolant, time, &probes) * (divergence - target)
            }
            DiagonalDivergence::Scallop(form) => {
                let velocity = velocity.stop_gradient();
                let (gamma, target) =
                    scallop_target(form, shape, interpolant, ingredients, point, velocity, time);
                gamma * divergence - target
            }
        };
        let divergence = shape.reduce_residual(residual, terms.reduction);
        parts.push(("divergence", terms.weights.divergence, divergence));
    }
    tracing.finish(&parts)
}

/// γ and γ times SCALLOP's estimate of ∂_i v_i.
fn scallop_target<'b>(
    form: ScallopForm,
    shape: LossShape,
    interpolant: &Interpolant,
    ingredients: Ingredients<'b>,
    point: Point<'b>,
    velocity: Var<'b>,
    time: Var<'b>,
) -> (Var<'b>, Var<'b>) {
    let time = shape.column(time);
    let (Some((gamma, gamma_rate)), Some(latent)) = (interpolant.latent(time), ingredients.latent)
    else {
        panic!("SCALLOP's targets need latent noise, which {interpolant:?} lacks");
    };
    let centred = || {
        let Some(score) = interpolant.score(time) else {
            panic!(
                "the score does not follow from the velocity on {interpolant:?}; use the plain form"
            );
        };
        latent - score.mean(point.state, velocity)
    };
    let product = match form {
        ScallopForm::Plain => (point.rate - velocity) * latent,
        ScallopForm::Score => point.rate * centred(),
        ScallopForm::Centred => (point.rate - velocity) * centred(),
    };
    (gamma, gamma_rate * shape.kappa - product)
}
