//! The pairs of one conformation, in three passes as in `nonbonded`. What the third needs of the first's pairs is kept where it is little,
//! and computed again where keeping it would take longer.
//!
//! An atom, the row, meets a block of partners at a time, one per lane. Every pair is met once, by the atom that comes first in order.

use super::super::born::{self, Atom, Coefficients, Distance, EXPONENT, Side};
use super::super::parameters::Born;
use super::super::vector::V3;
use super::lane_bits::LaneBits;
use super::layout::{Atoms, part};
use super::tasks::Task;
use super::wide_sum::WideSum;
use super::{Blocks, Places};
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{Kernel, Lanes, Simd, VirtualSum};

/// Three coordinates of the partners from `j` on.
#[inline(always)]
fn load<L: Lanes>(x: &[Vec<L::Scalar>; 3], j: usize) -> V3<L> {
    V3 {
        x: part(&x[0], j),
        y: part(&x[1], j),
        z: part(&x[2], j),
    }
}

#[inline(always)]
fn splat<L: Lanes>(x: &[Vec<L::Scalar>; 3], i: usize) -> V3<L> {
    V3 {
        x: L::splat(x[0][i]),
        y: L::splat(x[1][i]),
        z: L::splat(x[2][i]),
    }
}

#[inline(always)]
fn add<L: Lanes>(to: &mut [L::Scalar], j: usize, value: L) {
    let to = &mut to[j..j + L::WIDTH];
    (L::load(to) + value).store(to);
}

/// The lanes, from `from` on, whose bits are set, by [`LaneBits`].
#[inline(always)]
fn lanes_of<L: Lanes>(lane_bits: &LaneBits<L::Scalar>, bits: u32, from: usize) -> L::Mask {
    let one = L::constant(1.0);
    let all = L::splat(lane_bits.with(bits));
    one.lt(all.bit_and(part(&lane_bits.lanes, from)))
}

/// What all pairs share.
struct Limits<L> {
    smallest: L,
    largest: L,
    /// r_c², infinite without a cutoff.
    squared_cutoff: L,
    /// 1/r_c, zero without a cutoff.
    inverse_cutoff: L,
}

impl<L: Lanes> Limits<L> {
    #[inline(always)]
    fn new(of: &Blocks<L::Scalar>) -> Self {
        let p = &of.parameters;
        Self {
            smallest: L::splat(p.smallest_squared_distance),
            largest: L::constant(1e24),
            squared_cutoff: p.cutoff.map_or(L::constant(f64::INFINITY), |cutoff| {
                L::splat(cutoff * cutoff)
            }),
            inverse_cutoff: p
                .cutoff
                .map_or(L::zero(), |cutoff| L::splat(cutoff).reciprocal()),
        }
    }

    /// r²
    #[inline(always)]
    fn squared(&self, difference: V3<L>) -> L {
        self.largest
            .min(self.smallest.max(difference.dot(difference)))
    }
}

/// One atom's share of what a Born integral needs, as the atom whose radius is in question or as the sphere.
#[inline(always)]
fn side_of_row<L: Lanes>(atoms: &Atoms<L::Scalar>, i: usize, j: usize) -> Side<L> {
    Side {
        offset: L::splat(atoms.offset[i]),
        inverse_offset: L::splat(atoms.inverse_offset[i]),
        sphere: part(&atoms.sphere, j),
    }
}

#[inline(always)]
fn side_of_partners<L: Lanes>(atoms: &Atoms<L::Scalar>, i: usize, j: usize) -> Side<L> {
    Side {
        offset: part(&atoms.offset, j),
        inverse_offset: part(&atoms.inverse_offset, j),
        sphere: L::splat(atoms.sphere[i]),
    }
}

/// (I, dI/dr / r) of both sides.
#[inline(always)]
fn integrals<L: Lanes>(
    born: &Born<L::Scalar>,
    (squared, inverse): (L, L),
    side_i: Side<L>,
    side_j: Side<L>,
) -> [(L, L); 2] {
    let d = Distance {
        r: squared * inverse,
        inverse,
        inverse_squared: inverse * inverse,
    };
    let (mut on_i, mut on_j) = (born::integral(d, side_i), born::integral(d, side_j));
    let close = d.r.lt(L::splat(born.general_below));
    if L::mask_any(close) {
        let general = born::general_integral(d, side_i, born.engulfed_term);
        on_i.0 = L::select(close, general.0, on_i.0);
        on_i.1 = L::select(close, general.1, on_i.1);
        let general = born::general_integral(d, side_j, born.engulfed_term);
        on_j.0 = L::select(close, general.0, on_j.0);
        on_j.1 = L::select(close, general.1, on_j.1);
    }
    [on_i, on_j]
}

/// A pass over the pairs of one task.
pub(super) struct Pass<'a, T: Real, const NUMBER: u8> {
    pub(super) of: &'a Blocks<T>,
    pub(super) places: &'a Places<T>,
    pub(super) task: &'a mut Task<T>,
}

impl<T: Real, const NUMBER: u8> Kernel for Pass<'_, T, NUMBER> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        match NUMBER {
            1 => first_pass::<T::Lanes<S>>(self.of, self.places, self.task),
            2 => second_pass::<T::Lanes<S>>(self.of, self.places, self.task),
            _ => third_pass::<T::Lanes<S>>(self.of, self.places, self.task),
        }
    }
}

/// The integrals of the Born radii, into the task's `integral`.
#[inline(always)]
fn first_pass<L: Lanes>(
    of: &Blocks<L::Scalar>,
    places: &Places<L::Scalar>,
    task: &mut Task<L::Scalar>,
) {
    let Some(born) = &of.parameters.born else {
        return;
    };
    let width = L::Scalar::VIRTUAL_WIDTH;
    let limits = Limits::<L>::new(of);
    let (x, atoms) = (&places.x, of.atoms(places));
    let Task {
        lists,
        integral,
        kept,
        ..
    } = task;
    let mut kept = kept.chunks_exact_mut(3 * width);
    for own in 0..lists.own_blocks() {
        let block = lists.block(own);
        for row in 0..of.rows(block) {
            let i = block * width + row;
            let xi = splat::<L>(x, i);
            let mut sum = WideSum::<L>::default();
            for entry in 0..lists.neighbours(own) {
                let neighbour = lists.neighbour(own, entry);
                if neighbour.rows >> row & 1 == 0 {
                    continue;
                }
                let partners = of.partners(block, row, neighbour.block as usize);
                let mut kept = kept.next();
                for number in 0..VirtualSum::<L>::PARTS {
                    let from = number * L::WIDTH;
                    let j = neighbour.block as usize * width + from;
                    let mut squared = limits.squared(xi.minus(load(x, j)));
                    let mut inside = squared.le(limits.squared_cutoff);
                    if partners != of.full {
                        // A lane that is no partner stands harmlessly apart.
                        let partner = lanes_of::<L>(&of.lane_bits, partners, from);
                        squared = L::select(partner, squared, L::constant(1.0));
                        inside = L::mask_and(inside, partner);
                    }
                    let inverse = squared.rsqrt();
                    let [on_i, on_j] = integrals(
                        born,
                        (squared, inverse),
                        side_of_row(atoms, i, j),
                        side_of_partners(atoms, i, j),
                    );
                    sum.sum.add(number, L::select(inside, on_i.0, L::zero()));
                    add(integral, j, L::select(inside, on_j.0, L::zero()));
                    if let Some(kept) = &mut kept {
                        L::select(inside, on_i.1, L::zero()).store(&mut kept[from..]);
                        L::select(inside, on_j.1, L::zero()).store(&mut kept[width + from..]);
                        inverse.store(&mut kept[2 * width + from..]);
                    }
                }
                sum.end_block();
            }
            integral[i] += L::Scalar::from_f64(sum.total());
        }
    }
}

/// Born radii from the integrals; self and surface energy with their ∂E/∂B.
pub(super) struct Radii<'a, T: Real> {
    pub(super) of: &'a Blocks<T>,
    pub(super) places: &'a mut Places<T>,
}

impl<T: Real> Kernel for Radii<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        born_radii::<T::Lanes<S>>(self.of, self.places)
    }
}

#[inline(always)]
fn born_radii<L: Lanes>(of: &Blocks<L::Scalar>, places: &mut Places<L::Scalar>) -> f64 {
    let Some(born) = &of.parameters.born else {
        return 0.0;
    };
    let atoms = match of.parameters.cutoff {
        Some(_) => &places.atoms,
        None => &of.atoms,
    };
    let coefficients = Coefficients::<L>::new(born);
    let mut energy = WideSum::<L>::default();
    for block in 0..of.n_blocks() {
        for number in 0..VirtualSum::<L>::PARTS {
            let j = block * L::Scalar::VIRTUAL_WIDTH + number * L::WIDTH;
            let atom = Atom {
                offset_radius: part(&atoms.offset, j),
                inverse_difference: part(&atoms.inverse_difference, j),
                inverse_radius: part(&atoms.inverse_radius, j),
                self_charge: part(&atoms.self_charge, j),
                surface: part(&atoms.surface, j),
            };
            let result = born::radius(coefficients, atom, part(&places.radius, j));
            energy.sum.add(number, result.energy);
            result.radius.store(&mut places.radius[j..]);
            result.inverse.store(&mut places.inverse_radius[j..]);
            (result.force + result.force).store(&mut places.force[j..]);
            result.slope.store(&mut places.slope[j..]);
        }
        energy.end_block();
    }
    energy.total()
}

/// Pair energies (nonbonded, Born), their forces at fixed Born radii, and with implicit solvent Σ_j 2 ∂E/∂B_i over [`Blocks::born_share`].
#[inline(always)]
fn second_pass<L: Lanes>(
    of: &Blocks<L::Scalar>,
    places: &Places<L::Scalar>,
    task: &mut Task<L::Scalar>,
) {
    let width = L::Scalar::VIRTUAL_WIDTH;
    let (zero, one) = (L::zero(), L::constant(1.0));
    let limits = Limits::<L>::new(of);
    let (x, atoms) = (&places.x, of.atoms(places));
    let born = of.parameters.born.is_some();
    let share = L::constant(of.born_share);
    let Task {
        lists,
        force,
        f,
        kept,
        nonbonded: all_nonbonded,
        polar: all_polar,
        ..
    } = task;
    let mut kept = kept.chunks_exact_mut(3 * width);
    for own in 0..lists.own_blocks() {
        let block = lists.block(own);
        for row in 0..of.rows(block) {
            let i = block * width + row;
            let xi = splat::<L>(x, i);
            let charge_i = atoms.charge.splat::<L>(i);
            let half_sigma = L::splat(atoms.half_sigma[i]);
            let root_epsilon = L::splat(atoms.root_epsilon[i]);
            let radius_i = L::splat(places.radius[i]);
            let scale_i = L::constant(EXPONENT) * L::splat(places.inverse_radius[i]);
            let (mut nonbonded, mut polar) = (WideSum::<L>::default(), WideSum::<L>::default());
            let mut force_i = VirtualSum::<L>::default();
            let mut total = [VirtualSum::<L>::default(); 3];
            let mut exceptions = lists.exceptions(own, row).iter().peekable();
            for entry in 0..lists.neighbours(own) {
                let neighbour = lists.neighbour(own, entry);
                if neighbour.rows >> row & 1 == 0 {
                    continue;
                }
                let partners = of.partners(block, row, neighbour.block as usize);
                let mut directly = partners;
                while let Some(exception) = exceptions.next_if(|e| e.block <= neighbour.block) {
                    if exception.block == neighbour.block {
                        directly &= !exception.lanes;
                    }
                }
                let mut kept = kept.next();
                for number in 0..VirtualSum::<L>::PARTS {
                    let from = number * L::WIDTH;
                    let j = neighbour.block as usize * width + from;
                    let difference = xi.minus(load(x, j));
                    let squared = limits.squared(difference);
                    let inverse = match &kept {
                        Some(kept) => part(kept, 2 * width + from),
                        None => squared.rsqrt(),
                    };
                    let inverse2 = inverse * inverse;
                    let inside = squared.le(limits.squared_cutoff);
                    let mut charge = charge_i.product(atoms.charge.lanes(j));
                    let coulomb = charge.times(inverse);
                    let ratio = (half_sigma + part(&atoms.half_sigma, j)) * inverse;
                    let ratio2 = ratio * ratio;
                    let sixth = ratio2 * ratio2 * ratio2;
                    let depth = root_epsilon * part(&atoms.root_epsilon, j) * sixth;
                    let energy = depth.mul_add(sixth - one, coulomb);
                    let energy = charge.value.neg_mul_add(limits.inverse_cutoff, energy);
                    let steep = L::constant(-12.0).mul_add(sixth, L::constant(6.0));
                    let slope = inverse2 * depth.mul_add(steep, zero - coulomb);
                    let mut direct = inside;
                    if directly != of.full {
                        direct = L::mask_and(inside, lanes_of::<L>(&of.lane_bits, directly, from));
                    }
                    nonbonded.sum.add(number, L::select(direct, energy, zero));
                    let mut gradient = L::select(direct, slope, zero);
                    if born {
                        charge = charge.only(inside);
                        if partners != of.full {
                            charge = charge.only(lanes_of::<L>(&of.lane_bits, partners, from));
                        }
                        let radius_j = part(&places.radius, j);
                        let exponent = squared * (scale_i * part(&places.inverse_radius, j));
                        let pair = born::polar(squared, exponent, radius_i * radius_j, charge);
                        polar.sum.add(
                            number,
                            charge.value.neg_mul_add(limits.inverse_cutoff, pair.energy),
                        );
                        gradient = share.mul_add(pair.gradient, gradient);
                        force_i.add_product(number, pair.common, radius_j);
                        add(force, j, pair.common * radius_i);
                    }
                    if let Some(kept) = &mut kept {
                        gradient.store(&mut kept[2 * width + from..]);
                        continue;
                    }
                    let g = difference.times(gradient);
                    for (axis, g) in [g.x, g.y, g.z].into_iter().enumerate() {
                        total[axis].add(number, g);
                        add(&mut f[axis], j, g);
                    }
                }
                nonbonded.end_block();
                polar.end_block();
            }
            force[i] += force_i.total();
            for axis in 0..3 {
                f[axis][i] -= total[axis].total();
            }
            *all_nonbonded += nonbonded.total();
            *all_polar += polar.total();
        }
    }
}

/// The slopes of both sides of a pair, as the first pass computes them, and nothing of the second pass's, whose forces are added already.
#[inline(always)]
fn slopes<L: Lanes>(
    of: &Blocks<L::Scalar>,
    born: &Born<L::Scalar>,
    limits: &Limits<L>,
    difference: V3<L>,
    partners: u32,
    sides: (Side<L>, Side<L>),
    from: usize,
) -> (L, L, L) {
    let mut squared = limits.squared(difference);
    let mut inside = squared.le(limits.squared_cutoff);
    if partners != of.full {
        let partner = lanes_of::<L>(&of.lane_bits, partners, from);
        squared = L::select(partner, squared, L::constant(1.0));
        inside = L::mask_and(inside, partner);
    }
    let [on_i, on_j] = integrals(born, (squared, squared.rsqrt()), sides.0, sides.1);
    (
        L::select(inside, on_i.1, L::zero()),
        L::select(inside, on_j.1, L::zero()),
        L::zero(),
    )
}

/// The forces through the Born radii; `slope` of the places holds ∂E/∂B_i dB_i/dI_i.
#[inline(always)]
fn third_pass<L: Lanes>(
    of: &Blocks<L::Scalar>,
    places: &Places<L::Scalar>,
    task: &mut Task<L::Scalar>,
) {
    let Some(born) = &of.parameters.born else {
        return;
    };
    let width = L::Scalar::VIRTUAL_WIDTH;
    let limits = Limits::<L>::new(of);
    let (x, atoms) = (&places.x, of.atoms(places));
    let Task { lists, f, kept, .. } = task;
    let mut kept = kept.chunks_exact(3 * width);
    for own in 0..lists.own_blocks() {
        let block = lists.block(own);
        for row in 0..of.rows(block) {
            let i = block * width + row;
            let xi = splat::<L>(x, i);
            let chain_i = L::splat(places.slope[i]);
            let mut total = [VirtualSum::<L>::default(); 3];
            for entry in 0..lists.neighbours(own) {
                let neighbour = lists.neighbour(own, entry);
                if neighbour.rows >> row & 1 == 0 {
                    continue;
                }
                let partners = of.partners(block, row, neighbour.block as usize);
                let kept = kept.next();
                for number in 0..VirtualSum::<L>::PARTS {
                    let from = number * L::WIDTH;
                    let j = neighbour.block as usize * width + from;
                    let difference = xi.minus(load(x, j));
                    let (slope_i, slope_j, before) = match kept {
                        Some(kept) => (
                            part(kept, from),
                            part(kept, width + from),
                            part(kept, 2 * width + from),
                        ),
                        None => {
                            let sides = (side_of_row(atoms, i, j), side_of_partners(atoms, i, j));
                            slopes(of, born, &limits, difference, partners, sides, from)
                        }
                    };
                    let chain_j = part::<L>(&places.slope, j);
                    let gradient = chain_i.mul_add(slope_i, chain_j.mul_add(slope_j, before));
                    let g = difference.times(gradient);
                    for (axis, g) in [g.x, g.y, g.z].into_iter().enumerate() {
                        total[axis].add(number, g);
                        add(&mut f[axis], j, g);
                    }
                }
            }
            for axis in 0..3 {
                f[axis][i] -= total[axis].total();
            }
        }
    }
}
