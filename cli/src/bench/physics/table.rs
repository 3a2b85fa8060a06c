//! The record of `bench physics` as tables for people.

use std::fmt::Write;

use super::record::{Record, Row, Task};
use super::workload::Workload;
use crate::bench::statistics::readable_rate;
use crate::bench::table::{markdown, or_dash};

/// Everything, the machine first.
pub fn text(record: &Record) -> String {
    let mut text = record.machine.headline(&record.date, record.repeats);
    text += "Per second; dynamics counts steps of all replicas together.\n\n";
    text += &rates(record);
    let limits = limits(record);
    if !limits.is_empty() {
        text.push('\n');
        text += &limits;
    }
    let gradients = gradients(record);
    if !gradients.is_empty() {
        text.push('\n');
        text += &gradients;
    }
    text.push('\n');
    text += &notes(record);
    text
}

/// Names of the other sides in the order of their first appearance.
fn sides(record: &Record) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for side in record.rows.iter().flat_map(|row| &row.sides) {
        if !names.contains(&side.name) {
            names.push(side.name.clone());
        }
    }
    names
}

fn target(row: &Row) -> Option<f64> {
    let targets = Workload::named(&row.workload).ok()?.targets;
    Some(match row.task {
        Task::Energies => targets.energies,
        Task::Dynamics => targets.dynamics,
        Task::Single => targets.single,
        Task::TargetGradient => return None,
    })
}

fn rates(record: &Record) -> String {
    let names = sides(record);
    let mut header: Vec<String> = ["", "at a time", "boltzmap"].map(str::to_owned).to_vec();
    header.extend(names.iter().cloned());
    if !names.is_empty() {
        header.extend(["ours / best", "asked", "ours / best of two"].map(str::to_owned));
    }
    let mut rows = vec![header];
    for row in &record.rows {
        let mut cells = vec![
            format!("{} {}", row.workload, row.task.name()),
            row.conformations.to_string(),
            readable_rate(1.0 / row.ours.median),
        ];
        for name in &names {
            let side = row.sides.iter().find(|side| side.name == *name);
            let series = side.and_then(|side| side.series.as_ref());
            cells.push(or_dash(series, |series| readable_rate(1.0 / series.median)));
        }
        if !names.is_empty() {
            let ratio = |ratio: f64| format!("{ratio:.1}");
            cells.push(or_dash(row.ratio(1), ratio));
            cells.push(or_dash(target(row), |target| format!("{target:.0}")));
            cells.push(or_dash(row.ratio(2), ratio));
        }
        rows.push(cells);
    }
    markdown(&rows)
}

/// The arithmetic limit; empty where none was estimated.
fn limits(record: &Record) -> String {
    let header = [
        "arithmetic",
        "vector operations",
        "of them multiply-adds",
        "GFLOP/s",
        "limit per second",
        "of limit",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for row in &record.rows {
        if let Some(limit) = &row.limit {
            let rate = 1.0 / row.ours.median;
            rows.push(vec![
                row.workload.clone(),
                format!("{:.0}", limit.instructions()),
                format!("{:.0}", limit.multiply_adds),
                format!("{:.0}", limit.floating_point() * rate * 1e-9),
                readable_rate(limit.evaluations_per_second()),
                format!("{:.0} %", 100.0 * rate / limit.evaluations_per_second()),
            ]);
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    markdown(&rows)
        + "The limit takes every operation of an evaluation, divisions and square roots too, to last as long as one of the independent\n\
           multiply-adds that this processor did in the same rounds.\n"
}

/// What a gradient in states costs beside energies with forces; empty where none was timed.
fn gradients(record: &Record) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for row in record.rows.iter().filter(|row| !row.stages.is_empty()) {
        if rows.is_empty() {
            let stages = row.stages.iter().map(|stage| stage.name.clone());
            let header = ["gradient in states", "time / energies"].map(str::to_owned);
            rows.push(header.into_iter().chain(stages).collect());
        }
        let energies = record
            .rows
            .iter()
            .find(|other| other.workload == row.workload && other.task == Task::Energies);
        let mut cells = vec![
            row.workload.clone(),
            or_dash(energies, |energies| {
                format!("{:.2}", row.ours.median / energies.ours.median)
            }),
        ];
        let shares = row.stages.iter();
        cells.extend(shares.map(|stage| format!("{:.0} %", 100.0 * stage.share)));
        rows.push(cells);
    }
    match rows.is_empty() {
        true => String::new(),
        false => markdown(&rows),
    }
}

fn notes(record: &Record) -> String {
    let mut text = String::new();
    for row in &record.rows {
        for side in &row.sides {
            let label = format!("{} {}, OpenMM {}", row.workload, row.task.name(), side.name);
            // Writing to a string cannot fail.
            let _ = match (&side.problem, side.energy_deviation, side.force_deviation) {
                (Some(problem), ..) => writeln!(text, "{label}: not timed: {problem}"),
                (None, Some(energy), Some(force)) => writeln!(
                    text,
                    "{label}: energies agree within {energy:.0e} kJ/mol, forces within {force:.0e} of the largest"
                ),
                _ => writeln!(text, "{label}"),
            };
        }
    }
    for sentence in &record.skipped {
        text += sentence;
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::record::Stage;
    use super::super::record::tests::example;
    use super::*;

    #[test]
    fn the_table_shows_rates_ratios_and_the_limit() {
        let text = text(&example(1e-6, 4e-5));
        for words in [
            "alanine-dipeptide energies",
            "1.00 M",
            "25.0 k",
            "40.0",
            "24.0",
            "3.50 M",
            "29 %",
            "CUDA: not timed: no such platform",
            "agree within 1e-4 kJ/mol",
            "nothing",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
    }
    #[test]
    fn a_gradient_stands_beside_the_energies() {
        let mut record = example(1e-6, 4e-5);
        let mut row = example(3e-6, 4e-5).rows.remove(0);
        row.task = Task::TargetGradient;
        row.sides.clear();
        row.limit = None;
        row.stages = [("decode", 0.6), ("forces", 0.3), ("pull back", 0.1)]
            .map(|(name, share)| Stage {
                name: name.into(),
                share,
            })
            .into();
        record.rows.push(row);
        let text = text(&record);
        for words in [
            "alanine-dipeptide target-gradient",
            "333 k",
            "time / energies",
            "3.00",
            "60 %",
            "10 %",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
    }
}
