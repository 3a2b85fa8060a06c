//! Determinants, eigenvectors and solutions.

use boltzmap_kernels::linalg::{
    LinearError, log_abs_det, log_abs_det_in_place_on, solve, symmetric_eigen,
};
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::{Tier, reference};
use proptest::prelude::*;

fn random(seed: u64, count: usize) -> Vec<f64> {
    let mut values = vec![0.0; count];
    Stream::new(seed, 0, 0).fill_standard_normal(&mut values);
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn determinants_match_the_scalar_twin(seed in any::<u64>(), n in 0usize..40) {
        let a = random(seed, n * n);
        let (log, sign) = reference::log_abs_det(&a, n);
        let mut fused = None;
        for tier in Tier::available() {
            let mut copy = a.clone();
            let result = log_abs_det_in_place_on(tier, &mut copy, n);
            // Random matrices: condition numbers of some thousands.
            prop_assert!((result.0 - log).abs() < 1e-9, "{} n = {n}: {} for {log}", tier.name(), result.0);
            prop_assert_eq!(result.1, sign);
            if tier != Tier::Portable {
                prop_assert_eq!(*fused.get_or_insert(result), result);
            }
        }
    }

    #[test]
    fn eigenvectors_rebuild_the_matrix(seed in any::<u64>(), n in 1usize..20) {
        let mut a = random(seed, n * n);
        for i in 0..n {
            for j in 0..i {
                a[i * n + j] = a[j * n + i];
            }
        }
        let eigen = symmetric_eigen(&a, n).unwrap();
        prop_assert!(eigen.values.is_sorted());
        for i in 0..n {
            for j in 0..n {
                let v = |row: usize, k: usize| eigen.vectors[row * n + k];
                let rebuilt: f64 = (0..n).map(|k| v(i, k) * eigen.values[k] * v(j, k)).sum();
                prop_assert!((rebuilt - a[i * n + j]).abs() < 1e-12 * n as f64);
                let product: f64 = (0..n).map(|k| v(k, i) * v(k, j)).sum();
                prop_assert!((product - f64::from(u8::from(i == j))).abs() < 1e-13 * n as f64);
            }
        }
    }

    #[test]
    fn solutions_satisfy_their_equations(seed in any::<u64>(), n in 1usize..20, columns in 1usize..4) {
        let mut a = random(seed, n * n);
        for i in 0..n {
            a[i * n + i] += 10.0;
        }
        let b = random(seed ^ 1, n * columns);
        let x = solve(&a, n, &b, columns).unwrap();
        for i in 0..n {
            for j in 0..columns {
                let left: f64 = (0..n).map(|k| a[i * n + k] * x[k * columns + j]).sum();
                prop_assert!((left - b[i * columns + j]).abs() < 1e-11);
            }
        }
    }
}

#[test]
fn known_determinants() {
    let close = |(log, sign): (f64, f64), expected: f64| {
        assert!(
            (sign * log.exp() - expected).abs() < 1e-12,
            "{sign} exp({log}) for {expected}"
        );
    };
    close(log_abs_det(&[], 0), 1.0);
    close(log_abs_det(&[-3.0], 1), -3.0);
    close(log_abs_det(&[0.0, 2.0, 1.0, 0.0], 2), -2.0);
    close(
        log_abs_det(&[2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 1.0, 0.0], 3),
        -6.0,
    );
    assert_eq!(
        log_abs_det(&[1.0, 2.0, 2.0, 4.0], 2),
        (f64::NEG_INFINITY, 0.0)
    );
    assert!(log_abs_det(&[1.0, f64::NAN, 2.0, 4.0], 2).0.is_nan());
    assert!(log_abs_det(&[1.0, 0.0, f64::NAN, 4.0], 2).0.is_nan());
}

#[test]
fn failures_are_reported() {
    assert_eq!(
        solve(&[1.0, 2.0, 2.0, 4.0], 2, &[1.0, 0.0], 1),
        Err(LinearError::Singular { order: 2 })
    );
    assert_eq!(
        symmetric_eigen(&[f64::NAN], 1),
        Err(LinearError::NoConvergence { order: 1 })
    );
}
