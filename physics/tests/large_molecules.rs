//! Molecules too large for tiles: the blocks of atoms give what the reference gives, on any number of threads, in one piece of memory that
//! grows with the molecule, and dynamics and minimisation run on them.

use boltzmap_kernels::random::Stream;
use boltzmap_physics::batch::LARGEST_IN_TILES;
use boltzmap_physics::langevin::{Langevin, LangevinSettings};
use boltzmap_physics::minimise::{MinimiseSettings, minimise};
use boltzmap_physics::system::BornModel;
use boltzmap_physics::{
    Atom, BatchEvaluator, Energies, ForceField, SingleEvaluator, System, Topology, build_sequence,
    energy_forces_reference,
};

/// Residues of every kind, and so atoms of every type.
const SEQUENCES: [&str; 3] = [
    "ACDEFGHIKLMNPQRSTVWY",
    "GYDPETGTWGKRNSHMFLIV",
    "Ace-WCPHYRKDEQNTSMILVFGA-Nme",
];

fn force_fields(cutoff: Option<f64>) -> Vec<(&'static str, ForceField)> {
    let amber99 = || ForceField::amber99sbildn_obc2();
    let mut fields = vec![
        (
            "ff14sb+obc1",
            ForceField::ff14sb(Some(BornModel::Obc1), cutoff),
        ),
        (
            "ff14sb+obc2",
            ForceField::ff14sb(Some(BornModel::Obc2), cutoff),
        ),
        ("ff14sb", ForceField::ff14sb(None, cutoff)),
    ];
    let mut field = amber99();
    field.cutoff = cutoff;
    fields.push(("amber99sbildn+obc2", field));
    fields
}

/// The atoms of a peptide `n` times over, side by side on a cubic grid of `spacing` nm; every copy turned in its own way and shaken a little.
fn crowd(sequence: &str, n: usize, spacing: f64) -> (Topology, Vec<f64>) {
    let (one, built) = build_sequence(sequence).unwrap();
    let (mut atoms, mut bonds, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    let mut stream = Stream::new(7, n as u64, 0);
    let side = (n as f64).cbrt().ceil() as usize;
    for copy in 0..n {
        let first = copy * one.n_atoms();
        atoms.extend(one.atoms.iter().map(|atom| Atom {
            residue_index: atom.residue_index + copy * one.n_residues(),
            ..atom.clone()
        }));
        bonds.extend(one.bonds.iter().map(|bond| bond.map(|atom| atom + first)));
        let place = [copy % side, copy / side % side, copy / side / side];
        let turn = copy % 3;
        for atom in built.as_chunks::<3>().0 {
            for axis in 0..3 {
                positions.push(
                    atom[(axis + turn) % 3]
                        + spacing * place[axis] as f64
                        + 0.003 * stream.standard_normal(),
                );
            }
        }
    }
    (Topology::new(atoms, bonds), positions)
}

fn terms(e: &Energies) -> [f64; 6] {
    [
        e.bond,
        e.angle,
        e.torsion,
        e.nonbonded,
        e.generalized_born,
        e.total(),
    ]
}

/// Largest relative deviations of a term, and of a force from the largest force.
fn deviations(found: (&Energies, &[f64]), expected: (&Energies, &[f64])) -> (f64, f64) {
    let energy = terms(found.0)
        .iter()
        .zip(terms(expected.0))
        .map(|(a, b)| (a - b).abs() / b.abs().max(1.0))
        .fold(0.0, f64::max);
    let largest = expected.1.iter().fold(0.0, |m: f64, f| m.max(f.abs()));
    let force = found.1.iter().zip(expected.1).map(|(a, b)| (a - b).abs());
    (energy, force.fold(0.0, f64::max) / largest)
}

/// Every term and force to 1e-10, with and without forces asked for, by both evaluators.
fn check_against_reference(name: &str, system: &System, positions: &[f64]) {
    let expected = energy_forces_reference(system, positions);
    let mut forces = vec![f64::NAN; positions.len()];
    let evaluator = BatchEvaluator::<f64>::new(system);
    let found = evaluator.terms(positions, Some(&mut forces)).unwrap();
    let (energy, force) = deviations((&found[0], &forces), (&expected.0, &expected.1));
    assert!(energy < 1e-10 && force < 1e-10, "{name}: {energy} {force}");
    assert_eq!(evaluator.terms(positions, None).unwrap(), found, "{name}");
    let mut single_forces = vec![f64::NAN; positions.len()];
    let single = SingleEvaluator::new(system)
        .energies_forces(positions, &mut single_forces)
        .unwrap();
    let (energy, force) = deviations((&single, &single_forces), (&expected.0, &expected.1));
    assert!(energy < 1e-10 && force < 1e-10, "{name}: {energy} {force}");
}

/// Sequences of every kind of residue in an order of chance.
fn random_sequence(stream: &mut Stream) -> String {
    let mut letters: Vec<char> = "ACDEFGHIKLMNPQRSTVWY".chars().collect();
    for last in (1..letters.len()).rev() {
        let other = stream.below(last as u64 + 1) as usize;
        letters.swap(last, other);
    }
    letters.into_iter().collect()
}

#[test]
fn random_peptides_equal_the_reference_in_every_term_and_force() {
    let mut stream = Stream::new(11, 0, 0);
    let mut sequences: Vec<String> = SEQUENCES.iter().map(|&text| text.to_owned()).collect();
    sequences.extend((0..3).map(|_| random_sequence(&mut stream)));
    for sequence in sequences {
        let (topology, positions) = crowd(&sequence, 1, 0.0);
        assert!(topology.n_atoms() > LARGEST_IN_TILES);
        for cutoff in [None, Some(0.5), Some(1.0), Some(2.0), Some(50.0)] {
            for (name, field) in force_fields(cutoff) {
                let system = field.system(&topology).unwrap();
                assert_eq!(system.cutoff, cutoff);
                let name = format!("{sequence} in {name}, cutoff {cutoff:?}");
                check_against_reference(&name, &system, &positions);
            }
        }
    }
}

#[test]
fn a_crowd_of_molecules_equals_the_reference() {
    for (n, cutoff) in [(4, None), (4, Some(0.9)), (8, Some(1.2))] {
        let (topology, positions) = crowd(SEQUENCES[0], n, 1.6);
        let system = ForceField::ff14sb(Some(BornModel::Obc1), cutoff)
            .system(&topology)
            .unwrap();
        check_against_reference(&format!("{n} {cutoff:?}"), &system, &positions);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (topology, positions) = crowd(SEQUENCES[1], 4, 1.6);
    for cutoff in [None, Some(1.0)] {
        let system = ForceField::ff14sb(Some(BornModel::Obc2), cutoff)
            .system(&topology)
            .unwrap();
        let single: Vec<f32> = positions.iter().map(|&x| x as f32).collect();
        let mut first = None;
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let found = pool.install(|| {
                let mut forces = positions.repeat(3);
                let double = BatchEvaluator::<f64>::new(&system)
                    .terms(&positions.repeat(3), Some(&mut forces))
                    .unwrap();
                let mut narrow = single.clone();
                let narrow_energies = BatchEvaluator::<f32>::new(&system)
                    .terms(&single, Some(&mut narrow))
                    .unwrap();
                (double, forces, narrow_energies, narrow)
            });
            assert!(found.0[0] == found.0[1] && found.0[0] == found.0[2]);
            assert_eq!(*first.get_or_insert(found.clone()), found, "{threads}");
        }
    }
}

/// Single precision loses nothing that it does not lose in tiles: ten thousand pairs or a million.
#[test]
fn single_precision_is_close_to_double() {
    for cutoff in [None, Some(1.0)] {
        let (topology, positions) = crowd(SEQUENCES[0], 4, 1.6);
        let system = ForceField::ff14sb(Some(BornModel::Obc1), cutoff)
            .system(&topology)
            .unwrap();
        let narrow: Vec<f32> = positions.iter().map(|&x| x as f32).collect();
        let rounded: Vec<f64> = narrow.iter().map(|&x| f64::from(x)).collect();
        let mut forces = narrow.clone();
        let found = BatchEvaluator::<f32>::new(&system)
            .terms(&narrow, Some(&mut forces))
            .unwrap();
        let mut exact_forces = rounded.clone();
        let exact = BatchEvaluator::<f64>::new(&system)
            .terms(&rounded, Some(&mut exact_forces))
            .unwrap();
        let wide: Vec<f64> = forces.iter().map(|&f| f64::from(f)).collect();
        let (energy, force) = deviations((&found[0], &wide), (&exact[0], &exact_forces));
        eprintln!(
            "{cutoff:?} {energy:e} {force:e} {:?} {:?}",
            found[0], exact[0]
        );
        assert!(
            energy < 2e-6 && force < 1e-5,
            "{cutoff:?}: {energy} {force}"
        );
    }
}

#[test]
fn overlaps_and_far_away_atoms_have_no_energy_that_is_not_a_number() {
    let (topology, positions) = crowd(SEQUENCES[0], 1, 0.0);
    let mut hostile = vec![0.0; positions.len()];
    for far in [1e3, 1e10, 1e30] {
        let mut x = positions.clone();
        x[5] = far;
        hostile.extend(x);
    }
    let mut x = positions.clone();
    x.copy_within(0..3, 600);
    hostile.extend(x);
    for cutoff in [None, Some(1.0)] {
        let system = ForceField::ff14sb(Some(BornModel::Obc1), cutoff)
            .system(&topology)
            .unwrap();
        let mut forces = hostile.clone();
        let energies = BatchEvaluator::<f64>::new(&system)
            .terms(&hostile, Some(&mut forces))
            .unwrap();
        let narrow: Vec<f32> = hostile.iter().map(|&x| x as f32).collect();
        let mut narrow_forces = narrow.clone();
        let single = BatchEvaluator::<f32>::new(&system)
            .terms(&narrow, Some(&mut narrow_forces))
            .unwrap();
        for energy in energies.iter().chain(&single).flat_map(terms) {
            assert!(energy > f64::NEG_INFINITY, "{energy}");
        }
        assert!(forces.iter().all(|force| !force.is_nan()));
        assert!(narrow_forces.iter().all(|force| !force.is_nan()));
    }
}

#[test]
fn minimisation_and_dynamics_do_not_depend_on_company() {
    let (topology, start) = crowd(SEQUENCES[0], 1, 0.0);
    let system = ForceField::ff14sb(Some(BornModel::Obc1), Some(1.0))
        .system(&topology)
        .unwrap();
    let other: Vec<f64> = start.iter().map(|x| 1.002 * x).collect();
    let settings = MinimiseSettings {
        max_steps: 60,
        ..MinimiseSettings::default()
    };
    let evaluator = BatchEvaluator::<f64>::new(&system);
    let before = evaluator.energies(&start).unwrap()[0];
    let mut alone = start.clone();
    let one = minimise(&evaluator, &mut alone, settings).unwrap();
    assert!(one[0].energy < before - 100.0, "{} {before}", one[0].energy);
    let mut together = [start.clone(), other, start.clone()].concat();
    let three = minimise(&evaluator, &mut together, settings).unwrap();
    assert_eq!(together[..alone.len()], alone);
    assert_eq!(together[2 * alone.len()..], alone);
    assert_eq!(one[0], three[0]);
    // What is reported is the energy of what is given back.
    let after = evaluator.energies(&together).unwrap();
    for (minimised, energy) in three.iter().zip(after) {
        assert!((minimised.energy - energy).abs() < 1e-9 * energy.abs());
    }

    let langevin = Langevin::new(&system, LangevinSettings::default()).unwrap();
    let narrow: Vec<f32> = alone.iter().map(|&x| x as f32).collect();
    let run = |n: usize| {
        let mut state = langevin
            .start(&narrow.repeat(n), &vec![300.0; n], 5)
            .unwrap();
        langevin.run(&mut state, 20).unwrap();
        state
    };
    let (one, two) = (run(1), run(2));
    assert_eq!(one.positions, two.positions[..narrow.len()]);
    assert_ne!(one.positions, narrow);
}
