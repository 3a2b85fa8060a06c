//! Elementary functions over vectors of `f32` or `f64`.
//!
//! Errors are stated in units in the last place (ulp) of the result, as measured by `tests/math.rs` on the AVX2 and AVX-512
//! tiers, which compute the same bits; the portable tier lacks fused multiply-add and may be one or two ulp worse.
//! Unless said otherwise a NaN argument gives NaN. Polynomials are Chebyshev fits computed in 60 digits.

use crate::real::Real;
use crate::simd::Lanes;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2, LN_2, LOG2_E, PI};

/// Horner's scheme, highest power first.
macro_rules! polynomial {
    ($x:expr; $first:expr $(, $coefficient:expr)*) => {{
        let x = $x;
        let p = L::constant($first);
        $( let p = p.mul_add(x, L::constant($coefficient)); )*
        p
    }};
}

#[inline(always)]
fn is_single<L: Lanes>() -> bool {
    L::Scalar::MANTISSA_BITS == 23
}

/// x = k ln 2 + r: the bits of k added to a large constant, and eʳ − 1 for |r| ≤ ½ ln 2.
#[inline(always)]
fn exp_parts<L: Lanes>(x: L) -> (L, L) {
    let (magic, high, low) = if is_single::<L>() {
        (12582912.0, 0.693359375, LN_2 - 0.693359375)
    } else {
        (
            6755399441055744.0,
            6.931_471_803_691_238e-1,
            1.908_214_929_270_587_7e-10,
        )
    };
    let shifted = x.mul_add(L::constant(LOG2_E), L::constant(magic));
    let k = shifted - L::constant(magic);
    let r = k.neg_mul_add(L::constant(low), k.neg_mul_add(L::constant(high), x));
    let q = if is_single::<L>() {
        polynomial!(r; 1.392_618_358_771_345e-3, 8.363_179_052_722_577e-3, 4.166_655_461_720_457e-2, 1.666_657_698_969_878e-1, 0.5)
    } else {
        polynomial!(r;
            2.510_038_549_551_032e-8, 2.762_008_844_540_975e-7, 2.755_726_845_999_706_5e-6, 2.480_152_129_595_437_5e-5,
            1.984_126_986_305_361_7e-4, 1.388_888_891_721_371_7e-3, 8.333_333_333_330_062e-3, 4.166_666_666_662_413e-2,
            1.666_666_666_666_666_7e-1, 0.5)
    };
    (shifted, (r * r).mul_add(q, r))
}

/// 2^(k + `offset`) from the bits of k in `shifted`; `offset` ≥ −1022 places the exponent.
#[inline(always)]
fn power_of_two<L: Lanes>(shifted: L, of_zero: f64) -> L {
    let shifted = if is_single::<L>() {
        shifted.shift_left::<23>()
    } else {
        shifted.shift_left::<52>()
    };
    shifted.integer_add(L::constant(of_zero))
}

/// eˣ within 1.1 ulp. Overflows to ∞; results below 2⁻¹²⁵·⁵ (`f32`) or 2⁻¹⁰²¹·⁵ (`f64`) are 0.
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    let (low, high) = if is_single::<L>() {
        (-87.5, 89.0)
    } else {
        (-708.4, 710.0)
    };
    // The argument second, so that NaN passes.
    let x = L::constant(high).min(L::constant(low).max(x));
    let (shifted, p) = exp_parts(x);
    // 2^(k−1) is finite for the largest k and 0 for the smallest; the other factor 2 goes to the mantissa.
    let scale = power_of_two(shifted, 0.5);
    let mantissa = L::constant(1.0) + p;
    (mantissa + mantissa) * scale
}

/// 2ˣ for x ≤ 0, within 1.5 ulp for −125 ≤ x; below, 2⁻¹²⁵ (`f32`) or, below −1021, 2⁻¹⁰²¹ (`f64`), so that nothing is subnormal.
#[inline(always)]
pub fn exp2_of_negative<L: Lanes>(x: L) -> L {
    let (lowest, magic) = if is_single::<L>() {
        (-125.0, 12582912.0)
    } else {
        (-1021.0, 6755399441055744.0)
    };
    // The argument second, so that NaN passes.
    let x = L::constant(lowest).max(x);
    let shifted = x + L::constant(magic);
    let f = x - (shifted - L::constant(magic));
    let p = if is_single::<L>() {
        polynomial!(f; 0.0001546144469856913, 0.0013400428177615838, 0.009618056678524637, 0.05550327226670302,
            0.24022650922288757, 0.6931472067028326, 1.0)
    } else {
        polynomial!(f;
            4.4558179083360645e-10, 7.074194297288521e-09, 1.0178057087733941e-07, 1.3215432535912375e-06,
            1.5252733841556773e-05, 0.00015403530463724353, 0.001333355814640647, 0.009618129107587256,
            0.055504108664821625, 0.24022650695910158, std::f64::consts::LN_2, 1.0)
    };
    // k goes straight to the exponent: p is near 1 and the result normal.
    let exponent = if is_single::<L>() {
        shifted.shift_left::<23>()
    } else {
        shifted.shift_left::<52>()
    };
    p.integer_add(exponent)
}

/// eˣ − 1 for |x| ≤ 40, within 2 ulp also near 0.
#[inline(always)]
fn exp_m1_moderate<L: Lanes>(x: L) -> L {
    let (shifted, p) = exp_parts(x);
    let scale = power_of_two(shifted, 1.0);
    scale.mul_add(p, scale - L::constant(1.0))
}

/// Natural logarithm within 1 ulp; −∞ at 0, NaN below, subnormal arguments included.
#[inline(always)]
pub fn ln<L: Lanes>(x: L) -> L {
    let one = L::constant(1.0);
    let single = is_single::<L>();
    let (smallest, lift, lift_exponent) = if single {
        (f64::from(f32::MIN_POSITIVE), 8388608.0, 23.0)
    } else {
        (f64::MIN_POSITIVE, 4503599627370496.0, 52.0)
    };
    let tiny = x.lt(L::constant(smallest));
    let lifted = L::select(tiny, x * L::constant(lift), x);
    // m in [√½, √2) and e with lifted = 2ᵉ m.
    let root_half = L::constant(FRAC_1_SQRT_2);
    let offset = lifted.integer_sub(root_half).integer_add(one);
    let (exponent_bits, mantissa_mask) = if single {
        (offset.shift_right::<23>(), L::splat_bits(0x007f_ffff))
    } else {
        (
            offset.shift_right::<52>(),
            L::splat_bits(0x000f_ffff_ffff_ffff),
        )
    };
    let bias = if single { 127.0 } else { 1023.0 };
    let biased = exponent_bits.bit_or(L::constant(lift)) - L::constant(lift + bias);
    let e = L::select(tiny, biased - L::constant(lift_exponent), biased);
    let f = offset.bit_and(mantissa_mask).integer_add(root_half) - one;
    // ln(1+f) = f − f²/2 + s (f²/2 + R), s = f/(2+f), as in fdlibm.
    let s = f / (f + L::constant(2.0));
    let z = s * s;
    let r = z
        * if single {
            polynomial!(z; 2.333_057_430_907_243e-1, 2.855_081_677_937_602e-1, 4.000_012_187_450_667e-1, 6.666_666_655_445_466e-1)
        } else {
            polynomial!(z;
            1.461_657_642_164_438_6e-1, 1.533_171_134_667_299_6e-1, 1.818_288_943_375_751_6e-1, 2.222_221_113_056_072_6e-1,
            2.857_142_862_600_142_6e-1, 3.999_999_999_989_945e-1, 6.666_666_666_666_67e-1)
        };
    let half_square = L::constant(0.5) * f * f;
    let (high, low) = if single {
        (0.693359375, LN_2 - 0.693359375)
    } else {
        (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10)
    };
    let correction = half_square - s.mul_add(half_square + r, e * L::constant(low));
    let result = e.mul_add(L::constant(high), f - correction);
    let result = L::select(x.lt(L::constant(f64::INFINITY)), result, x);
    let result = L::select(x.eq(L::zero()), L::constant(f64::NEG_INFINITY), result);
    L::select(x.lt(L::zero()), L::constant(f64::NAN), result)
}

/// Hyperbolic tangent within 2.5 ulp (`f32`), 3 ulp (`f64`).
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    let saturation = if is_single::<L>() { 20.0 } else { 40.0 };
    let doubled = L::constant(2.0) * x.abs();
    let t = exp_m1_moderate(L::constant(saturation).min(doubled));
    (t / (t + L::constant(2.0))).copy_sign(x)
}

/// 1/(1+e⁻ˣ) within 2.5 ulp; 0 where e^x is flushed to 0.
#[inline(always)]
pub fn sigmoid<L: Lanes>(x: L) -> L {
    let one = L::constant(1.0);
    let e = exp(-x.abs());
    L::select(x.lt(L::zero()), e, one) / (one + e)
}

/// e^(x²)·erfc(x) for 0 ≤ x, as a polynomial in s = 1/(1+px) times s.
#[inline(always)]
fn scaled_erfc<L: Lanes>(x: L) -> L {
    let one = L::constant(1.0);
    if is_single::<L>() {
        let s = one / x.mul_add(L::constant(0.3), one);
        s * polynomial!(s;
            -1.308_451_657_188_583e-1, 4.922_865_297_746_477e-1, -5.268_560_740_947_708e-1, 5.652_859_580_364_018e-1,
            -1.074_861_114_323_59e-1, 2.207_373_112_319_176e-1, 1.467_505_893_194_966_6e-1, 1.709_545_533_136_957_3e-1,
            1.691_728_081_813_61e-1)
    } else {
        let s = one / x.mul_add(L::constant(0.25), one);
        s * polynomial!(s;
            -0.0016696016384154877, 0.01562757191867463, -0.06226557049356456, 0.13333058560874037,
            -0.15252881792378825, 0.04937709109877898, 0.1323988769491949, -0.28254795385051,
            0.3103739860888748, -0.22777339393041407, 0.15115179679446666, -0.030501320473824065,
            0.06548240056386184, 0.056838737057245195, 0.08227284671229226, 0.09883722391554542,
            0.11503899263661566, 0.1278219580795201, 0.13663980433089887, 0.14104739057579088, 0.14104739598001578)
    }
}

/// exp(−factor·x²) without the error that rounding x² would bring; x bounded.
#[inline(always)]
fn gaussian<L: Lanes>(x: L, factor: f64) -> L {
    let square = x * x;
    let rest = x.mul_add(x, -square);
    let e = exp(square * L::constant(-factor));
    e.neg_mul_add(rest * L::constant(factor), e)
}

/// Error function within 2.5 ulp.
#[inline(always)]
pub fn erf<L: Lanes>(x: L) -> L {
    let one = L::constant(1.0);
    let magnitude = L::constant(10.0).min(x.abs());
    let z = magnitude * magnitude;
    let small = magnitude
        * if is_single::<L>() {
            polynomial!(z;
            7.875_875_062_682_688e-5, -8.016_864_287_165_87e-4, 5.189_087_423_433_974e-3, -2.685_421_201_062_641_2e-2,
            1.128_359_471_516_021_8e-1, -3.761_262_666_672_033e-1, 1.128_379_165_848_351)
        } else {
            polynomial!(z;
            5.957176147748911e-11, -1.1372848856791674e-9, 1.4659775274047436e-8, -1.6350312701054695e-7,
            1.6461000484121368e-6, -1.4925595266831182e-5, 0.0001205533111164271, -0.000854832698083379,
            0.0052239776248180145, -0.026866170645076792, 0.11283791670954879, -0.3761263890318375,
            std::f64::consts::FRAC_2_SQRT_PI)
        };
    let large = gaussian(magnitude, 1.0).neg_mul_add(scaled_erfc(magnitude), one);
    L::select(magnitude.le(one), small, large).copy_sign(x)
}

/// |x| bounded where Φ reaches 0 or 1, Φ(x) (the normal distribution function) and e^(−x²/2).
#[inline(always)]
fn normal_parts<L: Lanes>(x: L) -> (L, L, L) {
    let bound = L::constant(if is_single::<L>() { 14.0 } else { 38.0 });
    let u = bound.min(x.abs());
    let e = gaussian(u, 0.5);
    let tail = L::constant(0.5) * e * scaled_erfc(u * L::constant(FRAC_1_SQRT_2));
    let distribution = L::select(x.lt(L::zero()), tail, L::constant(1.0) - tail);
    (u, distribution, e)
}

/// ([`gelu`], [`gelu_prime`]) of one argument, with the bits of both, for little more than one of them.
#[inline(always)]
pub fn gelu_and_prime<L: Lanes>(x: L) -> (L, L) {
    let (magnitude, distribution, e) = normal_parts(x);
    (
        // Bounded below so that −∞·0 does not arise.
        L::constant(-38.0).max(x) * distribution,
        (magnitude.copy_sign(x) * L::constant(0.398_942_280_401_432_7)).mul_add(e, distribution),
    )
}

/// x·Φ(x) with Φ the standard normal distribution function; relative error below 16 ulp wherever e^(−x²/2) does not
/// underflow, both signs (the portable tier: 80 ulp in the far left tail); 0 further left.
#[inline(always)]
pub fn gelu<L: Lanes>(x: L) -> L {
    gelu_and_prime(x).0
}

/// The derivative of [`gelu`], Φ(x) + x·φ(x), with an absolute error below 4.5 ulp of 1.
#[inline(always)]
pub fn gelu_prime<L: Lanes>(x: L) -> L {
    gelu_and_prime(x).1
}

/// (sin x, cos x) for |x| ≤ 8192 (`f32`, absolute error 0.8·2⁻²³) or |x| ≤ 10⁶ (`f64`, 2⁻⁵²); beyond, the error
/// grows with |x|. NaN for infinite arguments.
#[inline(always)]
pub fn sin_cos<L: Lanes>(x: L) -> (L, L) {
    let single = is_single::<L>();
    let magic = L::constant(if single {
        12582912.0
    } else {
        6755399441055744.0
    });
    // x = k π/2 + r, π/2 in three parts whose products with k are exact for the first two.
    let (first, second, third) = if single {
        (
            1.5703125,
            4.837_512_969_970_703e-4,
            FRAC_PI_2 - 1.5703125 - 4.837_512_969_970_703e-4,
        )
    } else {
        (
            1.570_796_326_734_125_6,
            6.077_100_506_303_966e-11,
            2.022_266_248_795_950_6e-21,
        )
    };
    let shifted = x.mul_add(L::constant(std::f64::consts::FRAC_2_PI), magic);
    let k = shifted - magic;
    let r = k.neg_mul_add(L::constant(first), x);
    let r = k.neg_mul_add(L::constant(second), r);
    let r = k.neg_mul_add(L::constant(third), r);
    let (sine, cosine) = sin_cos_reduced(r);
    let half = k * L::constant(0.5);
    let even = half.floor().eq(half);
    // Bit 1 of k is the sign of the sine; of k + 1, of the cosine.
    let sign = L::constant(-0.0);
    let next = shifted.integer_add(L::splat_bits(1));
    let (sine_sign, cosine_sign) = if single {
        (
            shifted.shift_left::<30>().bit_and(sign),
            next.shift_left::<30>().bit_and(sign),
        )
    } else {
        (
            shifted.shift_left::<62>().bit_and(sign),
            next.shift_left::<62>().bit_and(sign),
        )
    };
    (
        L::select(even, sine, cosine).bit_xor(sine_sign),
        L::select(even, cosine, sine).bit_xor(cosine_sign),
    )
}

/// (sin r, cos r) for |r| ≤ π/4.
#[inline(always)]
fn sin_cos_reduced<L: Lanes>(r: L) -> (L, L) {
    let z = r * r;
    let (s, c) = if is_single::<L>() {
        (
            polynomial!(z; 2.724_962_008_007_533e-6, -1.984_008_437_642_270_4e-4, 8.333_331_870_341_349e-3, -1.666_666_666_384_405e-1),
            polynomial!(z; -2.730_070_403_808_665e-7, 2.480_059_840_835_012e-5, -1.388_888_768_370_668_3e-3, 4.166_666_666_431_182e-2),
        )
    } else {
        (
            polynomial!(z;
                1.5917988979397435e-10, -2.5051129896450185e-8, 2.7557316093198404e-6, -0.00019841269836740532,
                0.008333333333330936, -0.16666666666666666),
            polynomial!(z;
                -1.138254464534925e-11, 2.087614504941318e-9, -2.755731726587808e-7, 2.48015872987544e-5,
                -0.0013888888888887389, 0.041666666666666664),
        )
    };
    let sine = (z * r).mul_add(s, r);
    let cosine = (z * z).mul_add(c, L::constant(-0.5).mul_add(z, L::constant(1.0)));
    (sine, cosine)
}

/// The angle of the point (x, y) in (−π, π], within 3 ulp. atan2(±0, x) is ±0 for x ≥ +0 and ±π for x ≤ −0. NaN when
/// both are infinite.
#[inline(always)]
pub fn atan2<L: Lanes>(y: L, x: L) -> L {
    let (width, height) = (x.abs(), y.abs());
    let smaller = width.min(height);
    let larger = width.max(height);
    // tan π/8 splits the octant, so that |t| ≤ tan π/8.
    let steep = smaller.gt(larger * L::constant(std::f64::consts::SQRT_2 - 1.0));
    let numerator = L::select(steep, smaller - larger, smaller);
    let denominator = L::select(steep, smaller + larger, larger);
    let t = numerator / L::select(denominator.eq(L::zero()), L::constant(1.0), denominator);
    let z = t * t;
    let p = if is_single::<L>() {
        polynomial!(z;
            -6.451_597_258_952_991e-2, 1.074_363_162_714_457_4e-1, -1.426_394_635_791_234e-1, 1.999_954_021_693_753_4e-1,
            -3.333_333_176_000_804e-1)
    } else {
        polynomial!(z;
            0.01628357235648259, -0.0345685906686069, 0.045515165635903104, -0.052304374642516874,
            0.05878926715756726, -0.066664246872465, 0.07692296363979952, -0.09090908753118594,
            0.11111111105147764, -0.14285714285659748, 0.19999999999999804, -0.3333333333333333)
    };
    // The constants' rounding errors, added first because the angle is small where they matter.
    let (half_pi, half_pi_rest) = if is_single::<L>() {
        (
            f64::from(FRAC_PI_2 as f32),
            FRAC_PI_2 - f64::from(FRAC_PI_2 as f32),
        )
    } else {
        (FRAC_PI_2, 6.123_233_995_736_766e-17)
    };
    let bend = (t * z).mul_add(
        p,
        L::select(steep, L::constant(0.5 * half_pi_rest), L::zero()),
    );
    let quarter = L::select(steep, L::constant(0.5 * half_pi), L::zero());
    let angle = quarter + (t + bend);
    let complement = L::constant(half_pi) - (angle - L::constant(half_pi_rest));
    let angle = L::select(height.gt(width), complement, angle);
    let (pi, pi_rest) = if is_single::<L>() {
        (2.0 * half_pi, 2.0 * half_pi_rest)
    } else {
        (PI, 2.0 * half_pi_rest)
    };
    let supplement = L::constant(pi) - (angle - L::constant(pi_rest));
    let angle = L::select(
        L::constant(1.0).copy_sign(x).lt(L::zero()),
        supplement,
        angle,
    );
    let ordered = L::mask_and(x.eq(x), y.eq(y));
    L::select(ordered, angle.copy_sign(y), x + y)
}

/// The angle in [0, π] with this cosine, within 3 ulp; NaN outside [−1, 1].
#[inline(always)]
pub fn acos<L: Lanes>(x: L) -> L {
    let one = L::constant(1.0);
    atan2(((one - x) * (one + x)).sqrt(), x)
}
