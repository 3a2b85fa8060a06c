//! Metrics, `summary.json` and `report.html`.

use std::time::Instant;

use anyhow::Result;
use boltzmap_kernels::random::Stream;
use boltzmap_physics::batch::BatchEvaluator;
use boltzmap_physics::metrics::{self, Interval};

use super::Stage;
use super::coverage::Coverage;
use super::data::Data;
use super::model;
use super::molecule::Molecule;
use super::sample::{self, Samples};
use super::settings;
use crate::config::Config;
use crate::progress;
use crate::report::{Band, Curve, Ensemble, Profile, Report, Summary, free_energy_profile};
use crate::run_dir::{Provenance, RunDir, read_metrics};

/// Stream domains of resampling and of the profile's bootstrap.
const SEED_RESAMPLE: u64 = 0x7265_7361;
const DOMAIN_PROFILE: u64 = 0x7072_6f66;
/// Bins of the φ profile.
const PROFILE_BINS: usize = 60;
/// Share of the largest weights that the clipped effective sample size leaves out.
const CLIPPED: f64 = 0.002;

/// Points of the unweighted proposal's T-W2. Training shifts weight towards positive φ on purpose, so that much mass must
/// travel far, and exact transport over far more points would take minutes.
const PROPOSAL_POINTS: usize = 2500;

/// Conformations with the quantities that metrics compare.
struct Compared {
    torus: Vec<f64>,
    energy_kt: Vec<f64>,
}

impl Compared {
    fn frames(positions: &[f32], molecule: &Molecule) -> Result<Compared> {
        let wide: Vec<f64> = positions.iter().map(|&x| x as f64).collect();
        let energies = BatchEvaluator::<f64>::new(&molecule.system).energies(&wide)?;
        Ok(Compared {
            torus: molecule.torus(&wide),
            energy_kt: energies
                .iter()
                .map(|e| e / molecule.thermal_energy)
                .collect(),
        })
    }

    /// The chosen rows, with repetitions.
    fn rows(&self, chosen: &[usize], dimension: usize) -> Compared {
        Compared {
            torus: chosen
                .iter()
                .flat_map(|&i| &self.torus[i * dimension..(i + 1) * dimension])
                .copied()
                .collect(),
            energy_kt: chosen.iter().map(|&i| self.energy_kt[i]).collect(),
        }
    }

    /// The first `n` rows.
    fn first(&self, n: usize, dimension: usize) -> Compared {
        let chosen: Vec<usize> = (0..n.min(self.energy_kt.len())).collect();
        self.rows(&chosen, dimension)
    }
}

/// E-W2 (kT) and T-W2 (rad) between two sets.
fn distances(a: &Compared, b: &Compared, dimension: usize) -> Result<(f64, f64)> {
    progress::check_interrupt()?;
    let energy = metrics::e_w2(&a.energy_kt, &b.energy_kt)?;
    let torus = metrics::t_w2(&a.torus, &b.torus, dimension)?;
    Ok((energy, torus.distance))
}

/// −ln p(φ) with a bootstrap band over groups of samples (half-open ranges).
fn profile_band(
    phi: &[f64],
    weights: &[f64],
    groups: &[[usize; 2]],
    replicates: usize,
    seed: u64,
) -> Band {
    let value = free_energy_profile(phi, weights, PROFILE_BINS);
    let weight = |i: usize| weights.get(i).copied().unwrap_or(1.0);
    let mut draws: Vec<Vec<f64>> = vec![Vec::new(); PROFILE_BINS];
    for replicate in 0..replicates {
        let mut stream = Stream::new(seed, DOMAIN_PROFILE, replicate as u64);
        let mut counts = vec![0.0; phi.len()];
        for _ in 0..groups.len() {
            let [start, end] = groups[stream.below(groups.len() as u64) as usize];
            counts[start..end]
                .iter_mut()
                .for_each(|count| *count += 1.0);
        }
        let drawn: Vec<f64> = (0..phi.len()).map(|i| counts[i] * weight(i)).collect();
        for (bin, value) in free_energy_profile(phi, &drawn, PROFILE_BINS)
            .iter()
            .enumerate()
        {
            draws[bin].push(*value);
        }
    }
    // Empty bins of a replicate have an infinite free energy.
    let quantile = |bin: usize, q: f64| {
        let mut sorted: Vec<f64> = draws[bin]
            .iter()
            .map(|v| if v.is_nan() { f64::INFINITY } else { *v })
            .collect();
        sorted.sort_by(f64::total_cmp);
        let at =
            sorted.get(((q * sorted.len() as f64) as usize).min(sorted.len().saturating_sub(1)));
        at.copied().filter(|v| v.is_finite()).unwrap_or(f64::NAN)
    };
    let over_bins = |q: f64| (0..PROFILE_BINS).map(|bin| quantile(bin, q)).collect();
    Band {
        low: over_bins(0.16),
        high: over_bins(0.84),
        value,
    }
}

/// Consecutive samples of one ladder.
fn ladder_groups(ladder: &[i64]) -> Vec<[usize; 2]> {
    let mut groups: Vec<[usize; 2]> = Vec::new();
    for (i, pair) in ladder.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if ladder[group[0]] == *pair => group[1] = i + 1,
            _ => groups.push([i, i + 1]),
        }
    }
    groups
}

fn curves(run: &RunDir) -> Result<Vec<Curve>> {
    let lines = read_metrics(&run.metrics())?;
    let names = [
        ("flow_matching", "flow matching"),
        ("velocity_distillation", "velocity distillation"),
        ("divergence", "divergence"),
        ("map_consistency", "map consistency"),
        ("divergence_consistency", "log-det consistency"),
        ("mean_flow", "mean flow"),
        ("cycle", "cycle"),
    ];
    Ok(names
        .into_iter()
        .filter(|(key, _)| lines.iter().any(|line| line.get(key).is_some()))
        .map(|(key, name)| {
            let (steps, values) = lines
                .iter()
                .filter_map(|line| Some((line.get("step")?.as_f64()?, line.get(key)?.as_f64()?)))
                // Parts that are not trained yet are logged as zero.
                .filter(|(_, value)| *value > 0.0)
                .unzip();
            Curve {
                name: name.into(),
                steps,
                values,
            }
        })
        .collect())
}

/// The standard error of a free energy; none where the free energy is infinite because a state is empty.
fn error_of(free_energy: &Interval) -> f64 {
    if free_energy.value.is_finite() {
        free_energy.standard_error
    } else {
        f64::NAN
    }
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    if values.len() < 2 {
        return (f64::NAN, f64::NAN);
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (values.len() - 1) as f64).sqrt())
}

/// Computes all metrics of a run and writes its report.
pub fn evaluate(run: &RunDir, config: &Config) -> Result<()> {
    let start = Instant::now();
    let molecule = Molecule::new(config)?;
    let data = Data::read(run, &molecule)?;
    let samples = Samples::read(run, &molecule)?;
    let model = sample::model_of(run, config, &molecule)?;
    settings::check_data(run, config)?;
    settings::check_samples(run, config, &samples)?;
    let schedule = model::schedule(config)?;
    let (kt, dimension, seed) = (
        molecule.thermal_energy,
        molecule.torus_dimension,
        config.seed,
    );
    let replicates = config.evaluation.bootstrap;

    progress::note("evaluate: distances, free energies, report");
    let reference = Compared::frames(&data.reference, &molecule)?;
    let second = Compared::frames(&data.second, &molecule)?;
    let proposal = Compared {
        torus: molecule.torus(&samples.positions),
        energy_kt: samples.energy.iter().map(|e| e / kt).collect(),
    };
    let n_reference = reference.energy_kt.len();
    let compared = n_reference.min(samples.count());
    let reference_part = reference.first(compared, dimension);

    let coverage = Coverage::measure(
        &model,
        config,
        &molecule,
        &data.reference,
        &reference.energy_kt,
        &samples,
    )?;
    let all: Vec<usize> = (0..samples.count()).collect();
    let audited = samples.audited();
    let (chosen, log_weights, weights_from) = sample::weights(&samples, kt);
    let resampled: Vec<usize> =
        metrics::resample_systematic(&log_weights, compared, seed ^ SEED_RESAMPLE)
            .unwrap_or_default()
            .into_iter()
            .map(|k| chosen[k])
            .collect();
    let inside: Vec<usize> = all
        .iter()
        .copied()
        .filter(|&i| samples.energy[i].is_finite())
        .take(compared)
        .collect();
    let (e_w2, t_w2) = distances(
        &proposal.rows(&resampled, dimension),
        &reference_part,
        dimension,
    )?;
    let e_w2_proposal = metrics::e_w2(
        &proposal.rows(&inside, dimension).energy_kt,
        &reference_part.energy_kt,
    )?;
    let few = &inside[..inside.len().min(PROPOSAL_POINTS)];
    let (_, t_w2_proposal) = distances(
        &proposal.rows(few, dimension),
        &reference_part.first(PROPOSAL_POINTS, dimension),
        dimension,
    )?;
    let (e_w2_floor, t_w2_floor) = distances(
        &second.first(compared, dimension),
        &reference_part,
        dimension,
    )?;

    let (phi, psi) = molecule.first_phi_psi(&samples.positions);
    let pick = |values: &[f64], which: &[usize]| -> Vec<f64> {
        which.iter().map(|&i| values[i]).collect()
    };
    let chosen_phi = pick(&phi, &chosen);
    let delta_f = metrics::delta_f_interval(&chosen_phi, Some(&log_weights), replicates, seed)?;
    let reference_phi: Vec<f64> = data.phi.iter().map(|&v| v as f64).collect();
    let ladders = ladder_groups(&data.ladder);
    let delta_f_reference =
        metrics::delta_f_grouped(&reference_phi, None, &ladders, replicates, seed)?;

    let gaps: Vec<f64> = audited
        .iter()
        .map(|&i| samples.log_q_head[i] - samples.log_q_exact[i])
        .collect();
    let (likelihood_gap_mean, likelihood_gap_std) = mean_and_deviation(&gaps);
    let exact_weights = samples.log_weights(&samples.log_q_exact, &audited, kt);
    let ess_of = |log_weights: &[f64]| {
        if log_weights.is_empty() {
            f64::NAN
        } else {
            metrics::ess(log_weights)
        }
    };
    let has_head = sample::has_head(&model, config);
    let ess_by_head = |which: &[usize]| match has_head {
        true => ess_of(&samples.log_weights(&samples.log_q_head, which, kt)),
        false => f64::NAN,
    };
    let normalised = metrics::normalised(&log_weights).unwrap_or_default();
    let width = 3 * molecule.n_atoms();
    let d_weighted: f64 = chosen
        .iter()
        .zip(&normalised)
        .filter(|(i, _)| {
            molecule.fraction_l(&samples.positions[**i * width..(**i + 1) * width]) < 1.0
        })
        .map(|(_, weight)| weight)
        .sum();

    let reference_band = profile_band(&reference_phi, &[], &ladders, replicates, seed);
    let single: Vec<[usize; 2]> = (0..chosen.len()).map(|i| [i, i + 1]).collect();
    let profile = Profile {
        phi: (0..PROFILE_BINS)
            .map(|i| std::f64::consts::TAU * ((i as f64 + 0.5) / PROFILE_BINS as f64 - 0.5))
            .collect(),
        reference: reference_band,
        reweighted: profile_band(&chosen_phi, &normalised, &single, replicates, seed),
        proposal: free_energy_profile(&phi, &[], PROFILE_BINS),
    };
    run.set_seconds(Stage::Evaluate.name(), start.elapsed().as_secs_f64())?;

    let provenance = Provenance::now(seed);
    let summary = Summary {
        name: config.name.clone(),
        system: config.system.sequence.clone(),
        force_field: config.system.force_field.clone(),
        temperature: config.system.temperature,
        n_samples: samples.count(),
        n_reference,
        method: config.training.method.name().into(),
        likelihood_head: has_head,
        calibration: model.calibration,
        nfe: samples.evaluations,
        n_drawn: samples.draws,
        n_audited: audited.len(),
        folded_steps: samples.folded_steps,
        weights_from: weights_from.into(),
        ess_head: ess_by_head(&all),
        ess_head_audited: ess_by_head(&audited),
        ess_exact: ess_of(&exact_weights),
        ess_exact_clipped: metrics::clip(&exact_weights, CLIPPED).ess,
        n_traced: coverage.frames.len(),
        n_unreached: coverage.unreached(),
        heavy_share: coverage.heavy_share(),
        ess_reference: metrics::ess_from_target(&coverage.log_weights),
        likelihood_gap_mean,
        likelihood_gap_std,
        e_w2,
        e_w2_proposal,
        e_w2_floor,
        t_w2,
        t_w2_proposal,
        t_w2_floor,
        delta_f_kt: delta_f.value,
        delta_f_error_kt: error_of(&delta_f),
        delta_f_reference_kt: delta_f_reference.value,
        delta_f_reference_error_kt: error_of(&delta_f_reference),
        chirality_l_proposal: molecule.fraction_l(&samples.positions),
        chirality_l_weighted: 1.0 - d_weighted,
        epsilon: schedule.epsilon(),
        n_parameters: model.flow_map.layout().total(),
        training_steps: model.step as usize,
        skipped_steps: model.metadata.skipped as usize,
        seconds: run.seconds()?,
        threads: provenance.threads,
        simd_tier: provenance.simd_tier.into(),
        seed,
        version: provenance.version.into(),
        commit: provenance.commit.into(),
        date: provenance.date,
    };
    let log_mean = metrics::log_mean_weight_from_target(&coverage.log_weights);
    let relative = |values: &[f64]| values.iter().map(|v| v - log_mean).collect::<Vec<f64>>();
    let reference_pair = reference_part
        .torus
        .chunks_exact(dimension)
        .map(|row| (row[0], row[1]));
    let (reference_first_phi, reference_first_psi) = reference_pair.unzip();
    let report = Report {
        summary,
        recipe: settings::recipe(run, config, &model.metadata, &samples)?,
        reference: Ensemble {
            phi: reference_first_phi,
            psi: reference_first_psi,
            energy_kt: reference_part.energy_kt,
            weights: Vec::new(),
        },
        reweighted: Ensemble {
            phi: chosen_phi,
            psi: pick(&psi, &chosen),
            energy_kt: pick(&proposal.energy_kt, &chosen),
            weights: normalised,
        },
        proposal: Ensemble {
            phi,
            psi,
            energy_kt: proposal.energy_kt,
            weights: Vec::new(),
        },
        profile,
        curves: curves(run)?,
        head_log_q: pick(&samples.log_q_head, &audited),
        exact_log_q: pick(&samples.log_q_exact, &audited),
        sample_log_weights: relative(&log_weights),
        reference_log_weights: relative(&coverage.log_weights),
    };
    report.write(&run.report(), &run.summary())
}
