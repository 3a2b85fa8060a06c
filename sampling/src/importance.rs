//! Importance sampling: states of a proposal, weighted to a target.

use boltzmap_statistics as statistics;

use crate::control::Control;
use crate::error::SamplingError;
use crate::likelihood::{Likelihood, Trust};
use crate::proposal::Proposal;
use crate::target::Target;

/// States with weights p/q.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// `[n, T, C]`
    pub states: Vec<f64>,
    /// log p − log q, up to the target's constant, `[n]`; −∞ outside of the target's support.
    pub log_weights: Vec<f64>,
    /// What the weights rest on.
    pub likelihood: Likelihood,
    /// Network evaluations per state.
    pub evaluations: usize,
    /// How often a map that made them folded ([`Draws::folds`](crate::Draws::folds)): where it did, q is larger than was told, and weights too large.
    pub folds: usize,
}

impl Weighted {
    /// Normalised effective sample size (Σw)²/(n Σw²).
    pub fn ess(&self) -> f64 {
        statistics::ess(&self.log_weights)
    }

    /// ln Z of the target's unnormalised density: ln of the mean weight.
    pub fn log_normalisation(&self) -> f64 {
        statistics::log_mean_weight(&self.log_weights)
    }

    /// Weights that sum to one, `[n]`.
    ///
    /// # Errors
    /// If none is positive.
    pub fn weights(&self) -> Result<Vec<f64>, SamplingError> {
        let n = self.log_weights.len();
        statistics::normalised(&self.log_weights).ok_or(SamplingError::NoWeight(n))
    }
}

/// Refuses a proposal and a target of different shapes.
pub(crate) fn same_shape(
    proposal: &dyn Proposal,
    target: &dyn Target,
) -> Result<usize, SamplingError> {
    let shapes = [proposal.shape(), target.shape()];
    if shapes[0] != shapes[1] {
        return Err(SamplingError::Shape {
            proposal: shapes[0],
            target: shapes[1],
        });
    }
    let (proposal, target) = (proposal.dimension(), target.dimension());
    if proposal != target {
        return Err(SamplingError::Subspace { proposal, target });
    }
    Ok(shapes[0].iter().product())
}

/// Refuses an answer of another length than was asked for.
pub(crate) fn answered(
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), SamplingError> {
    match found == expected {
        true => Ok(()),
        false => Err(SamplingError::Answer {
            what,
            found,
            expected,
        }),
    }
}

/// log p − log q; −∞ where the target has no density.
///
/// # Errors
/// If log q is not finite or log p is NaN or +∞.
pub(crate) fn log_ratios(log_p: &[f64], log_q: &[f64]) -> Result<Vec<f64>, SamplingError> {
    let wrong = |what, value: f64, sample| SamplingError::NotFinite {
        what,
        value,
        sample,
    };
    let pairs = log_p.iter().zip(log_q).enumerate();
    pairs
        .map(|(sample, (&p, &q))| match (p, q) {
            _ if p.is_nan() || p == f64::INFINITY => Err(wrong("log p", p, sample)),
            _ if !q.is_finite() => Err(wrong("log q", q, sample)),
            _ => Ok(p - q),
        })
        .collect()
}

/// Draws the samples of the given indices and weighs them. Densities that nothing audits make weights only under [`Trust::Reported`].
///
/// # Errors
/// Those of the proposal and the target; if the shapes differ, log q may not be trusted, or a log-density is not a number.
pub fn importance_sampling(
    proposal: &dyn Proposal,
    target: &dyn Target,
    indices: &[u64],
    trust: Trust,
    control: &Control<'_>,
) -> Result<Weighted, SamplingError> {
    let size = same_shape(proposal, target)?;
    let draws = proposal.draw(indices, control)?;
    let n = indices.len();
    answered("the states", draws.states.len(), n * size)?;
    let log_q = draws.log_density.trusted(trust)?;
    answered("log q", log_q.len(), n)?;
    let log_p = target.log_density(&draws.states)?;
    answered("log p", log_p.len(), n)?;
    Ok(Weighted {
        log_weights: log_ratios(&log_p, log_q)?,
        likelihood: draws.log_density.likelihood(),
        evaluations: draws.evaluations,
        folds: draws.folds,
        states: draws.states,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gaussian::DiagonalGaussian;
    use crate::likelihood::LogDensity;
    use crate::proposal::Draws;

    #[test]
    fn two_gaussians_have_their_closed_forms() {
        // q = N(0, 1), p = N(m, s²) in each of three coordinates.
        let (m, s) = (0.3, 0.8);
        let proposal = DiagonalGaussian::standard([1, 3], 5);
        let target = DiagonalGaussian::new([1, 3], vec![m; 3], vec![s; 3], 0).unwrap();
        let n = 200_000;
        let indices: Vec<u64> = (0..n).collect();
        let control = Control::default();
        let found =
            importance_sampling(&proposal, &target, &indices, Trust::Audited, &control).unwrap();
        // E_q[w²] of one coordinate: 1/(s √(2 − s²)) exp(m²/(2 − s²)).
        let second = (m * m / (2.0 - s * s)).exp() / (s * (2.0 - s * s).sqrt());
        let expected = second.powi(-3);
        assert!(
            (found.ess() - expected).abs() < 0.01,
            "{} {expected}",
            found.ess()
        );
        // Four standard errors of the mean weight.
        let error = ((1.0 / expected - 1.0) / n as f64).sqrt();
        assert!(found.log_normalisation().abs() < 4.0 * error);
        assert_eq!(found.likelihood, Likelihood::Exact);
        // Samples are the same whatever else is drawn.
        let part = proposal.draw(&[7, 8], &control).unwrap();
        assert_eq!(part.states, found.states[21..27]);
    }

    /// Of states of two numbers on a subspace of so many dimensions; answers once, whatever it is asked.
    struct Odd(usize);

    impl Target for Odd {
        fn shape(&self) -> [usize; 2] {
            [2, 1]
        }

        fn dimension(&self) -> usize {
            self.0
        }

        fn log_density_and_gradient(
            &self,
            _states: &[f64],
        ) -> Result<crate::target::DensityAndGradient, SamplingError> {
            Ok(crate::target::DensityAndGradient {
                log_density: vec![0.0],
                gradients: vec![0.0; 2],
            })
        }
    }

    /// Reports a density that nobody audited.
    struct Talker(DiagonalGaussian);

    impl Proposal for Talker {
        fn shape(&self) -> [usize; 2] {
            Proposal::shape(&self.0)
        }

        fn draw(&self, indices: &[u64], control: &Control<'_>) -> Result<Draws, SamplingError> {
            let draws = self.0.draw(indices, control)?;
            let values = draws.log_density.trusted(Trust::Audited)?.to_vec();
            Ok(Draws {
                log_density: LogDensity::Reported(values),
                ..draws
            })
        }
    }

    #[test]
    fn what_may_not_be_trusted_is_refused() {
        let gaussian = DiagonalGaussian::standard([2, 1], 1);
        let talker = Talker(gaussian.clone());
        let control = Control::default();
        let weigh = |trust| importance_sampling(&talker, &gaussian, &[0, 1, 2, 3], trust, &control);
        let refused = weigh(Trust::Audited).unwrap_err();
        assert!(matches!(
            refused,
            SamplingError::NotAudited(Likelihood::Reported)
        ));
        let found = weigh(Trust::Reported).unwrap();
        assert_eq!(found.likelihood, Likelihood::Reported);
        assert!(found.log_weights.iter().all(|w| *w == 0.0));
        // A density on a subspace of fewer dimensions, and one that answers with too few numbers.
        let refused = importance_sampling(&gaussian, &Odd(1), &[0, 1], Trust::Audited, &control);
        assert!(matches!(refused, Err(SamplingError::Subspace { .. })));
        let refused = importance_sampling(&gaussian, &Odd(2), &[0, 1], Trust::Audited, &control);
        assert!(matches!(
            refused,
            Err(SamplingError::Answer {
                found: 1,
                expected: 2,
                ..
            })
        ));
        let other = DiagonalGaussian::standard([1, 2], 1);
        let refused = importance_sampling(&gaussian, &other, &[0], Trust::Audited, &control);
        assert!(matches!(refused, Err(SamplingError::Shape { .. })));
    }

    #[test]
    fn densities_that_are_no_numbers_are_named() {
        let message = |p: f64, q: f64| log_ratios(&[0.0, p], &[0.0, q]).unwrap_err().to_string();
        assert!(message(f64::NAN, 0.0).starts_with("log p is NaN for sample 1"));
        assert!(message(f64::INFINITY, 0.0).starts_with("log p is inf"));
        assert!(message(0.0, f64::NEG_INFINITY).starts_with("log q is -inf"));
        let outside = log_ratios(&[f64::NEG_INFINITY], &[0.0]).unwrap();
        assert_eq!(outside, [f64::NEG_INFINITY]);
    }
}
