//! Generalised Born implicit solvent of Onufriev, Bashford and Case (Proteins 55, 383, 2004), with the surface term.
//!
//! With o_i = R_i − 0.009 nm and s_j = S_j o_j, over all ordered pairs, bonded ones included (r ≤ r_c with a cutoff):
//!
//! I_i = Σ_j ½[1/L − 1/U + (r − s_j²/r)(1/U² − 1/L²)/4 + ln(L/U)/(2r)] if U > o_i, where U = r + s_j, L = max(o_i, |r − s_j|);
//! ψ = I o; B = 1/(1/o − tanh(αψ − βψ² + γψ³)/R);
//!
//! E = −½τ Σ q_i²/B_i − τ Σ_{i<j} q_i q_j [1/f − 1/r_c (with a cutoff)] + Σ c (R_i + 0.14)² (R_i/B_i)⁶,
//! f = √(r² + B_i B_j exp(−r²/(4 B_i B_j))), τ = K'(1 − 1/ε_w).
//!
//! The trap: the models that OpenMM ships differ in constants and in one term, see [`BornConstants`].

use super::Scalar;
use super::vector::{distance, subtract};
use crate::system::{BornModel, COULOMB_CONSTANT, GeneralizedBorn};

/// What is taken off the radius R_i to give o_i, nm.
pub const RADIUS_OFFSET: f64 = 0.009;
/// Radius of the solvent probe in the surface term, nm.
pub const PROBE_RADIUS: f64 = 0.14;

/// The numbers in which the models differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BornConstants {
    /// α
    pub alpha: f64,
    /// β
    pub beta: f64,
    /// γ
    pub gamma: f64,
    /// τ = K'(1 − 1/ε_w), kJ nm mol⁻¹ e⁻², the solute's dielectric constant being 1
    pub tau: f64,
    /// c, kJ mol⁻¹ nm⁻²
    pub surface: f64,
    /// Whether an atom engulfed by another (o_i < s_j − r) gains 1/o_i − 1/L in the bracket.
    pub engulfed_term: bool,
}

impl BornModel {
    /// The model's constants.
    pub fn constants(self) -> BornConstants {
        // OpenMM's data-driven models round Coulomb's constant, its native one does not.
        const ROUNDED_COULOMB: f64 = 138.935485;
        let data_driven = BornConstants {
            alpha: 1.0,
            beta: 0.8,
            gamma: 4.85,
            tau: ROUNDED_COULOMB * (1.0 - 1.0 / 78.5),
            surface: 28.3919551,
            engulfed_term: false,
        };
        match self {
            BornModel::Amber99Obc => BornConstants {
                tau: COULOMB_CONSTANT * (1.0 - 1.0 / 78.3),
                surface: 4.0 * std::f64::consts::PI * 2.25936,
                engulfed_term: true,
                ..data_driven
            },
            BornModel::Obc1 => BornConstants {
                alpha: 0.8,
                beta: 0.0,
                gamma: 2.909125,
                ..data_driven
            },
            BornModel::Obc2 => data_driven,
        }
    }
}

/// Energy, kJ/mol, at the positions (nm) of all atoms, whose charges (e) are given.
pub fn energy<S: Scalar>(
    model: &GeneralizedBorn,
    charges: &[f64],
    cutoff: Option<f64>,
    positions: &[[S; 3]],
) -> S {
    let constants = model.model.constants();
    let n = positions.len();
    let number = S::constant;
    let within = |r: S| cutoff.is_none_or(|cutoff| r <= number(cutoff));
    let mut born = Vec::with_capacity(n);
    let mut total = number(0.0);
    for i in 0..n {
        let mut integral = number(0.0);
        for j in (0..n).filter(|&j| j != i) {
            let r = distance(positions[i], positions[j]);
            if within(r) {
                integral = integral + descreening(model, constants.engulfed_term, i, j, r);
            }
        }
        let offset = model.radius[i] - RADIUS_OFFSET;
        let psi = integral * number(offset);
        let argument = psi
            * (number(constants.alpha)
                + psi * (number(-constants.beta) + psi * number(constants.gamma)));
        let radius =
            number(1.0) / (number(1.0 / offset) - argument.tanh() / number(model.radius[i]));
        born.push(radius);
        let ratio = number(model.radius[i]) / radius;
        let cube = ratio * ratio * ratio;
        total = total - number(0.5 * constants.tau * charges[i] * charges[i]) / radius
            + number(constants.surface * (model.radius[i] + PROBE_RADIUS).powi(2)) * cube * cube;
    }
    let shift = cutoff.map_or(0.0, |cutoff| 1.0 / cutoff);
    for i in 0..n {
        for j in i + 1..n {
            let r = distance(positions[i], positions[j]);
            if within(r) {
                let product = born[i] * born[j];
                let squared = r * r + product * (-(r * r) / (number(4.0) * product)).exp();
                total = total
                    - number(constants.tau * charges[i] * charges[j])
                        * (number(1.0) / squared.sqrt() - number(shift));
            }
        }
    }
    total
}

/// What atom j at distance r adds to I_i, nm⁻¹.
fn descreening<S: Scalar>(
    model: &GeneralizedBorn,
    engulfed_term: bool,
    i: usize,
    j: usize,
    r: S,
) -> S {
    let number = S::constant;
    let offset = number(model.radius[i] - RADIUS_OFFSET);
    let s = number(model.scale[j] * (model.radius[j] - RADIUS_OFFSET));
    let upper = r + s;
    if upper <= offset {
        return number(0.0);
    }
    let gap = (r - s).abs();
    let lower = if gap > offset { gap } else { offset };
    let (inverse_upper, inverse_lower) = (number(1.0) / upper, number(1.0) / lower);
    let mut bracket = inverse_lower - inverse_upper
        + number(0.25)
            * (r - s * s / r)
            * (inverse_upper * inverse_upper - inverse_lower * inverse_lower)
        + number(0.5) * (lower * inverse_upper).ln() / r;
    if engulfed_term && offset < s - r {
        bracket = bracket + number(2.0) * (number(1.0) / offset - inverse_lower);
    }
    number(0.5) * bracket
}

/// Energy, and forces (kJ/mol/nm) added to `forces`, which holds one vector per atom.
///
/// By the chain rule: the explicit distance in f, then dE/dB_i · dB_i/dI_i · ∂I_i/∂r for every ordered pair.
pub fn energy_forces(
    model: &GeneralizedBorn,
    charges: &[f64],
    cutoff: Option<f64>,
    positions: &[[f64; 3]],
    forces: &mut [[f64; 3]],
) -> f64 {
    let constants = model.model.constants();
    let n = positions.len();
    let within = |r: f64| cutoff.is_none_or(|cutoff| r <= cutoff);
    let (mut born, mut radius_slope, mut energy_slope) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let mut total = 0.0;
    for i in 0..n {
        let integral: f64 = (0..n)
            .filter(|&j| j != i)
            .map(|j| (j, distance(positions[i], positions[j])))
            .filter(|&(_, r)| within(r))
            .map(|(j, r)| descreening(model, constants.engulfed_term, i, j, r))
            .sum();
        let (radius, charge) = (model.radius[i], charges[i]);
        let offset = radius - RADIUS_OFFSET;
        let psi = integral * offset;
        let tanh =
            (psi * (constants.alpha + psi * (-constants.beta + psi * constants.gamma))).tanh();
        born[i] = 1.0 / (1.0 / offset - tanh / radius);
        radius_slope[i] = born[i] * born[i] / radius
            * (1.0 - tanh * tanh)
            * (constants.alpha - 2.0 * constants.beta * psi + 3.0 * constants.gamma * psi * psi)
            * offset;
        let surface =
            constants.surface * (radius + PROBE_RADIUS).powi(2) * (radius / born[i]).powi(6);
        total += surface - 0.5 * constants.tau * charge * charge / born[i];
        energy_slope[i] +=
            0.5 * constants.tau * charge * charge / (born[i] * born[i]) - 6.0 * surface / born[i];
    }
    let shift = cutoff.map_or(0.0, |cutoff| 1.0 / cutoff);
    for i in 0..n {
        for j in i + 1..n {
            let difference = subtract(positions[i], positions[j]);
            let r = distance(positions[i], positions[j]);
            if !within(r) {
                continue;
            }
            let product = born[i] * born[j];
            let decay = (-r * r / (4.0 * product)).exp();
            let squared = r * r + product * decay;
            let f = squared.sqrt();
            let strength = -constants.tau * charges[i] * charges[j];
            total += strength * (1.0 / f - shift);
            let slope = -strength / (squared * f); // dE/df / f
            energy_slope[i] += 0.5 * slope * decay * (born[j] + r * r / (4.0 * born[i]));
            energy_slope[j] += 0.5 * slope * decay * (born[i] + r * r / (4.0 * born[j]));
            push_apart(forces, i, j, difference, -slope * (1.0 - 0.25 * decay));
        }
    }
    for i in 0..n {
        let slope = energy_slope[i] * radius_slope[i];
        for j in (0..n).filter(|&j| j != i) {
            let r = distance(positions[i], positions[j]);
            if within(r) {
                let derivative = slope * descreening_slope(model, constants.engulfed_term, i, j, r);
                push_apart(
                    forces,
                    i,
                    j,
                    subtract(positions[i], positions[j]),
                    -derivative / r,
                );
            }
        }
    }
    total
}

/// Adds `factor · difference` to the force on i and takes it from the force on j.
fn push_apart(forces: &mut [[f64; 3]], i: usize, j: usize, difference: [f64; 3], factor: f64) {
    for axis in 0..3 {
        forces[i][axis] += factor * difference[axis];
        forces[j][axis] -= factor * difference[axis];
    }
}

/// d([`descreening`])/dr, nm⁻².
fn descreening_slope(
    model: &GeneralizedBorn,
    engulfed_term: bool,
    i: usize,
    j: usize,
    r: f64,
) -> f64 {
    let offset = model.radius[i] - RADIUS_OFFSET;
    let s = model.scale[j] * (model.radius[j] - RADIUS_OFFSET);
    let upper = r + s;
    if upper <= offset {
        return 0.0;
    }
    let gap = (r - s).abs();
    let (lower, lower_slope) = if gap > offset {
        (gap, (r - s).signum())
    } else {
        (offset, 0.0)
    };
    let squares = 1.0 / (upper * upper) - 1.0 / (lower * lower);
    let mut bracket = -lower_slope / (lower * lower)
        + 1.0 / (upper * upper)
        + 0.25 * (1.0 + s * s / (r * r)) * squares
        + 0.25 * (r - s * s / r) * (-2.0 / upper.powi(3) + 2.0 * lower_slope / lower.powi(3))
        + 0.5 * (lower_slope / lower - 1.0 / upper) / r
        - 0.5 * (lower / upper).ln() / (r * r);
    if engulfed_term && offset < s - r {
        bracket += 2.0 * lower_slope / (lower * lower);
    }
    0.5 * bracket
}
