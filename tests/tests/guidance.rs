//! Self-guidance: its gradient, its Hessian, and the density of what it makes.

mod common;

use boltzmap_kernels::linalg::log_abs_det;
use boltzmap_models::control::Control;
use boltzmap_models::deploy::FewStepSampler;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::guidance::GuidedSampler;
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use common::{dit, egnn, gentle_parameters, mlp, random_parameters};

fn schedule() -> Schedule {
    Schedule::uniform(2, 0.05).unwrap()
}

fn maps() -> [FlowMap; 4] {
    [
        dit(3, 2, Subspace::MeanFree),
        mlp(2, 2, Subspace::Full),
        mlp(2, 2, Subspace::MeanFree),
        egnn(3, 2),
    ]
}

#[test]
fn untrained_guidance_shrinks_the_noise_by_one_minus_the_step() {
    // ℓ(x) = −½|x|² − d ln S − ½ d ln 2π, so that x' = (1 − η) x and I + η H = (1 − η) I.
    let eta = 0.3;
    let control = Control::default();
    for map in maps() {
        let parameters = Parameters::<f64>::initialize(map.layout(), 1);
        let (tokens, channels) = (map.tokens(), map.channels());
        let noise: Vec<f64> = map.subspace().noise(tokens, channels, 3, 0, 0, 5);
        let sampler = GuidedSampler::new(&map, &parameters, &schedule(), eta).unwrap();
        let guided = sampler.guide(&noise, &control).unwrap();
        for (x, y) in noise.iter().zip(&guided.noise) {
            assert!(((1.0 - eta) * x - y).abs() < 1e-12);
        }
        let exact = sampler.exact_log_density(&noise, &control).unwrap();
        let plain = FewStepSampler::new(&map, &parameters, &schedule())
            .transport(&noise, &control)
            .unwrap();
        let update = map.dimension() as f64 * (1.0 - eta).ln();
        for i in 0..5 {
            assert!((exact.update_log_det[i] - update).abs() < 1e-10);
            assert!((exact.log_density[i] - (plain.log_density[i] - update)).abs() < 1e-10);
            assert!((guided.log_density_before[i] - plain.log_density[i]).abs() < 1e-10);
        }
        assert_eq!(exact.folded_steps, 0);
    }
}

/// Central differences of f along the basis of the map's subspace: `[d][outputs]`.
fn columns(map: &FlowMap, x: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Vec<f64>> {
    let (size, d) = (map.state_size(), map.dimension());
    let q = map.subspace().basis(map.tokens(), map.channels());
    let h = 1e-5;
    (0..d)
        .map(|k| {
            let moved = |sign: f64| -> Vec<f64> {
                let x: Vec<f64> = (0..size).map(|i| x[i] + sign * h * q[i * d + k]).collect();
                f(&x)
            };
            let (plus, minus) = (moved(1.0), moved(-1.0));
            plus.iter()
                .zip(&minus)
                .map(|(a, b)| (a - b) / (2.0 * h))
                .collect()
        })
        .collect()
}

#[test]
fn gradients_hessians_and_densities_agree_with_finite_differences() {
    let eta = 0.05;
    let control = Control::default();
    for (seed, map) in maps().iter().enumerate() {
        let parameters = gentle_parameters(map, seed as u64);
        let (size, d) = (map.state_size(), map.dimension());
        let (tokens, channels) = (map.tokens(), map.channels());
        let q = map.subspace().basis(tokens, channels);
        let noise: Vec<f64> = map.subspace().noise(tokens, channels, 4, 0, 0, 1);
        let sampler = GuidedSampler::new(map, &parameters, &schedule(), eta).unwrap();
        let plain = FewStepSampler::new(map, &parameters, &schedule());
        let guided = sampler.guide(&noise, &control).unwrap();
        let value = |x: &[f64]| plain.transport(x, &control).unwrap().log_density;
        assert!((value(&noise)[0] - guided.log_density_before[0]).abs() < 1e-10);
        for (k, slope) in columns(map, &noise, value).iter().enumerate() {
            let gradient: f64 = (0..size).map(|i| q[i * d + k] * guided.gradients[i]).sum();
            let error = (gradient - slope[0]).abs();
            assert!(
                error < 1e-6 * (1.0 + slope[0].abs()),
                "{gradient} {}",
                slope[0]
            );
        }
        let exact = sampler.exact_log_density(&noise, &control).unwrap();
        let log_det = |columns: Vec<Vec<f64>>| {
            let matrix: Vec<f64> = (0..d * d)
                .map(|at| {
                    (0..size)
                        .map(|i| q[i * d + at / d] * columns[at % d][i])
                        .sum()
                })
                .collect();
            log_abs_det(&matrix, d).0
        };
        let update = |x: &[f64]| sampler.guide(x, &control).unwrap().noise;
        let numerical = log_det(columns(map, &noise, update));
        let found = exact.update_log_det[0];
        assert!((found - numerical).abs() < 1e-6, "{found} {numerical}");
        assert!(numerical.abs() > 1e-3, "the update must do something");
        // The whole of what happens to the noise.
        let everything = |x: &[f64]| sampler.transport(x, &control).unwrap().states;
        let base = map
            .subspace()
            .gaussian_log_density(&noise, tokens, channels)[0];
        let numerical = base - log_det(columns(map, &noise, everything));
        let found = exact.log_density[0];
        assert!((found - numerical).abs() < 1e-6, "{found} {numerical}");
    }
}

#[test]
fn small_steps_raise_the_log_density_by_the_squared_gradient() {
    let control = Control::default();
    for (seed, map) in maps().iter().enumerate() {
        let parameters = gentle_parameters(map, seed as u64);
        let noise: Vec<f64> = map
            .subspace()
            .noise(map.tokens(), map.channels(), 6, 0, 0, 6);
        for eta in [1e-5, -1e-5] {
            let sampler = GuidedSampler::new(map, &parameters, &schedule(), eta).unwrap();
            let guided = sampler.guide(&noise, &control).unwrap();
            let samples = sampler.transport(&noise, &control).unwrap();
            assert_eq!(samples.log_density_before, guided.log_density_before);
            assert_eq!(samples.evaluations, 6);
            let gradients = guided.gradients.chunks_exact(map.state_size());
            for (i, gradient) in gradients.enumerate() {
                let squared: f64 = gradient.iter().map(|g| g * g).sum();
                let rise = (samples.log_density_after[i] - samples.log_density_before[i]) / eta;
                let error = (rise - squared).abs();
                assert!(error < 1e-2 * (1.0 + squared), "{rise} {squared}");
            }
        }
    }
}

#[test]
fn densities_of_guided_samples_integrate_to_one_and_plain_ones_do_not() {
    let nodes: Vec<f64> = (0..=4000).map(|i| -8.0 + f64::from(i) * 4e-3).collect();
    let control = Control::default();
    for seed in 0..3 {
        let map = mlp(1, 1, Subspace::Full);
        let parameters = gentle_parameters(&map, seed);
        let sampler = GuidedSampler::new(&map, &parameters, &schedule(), 0.15).unwrap();
        let exact = sampler.exact_log_density(&nodes, &control).unwrap();
        assert_eq!(exact.folded_steps, 0, "the update must be invertible");
        // The trapezoidal rule over the places where the nodes end, which knows nothing of any derivative; with every
        // other node too, so that the error of second order in their distance can be taken away.
        let trapezoids = |log_q: &[f64], every: usize| -> f64 {
            (every..nodes.len())
                .step_by(every)
                .map(|i| {
                    0.5 * (log_q[i].exp() + log_q[i - every].exp())
                        * (exact.states[i] - exact.states[i - every])
                })
                .sum()
        };
        let integral = |log_q: &[f64]| (4.0 * trapezoids(log_q, 1) - trapezoids(log_q, 2)) / 3.0;
        let total = integral(&exact.log_density);
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        // Without the update's own determinant it is no density.
        let without: Vec<f64> = exact
            .log_density
            .iter()
            .zip(&exact.update_log_det)
            .map(|(q, update)| q + update)
            .collect();
        assert!((integral(&without) - 1.0).abs() > 1e-2);
    }
}

#[test]
fn a_step_size_that_is_no_number_is_refused() {
    let map = mlp(1, 1, Subspace::Full);
    let parameters = random_parameters(&map, 1, 0.1);
    let error = GuidedSampler::new(&map, &parameters, &schedule(), f64::NAN)
        .err()
        .expect("it must be refused");
    assert!(error.to_string().contains("step size"), "{error}");
}
