//! What draws samples.

use crate::control::Control;
use crate::error::SamplingError;
use crate::likelihood::LogDensity;
/// States drawn by a proposal.
#[derive(Clone, Debug, PartialEq)]
pub struct Draws {
    /// `[n, T, C]`
    pub states: Vec<f64>,
    /// Their log-densities, `[n]`.
    pub log_density: LogDensity,
    /// Network evaluations per state, the log-density included; 0 where there is no network.
    pub evaluations: usize,
    /// How often, over all states, a map that made them folded space over, so that it is not injective and what the change of
    /// variables tells is a lower bound of the density. Counted where the determinants are computed.
    pub folds: usize,
}

/// A normalised distribution of states `[T, C]` that can be drawn from.
pub trait Proposal: Sync {
    /// `[T, C]`
    fn shape(&self) -> [usize; 2];

    /// Dimension d of the states' linear subspace: all numbers of a state, unless said otherwise.
    fn dimension(&self) -> usize {
        self.shape().iter().product()
    }

    /// Draws the samples of the given indices. Sample i is the same whatever else is drawn, and with whatever number of threads;
    /// of integrated ones, within what the tolerance allows.
    ///
    /// # Errors
    /// If the caller cancels, or a number is not finite.
    fn draw(&self, indices: &[u64], control: &Control<'_>) -> Result<Draws, SamplingError>;

    /// log q of states `[n, T, C]` that it need not have drawn; −∞ where it cannot make a state. [`LogDensity::Unknown`] where it has no way to tell.
    ///
    /// # Errors
    /// If the states have another shape, the caller cancels, or something fails that is no property of a state.
    fn log_density(
        &self,
        states: &[f64],
        control: &Control<'_>,
    ) -> Result<LogDensity, SamplingError> {
        let _ = (states, control);
        Ok(LogDensity::Unknown)
    }

    /// log q of such states with its gradients `[n, T, C]`, where they can be had.
    ///
    /// # Errors
    /// As [`Proposal::log_density`].
    fn log_density_and_gradient(
        &self,
        states: &[f64],
        control: &Control<'_>,
    ) -> Result<Option<(LogDensity, Vec<f64>)>, SamplingError> {
        let _ = (states, control);
        Ok(None)
    }
}
