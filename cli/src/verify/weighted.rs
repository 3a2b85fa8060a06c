//! What the reported weights make of the target: averages and free energies, by the report less by exact weights, at the same
//! samples.

use anyhow::{Context, Result};
use boltzmap_physics::metrics::{
    Difference, difference_of_averages, difference_of_free_energies, effective_sample_size,
    retained_share, weighted_average,
};
use serde::Serialize;

use super::criteria::{
    AVERAGE_BAD, AVERAGE_GOOD, Criterion, FEWEST_EFFECTIVE, FEWEST_IN_STATE, FREE_ENERGY_BAD,
    FREE_ENERGY_GOOD, KEPT_BAD, KEPT_GOOD, Loss, RARE, per_cent,
};
use super::statistics::{Estimate, quantile, sorted};
use super::target::{Kind, Observable, Weighed};

/// An observable by exact weights and by those that the report makes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its unit, "kT" of a free energy; empty for numbers without one.
    pub unit: &'static str,
    /// Whether it is the free energy of a state, −ln of its weight over that of the rest.
    pub free_energy: bool,
    /// By exact weights.
    pub exact: f64,
    /// By reported weights.
    pub reported: f64,
    /// By reported less by exact weights, with its paired interval.
    pub difference: Estimate,
    /// What 1 is in the judgement of the difference: 1 kT, or the standard deviation of the observable in the target.
    pub scale: f64,
    /// Effective samples behind it: of a state, those inside or outside, whichever are fewer.
    pub effective_samples: f64,
    /// Whether it counts in the verdict; of states with too few effective samples nothing is known.
    pub judged: bool,
}

/// The result for all observables.
#[derive(Default)]
pub(super) struct UnderWeights {
    pub(super) criteria: Vec<Criterion>,
    pub(super) bias: Option<Estimate>,
    pub(super) effective: Option<f64>,
    pub(super) observables: Vec<Observed>,
}

fn estimate(difference: &Difference) -> Estimate {
    Estimate {
        value: difference.value,
        low: difference.low,
        high: difference.high,
    }
}

/// Judges under the weights of the target. `gaps` belong to the samples `finite`.
pub(super) fn under_the_weights(
    gaps: &[f64],
    finite: &[usize],
    exact: &[f64],
    target: &Weighed,
    confidence: f64,
) -> Result<UnderWeights> {
    let by_exact: Vec<f64> = finite
        .iter()
        .map(|&i| target.log_density[i] - exact[i])
        .collect();
    // No sample with weight: the target was not met at all, and nothing can be said under it.
    if by_exact.iter().all(|w| *w == f64::NEG_INFINITY) {
        return Ok(UnderWeights {
            criteria: vec![unknown("effective samples of the target", 0.0)],
            effective: Some(0.0),
            ..UnderWeights::default()
        });
    }
    let by_report: Vec<f64> = by_exact.iter().zip(gaps).map(|(w, gap)| w - gap).collect();
    let effective = effective_sample_size(&by_exact);
    let bias = weighted_average(gaps, &by_exact, confidence)
        .context("cannot average the gap under the weights of the target")?;
    let mut criteria = Vec::new();
    if effective < FEWEST_EFFECTIVE {
        criteria.push(unknown("effective samples of the target", effective));
    }
    criteria.push(kept(gaps, &by_exact, &by_report, confidence)?);
    let each = 1.0 - (1.0 - confidence) / target.observables.len().max(1) as f64;
    let mut observables = Vec::new();
    for observable in &target.observables {
        let observed = observe(observable, finite, &by_exact, &by_report, each)
            .with_context(|| format!("cannot compare {}", observable.name))?;
        // Of a state without samples there is no free energy.
        let Some(observed) = observed else { continue };
        if observed.judged {
            criteria.push(criterion(&observed));
        }
        observables.push(observed);
    }
    Ok(UnderWeights {
        criteria,
        bias: Some(estimate(&bias)),
        effective: Some(effective),
        observables,
    })
}

/// A criterion that leaves everything open.
fn unknown(name: &str, value: f64) -> Criterion {
    let estimate = Estimate {
        value,
        low: value,
        high: value,
    };
    Loss {
        interval: (f64::NAN, f64::NAN),
        good: 0.0,
        bad: 0.0,
    }
    .judged(
        name,
        estimate,
        "samples",
        [format!("≥ {FEWEST_EFFECTIVE}"), String::new()],
    )
}

/// What the reported weights keep of the effective samples of the target, without the largest ratios of reported to exact weight.
fn kept(gaps: &[f64], exact: &[f64], report: &[f64], confidence: f64) -> Result<Criterion> {
    // As few as the proposal's own trimming leaves out: one in five hundred.
    let limit = quantile(&sorted(gaps), RARE);
    let (from, to): (Vec<f64>, Vec<f64>) = (0..gaps.len())
        .filter(|&i| gaps[i] >= limit)
        .map(|i| (exact[i], report[i]))
        .unzip();
    let estimate = retained_share(&from, &to, confidence)
        .map(|kept| estimate(&kept))
        .unwrap_or(Estimate::NONE);
    Ok(Loss {
        interval: (1.0 - estimate.high, 1.0 - estimate.low),
        good: 1.0 - KEPT_GOOD,
        bad: 1.0 - KEPT_BAD,
    }
    .judged(
        format!(
            "kept under the target, without the largest {}",
            per_cent(RARE)
        ),
        estimate,
        "",
        [
            format!("≥ {}", per_cent(KEPT_GOOD)),
            format!("< {}", per_cent(KEPT_BAD)),
        ],
    ))
}

/// One observable by both sets of weights; none for a state that no weight is in, or all.
fn observe(
    observable: &Observable,
    finite: &[usize],
    exact: &[f64],
    report: &[f64],
    confidence: f64,
) -> Result<Option<Observed>> {
    let name = observable.name.clone();
    Ok(match &observable.kind {
        Kind::State(inside) => {
            let inside: Vec<bool> = finite.iter().map(|&i| inside[i]).collect();
            let occupied = |side: bool| {
                (0..inside.len()).any(|i| inside[i] == side && exact[i] > f64::NEG_INFINITY)
            };
            if !(occupied(true) && occupied(false)) {
                return Ok(None);
            }
            let difference = difference_of_free_energies(&inside, exact, report, confidence)?;
            let in_state: Vec<f64> = inside.iter().map(|&s| f64::from(u8::from(s))).collect();
            let free_energy = |weights: &[f64]| -> Result<f64> {
                let share = weighted_average(&in_state, weights, confidence)?.value;
                Ok(((1.0 - share) / share).ln())
            };
            let seen = [true, false].map(|side| {
                let part: Vec<f64> = (0..inside.len())
                    .filter(|&i| inside[i] == side)
                    .map(|i| exact[i])
                    .collect();
                effective_sample_size(&part)
            });
            let exact = free_energy(exact)?;
            let effective = seen[0].min(seen[1]);
            Some(Observed {
                name,
                unit: "kT",
                free_energy: true,
                exact,
                reported: exact + difference.value,
                difference: estimate(&difference),
                scale: 1.0,
                effective_samples: effective,
                judged: effective >= FEWEST_IN_STATE,
            })
        }
        Kind::Average(values) => {
            // Where there is no weight the value may be anything, such as the energy of atoms on top of each other.
            let values: Vec<f64> = finite
                .iter()
                .zip(exact)
                .map(|(&i, w)| {
                    if *w == f64::NEG_INFINITY {
                        0.0
                    } else {
                        values[i]
                    }
                })
                .collect();
            let difference = difference_of_averages(&values, exact, report, confidence)?;
            let mean = weighted_average(&values, exact, confidence)?;
            let squares: Vec<f64> = values.iter().map(|v| (v - mean.value).powi(2)).collect();
            let variance = weighted_average(&squares, exact, confidence)?.value;
            Some(Observed {
                name,
                unit: observable.unit,
                free_energy: false,
                exact: mean.value,
                reported: mean.value + difference.value,
                difference: estimate(&difference),
                scale: variance.sqrt(),
                effective_samples: effective_sample_size(exact),
                judged: variance > 0.0,
            })
        }
    })
}

/// The criterion of an observable.
fn criterion(observed: &Observed) -> Criterion {
    let scaled = |v: f64| v / observed.scale;
    let d = observed.difference;
    let estimate = Estimate {
        value: scaled(d.value),
        low: scaled(d.low),
        high: scaled(d.high),
    };
    let (good, bad, unit) = match observed.free_energy {
        true => (FREE_ENERGY_GOOD, FREE_ENERGY_BAD, "kT"),
        false => (AVERAGE_GOOD, AVERAGE_BAD, "standard deviations"),
    };
    let name = match observed.free_energy {
        true => format!("error of ΔF, {}", observed.name),
        false => format!("error of the mean {}", observed.name),
    };
    Loss {
        interval: super::criteria::size(estimate),
        good,
        bad,
    }
    .judged(
        name,
        estimate,
        unit,
        [format!("≤ {good}"), format!("> {bad}")],
    )
}
