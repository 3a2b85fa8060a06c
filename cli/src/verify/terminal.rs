//! The results as text for a terminal.

use super::Record;
use super::assessment::{Assessment, Judgement};
use super::criteria::BIAS_GOOD;
use super::statistics::{quantile, sorted};
use super::verdict::{between, percent, signed, with_interval};
use crate::report::svg::{count, number};
use crate::report::{Statement, Tone};

/// Columns of running text.
const WIDTH: usize = 100;
/// Bars of a histogram in a line.
const BARS: usize = 41;

/// Escape sequences, or nothing where colours are not wanted.
pub(super) struct Ink {
    colours: bool,
}

impl Ink {
    pub(super) fn new(colours: bool) -> Ink {
        Ink { colours }
    }

    fn wrap(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(super) fn soft(&self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn mark(&self, tone: Tone) -> String {
        match tone {
            Tone::Good => self.wrap("32", "✓"),
            Tone::Caution => self.wrap("33", "!"),
            Tone::Bad => self.wrap("31", "✗"),
        }
    }
}

/// Rows of cells under heads and a rule; the first `left` columns are flush left, the others right.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>], left: usize, ink: &Ink) -> String {
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .chain([heads[column].chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |cells: &[&str]| -> String {
        let mut text = String::from(" ");
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            text += &if column < left {
                format!(" {cell:<width$} ")
            } else {
                format!(" {cell:>width$} ")
            };
        }
        text.trim_end().to_owned()
    };
    let rule = "─".repeat(widths.iter().map(|width| width + 2).sum());
    let mut text = format!("{}\n  {}\n", ink.soft(&line(heads)), ink.soft(&rule));
    for row in rows {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        text += &line(&cells);
        text.push('\n');
    }
    text
}

/// Running text broken into lines, all but the first indented.
pub(super) fn paragraph(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always a line");
        let used = last.chars().count();
        if used > 0 && indent + used + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
        } else {
            if used > 0 {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

/// Statements with their marks.
pub(super) fn statements(statements: &[Statement], ink: &Ink) -> String {
    statements
        .iter()
        .map(|statement| {
            format!(
                "  {} {}\n    {}\n",
                ink.mark(statement.tone),
                ink.bold(statement.subject),
                paragraph(&statement.text, 4)
            )
        })
        .collect()
}

/// A histogram between the 0.5 % and 99.5 % quantiles in one line.
pub(super) fn histogram(values: &[f64]) -> String {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let sorted = sorted(values);
    let (low, high) = (quantile(&sorted, 0.005), quantile(&sorted, 0.995));
    if sorted.is_empty() || high <= low {
        return format!("all at {}", number(low));
    }
    let mut counts = [0usize; BARS];
    for value in sorted.iter().filter(|v| (low..=high).contains(v)) {
        let bar = ((value - low) / (high - low) * BARS as f64) as usize;
        counts[bar.min(BARS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let bars: String = counts
        .iter()
        .map(|&n| BLOCKS[(n * 8).div_ceil(most)])
        .collect();
    format!("{} {bars} {}", number(low), number(high))
}

/// Everything about a trained model.
pub(super) fn model(record: &Record, gaps: &[f64], colours: bool) -> String {
    let ink = Ink::new(colours);
    let (subject, m) = (&record.subject, &record.measurement);
    let mut text = format!(
        "{}  {}\n",
        ink.bold("boltzmap verify"),
        subject.checkpoint.display()
    );
    let training = subject.training_steps.map_or_else(String::new, |steps| {
        format!(", {} training steps", count(steps as usize))
    });
    let outside = match m.outside_target {
        0 => String::new(),
        n => format!(" ({} of them outside the target)", count(n)),
    };
    text += &ink.soft(&format!(
        "{}, d = {}{training}\n{} samples{outside} in {} steps, ε = {}, seed {}\n\n",
        subject.network,
        subject.dimension,
        count(m.samples),
        subject.times.len() - 1,
        number(subject.epsilon),
        record.provenance.seed
    ));
    text += &format!(
        "  {} {}\n\n",
        ink.mark(record.judgement.tone()),
        ink.bold(&judged(record.judgement))
    );
    text += &statements(&record.statements, &ink);

    text += &format!("\n  {}\n", ink.bold("What the verdict rests on"));
    let heads = ["quantity", "found", "true", "false", "says"];
    text += &table(&heads, &criterion_rows(&m.assessment), 1, &ink);
    if !m.assessment.observables.is_empty() {
        text += &format!("\n  {}\n", ink.bold("Averages over the target"));
        let heads = [
            "observable",
            "by report",
            "exact",
            "report − exact",
            "judged: without the largest 0.2 %",
            "effective samples",
        ];
        text += &table(&heads, &observable_rows(&m.assessment), 1, &ink);
    }
    text += &format!("\n  {}\n", ink.bold("Reported − exact log q, nats"));
    text += &format!("  {}\n\n", histogram(gaps));
    text += &table(
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
        1,
        &ink,
    );
    text += &format!("\n  {}\n", ink.bold("What each step adds, nats"));
    let rows: Vec<Vec<String>> = m
        .steps
        .iter()
        .enumerate()
        .map(|(k, step)| {
            let q = &step.quantiles;
            vec![
                (k + 1).to_string(),
                format!("{:.4} → {:.4}", step.from, step.to),
                number(step.mean),
                number(step.spread),
                number(q.low),
                number(q.median),
                number(q.high),
                step.folded.to_string(),
                number(m.cycle[k].error.median),
            ]
        })
        .collect();
    text += &table(
        &[
            "step",
            "t",
            "mean",
            "spread",
            "5 %",
            "median",
            "95 %",
            "folded",
            "there and back",
        ],
        &rows,
        2,
        &ink,
    );
    text += &format!(
        "\n  {}\n",
        ink.bold("Beside the continuous flow of the same network, nats")
    );
    let flow = &m.flow;
    let rows: Vec<Vec<String>> = [
        ("map's exact − flow's log q", &flow.map_against_flow),
        ("reported − flow's log q", &flow.reported_against_flow),
    ]
    .iter()
    .map(|(name, gap)| {
        vec![
            (*name).to_owned(),
            count(gap.samples),
            with_interval(gap.bias),
            with_interval(gap.spread),
            with_interval(gap.rank),
        ]
    })
    .collect();
    text += &table(
        &[
            "at the map's samples",
            "samples",
            "bias",
            "spread",
            "rank correlation",
        ],
        &rows,
        1,
        &ink,
    );
    text += &format!(
        "\n{}\n",
        ink.soft(&format!("  {}", paragraph(&record.thresholds, 2)))
    );
    text
}

/// The verdict in a sentence.
pub(super) fn judged(judgement: Judgement) -> String {
    let [before, after] = judgement.around();
    format!("{before}{}{after}", judgement.words())
}

/// What the verdict rests on, one quantity a row.
pub(super) fn criterion_rows(assessment: &Assessment) -> Vec<Vec<String>> {
    let or_dash = |text: &str| match text {
        "" => "–".to_owned(),
        text => text.to_owned(),
    };
    let mut rows: Vec<Vec<String>> = assessment
        .criteria
        .iter()
        .map(|c| {
            vec![
                c.name.clone(),
                c.found(),
                or_dash(&c.good),
                or_dash(&c.bad),
                c.says(),
            ]
        })
        .collect();
    let biases = [
        ("bias, nats", Some(assessment.bias)),
        ("bias under the target, nats", assessment.bias_under_weights),
    ];
    for (name, bias) in biases {
        if let Some(bias) = bias {
            let within = bias.low.abs().max(bias.high.abs()) <= BIAS_GOOD;
            rows.push(vec![
                name.to_owned(),
                between(bias),
                format!("within {BIAS_GOOD}"),
                "–".to_owned(),
                if within { "true" } else { "a constant" }.to_owned(),
            ]);
        }
    }
    rows
}

/// The observables by the report and by exact weights, one a row.
pub(super) fn observable_rows(assessment: &Assessment) -> Vec<Vec<String>> {
    let with_unit = |value: f64, unit: &str| match unit {
        "" => signed(value),
        unit => format!("{} {unit}", signed(value)),
    };
    assessment
        .observables
        .iter()
        .map(|o| {
            let name = match o.free_energy {
                true => format!("ΔF, {}", o.name),
                false => format!("mean {}", o.name),
            };
            let mut seen = count(o.effective_samples.round() as usize);
            if !o.judged {
                seen += ", not judged";
            }
            vec![
                name,
                with_unit(o.reported, o.unit),
                with_unit(o.exact, o.unit),
                between(o.difference),
                between(o.judged_difference),
                seen,
            ]
        })
        .collect()
}

/// The deployed schedule with all samples, then numbers of steps with the same samples for each, for the page as well.
pub(super) fn count_rows(record: &Record) -> Vec<Vec<String>> {
    let m = &record.measurement;
    let deployed = m.steps.len();
    let row = |name: String, gap: &super::statistics::Comparison, folded: f64| {
        vec![
            name,
            count(gap.samples),
            with_interval(gap.bias),
            with_interval(gap.spread),
            with_interval(gap.rank),
            percent(gap.retained),
            format!("{} %", number(100.0 * folded)),
        ]
    };
    let share = m.folded_steps as f64 / (m.samples * deployed) as f64;
    let mut rows = vec![row(format!("{deployed}, as deployed"), &m.gap, share)];
    // One row with fewer samples would only repeat the first.
    let compared = m.step_counts.iter().any(|other| !other.deployed);
    let others = m.step_counts.iter().filter(|_| compared);
    rows.extend(others.map(|other| row(other.steps.to_string(), &other.gap, other.folded)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = vec![
            vec!["a".into(), "1.5 ± 0.2".into(), "2".into()],
            vec!["longer".into(), "−0.25".into(), "10 %".into()],
        ];
        let text = table(&["", "head", "x"], &rows, 1, &Ink::new(false));
        let lines: Vec<&str> = text.lines().collect();
        let ends = |line: &str| line.chars().count();
        assert_eq!(ends(lines[2]), ends(lines[3]), "{text}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn paragraphs_break_at_words() {
        let text = paragraph(&"word ".repeat(60), 4);
        assert!(text.lines().count() > 2);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(text.lines().skip(1).all(|line| line.starts_with("    ")));
    }

    #[test]
    fn histograms_peak_where_the_values_are() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i % 100)).collect();
        let text = histogram(&values);
        assert!(text.starts_with("0 ") && text.contains('█'), "{text}");
        assert_eq!(histogram(&[2.0; 5]), "all at 2.00");
        assert_eq!(histogram(&[]), "all at not available");
    }
}
