//! The generalised Born (OBC) formulas of one pair and one atom, in lanes.
//!
//! What atom j, a sphere of radius s at distance r, adds to the Born integral of atom i with offset radius o is
//!
//! I = ½[1/L − 1/U + (r − s²/r)(1/U² − 1/L²)/4 + ln(L/U)/(2r)], U = r + s, L = max(o, |r − s|), zero where U ≤ o.
//!
//! Nearly all pairs of a molecule fall into two of its cases, each with a shorter form. Both need the logarithm only through
//!
//! G(z) = (1 − (1−z) artanh(√z)/√z)/z = Σ_{k≥1} 2 z^{k−1}/(4k²−1),
//!
//! a polynomial to machine precision for the z that occur:
//!
//! * *far*, r − s > o: with t = s/r, z = t², w = 1/(1−z): I = ½ t z w G/r and dI/dr = −½ t z w² (2 + (1−z) G)/r²; no cancellation at
//!   large r, where the terms above leave a small difference;
//! * *near*, L = o: with a = U/o, b = o/U, z = ((U−o)/(U+o))², ln(o/U) = −½(a−b)(1 − zG):
//!   I = ½(1−b)/o − ⅛(a−b)[(1−t)/o + (1−zG)/r] and dI/dr = ⅛(a−b)[(1−zG)/r² − (1+t²) b/o²].
//!
//! The rest, atoms closer than |o − s|, takes the formula as it stands.

use super::parameters::Born;
use super::split::SplitLanes;
use boltzmap_kernels::math;
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{LaneKernel, Lanes};

/// The largest z for which [`series`] is right. z < (s/(s+o))² in both cases above, 0.40 for the published radii.
pub(super) const LARGEST_SQUARE: f64 = 0.41;

/// Horner's scheme, highest power first.
macro_rules! polynomial {
    ($z:expr; $first:expr $(, $coefficient:expr)*) => {{
        let z = $z;
        let p = L::constant($first);
        $( let p = p.mul_add(z, L::constant($coefficient)); )*
        p
    }};
}

/// G(z) for 0 ≤ z ≤ [`LARGEST_SQUARE`]; relative error of the Chebyshev fit 1.5·10⁻⁸ in `f32`, 3·10⁻¹⁶ in `f64`.
#[inline(always)]
fn series<L: Lanes>(z: L) -> L {
    if L::Scalar::MANTISSA_BITS == 23 {
        polynomial!(z;
            0.03739316221251146, -0.005241269218133155, 0.026196368145612686, 0.03083162331914956, 0.05720757372171861,
            0.13333164543298012, 0.6666666737525041)
    } else {
        polynomial!(z;
            0.055593066434662164, -0.10885140151075869, 0.11543800250214459, -0.06593974580065287, 0.0327976619633479,
            -0.0032342062479030474, 0.007874660912959155, 0.0075994852470974384, 0.01028112226776419, 0.013984306969903505,
            0.02020209674362468, 0.03174602968862364, 0.05714285717170339, 0.13333333333317426, 0.6666666666666669)
    }
}

/// The distance of a pair in the forms that both sides need.
#[derive(Clone, Copy)]
pub(super) struct Distance<L> {
    pub(super) r: L,
    /// 1/r
    pub(super) inverse: L,
    /// 1/r²
    pub(super) inverse_squared: L,
}

/// The atom whose Born radius is in question, and the sphere that displaces its solvent.
#[derive(Clone, Copy)]
pub(super) struct Side<L> {
    /// o
    pub(super) offset: L,
    /// 1/o
    pub(super) inverse_offset: L,
    /// s
    pub(super) sphere: L,
}

/// (I, dI/dr / r) of one side of a pair whose distance is not below |o − s|.
///
/// Which form a lane takes depends on that lane alone; a form that no lane needs is not computed.
#[inline(always)]
pub(super) fn integral<L: Lanes>(d: Distance<L>, side: Side<L>) -> (L, L) {
    let far = side.offset.lt(d.r - side.sphere);
    let mut result = (L::zero(), L::zero());
    if L::mask_any(far) {
        result = far_integral(d, side);
    }
    if L::mask_any(L::mask_not(far)) {
        let near = near_integral(d, side);
        result = (
            L::select(far, result.0, near.0),
            L::select(far, result.1, near.1),
        );
    }
    result
}

#[inline(always)]
fn far_integral<L: Lanes>(d: Distance<L>, side: Side<L>) -> (L, L) {
    let t = side.sphere * d.inverse;
    let z = t * t;
    let rest = L::constant(1.0) - z;
    let w = rest.reciprocal();
    let g = series(z);
    let common = (t * z) * (L::constant(0.5) * d.inverse) * w;
    let slope = (common * w) * (L::zero() - d.inverse_squared);
    (common * g, slope * g.mul_add(rest, L::constant(2.0)))
}

#[inline(always)]
fn near_integral<L: Lanes>(d: Distance<L>, side: Side<L>) -> (L, L) {
    let one = L::constant(1.0);
    let t = side.sphere * d.inverse;
    let upper = d.r + side.sphere;
    let sum = upper + side.offset;
    let both = (upper * sum).reciprocal();
    let b = side.offset * (sum * both);
    let root = (upper - side.offset) * (upper * both);
    let z = root * root;
    // 1 − zG
    let logarithm = z.neg_mul_add(series(z), one);
    let eighth = L::constant(0.125) * upper.mul_add(side.inverse_offset, L::zero() - b);
    let bracket = (one - t).mul_add(side.inverse_offset, logarithm * d.inverse);
    let integral = eighth.neg_mul_add(
        bracket,
        (one - b) * (L::constant(0.5) * side.inverse_offset),
    );
    let inside = b * (side.inverse_offset * side.inverse_offset);
    let bracket = t
        .mul_add(t, one)
        .neg_mul_add(inside, logarithm * d.inverse_squared);
    (integral, eighth * d.inverse * bracket)
}

/// (I, dI/dr / r) for every distance. Few pairs need it, so it is a function of its own.
///
/// In dI/dr the derivatives of U and of L = r − s cancel; that of L = s − r (atom i engulfed, o < s − r) leaves 1/L², which
/// the engulfed term 1/o − 1/L of the reference implementation takes away again.
#[inline(always)]
pub(super) fn general_integral<L: Lanes>(
    d: Distance<L>,
    side: Side<L>,
    engulfed_term: bool,
) -> (L, L) {
    L::call(General {
        d,
        side,
        engulfed_term,
    })
}

struct General<L> {
    d: Distance<L>,
    side: Side<L>,
    engulfed_term: bool,
}

impl<L: Lanes> LaneKernel for General<L> {
    type Output = (L, L);

    #[inline(always)]
    fn run(self) -> (L, L) {
        let Self {
            d,
            side,
            engulfed_term,
        } = self;
        let half = L::constant(0.5);
        let quarter = L::constant(0.25);
        let (r, inverse_r, s) = (d.r, d.inverse, side.sphere);
        let upper = r + s;
        let lower = side.offset.max((r - s).abs());
        let both = (lower * upper).reciprocal();
        let inverse_lower = both * upper;
        let inverse_upper = both * lower;
        let logarithm = math::ln(lower * inverse_upper);
        let squares = (inverse_upper + inverse_lower) * (inverse_upper - inverse_lower);
        let s_over_r = s * inverse_r;
        let half_log_over_r = half * inverse_r * logarithm;
        let quarter_squares = quarter * squares;
        // r − s²/r
        let reach = s_over_r.neg_mul_add(s, r);
        let bracket = reach.mul_add(
            quarter_squares,
            (inverse_lower - inverse_upper) + half_log_over_r,
        );
        let bracket_slope = s_over_r
            .mul_add(s_over_r, L::constant(1.0))
            .mul_add(quarter_squares, L::zero() - half_log_over_r * inverse_r);
        let mut integral = half * bracket;
        let mut slope = half * bracket_slope;
        let engulfed = side.offset.lt(s - r);
        if engulfed_term {
            integral = L::select(
                engulfed,
                integral + (side.inverse_offset - inverse_lower),
                integral,
            );
        } else {
            slope = L::select(engulfed, inverse_lower.mul_add(inverse_lower, slope), slope);
        }
        let reaches = side.offset.lt(upper);
        (
            L::select(reaches, integral, L::zero()),
            L::select(reaches, slope * inverse_r, L::zero()),
        )
    }
}

/// The constants of a Born model in lanes.
#[derive(Clone, Copy)]
pub(super) struct Coefficients<L> {
    alpha: L,
    beta: L,
    gamma: L,
}

impl<L: Lanes> Coefficients<L> {
    #[inline(always)]
    pub(super) fn new(born: &Born<L::Scalar>) -> Self {
        Self {
            alpha: L::splat(born.alpha),
            beta: L::splat(born.beta),
            gamma: L::splat(born.gamma),
        }
    }
}

/// The parameters of one atom in lanes; see [`super::parameters::BornAtom`].
#[derive(Clone, Copy)]
pub(super) struct Atom<L> {
    pub(super) offset_radius: L,
    pub(super) inverse_difference: L,
    pub(super) inverse_radius: L,
    pub(super) self_charge: L,
    pub(super) surface: L,
}

/// What an atom's Born integral leads to.
#[derive(Clone, Copy)]
pub(super) struct Radius<L> {
    /// Self and surface energy.
    pub(super) energy: L,
    /// B
    pub(super) radius: L,
    /// 1/B
    pub(super) inverse: L,
    /// ∂E/∂B of `energy`.
    pub(super) force: L,
    /// dB/dI
    pub(super) slope: L,
}

/// ψ = I·or, B = 1/(1/or − tanh(αψ − βψ² + γψ³)/R), dB/dI = B²/R (1 − tanh²)(α − 2βψ + 3γψ²) or.
#[inline(always)]
pub(super) fn radius<L: Lanes>(
    coefficients: Coefficients<L>,
    atom: Atom<L>,
    integral: L,
) -> Radius<L> {
    let one = L::constant(1.0);
    let Coefficients { alpha, beta, gamma } = coefficients;
    let psi = integral * atom.offset_radius;
    let inner = psi * psi.mul_add(psi.mul_add(gamma, L::zero() - beta), alpha);
    // 1 − tanh = 2/(e^2ψ' + 1): 1/or − tanh/R would lose digits for buried atoms, 1/or − 1/R + (1 − tanh)/R does not.
    let rest = L::constant(2.0) / (math::exp(inner + inner) + one);
    let inverse = rest.mul_add(atom.inverse_radius, atom.inverse_difference);
    let radius = inverse.reciprocal();
    let inner_slope = psi.mul_add(
        L::constant(3.0) * gamma * psi - L::constant(2.0) * beta,
        alpha,
    );
    let self_energy = atom.self_charge * inverse;
    let inverse2 = inverse * inverse;
    let surface = atom.surface * (inverse2 * inverse2 * inverse2);
    Radius {
        energy: surface - self_energy,
        radius,
        inverse,
        force: inverse * L::constant(6.0).neg_mul_add(surface, self_energy),
        slope: radius
            * radius
            * atom.inverse_radius
            * (rest * (L::constant(2.0) - rest))
            * inner_slope
            * atom.offset_radius,
    }
}

/// The pair energy −c/f with f² = r² + B_iB_j e, e = exp(−r²/(4B_iB_j)).
#[derive(Clone, Copy)]
pub(super) struct Polar<L> {
    /// c/f
    pub(super) energy: L,
    /// (dE/dr)/r of −c/f at fixed radii, c/f³ (1 − e/4).
    pub(super) gradient: L,
    /// 2 ∂E/∂B_i / B_j = 2 ∂E/∂B_j / B_i = c/f³ e (1 + r²/(4B_iB_j))
    pub(super) common: L,
}

/// −log₂(e)/4, by which r²/(B_iB_j) becomes the exponent of 2 in e.
pub(super) const EXPONENT: f64 = -0.25 * std::f64::consts::LOG2_E;

/// `exponent` is [`EXPONENT`]·r²/(B_iB_j), `product` B_iB_j.
#[inline(always)]
pub(super) fn polar<L: Lanes>(
    squared: L,
    exponent: L,
    product: L,
    charge: SplitLanes<L>,
) -> Polar<L> {
    let exponential = math::exp2_of_negative(exponent);
    let f2 = product.mul_add(exponential, squared);
    let inverse_f = f2.rsqrt();
    let energy = charge.times(inverse_f);
    let cubed = energy * (inverse_f * inverse_f);
    Polar {
        energy,
        gradient: cubed * L::constant(-0.25).mul_add(exponential, L::constant(1.0)),
        common: (cubed * exponential)
            * L::constant(std::f64::consts::LN_2).neg_mul_add(exponent, L::constant(1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::simd::Portable;
    use boltzmap_kernels::simd::Simd;
    use proptest::prelude::*;

    type Wide = <Portable as Simd>::F64;

    fn distance(r: f64) -> Distance<Wide> {
        Distance {
            r: Wide::constant(r),
            inverse: Wide::constant(1.0 / r),
            inverse_squared: Wide::constant(1.0 / (r * r)),
        }
    }

    fn side(offset: f64, sphere: f64) -> Side<Wide> {
        Side {
            offset: Wide::constant(offset),
            inverse_offset: Wide::constant(1.0 / offset),
            sphere: Wide::constant(sphere),
        }
    }

    proptest! {
        /// The short forms are the general one.
        #[test]
        fn cases_agree_with_the_general_formula(
            offset in 0.096..0.19f64, sphere in 0.05..0.165f64, beyond in 0.0..3.0f64,
        ) {
            prop_assume!((sphere / (sphere + offset)).powi(2) <= LARGEST_SQUARE);
            let r = (offset - sphere).abs() + 1e-6 + beyond * beyond;
            let short = integral(distance(r), side(offset, sphere));
            let long = general_integral(distance(r), side(offset, sphere), true);
            for (short, long, scale) in [(short.0, long.0, 1.0 / r), (short.1, long.1, 1.0 / (r * r * r))] {
                let (short, long) = (short.first(), long.first());
                // The general formula loses digits to cancellation where the result is small beside its terms.
                prop_assert!((short - long).abs() < 2e-14 * (scale + 10.0), "{r}: {short} {long}");
            }
        }

        /// dI/dr is the difference quotient of I, and both are continuous where the cases meet.
        #[test]
        fn slopes_are_derivatives(offset in 0.096..0.19f64, sphere in 0.05..0.165f64, place in 0.0..1.0f64) {
            prop_assume!((sphere / (sphere + offset)).powi(2) <= LARGEST_SQUARE);
            let side = side(offset, sphere);
            let edge = offset + sphere;
            let lowest = ((offset - sphere).abs() + 2e-5).max(0.06);
            // The second derivative jumps at the edge, which a difference quotient must not straddle.
            for r in [edge + 2e-5, edge - 2e-5, edge + 1e-4 + place, edge - (edge - lowest) * place] {
                let h = 3e-6;
                let at = |r: f64| integral(distance(r), side).0.first();
                let quotient = (at(r + h) - at(r - h)) / (2.0 * h);
                let slope = integral(distance(r), side).1.first() * r;
                prop_assert!((slope - quotient).abs() < 1e-6 * slope.abs().max(1.0), "{r}: {slope} {quotient}");
            }
            let (below, above) = (integral(distance(edge - 1e-12), side), integral(distance(edge + 1e-12), side));
            prop_assert!((below.0.first() - above.0.first()).abs() < 1e-9);
            prop_assert!((below.1.first() - above.1.first()).abs() < 1e-6);
        }
    }
}
