//! The bonded terms of one conformation and its pairs three bonds apart, one term per lane.

use super::super::bonded::{self, Dihedral, Series};
use super::super::nonbonded::direct;
use super::super::vector::V3;
use super::layout::{ScaledPairs, Terms, Torsions, part};
use super::wide_sum::WideSum;
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{Lanes, VirtualSum};

/// Most lanes of a block.
const WIDEST: usize = 16;

/// The positions of one atom of each term; `x` is `[atoms, 3]`.
#[inline(always)]
fn gather<L: Lanes>(x: &[L::Scalar], atoms: &[u32], from: usize) -> V3<L> {
    let zero = L::Scalar::from_f64(0.0);
    let mut buffers = [[zero; WIDEST]; 3];
    for (lane, &atom) in atoms[from..from + L::WIDTH].iter().enumerate() {
        let at = 3 * atom as usize;
        for axis in 0..3 {
            buffers[axis][lane] = x[at + axis];
        }
    }
    V3 {
        x: L::load(&buffers[0]),
        y: L::load(&buffers[1]),
        z: L::load(&buffers[2]),
    }
}

/// Gradients of a block's terms at each of their N atoms, axis by axis.
type Gradients<T, const N: usize> = [[[T; WIDEST]; 3]; N];

#[inline(always)]
fn put<L: Lanes>(gradient: V3<L>, to: &mut [[L::Scalar; WIDEST]; 3], from: usize) {
    gradient.x.store(&mut to[0][from..]);
    gradient.y.store(&mut to[1][from..]);
    gradient.z.store(&mut to[2][from..]);
}

/// Subtracts the gradients of the terms from `first` on, of one block and below `count`, in an order that does not depend on the width
/// of vectors.
#[inline(always)]
fn scatter<T: Real, const N: usize>(
    gradients: &Gradients<T, N>,
    atoms: &[Vec<u32>; N],
    first: usize,
    count: usize,
    f: &mut [T],
) {
    let end = count.min(first + T::VIRTUAL_WIDTH);
    for (gradients, atoms) in gradients.iter().zip(atoms) {
        for (lane, &atom) in atoms[first..end].iter().enumerate() {
            let at = 3 * atom as usize;
            for axis in 0..3 {
                f[at + axis] -= gradients[axis][lane];
            }
        }
    }
}

#[inline(always)]
pub(super) fn bonds<L: Lanes>(
    terms: &Terms<L::Scalar, 2>,
    x: &[L::Scalar],
    f: &mut [L::Scalar],
) -> f64 {
    let zero = L::Scalar::from_f64(0.0);
    let mut energy = WideSum::<L>::default();
    let mut first = 0;
    while first < terms.count {
        let mut gradients: Gradients<L::Scalar, 2> = [[[zero; WIDEST]; 3]; 2];
        for number in 0..VirtualSum::<L>::PARTS {
            let lane = number * L::WIDTH;
            let from = first + lane;
            let [i, j] = &terms.atoms;
            let d = gather::<L>(x, i, from).minus(gather(x, j, from));
            let (stretching, gradient) =
                bonded::bond(d, terms.rest.lanes(from), part(&terms.force_constant, from));
            energy.sum.add(number, stretching);
            put(gradient, &mut gradients[0], lane);
            put(gradient.times(L::constant(-1.0)), &mut gradients[1], lane);
        }
        energy.end_block();
        scatter(&gradients, &terms.atoms, first, terms.count, f);
        first += L::Scalar::VIRTUAL_WIDTH;
    }
    energy.total()
}

#[inline(always)]
pub(super) fn angles<L: Lanes>(
    terms: &Terms<L::Scalar, 3>,
    x: &[L::Scalar],
    f: &mut [L::Scalar],
) -> f64 {
    let zero = L::Scalar::from_f64(0.0);
    let mut energy = WideSum::<L>::default();
    let mut first = 0;
    while first < terms.count {
        let mut gradients: Gradients<L::Scalar, 3> = [[[zero; WIDEST]; 3]; 3];
        for number in 0..VirtualSum::<L>::PARTS {
            let lane = number * L::WIDTH;
            let from = first + lane;
            let [i, j, k] = &terms.atoms;
            let vertex = gather::<L>(x, j, from);
            let u = gather::<L>(x, i, from).minus(vertex);
            let v = gather::<L>(x, k, from).minus(vertex);
            let (bending, gu, gv) = bonded::angle(
                u,
                v,
                terms.rest.lanes(from),
                part(&terms.force_constant, from),
            );
            energy.sum.add(number, bending);
            put(gu, &mut gradients[0], lane);
            put(
                gu.plus(gv).times(L::constant(-1.0)),
                &mut gradients[1],
                lane,
            );
            put(gv, &mut gradients[2], lane);
        }
        energy.end_block();
        scatter(&gradients, &terms.atoms, first, terms.count, f);
        first += L::Scalar::VIRTUAL_WIDTH;
    }
    energy.total()
}

#[inline(always)]
pub(super) fn torsions<L: Lanes>(
    terms: &Torsions<L::Scalar>,
    x: &[L::Scalar],
    f: &mut [L::Scalar],
) -> f64 {
    let zero = L::Scalar::from_f64(0.0);
    let width = L::Scalar::VIRTUAL_WIDTH;
    let mut energy = WideSum::<L>::default();
    for block in 0..terms.count.div_ceil(width) {
        let first = block * width;
        let harmonics = &terms.harmonics[terms.starts[block]..terms.starts[block + 1]];
        let mut gradients: Gradients<L::Scalar, 4> = [[[zero; WIDEST]; 3]; 4];
        for number in 0..VirtualSum::<L>::PARTS {
            let lane = number * L::WIDTH;
            let from = first + lane;
            let [i, j, k, l] = &terms.atoms;
            let dihedral = Dihedral::<L>::new([
                gather(x, i, from),
                gather(x, j, from),
                gather(x, k, from),
                gather(x, l, from),
            ]);
            let mut series = Series::new(&dihedral, part(&terms.constant, from));
            for harmonic in harmonics.chunks_exact(2 * width) {
                series.add::<true>(part(harmonic, lane), part(harmonic, width + lane));
            }
            energy.sum.add(number, series.energy);
            for (to, gradient) in gradients.iter_mut().zip(dihedral.gradients(series.slope)) {
                put(gradient, to, lane);
            }
        }
        energy.end_block();
        scatter(&gradients, &terms.atoms, first, terms.count, f);
    }
    energy.total()
}

/// Direct interaction of the pairs three bonds apart.
#[inline(always)]
pub(super) fn scaled_pairs<L: Lanes>(
    pairs: &ScaledPairs<L::Scalar>,
    smallest_squared_distance: L::Scalar,
    x: &[L::Scalar],
    f: &mut [L::Scalar],
) -> f64 {
    let zero = L::Scalar::from_f64(0.0);
    let (smallest, largest) = (L::splat(smallest_squared_distance), L::constant(1e24));
    let mut energy = WideSum::<L>::default();
    let mut first = 0;
    while first < pairs.count {
        let mut gradients: Gradients<L::Scalar, 2> = [[[zero; WIDEST]; 3]; 2];
        for number in 0..VirtualSum::<L>::PARTS {
            let lane = number * L::WIDTH;
            let from = first + lane;
            let [i, j] = &pairs.atoms;
            let d = gather::<L>(x, i, from).minus(gather(x, j, from));
            let squared = largest.min(smallest.max(d.dot(d)));
            let (direct, slope) = direct::<L, true>(
                pairs.charge.lanes(from),
                part(&pairs.repulsion, from),
                part(&pairs.attraction, from),
                squared.rsqrt(),
            );
            energy.sum.add(number, direct);
            put(d.times(slope), &mut gradients[0], lane);
            put(d.times(L::zero() - slope), &mut gradients[1], lane);
        }
        energy.end_block();
        scatter(&gradients, &pairs.atoms, first, pairs.count, f);
        first += L::Scalar::VIRTUAL_WIDTH;
    }
    energy.total()
}
