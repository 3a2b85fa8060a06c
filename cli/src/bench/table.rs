//! The record as tables for people.

use std::fmt::Write;

use super::record::{Record, Row};
use super::statistics::readable;
use super::workload::Task;

/// Rows of cells as an aligned Markdown table; the first row is the header, the first column is text.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
            .max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text.push('|');
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(text, " {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
        if number == 0 {
            text.push('|');
            for (column, width) in widths.iter().enumerate() {
                text += &"-".repeat(width + 1);
                text += if column == 0 { "-|" } else { ":|" };
            }
            text.push('\n');
        }
    }
    text
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

pub(super) fn or_dash<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// Times, ratios and rates, one line per workload and task.
pub fn times(record: &Record) -> String {
    let variants = variants(record);
    let mut header: Vec<String> = ["", "samples", "boltzmap"].map(str::to_owned).to_vec();
    header.extend(variants.iter().cloned());
    if !variants.is_empty() {
        header.extend(["best".to_owned(), "best / ours".to_owned()]);
    }
    header.extend(["GFLOP/s", "roof", "of roof"].map(str::to_owned));
    let mut rows = vec![header];
    for row in &record.rows {
        let mut cells = vec![
            format!("{} {}", row.workload, row.task.name()),
            row.samples.to_string(),
            readable(row.ours.median),
        ];
        for name in &variants {
            let side = row.baselines.iter().find(|side| side.name == *name);
            let series = side.and_then(|side| side.series.as_ref());
            cells.push(or_dash(series, |series| readable(series.median)));
        }
        if !variants.is_empty() {
            cells.push(or_dash(row.best_baseline(), |(side, _)| side.name.clone()));
            cells.push(or_dash(row.speedup(), |ratio| format!("{ratio:.2}")));
        }
        cells.push(format!("{:.0}", row.rate() / 1e9));
        cells.push(or_dash(row.roof.as_ref(), |roof| {
            format!("{:.0}", roof.median / 1e9)
        }));
        cells.push(or_dash(row.roof_fraction(), |share| {
            format!("{:.0} %", 100.0 * share)
        }));
        rows.push(cells);
    }
    markdown(&rows)
}

/// Memory and scaling of the training steps; empty where none was measured.
pub fn training(record: &Record) -> String {
    let steps: Vec<&Row> = record
        .rows
        .iter()
        .filter(|row| row.task == Task::TrainingStep)
        .collect();
    if steps.is_empty() {
        return String::new();
    }
    let mut threads: Vec<usize> = steps
        .iter()
        .flat_map(|row| row.scaling.keys().copied())
        .collect();
    threads.sort_unstable();
    threads.dedup();
    let variants = variants(record);
    let mut header = vec!["training step".to_owned()];
    header.extend(threads.iter().map(|n| format!("{n} thr.")));
    header.extend(
        threads
            .iter()
            .filter(|n| **n > 1)
            .map(|n| format!("{n} over 1")),
    );
    header.push("memory".to_owned());
    header.extend(variants.iter().cloned());
    header.push("compile".to_owned());
    let mut rows = vec![header];
    for row in steps {
        let mut cells = vec![row.workload.clone()];
        let median = |n: &usize| row.scaling.get(n).map(|series| series.median);
        cells.extend(threads.iter().map(|n| or_dash(median(n), readable)));
        for n in threads.iter().filter(|n| **n > 1) {
            let ratio = median(&1).zip(median(n)).map(|(one, many)| one / many);
            cells.push(or_dash(ratio, |ratio| format!("{ratio:.2}")));
        }
        cells.push(or_dash(row.peak_memory, megabytes));
        for name in &variants {
            let side = row.baselines.iter().find(|side| side.name == *name);
            cells.push(or_dash(side.and_then(|side| side.peak_memory), megabytes));
        }
        cells.push(readable(row.compile_seconds));
        rows.push(cells);
    }
    markdown(&rows)
}

/// What every side did and what went wrong, one sentence each.
pub fn notes(record: &Record) -> String {
    let mut text = String::new();
    for row in &record.rows {
        for side in &row.baselines {
            let label = format!("{} {}, {}", row.workload, row.task.name(), side.name);
            // Writing to a string cannot fail.
            let _ = match (&side.problem, side.deviation) {
                (Some(problem), _) => writeln!(text, "{label}: not timed: {problem}"),
                (None, Some(deviation)) => writeln!(
                    text,
                    "{label}: {}; agrees within {deviation:.0e}",
                    side.strategy
                ),
                (None, None) => writeln!(text, "{label}: {}", side.strategy),
            };
        }
    }
    for sentence in &record.skipped {
        text += sentence;
        text.push('\n');
    }
    text
}

/// Names of the baselines in the record, in the order of their first appearance.
fn variants(record: &Record) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for side in record.rows.iter().flat_map(|row| &row.baselines) {
        if !names.contains(&side.name) {
            names.push(side.name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::example;
    use super::*;

    #[test]
    fn tables_are_aligned_and_complete() {
        let record = example(&[(Task::TrainingStep, 0.1, 0.09), (Task::Jvp, 0.0123, 0.01)]);
        let table = times(&record);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines
                .iter()
                .all(|line| line.chars().count() == lines[0].chars().count()),
            "{table}"
        );
        for words in [
            "torch compile",
            "dit-128 jvp",
            "12.3 ms",
            "2.00",
            "25 %",
            "300 ms",
        ] {
            assert!(table.contains(words), "{words} in {table}");
        }
        let table = training(&record);
        assert!(
            table.contains("1 thr.") && table.contains("200 ms"),
            "{table}"
        );
        let notes = notes(&record);
        assert!(
            notes.contains("torch compile: not timed: no compiler")
                && notes.contains("agrees within 3e-7"),
            "{notes}"
        );
    }
}
