//! Series of times.

use serde::{Deserialize, Serialize};

/// Seconds per call, measured repeatedly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Calls in a row that make up one sample, whose mean the sample is.
    pub calls: usize,
    /// Every sample, in order, s.
    pub seconds: Vec<f64>,
    /// Their median, s.
    pub median: f64,
    /// Their minimum, s.
    pub minimum: f64,
}

impl Series {
    /// Summarises samples. `None` where there are none.
    pub fn new(seconds: Vec<f64>, calls: usize) -> Option<Self> {
        Some(Self {
            calls,
            median: median(&seconds)?,
            minimum: seconds.iter().copied().reduce(f64::min)?,
            seconds,
        })
    }
}

/// The middle value, or the mean of the two in the middle. `None` of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(0.5 * (sorted[middle - 1] + sorted[middle])),
    }
}

/// Least seconds of a sample: shorter tasks are called several times in a row.
const SAMPLE_SECONDS: f64 = 0.02;

/// Calls in a row that make up one sample of a task that takes `seconds`.
pub fn calls_per_sample(seconds: f64) -> usize {
    ((SAMPLE_SECONDS / seconds.max(1e-9)).ceil() as usize).clamp(1, 10_000)
}

/// Seconds as a person reads them, three digits.
pub fn readable(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

/// A number per second as a person reads it, three digits.
pub fn readable_rate(rate: f64) -> String {
    let (value, unit) = match rate {
        r if r >= 1e6 => (r * 1e-6, " M"),
        r if r >= 1e3 => (r * 1e-3, " k"),
        r => (r, ""),
    };
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 2.0]), Some(3.5));
        assert!(Series::new(vec![], 1).is_none());
        let series = Series::new(vec![0.4, 0.1, 0.2], 7).unwrap();
        assert_eq!((series.median, series.minimum, series.calls), (0.2, 0.1, 7));
    }

    #[test]
    fn short_calls_are_repeated() {
        assert_eq!(calls_per_sample(1.0), 1);
        assert_eq!(calls_per_sample(0.02), 1);
        assert_eq!(calls_per_sample(0.003), 7);
        assert_eq!(calls_per_sample(0.0), 10_000);
    }

    #[test]
    fn times_have_three_digits() {
        for (seconds, text) in [
            (12.345, "12.3 s"),
            (0.2354, "235 ms"),
            (0.03912, "39.1 ms"),
            (0.001234, "1.23 ms"),
            (4.2e-5, "42.0 µs"),
        ] {
            assert_eq!(readable(seconds), text);
        }
    }

    #[test]
    fn rates_have_three_digits() {
        for (rate, text) in [
            (1_234_567.0, "1.23 M"),
            (45_678.0, "45.7 k"),
            (912.3, "912"),
            (3.0, "3.00"),
        ] {
            assert_eq!(readable_rate(rate), text);
        }
    }

    proptest! {
        #[test]
        fn half_of_the_values_lie_on_each_side(values in prop::collection::vec(0.0..1.0f64, 1..50)) {
            let middle = median(&values).unwrap();
            let below = values.iter().filter(|v| **v < middle).count();
            let above = values.iter().filter(|v| **v > middle).count();
            prop_assert!(2 * below <= values.len() && 2 * above <= values.len());
        }
    }
}
