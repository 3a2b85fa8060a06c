//! What samples are weighed against.

use crate::error::SamplingError;

/// Log-densities with their gradients in states.
#[derive(Clone, Debug, PartialEq)]
pub struct DensityAndGradient {
    /// `[n]`, up to one constant; −∞ outside of the support.
    pub log_density: Vec<f64>,
    /// ∇ log p in the states' coordinates, on their subspace, `[n, T, C]`; 0 outside of the support.
    pub gradients: Vec<f64>,
}

/// A density of states `[T, C]`, known up to a constant.
pub trait Target: Sync {
    /// `[T, C]`
    fn shape(&self) -> [usize; 2];

    /// log p of states `[n, T, C]`, up to one constant, `[n]`; −∞ outside of the support, never NaN.
    ///
    /// # Errors
    /// If the states have another shape or something fails that is no property of a state.
    fn log_density(&self, states: &[f64]) -> Result<Vec<f64>, SamplingError> {
        Ok(self.log_density_and_gradient(states)?.log_density)
    }

    /// The same with gradients.
    ///
    /// # Errors
    /// As [`Target::log_density`].
    fn log_density_and_gradient(&self, states: &[f64])
    -> Result<DensityAndGradient, SamplingError>;

    /// Projects states `[n, T, C]` on the linear subspace that the density lives on. All states, unless said otherwise.
    fn project(&self, states: &mut [f64]) {
        let _ = states;
    }

    /// Dimension d of the states' linear subspace: all numbers of a state, unless said otherwise.
    fn dimension(&self) -> usize {
        self.state_size()
    }

    /// Numbers of a state.
    fn state_size(&self) -> usize {
        self.shape().iter().product()
    }
}

/// How many states of `size` numbers an array holds.
///
/// # Errors
/// If it is no whole number of them.
pub fn count_states(states: &[f64], size: usize) -> Result<usize, SamplingError> {
    if size == 0 || !states.len().is_multiple_of(size) {
        return Err(SamplingError::Length {
            found: states.len(),
            size,
        });
    }
    Ok(states.len() / size)
}
