//! `verify.html` of the suite.

use boltzmap_objectives::targets::AnalyticTarget;

use super::super::page::{class, footer, frame, mark};
use super::super::statistics::Comparison;
use super::super::verdict::{percent, with_interval};
use super::cell::{Cell, CellArrays};
use super::terminal::{model_row, targets, words};
use super::{SuiteRecord, figures};
use crate::progress::duration;
use crate::report::page::{figure, table};
use crate::report::svg::{escape, number};

/// The page.
pub(super) fn suite(
    record: &SuiteRecord,
    chosen: &[(String, AnalyticTarget)],
    arrays: &[CellArrays],
) -> String {
    let under = format!(
        "{} methods on {} targets with closed forms · {}, ε = {} · {}",
        methods(record).len(),
        chosen.len(),
        record.budget.words(),
        number(record.epsilon),
        duration(record.seconds)
    );
    let mut body = matrix(record);
    body += &figure(figures::ranks(record, arrays));
    body += &figure(figures::gaps(record, arrays));
    body += &figure(figures::effective(record, arrays));
    let mut first = true;
    for (name, mut densities) in figures::densities(record, chosen, arrays) {
        if !first {
            densities.caption.clear();
        }
        first = false;
        let heading = format!("Densities: {name}");
        body += &figure(densities).replacen(
            "<h2>Densities</h2>",
            &format!("<h2>{}</h2>", escape(&heading)),
            1,
        );
    }
    body += "<section>\n<h2>Numbers</h2>\n";
    for target in targets(record) {
        body += &numbers(record, &target);
    }
    body += "</section>\n";
    for (id, target) in targets(record).into_iter().enumerate() {
        let heading = format!("Histograms of the gap: {target}");
        body += &figure(figures::histograms(record, arrays, &target, id)).replacen(
            "<h2>Histograms of the gap</h2>",
            &format!("<h2>{}</h2>", escape(&heading)),
            1,
        );
    }
    body += &figure(figures::controls(record));
    body += &controls(record);
    frame(
        "boltzmap verify: analytic suite",
        "Which likelihoods are true?",
        &under,
        &body,
        &footer(&record.provenance, &record.command),
    )
}

/// The methods in their order.
fn methods(record: &SuiteRecord) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for cell in &record.cells {
        if !names.contains(&cell.method) {
            names.push(cell.method.clone());
        }
    }
    names
}

/// Methods × targets: the verdict, the spread, and what weights keep.
fn matrix(record: &SuiteRecord) -> String {
    let targets = targets(record);
    let head: String = targets
        .iter()
        .map(|target| format!("<th>{}</th>", escape(target)))
        .collect();
    let mut rows = String::new();
    for method in methods(record) {
        let cells: Vec<&Cell> = record.cells.iter().filter(|c| c.method == method).collect();
        let reporter = cells.first().map_or("", |cell| cell.reporter.word());
        rows += &format!(
            "<tr><th>{}<small>reports by {reporter}</small></th>",
            escape(&method)
        );
        for target in &targets {
            match cells.iter().find(|cell| cell.target == *target) {
                None => rows += "<td>–</td>",
                Some(cell) => {
                    let tone = cell.assessment.judgement.tone();
                    rows += &format!(
                        "<td class=\"{}\">{}<span><b>{}</b><small>{:.2} ± {:.2}<br>keeps {:.0} %</small></span></td>",
                        class(tone),
                        mark(tone),
                        escape(&words(cell)),
                        cell.against_model.bias.value,
                        cell.against_model.spread.value,
                        100.0 * cell.against_model.retained.value
                    )
                    .replace("-0.00", "0.00")
                    .replace(">-", ">−");
                }
            }
        }
        rows += "</tr>\n";
    }
    let missing: String = record
        .unmeasured
        .iter()
        .map(|missing| format!("<br>{}", escape(&missing.sentence())))
        .collect();
    format!(
        "<section>\n<h2>Verdicts</h2>\n<table class=\"matrix\"><thead><tr><th></th>{head}</tr></thead><tbody>\n{rows}</tbody></table>\n\
         <figcaption>Is the log-density that a method reports the exact one of its own model? Bias ± spread of reported − exact log q in nats, \
         and the share of the effective samples that weights keep. {}{missing}</figcaption>\n</section>",
        escape(&record.thresholds)
    )
}

/// The numbers of one target.
fn numbers(record: &SuiteRecord, target: &str) -> String {
    let cells: Vec<&Cell> = record.cells.iter().filter(|c| c.target == target).collect();
    let rows = |cells_of: &dyn Fn(&Cell) -> Vec<String>| -> Vec<Vec<String>> {
        cells
            .iter()
            .map(|cell| {
                let mut row = vec![cell.method.clone()];
                row.extend(cells_of(cell));
                row
            })
            .collect()
    };
    let statistics = |gap: &Comparison| {
        vec![
            with_interval(gap.bias),
            with_interval(gap.spread),
            with_interval(gap.rank),
        ]
    };
    let model = rows(&|cell| {
        let mut row = statistics(&cell.against_model);
        row.push(percent(cell.against_model.retained));
        row.push(words(cell));
        row
    });
    let data = rows(&|cell| {
        let mut row = statistics(&cell.against_data);
        row.push(percent(cell.claimed));
        row.push(percent(cell.actual));
        row
    });
    let cost: Vec<Vec<String>> = cells.iter().map(|cell| model_row(cell)).collect();
    let title = |what: &str| format!("{target}: {what}");
    table(
        &title("reported log q against the exact one of the model, nats"),
        &[
            "",
            "bias",
            "spread",
            "rank correlation",
            "weights keep",
            "the report is",
        ],
        &model,
    ) + &table(
        &title("reported log q against the data's log p at the model's samples, nats"),
        &[
            "",
            "bias",
            "spread",
            "rank correlation",
            "ESS claimed",
            "ESS true",
        ],
        &data,
    ) + &table(
        &title("the model and its cost"),
        &[
            "",
            "KL(data‖model)",
            "KL(model‖data)",
            "inverted",
            "there and back",
            "evaluations",
            "µs/sample",
            "training",
        ],
        &cost,
    )
}

/// The known inputs.
fn controls(record: &SuiteRecord) -> String {
    let rows: Vec<Vec<String>> = record
        .controls
        .iter()
        .map(|control| {
            let known = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
            vec![
                format!("{}: {}", control.name, control.input),
                known(control.bias),
                with_interval(control.gap.bias),
                known(control.spread),
                with_interval(control.gap.spread),
                percent(control.claimed),
                percent(control.actual),
                control.found.words().to_owned(),
            ]
        })
        .collect();
    table(
        "Known inputs: all were judged as they must be, or nothing else would have been measured",
        &[
            "",
            "bias",
            "found",
            "spread",
            "found",
            "ESS claimed",
            "ESS true",
            "verdict",
        ],
        &rows,
    )
}
