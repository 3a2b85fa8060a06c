//! The numbers of a run: `summary.json`.

use boltzmap_objectives::calibration::CalibrationReport;
use serde::{Serialize, Serializer};

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
    /// Samples whose likelihood was computed exactly.
    pub n_audited: usize,
    /// Steps of audited samples at which the determinant was not positive: there the map folds space
    /// over, and its change of variables gives a lower bound of the density.
    pub folded_steps: usize,
    /// Which log q the weights of the reported averages use: "exact" or "head".
    pub weights_from: String,
    /// Kish effective sample size over n, weights by the head's likelihood, all samples.
    pub ess_head: f64,
    /// The same on the audited samples by the head's likelihood.
    pub ess_head_audited: f64,
    /// The same on the audited samples by the exact likelihood.
    pub ess_exact: f64,
    /// As `ess_exact` after the largest 0.2 % of the weights are set to the largest that remains.
    pub ess_exact_clipped: f64,
    /// Reference frames at which the proposal's density was computed.
    pub n_traced: usize,
    /// Those of them that no noise leads to.
    pub n_unreached: usize,
    /// Share of the traced frames that would weigh more than a hundred times the mean weight: what the proposal nearly misses.
    pub heavy_share: f64,
    /// The effective sample size that the traced frames foretell, 1/(E_p\[w\] E_p\[1/w\]).
    pub ess_reference: f64,
    /// Mean of head − exact log-likelihood, nats.
    pub likelihood_gap_mean: f64,
    /// Standard deviation of head − exact log-likelihood, nats.
    pub likelihood_gap_std: f64,
    /// W2 between energies of the re-weighted samples and the reference, kT.
    pub e_w2: f64,
    /// The same for the unweighted proposal.
    pub e_w2_proposal: f64,
    /// The same between two independent halves of the reference (or sets of the samples' size).
    pub e_w2_floor: f64,
    /// W2 on the torus of φ and ψ between re-weighted samples and reference, rad.
    pub t_w2: f64,
    /// The same for the unweighted proposal, over the first 2500 samples and frames.
    pub t_w2_proposal: f64,
    /// The same between two independent sets of the reference.
    pub t_w2_floor: f64,
    /// Free energy of 0 < φ < 2 rad against the rest, kT, from the weighted samples.
    pub delta_f_kt: f64,
    /// Its standard error, kT.
    pub delta_f_error_kt: f64,
    /// The same from the reference dynamics.
    pub delta_f_reference_kt: f64,
    /// Its standard error, kT.
    pub delta_f_reference_error_kt: f64,
    /// Fraction of the proposal samples whose every residue is L.
    pub chirality_l_proposal: f64,
    /// The same of the weighted samples.
    pub chirality_l_weighted: f64,
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
