//! The gradient of the molecular log-density in states: decoding, forces and pull-back, each with its share of the time.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Result, ensure};
use boltzmap_physics::BatchEvaluator;
use boltzmap_physics::chart::{InternalChart, InternalOptions, Whitening, ZMatrix};
use boltzmap_physics::system::GAS_CONSTANT;
use rayon::ThreadPool;

use super::record::{Row, Stage, Task};
use super::workload::{Prepared, Workload};
use super::{COMPARED, Plan, take_turns};
use crate::args::ConfigArguments;
use crate::config::Config;

/// Largest accepted difference between the gradient in single and in double precision, relative to the largest component.
const TOLERANCE: f64 = 1e-3;
/// Frames that whitening is fitted to, per dimension of the state.
const FRAMES_PER_DIMENSION: usize = 4;
/// What the gradient consists of.
const STAGES: [&str; 3] = ["decode", "forces", "pull back"];

/// ∇ log π in states, for states in f32.
struct TargetGradient {
    chart: InternalChart,
    evaluator: BatchEvaluator<f32>,
    /// `[n, tokens, 3]`
    states: Vec<f32>,
    /// 1/kT, mol/kJ
    per_kt: f64,
}

impl TargetGradient {
    /// The chart that a run has by default, fitted to frames of the workload, and the states of all its conformations.
    fn new(workload: &Workload, prepared: &Prepared) -> Result<Self> {
        let numbers = prepared.topology.atomic_numbers();
        let matrix = ZMatrix::build(numbers.len(), &prepared.topology.bonds, &numbers)?;
        let needed = FRAMES_PER_DIMENSION * matrix.dimension();
        let more = match prepared.frames.len() < needed * 3 * numbers.len() {
            true => Some(workload.prepare(needed)?),
            false => None,
        };
        let coordinates = Config::resolve(&ConfigArguments::default())?.coordinates;
        let options = InternalOptions {
            whitening: match coordinates.whiten {
                true => Whitening::Full,
                false => Whitening::Diagonal,
            },
            fold_rotors: coordinates.canonical_methyls,
            rotor_overlap: coordinates.methyl_overlap.to_radians(),
        };
        let frames = &more.as_ref().unwrap_or(prepared).frames;
        let chart = InternalChart::fit(matrix, &numbers, options, frames)?;
        let encoded = chart.encode(&prepared.frames)?;
        Ok(Self {
            chart,
            evaluator: BatchEvaluator::new(&prepared.system),
            states: encoded.state.iter().map(|&y| y as f32).collect(),
            per_kt: 1.0 / (GAS_CONSTANT * workload.temperature),
        })
    }

    /// The gradients `[n, tokens, 3]`, and the seconds of each stage.
    fn evaluate(&self) -> Result<(Vec<f32>, [f64; 3])> {
        let start = Instant::now();
        let decoded = self.chart.decode(&self.states)?;
        let positions: Vec<f32> = decoded.positions.iter().map(|&x| x as f32).collect();
        let after_decoding = Instant::now();
        let mut energies = vec![0.0; decoded.in_domain.len()];
        let mut score = vec![0.0f32; positions.len()];
        self.evaluator
            .energies_forces(&positions, &mut energies, Some(&mut score))?;
        let per_kt = self.per_kt as f32;
        score.iter_mut().for_each(|force| *force *= per_kt);
        let after_forces = Instant::now();
        let gradient = self
            .chart
            .pull_back_log_density(&self.states, &decoded, &score)?;
        let end = Instant::now();
        let seconds = [
            after_decoding - start,
            after_forces - after_decoding,
            end - after_forces,
        ];
        Ok((gradient, seconds.map(|duration| duration.as_secs_f64())))
    }

    /// The gradients of the first `count` states in double precision.
    fn in_double_precision(&self, prepared: &Prepared, count: usize) -> Result<Vec<f64>> {
        let states: Vec<f64> = self.states[..count * self.chart.dimension()]
            .iter()
            .map(|&y| f64::from(y))
            .collect();
        let decoded = self.chart.decode(&states)?;
        let mut score = vec![0.0; decoded.positions.len()];
        BatchEvaluator::<f64>::new(&prepared.system).energies_forces(
            &decoded.positions,
            &mut vec![0.0; count],
            Some(&mut score),
        )?;
        score.iter_mut().for_each(|force| *force *= self.per_kt);
        Ok(self
            .chart
            .pull_back_log_density(&states, &decoded, &score)?)
    }
}

/// Times the gradient; there is no other side.
pub(super) fn target_gradient(
    plan: &Plan,
    workload: &Workload,
    prepared: &Prepared,
    pool: &ThreadPool,
) -> Result<Row> {
    let target = pool.install(|| TargetGradient::new(workload, prepared))?;
    let d = target.chart.dimension();
    let n = target.states.len() / d;
    let (gradient, _) = pool.install(|| target.evaluate())?;
    let expected = target.in_double_precision(prepared, COMPARED.min(n))?;
    ensure_agreement(&gradient, &expected)?;
    let spent = RefCell::new([0.0; 3]);
    let ours = take_turns(
        plan,
        Task::TargetGradient,
        n,
        &mut || {
            let (_, seconds) = pool.install(|| target.evaluate())?;
            for (sum, seconds) in spent.borrow_mut().iter_mut().zip(seconds) {
                *sum += seconds;
            }
            Ok(())
        },
        &mut [],
        &mut || {},
    )?;
    let spent = spent.into_inner();
    let total: f64 = spent.iter().sum();
    let stages = STAGES.iter().zip(spent).map(|(name, seconds)| Stage {
        name: (*name).to_owned(),
        share: seconds / total,
    });
    Ok(Row {
        workload: workload.name.to_owned(),
        task: Task::TargetGradient,
        atoms: prepared.system.n_atoms(),
        conformations: n,
        ours,
        limit: None,
        stages: stages.collect(),
        sides: Vec::new(),
    })
}

/// Refuses gradients in single precision that are not those in double precision.
fn ensure_agreement(found: &[f32], expected: &[f64]) -> Result<()> {
    let largest = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    for (k, (found, expected)) in found.iter().zip(expected).enumerate() {
        // Written so that "not a number" is refused.
        let close = (f64::from(*found) - expected).abs() <= TOLERANCE * largest;
        ensure!(
            close,
            "component {k} of the gradient in states is {expected} in double precision and {found} in single"
        );
    }
    Ok(())
}
