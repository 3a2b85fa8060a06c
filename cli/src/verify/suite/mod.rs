//! `boltzmap verify --suite analytic`: training methods on targets with closed forms, after the instrument has been tried on
//! inputs whose errors are known.

pub mod cell;
pub mod controls;
mod figures;
pub mod methods;
mod page;
mod terminal;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use boltzmap_objectives::targets::AnalyticTarget;
use serde::Serialize;

use super::verdict::thresholds;
use super::{colours, output_directory};
use crate::args::{BudgetKind, VerifyArguments};
use crate::commands::print;
use crate::progress;
use crate::run_dir::{Provenance, write_atomically};
use cell::{Cell, CellArrays};
use controls::Control;
use methods::{METHODS, Method, Trained};

/// Version of `verify.json`.
const FORMAT: u32 = 2;

/// How much to train and to measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Its name.
    pub name: &'static str,
    /// Optimiser steps.
    pub training_steps: usize,
    /// Samples per optimiser step.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the moving average of the parameters.
    pub moving_average: f64,
    /// Channels of the perceptron.
    pub width: usize,
    /// Its blocks.
    pub blocks: usize,
    /// Network evaluations per sample.
    pub steps: usize,
    /// Most optimiser steps of a calibration.
    pub calibration_steps: usize,
    /// Samples that densities are compared at.
    pub samples: usize,
    /// Samples that are inverted.
    pub inverted: usize,
    /// What it takes, in words.
    pub takes: &'static str,
}

impl Budget {
    /// Training, network and samples, in words.
    pub(super) fn words(&self) -> String {
        format!(
            "budget {}: {} training steps of {}, perceptrons of {} × {}, {} steps, {} samples",
            self.name,
            self.training_steps,
            self.batch,
            self.blocks,
            self.width,
            self.steps,
            self.samples
        )
    }

    /// The budget of a name.
    pub fn of(kind: BudgetKind) -> Budget {
        match kind {
            BudgetKind::Tiny => Budget {
                name: "tiny",
                training_steps: 40,
                batch: 32,
                learning_rate: 3e-3,
                moving_average: 0.9,
                width: 16,
                blocks: 1,
                steps: 2,
                calibration_steps: 20,
                samples: 200,
                inverted: 40,
                takes: "seconds, only to see it work",
            },
            BudgetKind::Small => Budget {
                name: "small",
                training_steps: 1200,
                batch: 128,
                learning_rate: 3e-3,
                moving_average: 0.99,
                width: 64,
                blocks: 2,
                steps: 4,
                calibration_steps: 400,
                samples: 4000,
                inverted: 100,
                takes: "about six seconds per method and target on two cores",
            },
            BudgetKind::Full => Budget {
                name: "full",
                training_steps: 12_000,
                batch: 256,
                learning_rate: 2e-3,
                moving_average: 0.999,
                width: 96,
                blocks: 3,
                steps: 4,
                calibration_steps: 8000,
                samples: 10_000,
                inverted: 1000,
                takes: "a few minutes per method and target on two cores",
            },
        }
    }
}

/// A method that was not measured on a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unmeasured {
    /// Name of the target.
    pub target: String,
    /// Name of the method.
    pub method: String,
    /// Why, in one sentence.
    pub reason: String,
}

/// `verify.json` of the suite.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteRecord {
    /// Version of the format.
    pub format: u32,
    /// Name of the suite.
    pub suite: &'static str,
    /// Sizes.
    pub budget: Budget,
    /// ε: densities are those at time 1 − ε, of the model and of the data.
    pub epsilon: f64,
    /// The instrument on known inputs.
    pub controls: Vec<Control>,
    /// One per target and method.
    pub cells: Vec<Cell>,
    /// What diverged or could not be computed.
    pub unmeasured: Vec<Unmeasured>,
    /// The thresholds of the judgements.
    pub thresholds: String,
    /// Wall-clock seconds of everything.
    pub seconds: f64,
    /// Which code and machine.
    pub provenance: Provenance,
    /// The command that makes this again.
    pub command: String,
}

/// Runs the suite.
///
/// # Errors
/// If a name is unknown, the instrument fails on a known input, Ctrl-C was pressed, or no method could be measured on any target.
pub fn run(arguments: &VerifyArguments) -> Result<()> {
    let start = Instant::now();
    let methods = chosen_methods(&arguments.methods)?;
    let targets = chosen_targets(&arguments.targets)?;
    let mut budget = Budget::of(arguments.budget);
    if let Some(samples) = arguments.samples {
        budget.samples = samples;
        budget.inverted = budget.inverted.min(samples);
    }
    let seed = arguments.seed;
    let home = PathBuf::from("runs").join(format!("verify-analytic-{}-seed{seed}", budget.name));
    let out = output_directory(arguments.out.as_ref(), &home)?;
    let models = out.join("models");
    std::fs::create_dir_all(&models)
        .with_context(|| format!("cannot create the directory {}", models.display()))?;

    let controls = controls::run(&budget, seed)?;
    if let Some(failed) = controls.iter().find(|control| !control.passed) {
        bail!(
            "the instrument failed on the known input '{}' (verdict {:?} where {:?} is right, bias {:.4}, spread {:.4} nats), so \
             nothing else was measured; please report this with the command",
            failed.name,
            failed.found.words(),
            failed.expected.words(),
            failed.gap.bias.value,
            failed.gap.spread.value
        );
    }
    let Measured {
        cells,
        arrays,
        unmeasured,
        epsilon,
    } = measure(&methods, &targets, &budget, seed, &models)?;
    let record = SuiteRecord {
        format: FORMAT,
        suite: "analytic",
        budget,
        epsilon,
        controls,
        cells,
        unmeasured,
        thresholds: thresholds(),
        seconds: start.elapsed().as_secs_f64(),
        provenance: Provenance::now(seed),
        command: command(arguments),
    };
    write(&record, &targets, &arrays, &out)?;
    if arguments.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&record)?));
    }
    let mut text = terminal::suite(&record, colours());
    text += &format!("\n{}\n", out.join("verify.html").display());
    print(&text)
}

/// What a suite found.
struct Measured {
    cells: Vec<Cell>,
    arrays: Vec<CellArrays>,
    unmeasured: Vec<Unmeasured>,
    epsilon: f64,
}

/// Trains and measures every method on every target; checkpoints go into the directory `models`.
fn measure(
    methods: &[Method],
    targets: &[(String, AnalyticTarget)],
    budget: &Budget,
    seed: u64,
    models: &Path,
) -> Result<Measured> {
    let (mut cells, mut arrays, mut unmeasured) = (Vec::new(), Vec::new(), Vec::new());
    let mut epsilon = f64::NAN;
    let all = targets.len() * methods.len();
    let mut number = 0;
    for (name, target) in targets {
        let mut done: Vec<(Method, Trained)> = Vec::new();
        for method in methods {
            number += 1;
            progress::note(&format!("{number} of {all}: {} on {name}", method.name));
            let path = models.join(format!("{name}-{}.safetensors", method.name));
            let measured = method
                .train(target, name, budget, seed, &done)
                .and_then(|trained| {
                    trained
                        .checkpoint(method.name, name, budget.training_steps)?
                        .write(&path)?;
                    let measured = cell::measure(&trained, method, target, name, budget, seed)?;
                    Ok((trained, measured))
                });
            match measured {
                Ok((trained, (cell, array))) => {
                    epsilon = trained.model.schedule.epsilon();
                    cells.push(cell);
                    arrays.push(array);
                    done.push((*method, trained));
                }
                Err(error) if progress::interrupted() => return Err(error),
                // One method that diverges says nothing of the others.
                Err(error) => {
                    let reason = format!("{error:#}");
                    progress::note(&format!("{} on {name}: {reason}", method.name));
                    unmeasured.push(Unmeasured {
                        target: name.clone(),
                        method: method.name.into(),
                        reason,
                    });
                }
            }
        }
    }
    if let (true, Some(first)) = (cells.is_empty(), unmeasured.first()) {
        bail!(
            "nothing could be measured; {} on {}: {}",
            first.method,
            first.target,
            first.reason
        );
    }
    Ok(Measured {
        cells,
        arrays,
        unmeasured,
        epsilon,
    })
}

fn write(
    record: &SuiteRecord,
    targets: &[(String, AnalyticTarget)],
    arrays: &[CellArrays],
    out: &Path,
) -> Result<()> {
    let page = page::suite(record, targets, arrays);
    write_atomically(&out.join("verify.html"), page.as_bytes())?;
    let json = format!("{}\n", serde_json::to_string_pretty(record)?);
    write_atomically(&out.join("verify.json"), json.as_bytes())
}

fn chosen_methods(names: &[String]) -> Result<Vec<Method>> {
    if names.is_empty() {
        return Ok(METHODS.to_vec());
    }
    let known = METHODS.map(|method| method.name);
    unique("--methods", names)?;
    names
        .iter()
        .map(|name| {
            Method::named(name).with_context(|| {
                format!(
                    "there is no method '{name}'; choose among {}",
                    known.join(", ")
                )
            })
        })
        .collect()
}

fn chosen_targets(names: &[String]) -> Result<Vec<(String, AnalyticTarget)>> {
    let all = AnalyticTarget::NAMES.map(str::to_owned);
    let names = if names.is_empty() { &all[..] } else { names };
    unique("--targets", names)?;
    names
        .iter()
        .map(|name| {
            let target = AnalyticTarget::named(name).with_context(|| {
                format!(
                    "there is no target '{name}'; choose among {}",
                    AnalyticTarget::NAMES.join(", ")
                )
            })?;
            Ok((name.clone(), target))
        })
        .collect()
}

fn unique(option: &str, names: &[String]) -> Result<()> {
    for (i, name) in names.iter().enumerate() {
        ensure!(
            !names[..i].contains(name),
            "{option} names {name} twice; once is enough"
        );
    }
    Ok(())
}

/// The command line that makes this again.
fn command(arguments: &VerifyArguments) -> String {
    let mut text = format!(
        "boltzmap verify --suite analytic --budget {} --seed {}",
        Budget::of(arguments.budget).name,
        arguments.seed
    );
    for (option, names) in [
        ("--methods", &arguments.methods),
        ("--targets", &arguments.targets),
    ] {
        if !names.is_empty() {
            text += &format!(" {option} {}", names.join(","));
        }
    }
    if let Some(samples) = arguments.samples {
        text += &format!(" --samples {samples}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_diverges_does_not_end_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let targets = chosen_targets(&["circle".into()]).unwrap();
        let budget = Budget::of(BudgetKind::Tiny);
        let methods = [Method::named("scallop").unwrap()];
        let wild = Budget {
            learning_rate: 1e12,
            training_steps: 400,
            ..budget.clone()
        };
        let error = measure(&methods, &targets, &wild, 1, directory.path())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("scallop on circle") && error.contains("diverged"),
            "{error}"
        );
        let mut broken = methods[0];
        broken.settings = &["training.learning_rate=1e12", "training.steps=400"];
        broken.name = "broken";
        let found = measure(
            &[broken, methods[0]],
            &targets,
            &budget,
            1,
            directory.path(),
        )
        .unwrap();
        assert_eq!((found.cells.len(), found.unmeasured.len()), (1, 1));
        assert_eq!(found.cells[0].method, "scallop");
        let missing = &found.unmeasured[0];
        assert!(missing.method == "broken" && missing.reason.contains("diverged"));
    }
}
