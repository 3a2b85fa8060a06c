//! Flow maps and their inverses: round trips within the reported error, densities at given states, clear failures.

mod common;

use boltzmap_kernels::random::Stream;
use boltzmap_models::ModelError;
use boltzmap_models::control::Control;
use boltzmap_models::deploy::ExactSampler;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::inverse::{InverseOptions, Inverter};
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use common::{dit, egnn, gentle_parameters, mlp, random_parameters};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

const STATES: usize = 5;

fn maps() -> [FlowMap; 5] {
    [
        dit(3, 2, Subspace::MeanFree),
        dit(3, 2, Subspace::Full),
        mlp(2, 3, Subspace::MeanFree),
        mlp(2, 3, Subspace::Full),
        egnn(3, 2),
    ]
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// Beyond this a preimage that maps to the right state is another one than we started from, not an inaccurate one.
const OTHER_PREIMAGE: f64 = 1e-3;

/// The options' tolerance with one of the two iterations alone.
fn options(fixed_point_steps: usize, newton_steps: usize) -> InverseOptions {
    InverseOptions {
        fixed_point_steps,
        newton_steps,
        ..InverseOptions::of_precision::<f64>()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn steps_and_their_inverses_cancel_within_the_reported_error(
        seed in 0u64..1 << 40,
        from in 0.0f64..0.9,
        part in 0.05f64..1.0,
        newton_alone: bool,
    ) {
        let to = from + part * (0.98 - from);
        let (s, t) = ([from; STATES], [to; STATES]);
        let control = Control::default();
        for map in maps() {
            let parameters = gentle_parameters(&map, seed);
            let (tokens, channels, size) = (map.tokens(), map.channels(), map.state_size());
            let x: Vec<f64> = map.subspace().noise(tokens, channels, seed, 1, 0, STATES);
            let schedule = Schedule::uniform(1, 0.02).unwrap();
            let sampler = ExactSampler::new(&map, &parameters, &schedule);
            let forward = sampler.step(&x, &s, &t).unwrap();
            // Behind a fold there are several preimages, and the one found need not be the one we started from.
            prop_assume!(forward.signs.iter().all(|sign| *sign > 0.0));
            let fixed_point_steps = if newton_alone { 0 } else { 20 };
            let inverter = Inverter::new(&map, &parameters, &schedule, options(fixed_point_steps, 30));
            let back = inverter.step(&forward.states, &s, &t, &control).unwrap();
            // A fold off the way can hold Newton's method up, which is then said; `most_random_maps_are_inverted` counts how often.
            prop_assume!(back.converged.iter().all(|converged| *converged));
            back.require_converged(&s, &t).unwrap();
            let again = sampler.step(&back.states, &s, &t).unwrap();
            for i in 0..STATES {
                let of = |states: &[f64]| states[i * size..(i + 1) * size].to_vec();
                let error = distance(&of(&back.states), &of(&x));
                let residual = distance(&of(&again.states), &of(&forward.states));
                prop_assert!(residual <= 1e-11, "X(X⁻¹(y)) is {residual:e} away from y");
                // A map that folds elsewhere can have a second preimage with a positive determinant.
                prop_assume!(error < OTHER_PREIMAGE);
                prop_assert!(error <= back.errors[i], "{error:e} beyond {:e}", back.errors[i]);
                prop_assert!(back.errors[i] < 1e-9, "the bound {:e} says nothing", back.errors[i]);
                prop_assert!((residual - back.residuals[i]).abs() <= 1e-14);
                prop_assert!((back.log_det[i] - forward.log_det_exact[i]).abs() < 1e-9);
                prop_assert_eq!(back.signs[i], 1.0);
            }
        }
    }

    #[test]
    fn densities_at_given_states_are_those_of_the_noise_behind_them(seed in 0u64..1 << 40) {
        let schedule = Schedule::power(3, 0.02, 2.0).unwrap();
        let control = Control::default();
        for map in maps() {
            let parameters = gentle_parameters(&map, seed);
            let noise: Vec<f64> = map.subspace().noise(map.tokens(), map.channels(), seed, 2, 0, STATES);
            let forward = ExactSampler::new(&map, &parameters, &schedule)
                .exact_log_density(&noise, &control)
                .unwrap();
            prop_assume!(forward.folded_steps == 0);
            let inverter = Inverter::new(&map, &parameters, &schedule, options(20, 30));
            let inverse = match inverter.invert(&forward.states, &control) {
                Err(ModelError::NotInverted { .. }) => return Err(TestCaseError::reject("held up by a fold")),
                other => other.unwrap(),
            };
            prop_assert_eq!(inverse.folded_steps, 0);
            let size = map.state_size();
            for i in 0..STATES {
                let range = i * size..(i + 1) * size;
                let error = distance(&inverse.noise[range.clone()], &noise[range]);
                prop_assert!(inverse.residuals[i] <= 1e-11, "a residual of {:e}", inverse.residuals[i]);
                prop_assume!(error < OTHER_PREIMAGE);
                prop_assert!(error <= inverse.errors[i], "{error:e} beyond {:e}", inverse.errors[i]);
                let gap = (inverse.log_density[i] - forward.log_density_exact[i]).abs();
                prop_assert!(gap < 1e-8, "{gap:e}");
            }
        }
    }
}

/// How often maps that do not fold on the way are inverted: of 100 seeds and four maps all but a few.
#[test]
fn most_random_maps_are_inverted() {
    let schedule = Schedule::power(3, 0.02, 2.0).unwrap();
    let control = Control::default();
    let (mut tried, mut failed) = (0, 0);
    for seed in 0..100 {
        for map in maps() {
            let parameters = gentle_parameters(&map, seed);
            let noise: Vec<f64> =
                map.subspace()
                    .noise(map.tokens(), map.channels(), seed, 2, 0, STATES);
            let forward = ExactSampler::new(&map, &parameters, &schedule)
                .exact_log_density(&noise, &control)
                .unwrap();
            if forward.folded_steps > 0 {
                continue;
            }
            tried += 1;
            let inverter = Inverter::new(&map, &parameters, &schedule, options(20, 30));
            match inverter.invert(&forward.states, &control) {
                Err(ModelError::NotInverted { .. }) => failed += 1,
                other => drop(other.unwrap()),
            }
        }
    }
    println!("{failed} of {tried} maps were not inverted");
    assert!(
        tried > 200 && 100 * failed <= 2 * tried,
        "{failed} of {tried}"
    );
}

/// A deployed map of two steps, and log q at given states through its inverse.
fn log_density(map: &FlowMap, parameters: &Parameters<f64>, states: &[f64]) -> Vec<f64> {
    let schedule = Schedule::uniform(2, 0.05).unwrap();
    let inverse = Inverter::new(map, parameters, &schedule, options(20, 30))
        .invert(states, &Control::default())
        .unwrap();
    assert_eq!(inverse.folded_steps, 0, "the map must be invertible");
    inverse.log_density
}

#[test]
fn deployed_densities_on_a_grid_integrate_to_one() {
    let (side, width) = (401, 0.04);
    let nodes: Vec<f64> = (0..side).map(|i| (i as f64 - 200.0) * width).collect();
    for seed in 0..3 {
        let map = mlp(1, 1, Subspace::Full);
        let parameters = gentle_parameters(&map, seed);
        let log_q = log_density(&map, &parameters, &nodes);
        // The trapezoidal rule converges faster than any power of the spacing; what is left is the density outside.
        let total: f64 = log_q.iter().map(|q| q.exp() * width).sum();
        assert!((total - 1.0).abs() < 1e-8, "on the line: {total}");
    }

    let (side, width) = (81, 0.16);
    let maps = [mlp(1, 2, Subspace::Full), dit(3, 1, Subspace::MeanFree)];
    for (seed, map) in maps.iter().enumerate() {
        let parameters = gentle_parameters(map, seed as u64 + 5);
        let size = map.state_size();
        let basis = map.subspace().basis(map.tokens(), map.channels());
        let states: Vec<f64> = (0..side * side)
            .map(|i| [i / side, i % side].map(|k| (k as f64 - 40.0) * width))
            .flat_map(|at| {
                let basis = &basis;
                (0..size).map(move |j| basis[2 * j] * at[0] + basis[2 * j + 1] * at[1])
            })
            .collect();
        let log_q = log_density(map, &parameters, &states);
        let total: f64 = log_q.iter().map(|q| q.exp() * width * width).sum();
        assert!((total - 1.0).abs() < 1e-5, "in the plane: {total}");
    }
}

#[test]
fn maps_that_fold_and_states_outside_fail_with_one_sentence() {
    let control = Control::default();
    let schedule = Schedule::uniform(1, 0.02).unwrap();
    let map = dit(3, 2, Subspace::MeanFree);
    let parameters = gentle_parameters(&map, 1);
    let inverter = Inverter::new(&map, &parameters, &schedule, options(20, 30));
    let mut states: Vec<f64> = map.subspace().noise(3, 2, 1, 1, 0, 3);
    states[6..12].iter_mut().for_each(|value| *value += 0.3);
    let error = inverter.invert(&states, &control).unwrap_err();
    assert!(
        matches!(error, ModelError::OffSubspace { sample: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("sample 1 lies"), "{error}");

    // Maps of the line that turn back somewhere.
    let map = mlp(1, 1, Subspace::Full);
    let folding = (0..200)
        .map(|seed| random_parameters(&map, seed, 2.0))
        .find(|parameters| {
            let x: Vec<f64> = (0..400).map(|i| (i as f64 - 200.0) * 0.02).collect();
            let step = ExactSampler::new(&map, parameters, &schedule)
                .step(&x, &[0.0; 400], &[0.98; 400])
                .unwrap();
            step.signs.iter().any(|sign| *sign < 0.0)
        })
        .expect("large random weights fold the line");
    let inverter = Inverter::new(&map, &folding, &schedule, options(20, 30));
    let y: Vec<f64> = (0..400).map(|i| (i as f64 - 200.0) * 0.05).collect();
    let back = inverter
        .step(&y, &[0.0; 400], &[0.98; 400], &control)
        .unwrap();
    let sampler = ExactSampler::new(&map, &folding, &schedule);
    let image = sampler
        .step(&back.states, &[0.0; 400], &[0.98; 400])
        .unwrap();
    for i in 0..400 {
        // Converged or not, what is reported is true.
        let residual = (image.states[i] - y[i]).abs();
        assert!((residual - back.residuals[i]).abs() < 1e-12);
        assert_eq!(
            back.converged[i],
            residual <= 256.0 * f64::EPSILON * (1.0 + y[i].abs())
        );
    }
    // Neither iteration may take a step: only the Gaussian's own inverse is left, which is not this map's.
    let idle = Inverter::new(&map, &folding, &schedule, options(0, 0));
    let error = idle.invert(&y, &control).unwrap_err();
    assert!(
        matches!(error, ModelError::NotInverted { sample: 0, residual, .. } if residual > 1e-6),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("could not be inverted for sample 0"),
        "{error}"
    );

    assert!(matches!(
        inverter.invert(&[f64::NAN], &control),
        Err(ModelError::NotFinite { sample: 0, .. })
    ));
    assert!(matches!(
        inverter.step(&[0.0; 2], &[0.0], &[0.5; 2], &control),
        Err(ModelError::Length { .. })
    ));
}

#[test]
fn inverses_in_single_precision_are_the_same_on_any_number_of_threads() {
    let map = dit(5, 3, Subspace::MeanFree);
    let parameters = gentle_parameters(&map, 3).convert::<f32>();
    let schedule = Schedule::uniform(2, 0.05).unwrap();
    let noise: Vec<f32> = map.subspace().noise(5, 3, 1, 2, 0, 70);
    let control = Control::default();
    let forward = ExactSampler::new(&map, &parameters, &schedule)
        .exact_log_density(&noise, &control)
        .unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            Inverter::new(
                &map,
                &parameters,
                &schedule,
                InverseOptions::of_precision::<f32>(),
            )
            .invert(&forward.states, &control)
            .unwrap()
        })
    };
    let one = run(1);
    assert_eq!(one, run(3));
    for i in 0..70 {
        let of = |states: &[f32]| -> Vec<f64> {
            states[15 * i..15 * (i + 1)]
                .iter()
                .map(|&v| f64::from(v))
                .collect()
        };
        assert!(distance(&of(&one.noise), &of(&noise)) <= one.errors[i]);
        assert!((one.log_density[i] - forward.log_density_exact[i]).abs() < 1e-2);
    }
}

#[test]
fn a_stream_of_states_is_inverted_whatever_their_order() {
    // The last chunk is short, and states do not depend on their neighbours.
    let map = mlp(2, 2, Subspace::Full);
    let parameters = gentle_parameters(&map, 4);
    let schedule = Schedule::uniform(2, 0.05).unwrap();
    let mut states = vec![0.0; 4 * 67];
    Stream::new(1, 1, 0).fill_standard_normal(&mut states);
    let inverter = Inverter::new(&map, &parameters, &schedule, options(20, 30));
    let all = inverter.invert(&states, &Control::default()).unwrap();
    let some = inverter
        .invert(&states[4 * 60..4 * 66], &Control::default())
        .unwrap();
    assert_eq!(all.noise[4 * 60..4 * 66], some.noise[..]);
    assert_eq!(all.log_density[60..66], some.log_density[..]);
}
