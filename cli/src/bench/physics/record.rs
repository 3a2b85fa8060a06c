//! The record of a run of `bench physics`, as JSON.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use boltzmap_physics::batch::Operations;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bench::machine::Machine;
use crate::bench::statistics::Series;
use crate::run_dir::write_atomically;

/// Version of the format.
pub const FORMAT: u32 = 1;
/// What the file says it is.
pub const KIND: &str = "boltzmap bench physics";

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Energies and forces of many conformations in f32.
    Energies,
    /// Langevin dynamics of many replicas in f32.
    Dynamics,
    /// Energy and forces of one conformation after the other in f64, on one thread.
    Single,
    /// Gradients of the log-density of many states of internal coordinates in f32.
    TargetGradient,
}

impl Task {
    /// The name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Task::Energies => "energies",
            Task::Dynamics => "dynamics",
            Task::Single => "single",
            Task::TargetGradient => "target-gradient",
        }
    }

    /// What one unit of its rates is.
    pub fn unit(self) -> &'static str {
        match self {
            Task::Energies | Task::Single => "evaluations",
            Task::Dynamics => "steps",
            Task::TargetGradient => "gradients",
        }
    }
}

/// Everything measured in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`KIND`].
    pub kind: String,
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

/// One workload and task. Times are seconds per evaluation or per step of one replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: String,
    /// The task.
    pub task: Task,
    /// Atoms of a conformation.
    pub atoms: usize,
    /// Conformations or replicas of one call on our side.
    pub conformations: usize,
    /// Our times.
    pub ours: Series,
    /// The arithmetic of one tile and how fast the processor is at it (energies only).
    pub limit: Option<Limit>,
    /// What a gradient's time is spent on (target-gradient only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// The other sides.
    pub sides: Vec<Side>,
}

/// A part of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What is done.
    pub name: String,
    /// Its part of our time, of 1.
    pub share: f64,
}

/// What the arithmetic alone would allow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Vector operations of one evaluation, mean over some conformations.
    pub multiply_adds: f64,
    /// Products, sums, quotients and roots.
    pub other_arithmetic: f64,
    /// Comparisons, selections and operations on bits.
    pub other: f64,
    /// Conformations in a vector.
    pub lanes: usize,
    /// Independent vector multiply-adds that all threads together do in a second, every measurement.
    pub rates: Vec<f64>,
    /// Their median.
    pub rate: f64,
}

impl Limit {
    /// From counts and measured rates.
    pub fn new(counts: &[Operations], lanes: usize, rates: Vec<f64>, rate: f64) -> Self {
        let mean = |value: &dyn Fn(&Operations) -> u64| {
            counts.iter().map(value).sum::<u64>() as f64 / counts.len().max(1) as f64
        };
        Self {
            multiply_adds: mean(&|c| c.multiply_adds),
            other_arithmetic: mean(&|c| c.floating_point() - 2 * c.multiply_adds),
            other: mean(&|c| c.others),
            lanes,
            rates,
            rate,
        }
    }

    /// Vector operations of one evaluation.
    pub fn instructions(&self) -> f64 {
        self.multiply_adds + self.other_arithmetic + self.other
    }

    /// Floating-point operations of one evaluation.
    pub fn floating_point(&self) -> f64 {
        2.0 * self.multiply_adds + self.other_arithmetic
    }

    /// Evaluations per second if every operation took as long as a multiply-add.
    pub fn evaluations_per_second(&self) -> f64 {
        self.rate * self.lanes as f64 / self.instructions()
    }
}

/// One other side of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Platform and number of processes, such as "CPU ×2".
    pub name: String,
    /// Its times; absent where it failed or disagreed.
    pub series: Option<Series>,
    /// Largest deviation of its energies from ours, kJ/mol.
    pub energy_deviation: Option<f64>,
    /// Largest deviation of its forces from ours, relative to the largest component.
    pub force_deviation: Option<f64>,
    /// How many processes work at the same time.
    pub processes: usize,
    /// Why there are no times.
    pub problem: Option<String>,
}

impl Row {
    /// The fastest other side with so many processes.
    pub fn best(&self, processes: usize) -> Option<(&Side, &Series)> {
        self.sides
            .iter()
            .filter(|side| side.processes == processes)
            .filter_map(|side| Some((side, side.series.as_ref()?)))
            .min_by(|a, b| a.1.median.total_cmp(&b.1.median))
    }

    /// The best side's time over ours.
    pub fn ratio(&self, processes: usize) -> Option<f64> {
        Some(self.best(processes)?.1.median / self.ours.median)
    }
}

impl Record {
    /// Writes the record.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        write_atomically(path, text.as_bytes())
    }

    /// Reads a record that [`Record::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let value: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        ensure!(
            value["kind"] == KIND && value["format"] == FORMAT,
            "{} is no record of 'boltzmap bench physics' in format {FORMAT}; measure again with this version",
            path.display()
        );
        serde_json::from_value(value)
            .with_context(|| format!("{} is a damaged record", path.display()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record of alanine dipeptide with rates as given.
    pub(crate) fn example(ours: f64, theirs: f64) -> Record {
        let side = |name: &str, processes, seconds: Option<f64>| Side {
            name: name.into(),
            series: seconds.and_then(|seconds| Series::new(vec![seconds; 3], 1)),
            energy_deviation: Some(1e-4),
            force_deviation: Some(1e-6),
            processes,
            problem: seconds.is_none().then(|| "no such platform".into()),
        };
        Record {
            kind: KIND.into(),
            format: FORMAT,
            date: "2026-01-31T12:00:00Z".into(),
            commit: "abc".into(),
            repeats: 3,
            machine: Machine::here(2),
            rows: vec![Row {
                workload: "alanine-dipeptide".into(),
                task: Task::Energies,
                atoms: 22,
                conformations: 4096,
                ours: Series::new(vec![ours, 1.01 * ours, 0.99 * ours], 2).unwrap(),
                limit: Some(Limit {
                    multiply_adds: 20_000.0,
                    other_arithmetic: 10_000.0,
                    other: 2_000.0,
                    lanes: 16,
                    rates: vec![7e9],
                    rate: 7e9,
                }),
                stages: Vec::new(),
                sides: vec![
                    side("Reference", 1, Some(theirs)),
                    side("CPU", 1, Some(10.0 * theirs)),
                    side("CUDA", 1, None),
                    side("Reference ×2", 2, Some(0.6 * theirs)),
                ],
            }],
            skipped: vec!["nothing".into()],
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("physics.json");
        let record = example(1e-6, 4e-5);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        std::fs::write(&path, "{\"format\": 1}").unwrap();
        let message = Record::read(&path).unwrap_err().to_string();
        assert!(message.contains("bench physics"), "{message}");
    }

    #[test]
    fn ratios_are_to_the_best_side() {
        let row = &example(1e-6, 4e-5).rows[0];
        assert_eq!(row.best(1).unwrap().0.name, "Reference");
        assert!((row.ratio(1).unwrap() - 40.0).abs() < 1e-9);
        assert!((row.ratio(2).unwrap() - 24.0).abs() < 1e-9);
        let limit = row.limit.as_ref().unwrap();
        assert!((limit.evaluations_per_second() - 7e9 * 16.0 / 32_000.0).abs() < 1.0);
        assert!((limit.floating_point() - 50_000.0).abs() < 1e-9);
    }
}
