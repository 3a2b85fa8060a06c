//! Two records side by side.

use std::fmt::Write;

use super::machine::Machine;
use super::record::Record;
use super::statistics::{Series, readable};

/// A row is slower, or faster, only where its median and its minimum both moved by more than this.
pub const NOISE: f64 = 0.10;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Both median and minimum rose by more than the noise.
    Slower,
    /// Both fell by more than the noise.
    Faster,
    /// Anything else.
    Same,
}

/// Decides for one row.
pub fn judge(old: &Series, new: &Series) -> Change {
    let median = new.median / old.median;
    let minimum = new.minimum / old.minimum;
    if median > 1.0 + NOISE && minimum > 1.0 + NOISE {
        Change::Slower
    } else if median < 1.0 / (1.0 + NOISE) && minimum < 1.0 / (1.0 + NOISE) {
        Change::Faster
    } else {
        Change::Same
    }
}

/// Our times of one row of any record.
#[derive(Clone, Debug)]
pub struct Timed {
    /// What was timed; rows of two records are matched by it.
    pub label: String,
    /// Samples worked on in one call.
    pub samples: usize,
    /// The times.
    pub series: Series,
}

/// Where and when a record was made.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Date and time, UTC.
    pub date: String,
    /// Commit of the binary.
    pub commit: String,
    /// The machine.
    pub machine: Machine,
}

/// The comparison of two records of `bench engine` as text, and the number of rows that became slower.
pub fn compare(old: &Record, new: &Record) -> (String, usize) {
    let rows = |record: &Record| -> Vec<Timed> {
        record
            .rows
            .iter()
            .map(|row| Timed {
                label: format!("{} {}", row.workload, row.task.name()),
                samples: row.samples,
                series: row.ours.clone(),
            })
            .collect()
    };
    let origin = |record: &Record| Origin {
        date: record.date.clone(),
        commit: record.commit.clone(),
        machine: record.machine.clone(),
    };
    compare_series(&origin(old), &rows(old), &origin(new), &rows(new))
}

/// The comparison as text, and the number of rows that became slower.
pub fn compare_series(
    old: &Origin,
    old_rows: &[Timed],
    new: &Origin,
    new_rows: &[Timed],
) -> (String, usize) {
    let mut text = format!(
        "\nAgainst {} (commit {}): our time now over our time then; slower or faster means by more than {:.0} % in \
         median and in minimum.\n",
        old.date,
        old.commit,
        100.0 * NOISE
    );
    let facts = |machine: &Machine| {
        (
            machine.processor.clone(),
            machine.threads,
            machine.simd_tier.clone(),
        )
    };
    let (then, now) = (facts(&old.machine), facts(&new.machine));
    if then != now {
        let ((a, b, c), (d, e, f)) = (then, now);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "Not the same machine: {a}, {b} threads, {c} then; {d}, {e} threads, {f} now."
        );
    }
    let mut slower = 0;
    for row in new_rows {
        let label = &row.label;
        let then = old_rows.iter().find(|other| other.label == *label);
        let _ = match then {
            None => writeln!(text, "  {label:<26} not in the old record"),
            Some(then) if then.samples != row.samples => writeln!(
                text,
                "  {label:<26} {} samples then, {} now: not comparable",
                then.samples, row.samples
            ),
            Some(then) => {
                let change = judge(&then.series, &row.series);
                slower += usize::from(change == Change::Slower);
                writeln!(
                    text,
                    "  {label:<26} {:>9} -> {:>9}  median x{:.2}, minimum x{:.2}{}",
                    readable(then.series.median),
                    readable(row.series.median),
                    row.series.median / then.series.median,
                    row.series.minimum / then.series.minimum,
                    match change {
                        Change::Slower => "  SLOWER",
                        Change::Faster => "  faster",
                        Change::Same => "",
                    }
                )
            }
        };
    }
    let _ = match slower {
        0 => writeln!(text, "No row became slower."),
        1 => writeln!(text, "1 row became slower."),
        n => writeln!(text, "{n} rows became slower."),
    };
    (text, slower)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::example;
    use super::super::workload::Task;
    use super::*;

    #[test]
    fn a_regression_needs_median_and_minimum() {
        let old = example(&[(Task::Forward, 0.100, 0.090)]);
        for (median, minimum, expected) in [
            (0.100, 0.090, Change::Same),
            (0.120, 0.091, Change::Same),
            (0.109, 0.105, Change::Same),
            (0.112, 0.100, Change::Slower),
            (0.080, 0.075, Change::Faster),
            (0.089, 0.083, Change::Same),
        ] {
            let new = example(&[(Task::Forward, median, minimum)]);
            let row = &new.rows[0];
            assert_eq!(
                judge(&old.rows[0].ours, &row.ours),
                expected,
                "{median} {minimum}"
            );
        }
    }

    #[test]
    fn rows_are_matched_by_name_and_counted() {
        let old = example(&[(Task::Forward, 0.1, 0.1), (Task::Jvp, 0.1, 0.1)]);
        let new = example(&[
            (Task::Jvp, 0.2, 0.2),
            (Task::Forward, 0.1, 0.1),
            (Task::Divergence, 0.1, 0.1),
        ]);
        let (text, slower) = compare(&old, &new);
        assert_eq!(slower, 1);
        assert!(text.contains("SLOWER") && text.contains("x2.00"), "{text}");
        assert!(text.contains("dit-128 divergence         not in"), "{text}");
        let mut other = old.clone();
        other.machine.threads += 1;
        other.rows[0].samples += 1;
        let (text, _) = compare(&other, &new);
        assert!(
            text.contains("Not the same machine") && text.contains("not comparable"),
            "{text}"
        );
    }
}
