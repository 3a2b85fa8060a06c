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
    /// The caller asked to stop.
    #[error("stopped on request before the work was complete")]
    Cancelled,
}
