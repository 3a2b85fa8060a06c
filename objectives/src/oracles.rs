//! Targets with closed forms, the truth that losses and likelihoods are tested against.
//!
//! All under the linear interpolant x_t = t x₁ + (1−t) z with z ~ N(0, I).

use std::f64::consts::PI;

/// A mixture Σ π_k N(μ_k, σ_k² I) in d dimensions.
///
/// Under the linear interpolant the density at time t is again a mixture, with means t μ_k and variances
/// s_k² = t²σ_k² + (1−t)². With responsibilities r_k(x) the velocity is
/// v = Σ r_k [μ_k + c_k (x − tμ_k)], c_k = (tσ_k² − (1−t))/s_k².
#[derive(Clone, Debug)]
pub struct GaussianMixture {
    /// π_k, summing to one.
    pub weights: Vec<f64>,
    /// μ_k, each of length d.
    pub means: Vec<Vec<f64>>,
    /// σ_k
    pub standard_deviations: Vec<f64>,
}

/// Velocity and the diagonal of its Jacobian at a point.
#[derive(Clone, Debug, PartialEq)]
pub struct VelocityAndDiagonal {
    /// v_i(x, t)
    pub velocity: Vec<f64>,
    /// ∂v_i/∂x_i
    pub diagonal: Vec<f64>,
}

impl GaussianMixture {
    /// One Gaussian N(0, σ² I).
    pub fn gaussian(dimension: usize, standard_deviation: f64) -> Self {
        Self {
            weights: vec![1.0],
            means: vec![vec![0.0; dimension]],
            standard_deviations: vec![standard_deviation],
        }
    }

    /// d
    pub fn dimension(&self) -> usize {
        self.means[0].len()
    }

    /// s_k² = t²σ_k² + (1−t)²
    fn variance(&self, k: usize, t: f64) -> f64 {
        let sigma = self.standard_deviations[k];
        t * t * sigma * sigma + (1.0 - t) * (1.0 - t)
    }

    /// log(π_k N(x; tμ_k, s_k²)) for each k.
    fn log_components(&self, x: &[f64], t: f64) -> Vec<f64> {
        (0..self.weights.len())
            .map(|k| {
                let variance = self.variance(k, t);
                let squared: f64 = x
                    .iter()
                    .zip(&self.means[k])
                    .map(|(x, m)| (x - t * m).powi(2))
                    .sum();
                self.weights[k].ln()
                    - 0.5 * squared / variance
                    - 0.5 * x.len() as f64 * (2.0 * PI * variance).ln()
            })
            .collect()
    }

    /// log p_t(x), by log-sum-exp over the components.
    pub fn log_density(&self, x: &[f64], t: f64) -> f64 {
        let terms = self.log_components(x, t);
        let largest = terms.iter().cloned().fold(f64::NEG_INFINITY, f64::max);
        largest + terms.iter().map(|a| (a - largest).exp()).sum::<f64>().ln()
    }

    /// r_k(x), the posterior probability of each component at time t.
    pub fn responsibilities(&self, x: &[f64], t: f64) -> Vec<f64> {
        let total = self.log_density(x, t);
        self.log_components(x, t)
            .iter()
            .map(|a| (a - total).exp())
            .collect()
    }

    /// ∇ log p_t(x) = −Σ r_k (x − tμ_k)/s_k².
    pub fn score(&self, x: &[f64], t: f64) -> Vec<f64> {
        let r = self.responsibilities(x, t);
        (0..x.len())
            .map(|i| {
                -(0..r.len())
                    .map(|k| r[k] * (x[i] - t * self.means[k][i]) / self.variance(k, t))
                    .sum::<f64>()
            })
            .collect()
    }

    /// v(x, t) and diag ∂v/∂x, the latter by the product rule with
    /// ∂r_k/∂x_i = r_k [−(x_i − tμ_ki)/s_k² − score_i].
    pub fn velocity(&self, x: &[f64], t: f64) -> VelocityAndDiagonal {
        let r = self.responsibilities(x, t);
        let score = self.score(x, t);
        let mut velocity = vec![0.0; x.len()];
        let mut diagonal = vec![0.0; x.len()];
        for k in 0..r.len() {
            let variance = self.variance(k, t);
            let c = (t * self.standard_deviations[k].powi(2) - (1.0 - t)) / variance;
            for i in 0..x.len() {
                let offset = x[i] - t * self.means[k][i];
                let value = self.means[k][i] + c * offset;
                velocity[i] += r[k] * value;
                diagonal[i] += r[k] * c + r[k] * (-offset / variance - score[i]) * value;
            }
        }
        VelocityAndDiagonal { velocity, diagonal }
    }

    /// Var(ṽ_i | x_t = x) = (1 + (1−t) ∂_i v_i)/t, the target of the variance form of SCALLOP. Needs t > 0.
    pub fn residual_variance(&self, x: &[f64], t: f64) -> Vec<f64> {
        self.velocity(x, t)
            .diagonal
            .iter()
            .map(|d| (1.0 + (1.0 - t) * d) / t)
            .collect()
    }
}

/// Flow map of N(0, σ² I): X_{s,t}(x) = x s_t/s_s and Λ per coordinate = ln(s_t/s_s), with s_t² = t²σ² + (1−t)².
pub fn gaussian_flow_map(standard_deviation: f64, s: f64, t: f64) -> (f64, f64) {
    let spread = |t: f64| ((t * standard_deviation).powi(2) + (1.0 - t).powi(2)).sqrt();
    let ratio = spread(t) / spread(s);
    (ratio, ratio.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three components in the plane, the check point of the design notes.
    fn plane() -> GaussianMixture {
        GaussianMixture {
            weights: vec![0.5, 0.3, 0.2],
            means: vec![vec![1.5, 0.3], vec![-0.7, 1.1], vec![0.2, -1.4]],
            standard_deviations: vec![0.3; 3],
        }
    }

    #[test]
    fn divergence_at_the_check_points() {
        let expected = [
            (0.3, [0.58375710, 0.85629730]),
            (0.7, [-0.67924694, 1.18488098]),
            (0.95, [-0.59913238, -0.44977929]),
        ];
        for (t, minus_diagonal) in expected {
            let found = plane().velocity(&[0.4, 0.2], t).diagonal;
            for i in 0..2 {
                assert!((-found[i] - minus_diagonal[i]).abs() < 5e-9, "t = {t}");
            }
        }
    }

    #[test]
    fn diagonal_and_score_are_derivatives() {
        let (mixture, x, h) = (plane(), [0.4, 0.2], 1e-5);
        for t in [0.0, 0.2, 0.6, 0.9, 1.0] {
            let here = mixture.velocity(&x, t);
            for i in 0..2 {
                let (mut up, mut down) = (x, x);
                up[i] += h;
                down[i] -= h;
                let slope = (mixture.velocity(&up, t).velocity[i]
                    - mixture.velocity(&down, t).velocity[i])
                    / (2.0 * h);
                assert!((slope - here.diagonal[i]).abs() < 1e-7 * (1.0 + slope.abs()));
                let slope =
                    (mixture.log_density(&up, t) - mixture.log_density(&down, t)) / (2.0 * h);
                assert!((slope - mixture.score(&x, t)[i]).abs() < 1e-7 * (1.0 + slope.abs()));
            }
        }
    }

    #[test]
    fn density_obeys_the_continuity_equation() {
        // ∂_t log p + v·∇ log p + ∇·v = 0
        let (mixture, x, h) = (plane(), [0.4, 0.2], 1e-5);
        for t in [0.1, 0.5, 0.9] {
            let rate =
                (mixture.log_density(&x, t + h) - mixture.log_density(&x, t - h)) / (2.0 * h);
            let flow = mixture.velocity(&x, t);
            let transport: f64 = flow
                .velocity
                .iter()
                .zip(mixture.score(&x, t))
                .map(|(v, s)| v * s)
                .sum();
            let divergence: f64 = flow.diagonal.iter().sum();
            assert!((rate + transport + divergence).abs() < 1e-7);
        }
    }

    #[test]
    fn gaussian_map_is_the_flow_of_the_gaussian_velocity() {
        let gaussian = GaussianMixture::gaussian(1, 0.7);
        let h = 1e-6;
        for (s, t) in [(0.0, 0.5), (0.2, 0.9), (0.5, 0.5)] {
            let (ratio, log_det) = gaussian_flow_map(0.7, s, t);
            let slope = (gaussian_flow_map(0.7, s, t + h).0 - gaussian_flow_map(0.7, s, t - h).0)
                / (2.0 * h);
            assert!((slope - gaussian.velocity(&[ratio], t).velocity[0]).abs() < 1e-8);
            assert!((log_det - ratio.ln()).abs() < 1e-15);
        }
    }
}
