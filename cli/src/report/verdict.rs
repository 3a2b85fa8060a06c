//! What the numbers mean, in sentences computed from them.

use serde::Serialize;

use super::Summary;
use super::svg::{count, number, with_error};

/// How good the news is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// As it should be.
    Good,
    /// Usable with care.
    Caution,
    /// Not to be relied on.
    Bad,
}

/// One sentence of the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// How good the news is.
    pub tone: Tone,
    /// What it is about, two or three words.
    pub subject: &'static str,
    /// The sentence.
    pub text: String,
}

/// Gap of the likelihoods, nats, up to which weights from the head are as good as exact ones.
const GAP_GOOD: f64 = 0.3;
/// Gap beyond which weights from the head are wrong by more than a factor e on a typical sample.
const GAP_BAD: f64 = 1.0;

/// Share of the reference with a hundredfold weight up to which weighted averages are merely noisier for it.
const MISSED_BAD: f64 = 0.01;

/// The verdict on a run.
pub fn verdict(summary: &Summary) -> Vec<Statement> {
    [
        Some(likelihood(summary)),
        Some(effective_samples(summary)),
        coverage(summary),
        Some(free_energy(summary)),
        Some(energies(summary)),
        Some(torsions(summary)),
        Some(chirality(summary)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn likelihood(summary: &Summary) -> Statement {
    let (mean, deviation) = (summary.likelihood_gap_mean, summary.likelihood_gap_std);
    let subject = "Likelihood head";
    if !summary.likelihood_head {
        let text = format!(
            "There is none: the method {} trains no divergence head, and every likelihood is the exact one.",
            summary.method
        );
        return Statement {
            tone: Tone::Good,
            subject,
            text,
        };
    }
    if summary.n_audited == 0 || !deviation.is_finite() {
        let text = "Not audited: no likelihood was computed exactly, so the weights rest on the head alone.".into();
        return Statement {
            tone: Tone::Bad,
            subject,
            text,
        };
    }
    let measured = format!(
        "Against exact log-determinants on {} samples the head is off by {} nats (mean ± standard deviation)",
        count(summary.n_audited),
        with_error(mean, deviation)
    );
    let (tone, judgement) = if deviation > GAP_BAD {
        (
            Tone::Bad,
            "weights by the head must not be trusted; use the exact ones",
        )
    } else if deviation > GAP_GOOD {
        (
            Tone::Caution,
            "weights by the head are rough; prefer the exact ones",
        )
    } else {
        (
            Tone::Good,
            "weights by the head are nearly as good as exact ones, for a constant offset cancels",
        )
    };
    Statement {
        tone,
        subject,
        text: format!("{measured}: {judgement}."),
    }
}

fn effective_samples(summary: &Summary) -> Statement {
    let subject = "Effective samples";
    let (exact, head) = (summary.ess_exact, summary.ess_head_audited);
    let worth = exact * summary.n_audited as f64;
    if !exact.is_finite() {
        let text = format!(
            "The head's ESS of {} has no exact counterpart.",
            number(summary.ess_head)
        );
        return Statement {
            tone: Tone::Bad,
            subject,
            text,
        };
    }
    let mut text = format!(
        "By exact likelihoods the ESS is {} %: {} audited samples are worth {} independent ones",
        number(100.0 * exact),
        count(summary.n_audited),
        number(worth)
    );
    if head.is_finite() {
        text += &format!(
            "; the head says {} % for the same samples",
            number(100.0 * head)
        );
        if head > 2.0 * exact {
            text += ", which flatters the model";
        }
    }
    // A new draw of such a model can meet a sample heavier still.
    let clipped = summary.ess_exact_clipped;
    let hangs_on_few = clipped > 1.5 * exact;
    let tone = match worth {
        worth if worth >= 100.0 && !hangs_on_few => Tone::Good,
        worth if worth >= 20.0 => Tone::Caution,
        _ => Tone::Bad,
    };
    if tone == Tone::Bad {
        text += "; a few samples carry all the weight, so every weighted average is noisy";
    } else if hangs_on_few {
        text += &format!(
            "; without the heaviest 0.2 % of samples it would be {} %, so a new draw may fare much worse",
            number(100.0 * clipped)
        );
    }
    Statement {
        tone,
        subject,
        text: text + ".",
    }
}

/// Whether the proposal reaches what the dynamics visited.
fn coverage(summary: &Summary) -> Option<Statement> {
    let (traced, share) = (summary.n_traced, summary.heavy_share);
    if traced == 0 {
        return None;
    }
    let heavy = (share * traced as f64).round() as usize;
    let mut text = match heavy {
        0 => format!(
            "None of {} reference frames, traced back to noise, would weigh more than a hundred times the mean",
            count(traced)
        ),
        heavy => format!(
            "Of {} reference frames, traced back to noise, {} would weigh more than a hundred times the mean",
            count(traced),
            count(heavy)
        ),
    };
    if summary.n_unreached > 0 {
        text += &format!(", {} of them without bound", count(summary.n_unreached));
    }
    text += &format!(
        "; the ESS they foretell is {} %",
        number(100.0 * summary.ess_reference)
    );
    let tone = match heavy {
        0 => Tone::Good,
        _ if share <= MISSED_BAD => Tone::Caution,
        _ => Tone::Bad,
    };
    text += match tone {
        Tone::Good => "",
        Tone::Caution => {
            ": samples from there are rare and heavy, and a draw's ESS depends on whether it holds one"
        }
        Tone::Bad => {
            ": the proposal misses a part of the ensemble, which its own weights cannot show"
        }
    };
    Some(Statement {
        tone,
        subject: "Coverage",
        text: text + ".",
    })
}

fn free_energy(summary: &Summary) -> Statement {
    let subject = "Free energy";
    let difference = summary.delta_f_kt - summary.delta_f_reference_kt;
    let error = summary
        .delta_f_error_kt
        .hypot(summary.delta_f_reference_error_kt);
    if !(difference.is_finite() && error.is_finite()) {
        let text = "ΔF could not be estimated: one of the two φ basins holds no weight.".into();
        return Statement {
            tone: Tone::Bad,
            subject,
            text,
        };
    }
    let values = format!(
        "ΔF = {} kT against {} kT from dynamics",
        with_error(summary.delta_f_kt, summary.delta_f_error_kt),
        with_error(
            summary.delta_f_reference_kt,
            summary.delta_f_reference_error_kt
        )
    );
    let (tone, judgement) = if difference.abs() <= error {
        (Tone::Good, "they agree within the stated errors".to_owned())
    } else if difference.abs() <= 2.0 * error {
        (
            Tone::Caution,
            "they differ by less than twice the stated errors".to_owned(),
        )
    } else {
        (
            Tone::Bad,
            format!(
                "they differ by {} times the stated errors",
                number(difference.abs() / error)
            ),
        )
    };
    let vague = if error > 0.5 { ", which are large" } else { "" };
    Statement {
        tone,
        subject,
        text: format!("{values}: {judgement}{vague}."),
    }
}

/// A distance against its floor.
fn distance(
    subject: &'static str,
    what: &str,
    unit: &str,
    value: f64,
    proposal: f64,
    floor: f64,
) -> Statement {
    let text = format!(
        "{what} is {} {unit} after re-weighting ({} before), with a floor of {} between two reference sets",
        number(value),
        number(proposal),
        number(floor)
    );
    let ratio = value / floor;
    let tone = match ratio {
        ratio if ratio <= 2.0 => Tone::Good,
        ratio if ratio <= 5.0 => Tone::Caution,
        _ => Tone::Bad,
    };
    let judgement = if !ratio.is_finite() {
        String::new()
    } else if ratio <= 1.2 {
        "; nothing is left to gain at this sample size".into()
    } else {
        format!(", {} times the floor", number(ratio))
    };
    Statement {
        tone,
        subject,
        text: format!("{text}{judgement}."),
    }
}

fn energies(summary: &Summary) -> Statement {
    let s = summary;
    distance(
        "Energies",
        "E-W2",
        "kT",
        s.e_w2,
        s.e_w2_proposal,
        s.e_w2_floor,
    )
}

fn torsions(summary: &Summary) -> Statement {
    let s = summary;
    distance(
        "Torsions",
        "T-W2",
        "rad",
        s.t_w2,
        s.t_w2_proposal,
        s.t_w2_floor,
    )
}

fn chirality(summary: &Summary) -> Statement {
    let (weighted, proposal) = (summary.chirality_l_weighted, summary.chirality_l_proposal);
    let tone = match weighted {
        weighted if weighted >= 1.0 - 1e-9 => Tone::Good,
        weighted if weighted >= 0.999 => Tone::Caution,
        _ => Tone::Bad,
    };
    let share = |fraction: f64| {
        if fraction >= 1.0 - 1e-9 {
            "all".to_owned()
        } else {
            format!("{} %", number(100.0 * fraction))
        }
    };
    let text = format!(
        "Of the weighted samples {} have L chirality, of the bare proposal {}.",
        share(weighted),
        share(proposal)
    );
    Statement {
        tone,
        subject: "Chirality",
        text,
    }
}
