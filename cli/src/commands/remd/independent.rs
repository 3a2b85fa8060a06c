//! How many independent values a set of frames holds.
//!
//! Of every torsion twice, from autocorrelation along the ladders and from how much the ladders' means differ. Of each the least over the
//! sine and the cosine and, of φ, whether it lies in the state that ΔF is about: the last is slow where the others are not.

use boltzmap_physics::replica_exchange::ReplicaExchangeTrajectory;
use boltzmap_statistics::IndependentValues;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Written;
use super::summary::Torsion;

/// The more cautious of the two numbers, where there are ladders enough to trust their means: of eight, a variance is known to a half.
pub(super) fn cautious(values: &IndependentValues, ladders: usize) -> f64 {
    match ladders < 8 {
        true => values.by_autocorrelation,
        false => values.by_autocorrelation.min(values.by_means),
    }
}

/// Of every torsion in a set; `belongs` tells which frames are not left out.
pub(super) fn of_torsions(
    trajectory: &ReplicaExchangeTrajectory,
    torsions: &[Torsion],
    width: usize,
    set: &Written,
    belongs: &(dyn Fn(usize) -> bool + Sync),
) -> Vec<IndependentValues> {
    let saves = trajectory.saves();
    (0..torsions.len())
        .into_par_iter()
        .map(|index| {
            let ladders: Vec<Vec<f64>> = set
                .ladders
                .iter()
                .map(|&ladder| {
                    (ladder * saves..(ladder + 1) * saves)
                        .filter(|&n| belongs(n))
                        .map(|n| f64::from(trajectory.level_angles[n * width + index]))
                        .collect()
                })
                .collect();
            let mut least = IndependentValues {
                by_autocorrelation: f64::INFINITY,
                by_means: f64::INFINITY,
            };
            let state = torsions[index].state.as_ref();
            let indicator = |phi: f64| f64::from(u8::from(state.is_some_and(|s| s.contains(phi))));
            let functions: [&dyn Fn(f64) -> f64; 3] = [&f64::sin, &f64::cos, &indicator];
            for function in functions {
                let values: Vec<Vec<f64>> = ladders
                    .iter()
                    .map(|angles| angles.iter().map(|&angle| function(angle)).collect())
                    .collect();
                // A constant tells nothing.
                let Some(found) = IndependentValues::of(&values) else {
                    continue;
                };
                let of_set = |size: f64| size.min(set.frames.len() as f64);
                least.by_autocorrelation = least
                    .by_autocorrelation
                    .min(of_set(found.by_autocorrelation));
                least.by_means = least.by_means.min(of_set(found.by_means));
            }
            least
        })
        .collect()
}

/// As JSON.
pub(super) fn value(torsions: &[Torsion], found: &[IndependentValues]) -> Value {
    let size = |size: f64| match size.is_finite() {
        true => json!(size.round()),
        false => Value::Null,
    };
    let rows = torsions.iter().zip(found).map(|(torsion, found)| {
        json!({
            "torsion": torsion.name,
            "by_autocorrelation": size(found.by_autocorrelation),
            "by_ladder_means": size(found.by_means),
        })
    });
    Value::Array(rows.collect())
}
