//! ΔF and the shares of basins by exact likelihoods, by the head and by the reference.

use boltzmap_kernels::random::{Stream, domain};
use boltzmap_statistics::{self as statistics, Interval};
use serde::Serialize;

use super::super::data::Data;
use super::super::frames::ResidueBasin;
use super::super::molecule::Molecule;
use crate::report::{Band, free_energy_profile};

const DOMAIN_PROFILE: u64 = domain::PROFILE_BOOTSTRAP;
const DOMAIN_PAIRED: u64 = domain::PAIRED_BOOTSTRAP;
/// Bins of the φ profile.
pub(super) const PROFILE_BINS: usize = 60;
/// Share of a bootstrap's replicates that may be infinite before its spread says nothing.
const MOST_INFINITE: f64 = 0.05;

/// The standard error of a free energy; NaN where a state is empty, in the estimate or in more than a few of the replicates.
pub(super) fn error_of(free_energy: &Interval, replicates: usize) -> f64 {
    let infinite = free_energy.infinite as f64 / replicates.max(1) as f64;
    if free_energy.value.is_finite() && infinite <= MOST_INFINITE {
        free_energy.standard_error
    } else {
        f64::NAN
    }
}

/// ΔF by the head less ΔF by exact likelihoods on the same samples, kT, with a bootstrap's standard error of the difference.
pub(super) fn head_minus_exact(
    in_state: &[bool],
    exact: &[f64],
    head: &[f64],
    replicates: usize,
    seed: u64,
) -> (f64, f64) {
    let (Some(exact), Some(head)) = (statistics::normalised(exact), statistics::normalised(head))
    else {
        return (f64::NAN, f64::NAN);
    };
    // Masses of the state and of the rest by exact weights, and by the head's.
    let masses = |counts: &dyn Fn(usize) -> f64| {
        let mut sums = [0.0; 4];
        for (i, &inside) in in_state.iter().enumerate() {
            let (count, rest) = (counts(i), usize::from(!inside));
            sums[rest] += count * exact[i];
            sums[2 + rest] += count * head[i];
        }
        -(sums[2] / sums[3]).ln() + (sums[0] / sums[1]).ln()
    };
    let n = in_state.len();
    let values: Vec<f64> = (0..replicates)
        .map(|replicate| {
            let mut stream = Stream::new(seed, DOMAIN_PAIRED, replicate as u64);
            let mut counts = vec![0.0; n];
            for _ in 0..n {
                counts[stream.below(n as u64) as usize] += 1.0;
            }
            masses(&|i| counts[i])
        })
        .filter(|value| value.is_finite())
        .collect();
    let (_, deviation) = super::mean_and_deviation(&values);
    let enough = values.len() as f64 >= (1.0 - MOST_INFINITE) * replicates as f64;
    let error = if enough { deviation } else { f64::NAN };
    (masses(&|_| 1.0), error)
}

/// The shares of one basin.
#[derive(Clone, Debug, Serialize)]
pub struct BasinShares {
    /// The residue's φ.
    pub torsion: String,
    /// Where the basin starts, rad.
    pub low: f64,
    /// Where it ends, rad.
    pub high: f64,
    /// Share of the dynamics at the target temperature, all ladders.
    pub reference: f64,
    /// Its standard error, from the spread between ladders.
    pub reference_error: f64,
    /// Share of the samples as drawn.
    pub proposal: f64,
    /// Share of the samples weighted by exact likelihoods (by the head's where none is exact).
    pub reweighted: f64,
    /// Its standard error.
    pub reweighted_error: f64,
    /// Share of the same samples weighted by the head.
    pub by_head: f64,
}

/// Samples with weights.
pub(super) struct Weighted<'w> {
    /// φ₁, ψ₁, … of the samples that carry weights, rad.
    pub(super) torus: &'w [f64],
    /// Normalised weights; empty where no sample has one.
    pub(super) weights: &'w [f64],
    /// The same by the head; empty where there is none.
    pub(super) head: &'w [f64],
}

/// The shares of every basin of every residue.
pub(super) fn basin_shares(
    data: &Data,
    molecule: &Molecule,
    proposal: &[f64],
    weighted: &Weighted<'_>,
) -> Vec<BasinShares> {
    let d = molecule.torus_dimension;
    let names = molecule.torsion_names();
    let groups = ladder_groups(&data.ladder);
    let share = |rows: &[f64], basin: &ResidueBasin| {
        let held = rows.chunks_exact(d).filter(|row| basin.holds(row)).count();
        held as f64 / (rows.len() / d) as f64
    };
    data.basins
        .iter()
        .map(|basin| {
            let of_ladders: Vec<f64> = groups
                .iter()
                .map(|&[start, end]| share(&data.torus[start * d..end * d], basin))
                .collect();
            let (_, deviation) = super::mean_and_deviation(&of_ladders);
            let rows = || weighted.torus.chunks_exact(d);
            let mass = |weights: &[f64]| -> f64 {
                let held = rows().zip(weights).filter(|(row, _)| basin.holds(row));
                match weights.is_empty() {
                    true => f64::NAN,
                    false => held.map(|(_, weight)| weight).sum(),
                }
            };
            let reweighted = mass(weighted.weights);
            let squares: f64 = rows()
                .zip(weighted.weights)
                .map(|(row, weight)| {
                    let inside = f64::from(u8::from(basin.holds(row)));
                    (weight * (inside - reweighted)).powi(2)
                })
                .sum();
            BasinShares {
                torsion: names[2 * basin.residue].clone(),
                low: basin.basin.low,
                high: basin.basin.high,
                reference: share(&data.torus, basin),
                reference_error: deviation / (groups.len() as f64).sqrt(),
                proposal: share(proposal, basin),
                reweighted,
                reweighted_error: squares.sqrt(),
                by_head: mass(weighted.head),
            }
        })
        .collect()
}

/// Consecutive samples of one ladder.
pub(super) fn ladder_groups(ladder: &[i64]) -> Vec<[usize; 2]> {
    let mut groups: Vec<[usize; 2]> = Vec::new();
    for (i, number) in ladder.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if ladder[group[0]] == *number => group[1] = i + 1,
            _ => groups.push([i, i + 1]),
        }
    }
    groups
}

/// −ln p(φ) with a bootstrap band over groups of samples (half-open ranges).
pub(super) fn profile_band(
    phi: &[f64],
    weights: &[f64],
    groups: &[[usize; 2]],
    replicates: usize,
    seed: u64,
) -> Band {
    let value = free_energy_profile(phi, weights, PROFILE_BINS);
    let weight = |i: usize| weights.get(i).copied().unwrap_or(1.0);
    let mut draws: Vec<Vec<f64>> = vec![Vec::new(); PROFILE_BINS];
    for replicate in 0..replicates {
        let mut stream = Stream::new(seed, DOMAIN_PROFILE, replicate as u64);
        let mut counts = vec![0.0; phi.len()];
        for _ in 0..groups.len() {
            let [start, end] = groups[stream.below(groups.len() as u64) as usize];
            counts[start..end]
                .iter_mut()
                .for_each(|count| *count += 1.0);
        }
        let drawn: Vec<f64> = (0..phi.len()).map(|i| counts[i] * weight(i)).collect();
        for (bin, value) in free_energy_profile(phi, &drawn, PROFILE_BINS)
            .iter()
            .enumerate()
        {
            draws[bin].push(*value);
        }
    }
    // Empty bins of a replicate have an infinite free energy.
    let quantile = |bin: usize, q: f64| {
        let mut sorted: Vec<f64> = draws[bin]
            .iter()
            .map(|v| if v.is_nan() { f64::INFINITY } else { *v })
            .collect();
        sorted.sort_by(f64::total_cmp);
        let at =
            sorted.get(((q * sorted.len() as f64) as usize).min(sorted.len().saturating_sub(1)));
        at.copied().filter(|v| v.is_finite()).unwrap_or(f64::NAN)
    };
    let over_bins = |q: f64| (0..PROFILE_BINS).map(|bin| quantile(bin, q)).collect();
    Band {
        low: over_bins(0.16),
        high: over_bins(0.84),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_is_wrong_in_a_rare_state_shifts_its_free_energy() {
        // One sample in fifty lies in the state, where the head is 1.5 nats too low: its weights there are e^1.5 too large.
        let n = 5000;
        let in_state: Vec<bool> = (0..n).map(|i| i % 50 == 0).collect();
        let exact = vec![0.0; n];
        let head: Vec<f64> = in_state
            .iter()
            .map(|&i| if i { 1.5 } else { 0.0 })
            .collect();
        let (shift, error) = head_minus_exact(&in_state, &exact, &head, 200, 1);
        assert!(
            (shift + 1.5).abs() < 1e-9 && error < 1e-9,
            "{shift} {error}"
        );
        // Nothing in the state: no difference can be told.
        let (shift, error) = head_minus_exact(&vec![false; n], &exact, &head, 50, 1);
        assert!(shift.is_nan() && error.is_nan());
    }

    #[test]
    fn a_free_energy_of_empty_replicates_has_no_error() {
        let interval = |infinite| Interval {
            value: 16.0,
            standard_error: 5.0,
            low: 10.0,
            high: f64::INFINITY,
            infinite,
        };
        assert!(error_of(&interval(20), 100).is_nan());
        assert_eq!(error_of(&interval(2), 100), 5.0);
    }
}
