//! What the reported weights make of the target: averages and free energies, by the report less by exact weights, at the same
//! samples. One sample whose weight the report makes thousands of times too large can carry an average alone; what is judged leaves
//! the largest [`RARE`] of such ratios out, as the verdict does throughout, and the values of all samples stand beside it.

use anyhow::{Context, Result};
use boltzmap_statistics::{
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
    /// By reported less by exact weights, of all samples, with its paired interval.
    pub difference: Estimate,
    /// The same without the largest [`RARE`] of the ratios of reported to exact weight, of which the verdict does not speak: what is judged.
    pub judged_difference: Estimate,
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
    let all = Pair {
        samples: finite.to_vec(),
        exact: by_exact,
        report: by_report,
    };
    let trimmed = all.trimmed(gaps);
    criteria.push(kept(&trimmed.exact, &trimmed.report, confidence));
    let each = 1.0 - (1.0 - confidence) / target.observables.len().max(1) as f64;
    let mut observables = Vec::new();
    for observable in &target.observables {
        let observed = observe(observable, &all, &trimmed, each)
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

/// What the reported weights keep of the effective samples of the target.
fn kept(exact: &[f64], report: &[f64], confidence: f64) -> Criterion {
    let estimate = retained_share(exact, report, confidence)
        .map(|kept| estimate(&kept))
        .unwrap_or(Estimate::NONE);
    Loss {
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
    )
}

/// Samples with their log-weights by exact log q and by the report.
struct Pair {
    samples: Vec<usize>,
    exact: Vec<f64>,
    report: Vec<f64>,
}

impl Pair {
    /// Without the largest [`RARE`] of the ratios of reported to exact weight e^{−gap}, as many as the proposal's own trimming leaves out.
    fn trimmed(&self, gaps: &[f64]) -> Pair {
        let limit = quantile(&sorted(gaps), RARE);
        let left: Vec<usize> = (0..gaps.len()).filter(|&i| gaps[i] >= limit).collect();
        let pick = |of: &[f64]| left.iter().map(|&i| of[i]).collect();
        Pair {
            samples: left.iter().map(|&i| self.samples[i]).collect(),
            exact: pick(&self.exact),
            report: pick(&self.report),
        }
    }

    /// Whether a state and its rest both have weight.
    fn splits(&self, inside: &[bool]) -> bool {
        [true, false].iter().all(|side| {
            let mut of_side = (0..self.exact.len()).filter(|&i| inside[self.samples[i]] == *side);
            of_side.any(|i| self.exact[i] > f64::NEG_INFINITY)
        })
    }

    /// ΔF by the report less ΔF by exact weights.
    fn free_energy(&self, inside: &[bool], confidence: f64) -> Result<Estimate> {
        let inside: Vec<bool> = self.samples.iter().map(|&i| inside[i]).collect();
        let (exact, report) = (&self.exact, &self.report);
        let found = difference_of_free_energies(&inside, exact, report, confidence)?;
        Ok(estimate(&found))
    }

    /// Values at the samples. Where there is no weight a value may be anything, such as the energy of atoms on top of each other.
    fn values(&self, of: &[f64]) -> Vec<f64> {
        let each = self.samples.iter().zip(&self.exact);
        each.map(|(&i, w)| if *w == f64::NEG_INFINITY { 0.0 } else { of[i] })
            .collect()
    }

    /// The average by the report less that by exact weights.
    fn average(&self, of: &[f64], confidence: f64) -> Result<Estimate> {
        let (exact, report) = (&self.exact, &self.report);
        let found = difference_of_averages(&self.values(of), exact, report, confidence)?;
        Ok(estimate(&found))
    }
}

/// One observable by both sets of weights, of all samples and of the trimmed ones; none for a state that no weight is in, or all.
fn observe(
    observable: &Observable,
    all: &Pair,
    trimmed: &Pair,
    confidence: f64,
) -> Result<Option<Observed>> {
    let name = observable.name.clone();
    Ok(match &observable.kind {
        Kind::State(inside) => {
            if !(all.splits(inside) && trimmed.splits(inside)) {
                return Ok(None);
            }
            let difference = all.free_energy(inside, confidence)?;
            let within: Vec<f64> = all
                .samples
                .iter()
                .map(|&i| f64::from(u8::from(inside[i])))
                .collect();
            let share = weighted_average(&within, &all.exact, confidence)?.value;
            let seen = [1.0, 0.0].map(|side| {
                let part: Vec<f64> = (0..within.len())
                    .filter(|&i| within[i] == side)
                    .map(|i| all.exact[i])
                    .collect();
                effective_sample_size(&part)
            });
            let exact = ((1.0 - share) / share).ln();
            let effective = seen[0].min(seen[1]);
            Some(Observed {
                name,
                unit: "kT",
                free_energy: true,
                exact,
                reported: exact + difference.value,
                difference,
                judged_difference: trimmed.free_energy(inside, confidence)?,
                scale: 1.0,
                effective_samples: effective,
                judged: effective >= FEWEST_IN_STATE,
            })
        }
        Kind::Average(of) => {
            let values = all.values(of);
            let difference = all.average(of, confidence)?;
            let mean = weighted_average(&values, &all.exact, confidence)?.value;
            let squares: Vec<f64> = values.iter().map(|v| (v - mean).powi(2)).collect();
            let variance = weighted_average(&squares, &all.exact, confidence)?.value;
            Some(Observed {
                name,
                unit: observable.unit,
                free_energy: false,
                exact: mean,
                reported: mean + difference.value,
                difference,
                judged_difference: trimmed.average(of, confidence)?,
                scale: variance.sqrt(),
                effective_samples: effective_sample_size(&all.exact),
                judged: variance > 0.0,
            })
        }
    })
}

/// The criterion of an observable.
fn criterion(observed: &Observed) -> Criterion {
    let scaled = |v: f64| v / observed.scale;
    let d = observed.judged_difference;
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
