//! How training draws times: t for the diagonal terms, pairs s < t for the consistency terms.

use boltzmap_kernels::random::Stream;
use serde::{Deserialize, Serialize};

/// Distribution of a time t in (0, 1−ε].
///
/// A mixture of the uniform distribution and of one that is uniform in ln(1−t): for densities the data end weighs
/// most, because an error δv of the velocity is an error t/(1−t)·δv of the score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeDistribution {
    /// ε: times stop at 1−ε.
    pub epsilon: f64,
    /// Share of the draws that is log-uniform in 1−t.
    pub data_end_fraction: f64,
}

impl TimeDistribution {
    /// The time that the uniform numbers `choice` and `place` in [0, 1) stand for.
    pub fn quantile(&self, choice: f64, place: f64) -> f64 {
        if choice < self.data_end_fraction {
            1.0 - self.epsilon.powf(place)
        } else {
            place * (1.0 - self.epsilon)
        }
    }

    /// Draws one time.
    pub fn draw(&self, stream: &mut Stream) -> f64 {
        let (choice, place) = (stream.uniform(), stream.uniform());
        self.quantile(choice, place)
    }
}

/// Distribution of pairs s ≤ t for the consistency terms.
///
/// A flow map that is deployed on a known schedule need only be right on the intervals inside that schedule's steps:
/// a step [t_k, t_{k+1}] is drawn, then s is t_k (the deployed start) or uniform inside, and t is uniform in (s, t_{k+1}].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairDistribution {
    /// The deployed times t_0 < … < t_K.
    pub times: Vec<f64>,
    /// Probability that s is the start of its step.
    pub start_fraction: f64,
    /// Probability that t is the end of its step.
    pub end_fraction: f64,
}

impl PairDistribution {
    /// Draws (s, t) with s ≤ t inside one step of the schedule.
    pub fn draw(&self, stream: &mut Stream) -> (f64, f64) {
        let steps = self.times.len() - 1;
        let step = ((stream.uniform() * steps as f64) as usize).min(steps - 1);
        let (start, end) = (self.times[step], self.times[step + 1]);
        let (choose_s, place_s) = (stream.uniform(), stream.uniform());
        let (choose_t, place_t) = (stream.uniform(), stream.uniform());
        let s = if choose_s < self.start_fraction {
            start
        } else {
            start + place_s * (end - start)
        };
        let t = if choose_t < self.end_fraction {
            end
        } else {
            s + place_t * (end - s)
        };
        (s, t)
    }
}

/// Distribution of dyadic steps for shortcut training, inside the steps of a deployed schedule.
///
/// Shortcut models (Frans et al., arXiv 2410.12557) know steps of length 2^{−l} and learn each from two of half its length.
/// Here the deployed steps are the longest ones: a step is drawn, then a level l, uniform in 0..=levels, then one of the 2^l
/// equal parts of the step. At the finest level the halves are read off the diagonal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DyadicPairs {
    /// The deployed times t_0 < … < t_K.
    pub times: Vec<f64>,
    /// Times that a deployed step is halved.
    pub levels: u32,
}

impl DyadicPairs {
    /// Draws (s, t) and whether the pair is of the finest level.
    pub fn draw(&self, stream: &mut Stream) -> (f64, f64, bool) {
        let steps = self.times.len() - 1;
        let step = stream.below(steps as u64) as usize;
        let level = stream.below(u64::from(self.levels) + 1);
        let parts = 1u64 << level;
        let part = stream.below(parts);
        let (start, end) = (self.times[step], self.times[step + 1]);
        let at = |part: u64| start + (end - start) * part as f64 / parts as f64;
        (at(part), at(part + 1), level == u64::from(self.levels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mixture_has_the_stated_share_near_the_data_end() {
        let times = TimeDistribution {
            epsilon: 1e-2,
            data_end_fraction: 0.5,
        };
        let mut stream = Stream::new(1, 2, 3);
        let n = 40_000;
        let near = (0..n).filter(|_| times.draw(&mut stream) > 0.9).count() as f64 / n as f64;
        // Uniform half: (0.99 − 0.9)/0.99; log-uniform half: ln 10 / ln 100.
        let expected = 0.5 * (0.09 / 0.99) + 0.5 * 0.5;
        let standard_error = (expected * (1.0 - expected) / n as f64).sqrt();
        assert!((near - expected).abs() < 5.0 * standard_error);
    }

    proptest! {
        #[test]
        fn times_and_pairs_stay_inside_their_ranges(seed in 0u64..1000, epsilon in 1e-3f64..0.1) {
            let mut stream = Stream::new(seed, 0, 0);
            let times = TimeDistribution { epsilon, data_end_fraction: 0.3 };
            let pairs = PairDistribution {
                times: vec![0.0, 0.3, 0.8, 1.0 - epsilon],
                start_fraction: 0.3,
                end_fraction: 0.3,
            };
            for _ in 0..50 {
                let t = times.draw(&mut stream);
                prop_assert!((0.0..=1.0 - epsilon).contains(&t));
                let (s, t) = pairs.draw(&mut stream);
                prop_assert!(0.0 <= s && s <= t && t <= 1.0 - epsilon);
                let inside = pairs.times.windows(2).any(|w| w[0] <= s && t <= w[1]);
                prop_assert!(inside);
                let dyadic = DyadicPairs { times: pairs.times.clone(), levels: 3 };
                let (s, t, finest) = dyadic.draw(&mut stream);
                let step = pairs.times.windows(2).find(|w| w[0] <= s && t <= w[1] + 1e-15);
                let step = step.expect("inside one step");
                let parts = (step[1] - step[0]) / (t - s);
                prop_assert!((parts.log2().round().exp2() - parts).abs() < 1e-9 * parts);
                prop_assert_eq!(finest, (parts - 8.0).abs() < 1e-6);
                let place = (s - step[0]) / (t - s);
                prop_assert!((place - place.round()).abs() < 1e-9);
            }
        }
    }
}
