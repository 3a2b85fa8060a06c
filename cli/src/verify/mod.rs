//! `boltzmap verify`: whether a reported likelihood is true.
//!
//! For a trained flow map ([`subject`]), everything is measured on samples of its own: what the head reports against the
//! exact log|det| of the very steps that made the samples, per step and for other numbers of steps; the continuous flow of
//! the same network; whether the map can be inverted ([`measure`]); and what weights made from it do to averages over the target, where
//! there is one ([`target`], [`weighted`]). Samples are drawn until the verdict is decided ([`assessment`]). For training methods ([`suite`]), the same on targets
//! with closed forms, where the density of the data is known too; and the instrument itself on inputs whose errors are
//! known. [`verdict`] turns numbers into sentences, with thresholds that it states.

pub mod assessment;
pub mod criteria;
mod figures;
pub mod measure;
mod page;
mod plots;
pub mod statistics;
pub mod stepper;
pub mod subject;
pub mod suite;
pub mod target;
mod terminal;
pub mod verdict;
pub mod weighted;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use boltzmap_models::control::Control;
use serde::Serialize;

use crate::args::VerifyArguments;
use crate::commands::print;
use crate::npz::NpzWriter;
use crate::progress::{self, Abandoned, Progress};
use crate::report::{Statement, Tone};
use crate::run_dir::{Provenance, check_writable, write_atomically};
use assessment::Judgement;
use measure::{Arrays, Effort, Measurement};
use subject::Subject;

/// Most samples unless told otherwise.
const SAMPLES: usize = 16_000;
/// Fewest samples from which an interval can be made.
const FEWEST_SAMPLES: usize = 16;
/// Largest number of samples and of steps, far beyond what is of use.
const MOST_SAMPLES: usize = 10_000_000;
const MOST_STEPS: usize = 4096;
/// Version of `verify.json`.
const FORMAT: u32 = 2;

/// Progress of one part, and Ctrl-C. A part without a name is not shown.
pub struct Watch {
    progress: Option<Progress>,
    done: usize,
}

impl Watch {
    /// Starts a part of `total` units.
    pub fn new(part: &str, total: usize) -> Watch {
        Watch {
            progress: shown(part, total),
            done: 0,
        }
    }

    /// Reports that `count` more units are done.
    ///
    /// # Errors
    /// If Ctrl-C was pressed.
    pub fn add(&mut self, count: usize) -> Result<()> {
        self.done += count;
        if let Some(progress) = &mut self.progress {
            progress.set(self.done as u64, String::new);
        }
        if progress::interrupted() {
            return Err(Abandoned("nothing was kept".into()).into());
        }
        Ok(())
    }

    /// Ends the part.
    pub fn finish(self) {
        if let Some(progress) = self.progress {
            progress.finish("");
        }
    }
}

fn shown(part: &str, total: usize) -> Option<Progress> {
    (!part.is_empty()).then(|| Progress::new(part, total as u64, 0))
}

/// Runs long work of the models with Ctrl-C, and with progress where the part has a name.
///
/// # Errors
/// Those of the work, or that Ctrl-C was pressed.
pub fn watched<R, E: Into<anyhow::Error>>(
    part: &str,
    total: usize,
    work: impl FnOnce(&Control<'_>) -> Result<R, E>,
) -> Result<R> {
    let bar = std::sync::Mutex::new(shown(part, total));
    let report = |done: usize, _total: usize| {
        if let Ok(mut bar) = bar.lock()
            && let Some(bar) = bar.as_mut()
        {
            bar.set(done as u64, String::new);
        }
    };
    let control = Control {
        progress: Some(&report),
        cancel: Some(progress::interrupt_flag()),
    };
    let result = work(&control);
    if progress::interrupted() {
        return Err(Abandoned("nothing was kept".into()).into());
    }
    if let Ok(Some(bar)) = bar.into_inner() {
        bar.finish("");
    }
    result.map_err(Into::into)
}

/// What was verified.
#[derive(Clone, Debug, Serialize)]
pub struct SubjectRecord {
    /// The checkpoint file.
    pub checkpoint: PathBuf,
    /// The network, in words.
    pub network: String,
    /// d
    pub dimension: usize,
    /// Parameters of the network.
    pub parameters: usize,
    /// Steps of training, where the checkpoint tells.
    pub training_steps: Option<u64>,
    /// The deployed times.
    pub times: Vec<f64>,
    /// ε: the times end at 1 − ε.
    pub epsilon: f64,
}

/// `verify.json` of a trained model.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Version of the format.
    pub format: u32,
    /// The verdict in a few words.
    pub judgement: Judgement,
    /// The verdict in one sentence.
    pub verdict: String,
    /// Everything else there is to say.
    pub statements: Vec<Statement>,
    /// The thresholds of the judgement.
    pub thresholds: String,
    /// What was verified.
    pub subject: SubjectRecord,
    /// The numbers.
    pub measurement: Measurement,
    /// Which code and machine.
    pub provenance: Provenance,
    /// The command that makes this again.
    pub command: String,
}

/// Runs the command.
///
/// # Errors
/// If the arguments make no sense, a file cannot be read or written, or a number is not finite.
pub fn verify(arguments: &VerifyArguments) -> Result<()> {
    check(arguments)?;
    progress::install_interrupt_handler()?;
    match &arguments.model {
        Some(path) => model(path, arguments),
        None => suite::run(arguments),
    }
}

fn check(arguments: &VerifyArguments) -> Result<()> {
    for (option, names) in [
        ("--methods", &arguments.methods),
        ("--targets", &arguments.targets),
    ] {
        ensure!(
            names.is_empty() || arguments.suite.is_some(),
            "{option} chooses what a suite trains; add --suite analytic or leave it out"
        );
    }
    let n = arguments.samples.unwrap_or(SAMPLES);
    ensure!(
        (FEWEST_SAMPLES..=MOST_SAMPLES).contains(&n),
        "--samples is {n}; intervals need at least {FEWEST_SAMPLES}, and more than {MOST_SAMPLES} tell nothing new"
    );
    ensure!(
        arguments
            .steps
            .iter()
            .all(|steps| (1..=MOST_STEPS).contains(steps)),
        "--steps holds a number outside 1 to {MOST_STEPS}; give numbers of steps such as 1,2,4,8,16"
    );
    Ok(())
}

/// The directory for results, made if it is not there.
fn output_directory(out: Option<&PathBuf>, home: &Path) -> Result<PathBuf> {
    let directory = out.cloned().unwrap_or_else(|| home.to_owned());
    if !directory.as_os_str().is_empty() {
        ensure!(
            !directory.is_file(),
            "{} is a file, not a directory; choose another --out",
            directory.display()
        );
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create the directory {}", directory.display()))?;
    }
    for name in ["verify.json", "verify.html"] {
        check_writable(&directory.join(name))?;
    }
    Ok(directory)
}

/// Whether the terminal shows colours.
fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Verifies a trained model.
fn model(path: &Path, arguments: &VerifyArguments) -> Result<()> {
    let subject = Subject::read(path, &arguments.times)?;
    let out = output_directory(arguments.out.as_ref(), &subject.home)?;
    let samples = arguments.samples.unwrap_or(SAMPLES);
    let effort = Effort::new(samples, &arguments.steps, arguments.seed);
    let model = &subject.model;
    let (measurement, arrays) = measure::measure(
        model,
        |steps| subject.respaced(steps),
        subject.target.as_ref(),
        &effort,
    )?;
    let reporter = model.reporter.subject();
    let mut statements = verdict::statements(reporter, &measurement);
    statements.extend(subject.unfinished.clone().map(|text| Statement {
        tone: Tone::Caution,
        subject: "Training",
        text,
    }));
    let record = Record {
        format: FORMAT,
        judgement: measurement.assessment.judgement,
        verdict: verdict::sentence(reporter, &measurement.gap, &measurement.assessment),
        statements,
        thresholds: verdict::thresholds(),
        subject: SubjectRecord {
            checkpoint: subject.checkpoint.clone(),
            network: subject.describe(),
            dimension: model.map.dimension(),
            parameters: model.map.layout().total(),
            training_steps: subject.training_steps,
            times: model.schedule.times().to_vec(),
            epsilon: model.schedule.epsilon(),
        },
        measurement,
        provenance: Provenance::now(arguments.seed),
        command: command(path, arguments),
    };
    write_arrays(&out.join("verify.npz"), &subject, &record, &arrays)?;
    let page = page::model(&record, &arrays);
    write_atomically(&out.join("verify.html"), page.as_bytes())?;
    let json = format!("{}\n", serde_json::to_string_pretty(&record)?);
    write_atomically(&out.join("verify.json"), json.as_bytes())?;
    if arguments.json {
        return print(&json);
    }
    let gaps = arrays.gaps();
    let mut text = terminal::model(&record, &gaps, colours());
    text += &format!("\n{}\n", out.join("verify.html").display());
    print(&text)
}

/// The numbers behind the figures.
fn write_arrays(path: &Path, subject: &Subject, record: &Record, arrays: &Arrays) -> Result<()> {
    let n = record.measurement.samples;
    let (map, schedule) = (&subject.model.map, &subject.model.schedule);
    NpzWriter::new()
        .array("states", &[n, map.tokens(), map.channels()], &arrays.states)
        .array("log_q_reported", &[n], &arrays.reported)
        .array("log_q_exact", &[n], &arrays.exact)
        .array("log_target", &[arrays.target.len()], &arrays.target)
        .array("step_gaps", &[n, schedule.steps()], &arrays.step_gaps)
        .array(
            "times",
            &[record.subject.times.len()],
            &record.subject.times,
        )
        .array("log_q_flow", &[arrays.flow.len()], &arrays.flow)
        .array(
            "flow_distance",
            &[arrays.flow_distance.len()],
            &arrays.flow_distance,
        )
        .write(path)
}

/// The command line that makes this again.
fn command(path: &Path, arguments: &VerifyArguments) -> String {
    let list = |numbers: &[usize]| {
        let texts: Vec<String> = numbers.iter().map(usize::to_string).collect();
        texts.join(",")
    };
    let mut text = format!(
        "boltzmap verify {} --samples {} --steps {} --seed {}",
        path.display(),
        arguments.samples.unwrap_or(SAMPLES),
        list(&arguments.steps),
        arguments.seed
    );
    if !arguments.times.is_empty() {
        let times: Vec<String> = arguments.times.iter().map(f64::to_string).collect();
        text += &format!(" --times {}", times.join(","));
    }
    text
}
