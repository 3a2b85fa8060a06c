//! Bonds, angles and torsions of one tile: one conformation per lane.
//!
//! Coordinates and forces are `[atom][xyz]` vectors of lanes, flat. Forces are accumulated.

use super::parameters::{Angle, Bond, TorsionSeries};
use super::vector::V3;
use boltzmap_kernels::math;
use boltzmap_kernels::simd::Lanes;

/// Σ ½k(r−r₀)².
#[inline(always)]
pub(super) fn bonds<L: Lanes, const FORCES: bool>(
    terms: &[Bond<L::Scalar>],
    x: &[L],
    f: &mut [L],
) -> L {
    let half = L::constant(0.5);
    let tiny = L::constant(1e-24);
    let mut energy = L::zero();
    for term in terms {
        let [i, j] = term.atoms;
        let d = V3::load(x, i).minus(V3::load(x, j));
        let squared = tiny.max(d.dot(d));
        let r = squared.sqrt();
        let stretch = r - L::splat(term.length);
        let pull = L::splat(term.force_constant) * stretch;
        energy = (half * pull).mul_add(stretch, energy);
        if FORCES {
            // dE/dr / r; for coincident atoms the direction is zero, and so is the force.
            let g = d.times(pull * r.reciprocal());
            g.subtract_from(f, i);
            g.add_to(f, j);
        }
    }
    energy
}

/// Σ ½k(θ−θ₀)², θ = atan2(|u×v|, u·v), u and v from the vertex to the ends: accurate for every θ.
///
/// ∂θ/∂u = (u (u·v)/u² − v)/|u×v|, and the same with u and v exchanged.
#[inline(always)]
pub(super) fn angles<L: Lanes, const FORCES: bool>(
    terms: &[Angle<L::Scalar>],
    x: &[L],
    f: &mut [L],
) -> L {
    let half = L::constant(0.5);
    let tiny = L::constant(1e-24);
    let mut energy = L::zero();
    for term in terms {
        let [i, j, k] = term.atoms;
        let vertex = V3::load(x, j);
        let u = V3::load(x, i).minus(vertex);
        let v = V3::load(x, k).minus(vertex);
        let cross = u.cross(v);
        let dot = u.dot(v);
        // The floor keeps straight angles and coincident atoms finite: the force there is bounded and arbitrary in direction.
        let sine = tiny.max(cross.dot(cross)).sqrt();
        let bend = math::atan2(sine, dot) - L::splat(term.angle);
        let torque = L::splat(term.force_constant) * bend;
        energy = (half * torque).mul_add(bend, energy);
        if FORCES {
            let scale = torque * sine.reciprocal();
            let per_u = dot * tiny.max(u.dot(u)).reciprocal();
            let per_v = dot * tiny.max(v.dot(v)).reciprocal();
            let gu = u.times(per_u).minus(v).times(scale);
            let gv = v.times(per_v).minus(u).times(scale);
            gu.subtract_from(f, i);
            gv.subtract_from(f, k);
            gu.plus(gv).add_to(f, j);
        }
    }
    energy
}

/// Σ over quadruples of the Fourier series in φ (IUPAC sign), without ever computing φ.
///
/// With F = r_i − r_j, G = r_j − r_k, H = r_l − r_k, A = F×G, B = H×G: cos φ = A·B/(|A||B|), sin φ = (B×A)·G/(|A||B||G|),
/// cos nφ and sin nφ by the Chebyshev recurrence; ∂φ/∂r from Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
#[inline(always)]
pub(super) fn torsions<L: Lanes, const FORCES: bool>(
    terms: &[TorsionSeries<L::Scalar>],
    x: &[L],
    f: &mut [L],
) -> L {
    let (zero, one) = (L::zero(), L::constant(1.0));
    let tiny = L::constant(1e-24);
    let mut energy = zero;
    for term in terms {
        let [i, j, k, l] = term.atoms;
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
        // Two square roots instead of one of the product, which would underflow in f32 for degenerate geometries.
        let (inverse_a, inverse_b) = (a2.rsqrt(), b2.rsqrt());
        let inverse_ab = inverse_a * inverse_b;
        let cosine = a.dot(b) * inverse_ab;
        // (B×A)·G = −|G|² F·B saves the cross product.
        let sine = zero - vf.dot(b) * length_g * inverse_ab;
        let twice = cosine + cosine;
        let (mut cos_before, mut sin_before) = (one, zero);
        let (mut cos_n, mut sin_n) = (cosine, sine);
        let mut series = L::splat(term.constant);
        let mut slope = zero;
        let mut n = one;
        for &[ca, cb] in &term.harmonics {
            let (ca, cb) = (L::splat(ca), L::splat(cb));
            series = ca.mul_add(cos_n, cb.mul_add(sin_n, series));
            if FORCES {
                slope = n.mul_add(cb * cos_n - ca * sin_n, slope);
                n = n + one;
            }
            let cos_next = twice * cos_n - cos_before;
            let sin_next = twice * sin_n - sin_before;
            (cos_before, sin_before) = (cos_n, sin_n);
            (cos_n, sin_n) = (cos_next, sin_next);
        }
        energy = energy + series;
        if FORCES {
            let inverse_a2 = inverse_a * inverse_a;
            let inverse_b2 = inverse_b * inverse_b;
            // dE/dφ times ∂φ/∂r_i = −|G|/A² A and ∂φ/∂r_l = |G|/B² B.
            let gi = a.times(zero - slope * length_g * inverse_a2);
            let gl = b.times(slope * length_g * inverse_b2);
            // ∂φ/∂r_j = −∂φ/∂r_i (1 + F·G/G²) − ∂φ/∂r_l H·G/G² and ∂φ/∂r_k closes the sum.
            let inverse_g2 = inverse_g * inverse_g;
            let shift = gi
                .times(vf.dot(vg) * inverse_g2)
                .plus(gl.times(vh.dot(vg) * inverse_g2));
            gi.subtract_from(f, i);
            gl.subtract_from(f, l);
            gi.plus(shift).add_to(f, j);
            gl.minus(shift).add_to(f, k);
        }
    }
    energy
}
