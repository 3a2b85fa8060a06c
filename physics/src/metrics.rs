//! Metrics of weighted samples.

pub mod weights;
