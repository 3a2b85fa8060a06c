//! Wasserstein-2 distances: between energies (one dimension) and between torsions (torus, exact).

use super::transport::{self, Certificate, Points};

/// Why a distance could not be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// An empty sample.
    #[error("{0} is empty; a metric needs at least one sample")]
    Empty(&'static str),
    /// A length that does not fit.
    #[error("{what} has {found} entries, which is not what {expected} asks for; check its shape")]
    Shape {
        /// Which array.
        what: &'static str,
        /// Its length.
        found: usize,
        /// What was expected.
        expected: String,
    },
    /// NaN or infinity.
    #[error(
        "entry {index} of {what} is not a finite number; drop the sample before computing the metric"
    )]
    NotFinite {
        /// Which array.
        what: &'static str,
        /// Where.
        index: usize,
    },
    /// A parameter outside its range.
    #[error("{0}")]
    Parameter(String),
}

pub(crate) fn check_finite(what: &'static str, values: &[f64]) -> Result<(), MetricError> {
    if values.is_empty() {
        return Err(MetricError::Empty(what));
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(MetricError::NotFinite { what, index }),
        None => Ok(()),
    }
}

/// W₂ between two one-dimensional samples: √∫₀¹ (F_a⁻¹ − F_b⁻¹)² du; for equal n √mean((sort a − sort b)²).
///
/// # Errors
/// An empty sample or a value that is not finite.
pub fn e_w2(a: &[f64], b: &[f64]) -> Result<f64, MetricError> {
    check_finite("the first sample of energies", a)?;
    check_finite("the second sample of energies", b)?;
    let sorted = |x: &[f64]| {
        let mut x = x.to_vec();
        x.sort_by(f64::total_cmp);
        x
    };
    let (a, b) = (sorted(a), sorted(b));
    // Quantile functions are constant on steps of 1/n and 1/m: walk both in units of 1/(n m).
    let (n, m) = (a.len() as u128, b.len() as u128);
    let (mut i, mut j, mut at) = (0, 0, 0u128);
    let mut sum = 0.0;
    while i < a.len() && j < b.len() {
        let (end_a, end_b) = ((i as u128 + 1) * m, (j as u128 + 1) * n);
        let end = end_a.min(end_b);
        let difference: f64 = a[i] - b[j];
        sum += difference * difference * (end - at) as f64;
        at = end;
        i += usize::from(end == end_a);
        j += usize::from(end == end_b);
    }
    Ok((sum / (n * m) as f64).sqrt())
}

/// A Wasserstein distance with the proof that it is the minimum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorusDistance {
    /// W₂ = √(mean cost), rad
    pub distance: f64,
    /// (primal − dual)/primal of W₂²: how far the plan can be from optimal, of the order of rounding.
    pub relative_gap: f64,
    /// The mean costs themselves.
    pub certificate: Certificate,
}

/// Exact W₂ on the torus between samples of `dimension` angles (φ, ψ of every residue), `a` `[n, dimension]`, `b` `[m, dimension]`, rad.
///
/// Cost Σ min(|Δ|, 2π − |Δ|)². Equal points are merged into one with their number as mass, so resampled sets are cheaper, not
/// dearer; n and m may differ. Deterministic for any number of threads.
///
/// # Errors
/// Empty samples, wrong lengths, angles that are not finite, or sizes whose common multiple overflows.
pub fn t_w2(a: &[f64], b: &[f64], dimension: usize) -> Result<TorusDistance, MetricError> {
    check_finite("the first sample of torsions", a)?;
    check_finite("the second sample of torsions", b)?;
    for (what, x) in [
        ("the first sample of torsions", a),
        ("the second sample of torsions", b),
    ] {
        if dimension == 0 || !x.len().is_multiple_of(dimension) {
            return Err(MetricError::Shape {
                what,
                found: x.len(),
                expected: format!("[n, {dimension}]"),
            });
        }
    }
    let (n, m) = (a.len() / dimension, b.len() / dimension);
    let common = n / greatest_common_divisor(n, m);
    // Mass units: every point of `a` weighs lcm/n, every point of `b` lcm/m.
    let (unit_a, unit_b) = ((m / greatest_common_divisor(n, m)) as i64, common as i64);
    if n.checked_mul(unit_a as usize)
        .is_none_or(|total| total > 1 << 52)
    {
        return Err(MetricError::Parameter(format!(
            "samples of {n} and {m} torsions have no common unit of weight that fits; use sizes with a common factor"
        )));
    }
    let certificate = transport::solve(
        &Points::merged(a, dimension, unit_a),
        &Points::merged(b, dimension, unit_b),
    )
    .certificate;
    Ok(TorusDistance {
        distance: certificate.primal.max(0.0).sqrt(),
        relative_gap: certificate.relative_gap(),
        certificate,
    })
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;
    use std::f64::consts::{PI, TAU};

    fn brute(a: &[f64], b: &[f64], d: usize) -> f64 {
        // All permutations of up to seven points, by Heap's algorithm written recursively.
        fn best(i: usize, used: &mut [bool], cost: &dyn Fn(usize, usize) -> f64) -> f64 {
            if i == used.len() {
                return 0.0;
            }
            let mut least = f64::INFINITY;
            for j in 0..used.len() {
                if !used[j] {
                    used[j] = true;
                    least = least.min(cost(i, j) + best(i + 1, used, cost));
                    used[j] = false;
                }
            }
            least
        }
        let n = a.len() / d;
        let cost = |i: usize, j: usize| {
            (0..d)
                .map(|k| {
                    let delta = (a[i * d + k] - b[j * d + k]).rem_euclid(TAU);
                    delta.min(TAU - delta).powi(2)
                })
                .sum()
        };
        (best(0, &mut vec![false; n], &cost) / n as f64).sqrt()
    }

    fn uniform(n: usize, seed: u64) -> Vec<f64> {
        let mut stream = Stream::new(seed, 0, 0);
        (0..n).map(|_| TAU * stream.uniform() - PI).collect()
    }

    /// Two basins with populations (1 − p, p), Gaussian of the given widths.
    fn basins(n: usize, p: f64, seed: u64) -> Vec<f64> {
        let mut stream = Stream::new(seed, 0, 0);
        (0..n)
            .flat_map(|_| {
                let centre = if stream.uniform() < p {
                    [1.0, 0.8]
                } else {
                    [-1.5, 2.6]
                };
                centre.map(|c| c + 0.35 * stream.standard_normal())
            })
            .collect()
    }

    #[test]
    fn equals_brute_force_on_small_sets() {
        for seed in 0..40 {
            let n = 2 + (seed as usize % 6);
            for d in [1, 2, 4] {
                let (a, mut b) = (uniform(n * d, seed), uniform(n * d, seed + 1000));
                if seed % 3 == 0 {
                    // Duplicates.
                    b.copy_within(0..d, d);
                }
                let found = t_w2(&a, &b, d).unwrap();
                assert!(
                    (found.distance - brute(&a, &b, d)).abs() < 1e-12,
                    "{seed} {d}"
                );
                assert!(found.relative_gap.abs() < 1e-12);
            }
        }
    }

    #[test]
    fn translation_on_the_torus_is_its_length() {
        // For a small shift the identity pairing is optimal (it is cyclically monotone): W₂ = |shift|, across the cut as well.
        let a = basins(3000, 0.3, 3);
        let shift = [0.21, -0.34];
        let b: Vec<f64> = a
            .iter()
            .enumerate()
            .map(|(i, v)| v + shift[i % 2])
            .collect();
        let found = t_w2(&a, &b, 2).unwrap();
        let length = (shift[0] * shift[0] + shift[1] * shift[1]).sqrt();
        assert!(
            (found.distance - length).abs() < 1e-10,
            "{} {length}",
            found.distance
        );
        assert!(found.relative_gap.abs() < 1e-9);
        assert_eq!(t_w2(&a, &a, 2).unwrap().distance, 0.0);
    }

    #[test]
    fn unequal_sizes_and_duplicates_agree_with_their_expansion() {
        let (a, b) = (basins(60, 0.4, 1), basins(90, 0.2, 2));
        let repeat =
            |x: &[f64], k: usize| -> Vec<f64> { x.chunks(2).flat_map(|p| p.repeat(k)).collect() };
        let direct = t_w2(&a, &b, 2).unwrap();
        let expanded = t_w2(&repeat(&a, 3), &repeat(&b, 2), 2).unwrap();
        assert!((direct.distance - expanded.distance).abs() < 1e-12);
        assert!(direct.relative_gap.abs() < 1e-9);
        // Symmetric in its arguments.
        assert!((t_w2(&b, &a, 2).unwrap().distance - direct.distance).abs() < 1e-12);
    }

    #[test]
    fn certified_across_basins_of_different_weight() {
        for (n, p, q) in [(1500, 0.1, 0.1), (1500, 0.05, 0.4), (700, 0.0, 1.0)] {
            let found = t_w2(&basins(n, p, 5), &basins(n, q, 6), 2).unwrap();
            assert!(found.relative_gap.abs() < 1e-9, "{found:?}");
        }
        // Resampled with many duplicates against a plain set.
        let (a, pool) = (basins(1500, 0.1, 8), basins(40, 0.3, 9));
        let b: Vec<f64> = (0..1500)
            .flat_map(|i| pool[2 * (i * i % 40)..2 * (i * i % 40) + 2].to_vec())
            .collect();
        assert!(t_w2(&a, &b, 2).unwrap().relative_gap.abs() < 1e-9);
    }

    #[test]
    #[ignore = "timing: cargo test -p boltzmap-statistics --release ten_thousand -- --ignored --nocapture"]
    fn ten_thousand() {
        let n = 10_000;
        let mut stream = Stream::new(1, 0, 0);
        let near = basins(n, 0.1, 1);
        let resampled: Vec<f64> = {
            let pool = basins(n, 0.2, 4);
            (0..n)
                .flat_map(|_| {
                    let k = (500.0 * stream.uniform().powi(3)) as usize;
                    pool[2 * k..2 * k + 2].to_vec()
                })
                .collect()
        };
        for (name, other, d) in [
            ("same distribution", basins(n, 0.1, 2), 2),
            ("ten per cent moved", basins(n, 0.2, 3), 2),
            ("half moved", basins(n, 0.6, 3), 2),
            ("resampled", resampled, 2),
            ("uniform", uniform(2 * n, 7), 2),
            ("as four torsions", basins(n, 0.15, 11), 4),
        ] {
            let start = std::time::Instant::now();
            let found = t_w2(&near, &other, d).unwrap();
            println!(
                "{name}: W2 {:.6} gap {:.1e} {:.2} s",
                found.distance,
                found.relative_gap,
                start.elapsed().as_secs_f64()
            );
        }
    }

    #[test]
    fn energies_of_equal_and_unequal_number() {
        assert!(
            (e_w2(&[3.0, 1.0], &[2.0, 6.0]).unwrap() - (0.5f64 * (1.0 + 9.0)).sqrt()).abs() < 1e-15
        );
        // {0} against {0, 2}: half the mass moves by 2.
        assert!((e_w2(&[0.0], &[0.0, 2.0]).unwrap() - 2.0f64.sqrt()).abs() < 1e-15);
        let (a, b) = (uniform(6, 1), uniform(9, 2));
        let repeat =
            |x: &[f64], k: usize| -> Vec<f64> { x.iter().flat_map(|v| vec![*v; k]).collect() };
        let direct = e_w2(&a, &b).unwrap();
        assert!((direct - e_w2(&repeat(&a, 3), &repeat(&b, 2)).unwrap()).abs() < 1e-14);
        assert!(e_w2(&[], &a).unwrap_err().to_string().contains("empty"));
        assert!(
            e_w2(&[f64::NAN], &a)
                .unwrap_err()
                .to_string()
                .contains("entry 0")
        );
        assert!(t_w2(&[1.0; 3], &[1.0; 4], 2).is_err());
    }
}
