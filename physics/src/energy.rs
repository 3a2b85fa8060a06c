//! Reference energies and forces of a [`System`] in f64: the plain sum over the terms.

use crate::system::System;
use crate::terms::nonbonded::{Pair, combine_epsilon, combine_sigma};
use crate::terms::{angle, bond, generalized_born, nonbonded, torsion};

/// Energy of one conformation by term, kJ/mol.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Energies {
    /// Bond stretching.
    pub bond: f64,
    /// Angle bending.
    pub angle: f64,
    /// Proper and improper torsions.
    pub torsion: f64,
    /// Coulomb and Lennard-Jones, pairs three bonds apart included.
    pub nonbonded: f64,
    /// Generalised Born polarisation and surface term.
    pub generalized_born: f64,
}

impl Energies {
    /// The potential energy, kJ/mol.
    pub fn total(&self) -> f64 {
        self.bond + self.angle + self.torsion + self.nonbonded + self.generalized_born
    }
}

/// Energies of one conformation; `positions` are the 3·atoms coordinates in nm, atom by atom.
///
/// # Panics
/// If the number of coordinates is not three times that of the atoms.
pub fn energy_reference(system: &System, positions: &[f64]) -> Energies {
    energy_forces_reference(system, positions).0
}

/// Energies of one conformation and the forces on its atoms (kJ/mol/nm, laid out like the positions).
///
/// Where atoms coincide, terms of both signs are infinite and directions undefined: such an energy counts as +∞, such a force component
/// as zero.
///
/// # Panics
/// If the number of coordinates is not three times that of the atoms.
pub fn energy_forces_reference(system: &System, positions: &[f64]) -> (Energies, Vec<f64>) {
    let n = system.n_atoms();
    assert_eq!(
        positions.len(),
        3 * n,
        "positions of a system of {n} atoms must hold {} coordinates",
        3 * n
    );
    let x = positions.as_chunks::<3>().0;
    let mut energies = Energies::default();
    let mut forces = vec![[0.0; 3]; n];
    for term in &system.bonds {
        let (energy, term_forces) = bond::energy_forces(term, term.atoms.map(|atom| x[atom]));
        energies.bond += energy;
        accumulate(&mut forces, &term.atoms, &term_forces);
    }
    for term in &system.angles {
        let (energy, term_forces) = angle::energy_forces(term, term.atoms.map(|atom| x[atom]));
        energies.angle += energy;
        accumulate(&mut forces, &term.atoms, &term_forces);
    }
    for term in &system.torsions {
        let (energy, term_forces) = torsion::energy_forces(term, term.atoms.map(|atom| x[atom]));
        energies.torsion += energy;
        accumulate(&mut forces, &term.atoms, &term_forces);
    }
    for (atoms, pair, cutoff) in nonbonded_pairs(system) {
        let difference = crate::terms::vector::distance(x[atoms[0]], x[atoms[1]]);
        if cutoff.is_none_or(|cutoff| difference <= cutoff) {
            let (energy, pair_forces) = nonbonded::energy_forces(&pair, atoms.map(|atom| x[atom]));
            energies.nonbonded += energy;
            accumulate(&mut forces, &atoms, &pair_forces);
        }
    }
    if let Some(model) = &system.generalized_born {
        energies.generalized_born =
            generalized_born::energy_forces(model, &system.charges, system.cutoff, x, &mut forces);
    }
    for energy in [
        &mut energies.bond,
        &mut energies.angle,
        &mut energies.torsion,
        &mut energies.nonbonded,
        &mut energies.generalized_born,
    ] {
        if energy.is_nan() || *energy == f64::NEG_INFINITY {
            *energy = f64::INFINITY;
        }
    }
    let mut forces = forces.concat();
    for force in &mut forces {
        if force.is_nan() {
            *force = 0.0;
        }
    }
    (energies, forces)
}

fn accumulate(forces: &mut [[f64; 3]], atoms: &[usize], term_forces: &[[f64; 3]]) {
    for (&atom, force) in atoms.iter().zip(term_forces) {
        for axis in 0..3 {
            forces[atom][axis] += force[axis];
        }
    }
}

/// Every pair that interacts directly, with its parameters and the cutoff it obeys: first all pairs more than three bonds apart
/// in index order, then those exactly three bonds apart.
pub fn nonbonded_pairs(system: &System) -> Vec<([usize; 2], Pair, Option<f64>)> {
    let n = system.n_atoms();
    let mut apart = vec![true; n * n];
    for &[i, j] in system
        .excluded
        .iter()
        .chain(system.pairs14.iter().map(|pair| &pair.atoms))
    {
        apart[i * n + j] = false;
    }
    let shift = system.cutoff.map_or(0.0, |cutoff| 1.0 / cutoff);
    let mut pairs = Vec::new();
    for i in 0..n {
        for j in i + 1..n {
            if apart[i * n + j] {
                let pair = Pair {
                    charge_product: system.charges[i] * system.charges[j],
                    sigma: combine_sigma(system.sigma[i], system.sigma[j]),
                    epsilon: combine_epsilon(system.epsilon[i], system.epsilon[j]),
                    shift,
                };
                pairs.push(([i, j], pair, system.cutoff));
            }
        }
    }
    pairs.extend(system.pairs14.iter().map(|pair14| {
        let pair = Pair {
            charge_product: pair14.charge_product,
            sigma: pair14.sigma,
            epsilon: pair14.epsilon,
            shift: 0.0,
        };
        (pair14.atoms, pair, None)
    }));
    pairs
}
