//! Targets with closed forms to train on and to judge likelihoods by: samples, log p_t at every time, and for Gaussians
//! and mixtures the velocity, its divergence and the score.
//!
//! All under the linear interpolant x_t = t x₁ + (1−t) z with z ~ N(0, I), as in [`crate::oracles`].

use std::f64::consts::PI;

use boltzmap_kernels::random::{Stream, domain};
use boltzmap_sampling::SamplingError;
use boltzmap_sampling::target::{DensityAndGradient, Target, count_states};

use crate::oracles::{GaussianMixture, VelocityAndDiagonal, gaussian_flow_map};
use crate::trainer::DataSource;

/// Stream domain of the means of [`AnalyticTarget::mixture_32d`].
const DOMAIN_MEANS: u64 = domain::MIXTURE_MEANS;
/// Squares of the checkerboard that carry density, and the side of one at scale 1.
const SQUARES: usize = 8;

/// A distribution of data in d dimensions.
#[derive(Clone, Debug)]
pub enum AnalyticTarget {
    /// N(0, diag σ_i²).
    Gaussian {
        /// σ_i, `[d]`.
        standard_deviations: Vec<f64>,
    },
    /// Σ π_k N(μ_k, σ_k² I).
    Mixture(GaussianMixture),
    /// Eight of sixteen squares in the plane, alternating, the density in them constant.
    Checkerboard {
        /// Side of a square; the board covers [−2, 2]² times it.
        scale: f64,
    },
}

impl AnalyticTarget {
    /// Names that [`AnalyticTarget::named`] knows.
    pub const NAMES: [&str; 5] = [
        "gaussian-8d",
        "mixture-2d",
        "mixture-32d",
        "circle",
        "checkerboard",
    ];

    /// The target of a name in [`AnalyticTarget::NAMES`].
    pub fn named(name: &str) -> Option<AnalyticTarget> {
        Some(match name {
            "gaussian-8d" => AnalyticTarget::gaussian(8, 0.3, 1.5),
            "mixture-2d" => AnalyticTarget::mixture_2d(),
            "mixture-32d" => AnalyticTarget::mixture_32d(),
            "circle" => AnalyticTarget::circle(),
            "checkerboard" => AnalyticTarget::checkerboard(1.0),
            _ => return None,
        })
    }

    /// N(0, diag σ_i²) with σ in geometric progression from `smallest` to `largest`.
    pub fn gaussian(dimension: usize, smallest: f64, largest: f64) -> AnalyticTarget {
        let last = dimension.saturating_sub(1).max(1) as f64;
        AnalyticTarget::Gaussian {
            standard_deviations: (0..dimension)
                .map(|i| smallest * (largest / smallest).powf(i as f64 / last))
                .collect(),
        }
    }

    /// Three components in the plane, those of the check points that [`crate::oracles`] is tested with.
    pub fn mixture_2d() -> AnalyticTarget {
        AnalyticTarget::Mixture(GaussianMixture {
            weights: vec![0.5, 0.3, 0.2],
            means: vec![vec![1.5, 0.3], vec![-0.7, 1.1], vec![0.2, -1.4]],
            standard_deviations: vec![0.3; 3],
        })
    }

    /// Four components in 32 dimensions: means drawn once from N(0, 0.5²), widths from 0.5 to 0.8.
    pub fn mixture_32d() -> AnalyticTarget {
        let mean = |k: u64| {
            let mut mean = vec![0.0; 32];
            Stream::new(0, DOMAIN_MEANS, k).fill_standard_normal(&mut mean);
            mean.iter().map(|value: &f64| 0.5 * value).collect()
        };
        AnalyticTarget::Mixture(GaussianMixture {
            weights: vec![0.4, 0.3, 0.2, 0.1],
            means: (0..4).map(mean).collect(),
            standard_deviations: vec![0.5, 0.6, 0.7, 0.8],
        })
    }

    /// Eight Gaussians with σ = 0.1 on the unit circle.
    pub fn circle() -> AnalyticTarget {
        AnalyticTarget::Mixture(GaussianMixture {
            weights: vec![0.125; 8],
            means: (0..8)
                .map(|k| {
                    let angle = 0.25 * PI * f64::from(k);
                    vec![angle.cos(), angle.sin()]
                })
                .collect(),
            standard_deviations: vec![0.1; 8],
        })
    }

    /// The checkerboard over [−2, 2]² times `scale`. The sampler that F2D2 took over from FFJORD is scale 2; divergences
    /// between densities do not depend on it.
    pub fn checkerboard(scale: f64) -> AnalyticTarget {
        AnalyticTarget::Checkerboard { scale }
    }

    /// d
    pub fn dimension(&self) -> usize {
        match self {
            AnalyticTarget::Gaussian {
                standard_deviations,
            } => standard_deviations.len(),
            AnalyticTarget::Mixture(mixture) => mixture.dimension(),
            AnalyticTarget::Checkerboard { .. } => 2,
        }
    }

    /// Draws one point `[d]`.
    pub fn sample(&self, stream: &mut Stream, x: &mut [f64]) {
        match self {
            AnalyticTarget::Gaussian {
                standard_deviations,
            } => {
                stream.fill_standard_normal(x);
                x.iter_mut()
                    .zip(standard_deviations)
                    .for_each(|(x, sigma)| *x *= sigma);
            }
            AnalyticTarget::Mixture(mixture) => {
                let mut left = stream.uniform();
                let last = mixture.weights.len() - 1;
                let mut k = 0;
                while k < last && left >= mixture.weights[k] {
                    left -= mixture.weights[k];
                    k += 1;
                }
                stream.fill_standard_normal(x);
                x.iter_mut()
                    .zip(&mixture.means[k])
                    .for_each(|(x, mean)| *x = mean + mixture.standard_deviations[k] * *x);
            }
            AnalyticTarget::Checkerboard { scale } => {
                let corner = corners()[stream.below(SQUARES as u64) as usize];
                for (x, corner) in x.iter_mut().zip(corner) {
                    *x = scale * (corner + stream.uniform());
                }
            }
        }
    }

    /// log p_t(x), the density of x_t at time t in [0, 1]; −∞ off the support.
    pub fn log_density(&self, x: &[f64], t: f64) -> f64 {
        match self {
            AnalyticTarget::Gaussian {
                standard_deviations,
            } => x
                .iter()
                .zip(standard_deviations)
                .map(|(x, sigma)| {
                    let variance = variance(*sigma, t);
                    -0.5 * (x * x / variance + (2.0 * PI * variance).ln())
                })
                .sum(),
            AnalyticTarget::Mixture(mixture) => mixture.log_density(x, t),
            AnalyticTarget::Checkerboard { scale } => {
                let terms = corners().map(|corner| {
                    (0..2)
                        .map(|i| log_density_of_interval(x[i], scale * corner[i], *scale, t))
                        .sum::<f64>()
                });
                let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if largest == f64::NEG_INFINITY {
                    return largest;
                }
                let sum: f64 = terms.iter().map(|term| (term - largest).exp()).sum();
                largest + (sum / SQUARES as f64).ln()
            }
        }
    }

    /// ∇ log p_t(x); 0 off the support, and nothing on the edges of the checkerboard at t = 1, where log p jumps.
    pub fn score(&self, x: &[f64], t: f64) -> Vec<f64> {
        match self {
            AnalyticTarget::Gaussian {
                standard_deviations,
            } => x
                .iter()
                .zip(standard_deviations)
                .map(|(x, sigma)| -x / variance(*sigma, t))
                .collect(),
            AnalyticTarget::Mixture(mixture) => mixture.score(x, t),
            AnalyticTarget::Checkerboard { scale } => {
                let squares = corners().map(|corner| {
                    [0, 1].map(|i| {
                        let low = scale * corner[i];
                        let log_density = log_density_of_interval(x[i], low, *scale, t);
                        (log_density, slope_of_interval(x[i], low, *scale, t))
                    })
                });
                let terms = squares.map(|square| square[0].0 + square[1].0);
                let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if largest == f64::NEG_INFINITY {
                    return vec![0.0; 2];
                }
                let shares = terms.map(|term| (term - largest).exp());
                let total: f64 = shares.iter().sum();
                let mean = |i: usize| {
                    let slopes = squares.iter().zip(shares);
                    let held = slopes.filter(|(_, share)| *share > 0.0);
                    held.map(|(square, share)| share * square[i].1).sum::<f64>() / total
                };
                vec![mean(0), mean(1)]
            }
        }
    }

    /// v(x, t) and diag ∂v/∂x, for Gaussians and mixtures.
    pub fn velocity(&self, x: &[f64], t: f64) -> Option<VelocityAndDiagonal> {
        match self {
            AnalyticTarget::Gaussian {
                standard_deviations,
            } => {
                // v_i = x_i (tσ_i² − (1−t))/s_i², linear in x.
                let diagonal: Vec<f64> = standard_deviations
                    .iter()
                    .map(|sigma| (t * sigma * sigma - (1.0 - t)) / variance(*sigma, t))
                    .collect();
                Some(VelocityAndDiagonal {
                    velocity: x
                        .iter()
                        .zip(&diagonal)
                        .map(|(x, slope)| x * slope)
                        .collect(),
                    diagonal,
                })
            }
            AnalyticTarget::Mixture(mixture) => Some(mixture.velocity(x, t)),
            AnalyticTarget::Checkerboard { .. } => None,
        }
    }

    /// The exact flow map X_{s,t}(x) with its log-determinant, for Gaussians.
    pub fn flow_map(&self, x: &[f64], s: f64, t: f64) -> Option<(Vec<f64>, f64)> {
        let AnalyticTarget::Gaussian {
            standard_deviations,
        } = self
        else {
            return None;
        };
        let maps = standard_deviations
            .iter()
            .map(|sigma| gaussian_flow_map(*sigma, s, t));
        let (ratios, logs): (Vec<f64>, Vec<f64>) = maps.unzip();
        let moved = x.iter().zip(&ratios).map(|(x, ratio)| x * ratio).collect();
        Some((moved, logs.iter().sum()))
    }
}

/// t²σ² + (1−t)²
fn variance(sigma: f64, t: f64) -> f64 {
    (t * sigma).powi(2) + (1.0 - t).powi(2)
}

/// Lower left corners of the checkerboard's squares at scale 1. Column ⌊x₁⌋ is shifted up by its parity.
fn corners() -> [[f64; 2]; SQUARES] {
    std::array::from_fn(|k| {
        let column = (k / 2) as f64 - 2.0;
        let parity = (k / 2 % 2) as f64;
        [column, parity - 2.0 * (k % 2) as f64]
    })
}

/// log-density at time t of a coordinate that is uniform over [low, low + length) at time 1:
/// ln[(Φ(a) − Φ(b))/(t·length)] with a = (x − t·low)/(1−t), b = a − t·length/(1−t).
fn log_density_of_interval(x: f64, low: f64, length: f64, t: f64) -> f64 {
    if t == 0.0 {
        return -0.5 * (x * x + (2.0 * PI).ln());
    }
    if t == 1.0 {
        let inside = x >= low && x < low + length;
        return if inside {
            -length.ln()
        } else {
            f64::NEG_INFINITY
        };
    }
    let upper = (x - t * low) / (1.0 - t);
    let lower = (x - t * (low + length)) / (1.0 - t);
    log_normal_mass(lower, upper) - (t * length).ln()
}

/// The derivative of [`log_density_of_interval`] in x: (φ(a) − φ(b))/((1−t)(Φ(a) − Φ(b))).
fn slope_of_interval(x: f64, low: f64, length: f64, t: f64) -> f64 {
    if t == 0.0 {
        return -x;
    }
    if t == 1.0 {
        return 0.0;
    }
    let upper = (x - t * low) / (1.0 - t);
    let lower = (x - t * (low + length)) / (1.0 - t);
    let mass = log_normal_mass(lower, upper);
    let relative = |z: f64| (-0.5 * (z * z + (2.0 * PI).ln()) - mass).exp();
    (relative(upper) - relative(lower)) / (1.0 - t)
}

/// ln(Φ(upper) − Φ(lower)) for lower < upper, to about 13 digits however far out the interval lies.
fn log_normal_mass(lower: f64, upper: f64) -> f64 {
    if lower > 0.0 {
        // The mirror image, where the tail is small instead of close to one.
        return log_normal_mass(-upper, -lower);
    }
    if upper <= 0.0 {
        let (small, large) = (log_normal_tail(-lower), log_normal_tail(-upper));
        return large + (-(small - large).exp()).ln_1p();
    }
    (-(log_normal_tail(-lower).exp() + log_normal_tail(upper).exp())).ln_1p()
}

/// ln Φ(−z) for z ≥ 0: a power series near 0, a continued fraction beyond.
fn log_normal_tail(z: f64) -> f64 {
    let log_density = -0.5 * (z * z + (2.0 * PI).ln());
    if z < 3.0 {
        // Φ(z) − ½ = φ(z) Σ z^{2n+1}/(1·3·…·(2n+1))
        let (mut term, mut sum, mut odd) = (z, z, 1.0);
        while term > 1e-17 * sum {
            odd += 2.0;
            term *= z * z / odd;
            sum += term;
        }
        return (0.5 - log_density.exp() * sum).ln();
    }
    // Φ(−z) = φ(z)/(z + 1/(z + 2/(z + 3/…))), evaluated from its tail, which no longer matters there.
    let mut fraction = z;
    for k in (1..=60).rev() {
        fraction = z + f64::from(k) / fraction;
    }
    log_density - fraction.ln()
}

/// A target at one time, over states `[1, d]`.
#[derive(Clone, Debug)]
pub struct TimedTarget {
    /// The distribution at time 1.
    pub target: AnalyticTarget,
    /// t
    pub time: f64,
}

impl Target for TimedTarget {
    fn shape(&self) -> [usize; 2] {
        [1, self.target.dimension()]
    }

    fn log_density(&self, states: &[f64]) -> Result<Vec<f64>, SamplingError> {
        let d = self.target.dimension();
        count_states(states, d)?;
        let points = states.chunks_exact(d);
        Ok(points
            .map(|x| self.target.log_density(x, self.time))
            .collect())
    }

    fn log_density_and_gradient(
        &self,
        states: &[f64],
    ) -> Result<DensityAndGradient, SamplingError> {
        let points = states.chunks_exact(self.target.dimension());
        Ok(DensityAndGradient {
            log_density: self.log_density(states)?,
            gradients: points
                .flat_map(|x| self.target.score(x, self.time))
                .collect(),
        })
    }
}

/// Fresh samples for every draw: training that never sees a point twice.
pub struct TargetSource {
    /// The distribution.
    pub target: AnalyticTarget,
}

impl DataSource for TargetSource {
    fn len(&self) -> usize {
        1
    }

    fn write(&self, _index: usize, stream: &mut Stream, state: &mut [f32]) {
        let mut x = vec![0.0; state.len()];
        self.target.sample(stream, &mut x);
        for (state, x) in state.iter_mut().zip(x) {
            *state = x as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = (&'static str, AnalyticTarget)> {
        AnalyticTarget::NAMES.into_iter().map(|name| {
            (
                name,
                AnalyticTarget::named(name).expect("a name of the list"),
            )
        })
    }

    #[test]
    fn tails_of_the_normal_distribution() {
        // ln Φ(−z) from tables of the error function.
        for (z, expected) in [
            (0.0, -std::f64::consts::LN_2),
            (1.0, -1.841_021_645_009_264),
            (2.999, -6.604_443_587_570_58),
            (3.0, -6.607_726_221_510_349),
            (10.0, -53.231_285_150_512_46),
            (40.0, -804.608_442_013_753_7),
        ] {
            let found = log_normal_tail(z);
            assert!(
                (found - expected).abs() < 1e-12 * (1.0 + expected.abs()),
                "{z}: {found}"
            );
        }
        // The two branches meet.
        let jump = log_normal_tail(3.0) - log_normal_tail(3.0 - 1e-9);
        assert!((jump + 3.283e-9).abs() < 1e-11, "{jump:e}");
        // Mass far out, on both sides, and across zero.
        assert_eq!(log_normal_mass(7.0, 9.0), log_normal_mass(-9.0, -7.0));
        let whole = log_normal_mass(-1.0, 1.0);
        assert!((whole - 0.682_689_492_137_086_f64.ln()).abs() < 1e-13);
    }

    #[test]
    fn scores_are_the_slopes_of_the_densities() {
        for (name, target) in all() {
            let d = target.dimension();
            for (i, t) in [0.0, 0.4, 0.9, 0.99, 1.0].into_iter().enumerate() {
                let mut x = vec![0.0; d];
                target.sample(&mut Stream::new(8, 0, i as u64), &mut x);
                let timed = TimedTarget {
                    target: target.clone(),
                    time: t,
                };
                let found = timed.log_density_and_gradient(&x).unwrap();
                for k in 0..d {
                    let h = 1e-5;
                    let at = |shift: f64| {
                        let mut x = x.clone();
                        x[k] += shift;
                        target.log_density(&x, t)
                    };
                    let slope = (at(h) - at(-h)) / (2.0 * h);
                    let allowed = 1e-6 * (1.0 + slope.abs()).powi(2);
                    let score = found.gradients[k];
                    assert!(
                        (score - slope).abs() < allowed,
                        "{name} {t}: {score} {slope}"
                    );
                }
            }
        }
        // Far out, where both Gaussian tails vanish.
        let board = AnalyticTarget::checkerboard(1.0);
        let far = board.score(&[300.0, 0.5], 0.9);
        assert!((far[0] + (300.0 - 0.9 * 2.0) / 0.01).abs() < 1.0, "{far:?}");
        assert_eq!(board.score(&[5.0, 0.5], 1.0), [0.0, 0.0]);
    }

    #[test]
    fn densities_in_the_plane_integrate_to_one_at_every_time() {
        for (name, target) in all().filter(|(_, target)| target.dimension() == 2) {
            for t in [0.0, 0.5, 0.9, 0.99, 1.0] {
                // Midpoints of cells whose sides fall on the checkerboard's edges; wide where the noise still is.
                let (n, half) = if t < 0.9 { (240, 6.0) } else { (320, 3.2) };
                let width = 2.0 * half / n as f64;
                let at = |i: usize| -half + (i as f64 + 0.5) * width;
                let sum: f64 = (0..n * n)
                    .map(|k| target.log_density(&[at(k % n), at(k / n)], t).exp())
                    .sum();
                let total = sum * width * width;
                assert!((total - 1.0).abs() < 2e-6, "{name} at {t}: {total}");
            }
        }
    }

    /// Draws x_t and compares the mean of log p_t over them with the entropy that quadrature gives; and compares moments.
    #[test]
    fn samples_follow_the_density() {
        let n = 20_000;
        for (name, target) in all() {
            let d = target.dimension();
            let mut x = vec![0.0; d];
            let (mut logs, mut first, mut second) = (Vec::new(), vec![0.0; d], vec![0.0; d]);
            for i in 0..n {
                let mut stream = Stream::new(5, 0, i);
                target.sample(&mut stream, &mut x);
                logs.push(target.log_density(&x, 1.0));
                for k in 0..d {
                    first[k] += x[k] / n as f64;
                    second[k] += x[k] * x[k] / n as f64;
                }
            }
            assert!(logs.iter().all(|log| log.is_finite()), "{name}");
            let mean = logs.iter().sum::<f64>() / n as f64;
            let spread = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / n as f64;
            let error = 5.0 * (spread / n as f64).sqrt() + 1e-9;
            let (expected_mean, expected_second, entropy) = match &target {
                AnalyticTarget::Gaussian {
                    standard_deviations: s,
                } => {
                    let entropy = s.iter().map(|s| (s * (2.0 * PI).sqrt()).ln() + 0.5).sum();
                    (
                        vec![0.0; d],
                        s.iter().map(|s| s * s).collect(),
                        Some(entropy),
                    )
                }
                AnalyticTarget::Mixture(m) => {
                    let over = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
                        (0..d)
                            .map(|i| (0..m.weights.len()).map(|k| m.weights[k] * f(k, i)).sum())
                            .collect()
                    };
                    let square = |k: usize, i: usize| {
                        m.means[k][i].powi(2) + m.standard_deviations[k].powi(2)
                    };
                    // Components of the circle barely overlap: the entropy is that of one plus ln 8.
                    let entropy = (name == "circle")
                        .then(|| 8f64.ln() + 2.0 * (0.1 * (2.0 * PI).sqrt()).ln() + 1.0);
                    (over(&|k, i| m.means[k][i]), over(&square), entropy)
                }
                AnalyticTarget::Checkerboard { .. } => {
                    (vec![0.0; 2], vec![4.0 / 3.0; 2], Some(8f64.ln()))
                }
            };
            if let Some(entropy) = entropy {
                assert!(
                    (mean + entropy).abs() < error + 1e-3,
                    "{name}: {mean} {entropy}"
                );
            }
            for k in 0..d {
                let error = 5.0 * (expected_second[k] / n as f64).sqrt();
                assert!((first[k] - expected_mean[k]).abs() < error, "{name}");
                let error = 10.0 * expected_second[k] / (n as f64).sqrt();
                assert!((second[k] - expected_second[k]).abs() < error, "{name}");
            }
        }
    }

    #[test]
    fn gaussian_velocity_and_map_obey_their_equations() {
        let target = AnalyticTarget::gaussian(3, 0.3, 1.5);
        let (x, h) = ([0.4, -1.1, 0.7], 1e-6);
        for (s, t) in [(0.0, 0.5), (0.2, 0.9)] {
            let (moved, log_det) = target.flow_map(&x, s, t).unwrap();
            let ahead = target.flow_map(&x, s, t + h).unwrap();
            let flow = target.velocity(&moved, t).unwrap();
            for i in 0..3 {
                let rate = (ahead.0[i] - moved[i]) / h;
                assert!((rate - flow.velocity[i]).abs() < 1e-5);
            }
            let rate = (ahead.1 - log_det) / h;
            assert!((rate - flow.diagonal.iter().sum::<f64>()).abs() < 1e-5);
            // The change of variables is exact along the map.
            let change = target.log_density(&moved, t) - target.log_density(&x, s);
            assert!((change + log_det).abs() < 1e-12);
        }
        assert!(
            AnalyticTarget::checkerboard(1.0)
                .velocity(&[0.0, 0.0], 0.5)
                .is_none()
        );
    }

    #[test]
    fn scale_of_the_checkerboard_only_rescales() {
        let (one, two) = (
            AnalyticTarget::checkerboard(1.0),
            AnalyticTarget::checkerboard(2.0),
        );
        for x in [[0.5, 0.5], [-1.5, -1.5], [0.5, 1.5], [1.2, -0.3]] {
            let expected = one.log_density(&x, 1.0) - 4f64.ln();
            assert_eq!(two.log_density(&[2.0 * x[0], 2.0 * x[1]], 1.0), expected);
        }
        assert_eq!(one.log_density(&[0.5, 0.5], 1.0), -8f64.ln());
        assert_eq!(one.log_density(&[0.5, 1.5], 1.0), f64::NEG_INFINITY);
    }
}
