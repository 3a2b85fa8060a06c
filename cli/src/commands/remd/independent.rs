//! How many independent values a set of frames holds.
//!
//! Of every torsion twice: from autocorrelation along the ladders, taken about the mean of all of them, and from how much the ladders' means
//! differ, which knows nothing of correlation functions but has only as many numbers as there are ladders. Of each the least over the sine
//! and the cosine and, of φ, whether it lies in the state that ΔF is about: the last is slow where the others are not.

use boltzmap_physics::replica_exchange::ReplicaExchangeTrajectory;
use boltzmap_physics::umbrella::statistical_inefficiency_of_all;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Written;
use super::summary::Torsion;

/// Effective numbers of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Independent {
    by_autocorrelation: f64,
    /// Infinite for one ladder.
    by_ladder_means: f64,
}

impl Independent {
    /// The more cautious of the two, where there are ladders enough to trust their means: of eight, a variance is known to a half.
    pub(super) fn cautious(&self, ladders: usize) -> f64 {
        match ladders < 8 {
            true => self.by_autocorrelation,
            false => self.by_autocorrelation.min(self.by_ladder_means),
        }
    }
}

/// Of every torsion in a set; `belongs` tells which frames are not left out.
pub(super) fn of_torsions(
    trajectory: &ReplicaExchangeTrajectory,
    torsions: &[Torsion],
    width: usize,
    set: &Written,
    belongs: &(dyn Fn(usize) -> bool + Sync),
) -> Vec<Independent> {
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
            let mut least = Independent {
                by_autocorrelation: f64::INFINITY,
                by_ladder_means: f64::INFINITY,
            };
            let state = torsions[index].state.as_ref();
            let indicator = |phi: f64| f64::from(u8::from(state.is_some_and(|s| s.contains(phi))));
            let functions: [&dyn Fn(f64) -> f64; 3] = [&f64::sin, &f64::cos, &indicator];
            for function in functions {
                let found = of_series(&ladders, function);
                // A constant tells nothing.
                let Some(found) = found else { continue };
                let of_set = |size: f64| size.min(set.frames.len() as f64);
                least.by_autocorrelation = least
                    .by_autocorrelation
                    .min(of_set(found.by_autocorrelation));
                least.by_ladder_means = least.by_ladder_means.min(of_set(found.by_ladder_means));
            }
            least
        })
        .collect()
}

/// Of one function of one torsion; nothing where it does not vary.
fn of_series(ladders: &[Vec<f64>], function: &dyn Fn(f64) -> f64) -> Option<Independent> {
    let ladders: Vec<Vec<f64>> = ladders
        .iter()
        .map(|ladder| ladder.iter().map(|&angle| function(angle)).collect())
        .collect();
    let first = ladders.iter().flatten().next()?;
    if ladders.iter().flatten().all(|value| value == first) {
        return None;
    }
    let views: Vec<&[f64]> = ladders.iter().map(Vec::as_slice).collect();
    let recorded: usize = ladders.iter().map(Vec::len).sum();
    Some(Independent {
        by_autocorrelation: recorded as f64 / statistical_inefficiency_of_all(&views),
        by_ladder_means: by_means(&ladders),
    })
}

/// The number of independent samples whose means would differ as much as the ladders' do; infinite for one ladder.
fn by_means(ladders: &[Vec<f64>]) -> f64 {
    let count = ladders.len() as f64;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len().max(1) as f64;
    let means: Vec<f64> = ladders.iter().map(|ladder| mean(ladder)).collect();
    let all: Vec<f64> = ladders.concat();
    let centre = mean(&all);
    let variance = mean(&all.iter().map(|x| (x - centre).powi(2)).collect::<Vec<_>>());
    let of_means = means.iter().map(|m| (m - centre).powi(2)).sum::<f64>() / (count - 1.0);
    match count > 1.0 {
        true => count * variance / of_means,
        false => f64::INFINITY,
    }
}

/// As JSON.
pub(super) fn value(torsions: &[Torsion], found: &[Independent]) -> Value {
    let size = |size: f64| match size.is_finite() {
        true => json!(size.round()),
        false => Value::Null,
    };
    let rows = torsions.iter().zip(found).map(|(torsion, found)| {
        json!({
            "torsion": torsion.name,
            "by_autocorrelation": size(found.by_autocorrelation),
            "by_ladder_means": size(found.by_ladder_means),
        })
    });
    Value::Array(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    #[test]
    fn ladders_that_agree_count_fully_and_others_do_not() {
        let ladder = |number: u64, shift: f64| -> Vec<f64> {
            let mut stream = Stream::new(3, 1, number);
            (0..1000)
                .map(|_| shift + stream.standard_normal())
                .collect()
        };
        let independent: Vec<Vec<f64>> = (0..200).map(|number| ladder(number, 0.0)).collect();
        let size = by_means(&independent);
        // The variance of 200 means is known to 10 %.
        assert!((size / 200_000.0 - 1.0).abs() < 0.4, "{size}");
        let stuck: Vec<Vec<f64>> = (0..200)
            .map(|number| ladder(number, if number % 2 == 0 { 3.0 } else { -3.0 }))
            .collect();
        let size = by_means(&stuck);
        assert!((size / 200.0 - 1.0).abs() < 0.3, "{size}");
    }

    /// A state that is entered once in a hundred values and left after fifty, while sine and cosine forget at once.
    #[test]
    fn a_rare_state_is_what_is_slow() {
        let mut stream = Stream::new(4, 1, 0);
        let mut inside = false;
        let series: Vec<f64> = (0..20_000)
            .map(|_| {
                inside ^= stream.uniform() < if inside { 0.02 } else { 0.01 };
                if inside { 1.0 } else { 0.0 }
            })
            .collect();
        let ladders = [series.clone()];
        let found = of_series(&ladders, &|x| x).unwrap();
        // Correlation e^−0.03 a step: 1 + 2/0.03 values count as one.
        let expected = 20_000.0 * 0.03 / 2.0;
        assert!(
            (found.by_autocorrelation / expected - 1.0).abs() < 0.4,
            "{found:?}"
        );
        assert_eq!(found.by_ladder_means, f64::INFINITY);
        assert_eq!(of_series(&[vec![2.0; 50]], &|x| x), None);
        assert_eq!(of_series(&[Vec::new()], &|x| x), None);
    }
}
