//! The sampling stage: states drawn until enough lie in the target's domain, their likelihoods audited.
//!
//! Coordinates can have a domain: of a methyl's three equal labellings, internal coordinates keep one. So can the target, which
//! may leave cis peptide bonds out. States are drawn until the wanted number lies inside, so the proposal is the map's distribution conditioned on the domain, whose
//! density is higher by the reciprocal of the share kept. That share, and with it a constant in all log q, is known to
//! its statistical error; self-normalised weights do not feel it. Where several states stand for one conformation, as in the overlap
//! of a methyl's windows, each carries a share c of its probability, and log q means log q − ln c: weights are exp(−E/kT)/q with it,
//! and averages of anything that does not depend on the hydrogens' labels are exact.
//!
//! A method without divergence head has no log q by the head: it is NaN, and every likelihood is computed exactly. Flow
//! matching alone is sampled by its continuous flow, whose log q is exact up to the tolerance of the integration. Samples under
//! self-guidance have the density of the guided map, which no head reports either.

use std::time::Instant;

use anyhow::{Result, ensure};
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_physics::batch::BatchEvaluator;
use boltzmap_physics::chart::Coordinates;
use boltzmap_physics::rotations;
use boltzmap_sampling::{Control, Likelihood, LogDensity, Proposal, Trust};
use boltzmap_statistics as statistics;
use rayon::prelude::*;

use super::Stage;
use super::model::Model;
use super::molecule::Molecule;
use super::proposals::{Proposals, density_constant, end_scale, has_head, model_of};
use super::samples::{Samples, require_checkpoint, weights};
use crate::card;
use crate::config::Config;
use crate::progress::{self, with_progress};
use crate::run_dir::RunDir;

/// Stream domain of the orientations of samples in internal coordinates.
const DOMAIN_ORIENTATION: u64 = domain::ORIENTATIONS;

/// Draws per wanted sample after which too few lie in the coordinates' domain.
const LARGEST_EXCESS: usize = 20;

/// Samples inside the coordinates' domain, in the order drawn.
struct Kept {
    /// Which draws they are, `[n]`.
    indices: Vec<u64>,
    /// `[n, atoms, 3]`, nm.
    positions: Vec<f64>,
    /// `[n, T, C]`, of unit variance.
    states: Vec<f64>,
    /// log q of the map's final state as the proposal tells it, NaN where it tells none, `[n]`.
    log_q: Vec<f64>,
    /// What it is worth.
    likelihood: Likelihood,
    /// log|dx/dy| of the coordinates with the state's share of its conformation, `[n]`.
    volume: Vec<f64>,
    /// States drawn so far.
    draws: usize,
    /// Network evaluations per sample.
    evaluations: usize,
}

/// Draws states until the wanted number lies in the domain of coordinates and target.
fn draw(
    model: &Model,
    config: &Config,
    molecule: &Molecule,
    proposal: &dyn Proposal,
    scale: f64,
) -> Result<Kept> {
    let n = config.sampling.samples;
    let size: usize = proposal.shape().iter().product();
    let mut kept = Kept {
        indices: Vec::new(),
        positions: Vec::new(),
        states: Vec::new(),
        log_q: Vec::new(),
        likelihood: Likelihood::Unknown,
        volume: Vec::new(),
        draws: 0,
        evaluations: 0,
    };
    while kept.log_q.len() < n {
        let missing = n - kept.log_q.len();
        ensure!(
            kept.draws < LARGEST_EXCESS * n,
            "only {} of {} samples lie in the coordinates' domain and have the peptide bonds of the target; {}",
            kept.log_q.len(),
            kept.draws,
            model.metadata.advice()
        );
        // A round draws what is missing; the domain's share makes the later rounds short.
        let first = kept.draws as u64;
        let indices: Vec<u64> = (first..first + missing as u64).collect();
        let drawn = if first == 0 {
            with_progress("sample", missing, |control| {
                proposal.draw(&indices, control)
            })?
        } else {
            proposal.draw(&indices, &Control::default())?
        };
        kept.likelihood = drawn.log_density.likelihood();
        let log_q = match drawn.log_density {
            LogDensity::Unknown => vec![f64::NAN; missing],
            // Kept beside its kind.
            known => known.trusted(Trust::Reported)?.to_vec(),
        };
        let states: Vec<f64> = drawn.states.iter().map(|x| x / scale).collect();
        let decoded = model.coordinates.decode(&states)?;
        let width = 3 * molecule.n_atoms();
        let in_target = |i: usize| {
            decoded.in_domain[i]
                && molecule.in_target(&decoded.positions[i * width..(i + 1) * width])
        };
        for i in (0..missing).filter(|&i| in_target(i)) {
            kept.indices.push(indices[i]);
            kept.positions
                .extend_from_slice(&decoded.positions[i * width..(i + 1) * width]);
            kept.states
                .extend_from_slice(&states[i * size..(i + 1) * size]);
            kept.log_q.push(log_q[i]);
            kept.volume.push(decoded.log_det[i] + decoded.log_share[i]);
        }
        kept.draws += missing;
        kept.evaluations = kept.evaluations.max(drawn.evaluations);
    }
    Ok(kept)
}

/// Draws and audits the samples of a run.
pub fn sample(run: &RunDir, config: &Config) -> Result<()> {
    let molecule = Molecule::new(config)?;
    require_checkpoint(run)?;
    let checkpoint = card::digest(&run.checkpoint())?;
    let model = model_of(run, config, &molecule)?;
    let n = config.sampling.samples;
    let has_head = has_head(&model, config);
    // Without a head, the exact likelihood is the only one there is.
    let n_audited = if has_head { config.audit.samples } else { n };
    if n_audited != config.audit.samples {
        progress::note(&format!(
            "audit: all {n} samples instead of audit.samples = {}, for no head tells their likelihood",
            config.audit.samples
        ));
    }
    let map = &model.flow_map;

    let start = Instant::now();
    let proposals = Proposals::new(&model, config)?;
    let scale = end_scale(config)?;
    let mut kept = draw(&model, config, &molecule, proposals.drawing(), scale)?;
    let drawing = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let log_q_head = match has_head {
        true => kept.log_q.clone(),
        false => vec![f64::NAN; n],
    };
    let mut log_q_exact = vec![f64::NAN; n];
    let (mut likelihood, mut folded_steps) = (Likelihood::Unknown, 0);
    if n_audited > 0 {
        let (audited, kind, folds) = proposals.audit(
            &kept.indices[..n_audited],
            (&kept.log_q[..n_audited], kept.likelihood),
        )?;
        log_q_exact[..n_audited].copy_from_slice(&audited);
        (likelihood, folded_steps) = (kind, folds);
    }
    let auditing = start.elapsed().as_secs_f64();

    let start = Instant::now();
    if let Coordinates::Internal(_) = model.coordinates {
        // Internal coordinates leave the orientation open; the density counts it as uniform, so it is drawn so.
        let width = 3 * molecule.n_atoms();
        kept.positions
            .par_chunks_mut(width)
            .enumerate()
            .for_each(|(i, frame)| {
                let mut stream = Stream::new(config.seed, DOMAIN_ORIENTATION, i as u64);
                rotations::rotate(&rotations::random_rotation(&mut stream), frame);
            });
    }
    let constant = density_constant(map, scale, n, kept.draws);
    let to_cartesian = |log_q: f64, i: usize| log_q + constant - kept.volume[i];
    let samples = Samples {
        log_q_head: (0..n).map(|i| to_cartesian(log_q_head[i], i)).collect(),
        log_q_exact: (0..n).map(|i| to_cartesian(log_q_exact[i], i)).collect(),
        energy: BatchEvaluator::<f64>::new(&molecule.system).energies(&kept.positions)?,
        draws: kept.draws,
        positions: kept.positions,
        states: kept.states,
        log_volume: kept.volume,
        likelihood,
        folded_steps,
        evaluations: kept.evaluations,
        settings: Some(Stage::Sample.settings(config)),
    };
    let (chosen, log_weights, _) = weights(&samples, molecule.thermal_energy);
    let normalised = statistics::normalised(&log_weights);
    ensure!(
        normalised.is_some(),
        "no sample has a positive weight, for none has a finite energy; {}",
        model.metadata.advice()
    );
    let mut all = vec![0.0; n];
    for (&i, weight) in chosen.iter().zip(normalised.unwrap_or_default()) {
        all[i] = weight;
    }
    let shape = [map.tokens(), map.channels()];
    samples.write(run, &molecule, &all, &checkpoint, shape)?;
    run.set_seconds("sample", drawing + start.elapsed().as_secs_f64())?;
    run.set_seconds("audit", auditing)
}
