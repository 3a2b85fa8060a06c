//! How far reported log-densities are from the truth: bias, spread, rank correlation and what weights lose, each with a
//! bootstrap interval.

use boltzmap_kernels::random::{Stream, domain};
use rayon::prelude::*;
use serde::Serialize;

/// Stream domain of the bootstrap.
const DOMAIN_BOOTSTRAP: u64 = domain::VERIFICATION_BOOTSTRAP;
/// Bootstrap replicates: enough for the 2.5 % and 97.5 % quantiles to be stable to a few per cent of the interval.
const REPLICATES: usize = 1000;
/// Confidence of intervals that only describe.
const SHOWN: f64 = 0.95;

/// A number with its interval: percentiles of the bootstrap over samples, at 95 % unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// From all samples.
    pub value: f64,
    /// Lower end: the 2.5 % quantile of the replicates at 95 %.
    pub low: f64,
    /// Upper end: the 97.5 % quantile of the replicates at 95 %.
    pub high: f64,
}

impl Estimate {
    /// No estimate.
    pub const NONE: Estimate = Estimate {
        value: f64::NAN,
        low: f64::NAN,
        high: f64::NAN,
    };

    /// Half the width of the interval.
    pub fn half_width(&self) -> f64 {
        0.5 * (self.high - self.low)
    }
}

/// Quantiles of a set of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// 5 %.
    pub low: f64,
    /// 25 %.
    pub quarter: f64,
    /// 50 %.
    pub median: f64,
    /// 75 %.
    pub three_quarters: f64,
    /// 95 %.
    pub high: f64,
    /// The largest.
    pub largest: f64,
}

impl Quantiles {
    /// Of the finite ones among `values`; NaN where there are none.
    pub fn of(values: &[f64]) -> Quantiles {
        let sorted = sorted(values);
        let at = |fraction| quantile(&sorted, fraction);
        Quantiles {
            low: at(0.05),
            quarter: at(0.25),
            median: at(0.5),
            three_quarters: at(0.75),
            high: at(0.95),
            largest: at(1.0),
        }
    }
}

impl Quantiles {
    /// Those of the values times a positive factor.
    pub fn scaled(&self, factor: f64) -> Quantiles {
        Quantiles {
            low: factor * self.low,
            quarter: factor * self.quarter,
            median: factor * self.median,
            three_quarters: factor * self.three_quarters,
            high: factor * self.high,
            largest: factor * self.largest,
        }
    }
}

/// The finite values in ascending order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// A quantile of ascending values, interpolated; NaN of none.
pub fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = fraction.clamp(0.0, 1.0) * last as f64;
    let below = place as usize;
    let above = (below + 1).min(last);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

/// Reported log-densities against the truth at the same samples, drawn from the density that the truth belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Samples compared.
    pub samples: usize,
    /// Samples left out because one of the two numbers was not finite.
    pub not_finite: usize,
    /// Mean of reported − true, nats.
    pub bias: Estimate,
    /// Standard deviation of reported − true, nats.
    pub spread: Estimate,
    /// Spearman's rank correlation.
    pub rank: Estimate,
    /// Share of the effective samples that remains when weights 1/q use the reported density instead of the true one: Kish's
    /// (Σw)²/(n Σw²) of w = exp(true − reported). It is e^{−spread²} for a Gaussian difference, whatever the bias. It hangs on the
    /// largest weights, and its interval knows nothing of those that were not drawn, so no verdict rests on it alone.
    pub retained: Estimate,
    /// Quantiles of reported − true, nats.
    pub quantiles: Quantiles,
    /// The smallest reported − true, nats.
    pub smallest: f64,
}

impl Comparison {
    /// The largest |reported − true|, nats.
    pub fn largest_size(&self) -> f64 {
        self.quantiles.largest.abs().max(self.smallest.abs())
    }
}

/// Compares two sets of log-densities of the same samples.
///
/// # Panics
/// If their lengths differ.
pub fn compare(reported: &[f64], truth: &[f64], seed: u64) -> Comparison {
    assert_eq!(reported.len(), truth.len(), "one truth per reported value");
    let given = reported.len();
    let (reported, truth): (Vec<f64>, Vec<f64>) = reported
        .iter()
        .zip(truth)
        .filter(|(reported, truth)| reported.is_finite() && truth.is_finite())
        .unzip();
    let gaps: Vec<f64> = reported.iter().zip(&truth).map(|(r, t)| r - t).collect();
    let ranks = [Order::of(&reported), Order::of(&truth)];
    let lowest = gaps.iter().copied().fold(f64::INFINITY, f64::min);
    let weights: Vec<f64> = gaps.iter().map(|gap| (lowest - gap).exp()).collect();
    let statistics = |counts: &[u32]| {
        let moments = moments(&gaps, counts);
        [
            moments[0],
            moments[1],
            correlation(&ranks[0].ranks(counts), &ranks[1].ranks(counts), counts),
            kish(&weights, counts),
        ]
    };
    let [bias, spread, rank, retained] = bootstrap(gaps.len(), seed, SHOWN, statistics);
    Comparison {
        samples: gaps.len(),
        not_finite: given - gaps.len(),
        bias,
        spread,
        rank,
        retained,
        quantiles: Quantiles::of(&gaps),
        smallest: gaps.iter().copied().reduce(f64::min).unwrap_or(f64::NAN),
    }
}

/// Kish's normalised effective sample size of log-weights with its interval.
pub fn effective_share(log_weights: &[f64], seed: u64) -> Estimate {
    let top = log_weights
        .iter()
        .copied()
        .filter(|w| w.is_finite())
        .fold(f64::NEG_INFINITY, f64::max);
    // A weight of −∞ is zero; NaN would poison the sums and is none either.
    let weights: Vec<f64> = log_weights
        .iter()
        .map(|w| if w.is_finite() { (w - top).exp() } else { 0.0 })
        .collect();
    bootstrap(weights.len(), seed, SHOWN, |counts| {
        [kish(&weights, counts)]
    })[0]
}

/// Mean with its interval.
pub fn mean(values: &[f64], seed: u64) -> Estimate {
    bootstrap(values.len(), seed, SHOWN, |counts| {
        [moments(values, counts)[0]]
    })[0]
}

/// Statistics of all samples and of replicates that draw them with replacement. `statistics` gets how often each sample
/// occurs. The ends are percentiles of the replicates, which hold what samples show and nothing of what was never drawn.
pub(super) fn bootstrap<const N: usize>(
    n: usize,
    seed: u64,
    confidence: f64,
    statistics: impl Fn(&[u32]) -> [f64; N] + Sync,
) -> [Estimate; N] {
    if n == 0 {
        return [Estimate::NONE; N];
    }
    let values = statistics(&vec![1; n]);
    let replicates: Vec<[f64; N]> = (0..REPLICATES as u64)
        .into_par_iter()
        .map(|replicate| {
            let mut stream = Stream::new(seed, DOMAIN_BOOTSTRAP, replicate);
            let mut counts = vec![0; n];
            for _ in 0..n {
                counts[stream.below(n as u64) as usize] += 1;
            }
            statistics(&counts)
        })
        .collect();
    std::array::from_fn(|k| {
        let draws: Vec<f64> = replicates.iter().map(|r| r[k]).collect();
        let draws = sorted(&draws);
        Estimate {
            value: values[k],
            low: quantile(&draws, 0.5 * (1.0 - confidence)),
            high: quantile(&draws, 0.5 * (1.0 + confidence)),
        }
    })
}

/// Mean and standard deviation (with n − 1) of values that occur `counts` times.
fn moments(values: &[f64], counts: &[u32]) -> [f64; 2] {
    let n: f64 = counts.iter().map(|&c| f64::from(c)).sum();
    let sum = |f: &dyn Fn(f64) -> f64| -> f64 {
        values
            .iter()
            .zip(counts)
            .map(|(&v, &c)| f64::from(c) * f(v))
            .sum()
    };
    let mean = sum(&|v| v) / n;
    let variance = sum(&|v| (v - mean).powi(2)) / (n - 1.0);
    [mean, variance.sqrt()]
}

/// (Σw)²/(n Σw²) of weights that occur `counts` times.
fn kish(weights: &[f64], counts: &[u32]) -> f64 {
    let (mut n, mut first, mut second) = (0.0, 0.0, 0.0);
    for (&w, &c) in weights.iter().zip(counts) {
        let c = f64::from(c);
        n += c;
        first += c * w;
        second += c * w * w;
    }
    first * first / (n * second)
}

/// The ascending order of values, with runs of equal ones.
struct Order {
    /// Indices in ascending order of their values.
    order: Vec<usize>,
    /// Where each run of equal values ends.
    ends: Vec<usize>,
}

impl Order {
    fn of(values: &[f64]) -> Order {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let ends = (1..=order.len())
            .filter(|&i| i == order.len() || values[order[i]] != values[order[i - 1]])
            .collect();
        Order { order, ends }
    }

    /// Rank of every value when values occur `counts` times, equal ones sharing their mean rank.
    fn ranks(&self, counts: &[u32]) -> Vec<f64> {
        let mut ranks = vec![0.0; self.order.len()];
        let (mut start, mut before) = (0, 0.0);
        for &end in &self.ends {
            let run = &self.order[start..end];
            let occurring: f64 = run.iter().map(|&i| f64::from(counts[i])).sum();
            for &i in run {
                ranks[i] = before + 0.5 * (occurring + 1.0);
            }
            before += occurring;
            start = end;
        }
        ranks
    }
}

/// Pearson's correlation of pairs that occur `counts` times; NaN where one side is constant.
fn correlation(a: &[f64], b: &[f64], counts: &[u32]) -> f64 {
    let n: f64 = counts.iter().map(|&c| f64::from(c)).sum();
    let mean = |values: &[f64]| -> f64 {
        values
            .iter()
            .zip(counts)
            .map(|(v, &c)| f64::from(c) * v)
            .sum::<f64>()
            / n
    };
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for ((a, b), &c) in a.iter().zip(b).zip(counts) {
        let (a, b, c) = (a - mean_a, b - mean_b, f64::from(c));
        ab += c * a * b;
        aa += c * a * a;
        bb += c * b * b;
    }
    if aa > 0.0 && bb > 0.0 {
        ab / (aa.sqrt() * bb.sqrt())
    } else {
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normals(n: usize, seed: u64) -> Vec<f64> {
        let mut values = vec![0.0; n];
        Stream::new(seed, 0, 0).fill_standard_normal(&mut values);
        values
    }

    fn holds(estimate: Estimate, value: f64) -> bool {
        (estimate.low..=estimate.high).contains(&value)
    }

    #[test]
    fn a_gaussian_difference_gives_its_closed_forms() {
        let truth = normals(20_000, 1);
        let (bias, sigma) = (0.4, 0.7);
        let noise = normals(20_000, 2);
        let reported: Vec<f64> = truth
            .iter()
            .zip(&noise)
            .map(|(t, z)| t + bias + sigma * z)
            .collect();
        let found = compare(&reported, &truth, 3);
        assert!(holds(found.bias, bias), "{:?}", found.bias);
        assert!(holds(found.spread, sigma), "{:?}", found.spread);
        assert!(
            holds(found.retained, (-sigma * sigma).exp()),
            "{:?}",
            found.retained
        );
        // Spearman's correlation of a bivariate normal is (6/π) asin(ρ/2), here with ρ = 1/√(1 + σ²).
        let rho = 1.0 / (1.0 + sigma * sigma).sqrt();
        let expected = 6.0 / std::f64::consts::PI * (rho / 2.0).asin();
        assert!(holds(found.rank, expected), "{:?} {expected}", found.rank);
        // Standard errors σ/√n and σ/√(2n); the interval is 1.96 of them on each side.
        for (estimate, error) in [
            (found.bias, sigma / 20_000f64.sqrt()),
            (found.spread, sigma / 40_000f64.sqrt()),
        ] {
            let ratio = estimate.half_width() / (1.96 * error);
            assert!((0.9..1.1).contains(&ratio), "{ratio}");
        }
        let expected = bias + 1.6449 * sigma;
        assert!((found.quantiles.high - expected).abs() < 0.02);
    }

    #[test]
    fn intervals_hold_the_truth_about_nineteen_times_in_twenty() {
        let held = (0..200)
            .filter(|&seed| holds(mean(&normals(200, 100 + seed), seed), 0.0))
            .count();
        assert!((180..=198).contains(&held), "{held}");
    }

    #[test]
    fn an_exact_report_is_exact() {
        let truth = normals(100, 4);
        let found = compare(&truth, &truth, 0);
        assert_eq!((found.bias.value, found.spread.value), (0.0, 0.0));
        assert!((found.rank.value - 1.0).abs() < 1e-12 && found.retained.value == 1.0);
        let shifted: Vec<f64> = truth.iter().map(|t| t - 2.5).collect();
        let found = compare(&shifted, &truth, 0);
        assert!((found.bias.value + 2.5).abs() < 1e-12 && found.spread.value < 1e-12);
        assert!((found.retained.value - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_finite_is_counted_and_left_out() {
        let found = compare(
            &[0.0, f64::NAN, 1.0, f64::NEG_INFINITY],
            &[0.0, 1.0, 1.0, 1.0],
            0,
        );
        assert_eq!((found.samples, found.not_finite), (2, 2));
        assert!(compare(&[], &[], 0).bias.value.is_nan());
    }

    #[test]
    fn weights_of_two_samples() {
        // Weights 1 and 2: 9/(2·5).
        let share = effective_share(&[0.0, 2f64.ln()], 0);
        assert!((share.value - 0.9).abs() < 1e-15);
        let share = effective_share(&[f64::NEG_INFINITY, 700.0], 0);
        assert_eq!(share.value, 0.5);
    }

    #[test]
    fn quantiles_interpolate() {
        let values = Quantiles::of(&[4.0, 1.0, f64::NAN, 2.0, 3.0, 5.0]);
        assert_eq!(
            (values.median, values.quarter, values.largest),
            (3.0, 2.0, 5.0)
        );
        assert!((values.low - 1.2).abs() < 1e-15);
        assert!(Quantiles::of(&[]).median.is_nan());
    }

    /// Ranks by counting, the definition.
    fn slow_ranks(values: &[f64]) -> Vec<f64> {
        values
            .iter()
            .map(|v| {
                let below = values.iter().filter(|w| *w < v).count() as f64;
                let equal = values.iter().filter(|w| *w == v).count() as f64;
                below + 0.5 * (equal + 1.0)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn counted_ranks_are_those_of_the_repeated_values(
            values in prop::collection::vec(0u8..6, 1..20),
            picks in prop::collection::vec(0usize..1000, 1..30),
        ) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let mut counts = vec![0u32; values.len()];
            let mut drawn = Vec::new();
            for pick in picks {
                counts[pick % values.len()] += 1;
                drawn.push(pick % values.len());
            }
            let repeated: Vec<f64> = drawn.iter().map(|&i| values[i]).collect();
            let ranks = Order::of(&values).ranks(&counts);
            for (i, expected) in drawn.iter().zip(slow_ranks(&repeated)) {
                prop_assert_eq!(ranks[*i], expected);
            }
        }
    }
}
