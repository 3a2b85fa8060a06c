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

/// The fields are the step without its reference, forwards, backwards and on the diagonal.
#[test]
fn fields_are_the_step_over_its_length() {
    const TIMES: [(f64, f64); 6] = [
        (0.0, 1.0),
        (0.2, 0.9),
        (0.9, 0.1),
        (0.31, 0.31 + 1e-3),
        (1.0, 0.0),
        (0.7, 0.2),
    ];
    for map in maps(4, 3) {
        let parameters = random_parameters(&map, 3, 0.3);
        let x: Vec<f64> = map.subspace().noise(4, 3, 5, 0, 0, TIMES.len());
        let (s, t): (Vec<f64>, Vec<f64>) = TIMES.into_iter().unzip();
        let (step, fields) = (map.step_program(6), map.fields_program(6));
        let step = interpret(&step, &inputs(&parameters, &[&x, &s, &t]));
        let found = interpret(&fields, &inputs(&parameters, &[&x, &s, &t]));
        for i in 0..TIMES.len() {
            let elapsed = t[i] - s[i];
            let row = i * 12..(i + 1) * 12;
            let state: Vec<f64> = (x[row.clone()].iter().zip(&found[0][row.clone()]))
                .map(|(x, u)| x + elapsed * u)
                .collect();
            close(&state, &step[0][row.clone()], 1e-14);
            let log_det = elapsed * found[1][row].iter().sum::<f64>();
            close(&[log_det], &step[1][i..=i], 1e-13);
        }
        let diagonal = interpret(&map.diagonal_program(6), &inputs(&parameters, &[&x, &s]));
        let found = interpret(&fields, &inputs(&parameters, &[&x, &s, &s]));
        close(&found[0], &diagonal[0], 1e-13);
        close(&found[1], &diagonal[1], 1e-13);
    }
}

#[test]
fn a_head_of_its_own_changes_the_log_determinant_alone() {
    for map in maps(4, 3) {
        let (map_of, head_of) = (
            random_parameters(&map, 3, 0.3),
            random_parameters(&map, 4, 0.3),
        );
        let x: Vec<f64> = map.subspace().noise(4, 3, 5, 0, 0, BATCH);
        let program = map.step_program(BATCH);
        let expected = [&map_of, &head_of]
            .map(|parameters| interpret(&program, &inputs(parameters, &[&x, &S, &T])));
        let mut arguments = map_of.slices();
        arguments.extend(inputs(&head_of, &[&x, &S, &T]));
        let found = interpret(&map.step_program_with_head(BATCH), &arguments);
        assert_eq!(found[0], expected[0][0]);
        assert_eq!(found[1], expected[1][1]);
        assert_ne!(found[1], expected[0][1]);
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
