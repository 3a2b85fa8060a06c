//! The page around the figures.

use super::figures::{self, Figure};
use super::svg::{count, escape, number, with_error};
use super::{Recipe, Report, Summary, Tone, verdict};
use crate::pipeline::normalisation::Estimate;
use crate::progress::duration;

/// The style sheet of all pages.
pub(crate) const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn html(report: &Report) -> String {
    let summary = &report.summary;
    let figures = [
        figures::ramachandran(report),
        figures::profile(report),
        figures::energies(report),
        figures::coverage(report),
        figures::likelihood(report),
        figures::training(report),
    ];
    let [
        ramachandran,
        profile,
        energies,
        coverage,
        likelihood,
        training,
    ] = figures.map(figure);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<h1>{name}</h1>\n<p>{system}, {force_field}, {temperature} K · \
         {samples} samples in {nfe} network evaluations each · {total}</p>\n</header>\n\
         {verdict}\n{ramachandran}\n<div class=\"pair\">\n{profile}\n{energies}\n</div>\n{coverage}\n{likelihood}\n{metrics}\n{training}\n{footer}\n\
         </main>\n</body>\n</html>\n",
        title = escape(&format!("boltzmap: {} ({})", summary.system, summary.name)),
        name = escape(&summary.name),
        system = escape(&summary.system),
        force_field = escape(&summary.force_field),
        temperature = number(summary.temperature),
        samples = count(summary.n_samples),
        nfe = summary.nfe,
        total = duration(summary.total_seconds()),
        verdict = verdict_section(summary),
        metrics = metrics(summary),
        footer = footer(report),
    )
}

fn verdict_section(summary: &Summary) -> String {
    let items: String = verdict(summary)
        .iter()
        .map(|statement| {
            let (class, mark) = match statement.tone {
                Tone::Good => ("good", "✓"),
                Tone::Caution => ("caution", "!"),
                Tone::Bad => ("bad", "✗"),
            };
            format!(
                "<li class=\"{class}\"><b class=\"mark\" aria-label=\"{class}\">{mark}</b><div><h3>{}</h3><p>{}</p></div></li>\n",
                statement.subject,
                escape(&statement.text)
            )
        })
        .collect();
    format!("<section>\n<h2>Verdict</h2>\n<ul class=\"verdict\">\n{items}</ul>\n</section>")
}

/// A section around a figure.
pub(crate) fn figure(figure: Figure) -> String {
    if figure.panels.is_empty() {
        return String::new();
    }
    let legend: String = figure
        .legend
        .iter()
        .map(|(class, text)| format!("<span class=\"key {class}\">{text}</span>"))
        .collect();
    let legend = if legend.is_empty() {
        legend
    } else {
        format!("<p class=\"legend\">{legend}</p>\n")
    };
    let panels: String = figure
        .panels
        .iter()
        .map(|(heading, svg)| match heading.as_str() {
            "" => format!("<div>{svg}</div>\n"),
            heading => format!("<div><h3>{heading}</h3>{svg}</div>\n"),
        })
        .collect();
    format!(
        "<section>\n<h2>{}</h2>\n{legend}<figure>\n<div class=\"{}\">\n{panels}</div>\n<figcaption>{}</figcaption>\n</figure>\n</section>",
        figure.title,
        figure.layout,
        escape(&figure.caption)
    )
}

fn percent(fraction: f64) -> String {
    if fraction.is_finite() {
        format!("{} %", number(100.0 * fraction))
    } else {
        number(fraction)
    }
}

fn percent_with_error(fraction: f64, error: f64) -> String {
    match fraction.is_finite() && error.is_finite() {
        true => format!("{} %", with_error(100.0 * fraction, 100.0 * error)),
        false => percent(fraction),
    }
}

/// A table whose first column are headings.
pub(crate) fn table(title: &str, heads: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = heads
        .iter()
        .map(|text| format!("<th>{}</th>", escape(text)))
        .collect();
    let head = if heads.is_empty() {
        head
    } else {
        format!("<thead><tr>{head}</tr></thead>")
    };
    let body: String = rows
        .iter()
        .map(|row| {
            let cells: String = row[1..]
                .iter()
                .map(|text| format!("<td>{}</td>", escape(text)))
                .collect();
            format!("<tr><th>{}</th>{cells}</tr>\n", escape(&row[0]))
        })
        .collect();
    format!(
        "<table>\n<caption>{}</caption>{head}<tbody>\n{body}</tbody></table>\n",
        escape(title)
    )
}

fn metrics(s: &Summary) -> String {
    let row = |cells: &[&str]| {
        cells
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>()
    };
    let distances = table(
        "Distance to the reference",
        &["", "re-weighted", "proposal", "two references"],
        &[
            row(&[
                "E-W2, kT",
                &number(s.e_w2),
                &number(s.e_w2_proposal),
                &number(s.e_w2_floor),
            ]),
            row(&[
                "T-W2, rad",
                &number(s.t_w2),
                &number(s.t_w2_proposal),
                &number(s.t_w2_floor),
            ]),
            row(&[
                "chirality as in the sequence",
                &percent(s.chirality_weighted),
                &percent(s.chirality_proposal),
                "–",
            ]),
            row(&[
                "independent values",
                &number((s.ess_exact * s.n_audited as f64).round()),
                "–",
                &count(s.reference.independent_least as usize),
            ]),
        ],
    );
    let weights = table(
        "Effective sample size",
        &["log q", "samples", "ESS"],
        &[
            row(&["head", &count(s.n_samples), &percent(s.ess_head)]),
            row(&["head", &count(s.n_audited), &percent(s.ess_head_audited)]),
            row(&["exact", &count(s.n_audited), &percent(s.ess_exact)]),
            row(&[
                "exact, without the top 0.2 %",
                &count(s.n_audited),
                &percent(s.ess_exact_clipped),
            ]),
            row(&[
                "foretold by reference frames",
                &count(s.n_traced),
                &percent_with_error(s.ess_reference, s.ess_reference_error),
            ]),
            row(&[
                "proposal seen by frames",
                &count(s.n_traced),
                &percent_with_error(s.proposal_seen, s.proposal_seen_error),
            ]),
            row(&[
                "draws rejected",
                &count(s.n_drawn.saturating_sub(s.n_samples)),
                "–",
            ]),
        ],
    );
    let mut likelihood = vec![
        row(&[
            "head − exact, mean",
            &format!("{} nats", number(s.likelihood_gap_mean)),
        ]),
        row(&[
            "head − exact, std",
            &format!("{} nats", number(s.likelihood_gap_std)),
        ]),
        row(&[
            "ΔF, re-weighted",
            &format!("{} kT", with_error(s.delta_f_kt, s.delta_f_error_kt)),
        ]),
        row(&[
            "ΔF, by the head",
            &format!(
                "{} kT",
                with_error(s.delta_f_head_kt, s.delta_f_head_error_kt)
            ),
        ]),
        row(&[
            "by the head − exact",
            &format!(
                "{} kT",
                with_error(
                    s.delta_f_head_minus_exact_kt,
                    s.delta_f_head_minus_exact_error_kt
                )
            ),
        ]),
        row(&[
            "ΔF, reference",
            &format!(
                "{} kT",
                with_error(s.delta_f_reference_kt, s.delta_f_reference_error_kt)
            ),
        ]),
        row(&[
            "weights of the averages",
            &format!("likelihoods {}", s.likelihood),
        ]),
    ];
    if let Some(calibration) = &s.calibration {
        let nats = |value: f64| format!("{} nats", number(value));
        likelihood.extend([
            row(&[
                "std on held-out trajectories, before calibration",
                &nats(calibration.before.gap_deviation),
            ]),
            row(&["after calibration", &nats(calibration.after.gap_deviation)]),
        ]);
    }
    let likelihood = table("Likelihood and free energy", &[], &likelihood);
    let mut rows: Vec<Vec<String>> = s
        .seconds
        .iter()
        .map(|(stage, seconds)| row(&[stage, &duration(*seconds)]))
        .collect();
    rows.push(row(&["all", &duration(s.total_seconds())]));
    let times = table(
        &format!("Time on {} threads, {}", s.threads, s.simd_tier),
        &[],
        &rows,
    );
    let model = table(
        "Model and samples",
        &[],
        &[
            row(&["proposal samples", &count(s.n_samples)]),
            row(&["states drawn for them", &count(s.n_drawn)]),
            row(&["audited exactly", &count(s.n_audited)]),
            row(&["steps with a folded map", &count(s.folded_steps)]),
            row(&["reference frames", &count(s.n_reference)]),
            row(&["method", &s.method]),
            row(&["network evaluations per state", &s.nfe.to_string()]),
            row(&[
                "tangents per step of an exact likelihood",
                &count(s.exact_tangents_per_step),
            ]),
            row(&["parameters", &count(s.n_parameters)]),
            row(&["training steps", &count(s.training_steps)]),
            row(&["of them skipped", &count(s.skipped_steps)]),
            row(&["ε", &number(s.epsilon)]),
        ],
    );
    format!(
        "<section>\n<h2>Numbers</h2>\n<div class=\"tables\">\n{distances}{weights}{likelihood}{basins}{reference}{normalisation}{times}{model}</div>\n</section>",
        basins = basins(s),
        reference = reference(s),
        normalisation = normalisation(s)
    )
}

/// The shares of every basin.
fn basins(s: &Summary) -> String {
    let rows: Vec<Vec<String>> = s
        .basins
        .iter()
        .map(|basin| {
            vec![
                format!(
                    "{}, {:.0}° to {:.0}°",
                    basin.torsion,
                    basin.low.to_degrees(),
                    basin.high.to_degrees()
                )
                .replace('-', "−"),
                percent_with_error(basin.reference, basin.reference_error),
                percent_with_error(basin.reweighted, basin.reweighted_error),
                percent(basin.by_head),
                percent(basin.proposal),
            ]
        })
        .collect();
    let heads = ["", "reference", "re-weighted", "by the head", "proposal"];
    table("Basins of φ", &heads, &rows)
}

/// What the reference knows.
fn reference(s: &Summary) -> String {
    let quality = &s.reference;
    let mut rows: Vec<Vec<String>> = quality
        .independent
        .iter()
        .map(|(torsion, n)| vec![torsion.clone(), count(*n as usize)])
        .collect();
    rows.push(vec![
        "state of ΔF, all ladders".into(),
        count(quality.independent_delta_f as usize),
    ]);
    let title = format!(
        "Independent values in {} frames of {} ladders",
        count(quality.frames),
        quality.ladders
    );
    table(&title, &[], &rows)
}

/// Whether likelihoods integrate to one; empty where that was not tested.
fn normalisation(s: &Summary) -> String {
    let Some(found) = &s.normalisation else {
        return String::new();
    };
    let estimate = |e: &Estimate| with_error(e.value, e.standard_error);
    let mut rows: Vec<Vec<String>> = found
        .regions
        .iter()
        .map(|region| {
            let degrees: Vec<String> = region
                .torsions
                .iter()
                .map(|angle| format!("{:.0}°", angle.to_degrees()).replace('-', "−"))
                .collect();
            vec![
                degrees.join(", "),
                percent(region.reference_share),
                count(region.effective_samples as usize),
                estimate(&region.exact),
                estimate(&region.head_minus_exact),
            ]
        })
        .collect();
    for (name, value) in [
        ("ln Z, samples", &found.log_z_samples),
        ("ln Z, by the head", &found.log_z_head),
        ("ln Z, frames traced back", &found.log_z_traced),
        ("ln Z, frames without the network", &found.log_z_frames),
    ] {
        rows.push(vec![
            name.into(),
            "–".into(),
            "–".into(),
            estimate(value),
            "–".into(),
        ]);
    }
    let heads = [
        "torsions",
        "reference",
        "samples",
        "ln E[r/q], exact",
        "head − exact, nats",
    ];
    table("Normalisation by region", &heads, &rows)
}

fn footer(report: &Report) -> String {
    let s = &report.summary;
    format!(
        "<footer>\n<p>Made by boltzmap {} (commit {}), seed {}, {}. Energies are in kT at {} K; weights are exp(−E/kT)/q, \
         self-normalised.</p>\n<p>{}</p>\n</footer>",
        escape(&s.version),
        escape(&s.commit),
        s.seed,
        escape(&s.date),
        number(s.temperature),
        recipe(&report.recipe)
    )
}

fn recipe(recipe: &Recipe) -> String {
    let command = escape(&recipe.command);
    match recipe.caveats.is_empty() {
        true => format!("To make it again: <code>{command}</code>"),
        false => format!(
            "No one command makes this run again: {}. The settings that config.toml holds now are those of <code>{command}</code>",
            escape(&recipe.caveats.join("; "))
        ),
    }
}
