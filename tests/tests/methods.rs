//! Every method of training: the same bits on any number of threads, densities learnt from samples of a known one, and
//! the calibration of a head.

mod common;

use std::sync::Arc;

use boltzmap_models::continuous_flow::{ContinuousFlow, Integrator};
use boltzmap_models::control::Control;
use boltzmap_models::deploy::{ExactSampler, FewStepSampler};
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{MlpConfig, NetworkConfig};
use boltzmap_models::ode::Tolerances;
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::base::Gaussian;
use boltzmap_objectives::calibration::{Calibration, CalibrationConfig, CalibrationReport};
use boltzmap_objectives::interpolant::Interpolant;
use boltzmap_objectives::method::{F2d2, Instantiation, Method, ProbeDistribution};
use boltzmap_objectives::oracles::GaussianMixture;
use boltzmap_objectives::schedule::WarmupCosine;
use boltzmap_statistics as statistics;

use common::training::{Draws, config, optimizer, trainer};

fn f2d2(instantiation: Instantiation) -> Method {
    Method::F2d2(F2d2 {
        instantiation,
        probes: 1,
        probe_distribution: ProbeDistribution::Rademacher,
    })
}

const FALCON: Method = Method::Falcon {
    average_weight: 1.0,
    cycle_weight: 10.0,
};

fn methods() -> [Method; 8] {
    [
        Method::Scallop,
        Method::ScallopScalar,
        f2d2(Instantiation::Shortcut),
        f2d2(Instantiation::MeanFlow),
        f2d2(Instantiation::Distilled),
        f2d2(Instantiation::Lagrangian),
        FALCON,
        Method::FlowMatching,
    ]
}

fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("threads start").install(work)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_method_has_the_same_bits_on_any_number_of_threads() {
    let schedule = Schedule::uniform(4, 0.02).unwrap();
    let map = common::dit(3, 2, Subspace::MeanFree);
    let source = Draws(GaussianMixture::gaussian(map.state_size(), 0.7));
    let base = Gaussian::standard(Subspace::MeanFree, 3, 2);
    let paths = [
        Interpolant::linear(),
        Interpolant::trigonometric(),
        Interpolant::bridge(Arc::new(base), 0.5),
    ];
    for (number, path) in paths.into_iter().enumerate() {
        for method in methods() {
            // SCALLOP's centred form needs the score, which does not follow from the velocity on a path with a base.
            if number == 2 && matches!(method, Method::Scallop | Method::ScallopScalar) {
                continue;
            }
            let run = |threads: usize| {
                on_threads(threads, || {
                    let mut config = config(method, 3, 8, &schedule);
                    config.interpolant = path.clone();
                    let mut trainer = trainer(&map, config);
                    let metrics: Vec<_> = (0..8).map(|_| trainer.step(&source)).collect();
                    (
                        metrics,
                        bits(trainer.parameters.flat()),
                        bits(&trainer.optimizer.average),
                    )
                })
            };
            let one = run(1);
            let last = &one.0[7];
            assert!(last.applied, "{method:?}");
            let distilled = method.freezes_teacher();
            let trained = last.parts.iter().filter(|(_, value)| *value > 0.0).count();
            let expected = last.parts.len() - usize::from(distilled);
            assert_eq!(trained, expected, "{method:?} {last:?}");
            assert!(run(3) == one, "{method:?} on {path:?}");
        }
    }
}

fn mixture() -> GaussianMixture {
    GaussianMixture {
        weights: vec![0.6, 0.4],
        means: vec![vec![0.9, 0.4], vec![-1.1, -0.5]],
        standard_deviations: vec![0.4, 0.5],
    }
}

fn plane() -> FlowMap {
    let network = NetworkConfig::Mlp(MlpConfig {
        tokens: 1,
        channels: 2,
        width: 48,
        blocks: 2,
        conditioning_width: 32,
        time_frequencies: 4,
    });
    FlowMap::new(&FlowMapConfig {
        subspace: Subspace::Full,
        network,
    })
    .unwrap()
}

fn trained(map: &FlowMap, method: Method, steps: u64, schedule: &Schedule) -> Parameters<f32> {
    let mut trainer = trainer(map, config(method, 1, steps, schedule));
    let source = Draws(mixture());
    for _ in 0..steps {
        trainer.step(&source);
    }
    Parameters::from_flat(map.layout(), trainer.optimizer.average.clone()).unwrap()
}

/// What samples are worth whose log q is known: KL(q‖p) in nats, and the effective sample size of the weights p/q without
/// the heaviest hundredth of them. Of 2000 samples of a rough model a single one can outweigh all others: over eight seeds
/// the effective sample size of all samples of one method was 0.005 to 0.86 where this one was 0.83 to 0.89.
fn judge(states: &[f32], log_q: &[f64], end: f64) -> (f64, f64) {
    let mut log_weights: Vec<f64> = states
        .chunks_exact(2)
        .zip(log_q)
        .map(|(x, log_q)| mixture().log_density(&[x[0].into(), x[1].into()], end) - log_q)
        .collect();
    let divergence = -log_weights.iter().sum::<f64>() / log_weights.len() as f64;
    log_weights.sort_by(f64::total_cmp);
    log_weights.truncate(log_weights.len() * 99 / 100);
    (divergence, statistics::ess(&log_weights))
}

/// An untrained map has KL 1.7 nats and ESS 0.34 (of all weights), and FALCON's head, which nothing trains, is off by 1.1
/// nats. After 800 steps, over eight seeds, SCALLOP and FALCON had KL 0.02 to 0.09 and ESS 0.92 to 0.97; F2D2, with the
/// noise of one probe, 0.06 to 0.23 and 0.81 to 0.93. Heads, of one seed, were off by 0.14 to 0.35 nats.
#[test]
fn every_few_step_method_learns_a_mixture() {
    let schedule = Schedule::uniform(8, 0.02).unwrap();
    let map = plane();
    let noise: Vec<f32> = map.subspace().noise(1, 2, 1, 9, 0, 2000);
    for method in methods() {
        if method.is_continuous() {
            continue;
        }
        let parameters = trained(&map, method, 800, &schedule);
        let samples = ExactSampler::new(&map, &parameters, &schedule)
            .exact_log_density(&noise, &Control::default())
            .unwrap();
        let end = 1.0 - schedule.epsilon();
        let (divergence, ess) = judge(&samples.states, &samples.log_density_exact, end);
        let head_error = (samples.log_density_head.iter())
            .zip(&samples.log_density_exact)
            .map(|(head, exact)| (head - exact).abs())
            .sum::<f64>()
            / samples.log_density_exact.len() as f64;
        println!("{method:?}: KL {divergence:.4}, ESS {ess:.3}, head {head_error:.3}");
        let noisy = matches!(method, Method::F2d2(_));
        let (most, least) = if noisy { (0.3, 0.75) } else { (0.1, 0.9) };
        assert!(
            divergence < most && ess > least,
            "{method:?}: {divergence} {ess}"
        );
        assert!(
            !method.has_head() || head_error < 0.5,
            "{method:?}: {head_error}"
        );
    }
}

#[test]
fn flow_matching_learns_a_mixture_for_the_continuous_flow() {
    let schedule = Schedule::uniform(8, 0.02).unwrap();
    let map = plane();
    let parameters = trained(&map, Method::FlowMatching, 800, &schedule);
    let noise: Vec<f32> = map.subspace().noise(1, 2, 1, 9, 0, 1000);
    let integrator = Integrator::dormand_prince(Tolerances {
        relative: 1e-4,
        absolute: 1e-4,
        max_steps: 1000,
    });
    let flow = ContinuousFlow::new(&map, &parameters, schedule.epsilon(), 4, integrator).unwrap();
    let samples = flow.transport(&noise, &Control::default()).unwrap();
    let end = 1.0 - schedule.epsilon();
    let (divergence, ess) = judge(&samples.states, &samples.log_density, end);
    println!("KL {divergence:.4}, ESS {ess:.3}");
    assert!(divergence < 0.1 && ess > 0.85, "{divergence} {ess}");
}

fn calibrated(
    map: &FlowMap,
    parameters: &Parameters<f32>,
    schedule: &Schedule,
    refresh: u64,
) -> (Parameters<f32>, CalibrationReport) {
    let settings = CalibrationConfig {
        seed: 5,
        steps: 300,
        batch: 64,
        block: 16,
        trajectories: 600,
        held_out: 600,
        refresh,
        evaluate_every: 20,
        patience: 20,
        learning_rate: WarmupCosine {
            peak: 2e-3,
            warmup_steps: 0,
            total_steps: 300,
            final_fraction: 0.0,
        },
        optimizer: optimizer(0.98),
    };
    let control = Control::default();
    Calibration::new(map, parameters, schedule, settings, &control)
        .unwrap()
        .run(&control, |_, _, _| {})
        .unwrap()
}

/// A calibrated head tells the sampler's own density better than the distilled one, on samples that it has not seen.
#[test]
fn calibration_brings_the_head_to_the_exact_density() {
    let schedule = Schedule::uniform(4, 0.02).unwrap();
    let map = plane();
    let parameters = trained(&map, Method::Scallop, 400, &schedule);
    let noise: Vec<f32> = map.subspace().noise(1, 2, 1, 9, 0, 1000);
    let control = Control::default();
    let exact = ExactSampler::new(&map, &parameters, &schedule)
        .exact_log_density(&noise, &control)
        .unwrap();
    let deviation = |log_q: &[f64]| {
        let n = log_q.len() as f64;
        let gaps: Vec<f64> = (log_q.iter().zip(&exact.log_density_exact))
            .map(|(head, exact)| head - exact)
            .collect();
        let mean = gaps.iter().sum::<f64>() / n;
        (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n).sqrt()
    };
    let before = deviation(&exact.log_density_head);
    for refresh in [0, 100] {
        let (head, report) = calibrated(&map, &parameters, &schedule, refresh);
        let samples = FewStepSampler::with_head(&map, &parameters, &head, &schedule)
            .transport(&noise, &control)
            .unwrap();
        let after = deviation(&samples.log_density);
        println!("refresh {refresh}: {before:.4} to {after:.4} nats, {report:?}");
        assert!(report.best_step > 0);
        assert!(after < 0.6 * before, "{before} {after}");
        // What it says of its held-out trajectories holds for others, as far as standard deviations with long tails go.
        for (said, found) in [(report.before, before), (report.after, after)] {
            let ratio = said.gap_deviation / found;
            assert!(0.5 < ratio && ratio < 2.0, "{said:?} {found}");
        }
        // The same bits on any number of threads.
        let again = on_threads(3, || calibrated(&map, &parameters, &schedule, refresh));
        assert_eq!(bits(again.0.flat()), bits(head.flat()));
        assert_eq!(again.1, report);
    }
}
