//! Progress reports and cancellation of long work.

pub use boltzmap_sampling::control::{Cancelled, Control};

use crate::error::ModelError;

impl From<Cancelled> for ModelError {
    fn from(_: Cancelled) -> Self {
        ModelError::Cancelled
    }
}
