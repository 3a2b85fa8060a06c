//! Maximum likelihood of exact flows, which give their own log-determinant.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::ir::Program;

use super::{Loss, LossInput};

/// Negative log-likelihood of an exact flow with a standard normal base, per coordinate.
///
/// `flow` has the inputs (θ…, x `[B,T,C]`) and the outputs (z `[B,T,C]`, log|det ∂z/∂x| `[B]`). Inputs: those of
/// `flow`, x being the data. Output: `loss` = Σ_b [½‖z_b‖² + ½TC ln 2π − log|det ∂z_b/∂x_b|]/(TC).
pub fn likelihood_loss(flow: &Program) -> Loss {
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
    let program = builder.finish(&[("loss", loss)]);
    Loss::new(program, flow.inputs.len() - 1, false, vec![LossInput::Data])
}
