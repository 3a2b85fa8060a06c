//! What the numbers mean, in sentences computed from them, with the thresholds in one place.

use serde::Serialize;

use super::measure::Measurement;
use super::statistics::{Comparison, Estimate};
use crate::report::svg::number;
use crate::report::{Statement, Tone};

/// Share of the effective samples that reported weights must keep, at the lower end of the interval, to be usable. It is
/// what a Gaussian spread of 0.32 nats keeps.
pub const KEPT_GOOD: f64 = 0.9;
/// Share below which weights must not be used: a spread of 0.83 nats.
pub const KEPT_BAD: f64 = 0.5;
/// Bias, nats, up to which a log-likelihood may be quoted as it stands: the farther end of its interval must not pass it.
pub const BIAS_GOOD: f64 = 0.05;
/// Rank correlation from which the order of samples by likelihood can be relied on.
pub const RANK_GOOD: f64 = 0.99;
/// Largest error of the instrument, nats, at which its verdict counts.
pub const INSTRUMENT_GOOD: f64 = 0.01;

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
}

impl Judgement {
    /// In a word or a few.
    pub fn words(self) -> &'static str {
        match self {
            Judgement::True => "true",
            Judgement::TrueButForAConstant => "true but for a constant",
            Judgement::Rough => "rough",
            Judgement::False => "false",
        }
    }

    /// How good the news is.
    pub fn tone(self) -> Tone {
        match self {
            Judgement::True | Judgement::TrueButForAConstant => Tone::Good,
            Judgement::Rough => Tone::Caution,
            Judgement::False => Tone::Bad,
        }
    }
}

/// The judgement of a comparison of reported with exact log-densities.
pub fn judge(gap: &Comparison) -> Judgement {
    let (kept, bias) = (gap.retained, gap.bias);
    // Comparisons with NaN are false, so that what could not be measured is not called true.
    let usable = gap.not_finite == 0 && kept.value >= KEPT_BAD;
    let good = usable && kept.low >= KEPT_GOOD;
    if !usable {
        Judgement::False
    } else if !good {
        Judgement::Rough
    } else if bias.low.abs().max(bias.high.abs()) <= BIAS_GOOD {
        Judgement::True
    } else {
        Judgement::TrueButForAConstant
    }
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

/// The verdict on a likelihood in one sentence. `reporter` is what reports it, as in "the head".
pub fn sentence(reporter: &str, gap: &Comparison) -> String {
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
        "The log-densities of {reporter} {direction} a spread of {} nats; weights made from them keep {} of the \
         effective samples that exact ones have",
        with_interval(gap.spread),
        percent(gap.retained),
    );
    text += &match judge(gap) {
        Judgement::True => {
            ": usable as they stand, for weights and as absolute log-likelihoods, because no error is left that these samples \
             could show"
                .to_owned()
        }
        Judgement::TrueButForAConstant => format!(
            ": usable for re-weighting, because a constant cancels in self-normalised weights; as absolute log-likelihoods only \
             after {} nats are subtracted",
            number(bias.value)
        ),
        Judgement::Rough => format!(
            ": usable for re-weighting with care, because single weights are off by a factor of {} either way and averages \
             made with them are biased; prefer exact log-determinants",
            number(gap.spread.value.exp())
        ),
        Judgement::False if gap.not_finite > 0 => format!(
            ": not usable, because {} samples have no finite log-density",
            gap.not_finite
        ),
        Judgement::False => format!(
            ": not usable for re-weighting, because single weights are off by a factor of {} either way, and the loss does not \
             show in the weights themselves",
            number(gap.spread.value.exp())
        ),
    };
    text + "."
}

/// The thresholds, in a sentence for reports.
pub fn thresholds() -> String {
    format!(
        "True: weights keep at least {} % of the effective samples (lower end of the 95 % interval; a Gaussian spread of 0.32 \
         nats) and the bias is within {BIAS_GOOD} nats of zero (farther end). True but for a constant: the former only. Rough: \
         at least {} % are kept (a spread of 0.83 nats). False: less, or a log-density that is not finite.",
        100.0 * KEPT_GOOD,
        100.0 * KEPT_BAD
    )
}

/// All statements about one flow map whose head reports its likelihood.
pub fn statements(reporter: &str, m: &Measurement) -> Vec<Statement> {
    vec![
        Statement {
            tone: judge(&m.gap).tone(),
            subject: "Reported likelihood",
            text: sentence(reporter, &m.gap),
        },
        ranks(reporter, m),
        source(m),
        injective(m),
        flow(m),
        backwards(m),
        instrument(m),
    ]
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
        tone: judge(&m.gap).tone(),
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
    use super::super::statistics::compare;
    use super::*;
    use boltzmap_kernels::random::Stream;

    fn gap(bias: f64, spread: f64, n: usize) -> Comparison {
        let mut truth = vec![0.0; n];
        Stream::new(1, 0, 0).fill_standard_normal(&mut truth);
        let mut noise = vec![0.0; n];
        Stream::new(2, 0, 0).fill_standard_normal(&mut noise);
        let reported: Vec<f64> = truth
            .iter()
            .zip(&noise)
            .map(|(t, z): (&f64, &f64)| 5.0 * t + bias + spread * z)
            .collect();
        let truth: Vec<f64> = truth.iter().map(|t| 5.0 * t).collect();
        compare(&reported, &truth, 0)
    }

    #[test]
    fn judgements_follow_bias_and_spread() {
        for (bias, spread, expected) in [
            (0.0, 0.0, Judgement::True),
            (0.01, 0.1, Judgement::True),
            (0.3, 0.1, Judgement::TrueButForAConstant),
            (-4.0, 0.0, Judgement::TrueButForAConstant),
            (0.0, 0.6, Judgement::Rough),
            (0.0, 1.0, Judgement::False),
        ] {
            assert_eq!(judge(&gap(bias, spread, 4000)), expected, "{bias} {spread}");
        }
        // Few samples cannot show that weights are good.
        assert_eq!(judge(&gap(0.0, 0.3, 20)), Judgement::Rough);
        let missing = compare(&[0.0, f64::NAN], &[0.0, 0.0], 0);
        assert_eq!(judge(&missing), Judgement::False);
        assert_eq!(judge(&compare(&[], &[], 0)), Judgement::False);
    }

    #[test]
    fn sentences_say_which_way_and_what_follows() {
        let text = sentence("the head", &gap(0.3, 0.1, 4000));
        assert!(
            text.contains("too high by 0.30") && text.contains("a constant cancels"),
            "{text}"
        );
        let text = sentence("the head", &gap(-0.3, 1.2, 4000));
        assert!(
            text.contains("too low by") && text.contains("not usable"),
            "{text}"
        );
        let text = sentence("the head", &gap(0.0, 0.0, 4000));
        assert!(
            text.contains("no visible bias") && text.contains("100 %"),
            "{text}"
        );
        assert!(!text.contains("NaN"));
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
