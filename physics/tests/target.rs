//! Boltzmann's distribution of a molecule as a target of states.

use boltzmap_kernels::random::Stream;
use boltzmap_physics::MolecularTarget;
use boltzmap_physics::batch::BatchEvaluator;
use boltzmap_physics::builder::{Built, build_minimised};
use boltzmap_physics::chart::zmatrix::Reference;
use boltzmap_physics::chart::{
    CartesianChart, Coordinates, InternalChart, InternalOptions, ZMatrix,
};
use boltzmap_physics::forcefield::ForceField;
use boltzmap_physics::minimise::MinimiseSettings;
use boltzmap_physics::observables::same_peptide_bonds;
use boltzmap_physics::system::GAS_CONSTANT;
use boltzmap_sampling::{SamplingError, Target};

const KT: f64 = GAS_CONSTANT * 300.0;

fn alanine_dipeptide() -> Built {
    let force_field = ForceField::amber99sbildn_obc2();
    build_minimised("Ace-A-Nme", &force_field, MinimiseSettings::default()).unwrap()
}

/// Frames around the built one.
fn frames(built: &Built, count: usize) -> Vec<f64> {
    let mut stream = Stream::new(3, 1, 0);
    let all = built.positions.repeat(count);
    all.iter()
        .map(|x| x + 0.004 * stream.standard_normal())
        .collect()
}

fn both(built: &Built) -> [Coordinates; 2] {
    let n = built.system.n_atoms();
    let numbers = built.topology.atomic_numbers();
    let matrix = ZMatrix::build(n, &built.topology.bonds, &numbers).unwrap();
    let frames = frames(built, 300);
    let options = InternalOptions::default();
    [
        Coordinates::Internal(InternalChart::fit(matrix, &numbers, options, &frames).unwrap()),
        Coordinates::Cartesian(CartesianChart::fit(n, &frames).unwrap()),
    ]
}

#[test]
fn densities_are_energies_and_volumes_and_gradients_their_slopes() {
    let built = alanine_dipeptide();
    let evaluator = BatchEvaluator::<f64>::new(&built.system);
    for coordinates in both(&built) {
        let scale = 0.9;
        let target = MolecularTarget::new(coordinates.clone(), &built.system, KT)
            .unwrap()
            .with_fixed_peptide_bonds(&built.positions, &built.topology.backbone())
            .with_scale(scale);
        let positions = frames(&built, 3);
        let encoded = coordinates.encode(&positions).unwrap();
        let states: Vec<f64> = encoded.state.iter().map(|y| scale * y).collect();
        let found = target.log_density_and_gradient(&states).unwrap();
        assert_eq!(found.log_density, target.log_density(&states).unwrap());
        let energies = evaluator.energies(&positions).unwrap();
        let constant = coordinates.dimension() as f64 * scale.ln();
        for i in 0..3 {
            let expected = -energies[i] / KT - encoded.log_det[i] + encoded.log_share[i] - constant;
            let log_density = found.log_density[i];
            assert!(
                (log_density - expected).abs() < 1e-7,
                "{log_density} {expected}"
            );
        }
        // Along random directions of the subspace.
        let size = target.state_size();
        let mut stream = Stream::new(4, 1, 0);
        for (state, gradient) in states.chunks(size).zip(found.gradients.chunks(size)) {
            let mut direction = vec![0.0; size];
            stream.fill_standard_normal(&mut direction);
            target.project(&mut direction);
            let h = 1e-5;
            let at = |shift: f64| {
                let moved = state.iter().zip(&direction).map(|(y, v)| y + shift * v);
                target.log_density(&moved.collect::<Vec<f64>>()).unwrap()[0]
            };
            let slope = (at(h) - at(-h)) / (2.0 * h);
            let product: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
            assert!(
                (product - slope).abs() < 1e-5 * slope.abs().max(10.0),
                "{product} {slope}"
            );
        }
    }
}

#[test]
fn what_is_not_in_the_ensemble_has_no_density() {
    let built = alanine_dipeptide();
    let [internal, cartesian] = both(&built);
    let states = internal.encode(&built.positions).unwrap().state;
    let size = states.len();
    let mut off = states.repeat(2);
    // A bond length of no use.
    off[size] = -1e4;
    let target = MolecularTarget::new(internal.clone(), &built.system, KT).unwrap();
    let found = target.log_density_and_gradient(&off).unwrap();
    assert!(found.log_density[0].is_finite());
    assert_eq!(found.log_density[1], f64::NEG_INFINITY);
    assert!(found.gradients[size..].iter().all(|g| *g == 0.0));
    assert!(found.gradients[..size].iter().any(|g| *g != 0.0));
    // All atoms on one point.
    let target = MolecularTarget::new(cartesian, &built.system, KT).unwrap();
    let point = vec![0.0; target.state_size()];
    let found = target.log_density_and_gradient(&point).unwrap();
    // The force field caps 1/r, so that this is a number, of which no weight is left.
    assert!(found.log_density[0] < -1e30);
    assert!(found.gradients.iter().all(|g| g.is_finite()));
    // Where peptide bonds are fixed, those of another conformation are.
    let backbone = built.topology.backbone();
    let matrix = ZMatrix::build(
        built.system.n_atoms(),
        &built.topology.bonds,
        &built.topology.atomic_numbers(),
    )
    .unwrap();
    let mut q = vec![0.0; matrix.dimension()];
    matrix.to_internal(&built.positions, &mut q).unwrap();
    // Turning every atom about the bond turns the bond over.
    let [_, c, n, _] = backbone.omega[0];
    for (row, q) in matrix.rows.iter().zip(q[3..].chunks_exact_mut(3)) {
        let about = [row.parent, row.angle];
        if (about == [n, c] || about == [c, n]) && row.reference == Reference::Torsion {
            q[2] += std::f64::consts::PI;
        }
    }
    let mut turned = vec![0.0; built.positions.len()];
    matrix.to_cartesian(&q, &mut turned);
    assert!(!same_peptide_bonds(&turned, &built.positions, &backbone));
    let free = MolecularTarget::new(internal.clone(), &built.system, KT).unwrap();
    let fixed = MolecularTarget::new(internal, &built.system, KT)
        .unwrap()
        .with_fixed_peptide_bonds(&turned, &backbone);
    assert!(free.log_density(&states).unwrap()[0].is_finite());
    assert_eq!(fixed.log_density(&states).unwrap(), [f64::NEG_INFINITY]);
    // States of another length, and a chart of another molecule.
    assert!(matches!(
        free.log_density(&states[1..]),
        Err(SamplingError::Length { .. })
    ));
    let other = build_minimised(
        "Ace-G-Nme",
        &ForceField::amber99sbildn_obc2(),
        MinimiseSettings::default(),
    );
    let [chart, _] = both(&built);
    let refused = MolecularTarget::new(chart, &other.unwrap().system, KT)
        .err()
        .unwrap();
    assert!(refused.to_string().contains("22 atoms"), "{refused}");
}
