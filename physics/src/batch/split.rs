//! Parameters that keep what single precision's rounding takes from them.
//!
//! The rounding of parameters alone moves the energy of a decapeptide by several 10⁻⁴ kJ/mol, always to the same side.

use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::Lanes;

/// A number in the evaluator's precision and what rounding took from it: zero in double precision.
#[derive(Clone, Copy)]
pub(super) struct Split<T> {
    pub(super) value: T,
    pub(super) rest: T,
}

impl<T: Real> Split<T> {
    pub(super) fn new(exact: f64) -> Self {
        let value = T::from_f64(exact);
        Self {
            value,
            rest: T::from_f64(exact - value.as_f64()),
        }
    }
}

/// A [`Split`] in lanes.
#[derive(Clone, Copy)]
pub(super) struct SplitLanes<L> {
    pub(super) value: L,
    pub(super) rest: L,
}

impl<L: Lanes> SplitLanes<L> {
    const ROUNDED: bool = L::Scalar::MANTISSA_BITS == 23;

    #[inline(always)]
    pub(super) fn splat(parameter: Split<L::Scalar>) -> Self {
        Self {
            value: L::splat(parameter.value),
            rest: L::splat(parameter.rest),
        }
    }

    /// The product of two parameters. Where multiply-add is not fused, what the product's own rounding takes is lost.
    #[inline(always)]
    pub(super) fn product(self, other: Self) -> Self {
        let value = self.value * other.value;
        let rest = match Self::ROUNDED {
            true => {
                let rounding = self.value.mul_add(other.value, L::zero() - value);
                self.value
                    .mul_add(other.rest, self.rest.mul_add(other.value, rounding))
            }
            false => L::zero(),
        };
        Self { value, rest }
    }

    /// The parameter, rounded once, times x.
    #[inline(always)]
    pub(super) fn times(self, x: L) -> L {
        match Self::ROUNDED {
            true => self.value.mul_add(x, self.rest * x),
            false => self.value * x,
        }
    }

    /// x less the parameter.
    #[inline(always)]
    pub(super) fn subtracted_from(self, x: L) -> L {
        match Self::ROUNDED {
            true => (x - self.value) - self.rest,
            false => x - self.value,
        }
    }

    /// Zero in the lanes outside the mask.
    #[inline(always)]
    pub(super) fn only(self, inside: L::Mask) -> Self {
        Self {
            value: L::select(inside, self.value, L::zero()),
            rest: L::select(inside, self.rest, L::zero()),
        }
    }
}
