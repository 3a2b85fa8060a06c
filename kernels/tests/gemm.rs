//! Matrix products against the textbook triple loop.

use boltzmap_kernels::gemm::{BatchedGemmShape, GemmShape, batched_gemm_on, gemm};
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
    compare("faer", &result);
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
