//! The crate's error type.

use crate::control::Cancelled;
use crate::likelihood::Likelihood;

/// What can go wrong between a proposal and a target. Every message is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// The caller stopped the work.
    #[error("cancelled")]
    Cancelled,
    /// A proposal or a target failed.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// States of one shape were to be weighed by a target of another.
    #[error("the proposal draws states of {}×{} and the target is a density of states of {}×{}; they must agree", proposal[0], proposal[1], target[0], target[1])]
    Shape {
        /// `[T, C]` of the proposal.
        proposal: [usize; 2],
        /// `[T, C]` of the target.
        target: [usize; 2],
    },
    /// Densities with respect to different volumes were to be compared.
    #[error(
        "the proposal draws states of a subspace of {proposal} dimensions and the target is a density on one of {target}; a ratio of the two means nothing"
    )]
    Subspace {
        /// d of the proposal.
        proposal: usize,
        /// d of the target.
        target: usize,
    },
    /// A proposal or a target answered with an array of another length than its states ask for.
    #[error(
        "{what} came as {found} numbers where {expected} were asked for; the proposal or the target is at fault"
    )]
    Answer {
        /// What was asked for.
        what: &'static str,
        /// Numbers that came.
        found: usize,
        /// Numbers asked for.
        expected: usize,
    },
    /// An array is not a whole number of states.
    #[error(
        "{found} numbers are no whole number of states of {size}; pass states of the shape that is asked for"
    )]
    Length {
        /// Numbers given.
        found: usize,
        /// Numbers of a state.
        size: usize,
    },
    /// Weights would rest on a log-density that nothing has audited.
    #[error(
        "the log-density is {0}, and weights by it would be as wrong as it is; ask for an exact one, or say that a reported one will do"
    )]
    NotAudited(Likelihood),
    /// A sampler asks for the density of states that the proposal did not draw.
    #[error(
        "the proposal cannot tell the density of states that it did not draw, which a bridge between it and the target needs; resample and move instead"
    )]
    NoDensity,
    /// A log-density is not a number, or infinite.
    #[error("{what} is {value} for sample {sample}; the proposal or the target is damaged there")]
    NotFinite {
        /// Whose density.
        what: &'static str,
        /// The value.
        value: f64,
        /// The sample.
        sample: usize,
    },
    /// No sample has a positive weight.
    #[error(
        "none of the {0} samples has a positive weight: the proposal misses the target altogether"
    )]
    NoWeight(usize),
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(String),
}

impl From<Cancelled> for SamplingError {
    fn from(_: Cancelled) -> Self {
        SamplingError::Cancelled
    }
}

impl SamplingError {
    /// Wraps the error of a proposal or a target.
    pub fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        SamplingError::Failed(Box::new(error))
    }
}
