//! The verdict's ground: every quantity that it rests on, with an interval that covers, and what the interval allows to say.
//!
//! Bias and lost samples are averages under the proposal, while re-weighting happens under the target: an error of 1.5 nats on 2 % of
//! the samples hardly shows in the former and shifts the free energy of that state by 1.5 kT. So where a target is at hand the same
//! quantities are judged under its weights w = p/q as well, and with them every observable: its average and its ΔF by the weights
//! that the report makes, less those by the exact ones.
//!
//! **What cannot be seen.** n samples without an event of a kind leave its probability open up to 3.7/n (97.5 %), and nothing
//! bounds its size: a gap of −4 nats on 0.4 % of the samples leaves a tenth of the effective samples, and one time in five 400 samples
//! show nothing of it. So the verdict speaks of all but [`RARE`](super::criteria::RARE) of the samples. Shares of samples off by more than a size have
//! Clopper and Pearson's interval; what weights keep of the effective samples without the largest [`RARE`](super::criteria::RARE) of them is a trimmed quantity,
//! whose lower end is zero until one of the largest has been drawn with 97.5 %: below 1843 samples nothing but "false" can be
//! said.
//!
//! **Several looks.** Samples are drawn in batches that double all. Of K planned looks each uses intervals of confidence
//! 1 − 0.05/K, so that an interval misses at any look at most one time in twenty. Intervals of m observables share theirs: 1 − 0.05/(K m).

use anyhow::Result;
use boltzmap_physics::metrics::binomial_interval;
use serde::Serialize;

use super::criteria::{BIAS_GOOD, Criterion, Level, not_finite, size, under_the_proposal};
use super::statistics::{Estimate, mean_at};
use super::subject::Reporter;
use super::target::Weighed;
use super::weighted::{Observed, UnderWeights, under_the_weights};

/// Bias and spread, nats, up to which a report that is exact by construction is so numerically too.
const NUMERICALLY_EXACT: [f64; 2] = [0.01, 0.05];
/// Probability that an interval misses at any look.
const MISSES: f64 = 0.05;

/// Whether a reported log-density is that of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// It is, to within what the samples can tell.
    True,
    /// It is but for a constant.
    TrueButForAConstant,
    /// It is roughly.
    Rough,
    /// It is not.
    False,
    /// The intervals allow more than one of the others.
    Undecided,
    /// The report is the exact log-density itself, computed twice: there was nothing to find out but round-off.
    ExactByConstruction,
}

/// Everything that the verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assessment {
    /// The verdict.
    pub judgement: Judgement,
    /// The best that the intervals allow.
    pub best: Level,
    /// The worst that the intervals allow.
    pub worst: Level,
    /// Probability with which each interval of the gap holds; those of m observables hold with 1 − (1 − this)/m.
    pub confidence: f64,
    /// Numbers of samples after which it was judged; the last is this.
    pub looks: Vec<usize>,
    /// The quantities.
    pub criteria: Vec<Criterion>,
    /// Mean of reported − exact, nats, at the judged confidence.
    pub bias: Estimate,
    /// The same under the weights of the target.
    pub bias_under_weights: Option<Estimate>,
    /// Kish's effective number of samples of the target, by exact weights.
    pub effective_samples: Option<f64>,
    /// Averages and free energies by the report and by exact weights.
    pub observables: Vec<Observed>,
    /// Largest probability, at the judged confidence, of an error that no sample shows.
    pub unseen: f64,
}

impl Assessment {
    /// Whether drawing more samples could change the verdict.
    pub fn is_decided(&self) -> bool {
        let open_bias = || {
            self.judgement == Judgement::TrueButForAConstant
                && bias_loss(self.bias, self.bias_under_weights).0 <= BIAS_GOOD
        };
        self.judgement != Judgement::Undecided && !open_bias()
    }

    /// The quantities that alone allow nothing better than the verdict: what it follows.
    pub fn deciding(&self) -> impl Iterator<Item = &Criterion> {
        let level = match self.judgement {
            Judgement::Undecided => None,
            _ => Some(self.worst),
        };
        self.criteria.iter().filter(move |c| match level {
            Some(Level::True) => false,
            Some(level) => c.best == level,
            // What keeps the verdict open.
            None => c.worst > self.best,
        })
    }
}

/// How a report is looked at.
#[derive(Clone, Debug)]
pub struct Looks {
    /// Numbers of samples at which looks are planned, ascending.
    pub planned: Vec<usize>,
    /// How many of them have been taken, this one included.
    pub taken: usize,
}

impl Looks {
    /// One look only.
    pub fn single(samples: usize) -> Looks {
        Looks {
            planned: vec![samples],
            taken: 1,
        }
    }

    /// Looks at `first` samples and at twice as many until there are `most`.
    pub fn doubling(first: usize, most: usize) -> Looks {
        let mut planned = vec![first.min(most)];
        while let Some(&last) = planned.last()
            && last < most
        {
            planned.push((2 * last).min(most));
        }
        Looks { planned, taken: 1 }
    }

    fn confidence(&self) -> f64 {
        1.0 - MISSES / self.planned.len() as f64
    }
}

/// Judges reported log-densities by exact ones at the same samples, which were drawn from the latter, and by what the target makes of
/// them where there is one.
///
/// # Errors
/// If the weights of the target are of no use.
pub fn assess(
    reporter: Reporter,
    reported: &[f64],
    exact: &[f64],
    target: Option<&Weighed>,
    looks: &Looks,
    seed: u64,
) -> Result<Assessment> {
    let confidence = looks.confidence();
    let finite: Vec<usize> = (0..exact.len())
        .filter(|&i| reported[i].is_finite() && exact[i].is_finite())
        .collect();
    let gaps: Vec<f64> = finite.iter().map(|&i| reported[i] - exact[i]).collect();
    let mut criteria = Vec::new();
    if finite.len() < exact.len() || gaps.len() < 2 {
        criteria.push(not_finite(exact.len() - finite.len(), exact.len()));
    }
    let mut bias = Estimate::NONE;
    let mut under = UnderWeights::default();
    if gaps.len() >= 2 {
        bias = mean_at(&gaps, seed, confidence);
        criteria.extend(under_the_proposal(&gaps, confidence, seed));
        if let Some(target) = target {
            under = under_the_weights(&gaps, &finite, exact, target, confidence)?;
            criteria.append(&mut under.criteria);
        }
    }
    let best = criteria
        .iter()
        .map(|c| c.best)
        .max()
        .unwrap_or(Level::False);
    let worst = criteria
        .iter()
        .map(|c| c.worst)
        .max()
        .unwrap_or(Level::False);
    let mut judgement = match (best, worst) {
        (Level::True, Level::True) if bias_loss(bias, under.bias).1 <= BIAS_GOOD => Judgement::True,
        (Level::True, Level::True) => Judgement::TrueButForAConstant,
        (Level::Rough, Level::Rough) => Judgement::Rough,
        (Level::False, Level::False) => Judgement::False,
        _ => Judgement::Undecided,
    };
    if reporter != Reporter::Head && finite.len() == exact.len() && is_numerically_exact(&gaps) {
        judgement = Judgement::ExactByConstruction;
    }
    Ok(Assessment {
        judgement,
        best,
        worst,
        confidence,
        looks: looks.planned[..looks.taken.min(looks.planned.len())].to_vec(),
        criteria,
        bias,
        bias_under_weights: under.bias,
        effective_samples: under.effective,
        observables: under.observables,
        unseen: binomial_interval(0, gaps.len().max(1), confidence).1,
    })
}

fn is_numerically_exact(gaps: &[f64]) -> bool {
    let n = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / n;
    let squares: f64 = gaps.iter().map(|gap| (gap - mean).powi(2)).sum();
    mean.abs() <= NUMERICALLY_EXACT[0] && (squares / n).sqrt() <= NUMERICALLY_EXACT[1]
}

/// The smallest and the largest size that the bias can have, the worse of the two averages.
fn bias_loss(bias: Estimate, under_weights: Option<Estimate>) -> (f64, f64) {
    [Some(bias), under_weights]
        .into_iter()
        .flatten()
        .map(size)
        .fold((0.0, 0.0), |(low, high), (l, h)| {
            // NaN is no small bias.
            let high = if h.is_nan() {
                f64::INFINITY
            } else {
                h.max(high)
            };
            (f64::max(low, l), high)
        })
}
