//! Standard errors and intervals of estimates from groups of samples that are themselves few and may be correlated.
//!
//! Samples come as independent *chains* (replica-exchange ladders, copies of umbrella windows), each cut into successive *blocks*; a group is
//! a block of a chain. Leaving out one group after the other gives the estimate's standard error (Quenouille and Tukey's jackknife: Efron and
//! Stein, Ann. Statist. 9, 586 (1981)) with everything solved anew, be it ever so far from linear in the samples.
//!
//! Blocks that are not long against the slowest motion resemble their successors. Their correlation ρ takes as many groups away as it does
//! from a chain of first order, G(1 − ρ)/(1 + ρ), but never fewer than the chains are left, which are independent for certain. Intervals are
//! Student's for what is left (as in replicated batch means, Tafazzoli, Steiger and Wilson, INFORMS J. Comput. 23, 2011).

use super::comparison::student_quantile;

/// Blocks that all chains together should have at least: enough for a correlation between successive ones, few enough to be long.
const GROUPS: usize = 16;

/// How many blocks each of `chains` chains of `length` samples should be cut into.
pub fn blocks(chains: usize, length: usize) -> usize {
    GROUPS.div_ceil(chains.max(1)).clamp(1, length.max(1))
}

/// A value with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// From all samples.
    pub value: f64,
    /// Of the value, in its unit: the standard deviation that independent repetitions would show.
    pub standard_error: f64,
    /// Of the standard error: [`Estimate::effective_groups`] − 1.
    pub degrees_of_freedom: f64,
    /// Groups of samples.
    pub groups: usize,
    /// What they amount to, their correlation within chains allowed for.
    pub effective_groups: f64,
}

impl Estimate {
    /// Half of the width of the interval that holds the truth with probability `level`, by Student's distribution.
    pub fn half_width(&self, level: f64) -> f64 {
        student(self.degrees_of_freedom, level) * self.standard_error
    }

    /// The interval that holds the truth with probability `level`.
    pub fn interval(&self, level: f64) -> [f64; 2] {
        let half = self.half_width(level);
        [self.value - half, self.value + half]
    }
}

/// The estimate `value`, when `without[chain * blocks + block]` is what comes out without that block of that chain.
///
/// `None` where no error can be told: fewer than two groups or chains that amount to two, an estimate that is infinite without one of the
/// groups because the group holds all of a state, or groups that do not differ at all.
pub fn jackknife(value: f64, without: &[f64], chains: usize) -> Option<Estimate> {
    let groups = without.len();
    if groups < 2 || !value.is_finite() || without.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let (n, blocks) = (groups as f64, groups / chains);
    let mean = without.iter().sum::<f64>() / n;
    // What each group adds to the estimate.
    let parts: Vec<f64> = without.iter().map(|v| (n - 1.0) * (mean - v)).collect();
    let squares: f64 = parts.iter().map(|part| part * part).sum();
    if squares <= 0.0 {
        return None;
    }
    let products: f64 = parts
        .chunks_exact(blocks)
        .flat_map(|chain| chain.windows(2))
        .map(|pair| pair[0] * pair[1])
        .sum();
    let pairs = (chains * (blocks - 1)).max(1) as f64;
    let raw = products / pairs / (squares / n);
    // Deviations from a mean of their own make few numbers look less alike (Marriott and Pope, Biometrika 41, 390 (1954)).
    let correlation = match blocks {
        1 => 0.0,
        _ => (raw + (1.0 + 3.0 * raw) / n).clamp(0.0, 1.0),
    };
    let effective_groups = (n * (1.0 - correlation) / (1.0 + correlation)).max(chains as f64);
    (effective_groups >= 2.0).then(|| Estimate {
        value,
        standard_error: (squares / (n - 1.0) / effective_groups).sqrt(),
        degrees_of_freedom: effective_groups - 1.0,
        groups,
        effective_groups,
    })
}

/// The t with P(|T| < t) = `level` for Student's T of ν ≥ 1 degrees of freedom, which need not be whole; to four digits and more:
/// [`student_quantile`] within the degrees of freedom that estimates from groups have. Beyond 1000 degrees of freedom it is that of 1000, 0.1 % off the normal's.
pub fn student(degrees_of_freedom: f64, level: f64) -> f64 {
    student_quantile(level, degrees_of_freedom.clamp(1.0, 1000.0))
}

/// The level of an interval of one standard deviation of a normal number to either side.
pub const ONE_SIGMA: f64 = 0.682_689_492_137_086;

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;
    use std::f64::consts::FRAC_PI_2;

    #[test]
    fn student_is_as_in_tables() {
        for (nu, level, expected) in [
            (1.0, 0.95, 12.7062),
            (1.0, 0.5, 1.0),
            (3.0, 0.95, 3.18245),
            (3.0, ONE_SIGMA, 1.196_88),
            (10.0, 0.99, 3.16927),
            (30.0, 0.95, 2.04227),
        ] {
            let found = student(nu, level);
            assert!(
                (found / expected - 1.0).abs() < 2e-5,
                "{nu} {level} {found}"
            );
        }
        assert!((student(1e9, 0.95) - 1.9623).abs() < 1e-3);
        // Between whole numbers it lies between.
        assert!(student(2.5, 0.95) < student(2.0, 0.95) && student(2.5, 0.95) > student(3.0, 0.95));
        // One degree of freedom is Cauchy's distribution.
        assert!((student(1.0, ONE_SIGMA) - (FRAC_PI_2 * ONE_SIGMA).tan()).abs() < 1e-4);
    }

    #[test]
    fn the_jackknife_of_a_mean_is_the_textbook_error() {
        let values = [1.0, 4.0, 2.0, 7.0, 3.0];
        let total: f64 = values.iter().sum();
        let without: Vec<f64> = values.iter().map(|v| (total - v) / 4.0).collect();
        let found = jackknife(total / 5.0, &without, 5).unwrap();
        let variance = values.iter().map(|v| (v - 3.4f64).powi(2)).sum::<f64>() / 4.0;
        assert!((found.standard_error - (variance / 5.0).sqrt()).abs() < 1e-12);
        assert_eq!((found.degrees_of_freedom, found.groups), (4.0, 5));
        let [low, high] = found.interval(0.95);
        assert!((high - low - 2.0 * 2.77645 * found.standard_error).abs() < 1e-4);
    }

    #[test]
    fn nothing_is_told_where_nothing_can_be() {
        assert_eq!(jackknife(1.0, &[1.0], 1), None);
        assert_eq!(jackknife(1.0, &[1.0, 1.0], 2), None);
        assert_eq!(jackknife(1.0, &[1.0, f64::INFINITY, 2.0], 3), None);
        assert_eq!(jackknife(f64::INFINITY, &[1.0, 2.0], 2), None);
        // One chain that drifts all the way amounts to one group.
        let drift: Vec<f64> = (0..20).map(|k| f64::from(k) / 19.0).collect();
        assert_eq!(jackknife(0.5, &drift, 1), None);
        assert_eq!(jackknife(0.5, &drift, 2).unwrap().effective_groups, 2.0);
    }

    /// Means of chains of first order: the stated intervals hold the truth as often as they say, for few chains and for one, with blocks
    /// shorter than the correlation time and longer.
    #[test]
    fn intervals_of_correlated_chains_cover() {
        for (chains, length, time) in [
            (1, 2000, 20.0),
            (2, 400, 20.0),
            (4, 200, 1.0),
            (4, 200, 60.0),
            (4, 200, 1e4),
            (22, 50, 30.0),
        ] {
            let keep = (-1.0f64 / time).exp();
            const RUNS: u64 = 600;
            let mut held = [0u32; 2];
            for run in 0..RUNS {
                let groups = chain_means(run, chains, length, keep);
                let Some(found) = groups else { continue };
                for (held, level) in held.iter_mut().zip([ONE_SIGMA, 0.95]) {
                    *held += u32::from(found.value.abs() < found.half_width(level));
                }
            }
            // Within three binomial deviations of what they say, or a little wider: a correlation that is not there is sometimes seen.
            let shares = held.map(|held| f64::from(held) / RUNS as f64);
            let case = format!("{chains} chains of {length}, correlation time {time}: {shares:?}");
            assert!((0.62..0.80).contains(&shares[0]), "{case}");
            assert!((0.923..0.985).contains(&shares[1]), "{case}");
        }
    }

    /// The mean, 0 in truth, of chains of first order that start at equilibrium.
    fn chain_means(run: u64, chains: usize, length: usize, keep: f64) -> Option<Estimate> {
        let blocks = blocks(chains, length);
        let mut sums = vec![0.0; chains * blocks];
        let mut counts = vec![0.0; chains * blocks];
        for chain in 0..chains {
            let mut stream = Stream::new(run, 7, chain as u64);
            let mut x = stream.standard_normal();
            for t in 0..length {
                let group = chain * blocks + t * blocks / length;
                sums[group] += x;
                counts[group] += 1.0;
                x = keep * x + (1.0 - keep * keep).sqrt() * stream.standard_normal();
            }
        }
        let (sum, count): (f64, f64) = (sums.iter().sum(), counts.iter().sum());
        let without: Vec<f64> = sums
            .iter()
            .zip(&counts)
            .map(|(s, c)| (sum - s) / (count - c))
            .collect();
        jackknife(sum / count, &without, chains)
    }
}
