//! The suite's results as text for a terminal.

use super::super::terminal::{Ink, paragraph, table};
use super::super::verdict::with_interval;
use super::cell::Cell;
use super::{SuiteRecord, Unmeasured};
use crate::progress::duration;
use crate::report::svg::number;

/// Everything.
pub(super) fn suite(record: &SuiteRecord, colours: bool) -> String {
    let ink = Ink::new(colours);
    let mut text = format!("{}\n", ink.bold("boltzmap verify --suite analytic"));
    text += &ink.soft(&format!(
        "{}, ε = {}, seed {}; {} in all\n",
        record.budget.words(),
        number(record.epsilon),
        record.provenance.seed,
        duration(record.seconds)
    ));
    text += &format!("\n  {}\n", ink.bold("The instrument on known inputs"));
    let rows: Vec<Vec<String>> = record
        .controls
        .iter()
        .map(|control| {
            let known = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
            vec![
                control.name.to_owned(),
                known(control.bias),
                with_interval(control.gap.bias),
                known(control.spread),
                with_interval(control.gap.spread),
                format!("{:.1} %", 100.0 * control.claimed.value),
                format!("{:.1} %", 100.0 * control.actual.value),
                format!("{}, as it must be", control.found.words()),
            ]
        })
        .collect();
    let heads = [
        "input",
        "bias",
        "found",
        "spread",
        "found",
        "ESS claimed",
        "true",
        "verdict",
    ];
    text += &table(&heads, &rows, 1, &ink);

    for target in targets(record) {
        let cells: Vec<&Cell> = record.cells.iter().filter(|c| c.target == target).collect();
        text += &format!("\n  {}\n", ink.bold(&target));
        let rows: Vec<Vec<String>> = cells
            .iter()
            .map(|cell| likelihood_row(cell, &ink))
            .collect();
        let heads = [
            "method",
            "reports by",
            "bias",
            "spread",
            "rank",
            "− data: bias",
            "spread",
            "rank",
            "ESS claimed",
            "true",
            "the report is",
        ];
        text += &table(&heads, &rows, 2, &ink);
        text.push('\n');
        let rows: Vec<Vec<String>> = cells.iter().map(|cell| model_row(cell)).collect();
        let heads = [
            "method",
            "KL(data‖model)",
            "KL(model‖data)",
            "inverted",
            "there and back",
            "evaluations",
            "µs/sample",
            "training",
        ];
        text += &table(&heads, &rows, 1, &ink);
    }
    for missing in &record.unmeasured {
        text += &format!("\n  {}\n", paragraph(&missing.sentence(), 2));
    }
    let reading = "bias, spread and rank correlation: reported against exact log q of the model, then against log p of the data, \
                   nats. KL(data‖model): sum over 100 × 100 points of [−2, 2]², the model's density there by inverting its map; \
                   KL(model‖data): mean over the model's samples. there and back: how far the network misses the start of a \
                   step, of the step's length.";
    text += &format!("\n{}\n", ink.soft(&format!("  {}", paragraph(reading, 2))));
    text += &format!(
        "{}\n",
        ink.soft(&format!("  {}", paragraph(&record.thresholds, 2)))
    );
    text
}

/// The targets in their order.
pub(super) fn targets(record: &SuiteRecord) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for cell in &record.cells {
        if !names.contains(&cell.target) {
            names.push(cell.target.clone());
        }
    }
    names
}

impl Unmeasured {
    /// What is missing, and why.
    pub(super) fn sentence(&self) -> String {
        format!(
            "{} on {} was not measured: {}",
            self.method, self.target, self.reason
        )
    }
}

/// The verdict in words, with the trap named.
pub(super) fn words(cell: &Cell) -> String {
    let mut text = cell.assessment.judgement.words().to_owned();
    if cell.tells_the_data {
        text += ": it tells the data's density";
    }
    text
}

fn likelihood_row(cell: &Cell, ink: &Ink) -> Vec<String> {
    let (model, data) = (&cell.against_model, &cell.against_data);
    vec![
        cell.method.clone(),
        cell.reporter.word().to_owned(),
        with_interval(model.bias),
        with_interval(model.spread),
        format!("{:.3}", model.rank.value),
        number(data.bias.value),
        number(data.spread.value),
        format!("{:.3}", data.rank.value),
        format!("{:.1} %", 100.0 * cell.claimed.value),
        format!("{:.1} %", 100.0 * cell.actual.value),
        format!(
            "{} {}",
            words(cell),
            ink.mark(cell.assessment.judgement.tone())
        ),
    ]
}

/// The worst step of the network forward and back, median over samples, relative to the step's length.
pub(super) fn worst_cycle(cell: &Cell) -> Option<f64> {
    cell.cycle
        .iter()
        .map(|cycle| cycle.error.median / cycle.moved)
        .reduce(f64::max)
}

/// KL(data‖model) with what it leaves out.
pub(super) fn grid_divergence(cell: &Cell) -> String {
    match &cell.grid {
        None => "–".into(),
        Some(grid) if grid.lost_mass > 1e-4 => format!(
            "{} without {} %",
            number(grid.divergence),
            number(100.0 * grid.lost_mass)
        ),
        Some(grid) => number(grid.divergence),
    }
}

/// Cells on the model itself, for the page as well.
pub(super) fn model_row(cell: &Cell) -> Vec<String> {
    let mut inverted = format!("{} %", number(100.0 * cell.inverse.success));
    if cell.folded > 0.0 || cell.inverse.other_preimage > 0.0 {
        inverted += ", folds";
    }
    vec![
        cell.method.clone(),
        grid_divergence(cell),
        with_interval(cell.divergence_of_samples),
        inverted,
        worst_cycle(cell).map_or_else(|| "–".into(), |miss| format!("{} %", number(100.0 * miss))),
        cell.evaluations.to_string(),
        number(1e6 * cell.seconds_per_sample),
        duration(cell.training_seconds),
    ]
}
