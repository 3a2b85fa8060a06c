//! Periodic torsion: E = k(1+cos(nφ−φ₀)), propers and impropers alike. The trap is the sign of φ: see [`vector::dihedral`].

use super::vector::{cross, dot, norm, scale, subtract};
use super::{Scalar, vector};
use crate::system::Torsion;

/// Energy, kJ/mol, at the positions (nm) of the four atoms.
pub fn energy<S: Scalar>(torsion: &Torsion, positions: [[S; 3]; 4]) -> S {
    let phi = vector::dihedral(positions[0], positions[1], positions[2], positions[3]);
    let argument = S::constant(f64::from(torsion.periodicity)) * phi - S::constant(torsion.phase);
    S::constant(torsion.force_constant) * (S::constant(1.0) + argument.cos())
}

/// Energy and the force on each of the four atoms, kJ/mol/nm.
///
/// With b₁, b₂, b₃ the successive bond vectors, m = b₁×b₂ and n = b₂×b₃: F₀ = E'(φ) |b₂|/m² m, F₃ = −E'(φ) |b₂|/n² n,
/// and the inner two follow from zero net force and torque (Blondel and Karplus, J. Comput. Chem. 17, 1132, 1996).
/// Where three of the atoms are collinear φ is undefined and the force is given as zero, so that it stays finite.
pub fn energy_forces(torsion: &Torsion, positions: [[f64; 3]; 4]) -> (f64, [[f64; 3]; 4]) {
    let b1 = subtract(positions[1], positions[0]);
    let b2 = subtract(positions[2], positions[1]);
    let b3 = subtract(positions[3], positions[2]);
    let (m, n) = (cross(b1, b2), cross(b2, b3));
    let (m_squared, n_squared, length_squared) = (dot(m, m), dot(n, n), dot(b2, b2));
    let value = energy(torsion, positions);
    if m_squared == 0.0 || n_squared == 0.0 {
        return (value, [[0.0; 3]; 4]);
    }
    let length = norm(b2);
    let phi = (dot(b1, n) * length).atan2(dot(m, n));
    let periodicity = f64::from(torsion.periodicity);
    let slope = -torsion.force_constant * periodicity * (periodicity * phi - torsion.phase).sin();
    let first = scale(slope * length / m_squared, m);
    let last = scale(-slope * length / n_squared, n);
    let shift = subtract(
        scale(dot(b1, b2) / length_squared, first),
        scale(dot(b3, b2) / length_squared, last),
    );
    let second = subtract(scale(-1.0, first), shift);
    let third = subtract(shift, last);
    (value, [first, second, third, last])
}
