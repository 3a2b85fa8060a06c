//! The flow map against closed forms and against its own definition.

mod common;

use boltzmap_autodiff::interpret::interpret;
use boltzmap_models::flow_map::reference_variance;
use boltzmap_models::parameters::Parameters;
use common::{inputs, maps, random_parameters};

const BATCH: usize = 3;
const S: [f64; BATCH] = [0.0, 0.3, 0.55];
const T: [f64; BATCH] = [0.4, 0.35, 0.998];

fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} {b}");
    }
}

#[test]
fn an_untrained_map_is_the_flow_of_unit_gaussian_data() {
    for map in maps(4, 3) {
        let parameters = Parameters::<f64>::initialize(map.layout(), 1);
        let x: Vec<f64> = map.subspace().noise(4, 3, 5, 0, 0, BATCH);
        let out = interpret(
            &map.step_program(BATCH),
            &inputs(&parameters, &[&x, &S, &T]),
        );
        for i in 0..BATCH {
            let ratio = reference_variance(T[i]) / reference_variance(S[i]);
            let expected: Vec<f64> = x[i * 12..][..12].iter().map(|v| v * ratio.sqrt()).collect();
            close(&out[0][i * 12..][..12], &expected, 1e-14);
            close(
                &out[1][i..=i],
                &[0.5 * map.dimension() as f64 * ratio.ln()],
                1e-13,
            );
        }
        let out = interpret(
            &map.diagonal_program(BATCH),
            &inputs(&parameters, &[&x, &T]),
        );
        for i in 0..BATCH {
            let slope = (2.0 * T[i] - 1.0) / reference_variance(T[i]);
            let expected: Vec<f64> = x[i * 12..][..12].iter().map(|v| v * slope).collect();
            close(&out[0][i * 12..][..12], &expected, 1e-13);
            close(
                &[out[1][i * 12..][..12].iter().sum()],
                &[map.dimension() as f64 * slope],
                1e-13,
            );
        }
    }
}

#[test]
fn short_steps_have_the_velocity_and_divergence_of_the_diagonal() {
    for map in maps(4, 3) {
        let parameters = random_parameters(&map, 3, 0.3);
        let x: Vec<f64> = map.subspace().noise(4, 3, 5, 0, 0, BATCH);
        let diagonal = interpret(
            &map.diagonal_program(BATCH),
            &inputs(&parameters, &[&x, &S]),
        );
        let h = 1e-6;
        let later: Vec<f64> = S.iter().map(|s| s + h).collect();
        let step = interpret(
            &map.step_program(BATCH),
            &inputs(&parameters, &[&x, &S, &later]),
        );
        let velocity: Vec<f64> = step[0].iter().zip(&x).map(|(a, b)| (a - b) / h).collect();
        close(&velocity, &diagonal[0], 1e-4);
        for i in 0..BATCH {
            close(
                &[step[1][i] / h],
                &[diagonal[1][i * 12..][..12].iter().sum()],
                1e-4,
            );
        }
        assert!(diagonal[0].iter().all(|v| v.is_finite()));
    }
}

#[test]
fn states_stay_on_the_subspace() {
    for map in maps(5, 2) {
        let parameters = random_parameters(&map, 4, 0.3);
        let x: Vec<f64> = map.subspace().noise(5, 2, 6, 0, 0, BATCH);
        let out = interpret(
            &map.step_program(BATCH),
            &inputs(&parameters, &[&x, &S, &T]),
        );
        let mut projected = out[0].clone();
        map.subspace().project_states(&mut projected, 5, 2);
        close(&out[0], &projected, 1e-13);
    }
}

#[test]
fn configurations_survive_json_and_refuse_unknown_keys() {
    for map in maps(3, 2) {
        let text = serde_json::to_string(&map.config()).unwrap();
        let config = serde_json::from_str(&text).unwrap();
        assert_eq!(map.config(), config);
        let misspelt = text.replace("conditioning_width", "conditionning_width");
        assert!(
            serde_json::from_str::<boltzmap_models::flow_map::FlowMapConfig>(&misspelt).is_err()
        );
        let wrong = text.replace("\"width\":", "\"width\":0,\"widht\":");
        assert!(serde_json::from_str::<boltzmap_models::flow_map::FlowMapConfig>(&wrong).is_err());
    }
}
