//! Harmonic bond stretching: E = ½k(r−r₀)². The trap is the ½: AMBER's own files tabulate k/2.

use super::Scalar;
use super::vector::{distance, norm, scale, subtract};
use crate::system::Bond;

/// Energy, kJ/mol, at the positions (nm) of the two atoms.
pub fn energy<S: Scalar>(bond: &Bond, positions: [[S; 3]; 2]) -> S {
    let stretch = distance(positions[0], positions[1]) - S::constant(bond.length);
    S::constant(0.5 * bond.force_constant) * stretch * stretch
}

/// Energy and the force on each of the two atoms, kJ/mol/nm: F₀ = −k(r−r₀)(x₀−x₁)/r.
pub fn energy_forces(bond: &Bond, positions: [[f64; 3]; 2]) -> (f64, [[f64; 3]; 2]) {
    let difference = subtract(positions[0], positions[1]);
    let r = norm(difference);
    let force = scale(-bond.force_constant * (r - bond.length) / r, difference);
    (energy(bond, positions), [force, scale(-1.0, force)])
}
