//! Flow maps as proposals: what they say of what they drew is what they say of the same states brought to them, and weights by it are
//! those of a normalised density.

mod common;

use boltzmap_models::MapProposal;
use boltzmap_models::continuous_flow::Integrator;
use boltzmap_models::deploy::FewStepSampler;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::ode::Tolerances;
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::targets::{AnalyticTarget, TimedTarget};
use boltzmap_sampling::{
    Control, Likelihood, LogDensity, Path, Proposal, SamplingError, Settings, Target, Trust,
    importance_sampling, sequential_monte_carlo,
};
use common::{dit, egnn, gentle_parameters, mlp};

const STREAM: [u64; 2] = [4, 9];

fn schedule() -> Schedule {
    Schedule::uniform(2, 0.05).unwrap()
}

fn tight() -> Integrator {
    Integrator::dormand_prince(Tolerances {
        relative: 1e-9,
        absolute: 1e-9,
        ..Tolerances::default()
    })
}

fn maps() -> [FlowMap; 3] {
    [
        dit(3, 2, Subspace::MeanFree),
        mlp(2, 2, Subspace::Full),
        egnn(3, 2),
    ]
}

#[test]
fn states_that_were_drawn_have_the_density_of_states_that_are_brought() {
    let control = Control::default();
    let scale = 0.8;
    for map in maps() {
        let parameters = gentle_parameters(&map, 3);
        let exact = MapProposal::exact(&map, &parameters, &schedule(), STREAM).with_scale(scale);
        let flow = MapProposal::continuous(&map, &parameters, &schedule(), 2, tight(), STREAM)
            .unwrap()
            .with_scale(scale);
        for (proposal, kind, allowed) in [
            (&exact, Likelihood::Exact, 1e-9),
            (&flow, Likelihood::Integrated { tolerance: 1e-9 }, 1e-6),
        ] {
            let draws = proposal.draw(&[5, 6, 7, 8, 9, 10, 11], &control).unwrap();
            assert_eq!(draws.log_density.likelihood(), kind);
            let brought = proposal.log_density(&draws.states, &control).unwrap();
            assert_eq!(brought.likelihood(), kind);
            let drawn = draws.log_density.trusted(Trust::Audited).unwrap();
            for (a, b) in drawn.iter().zip(brought.trusted(Trust::Audited).unwrap()) {
                assert!((a - b).abs() < allowed, "{kind}: {a} {b}");
            }
            // Alone as in company.
            let size: usize = proposal.shape().iter().product();
            let alone = proposal.draw(&[7], &control).unwrap();
            for (a, b) in alone.states.iter().zip(&draws.states[2 * size..3 * size]) {
                // Blocks of the continuous flow share their steps.
                assert!(
                    (a - b).abs()
                        < if kind == Likelihood::Exact {
                            1e-15
                        } else {
                            1e-7
                        }
                );
            }
        }
        // No noise leads to a state that is not finite.
        let mut broken = exact.draw(&[1, 2], &control).unwrap().states;
        broken[0] = f64::NAN;
        let told = exact.log_density(&broken, &control).unwrap();
        let told = told.trusted(Trust::Audited).unwrap();
        assert!(told[0] == f64::NEG_INFINITY && told[1].is_finite());
        // The scale of the states, and of log q with it.
        let plain = MapProposal::exact(&map, &parameters, &schedule(), STREAM);
        let (large, small) = (plain.draw(&[0, 1], &control), exact.draw(&[0, 1], &control));
        let (large, small) = (large.unwrap(), small.unwrap());
        assert!((large.states[0] - scale * small.states[0]).abs() < 1e-14);
        let of = |draws: &boltzmap_sampling::Draws| {
            draws.log_density.trusted(Trust::Audited).unwrap()[0]
        };
        let constant = map.dimension() as f64 * scale.ln();
        assert!((of(&small) - of(&large) - constant).abs() < 1e-12);
    }
}

#[test]
fn a_head_reports_and_cannot_be_asked_about_other_states() {
    let control = Control::default();
    let map = mlp(2, 2, Subspace::Full);
    let parameters = gentle_parameters(&map, 3);
    let proposal = MapProposal::reported(&map, &parameters, None, &schedule(), STREAM);
    let draws = proposal.draw(&[0, 1, 2, 3, 4, 5], &control).unwrap();
    let noise: Vec<f64> = map.subspace().noise(2, 2, STREAM[0], STREAM[1], 0, 6);
    let direct = FewStepSampler::new(&map, &parameters, &schedule())
        .transport(&noise, &control)
        .unwrap();
    assert_eq!(draws.log_density, LogDensity::Reported(direct.log_density));
    assert_eq!(
        (draws.states.clone(), draws.evaluations),
        (direct.states, 2)
    );
    let brought = proposal.log_density(&draws.states, &control).unwrap();
    assert_eq!(brought, LogDensity::Unknown);
    let target = TimedTarget {
        target: AnalyticTarget::gaussian(4, 0.5, 1.0),
        time: 1.0,
    };
    let refused = importance_sampling(&proposal, &target, &[0], Trust::Audited, &control);
    assert!(matches!(refused, Err(SamplingError::Shape { .. })));
}

/// E_q[p/q] is 1 for a normalised p, however far the map is from it, and SMC takes the map's samples there.
#[test]
fn weights_of_a_map_integrate_to_one_and_particles_arrive() {
    let control = Control::default();
    let map = mlp(1, 2, Subspace::Full);
    let parameters = gentle_parameters(&map, 3);
    // An untrained map makes N(0, s²) nearly.
    let proposal = MapProposal::exact(&map, &parameters, &schedule(), STREAM);
    let target = TimedTarget {
        target: AnalyticTarget::gaussian(2, 0.5, 0.9),
        time: 1.0,
    };
    let n = 4000;
    let indices: Vec<u64> = (0..n).collect();
    let weighted =
        importance_sampling(&proposal, &target, &indices, Trust::Audited, &control).unwrap();
    let ess = weighted.ess();
    let error = ((1.0 / ess - 1.0) / n as f64).sqrt();
    assert!(
        ess > 0.2 && weighted.log_normalisation().abs() < 4.0 * error,
        "{ess}"
    );
    assert!(weighted.likelihood.is_audited());

    let settings = Settings {
        particles: 400,
        path: Path::Bridge { ess: 0.8 },
        moves: 3,
        step: 0.4,
        ..Settings::default()
    };
    let found = sequential_monte_carlo(&proposal, &target, &settings, &control).unwrap();
    assert!(
        found.log_normalisation.abs() < 0.25,
        "{}",
        found.log_normalisation
    );
    for (k, sigma) in [0.5, 0.9].into_iter().enumerate() {
        let square = found
            .states
            .iter()
            .skip(k)
            .step_by(2)
            .map(|x| x * x)
            .sum::<f64>()
            / 400.0;
        // Four standard errors of 400 independent squares, doubled for what particles share.
        assert!((square / (sigma * sigma) - 1.0f64).abs() < 0.56, "{square}");
    }
    let fresh = target.log_density(&found.states).unwrap();
    assert_eq!(fresh, found.log_density);
}
