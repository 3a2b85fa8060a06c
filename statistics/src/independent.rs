//! How many independent values correlated series hold.
//!
//! Told twice: from autocorrelation along the series, taken about the mean of all of them, and from how much the series' means differ, which
//! knows nothing of correlation functions but has only as many numbers as there are series.

/// How many successive members of stationary series of one quantity, independent of each other, count as one: 1 + 2Σ_t ρ_t, summed until ρ_t
/// first falls below zero. Autocovariances are taken about the mean of all and averaged: series shorter than their correlation time,
/// which differ from each other in their means, then count as few.
pub fn statistical_inefficiency(series: &[impl AsRef<[f64]>]) -> f64 {
    let series: Vec<&[f64]> = series.iter().map(AsRef::as_ref).collect();
    let n: usize = series.iter().map(|series| series.len()).sum();
    let longest = series.iter().map(|series| series.len()).max().unwrap_or(0);
    let mean = series.iter().copied().flatten().sum::<f64>() / n.max(1) as f64;
    let centred: Vec<Vec<f64>> = series
        .iter()
        .map(|series| series.iter().map(|x| x - mean).collect())
        .collect();
    let variance = centred.iter().flatten().map(|x| x * x).sum::<f64>() / n.max(1) as f64;
    if longest < 3 || variance <= 0.0 {
        return 1.0;
    }
    let mut total = 1.0;
    for lag in 1..longest / 2 {
        let (mut covariance, mut pairs) = (0.0, 0);
        for series in centred.iter().filter(|series| series.len() > lag) {
            let products = series.iter().zip(&series[lag..]);
            covariance += products.map(|(a, b)| a * b).sum::<f64>();
            pairs += series.len() - lag;
        }
        let correlation = covariance / (pairs as f64 * variance);
        if correlation <= 0.0 {
            break;
        }
        total += 2.0 * correlation * (1.0 - lag as f64 / longest as f64);
    }
    total.max(1.0)
}

/// Effective numbers of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndependentValues {
    /// Values over their [`statistical_inefficiency`].
    pub by_autocorrelation: f64,
    /// The number of independent samples whose means would differ as much as the series' do; infinite for one series.
    pub by_means: f64,
}

impl IndependentValues {
    /// Of series of one quantity; nothing where it does not vary.
    pub fn of(series: &[Vec<f64>]) -> Option<IndependentValues> {
        let first = series.iter().flatten().next()?;
        if series.iter().flatten().all(|value| value == first) {
            return None;
        }
        let values: usize = series.iter().map(Vec::len).sum();
        Some(IndependentValues {
            by_autocorrelation: values as f64 / statistical_inefficiency(series),
            by_means: by_means(series),
        })
    }
}

fn by_means(series: &[Vec<f64>]) -> f64 {
    let count = series.len() as f64;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len().max(1) as f64;
    let means: Vec<f64> = series.iter().map(|series| mean(series)).collect();
    let all: Vec<f64> = series.concat();
    let centre = mean(&all);
    let variance = mean(&all.iter().map(|x| (x - centre).powi(2)).collect::<Vec<_>>());
    let of_means = means.iter().map(|m| (m - centre).powi(2)).sum::<f64>() / (count - 1.0);
    match count > 1.0 {
        true => count * variance / of_means,
        false => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    #[test]
    fn series_that_agree_count_fully_and_others_do_not() {
        let series = |number: u64, shift: f64| -> Vec<f64> {
            let mut stream = Stream::new(3, 1, number);
            (0..1000)
                .map(|_| shift + stream.standard_normal())
                .collect()
        };
        let independent: Vec<Vec<f64>> = (0..200).map(|number| series(number, 0.0)).collect();
        let size = by_means(&independent);
        // The variance of 200 means is known to 10 %.
        assert!((size / 200_000.0 - 1.0).abs() < 0.4, "{size}");
        let stuck: Vec<Vec<f64>> = (0..200)
            .map(|number| series(number, if number % 2 == 0 { 3.0 } else { -3.0 }))
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
        let found = IndependentValues::of(&ladders).unwrap();
        // Correlation e^−0.03 a step: 1 + 2/0.03 values count as one.
        let expected = 20_000.0 * 0.03 / 2.0;
        assert!(
            (found.by_autocorrelation / expected - 1.0).abs() < 0.4,
            "{found:?}"
        );
        assert_eq!(found.by_means, f64::INFINITY);
        assert_eq!(IndependentValues::of(&[vec![2.0; 50]]), None);
        assert_eq!(IndependentValues::of(&[Vec::new()]), None);
    }

    /// A value that changes every 50 members: 4 series of 1000 hold 80 of them.
    #[test]
    fn what_is_slow_counts_as_few() {
        let mut stream = Stream::new(1, 0, 0);
        let values: Vec<f64> = (0..80).map(|_| stream.standard_normal()).collect();
        let series: Vec<Vec<f64>> = values
            .chunks(20)
            .map(|values| values.iter().flat_map(|&value| [value; 50]).collect())
            .collect();
        let found = IndependentValues::of(&series).unwrap();
        assert!(
            (40.0..160.0).contains(&found.by_autocorrelation),
            "{found:?}"
        );
    }
}
