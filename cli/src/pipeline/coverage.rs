//! Where the proposal has too little mass: its density at frames of the reference dynamics.
//!
//! Samples cannot tell of places that they do not reach; frames of the target can. A frame is traced back through the deployed
//! map (or the continuous flow) to its noise, which gives log q at the frame, and with it the weight that a sample would carry
//! there. Weights of samples and of frames belong together: f_p(w) = w f_q(w) for the distributions of w with mean 1 under q. Frames in turn cannot
//! tell what the proposal makes where they never come, so mean weights are the samples' own.
//!
//! The frames come from ladders that serve nothing else; settings that are chosen by what they show must be judged on a run of another seed.

use std::ops::Range;

use anyhow::Result;
use boltzmap_kernels::random::Stream;
use boltzmap_models::ModelError;
use boltzmap_models::continuous_flow::ContinuousFlow;
use boltzmap_models::control::Control;
use boltzmap_models::inverse::{InverseOptions, Inverter};
use boltzmap_physics::metrics;

use super::evaluate::mean_and_deviation;
use super::frames::by_ladder;
use super::model::{self, Model};
use super::molecule::Molecule;
use super::sample::{self, Samples, with_progress};
use super::train;
use crate::config::Config;
use crate::progress;

/// Frames traced back together along the continuous flow.
const CHUNK: usize = 64;
/// Weight, in units of the mean, from which on a frame is called heavy: there the proposal has less than a hundredth of the target's mass.
const HEAVY: f64 = 100.0;

/// Seed domain of the bootstrap.
const DOMAIN_BOOTSTRAP: u64 = 0x636f_7665_7261;

/// Weights of reference frames.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// log w of each frame traced back, on the scale of [`Samples::log_weights`]; +∞ where no noise leads to the frame.
    pub log_weights: Vec<f64>,
    /// The ladder of each.
    pub ladders: Vec<i64>,
}

/// What frames and samples say together, with errors.
#[derive(Clone, Copy, Debug)]
pub struct Foretold {
    /// [`metrics::ess_from_target`].
    pub ess: f64,
    /// Its standard error.
    pub ess_error: f64,
    /// [`metrics::share_seen`].
    pub seen: f64,
    /// Its standard error.
    pub seen_error: f64,
}

impl Coverage {
    /// Weights of `audit.reference_frames` frames, spread evenly over `positions` `[n, atoms, 3]` (nm) with `energy_kt` and `ladders` `[n]`.
    /// Empty under self-guidance, which has no inverse here.
    pub fn measure(
        model: &Model,
        config: &Config,
        molecule: &Molecule,
        positions: &[f32],
        energy_kt: &[f64],
        ladders: &[i64],
        samples: &Samples,
    ) -> Result<Coverage> {
        let n = config.audit.reference_frames.min(energy_kt.len());
        let asked = config.audit.reference_frames;
        if asked > 0 && config.sampling.guidance != 0.0 {
            progress::note(&format!(
                "reference: none of audit.reference_frames = {asked} is traced back, for guided samples have no inverse"
            ));
            return Ok(Coverage::default());
        }
        if n < asked {
            progress::note(&format!(
                "reference: {n} frames instead of audit.reference_frames = {asked}, for the data hold no more"
            ));
        }
        if n == 0 {
            return Ok(Coverage::default());
        }
        let frames: Vec<usize> = (0..n).map(|k| k * energy_kt.len() / n).collect();
        let width = 3 * molecule.n_atoms();
        let chosen: Vec<f32> = frames
            .iter()
            .flat_map(|&i| &positions[i * width..(i + 1) * width])
            .copied()
            .collect();
        let encoded = model.coordinates.encode(&chosen)?;
        let scale = sample::end_scale(config)?;
        let states: Vec<f32> = encoded.state.iter().map(|v| (v * scale) as f32).collect();
        let density = trace_back(model, config, &states)?;
        let constant =
            sample::density_constant(&model.flow_map, scale, samples.count(), samples.draws);
        let log_weights = (0..n)
            .map(|k| {
                let log_q = density[k] + encoded.log_det[k] - encoded.log_share[k] + constant;
                match encoded.in_domain[k] && log_q.is_finite() {
                    true => -energy_kt[frames[k]] - log_q,
                    false => f64::INFINITY,
                }
            })
            .collect();
        Ok(Coverage {
            log_weights,
            ladders: frames.iter().map(|&i| ladders[i]).collect(),
        })
    }

    /// Number of frames traced back.
    pub fn count(&self) -> usize {
        self.log_weights.len()
    }

    /// The effective sample size and the share of the proposal that the frames see, given the `log_weights` of samples. Errors by a bootstrap
    /// over samples and whole ladders of frames; NaN with one ladder.
    pub fn foretold(&self, log_weights: &[f64], replicates: usize, seed: u64) -> Foretold {
        let mean = metrics::log_mean_weight(log_weights);
        let weights_of =
            |frames: Vec<usize>| frames.into_iter().map(|i| self.log_weights[i]).collect();
        let groups: Vec<Vec<f64>> = by_ladder(&self.ladders)
            .into_iter()
            .map(|(_, frames)| weights_of(frames))
            .collect();
        let (n, count) = (log_weights.len(), groups.len());
        let (mut sizes, mut shares) = (Vec::new(), Vec::new());
        for replicate in 0..replicates {
            let mut stream = Stream::new(seed, DOMAIN_BOOTSTRAP, replicate as u64);
            let mut pick = |n: usize| stream.below(n as u64) as usize;
            let drawn: Vec<f64> = (0..n).map(|_| log_weights[pick(n)]).collect();
            let mean = metrics::log_mean_weight(&drawn);
            let frames: Vec<f64> = (0..count)
                .flat_map(|_| &groups[pick(count)])
                .copied()
                .collect();
            sizes.push(metrics::ess_from_target(mean, &frames));
            shares.push(metrics::share_seen(mean, &frames));
        }
        // Drawing from few groups with replacement understates their spread by (L − 1)/L; one group has none.
        let few = (count as f64 / (count as f64 - 1.0)).sqrt();
        let error = |values: &[f64]| match count > 1 {
            true => few * mean_and_deviation(values).1,
            false => f64::NAN,
        };
        Foretold {
            ess: metrics::ess_from_target(mean, &self.log_weights),
            ess_error: error(&sizes),
            seen: metrics::share_seen(mean, &self.log_weights),
            seen_error: error(&shares),
        }
    }

    /// Frames that no noise leads to.
    pub fn unreached(&self) -> usize {
        let reached = self.log_weights.iter().filter(|w| w.is_finite());
        self.count() - reached.count()
    }

    /// The share of frames whose weight is more than a hundred times `log_mean_weight`, the mean of the proposal's samples; NaN without frames.
    pub fn heavy_share(&self, log_mean_weight: f64) -> f64 {
        let limit = log_mean_weight + HEAVY.ln();
        let heavy = self.log_weights.iter().filter(|w| **w > limit);
        heavy.count() as f64 / self.count() as f64
    }
}

/// log q of the map's final states `[n, T, C]`, `[n]`; NaN where no noise leads to one.
fn trace_back(model: &Model, config: &Config, states: &[f32]) -> Result<Vec<f64>> {
    let schedule = model::schedule(config)?;
    let size = model.flow_map.state_size();
    let n = states.len() / size;
    if !train::method(config).is_continuous() {
        let options = InverseOptions::of_precision::<f32>();
        let inverter = Inverter::new(&model.flow_map, &model.parameters, &schedule, options);
        return with_progress("reference", n, |control| {
            invert(&inverter, model, states, control)
        });
    }
    let flow = sample::continuous_flow(model, config, &schedule)?;
    with_progress("reference", n, |control| {
        let quiet = Control {
            progress: None,
            cancel: control.cancel,
        };
        let mut log_density = Vec::with_capacity(n);
        for first in (0..n).step_by(CHUNK) {
            let of = |range: Range<usize>| &states[range.start * size..range.end * size];
            let chunk = first..n.min(first + CHUNK);
            log_density.extend(integrate(&flow, chunk, &of, &quiet)?);
            control.report(log_density.len(), n);
        }
        Ok(log_density)
    })
}

/// Through the steps of the map.
fn invert(
    inverter: &Inverter<f32>,
    model: &Model,
    states: &[f32],
    control: &Control,
) -> Result<Vec<f64>, ModelError> {
    let map = &model.flow_map;
    let size = map.state_size();
    let mut states = states.to_vec();
    let mut log_density = vec![0.0; states.len() / size];
    inverter.walk(&mut states, control, |leg, states, step| {
        for (i, state) in states.chunks_exact_mut(size).enumerate() {
            if step.converged[i] {
                log_density[leg.first + i] -= step.log_det[i];
            } else {
                // Lost; what stands there in the steps to come is a state that every map can invert.
                log_density[leg.first + i] = f64::NAN;
                state.fill(0.0);
            }
        }
        Ok(())
    })?;
    let base = map
        .subspace()
        .gaussian_log_density(&states, map.tokens(), map.channels());
    log_density
        .iter_mut()
        .zip(base)
        .for_each(|(q, base)| *q += base);
    Ok(log_density)
}

/// Through the continuous flow. Where it fails for some of the states, each goes alone.
fn integrate<'s>(
    flow: &ContinuousFlow<f32>,
    range: Range<usize>,
    of: &impl Fn(Range<usize>) -> &'s [f32],
    control: &Control,
) -> Result<Vec<f64>, ModelError> {
    match flow.log_density(of(range.clone()), control) {
        Ok(traced) => Ok(traced.log_density),
        Err(ModelError::Cancelled) => Err(ModelError::Cancelled),
        Err(_) if range.len() == 1 => Ok(vec![f64::NAN]),
        Err(_) => range
            .map(|i| Ok(integrate(flow, i..i + 1, of, control)?[0]))
            .collect(),
    }
}
