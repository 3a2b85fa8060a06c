//! Bias and spread of the targets from which a divergence is learned.
//!
//! For the linear path with ṽ = x₁ − z, the velocity v, the score s = −(x − t v)/(1 − t) and κ = d/D
//! (likelihood-flow-maps, section 5; SCALLOP, arXiv 2606.29110):
//!
//! * plain   −κ/(1−t) − (ṽ_i − v_i) z_i/(1−t)
//! * score   −κ/(1−t) − ṽ_i (z_i/(1−t) + s_i)
//! * centred −κ/(1−t) − (ṽ_i − v_i)(z_i/(1−t) + s_i)
//!
//! whose conditional expectations are ∂_i v_i where v is the exact conditional velocity; and Hutchinson's
//! (1/P) Σ_p ε_pᵀ (∂v/∂x) ε_p with probes of ±1 or normal numbers, unbiased for any v.

use anyhow::Result;
use boltzmap_kernels::random::{Stream, domain};
use serde::Serialize;

use super::field::Field;

/// Numbers of probes.
const PROBES: [usize; 4] = [1, 2, 4, 8];
/// Stream domain of the probes.
const DOMAIN_PROBES: u64 = domain::STUDY_PROBES;

/// What one way of estimating gave at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Which way.
    pub name: String,
    /// Mean of estimate − truth for the divergence.
    pub bias: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// Standard deviation of estimate − truth.
    pub standard_deviation: f64,
    /// Root mean square error of one coordinate of the diagonal, where each coordinate is estimated.
    pub coordinate_error: Option<f64>,
}

/// All estimators at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// t
    pub time: f64,
    /// Mean of the exact divergence tr ∂v/∂x.
    pub divergence: f64,
    /// One entry per estimator.
    pub estimators: Vec<Estimate>,
}

/// Errors of one estimator over the samples.
struct Errors {
    name: String,
    sums: Vec<f64>,
    squares: Option<f64>,
}

impl Errors {
    fn new(name: String, coordinates: bool) -> Self {
        Self {
            name,
            sums: Vec::new(),
            squares: coordinates.then_some(0.0),
        }
    }

    /// Adds one sample's estimate of the diagonal.
    fn push(&mut self, estimate: impl Iterator<Item = f64>, truth: &[f64]) {
        let (mut sum, mut squares) = (0.0, 0.0);
        for (estimate, truth) in estimate.zip(truth) {
            sum += estimate - truth;
            squares += (estimate - truth).powi(2);
        }
        self.sums.push(sum);
        if let Some(total) = &mut self.squares {
            *total += squares;
        }
    }

    fn finish(self, size: usize) -> Estimate {
        let n = self.sums.len() as f64;
        let bias = self.sums.iter().sum::<f64>() / n;
        let variance = self.sums.iter().map(|e| (e - bias).powi(2)).sum::<f64>() / (n - 1.0);
        Estimate {
            name: self.name,
            bias,
            standard_error: (variance / n).sqrt(),
            standard_deviation: variance.sqrt(),
            coordinate_error: self.squares.map(|s| (s / (n * size as f64)).sqrt()),
        }
    }
}

/// Measures all estimators at time t in (0, 1) over `n` ≥ 2 samples.
pub fn measure(field: &dyn Field, t: f64, n: usize, seed: u64) -> Result<Row> {
    let size = field.state_size();
    let (data, noise) = field.pairs(n, seed);
    let x: Vec<f64> = data
        .iter()
        .zip(&noise)
        .map(|(data, noise)| t * data + (1.0 - t) * noise)
        .collect();
    let values = field.evaluate(t, &x)?;
    let mut scallop = ["plain", "score", "centred"].map(|name| Errors::new(name.into(), true));
    let mut hutchinson: Vec<[Errors; 2]> = PROBES
        .iter()
        .map(|count| {
            [
                Errors::new(format!("±1, {count}"), true),
                Errors::new(format!("normal, {count}"), true),
            ]
        })
        .collect();
    let mut divergence = 0.0;
    let most = PROBES[PROBES.len() - 1];
    for sample in 0..n {
        let row = sample * size..(sample + 1) * size;
        let (x, v) = (&x[row.clone()], &values.velocity[row.clone()]);
        let (data, noise) = (&data[row.clone()], &noise[row]);
        let jacobian = &values.jacobians[sample * size * size..(sample + 1) * size * size];
        let truth: Vec<f64> = (0..size).map(|i| jacobian[i * (size + 1)]).collect();
        divergence += truth.iter().sum::<f64>();

        let constant = -field.share() / (1.0 - t);
        let terms = |i: usize| {
            let conditional = data[i] - noise[i];
            let score = -(x[i] - t * v[i]) / (1.0 - t);
            (conditional, conditional - v[i], noise[i] / (1.0 - t), score)
        };
        let [plain, score, centred] = &mut scallop;
        plain.push(
            (0..size).map(|i| {
                let (_, residual, noise, _) = terms(i);
                constant - residual * noise
            }),
            &truth,
        );
        score.push(
            (0..size).map(|i| {
                let (conditional, _, noise, score) = terms(i);
                constant - conditional * (noise + score)
            }),
            &truth,
        );
        centred.push(
            (0..size).map(|i| {
                let (_, residual, noise, score) = terms(i);
                constant - residual * (noise + score)
            }),
            &truth,
        );

        let mut stream = Stream::new(seed, DOMAIN_PROBES, sample as u64);
        for kind in 0..2 {
            let mut total = vec![0.0; size];
            let mut which = 0;
            for number in 1..=most {
                let mut probe: Vec<f64> = (0..size)
                    .map(|_| match kind {
                        0 if stream.uniform() < 0.5 => -1.0,
                        0 => 1.0,
                        _ => stream.standard_normal(),
                    })
                    .collect();
                field.project(&mut probe);
                for (i, row) in jacobian.chunks_exact(size).enumerate() {
                    let along: f64 = row.iter().zip(&probe).map(|(a, b)| a * b).sum();
                    total[i] += probe[i] * along;
                }
                if number == PROBES[which] {
                    let mean = total.iter().map(|sum| sum / number as f64);
                    hutchinson[which][kind].push(mean, &truth);
                    which += 1;
                }
            }
        }
    }
    let estimators = scallop
        .into_iter()
        .chain(hutchinson.into_iter().flatten())
        .map(|errors| errors.finish(size))
        .collect();
    Ok(Row {
        time: t,
        divergence: divergence / n as f64,
        estimators,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::field::GaussianField;

    #[test]
    fn all_estimators_are_unbiased_for_the_exact_velocity() {
        let field = GaussianField::new(6, (0.2, 2.0), 1);
        for t in [0.1, 0.5, 0.9] {
            let row = measure(&field, t, 4000, 7).unwrap();
            for estimate in &row.estimators {
                assert!(
                    estimate.bias.abs() < 5.0 * estimate.standard_error,
                    "{} at t = {t}: {} ± {}",
                    estimate.name,
                    estimate.bias,
                    estimate.standard_error
                );
            }
        }
    }

    #[test]
    fn spreads_are_those_of_the_closed_forms() {
        // tr A = Σ a_k, and one normal probe has the variance 2 Σ a_k². The centred form is −1/(1−t) + t r_i²/(1−t)
        // with r = ṽ − v, normal given x with the eigenvalues σ_k²/(t²σ_k² + (1−t)²) of its covariance C, so that its
        // sum has the variance 2 (t/(1−t))² tr C².
        let (d, t) = (5, 0.6);
        let field = GaussianField::new(d, (0.3, 1.5), 3);
        let row = measure(&field, t, 20_000, 11).unwrap();
        let sigma2 = (0..d).map(|k| (0.3 * 5f64.powf(k as f64 / 4.0)).powi(2));
        let rates: Vec<f64> = sigma2
            .clone()
            .map(|s| (t * s - (1.0 - t)) / (t * t * s + (1.0 - t) * (1.0 - t)))
            .collect();
        assert!((row.divergence - rates.iter().sum::<f64>()).abs() < 1e-9);
        let normal = (2.0 * rates.iter().map(|a| a * a).sum::<f64>()).sqrt();
        let centred = (2.0
            * sigma2
                .map(|s| (t / (1.0 - t) * s / (t * t * s + (1.0 - t) * (1.0 - t))).powi(2))
                .sum::<f64>())
        .sqrt();
        let of = |name: &str| {
            let found = row.estimators.iter().find(|e| e.name == name);
            found.unwrap().standard_deviation
        };
        // The relative error of a standard deviation of squares of normal numbers is about √(15/n) at worst.
        assert!((of("normal, 1") / normal - 1.0).abs() < 0.1);
        assert!((of("centred") / centred - 1.0).abs() < 0.1);
        assert!((of("normal, 4") / normal - 0.5).abs() < 0.05);
    }
}
