//! Matrix products against the textbook triple loop.

use boltzmap_kernels::gemm::{
    BatchedGemmShape, Factor, Finish, GemmShape, Product, RightFactor, Start, batched_gemm_on,
    gemm, multiply, pack_panels, panels_length,
};
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::{Real, Tier, reference};
use proptest::prelude::*;

fn random<T: Real>(stream: &mut Stream, count: usize) -> (Vec<T>, Vec<f64>) {
    let mut values = vec![T::zero(); count];
    stream.fill_standard_normal(&mut values);
    let exact = values.iter().map(|&v| v.as_f64()).collect();
    (values, exact)
}

fn check<T: Real>(seed: u64, batch: BatchedGemmShape, ta: bool, tb: bool, alpha: f64, beta: f64) {
    let BatchedGemmShape {
        batch: count,
        shape,
        stride_a,
        stride_b,
        stride_c,
    } = batch;
    let GemmShape { m, n, k } = shape;
    let mut stream = Stream::new(seed, 0, 0);
    let (a, a_exact) = random::<T>(&mut stream, stride_a * count + m * k);
    let (b, b_exact) = random::<T>(&mut stream, stride_b * count + k * n);
    let (c, mut c_exact) = random::<T>(&mut stream, stride_c * count + m * n);
    for i in 0..count {
        let c = &mut c_exact[i * stride_c..];
        reference::gemm(
            shape,
            alpha,
            &a_exact[i * stride_a..],
            ta,
            &b_exact[i * stride_b..],
            tb,
            beta,
            c,
        );
    }
    // Standard normal factors: a sum of k products, each rounding at most half a unit of the running sum.
    let tolerance = 4.0 * (k as f64 + 4.0) * T::epsilon().as_f64();
    let compare = |name: &str, result: &[T]| {
        for (index, (&value, &expected)) in result.iter().zip(&c_exact).enumerate() {
            let error = (value.as_f64() - expected).abs();
            assert!(
                error <= tolerance,
                "{name} {batch:?} {ta} {tb} element {index}: {value} for {expected}"
            );
        }
    };
    for tier in Tier::available() {
        let mut result = c.clone();
        batched_gemm_on(
            tier,
            batch,
            T::from_f64(alpha),
            &a,
            ta,
            &b,
            tb,
            T::from_f64(beta),
            &mut result,
        );
        compare(tier.name(), &result);
    }
    let mut result = c.clone();
    for i in 0..count {
        let c = &mut result[i * stride_c..];
        gemm(
            shape,
            T::from_f64(alpha),
            &a[i * stride_a..],
            ta,
            &b[i * stride_b..],
            tb,
            T::from_f64(beta),
            c,
        );
    }
    compare("gemm", &result);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn products_match_the_triple_loop(
        seed in any::<u64>(),
        count in 0usize..4,
        m in 0usize..40,
        n in 0usize..70,
        k in 0usize..40,
        shared_a in any::<bool>(),
        shared_b in any::<bool>(),
        gap in 0usize..3,
        ta in any::<bool>(),
        tb in any::<bool>(),
        alpha in prop::sample::select(vec![1.0, -0.5]),
        beta in prop::sample::select(vec![0.0, 1.0, 0.25]),
    ) {
        let mut batch = BatchedGemmShape::contiguous(count, m, n, k);
        batch.stride_a = if shared_a { 0 } else { batch.stride_a + gap };
        batch.stride_b = if shared_b { 0 } else { batch.stride_b + gap };
        batch.stride_c += gap;
        check::<f32>(seed, batch, ta, tb, alpha, beta);
        check::<f64>(seed, batch, ta, tb, alpha, beta);
    }
}

#[test]
fn old_contents_are_not_read_when_beta_is_zero() {
    for tier in Tier::available() {
        let mut c = [f32::NAN; 6];
        batched_gemm_on(
            tier,
            BatchedGemmShape::contiguous(1, 2, 3, 1),
            1.0,
            &[1.0, 2.0],
            false,
            &[3.0, 4.0, 5.0],
            false,
            0.0,
            &mut c,
        );
        assert_eq!(c, [3.0, 4.0, 5.0, 6.0, 8.0, 10.0]);
    }
    let mut c = [f64::NAN; 2];
    gemm(
        GemmShape { m: 1, n: 2, k: 0 },
        1.0,
        &[],
        false,
        &[],
        false,
        0.0,
        &mut c,
    );
    assert_eq!(c, [0.0; 2]);
}

/// The tiers with fused multiply-add give the same bits; sizes around every limit of the kernel's blocking.
#[test]
fn tiers_with_fused_multiply_add_agree_in_every_bit() {
    fn compare<T: Real>(shape: GemmShape, ta: bool, tb: bool) {
        let GemmShape { m, n, k } = shape;
        let mut stream = Stream::new(7, 1, (m * 31 + n * 17 + k) as u64);
        let (a, _) = random::<T>(&mut stream, m * k);
        let (b, _) = random::<T>(&mut stream, k * n);
        let batch = BatchedGemmShape::contiguous(1, m, n, k);
        let results: Vec<Vec<T>> = Tier::available()
            .into_iter()
            .filter(|tier| *tier != Tier::Portable)
            .map(|tier| {
                let mut c = vec![T::one(); m * n];
                batched_gemm_on(tier, batch, T::one(), &a, ta, &b, tb, T::one(), &mut c);
                c
            })
            .collect();
        for other in results.iter().skip(1) {
            assert!(results[0] == *other, "{shape:?} {ta} {tb}");
        }
    }
    let shapes = [
        (1, 1, 1),
        (22, 22, 32),
        (63, 37, 513),
        (9, 1100, 300),
        (200, 33, 1030),
        (2100, 5, 64),
    ];
    for (m, n, k) in shapes {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            compare::<f32>(GemmShape { m, n, k }, ta, tb);
            compare::<f64>(GemmShape { m, n, k }, ta, tb);
        }
    }
}

/// Starts, strides and panels against the same product made the plain way, to the bit.
#[test]
fn starts_strides_and_panels() {
    for (m, n, k) in [(5, 3, 4), (17, 40, 9), (30, 96, 300), (70, 1030, 600)] {
        let mut stream = Stream::new(3, 2, (m + n + k) as u64);
        let (a, a_exact) = random::<f64>(&mut stream, m * k);
        let (b, b_exact) = random::<f64>(&mut stream, k * n);
        let (bias, _) = random::<f64>(&mut stream, n);
        let (addend, _) = random::<f64>(&mut stream, m * n);
        let mut panels = vec![f64::NAN; panels_length::<f64>(k, n)];
        let right = Factor {
            data: b.as_ptr(),
            row: n,
            column: 1,
        };
        // SAFETY: `b` is k rows of n elements.
        unsafe { pack_panels(right, k, n, &mut panels) };
        // C lies inside a wider matrix, whose other columns must stay.
        let wide = n + 3;
        for (number, start) in [
            Start::Zero,
            Start::Target,
            Start::Row(bias.as_ptr()),
            Start::Matrix(addend.as_ptr(), n),
        ]
        .into_iter()
        .enumerate()
        {
            let mut expected = vec![0.25; m * wide];
            for i in 0..m {
                for j in 0..n {
                    let first = [0.0, 0.25, bias[j], addend[i * n + j]][number];
                    let row = &a_exact[i * k..][..k];
                    let products = row.iter().enumerate().map(|(p, a)| a * b_exact[p * n + j]);
                    expected[i * wide + j] = first + products.sum::<f64>();
                }
            }
            for (b, period) in [
                (RightFactor::Strided(right), None),
                (RightFactor::Panels(panels.as_ptr()), None),
                (RightFactor::Panels(panels.as_ptr()), Some(m)),
                (RightFactor::Panels(panels.as_ptr()), Some(m.div_ceil(2))),
                (RightFactor::Strided(right), Some(3.min(m))),
                (RightFactor::Panels(panels.as_ptr()), Some(1)),
            ] {
                let mut expected = expected.clone();
                if let Some(period) = period {
                    for i in 0..m {
                        for j in 0..n {
                            expected[i * wide + j] *= addend[i % period * n + j];
                        }
                    }
                }
                let mut c = vec![0.25; m * wide];
                let product = Product {
                    m,
                    n,
                    k,
                    a: Factor {
                        data: a.as_ptr(),
                        row: k,
                        column: 1,
                    },
                    b,
                    c: c.as_mut_ptr(),
                    c_row: wide,
                    start,
                    finish: match period {
                        Some(period) => Finish::Multiply {
                            data: addend.as_ptr(),
                            row: n,
                            period,
                        },
                        None => Finish::Keep,
                    },
                };
                // SAFETY: the matrices have the sizes given, and C is a vector of its own.
                unsafe { multiply(std::iter::once(product)) };
                for (i, (found, expected)) in c.iter().zip(&expected).enumerate() {
                    assert!(
                        (found - expected).abs() < 1e-12 * (k as f64 + 4.0),
                        "{m} {n} {k}, start {number}, period {period:?}, element {i}: {found} for {expected}"
                    );
                }
            }
        }
    }
}
