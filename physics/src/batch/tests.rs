use super::*;
use crate::energy::energy_forces_reference;
use crate::system::{BornModel, System};
use crate::{ForceField, build_sequence};
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::simd::dispatch_on;

/// Alanine dipeptide with its built conformation.
fn alanine_dipeptide() -> (System, Vec<f64>) {
    let (topology, positions) = build_sequence("Ace-A-Nme").unwrap();
    (
        ForceField::amber99sbildn_obc2().system(&topology).unwrap(),
        positions,
    )
}

/// `n` conformations: the built one with normal displacements of up to `sigma` nm, growing with the index.
fn displaced(positions: &[f64], n: usize, sigma: f64) -> Vec<f64> {
    let mut stream = Stream::new(1, 2, 3);
    (0..n)
        .flat_map(|i| {
            let scale = sigma * (i + 1) as f64 / n as f64;
            positions
                .iter()
                .map(|x| x + scale * stream.standard_normal())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The systems every comparison runs over: all Born models, with and without cutoff, without solvent.
fn variants(system: &System) -> Vec<(&'static str, System)> {
    let with = |model: Option<BornModel>, cutoff: Option<f64>| {
        let mut system = system.clone();
        system.cutoff = cutoff;
        system.generalized_born = model.and_then(|model| {
            system.generalized_born.clone().map(|mut born| {
                born.model = model;
                born
            })
        });
        system
    };
    vec![
        ("amber99_obc", with(Some(BornModel::Amber99Obc), None)),
        ("obc1", with(Some(BornModel::Obc1), None)),
        ("obc2", with(Some(BornModel::Obc2), None)),
        // Shorter than the molecule, so that both sides of the cutoff occur.
        ("obc1, cutoff", with(Some(BornModel::Obc1), Some(0.6))),
        (
            "amber99_obc, cutoff",
            with(Some(BornModel::Amber99Obc), Some(0.6)),
        ),
        ("vacuum", with(None, None)),
        ("vacuum, cutoff", with(None, Some(0.6))),
    ]
}

/// Tiles and blocks on every instruction set.
fn on_every_tier_by_both_methods<T: Real>(system: &System) -> Vec<(Tier, BatchEvaluator<T>)> {
    let both = |tier| {
        [
            (tier, BatchEvaluator::in_tiles(system).on(tier)),
            (tier, BatchEvaluator::in_blocks(system).on(tier)),
        ]
    };
    Tier::available().into_iter().flat_map(both).collect()
}

fn by_term(e: &Energies) -> [f64; 5] {
    [e.bond, e.angle, e.torsion, e.nonbonded, e.generalized_born]
}

#[test]
fn double_precision_equals_the_reference_in_every_term_and_force_on_every_tier() {
    let (system, built) = alanine_dipeptide();
    let size = built.len();
    // 19: two full tiles of eight lanes and a partial one. Displacements of 0.03 nm engulf atoms.
    let positions = displaced(&built, 19, 0.03);
    for (name, system) in variants(&system) {
        for (tier, evaluator) in on_every_tier_by_both_methods::<f64>(&system) {
            let mut forces = vec![0.0; positions.len()];
            let energies = evaluator.terms(&positions, Some(&mut forces)).unwrap();
            assert_eq!(energies, evaluator.terms(&positions, None).unwrap());
            for (i, x) in positions.chunks(size).enumerate() {
                let (expected, expected_forces) = energy_forces_reference(&system, x);
                for (found, expected) in by_term(&energies[i]).into_iter().zip(by_term(&expected)) {
                    let error = (found - expected).abs() / expected.abs().max(1.0);
                    assert!(
                        error < 1e-10,
                        "{name} {}: conformation {i}: {found} for {expected}",
                        tier.name()
                    );
                }
                let largest = expected_forces.iter().fold(0.0f64, |m, f| m.max(f.abs()));
                for (found, expected) in forces[i * size..(i + 1) * size]
                    .iter()
                    .zip(&expected_forces)
                {
                    assert!(
                        (found - expected).abs() < 1e-10 * largest,
                        "{name} {}: {found} for {expected}",
                        tier.name()
                    );
                }
            }
        }
    }
}

#[test]
fn single_precision_is_within_a_thousandth_of_the_reference_at_thermal_energies() {
    let (system, built) = alanine_dipeptide();
    let positions: Vec<f32> = displaced(&built, 64, 0.004)
        .iter()
        .map(|&x| x as f32)
        .collect();
    let rounded: Vec<f64> = positions.iter().map(|&x| f64::from(x)).collect();
    for (name, system, evaluator) in variants(&system).into_iter().flat_map(|(name, system)| {
        let tiles = BatchEvaluator::<f32>::in_tiles(&system);
        let blocks = BatchEvaluator::<f32>::in_blocks(&system);
        [(name, system.clone(), tiles), (name, system, blocks)]
    }) {
        let mut forces = vec![0.0f32; positions.len()];
        let mut energies = vec![0.0; 64];
        evaluator
            .energies_forces(&positions, &mut energies, Some(&mut forces))
            .unwrap();
        let exact = BatchEvaluator::<f64>::new(&system);
        let mut exact_forces = vec![0.0; rounded.len()];
        let mut exact_energies = vec![0.0; 64];
        exact
            .energies_forces(&rounded, &mut exact_energies, Some(&mut exact_forces))
            .unwrap();
        for (found, expected) in energies.iter().zip(&exact_energies) {
            assert!(
                (found - expected).abs() < 1e-3,
                "{name}: {found} for {expected}"
            );
        }
        let largest = exact_forces.iter().fold(0.0f64, |m, f| m.max(f.abs()));
        for (found, expected) in forces.iter().zip(&exact_forces) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-5 * largest,
                "{name}: {found} for {expected}"
            );
        }
    }
}

#[test]
fn one_conformation_in_the_lanes_equals_the_reference_on_every_tier() {
    let mut systems = variants(&alanine_dipeptide().0);
    let built = alanine_dipeptide().1;
    // Radii beyond what the short forms of the Born integral cover.
    let mut unusual = systems[0].1.clone();
    if let Some(born) = &mut unusual.generalized_born {
        born.radius[3] = 0.3;
        born.radius[8] = 0.05;
    }
    systems.push(("unusual radii", unusual));
    let mut positions = displaced(&built, 6, 0.03);
    // Two atoms in one point.
    let mut same = built.clone();
    same.copy_within(0..3, 12);
    positions.extend(same);
    for (name, system) in systems {
        let mut first: Option<Vec<f64>> = None;
        for tier in Tier::available() {
            let mut evaluator = SingleEvaluator::new(&system).on(tier);
            let mut all_forces = Vec::new();
            for (i, x) in positions.chunks(built.len()).enumerate() {
                let mut forces = vec![f64::NAN; x.len()];
                let energies = evaluator.energies_forces(x, &mut forces).unwrap();
                if i == 6 {
                    assert!(by_term(&energies).iter().all(|e| *e > f64::NEG_INFINITY));
                    continue;
                }
                let (expected, expected_forces) = energy_forces_reference(&system, x);
                for (found, expected) in by_term(&energies).into_iter().zip(by_term(&expected)) {
                    let error = (found - expected).abs() / expected.abs().max(1.0);
                    assert!(error < 1e-10, "{name} {i}: {found} for {expected}");
                }
                let largest = expected_forces.iter().fold(0.0f64, |m, f| m.max(f.abs()));
                for (found, expected) in forces.iter().zip(&expected_forces) {
                    assert!(
                        (found - expected).abs() < 1e-10 * largest,
                        "{name} {i}: {found} for {expected}"
                    );
                }
                all_forces.extend(forces);
            }
            // The portable tier rounds products and sums apart; the others do not differ.
            if tier != Tier::Portable {
                assert_eq!(
                    *first.get_or_insert(all_forces.clone()),
                    all_forces,
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn radii_beyond_the_short_forms_take_the_general_one() {
    let (mut system, built) = alanine_dipeptide();
    if let Some(born) = &mut system.generalized_born {
        born.radius[3] = 0.3;
        born.radius[8] = 0.05;
    }
    let positions = displaced(&built, 9, 0.02);
    for (_, evaluator) in on_every_tier_by_both_methods::<f64>(&system) {
        let energies = evaluator.energies(&positions).unwrap();
        for (x, energy) in positions.chunks(built.len()).zip(energies) {
            let expected = energy_forces_reference(&system, x).0.total();
            assert!((energy - expected).abs() < 1e-10 * expected.abs().max(1.0));
        }
    }
}

#[test]
fn wide_and_wider_vectors_give_the_same_bits() {
    let (system, built) = alanine_dipeptide();
    let positions: Vec<f32> = displaced(&built, 40, 0.01)
        .iter()
        .map(|&x| x as f32)
        .collect();
    for (name, system) in variants(&system) {
        let mut first = [None, None];
        for (number, (tier, evaluator)) in on_every_tier_by_both_methods::<f32>(&system)
            .into_iter()
            .enumerate()
        {
            if tier == Tier::Portable {
                continue;
            }
            let first = &mut first[number % 2];
            let mut forces = vec![0.0f32; positions.len()];
            let energies = evaluator.terms(&positions, Some(&mut forces)).unwrap();
            let found = (energies, forces);
            assert_eq!(*first.get_or_insert(found.clone()), found, "{name}");
        }
    }
}

/// A decapeptide's energy is the sum of ten thousand pairs. Parameters rounded without what rounding took from them alone would move
/// it by 4·10⁻⁴ kJ/mol on average.
#[test]
fn single_precision_keeps_a_decapeptide_within_about_a_thousandth() {
    let built = crate::builder::build_minimised(
        "GYDPETGTWG",
        &ForceField::ff14sb(Some(BornModel::Obc1), Some(2.0)),
        crate::minimise::MinimiseSettings::default(),
    )
    .unwrap();
    const REPLICAS: usize = 32;
    let settings = crate::langevin::LangevinSettings {
        timestep: 0.001,
        friction: 5.0,
    };
    let langevin = crate::langevin::Langevin::new(&built.system, settings).unwrap();
    let start: Vec<f32> = built.positions.iter().map(|&x| x as f32).collect();
    let mut replicas = langevin
        .start(&start.repeat(REPLICAS), &[300.0; REPLICAS], 1)
        .unwrap();
    langevin.run(&mut replicas, 500).unwrap();
    let positions = replicas.positions;
    let rounded: Vec<f64> = positions.iter().map(|&x| f64::from(x)).collect();
    let found = BatchEvaluator::<f32>::new(&built.system)
        .energies(&positions)
        .unwrap();
    let expected = BatchEvaluator::<f64>::new(&built.system)
        .energies(&rounded)
        .unwrap();
    let (mut sum, mut squares) = (0.0, 0.0);
    for (found, expected) in found.iter().zip(&expected) {
        sum += (found - expected) / REPLICAS as f64;
        squares += (found - expected).powi(2) / REPLICAS as f64;
        assert!((found - expected).abs() < 1.3e-3, "{found} for {expected}");
    }
    assert!(squares.sqrt() < 6e-4, "{}", squares.sqrt());
    assert!(sum.abs() < 3.5e-4, "{sum}");
}

#[test]
fn results_do_not_depend_on_company_or_threads() {
    let (system, built) = alanine_dipeptide();
    let size = built.len();
    let positions: Vec<f32> = displaced(&built, 70, 0.01)
        .iter()
        .map(|&x| x as f32)
        .collect();
    let evaluator = BatchEvaluator::<f32>::new(&system);
    let mut forces = vec![0.0; positions.len()];
    let energies = evaluator.terms(&positions, Some(&mut forces)).unwrap();
    for part in [1, 7, 33] {
        let mut first = 0;
        for x in positions.chunks(part * size) {
            let mut some_forces = vec![0.0; x.len()];
            let some = evaluator.terms(x, Some(&mut some_forces)).unwrap();
            assert_eq!(some, energies[first..first + some.len()]);
            assert_eq!(some_forces, forces[first * size..first * size + x.len()]);
            first += some.len();
        }
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    assert_eq!(
        pool.install(|| evaluator.terms(&positions, None).unwrap()),
        energies
    );
}

#[test]
fn finite_positions_never_give_an_energy_that_is_not_a_number() {
    let (system, built) = alanine_dipeptide();
    let size = built.len();
    let mut positions = Vec::new();
    // All atoms in one point; every pair in turn in one point; one atom far away; all atoms on a line.
    positions.extend(vec![0.0; size]);
    for i in 0..22 {
        for j in 0..i {
            let mut x = built.clone();
            for axis in 0..3 {
                x[3 * i + axis] = x[3 * j + axis];
            }
            positions.extend(x);
        }
    }
    for far in [1e3, 1e10, 1e19, 1e30] {
        let mut x = built.clone();
        x[5] = far;
        positions.extend(x);
    }
    positions.extend(
        built
            .iter()
            .enumerate()
            .map(|(k, x)| if k % 3 == 0 { *x } else { 0.0 }),
    );
    for (name, system) in variants(&system) {
        let single: Vec<f32> = positions.iter().map(|&x| x as f32).collect();
        let mut found = Vec::new();
        for (_, evaluator) in on_every_tier_by_both_methods::<f64>(&system) {
            let mut forces = positions.clone();
            found.extend(evaluator.terms(&positions, Some(&mut forces)).unwrap());
            assert!(forces.iter().all(|force| !force.is_nan()), "{name}");
        }
        for (_, evaluator) in on_every_tier_by_both_methods::<f32>(&system) {
            let mut forces = single.clone();
            found.extend(evaluator.terms(&single, Some(&mut forces)).unwrap());
            assert!(forces.iter().all(|force| !force.is_nan()), "{name}");
        }
        for (i, terms) in found.iter().enumerate() {
            for energy in by_term(terms) {
                assert!(
                    energy > f64::NEG_INFINITY,
                    "{name}: conformation {i} has energies {terms:?}"
                );
            }
        }
    }
}

#[test]
fn bad_input_is_named() {
    let (system, built) = alanine_dipeptide();
    let evaluator = BatchEvaluator::<f64>::new(&system);
    let mut positions = built.repeat(3);
    assert_eq!(
        evaluator.energies(&positions[1..]).unwrap_err(),
        BatchError::Shape {
            coordinates: 197,
            n_atoms: 22
        }
    );
    positions[66 * 2 + 3 * 5 + 1] = f64::NAN;
    assert_eq!(
        evaluator.energies(&positions).unwrap_err(),
        BatchError::NotFinite {
            conformation: 2,
            atom: 5
        }
    );
    let error = evaluator
        .energies_forces(&built, &mut [0.0; 2], None)
        .unwrap_err();
    assert_eq!(
        error,
        BatchError::Output {
            what: "energies",
            found: 2,
            expected: 1
        }
    );
    assert_eq!(evaluator.energies(&[]).unwrap(), Vec::<f64>::new());
}

/// Velocity Verlet for `time` ps from the built conformation with thermal velocities: the worst deviation of the total energy.
fn energy_drift(system: &System, start: &[f64], timestep: f64, time: f64) -> f64 {
    let evaluator = BatchEvaluator::<f64>::new(system);
    let mut x = start.to_vec();
    let mut stream = Stream::new(4, 5, 6);
    let mut v: Vec<f64> = (0..x.len())
        .map(|k| {
            (crate::system::GAS_CONSTANT * 300.0 / system.masses[k / 3]).sqrt()
                * stream.standard_normal()
        })
        .collect();
    let mut f = vec![0.0; x.len()];
    let mut energy = [0.0];
    evaluator
        .energies_forces(&x, &mut energy, Some(&mut f))
        .unwrap();
    let mut worst = 0.0f64;
    let mut first = None;
    for _ in 0..(time / timestep).round() as usize {
        for k in 0..x.len() {
            v[k] += 0.5 * timestep * f[k] / system.masses[k / 3];
            x[k] += timestep * v[k];
        }
        evaluator
            .energies_forces(&x, &mut energy, Some(&mut f))
            .unwrap();
        for k in 0..x.len() {
            v[k] += 0.5 * timestep * f[k] / system.masses[k / 3];
        }
        let kinetic: f64 = (0..x.len())
            .map(|k| 0.5 * system.masses[k / 3] * v[k] * v[k])
            .sum();
        let total = energy[0] + kinetic;
        worst = worst.max((total - *first.get_or_insert(total)).abs());
    }
    worst
}

#[test]
fn velocity_verlet_conserves_energy_to_second_order_in_the_step() {
    let (system, built) = alanine_dipeptide();
    let coarse = energy_drift(&system, &built, 0.0004, 0.2);
    let fine = energy_drift(&system, &built, 0.0002, 0.2);
    let ratio = coarse / fine;
    assert!(
        (3.6..4.4).contains(&ratio),
        "halving the step divided the energy error {coarse} by {ratio}"
    );
}

/// Not a check: `cargo test -p boltzmap-physics --release -- --ignored --nocapture evaluations_per_second`.
#[test]
#[ignore = "timing: cargo test -p boltzmap-physics --release evaluations_per_second -- --ignored --nocapture"]
fn evaluations_per_second() {
    fn measure<T: Real>(system: &System, positions: &[f64]) {
        let size = 3 * system.n_atoms();
        let x: Vec<T> = positions.iter().map(|&x| T::from_f64(x)).collect();
        let n = x.len() / size;
        for tier in Tier::available() {
            let evaluator = BatchEvaluator::<T>::new(system).on(tier);
            let mut forces = x.clone();
            let mut energies = vec![Energies::default(); n];
            let mut best = f64::INFINITY;
            for _ in 0..20 {
                let start = std::time::Instant::now();
                for ((energies, positions), forces) in energies
                    .chunks_mut(CHUNK)
                    .zip(x.chunks(CHUNK * size))
                    .zip(forces.chunks_mut(CHUNK * size))
                {
                    let Method::Tiles(parameters) = &evaluator.method else {
                        unreachable!("a small molecule")
                    };
                    dispatch_on(
                        tier,
                        EvaluateChunk {
                            parameters,
                            positions,
                            energies,
                            forces: Some(forces),
                        },
                    );
                }
                best = best.min(start.elapsed().as_secs_f64());
            }
            println!(
                "{} {}: {:.0} energies with forces per second and core",
                T::NAME,
                tier.name(),
                n as f64 / best
            );
        }
    }
    let (system, built) = alanine_dipeptide();
    let positions = displaced(&built, 1280, 0.004);
    measure::<f32>(&system, &positions);
    measure::<f64>(&system, &positions);
}

/// Not a check: where [`LARGEST_IN_TILES`] should lie. Time per conformation on one thread, by tiles and by blocks.
#[test]
#[ignore = "timing: cargo test -p boltzmap-physics --release tiles_beside_blocks -- --ignored --nocapture"]
fn tiles_beside_blocks() {
    fn measure<T: Real>(system: &System, built: &[f64]) {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let positions: Vec<T> = displaced(built, 32, 0.004)
            .iter()
            .map(|&x| T::from_f64(x))
            .collect();
        let mut forces = positions.clone();
        let mut times = Vec::new();
        for evaluator in [
            BatchEvaluator::<T>::in_tiles(system),
            BatchEvaluator::in_blocks(system),
        ] {
            let mut best = f64::INFINITY;
            let begin = std::time::Instant::now();
            while begin.elapsed().as_secs_f64() < 0.2 {
                let start = std::time::Instant::now();
                pool.install(|| evaluator.terms(&positions, Some(&mut forces)))
                    .unwrap();
                best = best.min(start.elapsed().as_secs_f64() / 32.0);
            }
            times.push(format!("{:9.1} us", 1e6 * best));
        }
        println!(
            "{} {:4} atoms, cutoff {:?}: {}",
            T::NAME,
            system.n_atoms(),
            system.cutoff,
            times.join(" in tiles, ")
        );
    }
    for residues in [2, 5, 10, 15, 20, 30, 40, 60] {
        let sequence: String = "GYDPETGTWAKL".chars().cycle().take(residues).collect();
        let (topology, built) = build_sequence(&sequence).unwrap();
        for cutoff in [None, Some(1.0), Some(2.0)] {
            let system = ForceField::ff14sb(Some(BornModel::Obc1), cutoff)
                .system(&topology)
                .unwrap();
            measure::<f64>(&system, &built);
            measure::<f32>(&system, &built);
        }
    }
}
