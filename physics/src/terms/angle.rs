//! Harmonic angle bending: E = ½k(θ−θ₀)², θ at the middle atom.

use super::vector::{add, cross, dot, norm, scale, subtract};
use super::{Scalar, vector};
use crate::system::Angle;

/// Energy, kJ/mol, at the positions (nm) of the three atoms.
pub fn energy<S: Scalar>(angle: &Angle, positions: [[S; 3]; 3]) -> S {
    let bend = vector::angle(positions[0], positions[1], positions[2]) - S::constant(angle.angle);
    S::constant(0.5 * angle.force_constant) * bend * bend
}

/// Energy and the force on each of the three atoms, kJ/mol/nm.
///
/// With u, v the vectors from the vertex to the ends, ∂θ/∂x₀ = u×(u×v) / (|u|²|u×v|) and the same with u and v swapped for x₂.
/// At θ = 0 or π the direction is undefined and the force is given as zero, so that it stays finite.
pub fn energy_forces(angle: &Angle, positions: [[f64; 3]; 3]) -> (f64, [[f64; 3]; 3]) {
    let u = subtract(positions[0], positions[1]);
    let v = subtract(positions[2], positions[1]);
    let normal = cross(u, v);
    let sine = norm(normal);
    let value = energy(angle, positions);
    if sine == 0.0 {
        return (value, [[0.0; 3]; 3]);
    }
    let slope = angle.force_constant * (sine.atan2(dot(u, v)) - angle.angle);
    let first = scale(-slope / (dot(u, u) * sine), cross(u, normal));
    let last = scale(slope / (dot(v, v) * sine), cross(v, normal));
    (value, [first, scale(-1.0, add(first, last)), last])
}
