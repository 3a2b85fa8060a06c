//! Metrics, `summary.json` and `report.html`.

mod distances;
mod free_energy;
mod reference;

pub use free_energy::BasinShares;
pub use reference::ReferenceQuality;

use std::time::Instant;

use anyhow::Result;
use boltzmap_sampling::Likelihood;
use boltzmap_statistics::{self as statistics, Interval};

use super::Stage;
use super::coverage::Coverage;
use super::data::Data;
use super::model::{self, Model};
use super::molecule::Molecule;
use super::normalisation::{self, Estimate, Normalisation};
use super::proposals::{has_head, model_of};
use super::samples::{self, Samples};
use super::settings;
use crate::config::Config;
use crate::progress;
use crate::report::{Curve, Ensemble, Profile, Report, Summary, free_energy_profile};
use crate::run_dir::{Provenance, RunDir, read_metrics};
use distances::{Compared, Distances};
use free_energy::{PROFILE_BINS, Weighted, error_of, ladder_groups, profile_band};

/// Seed of resampling.
const SEED_RESAMPLE: u64 = 0x7265_7361;
/// Share of the largest weights that the clipped effective sample size leaves out.
const CLIPPED: f64 = 0.002;

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

/// Mean and standard deviation; NaN of fewer than two values.
pub(super) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    if values.len() < 2 {
        return (f64::NAN, f64::NAN);
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (values.len() - 1) as f64).sqrt())
}

/// What a run made, as the metrics need it.
struct Inputs<'i> {
    config: &'i Config,
    molecule: Molecule,
    data: Data,
    samples: Samples,
    model: Model,
    /// Places of the samples that carry weights.
    chosen: Vec<usize>,
    /// Their log-weights.
    log_weights: Vec<f64>,
    /// What they rest on.
    likelihood: Likelihood,
    /// Whether there are likelihoods by a head.
    has_head: bool,
    /// φ₁, ψ₁, … of all samples, rad.
    torus: Vec<f64>,
}

impl<'i> Inputs<'i> {
    fn read(run: &RunDir, config: &'i Config) -> Result<Inputs<'i>> {
        let molecule = Molecule::new(config)?;
        let data = Data::read(run, &molecule)?;
        let samples = Samples::read(run, &molecule)?;
        let model = model_of(run, config, &molecule)?;
        settings::check_data(run, config)?;
        settings::check_samples(run, config, &samples)?;
        let (chosen, log_weights, likelihood) = samples::weights(&samples, molecule.thermal_energy);
        Ok(Inputs {
            has_head: has_head(&model, config),
            torus: molecule.torus(&samples.positions),
            config,
            molecule,
            data,
            samples,
            model,
            chosen,
            log_weights,
            likelihood,
        })
    }

    /// log-weights of chosen samples by the head.
    fn head_weights(&self, which: &[usize]) -> Vec<f64> {
        let (samples, kt) = (&self.samples, self.molecule.thermal_energy);
        samples.log_weights(&samples.log_q_head, which, kt)
    }

    fn torus_of(&self, which: &[usize]) -> Vec<f64> {
        let d = self.molecule.torus_dimension;
        let rows = which.iter().flat_map(|&i| &self.torus[i * d..(i + 1) * d]);
        rows.copied().collect()
    }

    /// φ of the first residue in rows of the torus.
    fn first_phi(&self, torus: &[f64]) -> Vec<f64> {
        let rows = torus.chunks_exact(self.molecule.torus_dimension);
        rows.map(|row| row[0]).collect()
    }

    /// ψ of the first residue in rows of the torus.
    fn first_psi(&self, torus: &[f64]) -> Vec<f64> {
        let rows = torus.chunks_exact(self.molecule.torus_dimension);
        rows.map(|row| row[1]).collect()
    }

    /// Weighted and bare shares of the samples whose chirality is the sequence's; NaN where there is no centre.
    fn chirality(&self, normalised: &[f64]) -> (f64, f64) {
        let bare = self
            .molecule
            .fraction_chirality_kept(&self.samples.positions);
        if bare.is_nan() || normalised.is_empty() {
            return (f64::NAN, bare);
        }
        let width = 3 * self.molecule.n_atoms();
        let changed = |i: usize| {
            let frame = &self.samples.positions[i * width..(i + 1) * width];
            self.molecule.fraction_chirality_kept(frame) < 1.0
        };
        let lost: f64 = self
            .chosen
            .iter()
            .zip(normalised)
            .filter(|(i, _)| changed(**i))
            .map(|(_, weight)| weight)
            .sum();
        (1.0 - lost, bare)
    }
}

/// ΔF of the state by the weights reported, by the head and by the reference, kT.
struct FreeEnergies {
    reweighted: Interval,
    by_head: Interval,
    /// By the head less the exact one, with its standard error.
    head_minus_exact: (f64, f64),
    reference: Interval,
}

impl FreeEnergies {
    fn measure(inputs: &Inputs<'_>) -> Result<FreeEnergies> {
        let (config, molecule) = (inputs.config, &inputs.molecule);
        let (replicates, seed) = (config.evaluation.bootstrap, config.seed);
        let as_in_l = |phi: Vec<f64>| -> Vec<f64> {
            phi.into_iter()
                .map(|phi| molecule.as_in_l(0, phi))
                .collect()
        };
        let phi = as_in_l(inputs.first_phi(&inputs.torus_of(&inputs.chosen)));
        let none = Interval {
            value: f64::NAN,
            standard_error: f64::NAN,
            low: f64::NAN,
            high: f64::NAN,
            infinite: 0,
        };
        let (mut by_head, mut difference) = (none, (f64::NAN, f64::NAN));
        if inputs.has_head {
            let head = inputs.head_weights(&inputs.chosen);
            by_head = statistics::delta_f_interval(&phi, Some(&head), replicates, seed)?;
            if inputs.likelihood.is_audited() {
                let in_state: Vec<bool> = phi
                    .iter()
                    .map(|&phi| statistics::free_energy::is_positive_state(phi))
                    .collect();
                difference = free_energy::head_minus_exact(
                    &in_state,
                    &inputs.log_weights,
                    &head,
                    replicates,
                    seed,
                );
            }
        }
        let reference = as_in_l(inputs.first_phi(&inputs.data.torus));
        let ladders = ladder_groups(&inputs.data.ladder);
        Ok(FreeEnergies {
            reweighted: statistics::delta_f_interval(
                &phi,
                Some(&inputs.log_weights),
                replicates,
                seed,
            )?,
            by_head,
            head_minus_exact: difference,
            reference: statistics::delta_f_grouped(&reference, None, &ladders, replicates, seed)?,
        })
    }
}

/// Computes all metrics of a run and writes its report.
pub fn evaluate(run: &RunDir, config: &Config) -> Result<()> {
    let start = Instant::now();
    let inputs = Inputs::read(run, config)?;
    let (molecule, data, samples) = (&inputs.molecule, &inputs.data, &inputs.samples);
    let (kt, seed, replicates) = (
        molecule.thermal_energy,
        config.seed,
        config.evaluation.bootstrap,
    );
    progress::note("evaluate: distances, free energies, report");
    let reference = Compared::frames(&data.reference, molecule)?;
    let second = Compared::frames(&data.second, molecule)?;
    let held_out = Compared::frames(&data.coverage, molecule)?;
    let proposal = Compared::new(
        inputs.torus.clone(),
        samples.energy.iter().map(|e| e / kt),
        molecule.torus_dimension,
    );
    let compared = reference.count().min(samples.count());
    let resampled: Vec<usize> =
        statistics::resample_systematic(&inputs.log_weights, compared, seed ^ SEED_RESAMPLE, 0)
            .unwrap_or_default()
            .into_iter()
            .map(|k| inputs.chosen[k])
            .collect();
    let inside: Vec<usize> = (0..samples.count())
        .filter(|&i| samples.energy[i].is_finite())
        .take(compared)
        .collect();
    let distances = Distances::measure(&proposal, &resampled, &inside, &reference, &second)?;
    let coverage = Coverage::measure(
        &inputs.model,
        config,
        molecule,
        &data.coverage,
        &held_out.energy_kt,
        &data.coverage_ladder,
        samples,
    )?;
    let normalisation = audit_normalisation(&inputs, &reference, &second, &held_out, &coverage)?;
    let free_energies = FreeEnergies::measure(&inputs)?;
    let normalised = statistics::normalised(&inputs.log_weights).unwrap_or_default();
    let mut summary = summarise(&inputs, &distances, &coverage, &free_energies, &normalised)?;
    summary.reference = ReferenceQuality::measure(data, molecule, compared);
    summary.normalisation = normalisation;
    run.set_seconds(Stage::Evaluate.name(), start.elapsed().as_secs_f64())?;
    summary.seconds = run.seconds()?;

    let weighted_torus = inputs.torus_of(&inputs.chosen);
    let weighted_phi = inputs.first_phi(&weighted_torus);
    let reference_phi = inputs.first_phi(&data.torus);
    let single: Vec<[usize; 2]> = (0..inputs.chosen.len()).map(|i| [i, i + 1]).collect();
    let phi = inputs.first_phi(&inputs.torus);
    let ladders = ladder_groups(&data.ladder);
    let profile = Profile {
        phi: (0..PROFILE_BINS)
            .map(|i| std::f64::consts::TAU * ((i as f64 + 0.5) / PROFILE_BINS as f64 - 0.5))
            .collect(),
        reference: profile_band(&reference_phi, &[], &ladders, replicates, seed),
        reweighted: profile_band(&weighted_phi, &normalised, &single, replicates, seed),
        proposal: free_energy_profile(&phi, &[], PROFILE_BINS),
    };
    let log_mean = statistics::log_mean_weight(&inputs.log_weights);
    let relative = |values: &[f64]| values.iter().map(|v| v - log_mean).collect::<Vec<f64>>();
    let shown = reference.thinned(compared);
    let audited = samples.audited();
    let pick =
        |values: &[f64], which: &[usize]| which.iter().map(|&i| values[i]).collect::<Vec<f64>>();
    let report = Report {
        summary,
        recipe: settings::recipe(run, config, &inputs.model.metadata, samples)?,
        reference: Ensemble {
            phi: inputs.first_phi(&shown.torus),
            psi: inputs.first_psi(&shown.torus),
            energy_kt: shown.energy_kt,
            weights: Vec::new(),
        },
        reweighted: Ensemble {
            phi: weighted_phi,
            psi: inputs.first_psi(&weighted_torus),
            energy_kt: pick(&proposal.energy_kt, &inputs.chosen),
            weights: normalised,
        },
        proposal: Ensemble {
            phi,
            psi: inputs.first_psi(&inputs.torus),
            energy_kt: proposal.energy_kt,
            weights: Vec::new(),
        },
        profile,
        curves: curves(run)?,
        head_log_q: pick(&samples.log_q_head, &audited),
        exact_log_q: pick(&samples.log_q_exact, &audited),
        sample_log_weights: relative(&inputs.log_weights),
        reference_log_weights: relative(&coverage.log_weights),
    };
    report.write(&run.report(), &run.summary())
}

/// The audit of the likelihoods' normalisation, printed as it is found.
fn audit_normalisation(
    inputs: &Inputs<'_>,
    reference: &Compared,
    second: &Compared,
    held_out: &Compared,
    coverage: &Coverage,
) -> Result<Option<Normalisation>> {
    if !inputs.config.audit.normalisation {
        return Ok(None);
    }
    fn frames<'f>(positions: &'f [f32], compared: &'f Compared) -> normalisation::Frames<'f> {
        normalisation::Frames {
            positions,
            torus: &compared.torus,
            energy_kt: &compared.energy_kt,
        }
    }
    // 1/w of frames that no noise leads to is 0.
    let inverse: Vec<f64> = coverage.log_weights.iter().map(|w| -w).collect();
    let of_frames = normalisation::log_mean_over_ladders(&inverse, &coverage.ladders);
    let traced = Estimate {
        value: -of_frames.value,
        ..of_frames
    };
    // Both sets that samples are compared with, for the Gaussians of rare regions need frames.
    let positions = [&inputs.data.reference[..], &inputs.data.second].concat();
    let fitted_to = reference.and(second);
    let found = normalisation::measure(
        &inputs.model,
        &inputs.molecule,
        &inputs.samples,
        &frames(&positions, &fitted_to),
        &frames(&inputs.data.coverage, held_out),
        &inputs.data.coverage_ladder,
        traced,
        inputs.config.seed,
    )?;
    if let Some(found) = &found {
        for line in found.lines() {
            progress::note(&line);
        }
    }
    Ok(found)
}

/// The numbers of the run, but for the reference's quality and the normalisation.
fn summarise(
    inputs: &Inputs<'_>,
    distances: &Distances,
    coverage: &Coverage,
    free_energies: &FreeEnergies,
    normalised: &[f64],
) -> Result<Summary> {
    let (config, molecule, samples) = (inputs.config, &inputs.molecule, &inputs.samples);
    let (replicates, model) = (config.evaluation.bootstrap, &inputs.model);
    let all: Vec<usize> = (0..samples.count()).collect();
    let audited = samples.audited();
    let gaps: Vec<f64> = audited
        .iter()
        .map(|&i| samples.log_q_head[i] - samples.log_q_exact[i])
        .collect();
    let (likelihood_gap_mean, likelihood_gap_std) = mean_and_deviation(&gaps);
    let exact_weights =
        samples.log_weights(&samples.log_q_exact, &audited, molecule.thermal_energy);
    let ess_of = |log_weights: &[f64]| match log_weights.is_empty() {
        true => f64::NAN,
        false => statistics::ess(log_weights),
    };
    let ess_by_head = |which: &[usize]| match inputs.has_head {
        true => ess_of(&inputs.head_weights(which)),
        false => f64::NAN,
    };
    let foretold = coverage.foretold(&inputs.log_weights, replicates, config.seed);
    let head = match inputs.has_head {
        true => statistics::normalised(&inputs.head_weights(&inputs.chosen)).unwrap_or_default(),
        false => Vec::new(),
    };
    let weighted_torus = inputs.torus_of(&inputs.chosen);
    let weighted = Weighted {
        torus: &weighted_torus,
        weights: normalised,
        head: &head,
    };
    let (chirality_weighted, chirality_proposal) = inputs.chirality(normalised);
    let provenance = Provenance::now(config.seed);
    let error = |interval: &Interval| error_of(interval, replicates);
    Ok(Summary {
        name: config.name.clone(),
        system: config.system.sequence.clone(),
        force_field: config.system.force_field.clone(),
        temperature: config.system.temperature,
        n_samples: samples.count(),
        n_drawn: samples.draws,
        n_reference: inputs.data.reference.len() / (3 * molecule.n_atoms()),
        method: config.training.method.name().into(),
        likelihood_head: inputs.has_head,
        calibration: model.calibration,
        nfe: samples.evaluations,
        exact_tangents_per_step: model.flow_map.dimension(),
        n_audited: audited.len(),
        folded_steps: samples.folded_steps,
        likelihood: inputs.likelihood,
        guidance: config.sampling.guidance,
        ess_head: ess_by_head(&all),
        ess_head_audited: ess_by_head(&audited),
        ess_exact: ess_of(&exact_weights),
        ess_exact_clipped: statistics::clip(&exact_weights, CLIPPED).ess,
        n_traced: coverage.count(),
        n_unreached: coverage.unreached(),
        heavy_share: coverage.heavy_share(statistics::log_mean_weight(&inputs.log_weights)),
        ess_reference: foretold.ess,
        ess_reference_error: foretold.ess_error,
        proposal_seen: foretold.seen,
        proposal_seen_error: foretold.seen_error,
        likelihood_gap_mean,
        likelihood_gap_std,
        e_w2: distances.reweighted.0,
        e_w2_proposal: distances.proposal.0,
        e_w2_floor: distances.floor.0,
        t_w2: distances.reweighted.1,
        t_w2_proposal: distances.proposal.1,
        t_w2_floor: distances.floor.1,
        reference: ReferenceQuality::default(),
        delta_f_state: molecule.state(0, &molecule.torsion_names()[0]),
        delta_f_mirrored: molecule.as_in_l(0, 1.0) < 0.0,
        delta_f_kt: free_energies.reweighted.value,
        delta_f_error_kt: error(&free_energies.reweighted),
        delta_f_head_kt: free_energies.by_head.value,
        delta_f_head_error_kt: error(&free_energies.by_head),
        delta_f_head_minus_exact_kt: free_energies.head_minus_exact.0,
        delta_f_head_minus_exact_error_kt: free_energies.head_minus_exact.1,
        delta_f_reference_kt: free_energies.reference.value,
        delta_f_reference_error_kt: error(&free_energies.reference),
        basins: free_energy::basin_shares(&inputs.data, molecule, &inputs.torus, &weighted),
        normalisation: None,
        chirality_centres: molecule.backbone.centres.len(),
        chirality_proposal,
        chirality_weighted,
        epsilon: model::schedule(config)?.epsilon(),
        n_parameters: model.flow_map.layout().total(),
        training_steps: model.step as usize,
        skipped_steps: model.metadata.skipped as usize,
        seconds: Vec::new(),
        threads: provenance.threads,
        simd_tier: provenance.simd_tier.into(),
        seed: config.seed,
        version: provenance.version.into(),
        commit: provenance.commit.into(),
        date: provenance.date,
    })
}
