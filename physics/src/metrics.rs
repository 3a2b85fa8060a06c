//! Metrics of weighted samples.

pub mod transport;
pub mod wasserstein;
pub mod weights;
