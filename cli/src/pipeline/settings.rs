//! Which settings each stage reads, and with which its file was made.
//!
//! Every file of a run states the settings that made it: `data.npz` in its card, the checkpoint in its metadata, `samples.npz` in an
//! array. A configuration that was edited afterwards is held against them, so that no stage goes on with what others settings made, and no
//! report names a command that would make something else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};

use super::Stage;
use super::model::ModelMetadata;
use super::samples::Samples;
use crate::card;
use crate::config::{Chart, Config, MethodKind, NetworkKind};
use crate::progress;
use crate::report::Recipe;
use crate::run_dir::RunDir;

/// Settings by their paths, as TOML values.
pub type Settings = BTreeMap<String, String>;

/// Differences that a sentence names; more are counted.
const NAMED: usize = 3;

impl Stage {
    /// Whether the stage's file depends on a setting.
    fn reads(self, path: &str, config: &Config) -> bool {
        let within = |sections: &[&str]| sections.iter().any(|section| path.starts_with(section));
        let one_of = |paths: &[&str]| paths.contains(&path);
        let reads = match self {
            Stage::Data => within(&["system.", "data."]) || path == "seed",
            Stage::Train => {
                within(&[
                    "system.",
                    "coordinates.",
                    "network.",
                    "training.",
                    "calibration.",
                ]) || one_of(&["seed", "sampling.steps", "sampling.schedule"])
            }
            Stage::Sample => {
                within(&["system.", "coordinates.", "network.", "sampling."])
                    || one_of(&["seed", "audit.samples"])
                    || one_of(OF_THE_MODEL)
            }
            Stage::Evaluate => {
                within(&["system.", "sampling.", "evaluation.", "audit."])
                    || one_of(&["seed"])
                    || one_of(OF_THE_MODEL)
            }
        };
        reads && has_effect(path, config)
    }

    /// The settings that the stage's file depends on.
    pub fn settings(self, config: &Config) -> Settings {
        let mut settings = config.settings();
        settings.retain(|path, _| self.reads(path, config));
        settings
    }
}

/// Settings of the training that say what a model is, and so how it is sampled.
const OF_THE_MODEL: &[&str] = &[
    "training.method",
    "training.interpolant",
    "training.epsilon",
];

/// Whether a setting does anything beside the others.
fn has_effect(path: &str, config: &Config) -> bool {
    let method = config.training.method;
    match path {
        "training.checkpoint_every" => false,
        "calibration.steps" => true,
        "sampling.tolerance" | "sampling.solver" => method == MethodKind::FlowMatching,
        "network.heads" | "network.mlp_ratio" => config.network.kind == NetworkKind::Dit,
        "coordinates.canonical_methyls" | "coordinates.methyl_overlap" => {
            config.coordinates.chart == Chart::Internal
        }
        path if path.starts_with("calibration.") => config.calibration.steps > 0,
        path if path.starts_with("training.f2d2_") => method == MethodKind::F2d2,
        path if path.starts_with("training.falcon_") => method == MethodKind::Falcon,
        _ => true,
    }
}

/// A setting with which a file was made and which is another now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path.
    pub path: String,
    /// Its value when the file was made.
    pub made: String,
    /// Its value in the configuration.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { path, made, now } = self;
        write!(formatter, "{path} {made} where config.toml has {now}")
    }
}

/// The settings of a stage in which its file and a configuration differ.
pub fn differences(made: &Settings, stage: Stage, config: &Config) -> Vec<Difference> {
    let now = stage.settings(config);
    let pairs = now.into_iter().filter_map(|(path, now)| {
        let made = made.get(&path).filter(|made| **made != now)?.clone();
        Some(Difference { path, made, now })
    });
    pairs.collect()
}

/// Differences in words.
pub fn words(differences: &[Difference]) -> String {
    let named: Vec<String> = differences
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    match differences.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more such settings", named.join(", ")),
    }
}

/// The settings that made a run's data, where they are on record.
fn of_data(run: &RunDir) -> Result<Option<Settings>> {
    Ok(card::read(&run.data())?.and_then(|card| card.settings))
}

/// Refuses to take data for done that other settings made.
pub fn require_same_data(run: &RunDir, config: &Config) -> Result<()> {
    let (data, root) = (run.data(), run.root().display());
    let Some(made) = of_data(run)? else {
        progress::note(&format!(
            "{} has no record of the settings that made it; it is taken as it is",
            data.display()
        ));
        return Ok(());
    };
    let found = differences(&made, Stage::Data, config);
    ensure!(
        found.is_empty(),
        "cannot resume: {} was made with {}; make it again with 'boltzmap md {root}', which replaces it, or set that back in {}",
        data.display(),
        words(&found),
        run.config().display()
    );
    Ok(())
}

/// Splits differences into those that matter, which are refused, and the others, which are noted.
fn judge(
    file: &Path,
    found: Vec<Difference>,
    matters: impl Fn(&str) -> bool,
    remedy: &str,
) -> Result<()> {
    let (grave, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|d| matters(&d.path));
    let shown = file.display();
    ensure!(
        grave.is_empty(),
        "{shown} was made with {}; {remedy}, or set that back",
        words(&grave)
    );
    if !others.is_empty() {
        progress::note(&format!("note: {shown} was made with {}", words(&others)));
    }
    Ok(())
}

/// Holds the data against the configuration of a stage that uses them: the target must be the same.
pub fn check_data(run: &RunDir, config: &Config) -> Result<()> {
    let Some(made) = of_data(run)? else {
        return Ok(());
    };
    let remedy = format!("make it again with 'boltzmap md {}'", run.root().display());
    let target = |path: &str| path.starts_with("system.");
    let found = differences(&made, Stage::Data, config);
    judge(&run.data(), found, target, &remedy)
}

/// Holds a checkpoint against the configuration of a stage that uses it: it must be the same kind of model.
pub fn check_model(run: &RunDir, config: &Config, metadata: &ModelMetadata) -> Result<()> {
    let Some(made) = &metadata.settings else {
        return Ok(());
    };
    let remedy = format!("train again with 'boltzmap train {}'", run.root().display());
    let kind = |path: &str| {
        path == "system.sequence"
            || path.starts_with("network.")
            || path.starts_with("coordinates.")
            || OF_THE_MODEL.contains(&path)
    };
    let found = differences(made, Stage::Train, config);
    judge(&run.checkpoint(), found, kind, &remedy)
}

/// Holds samples against the configuration of their evaluation.
pub fn check_samples(run: &RunDir, config: &Config, samples: &Samples) -> Result<()> {
    let Some(made) = &samples.settings else {
        return Ok(());
    };
    let remedy = format!("draw again with 'boltzmap sample {}'", run.root().display());
    let found = differences(made, Stage::Sample, config);
    judge(&run.samples(), found, |path| path != "seed", &remedy)
}

/// How to make a run again, and why that may not be possible with one command.
pub fn recipe(
    run: &RunDir,
    config: &Config,
    metadata: &ModelMetadata,
    samples: &Samples,
) -> Result<Recipe> {
    let data = of_data(run)?;
    let mut caveats = Vec::new();
    for (stage, file, made) in [
        (Stage::Data, "data.npz", &data),
        (Stage::Train, "checkpoint.safetensors", &metadata.settings),
        (Stage::Sample, "samples.npz", &samples.settings),
    ] {
        match made {
            None => caveats.push(format!("the settings that made {file} are not on record")),
            Some(made) => {
                let found = differences(made, stage, config);
                if !found.is_empty() {
                    caveats.push(format!("{file} was made with {}", words(&found)));
                }
            }
        }
    }
    if let (Some(trained_on), Some(card)) = (&metadata.data_sha256, card::read(&run.data())?)
        && *trained_on != card.sha256
    {
        caveats.push("checkpoint.safetensors was trained on other data than data.npz holds".into());
    }
    caveats.extend(metadata.changes.iter().map(|change| {
        format!(
            "checkpoint.safetensors was trained with {} {} up to step {} and with {} from there",
            change.path, change.before, change.step, change.after
        )
    }));
    Ok(Recipe {
        command: config.command(),
        caveats,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ConfigArguments;

    fn config(set: &[&str]) -> Config {
        Config::resolve(&ConfigArguments {
            source: Some("ala2-tiny".into()),
            set: set.iter().map(|&text| text.to_owned()).collect(),
            seed: None,
        })
        .unwrap()
    }

    /// The stages whose files a changed setting makes stale.
    fn stale(set: &str) -> Vec<&'static str> {
        let (before, after) = (config(&[]), config(&[set]));
        let stages = Stage::ALL.into_iter();
        stages
            .filter(|stage| !differences(&stage.settings(&before), *stage, &after).is_empty())
            .map(Stage::name)
            .collect()
    }

    #[test]
    fn a_setting_belongs_to_the_stages_that_read_it() {
        for (set, stages) in [
            ("name=\"other\"", &[][..]),
            ("seed=2", &["data", "train", "sample", "evaluate"]),
            (
                "system.temperature=310",
                &["data", "train", "sample", "evaluate"],
            ),
            ("data.production_ps=30", &["data"]),
            ("network.width=64", &["train", "sample"]),
            ("training.learning_rate=2e-3", &["train"]),
            ("training.checkpoint_every=7", &[]),
            ("training.epsilon=2e-2", &["train", "sample", "evaluate"]),
            ("training.f2d2_probes=3", &[]),
            ("calibration.steps=10", &["train"]),
            ("calibration.batch=10", &[]),
            ("sampling.steps=5", &["train", "sample", "evaluate"]),
            ("sampling.samples=400", &["sample", "evaluate"]),
            ("sampling.tolerance=1e-3", &[]),
            ("audit.samples=50", &["sample", "evaluate"]),
            ("audit.reference_frames=50", &["evaluate"]),
            ("evaluation.bootstrap=20", &["evaluate"]),
        ] {
            assert_eq!(stale(set), stages, "{set}");
        }
    }

    /// No setting is left out: what changes nothing is named here.
    #[test]
    fn every_setting_belongs_to_some_stage() {
        let config = config(&["training.method=\"falcon\"", "calibration.steps=5"]);
        let elsewhere = |path: &str| {
            path.starts_with("training.f2d2_")
                || path.starts_with("sampling.tol")
                || path == "sampling.solver"
        };
        for path in config.settings().into_keys() {
            let read = Stage::ALL.iter().any(|stage| stage.reads(&path, &config));
            let free = ["name", "training.checkpoint_every"].contains(&path.as_str());
            assert_eq!(read, !free && !elsewhere(&path), "{path}");
        }
    }

    #[test]
    fn many_differences_are_counted() {
        let sets = [
            "data.ladders=8",
            "data.friction=1",
            "data.t_max=900",
            "data.temperatures=3",
            "seed=4",
        ];
        let made = Stage::Data.settings(&config(&[]));
        let found = differences(&made, Stage::Data, &config(&sets));
        assert_eq!(
            words(&found),
            "data.friction 2.0 where config.toml has 1.0, data.ladders 5 where config.toml has 8, data.t_max 1200.0 where config.toml has 900.0 and 2 more such settings"
        );
    }
}
