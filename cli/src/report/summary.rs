//! The numbers of a run: `summary.json`.

use boltzmap_objectives::calibration::CalibrationReport;
use boltzmap_sampling::Likelihood;
use serde::{Serialize, Serializer};

use crate::pipeline::evaluate::{BasinShares, ReferenceQuality};
use crate::pipeline::normalisation::Normalisation;

/// Everything that `summary.json` holds. Numbers that could not be computed are NaN here and `null` there.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Name of the run's configuration.
    pub name: String,
    /// Peptide sequence.
    pub system: String,
    /// Force field.
    pub force_field: String,
    /// Temperature, K.
    pub temperature: f64,
    /// Proposal samples.
    pub n_samples: usize,
    /// States drawn until `n_samples` lay in the coordinates' domain and had the target's peptide bonds; each cost `nfe` evaluations.
    pub n_drawn: usize,
    /// Frames of the reference.
    pub n_reference: usize,
    /// How the map was trained.
    pub method: String,
    /// Whether it has a divergence head. Without one there is no likelihood by the head, and all of its numbers are null.
    pub likelihood_head: bool,
    /// What the calibration of the head did; null where there was none.
    pub calibration: Option<CalibrationReport>,
    /// Network evaluations per sample, its likelihood by the head included: one per step, two with a calibrated head; of a
    /// continuous flow those of the most demanding block of samples.
    pub nfe: usize,
    /// Tangents of every step that an exact likelihood takes beside these evaluations.
    pub exact_tangents_per_step: usize,
    /// Samples whose likelihood was computed exactly.
    pub n_audited: usize,
    /// Steps of audited samples at which the determinant was not positive: there the map folds space
    /// over, and its change of variables gives a lower bound of the density.
    pub folded_steps: usize,
    /// What the weights of the reported averages rest on: exact or integrated likelihoods, or what the head reports.
    pub likelihood: Likelihood,
    /// Strength of the self-guidance of the samples; 0 without.
    pub guidance: f64,
    /// Kish effective sample size over n, weights by the head's likelihood, all samples.
    pub ess_head: f64,
    /// The same on the audited samples by the head's likelihood.
    pub ess_head_audited: f64,
    /// The same on the audited samples by the exact likelihood.
    pub ess_exact: f64,
    /// As `ess_exact` of the samples that remain when those with the largest 0.2 % of the weights are left out.
    pub ess_exact_clipped: f64,
    /// Reference frames at which the proposal's density was computed.
    pub n_traced: usize,
    /// Those of them that no noise leads to.
    pub n_unreached: usize,
    /// Share of the traced frames that would weigh more than a hundred times the mean weight: what the proposal nearly misses.
    pub heavy_share: f64,
    /// The effective sample size that the traced frames foretell, E_q\[w\]/E_p\[w\] with E_q from the samples.
    pub ess_reference: f64,
    /// Its standard error, by a bootstrap over samples and ladders.
    pub ess_reference_error: f64,
    /// Share of the proposal that the traced frames see, E_q\[w\] E_p\[1/w\].
    pub proposal_seen: f64,
    /// Its standard error.
    pub proposal_seen_error: f64,
    /// Mean of head − exact log-likelihood, nats.
    pub likelihood_gap_mean: f64,
    /// Standard deviation of head − exact log-likelihood, nats.
    pub likelihood_gap_std: f64,
    /// W2 between energies of the re-weighted samples and the reference, kT.
    pub e_w2: f64,
    /// The same for the unweighted proposal.
    pub e_w2_proposal: f64,
    /// The same between two independent sets of the reference of that size.
    pub e_w2_floor: f64,
    /// W2 on the torus of φ and ψ between re-weighted samples and reference, rad.
    pub t_w2: f64,
    /// The same for the unweighted proposal, over 2500 samples and as many frames of all ladders.
    pub t_w2_proposal: f64,
    /// The same between two independent sets of the reference.
    pub t_w2_floor: f64,
    /// What the reference knows.
    pub reference: ReferenceQuality,
    /// The state whose free energy against the rest the following numbers are.
    pub delta_f_state: String,
    /// Whether that is the mirror image of the usual state, for the residue is a D-residue.
    pub delta_f_mirrored: bool,
    /// ΔF, kT, from the weighted samples.
    pub delta_f_kt: f64,
    /// Its standard error, kT; null where too few samples lie in the state, as for the others.
    pub delta_f_error_kt: f64,
    /// The same by the head's likelihoods.
    pub delta_f_head_kt: f64,
    /// Its standard error, kT.
    pub delta_f_head_error_kt: f64,
    /// ΔF by the head less ΔF by exact likelihoods on the same samples, kT.
    pub delta_f_head_minus_exact_kt: f64,
    /// The standard error of this difference, kT.
    pub delta_f_head_minus_exact_error_kt: f64,
    /// The same from the reference dynamics.
    pub delta_f_reference_kt: f64,
    /// Its standard error, kT.
    pub delta_f_reference_error_kt: f64,
    /// The basins of every residue's φ, as the dynamics has them.
    pub basins: Vec<BasinShares>,
    /// Whether likelihoods integrate to one; null where that was not tested.
    pub normalisation: Option<Normalisation>,
    /// Cα atoms with a side chain, whose handedness the sequence says.
    pub chirality_centres: usize,
    /// Fraction of the proposal samples with that handedness at every one; null where there is none.
    pub chirality_proposal: f64,
    /// The same of the weighted samples.
    pub chirality_weighted: f64,
    /// ε: times lie in [0, 1 − ε].
    pub epsilon: f64,
    /// Parameters of the network.
    pub n_parameters: usize,
    /// Optimiser steps made.
    pub training_steps: usize,
    /// Those of them that were skipped because their gradient was not finite.
    pub skipped_steps: usize,
    /// Wall-clock seconds by stage.
    #[serde(serialize_with = "as_map")]
    pub seconds: Vec<(String, f64)>,
    /// Worker threads.
    pub threads: usize,
    /// Instruction tier of the kernels.
    pub simd_tier: String,
    /// Seed of the run.
    pub seed: u64,
    /// Version of the crate.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// When the summary was made, UTC.
    pub date: String,
}

fn as_map<S: Serializer>(seconds: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(seconds.iter().map(|(name, value)| (name, value)))
}

impl Summary {
    /// The file's text.
    pub fn to_json(&self) -> String {
        let text =
            serde_json::to_string_pretty(self).expect("a summary consists of numbers and strings");
        format!("{text}\n")
    }

    /// Seconds of all stages together.
    pub fn total_seconds(&self) -> f64 {
        self.seconds.iter().map(|(_, seconds)| seconds).sum()
    }
}
