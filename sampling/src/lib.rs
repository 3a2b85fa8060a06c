//! What stands between a model and what it is weighed against: proposals that draw states with log-densities of a stated kind,
//! targets that know their density up to a constant, and samplers written against the two alone.
//!
//! A state is an array `[T, C]` of tokens and channels in reduced units; a density is one with respect to the volume of the states' linear
//! subspace. Nothing here knows of molecules or networks: a molecule in a chart is a [`Target`], a flow map a [`Proposal`],
//! each in the crate that it belongs to.

pub mod control;
pub mod error;
pub mod gaussian;
pub mod importance;
pub mod likelihood;
pub mod moves;
pub mod proposal;
pub mod smc;
pub mod target;

pub use control::{Cancelled, Control};
pub use error::SamplingError;
pub use gaussian::DiagonalGaussian;
pub use importance::{Weighted, importance_sampling};
pub use likelihood::{Likelihood, LogDensity, Trust};
pub use proposal::{Draws, Proposal};
pub use smc::{Path, Settings, SmcResult, sequential_monte_carlo};
pub use target::{DensityAndGradient, Target};
