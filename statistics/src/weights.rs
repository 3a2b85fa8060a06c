//! Importance weights: effective sample size, clipping, normalisation.

use boltzmap_kernels::random::{Stream, domain};

/// The logarithm of Σ exp(v), safe against overflow; −∞ for an empty slice or all −∞.
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + values.iter().map(|v| (v - top).exp()).sum::<f64>().ln()
}

/// Weights that sum to one, from log-weights; `None` when no weight is positive or one is NaN or +∞.
pub fn normalised(log_weights: &[f64]) -> Option<Vec<f64>> {
    let total = log_sum_exp(log_weights);
    let weights: Vec<f64> = log_weights.iter().map(|v| (v - total).exp()).collect();
    (total.is_finite() && weights.iter().all(|w| w.is_finite())).then_some(weights)
}

/// Kish's normalised effective sample size (Σw)²/(n Σw²), in (0, 1]; 0 when no weight is positive, NaN if a weight is NaN.
pub fn ess(log_weights: &[f64]) -> f64 {
    if log_weights.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let doubled: Vec<f64> = log_weights.iter().map(|v| 2.0 * v).collect();
    let (first, second) = (log_sum_exp(log_weights), log_sum_exp(&doubled));
    if first == f64::NEG_INFINITY {
        return 0.0;
    }
    (2.0 * first - second).exp() / log_weights.len() as f64
}

/// The effective number of samples (Σw)²/Σw².
pub fn effective_sample_size(log_weights: &[f64]) -> f64 {
    ess(log_weights) * log_weights.len() as f64
}

/// ln of the mean weight ⟨w⟩ over samples of the proposal: E_q\[w\], the ratio of the normalisations of target and proposal. −∞ without weights.
pub fn log_mean_weight(log_weights: &[f64]) -> f64 {
    log_sum_exp(log_weights) - (log_weights.len().max(1) as f64).ln()
}

/// The normalised effective sample size (E_q\[w\])²/E_q\[w²\] of the proposal's samples, from log-weights log(p̃/q) at samples of the target and
/// the mean weight ln E_q\[w\] of the proposal's own samples ([`log_mean_weight`]): E_q\[w²\] = E_q\[w\] E_p\[w\], so it is
/// E_q\[w\]/E_p\[w\]. 0 where a weight is infinite: the proposal misses a part of the target, which its own samples need not show. NaN without weights.
///
/// E_q\[w\] must come from the proposal: 1/E_p\[1/w\] would leave out what of the proposal no sample of the target visits ([`share_seen`]).
pub fn ess_from_target(log_mean_weight: f64, at_target: &[f64]) -> f64 {
    if at_target.is_empty() {
        return f64::NAN;
    }
    if at_target.contains(&f64::INFINITY) {
        return 0.0;
    }
    (log_mean_weight - self::log_mean_weight(at_target)).exp()
}

/// The share of the proposal that samples of the target see, E_q\[w\] E_p\[1/w\] = ∫ q over where p is, from the same numbers as
/// [`ess_from_target`]. Below 1 where the proposal makes what the target does not, or what is too rare in it for so few samples. NaN without weights.
pub fn share_seen(log_mean_weight: f64, at_target: &[f64]) -> f64 {
    if at_target.is_empty() {
        return f64::NAN;
    }
    // Where no noise leads to a sample, 1/w is 0.
    let inverse: Vec<f64> = at_target.iter().map(|v| -v).collect();
    (log_mean_weight + self::log_mean_weight(&inverse)).exp()
}

/// What clipping the largest weights did.
#[derive(Clone, Debug, PartialEq)]
pub struct Clipped {
    /// The log-weights, −∞ where dropped, `[n]`
    pub log_weights: Vec<f64>,
    /// How many were dropped.
    pub dropped: usize,
    /// The share of the total weight that they carried: what the estimate lost.
    pub dropped_mass: f64,
    /// Normalised effective sample size of those that remain, over the number that remain.
    pub ess: f64,
}

/// Drops the `fraction` of samples with the largest weights (0.002 in the literature, ⌊fraction·n⌋ samples), and says what that cost.
pub fn clip(log_weights: &[f64], fraction: f64) -> Clipped {
    let dropped =
        ((fraction.clamp(0.0, 1.0) * log_weights.len() as f64) as usize).min(log_weights.len());
    let mut order: Vec<usize> = (0..log_weights.len()).collect();
    order.sort_by(|&a, &b| log_weights[b].total_cmp(&log_weights[a]).then(a.cmp(&b)));
    let mut clipped = log_weights.to_vec();
    for &i in &order[..dropped] {
        clipped[i] = f64::NEG_INFINITY;
    }
    let top: Vec<f64> = order[..dropped].iter().map(|&i| log_weights[i]).collect();
    let kept: Vec<f64> = order[dropped..].iter().map(|&i| log_weights[i]).collect();
    Clipped {
        log_weights: clipped,
        dropped,
        dropped_mass: (log_sum_exp(&top) - log_sum_exp(log_weights)).exp(),
        ess: ess(&kept),
    }
}

/// Seed domain of resampling.
const RESAMPLE: u64 = domain::RESAMPLING;

/// Systematic resampling: `count` indices in ascending order, index i as often as `count`·w_i rounded up or down.
///
/// One uniform number u places the points (k + u)/count on the cumulated weights: unbiased, and of less variance than multinomial draws.
/// `occasion` tells times of resampling with one seed apart. `None` when no weight is positive or one is NaN or +∞.
pub fn resample_systematic(
    log_weights: &[f64],
    count: usize,
    seed: u64,
    occasion: u64,
) -> Option<Vec<usize>> {
    let weights = normalised(log_weights)?;
    let offset = Stream::new(seed, RESAMPLE, occasion).uniform();
    let mut indices = Vec::with_capacity(count);
    // Cumulated by index, so that rounding can lose nothing at the end: the last positive weight takes what is left.
    let last = weights.iter().rposition(|&w| w > 0.0)?;
    let mut reached = 0.0;
    for (i, weight) in weights.iter().enumerate().take(last + 1) {
        reached += weight;
        while indices.len() < count
            && *weight > 0.0
            && (i == last || (indices.len() as f64 + offset) < reached * count as f64)
        {
            indices.push(i);
        }
    }
    Some(indices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systematic_resampling_rounds_each_expected_count() {
        let w: Vec<f64> = (0..50).map(|i| f64::from(i % 7) * 0.9).collect();
        let mut mean = vec![0.0; 50];
        let expected: Vec<f64> = normalised(&w).unwrap().iter().map(|w| 200.0 * w).collect();
        for seed in 0..500 {
            let drawn = resample_systematic(&w, 200, seed, 0).unwrap();
            assert_eq!(drawn.len(), 200);
            for i in 0..50 {
                let count = drawn.iter().filter(|&&k| k == i).count() as f64;
                assert!((count - expected[i]).abs() < 1.0 + 1e-9);
                mean[i] += count / 500.0;
            }
        }
        // A count has a variance of at most ¼: the mean of 500 is within 0.1 (4.5 standard errors).
        assert!(mean.iter().zip(&expected).all(|(m, e)| (m - e).abs() < 0.1));
        assert_eq!(
            resample_systematic(&[f64::NEG_INFINITY, 0.0], 3, 1, 0),
            Some(vec![1; 3])
        );
        assert_eq!(resample_systematic(&[f64::NEG_INFINITY], 3, 1, 0), None);
        // Two times of resampling put their points elsewhere.
        let drawn = [0, 1].map(|occasion| resample_systematic(&w, 30, 1, occasion));
        assert_ne!(drawn[0], drawn[1]);
    }

    #[test]
    fn ess_of_known_weights() {
        assert!((ess(&[3.0; 7]) - 1.0).abs() < 1e-15);
        // Weights 1, 2, 3: 36/(3·14).
        let w = [1.0f64.ln(), 2.0f64.ln(), 3.0f64.ln()];
        assert!((ess(&w) - 36.0 / 42.0).abs() < 1e-15);
        // A constant of any size cancels.
        let far: Vec<f64> = w.iter().map(|v| v + 5000.0).collect();
        assert!((ess(&far) - 36.0 / 42.0).abs() < 1e-11);
        assert!((ess(&[f64::NEG_INFINITY, 0.0]) - 0.5).abs() < 1e-15);
        assert_eq!(ess(&[f64::NEG_INFINITY; 2]), 0.0);
        assert!(ess(&[f64::NAN, 0.0]).is_nan());
    }

    #[test]
    fn samples_of_the_target_tell_the_ess() {
        // p = N(0, 1), q = N(0, s²), p̃ = 7p: ∫p²/q = s²/√(2s² − 1). Quantiles stand for samples.
        let s = 1.1f64;
        let n = 20_000;
        let quantile = |i: usize| normal_quantile((i as f64 + 0.5) / n as f64);
        let log_weight = |x: f64| -0.5 * x * x * (1.0 - 1.0 / (s * s)) + s.ln() + 7f64.ln();
        let at_target: Vec<f64> = (0..n).map(|i| log_weight(quantile(i))).collect();
        let of_samples: Vec<f64> = (0..n).map(|i| log_weight(s * quantile(i))).collect();
        let mean = log_mean_weight(&of_samples);
        assert!((mean - 7f64.ln()).abs() < 2e-3, "{mean}");
        let expected = (2.0 * s * s - 1.0).sqrt() / (s * s);
        let share = ess_from_target(mean, &at_target);
        assert!((share - expected).abs() < 2e-3, "{share}");
        assert!((ess(&of_samples) - expected).abs() < 2e-3);
        assert!((share_seen(mean, &at_target) - 1.0).abs() < 2e-3);
        let missed = [&at_target[..], &[f64::INFINITY]].concat();
        assert_eq!(ess_from_target(mean, &missed), 0.0);
        assert!((share_seen(mean, &missed) - 1.0).abs() < 2e-3);
        assert!(ess_from_target(mean, &[]).is_nan() && share_seen(mean, &[]).is_nan());
    }

    #[test]
    fn junk_that_the_target_never_visits_is_not_overlooked() {
        // q = ½ p + ½ of what p never visits: w is 2p̃/p on one half of the samples and 0 on the other, and the ESS is ½. Taken from the
        // target's samples alone, as 1/(E_p[w] E_p[1/w]), it would be 1.
        let at_target = vec![2f64.ln(); 1000];
        let samples: Vec<f64> = (0..1000)
            .map(|i| {
                if i % 2 == 0 {
                    2f64.ln()
                } else {
                    f64::NEG_INFINITY
                }
            })
            .collect();
        let mean = log_mean_weight(&samples);
        assert!((ess(&samples) - 0.5).abs() < 1e-12);
        assert!((ess_from_target(mean, &at_target) - 0.5).abs() < 1e-12);
        assert!((share_seen(mean, &at_target) - 0.5).abs() < 1e-12);
    }

    /// Φ⁻¹(p) by bisection.
    fn normal_quantile(p: f64) -> f64 {
        let (mut low, mut high) = (-9.0, 9.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            let below =
                0.5 * (1.0 + boltzmap_kernels::reference::erf(middle / std::f64::consts::SQRT_2));
            if below < p {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }

    #[test]
    fn clipping_reports_the_mass_it_drops() {
        let w: Vec<f64> = [1.0f64, 1.0, 1.0, 1.0, 6.0]
            .iter()
            .map(|v: &f64| v.ln())
            .collect();
        let clipped = clip(&w, 0.2);
        assert_eq!(clipped.dropped, 1);
        assert!((clipped.dropped_mass - 0.6).abs() < 1e-15);
        assert!((clipped.ess - 1.0).abs() < 1e-15);
        assert_eq!(clipped.log_weights[4], f64::NEG_INFINITY);
        assert_eq!(clip(&w, 0.0).dropped_mass, 0.0);
    }
}
