//! Elementary functions: measured against `f64` (for `f32`) and against double-double references (for `f64`).

use boltzmap_kernels::{Kernel, Lanes, Real, Simd, Tier, dispatch_on, math, reference};

macro_rules! function_kernels {
    ($($name:ident),*) => {$(
        #[allow(non_camel_case_types)]
        struct $name<'a, T>(&'a [T], &'a mut [T]);
        impl<T: Real> Kernel for $name<'_, T> {
            type Output = ();
            #[inline(always)]
            fn run<S: Simd>(self) {
                let width = T::Lanes::<S>::WIDTH;
                for (x, y) in self.0.chunks(width).zip(self.1.chunks_mut(width)) {
                    functions::$name(T::Lanes::<S>::load_partial(x, T::one())).store_partial(y);
                }
            }
        }
    )*};
}

mod functions {
    use super::{Lanes, math};
    pub(super) use math::{acos, erf, exp, exp2_of_negative, gelu, gelu_prime, ln, sigmoid, tanh};
    #[inline(always)]
    pub(super) fn sin<L: Lanes>(x: L) -> L {
        math::sin_cos(x).0
    }
    #[inline(always)]
    pub(super) fn cos<L: Lanes>(x: L) -> L {
        math::sin_cos(x).1
    }
    #[inline(always)]
    pub(super) fn atan<L: Lanes>(x: L) -> L {
        math::atan2(x, L::constant(1.0))
    }
    #[inline(always)]
    pub(super) fn atan_far<L: Lanes>(x: L) -> L {
        math::atan2(L::constant(1.0), x)
    }
    #[inline(always)]
    pub(super) fn rsqrt<L: Lanes>(x: L) -> L {
        x.rsqrt()
    }
}

function_kernels!(
    exp,
    exp2_of_negative,
    ln,
    tanh,
    sigmoid,
    erf,
    gelu,
    gelu_prime,
    sin,
    cos,
    atan,
    atan_far,
    acos,
    rsqrt
);

/// Every `stride`-th float from the bits of `low` to those of `high`, both of one sign, and their negatives if wanted.
fn samples_f32(low: f32, high: f32, both_signs: bool, stride: usize) -> Vec<f32> {
    let mut values: Vec<f32> = (low.to_bits()..=high.to_bits())
        .step_by(stride)
        .map(f32::from_bits)
        .collect();
    if both_signs {
        values.extend(values.clone().iter().map(|v| -v));
    }
    values
}

fn ulp_f32(value: f64) -> f64 {
    let value = (value.abs() as f32).max(f32::MIN_POSITIVE);
    f64::from(f32::from_bits(value.to_bits() + 1)) - f64::from(value)
}

/// Largest error in ulp of the exact result (absolute errors in ulp of 1 if `absolute`).
macro_rules! sweep {
    ($name:ident, $exact:expr, $low:expr, $high:expr, $both:expr, $absolute:expr, $bound:expr, $portable:expr) => {{
        let x = samples_f32($low, $high, $both, 7919);
        let exact: Vec<f64> = x.iter().map(|&x| $exact(f64::from(x))).collect();
        for tier in Tier::available() {
            let mut y = vec![0f32; x.len()];
            dispatch_on(tier, $name(&x, &mut y));
            let mut worst = (0.0, 0.0);
            for ((&x, &y), &exact) in x.iter().zip(&y).zip(&exact) {
                if exact.abs() < 2e-38 && f64::from(y).abs() < 2e-38 {
                    continue;
                }
                let unit = if $absolute {
                    f64::from(f32::EPSILON)
                } else {
                    ulp_f32(exact)
                };
                let error = (f64::from(y) - exact).abs() / unit;
                if error > worst.0 || error.is_nan() {
                    worst = (error, x);
                }
            }
            println!(
                "{} f32 {}: {:.2} ulp at {:e}",
                stringify!($name),
                tier.name(),
                worst.0,
                worst.1
            );
            let allowed = if tier == Tier::Portable {
                $bound + $portable
            } else {
                $bound
            };
            assert!(
                worst.0 <= allowed,
                "{} {}: {:?}",
                stringify!($name),
                tier.name(),
                worst
            );
        }
    }};
}

#[test]
fn single_precision_against_double() {
    sweep!(exp, f64::exp, 1e-30f32, 88.7f32, false, false, 1.1, 1.5);
    sweep!(
        exp,
        |x: f64| x.exp(),
        1e-30f32,
        86.9f32,
        true,
        false,
        1.1,
        1.5
    );
    sweep!(
        exp2_of_negative,
        f64::exp2,
        -1e-30f32,
        -125.0f32,
        false,
        false,
        1.1,
        1.5
    );
    sweep!(ln, f64::ln, 1e-45f32, 3.4e38f32, false, false, 1.1, 1.5);
    sweep!(tanh, f64::tanh, 1e-30f32, 1e30f32, true, false, 2.5, 1.5);
    sweep!(
        sigmoid,
        |x: f64| 1.0 / (1.0 + (-x).exp()),
        1e-30f32,
        86.9f32,
        true,
        false,
        2.5,
        1.5
    );
    sweep!(
        erf,
        reference::erf,
        1e-30f32,
        1e30f32,
        true,
        false,
        2.5,
        1.5
    );
    sweep!(
        gelu,
        |x: f64| x * reference::normal_distribution(x),
        1e-30f32,
        12.0f32,
        true,
        false,
        16.0,
        80.0
    );
    sweep!(
        gelu_prime,
        |x: f64| reference::normal_distribution(x) + x * reference::normal_density(x),
        1e-30f32,
        30.0f32,
        true,
        true,
        4.5,
        1.5
    );
    sweep!(sin, f64::sin, 1e-30f32, 8192.0f32, true, true, 0.8, 1.5);
    sweep!(cos, f64::cos, 1e-30f32, 8192.0f32, true, true, 0.8, 1.5);
    sweep!(atan, f64::atan, 1e-30f32, 1e30f32, true, false, 3.0, 1.5);
    sweep!(
        atan_far,
        |x: f64| 1f64.atan2(x),
        1e-30f32,
        1e30f32,
        true,
        false,
        3.0,
        1.5
    );
    sweep!(acos, f64::acos, 1e-30f32, 1.0f32, true, false, 3.0, 1.5);
    sweep!(
        rsqrt,
        |x: f64| 1.0 / x.sqrt(),
        1e-37f32,
        3.4e38f32,
        false,
        false,
        1.5,
        0.0
    );
}

/// Largest error in ulp over a dense set of doubles.
macro_rules! sweep_double {
    ($name:ident, $exact:expr, $low:expr, $high:expr, $both:expr, $absolute:expr, $bound:expr, $portable:expr) => {{
        let (low, high): (f64, f64) = ($low, $high);
        let stride = ((high.to_bits() - low.to_bits()) / 50_021).max(1);
        let mut x: Vec<f64> = (low.to_bits()..=high.to_bits())
            .step_by(stride as usize)
            .map(f64::from_bits)
            .collect();
        x.extend((0..40_000).map(|i| low + (high.min(50.0) - low) * f64::from(i) / 40_000.0));
        if $both {
            x.extend(x.clone().iter().map(|v| -v));
        }
        let exact: Vec<f64> = x.iter().map(|&x| $exact(x)).collect();
        for tier in Tier::available() {
            let mut y = vec![0f64; x.len()];
            dispatch_on(tier, $name(&x, &mut y));
            let mut worst = (0.0, 0.0);
            for ((&x, &y), &exact) in x.iter().zip(&y).zip(&exact) {
                if exact.abs() < 5e-308 && y.abs() < 5e-308 {
                    continue;
                }
                let unit = if $absolute {
                    f64::EPSILON
                } else {
                    exact.abs().next_up() - exact.abs()
                };
                let error = (y - exact).abs() / unit;
                if error > worst.0 || error.is_nan() {
                    worst = (error, x);
                }
            }
            println!(
                "{} f64 {}: {:.2} ulp at {:e}",
                stringify!($name),
                tier.name(),
                worst.0,
                worst.1
            );
            let allowed = if tier == Tier::Portable {
                $bound + $portable
            } else {
                $bound
            };
            assert!(
                worst.0 <= allowed,
                "{} {}: {:?}",
                stringify!($name),
                tier.name(),
                worst
            );
        }
    }};
}

#[test]
fn double_precision_against_the_standard_library() {
    sweep_double!(exp, f64::exp, 1e-30, 709.7, false, false, 1.0, 1.5);
    sweep_double!(exp, f64::exp, 1e-30, 707.0, true, false, 1.0, 1.5);
    sweep_double!(
        exp2_of_negative,
        f64::exp2,
        -1e-30,
        -1021.0,
        false,
        false,
        1.1,
        1.5
    );
    sweep_double!(ln, f64::ln, 1e-310, 1e308, false, false, 1.0, 1.5);
    sweep_double!(tanh, f64::tanh, 1e-30, 1e30, true, false, 3.0, 1.5);
    sweep_double!(
        sigmoid,
        |x: f64| if x < 0.0 {
            x.exp() / (1.0 + x.exp())
        } else {
            1.0 / (1.0 + (-x).exp())
        },
        1e-30,
        700.0,
        true,
        false,
        4.0,
        1.5
    );
    sweep_double!(erf, reference::erf, 1e-30, 1e30, true, false, 8.0, 1.5);
    sweep_double!(
        gelu_prime,
        |x: f64| reference::normal_distribution(x) + x * reference::normal_density(x),
        1e-30,
        100.0,
        true,
        true,
        4.0,
        1.5
    );
    sweep_double!(sin, f64::sin, 1e-30, 1e6, true, true, 1.0, 1.5);
    sweep_double!(cos, f64::cos, 1e-30, 1e6, true, true, 1.0, 1.5);
    sweep_double!(atan, f64::atan, 1e-30, 1e30, true, false, 3.0, 1.5);
    sweep_double!(
        atan_far,
        |x: f64| 1f64.atan2(x),
        1e-30,
        1e30,
        true,
        false,
        3.0,
        1.5
    );
    sweep_double!(acos, f64::acos, 1e-30, 1.0, true, false, 3.0, 1.5);
    sweep_double!(
        rsqrt,
        |x: f64| 1.0 / x.sqrt(),
        1e-300,
        1e300,
        false,
        false,
        2.0,
        1.5
    );
}

#[test]
fn special_arguments() {
    fn check<T: Real>() {
        let number = T::from_f64;
        for tier in Tier::available() {
            macro_rules! value {
                ($name:ident, $x:expr) => {{
                    let x = [number($x)];
                    let mut y = [T::zero()];
                    dispatch_on(tier, $name(&x, &mut y));
                    y[0].as_f64()
                }};
            }
            let (infinity, nan) = (f64::INFINITY, f64::NAN);
            assert_eq!(value!(exp, infinity), infinity);
            assert_eq!(value!(exp, -infinity), 0.0);
            assert_eq!(value!(exp, 0.0), 1.0);
            assert_eq!(value!(exp, 1e4), infinity);
            assert_eq!(value!(exp, -1e4), 0.0);
            assert_eq!(value!(ln, 0.0), -infinity);
            assert_eq!(value!(ln, 1.0), 0.0);
            assert_eq!(value!(ln, infinity), infinity);
            assert!(value!(ln, -1.0).is_nan());
            assert_eq!(value!(tanh, infinity), 1.0);
            assert_eq!(value!(tanh, -infinity), -1.0);
            assert_eq!(value!(tanh, -0.0).to_bits(), (-0.0f64).to_bits());
            assert_eq!(value!(sigmoid, infinity), 1.0);
            assert_eq!(value!(sigmoid, -infinity), 0.0);
            assert_eq!(value!(erf, infinity), 1.0);
            assert_eq!(value!(erf, -infinity), -1.0);
            assert_eq!(value!(gelu, infinity), infinity);
            assert_eq!(value!(gelu, -infinity), 0.0);
            assert_eq!(value!(gelu_prime, infinity), 1.0);
            assert_eq!(value!(gelu_prime, -infinity), 0.0);
            assert!(value!(sin, infinity).is_nan());
            assert_eq!(value!(acos, 1.0), 0.0);
            assert!((value!(acos, -1.0) - std::f64::consts::PI).abs() < 1e-6);
            assert!(value!(acos, 1.5).is_nan());
            assert_eq!(value!(rsqrt, infinity), 0.0);
            assert!(value!(exp, nan).is_nan());
            assert!(value!(ln, nan).is_nan());
            assert!(value!(tanh, nan).is_nan());
            assert!(value!(sigmoid, nan).is_nan());
            assert!(value!(erf, nan).is_nan());
            assert!(value!(gelu, nan).is_nan());
            assert!(value!(gelu_prime, nan).is_nan());
            assert!(value!(cos, nan).is_nan());
            assert!(value!(atan, nan).is_nan());
            assert!(value!(acos, nan).is_nan());
        }
    }
    check::<f32>();
    check::<f64>();
}
