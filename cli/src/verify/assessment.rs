//! The verdict's ground: every quantity that it rests on, with an interval that covers, and what the interval allows to say.
//!
//! Bias and lost samples are averages under the proposal, while re-weighting happens under the target: an error of 1.5 nats on 2 % of
//! the samples hardly shows in the former and shifts the free energy of that state by 1.5 kT. So where a target is at hand the same
//! quantities are judged under its weights w = p/q as well, and with them every observable: its average and its ΔF by the weights
//! that the report makes, less those by the exact ones.
//!
//! Samples that the target has no place for, such as those outside a chart's domain, are left out: they are drawn again or weigh
//! nothing, so their log q is never used.
//!
//! **What cannot be seen.** n samples without an event of a kind leave its probability open up to 3.7/n (97.5 %), and nothing
//! bounds its size: a gap of −4 nats on 0.4 % of the samples leaves a tenth of the effective samples, and one time in five 400 samples
//! show nothing of it. So the verdict speaks of all but [`RARE`](super::criteria::RARE) of the samples. Shares of samples off by more than a size have
//! Clopper and Pearson's interval; what weights keep of the effective samples without the largest [`RARE`](super::criteria::RARE) of them is a trimmed quantity,
//! whose lower end is zero until one of the largest has been drawn with 97.5 %: below 1843 samples nothing but "false" can be
//! said.
//!
//! **Several looks.** Samples are drawn in batches that double all. Of K planned looks each uses intervals of confidence
//! 1 − 0.05/K, so that an interval misses at any look at most one time in twenty. Intervals of m observables share theirs: 1 − 0.05/(K m).

use anyhow::Result;
use boltzmap_statistics::{binomial_interval, weighted_average};
use serde::Serialize;

use super::criteria::{BIAS_GOOD, Criterion, Level, not_finite, size, under_the_proposal};
use super::statistics::Estimate;
use super::subject::Reporter;
use super::target::Weighed;
use super::weighted::{Observed, UnderWeights, under_the_weights};

/// Bias and spread, nats, up to which a report that is exact by construction is so numerically too.
const NUMERICALLY_EXACT: [f64; 2] = [0.01, 0.05];
/// Probability that an interval misses at any look.
const MISSES: f64 = 0.05;

/// Whether a reported log-density is that of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// It is, to within what the samples can tell.
    True,
    /// It is but for a constant.
    TrueButForAConstant,
    /// It is roughly.
    Rough,
    /// It is not.
    False,
    /// The intervals allow more than one of the others.
    Undecided,
    /// The report is the exact log-density itself, computed twice: there was nothing to find out but round-off.
    ExactByConstruction,
}

/// Everything that the verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assessment {
    /// The verdict.
    pub judgement: Judgement,
    /// The best that the intervals allow.
    pub best: Level,
    /// The worst that the intervals allow.
    pub worst: Level,
    /// Probability with which each interval of the gap holds; those of m observables hold with 1 − (1 − this)/m.
    pub confidence: f64,
    /// Numbers of samples after which it was judged; the last is this.
    pub looks: Vec<usize>,
    /// The quantities.
    pub criteria: Vec<Criterion>,
    /// Mean of reported − exact, nats, at the judged confidence.
    pub bias: Estimate,
    /// The same under the weights of the target.
    pub bias_under_weights: Option<Estimate>,
    /// Kish's effective number of samples of the target, by exact weights.
    pub effective_samples: Option<f64>,
    /// Averages and free energies by the report and by exact weights.
    pub observables: Vec<Observed>,
    /// Largest probability, at the judged confidence, of an error that no sample shows.
    pub unseen: f64,
}

impl Assessment {
    /// Whether drawing more samples could change the verdict.
    pub fn is_decided(&self) -> bool {
        let open_bias = || {
            self.judgement == Judgement::TrueButForAConstant
                && bias_loss(self.bias, self.bias_under_weights).0 <= BIAS_GOOD
        };
        self.judgement != Judgement::Undecided && !open_bias()
    }

    /// The quantities that alone allow nothing better than the verdict: what it follows.
    pub fn deciding(&self) -> impl Iterator<Item = &Criterion> {
        let level = match self.judgement {
            Judgement::Undecided => None,
            _ => Some(self.worst),
        };
        self.criteria.iter().filter(move |c| match level {
            Some(Level::True) => false,
            Some(level) => c.best == level,
            // What keeps the verdict open.
            None => c.worst > self.best,
        })
    }
}

/// How a report is looked at.
#[derive(Clone, Debug)]
pub struct Looks {
    /// Numbers of samples at which looks are planned, ascending.
    pub planned: Vec<usize>,
    /// How many of them have been taken, this one included.
    pub taken: usize,
}

impl Looks {
    /// One look only.
    pub fn single(samples: usize) -> Looks {
        Looks {
            planned: vec![samples],
            taken: 1,
        }
    }

    /// Looks at `first` samples and at twice as many until there are `most`.
    pub fn doubling(first: usize, most: usize) -> Looks {
        let mut planned = vec![first.min(most)];
        while let Some(&last) = planned.last()
            && last < most
        {
            planned.push((2 * last).min(most));
        }
        Looks { planned, taken: 1 }
    }

    fn confidence(&self) -> f64 {
        1.0 - MISSES / self.planned.len() as f64
    }
}

/// Judges reported log-densities by exact ones at the same samples, which were drawn from the latter, and by what the target makes of
/// them where there is one.
///
/// # Errors
/// If the weights of the target are of no use.
pub fn assess(
    reporter: Reporter,
    reported: &[f64],
    exact: &[f64],
    target: Option<&Weighed>,
    looks: &Looks,
    seed: u64,
) -> Result<Assessment> {
    let confidence = looks.confidence();
    let known = |i: &usize| reported[*i].is_finite() && exact[*i].is_finite();
    let missing = exact.len() - (0..exact.len()).filter(known).count();
    let finite: Vec<usize> = inside(exact.len(), target)
        .into_iter()
        .filter(known)
        .collect();
    let gaps: Vec<f64> = finite.iter().map(|&i| reported[i] - exact[i]).collect();
    let mut criteria = Vec::new();
    if missing > 0 || gaps.len() < 2 {
        criteria.push(not_finite(missing, exact.len()));
    }
    let mut bias = Estimate::NONE;
    let mut under = UnderWeights::default();
    if gaps.len() >= 2 {
        bias = mean_of(&gaps, confidence)?;
        criteria.extend(under_the_proposal(&gaps, confidence, seed));
        if let Some(target) = target {
            under = under_the_weights(&gaps, &finite, exact, target, confidence)?;
            criteria.append(&mut under.criteria);
        }
    }
    let best = criteria
        .iter()
        .map(|c| c.best)
        .max()
        .unwrap_or(Level::False);
    let worst = criteria
        .iter()
        .map(|c| c.worst)
        .max()
        .unwrap_or(Level::False);
    let mut judgement = match (best, worst) {
        (Level::True, Level::True) if bias_loss(bias, under.bias).1 <= BIAS_GOOD => Judgement::True,
        (Level::True, Level::True) => Judgement::TrueButForAConstant,
        (Level::Rough, Level::Rough) => Judgement::Rough,
        (Level::False, Level::False) => Judgement::False,
        _ => Judgement::Undecided,
    };
    if reporter != Reporter::Head && missing == 0 && is_numerically_exact(&gaps) {
        judgement = Judgement::ExactByConstruction;
    }
    Ok(Assessment {
        judgement,
        best,
        worst,
        confidence,
        looks: looks.planned[..looks.taken.min(looks.planned.len())].to_vec(),
        criteria,
        bias,
        bias_under_weights: under.bias,
        effective_samples: under.effective,
        observables: under.observables,
        unseen: binomial_interval(0, gaps.len().max(1), confidence).1,
    })
}

/// The samples that the target has a place for, which are those that the proposal consists of: others are drawn again or weigh nothing,
/// and their log q is never used. All where there is no target, or where it is never met.
pub fn inside(n: usize, target: Option<&Weighed>) -> Vec<usize> {
    let weighs = |i: &usize| target.is_none_or(|t| t.log_density[*i] > f64::NEG_INFINITY);
    let inside: Vec<usize> = (0..n).filter(weighs).collect();
    if inside.is_empty() {
        (0..n).collect()
    } else {
        inside
    }
}

/// The mean of the gaps, with an interval that reaches farther where they are skewed.
fn mean_of(gaps: &[f64], confidence: f64) -> Result<Estimate> {
    let mean = weighted_average(gaps, &vec![0.0; gaps.len()], confidence)?;
    Ok(Estimate {
        value: mean.value,
        low: mean.low,
        high: mean.high,
    })
}

fn is_numerically_exact(gaps: &[f64]) -> bool {
    let n = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / n;
    let squares: f64 = gaps.iter().map(|gap| (gap - mean).powi(2)).sum();
    mean.abs() <= NUMERICALLY_EXACT[0] && (squares / n).sqrt() <= NUMERICALLY_EXACT[1]
}

/// The smallest and the largest size that the bias can have, the worse of the two averages.
fn bias_loss(bias: Estimate, under_weights: Option<Estimate>) -> (f64, f64) {
    [Some(bias), under_weights]
        .into_iter()
        .flatten()
        .map(size)
        .fold((0.0, 0.0), |(low, high), (l, h)| {
            // NaN is no small bias.
            let high = if h.is_nan() {
                f64::INFINITY
            } else {
                h.max(high)
            };
            (f64::max(low, l), high)
        })
}

#[cfg(test)]
mod tests {
    use super::super::target::Weighed;
    use super::*;
    use boltzmap_kernels::random::Stream;

    /// The judgement of gaps that are drawn one by one, at the planned looks until it is decided.
    fn verdict(
        gap: &dyn Fn(&mut Stream) -> f64,
        first: usize,
        most: usize,
        seed: u64,
    ) -> (Judgement, usize) {
        let mut stream = Stream::new(seed, 11, 0);
        let all: Vec<f64> = (0..most).map(|_| gap(&mut stream)).collect();
        let mut looks = Looks::doubling(first, most);
        loop {
            let n = looks.planned[looks.taken - 1];
            let exact = vec![0.0; n];
            let found = assess(Reporter::Head, &all[..n], &exact, None, &looks, seed).unwrap();
            if found.is_decided() || n == most {
                return (found.judgement, n);
            }
            looks.taken += 1;
        }
    }

    /// How many of the repeats end in one of the judgements.
    fn times(
        gap: &dyn Fn(&mut Stream) -> f64,
        (first, most): (usize, usize),
        repeats: u64,
        wanted: &[Judgement],
    ) -> usize {
        (0..repeats)
            .filter(|&seed| wanted.contains(&verdict(gap, first, most, 50 + seed).0))
            .count()
    }

    const GOOD: [Judgement; 2] = [Judgement::True, Judgement::TrueButForAConstant];

    /// 0.05 nats of noise, and `size` nats on a share of the samples.
    fn outliers(share: f64, size: f64) -> impl Fn(&mut Stream) -> f64 {
        move |stream| {
            let rare = stream.uniform() < share;
            0.05 * stream.standard_normal() + if rare { size } else { 0.0 }
        }
    }

    fn gaussian(spread: f64) -> impl Fn(&mut Stream) -> f64 {
        move |stream| spread * stream.standard_normal()
    }

    /// Student's distribution with three degrees of freedom: e^{−gap} has no mean.
    fn heavy(scale: f64) -> impl Fn(&mut Stream) -> f64 {
        move |stream| {
            let z = stream.standard_normal();
            let chi: f64 = (0..3).map(|_| stream.standard_normal().powi(2)).sum();
            scale * z / (chi / 3.0).sqrt()
        }
    }

    #[test]
    fn rare_outliers_are_not_called_true() {
        // Four samples in a thousand off by −4 nats leave a tenth of the effective samples. 400 samples show none of them one time in
        // five, so that many cannot be called true at all; a fixed number of 4000 and looks up to 16 000 must see them.
        assert_eq!(times(&outliers(0.004, -4.0), (400, 400), 100, &GOOD), 0);
        for (share, size) in [(0.004, -4.0), (0.0025, -4.0), (0.004, 4.0), (0.01, 1.5)] {
            let wrong = times(&outliers(share, size), (4000, 4000), 20, &GOOD);
            assert!(wrong <= 1, "{share} {size}: {wrong} of 20");
        }
        // Rarer than what the verdict speaks of, but visible in 4000 samples: seen, it is not called true either.
        let wrong = times(&outliers(0.001, -4.0), (4000, 8000), 20, &GOOD);
        assert!(wrong <= 1, "{wrong} of 20");
    }

    #[test]
    fn what_is_true_is_called_true() {
        assert_eq!(verdict(&|_| 0.0, 4000, 16_000, 1), (Judgement::True, 4000));
        for spread in [0.05, 0.2] {
            let right = times(&gaussian(spread), (4000, 16_000), 10, &[Judgement::True]);
            assert!(right >= 9, "{spread}: {right} of 10");
        }
        let shifted = |stream: &mut Stream| 0.7 + 0.1 * stream.standard_normal();
        let wanted = [Judgement::TrueButForAConstant];
        assert!(times(&shifted, (4000, 16_000), 10, &wanted) >= 9);
        // Few samples say nothing of rare errors, and do not claim to.
        assert_eq!(verdict(&|_| 0.0, 1800, 1800, 1).0, Judgement::Undecided);
        assert_eq!(verdict(&|_| 0.0, 1900, 1900, 1).0, Judgement::True);
    }

    #[test]
    fn rough_and_false_are_told_apart() {
        let wanted = |judgement| {
            move |gap: &dyn Fn(&mut Stream) -> f64| times(gap, (4000, 8000), 10, &[judgement])
        };
        assert!(wanted(Judgement::Rough)(&gaussian(0.5)) >= 9);
        assert!(wanted(Judgement::False)(&gaussian(1.2)) >= 9);
        // A gap whose weights have no variance: what the largest one of all samples happens to be does not decide.
        assert!(wanted(Judgement::Rough)(&heavy(0.15)) >= 9);
        assert!(wanted(Judgement::False)(&outliers(0.01, -4.0)) >= 9);
        // Too low a weight on a tenth of the samples loses few of the effective ones and all of that tenth.
        assert!(wanted(Judgement::False)(&outliers(0.1, 4.0)) >= 9);
        assert_eq!(verdict(&gaussian(1.2), 400, 400, 3).0, Judgement::False);
    }

    #[test]
    fn what_is_not_finite_is_false() {
        let assessed = |reported: &[f64]| {
            let looks = Looks::single(reported.len());
            let exact = vec![0.0; reported.len()];
            assess(Reporter::Head, reported, &exact, None, &looks, 0)
                .unwrap()
                .judgement
        };
        let mut reported = vec![0.0; 4000];
        assert_eq!(assessed(&reported), Judgement::True);
        reported[17] = f64::NAN;
        assert_eq!(assessed(&reported), Judgement::False);
        assert_eq!(assessed(&[f64::NAN, 0.0]), Judgement::False);
        assert_eq!(assessed(&[]), Judgement::False);
    }

    /// n samples of a state of 2 % whose report is off by `error` there, with weights of spread 1.
    fn rare_state(n: usize, error: f64, seed: u64, reporter: Reporter) -> Assessment {
        let mut stream = Stream::new(seed, 12, 0);
        let inside: Vec<bool> = (0..n).map(|_| stream.uniform() < 0.02).collect();
        let exact: Vec<f64> = (0..n).map(|_| 5.0 * stream.standard_normal()).collect();
        let log_target = exact.iter().map(|q| q + stream.standard_normal()).collect();
        let reported: Vec<f64> = exact
            .iter()
            .zip(&inside)
            .map(|(q, inside)| q + if *inside { error } else { 0.0 })
            .collect();
        let target = Weighed::with_state(log_target, "state", inside);
        let looks = Looks::single(n);
        assess(reporter, &reported, &exact, Some(&target), &looks, seed).unwrap()
    }

    #[test]
    fn an_error_local_to_a_rare_state_is_seen_in_its_free_energy() {
        let found = rare_state(4000, 1.5, 1, Reporter::Head);
        assert_eq!(found.judgement, Judgement::False);
        // As averages under the proposal there is hardly anything: that is what used to be called true.
        assert!(found.bias.value < 0.05, "{:?}", found.bias);
        let named = |name: &str| found.criteria.iter().find(|c| c.name == name).unwrap();
        assert!(named("effective samples kept").estimate.value > 0.98);
        let free = &found.observables[0];
        assert!((free.difference.value - 1.5).abs() < 1e-9, "{free:?}");
        assert!((free.reported - free.exact - 1.5).abs() < 1e-9);
        let deciding: Vec<&str> = found.deciding().map(|c| c.name.as_str()).collect();
        assert_eq!(deciding, ["error of ΔF, state"]);
        // An error below the size that makes it local is found by its free energy all the same.
        let found = rare_state(8000, 0.3, 2, Reporter::Head);
        assert_eq!(found.judgement, Judgement::Rough);
        // None, and it is true, however heavy the weights.
        assert_eq!(
            rare_state(4000, 0.0, 3, Reporter::Head).judgement,
            Judgement::True
        );
    }

    #[test]
    fn one_sample_does_not_decide_a_free_energy() {
        // 4000 samples of a true report but for one in a state of 2 %, whose weight it makes 3000 times too large.
        let n = 4000;
        let inside: Vec<bool> = (0..n).map(|i| i % 50 == 0).collect();
        let mut reported = vec![0.0; n];
        reported[50] = -8.0;
        let target = Weighed::with_state(vec![0.0; n], "state", inside);
        let (exact, looks) = (vec![0.0; n], Looks::single(n));
        let found = assess(Reporter::Head, &reported, &exact, Some(&target), &looks, 0).unwrap();
        let free = &found.observables[0];
        assert!(free.difference.value < -1.0, "{free:?}");
        assert!(free.judged_difference.value.abs() < 0.02, "{free:?}");
        // It shows in what all weights keep, and that is not called true.
        assert_ne!(found.judgement, Judgement::True);
        assert_ne!(found.judgement, Judgement::False);
    }

    #[test]
    fn too_few_effective_samples_leave_it_undecided() {
        let mut stream = Stream::new(4, 0, 0);
        let exact = vec![0.0; 4000];
        let log_density: Vec<f64> = (0..4000).map(|_| 4.0 * stream.standard_normal()).collect();
        let inside = (0..4000).map(|i| i % 2 == 0).collect();
        let mut target = Weighed::with_state(log_density, "even", inside);
        let looks = Looks::single(4000);
        let judged = |target: &Weighed| {
            assess(Reporter::Head, &exact, &exact, Some(target), &looks, 0).unwrap()
        };
        let found = judged(&target);
        assert!(found.effective_samples.unwrap() < 100.0);
        assert_eq!(found.judgement, Judgement::Undecided);
        // A target that no sample meets.
        target.log_density = vec![f64::NEG_INFINITY; 4000];
        assert_eq!(judged(&target).judgement, Judgement::Undecided);
    }

    #[test]
    fn what_the_target_has_no_place_for_does_not_count() {
        // Every hundredth sample is off by −6 nats, and lies where the target has no density.
        let n = 4000;
        let mut reported = vec![0.0; n];
        let mut log_density = vec![0.0; n];
        for i in (0..n).step_by(100) {
            (reported[i], log_density[i]) = (-6.0, f64::NEG_INFINITY);
        }
        let even = (0..n).map(|i| i % 2 == 0).collect();
        let target = Weighed::with_state(log_density, "even", even);
        let (exact, looks) = (vec![0.0; n], Looks::single(n));
        let judged = |target| {
            let found = assess(Reporter::Head, &reported, &exact, target, &looks, 0).unwrap();
            found.judgement
        };
        assert_eq!(judged(Some(&target)), Judgement::True);
        assert_eq!(judged(None), Judgement::False);
    }

    #[test]
    fn a_quantity_compared_with_itself_is_not_called_true() {
        for reporter in [Reporter::Determinant, Reporter::Ode] {
            let found = rare_state(1000, 0.0, 5, reporter);
            assert_eq!(found.judgement, Judgement::ExactByConstruction);
            // Where two computations of one number differ, that is said.
            let found = rare_state(4000, 1.5, 5, reporter);
            assert_eq!(found.judgement, Judgement::False);
        }
    }
}
