//! `boltzmap bench engine`: the engine beside PyTorch and JAX, in one run. ([`physics`] has `bench physics`.)
//!
//! Every side gets the same parameters and inputs, and nothing is timed before the results agree ([`agreement`]). Then
//! the sides take turns, one sample each, round after round; between them the rate of plain matrix products at the
//! task's own shapes is measured ([`roof`]). `benches/README.md` describes the protocol.

pub mod agreement;
pub mod baseline;
pub mod compare;
pub mod machine;
pub mod memory;
pub mod ours;
pub mod physics;
pub mod process;
pub mod record;
pub mod roof;
pub mod statistics;
pub mod table;
pub mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::args::{BaselineKind, EngineBenchArguments};
use crate::commands::print;
use crate::progress::{self, Abandoned, Interrupted, note};
use crate::run_dir::check_writable;
use baseline::{Baseline, VARIANTS, Variant};
use record::{BaselineRow, Record, Roof, Row};
use statistics::{Series, calls_per_sample, median};
use workload::{Inputs, Task, Workload};

/// Untimed calls before our side is timed.
const WARM_UP_CALLS: usize = 2;
/// Samples per series with `--quick`.
const QUICK_REPEATS: usize = 3;

/// What a run measures.
struct Plan {
    workloads: Vec<Workload>,
    tasks: Vec<Task>,
    repeats: usize,
    threads: usize,
    variants: Vec<Variant>,
    python: PathBuf,
    candidate_seconds: u32,
    json: Option<PathBuf>,
}

impl Plan {
    fn new(arguments: &EngineBenchArguments) -> Result<Self> {
        let names: Vec<&str> = match arguments.workload.is_empty() {
            true => workload::NAMES.to_vec(),
            false => arguments.workload.iter().map(String::as_str).collect(),
        };
        let mut workloads = Vec::new();
        for name in names {
            let mut workload = Workload::named(name)?;
            if let Some(samples) = arguments.jacobian_samples {
                workload.jacobian_samples = samples;
            }
            if let Some(block) = arguments.block {
                workload.blocks.forward = block;
                workload.blocks.training = block;
                workload.blocks.lagrangian = block;
            }
            workloads.push(workload);
        }
        if !arguments.task.is_empty()
            && !workloads
                .iter()
                .any(|w| w.tasks.iter().any(|task| arguments.task.contains(task)))
        {
            bail!("none of the chosen workloads has any of the chosen tasks");
        }
        let wanted = |variant: &&Variant| {
            arguments.baseline.iter().any(|kind| match kind {
                BaselineKind::Torch => variant.baseline == "torch",
                BaselineKind::Jax => variant.baseline == "jax",
            })
        };
        Ok(Self {
            workloads,
            tasks: arguments.task.clone(),
            repeats: match arguments.quick {
                true => QUICK_REPEATS.min(arguments.repeats),
                false => arguments.repeats,
            },
            threads: rayon::current_num_threads(),
            variants: VARIANTS.iter().filter(wanted).copied().collect(),
            python: arguments
                .python
                .clone()
                .unwrap_or_else(|| PathBuf::from(baseline::DEFAULT_PYTHON)),
            candidate_seconds: arguments.candidate_seconds,
            json: arguments.json.clone(),
        })
    }

    fn wants(&self, task: Task) -> bool {
        self.tasks.is_empty() || self.tasks.contains(&task)
    }
}

/// `boltzmap bench engine`.
///
/// # Errors
/// If arguments make no sense, a file cannot be read or written, the user interrupts, or `--fail-on-regression` was
/// given and a row became slower.
pub fn engine(arguments: &EngineBenchArguments) -> Result<()> {
    let plan = Plan::new(arguments)?;
    if let Some(path) = &arguments.json {
        check_writable(path)?;
    }
    let old = arguments.compare.as_deref().map(Record::read).transpose()?;
    progress::install_interrupt_handler()?;
    let mut record = Record::empty(plan.repeats, plan.threads);
    if let Err(error) = measure(&plan, &mut record) {
        return Err(match (error.is::<Interrupted>(), &plan.json) {
            (false, _) => error,
            (true, Some(path)) if !record.rows.is_empty() => Abandoned(format!(
                "the {} rows measured until now are in {}",
                record.rows.len(),
                path.display()
            ))
            .into(),
            (true, _) => Abandoned("nothing was kept".into()).into(),
        });
    }
    let mut text = record.machine.headline(&record.date, record.repeats);
    text += &table::times(&record);
    let training = table::training(&record);
    if !training.is_empty() {
        text.push('\n');
        text += &training;
    }
    let notes = table::notes(&record);
    if !notes.is_empty() {
        text.push('\n');
        text += &notes;
    }
    let compared = old.map(|old| compare::compare(&old, &record));
    show(
        text,
        compared,
        record.rows.len(),
        arguments.fail_on_regression,
    )
}

/// Prints a bench's tables and its comparison with an earlier record: text and the number of rows that became slower.
///
/// # Errors
/// If standard output is closed, or there are such rows and they count as failure.
fn show(
    mut text: String,
    compared: Option<(String, usize)>,
    rows: usize,
    fail_on_regression: bool,
) -> Result<()> {
    let (comparison, slower) = compared.unwrap_or_default();
    text += &comparison;
    print(&text)?;
    if slower > 0 && fail_on_regression {
        bail!("{slower} of {rows} rows became slower");
    }
    Ok(())
}

/// `boltzmap bench memory`, the process behind the peak memory of our side: bytes on standard output.
///
/// # Errors
/// As [`memory::measure`].
pub fn memory(workload: &str, task: Task) -> Result<()> {
    print(&format!("{}\n", memory::measure(workload, task)?))
}

/// Adds a row per task to the record.
fn measure(plan: &Plan, record: &mut Record) -> Result<()> {
    let pool = thread_pool(plan.threads)?;
    for workload in &plan.workloads {
        let tasks: Vec<Task> = workload
            .tasks
            .iter()
            .copied()
            .filter(|task| plan.wants(*task))
            .collect();
        if tasks.is_empty() {
            continue;
        }
        note(&format!("{}: {}", workload.name, workload.title));
        let inputs = workload.inputs();
        let mut sides = Sides::start(plan, workload, &inputs, record)?;
        for task in tasks {
            progress::check_interrupt()?;
            let row = measure_row(plan, workload, &inputs, task, &mut sides, &pool)?;
            note(&format!(
                "{} {}: {}",
                workload.name,
                task.name(),
                statistics::readable(row.ours.median)
            ));
            record.rows.push(row);
            // Long measurements are worth keeping even if a later one is interrupted.
            if let Some(path) = &plan.json {
                record.write(path)?;
            }
        }
    }
    Ok(())
}

fn thread_pool(threads: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .with_context(|| format!("cannot start {threads} threads"))
}

/// The baselines of one workload.
struct Sides {
    running: Vec<Baseline>,
    /// Keeps scripts, arrays and logs; deleted at the end.
    directory: tempfile::TempDir,
    specification: PathBuf,
}

impl Sides {
    /// Starts the processes. Those that cannot start are noted in the record.
    fn start(
        plan: &Plan,
        workload: &Workload,
        inputs: &Inputs,
        record: &mut Record,
    ) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
        let specification = directory.path().join("specification.json");
        let mut sides = Self {
            running: Vec::new(),
            specification,
            directory,
        };
        if plan.variants.is_empty() {
            return Ok(sides);
        }
        let folder = sides.directory.path();
        baseline::write_scripts(folder)?;
        let arrays = folder.join("arrays.safetensors");
        workload.write_arrays(inputs, &arrays)?;
        let text = workload.specification(plan.threads, &arrays).to_string();
        std::fs::write(&sides.specification, text)
            .with_context(|| format!("cannot write {}", sides.specification.display()))?;
        for variant in &plan.variants {
            match Baseline::start(*variant, &plan.python, folder, &sides.specification) {
                Ok(side) => {
                    record.machine.versions.extend(side.versions.clone());
                    sides.running.push(side);
                }
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    let sentence = format!(
                        "{} is skipped: {error:#}; {}",
                        variant.name,
                        baseline::how_to_install(&plan.python)
                    );
                    if !record.skipped.contains(&sentence) {
                        note(&sentence);
                        record.skipped.push(sentence);
                    }
                }
            }
        }
        Ok(sides)
    }

    fn folder(&self) -> &Path {
        self.directory.path()
    }
}

/// Prepares a task on all sides, checks their results, and times them in turn.
fn measure_row(
    plan: &Plan,
    workload: &Workload,
    inputs: &Inputs,
    task: Task,
    sides: &mut Sides,
    pool: &ThreadPool,
) -> Result<Row> {
    let mut prepared = pool.install(|| ours::prepare(workload, inputs, task))?;
    let mut others = Vec::new();
    for number in 0..sides.running.len() {
        let side = prepare_side(plan, &mut sides.running[number], task, &prepared.outputs)?;
        others.push((number, side));
    }
    let mut call = || pool.install(|| (prepared.call)());
    let mut own = Timer::new(|calls| Ok(seconds_of(&mut call, calls)), WARM_UP_CALLS)?;
    let roof = roof::Roof::new(&prepared.products, pool);
    let mut rates = Vec::new();
    let mut calls = vec![1; others.len()];
    let mut seconds = vec![Vec::new(); others.len()];
    for round in 0..plan.repeats {
        progress::check_interrupt()?;
        own.sample()?;
        for (i, (number, side)) in others.iter_mut().enumerate() {
            if side.problem.is_some() {
                continue;
            }
            let process = &mut sides.running[*number];
            let result = (|| {
                if round == 0 {
                    calls[i] = calls_per_sample(process.sample(1)?);
                }
                process.sample(calls[i])
            })();
            match result {
                Ok(value) => seconds[i].push(value),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => side.problem = Some(format!("{error:#}")),
            }
        }
        rates.extend(roof.as_ref().map(|roof| roof.measure(pool)));
    }
    let series = own.finish().context("no samples were asked for")?;
    for (i, (_, side)) in others.iter_mut().enumerate() {
        if side.problem.is_none() {
            side.series = Series::new(std::mem::take(&mut seconds[i]), calls[i]);
        }
    }
    let mut row = Row {
        workload: workload.name.to_owned(),
        task,
        samples: workload.samples(task),
        ours: series,
        operations: prepared.operations,
        roof: median(&rates).map(|median| Roof { median, rates }),
        compile_seconds: prepared.compile_seconds,
        arena_bytes: prepared.arena_bytes,
        baselines: Vec::new(),
        scaling: BTreeMap::new(),
        peak_memory: None,
    };
    if task == Task::TrainingStep {
        row.scaling = scaling(plan, &mut prepared.call)?;
        row.peak_memory = match memory::measure_apart(workload, task, plan.threads) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                note(&format!("{error:#}"));
                None
            }
        };
    }
    drop(prepared);
    for (number, mut side) in others {
        if task == Task::TrainingStep && side.series.is_some() {
            let variant = sides.running[number].variant();
            let measured =
                Baseline::start(variant, &plan.python, sides.folder(), &sides.specification)
                    .and_then(|mut alone| alone.memory(task, &side.strategy));
            match measured {
                Ok(bytes) => side.peak_memory = Some(bytes),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => note(&format!("no memory of {}: {error:#}", side.name)),
            }
        }
        row.baselines.push(side);
    }
    Ok(row)
}

/// Lets a baseline build a task and compares what it computed.
fn prepare_side(
    plan: &Plan,
    side: &mut Baseline,
    task: Task,
    ours: &ours::Outputs,
) -> Result<BaselineRow> {
    let name = side.variant().name;
    note(&format!("  {} of {name}", task.name()));
    let mut row = BaselineRow {
        name: name.to_owned(),
        strategy: String::new(),
        candidates: BTreeMap::new(),
        series: None,
        deviation: None,
        problem: None,
        peak_memory: None,
    };
    match side.prepare(task, plan.candidate_seconds) {
        Ok(ready) => {
            row.strategy = ready.strategy;
            row.candidates = ready.candidates;
            match agreement::check(ours, &ready.outputs) {
                Ok(deviation) => row.deviation = Some(deviation),
                Err(error) => row.problem = Some(format!("its results disagree: {error:#}")),
            }
        }
        Err(error) if error.is::<Interrupted>() => return Err(error),
        Err(error) => row.problem = Some(format!("{error:#}")),
    }
    Ok(row)
}

/// Mean seconds of a call.
pub fn seconds_of(call: &mut dyn FnMut(), calls: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_secs_f64() / calls as f64
}

/// Collects samples of one side.
struct Timer<F> {
    measure: F,
    calls: usize,
    seconds: Vec<f64>,
}

impl<F: FnMut(usize) -> Result<f64>> Timer<F> {
    /// Takes untimed calls, from which the number of calls per sample follows.
    fn new(mut measure: F, warm_up: usize) -> Result<Self> {
        let mut estimate = f64::INFINITY;
        for _ in 0..warm_up.max(1) {
            estimate = estimate.min(measure(1)?);
        }
        Ok(Self {
            measure,
            calls: calls_per_sample(estimate),
            seconds: Vec::new(),
        })
    }

    fn sample(&mut self) -> Result<()> {
        let value = (self.measure)(self.calls)?;
        self.seconds.push(value);
        Ok(())
    }

    fn finish(self) -> Option<Series> {
        Series::new(self.seconds, self.calls)
    }
}

/// Our training step on one, two and all threads, in turn.
fn scaling(plan: &Plan, call: &mut (dyn FnMut() + Send)) -> Result<BTreeMap<usize, Series>> {
    let mut counts = vec![1, 2, plan.threads];
    counts.retain(|count| *count <= plan.threads);
    counts.sort_unstable();
    counts.dedup();
    let mut pools = Vec::new();
    for count in counts {
        pools.push((count, thread_pool(count)?, Vec::new()));
    }
    let mut calls = 1;
    for round in 0..plan.repeats {
        for (_, pool, seconds) in &mut pools {
            progress::check_interrupt()?;
            let mut on_pool = || pool.install(&mut *call);
            if round == 0 {
                calls = calls_per_sample(seconds_of(&mut on_pool, 1));
            }
            seconds.push(seconds_of(&mut on_pool, calls));
        }
    }
    Ok(pools
        .into_iter()
        .filter_map(|(count, _, seconds)| Some((count, Series::new(seconds, calls)?)))
        .collect())
}
