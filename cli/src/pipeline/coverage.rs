//! Where the proposal has too little mass: its density at frames of the reference dynamics.
//!
//! Samples cannot tell of places that they do not reach; frames of the target can. A frame is traced back through the deployed
//! map (or the continuous flow) to its noise, which gives log q at the frame, and with it the weight that a sample would carry
//! there. Weights of samples and of frames belong together: f_p(w) = w f_q(w) for the distributions of w with mean 1 under q. Frames in turn cannot
//! tell what the proposal makes where they never come, so mean weights are the samples' own.
//!
//! The frames come from ladders that serve nothing else; settings that are chosen by what they show must be judged on a run of another seed.

use anyhow::Result;
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_sampling::Trust;
use boltzmap_statistics as statistics;

use super::evaluate::mean_and_deviation;
use super::frames::by_ladder;
use super::model::Model;
use super::molecule::Molecule;
use super::proposals::{Proposals, density_constant, end_scale};
use super::samples::Samples;
use crate::config::Config;
use crate::progress::{self, with_progress};

/// Weight, in units of the mean, from which on a frame is called heavy: there the proposal has less than a hundredth of the target's mass.
const HEAVY: f64 = 100.0;

/// Seed domain of the bootstrap.
const DOMAIN_BOOTSTRAP: u64 = domain::COVERAGE_BOOTSTRAP;

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
    /// [`statistics::ess_from_target`].
    pub ess: f64,
    /// Its standard error.
    pub ess_error: f64,
    /// [`statistics::share_seen`].
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
        let scale = end_scale(config)?;
        let states: Vec<f64> = encoded.state.iter().map(|v| v * scale).collect();
        let proposals = Proposals::new(model, config)?;
        let traced = with_progress("reference", n, |control| {
            proposals.audited().log_density(&states, control)
        })?;
        let density = traced.trusted(Trust::Audited)?;
        let constant = density_constant(&model.flow_map, scale, samples.count(), samples.draws);
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
        let mean = statistics::log_mean_weight(log_weights);
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
            let mean = statistics::log_mean_weight(&drawn);
            let frames: Vec<f64> = (0..count)
                .flat_map(|_| &groups[pick(count)])
                .copied()
                .collect();
            sizes.push(statistics::ess_from_target(mean, &frames));
            shares.push(statistics::share_seen(mean, &frames));
        }
        // Drawing from few groups with replacement understates their spread by (L − 1)/L; one group has none.
        let few = (count as f64 / (count as f64 - 1.0)).sqrt();
        let error = |values: &[f64]| match count > 1 {
            true => few * mean_and_deviation(values).1,
            false => f64::NAN,
        };
        Foretold {
            ess: statistics::ess_from_target(mean, &self.log_weights),
            ess_error: error(&sizes),
            seen: statistics::share_seen(mean, &self.log_weights),
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
