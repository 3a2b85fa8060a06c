//! The coordinates of a model: one of the charts.

use boltzmap_kernels::real::Real;
use serde::{Deserialize, Serialize};

use super::{CartesianChart, ChartError, Decoded, Encoded, InternalChart};

/// The coordinates that a model's states are in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordinates {
    /// Bonds, angles and torsions.
    Internal(InternalChart),
    /// Mean-free positions over one scale.
    Cartesian(CartesianChart),
}

impl Coordinates {
    /// Tokens and channels of a state.
    pub fn state_shape(&self) -> [usize; 2] {
        match self {
            Coordinates::Internal(chart) => chart.state_shape(),
            Coordinates::Cartesian(chart) => chart.state_shape(),
        }
    }

    /// Dimension of the states' subspace.
    pub fn dimension(&self) -> usize {
        match self {
            Coordinates::Internal(chart) => chart.dimension(),
            Coordinates::Cartesian(chart) => chart.dimension(),
        }
    }

    /// Number of atoms.
    pub fn n_atoms(&self) -> usize {
        match self {
            Coordinates::Internal(chart) => chart.matrix().n_atoms(),
            Coordinates::Cartesian(chart) => chart.state_shape()[0],
        }
    }

    /// Whether states are those whose mean over tokens vanishes, rather than all.
    pub fn is_mean_free(&self) -> bool {
        matches!(self, Coordinates::Cartesian(_))
    }

    /// Positions `[n, atoms, 3]`, nm, to states.
    ///
    /// # Errors
    /// Those of the chart.
    pub fn encode<T: Copy + Into<f64> + Sync>(
        &self,
        positions: &[T],
    ) -> Result<Encoded, ChartError> {
        match self {
            Coordinates::Internal(chart) => chart.encode(positions),
            Coordinates::Cartesian(chart) => chart.encode(positions),
        }
    }

    /// States to mean-free positions with log|dx/dy|.
    ///
    /// # Errors
    /// If the array is no whole number of states.
    pub fn decode<T: Copy + Into<f64> + Sync>(&self, states: &[T]) -> Result<Decoded, ChartError> {
        match self {
            Coordinates::Internal(chart) => chart.decode(states),
            Coordinates::Cartesian(chart) => chart.decode(states),
        }
    }

    /// ∇_y [ln p(x(y)) + ln|∂x/∂y| + ln c] from states, what they decode to and ∂(ln p)/∂x `[n, atoms, 3]`, per nm; 0 outside of the domain.
    ///
    /// # Errors
    /// If the arrays do not belong together.
    pub fn pull_back_log_density<T: Real>(
        &self,
        states: &[T],
        decoded: &Decoded,
        gradient: &[T],
    ) -> Result<Vec<T>, ChartError> {
        match self {
            Coordinates::Internal(chart) => chart.pull_back_log_density(states, decoded, gradient),
            Coordinates::Cartesian(chart) => chart.pull_back_log_density(states, decoded, gradient),
        }
    }
}
