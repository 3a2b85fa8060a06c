//! `verify.html` of a trained model.

use super::assessment::Judgement;
use super::measure::Arrays;
use super::statistics::{Comparison, Quantiles};
use super::terminal::{count_rows, criterion_rows, observable_rows};
use super::verdict::{percent, with_interval};
use super::{Record, figures};
use crate::progress::duration;
use crate::report::page::{STYLE, figure, table};
use crate::report::svg::{count, escape, number};
use crate::report::{Statement, Tone};
use crate::run_dir::Provenance;

/// A whole page around its sections.
pub(super) fn frame(title: &str, heading: &str, under: &str, body: &str, footer: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<h1>{}</h1>\n<p>{}</p>\n</header>\n{body}\n{footer}\n</main>\n</body>\n</html>\n",
        escape(title),
        escape(heading),
        escape(under)
    )
}

/// The verdict: one sentence large, the rest as a list.
pub(super) fn verdict(judgement: Judgement, statements: &[Statement], thresholds: &str) -> String {
    let items: String = statements
        .iter()
        .map(|statement| {
            format!(
                "<li class=\"{}\">{}<div><h3>{}</h3><p>{}</p></div></li>\n",
                class(statement.tone),
                mark(statement.tone),
                escape(statement.subject),
                escape(&statement.text)
            )
        })
        .collect();
    let [before, after] = judgement.around();
    format!(
        "<section>\n<p class=\"judgement {}\">{}<span>{before}<b>{}</b>{after}</span></p>\n<ul class=\"verdict\">\n{items}</ul>\n\
         <p class=\"thresholds\">{}</p>\n</section>",
        class(judgement.tone()),
        mark(judgement.tone()),
        judgement.words(),
        escape(thresholds)
    )
}

/// CSS class of a tone.
pub(super) fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Caution => "caution",
        Tone::Bad => "bad",
    }
}

/// The round mark of a tone.
pub(super) fn mark(tone: Tone) -> String {
    let sign = match tone {
        Tone::Good => "✓",
        Tone::Caution => "!",
        Tone::Bad => "✗",
    };
    format!(
        "<b class=\"mark\" aria-label=\"{}\">{sign}</b>",
        class(tone)
    )
}

/// Which code, machine and command.
pub(super) fn footer(provenance: &Provenance, command: &str) -> String {
    format!(
        "<footer>\n<p>Made by boltzmap {} (commit {}), seed {}, {} threads, {}, {}. Intervals that the verdict rests on miss at most one \
         time in twenty over all looks; others hold 95 % of a bootstrap over samples.</p>\n<p>To make it again: <code>{}</code></p>\n</footer>",
        escape(provenance.version),
        escape(provenance.commit),
        provenance.seed,
        provenance.threads,
        escape(provenance.simd_tier),
        escape(&provenance.date),
        escape(command)
    )
}

/// The page of a trained model.
pub(super) fn model(record: &Record, arrays: &Arrays) -> String {
    let subject = &record.subject;
    let m = &record.measurement;
    let name = subject.checkpoint.display().to_string();
    let training = subject.training_steps.map_or_else(String::new, |steps| {
        format!(" · {} training steps", count(steps as usize))
    });
    let under = format!(
        "{name} · {}, d = {}{training} · {} samples in {} steps, ε = {}",
        subject.network,
        subject.dimension,
        count(m.samples),
        m.steps.len(),
        number(subject.epsilon)
    );
    let figures = [
        figures::calibration(record, arrays),
        figures::along_time(record, arrays),
        figures::step_counts(record),
        figures::flow(record, arrays),
        figures::backwards(record),
    ]
    .map(figure)
    .join("\n");
    let reweighted = figures::reweighted(&m.assessment).map_or_else(String::new, figure);
    let body = format!(
        "{}\n{reweighted}\n{figures}\n{}",
        verdict(record.judgement, &record.statements, &record.thresholds),
        tables(record)
    );
    frame(
        &format!("boltzmap verify: {name}"),
        "Is the reported likelihood true?",
        &under,
        &body,
        &footer(&record.provenance, &record.command),
    )
}

/// Bias, spread, rank correlation and what weights keep, as cells.
pub(super) fn cells(gap: &Comparison) -> Vec<String> {
    vec![
        with_interval(gap.bias),
        with_interval(gap.spread),
        with_interval(gap.rank),
        percent(gap.retained),
    ]
}

fn row(name: impl Into<String>, cells: Vec<String>) -> Vec<String> {
    let mut row = vec![name.into()];
    row.extend(cells);
    row
}

fn quantile_cells(q: &Quantiles) -> Vec<String> {
    [q.low, q.median, q.high, q.largest]
        .map(number)
        .into_iter()
        .collect()
}

fn tables(record: &Record) -> String {
    let m = &record.measurement;
    let verdict = table(
        &format!(
            "What the verdict rests on, after looks at {} samples",
            m.assessment
                .looks
                .iter()
                .map(|&n| count(n))
                .collect::<Vec<String>>()
                .join(", ")
        ),
        &["", "found", "true", "false", "says"],
        &criterion_rows(&m.assessment),
    );
    let observables = match m.assessment.observables.is_empty() {
        true => String::new(),
        false => table(
            "Averages over the target",
            &[
                "",
                "by report",
                "exact",
                "report − exact",
                "judged: without the largest 0.2 %",
                "effective samples",
            ],
            &observable_rows(&m.assessment),
        ),
    };
    let comparisons = table(
        "Log-densities, nats",
        &["", "bias", "spread", "rank correlation", "weights keep"],
        &[
            row("reported − exact of the map", cells(&m.gap)),
            row("exact of the map − flow", cells(&m.flow.map_against_flow)),
            row("reported − flow", cells(&m.flow.reported_against_flow)),
        ],
    );
    let counts = table(
        "Reported − exact for other numbers of steps, nats",
        &[
            "steps",
            "samples",
            "bias",
            "spread",
            "rank correlation",
            "weights keep",
            "folded",
        ],
        &count_rows(record),
    );
    let steps: Vec<Vec<String>> = m
        .steps
        .iter()
        .zip(&m.cycle)
        .map(|(step, cycle)| {
            vec![
                format!("{:.4} → {:.4}", step.from, step.to),
                number(step.mean),
                number(step.spread),
                number(step.quantiles.low),
                number(step.quantiles.median),
                number(step.quantiles.high),
                step.folded.to_string(),
                number(cycle.moved),
                number(cycle.error.median),
                number(cycle.error.high),
            ]
        })
        .collect();
    let steps = table(
        "Steps: what each adds to reported − exact, nats, and the network forward and back, per coordinate",
        &[
            "t",
            "mean",
            "spread",
            "5 %",
            "median",
            "95 %",
            "folded",
            "moves",
            "misses, median",
            "95 %",
        ],
        &steps,
    );
    let inverse = &m.inverse;
    let share = |value: f64| format!("{} %", number(100.0 * value));
    let instrument = &m.instrument;
    let others = table(
        "Inverse, flow, instrument",
        &[],
        &[
            row("samples inverted", vec![count(inverse.samples)]),
            row("with success", vec![share(inverse.success)]),
            row("to another preimage", vec![share(inverse.other_preimage)]),
            row(
                "iterations per step, slowest",
                vec![inverse.iterations.to_string()],
            ),
            row("evaluations of the flow", vec![count(m.flow.evaluations)]),
            row("its tolerance", vec![number(m.flow.tolerance)]),
            row(
                "rounding to single precision",
                vec![format!("{} nats", number(instrument.rounding))],
            ),
            row(
                "against finite differences",
                vec![format!("{} nats", number(instrument.differences))],
            ),
        ],
    );
    let distances = table(
        "Distances per coordinate",
        &["", "5 %", "median", "95 %", "largest"],
        &[
            row("map and flow, end points", quantile_cells(&m.flow.distance)),
            row("inverse, residual", quantile_cells(&inverse.residual)),
            row(
                "inverse, from the noise",
                quantile_cells(&inverse.noise_error),
            ),
        ],
    );
    let seconds: Vec<Vec<String>> = m
        .seconds
        .iter()
        .map(|(part, seconds)| row(part.as_str(), vec![duration(*seconds)]))
        .collect();
    let seconds = table("Time", &[], &seconds);
    format!(
        "<section>\n<h2>Numbers</h2>\n{verdict}{observables}{comparisons}{counts}{steps}<div class=\"tables\">\n{others}{distances}{seconds}</div>\n</section>"
    )
}
