//! The pairs of one conformation, in three passes as in `nonbonded`.

use super::super::born::{self, Atom, Coefficients, Distance, EXPONENT, Side};
use super::super::nonbonded::direct;
use super::super::parameters::Parameters;
use super::super::split::SplitLanes;
use super::super::vector::V3;
use super::{Atoms, BLOCK, PairBlock, Scratch, part};
use boltzmap_kernels::simd::{Lanes, VirtualSum};

#[inline(always)]
fn put<L: Lanes<Scalar = f64>>(value: L, block: &mut [f64; BLOCK], from: usize) {
    value.store(&mut block[from..from + L::WIDTH]);
}

/// Three coordinates of the partners from `j` on.
#[inline(always)]
fn load<L: Lanes<Scalar = f64>>(x: &[Vec<f64>; 3], j: usize) -> V3<L> {
    V3 {
        x: L::load(&x[0][j..j + L::WIDTH]),
        y: L::load(&x[1][j..j + L::WIDTH]),
        z: L::load(&x[2][j..j + L::WIDTH]),
    }
}

#[inline(always)]
fn splat<L: Lanes<Scalar = f64>>(x: &[Vec<f64>; 3], i: usize) -> V3<L> {
    V3 {
        x: L::splat(x[0][i]),
        y: L::splat(x[1][i]),
        z: L::splat(x[2][i]),
    }
}

#[inline(always)]
fn add<L: Lanes<Scalar = f64>>(to: &mut [f64], value: L) {
    (L::load(to) + value).store(to);
}

/// Distances, and with implicit solvent the Born integrals.
#[inline(always)]
pub(super) fn first_pass<L: Lanes<Scalar = f64>>(
    p: &Parameters<f64>,
    atoms: &Atoms,
    pairs: &[PairBlock],
    scratch: &mut Scratch,
) {
    let n = p.n_atoms;
    for value in &mut scratch.radius {
        *value = 0.0;
    }
    let (smallest, largest) = (L::constant(p.smallest_squared_distance), L::constant(1e24));
    let one = L::constant(1.0);
    let mut at = 0;
    for i in 0..n {
        let xi = splat::<L>(&scratch.x, i);
        let mut sum = VirtualSum::<L>::default();
        for block in (i + 1) / BLOCK..n.div_ceil(BLOCK) {
            let (pair, state) = (&pairs[at], &mut scratch.states[at]);
            at += 1;
            for number in 0..VirtualSum::<L>::PARTS {
                let from = number * L::WIDTH;
                let j = BLOCK * block + from;
                let difference = xi.minus(load(&scratch.x, j));
                let reach: L = part(&pair.reach, from);
                let squared = largest.min(smallest.max(difference.dot(difference)));
                // A lane that is no partner stands harmlessly apart.
                let squared = L::select(reach.lt(L::zero()), one, squared);
                let inverse = squared.rsqrt();
                put(squared, &mut state.squared, from);
                put(inverse, &mut state.inverse, from);
                let Some(born) = &p.born else {
                    continue;
                };
                let d = Distance {
                    r: squared * inverse,
                    inverse,
                    inverse_squared: inverse * inverse,
                };
                let side_i = Side {
                    offset: L::splat(atoms.offset[i]),
                    inverse_offset: L::splat(atoms.inverse_offset[i]),
                    sphere: L::load(&atoms.sphere[j..]),
                };
                let side_j = Side {
                    offset: L::load(&atoms.offset[j..]),
                    inverse_offset: L::load(&atoms.inverse_offset[j..]),
                    sphere: L::splat(atoms.sphere[i]),
                };
                let (mut on_i, mut slope_i) = born::integral(d, side_i);
                let (mut on_j, mut slope_j) = born::integral(d, side_j);
                let close = d.r.lt(L::constant(born.general_below));
                if L::mask_any(close) {
                    let general = born::general_integral(d, side_i, born.engulfed_term);
                    on_i = L::select(close, general.0, on_i);
                    slope_i = L::select(close, general.1, slope_i);
                    let general = born::general_integral(d, side_j, born.engulfed_term);
                    on_j = L::select(close, general.0, on_j);
                    slope_j = L::select(close, general.1, slope_j);
                }
                let inside = squared.le(reach);
                let zero = L::zero();
                sum.add(number, L::select(inside, on_i, zero));
                add(
                    &mut scratch.radius[j..j + L::WIDTH],
                    L::select(inside, on_j, zero),
                );
                put(L::select(inside, slope_i, zero), &mut state.slope_i, from);
                put(L::select(inside, slope_j, zero), &mut state.slope_j, from);
            }
        }
        scratch.radius[i] += sum.total();
    }
}

/// Born radii from the integrals; self and surface energy with their ∂E/∂B.
#[inline(always)]
pub(super) fn born_radii<L: Lanes<Scalar = f64>>(
    p: &Parameters<f64>,
    atoms: &Atoms,
    scratch: &mut Scratch,
) -> f64 {
    let Some(born) = &p.born else {
        return 0.0;
    };
    let coefficients = Coefficients::<L>::new(born);
    let mut energy = VirtualSum::<L>::default();
    for block in 0..p.n_atoms.div_ceil(BLOCK) {
        for number in 0..VirtualSum::<L>::PARTS {
            let j = BLOCK * block + number * L::WIDTH;
            let lanes = j..j + L::WIDTH;
            let atom = Atom {
                offset_radius: L::load(&atoms.offset[lanes.clone()]),
                inverse_difference: L::load(&atoms.inverse_difference[lanes.clone()]),
                inverse_radius: L::load(&atoms.inverse_radius[lanes.clone()]),
                self_charge: L::load(&atoms.self_charge[lanes.clone()]),
                surface: L::load(&atoms.surface[lanes.clone()]),
            };
            let result = born::radius(coefficients, atom, L::load(&scratch.radius[lanes.clone()]));
            energy.add(number, result.energy);
            result.radius.store(&mut scratch.radius[lanes.clone()]);
            result
                .inverse
                .store(&mut scratch.inverse_radius[lanes.clone()]);
            (result.force + result.force).store(&mut scratch.force[lanes.clone()]);
            result.slope.store(&mut scratch.slope[lanes]);
        }
    }
    energy.total()
}

/// Pair energies (nonbonded, Born); leaves (dE/dr)/r in `inverse`'s place.
#[inline(always)]
pub(super) fn second_pass<L: Lanes<Scalar = f64>, const CUTOFF: bool>(
    p: &Parameters<f64>,
    pairs: &[PairBlock],
    scratch: &mut Scratch,
) -> (f64, f64) {
    let n = p.n_atoms;
    let zero = L::zero();
    let inverse_cutoff = L::constant(p.cutoff.map_or(0.0, f64::recip));
    let (mut nonbonded, mut polar) = (VirtualSum::<L>::default(), VirtualSum::<L>::default());
    let mut at = 0;
    for i in 0..n {
        let radius_i = L::splat(scratch.radius[i]);
        let scale_i = L::splat(EXPONENT * scratch.inverse_radius[i]);
        let mut force_i = VirtualSum::<L>::default();
        for block in (i + 1) / BLOCK..n.div_ceil(BLOCK) {
            let (pair, state) = (&pairs[at], &mut scratch.states[at]);
            at += 1;
            for number in 0..VirtualSum::<L>::PARTS {
                let from = number * L::WIDTH;
                let j = BLOCK * block + from;
                let squared: L = part(&state.squared, from);
                let (mut energy, mut gradient) = direct::<L, true>(
                    SplitLanes::exact(part(&pair.charge, from)),
                    part(&pair.repulsion, from),
                    part(&pair.attraction, from),
                    part(&state.inverse, from),
                );
                if CUTOFF {
                    let inside = squared.le(part(&pair.direct_reach, from));
                    energy = L::select(inside, energy - part(&pair.shift, from), zero);
                    gradient = L::select(inside, gradient, zero);
                }
                nonbonded.add(number, energy);
                if p.born.is_some() {
                    let mut charge: L = part(&pair.born_charge, from);
                    if CUTOFF {
                        charge = L::select(squared.le(part(&pair.reach, from)), charge, zero);
                    }
                    let lanes = j..j + L::WIDTH;
                    let radius_j = L::load(&scratch.radius[lanes.clone()]);
                    let inverse_j = L::load(&scratch.inverse_radius[lanes.clone()]);
                    let exponent = squared * (scale_i * inverse_j);
                    let pair = born::polar(
                        squared,
                        exponent,
                        radius_i * radius_j,
                        SplitLanes::exact(charge),
                    );
                    let mut energy = pair.energy;
                    if CUTOFF {
                        energy = charge.neg_mul_add(inverse_cutoff, energy);
                    }
                    polar.add(number, energy);
                    gradient = gradient + pair.gradient;
                    force_i.add_product(number, pair.common, radius_j);
                    add(&mut scratch.force[lanes], pair.common * radius_i);
                }
                put(gradient, &mut state.inverse, from);
            }
        }
        scratch.force[i] += force_i.total();
    }
    (nonbonded.total(), -polar.total())
}

/// Pair forces, with the chain rule through the Born radii.
#[inline(always)]
pub(super) fn third_pass<L: Lanes<Scalar = f64>>(p: &Parameters<f64>, scratch: &mut Scratch) {
    let n = p.n_atoms;
    for (slope, force) in scratch.slope.iter_mut().zip(&scratch.force) {
        *slope *= 0.5 * force;
    }
    let born = p.born.is_some();
    let mut at = 0;
    for i in 0..n {
        let xi = splat::<L>(&scratch.x, i);
        let chain_i = L::splat(scratch.slope[i]);
        let mut total = [VirtualSum::<L>::default(); 3];
        for block in (i + 1) / BLOCK..n.div_ceil(BLOCK) {
            let state = &scratch.states[at];
            at += 1;
            for number in 0..VirtualSum::<L>::PARTS {
                let from = number * L::WIDTH;
                let j = BLOCK * block + from;
                let mut gradient: L = part(&state.inverse, from);
                if born {
                    let chain_j = L::load(&scratch.slope[j..j + L::WIDTH]);
                    gradient = chain_i.mul_add(
                        part(&state.slope_i, from),
                        chain_j.mul_add(part(&state.slope_j, from), gradient),
                    );
                }
                let g = xi.minus(load(&scratch.x, j)).times(gradient);
                for (axis, g) in [g.x, g.y, g.z].into_iter().enumerate() {
                    total[axis].add(number, g);
                    add(&mut scratch.f[axis][j..j + L::WIDTH], g);
                }
            }
        }
        for axis in 0..3 {
            scratch.f[axis][i] -= total[axis].total();
        }
    }
}
