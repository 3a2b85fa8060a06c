//! One training step: draw data, noise and times from counter-based streams, run the method's loss programs over blocks
//! of the batch, and update.
//!
//! The random numbers of step k and sample i come from the stream (seed, domain, k·batch + i) and from nothing else, with
//! batch the samples of all terms together, so a training resumed from parameters, optimiser state, frozen teacher and k
//! continues bit for bit.

use boltzmap_autodiff::exec::{Batched, InputRole, OutputRole};
use boltzmap_autodiff::grad;
use boltzmap_kernels::elementwise::{axpy, squared_norm};
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::{ParameterLayout, Parameters};
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use rayon::prelude::*;

use crate::divergence::Observed;
use crate::interpolant::Interpolant;
use crate::losses::{ConsistencyWeights, DiagonalWeights, StopGradient};
use crate::method::{Draw, Drawn, Method, MethodError, ProbeDistribution, Term, TermTeacher};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::schedule::WarmupCosine;
use crate::times::{PairDistribution, TimeDistribution};

/// Stream domain of the training's random numbers.
const DOMAIN_TRAINING: u64 = domain::TRAINING;

/// The loss that every method starts with, and whose size at the start is the scale of the problem: flow matching's.
pub const LEADING_LOSS: &str = "flow_matching";

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
    /// Which losses.
    pub method: Method,
    /// The path between noise and data.
    pub interpolant: Interpolant,
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

impl TrainerConfig {
    /// SCALLOP with the Lagrangian condition for a small map deployed on `schedule`: blocks of 32, 128 samples a step, the last three quarters of `steps` with the
    /// consistency terms, learning rate 3·10⁻³ with warm-up and cosine decay, a moving average over 200 steps. A start; every field is there to be changed.
    pub fn scallop(schedule: &Schedule, steps: u64, seed: u64) -> Self {
        Self {
            seed,
            method: Method::Scallop,
            interpolant: Interpolant::linear(),
            block: 32,
            diagonal_batch: 96,
            consistency_batch: 32,
            diagonal_weights: DiagonalWeights {
                velocity: 1.0,
                divergence: 1.0,
            },
            consistency_weights: ConsistencyWeights {
                map: 1.0,
                divergence: 1.0,
            },
            stop_gradient: StopGradient::TargetAndArgument,
            teacher: Teacher::MovingAverage,
            consistency_from: steps / 4,
            times: TimeDistribution {
                epsilon: schedule.epsilon(),
                data_end_fraction: 0.3,
            },
            pairs: PairDistribution {
                times: schedule.times().to_vec(),
                start_fraction: 0.5,
                end_fraction: 0.25,
            },
            learning_rate: WarmupCosine {
                peak: 3e-3,
                warmup_steps: steps / 20,
                total_steps: steps,
                final_fraction: 0.0,
            },
            optimizer: AdamWConfig {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.0,
                clip_norm: 1.0,
                ema_decay: 0.995,
            },
        }
    }
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

/// What one step did. The parts of the losses are means over their term's batch, 0 where a term does not take part.
#[derive(Clone, Debug, PartialEq)]
pub struct StepMetrics {
    /// Step, counted from 0.
    pub step: u64,
    /// Parts of the losses by name, in the order of the method's terms.
    pub parts: Vec<(String, f64)>,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate used.
    pub learning_rate: f64,
    /// False where the gradient was not finite and the step was skipped.
    pub applied: bool,
}

impl StepMetrics {
    /// What a [`DivergenceWatch`](crate::divergence::DivergenceWatch) looks at.
    pub fn observed(&self) -> Observed<'_> {
        Observed {
            step: self.step,
            parts: &self.parts,
            gradient_norm: self.gradient_norm,
        }
    }

    /// The part of this name; not a number where the method has none such.
    pub fn part(&self, name: &str) -> f64 {
        let found = self.parts.iter().find(|(part, _)| part == name);
        found.map_or(f64::NAN, |(_, value)| *value)
    }
}

/// A term's loss and gradient as an executable over blocks.
struct LossProgram {
    batched: Batched<f32>,
    term: Term,
    /// Host buffers of the inputs that differ from sample to sample.
    inputs: Vec<Vec<f32>>,
    /// One row per sample: its part of every input, one after the other.
    rows: Vec<f32>,
    /// Samples of the terms before this one.
    offset: u64,
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
    /// The frozen teacher of [`Method::freezes_teacher`], once there is one. Part of the training's state.
    pub frozen: Option<Vec<f32>>,
    terms: Vec<LossProgram>,
    gradients: Vec<f32>,
    scratch: Vec<f32>,
    /// Steps whose gradient was not finite.
    pub skipped: u64,
}

impl LossProgram {
    /// Compiles value and gradient of a term.
    fn new(term: Term, offset: u64, state: usize) -> Self {
        let loss = &term.loss;
        let wrt: Vec<usize> = (0..loss.parameters()).collect();
        let gradient = grad(loss.program(), &wrt);
        let mut input_roles = vec![InputRole::Shared; loss.shared()];
        input_roles.extend(vec![InputRole::PerBlock { axis: 0 }; loss.inputs().len()]);
        let output_roles = vec![OutputRole::Summed; gradient.outputs.len()];
        let width = |drawn: &Drawn| if drawn.is_state() { state } else { 1 };
        Self {
            batched: Batched::compile(&gradient, input_roles, output_roles),
            inputs: term
                .drawn
                .iter()
                .map(|drawn| vec![0.0; term.batch * width(drawn)])
                .collect(),
            rows: vec![0.0; term.batch * term.drawn.iter().map(width).sum::<usize>()],
            term,
            offset,
        }
    }

    fn parts(&self) -> &[String] {
        self.term.loss.parts()
    }

    fn is_active(&self, step: u64) -> bool {
        (self.term.from..self.term.until).contains(&step)
    }

    /// Runs the batch; the sums of the parts come back, the gradient goes to `gradients` in parameter order.
    fn run(&self, shared: &[&[f32]], layout: &ParameterLayout, gradients: &mut [f32]) -> Vec<f64> {
        let mut sums = vec![[0.0f32; 1]; 1 + self.parts().len()];
        {
            let mut inputs = shared.to_vec();
            inputs.extend(self.inputs.iter().map(Vec::as_slice));
            let mut outputs: Vec<&mut [f32]> = sums.iter_mut().map(|s| s.as_mut_slice()).collect();
            let mut rest = gradients;
            for i in 0..layout.count() {
                let (head, tail) = rest.split_at_mut(layout.range(i).len());
                outputs.push(head);
                rest = tail;
            }
            self.batched.run(self.term.batch, &inputs, &mut outputs);
        }
        sums[1..].iter().map(|sum| sum[0] as f64).collect()
    }

    /// One over the samples per step: what brings sums to means.
    fn scale(&self) -> f64 {
        1.0 / self.term.batch as f64
    }
}

/// What drawing a sample needs to know.
struct Drawing<'a> {
    config: &'a TrainerConfig,
    source: &'a dyn DataSource,
    subspace: Subspace,
    tokens: usize,
    channels: usize,
}

impl Drawing<'_> {
    /// Fills one sample's row. The order of the draws is part of what makes a training reproducible: data, noise, times,
    /// base, probes.
    fn fill(&self, stream: &mut Stream, term: &Term, row: &mut [f32]) {
        let size = self.tokens * self.channels;
        let mut rest = row;
        let mut parts: Vec<(Drawn, &mut [f32])> = Vec::with_capacity(term.drawn.len());
        for drawn in &term.drawn {
            let (part, tail) = rest.split_at_mut(if drawn.is_state() { size } else { 1 });
            parts.push((*drawn, part));
            rest = tail;
        }
        for (_, data) in parts.iter_mut().filter(|(drawn, _)| *drawn == Drawn::Data) {
            let index = (stream.uniform() * self.source.len() as f64) as usize;
            self.source
                .write(index.min(self.source.len() - 1), stream, data);
        }
        for (_, noise) in parts.iter_mut().filter(|(drawn, _)| *drawn == Drawn::Noise) {
            stream.fill_standard_normal(noise);
            self.subspace
                .project_states(noise, self.tokens, self.channels);
        }
        let (start, end, finest) = match &term.draw {
            Draw::Diagonal(times) => {
                let t = times.draw(stream);
                (t, t, false)
            }
            Draw::Pairs(pairs, exchanged) => {
                let (s, t) = pairs.draw(stream);
                if *exchanged > 0.0 && stream.uniform() < *exchanged {
                    (t, s, false)
                } else {
                    (s, t, false)
                }
            }
            Draw::Dyadic(pairs) => pairs.draw(stream),
        };
        let distribution = self.config.method.probe_distribution();
        for (drawn, part) in &mut parts {
            match drawn {
                Drawn::Data | Drawn::Noise => {}
                Drawn::Start => part[0] = start as f32,
                Drawn::End => part[0] = end as f32,
                Drawn::Finest => part[0] = f32::from(u8::from(finest)),
                Drawn::Base => {
                    let mut state = vec![0.0; size];
                    if let Some(base) = self.config.interpolant.base() {
                        base.sample(stream, &mut state);
                    }
                    for (value, drawn) in part.iter_mut().zip(state) {
                        *value = drawn as f32;
                    }
                }
                Drawn::Probe => {
                    match distribution {
                        ProbeDistribution::Gaussian => stream.fill_standard_normal(part),
                        ProbeDistribution::Rademacher => {
                            for value in part.iter_mut() {
                                *value = if stream.uniform() < 0.5 { -1.0 } else { 1.0 };
                            }
                        }
                    }
                    self.subspace
                        .project_states(part, self.tokens, self.channels);
                }
            }
        }
    }
}

impl Trainer {
    /// Traces, differentiates and plans the method's loss programs for a flow map.
    ///
    /// # Errors
    /// If no term of the method has a sample, or a loss has an input that is not drawn.
    ///
    /// # Panics
    /// If the interpolant lacks what a loss needs.
    pub fn new(
        flow_map: &FlowMap,
        parameters: Parameters<f32>,
        optimizer: AdamW,
        config: TrainerConfig,
    ) -> Result<Self, MethodError> {
        let mut offset = 0;
        let terms: Vec<LossProgram> = config
            .method
            .terms(flow_map, &config)?
            .into_iter()
            .map(|term| {
                let before = offset;
                offset += term.batch as u64;
                LossProgram::new(term, before, flow_map.state_size())
            })
            .collect();
        let total = parameters.flat().len();
        Ok(Self {
            subspace: flow_map.subspace(),
            tokens: flow_map.tokens(),
            channels: flow_map.channels(),
            parameters,
            optimizer,
            frozen: None,
            terms,
            gradients: vec![0.0; total],
            scratch: vec![0.0; total],
            skipped: 0,
            config,
        })
    }

    /// A training from its start: parameters initialised by the configuration's seed.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn start(flow_map: &FlowMap, config: TrainerConfig) -> Result<Self, MethodError> {
        let parameters = Parameters::<f32>::initialize(flow_map.layout(), config.seed);
        let optimizer = AdamW::new(config.optimizer, parameters.flat());
        Self::new(flow_map, parameters, optimizer, config)
    }

    /// Fills the inputs of the active terms from counter-based streams, in parallel over samples.
    fn draw(&mut self, source: &dyn DataSource, step: u64) {
        let drawing = Drawing {
            config: &self.config,
            source,
            subspace: self.subspace,
            tokens: self.tokens,
            channels: self.channels,
        };
        let size = self.tokens * self.channels;
        let batch_total: u64 = self.terms.iter().map(|term| term.term.batch as u64).sum();
        let seed = self.config.seed;
        for term in self.terms.iter_mut().filter(|term| term.is_active(step)) {
            let width = term.rows.len() / term.term.batch;
            let (first, drawn) = (term.offset, &term.term);
            term.rows
                .par_chunks_mut(width)
                .enumerate()
                .for_each(|(i, row)| {
                    let sample = step * batch_total + first + i as u64;
                    let mut stream = Stream::new(seed, DOMAIN_TRAINING, sample);
                    drawing.fill(&mut stream, drawn, row);
                });
            let mut before = 0;
            for (drawn, input) in term.term.drawn.iter().zip(&mut term.inputs) {
                let length = if drawn.is_state() { size } else { 1 };
                for (part, row) in input
                    .chunks_exact_mut(length)
                    .zip(term.rows.chunks_exact(width))
                {
                    part.copy_from_slice(&row[before..before + length]);
                }
                before += length;
            }
        }
    }

    /// The losses of step number `step` and their gradient at the present parameters. Gradients are sums over samples: what brings them to
    /// means comes back beside the parts.
    fn differentiate(&mut self, source: &dyn DataSource, step: u64) -> (Vec<(String, f64)>, f64) {
        self.draw(source, step);
        let layout = self.parameters.layout().clone();
        let online = self.parameters.slices();
        let mut parts = Vec::new();
        // The first active term's scale is the optimiser's, the others are brought to it.
        let mut scale = None;
        for term in &self.terms {
            if !term.is_active(step) {
                parts.extend(term.parts().iter().map(|name| (name.clone(), 0.0)));
                continue;
            }
            let mut shared = online.clone();
            if term.term.loss.has_teacher() {
                let teacher = match term.term.teacher {
                    TermTeacher::Current(Teacher::Online) => self.parameters.flat(),
                    TermTeacher::Current(Teacher::MovingAverage) => &self.optimizer.average,
                    TermTeacher::Frozen => self.frozen.as_deref().unwrap_or_default(),
                };
                shared.extend((0..layout.count()).map(|i| &teacher[layout.range(i)]));
            }
            let sums = match scale {
                None => {
                    scale = Some(term.scale());
                    term.run(&shared, &layout, &mut self.gradients)
                }
                Some(first) => {
                    let sums = term.run(&shared, &layout, &mut self.scratch);
                    let ratio = (term.scale() / first) as f32;
                    axpy(ratio, &self.scratch, &mut self.gradients);
                    sums
                }
            };
            let means = sums.into_iter().map(|sum| sum * term.scale());
            parts.extend(term.parts().iter().cloned().zip(means));
        }
        (parts, scale.unwrap_or(1.0))
    }

    /// Takes step number [`Trainer::next_step`] of the training.
    ///
    /// The gradient is the sum over the active terms of the mean over each one's batch.
    pub fn step(&mut self, source: &dyn DataSource) -> StepMetrics {
        let step = self.next_step();
        let mut freezing = self
            .terms
            .iter()
            .filter(|term| term.is_active(step) && term.term.teacher == TermTeacher::Frozen);
        if self.frozen.is_none() && freezing.next().is_some() {
            self.frozen = Some(self.optimizer.average.clone());
        }
        let (parts, scale) = self.differentiate(source, step);
        let learning_rate = self.config.learning_rate.rate(step);
        let report = self.optimizer.update(
            self.parameters.flat_mut(),
            &self.gradients,
            scale,
            learning_rate,
        );
        self.skipped += u64::from(!report.applied);
        StepMetrics {
            step,
            parts,
            gradient_norm: report.gradient_norm,
            learning_rate,
            applied: report.applied,
        }
    }

    /// The losses of the latest step's batch at the parameters as they are now, without a step: whether they are worth keeping. They count as
    /// those of the next step, which begins with these parameters. None before the first step.
    pub fn losses(&mut self, source: &dyn DataSource) -> Option<StepMetrics> {
        let next = self.next_step();
        let (parts, scale) = self.differentiate(source, next.checked_sub(1)?);
        let gradient_norm = squared_norm(&self.gradients).sqrt() * scale;
        Some(StepMetrics {
            step: next,
            parts,
            gradient_norm,
            learning_rate: self.config.learning_rate.rate(next),
            applied: false,
        })
    }

    /// Whether every number that a checkpoint holds is finite: parameters, moving average, moments, frozen teacher.
    pub fn is_finite(&self) -> bool {
        let optimizer = &self.optimizer;
        [
            self.parameters.flat(),
            &optimizer.average,
            &optimizer.first_moment,
            &optimizer.second_moment,
            self.frozen.as_deref().unwrap_or_default(),
        ]
        .into_iter()
        .flatten()
        .all(|value| value.is_finite())
    }

    /// Steps taken, skipped ones included: the number of the next step.
    pub fn next_step(&self) -> u64 {
        self.optimizer.step + self.skipped
    }
}
