//! Pair interactions of one tile: Coulomb, Lennard-Jones and generalised Born (OBC), in three passes over the pairs.
//!
//! 1. Born integrals I_i, and their derivatives dI/dr kept per pair;
//! 2. Coulomb, Lennard-Jones and the Born pair energy with ∂E/∂B_i; dE/dr at fixed Born radii kept per pair;
//! 3. the chain rule through the Born radii, and all pair forces at once.
//!
//! What one pass leaves for the next is four vectors per pair, which stay in cache for peptides.

use super::parameters::{Born, BornAtom, Pair, PairKind, Parameters};
use super::vector::V3;
use boltzmap_kernels::math;
use boltzmap_kernels::simd::Lanes;

/// What the passes hand on for one pair i < j.
#[derive(Clone, Copy)]
pub(super) struct PairState<L> {
    r: L,
    inverse_r: L,
    /// dI_i/dr
    slope_i: L,
    /// dI_j/dr
    slope_j: L,
}

/// Scratch of the pair passes.
pub(super) struct PairScratch<L> {
    pairs: Vec<PairState<L>>,
    /// I_i, then B_i.
    radius: Vec<L>,
    /// 1/B_i
    inverse_radius: Vec<L>,
    /// dB_i/dI_i, then ∂E/∂B_i dB_i/dI_i.
    slope: Vec<L>,
    /// ∂E/∂B_i
    force: Vec<L>,
}

impl<L: Lanes> PairScratch<L> {
    pub(super) fn new(n_atoms: usize) -> Self {
        let zero = L::zero();
        let empty = PairState {
            r: zero,
            inverse_r: zero,
            slope_i: zero,
            slope_j: zero,
        };
        Self {
            pairs: vec![empty; n_atoms * n_atoms.saturating_sub(1) / 2],
            radius: vec![zero; n_atoms],
            inverse_radius: vec![zero; n_atoms],
            slope: vec![zero; n_atoms],
            force: vec![zero; n_atoms],
        }
    }
}

/// One side of a pair's Born integral: (I, dI/dr) that atom `j` adds to atom `i`.
///
/// I = ½[1/L − 1/U + (r − s²/r)(1/U² − 1/L²)/4 + ln(L/U)/(2r)], U = r + s, L = max(o, |r − s|), zero where U ≤ o.
/// In dI/dr the derivatives of U and of L = r − s cancel; that of L = s − r (atom i engulfed, o < s − r) leaves 1/L², which
/// the engulfed term 1/o − 1/L of the reference implementation takes away again.
#[inline(always)]
fn born_integral<L: Lanes>(
    r: L,
    inverse_r: L,
    i: &BornAtom<L::Scalar>,
    j: &BornAtom<L::Scalar>,
    engulfed_term: bool,
) -> (L, L) {
    let half = L::constant(0.5);
    let quarter = L::constant(0.25);
    let offset = L::splat(i.offset_radius);
    let s = L::splat(j.scaled_radius);
    let upper = r + s;
    let difference = r - s;
    let lower = offset.max(difference.abs());
    let both = (lower * upper).reciprocal();
    let inverse_lower = both * upper;
    let inverse_upper = both * lower;
    let logarithm = math::ln(lower * inverse_upper);
    let squares = (inverse_upper + inverse_lower) * (inverse_upper - inverse_lower);
    let s_over_r = s * inverse_r;
    let half_log_over_r = half * inverse_r * logarithm;
    let quarter_squares = quarter * squares;
    // r − s²/r
    let reach = s_over_r.neg_mul_add(s, r);
    let bracket = reach.mul_add(
        quarter_squares,
        (inverse_lower - inverse_upper) + half_log_over_r,
    );
    let bracket_slope = s_over_r
        .mul_add(s_over_r, L::constant(1.0))
        .mul_add(quarter_squares, L::zero() - half_log_over_r * inverse_r);
    let mut integral = half * bracket;
    let mut slope = half * bracket_slope;
    let engulfed = offset.lt(s - r);
    if L::mask_any(engulfed) {
        if engulfed_term {
            integral = L::select(
                engulfed,
                integral + (L::splat(i.inverse_offset_radius) - inverse_lower),
                integral,
            );
        } else {
            slope = L::select(engulfed, inverse_lower.mul_add(inverse_lower, slope), slope);
        }
    }
    let reaches = offset.lt(upper);
    (
        L::select(reaches, integral, L::zero()),
        L::select(reaches, slope, L::zero()),
    )
}

/// The constants every pass needs.
struct Limits<L> {
    cutoff: L,
    inverse_cutoff: L,
    smallest: L,
    largest: L,
}

/// Distances, and with implicit solvent the Born radii.
#[inline(always)]
fn first_pass<L: Lanes, const CUTOFF: bool>(
    p: &Parameters<L::Scalar>,
    limits: &Limits<L>,
    x: &[L],
    scratch: &mut PairScratch<L>,
) {
    let n = p.n_atoms;
    for i in 0..n {
        scratch.radius[i] = L::zero();
    }
    let mut at = 0;
    for i in 0..n {
        let xi = V3::load(x, i);
        let row = &mut scratch.pairs[at..at + n - 1 - i];
        at += n - 1 - i;
        let mut integral_i = L::zero();
        for (offset, pair) in row.iter_mut().enumerate() {
            let j = i + 1 + offset;
            let d = xi.minus(V3::load(x, j));
            // Written so that "not a number" stays one.
            let squared = limits.largest.min(limits.smallest.max(d.dot(d)));
            let inverse_r = squared.rsqrt();
            let r = squared * inverse_r;
            pair.r = r;
            pair.inverse_r = inverse_r;
            if let Some(born) = &p.born {
                let (ai, aj) = (&born.atoms[i], &born.atoms[j]);
                let (mut on_i, mut slope_i) =
                    born_integral::<L>(r, inverse_r, ai, aj, born.engulfed_term);
                let (mut on_j, mut slope_j) =
                    born_integral::<L>(r, inverse_r, aj, ai, born.engulfed_term);
                if CUTOFF {
                    let inside = r.le(limits.cutoff);
                    on_i = L::select(inside, on_i, L::zero());
                    on_j = L::select(inside, on_j, L::zero());
                    slope_i = L::select(inside, slope_i, L::zero());
                    slope_j = L::select(inside, slope_j, L::zero());
                }
                integral_i = integral_i + on_i;
                scratch.radius[j] = scratch.radius[j] + on_j;
                pair.slope_i = slope_i;
                pair.slope_j = slope_j;
            }
        }
        scratch.radius[i] = scratch.radius[i] + integral_i;
    }
}

/// Born radii from the integrals; self and surface energy with their ∂E/∂B.
///
/// ψ = I·or, B = 1/(1/or − tanh(αψ − βψ² + γψ³)/R), dB/dI = B²/R (1 − tanh²)(α − 2βψ + 3γψ²) or.
#[inline(always)]
fn born_radii<L: Lanes>(born: &Born<L::Scalar>, scratch: &mut PairScratch<L>) -> L {
    let one = L::constant(1.0);
    let (alpha, beta, gamma) = (
        L::splat(born.alpha),
        L::splat(born.beta),
        L::splat(born.gamma),
    );
    let mut energy = L::zero();
    for (i, atom) in born.atoms.iter().enumerate() {
        let offset_radius = L::splat(atom.offset_radius);
        let inverse_r = L::splat(atom.inverse_radius);
        let psi = scratch.radius[i] * offset_radius;
        let inner = psi * psi.mul_add(psi.mul_add(gamma, L::zero() - beta), alpha);
        let tanh = math::tanh(inner);
        let inverse = tanh.neg_mul_add(inverse_r, L::splat(atom.inverse_offset_radius));
        let radius = inverse.reciprocal();
        let inner_slope = psi.mul_add(
            L::constant(3.0) * gamma * psi - L::constant(2.0) * beta,
            alpha,
        );
        let self_energy = L::splat(atom.self_charge) * inverse;
        let inverse2 = inverse * inverse;
        let surface = L::splat(atom.surface) * (inverse2 * inverse2 * inverse2);
        energy = energy + (surface - self_energy);
        scratch.radius[i] = radius;
        scratch.inverse_radius[i] = inverse;
        scratch.force[i] = inverse * L::constant(6.0).neg_mul_add(surface, self_energy);
        scratch.slope[i] =
            radius * radius * inverse_r * tanh.neg_mul_add(tanh, one) * inner_slope * offset_radius;
    }
    energy
}

/// Pair energies (nonbonded, Born); leaves (dE/dr)/r in `inverse_r`'s place and dI/dr divided by r.
#[inline(always)]
fn second_pass<L: Lanes, const FORCES: bool, const CUTOFF: bool>(
    p: &Parameters<L::Scalar>,
    limits: &Limits<L>,
    scratch: &mut PairScratch<L>,
) -> (L, L) {
    let n = p.n_atoms;
    let zero = L::zero();
    let (mut nonbonded, mut polar) = (zero, zero);
    let mut at = 0;
    for i in 0..n {
        let states = &mut scratch.pairs[at..at + n - 1 - i];
        let parameters = &p.pairs[at..at + n - 1 - i];
        at += n - 1 - i;
        let (radius_i, inverse_i) = (scratch.radius[i], scratch.inverse_radius[i]);
        let mut force_i = zero;
        for (offset, (state, pair)) in states.iter_mut().zip(parameters).enumerate() {
            let j = i + 1 + offset;
            let PairState {
                r,
                inverse_r,
                slope_i,
                slope_j,
            } = *state;
            let inverse_r2 = inverse_r * inverse_r;
            let mut gradient = zero;
            if pair.kind != PairKind::Excluded {
                let (energy, pull) = direct::<L, FORCES>(pair, inverse_r, inverse_r2);
                if CUTOFF && pair.kind == PairKind::Direct {
                    let inside = r.le(limits.cutoff);
                    let shifted = L::splat(pair.charge).neg_mul_add(limits.inverse_cutoff, energy);
                    nonbonded = nonbonded + L::select(inside, shifted, zero);
                    gradient = L::select(inside, pull, zero);
                } else {
                    nonbonded = nonbonded + energy;
                    gradient = pull;
                }
            }
            if p.born.is_some() {
                // E = −c/f, f² = r² + B_iB_j e, e = exp(−r²/(4B_iB_j)).
                let charge = L::splat(pair.born_charge);
                let r2 = r * r;
                let exponent = L::constant(-0.25) * r2 * (inverse_i * scratch.inverse_radius[j]);
                let exponential = math::exp(exponent);
                let f2 = (radius_i * scratch.radius[j]).mul_add(exponential, r2);
                let inverse_f = f2.rsqrt();
                let mut energy = charge * inverse_f;
                let mut cubed = energy * inverse_f * inverse_f;
                if CUTOFF {
                    let inside = r.le(limits.cutoff);
                    energy = L::select(
                        inside,
                        charge.neg_mul_add(limits.inverse_cutoff, energy),
                        zero,
                    );
                    cubed = L::select(inside, cubed, zero);
                }
                polar = polar - energy;
                if FORCES {
                    // (dE/dr)/r = c/f³ (1 − e/4), ∂E/∂B_i = ½ c/f³ e (1 + r²/(4B_iB_j)) B_j.
                    gradient = cubed.mul_add(
                        L::constant(-0.25).mul_add(exponential, L::constant(1.0)),
                        gradient,
                    );
                    let common =
                        L::constant(0.5) * cubed * exponential * (L::constant(1.0) - exponent);
                    force_i = common.mul_add(scratch.radius[j], force_i);
                    scratch.force[j] = common.mul_add(radius_i, scratch.force[j]);
                    state.slope_i = slope_i * inverse_r;
                    state.slope_j = slope_j * inverse_r;
                }
            }
            if FORCES {
                state.inverse_r = gradient;
            }
        }
        scratch.force[i] = scratch.force[i] + force_i;
    }
    (nonbonded, polar)
}

/// K q_i q_j/r + 4ε((σ/r)¹²−(σ/r)⁶) and its (dE/dr)/r.
#[inline(always)]
fn direct<L: Lanes, const FORCES: bool>(
    pair: &Pair<L::Scalar>,
    inverse_r: L,
    inverse_r2: L,
) -> (L, L) {
    let coulomb = L::splat(pair.charge) * inverse_r;
    let inverse_r6 = inverse_r2 * inverse_r2 * inverse_r2;
    let repulsion = L::splat(pair.repulsion) * inverse_r6;
    let attraction = L::splat(pair.attraction);
    let energy = inverse_r6.mul_add(repulsion - attraction, coulomb);
    if !FORCES {
        return (energy, L::zero());
    }
    let steep = L::constant(-12.0).mul_add(repulsion, L::constant(6.0) * attraction);
    (
        energy,
        inverse_r2 * inverse_r6.mul_add(steep, L::zero() - coulomb),
    )
}

/// Pair forces, with the chain rule through the Born radii.
#[inline(always)]
fn third_pass<L: Lanes>(
    p: &Parameters<L::Scalar>,
    x: &[L],
    f: &mut [L],
    scratch: &mut PairScratch<L>,
) {
    let n = p.n_atoms;
    if p.born.is_some() {
        for i in 0..n {
            scratch.slope[i] = scratch.slope[i] * scratch.force[i];
        }
    }
    let mut at = 0;
    for i in 0..n {
        let xi = V3::load(x, i);
        let row = &scratch.pairs[at..at + n - 1 - i];
        at += n - 1 - i;
        let chain_i = scratch.slope[i];
        let mut total = V3 {
            x: L::zero(),
            y: L::zero(),
            z: L::zero(),
        };
        for (offset, state) in row.iter().enumerate() {
            let j = i + 1 + offset;
            let mut gradient = state.inverse_r;
            if p.born.is_some() {
                gradient = chain_i.mul_add(
                    state.slope_i,
                    scratch.slope[j].mul_add(state.slope_j, gradient),
                );
            }
            let g = xi.minus(V3::load(x, j)).times(gradient);
            total = total.plus(g);
            g.add_to(f, j);
        }
        total.subtract_from(f, i);
    }
}

/// Nonbonded and generalised Born energies; forces are added to `f`.
#[inline(always)]
pub(super) fn nonbonded<L: Lanes, const FORCES: bool>(
    p: &Parameters<L::Scalar>,
    x: &[L],
    f: &mut [L],
    scratch: &mut PairScratch<L>,
) -> (L, L) {
    if p.cutoff.is_some() {
        passes::<L, FORCES, true>(p, x, f, scratch)
    } else {
        passes::<L, FORCES, false>(p, x, f, scratch)
    }
}

#[inline(always)]
fn passes<L: Lanes, const FORCES: bool, const CUTOFF: bool>(
    p: &Parameters<L::Scalar>,
    x: &[L],
    f: &mut [L],
    scratch: &mut PairScratch<L>,
) -> (L, L) {
    let cutoff = p.cutoff.map_or(L::constant(1.0), |c| L::splat(c));
    let limits = Limits {
        cutoff,
        inverse_cutoff: cutoff.reciprocal(),
        smallest: L::splat(p.smallest_squared_distance),
        largest: L::constant(1e24),
    };
    first_pass::<L, CUTOFF>(p, &limits, x, scratch);
    let mut gb = L::zero();
    if let Some(born) = &p.born {
        gb = born_radii(born, scratch);
    }
    let (nonbonded, polar) = second_pass::<L, FORCES, CUTOFF>(p, &limits, scratch);
    if FORCES {
        third_pass(p, x, f, scratch);
    }
    (nonbonded, gb + polar)
}
