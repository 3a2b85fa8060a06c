//! What the numbers mean, in sentences computed from them, with the thresholds in one place.

use super::assessment::{Assessment, Judgement};
use super::criteria::{
    AVERAGE_BAD, AVERAGE_GOOD, BIAS_GOOD, Criterion, FEWEST_EFFECTIVE, FREE_ENERGY_BAD,
    FREE_ENERGY_GOOD, GROSS, GROSS_SHARE, KEPT_BAD, KEPT_GOOD, LOCAL, Level, RARE, per_cent,
};
use super::measure::Measurement;
use super::statistics::{Comparison, Estimate};
use super::weighted::Observed;
use crate::report::svg::{count, number};
use crate::report::{Statement, Tone};

/// Rank correlation from which the order of samples by likelihood can be relied on.
pub const RANK_GOOD: f64 = 0.99;
/// Largest error of the instrument, nats, at which its verdict counts.
pub const INSTRUMENT_GOOD: f64 = 0.01;

impl Judgement {
    /// In a word or a few.
    pub fn words(self) -> &'static str {
        match self {
            Judgement::True => "true",
            Judgement::TrueButForAConstant => "true but for a constant",
            Judgement::Rough => "rough",
            Judgement::False => "false",
            Judgement::Undecided => "undecided",
            Judgement::ExactByConstruction => "exact by construction",
        }
    }

    /// Before and after the words, a sentence.
    pub fn around(self) -> [&'static str; 2] {
        match self {
            Judgement::Undecided => ["Whether the reported likelihood is true is ", "."],
            _ => ["The reported likelihood is ", "."],
        }
    }

    /// How good the news is.
    pub fn tone(self) -> Tone {
        match self {
            Judgement::True | Judgement::TrueButForAConstant | Judgement::ExactByConstruction => {
                Tone::Good
            }
            Judgement::Rough | Judgement::Undecided => Tone::Caution,
            Judgement::False => Tone::Bad,
        }
    }
}

impl Level {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Level::True => "true",
            Level::Rough => "rough",
            Level::False => "false",
        }
    }
}

impl Criterion {
    /// What it alone would have the report called.
    pub fn says(&self) -> String {
        // Where only one threshold exists, the quantity cannot tell the levels on its other side apart.
        let word = |level: Level| match (level, self.good.is_empty(), self.bad.is_empty()) {
            (Level::True, true, _) => "not false",
            (Level::Rough, _, true) => "not true",
            (level, ..) => level.word(),
        };
        if self.best == self.worst {
            word(self.best).into()
        } else {
            format!("{} to {}", word(self.best), word(self.worst))
        }
    }

    /// Its value with its interval.
    pub fn found(&self) -> String {
        let e = self.estimate;
        match self.unit {
            "" => percent(e),
            "samples" => count(e.value.max(0.0).round() as usize),
            unit => format!("{} {}", between(e), short(unit)),
        }
    }
}

/// Units as they stand in tables.
fn short(unit: &str) -> &str {
    match unit {
        "standard deviations" => "σ",
        unit => unit,
    }
}

/// A value with the ends of its interval.
pub fn between(e: Estimate) -> String {
    let fixed = |v: f64| match v {
        v if v == f64::INFINITY => "∞".to_owned(),
        v if v == f64::NEG_INFINITY => "−∞".to_owned(),
        v if v.is_nan() => "unknown".to_owned(),
        v => format!("{:+.3}", v)
            .replace('-', "−")
            .replace("+0.000", "0.000")
            .replace("−0.000", "0.000"),
    };
    format!("{} ({} to {})", fixed(e.value), fixed(e.low), fixed(e.high))
}

/// A value with half its 95 % interval, to the interval's second digit.
pub fn with_interval(estimate: Estimate) -> String {
    let half = estimate.half_width();
    if !(estimate.value.is_finite() && half.is_finite()) {
        return number(estimate.value);
    }
    let decimals = decimals_for(half, estimate.value);
    // What rounds to zero has no sign.
    let value = format!("{:.decimals$}", estimate.value);
    let zero = value.chars().all(|c| !c.is_ascii_digit() || c == '0');
    let value = if zero { value.replace('-', "") } else { value };
    format!("{value} ± {half:.decimals$}").replace('-', "−")
}

/// A share in per cent with its interval.
pub fn percent(estimate: Estimate) -> String {
    if !estimate.value.is_finite() {
        return number(estimate.value);
    }
    let of = |share: f64| {
        let per_cent = 100.0 * share;
        if per_cent >= 99.95 {
            "100".to_owned()
        } else if per_cent >= 10.0 {
            format!("{per_cent:.1}")
        } else {
            number(per_cent)
        }
    };
    let (value, low, high) = (of(estimate.value), of(estimate.low), of(estimate.high));
    if low == high {
        format!("{value} %")
    } else {
        format!("{value} % ({low}–{high})")
    }
}

/// Decimals that show two digits of `error`, and of what is exact three digits of the value.
fn decimals_for(error: f64, value: f64) -> usize {
    let scale = if error > 0.0 { error } else { value.abs() };
    if scale <= 0.0 || !scale.is_finite() {
        return 2;
    }
    (1 - scale.log10().floor() as i32).clamp(0, 4) as usize
}

/// The verdict on a likelihood in one sentence or two. `reporter` is what reports it, as in "the head".
pub fn sentence(reporter: &str, gap: &Comparison, assessment: &Assessment) -> String {
    if gap.samples < 2 {
        return format!(
            "No sample has both a finite log-density by {reporter} and a finite exact one: the report is worthless."
        );
    }
    let bias = gap.bias;
    let size = Estimate {
        value: bias.value.abs(),
        low: bias.low,
        high: bias.high,
    };
    let direction = if bias.low > 0.0 {
        format!("are too high by {} nats, with", with_interval(size))
    } else if bias.high < 0.0 {
        format!("are too low by {} nats, with", with_interval(size))
    } else {
        format!("have no visible bias, {} nats, but", with_interval(bias))
    };
    let mut text = format!(
        "The log-densities of {reporter} {direction} a spread of {} nats",
        with_interval(gap.spread)
    );
    let listed = || {
        let each: Vec<String> = assessment
            .deciding()
            .map(|c| format!("{}: {}", c.name, c.found()))
            .collect();
        each.join("; ")
    };
    text += &match assessment.judgement {
        Judgement::True => format!(
            ": usable as they stand, for weights and as absolute log-likelihoods. An error in fewer than {} of the samples would not \
             have been seen",
            per_cent(assessment.unseen.max(RARE))
        ),
        Judgement::TrueButForAConstant => format!(
            ": usable for re-weighting, because a constant cancels in self-normalised weights; as absolute log-likelihoods only \
             after {} nats are subtracted. An error in fewer than {} of the samples would not have been seen",
            number(bias.value),
            per_cent(assessment.unseen.max(RARE))
        ),
        Judgement::Rough => format!(
            ": usable for re-weighting with care, without the largest {} of the weights; prefer exact log-determinants. What decides: \
             {}",
            per_cent(RARE),
            listed()
        ),
        Judgement::False if gap.not_finite > 0 => format!(
            ": not usable, because {} samples have no finite log-density",
            gap.not_finite
        ),
        Judgement::False => format!(
            ": not usable for re-weighting, and the weights themselves do not show it. What decides: {}",
            listed()
        ),
        Judgement::Undecided => format!(
            ": {} samples allow anything from {} to {}; draw more with --samples. What is open: {}",
            count(gap.samples),
            assessment.best.word(),
            assessment.worst.word(),
            listed()
        ),
        Judgement::ExactByConstruction => format!(
            ". The report is the exact log-density, computed twice in different precision or tolerance, so this is round-off and no \
             finding about a head, which this method does not have; the largest difference is {} nats",
            number(gap.largest_size())
        ),
    };
    text + "."
}

/// The thresholds, in a sentence for reports.
pub fn thresholds() -> String {
    format!(
        "True: at most {} of the samples are off by more than {LOCAL} nat from the median, weights keep at least {} of the effective \
         samples (both as a Gaussian spread of 0.32 nats has them), under the target as well, every free energy by the report is within \
         {FREE_ENERGY_GOOD} kT of the exact one and every average within {AVERAGE_GOOD} of its standard deviation, and the bias is within \
         {BIAS_GOOD} nats of zero. True but for a constant: all but the last. False: weights keep less than {} without the largest {}, \
         more than {} of the samples are off by more than {GROSS} nats, a free energy by more than {FREE_ENERGY_BAD} kT, an average by \
         more than {AVERAGE_BAD} of its standard deviation, or a log-density is not finite. Rough: neither. The worst decides, and the \
         whole interval must lie on one side: otherwise undecided. Of what is rarer than {} nothing is said.",
        per_cent(RARE),
        per_cent(KEPT_GOOD),
        per_cent(KEPT_BAD),
        per_cent(RARE),
        per_cent(GROSS_SHARE),
        per_cent(RARE),
    )
}

/// What re-weighting with the report does to averages.
fn averages(reporter: &str, assessment: &Assessment) -> Option<Statement> {
    let effective = assessment.effective_samples?;
    let judged: Vec<&Observed> = assessment.observables.iter().filter(|o| o.judged).collect();
    let worst_of = |free_energy: bool| {
        let of_kind = judged.iter().filter(|o| o.free_energy == free_energy);
        of_kind.max_by(|a, b| {
            let size = |o: &Observed| (o.judged_difference.value / o.scale).abs();
            size(a).total_cmp(&size(b))
        })
    };
    let mut parts = Vec::new();
    if let Some(o) = worst_of(true) {
        parts.push(format!(
            "ΔF of {} is {} kT by {reporter} and {} kT by exact weights, and without the largest {} of the ratios {} kT apart",
            o.name,
            signed(o.reported),
            signed(o.exact),
            per_cent(RARE),
            between(o.judged_difference)
        ));
    }
    if let Some(o) = worst_of(false) {
        parts.push(format!(
            "of the averages the mean {} is off most, {} of its standard deviation",
            o.name,
            between(Estimate {
                value: o.judged_difference.value / o.scale,
                low: o.judged_difference.low / o.scale,
                high: o.judged_difference.high / o.scale,
            })
        ));
    }
    let unknown: Vec<&str> = assessment
        .observables
        .iter()
        .filter(|o| !o.judged && o.free_energy)
        .map(|o| o.name.as_str())
        .collect();
    if !unknown.is_empty() {
        parts.push(format!(
            "too few effective samples to judge {}",
            unknown.join(", ")
        ));
    }
    let of_observables = |c: &&Criterion| c.name.starts_with("error of");
    let worst = assessment.criteria.iter().filter(of_observables);
    let (best, worst) = worst.fold((Level::True, Level::True), |(b, w), c| {
        (b.max(c.best), w.max(c.worst))
    });
    let tone = match (best, worst) {
        (Level::True, Level::True) if effective >= FEWEST_EFFECTIVE => Tone::Good,
        (Level::False, _) => Tone::Bad,
        _ => Tone::Caution,
    };
    let mut text = format!(
        "Under the target ({} effective samples)",
        count(effective.round() as usize)
    );
    text += &match parts.is_empty() {
        true => " nothing can be averaged".to_owned(),
        false => format!(": {}", parts.join("; ")),
    };
    Some(Statement {
        tone,
        subject: "Re-weighted",
        text: text + ".",
    })
}

/// A number with its sign and two decimals.
pub fn signed(value: f64) -> String {
    format!("{value:.2}").replace('-', "−")
}

/// All statements about one flow map whose head reports its likelihood.
pub fn statements(reporter: &str, m: &Measurement) -> Vec<Statement> {
    let all = [
        Some(Statement {
            tone: m.assessment.judgement.tone(),
            subject: "Reported likelihood",
            text: sentence(reporter, &m.gap, &m.assessment),
        }),
        averages(reporter, &m.assessment),
        Some(ranks(reporter, m)),
        Some(source(m)),
        Some(injective(m)),
        Some(flow(m)),
        Some(backwards(m)),
        Some(instrument(m)),
    ];
    all.into_iter().flatten().collect()
}

fn ranks(reporter: &str, m: &Measurement) -> Statement {
    let rank = m.gap.rank;
    let (tone, judgement) = if rank.low >= RANK_GOOD {
        (
            Tone::Good,
            "the order of the samples by likelihood can be relied on",
        )
    } else if rank.value >= 0.9 {
        (
            Tone::Caution,
            "the order of samples that are close in likelihood cannot be relied on",
        )
    } else {
        (
            Tone::Bad,
            "the order of the samples by likelihood is not theirs",
        )
    };
    Statement {
        tone,
        subject: "Order",
        text: format!(
            "The rank correlation of {reporter}'s log-densities with the exact ones is {}: {judgement}.",
            with_interval(rank)
        ),
    }
}

fn source(m: &Measurement) -> Statement {
    let total: f64 = m.steps.iter().map(|step| step.spread.powi(2)).sum();
    let worst = m
        .steps
        .iter()
        .max_by(|a, b| a.spread.total_cmp(&b.spread))
        .filter(|_| total > 0.0);
    let text = match worst {
        None => "No step adds to the gap.".to_owned(),
        Some(worst) => format!(
            "The step from t = {:.3} to t = {:.3} adds most, {} ± {} nats (mean and standard deviation); it holds {:.0} % of the \
             variance that the steps add one by one.",
            worst.from,
            worst.to,
            number(worst.mean),
            number(worst.spread),
            100.0 * worst.spread.powi(2) / total
        ),
    };
    Statement {
        tone: m.assessment.judgement.tone(),
        subject: "Where it arises",
        text,
    }
}

fn injective(m: &Measurement) -> Statement {
    let inverse = &m.inverse;
    let share = |value: f64| format!("{} %", number(100.0 * value));
    let mut text = format!(
        "The map was inverted numerically for {} of {} samples, to a residual of at most {}",
        share(inverse.success),
        inverse.samples,
        number(inverse.residual.largest)
    );
    let tone = if m.folded_steps > 0 || inverse.other_preimage > 0.0 {
        text += &format!(
            "; it folds space: {} of {} steps had a determinant that was not positive and {} of the samples a second preimage, so \
             that even the exact log q is only a lower bound there",
            m.folded_steps,
            m.samples * m.steps.len(),
            share(inverse.other_preimage)
        );
        Tone::Bad
    } else if inverse.success < 1.0 {
        text += "; where the iteration failed nothing is known of the inverse";
        Tone::Caution
    } else {
        text += "; no determinant was negative and no second preimage turned up";
        Tone::Good
    };
    Statement {
        tone,
        subject: "One-to-one",
        text: text + ".",
    }
}

fn flow(m: &Measurement) -> Statement {
    let flow = &m.flow;
    let divergence = flow.map_against_flow.bias;
    let (tone, judgement) = if divergence.high <= BIAS_GOOD {
        (Tone::Good, "few steps and the flow are the same sampler")
    } else if divergence.low <= 0.0 {
        (
            Tone::Caution,
            "so few samples neither tell them apart nor show that they are one",
        )
    } else {
        (
            Tone::Caution,
            "the few-step map is a sampler of its own, whose density is not the flow's: a likelihood taken from the flow would \
             be wrong for its samples",
        )
    };
    Statement {
        tone,
        subject: "Continuous flow",
        text: format!(
            "From the flow of the same network ({} samples, tolerance {}) the map is {} nats away (Kullback–Leibler), and from the \
             same noise they end {} apart per coordinate (median): {judgement}.",
            flow.samples,
            number(flow.tolerance),
            with_interval(divergence),
            number(flow.distance.median)
        ),
    }
}

fn backwards(m: &Measurement) -> Statement {
    let worst = m
        .cycle
        .iter()
        .map(|cycle| cycle.error.median / cycle.moved)
        .fold(0.0, f64::max);
    let text = format!(
        "Run forward and back, the network misses the start of a step by at most {} % of how far the step moves (median, worst \
         step)",
        number(100.0 * worst)
    );
    if m.trained_backwards {
        let tone = if worst <= 0.05 {
            Tone::Good
        } else {
            Tone::Caution
        };
        return Statement {
            tone,
            subject: "Backwards",
            text: text + ".",
        };
    }
    Statement {
        tone: Tone::Caution,
        subject: "Backwards",
        text: text
            + "; this method never trained the network backwards, so that is no fault of it, and only the numerical inverse may be \
               used.",
    }
}

fn instrument(m: &Measurement) -> Statement {
    let i = &m.instrument;
    let tone = if i.rounding.max(i.differences) <= INSTRUMENT_GOOD {
        Tone::Good
    } else {
        Tone::Bad
    };
    Statement {
        tone,
        subject: "The instrument",
        text: format!(
            "Exact log q in single and in double precision agree within {} nats ({} samples), derivative programs and finite \
             differences within {} nats ({} determinants).",
            number(i.rounding),
            i.samples[0],
            number(i.differences),
            i.samples[1]
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::assessment::{Looks, assess};
    use super::super::statistics::compare;
    use super::super::subject::Reporter;
    use super::*;
    use boltzmap_kernels::random::Stream;

    fn pair(bias: f64, spread: f64, n: usize) -> (Vec<f64>, Vec<f64>) {
        let mut truth = vec![0.0; n];
        Stream::new(1, 0, 0).fill_standard_normal(&mut truth);
        let mut noise = vec![0.0; n];
        Stream::new(2, 0, 0).fill_standard_normal(&mut noise);
        let reported: Vec<f64> = truth
            .iter()
            .zip(&noise)
            .map(|(t, z): (&f64, &f64)| 5.0 * t + bias + spread * z)
            .collect();
        (reported, truth.iter().map(|t| 5.0 * t).collect())
    }

    fn gap(bias: f64, spread: f64, n: usize) -> Comparison {
        let (reported, truth) = pair(bias, spread, n);
        compare(&reported, &truth, 0)
    }

    fn said(bias: f64, spread: f64) -> (Judgement, String) {
        let gap = gap(bias, spread, 4000);
        let (reported, truth) = pair(bias, spread, 4000);
        let looks = Looks::single(4000);
        let assessment = assess(Reporter::Head, &reported, &truth, None, &looks, 0).unwrap();
        (
            assessment.judgement,
            sentence("the head", &gap, &assessment),
        )
    }

    #[test]
    fn sentences_say_which_way_and_what_follows() {
        let (judgement, text) = said(0.3, 0.1);
        assert_eq!(judgement, Judgement::TrueButForAConstant);
        assert!(
            text.contains("too high by 0.30") && text.contains("a constant cancels"),
            "{text}"
        );
        let (judgement, text) = said(-0.3, 1.2);
        assert_eq!(judgement, Judgement::False);
        assert!(
            text.contains("too low by") && text.contains("not usable"),
            "{text}"
        );
        let (judgement, text) = said(0.0, 0.0);
        assert_eq!(judgement, Judgement::True);
        assert!(
            text.contains("no visible bias") && text.contains("fewer than 0.2 %"),
            "{text}"
        );
        let (judgement, text) = said(0.0, 0.5);
        assert_eq!(judgement, Judgement::Rough);
        assert!(text.contains("off by more than 1 nat: 3.92 %"), "{text}");
    }

    #[test]
    fn numbers_show_two_digits_of_their_interval() {
        let estimate = |value, low, high| Estimate { value, low, high };
        assert_eq!(
            with_interval(estimate(-0.1043, -0.125, -0.085)),
            "−0.104 ± 0.020"
        );
        assert_eq!(with_interval(estimate(12.3456, 11.0, 13.6)), "12.3 ± 1.3");
        assert_eq!(
            with_interval(estimate(-1e-7, -2e-7, 1e-7)),
            "0.0000 ± 0.0000"
        );
        assert_eq!(
            percent(estimate(0.8712, 0.861, 0.8812)),
            "87.1 % (86.1–88.1)"
        );
        assert_eq!(percent(estimate(1.0, 1.0, 1.0)), "100 %");
    }
}
