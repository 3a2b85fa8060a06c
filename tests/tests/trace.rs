//! The divergence of a velocity by every way there is to compute it.

mod common;

use boltzmap_autodiff::exec::InputRole;
use boltzmap_autodiff::interpret::interpret;
use boltzmap_autodiff::jacobian::{Basis, Jacobian};
use boltzmap_models::subspace::Subspace;
use common::{dit, mlp, random_parameters};

#[test]
fn traces_by_tangents_probes_and_differences_agree() {
    const SAMPLES: usize = 3;
    let maps = [
        dit(3, 2, Subspace::MeanFree),
        dit(3, 2, Subspace::Full),
        mlp(2, 3, Subspace::MeanFree),
        mlp(2, 3, Subspace::Full),
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
