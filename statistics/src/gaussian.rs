//! Normalised Gaussians fitted to samples: densities whose integral is known, with which other densities can be tested.
//!
//! For samples x ~ q and any normalised density r with no mass where q has none, E_q\[r/q\] = 1. Where a reported log q is too high by δ around the
//! samples that r looks at, the mean comes out as e^−δ: so r tells region by region whether q is normalised, which no average of weights
//! of all samples does.

use boltzmap_kernels::linalg::{LinearError, symmetric_eigen};
use boltzmap_kernels::random::Stream;

use super::weights::log_sum_exp;

/// A normal density in d dimensions.
#[derive(Clone, Debug)]
pub struct Gaussian {
    mean: Vec<f64>,
    /// Principal axes, `[d, d]`, one per row.
    axes: Vec<f64>,
    /// Standard deviations along them.
    deviations: Vec<f64>,
}

/// Mean and scatter Σ (x − mean)(x − mean)ᵀ of rows in d dimensions.
#[derive(Clone, Debug)]
pub struct Scatter {
    mean: Vec<f64>,
    /// `[d, d]`
    sums: Vec<f64>,
    count: f64,
}

impl Scatter {
    /// Of `rows` `[n, d]`, n > 0.
    pub fn of(rows: &[f64], d: usize) -> Scatter {
        let count = (rows.len() / d) as f64;
        let mean: Vec<f64> = (0..d)
            .map(|k| rows.chunks_exact(d).map(|row| row[k]).sum::<f64>() / count)
            .collect();
        let mut sums = vec![0.0; d * d];
        for row in rows.chunks_exact(d) {
            let away: Vec<f64> = row.iter().zip(&mean).map(|(x, m)| x - m).collect();
            for (sums, x) in sums.chunks_exact_mut(d).zip(&away) {
                sums.iter_mut()
                    .zip(&away)
                    .for_each(|(sum, y)| *sum += x * y);
            }
        }
        Scatter { mean, sums, count }
    }

    /// The covariance within groups, `[d, d]`, of several groups together; none where they have no more rows than groups.
    pub fn pooled(groups: &[Scatter]) -> Option<Vec<f64>> {
        let degrees: f64 = groups.iter().map(|group| group.count - 1.0).sum();
        let first = groups.first()?;
        let sum = |k: usize| groups.iter().map(|group| group.sums[k]).sum::<f64>();
        (degrees > 0.0).then(|| (0..first.sums.len()).map(|k| sum(k) / degrees).collect())
    }
}

impl Gaussian {
    /// With the group's mean and, times `scale`, the mean of its covariance and the `pooled` one, which counts as `weight` rows: a covariance
    /// of few rows in many dimensions has directions of far too large and too small a variance.
    ///
    /// `None` if a direction does not vary.
    ///
    /// # Errors
    /// If rows were not finite.
    pub fn fit(
        group: &Scatter,
        pooled: &[f64],
        weight: f64,
        scale: f64,
    ) -> Result<Option<Gaussian>, LinearError> {
        let d = group.mean.len();
        let total = group.count - 1.0 + weight;
        let covariance: Vec<f64> = group
            .sums
            .iter()
            .zip(pooled)
            .map(|(sum, pooled)| scale * (sum + weight * pooled) / total)
            .collect();
        let eigen = symmetric_eigen(&covariance, d)?;
        let largest = eigen.values.last().copied().unwrap_or(0.0);
        if eigen.values.iter().any(|value| *value <= 1e-12 * largest) {
            return Ok(None);
        }
        // Columns of the eigenvectors' matrix are the axes.
        let axes = (0..d * d)
            .map(|k| eigen.vectors[k % d * d + k / d])
            .collect();
        Ok(Some(Gaussian {
            mean: group.mean.clone(),
            axes,
            deviations: eigen.values.iter().map(|value| value.sqrt()).collect(),
        }))
    }

    /// ln r(x).
    pub fn log_density(&self, x: &[f64]) -> f64 {
        let d = self.mean.len();
        let away: Vec<f64> = x.iter().zip(&self.mean).map(|(x, m)| x - m).collect();
        let exponent: f64 = (0..d)
            .map(|k| {
                let axis = &self.axes[k * d..(k + 1) * d];
                let along: f64 = axis.iter().zip(&away).map(|(a, x)| a * x).sum();
                -0.5 * (along / self.deviations[k]).powi(2) - self.deviations[k].ln()
            })
            .sum();
        exponent - 0.5 * d as f64 * std::f64::consts::TAU.ln()
    }

    /// A sample.
    pub fn draw(&self, stream: &mut Stream) -> Vec<f64> {
        let d = self.mean.len();
        let mut x = self.mean.clone();
        for k in 0..d {
            let along = self.deviations[k] * stream.standard_normal();
            let axis = &self.axes[k * d..(k + 1) * d];
            x.iter_mut().zip(axis).for_each(|(x, a)| *x += along * a);
        }
        x
    }
}

/// The logarithm of a mean of positive numbers that are known by their logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogMean {
    /// ln of the mean.
    pub value: f64,
    /// Its standard error, σ/(mean √n): too small where few numbers hold the sum.
    pub standard_error: f64,
    /// How many of the numbers hold the sum, (Σ)²/Σ².
    pub effective: f64,
}

impl LogMean {
    /// Of e^v for all `values`; −∞ counts as 0.
    pub fn of(values: &[f64]) -> LogMean {
        let n = values.len() as f64;
        let total = log_sum_exp(values);
        let squares: Vec<f64> = values.iter().map(|v| 2.0 * v).collect();
        let effective = (2.0 * total - log_sum_exp(&squares)).exp();
        LogMean {
            value: total - n.ln(),
            // Var(mean)/mean² = (n Σv²/(Σv)² − 1)/(n − 1).
            standard_error: ((n / effective - 1.0).max(0.0) / (n - 1.0)).sqrt(),
            effective,
        }
    }

    /// ln of the mean of e^a less that of e^b on the same samples, with the standard error of the difference.
    pub fn difference(a: &[f64], b: &[f64]) -> (f64, f64) {
        let [mean_a, mean_b] = [a, b].map(|values| LogMean::of(values).value);
        let n = a.len() as f64;
        let squares: f64 = a
            .iter()
            .zip(b)
            .map(|(a, b)| ((a - mean_a).exp() - (b - mean_b).exp()).powi(2))
            .sum();
        (mean_a - mean_b, (squares / (n * (n - 1.0))).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, seed: u64) -> Vec<f64> {
        let mut stream = Stream::new(seed, 0, 0);
        (0..n)
            .flat_map(|_| {
                let (a, b) = (stream.standard_normal(), stream.standard_normal());
                [1.0 + a, 2.0 * a + 0.5 * b]
            })
            .collect()
    }

    /// ln of the density that [`rows`] come from, plus an error.
    fn log_q(x: &[f64]) -> f64 {
        let a = x[0] - 1.0;
        let b = (x[1] - 2.0 * a) / 0.5;
        -0.5 * (a * a + b * b) - std::f64::consts::TAU.ln() - 0.5f64.ln()
    }

    fn fit(rows: &[f64], scale: f64) -> Option<Gaussian> {
        let group = Scatter::of(rows, 2);
        let pooled = Scatter::pooled(std::slice::from_ref(&group))?;
        Gaussian::fit(&group, &pooled, 4.0, scale).unwrap()
    }

    #[test]
    fn a_fit_is_normalised_and_has_the_moments() {
        let fitted = fit(&rows(50_000, 1), 1.0).unwrap();
        for x in [[1.0, 0.0], [2.0, 2.5], [0.3, -1.0]] {
            let expected = log_q(&x);
            assert!((fitted.log_density(&x) - expected).abs() < 0.03);
        }
        let mut stream = Stream::new(3, 0, 0);
        let n = 20_000;
        let drawn: Vec<f64> = (0..n).flat_map(|_| fitted.draw(&mut stream)).collect();
        let again = fit(&drawn, 1.0).unwrap();
        assert!((again.log_density(&[1.5, 0.7]) - fitted.log_density(&[1.5, 0.7])).abs() < 0.05);
        assert!(fit(&[1.0, 2.0], 1.0).is_none());
        assert!(fit(&[1.0, 2.0, 1.0, 3.0, 1.0, 4.0], 1.0).is_none());
    }

    #[test]
    fn few_rows_lean_on_the_pooled_covariance() {
        // Three rows in the plane, all but on a line, beside the covariance of many.
        let many = Scatter::of(&rows(50_000, 1), 2);
        let pooled = Scatter::pooled(&[many]).unwrap();
        let few = Scatter::of(&[0.0, 0.0, 1.0, 1.0, 2.0, 2.0001], 2);
        let fitted = Gaussian::fit(&few, &pooled, 1e6, 1.0).unwrap().unwrap();
        let expected = log_q(&[1.0, 0.0]);
        assert!((fitted.log_density(&[1.0, 1.0]) - expected).abs() < 0.03);
    }

    #[test]
    fn a_shift_of_a_tenth_shows_and_the_truth_passes() {
        let r = fit(&rows(2000, 1), 0.8).unwrap();
        // Stated errors cover: of 100 repetitions some 5 lie beyond two of them.
        let mut beyond = 0;
        for repetition in 0..100 {
            let samples = rows(1000, 100 + repetition);
            let ratios = |shift: f64| -> Vec<f64> {
                let of = |x: &[f64]| r.log_density(x) - log_q(x) - shift;
                samples.chunks_exact(2).map(of).collect()
            };
            let exact = LogMean::of(&ratios(0.0));
            beyond += usize::from(exact.value.abs() > 2.0 * exact.standard_error);
            let (shift, error) = LogMean::difference(&ratios(0.1), &ratios(0.0));
            assert!(
                (shift + 0.1).abs() < 1e-12 && error < 1e-3,
                "{shift} {error}"
            );
            assert!(exact.standard_error < 0.03);
        }
        assert!(beyond <= 12, "{beyond}");
    }

    #[test]
    fn log_means_of_known_numbers() {
        let found = LogMean::of(&[0.0, 3f64.ln()]);
        assert!((found.value - 2f64.ln()).abs() < 1e-15);
        // Mean 2, standard deviation √2, over √2: a relative error of ½.
        assert!((found.standard_error - 0.5).abs() < 1e-12);
        assert!((found.effective - 1.6).abs() < 1e-12);
        assert_eq!(
            LogMean::of(&[f64::NEG_INFINITY; 3]).value,
            f64::NEG_INFINITY
        );
    }
}
