//! Bonds, angles and torsions of one tile: one conformation per lane.
//!
//! Coordinates and forces are `[atom][xyz]` vectors of lanes, flat. Forces are accumulated.

use super::parameters::{Angle, Bond, TorsionSeries};
use super::split::SplitLanes;
use super::sum::CompensatedSum;
use super::vector::V3;
use boltzmap_kernels::math;
use boltzmap_kernels::simd::Lanes;

/// ½k(r−r₀)² with d from the second atom to the first: the energy, and its gradient at the first atom.
///
/// For coincident atoms the direction is zero, and so is the force.
#[inline(always)]
pub(super) fn bond<L: Lanes>(d: V3<L>, length: SplitLanes<L>, force_constant: L) -> (L, V3<L>) {
    let squared = L::constant(1e-24).max(d.dot(d));
    let r = squared.sqrt();
    let stretch = length.subtracted_from(r);
    let pull = force_constant * stretch;
    (
        (L::constant(0.5) * pull) * stretch,
        d.times(pull * r.reciprocal()),
    )
}

/// Σ ½k(r−r₀)².
#[inline(always)]
pub(super) fn bonds<L: Lanes, const FORCES: bool>(
    terms: &[Bond<L::Scalar>],
    x: &[L],
    f: &mut [L],
) -> L {
    let mut energy = CompensatedSum::zero();
    for term in terms {
        let [i, j] = term.atoms;
        let d = V3::load(x, i).minus(V3::load(x, j));
        let (stretching, gradient) = bond(
            d,
            SplitLanes::splat(term.length),
            L::splat(term.force_constant),
        );
        energy.add(stretching);
        if FORCES {
            gradient.subtract_from(f, i);
            gradient.add_to(f, j);
        }
    }
    energy.total()
}

/// ½k(θ−θ₀)², θ = atan2(|u×v|, u·v), u and v from the vertex to the ends: accurate for every θ. The energy, and its gradients at the
/// ends; ∂θ/∂u = (u (u·v)/u² − v)/|u×v|, and the same with u and v exchanged.
#[inline(always)]
pub(super) fn angle<L: Lanes>(
    u: V3<L>,
    v: V3<L>,
    rest: SplitLanes<L>,
    force_constant: L,
) -> (L, V3<L>, V3<L>) {
    let tiny = L::constant(1e-24);
    let cross = u.cross(v);
    let dot = u.dot(v);
    // The floor keeps straight angles and coincident atoms finite: the force there is bounded and arbitrary in direction.
    let sine = tiny.max(cross.dot(cross)).sqrt();
    let bend = rest.subtracted_from(math::atan2(sine, dot));
    let torque = force_constant * bend;
    let scale = torque * sine.reciprocal();
    let per_u = dot * tiny.max(u.dot(u)).reciprocal();
    let per_v = dot * tiny.max(v.dot(v)).reciprocal();
    (
        (L::constant(0.5) * torque) * bend,
        u.times(per_u).minus(v).times(scale),
        v.times(per_v).minus(u).times(scale),
    )
}

/// Σ ½k(θ−θ₀)².
#[inline(always)]
pub(super) fn angles<L: Lanes, const FORCES: bool>(
    terms: &[Angle<L::Scalar>],
    x: &[L],
    f: &mut [L],
) -> L {
    let mut energy = CompensatedSum::zero();
    for term in terms {
        let [i, j, k] = term.atoms;
        let vertex = V3::load(x, j);
        let u = V3::load(x, i).minus(vertex);
        let v = V3::load(x, k).minus(vertex);
        let (bending, gu, gv) = angle(
            u,
            v,
            SplitLanes::splat(term.angle),
            L::splat(term.force_constant),
        );
        energy.add(bending);
        if FORCES {
            gu.subtract_from(f, i);
            gv.subtract_from(f, k);
            gu.plus(gv).add_to(f, j);
        }
    }
    energy.total()
}

/// A quadruple of atoms: cos φ and sin φ (IUPAC sign) without ever computing φ, and what the forces need.
///
/// With F = r_i − r_j, G = r_j − r_k, H = r_l − r_k, A = F×G, B = H×G: cos φ = A·B/(|A||B|), sin φ = (B×A)·G/(|A||B||G|); ∂φ/∂r from
/// Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
#[derive(Clone, Copy)]
pub(super) struct Dihedral<L> {
    f: V3<L>,
    g: V3<L>,
    h: V3<L>,
    a: V3<L>,
    b: V3<L>,
    inverse_a: L,
    inverse_b: L,
    inverse_g: L,
    length_g: L,
    pub(super) cosine: L,
    pub(super) sine: L,
}

impl<L: Lanes> Dihedral<L> {
    #[inline(always)]
    pub(super) fn new([ri, rj, rk, rl]: [V3<L>; 4]) -> Self {
        let tiny = L::constant(1e-24);
        let (f, g, h) = (ri.minus(rj), rj.minus(rk), rl.minus(rk));
        let a = f.cross(g);
        let b = h.cross(g);
        let a2 = tiny.max(a.dot(a));
        let b2 = tiny.max(b.dot(b));
        let g2 = tiny.max(g.dot(g));
        let inverse_g = g2.rsqrt();
        let length_g = g2 * inverse_g;
        // Two square roots instead of one of the product, which would underflow in f32 for degenerate geometries.
        let (inverse_a, inverse_b) = (a2.rsqrt(), b2.rsqrt());
        let inverse_ab = inverse_a * inverse_b;
        Self {
            f,
            g,
            h,
            a,
            b,
            inverse_a,
            inverse_b,
            inverse_g,
            length_g,
            cosine: a.dot(b) * inverse_ab,
            // (B×A)·G = −|G|² F·B saves the cross product.
            sine: L::zero() - f.dot(b) * length_g * inverse_ab,
        }
    }

    /// Gradients at the four atoms of a function whose derivative in φ is `slope`: ∂φ/∂r_i = −|G|/A² A, ∂φ/∂r_l = |G|/B² B,
    /// ∂φ/∂r_j = −∂φ/∂r_i (1 + F·G/G²) − ∂φ/∂r_l H·G/G², and ∂φ/∂r_k closes the sum.
    #[inline(always)]
    pub(super) fn gradients(&self, slope: L) -> [V3<L>; 4] {
        let pull = slope * self.length_g;
        let inverse_a2 = self.inverse_a * self.inverse_a;
        let inverse_b2 = self.inverse_b * self.inverse_b;
        let gi = self.a.times(L::zero() - pull * inverse_a2);
        let gl = self.b.times(pull * inverse_b2);
        let inverse_g2 = self.inverse_g * self.inverse_g;
        let shift = gi
            .times(self.f.dot(self.g) * inverse_g2)
            .plus(gl.times(self.h.dot(self.g) * inverse_g2));
        let zero = L::zero();
        let nothing = V3 {
            x: zero,
            y: zero,
            z: zero,
        };
        [gi, nothing.minus(gi.plus(shift)), shift.minus(gl), gl]
    }
}

/// A Fourier series Σ_n c_n cos nφ + s_n sin nφ under summation.
#[derive(Clone, Copy)]
pub(super) struct Series<L> {
    pub(super) energy: L,
    /// dE/dφ
    pub(super) slope: L,
    cosine: L,
    sine: L,
    twice: L,
    cosine_before: L,
    sine_before: L,
    order: L,
}

impl<L: Lanes> Series<L> {
    #[inline(always)]
    pub(super) fn new(dihedral: &Dihedral<L>, constant: L) -> Self {
        Self {
            energy: constant,
            slope: L::zero(),
            cosine: dihedral.cosine,
            sine: dihedral.sine,
            twice: dihedral.cosine + dihedral.cosine,
            cosine_before: L::constant(1.0),
            sine_before: L::zero(),
            order: L::constant(1.0),
        }
    }

    /// Adds the next harmonic; cos nφ and sin nφ by the Chebyshev recurrence.
    #[inline(always)]
    pub(super) fn add<const SLOPE: bool>(&mut self, c: L, s: L) {
        self.energy = c.mul_add(self.cosine, s.mul_add(self.sine, self.energy));
        if SLOPE {
            self.slope = self
                .order
                .mul_add(s * self.cosine - c * self.sine, self.slope);
            self.order = self.order + L::constant(1.0);
        }
        let cosine_next = self.twice * self.cosine - self.cosine_before;
        let sine_next = self.twice * self.sine - self.sine_before;
        (self.cosine_before, self.sine_before) = (self.cosine, self.sine);
        (self.cosine, self.sine) = (cosine_next, sine_next);
    }
}

/// Σ over quadruples of the Fourier series in φ.
#[inline(always)]
pub(super) fn torsions<L: Lanes, const FORCES: bool>(
    terms: &[TorsionSeries<L::Scalar>],
    x: &[L],
    f: &mut [L],
) -> L {
    let mut energy = CompensatedSum::zero();
    for term in terms {
        let [i, j, k, l] = term.atoms;
        let dihedral = Dihedral::new([
            V3::load(x, i),
            V3::load(x, j),
            V3::load(x, k),
            V3::load(x, l),
        ]);
        let mut series = Series::new(&dihedral, L::splat(term.constant));
        for &[c, s] in &term.harmonics {
            series.add::<FORCES>(L::splat(c), L::splat(s));
        }
        energy.add(series.energy);
        if FORCES {
            let [gi, gj, gk, gl] = dihedral.gradients(series.slope);
            gi.subtract_from(f, i);
            gj.subtract_from(f, j);
            gk.subtract_from(f, k);
            gl.subtract_from(f, l);
        }
    }
    energy.total()
}
