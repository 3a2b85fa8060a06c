//! What energies must not depend on, and what coinciding atoms must not do, as properties over peptides of many kinds.

use boltzmap_physics::system::{BornModel, System};
use boltzmap_physics::terms::vector;
use boltzmap_physics::{
    BatchEvaluator, Energies, ForceField, build_sequence, energy_forces_reference,
};
use proptest::prelude::*;

const SEQUENCES: [&str; 6] = [
    "Ace-A-Nme",
    "KM",
    "Ace-[HIP]C-NH2",
    "Ace-dWP-Nme",
    "DRY",
    "CAAC:1-4",
];

fn system(sequence: usize, kind: usize) -> (System, Vec<f64>) {
    let force_field = match kind {
        0 => ForceField::amber99sbildn_obc2(),
        1 => ForceField::ff14sb(Some(BornModel::Obc1), Some(0.8)),
        _ => ForceField::ff14sb(Some(BornModel::Obc2), None),
    };
    let (topology, positions) = build_sequence(SEQUENCES[sequence]).unwrap();
    (force_field.system(&topology).unwrap(), positions)
}

fn terms(energies: &Energies) -> [f64; 5] {
    [
        energies.bond,
        energies.angle,
        energies.torsion,
        energies.nonbonded,
        energies.generalized_born,
    ]
}

/// The reference and the batch evaluator.
fn evaluate(system: &System, positions: &[f64]) -> [(Energies, Vec<f64>); 2] {
    let mut forces = vec![0.0; positions.len()];
    let energies = BatchEvaluator::<f64>::new(system)
        .terms(positions, Some(&mut forces))
        .unwrap()[0];
    [
        energy_forces_reference(system, positions),
        (energies, forces),
    ]
}

fn distorted(positions: &[f64], noise: &[f64]) -> Vec<f64> {
    positions
        .iter()
        .zip(noise.iter().cycle())
        .map(|(x, e)| x + 0.01 * e)
        .collect()
}

fn close(a: f64, b: f64, scale: f64) -> bool {
    (a - b).abs() <= 1e-9 * scale.max(1.0)
}

/// A rotation about an axis by an angle (Rodrigues).
fn rotate(axis: [f64; 3], angle: f64, x: [f64; 3]) -> [f64; 3] {
    let (sine, cosine) = angle.sin_cos();
    let along = vector::scale((1.0 - cosine) * vector::dot(axis, x), axis);
    let across = vector::scale(sine, vector::cross(axis, x));
    vector::add(vector::add(vector::scale(cosine, x), across), along)
}

fn inputs() -> impl Strategy<Value = (usize, usize, Vec<f64>)> {
    (
        0..SEQUENCES.len(),
        0..3usize,
        prop::collection::vec(-1.0..1.0f64, 97),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn energies_do_not_see_place_orientation_or_handedness(
        (sequence, kind, noise) in inputs(),
        axis in prop::array::uniform3(-1.0..1.0f64).prop_filter("no axis", |axis| vector::norm(*axis) > 0.1),
        angle in 0.0..6.3f64,
        shift in prop::array::uniform3(-3.0..3.0f64),
        mirror in any::<bool>(),
    ) {
        let (system, built) = system(sequence, kind);
        let x = distorted(&built, &noise);
        let axis = vector::normalize(axis);
        // All phases here are 0 or π: torsion energies are even, and a mirror image has the same energy.
        prop_assert!(system.torsions.iter().all(|torsion| torsion.phase.sin().abs() < 1e-6));
        let turn = |v: [f64; 3]| {
            let v = rotate(axis, angle, v);
            if mirror { [-v[0], v[1], v[2]] } else { v }
        };
        let moved: Vec<f64> = x.as_chunks::<3>().0.iter().flat_map(|&v| vector::add(turn(v), shift)).collect();
        for ((e, f), (em, fm)) in evaluate(&system, &x).iter().zip(evaluate(&system, &moved)) {
            for (a, b) in terms(e).into_iter().zip(terms(&em)) {
                prop_assert!(close(a, b, a.abs()), "{} {}", a, b);
            }
            let largest = f.iter().fold(0.0f64, |m, f| m.max(f.abs()));
            for (&a, &b) in f.as_chunks::<3>().0.iter().zip(fm.as_chunks::<3>().0) {
                prop_assert!(vector::distance(turn(a), b) <= 1e-8 * largest.max(1.0));
            }
        }
    }

    #[test]
    fn energies_do_not_see_the_order_of_atoms((sequence, kind, noise) in inputs(), seed in any::<u64>()) {
        let (system, built) = system(sequence, kind);
        let x = distorted(&built, &noise);
        let n = system.n_atoms();
        // place[i] is where atom i goes.
        let mut place: Vec<usize> = (0..n).collect();
        let mut stream = boltzmap_kernels::random::Stream::new(seed, 1, 1);
        for k in (1..n).rev() {
            place.swap(k, stream.below(k as u64 + 1) as usize);
        }
        let per_atom = |values: &[f64]| {
            let mut moved = vec![0.0; n];
            for (i, &value) in values.iter().enumerate() {
                moved[place[i]] = value;
            }
            moved
        };
        let ordered = |pair: [usize; 2]| {
            let [i, j] = pair.map(|atom| place[atom]);
            [i.min(j), i.max(j)]
        };
        let mut other = system.clone();
        other.masses = per_atom(&system.masses);
        other.charges = per_atom(&system.charges);
        other.sigma = per_atom(&system.sigma);
        other.epsilon = per_atom(&system.epsilon);
        for bond in &mut other.bonds { bond.atoms = bond.atoms.map(|atom| place[atom]); }
        for angle in &mut other.angles { angle.atoms = angle.atoms.map(|atom| place[atom]); }
        for torsion in &mut other.torsions { torsion.atoms = torsion.atoms.map(|atom| place[atom]); }
        for pair in &mut other.excluded { *pair = ordered(*pair); }
        other.excluded.sort_unstable();
        for pair in &mut other.pairs14 { pair.atoms = ordered(pair.atoms); }
        other.pairs14.sort_unstable_by_key(|pair| pair.atoms);
        if let Some(born) = &mut other.generalized_born {
            born.radius = per_atom(&born.radius);
            born.scale = per_atom(&born.scale);
        }
        let mut y = vec![0.0; 3 * n];
        for i in 0..n {
            y[3 * place[i]..3 * place[i] + 3].copy_from_slice(&x[3 * i..3 * i + 3]);
        }
        for ((e, f), (em, fm)) in evaluate(&system, &x).iter().zip(evaluate(&other, &y)) {
            for (a, b) in terms(e).into_iter().zip(terms(&em)) {
                prop_assert!(close(a, b, a.abs()), "{} {}", a, b);
            }
            let largest = f.iter().fold(0.0f64, |m, f| m.max(f.abs()));
            for i in 0..3 * n {
                prop_assert!((f[i] - fm[3 * place[i / 3] + i % 3]).abs() <= 1e-9 * largest.max(1.0));
            }
        }
    }

    /// Atoms on one another, in clusters, on a line, far away: energies are numbers or +∞ in every precision, forces of f64 never NaN.
    #[test]
    fn coinciding_atoms_never_give_a_nan(
        (sequence, kind, _) in inputs(),
        onto in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..6),
        line in any::<bool>(),
        far in prop::option::of(prop::sample::select(vec![1e2, 1e6, 1e15, 1e30])),
        gap in prop::sample::select(vec![0.0, 1e-30, 1e-12, 1e-6, 1e-3]),
    ) {
        let (system, mut x) = system(sequence, kind);
        let n = system.n_atoms();
        if line {
            for (k, x) in x.iter_mut().enumerate() { if k % 3 > 0 { *x = 0.0; } }
        }
        for (a, b) in onto {
            let (a, b) = (a.index(n), b.index(n));
            for axis in 0..3 { x[3 * a + axis] = x[3 * b + axis] + gap; }
        }
        if let Some(far) = far { x[4] = far; }
        for (energies, forces) in evaluate(&system, &x) {
            for energy in terms(&energies) {
                prop_assert!(energy > f64::NEG_INFINITY, "{:?}", energies);
            }
            if far.is_none() {
                prop_assert!(forces.iter().all(|force| !force.is_nan()));
            }
        }
        let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        for energy in terms(&BatchEvaluator::<f32>::new(&system).terms(&single, None).unwrap()[0]) {
            prop_assert!(energy > f64::NEG_INFINITY);
        }
    }
}
