//! Box–Muller pairs over vectors, without fused multiply-add, so that every tier gives the same bits.

use crate::real::Real;
use crate::simd::{Kernel, Lanes, Simd};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2, LN_2};

/// Horner's scheme with separate roundings, highest power first.
macro_rules! plain_polynomial {
    ($x:expr; $first:expr $(, $coefficient:expr)*) => {{
        let x = $x;
        let p = L::constant($first);
        $( let p = p * x + L::constant($coefficient); )*
        p
    }};
}

/// Two independent standard normal numbers from two random words (of 32 bits for `f32`, 64 bits for `f64`):
/// √(−2 ln u)·(cos 2πv, sin 2πv), u = (first word + ½)/2³² (or its upper 52 bits + ½, over 2⁵²) and v the second word in
/// turns, rounded down to 2⁻²⁵ (2⁻⁵⁴) around the nearest quarter turn.
#[inline(always)]
pub(crate) fn box_muller<L: Lanes>(first: L, second: L) -> (L, L) {
    let radius = (L::constant(-2.0) * ln_uniform(first)).sqrt();
    let (sine, cosine) = sin_cos_turns(second);
    (radius * cosine, radius * sine)
}

/// ln u with u the uniform number of a word, in (0, 1].
#[inline(always)]
fn ln_uniform<L: Lanes>(word: L) -> L {
    let one = L::constant(1.0);
    let single = L::Scalar::MANTISSA_BITS == 23;
    let u = if single {
        // Halves of 16 bits as numbers: or-ed into the mantissa of 2²³.
        let base = L::constant(8388608.0);
        let high = word.shift_right::<16>().bit_or(base) - base;
        let low = word.bit_and(L::splat_bits(0xffff)).bit_or(base) - base;
        (high * L::constant(65536.0) + (low + L::constant(0.5))) * L::constant(1.0 / 4294967296.0)
    } else {
        word.shift_right::<12>().bit_or(one) - one + L::constant(0.5 / 4503599627370496.0)
    };
    // u = 2ᵉ(1 + f), 1 + f in [√½, √2), and ln(1+f) = f − f²/2 + s(f²/2 + R) with s = f/(2+f), as in fdlibm.
    let root_half = L::constant(FRAC_1_SQRT_2);
    let offset = u.integer_sub(root_half).integer_add(one);
    let (e, mantissa) = if single {
        let base = L::constant(8388608.0);
        (
            offset.shift_right::<23>().bit_or(base) - L::constant(8388608.0 + 127.0),
            L::splat_bits(0x007f_ffff),
        )
    } else {
        let base = L::constant(4503599627370496.0);
        let e = offset.shift_right::<52>().bit_or(base) - L::constant(4503599627370496.0 + 1023.0);
        (e, L::splat_bits(0x000f_ffff_ffff_ffff))
    };
    let f = offset.bit_and(mantissa).integer_add(root_half) - one;
    let s = f / (f + L::constant(2.0));
    let z = s * s;
    let r = z
        * if single {
            plain_polynomial!(z; 2.333_057_430_907_243e-1, 2.855_081_677_937_602e-1, 4.000_012_187_450_667e-1, 6.666_666_655_445_466e-1)
        } else {
            plain_polynomial!(z;
            1.461_657_642_164_438_6e-1, 1.533_171_134_667_299_6e-1, 1.818_288_943_375_751_6e-1, 2.222_221_113_056_072_6e-1,
            2.857_142_862_600_142_6e-1, 3.999_999_999_989_945e-1, 6.666_666_666_666_67e-1)
        };
    let half_square = L::constant(0.5) * f * f;
    let ln_2_high = if single {
        0.693359375
    } else {
        6.931_471_803_691_238e-1
    };
    let ln_2_low = if single {
        LN_2 - 0.693359375
    } else {
        1.908_214_929_270_587_7e-10
    };
    e * L::constant(ln_2_high)
        + (f - (half_square - (s * (half_square + r) + e * L::constant(ln_2_low))))
}

/// (sin, cos) of the angle whose fraction of a turn is the word over 2³² (2⁶⁴).
#[inline(always)]
fn sin_cos_turns<L: Lanes>(word: L) -> (L, L) {
    let sign = L::constant(-0.0);
    // An eighth of a turn more: the two leading bits are then the nearest quarter turn, the rest the way from it.
    let (shifted, angle) = if L::Scalar::MANTISSA_BITS == 23 {
        let shifted = word.integer_add(L::splat_bits(1 << 29));
        let rest = shifted
            .shift_left::<2>()
            .shift_right::<9>()
            .bit_or(L::constant(8388608.0));
        (
            shifted,
            (rest - L::constant(8388608.0 + 4194304.0)) * L::constant(FRAC_PI_2 / 8388608.0),
        )
    } else {
        let shifted = word.integer_add(L::splat_bits(1 << 61));
        let rest = shifted
            .shift_left::<2>()
            .shift_right::<12>()
            .bit_or(L::constant(4503599627370496.0));
        let scale = L::constant(FRAC_PI_2 / 4503599627370496.0);
        (
            shifted,
            (rest - L::constant(4503599627370496.0 + 2251799813685248.0)) * scale,
        )
    };
    let z = angle * angle;
    let (s, c) = if L::Scalar::MANTISSA_BITS == 23 {
        (
            plain_polynomial!(z; 2.724_962_008_007_533e-6, -1.984_008_437_642_270_4e-4, 8.333_331_870_341_349e-3, -1.666_666_666_384_405e-1),
            plain_polynomial!(z; -2.730_070_403_808_665e-7, 2.480_059_840_835_012e-5, -1.388_888_768_370_668_3e-3, 4.166_666_666_431_182e-2),
        )
    } else {
        (
            plain_polynomial!(z;
                1.591_798_897_939_743_3e-10, -2.505_112_989_645_018_6e-8, 2.755_731_609_319_840_5e-6,
                -1.984_126_983_674_053_2e-4, 8.333_333_333_330_937e-3, -1.666_666_666_666_666_5e-1),
            plain_polynomial!(z;
                -1.138_254_464_534_925e-11, 2.087_614_504_941_318e-9, -2.755_731_726_587_808e-7,
                2.480_158_729_875_44e-5, -1.388_888_888_888_739e-3, 4.166_666_666_666_666_4e-2),
        )
    };
    let sine = angle + angle * (z * s);
    let cosine = L::constant(1.0) - (L::constant(0.5) * z - z * z * c);
    let next = shifted.shift_left::<1>();
    let odd = next.bit_and(sign).bit_or(L::constant(1.0)).lt(L::zero());
    (
        L::select(odd, cosine, sine).bit_xor(shifted.bit_and(sign)),
        L::select(odd, sine, cosine).bit_xor(shifted.bit_xor(next).bit_and(sign)),
    )
}

/// Pairs from words of one vector after another: words as the bits of T, normals (cosine half, sine half).
pub(super) struct BoxMuller<'a, T> {
    pub(super) first: &'a mut [T],
    pub(super) second: &'a mut [T],
}

impl<T: Real> Kernel for BoxMuller<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let width = T::Lanes::<S>::WIDTH;
        for (a, b) in self
            .first
            .chunks_mut(width)
            .zip(self.second.chunks_mut(width))
        {
            let first = T::Lanes::<S>::load_partial(a, T::zero());
            let second = T::Lanes::<S>::load_partial(b, T::zero());
            let (cosine, sine) = box_muller(first, second);
            cosine.store_partial(a);
            sine.store_partial(b);
        }
    }
}
