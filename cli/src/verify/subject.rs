//! What is verified: a flow map with the schedule it is deployed on, read from a run directory or a checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use boltzmap_models::checkpoint::Checkpoint;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::NetworkConfig;
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_objectives::method::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::target::Weigher;
use crate::config::Config;
use crate::pipeline::model::{AVERAGE_PREFIX, calibrated_head, schedule};
use crate::pipeline::train::method;
use crate::run_dir::RunDir;

/// What tells the likelihood that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reporter {
    /// The divergence head.
    Head,
    /// log|det| of every step, in single precision.
    Determinant,
    /// The continuous flow, integrated with the exact trace in single precision.
    Ode,
}

impl Reporter {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Reporter::Head => "head",
            Reporter::Determinant => "determinant",
            Reporter::Ode => "ODE",
        }
    }

    /// As the subject of a sentence.
    pub fn subject(self) -> &'static str {
        match self {
            Reporter::Head => "the head",
            Reporter::Determinant => "the determinant in single precision",
            Reporter::Ode => "the integrated divergence",
        }
    }
}

/// A flow map and how it is deployed.
pub struct Model {
    /// The map.
    pub map: FlowMap,
    /// The parameters that samples are drawn with.
    pub parameters: Parameters<f32>,
    /// Parameters of a divergence head of its own, where there is one.
    pub head: Option<Parameters<f32>>,
    /// The deployed times.
    pub schedule: Schedule,
    /// What reports its likelihood.
    pub reporter: Reporter,
    /// Whether training ever asked the network for steps with t < s.
    pub trained_backwards: bool,
}

/// A model from a file.
pub struct Subject {
    /// The checkpoint file.
    pub checkpoint: PathBuf,
    /// Directory in which results are written unless another is asked for.
    pub home: PathBuf,
    /// The model.
    pub model: Model,
    /// Steps of training, where the checkpoint tells.
    pub training_steps: Option<u64>,
    /// What is not as it should be with the training, where the checkpoint tells.
    pub unfinished: Option<String>,
    /// The target, where the run or the checkpoint names one.
    pub target: Option<Weigher>,
    /// Configuration of the run, where there is one and no times were given.
    config: Option<Config>,
}

impl Subject {
    /// Reads a run directory, or a checkpoint with the config.toml beside it or with explicit `times`.
    ///
    /// # Errors
    /// If there is no such file, it is no checkpoint of a flow map, or nothing tells the deployed times.
    pub fn read(path: &Path, times: &[f64]) -> Result<Subject> {
        ensure!(
            path.exists(),
            "there is no checkpoint or run directory {}",
            path.display()
        );
        let (checkpoint, home, config) = if path.is_dir() {
            let (run, config) = RunDir::open(path)?;
            ensure!(
                run.checkpoint().exists(),
                "{} does not exist; make it with 'boltzmap train {}'",
                run.checkpoint().display(),
                path.display()
            );
            (run.checkpoint(), path.to_owned(), Some(config))
        } else {
            let home = path.parent().unwrap_or(Path::new("")).to_owned();
            let beside = home.join("config.toml");
            let config = if beside.exists() {
                Some(Config::read(&beside)?)
            } else {
                None
            };
            (path.to_owned(), home, config)
        };
        let held = Checkpoint::read(&checkpoint)?;
        let map_config = flow_map_config(&held.metadata, &checkpoint)?;
        let map = FlowMap::new(&map_config)
            .with_context(|| format!("cannot use {}", checkpoint.display()))?;
        let parameters = held
            .parameters(AVERAGE_PREFIX, map.layout())
            .with_context(|| format!("cannot use {}", checkpoint.display()))?;
        let head = calibrated_head(&held, &map)
            .with_context(|| format!("cannot use {}", checkpoint.display()))?;
        let (reporter, trained_backwards) =
            training(config.as_ref(), &held.metadata, head.is_some());
        ensure!(
            reporter != Reporter::Ode,
            "{} was trained by flow matching alone: its samples are those of the continuous flow, whose log q is an integral and \
             no report of the map; 'boltzmap verify --suite analytic --methods flow_matching' measures that integral",
            checkpoint.display()
        );
        let schedule = match (&config, times) {
            (_, [_, ..]) => Schedule::explicit(times.to_vec()).context("--times is no schedule")?,
            (Some(config), []) => schedule(config)?,
            (None, []) if !held_times(&held.metadata).is_empty() => {
                Schedule::explicit(held_times(&held.metadata))
                    .with_context(|| format!("cannot use {}", checkpoint.display()))?
            }
            (None, []) => bail!(
                "nothing tells the times at which {} is deployed, for no config.toml lies beside it; give them, as in --times \
                 0,0.4,0.8,0.99",
                checkpoint.display()
            ),
        };
        ensure!(
            schedule.epsilon() > 0.0,
            "the schedule ends at t = 1, where log-determinants diverge; end it at 1 − ε, such as 0.99"
        );
        let epsilon = schedule.epsilon();
        let target = Weigher::of(&held, &checkpoint, config.as_ref(), epsilon)?;
        Ok(Subject {
            checkpoint,
            home,
            model: Model {
                map,
                parameters,
                head,
                schedule,
                reporter,
                trained_backwards,
            },
            training_steps: held.metadata.get("step").and_then(Value::as_u64),
            unfinished: unfinished(&held.metadata, config.as_ref()),
            target,
            config: if times.is_empty() { config } else { None },
        })
    }

    /// The schedule with another number of steps: of the same kind where the configuration names it, otherwise with the
    /// deployed times interpolated.
    pub fn respaced(&self, steps: usize) -> Result<Schedule> {
        if let Some(config) = &self.config {
            let mut config = config.clone();
            config.sampling.steps = steps;
            return schedule(&config);
        }
        Ok(interpolated(&self.model.schedule, steps)?)
    }

    /// The network and its size, in words.
    pub fn describe(&self) -> String {
        let map = &self.model.map;
        let (tokens, channels) = (map.tokens(), map.channels());
        let network = match map.config().network {
            NetworkConfig::Dit(c) => {
                format!("transformer of {} layers, {} wide", c.layers, c.width)
            }
            NetworkConfig::Mlp(c) => format!("perceptron of {} blocks, {} wide", c.blocks, c.width),
            NetworkConfig::Egnn(c) => format!("EGNN of {} layers, {} wide", c.layers, c.width),
        };
        format!("{network}, states of {tokens} × {channels}")
    }
}

/// Whether the training diverged after the checkpoint was written, or has steps to go.
fn unfinished(metadata: &Value, config: Option<&Config>) -> Option<String> {
    if let Some(guidance) = config
        .map(|config| config.sampling.guidance)
        .filter(|eta| *eta != 0.0)
    {
        return Some(format!(
            "this is of the map without guidance; the run's samples have sampling.guidance = {guidance}, under which no head reports anything"
        ));
    }
    let step = metadata.get("step").and_then(Value::as_u64)?;
    if metadata
        .get("diverged")
        .is_some_and(|found| !found.is_null())
    {
        return Some(format!(
            "the training diverged; this is the last good checkpoint, of step {step}"
        ));
    }
    let steps = config?.training.steps as u64;
    (step < steps).then(|| {
        format!("the training is not finished: this is step {step} of {steps}, and what it becomes may be judged otherwise")
    })
}

/// What reports the likelihood, and whether training went backwards: by the configuration's method, or as the metadata of a
/// checkpoint without one say.
fn training(config: Option<&Config>, metadata: &Value, own_head: bool) -> (Reporter, bool) {
    let held: Option<Reporter> = metadata
        .get("reporter")
        .and_then(|value| serde_json::from_value(value.clone()).ok());
    let backwards = metadata.get("trained_backwards").and_then(Value::as_bool);
    let (reporter, trained_backwards) = match config {
        Some(config) => reporting(&method(config)),
        None => (
            held.unwrap_or(Reporter::Head),
            backwards.unwrap_or_default(),
        ),
    };
    let reporter = if own_head { Reporter::Head } else { reporter };
    (reporter, trained_backwards)
}

/// What reports the likelihood of a method, and whether it trains the network backwards.
pub fn reporting(method: &Method) -> (Reporter, bool) {
    let reporter = if method.is_continuous() {
        Reporter::Ode
    } else if method.has_head() {
        Reporter::Head
    } else {
        Reporter::Determinant
    };
    (reporter, matches!(method, Method::Falcon { .. }))
}

/// The deployed times in a checkpoint's metadata; none in those of a run, whose configuration has them.
fn held_times(metadata: &Value) -> Vec<f64> {
    metadata
        .get("times")
        .and_then(Value::as_array)
        .map(|times| times.iter().filter_map(Value::as_f64).collect())
        .unwrap_or_default()
}

/// The configuration of the flow map that a checkpoint's metadata hold.
fn flow_map_config(metadata: &Value, path: &Path) -> Result<FlowMapConfig> {
    let Some(value) = metadata.get("flow_map") else {
        bail!(
            "{} holds no flow map, so there is no likelihood of one to verify; give a checkpoint that 'boltzmap train' wrote",
            path.display()
        );
    };
    serde_json::from_value(value.clone()).with_context(|| {
        format!(
            "the flow map of {} is of a kind that this version does not know; train again",
            path.display()
        )
    })
}

/// Times at equal distances along the index of a schedule's times, linear between them.
fn interpolated(
    schedule: &Schedule,
    steps: usize,
) -> Result<Schedule, boltzmap_models::ModelError> {
    let times = schedule.times();
    let last = schedule.steps();
    Schedule::explicit(
        (0..=steps)
            .map(|k| {
                let place = (k * last) as f64 / steps.max(1) as f64;
                let below = (place as usize).min(last - 1);
                times[below] + (place - below as f64) * (times[below + 1] - times[below])
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolated_schedules_pass_through_the_given_times() {
        let schedule = Schedule::explicit(vec![0.0, 0.5, 0.8, 0.99]).unwrap();
        assert_eq!(
            interpolated(&schedule, 1).unwrap().times(),
            &[0.0, 0.99][..]
        );
        let twice = interpolated(&schedule, 6).unwrap();
        for (k, expected) in [0.0, 0.25, 0.5, 0.65, 0.8, 0.895, 0.99].iter().enumerate() {
            assert!((twice.times()[k] - expected).abs() < 1e-15);
        }
    }
}
