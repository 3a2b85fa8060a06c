//! `boltzmap verify` of a run directory: weights under the molecule's own ensemble.

use boltzmap_cli::pipeline::model::Model;
use boltzmap_cli::pipeline::molecule::Molecule;
use boltzmap_cli::pipeline::proposals::end_scale;
use boltzmap_cli::pipeline::samples::Samples;
use boltzmap_cli::run_dir::RunDir;
use boltzmap_cli::verify::subject::Subject;
use boltzmap_cli::verify::target::Kind;

use crate::{boltzmap, copy_of, finished, path, succeed, text};

/// The run's own samples, encoded into states again, get the density that their energies and the chart's Jacobian give.
#[test]
fn states_weigh_what_their_conformations_do() {
    let (run, config) = RunDir::open(finished()).unwrap();
    let molecule = Molecule::new(&config).unwrap();
    let samples = Samples::read(&run, &molecule).unwrap();
    let model = Model::read(&run.checkpoint(), 0).unwrap();
    let positions: Vec<f32> = samples.positions.iter().map(|&x| x as f32).collect();
    let encoded = model.coordinates.encode(&positions).unwrap();
    let scale = end_scale(&config).unwrap();
    let states: Vec<f32> = encoded.state.iter().map(|v| (v * scale) as f32).collect();

    let subject = Subject::read(finished(), &[]).unwrap();
    let target = subject.target.expect("a run has a target");
    let weighed = target.weigh(&states).unwrap();
    let phi = molecule.first_phi_psi(&samples.positions).0;
    for i in 0..samples.count() {
        let energy_kt = samples.energy[i] / molecule.thermal_energy;
        // Of the map's states, which are those of the coordinates times the scale.
        let expected = -energy_kt - encoded.log_det[i] + encoded.log_share[i]
            - model.flow_map.dimension() as f64 * scale.ln();
        // Single precision of states moves stiff energies; those of untrained maps are in the thousands.
        let allowed = 0.02 + 1e-4 * energy_kt.abs();
        let found = weighed.log_density[i];
        assert!((found - expected).abs() < allowed, "{found} {expected}");
        let Kind::State(inside) = &weighed.observables[0].kind else {
            panic!("the first observable is the state of φ");
        };
        assert_eq!(inside[i], phi[i] > 0.0 && phi[i] < 2.0);
    }
    // A state far outside the domain has no weight.
    let far = vec![1e3f32; states.len() / samples.count()];
    assert_eq!(target.weigh(&far).unwrap().log_density, [f64::NEG_INFINITY]);
}

#[test]
fn a_run_is_verified_under_its_target() {
    let copy = copy_of(&["config.toml", "checkpoint.safetensors"]);
    let mut command = boltzmap(&["verify", path(copy.path()), "--samples", "300", "--json"]);
    command.args(["--steps", "1", "--quiet"]);
    let printed = text(&succeed(command).stdout);
    let record: serde_json::Value = serde_json::from_str(&printed).expect("valid JSON");
    // Of so few samples nothing but false can be said.
    let judgement = record["judgement"].as_str().unwrap();
    assert!(["undecided", "false"].contains(&judgement), "{judgement}");
    let assessment = &record["measurement"]["assessment"];
    assert!(assessment["effective_samples"].as_f64().unwrap() >= 1.0);
    let names: Vec<&str> = assessment["observables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["name"].as_str().unwrap())
        .collect();
    for name in ["energy", "cos φ", "sin ψ"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let html = std::fs::read_to_string(copy.path().join("verify.html")).unwrap();
    assert!(html.contains("What re-weighting with the report does") && !html.contains("NaN"));
}
