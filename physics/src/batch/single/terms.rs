//! The bonded terms of one conformation, one term per lane.

use super::super::bonded::{self, Dihedral, Series};
use super::super::split::SplitLanes;
use super::super::vector::V3;
use super::{BLOCK, Scratch, TermBlock, TorsionBlock, part};
use boltzmap_kernels::simd::{Lanes, VirtualSum};

/// The positions of one atom of each term.
#[inline(always)]
fn gather<L: Lanes<Scalar = f64>>(x: &[Vec<f64>; 3], atoms: &[usize; BLOCK], from: usize) -> V3<L> {
    let mut buffers = [[0.0; BLOCK]; 3];
    for axis in 0..3 {
        for lane in 0..L::WIDTH {
            buffers[axis][lane] = x[axis][atoms[from + lane]];
        }
    }
    V3 {
        x: L::load(&buffers[0]),
        y: L::load(&buffers[1]),
        z: L::load(&buffers[2]),
    }
}

/// Gradients of a block's terms at each of their N atoms, axis by axis.
type Gradients<const N: usize> = [[[f64; BLOCK]; 3]; N];

#[inline(always)]
fn put<L: Lanes<Scalar = f64>>(gradient: V3<L>, to: &mut [[f64; BLOCK]; 3], from: usize) {
    gradient.x.store(&mut to[0][from..]);
    gradient.y.store(&mut to[1][from..]);
    gradient.z.store(&mut to[2][from..]);
}

/// Subtracts the gradients of the first `count` terms, in an order that does not depend on the width of vectors.
#[inline(always)]
fn scatter<const N: usize>(
    gradients: &Gradients<N>,
    atoms: &[[usize; BLOCK]; N],
    count: usize,
    f: &mut [Vec<f64>; 3],
) {
    for (gradients, atoms) in gradients.iter().zip(atoms) {
        for axis in 0..3 {
            for lane in 0..count {
                f[axis][atoms[lane]] -= gradients[axis][lane];
            }
        }
    }
}

#[inline(always)]
pub(super) fn bonds<L: Lanes<Scalar = f64>>(blocks: &[TermBlock<2>], scratch: &mut Scratch) -> f64 {
    let mut energy = VirtualSum::<L>::default();
    for block in blocks {
        let mut gradients: Gradients<2> = [[[0.0; BLOCK]; 3]; 2];
        for number in 0..VirtualSum::<L>::PARTS {
            let from = number * L::WIDTH;
            let [i, j] = &block.atoms;
            let d = gather::<L>(&scratch.x, i, from).minus(gather(&scratch.x, j, from));
            let (stretching, gradient) = bonded::bond(
                d,
                SplitLanes::exact(part(&block.rest, from)),
                part(&block.force_constant, from),
            );
            energy.add(number, stretching);
            put(gradient, &mut gradients[0], from);
            put(gradient.times(L::constant(-1.0)), &mut gradients[1], from);
        }
        scatter(&gradients, &block.atoms, block.count, &mut scratch.f);
    }
    energy.total()
}

#[inline(always)]
pub(super) fn angles<L: Lanes<Scalar = f64>>(
    blocks: &[TermBlock<3>],
    scratch: &mut Scratch,
) -> f64 {
    let mut energy = VirtualSum::<L>::default();
    for block in blocks {
        let mut gradients: Gradients<3> = [[[0.0; BLOCK]; 3]; 3];
        for number in 0..VirtualSum::<L>::PARTS {
            let from = number * L::WIDTH;
            let [i, j, k] = &block.atoms;
            let vertex = gather::<L>(&scratch.x, j, from);
            let u = gather::<L>(&scratch.x, i, from).minus(vertex);
            let v = gather::<L>(&scratch.x, k, from).minus(vertex);
            let (bending, gu, gv) = bonded::angle(
                u,
                v,
                SplitLanes::exact(part(&block.rest, from)),
                part(&block.force_constant, from),
            );
            energy.add(number, bending);
            put(gu, &mut gradients[0], from);
            put(
                gu.plus(gv).times(L::constant(-1.0)),
                &mut gradients[1],
                from,
            );
            put(gv, &mut gradients[2], from);
        }
        scatter(&gradients, &block.atoms, block.count, &mut scratch.f);
    }
    energy.total()
}

#[inline(always)]
pub(super) fn torsions<L: Lanes<Scalar = f64>>(
    blocks: &[TorsionBlock],
    scratch: &mut Scratch,
) -> f64 {
    let mut energy = VirtualSum::<L>::default();
    for block in blocks {
        let mut gradients: Gradients<4> = [[[0.0; BLOCK]; 3]; 4];
        for number in 0..VirtualSum::<L>::PARTS {
            let from = number * L::WIDTH;
            let x = &scratch.x;
            let [i, j, k, l] = &block.atoms;
            let dihedral = Dihedral::<L>::new([
                gather(x, i, from),
                gather(x, j, from),
                gather(x, k, from),
                gather(x, l, from),
            ]);
            let mut series = Series::new(&dihedral, part(&block.constant, from));
            for [c, s] in &block.harmonics {
                series.add::<true>(part(c, from), part(s, from));
            }
            energy.add(number, series.energy);
            for (to, gradient) in gradients.iter_mut().zip(dihedral.gradients(series.slope)) {
                put(gradient, to, from);
            }
        }
        scatter(&gradients, &block.atoms, block.count, &mut scratch.f);
    }
    energy.total()
}
