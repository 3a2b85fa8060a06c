//! Calibration: a divergence head that tells the density of the sampler itself.

use boltzmap_autodiff::builder::Builder;
use boltzmap_autodiff::ir::Program;

use super::tracing::Tracing;
use super::{Loss, LossInput, LossShape};

/// Regression of Λ of deployed steps on their exact log-determinants.
///
/// Inputs after the head's own parameters θ': `x [B,T,C]`, `s`, `t`, `log_det` `[B]`, the last one log|det ∂X_{s,t}/∂x|
/// of the finished map. Outputs: `loss` and `calibration`, the same number: Σ_b (Λ_b − log_det_b)²/(T·C).
///
/// A head distilled from the true velocity's divergence tells the density of the true path, not of an imperfect map
/// (likelihood-flow-maps, section 8). θ' are parameters of their own, a copy of the map's from which only D is read, so
/// that no gradient moves the map whose log-determinants are the target.
pub fn calibration_loss(fields: &Program, shape: LossShape) -> Loss {
    let builder = Builder::new();
    let tracing = Tracing::new(&builder, fields, shape, false);
    let x = tracing.input(LossInput::State);
    let (start, end) = tracing.times();
    let log_det = tracing.input(LossInput::LogDeterminant);
    let (_, divergence) = tracing.at(&tracing.student, x, start, end);
    let residual = (end - start) * divergence.sum(&[1, 2]) - log_det;
    let mean = residual.square().sum(&[0]) * (1.0 / shape.coordinates());
    tracing.finish(&[("calibration", 1.0, mean)])
}
