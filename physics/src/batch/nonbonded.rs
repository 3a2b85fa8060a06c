//! Pair interactions of one tile: Coulomb, Lennard-Jones and generalised Born (OBC), in three passes over the pairs.
//!
//! 1. Born integrals I_i, and their derivatives (dI/dr)/r kept per pair;
//! 2. Coulomb, Lennard-Jones and the Born pair energy with ∂E/∂B_i; (dE/dr)/r at fixed Born radii kept per pair;
//! 3. the chain rule through the Born radii, and all pair forces at once.
//!
//! What one pass leaves for the next is four vectors per pair. Energies and Born integrals are summed in blocks, and the blocks with their
//! rounding errors kept, so that single precision does not lose the digits of large sums.

use super::born::{self, Atom, Coefficients, Distance, EXPONENT, Side};
use super::parameters::{Born, BornAtom, PairKind, Parameters};
use super::split::SplitLanes;
use super::sum::{BLOCK, BlockSum, CompensatedSum};
use super::vector::V3;
use boltzmap_kernels::simd::Lanes;

/// What the passes hand on for one pair i < j.
#[derive(Clone, Copy)]
pub(super) struct PairState<L> {
    /// r²
    squared: L,
    /// 1/r, then (dE/dr)/r.
    inverse: L,
    /// (dI_i/dr)/r
    slope_i: L,
    /// (dI_j/dr)/r
    slope_j: L,
}

/// Scratch of the pair passes.
pub(super) struct PairScratch<L> {
    pairs: Vec<PairState<L>>,
    /// Sums towards I_i since the last block of rows ended; then B_i.
    radius: Vec<L>,
    /// I_i over the blocks of rows before.
    integral: Vec<CompensatedSum<L>>,
    /// 1/B_i
    inverse_radius: Vec<L>,
    /// dB_i/dI_i, then ∂E/∂B_i dB_i/dI_i.
    slope: Vec<L>,
    /// 2 ∂E/∂B_i
    force: Vec<L>,
}

impl<L: Lanes> PairScratch<L> {
    pub(super) fn new(n_atoms: usize) -> Self {
        let zero = L::zero();
        let empty = PairState {
            squared: zero,
            inverse: zero,
            slope_i: zero,
            slope_j: zero,
        };
        Self {
            pairs: vec![empty; n_atoms * n_atoms.saturating_sub(1) / 2],
            radius: vec![zero; n_atoms],
            integral: vec![CompensatedSum::zero(); n_atoms],
            inverse_radius: vec![zero; n_atoms],
            slope: vec![zero; n_atoms],
            force: vec![zero; n_atoms],
        }
    }
}

/// The constants every pass needs.
struct Limits<L> {
    squared_cutoff: L,
    inverse_cutoff: L,
    smallest: L,
    largest: L,
    /// Below this distance Born integrals take their general form.
    general_below: L,
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
        scratch.integral[i] = CompensatedSum::zero();
    }
    let mut at = 0;
    for i in 0..n {
        if i % BLOCK == 0 {
            end_block(scratch, i);
        }
        let xi = V3::load(x, i);
        let count = n - 1 - i;
        let row = &mut scratch.pairs[at..at + count];
        at += count;
        let others = &x[3 * (i + 1)..3 * (i + 1) + 3 * count];
        let Some(born) = &p.born else {
            for (k, state) in row.iter_mut().enumerate() {
                (state.squared, state.inverse) = distance(limits, xi, V3::load(others, k));
            }
            continue;
        };
        let integrals = &mut scratch.radius[i..i + 1 + count];
        let atoms = &born.atoms[i..i + 1 + count];
        let ai = &atoms[0];
        let mut sum = BlockSum::zero();
        sum.block = integrals[0];
        for (k, state) in row.iter_mut().enumerate() {
            let (squared, inverse) = distance(limits, xi, V3::load(others, k));
            let aj = &atoms[k + 1];
            let d = Distance {
                r: squared * inverse,
                inverse,
                inverse_squared: inverse * inverse,
            };
            let (side_i, side_j) = (side::<L>(ai, aj), side::<L>(aj, ai));
            let (mut on_i, mut slope_i) = born::integral(d, side_i);
            let (mut on_j, mut slope_j) = born::integral(d, side_j);
            let close = d.r.lt(limits.general_below);
            if L::mask_any(close) {
                let general = born::general_integral(d, side_i, born.engulfed_term);
                on_i = L::select(close, general.0, on_i);
                slope_i = L::select(close, general.1, slope_i);
                let general = born::general_integral(d, side_j, born.engulfed_term);
                on_j = L::select(close, general.0, on_j);
                slope_j = L::select(close, general.1, slope_j);
            }
            if CUTOFF {
                let inside = squared.le(limits.squared_cutoff);
                on_i = L::select(inside, on_i, L::zero());
                on_j = L::select(inside, on_j, L::zero());
                slope_i = L::select(inside, slope_i, L::zero());
                slope_j = L::select(inside, slope_j, L::zero());
            }
            sum.block = sum.block + on_i;
            if k % BLOCK == BLOCK - 1 {
                sum.flush();
            }
            integrals[k + 1] = integrals[k + 1] + on_j;
            *state = PairState {
                squared,
                inverse,
                slope_i,
                slope_j,
            };
        }
        // Nothing is added to atom i from here on.
        integrals[0] = L::zero();
        scratch.integral[i].add(sum.total());
    }
    end_block(scratch, 0);
}

/// Moves what the last rows have added to the atoms from `first` on to their sums.
#[inline(always)]
fn end_block<L: Lanes>(scratch: &mut PairScratch<L>, first: usize) {
    for (sum, part) in scratch.integral[first..]
        .iter_mut()
        .zip(&mut scratch.radius[first..])
    {
        sum.add(*part);
        *part = L::zero();
    }
}

/// (r², 1/r), written so that "not a number" stays one.
#[inline(always)]
fn distance<L: Lanes>(limits: &Limits<L>, a: V3<L>, b: V3<L>) -> (L, L) {
    let d = a.minus(b);
    let squared = limits.largest.min(limits.smallest.max(d.dot(d)));
    (squared, squared.rsqrt())
}

#[inline(always)]
fn side<L: Lanes>(i: &BornAtom<L::Scalar>, j: &BornAtom<L::Scalar>) -> Side<L> {
    Side {
        offset: L::splat(i.offset_radius),
        inverse_offset: L::splat(i.inverse_offset_radius),
        sphere: L::splat(j.scaled_radius),
    }
}

/// Born radii from the integrals; self and surface energy with their ∂E/∂B.
#[inline(always)]
fn born_radii<L: Lanes>(born: &Born<L::Scalar>, scratch: &mut PairScratch<L>) -> L {
    let coefficients = Coefficients::new(born);
    let mut energy = CompensatedSum::zero();
    for (i, atom) in born.atoms.iter().enumerate() {
        let atom = Atom {
            offset_radius: L::splat(atom.offset_radius),
            inverse_difference: L::splat(atom.inverse_difference),
            inverse_radius: L::splat(atom.inverse_radius),
            self_charge: L::splat(atom.self_charge),
            surface: L::splat(atom.surface),
        };
        let result = born::radius(coefficients, atom, scratch.integral[i].total());
        energy.add(result.energy);
        scratch.radius[i] = result.radius;
        scratch.inverse_radius[i] = result.inverse;
        scratch.force[i] = result.force + result.force;
        scratch.slope[i] = result.slope;
    }
    energy.total()
}

/// Pair energies (nonbonded, Born) of all rows; leaves (dE/dr)/r in `inverse`'s place.
#[inline(always)]
fn second_pass<L: Lanes, const FORCES: bool, const CUTOFF: bool>(
    p: &Parameters<L::Scalar>,
    limits: &Limits<L>,
    scratch: &mut PairScratch<L>,
) -> (L, L) {
    let n = p.n_atoms;
    let zero = L::zero();
    let born = p.born.is_some();
    let (mut nonbonded, mut polar) = (CompensatedSum::zero(), CompensatedSum::zero());
    let mut at = 0;
    for i in 0..n {
        let count = n - 1 - i;
        let states = &mut scratch.pairs[at..at + count];
        let pairs = &p.pairs[at..at + count];
        at += count;
        let radii = &scratch.radius[i..i + 1 + count];
        let inverse_radii = &scratch.inverse_radius[i..i + 1 + count];
        let forces = &mut scratch.force[i..i + 1 + count];
        let radius_i = radii[0];
        let scale_i = L::constant(EXPONENT) * inverse_radii[0];
        let mut force_i = forces[0];
        let (mut row_nonbonded, mut row_polar) = (zero, zero);
        // Rows are cut into blocks as well.
        for (k, state) in states.iter_mut().enumerate() {
            let pair = &pairs[k];
            let (squared, inverse) = (state.squared, state.inverse);
            let mut gradient = zero;
            if pair.kind != PairKind::Excluded {
                let (energy, pull) = direct::<L, FORCES>(
                    SplitLanes::splat(pair.charge),
                    L::splat(pair.repulsion),
                    L::splat(pair.attraction),
                    inverse,
                );
                if CUTOFF && pair.kind == PairKind::Direct {
                    let inside = squared.le(limits.squared_cutoff);
                    let shifted =
                        L::splat(pair.charge.value).neg_mul_add(limits.inverse_cutoff, energy);
                    row_nonbonded = row_nonbonded + L::select(inside, shifted, zero);
                    gradient = L::select(inside, pull, zero);
                } else {
                    row_nonbonded = row_nonbonded + energy;
                    gradient = pull;
                }
            }
            if born {
                let mut charge = SplitLanes::splat(pair.born_charge);
                if CUTOFF {
                    charge = charge.only(squared.le(limits.squared_cutoff));
                }
                let exponent = squared * (scale_i * inverse_radii[k + 1]);
                let pair = born::polar(squared, exponent, radius_i * radii[k + 1], charge);
                row_polar = row_polar + pair.energy;
                if CUTOFF {
                    row_polar = charge.value.neg_mul_add(limits.inverse_cutoff, row_polar);
                }
                if FORCES {
                    gradient = gradient + pair.gradient;
                    force_i = pair.common.mul_add(radii[k + 1], force_i);
                    forces[k + 1] = pair.common.mul_add(radius_i, forces[k + 1]);
                }
            }
            if FORCES {
                state.inverse = gradient;
            }
            if k % BLOCK == BLOCK - 1 {
                nonbonded.add(row_nonbonded);
                polar.add(row_polar);
                (row_nonbonded, row_polar) = (zero, zero);
            }
        }
        forces[0] = force_i;
        nonbonded.add(row_nonbonded);
        polar.add(row_polar);
    }
    (nonbonded.total(), zero - polar.total())
}

/// `charge`/r + 4ε((σ/r)¹²−(σ/r)⁶) and its (dE/dr)/r, with `repulsion` 4εσ¹² and `attraction` 4εσ⁶.
#[inline(always)]
pub(super) fn direct<L: Lanes, const FORCES: bool>(
    charge: SplitLanes<L>,
    repulsion: L,
    attraction: L,
    inverse_r: L,
) -> (L, L) {
    let inverse_r2 = inverse_r * inverse_r;
    let coulomb = charge.times(inverse_r);
    let inverse_r6 = inverse_r2 * inverse_r2 * inverse_r2;
    let repulsion = repulsion * inverse_r6;
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

/// Pair forces, with the chain rule through the Born radii. Rows are taken last first: those of large molecules are then still in cache.
#[inline(always)]
fn third_pass<L: Lanes>(
    p: &Parameters<L::Scalar>,
    x: &[L],
    f: &mut [L],
    scratch: &mut PairScratch<L>,
) {
    let n = p.n_atoms;
    let born = p.born.is_some();
    if born {
        for i in 0..n {
            scratch.slope[i] = scratch.slope[i] * (L::constant(0.5) * scratch.force[i]);
        }
    }
    let mut at = scratch.pairs.len();
    for i in (0..n).rev() {
        let count = n - 1 - i;
        at -= count;
        let row = &scratch.pairs[at..at + count];
        let xi = V3::load(x, i);
        let others = &x[3 * (i + 1)..3 * (i + 1) + 3 * count];
        let forces = &mut f[3 * i..3 * i + 3 * (count + 1)];
        let chains = &scratch.slope[i..i + 1 + count];
        let chain_i = chains[0];
        let mut total = V3 {
            x: L::zero(),
            y: L::zero(),
            z: L::zero(),
        };
        for (k, state) in row.iter().enumerate() {
            let mut gradient = state.inverse;
            if born {
                gradient = chain_i.mul_add(
                    state.slope_i,
                    chains[k + 1].mul_add(state.slope_j, gradient),
                );
            }
            let g = xi.minus(V3::load(others, k)).times(gradient);
            total = total.plus(g);
            g.add_to(forces, k + 1);
        }
        total.subtract_from(forces, 0);
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
        squared_cutoff: cutoff * cutoff,
        inverse_cutoff: cutoff.reciprocal(),
        smallest: L::splat(p.smallest_squared_distance),
        largest: L::constant(1e24),
        general_below: p
            .born
            .as_ref()
            .map_or(L::zero(), |born| L::splat(born.general_below)),
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
