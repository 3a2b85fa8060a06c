//! The record of a run of `bench engine`, as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::statistics::Series;
use super::workload::Task;
use crate::run_dir::{COMMIT, Provenance, write_atomically};

/// Version of the format.
pub const FORMAT: u32 = 1;

/// Everything measured in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Date and time of the start, UTC.
    pub date: String,
    /// Commit that this binary was built from, or "unknown".
    pub commit: String,
    /// Samples per series that were asked for.
    pub repeats: usize,
    /// The machine.
    pub machine: Machine,
    /// One row per workload and task.
    pub rows: Vec<Row>,
    /// Sentences about what was left out, and why.
    pub skipped: Vec<String>,
}

/// One workload and task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: String,
    /// The task.
    pub task: Task,
    /// Samples worked on in one call.
    pub samples: usize,
    /// Our times.
    pub ours: Series,
    /// Floating-point operations in matrix products of one call on our side.
    pub operations: f64,
    /// Operations per second of plain products at the task's dense shapes, all threads at once, measured in between.
    pub roof: Option<Roof>,
    /// Seconds to trace, differentiate and plan our program.
    pub compile_seconds: f64,
    /// Bytes of intermediate values per block of our side; 0 where unknown.
    pub arena_bytes: usize,
    /// The other sides.
    pub baselines: Vec<BaselineRow>,
    /// Our times on other numbers of threads (training step only), by number of threads.
    pub scaling: BTreeMap<usize, Series>,
    /// Peak memory of our side, bytes (training step only).
    pub peak_memory: Option<u64>,
}

/// Rate of plain matrix products.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// Every measurement, operations per second.
    pub rates: Vec<f64>,
    /// Their median.
    pub median: f64,
}

/// One side of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaselineRow {
    /// Variant, such as "torch compile".
    pub name: String,
    /// Its fastest candidate, the one that was timed.
    pub strategy: String,
    /// Every candidate: seconds of a first brief timing, or why it does not run.
    pub candidates: BTreeMap<String, serde_json::Value>,
    /// Its times; absent where it failed or disagreed.
    pub series: Option<Series>,
    /// Largest deviation of its results from ours, relative to the largest value of the same array.
    pub deviation: Option<f64>,
    /// Why there are no times.
    pub problem: Option<String>,
    /// Peak memory, bytes (training step only).
    pub peak_memory: Option<u64>,
}

impl Row {
    /// The fastest side other than ours.
    pub fn best_baseline(&self) -> Option<(&BaselineRow, &Series)> {
        self.baselines
            .iter()
            .filter_map(|side| Some((side, side.series.as_ref()?)))
            .min_by(|a, b| a.1.median.total_cmp(&b.1.median))
    }

    /// Best baseline's median over ours.
    pub fn speedup(&self) -> Option<f64> {
        Some(self.best_baseline()?.1.median / self.ours.median)
    }

    /// Our operations in matrix products per second.
    pub fn rate(&self) -> f64 {
        self.operations / self.ours.median
    }

    /// Share of the roof: the time that the same operations take at the measured rate, over our time.
    pub fn roof_fraction(&self) -> Option<f64> {
        Some(self.rate() / self.roof.as_ref()?.median)
    }
}

impl Record {
    /// A record of this machine and moment without rows.
    pub fn empty(repeats: usize, threads: usize) -> Self {
        Self {
            format: FORMAT,
            date: Provenance::now(0).date,
            commit: COMMIT.to_owned(),
            repeats,
            machine: Machine::here(threads),
            rows: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Writes the record.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        write_atomically(path, text.as_bytes())
    }

    /// Reads a record that [`Record::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let value: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        let format = value["format"].as_u64();
        ensure!(
            format == Some(u64::from(FORMAT)),
            "{} is no record of 'boltzmap bench engine' in format {FORMAT}; measure again with this version",
            path.display()
        );
        serde_json::from_value(value)
            .with_context(|| format!("{} is a damaged record", path.display()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with one row per given (task, median, minimum).
    pub(crate) fn example(rows: &[(Task, f64, f64)]) -> Record {
        let rows = rows
            .iter()
            .map(|&(task, median, minimum)| Row {
                workload: "dit-128".into(),
                task,
                samples: 256,
                ours: Series::new(vec![median, minimum, 2.0 * median], 1).unwrap(),
                operations: 1e9,
                roof: Some(Roof {
                    rates: vec![4e10],
                    median: 4e10,
                }),
                compile_seconds: 0.25,
                arena_bytes: 1 << 20,
                baselines: vec![
                    side("torch eager", Some(0.3), None),
                    side("torch compile", None, Some("no compiler")),
                    side("jax jit", Some(0.1 + 0.1), None),
                ],
                scaling: BTreeMap::from([(1, Series::new(vec![0.2], 1).unwrap())]),
                peak_memory: Some(123),
            })
            .collect();
        Record {
            format: FORMAT,
            date: "2026-01-31T12:00:00Z".into(),
            commit: "abc".into(),
            repeats: 3,
            machine: Machine::here(2),
            rows,
            skipped: vec!["nothing".into()],
        }
    }

    fn side(name: &str, seconds: Option<f64>, problem: Option<&str>) -> BaselineRow {
        BaselineRow {
            name: name.into(),
            strategy: "plain".into(),
            candidates: BTreeMap::from([("plain".to_owned(), 0.1.into())]),
            series: seconds.and_then(|s| Series::new(vec![s; 3], 1)),
            deviation: Some(1.0 / 3.0 * 1e-6),
            problem: problem.map(str::to_owned),
            peak_memory: None,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.json");
        let record = example(&[(Task::Forward, 0.1, 0.09), (Task::LogDet, 1.0 / 3.0, 0.3)]);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        std::fs::write(&path, "{\"format\": 99}").unwrap();
        let message = Record::read(&path).unwrap_err().to_string();
        assert!(message.contains("format 1"), "{message}");
        std::fs::write(&path, "{").unwrap();
        assert!(
            Record::read(&path)
                .unwrap_err()
                .to_string()
                .contains("no JSON")
        );
        assert!(Record::read(&directory.path().join("absent")).is_err());
    }

    #[test]
    fn the_best_baseline_is_the_fastest_that_was_timed() {
        let record = example(&[(Task::Forward, 0.1, 0.09)]);
        let row = &record.rows[0];
        assert_eq!(row.best_baseline().unwrap().0.name, "jax jit");
        assert!((row.speedup().unwrap() - 2.0).abs() < 1e-12);
        assert!((row.roof_fraction().unwrap() - 0.25).abs() < 1e-12);
    }
}
