//! SCALLOP's targets: their conditional expectations are the diagonal of the velocity's Jacobian.
//!
//! At one point x the fields are two constants, the exact velocity and a divergence D; the loss over draws of (x₁, z)
//! given x is then quadratic in D, and its gradient tells the mean target with a standard error.

use boltzmap_autodiff::builder::Builder;
use boltzmap_autodiff::grad;
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::ir::Program;
use boltzmap_kernels::random::Stream;
use boltzmap_objectives::interpolant::Interpolant;
use boltzmap_objectives::losses::*;
use boltzmap_objectives::oracles::GaussianMixture;

/// Draws given x in one program, and programs per estimate.
const BLOCK: usize = 250;
const BLOCKS: usize = 160;

const FORMS: [ScallopForm; 3] = [ScallopForm::Plain, ScallopForm::Score, ScallopForm::Centred];

fn plane() -> GaussianMixture {
    GaussianMixture {
        weights: vec![0.5, 0.3, 0.2],
        means: vec![vec![1.5, 0.3], vec![-0.7, 1.1], vec![0.2, -1.4]],
        standard_deviations: vec![0.3; 3],
    }
}

/// α, α̇, γ, γ̇ of an interpolant without base.
fn coefficients(interpolant: &Interpolant, t: f64) -> [f64; 4] {
    let (alpha, alpha_rate) = interpolant.numbers(&[1.0], &[0.0], &[0.0], t);
    let (gamma, gamma_rate) = interpolant.numbers(&[0.0], &[0.0], &[1.0], t);
    [alpha[0], alpha_rate[0], gamma[0], gamma_rate[0]]
}

/// r_k(x) and s_k² of x_t = α x₁ + γ z.
fn responsibilities(
    mixture: &GaussianMixture,
    x: &[f64],
    alpha: f64,
    gamma: f64,
) -> (Vec<f64>, Vec<f64>) {
    let variances: Vec<f64> = (mixture.standard_deviations.iter())
        .map(|sigma| (alpha * sigma).powi(2) + gamma * gamma)
        .collect();
    let terms: Vec<f64> = (0..variances.len())
        .map(|k| {
            let squares: f64 = (x.iter().zip(&mixture.means[k]))
                .map(|(x, m)| (x - alpha * m).powi(2))
                .sum();
            mixture.weights[k] * (-0.5 * squares / variances[k]).exp() / variances[k]
        })
        .collect();
    let total: f64 = terms.iter().sum();
    (terms.iter().map(|w| w / total).collect(), variances)
}

/// v = Σ r_k [α̇ μ_k + (α α̇ σ_k² + γ γ̇)/s_k² (x − α μ_k)].
fn velocity(mixture: &GaussianMixture, x: &[f64], c: [f64; 4]) -> Vec<f64> {
    let [alpha, alpha_rate, gamma, gamma_rate] = c;
    let (r, variances) = responsibilities(mixture, x, alpha, gamma);
    (0..x.len())
        .map(|i| {
            (0..r.len())
                .map(|k| {
                    let sigma = mixture.standard_deviations[k];
                    let slope =
                        (alpha * alpha_rate * sigma * sigma + gamma * gamma_rate) / variances[k];
                    let mean = mixture.means[k][i];
                    r[k] * (alpha_rate * mean + slope * (x[i] - alpha * mean))
                })
                .sum()
        })
        .collect()
}

/// ∂v_i/∂x_i by central differences with one extrapolation.
fn diagonal(mixture: &GaussianMixture, x: &[f64], c: [f64; 4]) -> Vec<f64> {
    (0..x.len())
        .map(|i| {
            let slope = |h: f64| {
                let shifted = |h: f64| {
                    let mut x = x.to_vec();
                    x[i] += h;
                    velocity(mixture, &x, c)[i]
                };
                (shifted(h) - shifted(-h)) / (2.0 * h)
            };
            (4.0 * slope(5e-5) - slope(1e-4)) / 3.0
        })
        .collect()
}

/// Draws x₁ | x, then z = (x − α x₁)/γ.
fn posterior(mixture: &GaussianMixture, x: &[f64], c: [f64; 4], seed: u64) -> [Vec<f64>; 2] {
    let [alpha, _, gamma, _] = c;
    let (r, _) = responsibilities(mixture, x, alpha, gamma);
    let mut stream = Stream::new(seed, 2, 0);
    let (mut data, mut noise) = (Vec::new(), Vec::new());
    for _ in 0..BLOCK {
        let mut rest = stream.uniform();
        let mut k = 0;
        while k + 1 < r.len() && rest >= r[k] {
            rest -= r[k];
            k += 1;
        }
        let sigma = mixture.standard_deviations[k];
        let precision = sigma.powi(-2) + (alpha / gamma).powi(2);
        for i in 0..x.len() {
            let mean =
                (mixture.means[k][i] / sigma.powi(2) + alpha * x[i] / gamma.powi(2)) / precision;
            let value = mean + stream.standard_normal() / precision.sqrt();
            data.push(value);
            noise.push((x[i] - alpha * value) / gamma);
        }
    }
    [data, noise]
}

/// Fields that are the same everywhere: their parameters.
fn constant_fields() -> Program {
    let builder = Builder::new();
    let [u, d] = ["velocity", "divergence"].map(|name| builder.input(name, &[2]));
    let x = builder.input("x", &[BLOCK, 1, 2]);
    let (s, t) = (builder.input("s", &[BLOCK]), builder.input("t", &[BLOCK]));
    let unused = (x * 0.0) + ((s + t) * 0.0).reshape(&[BLOCK, 1, 1]);
    builder.finish(&[
        ("mean_velocity", unused + u),
        ("mean_divergence", unused + d),
    ])
}

/// The mean target of D_i with its standard error, from the gradient of the divergence part at D = 0:
/// 2γ Σ_b (γ D_i − target_ib)/2.
fn mean_target(form: ScallopForm, interpolant: &Interpolant, x: &[f64], t: f64) -> Vec<(f64, f64)> {
    let mixture = plane();
    let c = coefficients(interpolant, t);
    let shape = LossShape {
        block: BLOCK,
        tokens: 1,
        channels: 2,
        kappa: 1.0,
    };
    let terms = DiagonalTerms {
        weights: DiagonalWeights {
            velocity: 1.0,
            divergence: 1.0,
        },
        velocity: VelocityTarget::Conditional,
        divergence: DiagonalDivergence::Scallop(form),
        reduction: Reduction::Vector,
    };
    let loss = diagonal_fields_loss(&constant_fields(), shape, interpolant, terms);
    let gradient = grad(loss.program(), &[1]);
    let v = velocity(&mixture, x, c);
    let means: Vec<Vec<f64>> = (0..BLOCKS)
        .map(|block| {
            let [data, noise] = posterior(&mixture, x, c, block as u64);
            let inputs = [v.clone(), vec![0.0; 2], data, noise, vec![t; BLOCK]];
            let outputs = interpret(&gradient, &inputs);
            let slope = &outputs[gradient.outputs.len() - 1];
            slope
                .iter()
                .map(|g| -g / (c[2] * c[2] * BLOCK as f64))
                .collect()
        })
        .collect();
    (0..2)
        .map(|i| {
            let n = BLOCKS as f64;
            let mean = means.iter().map(|m| m[i]).sum::<f64>() / n;
            let squares: f64 = means.iter().map(|m| (m[i] - mean).powi(2)).sum();
            (mean, (squares / (n - 1.0) / n).sqrt())
        })
        .collect()
}

/// The design's check points: −∂_i v_i at x = (0.4, 0.2). 40 000 draws each; five standard errors, which are stated to be
/// small enough to tell the value.
#[test]
fn every_form_has_the_divergence_as_its_mean_at_the_check_points() {
    let expected = [
        (0.3, [0.58375710, 0.85629730]),
        (0.7, [-0.67924694, 1.18488098]),
        (0.95, [-0.59913238, -0.44977929]),
    ];
    let x = [0.4, 0.2];
    for (t, minus) in expected {
        for form in FORMS {
            let found = mean_target(form, &Interpolant::linear(), &x, t);
            for (i, (mean, error)) in found.into_iter().enumerate() {
                let gap = mean + minus[i];
                assert!(error < 0.25, "{form:?} at {t}: error {error} tells nothing");
                assert!(gap.abs() < 5.0 * error, "{form:?} at {t}: {mean} ± {error}");
            }
        }
    }
}

#[test]
fn every_form_works_on_the_trigonometric_path() {
    let x = [0.4, 0.2];
    let interpolant = Interpolant::trigonometric();
    for t in [0.3, 0.7] {
        let exact = diagonal(&plane(), &x, coefficients(&interpolant, t));
        for form in FORMS {
            let found = mean_target(form, &interpolant, &x, t);
            for (i, (mean, error)) in found.into_iter().enumerate() {
                assert!(error < 0.1, "{form:?} at {t}: error {error} tells nothing");
                let gap = mean - exact[i];
                assert!(
                    gap.abs() < 5.0 * error,
                    "{form:?} at {t}: {mean} ± {error}, {}",
                    exact[i]
                );
            }
        }
    }
}

/// The general formulas, on the linear path, are the oracle's.
#[test]
fn general_coefficients_give_the_oracle_on_the_linear_path() {
    let x = [0.4, 0.2];
    for t in [0.3, 0.7, 0.95] {
        let c = coefficients(&Interpolant::linear(), t);
        let oracle = plane().velocity(&x, t);
        for i in 0..2 {
            assert!((velocity(&plane(), &x, c)[i] - oracle.velocity[i]).abs() < 1e-12);
            assert!((diagonal(&plane(), &x, c)[i] - oracle.diagonal[i]).abs() < 1e-7);
        }
    }
}

/// Centring cuts the noise near the data, where the plain form's target is a small difference of large numbers.
#[test]
fn the_centred_form_is_the_least_noisy_near_the_data() {
    let x = [1.4, 0.3];
    let errors = FORMS.map(|form| mean_target(form, &Interpolant::linear(), &x, 0.95)[0].1);
    assert!(errors[2] < errors[1] && errors[2] < errors[0], "{errors:?}");
}
