//! What changes when the same samples carry other weights, and shares of counted events, each with an interval that covers.
//!
//! Two sets of log-weights of the same n samples, such as exp(−E/kT)/q with an exact q and with a reported one, give two averages. Most
//! of their sampling noise is common and drops out of the difference, so its interval is far narrower than that of either. All of it
//! follows from influences ψ_i, the first-order change of the difference with the weight of sample i: the standard error is
//! √(n/(n−1) Σ ψ_i²), and the interval is Student's. Its degrees of freedom are those of the effective samples less one, the fewest of any sum
//! involved, or those that Satterthwaite's rule finds in the fourth powers of the influences, whichever are fewer. That is what lets it
//! cover where a few heavy samples carry an average; where the influences are skewed, the interval also reaches farther on the side of the
//! tail. Fewer than two effective samples give an infinite interval.

use serde::Serialize;

use super::wasserstein::{MetricError, check_finite};
use super::weights::{effective_sample_size, log_sum_exp, normalised};

/// A number with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Lower end of the interval; −∞ where there are too few effective samples to tell.
    pub low: f64,
    /// Upper end of the interval; +∞ where there are too few effective samples to tell.
    pub high: f64,
    /// Kish's effective number of samples behind it, the fewest of any weighted sum in it.
    pub effective_samples: f64,
}

impl Difference {
    /// From influences that sum to zero.
    fn of(value: f64, influences: &[f64], effective_samples: f64, confidence: f64) -> Difference {
        let n = influences.len() as f64;
        let squares: f64 = influences.iter().map(|psi| psi * psi).sum();
        let standard_error = (n / (n - 1.0) * squares).sqrt();
        // Degrees of freedom by Satterthwaite: 2 s⁴/Var(s²), which is n for normal influences.
        let fourth: f64 = influences.iter().map(|psi| psi.powi(4)).sum();
        let spread = fourth - squares * squares / n;
        let of_influences = if spread > 0.0 {
            2.0 * squares * squares / spread
        } else {
            f64::INFINITY
        };
        let freedom = (effective_samples - 1.0).min(of_influences);
        let (low, high) = if !value.is_finite() {
            (value, value)
        } else if freedom < 1.0 {
            (f64::NEG_INFINITY, f64::INFINITY)
        } else {
            let half = student_quantile(confidence, freedom) * standard_error;
            let skewed = skewness_shift(influences, squares, confidence) * standard_error;
            (
                value - half + skewed.min(0.0),
                value + half + skewed.max(0.0),
            )
        };
        Difference {
            value,
            standard_error,
            low,
            high,
            effective_samples,
        }
    }
}

/// How far the interval reaches farther out on the side of the long tail, in standard errors: the second-order term γ(2z² + 1)/6 of
/// the quantiles of a studentised mean, with the skewness γ = Σψ³/(Σψ²)^{3/2} of the sum. The other end is left where it is.
fn skewness_shift(influences: &[f64], squares: f64, confidence: f64) -> f64 {
    if squares <= 0.0 {
        return 0.0;
    }
    let cubes: f64 = influences.iter().map(|psi| psi.powi(3)).sum();
    let z = student_quantile(confidence, 1e9);
    cubes / squares.powf(1.5) * (2.0 * z * z + 1.0) / 6.0
}

/// ⟨f⟩ = Σ w f / Σ w with its interval, which holds with probability `confidence`.
///
/// # Errors
/// Lengths that differ, a value that is not finite, no positive weight.
pub fn weighted_average(
    values: &[f64],
    log_weights: &[f64],
    confidence: f64,
) -> Result<Difference, MetricError> {
    let weights = checked(values.len(), log_weights)?;
    check_finite("the array of values", values)?;
    let average = dot(&weights, values);
    let influences: Vec<f64> = weights
        .iter()
        .zip(values)
        .map(|(w, f)| w * (f - average))
        .collect();
    let effective = effective_sample_size(log_weights);
    Ok(Difference::of(average, &influences, effective, confidence))
}

/// ⟨f⟩ under the weights `to` less ⟨f⟩ under the weights `from`, in units of f, with its paired interval.
///
/// `values` `[n]`, log-weights `[n]` each, of the same samples. ψ_i = w′_i (f_i − ⟨f⟩′) − w_i (f_i − ⟨f⟩), weights normalised.
///
/// # Errors
/// Lengths that differ, a value that is not finite, no positive weight.
pub fn difference_of_averages(
    values: &[f64],
    from: &[f64],
    to: &[f64],
    confidence: f64,
) -> Result<Difference, MetricError> {
    let (before, after) = (checked(values.len(), from)?, checked(values.len(), to)?);
    check_finite("the array of values", values)?;
    let (first, second) = (dot(&before, values), dot(&after, values));
    let influences: Vec<f64> = (0..values.len())
        .map(|i| after[i] * (values[i] - second) - before[i] * (values[i] - first))
        .collect();
    let effective = effective_sample_size(from).min(effective_sample_size(to));
    Ok(Difference::of(
        second - first,
        &influences,
        effective,
        confidence,
    ))
}

/// ΔF/kT under the weights `to` less ΔF/kT under the weights `from`, with its paired interval. ΔF/kT = −ln(Σ w over the state / Σ w over
/// the rest), the sign of [`delta_f`](super::delta_f): positive where `to` makes the state rarer.
///
/// `in_state` `[n]`, log-weights `[n]` each, of the same samples. With weights a normalised inside the state and b inside the rest,
/// ψ_i = (b′_i − b_i) − (a′_i − a_i). The effective samples are those of the state or of the rest, whichever are fewer.
///
/// # Errors
/// Lengths that differ, or a state or rest without weight: there is no ΔF then.
pub fn difference_of_free_energies(
    in_state: &[bool],
    from: &[f64],
    to: &[f64],
    confidence: f64,
) -> Result<Difference, MetricError> {
    checked(in_state.len(), from)?;
    checked(in_state.len(), to)?;
    let mut influences = vec![0.0; in_state.len()];
    let mut effective = f64::INFINITY;
    let mut free_energies = [0.0; 2];
    for (side, sign) in [(true, -1.0), (false, 1.0)] {
        for (k, (log_weights, step)) in [(from, -1.0), (to, 1.0)].into_iter().enumerate() {
            let part: Vec<f64> = log_weights
                .iter()
                .zip(in_state)
                .map(|(v, inside)| {
                    if *inside == side {
                        *v
                    } else {
                        f64::NEG_INFINITY
                    }
                })
                .collect();
            let weights = normalised(&part).ok_or_else(|| {
                MetricError::Parameter(
                    "the state or the rest carries no weight, so their free energies have no difference; draw more samples".into(),
                )
            })?;
            free_energies[k] += sign * log_sum_exp(&part);
            effective = effective.min(effective_sample_size(&part));
            influences
                .iter_mut()
                .zip(&weights)
                .for_each(|(psi, w)| *psi += sign * step * w);
        }
    }
    let value = free_energies[1] - free_energies[0];
    Ok(Difference::of(value, &influences, effective, confidence))
}

/// Share of the effective samples of the weighted ensemble `from` that is left when each of its members is weighted by w′/w:
/// (Σ w′)²/(Σ w · Σ w′²/w), with its interval. It is 1 where the two sets of weights are proportional, and e^{−σ²} where ln(w′/w) is normal
/// with standard deviation σ under `from`.
///
/// # Errors
/// Lengths that differ, no positive weight, or a sample with weight in `to` and none in `from`.
pub fn retained_share(
    from: &[f64],
    to: &[f64],
    confidence: f64,
) -> Result<Difference, MetricError> {
    let (before, after) = (checked(to.len(), from)?, checked(to.len(), to)?);
    if before
        .iter()
        .zip(&after)
        .any(|(w, v)| *w == 0.0 && *v > 0.0)
    {
        return Err(MetricError::Parameter(
            "a sample has weight in the second set of log-weights and none in the first; leave it out of both".into(),
        ));
    }
    let square: Vec<f64> = from
        .iter()
        .zip(to)
        .map(|(from, to)| match *to == f64::NEG_INFINITY {
            true => f64::NEG_INFINITY,
            false => 2.0 * to - from,
        })
        .collect();
    let shares = checked(to.len(), &square)?;
    let log_share = 2.0 * log_sum_exp(to) - log_sum_exp(from) - log_sum_exp(&square);
    let influences: Vec<f64> = (0..to.len())
        .map(|i| 2.0 * after[i] - before[i] - shares[i])
        .collect();
    let effective = [from, to, &square]
        .map(effective_sample_size)
        .into_iter()
        .fold(f64::INFINITY, f64::min);
    let log = Difference::of(log_share, &influences, effective, confidence);
    Ok(Difference {
        value: log.value.exp(),
        standard_error: log.value.exp() * log.standard_error,
        low: log.low.exp(),
        high: log.high.exp().min(1.0),
        effective_samples: effective,
    })
}

/// Clopper and Pearson's interval of a probability of which `successes` of `n` independent trials are known: it holds with at least the
/// probability `confidence`, however rare the event. Of none in n trials the upper end is 1 − ((1 − confidence)/2)^{1/n}, close to 3.7/n at
/// 95 %: what was never seen can still be that frequent.
pub fn binomial_interval(successes: usize, n: usize, confidence: f64) -> (f64, f64) {
    let tail = 0.5 * (1.0 - confidence);
    let at_most = |count: usize, p: f64| binomial_cumulative(count, n, p);
    let low = match successes {
        0 => 0.0,
        _ => bisect(|p| 1.0 - at_most(successes - 1, p) < tail),
    };
    let high = match successes >= n {
        true => 1.0,
        false => bisect(|p| at_most(successes, p) > tail),
    };
    (low, high)
}

/// Where a condition that holds near 0 and not near 1 ceases to hold.
fn bisect(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Probability of at most `count` successes in `n` trials of probability `p`.
pub fn binomial_cumulative(count: usize, n: usize, p: f64) -> f64 {
    if count >= n || p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    let odds = p.ln() - (-p).ln_1p();
    let mut log_term = n as f64 * (-p).ln_1p();
    let mut terms = Vec::with_capacity(count + 1);
    terms.push(log_term);
    for k in 0..count {
        log_term += ((n - k) as f64 / (k + 1) as f64).ln() + odds;
        terms.push(log_term);
    }
    log_sum_exp(&terms).exp().min(1.0)
}

/// t with P(|T| ≤ t) = `confidence` for Student's distribution with `freedom` ≥ 1 degrees of freedom; infinite for fewer.
///
/// With T = √ν tan θ the density of θ is proportional to cos^{ν−1} θ, which is summed on a grid.
pub fn student_quantile(confidence: f64, freedom: f64) -> f64 {
    const POINTS: usize = 8192;
    if freedom.is_nan() || freedom < 1.0 || confidence >= 1.0 {
        return f64::INFINITY;
    }
    // Beyond, the density is below e^{−70} of its largest.
    let end = std::f64::consts::FRAC_PI_2.min(12.0 / freedom.sqrt());
    let at = |k: usize| end * k as f64 / POINTS as f64;
    let density = |k: usize| at(k).cos().max(0.0).powf(freedom - 1.0);
    let mut sums = vec![0.0; POINTS + 1];
    for k in 1..=POINTS {
        sums[k] = sums[k - 1] + 0.5 * (density(k - 1) + density(k));
    }
    let wanted = confidence.max(0.0) * sums[POINTS];
    let above = sums.partition_point(|&sum| sum < wanted).clamp(1, POINTS);
    let step = (wanted - sums[above - 1]) / (sums[above] - sums[above - 1]);
    let angle = at(above - 1) + step * (at(above) - at(above - 1));
    freedom.sqrt() * angle.tan()
}

fn dot(weights: &[f64], values: &[f64]) -> f64 {
    weights.iter().zip(values).map(|(w, f)| w * f).sum()
}

/// Normalised weights of n samples.
fn checked(n: usize, log_weights: &[f64]) -> Result<Vec<f64>, MetricError> {
    if log_weights.len() != n {
        return Err(MetricError::Shape {
            what: "the array of log-weights",
            found: log_weights.len(),
            expected: format!("{n} samples"),
        });
    }
    normalised(log_weights).ok_or_else(|| {
        MetricError::Parameter(
            "no sample has a positive finite weight, so weighted averages are undefined".into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::delta_f;
    use super::*;
    use boltzmap_kernels::random::Stream;

    #[test]
    fn student_quantiles_of_tables() {
        for (confidence, freedom, expected) in [
            (0.95, 1.0, 12.7062),
            (0.95, 2.0, 4.30265),
            (0.95, 10.0, 2.22814),
            (0.99, 5.0, 4.03214),
            (0.95, 1000.0, 1.96234),
            (0.95, 1e7, 1.95996),
        ] {
            let found = student_quantile(confidence, freedom);
            assert!((found / expected - 1.0).abs() < 1e-5, "{freedom}: {found}");
        }
        assert_eq!(student_quantile(0.95, 0.5), f64::INFINITY);
    }

    #[test]
    fn binomial_intervals_of_tables() {
        // Of none in n the upper end has a closed form.
        let (low, high) = binomial_interval(0, 400, 0.95);
        assert_eq!(low, 0.0);
        assert!((high - (1.0 - 0.025f64.powf(1.0 / 400.0))).abs() < 1e-12);
        // 4 of 10 at 95 %: 0.1216 to 0.7376.
        let (low, high) = binomial_interval(4, 10, 0.95);
        assert!(
            (low - 0.12155).abs() < 1e-5 && (high - 0.73762).abs() < 1e-5,
            "{low} {high}"
        );
        let (low, high) = binomial_interval(10, 10, 0.95);
        assert!((low - 0.025f64.powf(0.1)).abs() < 1e-12 && high == 1.0);
        // 8000 of 16000: normal approximation.
        let (low, high) = binomial_interval(8000, 16_000, 0.95);
        assert!(
            (low - 0.49222).abs() < 1e-4 && (high - 0.50778).abs() < 1e-4,
            "{low} {high}"
        );
    }

    #[test]
    fn values_are_those_of_the_two_estimates() {
        let phi = [1.0, -1.0, -2.0, 0.5, 2.5];
        let from = [0.3, -0.4, 1.0, 0.0, f64::NEG_INFINITY];
        let to = [1.3, -0.2, 0.7, 0.1, f64::NEG_INFINITY];
        let in_state: Vec<bool> = phi.iter().map(|&p| p > 0.0 && p < 2.0).collect();
        let found = difference_of_free_energies(&in_state, &from, &to, 0.95).unwrap();
        let expected = delta_f(&phi, Some(&to)).unwrap() - delta_f(&phi, Some(&from)).unwrap();
        assert!(
            (found.value - expected).abs() < 1e-12,
            "{found:?} {expected}"
        );
        let average = |w: &[f64]| weighted_average(&phi, w, 0.95).unwrap().value;
        let found = difference_of_averages(&phi, &from, &to, 0.95).unwrap();
        assert!((found.value - (average(&to) - average(&from))).abs() < 1e-12);
        // A constant cancels in everything.
        let shifted: Vec<f64> = from.iter().map(|v| v - 900.0).collect();
        let same = difference_of_averages(&phi, &from, &shifted, 0.95).unwrap();
        assert!(same.value.abs() < 1e-12 && same.standard_error < 1e-12);
        let kept = retained_share(&from, &shifted, 0.95).unwrap();
        assert!((kept.value - 1.0).abs() < 1e-12);
        // Weights 1, 1 to 1, 3: 16/(2·10).
        let kept = retained_share(&[0.0, 0.0], &[0.0, 3f64.ln()], 0.95).unwrap();
        assert!((kept.value - 0.8).abs() < 1e-12);
        assert!(difference_of_free_energies(&[true; 5], &from, &to, 0.95).is_err());
        assert!(difference_of_averages(&phi, &from, &to[..2], 0.95).is_err());
        assert!(retained_share(&[f64::NEG_INFINITY, 0.0], &[0.0, 0.0], 0.95).is_err());
    }

    /// Samples whose log-weights are normal with `spread`; a tenth are in a state, where `to` is off by −`shift` and by noise.
    fn drawn(n: usize, seed: u64, spread: f64, shift: f64) -> [Vec<f64>; 3] {
        let mut stream = Stream::new(seed, 7, 0);
        let mut values = Vec::new();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let inside = stream.uniform() < 0.1;
            let (w, noise) = (
                spread * stream.standard_normal(),
                0.3 * stream.standard_normal(),
            );
            values.push(if inside { 1.0 } else { 0.0 });
            from.push(w);
            to.push(w + noise + if inside { shift } else { 0.0 });
        }
        [values, from, to]
    }

    /// How many of 1000 intervals at 95 % hold the truth: ΔF difference, difference of averages, average.
    fn held(n: usize, spread: f64, shift: f64) -> [usize; 3] {
        let mass = 0.1;
        let tilted = mass * f64::exp(shift) / (mass * f64::exp(shift) + 1.0 - mass);
        let mut held = [0; 3];
        for seed in 0..1000 {
            let [values, from, to] = drawn(n, seed, spread, shift);
            let in_state: Vec<bool> = values.iter().map(|&v| v > 0.5).collect();
            let free = difference_of_free_energies(&in_state, &from, &to, 0.95).unwrap();
            let pair = difference_of_averages(&values, &from, &to, 0.95).unwrap();
            let one = weighted_average(&values, &from, 0.95).unwrap();
            let found = [(free, -shift), (pair, tilted - mass), (one, mass)];
            for (held, (found, truth)) in held.iter_mut().zip(found) {
                *held += usize::from(found.low <= truth && truth <= found.high);
            }
        }
        held
    }

    #[test]
    fn paired_intervals_cover_what_they_say() {
        // 950 expected, with a standard error of 7; too wide an interval would hold all. Weights of spread 1, a state of 10 %.
        let many = held(1000, 1.0, 0.5);
        assert!(many.iter().all(|h| (930..=985).contains(h)), "{many:?}");
        // With 15 effective samples in the state the tail of the weights itself is not seen, and a little is lost.
        let few = held(400, 1.0, 0.5);
        assert!(few.iter().all(|h| (915..=985).contains(h)), "{few:?}");
        // The pair is far better known than either of its members.
        let [values, from, to] = drawn(400, 1, 1.0, 0.5);
        let pair = difference_of_averages(&values, &from, &to, 0.95).unwrap();
        let one = weighted_average(&values, &to, 0.95).unwrap();
        assert!(pair.standard_error < 0.7 * one.standard_error);
    }

    #[test]
    fn the_retained_share_of_a_normal_difference() {
        let sigma = 0.3f64;
        let held = (0..300)
            .filter(|&seed| {
                let [_, from, to] = drawn(1000, seed, 0.7, 0.0);
                let kept = retained_share(&from, &to, 0.95).unwrap();
                let truth = (-sigma * sigma).exp();
                kept.low <= truth && truth <= kept.high
            })
            .count();
        assert!((275..=297).contains(&held), "{held}");
    }

    #[test]
    fn one_sample_that_carries_everything_tells_nothing() {
        let mut from = vec![0.0; 50];
        from[3] = 30.0;
        let to: Vec<f64> = (0..50)
            .map(|i| from[i] + f64::from(i as u8) * 0.01)
            .collect();
        let values: Vec<f64> = (0..50).map(f64::from).collect();
        let found = difference_of_averages(&values, &from, &to, 0.95).unwrap();
        assert_eq!((found.low, found.high), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(found.effective_samples < 1.01);
    }
}
