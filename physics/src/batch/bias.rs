//! Harmonic restraint of a dihedral in one tile, with a centre and strength of its own in every lane.

use super::vector::V3;
use crate::restraint::Bias;
use boltzmap_kernels::math;
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::Lanes;

/// Adds the forces of ½k(φ−c)², the difference taken the short way round the circle.
#[inline(always)]
fn dihedral_restraint<L: Lanes>(
    [i, j, k, l]: [usize; 4],
    centre: L,
    force_constant: L,
    x: &[L],
    f: &mut [L],
) {
    let tiny = L::constant(1e-24);
    let turn = L::constant(std::f64::consts::TAU);
    let (rj, rk) = (V3::load(x, j), V3::load(x, k));
    let vf = V3::load(x, i).minus(rj);
    let vg = rj.minus(rk);
    let vh = V3::load(x, l).minus(rk);
    let a = vf.cross(vg);
    let b = vh.cross(vg);
    let a2 = tiny.max(a.dot(a));
    let b2 = tiny.max(b.dot(b));
    let g2 = tiny.max(vg.dot(vg));
    let inverse_g = g2.rsqrt();
    let length_g = g2 * inverse_g;
    // As for the torsions of the force field: A·B and −|G| F·B are |A||B| times cosine and sine.
    let phi = math::atan2(L::zero() - vf.dot(b) * length_g, a.dot(b));
    let off = phi - centre;
    let off = off - turn * (off * L::constant(1.0 / std::f64::consts::TAU)).round();
    let slope = force_constant * off;
    let gi = a.times(L::zero() - slope * length_g * a2.reciprocal());
    let gl = b.times(slope * length_g * b2.reciprocal());
    let inverse_g2 = inverse_g * inverse_g;
    let shift = gi
        .times(vf.dot(vg) * inverse_g2)
        .plus(gl.times(vh.dot(vg) * inverse_g2));
    gi.subtract_from(f, i);
    gl.subtract_from(f, l);
    gi.plus(shift).add_to(f, j);
    gl.minus(shift).add_to(f, k);
}

/// The restraints of a tile, one conformation per lane.
pub(crate) struct Restraints<L> {
    /// Dihedral, centres, force constants.
    terms: Vec<([usize; 4], L, L)>,
}

impl<L: Lanes> Restraints<L> {
    /// Those of `count` replicas from `first` on; lanes beyond them repeat the last.
    #[inline(always)]
    pub(crate) fn new(bias: Option<&Bias>, first: usize, count: usize) -> Self {
        let mut terms = Vec::new();
        if let Some(bias) = bias {
            let d = bias.dihedrals.len();
            for (place, &atoms) in bias.dihedrals.iter().enumerate() {
                let lanes = |values: &[f64]| {
                    let mut lanes = [L::Scalar::from_f64(0.0); 16];
                    for (lane, value) in lanes.iter_mut().enumerate().take(L::WIDTH) {
                        let replica = first + lane.min(count - 1);
                        *value = L::Scalar::from_f64(values[replica * d + place]);
                    }
                    L::load(&lanes)
                };
                terms.push((atoms, lanes(&bias.centres), lanes(&bias.force_constants)));
            }
        }
        Self { terms }
    }

    /// Adds their forces.
    #[inline(always)]
    pub(crate) fn add_forces(&self, x: &[L], f: &mut [L]) {
        for &(atoms, centre, force_constant) in &self.terms {
            dihedral_restraint(atoms, centre, force_constant, x, f);
        }
    }
}
