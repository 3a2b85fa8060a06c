//! Losses on targets whose flow map and log-determinant are known.

use boltzmap_autodiff::builder::{Builder, Var};
use boltzmap_autodiff::grad;
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::ir::Program;
use boltzmap_kernels::random::Stream;
use boltzmap_objectives::losses::{
    ConsistencyWeights, DiagonalWeights, LossShape, StopGradient, diagonal_loss, lagrangian_loss,
    likelihood_loss,
};
use boltzmap_objectives::oracles::{GaussianMixture, gaussian_flow_map};
use proptest::prelude::*;

const BLOCK: usize = 3;
const TOKENS: usize = 4;
const CHANNELS: usize = 2;

fn shape(kappa: f64) -> LossShape {
    LossShape {
        block: BLOCK,
        tokens: TOKENS,
        channels: CHANNELS,
        kappa,
    }
}

/// t² a + (1−t)²
fn variance<'b>(t: Var<'b>, a: f64) -> Var<'b> {
    t.square() * a + (1.0 - t).square()
}

/// ln of t² a + (1−t)² over its value at a = 1
fn log_ratio<'b>(t: Var<'b>, a: f64) -> Var<'b> {
    (variance(t, a) / variance(t, 1.0)).ln()
}

/// The exact corrections of N(0, σ² I) data, with one parameter: an offset of the divergence head.
fn gaussian_corrections(sigma: f64, kappa: f64) -> Program {
    let builder = Builder::new();
    let offset = builder.input("offset", &[1]);
    let x = builder.input("x", &[BLOCK, TOKENS, CHANNELS]);
    let (s, t) = (builder.input("s", &[BLOCK]), builder.input("t", &[BLOCK]));
    let square = sigma * sigma;
    // (f_t/f_s − 1)/(t−s) for f_t² = a t² + (1−t)², without the division by t − s.
    let slope = |a: f64| {
        let (from, to) = (variance(s, a).sqrt(), variance(t, a).sqrt());
        ((t + s) * (a + 1.0) - 2.0) / (from * (from + to))
    };
    let n = x * (slope(square) - slope(1.0)).reshape(&[BLOCK, 1, 1]);
    let distance = t - s;
    let apart = (distance * distance).greater(builder.constant(1e-16, &[BLOCK]));
    let safe = apart.select(distance, builder.constant(1.0, &[BLOCK]));
    let rate = |a: f64| (t * (a + 1.0) - 1.0) / variance(t, a);
    let h = apart.select(
        (log_ratio(t, square) - log_ratio(s, square)) * (0.5 * kappa) / safe,
        (rate(square) - rate(1.0)) * kappa,
    );
    let h = h.reshape(&[BLOCK, 1, 1]) + x * 0.0 + offset;
    builder.finish(&[("n", n), ("h", h)])
}

fn normals(seed: u64, n: usize, scale: f64) -> Vec<f64> {
    let mut stream = Stream::new(seed, 1, 0);
    (0..n).map(|_| scale * stream.standard_normal()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn lagrangian_residuals_vanish_on_the_gaussian_flow_map(
        sigma in 0.2f64..2.0,
        times in prop::collection::vec((0.0f64..0.97, 0.0f64..1.0), BLOCK),
        mean_free in any::<bool>(),
        seed in 0u64..1000,
    ) {
        let kappa = if mean_free { 1.0 - 1.0 / TOKENS as f64 } else { 1.0 };
        let corrections = gaussian_corrections(sigma, kappa);
        let weights = ConsistencyWeights { map: 1.0, divergence: 1.0 };
        let size = BLOCK * TOKENS * CHANNELS;
        let start: Vec<f64> = times.iter().map(|(s, _)| *s).collect();
        let end: Vec<f64> = times.iter().map(|(s, place)| s + 1e-3 + place * (0.99 - s - 1e-3)).collect();
        for stop in [StopGradient::Target, StopGradient::TargetAndArgument, StopGradient::None] {
            let loss = lagrangian_loss(&corrections, shape(kappa), weights, stop);
            let inputs = [
                vec![0.0], vec![0.0],
                normals(seed, size, sigma), normals(seed + 1, size, 1.0), start.clone(), end.clone(),
            ];
            let outputs = interpret(loss.program(), &inputs);
            prop_assert!(outputs[1][0] < 1e-20, "map residual {}", outputs[1][0]);
            prop_assert!(outputs[2][0] < 1e-18, "divergence residual {}", outputs[2][0]);
        }
        // The corrections are those of the oracle's map.
        let (s, t) = (start[0], end[0]);
        let x = normals(seed, size, 1.0);
        let outputs = interpret(&corrections, &[vec![0.0], x.clone(), start.clone(), end.clone()]);
        let (ratio, log_det) = gaussian_flow_map(sigma, s, t);
        let (reference, reference_log_det) = gaussian_flow_map(1.0, s, t);
        let mapped = x[0] * reference + (t - s) * outputs[0][0];
        prop_assert!((mapped - x[0] * ratio).abs() < 1e-12);
        let head = kappa * reference_log_det + (t - s) * outputs[1][0];
        prop_assert!((head - kappa * log_det).abs() < 1e-12);
    }
}

#[test]
fn a_wrong_divergence_head_is_seen() {
    let corrections = gaussian_corrections(0.5, 1.0);
    let weights = ConsistencyWeights {
        map: 1.0,
        divergence: 1.0,
    };
    let loss = lagrangian_loss(
        &corrections,
        shape(1.0),
        weights,
        StopGradient::TargetAndArgument,
    );
    let size = BLOCK * TOKENS * CHANNELS;
    let inputs = [
        vec![0.3],
        vec![0.1],
        normals(1, size, 0.5),
        normals(2, size, 1.0),
        vec![0.2; BLOCK],
        vec![0.6; BLOCK],
    ];
    // The student is off by 0.3 and the teacher by 0.1: the residual is 0.2 in each coordinate.
    let outputs = interpret(loss.program(), &inputs);
    assert!((outputs[2][0] - 0.04 * BLOCK as f64).abs() < 1e-12);
    assert!(outputs[1][0] < 1e-20);
}

/// At the exact velocity and divergence the expected gradient of the variance form is zero; off it, it points back.
#[test]
fn variance_form_is_unbiased_on_gaussian_data() {
    let sigma = 0.6;
    let weights = DiagonalWeights {
        velocity: 0.0,
        divergence: 1.0,
    };
    let loss = diagonal_loss(&gaussian_corrections(sigma, 1.0), shape(1.0), weights);
    let gradient = grad(loss.program(), &[0]);
    let size = BLOCK * TOKENS * CHANNELS;
    for (t, offset) in [(0.05, 0.0), (0.3, 0.0), (0.8, 0.0), (0.95, 0.0), (0.5, 0.4)] {
        let draws = 600;
        let slopes: Vec<f64> = (0..draws)
            .map(|draw| {
                let inputs = [
                    vec![offset],
                    normals(10 * draw, size, sigma),
                    normals(10 * draw + 1, size, 1.0),
                    vec![t; BLOCK],
                ];
                interpret(&gradient, &inputs)[3][0]
            })
            .collect();
        let mean = slopes.iter().sum::<f64>() / draws as f64;
        let spread = slopes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (draws - 1) as f64;
        let error = (spread / draws as f64).sqrt();
        // d/dc Σ_b mean_i [(1−t)(h+c) − target]² = 2 B (1−t)² c in expectation.
        let expected = 2.0 * BLOCK as f64 * (1.0 - t) * (1.0 - t) * offset;
        assert!(
            (mean - expected).abs() < 5.0 * error,
            "t = {t}: {mean} ± {error}, expected {expected}"
        );
        if offset > 0.0 {
            assert!(mean > 5.0 * error);
        }
    }
}

/// The conditional variance of ṽ, by drawing from the posterior of a mixture, is what the oracle derives from ∂v/∂x.
#[test]
fn diagonal_jacobian_is_the_conditional_variance() {
    let mixture = GaussianMixture {
        weights: vec![0.5, 0.3, 0.2],
        means: vec![vec![1.5, 0.3], vec![-0.7, 1.1], vec![0.2, -1.4]],
        standard_deviations: vec![0.3, 0.5, 0.4],
    };
    let x = [0.4, 0.2];
    let mut stream = Stream::new(5, 0, 0);
    for t in [0.2, 0.5, 0.9] {
        let responsibilities = mixture.responsibilities(&x, t);
        let draws = 100_000;
        let mut sums = [[0.0; 2]; 2];
        for _ in 0..draws {
            let place = stream.uniform();
            let k = if place < responsibilities[0] {
                0
            } else if place < responsibilities[0] + responsibilities[1] {
                1
            } else {
                2
            };
            // x₁ | x_t, k: prior N(μ, σ²), likelihood x_t = t x₁ + (1−t) z.
            let precision = mixture.standard_deviations[k].powi(-2) + (t / (1.0 - t)).powi(2);
            for i in 0..2 {
                let mean = (mixture.means[k][i] / mixture.standard_deviations[k].powi(2)
                    + t * x[i] / (1.0 - t).powi(2))
                    / precision;
                let data = mean + stream.standard_normal() / precision.sqrt();
                let noise = (x[i] - t * data) / (1.0 - t);
                sums[i][0] += data - noise;
                sums[i][1] += (data - noise).powi(2);
            }
        }
        let n = draws as f64;
        for i in 0..2 {
            let mean = sums[i][0] / n;
            let variance = sums[i][1] / n - mean * mean;
            let exact = mixture.residual_variance(&x, t)[i];
            assert!((mean - mixture.velocity(&x, t).velocity[i]).abs() < 5.0 * (exact / n).sqrt());
            // Kurtosis of a mixture this tame is below 6, so the variance's error is below √(5/n) of it.
            assert!(
                (variance - exact).abs() < 5.0 * exact * (5.0 / n).sqrt(),
                "t = {t}: {variance} against {exact}"
            );
        }
    }
}

/// The flow z = (x − μ) e^{−a} of data N(μ, e^{2a}): the loss is the Gaussian's negative log-density.
#[test]
fn likelihood_of_an_affine_flow() {
    let (mean, log_scale) = (0.7f64, 0.4f64);
    let b = Builder::new();
    let shift = b.input("shift", &[1]);
    let x = b.input("x", &[BLOCK, TOKENS, CHANNELS]);
    let z = (x - shift) * (-log_scale).exp();
    let coordinates = (TOKENS * CHANNELS) as f64;
    let log_det = b.constant(-log_scale * coordinates, &[BLOCK]);
    let loss = likelihood_loss(&b.finish(&[("z", z), ("log_det", log_det)]));
    let mut states = vec![0.0; BLOCK * TOKENS * CHANNELS];
    Stream::new(3, 1, 0).fill_standard_normal(&mut states);
    let scale = log_scale.exp();
    let expected: f64 = states
        .iter()
        .map(|x| {
            let density = (-0.5 * ((x - mean) / scale).powi(2)).exp()
                / (scale * std::f64::consts::TAU.sqrt());
            -density.ln() / coordinates
        })
        .sum();
    let outputs = interpret(&grad(loss.program(), &[0]), &[&[mean][..], &states]);
    assert!(
        (outputs[0][0] - expected).abs() < 1e-12,
        "{} {expected}",
        outputs[0][0]
    );
    // ∂/∂μ of ½(x − μ)²/σ² per coordinate.
    let slope: f64 = states
        .iter()
        .map(|x| (mean - x) / (scale * scale * coordinates))
        .sum();
    assert!((outputs[1][0] - slope).abs() < 1e-12);
}
