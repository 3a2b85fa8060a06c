//! Dynamics and umbrella sampling against distributions known in closed form.

use boltzmap_physics::langevin::{Langevin, LangevinSettings};
use boltzmap_physics::observables::dihedrals;
use boltzmap_physics::system::{Bond, GAS_CONSTANT, System, Torsion};
use boltzmap_physics::umbrella::{Analysis, Windows};
use boltzmap_statistics::angle::wrap;
use boltzmap_statistics::statistical_inefficiency;

/// Four heavy atoms with stiff bonds at right angles, held by bonds between neighbours and next neighbours, and a torsion: the
/// dihedral's distribution is exp(−E(φ)/RT) to the stiffness of the bonds.
fn rotor(periodicity: u32, force_constant: f64) -> (System, Vec<f32>) {
    let bond = |i, j, length| Bond {
        atoms: [i, j],
        length,
        force_constant: 2e5,
    };
    let diagonal = 0.15 * 2f64.sqrt();
    let system = System {
        masses: vec![12.0; 4],
        charges: vec![0.0; 4],
        sigma: vec![0.0; 4],
        epsilon: vec![0.0; 4],
        bonds: vec![
            bond(0, 1, 0.15),
            bond(1, 2, 0.15),
            bond(2, 3, 0.15),
            bond(0, 2, diagonal),
            bond(1, 3, diagonal),
        ],
        angles: vec![],
        torsions: vec![Torsion {
            atoms: [0, 1, 2, 3],
            periodicity,
            phase: 0.0,
            force_constant,
        }],
        excluded: vec![[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]],
        pairs14: vec![],
        generalized_born: None,
        cutoff: None,
    };
    let positions = vec![
        0.15, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.15, 0.0, 0.15, 0.15,
    ];
    (system, positions)
}

const TEMPERATURE: f64 = 300.0;
const DIHEDRAL: [usize; 4] = [0, 1, 2, 3];
const SETTINGS: LangevinSettings = LangevinSettings {
    timestep: 0.004,
    friction: 10.0,
};

/// ∫ exp(−k(1+cos nφ)/RT) over [a, b], by the midpoint rule.
fn weight(n: f64, k: f64, [a, b]: [f64; 2]) -> f64 {
    let steps = 4000;
    let width = (b - a) / f64::from(steps);
    (0..steps)
        .map(|i| a + (f64::from(i) + 0.5) * width)
        .map(|phi| (-k * (1.0 + (n * phi).cos()) / (GAS_CONSTANT * TEMPERATURE)).exp() * width)
        .sum()
}

/// A double well: k(1 + cos 2φ) has minima at ±90°, 2k = 2.4 RT deep.
#[test]
fn a_double_well_is_sampled_to_its_exact_distribution() {
    let k = 3.0;
    let (system, start) = rotor(2, k);
    let langevin = Langevin::new(&system, SETTINGS).unwrap();
    let n = 64;
    let mut replicas = langevin
        .start(&start.repeat(n), &vec![TEMPERATURE; n], 2)
        .unwrap();
    langevin.run(&mut replicas, 3000).unwrap();
    const BINS: usize = 12;
    let (mut counts, samples) = ([0.0; BINS], 600);
    let mut series = vec![Vec::new(); n];
    for _ in 0..samples {
        langevin.run(&mut replicas, 50).unwrap();
        for (replica, phi) in dihedrals(&replicas.positions, 4, &[DIHEDRAL])
            .into_iter()
            .enumerate()
        {
            let turn = (wrap(phi) + std::f64::consts::PI) / std::f64::consts::TAU;
            counts[((turn * BINS as f64) as usize).min(BINS - 1)] += 1.0;
            series[replica].push((2.0 * phi).cos());
        }
    }
    let total = weight(2.0, k, [-std::f64::consts::PI, std::f64::consts::PI]);
    let g = series
        .iter()
        .map(|s| statistical_inefficiency(&[s]))
        .sum::<f64>()
        / n as f64;
    let independent = f64::from(samples) * n as f64 / g;
    for (bin, count) in counts.iter().enumerate() {
        let edge =
            |bin: usize| -std::f64::consts::PI + std::f64::consts::TAU * bin as f64 / BINS as f64;
        let expected = weight(2.0, k, [edge(bin), edge(bin + 1)]) / total;
        let found = count / (f64::from(samples) * n as f64);
        let error = (expected * (1.0 - expected) / independent).sqrt();
        assert!(
            (found - expected).abs() < 5.0 * error,
            "bin {bin}: {found} instead of {expected} ± {error}"
        );
    }
}

/// Every velocity component of every atom of a molecule at equilibrium carries ½RT.
#[test]
fn every_degree_of_freedom_has_half_rt() {
    let (system, start) = rotor(3, 5.0);
    let langevin = Langevin::new(&system, SETTINGS).unwrap();
    let n = 64;
    let mut replicas = langevin
        .start(&start.repeat(n), &vec![TEMPERATURE; n], 4)
        .unwrap();
    let samples = 400;
    let mut sums = [0.0; 12];
    for _ in 0..samples {
        langevin.run(&mut replicas, 60).unwrap();
        for v in replicas.velocities.chunks(12) {
            for (sum, v) in sums.iter_mut().zip(v) {
                *sum += 12.0 * f64::from(*v).powi(2) / (GAS_CONSTANT * TEMPERATURE);
            }
        }
    }
    for (k, sum) in sums.iter().enumerate() {
        // 25 600 samples 0.24 ps apart: e^{−2·2.4} of a correlation, so √(2/25600) = 0.9 %; LangevinMiddle's own error in velocities
        // at ωΔt = 0.7 of the stiff bonds is below a tenth.
        let ratio = sum / f64::from(samples * n as u32);
        assert!(
            (0.88..1.12).contains(&ratio),
            "component {k} has {ratio} of ½RT"
        );
    }
}

/// A barrier of 2k = 20 RT, which unbiased dynamics would not cross: umbrella sampling finds it, and a well's depth to its error, and so it
/// does when neighbouring windows exchange their conformations.
#[test]
fn umbrella_sampling_finds_a_free_energy_in_closed_form() {
    umbrella_sampling(false);
    umbrella_sampling(true);
}

fn umbrella_sampling(exchange: bool) {
    let k = 25.0;
    let (system, start) = rotor(2, k);
    let langevin = Langevin::new(&system, SETTINGS).unwrap();
    let windows = Windows::grid(1, 24, 90.0, TEMPERATURE);
    let bias = windows.bias(vec![DIHEDRAL], 2);
    let n = 48;
    let mut replicas = langevin
        .start(&start.repeat(n), &vec![TEMPERATURE; n], 2)
        .unwrap();
    langevin
        .run_biased(&mut replicas, Some(&bias), 2000)
        .unwrap();
    let samples = 600;
    let mut by_replica = vec![Vec::new(); n];
    let (mut attempted, mut accepted) = (0, 0);
    for round in 0..samples as u64 {
        langevin.run_biased(&mut replicas, Some(&bias), 40).unwrap();
        let angles = dihedrals(&replicas.positions, 4, &[DIHEDRAL]);
        for (replica, phi) in angles.iter().enumerate() {
            by_replica[replica].push(*phi);
        }
        if exchange {
            let count = windows.exchange(&mut replicas, &angles, 2, round, 7);
            attempted += count.tried;
            accepted += count.accepted;
        }
    }
    // Windows half a turn of 24 apart, 0.26 rad, where the bias alone leaves a spread of 0.17 rad.
    let rate = accepted as f64 / f64::max(1.0, attempted as f64);
    assert_eq!(exchange, (0.2..0.6).contains(&rate), "{rate}");
    let angles = by_replica.concat();
    let analysis = Analysis::new(&windows, &angles, 2).unwrap();
    // From the top of the barrier (|φ| < 0.2) to the wells, and between half a well and a quarter turn.
    let cases: [([f64; 2], [f64; 2]); 2] = [([-0.2, 0.2], [1.0, 2.1]), ([0.9, 1.3], [1.3, 2.0])];
    for (a, b) in cases {
        let inside = |range: [f64; 2]| {
            let angles = &angles;
            move |n: usize| (range[0]..range[1]).contains(&angles[n])
        };
        let found = analysis.difference(inside(a), inside(b)).unwrap();
        let exact = (weight(2.0, k, b) / weight(2.0, k, a)).ln();
        let half = found.half_width(0.999);
        assert!(
            (found.value - exact).abs() < half + 0.03 && found.standard_error < 0.3,
            "{found:?}, exactly {exact}"
        );
    }
    let (surface, errors) = analysis.surface(&angles, 1, 36);
    // Cells are wide against the slope: their integrals count, not the values in their middles.
    let cell = std::f64::consts::TAU / 36.0;
    let exact: Vec<f64> = (0..36)
        .map(|bin| -std::f64::consts::PI + cell * f64::from(bin))
        .map(|from| -weight(2.0, k, [from, from + cell]).ln())
        .collect();
    // The errors are those of −ln p, not of differences to the lowest cell, which has an error of its own.
    let total = |free: &[f64]| free.iter().map(|f| (-f).exp()).sum::<f64>().ln();
    let (above, exact_above) = (total(&surface), total(&exact));
    for (bin, ((free, error), exact)) in surface.iter().zip(&errors).zip(&exact).enumerate() {
        let (free, exact) = (free + above, exact + exact_above);
        assert!(
            (free - exact).abs() < 4.0 * error + 0.1 && *error < 0.4,
            "{bin}: {free} ± {error}, exactly {exact}"
        );
    }
}
