//! Calibration: a divergence head of its own that tells the density of the finished few-step map.
//!
//! A head that is distilled from the true path's divergence does not tell the density of an imperfect map
//! (likelihood-flow-maps, section 8). Here base noise is pushed through the deployed steps with exact log-determinants,
//! and a copy of the map's network, from which only D is read, is regressed on them. The map does not move: its samples
//! stay what they were, and only their log q by the head changes.
//!
//! Rows are (x, s, t, log|det ∂X_{s,t}/∂x|). The pool that is trained on is either fixed or drawn again every so many
//! steps; rows of other trajectories are held out, and the head kept is the moving average that was best on them.

use boltzmap_autodiff::exec::{Batched, InputRole, OutputRole};
use boltzmap_autodiff::grad;
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_models::ModelError;
use boltzmap_models::control::Control;
use boltzmap_models::deploy::ExactSampler;
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::divergence::{Divergence, DivergenceWatch, Observed};
use crate::losses::{LossShape, calibration_loss};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::schedule::WarmupCosine;

/// Stream domains: base noise of the pool and of the held-out trajectories, and which rows a step takes.
const DOMAIN_POOL: u64 = domain::CALIBRATION_POOL;
const DOMAIN_HELD_OUT: u64 = domain::CALIBRATION_HELD_OUT;
const DOMAIN_ROWS: u64 = domain::CALIBRATION_ROWS;
/// States in one block when held-out rows are evaluated.
const BLOCK: usize = 16;

/// Everything a calibration needs to know.
#[derive(Clone, Debug)]
pub struct CalibrationConfig {
    /// Seed of every random number.
    pub seed: u64,
    /// Largest number of optimiser steps.
    pub steps: u64,
    /// Rows per step, a multiple of `block`.
    pub batch: usize,
    /// Rows in one block.
    pub block: usize,
    /// Trajectories in the pool; each makes a row per deployed step.
    pub trajectories: usize,
    /// Trajectories held out.
    pub held_out: usize,
    /// Steps after which the pool is drawn again; 0 keeps it.
    pub refresh: u64,
    /// Steps between evaluations on the held-out rows.
    pub evaluate_every: u64,
    /// Evaluations without improvement after which to stop.
    pub patience: u64,
    /// Learning rate over the steps.
    pub learning_rate: WarmupCosine,
    /// Optimiser constants.
    pub optimizer: AdamWConfig,
}

/// Errors of a head on the held-out trajectories, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Root of the mean square of Λ by the head minus the exact one, over single steps.
    pub step_rms: f64,
    /// Mean over trajectories of log q by the head minus the exact one.
    pub gap_mean: f64,
    /// Its standard deviation: what weights by the head feel.
    pub gap_deviation: f64,
}

/// What a calibration did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// The map's own head.
    pub before: HeldOut,
    /// The calibrated head.
    pub after: HeldOut,
    /// Steps taken.
    pub steps: u64,
    /// Step after which the head was the one kept; 0 if none was better than the map's own.
    pub best_step: u64,
    /// Steps skipped because their gradient was not finite.
    #[serde(default)]
    pub skipped: u64,
}

/// Why a calibration made no head.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// The map could not be evaluated, or the caller cancelled.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The error of the head exploded or was not finite; the head is worth nothing.
    #[error("the calibration diverged in step {}", .0.step)]
    Diverged(Box<Divergence>),
}

/// The name of the calibration's loss in a [`Divergence`]: the mean square error of Λ, nats².
pub const SQUARED_ERROR: &str = "squared_error";

/// Rows to regress on, those of one trajectory after each other.
struct Rows {
    x: Vec<f32>,
    s: Vec<f32>,
    t: Vec<f32>,
    log_det: Vec<f32>,
}

impl Rows {
    fn count(&self) -> usize {
        self.s.len()
    }

    /// Mean of Λ², nats²: the error of a head that says nothing.
    fn squared_log_det(&self) -> f64 {
        let squares: f64 = self.log_det.iter().map(|v| f64::from(*v).powi(2)).sum();
        squares / self.count() as f64
    }
}

/// A calibration in progress.
pub struct Calibration {
    config: CalibrationConfig,
    map: FlowMap,
    schedule: Schedule,
    sampler: ExactSampler<f32>,
    gradient: Batched<f32>,
    step: Batched<f32>,
    head: Parameters<f32>,
    optimizer: AdamW,
    pool: Rows,
    held_out: Rows,
    gradients: Vec<f32>,
}

impl Calibration {
    /// Compiles the programs and draws both pools with their exact log-determinants. `parameters` are those of the
    /// finished map, from which the head starts.
    ///
    /// # Errors
    /// If a size is zero or does not fit, the caller cancels, or a log-determinant is not finite.
    pub fn new(
        map: &FlowMap,
        parameters: &Parameters<f32>,
        schedule: &Schedule,
        config: CalibrationConfig,
        control: &Control,
    ) -> Result<Self, ModelError> {
        let refuse =
            |problem: &str| Err(ModelError::Configuration(format!("calibration: {problem}")));
        if config.block == 0 || config.batch == 0 || !config.batch.is_multiple_of(config.block) {
            return refuse("the batch must be a positive multiple of the block");
        }
        if config.trajectories == 0 || config.held_out < 2 {
            return refuse("at least one trajectory to train on and two held out are needed");
        }
        if config.evaluate_every == 0 {
            return refuse("the number of steps between evaluations must not be 0");
        }
        let shape = LossShape {
            block: config.block,
            tokens: map.tokens(),
            channels: map.channels(),
            kappa: map.share(),
        };
        let count = map.layout().count();
        let wrt: Vec<usize> = (0..count).collect();
        let loss = calibration_loss(&map.fields_program(config.block), shape);
        let gradient = grad(loss.program(), &wrt);
        let roles = |per_block: usize| {
            let mut roles = vec![InputRole::Shared; count];
            roles.extend(vec![InputRole::PerBlock { axis: 0 }; per_block]);
            roles
        };
        let summed = vec![OutputRole::Summed; gradient.outputs.len()];
        let per_block = vec![OutputRole::PerBlock { axis: 0 }; 2];
        let mut calibration = Self {
            map: map.clone(),
            schedule: schedule.clone(),
            sampler: ExactSampler::new(map, parameters, schedule),
            gradient: Batched::compile(&gradient, roles(loss.inputs().len()), summed),
            step: Batched::compile(&map.step_program(BLOCK), roles(3), per_block),
            head: parameters.clone(),
            optimizer: AdamW::new(config.optimizer, parameters.flat()),
            pool: Rows {
                x: Vec::new(),
                s: Vec::new(),
                t: Vec::new(),
                log_det: Vec::new(),
            },
            held_out: Rows {
                x: Vec::new(),
                s: Vec::new(),
                t: Vec::new(),
                log_det: Vec::new(),
            },
            gradients: vec![0.0; parameters.flat().len()],
            config,
        };
        let (trajectories, held_out) =
            (calibration.config.trajectories, calibration.config.held_out);
        let all = trajectories + held_out;
        let pool = |done, _| control.report(done, all);
        let rest = |done, _| control.report(trajectories + done, all);
        let watch = |progress| Control {
            progress: Some(progress),
            cancel: control.cancel,
        };
        calibration.pool = calibration.rows(DOMAIN_POOL, 0, trajectories, &watch(&pool))?;
        calibration.held_out = calibration.rows(DOMAIN_HELD_OUT, 0, held_out, &watch(&rest))?;
        Ok(calibration)
    }

    /// Pushes base noise `first .. first + n` of a domain through the deployed steps.
    fn rows(
        &self,
        domain: u64,
        first: u64,
        n: usize,
        control: &Control,
    ) -> Result<Rows, ModelError> {
        let (tokens, channels, size) = (
            self.map.tokens(),
            self.map.channels(),
            self.map.state_size(),
        );
        let steps = self.schedule.steps();
        let mut rows = Rows {
            x: vec![0.0; n * steps * size],
            s: vec![0.0; n * steps],
            t: vec![0.0; n * steps],
            log_det: vec![0.0; n * steps],
        };
        let mut states: Vec<f32> =
            self.map
                .subspace()
                .noise(tokens, channels, self.config.seed, domain, first, n);
        self.sampler
            .walk(&mut states, control, |leg, before, step| {
                for (i, x) in before.chunks_exact(size).enumerate() {
                    let row = (leg.first + i) * steps + leg.step;
                    rows.x[row * size..(row + 1) * size].copy_from_slice(x);
                    (rows.s[row], rows.t[row]) = (leg.s as f32, leg.t as f32);
                    rows.log_det[row] = step.log_det_exact[i] as f32;
                }
            })?;
        Ok(rows)
    }

    /// Takes step number `step`, counted from 0; returns the mean square error of Λ over its rows, nats², and the gradient's norm.
    fn train(&mut self, step: u64) -> (f64, f64) {
        let size = self.map.state_size();
        let batch = self.config.batch;
        let mut chosen = Rows {
            x: Vec::with_capacity(batch * size),
            s: Vec::with_capacity(batch),
            t: Vec::with_capacity(batch),
            log_det: Vec::with_capacity(batch),
        };
        for sample in 0..batch as u64 {
            let index = step * batch as u64 + sample;
            let mut stream = Stream::new(self.config.seed, DOMAIN_ROWS, index);
            let row = stream.below(self.pool.count() as u64) as usize;
            chosen
                .x
                .extend_from_slice(&self.pool.x[row * size..(row + 1) * size]);
            chosen.s.push(self.pool.s[row]);
            chosen.t.push(self.pool.t[row]);
            chosen.log_det.push(self.pool.log_det[row]);
        }
        let mut inputs = self.head.slices();
        inputs.extend([chosen.x.as_slice(), &chosen.s, &chosen.t, &chosen.log_det]);
        let layout = self.head.layout();
        let mut sums = [[0.0f32; 1]; 2];
        {
            let mut outputs: Vec<&mut [f32]> = sums.iter_mut().map(|s| s.as_mut_slice()).collect();
            let mut rest = self.gradients.as_mut_slice();
            for i in 0..layout.count() {
                let (part, tail) = rest.split_at_mut(layout.range(i).len());
                outputs.push(part);
                rest = tail;
            }
            self.gradient.run(batch, &inputs, &mut outputs);
        }
        drop(inputs);
        let rate = self.config.learning_rate.rate(step);
        let report = self.optimizer.update(
            self.head.flat_mut(),
            &self.gradients,
            1.0 / batch as f64,
            rate,
        );
        let error = f64::from(sums[0][0]) * size as f64 / batch as f64;
        (error, report.gradient_norm)
    }

    /// Errors of a head on the held-out rows.
    fn evaluate(&self, head: &Parameters<f32>) -> HeldOut {
        let rows = &self.held_out;
        let n = rows.count();
        let (mut states, mut log_det) = (vec![0.0; rows.x.len()], vec![0.0; n]);
        let mut inputs = head.slices();
        inputs.extend([rows.x.as_slice(), &rows.s, &rows.t]);
        self.step.run(n, &inputs, &mut [&mut states, &mut log_det]);
        let errors: Vec<f64> = log_det
            .iter()
            .zip(&rows.log_det)
            .map(|(head, exact)| f64::from(*head) - f64::from(*exact))
            .collect();
        // log q falls by Λ: a head that says too much has log q too low.
        let gaps: Vec<f64> = errors
            .chunks_exact(self.schedule.steps())
            .map(|steps| -steps.iter().sum::<f64>())
            .collect();
        let count = gaps.len() as f64;
        let gap_mean = gaps.iter().sum::<f64>() / count;
        let squares: f64 = gaps.iter().map(|gap| (gap - gap_mean).powi(2)).sum();
        HeldOut {
            step_rms: (errors.iter().map(|e| e * e).sum::<f64>() / n as f64).sqrt(),
            gap_mean,
            gap_deviation: (squares / (count - 1.0)).sqrt(),
        }
    }

    /// Runs the calibration; returns the head and what it is worth. `watch` is told (steps taken, mean square error of
    /// the last step's rows, errors of the last evaluation).
    ///
    /// # Errors
    /// If the caller cancels, a log-determinant of a new pool is not finite, or the calibration diverges.
    pub fn run(
        mut self,
        control: &Control,
        mut watch: impl FnMut(u64, f64, HeldOut),
    ) -> Result<(Parameters<f32>, CalibrationReport), CalibrationError> {
        let before = self.evaluate(&self.head);
        let mut report = CalibrationReport {
            before,
            after: before,
            steps: 0,
            best_step: 0,
            skipped: 0,
        };
        // A head that is good from the start has an error of almost nothing, which may grow without harm.
        let floor = self.pool.squared_log_det();
        let mut divergence = DivergenceWatch::new(SQUARED_ERROR).with_floor(floor);
        let mut best = self.head.clone();
        let (mut last, mut stale) = (before, 0);
        let silent = Control {
            progress: None,
            cancel: control.cancel,
        };
        for step in 0..self.config.steps {
            control.check().map_err(ModelError::from)?;
            if step > 0 && self.config.refresh > 0 && step.is_multiple_of(self.config.refresh) {
                let n = self.config.trajectories;
                let first = step / self.config.refresh * n as u64;
                self.pool = self.rows(DOMAIN_POOL, first, n, &silent)?;
            }
            let (error, gradient_norm) = self.train(step);
            report.steps = step + 1;
            let observed = Observed {
                step,
                parts: &[(SQUARED_ERROR.to_owned(), error)],
                gradient_norm,
            };
            let ends = report.steps == self.config.steps;
            let symptom = divergence.symptom(observed).filter(|_| ends);
            let found = divergence.observe(observed);
            report.skipped = divergence.skipped();
            if let Some(found) = found.or_else(|| Some(divergence.ends_with(symptom?))) {
                return Err(CalibrationError::Diverged(Box::new(found)));
            }
            if report.steps.is_multiple_of(self.config.evaluate_every)
                || report.steps == self.config.steps
            {
                let average =
                    Parameters::from_flat(self.head.layout(), self.optimizer.average.clone())?;
                last = self.evaluate(&average);
                if last.step_rms < report.after.step_rms {
                    report.after = last;
                    report.best_step = report.steps;
                    best = average;
                    stale = 0;
                } else {
                    stale += 1;
                }
            }
            watch(report.steps, error, last);
            if stale >= self.config.patience {
                break;
            }
        }
        Ok((best, report))
    }
}
