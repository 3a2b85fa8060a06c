//! The bonded terms of one conformation, one term per lane.

use super::super::bonded::{self, Dihedral, Series};
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

/// Subtracts the gradients at one atom of each of the first `count` terms.
#[inline(always)]
fn scatter<L: Lanes<Scalar = f64>>(
    gradient: V3<L>,
    atoms: &[usize; BLOCK],
    from: usize,
    count: usize,
    f: &mut [Vec<f64>; 3],
) {
    let mut buffers = [[0.0; BLOCK]; 3];
    gradient.x.store(&mut buffers[0]);
    gradient.y.store(&mut buffers[1]);
    gradient.z.store(&mut buffers[2]);
    for axis in 0..3 {
        for lane in 0..L::WIDTH.min(count.saturating_sub(from)) {
            f[axis][atoms[from + lane]] -= buffers[axis][lane];
        }
    }
}

#[inline(always)]
pub(super) fn bonds<L: Lanes<Scalar = f64>>(blocks: &[TermBlock<2>], scratch: &mut Scratch) -> f64 {
    let mut energy = VirtualSum::<L>::default();
    for block in blocks {
        for number in 0..VirtualSum::<L>::PARTS {
            let from = number * L::WIDTH;
            let [i, j] = &block.atoms;
            let d = gather::<L>(&scratch.x, i, from).minus(gather(&scratch.x, j, from));
            let (stretching, gradient) = bonded::bond(
                d,
                part(&block.rest, from),
                part(&block.force_constant, from),
            );
            energy.add(number, stretching);
            let negative = gradient.times(L::constant(-1.0));
            scatter(gradient, i, from, block.count, &mut scratch.f);
            scatter(negative, j, from, block.count, &mut scratch.f);
        }
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
        for number in 0..VirtualSum::<L>::PARTS {
            let from = number * L::WIDTH;
            let [i, j, k] = &block.atoms;
            let vertex = gather::<L>(&scratch.x, j, from);
            let u = gather::<L>(&scratch.x, i, from).minus(vertex);
            let v = gather::<L>(&scratch.x, k, from).minus(vertex);
            let (bending, gu, gv) = bonded::angle(
                u,
                v,
                part(&block.rest, from),
                part(&block.force_constant, from),
            );
            energy.add(number, bending);
            scatter(gu, i, from, block.count, &mut scratch.f);
            scatter(gv, k, from, block.count, &mut scratch.f);
            let at_vertex = gu.plus(gv).times(L::constant(-1.0));
            scatter(at_vertex, j, from, block.count, &mut scratch.f);
        }
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
            let gradients = dihedral.gradients(series.slope);
            for (gradient, atoms) in gradients.into_iter().zip(&block.atoms) {
                scatter(gradient, atoms, from, block.count, &mut scratch.f);
            }
        }
    }
    energy.total()
}
