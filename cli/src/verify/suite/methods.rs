//! The methods of the suite and their training on a target: the pipeline's own trainer with the pipeline's own settings,
//! on a small perceptron.

use std::time::Instant;

use anyhow::{Result, bail};
use boltzmap_models::checkpoint::Checkpoint;
use boltzmap_models::control::Control;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::parameters::Parameters;
use boltzmap_objectives::calibration::Calibration;
use boltzmap_objectives::divergence::DivergenceWatch;
use boltzmap_objectives::optimizer::AdamW;
use boltzmap_objectives::targets::{AnalyticTarget, TargetSource};
use boltzmap_objectives::trainer::{LEADING_LOSS, Trainer};

use super::super::Watch;
use super::super::subject::{Model, reporting};
use super::Budget;
use crate::args::ConfigArguments;
use crate::config::Config;
use crate::pipeline::model::{AVERAGE_PREFIX, HEAD_PREFIX, schedule};
use crate::pipeline::train;
use crate::progress;

/// A method by name, with the settings that choose it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// As on the command line.
    pub name: &'static str,
    /// Assignments to the configuration, as with --set.
    pub(super) settings: &'static [&'static str],
    /// Whether a head of its own is fitted to the exact determinants afterwards.
    calibrated: bool,
}

const fn method(name: &'static str, settings: &'static [&'static str]) -> Method {
    Method {
        name,
        settings,
        calibrated: false,
    }
}

/// All methods.
pub const METHODS: [Method; 9] = [
    method("scallop", &["training.method=scallop"]),
    Method {
        name: "scallop_calibrated",
        settings: &["training.method=scallop"],
        calibrated: true,
    },
    method("scallop_scalar", &["training.method=scallop_scalar"]),
    method(
        "f2d2_shortcut",
        &[
            "training.method=f2d2",
            "training.f2d2_instantiation=shortcut",
        ],
    ),
    method(
        "f2d2_mean_flow",
        &[
            "training.method=f2d2",
            "training.f2d2_instantiation=mean_flow",
        ],
    ),
    method(
        "f2d2_distilled",
        &[
            "training.method=f2d2",
            "training.f2d2_instantiation=distilled",
        ],
    ),
    method(
        "f2d2_lagrangian",
        &[
            "training.method=f2d2",
            "training.f2d2_instantiation=lagrangian",
        ],
    ),
    method("falcon", &["training.method=falcon"]),
    method("flow_matching", &["training.method=flow_matching"]),
];

/// A trained map.
pub struct Trained {
    /// The model as it is deployed.
    pub model: Model,
    /// Error allowed per step of the continuous flow, where it is deployed.
    pub tolerance: f64,
    /// Wall-clock seconds of the training.
    pub seconds: f64,
}

impl Method {
    /// The method of a name.
    pub fn named(name: &str) -> Option<Method> {
        METHODS.into_iter().find(|method| method.name == name)
    }

    /// The pipeline's configuration with the budget's sizes and the method's settings.
    pub fn config(&self, budget: &Budget, seed: u64) -> Result<Config> {
        let mut set = vec![
            "network.kind=mlp".to_owned(),
            format!("network.width={}", budget.width),
            format!("network.layers={}", budget.blocks),
            format!("training.steps={}", budget.training_steps),
            format!("training.batch={}", budget.batch),
            format!("training.warmup={}", budget.training_steps / 20),
            format!("training.learning_rate={:?}", budget.learning_rate),
            format!("training.ema={:?}", budget.moving_average),
            format!("sampling.steps={}", budget.steps),
        ];
        if self.calibrated {
            set.push(format!("calibration.steps={}", budget.calibration_steps));
            set.push(format!(
                "calibration.learning_rate={:?}",
                budget.learning_rate
            ));
            set.push(format!("calibration.trajectories={}", budget.samples));
        }
        set.extend(self.settings.iter().map(|&setting| setting.to_owned()));
        Config::resolve(&ConfigArguments {
            source: None,
            set,
            seed: Some(seed),
        })
    }

    /// Trains on fresh samples of a target. A training that only lacks the calibration is taken from `before`.
    ///
    /// # Errors
    /// If Ctrl-C was pressed, the training or the calibration diverges, or a determinant of the calibration is not finite.
    pub fn train(
        &self,
        target: &AnalyticTarget,
        name: &str,
        budget: &Budget,
        seed: u64,
        before: &[(Method, Trained)],
    ) -> Result<Trained> {
        let start = Instant::now();
        let config = self.config(budget, seed)?;
        let (reporter, trained_backwards) = reporting(&train::method(&config));
        let same = before
            .iter()
            .find(|(method, _)| method.settings == self.settings && !method.calibrated);
        let (map, parameters, earlier) = match same {
            Some((_, trained)) => {
                let model = &trained.model;
                (model.map.clone(), model.parameters.clone(), trained.seconds)
            }
            None => {
                let map = perceptron(target.dimension(), &config)?;
                let parameters = fit(&map, &config, target, &format!("{name} {}", self.name))?;
                (map, parameters, 0.0)
            }
        };
        let schedule = schedule(&config)?;
        let head = if self.calibrated {
            let settings = train::calibration_config(&config);
            let control = Control {
                progress: None,
                cancel: Some(progress::interrupt_flag()),
            };
            let calibration = Calibration::new(&map, &parameters, &schedule, settings, &control)?;
            let (head, _) = calibration.run(&control, |_, _, _| ())?;
            Some(head)
        } else {
            None
        };
        Ok(Trained {
            model: Model {
                map,
                parameters,
                head,
                schedule,
                reporter,
                trained_backwards,
            },
            tolerance: config.sampling.tolerance,
            seconds: earlier + start.elapsed().as_secs_f64(),
        })
    }
}

/// The moving average of a training on fresh samples.
fn fit(
    map: &FlowMap,
    config: &Config,
    target: &AnalyticTarget,
    part: &str,
) -> Result<Parameters<f32>> {
    let settings = train::trainer_config(config)?;
    let initial = Parameters::<f32>::initialize(map.layout(), config.seed);
    let optimizer = AdamW::new(settings.optimizer, initial.flat());
    let mut trainer = Trainer::new(map, initial, optimizer, settings)?;
    let source = TargetSource {
        target: target.clone(),
    };
    let steps = config.training.steps;
    let mut watch = Watch::new(part, steps);
    let mut divergence = DivergenceWatch::new(LEADING_LOSS);
    while trainer.next_step() < steps as u64 {
        let metrics = trainer.step(&source);
        if let Some(found) = divergence.observe(metrics.observed()) {
            bail!("{}", train::diverged(&found, config));
        }
        watch.add(1)?;
    }
    watch.finish();
    Ok(Parameters::from_flat(
        map.layout(),
        trainer.optimizer.average.clone(),
    )?)
}

/// A perceptron's flow map on plain vectors.
pub fn perceptron(dimension: usize, config: &Config) -> Result<FlowMap> {
    let (width, blocks) = (config.network.width, config.network.layers);
    Ok(FlowMap::new(&FlowMapConfig::perceptron(
        dimension, width, blocks,
    ))?)
}

impl Trained {
    /// A checkpoint that `boltzmap verify` reads, with what it needs to know in the metadata.
    pub fn checkpoint(&self, method: &str, target: &str, steps: usize) -> Result<Checkpoint> {
        let model = &self.model;
        let mut checkpoint = Checkpoint::new(serde_json::json!({
            "flow_map": serde_json::to_value(model.map.config())?,
            "times": model.schedule.times(),
            "reporter": serde_json::to_value(model.reporter)?,
            "trained_backwards": model.trained_backwards,
            "method": method,
            "target": target,
            "step": steps,
        }));
        checkpoint.insert_parameters(AVERAGE_PREFIX, &model.parameters);
        if let Some(head) = &model.head {
            checkpoint.insert_parameters(HEAD_PREFIX, head);
        }
        Ok(checkpoint)
    }
}
