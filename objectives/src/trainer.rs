//! One training step: draw data, noise and times from counter-based streams, run the two loss programs over blocks of
//! the batch, and update.
//!
//! The random numbers of step k and sample i come from the stream (seed, domain, k·batch + i) and from nothing else,
//! so a training resumed from parameters, optimiser state and k continues bit for bit.

use boltzmap_autodiff::exec::{Batched, InputRole, OutputRole};
use boltzmap_autodiff::grad;
use boltzmap_autodiff::ir::Program;
use boltzmap_kernels::elementwise::axpy;
use boltzmap_kernels::random::Stream;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::{ParameterLayout, Parameters};
use boltzmap_models::subspace::Subspace;
use rayon::prelude::*;

use crate::losses::{
    ConsistencyWeights, DiagonalWeights, LossShape, StopGradient, corrections_program,
    diagonal_loss, lagrangian_loss,
};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::schedule::WarmupCosine;
use crate::times::{PairDistribution, TimeDistribution};

/// Stream domain of the training's random numbers.
const DOMAIN_TRAINING: u64 = 0x7472_6169_6e00;

/// Whose diagonal the consistency terms aim at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teacher {
    /// The network being trained.
    Online,
    /// Its moving average.
    MovingAverage,
}

/// Everything a training step needs to know.
#[derive(Clone, Debug)]
pub struct TrainerConfig {
    /// Seed of every random number.
    pub seed: u64,
    /// Samples in one block; both batch sizes are multiples of it.
    pub block: usize,
    /// Samples per step for the diagonal terms.
    pub diagonal_batch: usize,
    /// Samples per step for the consistency terms.
    pub consistency_batch: usize,
    /// Weights of the diagonal terms.
    pub diagonal_weights: DiagonalWeights,
    /// Weights of the consistency terms.
    pub consistency_weights: ConsistencyWeights,
    /// Stop-gradient choice of the consistency terms.
    pub stop_gradient: StopGradient,
    /// Whose diagonal the consistency terms aim at.
    pub teacher: Teacher,
    /// First step that trains the consistency terms: a target that is still noise teaches nothing.
    pub consistency_from: u64,
    /// Times of the diagonal terms.
    pub times: TimeDistribution,
    /// Times of the consistency terms.
    pub pairs: PairDistribution,
    /// Learning rate over the steps.
    pub learning_rate: WarmupCosine,
    /// Optimiser constants.
    pub optimizer: AdamWConfig,
}

/// Where training states come from: frame `index` of `len`, written as tokens × channels numbers. The stream serves
/// augmentation.
pub trait DataSource: Sync {
    /// Number of frames.
    fn len(&self) -> usize;
    /// True where there is no frame.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Writes one frame.
    fn write(&self, index: usize, stream: &mut Stream, state: &mut [f32]);
}

/// Means over the batch of the loss and its parts; consistency parts are 0 before they are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// Step, counted from 0.
    pub step: u64,
    /// Flow matching, mean square per coordinate.
    pub flow_matching: f64,
    /// Variance form of SCALLOP.
    pub divergence: f64,
    /// Lagrangian condition of the map.
    pub map_consistency: f64,
    /// Lagrangian condition of the log-determinant.
    pub divergence_consistency: f64,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate used.
    pub learning_rate: f64,
    /// False where the gradient was not finite and the step was skipped.
    pub applied: bool,
}

/// A loss and its gradient as an executable over blocks.
struct LossProgram {
    batched: Batched<f32>,
    /// Host buffers of the batched inputs, in input order.
    states: [Vec<f32>; 2],
    times: Vec<Vec<f32>>,
    batch: usize,
}

/// The training in progress.
pub struct Trainer {
    config: TrainerConfig,
    subspace: Subspace,
    tokens: usize,
    channels: usize,
    /// Parameters being trained.
    pub parameters: Parameters<f32>,
    /// Optimiser state and moving average.
    pub optimizer: AdamW,
    diagonal: LossProgram,
    consistency: Option<LossProgram>,
    gradients: Vec<f32>,
    scratch: Vec<f32>,
    /// Steps whose gradient was not finite.
    pub skipped: u64,
}

impl LossProgram {
    /// Compiles value and gradient of `program`. `states` and `times` are its per-block inputs, the rest is shared.
    fn new(
        program: &Program,
        parameters: usize,
        shared: usize,
        times: usize,
        batch: usize,
        state: usize,
    ) -> Self {
        let wrt: Vec<usize> = (0..parameters).collect();
        let gradient = grad(program, &wrt);
        let mut inputs = vec![InputRole::Shared; shared];
        inputs.extend(vec![InputRole::PerBlock { axis: 0 }; 2 + times]);
        let outputs = vec![OutputRole::Summed; gradient.outputs.len()];
        Self {
            batched: Batched::compile(&gradient, inputs, outputs),
            states: [vec![0.0; batch * state], vec![0.0; batch * state]],
            times: vec![vec![0.0; batch]; times],
            batch,
        }
    }

    /// Runs the batch; the three sums come back, the gradient goes to `gradients` in parameter order.
    fn run(
        &mut self,
        shared: &[&[f32]],
        layout: &ParameterLayout,
        gradients: &mut [f32],
    ) -> [f64; 3] {
        let mut sums = [[0.0f32; 1]; 3];
        {
            let mut inputs = shared.to_vec();
            inputs.extend(self.states.iter().map(|s| s.as_slice()));
            inputs.extend(self.times.iter().map(|t| t.as_slice()));
            let mut outputs: Vec<&mut [f32]> = sums.iter_mut().map(|s| s.as_mut_slice()).collect();
            let mut rest = gradients;
            for i in 0..layout.count() {
                let (head, tail) = rest.split_at_mut(layout.range(i).len());
                outputs.push(head);
                rest = tail;
            }
            self.batched.run(self.batch, &inputs, &mut outputs);
        }
        sums.map(|s| s[0] as f64)
    }
}

impl Trainer {
    /// Traces, differentiates and plans both loss programs for a flow map.
    pub fn new(
        flow_map: &FlowMap,
        parameters: Parameters<f32>,
        optimizer: AdamW,
        config: TrainerConfig,
    ) -> Self {
        let (tokens, channels) = (flow_map.tokens(), flow_map.channels());
        let corrections = corrections_program(flow_map, config.block);
        let shape = LossShape {
            block: config.block,
            tokens,
            channels,
            kappa: flow_map.share(),
        };
        let count = parameters.layout().count();
        let diagonal = LossProgram::new(
            &diagonal_loss(&corrections, shape, config.diagonal_weights),
            count,
            count,
            1,
            config.diagonal_batch,
            tokens * channels,
        );
        let consistency = (config.consistency_batch > 0).then(|| {
            LossProgram::new(
                &lagrangian_loss(
                    &corrections,
                    shape,
                    config.consistency_weights,
                    config.stop_gradient,
                ),
                count,
                2 * count,
                2,
                config.consistency_batch,
                tokens * channels,
            )
        });
        let total = parameters.flat().len();
        Self {
            subspace: flow_map.subspace(),
            tokens,
            channels,
            parameters,
            optimizer,
            diagonal,
            consistency,
            gradients: vec![0.0; total],
            scratch: vec![0.0; total],
            skipped: 0,
            config,
        }
    }

    /// Fills the states and times of one loss program from counter-based streams, in parallel over samples.
    fn draw(&mut self, source: &dyn DataSource, step: u64) {
        let size = self.tokens * self.channels;
        let batch_total = (self.config.diagonal_batch + self.config.consistency_batch) as u64;
        let (seed, subspace) = (self.config.seed, self.subspace);
        let (tokens, channels) = (self.tokens, self.channels);
        let draw_state = |sample: u64, data: &mut [f32], noise: &mut [f32]| {
            let mut stream = Stream::new(seed, DOMAIN_TRAINING, step * batch_total + sample);
            let index = (stream.uniform() * source.len() as f64) as usize;
            source.write(index.min(source.len() - 1), &mut stream, data);
            stream.fill_standard_normal(noise);
            subspace.project_states(noise, tokens, channels);
            stream
        };
        let [data, noise] = &mut self.diagonal.states;
        let times = self.config.times;
        data.par_chunks_mut(size)
            .zip(noise.par_chunks_mut(size))
            .zip(self.diagonal.times[0].par_iter_mut())
            .enumerate()
            .for_each(|(i, ((data, noise), t))| {
                let mut stream = draw_state(i as u64, data, noise);
                *t = times.draw(&mut stream) as f32;
            });
        let Some(consistency) = &mut self.consistency else {
            return;
        };
        let offset = self.config.diagonal_batch as u64;
        let pairs = &self.config.pairs;
        let [data, noise] = &mut consistency.states;
        let (start, end) = consistency.times.split_at_mut(1);
        data.par_chunks_mut(size)
            .zip(noise.par_chunks_mut(size))
            .zip(start[0].par_iter_mut().zip(end[0].par_iter_mut()))
            .enumerate()
            .for_each(|(i, ((data, noise), (s, t)))| {
                let mut stream = draw_state(offset + i as u64, data, noise);
                let (from, to) = pairs.draw(&mut stream);
                (*s, *t) = (from as f32, to as f32);
            });
    }

    /// Takes step number `self.optimizer.step` of the training.
    ///
    /// The gradient is the mean over the diagonal batch plus the mean over the consistency batch.
    pub fn step(&mut self, source: &dyn DataSource) -> StepMetrics {
        let step = self.optimizer.step + self.skipped;
        self.draw(source, step);
        let layout = self.parameters.layout().clone();
        let online = self.parameters.slices();
        let diagonal = self.diagonal.run(&online, &layout, &mut self.gradients);
        let diagonal_scale = 1.0 / self.config.diagonal_batch as f64;
        let mut sums = [0.0; 3];
        let mut consistency_scale = 0.0;
        if step >= self.config.consistency_from
            && let Some(consistency) = &mut self.consistency
        {
            let mut shared = online.clone();
            match self.config.teacher {
                Teacher::Online => shared.extend(&online),
                Teacher::MovingAverage => {
                    shared.extend(
                        (0..layout.count()).map(|i| &self.optimizer.average[layout.range(i)]),
                    );
                }
            }
            sums = consistency.run(&shared, &layout, &mut self.scratch);
            consistency_scale = 1.0 / self.config.consistency_batch as f64;
            // Gradients are sums over samples: bring the consistency sum to the diagonal batch's scale.
            let ratio = (consistency_scale / diagonal_scale) as f32;
            axpy(ratio, &self.scratch, &mut self.gradients);
        }
        drop(online);
        let learning_rate = self.config.learning_rate.rate(step);
        let report = self.optimizer.update(
            self.parameters.flat_mut(),
            &self.gradients,
            diagonal_scale,
            learning_rate,
        );
        self.skipped += u64::from(!report.applied);
        StepMetrics {
            step,
            flow_matching: diagonal[1] * diagonal_scale,
            divergence: diagonal[2] * diagonal_scale,
            map_consistency: sums[1] * consistency_scale,
            divergence_consistency: sums[2] * consistency_scale,
            gradient_norm: report.gradient_norm,
            learning_rate,
            applied: report.applied,
        }
    }

    /// Steps taken, skipped ones included: the number of the next step.
    pub fn next_step(&self) -> u64 {
        self.optimizer.step + self.skipped
    }
}
