//! A trained model with its coordinates: what a checkpoint holds.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use boltzmap_kernels::random::Stream;
use boltzmap_models::checkpoint::Checkpoint;
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{DitConfig, EgnnConfig, MlpConfig, NetworkConfig};
use boltzmap_models::parameters::Parameters;
use boltzmap_models::schedule::Schedule;
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::calibration::CalibrationReport;
use boltzmap_objectives::divergence::{Divergence, DivergenceWatch};
use boltzmap_objectives::trainer::DataSource;
use boltzmap_physics::chart::{
    CartesianChart, Coordinates, InternalChart, InternalOptions, Whitening, ZMatrix,
};
use boltzmap_physics::rotations;
use serde::{Deserialize, Serialize};

use super::molecule::Molecule;
use super::settings::Settings;
use crate::config::{Chart, Config, NetworkKind, ScheduleKind};

/// Frequencies of the Fourier features of each time; the highest is 2⁴π, which keeps d/dt smooth.
const TIME_FREQUENCIES: usize = 5;

/// Fits the coordinates of a configuration to training frames `[n, atoms, 3]`, nm.
pub fn fit_coordinates(
    config: &Config,
    molecule: &Molecule,
    frames: &[f32],
) -> Result<Coordinates> {
    let n_atoms = molecule.n_atoms();
    Ok(match config.coordinates.chart {
        Chart::Cartesian => Coordinates::Cartesian(CartesianChart::fit(n_atoms, frames)?),
        Chart::Internal => {
            let matrix =
                ZMatrix::build(n_atoms, &molecule.topology.bonds, &molecule.atomic_numbers)?;
            let options = InternalOptions {
                whitening: if config.coordinates.whiten {
                    Whitening::Full
                } else {
                    Whitening::Diagonal
                },
                fold_rotors: config.coordinates.canonical_methyls,
                rotor_overlap: config.coordinates.methyl_overlap.to_radians(),
            };
            let numbers = &molecule.atomic_numbers;
            Coordinates::Internal(InternalChart::fit(matrix, numbers, options, frames)?)
        }
    })
}

/// The subspace on which states live.
pub fn subspace(coordinates: &Coordinates) -> Subspace {
    match coordinates.is_mean_free() {
        true => Subspace::MeanFree,
        false => Subspace::Full,
    }
}

/// The flow map's configuration for states of these coordinates.
pub fn flow_map_config(
    config: &Config,
    coordinates: &Coordinates,
    molecule: &Molecule,
) -> FlowMapConfig {
    let [tokens, channels] = coordinates.state_shape();
    let network = &config.network;
    let network = match network.kind {
        NetworkKind::Dit => NetworkConfig::Dit(DitConfig {
            tokens,
            channels,
            width: network.width,
            layers: network.layers,
            heads: network.heads,
            mlp_ratio: network.mlp_ratio,
            conditioning_width: network.width,
            time_frequencies: TIME_FREQUENCIES,
        }),
        NetworkKind::Mlp => NetworkConfig::Mlp(MlpConfig {
            tokens,
            channels,
            width: network.width,
            blocks: network.layers,
            conditioning_width: network.width,
            time_frequencies: TIME_FREQUENCIES,
        }),
        // Its tokens are the atoms: the configuration allows it in Cartesian coordinates only.
        NetworkKind::Egnn => NetworkConfig::Egnn(EgnnConfig {
            tokens,
            channels,
            token_types: molecule.atom_classes(),
            width: network.width,
            layers: network.layers,
            conditioning_width: network.width,
            time_frequencies: TIME_FREQUENCIES,
        }),
    };
    FlowMapConfig {
        subspace: subspace(coordinates),
        network,
    }
}

/// The times at which the map is deployed, from 0 to 1 − ε.
pub fn schedule(config: &Config) -> Result<Schedule> {
    let (steps, epsilon) = (config.sampling.steps, config.training.epsilon);
    let schedule = match config.sampling.schedule {
        ScheduleKind::Uniform => Schedule::uniform(steps, epsilon),
        ScheduleKind::Quadratic => Schedule::power(steps, epsilon, 2.0),
        ScheduleKind::Karras => Schedule::power(steps, epsilon, 7.0),
        ScheduleKind::Angle => {
            // t/(1−t) = tan θ: along θ the rescaled interpolant x_t/S_t = x₁ sin θ + z cos θ moves at constant speed.
            let last = (1.0 - epsilon).atan2(epsilon);
            let times = (0..=steps).map(|k| {
                let theta = last * k as f64 / steps as f64;
                theta.sin() / (theta.sin() + theta.cos())
            });
            Schedule::explicit(times.collect())
        }
    };
    Ok(schedule?)
}

/// Training frames as states, augmented where the coordinates leave a symmetry.
pub struct Frames {
    states: Vec<f32>,
    size: usize,
    rotate: bool,
}

impl Frames {
    /// Encodes frames `[n, atoms, 3]`, nm.
    pub fn new(coordinates: &Coordinates, positions: &[f32]) -> Result<Frames> {
        let encoded = coordinates.encode(positions)?;
        let [tokens, channels] = coordinates.state_shape();
        Ok(Frames {
            states: encoded.state.iter().map(|&value| value as f32).collect(),
            size: tokens * channels,
            rotate: matches!(coordinates, Coordinates::Cartesian(_)),
        })
    }
}

impl DataSource for Frames {
    fn len(&self) -> usize {
        self.states.len() / self.size
    }

    fn write(&self, index: usize, stream: &mut Stream, state: &mut [f32]) {
        state.copy_from_slice(&self.states[index * self.size..(index + 1) * self.size]);
        if self.rotate {
            rotations::rotate(&rotations::random_rotation(stream), state);
        }
    }
}

/// A trained flow map with its coordinates.
pub struct Model {
    /// The map.
    pub flow_map: FlowMap,
    /// The moving average of its parameters, which is what samples are drawn with.
    pub parameters: Parameters<f32>,
    /// The parameters of a calibrated divergence head, where there is one.
    pub head: Option<Parameters<f32>>,
    /// The coordinates it acts on.
    pub coordinates: Coordinates,
    /// Steps of training taken.
    pub step: u64,
    /// What the calibration did, where there was one.
    pub calibration: Option<CalibrationReport>,
    /// All that its checkpoint says of the training.
    pub metadata: ModelMetadata,
}

/// A setting that was changed in the course of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The first step with the new value.
    pub step: u64,
    /// The setting's path.
    pub path: String,
    /// Its value before.
    pub before: String,
    /// Its value from there on.
    pub after: String,
}

/// How a training went wrong after the checkpoint that tells of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub divergence: Divergence,
    /// The settings with which it did.
    pub settings: Settings,
}

/// What a checkpoint's metadata say besides the training's own state. What older checkpoints lack is absent.
#[derive(Clone, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The map's configuration.
    pub flow_map: FlowMapConfig,
    /// The coordinates.
    pub coordinates: Coordinates,
    /// Steps of training taken, skipped ones included.
    pub step: u64,
    /// Steps skipped because their gradient was not finite.
    pub skipped: u64,
    /// What the calibration did, once there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationReport>,
    /// The settings that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// SHA-256 of the data that it was trained on, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// Settings that were others for the earlier steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What watches the losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<DivergenceWatch>,
    /// How the training diverged after this checkpoint, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<Failure>,
}

/// Prefix of the moving average's tensors. A slash keeps them apart from the network's own, whose names have dots.
pub const AVERAGE_PREFIX: &str = "average/";
/// Prefix of a frozen teacher's tensors, which only the training needs.
pub const TEACHER_PREFIX: &str = "teacher/";
/// Prefix of a calibrated divergence head's tensors.
pub const HEAD_PREFIX: &str = "head/";

/// A level of the flow-matching loss, in units of its start, above which a training was not steady.
const UNSTEADY: f32 = 10.0;

impl ModelMetadata {
    /// What was not as it should be in a training that went to its end; none where it was healthy.
    pub fn unsteadiness(&self) -> Option<String> {
        let (level, step) = self.watch.as_ref()?.peak();
        match self.skipped {
            0 if level <= UNSTEADY => None,
            0 => Some(format!(
                "the training was unsteady, its flow-matching loss stood at {level:.0} times that of the start in step {step}"
            )),
            skipped => Some(format!(
                "the training skipped {skipped} of {} steps, whose gradient was not finite",
                self.step
            )),
        }
    }

    /// What to do where samples are bad: how to train otherwise, judged by how the training went.
    pub fn advice(&self) -> String {
        match self.unsteadiness() {
            None => "train longer".into(),
            Some(text) => format!("{text}: lower training.learning_rate and train again"),
        }
    }

    /// Reads the metadata of a checkpoint.
    pub fn of(checkpoint: &Checkpoint, path: &Path) -> Result<ModelMetadata> {
        serde_json::from_value(checkpoint.metadata.clone()).with_context(|| {
            format!(
                "the metadata of {} are not those of a boltzmap checkpoint; train again",
                path.display()
            )
        })
    }
}

/// Refuses the coordinates of a molecule with another number of atoms.
pub fn require_atoms(coordinates: &Coordinates, molecule: &Molecule, path: &Path) -> Result<()> {
    let held = coordinates.n_atoms();
    ensure!(
        held == molecule.n_atoms(),
        "{} was trained on another molecule, of {held} atoms where the configuration's has {}; train again",
        path.display(),
        molecule.n_atoms()
    );
    Ok(())
}

/// The parameters of a calibrated head, where a checkpoint holds one.
pub fn calibrated_head(checkpoint: &Checkpoint, map: &FlowMap) -> Result<Option<Parameters<f32>>> {
    let held = checkpoint
        .tensors
        .keys()
        .any(|name| name.starts_with(HEAD_PREFIX));
    Ok(held
        .then(|| checkpoint.parameters(HEAD_PREFIX, map.layout()))
        .transpose()?)
}

impl Model {
    /// Reads the model of a finished training.
    pub fn read(path: &Path, steps: u64) -> Result<Model> {
        let checkpoint = Checkpoint::read(path)?;
        let metadata = ModelMetadata::of(&checkpoint, path)?;
        ensure!(
            metadata.step >= steps,
            "{} stops at step {} of {steps}{}",
            path.display(),
            metadata.step,
            match &metadata.diverged {
                None => "; finish the training first with 'boltzmap train --resume'".to_owned(),
                Some(failure) => format!(
                    ", for the training diverged from step {} on; 'boltzmap train --resume' says what to change",
                    failure.divergence.first.step
                ),
            }
        );
        let flow_map = FlowMap::new(&metadata.flow_map)?;
        let parameters = checkpoint
            .parameters(AVERAGE_PREFIX, flow_map.layout())
            .with_context(|| format!("cannot use {}", path.display()))?;
        let head = calibrated_head(&checkpoint, &flow_map)
            .with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Model {
            flow_map,
            parameters,
            head,
            coordinates: metadata.coordinates.clone(),
            step: metadata.step,
            calibration: metadata.calibration,
            metadata,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_objectives::divergence::Observed;

    /// Metadata of a training whose flow-matching loss stood at `level` times the start for a while and that skipped `skipped` steps.
    fn metadata(level: f64, skipped: u64) -> ModelMetadata {
        let mut watch = DivergenceWatch::new("flow_matching");
        for step in 0..40 {
            let loss = if step < 30 { 1.0 } else { level };
            let observed = Observed {
                step,
                parts: &[("flow_matching".to_owned(), loss)],
                gradient_norm: 1.0,
            };
            assert_eq!(watch.observe(observed), None);
        }
        let chart = CartesianChart::fit(2, &[0.1, 0.0, 0.0, -0.1, 0.0, 0.0]).expect("two atoms");
        ModelMetadata {
            flow_map: FlowMapConfig {
                subspace: Subspace::MeanFree,
                network: NetworkConfig::Mlp(MlpConfig {
                    tokens: 2,
                    channels: 3,
                    width: 4,
                    blocks: 1,
                    conditioning_width: 4,
                    time_frequencies: 1,
                }),
            },
            coordinates: Coordinates::Cartesian(chart),
            step: 40,
            skipped,
            calibration: None,
            settings: None,
            data_sha256: None,
            changes: Vec::new(),
            watch: Some(watch),
            diverged: None,
        }
    }

    #[test]
    fn bad_samples_of_a_bad_training_do_not_ask_for_more_of_it() {
        assert_eq!(metadata(1.0, 0).advice(), "train longer");
        assert_eq!(metadata(3.0, 0).advice(), "train longer");
        let unsteady = metadata(30.0, 0).advice();
        assert!(
            unsteady.contains("30 times") && unsteady.contains("lower training.learning_rate"),
            "{unsteady}"
        );
        let skipped = metadata(1.0, 7).advice();
        assert!(
            skipped.contains("skipped 7 of 40 steps")
                && skipped.contains("lower training.learning_rate")
                && !skipped.contains("longer"),
            "{skipped}"
        );
    }

    /// What watches the losses is read as it was written, to the last bit: a resumed training writes the same checkpoint.
    #[test]
    fn metadata_are_read_as_they_were_written() {
        let written = serde_json::to_string(&metadata(1.0 / 3.0, 2)).unwrap();
        let read: ModelMetadata = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
        assert_eq!(read.watch, metadata(1.0 / 3.0, 2).watch);
    }
}
