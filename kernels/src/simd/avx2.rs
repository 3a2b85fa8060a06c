//! AVX2 with FMA. The vector types are private to the crate: outside it they are reached only through
//! [`dispatch`](crate::simd::dispatch), after the instructions were detected.
#![cfg(target_arch = "x86_64")]

use super::{Kernel, LaneKernel, Lanes, Simd, Tier, operators};
use std::arch::x86_64::*;

/// The tier's marker type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2;

/// Eight `f32`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct F32x8(__m256);

/// Four `f64`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct F64x4(__m256d);

impl Simd for Avx2 {
    type F32 = F32x8;
    type F64 = F64x4;
    const TIER: Tier = Tier::Avx2;
}

/// Runs a kernel compiled for AVX2 and FMA.
///
/// # Safety
/// The processor must have both.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

/// Runs a computation compiled for the same instructions.
///
/// # Safety
/// The processor must have them.
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn call<K: LaneKernel>(kernel: K) -> K::Output {
    kernel.run()
}

operators!(
    F32x8,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps
);
operators!(
    F64x4,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_div_pd
);

/// The methods that differ between `f32` and `f64` by a suffix only.
macro_rules! lanes {
    (
        $name:ident, $scalar:ident, $bits:ident, $signed:ident, $width:literal, $register:ident,
        $set1:ident, $loadu:ident, $storeu:ident, $fmadd:ident, $fnmadd:ident, $min:ident, $max:ident, $sqrt:ident,
        $round:ident, $cmp:ident, $blendv:ident, $and:ident, $or:ident, $xor:ident, $andnot:ident, $movemask:ident,
        $to_integer:ident, $from_integer:ident, $set1_integer:ident, $add:ident, $sub:ident, $sll:ident, $srl:ident,
        |$sum:ident| $reduce:block,
        |$a:ident, $b:ident| $interleave:block
    ) => {
        impl Lanes for $name {
            type Scalar = $scalar;
            type Mask = $register;
            const WIDTH: usize = $width;
            const PARTIAL_IS_FAST: bool = false;

            #[inline(always)]
            fn call<K: LaneKernel>(kernel: K) -> K::Output {
                // SAFETY: the type is reached only in code that `enter` guards by feature detection.
                unsafe { call(kernel) }
            }
            #[inline(always)]
            fn splat(value: $scalar) -> Self {
                // SAFETY: guarded by the detection in `dispatch`, as every intrinsic of this implementation.
                Self(unsafe { $set1(value) })
            }
            #[inline(always)]
            fn load(source: &[$scalar]) -> Self {
                assert!(source.len() >= $width);
                // SAFETY: the slice holds a whole vector; detection as above.
                Self(unsafe { $loadu(source.as_ptr()) })
            }
            #[inline(always)]
            fn store(self, target: &mut [$scalar]) {
                assert!(target.len() >= $width);
                // SAFETY: the slice holds a whole vector; detection as above.
                unsafe { $storeu(target.as_mut_ptr(), self.0) }
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $fmadd(self.0, b.0, c.0) })
            }
            #[inline(always)]
            fn neg_mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $fnmadd(self.0, b.0, c.0) })
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $min(self.0, other.0) })
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $max(self.0, other.0) })
            }
            #[inline(always)]
            fn abs(self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $andnot($set1(-0.0), self.0) })
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $sqrt(self.0) })
            }
            #[inline(always)]
            fn round(self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $round::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
            }
            #[inline(always)]
            fn floor(self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $round::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0) })
            }
            #[inline(always)]
            fn lt(self, other: Self) -> Self::Mask {
                // SAFETY: detection as above.
                unsafe { $cmp::<_CMP_LT_OQ>(self.0, other.0) }
            }
            #[inline(always)]
            fn le(self, other: Self) -> Self::Mask {
                // SAFETY: detection as above.
                unsafe { $cmp::<_CMP_LE_OQ>(self.0, other.0) }
            }
            #[inline(always)]
            fn eq(self, other: Self) -> Self::Mask {
                // SAFETY: detection as above.
                unsafe { $cmp::<_CMP_EQ_OQ>(self.0, other.0) }
            }
            #[inline(always)]
            fn select(mask: Self::Mask, on_true: Self, on_false: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $blendv(on_false.0, on_true.0, mask) })
            }
            #[inline(always)]
            fn mask_and(a: Self::Mask, b: Self::Mask) -> Self::Mask {
                // SAFETY: detection as above.
                unsafe { $and(a, b) }
            }
            #[inline(always)]
            fn mask_or(a: Self::Mask, b: Self::Mask) -> Self::Mask {
                // SAFETY: detection as above.
                unsafe { $or(a, b) }
            }
            #[inline(always)]
            fn mask_not(a: Self::Mask) -> Self::Mask {
                // SAFETY: detection as above.
                unsafe { $xor(a, $from_integer(_mm256_set1_epi32(-1))) }
            }
            #[inline(always)]
            fn mask_any(a: Self::Mask) -> bool {
                // SAFETY: detection as above.
                unsafe { $movemask(a) != 0 }
            }
            #[inline(always)]
            fn splat_bits(bits: u64) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $from_integer($set1_integer(bits as $bits as $signed)) })
            }
            #[inline(always)]
            fn bit_and(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $and(self.0, other.0) })
            }
            #[inline(always)]
            fn bit_or(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $or(self.0, other.0) })
            }
            #[inline(always)]
            fn bit_xor(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $xor(self.0, other.0) })
            }
            #[inline(always)]
            fn integer_add(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $from_integer($add($to_integer(self.0), $to_integer(other.0))) })
            }
            #[inline(always)]
            fn integer_sub(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $from_integer($sub($to_integer(self.0), $to_integer(other.0))) })
            }
            #[inline(always)]
            fn shift_left<const N: u32>(self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe {
                    $from_integer($sll($to_integer(self.0), _mm_cvtsi32_si128(N as i32)))
                })
            }
            #[inline(always)]
            fn shift_right<const N: u32>(self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe {
                    $from_integer($srl($to_integer(self.0), _mm_cvtsi32_si128(N as i32)))
                })
            }
            #[inline(always)]
            fn interleave(self, other: Self) -> (Self, Self) {
                let ($a, $b) = (self.0, other.0);
                // SAFETY: detection as above.
                let (low, high) = unsafe { $interleave };
                (Self(low), Self(high))
            }
            #[inline(always)]
            fn reduce_sum(self) -> $scalar {
                let $sum = self.0;
                // SAFETY: detection as above.
                unsafe { $reduce }
            }
        }
    };
}

lanes!(
    F32x8,
    f32,
    u32,
    i32,
    8,
    __m256,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_min_ps,
    _mm256_max_ps,
    _mm256_sqrt_ps,
    _mm256_round_ps,
    _mm256_cmp_ps,
    _mm256_blendv_ps,
    _mm256_and_ps,
    _mm256_or_ps,
    _mm256_xor_ps,
    _mm256_andnot_ps,
    _mm256_movemask_ps,
    _mm256_castps_si256,
    _mm256_castsi256_ps,
    _mm256_set1_epi32,
    _mm256_add_epi32,
    _mm256_sub_epi32,
    _mm256_sll_epi32,
    _mm256_srl_epi32,
    |sum| {
        let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    },
    |a, b| {
        let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        (
            _mm256_permute2f128_ps::<0x20>(low, high),
            _mm256_permute2f128_ps::<0x31>(low, high),
        )
    }
);

lanes!(
    F64x4,
    f64,
    u64,
    i64,
    4,
    __m256d,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_min_pd,
    _mm256_max_pd,
    _mm256_sqrt_pd,
    _mm256_round_pd,
    _mm256_cmp_pd,
    _mm256_blendv_pd,
    _mm256_and_pd,
    _mm256_or_pd,
    _mm256_xor_pd,
    _mm256_andnot_pd,
    _mm256_movemask_pd,
    _mm256_castpd_si256,
    _mm256_castsi256_pd,
    _mm256_set1_epi64x,
    _mm256_add_epi64,
    _mm256_sub_epi64,
    _mm256_sll_epi64,
    _mm256_srl_epi64,
    |sum| {
        let two = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd::<1>(sum));
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
    },
    |a, b| {
        let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        (
            _mm256_permute2f128_pd::<0x20>(low, high),
            _mm256_permute2f128_pd::<0x31>(low, high),
        )
    }
);
