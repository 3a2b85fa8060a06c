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

/// The energy of all terms of one kind, one per lane; subtracts their gradients from `f`. `term` gets the number of the first of
/// a vector's terms and gives their energies and gradients.
#[inline(always)]
fn each<L: Lanes, const N: usize>(
    atoms: &[Vec<u32>; N],
    count: usize,
    f: &mut [L::Scalar],
    term: impl Fn(usize) -> (L, [V3<L>; N]),
) -> f64 {
    let zero = L::Scalar::from_f64(0.0);
    let mut energy = WideSum::<L>::default();
    for first in (0..count).step_by(L::Scalar::VIRTUAL_WIDTH) {
        let mut gradients: Gradients<L::Scalar, N> = [[[zero; WIDEST]; 3]; N];
        for number in 0..VirtualSum::<L>::PARTS {
            let lane = number * L::WIDTH;
            let (energies, of_atoms) = term(first + lane);
            energy.sum.add(number, energies);
            for (to, gradient) in gradients.iter_mut().zip(of_atoms) {
                put(gradient, to, lane);
            }
        }
        energy.end_block();
        scatter(&gradients, atoms, first, count, f);
    }
    energy.total()
}

#[inline(always)]
pub(super) fn bonds<L: Lanes>(
    terms: &Terms<L::Scalar, 2>,
    x: &[L::Scalar],
    f: &mut [L::Scalar],
) -> f64 {
    let [i, j] = &terms.atoms;
    each(&terms.atoms, terms.count, f, |from| {
        let d = gather::<L>(x, i, from).minus(gather(x, j, from));
        let (stretching, gradient) =
            bonded::bond(d, terms.rest.lanes(from), part(&terms.force_constant, from));
        let back = gradient.times(L::constant(-1.0));
        (stretching, [gradient, back])
    })
}

#[inline(always)]
pub(super) fn angles<L: Lanes>(
    terms: &Terms<L::Scalar, 3>,
    x: &[L::Scalar],
    f: &mut [L::Scalar],
) -> f64 {
    let [i, j, k] = &terms.atoms;
    each(&terms.atoms, terms.count, f, |from| {
        let vertex = gather::<L>(x, j, from);
        let u = gather::<L>(x, i, from).minus(vertex);
        let v = gather::<L>(x, k, from).minus(vertex);
        let (rest, constant) = (terms.rest.lanes(from), part(&terms.force_constant, from));
        let (bending, gu, gv) = bonded::angle(u, v, rest, constant);
        (bending, [gu, gu.plus(gv).times(L::constant(-1.0)), gv])
    })
}

#[inline(always)]
pub(super) fn torsions<L: Lanes>(
    terms: &Torsions<L::Scalar>,
    x: &[L::Scalar],
    f: &mut [L::Scalar],
) -> f64 {
    let width = L::Scalar::VIRTUAL_WIDTH;
    let [i, j, k, l] = &terms.atoms;
    each(&terms.atoms, terms.count, f, |from| {
        let (block, lane) = (from / width, from % width);
        let harmonics = &terms.harmonics[terms.starts[block]..terms.starts[block + 1]];
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
        (series.energy, dihedral.gradients(series.slope))
    })
}

/// Direct interaction of the pairs three bonds apart.
#[inline(always)]
pub(super) fn scaled_pairs<L: Lanes>(
    pairs: &ScaledPairs<L::Scalar>,
    smallest_squared_distance: L::Scalar,
    x: &[L::Scalar],
    f: &mut [L::Scalar],
) -> f64 {
    let (smallest, largest) = (L::splat(smallest_squared_distance), L::constant(1e24));
    let [i, j] = &pairs.atoms;
    each(&pairs.atoms, pairs.count, f, |from| {
        let d = gather::<L>(x, i, from).minus(gather(x, j, from));
        let squared = largest.min(smallest.max(d.dot(d)));
        let (direct, slope) = direct::<L, true>(
            pairs.charge.lanes(from),
            part(&pairs.repulsion, from),
            part(&pairs.attraction, from),
            squared.rsqrt(),
        );
        let back = d.times(L::zero() - slope);
        (direct, [d.times(slope), back])
    })
}
