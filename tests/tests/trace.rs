//! The divergence of a velocity by every way there is to compute it.

mod common;

use boltzmap_autodiff::exec::InputRole;
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::jacobian::{Basis, Jacobian};
use boltzmap_models::continuous_flow::{ContinuousFlow, FlowSamples, Integrator};
use boltzmap_models::control::Control;
use boltzmap_models::divergence::{Divergence, ExactTrace, Hutchinson, ProbeDistribution};
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::jacobians::velocity_jacobian;
use boltzmap_models::ode::Tableau;
use boltzmap_models::parameters::Parameters;
use boltzmap_models::subspace::Subspace;
use common::{dit, egnn, gentle_parameters, mlp, random_parameters};
use proptest::prelude::*;

#[test]
fn traces_by_tangents_probes_and_differences_agree() {
    const SAMPLES: usize = 3;
    let maps = [
        dit(3, 2, Subspace::MeanFree),
        dit(3, 2, Subspace::Full),
        mlp(2, 3, Subspace::MeanFree),
        mlp(2, 3, Subspace::Full),
        egnn(3, 2),
    ];
    for (seed, map) in maps.iter().enumerate() {
        let parameters = random_parameters(map, seed as u64, 0.4);
        let (tokens, channels) = (map.tokens(), map.channels());
        let (size, d) = (map.state_size(), map.dimension());
        let x: Vec<f64> = map.subspace().noise(tokens, channels, 2, 0, 0, SAMPLES);
        let t = [0.1, 0.5, 0.9];
        let q = map.subspace().basis(tokens, channels);
        let mut inputs = parameters.slices();
        let mut roles = vec![InputRole::Shared; inputs.len()];
        inputs.extend([&x[..], &t]);
        roles.extend([InputRole::PerBlock { axis: 0 }; 2]);
        let state = map.layout().count();
        let traces_with = |tangents: usize| {
            let program = map.velocity_program(2);
            let basis = Basis::new(size, d, q.clone());
            let jacobian =
                Jacobian::<f64>::compile(&program, state, 0, roles.clone(), Some(basis), tangents);
            // All 2^d sign vectors: over them the off-diagonal terms of vᵀ J v cancel exactly.
            let mut probes = Vec::with_capacity((SAMPLES * size) << d);
            for signs in 0..1usize << d {
                let sign = |k: usize| if signs >> k & 1 == 0 { 1.0 } else { -1.0 };
                let probe: Vec<f64> = (0..size)
                    .map(|i| (0..d).map(|k| q[i * d + k] * sign(k)).sum())
                    .collect();
                (0..SAMPLES).for_each(|_| probes.extend_from_slice(&probe));
            }
            (
                jacobian.trace(SAMPLES, &inputs, None),
                jacobian.hutchinson_trace(SAMPLES, &inputs, &probes, None),
                jacobian.hutchinson_trace(SAMPLES, &inputs, &probes[..SAMPLES * size], None),
            )
        };
        let step = 1e-4;
        let differences: Vec<f64> = (0..SAMPLES)
            .map(|sample| {
                (0..d)
                    .map(|k| {
                        let moved = |sign: f64| {
                            let mut moved = x.clone();
                            for i in 0..size {
                                moved[sample * size + i] += sign * step * q[i * d + k];
                            }
                            let mut inputs = parameters.slices();
                            inputs.extend([&moved[..], &t]);
                            interpret(&map.velocity_program(SAMPLES), &inputs).swap_remove(0)
                        };
                        let (plus, minus) = (moved(1.0), moved(-1.0));
                        (0..size)
                            .map(|i| {
                                let at = sample * size + i;
                                q[i * d + k] * (plus[at] - minus[at]) / (2.0 * step)
                            })
                            .sum::<f64>()
                    })
                    .sum()
            })
            .collect();
        for tangents in [1, 3, 64] {
            let (exact, all_probes, one_probe) = traces_with(tangents);
            for sample in 0..SAMPLES {
                let trace = exact[sample];
                let scale = 1.0 + trace.abs();
                assert!((all_probes[sample] - trace).abs() < 1e-11 * scale);
                assert!((differences[sample] - trace).abs() < 1e-6 * scale);
            }
            // A single probe is only an estimate; were it exact, the Jacobian would be too simple to test anything.
            assert!((0..SAMPLES).any(|i| (one_probe[i] - exact[i]).abs() > 1e-4));
        }
    }
}

const DISTRIBUTIONS: [ProbeDistribution; 2] =
    [ProbeDistribution::Rademacher, ProbeDistribution::Gaussian];

/// Variance of one probe's estimate from the matrix it estimates the trace of: 2 Σ S_ij², for Rademacher probes without
/// the diagonal, S being the symmetric part of P J P in the coordinates of the whole space.
fn variance_of_a_probe(map: &FlowMap, matrix: &[f64], distribution: ProbeDistribution) -> f64 {
    let (size, d) = (map.state_size(), map.dimension());
    let q = map.subspace().basis(map.tokens(), map.channels());
    // P J P = Q (Qᵀ J Q) Qᵀ
    let entry = |i: usize, j: usize| -> f64 {
        (0..d * d)
            .map(|k| q[i * d + k / d] * matrix[k] * q[j * d + k % d])
            .sum()
    };
    (0..size * size)
        .map(|k| (k / size, k % size))
        .filter(|(i, j)| i != j || distribution == ProbeDistribution::Gaussian)
        .map(|(i, j)| 2.0 * (0.5 * (entry(i, j) + entry(j, i))).powi(2))
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn estimates_scatter_about_the_exact_trace_as_their_variance_says(seed in 0u64..1 << 40) {
        const PROBES: usize = 2000;
        const SAMPLES: usize = 3;
        let maps = [dit(3, 2, Subspace::MeanFree), mlp(2, 2, Subspace::Full), egnn(3, 2)];
        for map in maps {
            let parameters = random_parameters(&map, seed, 0.4);
            let x: Vec<f64> = map.subspace().noise(map.tokens(), map.channels(), seed, 0, 0, SAMPLES);
            let t = [0.1, 0.5, 0.9];
            let mut inputs = parameters.slices();
            inputs.extend([&x[..], &t]);
            let mut velocity = vec![0.0; x.len()];
            let exact = ExactTrace::<f64>::new(&map, 2).unwrap();
            prop_assert!(exact.probes(&[0, 1, 2]).is_empty());
            let traces = exact.evaluate(SAMPLES, &inputs, &[], &mut velocity);
            let d = map.dimension();
            let matrices = velocity_jacobian::<f64>(&map, 2).matrix(SAMPLES, &inputs, None);
            for distribution in DISTRIBUTIONS {
                let hutchinson =
                    Hutchinson::<f64>::new(&map, 2, PROBES, distribution, seed, 3).unwrap();
                let probes = hutchinson.probes(&[0, 1, 2]);
                let mut its_velocity = vec![0.0; x.len()];
                let estimates = hutchinson.evaluate(SAMPLES, &inputs, &probes, &mut its_velocity);
                let apart = velocity.iter().zip(&its_velocity).map(|(a, b)| (a - b).abs());
                prop_assert!(apart.fold(0.0, f64::max) < 1e-12);
                for i in 0..SAMPLES {
                    let estimate = hutchinson.combine(&estimates[i * PROBES..(i + 1) * PROBES]);
                    let variance = estimate.variance.unwrap();
                    let error = estimate.value - exact.combine(&traces[i..=i]).value;
                    // Five standard errors: one of a million means lies outside.
                    prop_assert!(error.abs() <= 5.0 * variance.sqrt(), "{error} {variance}");
                    let expected =
                        variance_of_a_probe(&map, &matrices[i * d * d..(i + 1) * d * d], distribution);
                    // A quadratic form of few normal numbers has a kurtosis of up to 15, so the variance of 2000 of them
                    // a relative standard error of up to √(14/2000) = 0.084.
                    let relative = variance * PROBES as f64 / expected - 1.0;
                    prop_assert!(relative.abs() < 5.0 * 0.084, "{relative}");
                }
            }
        }
    }
}

#[test]
fn probes_belong_to_samples_and_lie_on_the_subspace() {
    let map = dit(4, 3, Subspace::MeanFree);
    for distribution in DISTRIBUTIONS {
        let make = |block: usize, count: usize| {
            Hutchinson::<f64>::new(&map, block, count, distribution, 5, 6).unwrap()
        };
        let all = make(2, 3).probes(&[7, 8, 9]);
        let of_nine = make(1, 3).probes(&[9]);
        for k in 0..3 {
            assert_eq!(all[(3 * k + 2) * 12..][..12], of_nine[12 * k..][..12]);
        }
        assert_ne!(all[..12], all[12..24]);
        let mut projected = all.clone();
        map.subspace().project_states(&mut projected, 4, 3);
        assert!(
            all.iter()
                .zip(&projected)
                .all(|(a, b)| (a - b).abs() < 1e-14)
        );
        // Single precision sees the same directions.
        let single = Hutchinson::<f32>::new(&map, 2, 3, distribution, 5, 6).unwrap();
        let rounded: Vec<f32> = all.iter().map(|&v| v as f32).collect();
        assert_eq!(single.probes(&[7, 8, 9]), rounded);
    }
    assert!(Hutchinson::<f64>::new(&map, 1, 0, DISTRIBUTIONS[0], 0, 0).is_err());
    assert!(Hutchinson::<f64>::new(&map, 0, 1, DISTRIBUTIONS[0], 0, 0).is_err());
}

/// Flows of nine samples with `probes` probes, sample numbers from 100 on.
fn flow_with_probes(
    map: &FlowMap,
    parameters: &Parameters<f64>,
    noise: &[f64],
    block: usize,
    probes: usize,
) -> FlowSamples<f64> {
    let integrator = Integrator::Fixed {
        tableau: Tableau::TSITOURAS,
        steps: 200,
    };
    let hutchinson =
        Hutchinson::new(map, block, probes, ProbeDistribution::Rademacher, 1, 2).unwrap();
    ContinuousFlow::with_divergence(map, parameters, 0.05, hutchinson, integrator)
        .unwrap()
        .transport_from(100, noise, &Control::default())
        .unwrap()
}

#[test]
fn densities_of_flows_with_probes_are_within_their_error_and_depend_on_nothing_else() {
    let map = dit(3, 2, Subspace::MeanFree);
    let parameters = gentle_parameters(&map, 2);
    let noise: Vec<f64> = map.subspace().noise(3, 2, 4, 0, 0, 9);
    let integrator = Integrator::Fixed {
        tableau: Tableau::TSITOURAS,
        steps: 200,
    };
    let exact = ContinuousFlow::new(&map, &parameters, 0.05, 4, integrator)
        .unwrap()
        .transport(&noise, &Control::default())
        .unwrap();
    assert_eq!(exact.log_density_variance, Some(vec![0.0; 9]));
    let estimated = flow_with_probes(&map, &parameters, &noise, 4, 64);
    let variances = estimated.log_density_variance.as_ref().unwrap();
    for i in 0..9 {
        let error = (estimated.log_density[i] - exact.log_density[i]).abs();
        // With 64 probes the estimated standard error is itself uncertain by a tenth.
        assert!(
            error <= 5.0 * variances[i].sqrt(),
            "{error} {}",
            variances[i]
        );
        assert!(error > 1e-6, "probes must leave an error");
    }
    let apart = exact.states.iter().zip(&estimated.states);
    assert!(apart.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) < 1e-12);

    // Neither blocks nor threads change a bit, and the way back undoes the way there with the same probes.
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let other = pool.install(|| flow_with_probes(&map, &parameters, &noise, 3, 64));
        assert_eq!(other, estimated);
    }
    let hutchinson = Hutchinson::new(&map, 2, 64, ProbeDistribution::Rademacher, 1, 2).unwrap();
    let back = ContinuousFlow::with_divergence(&map, &parameters, 0.05, hutchinson, integrator)
        .unwrap()
        .log_density_from(100, &estimated.states, &Control::default())
        .unwrap();
    for i in 0..9 {
        assert!((back.log_density[i] - estimated.log_density[i]).abs() < 1e-6);
    }
    // Another sample number is another probe; a single probe knows no error.
    let single = flow_with_probes(&map, &parameters, &noise[6..12], 1, 1);
    assert_eq!(single.log_density_variance, None);
    let of_both = flow_with_probes(&map, &parameters, &noise[..12], 1, 1);
    assert_eq!(of_both.states[6..], single.states[..]);
    assert_ne!(of_both.log_density[1], single.log_density[0]);
}

#[test]
fn integrators_that_cannot_work_are_refused() {
    let map = mlp(1, 2, Subspace::Full);
    let parameters = random_parameters(&map, 0, 0.1);
    let refused = |integrator: Integrator| {
        ContinuousFlow::new(&map, &parameters, 0.05, 1, integrator)
            .err()
            .expect("it must be refused")
            .to_string()
    };
    let message = refused(Integrator::Adaptive {
        tableau: Tableau::RK4,
        tolerances: Default::default(),
    });
    assert!(message.contains("no error estimate"), "{message}");
    let message = refused(Integrator::Fixed {
        tableau: Tableau::RK4,
        steps: 0,
    });
    assert!(message.contains("0 steps"), "{message}");
}
