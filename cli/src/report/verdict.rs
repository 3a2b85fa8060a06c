//! What the numbers mean, in sentences computed from them.

use serde::Serialize;

use super::Summary;
use super::svg::{count, number, with_error};
use boltzmap_sampling::Likelihood;

use crate::pipeline::normalisation::{Estimate, FEWEST_EFFECTIVE, Region};

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

/// Shift of ΔF by the head, kT, up to which it does not matter beside the errors of such free energies.
const SHIFT_GOOD: f64 = 0.1;
/// Shift of ΔF by the head, kT, beyond which averages by its weights are wrong by much more than they are noisy.
const SHIFT_BAD: f64 = 0.5;

/// Share of the reference with a hundredfold weight up to which weighted averages are merely noisier for it.
const MISSED_BAD: f64 = 0.01;
/// Share of the proposal that frames must see.
const SEEN_GOOD: f64 = 0.8;

/// Effective samples, and independent values of the reference, from which distances and free energies can be judged.
const ENOUGH: f64 = 100.0;
/// Below this many, nothing can be said.
const TOO_FEW: f64 = 20.0;
/// Acceptance of exchanges below which replicas hardly move between two temperatures.
const ACCEPTANCE_BAD: f64 = 0.01;
/// Standard errors beyond which the normalisation of a likelihood is off; several regions are looked at.
const OFF: f64 = 3.5;

/// The verdict on a run.
pub fn verdict(summary: &Summary) -> Vec<Statement> {
    [
        Some(likelihood(summary)),
        normalisation(summary),
        Some(effective_samples(summary)),
        coverage(summary),
        Some(reference(summary)),
        Some(free_energy(summary)),
        Some(energies(summary)),
        Some(torsions(summary)),
        chirality(summary),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the audited likelihoods are, in a word.
fn kind(summary: &Summary) -> &'static str {
    match summary.likelihood {
        Likelihood::Integrated { .. } => "integrated",
        _ => "exact",
    }
}

fn likelihood(summary: &Summary) -> Statement {
    let (mean, deviation) = (summary.likelihood_gap_mean, summary.likelihood_gap_std);
    let subject = "Likelihood head";
    if !summary.likelihood_head {
        let why = match summary.guidance != 0.0 {
            true => "no head knows the density of guided samples".to_owned(),
            false => format!("the method {} trains no divergence head", summary.method),
        };
        let text = format!(
            "There is none: {why}, and every likelihood is {}.",
            summary.likelihood
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
    let (mut tone, judgement) = if deviation > GAP_BAD {
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
            "a constant offset cancels in weights, so their spread over all samples is small",
        )
    };
    let mut text = format!("{measured}: {judgement}.");
    let (shift, error) = (
        summary.delta_f_head_minus_exact_kt,
        summary.delta_f_head_minus_exact_error_kt,
    );
    if shift.is_finite() {
        text += &format!(
            " ΔF by the head is {} kT, {} kT from that by exact likelihoods on the same samples",
            with_error(summary.delta_f_head_kt, summary.delta_f_head_error_kt),
            signed_with_error(shift, error)
        );
        let far = shift.abs() - 2.0 * if error.is_finite() { error } else { 0.0 };
        if far > SHIFT_BAD {
            tone = Tone::Bad;
            text += ": do not use the head's weights for it";
        } else if shift.abs() > SHIFT_GOOD {
            tone = worse(tone, Tone::Caution);
            text += ": the head is wrong by another amount in that state than outside, which no offset cancels";
        }
        text += ".";
    }
    Statement {
        tone,
        subject,
        text,
    }
}

/// The worse of two tones.
fn worse(a: Tone, b: Tone) -> Tone {
    match (a, b) {
        (Tone::Bad, _) | (_, Tone::Bad) => Tone::Bad,
        (Tone::Caution, _) | (_, Tone::Caution) => Tone::Caution,
        _ => Tone::Good,
    }
}

fn signed_with_error(value: f64, error: f64) -> String {
    let text = with_error(value, error);
    if value > 0.0 {
        format!("+{text}")
    } else {
        text
    }
}

/// Whether exact likelihoods, and the head's, integrate to one where the reference is.
fn normalisation(summary: &Summary) -> Option<Statement> {
    let found = summary.normalisation.as_ref()?;
    let subject = "Normalisation";
    let seen = |region: &&Region| region.effective_samples >= FEWEST_EFFECTIVE;
    let judged: Vec<&Region> = found.regions.iter().filter(seen).collect();
    let total = found.regions.len();
    let far = |estimate: &Estimate| estimate.value.abs() / estimate.standard_error;
    let Some(worst) = judged
        .iter()
        .max_by(|a, b| far(&a.exact).total_cmp(&far(&b.exact)))
    else {
        return Some(Statement {
            tone: Tone::Caution,
            subject,
            text: format!(
                "Undecided: too few samples reach any of the {total} regions of the reference in which the likelihoods' integral was tested."
            ),
        });
    };
    let is_off = far(&worst.exact) > OFF;
    let mut text = format!(
        "{} integrate to one {} in {} of {total} regions of the reference (largest deviation {} nats",
        match summary.likelihood {
            Likelihood::Integrated { .. } => "Integrated likelihoods",
            _ => "Exact likelihoods",
        },
        match is_off {
            true => "except".to_owned(),
            false => format!("within {OFF} standard errors"),
        },
        match is_off {
            true => judged.iter().filter(|r| far(&r.exact) > OFF).count(),
            false => judged.len(),
        },
        signed_with_error(worst.exact.value, worst.exact.standard_error),
    );
    text += match (judged.len() == total, is_off) {
        (true, _) => ")",
        (false, true) => "; regions with too few samples are left out)",
        (false, false) => "; the rest have too few samples)",
    };
    let mut tone = if is_off { Tone::Bad } else { Tone::Good };
    if judged.len() < total {
        tone = worse(tone, Tone::Caution);
    }
    let by_head = |region: &&&Region| region.head_minus_exact.value.is_finite();
    let largest = judged.iter().filter(by_head).max_by(|a, b| {
        let size = |region: &Region| region.head_minus_exact.value.abs();
        size(a).total_cmp(&size(b))
    });
    if let Some(region) = largest {
        text += &format!(
            "; the head's log q is off by up to {} nats there",
            signed_with_error(
                region.head_minus_exact.value,
                region.head_minus_exact.standard_error
            )
        );
    }
    let samples = found.log_z_samples;
    let routes = [
        (found.log_z_traced, "frames traced back to noise"),
        (found.log_z_frames, "frames without the network"),
    ];
    text += &format!(
        ". ln Z is {} from samples",
        with_error(samples.value, samples.standard_error)
    );
    for (estimate, name) in routes {
        if !(estimate.value.is_finite() && estimate.standard_error.is_finite()) {
            continue;
        }
        text += &format!(
            ", {} from {name}",
            with_error(estimate.value, estimate.standard_error)
        );
        let error = samples.standard_error.hypot(estimate.standard_error);
        if (samples.value - estimate.value).abs() > OFF * error {
            tone = Tone::Bad;
            text += " (which disagree: likelihoods, samples or reference are wrong)";
        }
    }
    Some(Statement {
        tone,
        subject,
        text: text + ".",
    })
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
        "By {} likelihoods the ESS is {} %: {} audited samples are worth {} independent ones",
        kind(summary),
        number(100.0 * exact),
        count(summary.n_audited),
        number(worth)
    );
    let rejected = summary.n_drawn.saturating_sub(summary.n_samples);
    if rejected > 0 {
        text += &format!(
            " ({} further draws fell outside the target or the coordinates' domain)",
            count(rejected)
        );
    }
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
        worth if worth >= ENOUGH && !hangs_on_few => Tone::Good,
        worth if worth >= TOO_FEW => Tone::Caution,
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
        "; with the samples they foretell an ESS of {} %, and they see {} % of the proposal",
        with_error(
            100.0 * summary.ess_reference,
            100.0 * summary.ess_reference_error
        ),
        with_error(
            100.0 * summary.proposal_seen,
            100.0 * summary.proposal_seen_error
        )
    );
    let mut tone = match heavy {
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
    if summary.proposal_seen < SEEN_GOOD {
        tone = worse(tone, Tone::Caution);
        text += "; what of the proposal no frame sees is junk, or too rare in the dynamics";
    }
    Some(Statement {
        tone,
        subject: "Coverage",
        text: text + ".",
    })
}

/// What the reference knows, by which the comparisons after it are to be read.
fn reference(summary: &Summary) -> Statement {
    let subject = "Reference";
    let quality = &summary.reference;
    let least = quality.independent_least;
    let mut text = format!(
        "{} frames of {} hold {} independent values of the slowest torsion ({})",
        count(quality.frames),
        match quality.ladders {
            1 => "one ladder".to_owned(),
            ladders => format!("{ladders} ladders"),
        },
        count(least as usize),
        quality.slowest().map_or("none", |(name, _)| name)
    );
    let mut tone = match least {
        least if least >= ENOUGH => Tone::Good,
        least if least >= TOO_FEW => Tone::Caution,
        _ => Tone::Bad,
    };
    if tone != Tone::Good {
        text += ", too few to judge samples by";
    }
    if quality.temperatures > 1 {
        text += &format!(
            "; replicas made {} round trips through {} temperatures, lowest acceptance {:.2}",
            quality.round_trips, quality.temperatures, quality.lowest_acceptance
        );
        if quality.round_trips == 0 || quality.lowest_acceptance < ACCEPTANCE_BAD {
            tone = Tone::Bad;
            text += ": they did not exchange, so every ladder knows what it crossed by itself; raise data.production_ps or data.temperatures";
        }
    }
    Statement {
        tone,
        subject,
        text: text + ".",
    }
}

fn free_energy(summary: &Summary) -> Statement {
    let subject = "Free energy";
    let state = summary.delta_f_state.replace('-', "−");
    let (value, error) = (summary.delta_f_kt, summary.delta_f_error_kt);
    let (of_reference, its_error) = (
        summary.delta_f_reference_kt,
        summary.delta_f_reference_error_kt,
    );
    // What can be said where one side has no estimate.
    let side = |name: &str, value: f64, error: f64| match (value.is_finite(), error.is_finite()) {
        (true, true) => format!("{name} {} kT", with_error(value, error)),
        (true, false) => format!(
            "{name} about {} kT, with too little in the state for an error",
            number(value)
        ),
        _ => format!("{name} none, for the state or the rest is empty"),
    };
    if !(value.is_finite()
        && error.is_finite()
        && of_reference.is_finite()
        && its_error.is_finite())
    {
        let text = format!(
            "ΔF ({state}) could not be compared: {}; {}.",
            side("by re-weighted samples", value, error),
            side("by dynamics", of_reference, its_error)
        );
        return Statement {
            tone: Tone::Bad,
            subject,
            text,
        };
    }
    let difference = value - of_reference;
    let both = error.hypot(its_error);
    let values = format!(
        "ΔF ({state}) = {} kT against {} kT from dynamics ({} independent values of the state)",
        with_error(value, error),
        with_error(of_reference, its_error),
        count(summary.reference.independent_delta_f as usize)
    );
    let (mut tone, judgement) = if difference.abs() <= both {
        (Tone::Good, "they agree within the stated errors".to_owned())
    } else if difference.abs() <= 2.0 * both {
        (
            Tone::Caution,
            "they differ by less than twice the stated errors".to_owned(),
        )
    } else {
        (
            Tone::Bad,
            format!(
                "they differ by {} times the stated errors",
                number(difference.abs() / both)
            ),
        )
    };
    let mut vague = String::new();
    if both > 0.5 {
        tone = worse(tone, Tone::Caution);
        vague = ", which are large".into();
    }
    if let Some(few) = too_few(summary) {
        tone = worse(tone, Tone::Caution);
        vague += &format!("; {few}");
    }
    Statement {
        tone,
        subject,
        text: format!("{values}: {judgement}{vague}."),
    }
}

/// Why nothing is proven by an agreement of samples and reference, if it is not.
fn too_few(summary: &Summary) -> Option<String> {
    let (ess, samples) = match summary.likelihood.is_audited() {
        true => (summary.ess_exact, summary.n_audited),
        false => (summary.ess_head, summary.n_samples),
    };
    let worth = ess * samples as f64;
    // What was not measured is not enough either.
    if worth.is_nan() || worth < ENOUGH {
        return Some(format!(
            "{} effective samples are too few to judge by",
            number(worth)
        ));
    }
    if reference(summary).tone != Tone::Good {
        return Some("the reference is too poor to judge by".into());
    }
    None
}

/// A distance against its floor.
fn distance(
    summary: &Summary,
    subject: &'static str,
    what: &str,
    unit: &str,
    [value, proposal, floor]: [f64; 3],
) -> Statement {
    let mut text = format!(
        "{what} is {} {unit} after re-weighting ({} before), and {} between two reference sets, whose {} frames hold {} independent values",
        number(value),
        number(proposal),
        number(floor),
        count(summary.reference.frames),
        count(summary.reference.independent_least as usize)
    );
    let ratio = value / floor;
    let mut tone = match ratio {
        ratio if ratio <= 2.0 => Tone::Good,
        ratio if ratio <= 5.0 => Tone::Caution,
        _ => Tone::Bad,
    };
    if let Some(few) = too_few(summary) {
        tone = worse(tone, Tone::Caution);
        text += &format!("; {few}");
    } else if ratio <= 1.2 {
        text += ": the reference resolves no more, so this is no evidence of quality beyond it";
    } else if ratio.is_finite() {
        text += &format!(": {} times as far", number(ratio));
    }
    if value > proposal {
        tone = worse(tone, Tone::Caution);
        text += "; re-weighting made it worse";
    }
    Statement {
        tone,
        subject,
        text: text + ".",
    }
}

fn energies(summary: &Summary) -> Statement {
    let s = summary;
    let values = [s.e_w2, s.e_w2_proposal, s.e_w2_floor];
    distance(s, "Energies", "E-W2", "kT", values)
}

fn torsions(summary: &Summary) -> Statement {
    let s = summary;
    let values = [s.t_w2, s.t_w2_proposal, s.t_w2_floor];
    distance(s, "Torsions", "T-W2", "rad", values)
}

/// Nothing is said where there is no chiral centre.
fn chirality(summary: &Summary) -> Option<Statement> {
    if summary.chirality_centres == 0 {
        return None;
    }
    let (weighted, proposal) = (summary.chirality_weighted, summary.chirality_proposal);
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
        "Of the weighted samples {} have the chirality of the sequence at {}, of the bare proposal {}.",
        share(weighted),
        match summary.chirality_centres {
            1 => "its Cα".to_owned(),
            centres => format!("each of {centres} Cα"),
        },
        share(proposal)
    );
    Some(Statement {
        tone,
        subject: "Chirality",
        text,
    })
}
