//! A divergence head with parameters of its own.

mod common;

use boltzmap_autodiff::interpret::interpret;
use boltzmap_models::control::Control;
use boltzmap_models::deploy::FewStepSampler;
use boltzmap_models::schedule::Schedule;
use common::{inputs, maps, random_parameters};

#[test]
fn a_head_of_its_own_tells_the_density_and_leaves_the_samples() {
    let schedule = Schedule::uniform(3, 0.02).unwrap();
    let control = Control::default();
    for map in maps(4, 3) {
        let parameters = random_parameters(&map, 3, 0.3);
        let head = random_parameters(&map, 4, 0.3);
        let noise: Vec<f64> = map.subspace().noise(4, 3, 9, 1, 0, 5);
        let plain = FewStepSampler::new(&map, &parameters, &schedule)
            .transport(&noise, &control)
            .unwrap();
        // The map's own parameters as the head change nothing but the count.
        let same = FewStepSampler::with_head(&map, &parameters, &parameters, &schedule)
            .transport(&noise, &control)
            .unwrap();
        assert_eq!(same.states, plain.states);
        for (a, b) in same.log_density.iter().zip(&plain.log_density) {
            assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()), "{a} {b}");
        }
        assert_eq!((plain.evaluations, same.evaluations), (3, 6));

        let other = FewStepSampler::with_head(&map, &parameters, &head, &schedule)
            .transport(&noise, &control)
            .unwrap();
        assert_eq!(other.states, plain.states);
        // The head's Λ along the trajectories of the map.
        let mut log_density = map.subspace().gaussian_log_density(&noise, 4, 3);
        let program = map.step_program(5);
        let mut states = noise.clone();
        for times in schedule.times().windows(2) {
            let (s, t) = ([times[0]; 5], [times[1]; 5]);
            let by_head = interpret(&program, &inputs(&head, &[&states, &s, &t]));
            for (total, log_det) in log_density.iter_mut().zip(&by_head[1]) {
                *total -= log_det;
            }
            states = interpret(&program, &inputs(&parameters, &[&states, &s, &t])).swap_remove(0);
        }
        for (i, expected) in log_density.iter().enumerate() {
            let found = other.log_density[i];
            assert!(
                (found - expected).abs() < 1e-10 * (1.0 + expected.abs()),
                "{found} {expected}"
            );
            assert!((found - plain.log_density[i]).abs() > 1e-6);
        }
    }
}
