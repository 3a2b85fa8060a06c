//! Training losses as traced programs, one condition per file.
//!
//! Losses are built on the *fields program* of a flow map ([`FlowMap::fields_program`]): inputs
//! `(θ…, x [B,T,C], s [B], t [B])`, outputs `(u [B,T,C], D [B,T,C])`, the mean velocity and the mean divergence terms,
//! with X_{s,t}(x) = x + (t−s) u and Λ_i = (t−s) D_i in whatever way a model arrives at them; u(x,t,t) = v(x,t) and
//! D_i(x,t,t) = ∂_i v_i(x,t). They work for any [`Interpolant`](crate::interpolant::Interpolant). [`diagonal_loss`] and
//! [`lagrangian_loss`] are the exception: they are written in the corrections of the Gaussian reference and the linear
//! interpolant.
//!
//! **Inputs.** A [`Loss`] is a program and what its inputs stand for: the parameters θ…, then as many of the teacher's
//! where the loss has a teacher, then what differs from sample to sample, each with its role ([`LossInput`]), states
//! `[B,T,C]` and numbers `[B]`. Which of them there are, each loss says, by the names that the program prints: `data`
//! (x₁), `base` (x₀), `noise` (z), `probe.0`… (Hutchinson's ε), times `s` and `t`. Names are for readers; whoever
//! fills inputs goes by roles.
//!
//! **Outputs.** `loss`, then the parts it is the weighted sum of. Each is summed over the block's samples and averaged
//! over the T·C coordinates. A part whose weight is zero is left out of the program.

mod calibration;
mod corrections;
mod diagonal;
mod eulerian;
mod falcon;
mod inputs;
mod lagrangian;
mod likelihood;
mod mean_flow;
mod semigroup;
mod tracing;

pub use calibration::calibration_loss;
pub use corrections::{corrections_program, diagonal_loss, lagrangian_loss};
pub use diagonal::{
    DiagonalDivergence, DiagonalTerms, Probed, ScallopForm, VelocityTarget, diagonal_fields_loss,
};
pub use eulerian::eulerian_fields_loss;
pub use falcon::{FalconWeights, falcon_loss};
pub use inputs::{Loss, LossInput, TimeRole};
pub use lagrangian::lagrangian_fields_loss;
pub use likelihood::likelihood_loss;
pub use mean_flow::{Side, mean_flow_loss};
pub use semigroup::{Split, semigroup_loss};

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;
#[cfg(doc)]
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

/// Which numbers of a divergence residual are squared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Each coordinate's: one target per coordinate, mean over i of r_i².
    Vector,
    /// Their sum's: one target per sample, (Σ_i r_i)²/(T·C), which is as large for independent residuals.
    Sum,
}

/// Where a consistency condition takes the divergence of the teacher's velocity from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// The teacher's head on the diagonal, D'(x,t,t): no derivative of the network.
    Head,
    /// Hutchinson's estimate ε ⊙ (∂v'/∂x ε), averaged over this many probes ε.
    Hutchinson(usize),
}

/// What the consistency losses of map and log-determinant share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsistencyTerms {
    /// Weights of both parts.
    pub weights: ConsistencyWeights,
    /// What is held fixed.
    pub stop: StopGradient,
    /// Where the divergence comes from.
    pub divergence: Divergence,
    /// Which numbers of the divergence residual are squared.
    pub reduction: Reduction,
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

    fn coordinates(&self) -> f64 {
        (self.tokens * self.channels) as f64
    }

    /// Per sample sums over tokens and channels divided by T·C, then the sum over the block.
    fn reduce<'b>(&self, terms: Var<'b>) -> Var<'b> {
        terms.sum(&[0, 1, 2]) * (1.0 / self.coordinates())
    }

    /// The squares of a divergence residual `[B,T,C]`, reduced.
    fn reduce_residual<'b>(&self, residual: Var<'b>, reduction: Reduction) -> Var<'b> {
        match reduction {
            Reduction::Vector => self.reduce(residual.square()),
            Reduction::Sum => residual.sum(&[1, 2]).square().sum(&[0]) * (1.0 / self.coordinates()),
        }
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
    /// Of the divergence's target.
    pub divergence: f64,
}

/// Weights of the off-diagonal terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsistencyWeights {
    /// Of the condition on the map.
    pub map: f64,
    /// Of the condition on the log-determinant.
    pub divergence: f64,
}

/// Number of parameter tensors of a corrections or fields program.
pub fn parameter_count(program: &Program) -> usize {
    program.inputs.len() - 3
}

/// The parameters θ as inputs of the program being built, named and shaped as in `program`.
fn parameter_inputs<'b>(builder: &'b Builder, program: &Program, prefix: &str) -> Vec<Var<'b>> {
    (0..parameter_count(program))
        .map(|i| {
            let name = format!("{prefix}{}", program.input_names[i]);
            builder.input(&name, program.input_shape(i))
        })
        .collect()
}

/// Both outputs of a corrections or fields program at these arguments.
fn apply<'b>(
    builder: &'b Builder,
    program: &Program,
    parameters: &[Var<'b>],
    x: Var<'b>,
    s: Var<'b>,
    t: Var<'b>,
) -> (Var<'b>, Var<'b>) {
    let mut arguments = parameters.to_vec();
    arguments.extend([x, s, t]);
    let outputs = builder.call(program, &arguments);
    (outputs[0], outputs[1])
}
