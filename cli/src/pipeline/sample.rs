//! Samples with log-likelihoods by the head, the exact audit, energies and weights: `samples.npz`.
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

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use boltzmap_kernels::random::Stream;
use boltzmap_models::ModelError;
use boltzmap_models::continuous_flow::{ContinuousFlow, Integrator};
use boltzmap_models::control::Control;
use boltzmap_models::deploy::{ExactSampler, FewStepSampler};
use boltzmap_models::flow_map::FlowMap;
use boltzmap_models::guidance::GuidedSampler;
use boltzmap_models::ode::Tolerances;
use boltzmap_models::schedule::Schedule;
use boltzmap_physics::batch::BatchEvaluator;
use boltzmap_physics::rotations;
use boltzmap_statistics as statistics;
use rayon::prelude::*;

use super::Stage;
use super::model::{self, Coordinates, Model};
use super::molecule::Molecule;
use super::settings::{self, Settings};
use super::train;
use crate::card;
use crate::config::{Config, SolverKind};
use crate::npz::{NpzFile, NpzWriter};
use crate::progress::{self, Progress};
use crate::run_dir::RunDir;

/// Stream domain of the base noise; sample i uses stream (seed, domain, i).
const DOMAIN_NOISE: u64 = 0x6e6f_6973_6500;
/// States that share the steps of the continuous flow.
const FLOW_BLOCK: usize = 4;
/// Stream domain of the orientations of samples in internal coordinates.
const DOMAIN_ORIENTATION: u64 = 0x6f72_6965_6e74;

/// The array of the settings that made the samples, as JSON.
const SETTINGS: &str = "settings";

/// What `samples.npz` holds.
pub struct Samples {
    /// `[n, atoms, 3]`, nm, mean-free.
    pub positions: Vec<f64>,
    /// log q by the head on the mean-free Cartesian space (nm), given the domain and less ln c of the state; NaN where there is no head, `[n]`.
    pub log_q_head: Vec<f64>,
    /// log q of the few-step map itself, NaN where it was not computed, `[n]`.
    pub log_q_exact: Vec<f64>,
    /// Potential energy, kJ/mol, `[n]`.
    pub energy: Vec<f64>,
    /// States of unit variance that became the samples, `[n, T, C]`; empty in files of older versions.
    pub states: Vec<f64>,
    /// log|dx/dy| of the coordinates at them, plus ln c of the state: log q of the states is log q of the samples plus this, `[n]`.
    pub log_volume: Vec<f64>,
    /// States drawn until n of them lay in the coordinates' domain and had the target's peptide bonds.
    pub draws: usize,
    /// Steps, over all audited samples, at which the determinant was not positive.
    pub folded_steps: usize,
    /// Network evaluations per sample, its log q by the head included; of a continuous flow, those of the most demanding
    /// block of samples.
    pub evaluations: usize,
    /// The settings that made them, where they are on record.
    pub settings: Option<Settings>,
}

impl Samples {
    /// Number of samples.
    pub fn count(&self) -> usize {
        self.energy.len()
    }

    /// Indices of the samples with an exact likelihood.
    pub fn audited(&self) -> Vec<usize> {
        (0..self.count())
            .filter(|&i| !self.log_q_exact[i].is_nan())
            .collect()
    }

    /// log w = −E/kT − log q of the chosen samples; −∞ where the energy is not finite (atoms on top of each other).
    pub fn log_weights(&self, log_q: &[f64], chosen: &[usize], thermal_energy: f64) -> Vec<f64> {
        chosen
            .iter()
            .map(|&i| {
                let value = -self.energy[i] / thermal_energy - log_q[i];
                if value.is_finite() {
                    value
                } else {
                    f64::NEG_INFINITY
                }
            })
            .collect()
    }

    /// Reads the samples of a run.
    pub fn read(run: &RunDir, molecule: &Molecule) -> Result<Samples> {
        let path = run.samples();
        ensure!(
            path.exists(),
            "{} does not exist; make it with 'boltzmap sample {}'",
            path.display(),
            run.root().display()
        );
        require_checkpoint(run)?;
        let file = NpzFile::open(&path)?;
        // Weights of one model in the report of another would be false, and nothing else would tell.
        let checkpoint = file.array::<u8>("checkpoint_sha256", &[Some(64)])?.values;
        ensure!(
            checkpoint == card::digest(&run.checkpoint())?.as_bytes(),
            "{} was drawn from another checkpoint than {} is now; draw again with 'boltzmap sample {}'",
            path.display(),
            run.checkpoint().display(),
            run.root().display()
        );
        let settings = match file.contains(SETTINGS) {
            false => None,
            true => {
                let bytes = file.array::<u8>(SETTINGS, &[None])?.values;
                Some(serde_json::from_slice(&bytes).with_context(|| {
                    format!(
                        "the settings in {} are damaged; draw again with 'boltzmap sample {}'",
                        path.display(),
                        run.root().display()
                    )
                })?)
            }
        };
        let positions =
            file.finite::<f64>("positions", &[None, Some(molecule.n_atoms()), Some(3)])?;
        let n = [Some(positions.shape[0])];
        let (mut states, mut log_volume) = (Vec::new(), Vec::new());
        if file.contains("states") {
            states = file.finite::<f64>("states", &[n[0], None, None])?.values;
            log_volume = file.finite::<f64>("log_volume", &n)?.values;
        }
        Ok(Samples {
            states,
            log_volume,
            log_q_head: file.array("log_q_head", &n)?.values,
            log_q_exact: file.array("log_q_exact", &n)?.values,
            energy: file.array("energy", &n)?.values,
            draws: file.array::<i64>("draws", &[Some(1)])?.values[0] as usize,
            folded_steps: file.array::<i64>("folded_steps", &[Some(1)])?.values[0] as usize,
            evaluations: file.array::<i64>("evaluations", &[Some(1)])?.values[0] as usize,
            positions: positions.values,
            settings,
        })
    }

    fn write(
        &self,
        run: &RunDir,
        molecule: &Molecule,
        weights: &[f64],
        checkpoint: &str,
        [tokens, channels]: [usize; 2],
    ) -> Result<()> {
        let n = self.count();
        let audited: Vec<bool> = self.log_q_exact.iter().map(|q| !q.is_nan()).collect();
        let energy_kt: Vec<f64> = self
            .energy
            .iter()
            .map(|e| e / molecule.thermal_energy)
            .collect();
        let settings = serde_json::to_vec(&self.settings)?;
        NpzWriter::new()
            .array("positions", &[n, molecule.n_atoms(), 3], &self.positions)
            .array("log_q_head", &[n], &self.log_q_head)
            .array("log_q_exact", &[n], &self.log_q_exact)
            .array("audited", &[n], &audited)
            .array("energy", &[n], &self.energy)
            .array("energy_kt", &[n], &energy_kt)
            .array("weights", &[n], weights)
            .array("states", &[n, tokens, channels], &self.states)
            .array("log_volume", &[n], &self.log_volume)
            .array("draws", &[1], &[self.draws as i64])
            .array("folded_steps", &[1], &[self.folded_steps as i64])
            .array("evaluations", &[1], &[self.evaluations as i64])
            .array("checkpoint_sha256", &[64], checkpoint.as_bytes())
            .array(SETTINGS, &[settings.len()], &settings)
            .write(&run.samples())
    }
}

/// Normalised weights over all samples: exact likelihoods where there are any (0 elsewhere), the head's otherwise.
pub fn weights(samples: &Samples, thermal_energy: f64) -> (Vec<usize>, Vec<f64>, &'static str) {
    let audited = samples.audited();
    if audited.is_empty() {
        let all: Vec<usize> = (0..samples.count()).collect();
        let log_weights = samples.log_weights(&samples.log_q_head, &all, thermal_energy);
        (all, log_weights, "head")
    } else {
        let log_weights = samples.log_weights(&samples.log_q_exact, &audited, thermal_energy);
        (audited, log_weights, "exact")
    }
}

/// Asks for the training first.
pub fn require_checkpoint(run: &RunDir) -> Result<()> {
    ensure!(
        run.checkpoint().exists(),
        "{} does not exist; make it with 'boltzmap train {}'",
        run.checkpoint().display(),
        run.root().display()
    );
    Ok(())
}

/// Refuses the coordinates of a molecule with another number of atoms.
pub fn require_atoms(coordinates: &Coordinates, molecule: &Molecule, path: &Path) -> Result<()> {
    let held = match coordinates {
        Coordinates::Internal(chart) => chart.matrix().n_atoms(),
        Coordinates::Cartesian(chart) => chart.state_shape()[0],
    };
    ensure!(
        held == molecule.n_atoms(),
        "{} was trained on another molecule, of {held} atoms where the configuration's has {}; train again",
        path.display(),
        molecule.n_atoms()
    );
    Ok(())
}

/// Draws per wanted sample after which too few lie in the coordinates' domain.
const LARGEST_EXCESS: usize = 20;

/// Samples inside the coordinates' domain, in the order drawn.
#[derive(Default)]
struct Kept {
    /// Base noise `[n, T, C]`.
    noise: Vec<f32>,
    /// `[n, atoms, 3]`, nm.
    positions: Vec<f64>,
    /// `[n, T, C]`, of unit variance.
    states: Vec<f64>,
    /// log q of the map's final state as the sampler tells it, `[n]`.
    log_q: Vec<f64>,
    /// log|dx/dy| of the coordinates with the state's share of its conformation, `[n]`.
    volume: Vec<f64>,
    /// States drawn so far.
    draws: usize,
    /// Network evaluations per sample.
    evaluations: usize,
}

/// What draws a run's states.
enum Sampler {
    /// The few-step map; log q is the head's, which may not have been trained.
    FewStep(Box<FewStepSampler<f32>>),
    /// The continuous flow; log q is exact.
    Continuous(Box<ContinuousFlow<f32>>),
    /// The few-step map of guided noise; log q is not known yet.
    Guided(Box<GuidedSampler<f32>>),
}

/// The continuous flow of a model with the solver and tolerance of the configuration.
pub fn continuous_flow(
    model: &Model,
    config: &Config,
    schedule: &Schedule,
) -> Result<ContinuousFlow<f32>, ModelError> {
    let tolerances = Tolerances {
        relative: config.sampling.tolerance,
        absolute: config.sampling.tolerance,
        ..Tolerances::default()
    };
    let integrator = match config.sampling.solver {
        SolverKind::DormandPrince => Integrator::dormand_prince(tolerances),
        SolverKind::Tsitouras => Integrator::tsitouras(tolerances),
    };
    let (map, parameters) = (&model.flow_map, &model.parameters);
    ContinuousFlow::new(map, parameters, schedule.epsilon(), FLOW_BLOCK, integrator)
}

/// The map ends at time 1 − ε, where unit-variance data has the variance α² + β²: its square root, by which final states are divided.
pub fn end_scale(config: &Config) -> Result<f64> {
    let epsilon = model::schedule(config)?.epsilon();
    let (parts, _) =
        train::interpolant(config).numbers(&[1.0, 0.0], &[0.0, 1.0], &[0.0, 1.0], 1.0 - epsilon);
    Ok(parts[0].hypot(parts[1]))
}

/// What turns log q of the map's final states into log q of states of unit variance given the domain, in which `kept` of `draws`
/// samples lay.
pub fn density_constant(map: &FlowMap, scale: f64, kept: usize, draws: usize) -> f64 {
    map.dimension() as f64 * scale.ln() - (kept as f64 / draws as f64).ln()
}

/// Final states with log q as the sampler tells it, and network evaluations per state.
struct Drawn {
    states: Vec<f32>,
    log_density: Vec<f64>,
    evaluations: usize,
}

impl Sampler {
    fn new(model: &Model, config: &Config) -> Result<Sampler> {
        let schedule = model::schedule(config)?;
        let (map, parameters) = (&model.flow_map, &model.parameters);
        if train::method(config).is_continuous() {
            let flow = continuous_flow(model, config, &schedule)?;
            return Ok(Sampler::Continuous(Box::new(flow)));
        }
        let guidance = config.sampling.guidance;
        if guidance != 0.0 {
            let guided = GuidedSampler::new(map, parameters, &schedule, guidance)?;
            return Ok(Sampler::Guided(Box::new(guided)));
        }
        let sampler = match &model.head {
            Some(head) => FewStepSampler::with_head(map, parameters, head, &schedule),
            None => FewStepSampler::new(map, parameters, &schedule),
        };
        Ok(Sampler::FewStep(Box::new(sampler)))
    }

    fn transport(&self, noise: &[f32], control: &Control<'_>) -> Result<Drawn, ModelError> {
        Ok(match self {
            Sampler::FewStep(sampler) => {
                let drawn = sampler.transport(noise, control)?;
                Drawn {
                    states: drawn.states,
                    log_density: drawn.log_density,
                    evaluations: drawn.evaluations,
                }
            }
            Sampler::Continuous(flow) => {
                let drawn = flow.transport(noise, control)?;
                Drawn {
                    states: drawn.states,
                    log_density: drawn.log_density,
                    evaluations: drawn.statistics.evaluations,
                }
            }
            Sampler::Guided(sampler) => {
                let drawn = sampler.transport(noise, control)?;
                Drawn {
                    log_density: vec![f64::NAN; drawn.log_density_after.len()],
                    states: drawn.states,
                    evaluations: drawn.evaluations,
                }
            }
        })
    }

    /// Exact log q of the states that `noise` becomes, and the steps at which the determinant was not positive. `drawn` is the log q
    /// that [`Sampler::transport`] told.
    fn exact_log_density(
        &self,
        model: &Model,
        config: &Config,
        noise: &[f32],
        drawn: &[f64],
    ) -> Result<(Vec<f64>, usize)> {
        let n = noise.len() / model.flow_map.state_size();
        Ok(match self {
            Sampler::Continuous(_) => (drawn[..n].to_vec(), 0),
            Sampler::FewStep(_) => {
                let schedule = model::schedule(config)?;
                let exact = ExactSampler::new(&model.flow_map, &model.parameters, &schedule);
                let exact = with_progress("audit", n, |c| exact.exact_log_density(noise, c))?;
                (exact.log_density_exact, exact.folded_steps)
            }
            Sampler::Guided(sampler) => {
                let exact = with_progress("audit", n, |c| sampler.exact_log_density(noise, c))?;
                (exact.log_density, exact.folded_steps)
            }
        })
    }
}

/// Whether samples come with a log q by a head.
pub fn has_head(model: &Model, config: &Config) -> bool {
    let head = train::method(config).has_head() || model.head.is_some();
    head && config.sampling.guidance == 0.0
}

/// The model of a run for a configuration: trained to the end, calibrated if it is to be, and of the kind that is asked for.
pub fn model_of(run: &RunDir, config: &Config, molecule: &Molecule) -> Result<Model> {
    let path = run.checkpoint();
    let model = Model::read(&path, config.training.steps as u64)?;
    require_atoms(&model.coordinates, molecule, &path)?;
    settings::check_model(run, config, &model.metadata)?;
    ensure!(
        config.calibration.steps == 0 || model.calibration.is_some(),
        "{} is not calibrated yet; do so with 'boltzmap train {} --resume', or set calibration.steps to 0",
        path.display(),
        run.root().display()
    );
    Ok(model)
}

/// Draws states until the wanted number lies in the domain of coordinates and target.
fn draw(
    model: &Model,
    config: &Config,
    molecule: &Molecule,
    sampler: &Sampler,
    scale: f64,
) -> Result<Kept> {
    let n = config.sampling.samples;
    let map = &model.flow_map;
    let (tokens, channels, size) = (map.tokens(), map.channels(), map.state_size());
    let mut kept = Kept::default();
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
        let first = kept.draws;
        let mut noise = vec![0.0f32; missing * size];
        noise
            .par_chunks_mut(size)
            .enumerate()
            .for_each(|(i, noise)| {
                Stream::new(config.seed, DOMAIN_NOISE, (first + i) as u64)
                    .fill_standard_normal(noise);
                map.subspace().project_states(noise, tokens, channels);
            });
        let drawn = if first == 0 {
            with_progress("sample", missing, |control| {
                sampler.transport(&noise, control)
            })?
        } else {
            sampler.transport(&noise, &Control::default())?
        };
        let states: Vec<f64> = drawn.states.iter().map(|&x| x as f64 / scale).collect();
        let decoded = model.coordinates.decode(&states)?;
        let width = 3 * molecule.n_atoms();
        let in_target = |i: usize| {
            decoded.in_domain[i]
                && molecule.in_target(&decoded.positions[i * width..(i + 1) * width])
        };
        for i in (0..missing).filter(|&i| in_target(i)) {
            kept.noise
                .extend_from_slice(&noise[i * size..(i + 1) * size]);
            kept.positions
                .extend_from_slice(&decoded.positions[i * width..(i + 1) * width]);
            kept.states
                .extend_from_slice(&states[i * size..(i + 1) * size]);
            kept.log_q.push(drawn.log_density[i]);
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
    let size = map.state_size();

    let start = Instant::now();
    let sampler = Sampler::new(&model, config)?;
    let scale = end_scale(config)?;
    let mut kept = draw(&model, config, &molecule, &sampler, scale)?;
    let drawing = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let log_q_head = match has_head {
        true => kept.log_q.clone(),
        false => vec![f64::NAN; n],
    };
    let mut log_q_exact = vec![f64::NAN; n];
    let mut folded_steps = 0;
    if n_audited > 0 {
        let noise = &kept.noise[..n_audited * size];
        let (exact, folded) = sampler.exact_log_density(&model, config, noise, &kept.log_q)?;
        log_q_exact[..n_audited].copy_from_slice(&exact);
        folded_steps = folded;
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

/// Runs long work of the models with a progress bar and Ctrl-C.
pub fn with_progress<R>(
    stage: &str,
    total: usize,
    work: impl FnOnce(&Control<'_>) -> Result<R, ModelError>,
) -> Result<R> {
    let bar = std::sync::Mutex::new(Progress::new(stage, total as u64, 0));
    let report = |done: usize, _total: usize| {
        if let Ok(mut bar) = bar.lock() {
            bar.set(done as u64, String::new);
        }
    };
    let control = Control {
        progress: Some(&report),
        cancel: Some(progress::interrupt_flag()),
    };
    let result = work(&control);
    progress::check_interrupt()?;
    if let Ok(bar) = bar.into_inner() {
        bar.finish("");
    }
    Ok(result?)
}
