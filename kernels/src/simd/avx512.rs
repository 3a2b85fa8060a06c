//! AVX-512 F, DQ, BW and VL. The vector types are private to the crate: outside it they are reached only through
//! [`dispatch`](crate::simd::dispatch), after the instructions were detected.
#![cfg(target_arch = "x86_64")]

use super::{Kernel, LaneKernel, Lanes, Simd, Tier, operators};
use std::arch::x86_64::*;

/// The tier's marker type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512;

/// Sixteen `f32`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct F32x16(__m512);

/// Eight `f64`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct F64x8(__m512d);

impl Simd for Avx512 {
    type F32 = F32x16;
    type F64 = F64x8;
    const TIER: Tier = Tier::Avx512;
}

/// Runs a kernel compiled for AVX-512.
///
/// # Safety
/// The processor must have the features below.
#[target_feature(enable = "avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

/// Runs a computation compiled for the same instructions.
///
/// # Safety
/// The processor must have them.
#[target_feature(enable = "avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")]
#[inline(never)]
unsafe fn call<K: LaneKernel>(kernel: K) -> K::Output {
    kernel.run()
}

operators!(
    F32x16,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps
);
operators!(
    F64x8,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_div_pd
);

/// The methods that differ between `f32` and `f64` by a suffix only.
macro_rules! lanes {
    (
        $name:ident, $scalar:ident, $bits:ident, $signed:ident, $width:literal, $mask:ident,
        $set1:ident, $loadu:ident, $storeu:ident, $mask_loadu:ident, $mask_storeu:ident, $fmadd:ident, $fnmadd:ident,
        $min:ident, $max:ident, $sqrt:ident, $round:ident, $cmp:ident, $blend:ident, $and:ident, $or:ident, $xor:ident,
        $abs:ident, $set1_integer:ident, $to_integer:ident, $from_integer:ident, $add:ident, $sub:ident, $sll:ident,
        $srl:ident, |$sum:ident| $reduce:block,
        |$a:ident, $b:ident| $interleave:block
    ) => {
        impl Lanes for $name {
            type Scalar = $scalar;
            type Mask = $mask;
            const WIDTH: usize = $width;
            const PARTIAL_IS_FAST: bool = true;

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
            fn load_partial(source: &[$scalar], fill: $scalar) -> Self {
                let mask = first_lanes(source.len().min($width)) as $mask;
                // SAFETY: lanes beyond the slice are masked off, so they are not read; detection as above.
                Self(unsafe { $mask_loadu($set1(fill), mask, source.as_ptr()) })
            }
            #[inline(always)]
            fn store_partial(self, target: &mut [$scalar]) {
                let mask = first_lanes(target.len().min($width)) as $mask;
                // SAFETY: lanes beyond the slice are masked off, so they are not written; detection as above.
                unsafe { $mask_storeu(target.as_mut_ptr(), mask, self.0) }
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
                Self(unsafe { $abs(self.0) })
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
                Self(unsafe { $blend(mask, on_false.0, on_true.0) })
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
                a != 0
            }
            #[inline(always)]
            fn splat_bits(bits: u64) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $from_integer($set1_integer(bits as $bits as $signed)) })
            }
            #[inline(always)]
            fn bit_and(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $from_integer($and($to_integer(self.0), $to_integer(other.0))) })
            }
            #[inline(always)]
            fn bit_or(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $from_integer($or($to_integer(self.0), $to_integer(other.0))) })
            }
            #[inline(always)]
            fn bit_xor(self, other: Self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $from_integer($xor($to_integer(self.0), $to_integer(other.0))) })
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
                Self(unsafe { $from_integer($sll::<N>($to_integer(self.0))) })
            }
            #[inline(always)]
            fn shift_right<const N: u32>(self) -> Self {
                // SAFETY: detection as above.
                Self(unsafe { $from_integer($srl::<N>($to_integer(self.0))) })
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

/// A mask of the first `count` ≤ 16 lanes.
#[inline(always)]
fn first_lanes(count: usize) -> u32 {
    (1u32 << count) - 1
}

lanes!(
    F32x16,
    f32,
    u32,
    i32,
    16,
    __mmask16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_mask_loadu_ps,
    _mm512_mask_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    _mm512_min_ps,
    _mm512_max_ps,
    _mm512_sqrt_ps,
    _mm512_roundscale_ps,
    _mm512_cmp_ps_mask,
    _mm512_mask_blend_ps,
    _mm512_and_si512,
    _mm512_or_si512,
    _mm512_xor_si512,
    _mm512_abs_ps,
    _mm512_set1_epi32,
    _mm512_castps_si512,
    _mm512_castsi512_ps,
    _mm512_add_epi32,
    _mm512_sub_epi32,
    _mm512_slli_epi32,
    _mm512_srli_epi32,
    |sum| {
        let eight = _mm256_add_ps(
            _mm512_castps512_ps256(sum),
            _mm512_extractf32x8_ps::<1>(sum),
        );
        let four = _mm_add_ps(
            _mm256_castps256_ps128(eight),
            _mm256_extractf128_ps::<1>(eight),
        );
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    },
    |a, b| {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        (
            _mm512_permutex2var_ps(a, low, b),
            _mm512_permutex2var_ps(a, high, b),
        )
    }
);

lanes!(
    F64x8,
    f64,
    u64,
    i64,
    8,
    __mmask8,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_mask_loadu_pd,
    _mm512_mask_storeu_pd,
    _mm512_fmadd_pd,
    _mm512_fnmadd_pd,
    _mm512_min_pd,
    _mm512_max_pd,
    _mm512_sqrt_pd,
    _mm512_roundscale_pd,
    _mm512_cmp_pd_mask,
    _mm512_mask_blend_pd,
    _mm512_and_si512,
    _mm512_or_si512,
    _mm512_xor_si512,
    _mm512_abs_pd,
    _mm512_set1_epi64,
    _mm512_castpd_si512,
    _mm512_castsi512_pd,
    _mm512_add_epi64,
    _mm512_sub_epi64,
    _mm512_slli_epi64,
    _mm512_srli_epi64,
    |sum| {
        let four = _mm256_add_pd(
            _mm512_castpd512_pd256(sum),
            _mm512_extractf64x4_pd::<1>(sum),
        );
        let two = _mm_add_pd(
            _mm256_castpd256_pd128(four),
            _mm256_extractf128_pd::<1>(four),
        );
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
    },
    |a, b| {
        let low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        let high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
        (
            _mm512_permutex2var_pd(a, low, b),
            _mm512_permutex2var_pd(a, high, b),
        )
    }
);
