//! Every operation of every tier against scalar arithmetic.

use boltzmap_kernels::{Kernel, Lanes, Real, Simd, Tier, dispatch_on};

struct Operations<T>(std::marker::PhantomData<T>);

fn collect<L: Lanes>(x: L) -> Vec<f64> {
    (0..L::WIDTH).map(|lane| x.extract(lane).as_f64()).collect()
}

impl<T: Real> Kernel for Operations<T> {
    type Output = ();

    fn run<S: Simd>(self) {
        type V<T, S> = <T as Real>::Lanes<S>;
        let width = V::<T, S>::WIDTH;
        let values = [
            0.0, -0.0, 1.5, -2.5, 3.5, 1e9, -1e9, 0.49999997, -0.75, 2.5, 7.25, -8.5, 1e-3, 4.0,
            9.0, -16.0,
        ];
        for shift in 0..values.len() {
            let a: Vec<f64> = (0..width)
                .map(|i| T::from_f64(values[(i + shift) % 16]).as_f64())
                .collect();
            let b: Vec<f64> = (0..width)
                .map(|i| T::from_f64(values[(3 * i + 5 + shift) % 16]).as_f64())
                .collect();
            let x = V::<T, S>::from_fn(|i| T::from_f64(a[i]));
            let y = V::<T, S>::from_fn(|i| T::from_f64(b[i]));
            let expect = |name: &str, result: V<T, S>, function: &dyn Fn(f64, f64) -> f64| {
                for (lane, value) in collect(result).into_iter().enumerate() {
                    let expected = T::from_f64(function(a[lane], b[lane])).as_f64();
                    let same = value == expected || (value.is_nan() && expected.is_nan());
                    assert!(
                        same,
                        "{name} {:?} {}: {value} for {expected} of {} {}",
                        S::TIER,
                        T::NAME,
                        a[lane],
                        b[lane]
                    );
                }
            };
            let choose =
                |mask| V::<T, S>::select(mask, V::<T, S>::constant(1.0), V::<T, S>::zero());
            let number = |condition: bool| f64::from(u8::from(condition));
            expect("add", x + y, &|a, b| a + b);
            expect("sub", x - y, &|a, b| a - b);
            expect("mul", x * y, &|a, b| a * b);
            expect("div", x / y, &|a, b| a / b);
            expect("neg", -x, &|a, _| -a);
            expect("abs", x.abs(), &|a, _| a.abs());
            expect("sqrt", x.sqrt(), &|a, _| a.sqrt());
            expect("round", x.round(), &|a, _| a.round_ties_even());
            expect("floor", x.floor(), &|a, _| a.floor());
            expect("min", x.min(y), &|a, b| if a < b { a } else { b });
            expect("max", x.max(y), &|a, b| if a > b { a } else { b });
            expect("reciprocal", x.reciprocal(), &|a, _| 1.0 / a);
            expect("copy_sign", x.copy_sign(y), &|a, b| a.copysign(b));
            expect("lt", choose(x.lt(y)), &|a, b| number(a < b));
            expect("le", choose(x.le(y)), &|a, b| number(a <= b));
            expect("gt", choose(x.gt(y)), &|a, b| number(a > b));
            expect("eq", choose(x.eq(x.min(y))), &|a, b| number(a <= b));
            let (less, equal) = (x.lt(y), x.eq(y));
            expect("or", choose(V::<T, S>::mask_or(less, equal)), &|a, b| {
                number(a <= b)
            });
            expect(
                "and",
                choose(V::<T, S>::mask_and(less, x.lt(V::<T, S>::zero()))),
                &|a, b| number(a < b && a < 0.0),
            );
            expect("not", choose(V::<T, S>::mask_not(less)), &|a, b| {
                number(a >= b)
            });
            assert_eq!(V::<T, S>::mask_any(less), (0..width).any(|i| a[i] < b[i]));
            // Exact in both roundings: small integers.
            let (p, q) = (
                x.round()
                    .min(V::<T, S>::constant(9.0))
                    .max(V::<T, S>::constant(-9.0)),
                V::<T, S>::constant(3.0),
            );
            let bounded = |a: f64| a.round_ties_even().clamp(-9.0, 9.0);
            expect("mul_add", p.mul_add(q, q), &|a, _| bounded(a) * 3.0 + 3.0);
            expect("neg_mul_add", p.neg_mul_add(q, q), &|a, _| {
                3.0 - bounded(a) * 3.0
            });
            let tenths: f64 = (0..width).map(|i| i as f64).sum();
            assert_eq!(
                V::<T, S>::from_fn(|i| T::from_f64(i as f64))
                    .reduce_sum()
                    .as_f64(),
                tenths
            );
            assert_eq!(
                x.reduce_max().as_f64(),
                a.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            );
            let (low, high) = x.interleave(y);
            for i in 0..width / 2 {
                assert_eq!(
                    (low.extract(2 * i).as_f64(), low.extract(2 * i + 1).as_f64()),
                    (a[i], b[i])
                );
                let j = width / 2 + i;
                assert_eq!(
                    (
                        high.extract(2 * i).as_f64(),
                        high.extract(2 * i + 1).as_f64()
                    ),
                    (a[j], b[j])
                );
            }
            for count in 0..=width {
                let source: Vec<T> = a[..count].iter().map(|&a| T::from_f64(a)).collect();
                let loaded = V::<T, S>::load_partial(&source, T::from_f64(7.0));
                let mut target = vec![T::from_f64(9.0); count];
                loaded.store_partial(&mut target);
                assert_eq!(target, source);
                assert!((count..width).all(|lane| loaded.extract(lane).as_f64() == 7.0));
            }
        }
        let mut rows = [V::<T, S>::zero(); 16];
        for (r, row) in rows.iter_mut().enumerate().take(width) {
            *row = V::<T, S>::from_fn(|c| T::from_f64((r * 100 + c) as f64));
        }
        V::<T, S>::transpose(&mut rows);
        for (r, row) in rows.iter().enumerate().take(width) {
            assert_eq!(
                collect(*row),
                (0..width).map(|c| (c * 100 + r) as f64).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn operations_match_scalar_arithmetic() {
    for tier in Tier::available() {
        dispatch_on(tier, Operations::<f32>(std::marker::PhantomData));
        dispatch_on(tier, Operations::<f64>(std::marker::PhantomData));
    }
}

/// Integer operations on the bits.
struct Bits;

impl Kernel for Bits {
    type Output = ();

    fn run<S: Simd>(self) {
        let words = |i: usize| 0x9e37_79b9u32.wrapping_mul(i as u32 + 1);
        let more = |i: usize| 0x85eb_ca6bu32.wrapping_mul(i as u32 + 7);
        let x = S::F32::from_fn(|i| f32::from_bits(words(i)));
        let y = S::F32::from_fn(|i| f32::from_bits(more(i)));
        let expect = |result: S::F32, function: &dyn Fn(u32, u32) -> u32| {
            for lane in 0..S::F32::WIDTH {
                assert_eq!(
                    result.extract(lane).to_bits(),
                    function(words(lane), more(lane))
                );
            }
        };
        expect(x.bit_and(y), &|a, b| a & b);
        expect(x.bit_or(y), &|a, b| a | b);
        expect(x.bit_xor(y), &|a, b| a ^ b);
        expect(x.integer_add(y), &|a, b| a.wrapping_add(b));
        expect(x.integer_sub(y), &|a, b| a.wrapping_sub(b));
        expect(x.shift_left::<5>(), &|a, _| a << 5);
        expect(x.shift_right::<5>(), &|a, _| a >> 5);
        expect(x.rotate_left::<7, 25>(), &|a, _| a.rotate_left(7));
        expect(S::F32::splat_bits(0xffff_0001), &|_, _| 0xffff_0001);
        let wide = |i: usize| 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i as u64 + 1);
        let x = S::F64::from_fn(|i| f64::from_bits(wide(i)));
        let y = S::F64::splat_bits(0x0123_4567_89ab_cdef);
        for lane in 0..S::F64::WIDTH {
            let a = wide(lane);
            let b = 0x0123_4567_89ab_cdefu64;
            assert_eq!(x.bit_xor(y).extract(lane).to_bits(), a ^ b);
            assert_eq!(x.integer_add(y).extract(lane).to_bits(), a.wrapping_add(b));
            assert_eq!(x.integer_sub(y).extract(lane).to_bits(), a.wrapping_sub(b));
            assert_eq!(x.shift_left::<13>().extract(lane).to_bits(), a << 13);
            assert_eq!(x.shift_right::<13>().extract(lane).to_bits(), a >> 13);
        }
    }
}

#[test]
fn bit_operations_match_integers() {
    for tier in Tier::available() {
        dispatch_on(tier, Bits);
    }
}
