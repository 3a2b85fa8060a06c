//! Determinants of small dense matrices.

/// (log|det A|, sign of det A) of a row-major n×n matrix, by LU factorisation with partial pivoting in f64. A singular
/// matrix gives (−∞, 0).
///
/// # Panics
/// If `matrix` does not hold n² numbers.
pub fn log_abs_det(matrix: &[f64], n: usize) -> (f64, f64) {
    assert_eq!(matrix.len(), n * n, "a matrix of {n} rows and columns");
    let mut a = matrix.to_vec();
    let (mut log, mut sign) = (0.0, 1.0);
    for k in 0..n {
        let mut pivot = k;
        for i in k + 1..n {
            if a[i * n + k].abs() > a[pivot * n + k].abs() {
                pivot = i;
            }
        }
        if pivot != k {
            sign = -sign;
            for j in k..n {
                a.swap(pivot * n + j, k * n + j);
            }
        }
        let diagonal = a[k * n + k];
        if diagonal == 0.0 {
            return (f64::NEG_INFINITY, 0.0);
        }
        log += diagonal.abs().ln();
        sign *= diagonal.signum();
        let (upper, lower) = a.split_at_mut((k + 1) * n);
        let row = &upper[k * n + k + 1..];
        for target in lower.chunks_exact_mut(n) {
            let factor = target[k] / diagonal;
            for (target, value) in target[k + 1..].iter_mut().zip(row) {
                *target -= factor * value;
            }
        }
    }
    (log, sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn determinants_of_known_matrices() {
        assert_eq!(log_abs_det(&[0.0, 2.0, -3.0, 0.0], 2), (6.0f64.ln(), 1.0));
        assert_eq!(log_abs_det(&[0.0, 1.0, 1.0, 0.0], 2), (0.0, -1.0));
        assert_eq!(
            log_abs_det(&[1.0, 2.0, 2.0, 4.0], 2),
            (f64::NEG_INFINITY, 0.0)
        );
        // Hilbert matrix of order 5: 1/266716800000.
        let hilbert: Vec<f64> = (0..25).map(|i| 1.0 / (i / 5 + i % 5 + 1) as f64).collect();
        let (log, sign) = log_abs_det(&hilbert, 5);
        assert!((log + 266_716_800_000.0f64.ln()).abs() < 1e-9 && sign == 1.0);
    }
}
