//! The workloads: networks, batches and the numbers that every side is given.

use anyhow::{Context, Result};
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_models::checkpoint::{Checkpoint, Tensor};
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{DitConfig, MlpConfig, NetworkConfig, TarFlowBlock, TarFlowConfig};
use boltzmap_models::parameters::{ParameterLayout, Parameters};
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::optimizer::AdamWConfig;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The map and its log-determinant.
    Forward,
    /// Loss, gradient, clipping, AdamW and moving average.
    TrainingStep,
    /// The map along one tangent in x and t.
    Jvp,
    /// A training step of the Lagrangian loss: reverse mode through a derivative in t.
    LagrangianStep,
    /// The exact trace of the velocity's Jacobian.
    Divergence,
    /// The map's full Jacobian and log|det|.
    LogDet,
    /// Hutchinson's estimate of the velocity's divergence.
    Hutchinson,
}

impl Task {
    /// Name on the command line and in files.
    pub fn name(self) -> String {
        self.to_possible_value()
            .expect("no task is hidden")
            .get_name()
            .to_owned()
    }
}

/// Samples per block of our side. Results depend on them only by rounding.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Forward pass and JVP.
    pub forward: usize,
    /// Training step.
    pub training: usize,
    /// Lagrangian step.
    pub lagrangian: usize,
    /// Tasks that carry many tangents.
    pub jacobian: usize,
    /// Samples that carry probes together.
    pub hutchinson: usize,
    /// Tangents at a time in these.
    pub tangents: usize,
}

/// The network of a workload.
#[derive(Clone, Debug)]
pub enum Model {
    /// A flow map with its network.
    FlowMap(FlowMap),
    /// One block of an autoregressive flow.
    TarFlow(TarFlowBlock),
}

/// One workload.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for people.
    pub title: String,
    /// The network.
    pub model: Model,
    /// Samples in forward, jvp and the training steps.
    pub batch: usize,
    /// Samples in divergence, log-det and Hutchinson.
    pub jacobian_samples: usize,
    /// Probes of Hutchinson's estimate.
    pub probes: usize,
    /// Block sizes of our side.
    pub blocks: Blocks,
    /// Tasks that make sense.
    pub tasks: Vec<Task>,
}

/// Names of the workloads that run by default, in order.
pub const NAMES: [&str; 4] = ["dit-128", "dit-256", "mlp-512", "tarflow-256"];
/// A workload of milliseconds, to try the command.
pub const TINY: &str = "tiny";

/// The optimiser of every training step.
pub const OPTIMIZER: AdamWConfig = AdamWConfig {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.01,
    clip_norm: 1.0,
    ema_decay: 0.999,
};
/// Its learning rate.
pub const LEARNING_RATE: f64 = 1e-4;
/// Optimiser steps whose losses and gradient norms are compared before a training step is timed.
pub const COMPARED_STEPS: usize = 3;

/// Standard deviation of what is added to every start value, so that zero-initialised gates and heads take part.
const PERTURBATION: f64 = 0.05;
/// Domains of the random streams.
const PARAMETER_DOMAIN: u64 = domain::BENCH_PARAMETERS;
const INPUT_DOMAIN: u64 = domain::BENCH_INPUTS;
/// Largest time: the data end of the maps that are trained.
const LAST_TIME: f64 = 0.99;

fn flow_map(network: NetworkConfig) -> Result<Model> {
    let config = FlowMapConfig {
        subspace: Subspace::Full,
        network,
    };
    Ok(Model::FlowMap(FlowMap::new(&config)?))
}

fn dit(tokens: usize, width: usize, layers: usize, heads: usize) -> Result<Model> {
    flow_map(NetworkConfig::Dit(DitConfig {
        tokens,
        channels: 3,
        width,
        layers,
        heads,
        mlp_ratio: 4,
        conditioning_width: width,
        time_frequencies: 5,
    }))
}

fn mlp(width: usize, blocks: usize) -> Result<Model> {
    flow_map(NetworkConfig::Mlp(MlpConfig {
        tokens: 1,
        channels: 2,
        width,
        blocks,
        conditioning_width: width.min(128),
        time_frequencies: 5,
    }))
}

impl Workload {
    /// The workload of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self> {
        let all = vec![
            Task::Forward,
            Task::TrainingStep,
            Task::Jvp,
            Task::LagrangianStep,
            Task::Divergence,
            Task::LogDet,
            Task::Hutchinson,
        ];
        let blocks = Blocks {
            forward: 16,
            training: 32,
            lagrangian: 16,
            jacobian: 1,
            hutchinson: 4,
            tangents: 18,
        };
        Ok(match name {
            "dit-128" => Workload {
                name: "dit-128",
                title: "DiT 128 wide, 4 layers, 4 heads, 22 tokens of 3 channels".into(),
                model: dit(22, 128, 4, 4)?,
                batch: 256,
                jacobian_samples: 64,
                probes: 4,
                blocks,
                tasks: all,
            },
            "dit-256" => Workload {
                name: "dit-256",
                title: "DiT 256 wide, 6 layers, 8 heads, 63 tokens of 3 channels".into(),
                model: dit(63, 256, 6, 8)?,
                batch: 64,
                jacobian_samples: 8,
                probes: 4,
                blocks: Blocks {
                    forward: 4,
                    training: 4,
                    lagrangian: 2,
                    jacobian: 1,
                    hutchinson: 1,
                    tangents: 21,
                },
                tasks: all,
            },
            "mlp-512" => Workload {
                name: "mlp-512",
                title: "residual MLP of 4 blocks 512 wide, states of 2 numbers".into(),
                model: mlp(512, 4)?,
                batch: 4096,
                jacobian_samples: 4096,
                probes: 1,
                blocks: Blocks {
                    forward: 256,
                    training: 256,
                    lagrangian: 128,
                    jacobian: 128,
                    hutchinson: 128,
                    tangents: 2,
                },
                // In two dimensions the exact divergence costs what two probes cost.
                tasks: all
                    .into_iter()
                    .filter(|task| *task != Task::Hutchinson)
                    .collect(),
            },
            "tarflow-256" => Workload {
                name: "tarflow-256",
                title: "causal TarFlow block 256 wide, 6 layers, 4 heads, 33 tokens of 3 channels"
                    .into(),
                model: Model::TarFlow(TarFlowBlock::new(TarFlowConfig {
                    tokens: 33,
                    channels: 3,
                    width: 256,
                    layers: 6,
                    heads: 4,
                    mlp_ratio: 4,
                    reversed: false,
                })?),
                batch: 64,
                jacobian_samples: 64,
                probes: 1,
                blocks: Blocks {
                    forward: 8,
                    training: 8,
                    lagrangian: 8,
                    jacobian: 2,
                    hutchinson: 2,
                    tangents: 11,
                },
                // Its log-determinant is exact in the forward pass.
                tasks: vec![Task::Forward, Task::TrainingStep, Task::Jvp],
            },
            TINY => Workload {
                name: TINY,
                title: "residual MLP of 1 block 16 wide, states of 2 numbers, to try the command"
                    .into(),
                model: mlp(16, 1)?,
                batch: 8,
                jacobian_samples: 4,
                probes: 2,
                blocks: Blocks {
                    forward: 4,
                    training: 4,
                    lagrangian: 4,
                    jacobian: 2,
                    hutchinson: 2,
                    tangents: 2,
                },
                tasks: all,
            },
            other => anyhow::bail!(
                "there is no workload '{other}'; choose among {} and {TINY}",
                NAMES.join(", ")
            ),
        })
    }

    /// Order, names and shapes of the parameters.
    pub fn layout(&self) -> &ParameterLayout {
        match &self.model {
            Model::FlowMap(map) => map.layout(),
            Model::TarFlow(block) => block.layout(),
        }
    }

    /// Tokens and channels of a state.
    pub fn state(&self) -> (usize, usize) {
        match &self.model {
            Model::FlowMap(map) => (map.tokens(), map.channels()),
            Model::TarFlow(block) => (block.config().tokens, block.config().channels),
        }
    }

    /// Samples that a task works on.
    pub fn samples(&self, task: Task) -> usize {
        match task {
            Task::Divergence | Task::LogDet | Task::Hutchinson => self.jacobian_samples,
            _ => self.batch,
        }
    }

    /// The parameters every side starts from.
    pub fn parameters(&self) -> Parameters<f32> {
        let mut parameters = Parameters::<f32>::initialize(self.layout(), 1);
        let mut noise = vec![0.0f32; parameters.flat().len()];
        Stream::new(1, PARAMETER_DOMAIN, 0).fill_standard_normal(&mut noise);
        for (value, noise) in parameters.flat_mut().iter_mut().zip(noise) {
            *value += PERTURBATION as f32 * noise;
        }
        parameters
    }

    /// The inputs every side is given.
    pub fn inputs(&self) -> Inputs {
        let (tokens, channels) = self.state();
        let size = tokens * channels;
        let batch = self.batch.max(self.jacobian_samples);
        let normals = |index: u64, count: usize| {
            let mut values = vec![0.0f32; count];
            Stream::new(1, INPUT_DOMAIN, index).fill_standard_normal(&mut values);
            values
        };
        let mut times = Stream::new(1, INPUT_DOMAIN, 100);
        let mut start = Vec::with_capacity(batch);
        let mut end = Vec::with_capacity(batch);
        for _ in 0..batch {
            let (a, b) = (times.uniform() * LAST_TIME, times.uniform() * LAST_TIME);
            start.push(a.min(b) as f32);
            end.push(a.max(b) as f32);
        }
        // ±1 with equal probability.
        let mut signs = Stream::new(1, INPUT_DOMAIN, 101);
        let probes = (0..self.probes * self.jacobian_samples * size)
            .map(|_| if signs.uniform() < 0.5 { -1.0 } else { 1.0 })
            .collect();
        Inputs {
            batch,
            size,
            x: normals(0, batch * size),
            d_x: normals(1, batch * size),
            d_t: normals(2, batch),
            noise: normals(3, batch * size),
            start,
            end,
            probes,
        }
    }

    /// The description that baselines read.
    pub fn specification(&self, threads: usize, arrays: &std::path::Path) -> serde_json::Value {
        let model = match &self.model {
            Model::FlowMap(map) => {
                serde_json::to_value(map.config().network).expect("sizes are plain JSON")
            }
            Model::TarFlow(block) => {
                let mut sizes = serde_json::to_value(block.config()).expect("sizes are plain JSON");
                sizes["kind"] = json!("tarflow");
                sizes
            }
        };
        let names: Vec<&str> = self
            .layout()
            .specs()
            .iter()
            .map(|spec| spec.name.as_str())
            .collect();
        json!({
            "workload": self.name,
            "arrays": arrays,
            "parameter_names": names,
            "model": model,
            "batch": self.batch,
            "jacobian_samples": self.jacobian_samples,
            "probes": self.probes,
            "threads": threads,
            "optimizer": OPTIMIZER,
            "learning_rate": LEARNING_RATE,
            "compared_steps": COMPARED_STEPS,
        })
    }

    /// Weights and inputs as one file that baselines read.
    pub fn write_arrays(&self, inputs: &Inputs, path: &std::path::Path) -> Result<()> {
        let (tokens, channels) = self.state();
        let mut file = Checkpoint::new(json!({ "workload": self.name }));
        file.insert_parameters("parameters/", &self.parameters());
        let states = [inputs.batch, tokens, channels];
        let probes = [self.probes, self.jacobian_samples, tokens, channels];
        let arrays: [(&str, &[usize], &[f32]); 7] = [
            ("x", &states, &inputs.x),
            ("d_x", &states, &inputs.d_x),
            ("noise", &states, &inputs.noise),
            ("s", &[inputs.batch], &inputs.start),
            ("t", &[inputs.batch], &inputs.end),
            ("d_t", &[inputs.batch], &inputs.d_t),
            ("probes", &probes, &inputs.probes),
        ];
        for (name, shape, values) in arrays {
            let tensor = Tensor {
                shape: shape.to_vec(),
                values: values.to_vec(),
            };
            file.tensors.insert(format!("inputs/{name}"), tensor);
        }
        file.write(path)
            .with_context(|| format!("cannot hand the arrays of {} to the baselines", self.name))
    }
}

/// The numbers a workload's tasks start from; the first samples of the batch where a task uses fewer.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Samples.
    pub batch: usize,
    /// T·C.
    pub size: usize,
    /// States, and the data of the losses `[B, T, C]`.
    pub x: Vec<f32>,
    /// Tangent of the states `[B, T, C]`.
    pub d_x: Vec<f32>,
    /// Tangent of the end times `[B]`.
    pub d_t: Vec<f32>,
    /// Noise of the losses `[B, T, C]`.
    pub noise: Vec<f32>,
    /// Start times `[B]`.
    pub start: Vec<f32>,
    /// End times, and the times of the diagonal `[B]`.
    pub end: Vec<f32>,
    /// Probes `[P, n, T, C]` of ±1.
    pub probes: Vec<f32>,
}

/// The first `samples` of an array with `per_sample` numbers each.
pub fn first(values: &[f32], samples: usize, per_sample: usize) -> &[f32] {
    &values[..samples * per_sample]
}
