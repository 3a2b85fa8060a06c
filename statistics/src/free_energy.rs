//! Free-energy differences and profiles of weighted samples, with intervals that respect groups and time correlation.

use super::jackknife::student;
use super::wasserstein::MetricError;
use super::weights::normalised;
use boltzmap_kernels::random::{Stream, domain};

/// Seed domain of the bootstrap, so that it shares no numbers with other users of a seed.
const BOOTSTRAP: u64 = domain::FREE_ENERGY_BOOTSTRAP;

/// Whether φ belongs to the positive state, 0 < φ < 2 rad.
pub fn is_positive_state(phi: f64) -> bool {
    phi > 0.0 && phi < 2.0
}

/// ΔF/kT = −ln(Σ w over 0 < φ < 2 / Σ w over the rest); +∞ when the positive state is empty, −∞ when the rest is.
///
/// `log_weights` `[n]`, or `None` for equal weights.
///
/// # Errors
/// Lengths that differ, a φ that is not finite, no positive weight.
pub fn delta_f(phi: &[f64], log_weights: Option<&[f64]>) -> Result<f64, MetricError> {
    let weights = checked_weights(phi, log_weights)?;
    let masses = state_masses(phi, &weights);
    Ok(ratio(masses))
}

/// An estimate with its bootstrap distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// The estimate from all samples.
    pub value: f64,
    /// Standard deviation over the finite replicates, times √(G/(G − 1)) for G blocks, whose mean the replicates scatter about; NaN when
    /// fewer than two are finite, or G is 1.
    pub standard_error: f64,
    /// Lower end of the interval of 95 %: the lower one of two. One is the replicates' 2.5 % quantile, its distance to the value widened as
    /// the standard error is and as Student's interval of G − 1 degrees of freedom is wider than the normal one; the other is Student's
    /// interval of the standard error. −∞ where G is 1.
    pub low: f64,
    /// Upper end: the upper one of the two, likewise from the 97.5 % quantile.
    pub high: f64,
    /// How many replicates had an empty state, and so an infinite ΔF: they count in the quantiles.
    pub infinite: usize,
}

/// [`delta_f`] with a bootstrap over independent samples (drawn with replacement, `replicates` times, seeded).
///
/// # Errors
/// As [`delta_f`], or no replicates.
pub fn delta_f_interval(
    phi: &[f64],
    log_weights: Option<&[f64]>,
    replicates: usize,
    seed: u64,
) -> Result<Interval, MetricError> {
    let groups: Vec<[usize; 2]> = (0..phi.len()).map(|i| [i, i + 1]).collect();
    delta_f_grouped(phi, log_weights, &groups, replicates, seed)
}

/// [`delta_f`] with a block bootstrap: whole blocks of consecutive samples are drawn with replacement.
///
/// `blocks` are the half-open ranges `[start, end)` that partition the samples. For one long series take blocks longer than the
/// correlation time ([`equal_blocks`]); for several independent groups, such as replica-exchange ladders or dynamics from
/// different starts, take one block per group.
///
/// # Errors
/// As [`delta_f`], or no replicates, or a block outside the samples.
pub fn delta_f_grouped(
    phi: &[f64],
    log_weights: Option<&[f64]>,
    blocks: &[[usize; 2]],
    replicates: usize,
    seed: u64,
) -> Result<Interval, MetricError> {
    let weights = checked_weights(phi, log_weights)?;
    if replicates == 0 || blocks.is_empty() {
        return Err(MetricError::Parameter(
            "a bootstrap needs at least one replicate and one block; raise the number asked for"
                .into(),
        ));
    }
    if let Some([start, end]) = blocks
        .iter()
        .find(|[start, end]| start > end || *end > phi.len())
    {
        return Err(MetricError::Parameter(format!(
            "block {start}..{end} reaches outside the {} samples; check the block bounds",
            phi.len()
        )));
    }
    let per_block: Vec<[f64; 2]> = blocks
        .iter()
        .map(|&[start, end]| state_masses(&phi[start..end], &weights[start..end]))
        .collect();
    let mut values: Vec<f64> = (0..replicates)
        .map(|replicate| {
            let mut stream = Stream::new(seed, BOOTSTRAP, replicate as u64);
            let mut sum = [0.0; 2];
            for _ in 0..per_block.len() {
                let [positive, rest] = per_block[stream.below(per_block.len() as u64) as usize];
                sum[0] += positive;
                sum[1] += rest;
            }
            ratio(sum)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let mean = finite.iter().sum::<f64>() / finite.len() as f64;
    let squares: f64 = finite.iter().map(|v| (v - mean).powi(2)).sum();
    // 0/0 where fewer than two replicates are finite: there is no standard error then.
    let variance = squares / finite.len().saturating_sub(1) as f64;
    let value = ratio(state_masses(phi, &weights));
    let blocks = blocks.len() as f64;
    let narrow = (blocks / (blocks - 1.0)).sqrt();
    let widening = narrow * student(blocks - 1.0, 0.95) / student(f64::INFINITY, 0.95);
    let standard_error = match blocks > 1.0 {
        true => variance.sqrt() * narrow,
        false => f64::NAN,
    };
    let half = standard_error * student(blocks - 1.0, 0.95);
    let end = |q: f64, unknown: f64| {
        let at = values[((q * values.len() as f64) as usize).min(values.len() - 1)];
        match blocks > 1.0 {
            true if at.is_finite() && value.is_finite() => value + widening * (at - value),
            true => at,
            false => unknown,
        }
    };
    Ok(Interval {
        value,
        standard_error,
        // Where the half is NaN, the quantile stays.
        low: end(0.025, f64::NEG_INFINITY).min(value - half),
        high: end(0.975, f64::INFINITY).max(value + half),
        infinite: values.len() - finite.len(),
    })
}

/// `count` blocks of nearly equal length that partition `n` samples.
pub fn equal_blocks(n: usize, count: usize) -> Vec<[usize; 2]> {
    let count = count.clamp(1, n.max(1));
    (0..count)
        .map(|k| [k * n / count, (k + 1) * n / count])
        .collect()
}

/// A histogram of `values` over `bins` equal bins of [low, high): the share of the total weight in each, `[bins]`.
///
/// Values outside are left out of the bins but not of the total, so the shares sum to one only if all lie inside.
///
/// # Errors
/// Lengths that differ, values that are not finite, no positive weight.
pub fn histogram(
    values: &[f64],
    log_weights: Option<&[f64]>,
    low: f64,
    high: f64,
    bins: usize,
) -> Result<Vec<f64>, MetricError> {
    let weights = checked_weights(values, log_weights)?;
    let mut shares = vec![0.0; bins];
    for (value, weight) in values.iter().zip(weights) {
        let place = ((value - low) / (high - low) * bins as f64).floor();
        if place >= 0.0 && place < bins as f64 {
            shares[place as usize] += weight;
        }
    }
    Ok(shares)
}

/// −ln(share/largest share) of each bin of a φ histogram over [−π, π), in kT; +∞ for empty bins.
///
/// # Errors
/// As [`histogram`].
pub fn phi_profile(
    phi: &[f64],
    log_weights: Option<&[f64]>,
    bins: usize,
) -> Result<Vec<f64>, MetricError> {
    use std::f64::consts::PI;
    let wrapped: Vec<f64> = phi.iter().map(|&v| crate::angle::wrap(v)).collect();
    let shares = histogram(&wrapped, log_weights, -PI, PI, bins)?;
    let top = shares.iter().copied().fold(0.0, f64::max);
    Ok(shares.iter().map(|s| -(s / top).ln()).collect())
}

/// Jensen–Shannon divergence of two histograms (each normalised here), nats: between 0 and ln 2.
///
/// # Errors
/// Different lengths, negative entries, an all-zero histogram.
pub fn jensen_shannon(p: &[f64], q: &[f64]) -> Result<f64, MetricError> {
    if p.len() != q.len() {
        return Err(MetricError::Shape {
            what: "the second histogram",
            found: q.len(),
            expected: format!("{} bins", p.len()),
        });
    }
    let (total_p, total_q): (f64, f64) = (p.iter().sum(), q.iter().sum());
    let sound = |total: f64| total > 0.0 && total.is_finite();
    if !sound(total_p) || !sound(total_q) || p.iter().chain(q).any(|&v| v < 0.0) {
        return Err(MetricError::Parameter(
            "a histogram is empty or has a negative entry, so its divergence is undefined".into(),
        ));
    }
    let term = |a: f64, b: f64| {
        if a > 0.0 {
            a * (2.0 * a / (a + b)).ln()
        } else {
            0.0
        }
    };
    Ok(p.iter()
        .zip(q)
        .map(|(&a, &b)| {
            let (a, b) = (a / total_p, b / total_q);
            0.5 * (term(a, b) + term(b, a))
        })
        .sum::<f64>()
        .max(0.0))
}

/// Normalised weights for `values`, after the checks that all functions here share.
fn checked_weights(values: &[f64], log_weights: Option<&[f64]>) -> Result<Vec<f64>, MetricError> {
    super::wasserstein::check_finite("the array of values", values)?;
    let Some(log_weights) = log_weights else {
        return Ok(vec![1.0 / values.len() as f64; values.len()]);
    };
    if log_weights.len() != values.len() {
        return Err(MetricError::Shape {
            what: "the array of log-weights",
            found: log_weights.len(),
            expected: format!("{} samples", values.len()),
        });
    }
    normalised(log_weights).ok_or_else(|| {
        MetricError::Parameter(
            "no sample has a positive finite weight, so weighted averages are undefined".into(),
        )
    })
}

fn state_masses(phi: &[f64], weights: &[f64]) -> [f64; 2] {
    let mut masses = [0.0; 2];
    for (&phi, weight) in phi.iter().zip(weights) {
        masses[usize::from(!is_positive_state(phi))] += weight;
    }
    masses
}

fn ratio([positive, rest]: [f64; 2]) -> f64 {
    if rest == 0.0 {
        return f64::NEG_INFINITY;
    }
    -(positive / rest).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delta_f_of_known_masses() {
        let phi = [1.0, -1.0, -2.0, 2.5];
        assert!((delta_f(&phi, None).unwrap() - 3.0f64.ln()).abs() < 1e-15);
        let w = [6.0f64.ln(), 0.0, 0.0, 0.0];
        assert!((delta_f(&phi, Some(&w)).unwrap() + 2.0f64.ln()).abs() < 1e-15);
        assert_eq!(delta_f(&[-1.0], None).unwrap(), f64::INFINITY);
        assert_eq!(delta_f(&[1.0], None).unwrap(), f64::NEG_INFINITY);
        assert!(delta_f(&[1.0], Some(&[f64::NEG_INFINITY])).is_err());
        assert!(delta_f(&[1.0, 2.0], Some(&[0.0])).is_err());
        assert!(delta_f(&[f64::NAN], None).is_err());
    }

    #[test]
    fn an_empty_state_has_no_standard_error() {
        let found = delta_f_interval(&[-1.0, -2.0, -0.5], None, 50, 1).unwrap();
        assert_eq!(found.value, f64::INFINITY);
        assert!(found.standard_error.is_nan());
        assert_eq!(found.infinite, 50);
    }

    /// Replicates of two blocks scatter too little by √2, and Student's interval of one degree of freedom is 6.48 times the normal one.
    #[test]
    fn few_blocks_make_wide_intervals() {
        let phi: Vec<f64> = (0..200)
            .map(|i| match i < 100 {
                true if i % 4 == 0 => 1.0,
                false if i % 2 == 0 => 1.0,
                _ => -1.0,
            })
            .collect();
        let found = delta_f_grouped(&phi, None, &equal_blocks(200, 2), 4000, 3).unwrap();
        // Half of the replicates hold both blocks, a quarter each one twice: ΔF of ¼, ½ and ⅜.
        let [a, b, both] = [0.25f64, 0.5, 0.375].map(|p| -(p / (1.0 - p)).ln());
        assert!((found.value - both).abs() < 1e-12);
        let mean = (a + b + 2.0 * both) / 4.0;
        let variance = [a, b, both, both].map(|v| (v - mean).powi(2) / 4.0);
        let expected = (2.0 * variance.iter().sum::<f64>()).sqrt();
        assert!((found.standard_error / expected - 1.0).abs() < 0.03);
        // Of the two intervals, Student's is the wider one to either side.
        let half = 12.7062 * found.standard_error;
        assert!(
            (found.low - (both - half)).abs() < 1e-3 && (found.high - (both + half)).abs() < 1e-3
        );
        // One block tells nothing of an error, and does not say that there is none.
        let one = delta_f_grouped(&phi, None, &[[0, 200]], 100, 3).unwrap();
        assert!(one.standard_error.is_nan() && one.high == f64::INFINITY);
        assert_eq!(one.low, f64::NEG_INFINITY);
    }

    #[test]
    fn bootstrap_error_of_a_binomial_share() {
        // Share p of n samples: the standard error of logit(p) is 1/√(n p (1−p)).
        let n = 4000;
        let phi: Vec<f64> = (0..n)
            .map(|i| if i % 5 == 0 { 1.0 } else { -1.0 })
            .collect();
        let found = delta_f_interval(&phi, None, 400, 7).unwrap();
        let expected = 1.0 / (n as f64 * 0.2 * 0.8).sqrt();
        assert!((found.value - 4.0f64.ln()).abs() < 1e-12);
        // 400 replicates fix a standard deviation to 3.5 %.
        assert!(
            (found.standard_error / expected - 1.0).abs() < 0.15,
            "{} {expected}",
            found.standard_error
        );
        assert!(found.low < found.value && found.value < found.high && found.infinite == 0);
        assert_eq!(found, delta_f_interval(&phi, None, 400, 7).unwrap());
        // The same samples in runs of 50 are fifty times fewer independent ones: the error grows by √50.
        let runs: Vec<f64> = (0..n)
            .map(|i| if (i / 50) % 5 == 0 { 1.0 } else { -1.0 })
            .collect();
        let blocked = delta_f_grouped(&runs, None, &equal_blocks(n, 80), 400, 7).unwrap();
        assert!((blocked.standard_error / (expected * 50f64.sqrt()) - 1.0).abs() < 0.25);
        assert!(delta_f_grouped(&phi, None, &[[0, n + 1]], 10, 1).is_err());
    }

    #[test]
    fn histograms_and_divergence() {
        let shares = histogram(&[0.1, 0.1, 0.9, 5.0], None, 0.0, 1.0, 2).unwrap();
        assert_eq!(shares, [0.5, 0.25]);
        let profile = phi_profile(&[-1.0, -1.0, 1.0 + std::f64::consts::TAU], None, 2).unwrap();
        assert!(profile[0] == 0.0 && (profile[1] - 2.0f64.ln()).abs() < 1e-15);
        assert_eq!(jensen_shannon(&[1.0, 2.0], &[2.0, 4.0]).unwrap(), 0.0);
        assert!((jensen_shannon(&[1.0, 0.0], &[0.0, 3.0]).unwrap() - 2.0f64.ln()).abs() < 1e-15);
        // p = (½, ½), q = (1, 0): ½[½ ln(2/3) + ½ ln 2] + ½ ln(4/3).
        let expected = 0.25 * (2.0f64 / 3.0).ln() + 0.25 * 2.0f64.ln() + 0.5 * (4.0f64 / 3.0).ln();
        assert!((jensen_shannon(&[1.0, 1.0], &[1.0, 0.0]).unwrap() - expected).abs() < 1e-15);
        assert!(jensen_shannon(&[0.0], &[1.0]).is_err());
    }
}
