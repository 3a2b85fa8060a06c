//! What a log-density is worth, in the type.
//!
//! A number called log q may be the exact density of the map that made the sample, an integral to a tolerance, what a network
//! reports, or an unbiased estimate. Weights by one that nobody audited shift free energies in silence. So the kind travels
//! with the numbers, and whoever uses a reported one has to say so ([`Trust::Reported`]).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::SamplingError;

/// The kind of a log-density.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Likelihood {
    /// A closed form, or the log-determinant of the very map that made the samples: off by rounding only.
    Exact,
    /// A differential equation integrated with the exact divergence.
    Integrated {
        /// Error allowed per step.
        tolerance: f64,
    },
    /// What a network reports, which nothing holds to the density of the samples.
    Reported,
    /// An unbiased estimate, of a known variance.
    Estimated {
        /// Mean variance, nats².
        variance: f64,
    },
    /// None.
    Unknown,
}

impl Likelihood {
    /// Whether weights may rest on it without further words.
    pub fn is_audited(self) -> bool {
        matches!(self, Likelihood::Exact | Likelihood::Integrated { .. })
    }
}

impl fmt::Display for Likelihood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Likelihood::Exact => write!(f, "exact"),
            Likelihood::Integrated { tolerance } => {
                write!(f, "integrated to a tolerance of {tolerance}")
            }
            Likelihood::Reported => write!(f, "reported by a network"),
            Likelihood::Estimated { variance } => {
                write!(f, "estimated with a variance of {variance:.3}")
            }
            Likelihood::Unknown => write!(f, "not known"),
        }
    }
}

/// Log-densities of samples with their kind.
#[derive(Clone, Debug, PartialEq)]
pub enum LogDensity {
    /// [`Likelihood::Exact`], `[n]`.
    Exact(Vec<f64>),
    /// [`Likelihood::Integrated`].
    Integrated {
        /// `[n]`
        values: Vec<f64>,
        /// Error allowed per step.
        tolerance: f64,
    },
    /// [`Likelihood::Reported`], `[n]`.
    Reported(Vec<f64>),
    /// [`Likelihood::Estimated`].
    Estimated {
        /// `[n]`
        values: Vec<f64>,
        /// Variance of each, nats², `[n]`.
        variance: Vec<f64>,
    },
    /// There is none.
    Unknown,
}

/// Which log-densities may make weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Exact and integrated ones.
    Audited,
    /// Reported and estimated ones too: for a first look, not for free energies.
    Reported,
}

impl LogDensity {
    /// The kind.
    pub fn likelihood(&self) -> Likelihood {
        match self {
            LogDensity::Exact(_) => Likelihood::Exact,
            LogDensity::Integrated { tolerance, .. } => Likelihood::Integrated {
                tolerance: *tolerance,
            },
            LogDensity::Reported(_) => Likelihood::Reported,
            LogDensity::Estimated { variance, .. } => Likelihood::Estimated {
                variance: variance.iter().sum::<f64>() / variance.len().max(1) as f64,
            },
            LogDensity::Unknown => Likelihood::Unknown,
        }
    }

    /// The numbers `[n]`, where they are of a kind that may be trusted.
    ///
    /// # Errors
    /// [`SamplingError::NotAudited`] where they may not, or where there are none.
    pub fn trusted(&self, trust: Trust) -> Result<&[f64], SamplingError> {
        match (self, trust) {
            (LogDensity::Exact(values) | LogDensity::Integrated { values, .. }, _)
            | (
                LogDensity::Reported(values) | LogDensity::Estimated { values, .. },
                Trust::Reported,
            ) => Ok(values),
            _ => Err(SamplingError::NotAudited(self.likelihood())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_network_reports_is_used_only_when_asked_for() {
        let numbers = vec![-1.0, -2.0];
        for audited in [
            LogDensity::Exact(numbers.clone()),
            LogDensity::Integrated {
                values: numbers.clone(),
                tolerance: 1e-5,
            },
        ] {
            assert!(audited.likelihood().is_audited());
            for trust in [Trust::Audited, Trust::Reported] {
                assert_eq!(audited.trusted(trust).unwrap(), numbers);
            }
        }
        for loose in [
            LogDensity::Reported(numbers.clone()),
            LogDensity::Estimated {
                values: numbers.clone(),
                variance: vec![0.1, 0.3],
            },
        ] {
            assert!(!loose.likelihood().is_audited());
            let refused = loose.trusted(Trust::Audited).unwrap_err().to_string();
            assert!(
                refused.contains(&loose.likelihood().to_string()),
                "{refused}"
            );
            assert_eq!(loose.trusted(Trust::Reported).unwrap(), numbers);
        }
        for trust in [Trust::Audited, Trust::Reported] {
            assert!(LogDensity::Unknown.trusted(trust).is_err());
        }
    }
}
