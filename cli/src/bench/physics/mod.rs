//! `boltzmap bench physics`: the force field and its dynamics beside OpenMM, in one run.
//!
//! Both sides get the same conformations, and nothing is timed before energies and forces agree. Then the sides take turns, one sample
//! each, round after round. OpenMM is called as its users call it, one configuration at a time through its Python interface, on each
//! platform that needs no GPU, in one process and in two at the same time. The gradient in states has no other side. `benches/README.md` describes the protocol.

pub mod openmm;
pub mod peak;
pub mod record;
pub mod table;
mod target;
pub mod workload;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use boltzmap_physics::batch::operations;
use boltzmap_physics::langevin::{Langevin, LangevinSettings};
use boltzmap_physics::{BatchEvaluator, SingleEvaluator};
use rayon::ThreadPool;

use super::machine::Machine;
use super::statistics::{Series, median, readable_rate};
use super::{baseline, compare, show, thread_pool};
use crate::args::{OpenMmBaseline, PhysicsBenchArguments};
use crate::progress::{self, Abandoned, Interrupted, note};
use crate::run_dir::{COMMIT, Provenance, check_writable};
use openmm::{OpenMm, Results, VARIANTS};
use record::{FORMAT, KIND, Limit, Record, Row, Side, Task};
use workload::{Prepared, REPLICAS, TIMESTEP_FS, WORKLOADS, Workload};

/// The order of tasks: the gradient right after the energies that it is set beside.
const TASKS: [Task; 4] = [
    Task::Energies,
    Task::TargetGradient,
    Task::Dynamics,
    Task::Single,
];
/// Conformations whose energies and forces are compared.
const COMPARED: usize = 32;
/// Largest accepted difference of an energy in single precision, kJ/mol. OpenMM's CPU platform is itself off by up to 6·10⁻⁴.
const ENERGY_TOLERANCE: f64 = 2e-3;
/// Largest accepted difference of a force component in single precision, relative to the largest.
const FORCE_TOLERANCE: f64 = 1e-4;
/// The same in double precision, energies relative to their magnitude.
const DOUBLE_TOLERANCE: f64 = 1e-9;
/// Least seconds of a sample of either side.
const SAMPLE_SECONDS: f64 = 0.05;
/// Steps of one call of our dynamics, as many as between the exchanges of replica exchange.
const STEPS: u64 = 20;
/// Samples per series with `--quick`.
const QUICK_REPEATS: usize = 3;

/// What a run measures.
struct Plan {
    workloads: Vec<Workload>,
    tasks: Vec<Task>,
    repeats: usize,
    threads: usize,
    conformations: Option<usize>,
    openmm: bool,
    python: PathBuf,
}

impl Plan {
    fn new(arguments: &PhysicsBenchArguments) -> Result<Self> {
        let workloads = match arguments.workload.is_empty() {
            true => WORKLOADS.to_vec(),
            false => arguments
                .workload
                .iter()
                .map(|name| Workload::named(name))
                .collect::<Result<_>>()?,
        };
        Ok(Self {
            workloads,
            tasks: arguments.task.clone(),
            repeats: match arguments.quick {
                true => QUICK_REPEATS.min(arguments.repeats),
                false => arguments.repeats,
            },
            threads: rayon::current_num_threads(),
            conformations: arguments.conformations,
            openmm: arguments.baseline.contains(&OpenMmBaseline::Openmm),
            python: arguments
                .python
                .clone()
                .unwrap_or_else(|| PathBuf::from(baseline::DEFAULT_PYTHON)),
        })
    }

    fn wants(&self, task: Task) -> bool {
        self.tasks.is_empty() || self.tasks.contains(&task)
    }
}

/// `boltzmap bench physics`.
///
/// # Errors
/// If arguments make no sense, a file cannot be read or written, the user interrupts, or `--fail-on-regression` was given and a row
/// became slower.
pub fn physics(arguments: &PhysicsBenchArguments) -> Result<()> {
    let plan = Plan::new(arguments)?;
    if let Some(path) = &arguments.json {
        check_writable(path)?;
    }
    let old = arguments.compare.as_deref().map(Record::read).transpose()?;
    progress::install_interrupt_handler()?;
    let record = measure(&plan).map_err(|error| match error.is::<Interrupted>() {
        true => Abandoned("nothing was kept".into()).into(),
        false => error,
    })?;
    let text = table::text(&record);
    if let Some(path) = &arguments.json {
        record.write(path)?;
    }
    let compared = old.map(|old| compare_records(&old, &record));
    show(
        text,
        compared,
        record.rows.len(),
        arguments.fail_on_regression,
    )
}

/// The comparison as text, and the number of rows that became slower.
fn compare_records(old: &Record, new: &Record) -> (String, usize) {
    let rows = |record: &Record| -> Vec<compare::Timed> {
        record
            .rows
            .iter()
            .map(|row| compare::Timed {
                label: format!("{} {}", row.workload, row.task.name()),
                samples: row.conformations,
                series: row.ours.clone(),
            })
            .collect()
    };
    let origin = |record: &Record| compare::Origin {
        date: record.date.clone(),
        commit: record.commit.clone(),
        machine: record.machine.clone(),
    };
    compare::compare_series(&origin(old), &rows(old), &origin(new), &rows(new))
}

fn measure(plan: &Plan) -> Result<Record> {
    let mut record = Record {
        kind: KIND.to_owned(),
        format: FORMAT,
        date: Provenance::now(0).date,
        commit: COMMIT.to_owned(),
        repeats: plan.repeats,
        machine: Machine::here(plan.threads),
        rows: Vec::new(),
        skipped: Vec::new(),
    };
    let pool = thread_pool(plan.threads)?;
    for workload in &plan.workloads {
        progress::check_interrupt()?;
        let count = plan.conformations.unwrap_or(workload.conformations);
        let prepared = pool.install(|| workload.prepare(count))?;
        note(&format!(
            "{}: {}, {} atoms, {count} conformations",
            workload.name,
            workload.sequence,
            prepared.system.n_atoms()
        ));
        let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
        let mut sides = start(plan, workload, &prepared, directory.path(), &mut record)?;
        for task in TASKS {
            if plan.wants(task) {
                let row = match task {
                    Task::Energies => energies(plan, workload, &prepared, &mut sides, &pool)?,
                    Task::Dynamics => dynamics(plan, workload, &prepared, &mut sides, &pool)?,
                    Task::Single => single(plan, workload, &prepared, &mut sides)?,
                    Task::TargetGradient => {
                        target::target_gradient(plan, workload, &prepared, &pool)?
                    }
                };
                note(&format!(
                    "{} {}: {} {}",
                    workload.name,
                    task.name(),
                    readable_rate(1.0 / row.ours.median),
                    task.unit()
                ));
                record.rows.push(row);
            }
        }
    }
    Ok(record)
}

/// OpenMM in a variant, with what it computed.
struct Started {
    side: OpenMm,
    results: Results,
}

/// Starts OpenMM's processes. What cannot start is noted in the record.
fn start(
    plan: &Plan,
    workload: &Workload,
    prepared: &Prepared,
    directory: &std::path::Path,
    record: &mut Record,
) -> Result<Vec<Started>> {
    let mut sides = Vec::new();
    if !plan.openmm {
        return Ok(sides);
    }
    let specification = openmm::write_files(workload, prepared, directory)?;
    let atoms = prepared.system.n_atoms();
    let compared = COMPARED.min(prepared.frames.len() / (3 * atoms));
    for variant in VARIANTS {
        let started = OpenMm::start(
            variant,
            &plan.python,
            &specification,
            plan.threads,
            compared,
            atoms,
        );
        match started {
            Ok((side, results)) => {
                record.machine.versions.extend(side.versions.clone());
                sides.push(Started { side, results });
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                let sentence = format!(
                    "OpenMM {} is skipped: {error:#}; run benches/baselines/setup.sh, which installs OpenMM into .venv, or name another interpreter than {} with --python",
                    variant.name,
                    plan.python.display()
                );
                note(&sentence);
                record.skipped.push(sentence);
            }
        }
    }
    Ok(sides)
}

/// How far results are from OpenMM's: energies in kJ/mol, forces relative to the largest component.
fn deviations(
    energies: &[f64],
    forces: &[f64],
    theirs: &Results,
    energy_tolerance: &dyn Fn(f64) -> f64,
    force_tolerance: f64,
) -> Result<(f64, f64)> {
    let (mut energy_deviation, mut largest) = (0.0f64, 0.0f64);
    for (k, (ours, theirs)) in energies.iter().zip(&theirs.energies).enumerate() {
        let deviation = (ours - theirs).abs();
        ensure!(
            deviation <= energy_tolerance(*theirs),
            "the energy of conformation {k} is {theirs} kJ/mol there and {ours} here"
        );
        energy_deviation = energy_deviation.max(deviation);
    }
    for force in &theirs.forces {
        largest = largest.max(force.abs());
    }
    let mut force_deviation = 0.0f64;
    for (ours, theirs) in forces.iter().zip(&theirs.forces) {
        // Written so that "not a number" is refused.
        let deviation = (ours - theirs).abs() / largest;
        ensure!(
            deviation <= force_tolerance,
            "a force is {theirs} kJ/mol/nm there and {ours} here"
        );
        force_deviation = force_deviation.max(deviation);
    }
    Ok((energy_deviation, force_deviation))
}

/// A row's side before it is timed.
fn compared(started: &Started, deviations: Result<(f64, f64)>) -> Side {
    let mut side = Side {
        name: started.side.variant.name.to_owned(),
        series: None,
        energy_deviation: None,
        force_deviation: None,
        processes: started.side.variant.processes,
        problem: None,
    };
    match deviations {
        Ok((energy, force)) => {
            side.energy_deviation = Some(energy);
            side.force_deviation = Some(force);
        }
        Err(error) => side.problem = Some(format!("its results disagree: {error:#}")),
    }
    side
}

/// Our samples, those of the other sides, and what `after` measures after every round.
fn take_turns(
    plan: &Plan,
    task: Task,
    per_call: usize,
    call: &mut dyn FnMut() -> Result<()>,
    sides: &mut [(Side, Option<&mut Started>)],
    after: &mut dyn FnMut(),
) -> Result<Series> {
    let mut time = |calls: usize| -> Result<f64> {
        let clock = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        Ok(clock.elapsed().as_secs_f64() / calls as f64)
    };
    let calls_for =
        |seconds: f64| ((SAMPLE_SECONDS / seconds.max(1e-9)).ceil() as usize).clamp(1, 1_000_000);
    time(1)?;
    let calls = calls_for(time(1)?);
    let mut own = Vec::new();
    let mut counts = vec![1; sides.len()];
    let mut seconds = vec![Vec::new(); sides.len()];
    for round in 0..plan.repeats {
        progress::check_interrupt()?;
        own.push(time(calls)? / per_call as f64);
        for (number, (side, started)) in sides.iter_mut().enumerate() {
            let (Some(started), None) = (started, &side.problem) else {
                continue;
            };
            let other = &mut started.side;
            let result = (|| {
                if round == 0 {
                    // A first guess from few, a better one from more.
                    let guess = calls_for(other.sample(task, 8)?).min(200);
                    counts[number] = calls_for(other.sample(task, guess)?);
                }
                other.sample(task, counts[number])
            })();
            match result {
                Ok(value) => seconds[number].push(value),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => side.problem = Some(format!("{error:#}")),
            }
        }
        after();
    }
    for (number, (side, _)) in sides.iter_mut().enumerate() {
        if side.problem.is_none() {
            side.series = Series::new(std::mem::take(&mut seconds[number]), counts[number]);
        }
    }
    Series::new(own, calls).context("no samples were asked for")
}

/// The sides with what their energies and forces are off by; those that disagree carry a problem and are not timed.
fn compared_with<'a>(
    sides: impl Iterator<Item = &'a mut Started>,
    energies: &[f64],
    forces: &[f64],
    energy_tolerance: &dyn Fn(f64) -> f64,
    force_tolerance: f64,
) -> Vec<(Side, Option<&'a mut Started>)> {
    sides
        .map(|started| {
            let found = deviations(
                energies,
                forces,
                &started.results,
                energy_tolerance,
                force_tolerance,
            );
            (compared(started, found), Some(started))
        })
        .collect()
}

fn energies(
    plan: &Plan,
    workload: &Workload,
    prepared: &Prepared,
    sides: &mut [Started],
    pool: &ThreadPool,
) -> Result<Row> {
    let evaluator = BatchEvaluator::<f32>::new(&prepared.system);
    let size = 3 * prepared.system.n_atoms();
    let n = prepared.frames.len() / size;
    let mut energies = vec![0.0; n];
    let mut forces = vec![0.0f32; prepared.frames.len()];
    pool.install(|| evaluator.energies_forces(&prepared.frames, &mut energies, Some(&mut forces)))?;
    let wide: Vec<f64> = forces.iter().map(|&f| f64::from(f)).collect();
    let mut sides = compared_with(
        sides.iter_mut(),
        &energies,
        &wide,
        &|_| ENERGY_TOLERANCE,
        FORCE_TOLERANCE,
    );
    let counts: Vec<_> = prepared
        .frames
        .chunks(size)
        .take(COMPARED)
        .map(|frame| operations(&evaluator, frame))
        .collect();
    let mut rates = Vec::new();
    let ours = take_turns(
        plan,
        Task::Energies,
        n,
        &mut || {
            pool.install(|| {
                evaluator.energies_forces(&prepared.frames, &mut energies, Some(&mut forces))
            })?;
            Ok(())
        },
        &mut sides,
        &mut || rates.push(peak::multiply_adds(pool)),
    )?;
    let rate = median(&rates).unwrap_or(0.0);
    Ok(Row {
        workload: workload.name.to_owned(),
        task: Task::Energies,
        atoms: size / 3,
        conformations: n,
        ours,
        limit: Some(Limit::new(&counts, peak::lanes(), rates, rate)),
        stages: Vec::new(),
        sides: sides.into_iter().map(|(side, _)| side).collect(),
    })
}

/// The trajectories of the two sides are not the same, having other random numbers; that energies and forces agree is checked as for
/// energies, and that the integrator is the same by the tests of `physics`.
fn dynamics(
    plan: &Plan,
    workload: &Workload,
    prepared: &Prepared,
    sides: &mut [Started],
    pool: &ThreadPool,
) -> Result<Row> {
    let settings = LangevinSettings {
        timestep: TIMESTEP_FS * 1e-3,
        friction: workload.friction,
    };
    let langevin = Langevin::new(&prepared.system, settings)?;
    let size = 3 * prepared.system.n_atoms();
    let replicas = REPLICAS.min(prepared.frames.len() / size);
    let start = &prepared.frames[prepared.frames.len() - replicas * size..];
    let mut state = langevin.start(start, &vec![workload.temperature; replicas], 2)?;
    let evaluator = BatchEvaluator::<f32>::new(&prepared.system);
    let shown = COMPARED.min(prepared.frames.len() / size) * size;
    let mut energies = vec![0.0; shown / size];
    let mut forces = vec![0.0f32; shown];
    evaluator.energies_forces(&prepared.frames[..shown], &mut energies, Some(&mut forces))?;
    let wide: Vec<f64> = forces.iter().map(|&f| f64::from(f)).collect();
    let mut sides = compared_with(
        sides.iter_mut(),
        &energies,
        &wide,
        &|_| ENERGY_TOLERANCE,
        FORCE_TOLERANCE,
    );
    let ours = take_turns(
        plan,
        Task::Dynamics,
        replicas * STEPS as usize,
        &mut || Ok(pool.install(|| langevin.run(&mut state, STEPS))?),
        &mut sides,
        &mut || {},
    )?;
    Ok(Row {
        workload: workload.name.to_owned(),
        task: Task::Dynamics,
        atoms: size / 3,
        conformations: replicas,
        ours,
        limit: None,
        stages: Vec::new(),
        sides: sides.into_iter().map(|(side, _)| side).collect(),
    })
}

fn single(
    plan: &Plan,
    workload: &Workload,
    prepared: &Prepared,
    sides: &mut [Started],
) -> Result<Row> {
    let size = 3 * prepared.system.n_atoms();
    let mut evaluator = SingleEvaluator::new(&prepared.system);
    let wide: Vec<f64> = prepared.frames.iter().map(|&x| f64::from(x)).collect();
    let (mut energies, mut forces) = (Vec::new(), Vec::new());
    let mut buffer = vec![0.0; size];
    for x in wide.chunks(size).take(COMPARED) {
        energies.push(evaluator.energies_forces(x, &mut buffer)?.total());
        forces.extend_from_slice(&buffer);
    }
    // The other platforms do not compute in double precision.
    let reference = |started: &&mut Started| started.side.variant.name == VARIANTS[0].name;
    let mut sides = compared_with(
        sides.iter_mut().filter(reference),
        &energies,
        &forces,
        &|energy| DOUBLE_TOLERANCE * energy.abs().max(1.0),
        DOUBLE_TOLERANCE,
    );
    let mut at = 0;
    let ours = take_turns(
        plan,
        Task::Single,
        1,
        &mut || {
            evaluator.energies_forces(&wide[at..at + size], &mut buffer)?;
            at = (at + size) % wide.len();
            Ok(())
        },
        &mut sides,
        &mut || {},
    )?;
    Ok(Row {
        workload: workload.name.to_owned(),
        task: Task::Single,
        atoms: size / 3,
        conformations: 1,
        ours,
        limit: None,
        stages: Vec::new(),
        sides: sides.into_iter().map(|(side, _)| side).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_differ_are_refused() {
        let theirs = Results {
            energies: vec![-10.0, 5.0],
            forces: vec![100.0, -50.0, 1.0, 0.0, 0.0, 2.0],
        };
        let check = |energies: &[f64], forces: &[f64]| {
            deviations(energies, forces, &theirs, &|_| 1e-3, 1e-4)
        };
        let (energy, force) =
            check(&[-10.0005, 5.0], &[100.001, -50.0, 1.0, 0.0, 0.0, 2.0]).unwrap();
        assert!((energy - 5e-4).abs() < 1e-12 && (force - 1e-5).abs() < 1e-12);
        for (energies, forces) in [
            ([-10.002, 5.0], [100.0, -50.0, 1.0, 0.0, 0.0, 2.0]),
            ([-10.0, 5.0], [100.0, -50.0, 1.02, 0.0, 0.0, 2.0]),
            ([f64::NAN, 5.0], [100.0, -50.0, 1.0, 0.0, 0.0, 2.0]),
            ([-10.0, 5.0], [f64::NAN, -50.0, 1.0, 0.0, 0.0, 2.0]),
        ] {
            assert!(check(&energies, &forces).is_err());
        }
    }

    #[test]
    fn slower_rows_are_counted() {
        let old = record::tests::example(1e-6, 4e-5);
        let (text, slower) = compare_records(&old, &record::tests::example(1.3e-6, 4e-5));
        assert!(slower == 1 && text.contains("SLOWER"), "{text}");
        let (text, slower) = compare_records(&old, &old);
        assert!(slower == 0 && text.contains("No row"), "{text}");
    }
}
