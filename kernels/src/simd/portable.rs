//! 128-bit vectors by the `wide` crate, on every processor.

use super::{LaneKernel, Lanes, Simd, Tier};
use std::ops::{Add, Div, Mul, Neg, Sub};
use wide::{f32x4, f64x2, u32x4, u64x2};

/// The tier's marker type.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// Four `f32`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F32x4(f32x4);

/// Two `f64`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F64x2(f64x2);

impl Simd for Portable {
    type F32 = F32x4;
    type F64 = F64x2;
    const TIER: Tier = Tier::Portable;
}

macro_rules! portable_lanes {
    ($name:ident, $vector:ident, $integers:ident, $scalar:ident, $bits:ident, $width:literal, |$sum:ident| $reduce:expr) => {
        impl Add for $name {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }
        impl Sub for $name {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }
        impl Mul for $name {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                Self(self.0 * other.0)
            }
        }
        impl Div for $name {
            type Output = Self;
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                Self(self.0 / other.0)
            }
        }
        impl Neg for $name {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                Self(self.0 ^ $vector::splat(-0.0))
            }
        }
        impl $name {
            #[inline(always)]
            fn integers(self) -> $integers {
                bytemuck::cast(self.0)
            }
            #[inline(always)]
            fn from_integers(integers: $integers) -> Self {
                Self(bytemuck::cast(integers))
            }
        }
        impl Lanes for $name {
            type Scalar = $scalar;
            type Mask = $vector;
            const WIDTH: usize = $width;
            const PARTIAL_IS_FAST: bool = false;

            #[inline(never)]
            fn call<K: LaneKernel>(kernel: K) -> K::Output {
                kernel.run()
            }
            #[inline(always)]
            fn splat(value: $scalar) -> Self {
                Self($vector::splat(value))
            }
            #[inline(always)]
            fn load(source: &[$scalar]) -> Self {
                let mut array = [0.0; $width];
                array.copy_from_slice(&source[..$width]);
                Self($vector::new(array))
            }
            #[inline(always)]
            fn store(self, target: &mut [$scalar]) {
                target[..$width].copy_from_slice(&self.0.to_array());
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                Self(self.0.mul_add(b.0, c.0))
            }
            #[inline(always)]
            fn neg_mul_add(self, b: Self, c: Self) -> Self {
                Self(self.0.mul_neg_add(b.0, c.0))
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                Self(self.0.simd_lt(other.0).bitselect(self.0, other.0))
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                Self(self.0.simd_gt(other.0).bitselect(self.0, other.0))
            }
            #[inline(always)]
            fn abs(self) -> Self {
                Self(self.0.abs())
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Self(self.0.sqrt())
            }
            #[inline(always)]
            fn round(self) -> Self {
                // 1.5·2^(mantissa bits) forces rounding at the unit; larger magnitudes are integers already.
                let magic = $vector::splat(1.5 / $scalar::EPSILON);
                let rounded = ((self.0 + magic) - magic).abs() | (self.0 & $vector::splat(-0.0));
                Self(
                    self.0
                        .abs()
                        .simd_lt($vector::splat(0.5 / $scalar::EPSILON))
                        .bitselect(rounded, self.0),
                )
            }
            #[inline(always)]
            fn floor(self) -> Self {
                let rounded = Lanes::round(self).0;
                Self(rounded - (rounded.simd_gt(self.0) & $vector::splat(1.0)))
            }
            #[inline(always)]
            fn lt(self, other: Self) -> Self::Mask {
                self.0.simd_lt(other.0)
            }
            #[inline(always)]
            fn le(self, other: Self) -> Self::Mask {
                self.0.simd_le(other.0)
            }
            #[inline(always)]
            fn eq(self, other: Self) -> Self::Mask {
                self.0.simd_eq(other.0)
            }
            #[inline(always)]
            fn select(mask: Self::Mask, on_true: Self, on_false: Self) -> Self {
                Self(mask.bitselect(on_true.0, on_false.0))
            }
            #[inline(always)]
            fn mask_and(a: Self::Mask, b: Self::Mask) -> Self::Mask {
                a & b
            }
            #[inline(always)]
            fn mask_or(a: Self::Mask, b: Self::Mask) -> Self::Mask {
                a | b
            }
            #[inline(always)]
            fn mask_not(a: Self::Mask) -> Self::Mask {
                !a
            }
            #[inline(always)]
            fn mask_any(a: Self::Mask) -> bool {
                a.any()
            }
            #[inline(always)]
            fn splat_bits(bits: u64) -> Self {
                Self($vector::splat($scalar::from_bits(bits as $bits)))
            }
            #[inline(always)]
            fn bit_and(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
            #[inline(always)]
            fn bit_or(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
            #[inline(always)]
            fn bit_xor(self, other: Self) -> Self {
                Self(self.0 ^ other.0)
            }
            #[inline(always)]
            fn integer_add(self, other: Self) -> Self {
                Self::from_integers(self.integers() + other.integers())
            }
            #[inline(always)]
            fn integer_sub(self, other: Self) -> Self {
                Self::from_integers(self.integers() - other.integers())
            }
            #[inline(always)]
            fn shift_left<const N: u32>(self) -> Self {
                Self::from_integers(self.integers() << N)
            }
            #[inline(always)]
            fn shift_right<const N: u32>(self) -> Self {
                Self::from_integers(self.integers() >> N)
            }
            #[inline(always)]
            fn interleave(self, other: Self) -> (Self, Self) {
                let (a, b) = (self.0.to_array(), other.0.to_array());
                let (mut low, mut high) = ([0.0; $width], [0.0; $width]);
                for i in 0..$width / 2 {
                    (low[2 * i], low[2 * i + 1]) = (a[i], b[i]);
                    (high[2 * i], high[2 * i + 1]) = (a[$width / 2 + i], b[$width / 2 + i]);
                }
                (Self($vector::new(low)), Self($vector::new(high)))
            }
            #[inline(always)]
            fn reduce_sum(self) -> $scalar {
                let $sum = self.0.to_array();
                $reduce
            }
        }
    };
}

portable_lanes!(F32x4, f32x4, u32x4, f32, u32, 4, |a| (a[0] + a[2])
    + (a[1] + a[3]));
portable_lanes!(F64x2, f64x2, u64x2, f64, u64, 2, |a| a[0] + a[1]);
