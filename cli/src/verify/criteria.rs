//! Quantities of the gap reported − exact log q, as averages under the proposal, and the thresholds that they are judged by.

use boltzmap_statistics::{binomial_cumulative, binomial_interval};
use serde::Serialize;

use super::statistics::{Estimate, bootstrap, quantile, sorted};

/// Share of the samples that the verdict does not speak of: as many as are clipped before re-weighting in the literature.
pub const RARE: f64 = 0.002;
/// Error, nats, that more than [`RARE`] of the samples must not exceed for a report to be called true. A Gaussian spread of 0.32 nats
/// has 0.18 % beyond it.
pub const LOCAL: f64 = 1.0;
/// Error, nats, and the share beyond it from which on a report is false. A Gaussian spread of 0.83 nats has 1.6 % beyond it.
pub const GROSS: f64 = 2.0;
/// See [`GROSS`].
pub const GROSS_SHARE: f64 = 0.02;
/// Share of the effective samples that reported weights must keep to be good. It is what a Gaussian spread of 0.32 nats keeps.
pub const KEPT_GOOD: f64 = 0.9;
/// Share below which weights must not be used: a spread of 0.83 nats.
pub const KEPT_BAD: f64 = 0.5;
/// Bias, nats, up to which a log-likelihood may be quoted as it stands.
pub const BIAS_GOOD: f64 = 0.05;
/// Error of a free-energy difference, kT, up to which it is good.
pub const FREE_ENERGY_GOOD: f64 = 0.1;
/// Error of a free-energy difference, kT, beyond which it is false.
pub const FREE_ENERGY_BAD: f64 = 0.5;
/// Error of an average, in standard deviations of the observable, up to which it is good.
pub const AVERAGE_GOOD: f64 = 0.1;
/// Error of an average, in standard deviations of the observable, beyond which it is false.
pub const AVERAGE_BAD: f64 = 0.5;
/// Effective samples of the target below which nothing is said under its weights.
pub const FEWEST_EFFECTIVE: f64 = 100.0;
/// Effective samples inside a state and outside it below which its free energy is not judged.
pub const FEWEST_IN_STATE: f64 = 10.0;
/// What a quantity alone would have a report called, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// True.
    True,
    /// Rough.
    Rough,
    /// False.
    False,
}

/// One quantity that the verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Criterion {
    /// What it is.
    pub name: String,
    /// Its value with the interval that is judged.
    pub estimate: Estimate,
    /// Unit, empty for a share.
    pub unit: &'static str,
    /// What "true" asks of it, in words; empty where it cannot deny that.
    pub good: String,
    /// What makes the report false, in words; empty where nothing does.
    pub bad: String,
    /// The best level that its interval allows.
    pub best: Level,
    /// The worst level that its interval allows.
    pub worst: Level,
}

/// A quantity that is worse the larger its loss is, known to lie in an interval.
pub(super) struct Loss {
    /// Its ends.
    pub(super) interval: (f64, f64),
    /// Largest loss that is good.
    pub(super) good: f64,
    /// Loss beyond which it is false.
    pub(super) bad: f64,
}

impl Loss {
    fn level(&self, loss: f64) -> Level {
        if loss > self.bad {
            Level::False
        } else if loss <= self.good {
            Level::True
        } else {
            Level::Rough
        }
    }

    /// The best and the worst level that the interval allows. What could not be measured allows everything.
    fn levels(&self) -> (Level, Level) {
        let (low, high) = self.interval;
        if low.is_nan() || high.is_nan() {
            return (Level::True, Level::False);
        }
        (self.level(low), self.level(high))
    }

    /// The criterion, with the words for what is good and for what is false.
    pub(super) fn judged(
        self,
        name: impl Into<String>,
        estimate: Estimate,
        unit: &'static str,
        words: [String; 2],
    ) -> Criterion {
        let (best, worst) = self.levels();
        let [good, bad] = words;
        Criterion {
            name: name.into(),
            estimate,
            unit,
            good,
            bad,
            best,
            worst,
        }
    }
}

/// Samples without a finite log-density make any report false.
pub(super) fn not_finite(count: usize, n: usize) -> Criterion {
    let share = count as f64 / n.max(1) as f64;
    Criterion {
        name: "samples without a finite log-density".into(),
        estimate: Estimate {
            value: share,
            low: share,
            high: share,
        },
        unit: "",
        good: "none".into(),
        bad: "any".into(),
        best: Level::False,
        worst: Level::False,
    }
}

/// The interval of |x|.
pub(super) fn size(x: Estimate) -> (f64, f64) {
    let (low, high) = (x.low.abs().min(x.high.abs()), x.low.abs().max(x.high.abs()));
    let crosses = x.low <= 0.0 && x.high >= 0.0;
    (if crosses { 0.0 } else { low }, high)
}

/// A share in words.
pub(super) fn per_cent(share: f64) -> String {
    format!("{} %", (1e6 * share).round() / 1e4)
}

/// What the gaps say as averages under the proposal.
pub(super) fn under_the_proposal(gaps: &[f64], confidence: f64, seed: u64) -> Vec<Criterion> {
    let n = gaps.len();
    let median = quantile(&sorted(gaps), 0.5);
    let beyond = |size: f64| {
        let off = gaps.iter().filter(|gap| (*gap - median).abs() > size);
        let count = off.count();
        let (low, high) = binomial_interval(count, n, confidence);
        let value = count as f64 / n as f64;
        Estimate { value, low, high }
    };
    let (local, gross) = (beyond(LOCAL), beyond(GROSS));
    let [all, trimmed] = kept(gaps, confidence, seed);
    let none = f64::INFINITY;
    let loss = |interval: (f64, f64), good: f64, bad: f64| Loss {
        interval,
        good,
        bad,
    };
    let lost = |kept: Estimate| (1.0 - kept.high, 1.0 - kept.low);
    vec![
        loss((local.low, local.high), RARE, none).judged(
            format!("samples off by more than {LOCAL} nat"),
            local,
            "",
            [format!("≤ {}", per_cent(RARE)), String::new()],
        ),
        loss((gross.low, gross.high), none, GROSS_SHARE).judged(
            format!("samples off by more than {GROSS} nats"),
            gross,
            "",
            [String::new(), format!("> {}", per_cent(GROSS_SHARE))],
        ),
        loss(lost(all), 1.0 - KEPT_GOOD, none).judged(
            "effective samples kept",
            all,
            "",
            [format!("≥ {}", per_cent(KEPT_GOOD)), String::new()],
        ),
        loss(lost(trimmed), none, 1.0 - KEPT_BAD).judged(
            format!("kept without the largest {} of the weights", per_cent(RARE)),
            trimmed,
            "",
            [String::new(), format!("< {}", per_cent(KEPT_BAD))],
        ),
    ]
}

/// Share of the effective samples that weights e^{−gap} keep, of all samples and without the largest [`RARE`] of the weights.
///
/// The former has a percentile interval over what was drawn. The latter is a trimmed quantity: how many of the samples belong to
/// the largest [`RARE`] of the distribution is a binomial number, which comes on top of the noise of the others. The lower end leaves out
/// a number halfway between the fewest that there can be and the expected one, and the upper end the most: taking the fewest would count
/// the same noise twice, the expected number would not count it. Where there can be none at all, nothing bounds the weights that were not
/// drawn, and the lower end is zero.
fn kept(gaps: &[f64], confidence: f64, seed: u64) -> [Estimate; 2] {
    let n = gaps.len();
    let ascending = sorted(gaps);
    let lowest = ascending[0];
    // The largest weights first.
    let weights: Vec<f64> = ascending.iter().map(|gap| (lowest - gap).exp()).collect();
    let dropped = (RARE * n as f64).round() as u32;
    let (fewest, most) = trimmed_counts(n, confidence);
    let [all, value, low, high] = bootstrap(n, seed, confidence, |counts| {
        [0, dropped, (fewest + dropped) / 2, most]
            .map(|dropped| kish_without(&weights, counts, dropped))
    });
    let trimmed = Estimate {
        value: value.value,
        low: if fewest == 0 { 0.0 } else { low.low },
        high: high.high,
    };
    [all, trimmed]
}

/// The fewest and the most of n samples that belong to the largest [`RARE`] of the distribution, each with the tail of an interval of this
/// confidence.
fn trimmed_counts(n: usize, confidence: f64) -> (u32, u32) {
    let tail = 0.5 * (1.0 - confidence);
    let mut fewest = 0;
    while binomial_cumulative(fewest, n, RARE) <= tail {
        fewest += 1;
    }
    let mut most = fewest;
    while binomial_cumulative(most, n, RARE) < 1.0 - tail {
        most += 1;
    }
    (fewest as u32, most as u32)
}

/// (Σw)²/(n Σw²) of weights in descending order that occur `counts` times, without the first `dropped` of them.
fn kish_without(weights: &[f64], counts: &[u32], dropped: u32) -> f64 {
    let (mut left, mut n, mut first, mut second) = (dropped, 0.0, 0.0, 0.0);
    for (&w, &count) in weights.iter().zip(counts) {
        let out = left.min(count);
        left -= out;
        let c = f64::from(count - out);
        n += c;
        first += c * w;
        second += c * w * w;
    }
    first * first / (n * second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    /// Draws one gap.
    type Gap<'a> = &'a dyn Fn(&mut Stream) -> f64;

    /// What is kept without the largest [`RARE`] of the weights, of 400 000 samples, for which that is known to a part in a thousand.
    fn truth_of_normal(spread: f64) -> f64 {
        let n = 400_000;
        let mut values = vec![0.0; n];
        Stream::new(99, 0, 0).fill_standard_normal(&mut values);
        let gaps: Vec<f64> = values.iter().map(|z: &f64| spread * z).collect();
        let ascending = sorted(&gaps);
        let weights: Vec<f64> = ascending.iter().map(|gap| (-gap).exp()).collect();
        kish_without(&weights, &vec![1; n], (RARE * n as f64) as u32)
    }

    fn truth_of_outliers(share: f64, size: f64) -> f64 {
        let (total, left) = (1.0 - RARE, share - RARE);
        let w = f64::exp(-size);
        let first = 1.0 - share + left * w;
        first * first / (total * (1.0 - share + left * w * w))
    }

    #[test]
    fn intervals_of_what_is_kept_hold_it() {
        let outliers =
            |share: f64| move |s: &mut Stream| if s.uniform() < share { -4.0 } else { 0.0 };
        let normal = |spread: f64| move |s: &mut Stream| spread * s.standard_normal();
        let cases: [(Gap, f64); 4] = [
            (&outliers(0.004), truth_of_outliers(0.004, -4.0)),
            (&outliers(0.0025), truth_of_outliers(0.0025, -4.0)),
            (&normal(0.3), truth_of_normal(0.3)),
            (&normal(1.0), truth_of_normal(1.0)),
        ];
        for (case, (gap, truth)) in cases.into_iter().enumerate() {
            for (n, repeats) in [(400, 100), (2000, 40)] {
                let held = (0..repeats).filter(|&seed| {
                    let mut stream = Stream::new(seed, 5, n);
                    let gaps: Vec<f64> = (0..n).map(|_| gap(&mut stream)).collect();
                    let [_, trimmed] = kept(&gaps, 0.95, seed);
                    trimmed.low <= truth && truth <= trimmed.high
                });
                // 95 % expected, and the trimmed end is on the safe side: two standard errors less is allowed for chance.
                let held = held.count() as f64 / repeats as f64;
                let error = (0.95f64 * 0.05 / repeats as f64).sqrt();
                assert!(
                    held >= 0.95 - 2.0 * error,
                    "case {case}, {n} samples: {held}, truth {truth}"
                );
            }
        }
    }

    #[test]
    fn numbers_of_the_largest_are_binomial() {
        // (1 − 0.002)^n passes 2.5 % at 1843 samples.
        assert_eq!(trimmed_counts(1842, 0.95).0, 0);
        assert_eq!(trimmed_counts(1843, 0.95).0, 1);
        let (fewest, most) = trimmed_counts(4000, 0.95);
        assert!(fewest <= 3 && (13..=15).contains(&most), "{fewest} {most}");
    }
}
