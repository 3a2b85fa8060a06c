//! `samples.npz`: samples with their log-likelihoods and what those are worth, energies, and the weights that follow.

use anyhow::{Context, Result, ensure};
use boltzmap_sampling::Likelihood;

use super::molecule::Molecule;
use super::settings::Settings;
use crate::card;
use crate::npz::{NpzFile, NpzWriter};
use crate::run_dir::RunDir;

/// The array of the settings that made the samples, as JSON.
const SETTINGS: &str = "settings";
/// The array of what `log_q_exact` is worth, as JSON.
const LIKELIHOOD: &str = "likelihood";

/// What `samples.npz` holds.
pub struct Samples {
    /// `[n, atoms, 3]`, nm, mean-free.
    pub positions: Vec<f64>,
    /// log q by the head on the mean-free Cartesian space (nm), given the domain and less ln c of the state; NaN where there is no head, `[n]`.
    pub log_q_head: Vec<f64>,
    /// log q that may be trusted, NaN where it was not computed, `[n]`.
    pub log_q_exact: Vec<f64>,
    /// What that is worth: exact, or integrated to a tolerance.
    pub likelihood: Likelihood,
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
        ensure!(
            file.contains(LIKELIHOOD),
            "{} does not say what its likelihoods are worth, for an older version wrote it; draw again with 'boltzmap sample {}'",
            path.display(),
            run.root().display()
        );
        let damaged = |what: &str| {
            format!(
                "the {what} in {} are damaged; draw again with 'boltzmap sample {}'",
                path.display(),
                run.root().display()
            )
        };
        let likelihood = file.array::<u8>(LIKELIHOOD, &[None])?.values;
        let likelihood =
            serde_json::from_slice(&likelihood).with_context(|| damaged("kinds of likelihood"))?;
        let settings = match file.contains(SETTINGS) {
            false => None,
            true => {
                let bytes = file.array::<u8>(SETTINGS, &[None])?.values;
                Some(serde_json::from_slice(&bytes).with_context(|| damaged("settings"))?)
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
            likelihood,
            settings,
        })
    }

    /// Writes them into a run, with their normalised `weights` and the digest of the checkpoint that drew them.
    pub fn write(
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
        let likelihood = serde_json::to_vec(&self.likelihood)?;
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
            .array(LIKELIHOOD, &[likelihood.len()], &likelihood)
            .array(SETTINGS, &[settings.len()], &settings)
            .write(&run.samples())
    }
}

/// Log-weights of the samples that have audited likelihoods, or where none has, of all by the head's; and what they rest on.
pub fn weights(samples: &Samples, thermal_energy: f64) -> (Vec<usize>, Vec<f64>, Likelihood) {
    let audited = samples.audited();
    if audited.is_empty() {
        let all: Vec<usize> = (0..samples.count()).collect();
        let log_weights = samples.log_weights(&samples.log_q_head, &all, thermal_energy);
        (all, log_weights, Likelihood::Reported)
    } else {
        let log_weights = samples.log_weights(&samples.log_q_exact, &audited, thermal_energy);
        (audited, log_weights, samples.likelihood)
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
