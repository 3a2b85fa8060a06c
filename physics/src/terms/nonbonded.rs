//! Coulomb and Lennard-Jones interaction of a pair.
//!
//! E = K q_i q_j (1/r − shift) + 4ε((σ/r)¹²−(σ/r)⁶), with K = [`COULOMB_CONSTANT`]. Without a cutoff, and for pairs three bonds
//! apart, shift = 0. With a non-periodic cutoff r_c pairs with r ≤ r_c count and shift = 1/r_c: that is OpenMM's reaction field with
//! dielectric 1, which is what it uses when generalised Born is present; Lennard-Jones is cut off, neither switched nor shifted.

use super::Scalar;
use super::vector::{distance, dot, scale, subtract};
use crate::system::COULOMB_CONSTANT;

/// Parameters of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// q_i q_j, e²
    pub charge_product: f64,
    /// σ, nm
    pub sigma: f64,
    /// ε, kJ/mol
    pub epsilon: f64,
    /// What is subtracted from 1/r, nm⁻¹
    pub shift: f64,
}

/// σ of a pair by the Lorentz rule, nm.
pub fn combine_sigma(sigma_i: f64, sigma_j: f64) -> f64 {
    0.5 * (sigma_i + sigma_j)
}

/// ε of a pair by the Berthelot rule, kJ/mol.
pub fn combine_epsilon(epsilon_i: f64, epsilon_j: f64) -> f64 {
    (epsilon_i * epsilon_j).sqrt()
}

/// Energy, kJ/mol, at the positions (nm) of the two atoms.
pub fn energy<S: Scalar>(pair: &Pair, positions: [[S; 3]; 2]) -> S {
    let inverse = S::constant(1.0) / distance(positions[0], positions[1]);
    let ratio = S::constant(pair.sigma) * inverse;
    let sixth = ratio * ratio * ratio * ratio * ratio * ratio;
    S::constant(COULOMB_CONSTANT * pair.charge_product) * (inverse - S::constant(pair.shift))
        + S::constant(4.0 * pair.epsilon) * sixth * (sixth - S::constant(1.0))
}

/// Energy and the force on each of the two atoms, kJ/mol/nm.
pub fn energy_forces(pair: &Pair, positions: [[f64; 3]; 2]) -> (f64, [[f64; 3]; 2]) {
    let difference = subtract(positions[0], positions[1]);
    let squared = dot(difference, difference);
    let sixth = (pair.sigma * pair.sigma / squared).powi(3);
    let coulomb = COULOMB_CONSTANT * pair.charge_product / squared.sqrt();
    let factor = (coulomb + 4.0 * pair.epsilon * sixth * (12.0 * sixth - 6.0)) / squared;
    let force = scale(factor, difference);
    (energy(pair, positions), [force, scale(-1.0, force)])
}
