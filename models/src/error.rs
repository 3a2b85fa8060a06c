//! The crate's error type.

use std::path::PathBuf;

/// What can go wrong with models and their files. Every message is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A configuration value is out of its range.
    #[error("model configuration: {0}")]
    Configuration(String),
    /// A schedule of times is not increasing within [0, 1).
    #[error("schedule of times: {0}")]
    Schedule(String),
    /// An array has the wrong number of elements.
    #[error(
        "{what} holds {found} numbers but {expected} are needed; pass a whole number of states of the model's shape"
    )]
    Length {
        /// the array
        what: String,
        /// elements needed
        expected: usize,
        /// elements given
        found: usize,
    },
    /// The operating system refused to read or write a file.
    #[error("{action} {}: {source}; check the path and its permissions", path.display())]
    File {
        /// "cannot read" or "cannot write"
        action: &'static str,
        /// the file
        path: PathBuf,
        /// the system's reason
        source: std::io::Error,
    },
    /// A checkpoint file is not a complete checkpoint.
    #[error("checkpoint {}: {problem}; {remedy}", path.display())]
    Checkpoint {
        /// the file
        path: PathBuf,
        /// what is wrong with it
        problem: String,
        /// what to do
        remedy: &'static str,
    },
    /// A tensor needed by the model is missing, has another shape, or holds a number that is not finite.
    #[error("tensor {name}: {problem}; use a checkpoint written with the same model configuration")]
    Tensor {
        /// the tensor
        name: String,
        /// what is wrong with it
        problem: String,
    },
    /// A computed number is not finite.
    #[error(
        "{what} is not finite for sample {sample}; the parameters or the input state are damaged or far outside the training range"
    )]
    NotFinite {
        /// the quantity
        what: &'static str,
        /// index of the sample
        sample: usize,
    },
    /// An adaptive integration could not meet its tolerance.
    #[error(
        "integration stopped at t = {time}: {problem}; loosen the tolerances or raise the step limit"
    )]
    Integration {
        /// time reached
        time: f64,
        /// what happened
        problem: String,
    },
    /// A state does not lie on the subspace of the model's states.
    #[error(
        "sample {sample} lies {distance:e} off the model's subspace; remove the mean over its tokens from every channel"
    )]
    OffSubspace {
        /// index of the sample
        sample: usize,
        /// Euclidean distance from the subspace
        distance: f64,
    },
    /// No preimage of a state was found.
    #[error(
        "the step from t = {from} to t = {to} could not be inverted for sample {sample}: the residual stays at {residual:e}; the state lies where the map folds or outside its image, or the tolerance is below the precision's round-off"
    )]
    NotInverted {
        /// index of the sample
        sample: usize,
        /// time s of the step
        from: f64,
        /// time t of the step
        to: f64,
        /// ‖X(x) − y‖₂ at the best point found
        residual: f64,
    },
    /// The caller asked to stop.
    #[error("stopped on request before the work was complete")]
    Cancelled,
}

impl ModelError {
    /// The error of a part of a batch in which samples are numbered from `first` on.
    pub(crate) fn of_later_sample(self, first: usize) -> Self {
        match self {
            ModelError::NotFinite { what, sample } => ModelError::NotFinite {
                what,
                sample: sample + first,
            },
            ModelError::NotInverted {
                sample,
                from,
                to,
                residual,
            } => ModelError::NotInverted {
                sample: sample + first,
                from,
                to,
                residual,
            },
            other => other,
        }
    }
}
