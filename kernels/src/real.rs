//! The floating-point types kernels work on.

use crate::simd::{Lanes, Simd};

/// `f32` or `f64`.
pub trait Real:
    num_traits::Float
    + num_traits::NumAssign
    + bytemuck::Pod
    + Default
    + Send
    + Sync
    + std::fmt::Debug
    + std::fmt::Display
    + std::iter::Sum
    + 'static
{
    /// The vector type of a tier with this element.
    type Lanes<S: Simd>: Lanes<Scalar = Self>;
    /// Number of lanes in which fixed-order sums are kept on every tier.
    const VIRTUAL_WIDTH: usize;
    /// Bits of the stored mantissa.
    const MANTISSA_BITS: u32;
    /// `f32` or `f64`.
    const NAME: &'static str;
    /// Rounded to this type.
    fn from_f64(value: f64) -> Self;
    /// Exact. (Not `to_f64`: that name is taken by `num_traits::ToPrimitive`, whose result is an `Option`.)
    fn as_f64(self) -> f64;
}

impl Real for f32 {
    type Lanes<S: Simd> = S::F32;
    const VIRTUAL_WIDTH: usize = 16;
    const MANTISSA_BITS: u32 = 23;
    const NAME: &'static str = "f32";
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn as_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    type Lanes<S: Simd> = S::F64;
    const VIRTUAL_WIDTH: usize = 8;
    const MANTISSA_BITS: u32 = 52;
    const NAME: &'static str = "f64";
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn as_f64(self) -> f64 {
        self
    }
}
