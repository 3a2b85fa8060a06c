//! Likelihoods: closed forms, finite differences, forward against backward, threads, cancellation.

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use boltzmap_autodiff::interpret::interpret;
use boltzmap_kernels::linalg::log_abs_det;
use boltzmap_models::ModelError;
use boltzmap_models::continuous_flow::{ContinuousFlow, Integrator};
use boltzmap_models::control::Control;
use boltzmap_models::deploy::{ExactSampler, FewStepSampler};
use boltzmap_models::flow_map::{FlowMap, reference_variance};
use boltzmap_models::ode::{Tableau, Tolerances};
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use common::{inputs, maps, random_parameters};

const TIGHT: Integrator = Integrator::dormand_prince(Tolerances {
    relative: 1e-12,
    absolute: 1e-12,
    max_steps: 100_000,
});

fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance, "{a} {b}");
    }
}

#[test]
fn untrained_models_agree_with_the_gaussian_closed_form() {
    let epsilon = 0.01;
    let schedule = Schedule::power(4, epsilon, 3.0).unwrap();
    for map in maps(4, 3) {
        let parameters = Parameters::<f64>::initialize(map.layout(), 1);
        let noise: Vec<f64> = map.subspace().noise(4, 3, 9, 1, 0, 5);
        let variance = reference_variance(1.0 - epsilon);
        let states: Vec<f64> = noise.iter().map(|v| v * variance.sqrt()).collect();
        let log_density: Vec<f64> = map
            .subspace()
            .gaussian_log_density(&noise, 4, 3)
            .iter()
            .map(|base| base - 0.5 * map.dimension() as f64 * variance.ln())
            .collect();
        let control = Control::default();

        let few = FewStepSampler::new(&map, &parameters, &schedule)
            .transport(&noise, &control)
            .unwrap();
        close(&few.states, &states, 1e-12);
        close(&few.log_density, &log_density, 1e-10);
        assert_eq!(few.evaluations, 4);

        let exact = ExactSampler::new(&map, &parameters, &schedule)
            .exact_log_density(&noise, &control)
            .unwrap();
        close(&exact.states, &states, 1e-12);
        close(&exact.log_density_head, &log_density, 1e-10);
        close(&exact.log_density_exact, &log_density, 1e-10);
        close(&exact.step_gaps, &[0.0; 20], 1e-10);
        assert_eq!(exact.folded_steps, 0);

        let flow = ContinuousFlow::new(&map, &parameters, epsilon, 2, TIGHT).unwrap();
        let forward = flow.transport(&noise, &control).unwrap();
        close(&forward.states, &states, 1e-10);
        close(&forward.log_density, &log_density, 1e-10);
        let backward = flow.log_density(&states, &control).unwrap();
        close(&backward.states, &noise, 1e-10);
        close(&backward.log_density, &log_density, 1e-10);
    }
}

/// log|det| of a map's Jacobian on the subspace by central differences.
fn numerical_log_det(map: &FlowMap, x: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> f64 {
    let (size, d) = (map.state_size(), map.dimension());
    let q = map.subspace().basis(map.tokens(), map.channels());
    let h = 1e-5;
    let mut jacobian = vec![0.0; d * d];
    // All 2 d displaced states in one call: +q_k and -q_k in turn.
    let displaced: Vec<f64> = (0..d)
        .flat_map(|k| [(k, h), (k, -h)])
        .flat_map(|(k, h)| (0..size).map(move |i| (i, k, h)))
        .map(|(i, k, h)| x[i] + h * q[i * d + k])
        .collect();
    let moved = f(&displaced);
    for k in 0..d {
        let (plus, minus) = (
            &moved[2 * k * size..][..size],
            &moved[(2 * k + 1) * size..][..size],
        );
        for r in 0..d {
            jacobian[r * d + k] = (0..size)
                .map(|i| q[i * d + r] * (plus[i] - minus[i]) / (2.0 * h))
                .sum();
        }
    }
    log_abs_det(&jacobian, d).0
}

#[test]
fn exact_log_determinants_agree_with_finite_differences() {
    for map in maps(4, 2) {
        let parameters = random_parameters(&map, 8, 0.4);
        let x: Vec<f64> = map.subspace().noise(4, 2, 3, 0, 0, 3);
        let (s, t) = ([0.0, 0.2, 0.7], [0.3, 0.9, 0.99]);
        let sampler = ExactSampler::new(&map, &parameters, &Schedule::uniform(1, 0.1).unwrap());
        let step = sampler.step(&x, &s, &t).unwrap();
        for i in 0..3 {
            let f = |x: &[f64]| {
                let n = x.len() / 8;
                let (s, t) = (vec![s[i]; n], vec![t[i]; n]);
                interpret(&map.step_program(n), &inputs(&parameters, &[x, &s, &t])).swap_remove(0)
            };
            let state = &x[i * 8..][..8];
            close(
                &[step.log_det_exact[i]],
                &[numerical_log_det(&map, state, f)],
                1e-7,
            );
            close(&step.states[i * 8..][..8], &f(state), 1e-12);
        }
        // The head knows nothing of these random weights, so the two must differ.
        assert!(
            step.log_det_exact
                .iter()
                .zip(&step.log_det_head)
                .any(|(a, b)| (a - b).abs() > 1e-3)
        );
    }
}

#[test]
fn few_step_likelihoods_compose_and_the_gaps_add_up() {
    let schedule = Schedule::uniform(3, 0.02).unwrap();
    for map in maps(3, 2) {
        let parameters = random_parameters(&map, 5, 0.3);
        let noise: Vec<f64> = map.subspace().noise(3, 2, 3, 0, 0, 4);
        let exact = ExactSampler::new(&map, &parameters, &schedule)
            .exact_log_density(&noise, &Control::default())
            .unwrap();
        let sampler = FewStepSampler::new(&map, &parameters, &schedule);
        let few = sampler.transport(&noise, &Control::default()).unwrap();
        close(&few.states, &exact.states, 1e-11);
        close(&few.log_density, &exact.log_density_head, 1e-11);
        let base = map.subspace().gaussian_log_density(&noise, 3, 2);
        for i in 0..4 {
            let gap: f64 = exact.step_gaps[3 * i..3 * i + 3].iter().sum();
            close(
                &[gap],
                &[exact.log_density_head[i] - exact.log_density_exact[i]],
                1e-11,
            );
            // The whole composition's Jacobian, not step by step.
            let f = |x: &[f64]| sampler.transport(x, &Control::default()).unwrap().states;
            let whole = numerical_log_det(&map, &noise[i * 6..][..6], f);
            close(&[exact.log_density_exact[i]], &[base[i] - whole], 1e-7);
        }
    }
}

#[test]
fn continuous_flow_is_its_own_inverse_and_obeys_the_change_of_variables() {
    for map in maps(3, 2) {
        let parameters = random_parameters(&map, 6, 0.3);
        let noise: Vec<f64> = map.subspace().noise(3, 2, 4, 0, 0, 3);
        let tolerances = Tolerances {
            relative: 1e-9,
            absolute: 1e-9,
            max_steps: 100_000,
        };
        let flow = ContinuousFlow::new(
            &map,
            &parameters,
            0.05,
            2,
            Integrator::dormand_prince(tolerances),
        )
        .unwrap();
        let control = Control::default();
        let forward = flow.transport(&noise, &control).unwrap();
        let backward = flow.log_density(&forward.states, &control).unwrap();
        close(&backward.states, &noise, 1e-6);
        close(&backward.log_density, &forward.log_density, 1e-6);
        assert!(forward.statistics.accepted > 5 && forward.statistics.evaluations > 30);

        // Differences of a map with fixed steps are smooth; adaptive steps would add noise of the tolerance's size.
        let fixed = Integrator::Fixed {
            tableau: Tableau::RK4,
            steps: 200,
        };
        let fixed = ContinuousFlow::new(&map, &parameters, 0.05, 4, fixed).unwrap();
        let result = fixed.transport(&noise, &control).unwrap();
        close(&result.log_density, &forward.log_density, 1e-5);
        assert_eq!(result.statistics.evaluations, 800);
        let base = map.subspace().gaussian_log_density(&noise, 3, 2);
        let f = |x: &[f64]| fixed.transport(x, &control).unwrap().states;
        let whole = numerical_log_det(&map, &noise[..6], f);
        close(&result.log_density[..1], &[base[0] - whole], 1e-5);
    }
}

#[test]
fn single_precision_follows_double() {
    let map = &maps(5, 3)[0];
    let parameters = random_parameters(map, 7, 0.2);
    let noise: Vec<f64> = map.subspace().noise(5, 3, 4, 0, 0, 3);
    let noise32: Vec<f32> = noise.iter().map(|&v| v as f32).collect();
    let schedule = Schedule::uniform(4, 0.02).unwrap();
    let control = Control::default();
    let double = ExactSampler::new(map, &parameters, &schedule)
        .exact_log_density(&noise, &control)
        .unwrap();
    let single = ExactSampler::new(map, &parameters.convert::<f32>(), &schedule)
        .exact_log_density(&noise32, &control)
        .unwrap();
    close(&single.log_density_exact, &double.log_density_exact, 1e-4);
    close(&single.log_density_head, &double.log_density_head, 1e-4);
}

#[test]
fn results_have_the_same_bits_on_any_number_of_threads() {
    let map = &maps(5, 3)[0];
    let parameters = random_parameters(map, 7, 0.2).convert::<f32>();
    let schedule = Schedule::uniform(3, 0.02).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let control = Control::default();
            let samples = FewStepSampler::new(map, &parameters, &schedule)
                .sample(1, 2, 0, 50, &control)
                .unwrap();
            let noise: Vec<f32> = map.subspace().noise(5, 3, 1, 2, 0, 9);
            let exact = ExactSampler::new(map, &parameters, &schedule)
                .exact_log_density(&noise, &control)
                .unwrap();
            let integrator = Integrator::dormand_prince(Tolerances::default());
            let flow = ContinuousFlow::new(map, &parameters, 0.02, 4, integrator).unwrap();
            (samples, exact, flow.transport(&noise, &control).unwrap())
        })
    };
    let one = run(1);
    assert!(one == run(3));
    // A sample does not depend on its neighbours either.
    let sampler = FewStepSampler::new(map, &parameters, &schedule);
    let some = sampler.sample(1, 2, 21, 7, &Control::default()).unwrap();
    assert_eq!(some.states, one.0.states[21 * 15..28 * 15]);
    assert_eq!(some.log_density, one.0.log_density[21..28]);
}

#[test]
fn work_reports_progress_and_stops_on_request() {
    let map = &maps(3, 2)[2];
    let parameters = random_parameters(map, 7, 0.2);
    let sampler = FewStepSampler::new(map, &parameters, &Schedule::uniform(2, 0.02).unwrap());
    let (cancel, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let progress = |done: usize, total: usize| {
        seen.lock().unwrap().push((done, total));
        cancel.store(done >= 2048, Ordering::Relaxed);
    };
    let control = Control {
        progress: Some(&progress),
        cancel: Some(&cancel),
    };
    assert!(matches!(
        sampler.sample(1, 2, 0, 3000, &control),
        Err(ModelError::Cancelled)
    ));
    assert_eq!(*seen.lock().unwrap(), [(1024, 3000), (2048, 3000)]);
}

#[test]
fn damaged_input_is_one_sentence() {
    let map = &maps(3, 2)[0];
    let parameters = random_parameters(map, 7, 0.2);
    let control = Control::default();
    let sampler = FewStepSampler::new(map, &parameters, &Schedule::uniform(2, 0.02).unwrap());
    let message = sampler
        .transport(&[0.0; 7], &control)
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("the base noise holds 7 numbers but 12 are needed"),
        "{message}"
    );
    let mut broken = parameters.clone();
    broken.get_mut("final.velocity.bias").unwrap()[0] = f64::NAN;
    let sampler = FewStepSampler::new(map, &broken, &Schedule::uniform(2, 0.02).unwrap());
    let message = sampler
        .sample(1, 2, 0, 3, &control)
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("the state is not finite for sample 0"),
        "{message}"
    );
    let flow = ContinuousFlow::new(map, &broken, 0.02, 2, TIGHT).unwrap();
    assert!(matches!(
        flow.transport(&[0.0; 6], &control),
        Err(ModelError::Integration { .. })
    ));
}
