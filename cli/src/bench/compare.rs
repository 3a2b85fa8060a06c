//! Two records side by side.

use std::fmt::Write;

use super::record::{Record, Row};
use super::statistics::readable;

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
pub fn judge(old: &Row, new: &Row) -> Change {
    let median = new.ours.median / old.ours.median;
    let minimum = new.ours.minimum / old.ours.minimum;
    if median > 1.0 + NOISE && minimum > 1.0 + NOISE {
        Change::Slower
    } else if median < 1.0 / (1.0 + NOISE) && minimum < 1.0 / (1.0 + NOISE) {
        Change::Faster
    } else {
        Change::Same
    }
}

/// The comparison as text, and the number of rows that became slower.
pub fn compare(old: &Record, new: &Record) -> (String, usize) {
    let mut text = format!(
        "\nAgainst {} (commit {}): our time now over our time then; slower or faster means by more than {:.0} % in \
         median and in minimum.\n",
        old.date,
        old.commit,
        100.0 * NOISE
    );
    let facts = |r: &Record| {
        let machine = &r.machine;
        (
            machine.processor.clone(),
            machine.threads,
            machine.simd_tier.clone(),
        )
    };
    if facts(old) != facts(new) {
        let ((a, b, c), (d, e, f)) = (facts(old), facts(new));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "Not the same machine: {a}, {b} threads, {c} then; {d}, {e} threads, {f} now."
        );
    }
    let mut slower = 0;
    for row in &new.rows {
        let then = old
            .rows
            .iter()
            .find(|other| other.workload == row.workload && other.task == row.task);
        let label = format!("{} {}", row.workload, row.task.name());
        let _ = match then {
            None => writeln!(text, "  {label:<26} not in the old record"),
            Some(then) if then.samples != row.samples => writeln!(
                text,
                "  {label:<26} {} samples then, {} now: not comparable",
                then.samples, row.samples
            ),
            Some(then) => {
                let change = judge(then, row);
                slower += usize::from(change == Change::Slower);
                writeln!(
                    text,
                    "  {label:<26} {:>9} -> {:>9}  median x{:.2}, minimum x{:.2}{}",
                    readable(then.ours.median),
                    readable(row.ours.median),
                    row.ours.median / then.ours.median,
                    row.ours.minimum / then.ours.minimum,
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
            assert_eq!(judge(&old.rows[0], row), expected, "{median} {minimum}");
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
