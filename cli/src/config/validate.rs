//! Ranges of the settings, and which of them contradict each other.

use anyhow::{Result, ensure};

use super::{Chart, Config, InstantiationKind, MethodKind, NetworkKind};
use crate::pipeline::frames::FEWEST_LADDERS;

fn at_least(path: &str, value: usize, least: usize) -> Result<()> {
    ensure!(
        value >= least,
        "{path} must be at least {least}, got {value}"
    );
    Ok(())
}

fn positive(path: &str, value: f64) -> Result<()> {
    ensure!(
        value > 0.0 && value.is_finite(),
        "{path} must be positive, got {value}"
    );
    Ok(())
}

fn not_negative(path: &str, value: f64) -> Result<()> {
    ensure!(
        value >= 0.0 && value.is_finite(),
        "{path} must not be negative, got {value}"
    );
    Ok(())
}

fn within(path: &str, value: f64, low: f64, high: f64) -> Result<()> {
    ensure!(
        (low..=high).contains(&value),
        "{path} must lie between {low} and {high}, got {value}"
    );
    Ok(())
}

impl Config {
    /// Refuses the first setting that is out of its range, by its name.
    pub(super) fn validate(&self) -> Result<()> {
        let name_is_plain = self
            .name
            .chars()
            .all(|c| c.is_alphanumeric() || "-_.+".contains(c));
        ensure!(
            !self.name.is_empty() && name_is_plain && !self.name.starts_with('.'),
            "name must consist of letters, digits and -_.+, got '{}'",
            self.name
        );
        positive("system.temperature", self.system.temperature)?;

        let data = &self.data;
        // For training, two independent reference sets and the coverage.
        at_least("data.ladders", data.ladders, FEWEST_LADDERS)?;
        at_least("data.temperatures", data.temperatures, 1)?;
        ensure!(
            data.t_max >= self.system.temperature && data.t_max.is_finite(),
            "data.t_max must be at least system.temperature ({} K), got {}",
            self.system.temperature,
            data.t_max
        );
        within("data.timestep_fs", data.timestep_fs, 0.01, 4.0)?;
        positive("data.friction", data.friction)?;
        at_least("data.exchange_interval", data.exchange_interval, 1)?;
        at_least("data.save_interval", data.save_interval, 1)?;
        // A millisecond: far beyond what is feasible, and far below where the count of steps would overflow.
        within("data.equilibration_ps", data.equilibration_ps, 0.0, 1e9)?;
        positive("data.production_ps", data.production_ps)?;
        within("data.production_ps", data.production_ps, 0.0, 1e9)?;
        at_least("data.train_frames", data.train_frames, 1)?;
        at_least("data.reference_frames", data.reference_frames, 2)?;
        within(
            "data.rare_basin_fraction",
            data.rare_basin_fraction,
            0.0,
            0.95,
        )?;
        within("data.warm_fraction", data.warm_fraction, 0.0, 0.95)?;
        positive("data.warm_t_max", data.warm_t_max)?;

        within(
            "coordinates.methyl_overlap",
            self.coordinates.methyl_overlap,
            0.0,
            60.0,
        )?;

        let network = &self.network;
        at_least("network.width", network.width, 1)?;
        at_least("network.layers", network.layers, 1)?;
        at_least("network.heads", network.heads, 1)?;
        at_least("network.mlp_ratio", network.mlp_ratio, 1)?;
        ensure!(
            network.width.is_multiple_of(network.heads),
            "network.heads must divide network.width ({}), got {}",
            network.width,
            network.heads
        );
        ensure!(
            network.kind != NetworkKind::Egnn || self.coordinates.chart == Chart::Cartesian,
            "network.kind \"egnn\" moves atoms in space and needs coordinates.chart \"cartesian\", got \"{}\"",
            self.coordinates.chart
        );

        let training = &self.training;
        at_least("training.steps", training.steps, 1)?;
        at_least("training.batch", training.batch, 1)?;
        positive("training.learning_rate", training.learning_rate)?;
        ensure!(
            (0.0..1.0).contains(&training.ema),
            "training.ema must lie between 0 and 1 (excluded), got {}",
            training.ema
        );
        not_negative("training.weight_decay", training.weight_decay)?;
        positive("training.clip", training.clip)?;
        within(
            "training.diagonal_fraction",
            training.diagonal_fraction,
            0.0,
            1.0,
        )?;
        for (path, share) in [
            ("training.start_fraction", training.start_fraction),
            ("training.end_fraction", training.end_fraction),
            ("training.distillation_start", training.distillation_start),
            ("training.data_end_fraction", training.data_end_fraction),
        ] {
            within(path, share, 0.0, 1.0)?;
        }
        not_negative("training.velocity_weight", training.velocity_weight)?;
        not_negative("training.divergence_weight", training.divergence_weight)?;
        not_negative("training.map_weight", training.map_weight)?;
        not_negative("training.log_det_weight", training.log_det_weight)?;
        at_least("training.f2d2_probes", training.f2d2_probes, 1)?;
        not_negative(
            "training.falcon_average_weight",
            training.falcon_average_weight,
        )?;
        not_negative("training.falcon_cycle_weight", training.falcon_cycle_weight)?;
        ensure!(
            training.velocity_weight > 0.0,
            "training.velocity_weight must be positive, for every method learns the velocity; got 0"
        );
        let off_diagonal = match training.method {
            MethodKind::Falcon => training.falcon_average_weight + training.falcon_cycle_weight,
            MethodKind::FlowMatching => 1.0,
            _ => training.map_weight + training.log_det_weight,
        };
        ensure!(
            off_diagonal > 0.0 || training.diagonal_fraction >= 1.0,
            "training.{} of method \"{}\" are both 0; give one of them a weight or set training.diagonal_fraction to 1",
            match training.method {
                MethodKind::Falcon => "falcon_average_weight and falcon_cycle_weight",
                _ => "map_weight and log_det_weight",
            },
            training.method
        );
        let distilled = training.method == MethodKind::F2d2
            && training.f2d2_instantiation == InstantiationKind::Distilled;
        ensure!(
            !distilled || training.distillation_start > 0.0,
            "training.distillation_start must be positive where training.f2d2_instantiation is \"distilled\": until then the teacher is trained"
        );
        positive("training.epsilon", training.epsilon)?;
        within("training.epsilon", training.epsilon, 0.0, 0.1)?;
        at_least("training.checkpoint_every", training.checkpoint_every, 1)?;

        let calibration = &self.calibration;
        ensure!(
            calibration.steps == 0 || training.method != MethodKind::FlowMatching,
            "calibration.steps must be 0 where training.method is \"flow_matching\": the continuous flow has no steps to calibrate"
        );
        at_least("calibration.trajectories", calibration.trajectories, 1)?;
        at_least("calibration.held_out", calibration.held_out, 2)?;
        at_least("calibration.batch", calibration.batch, 1)?;
        at_least("calibration.evaluate_every", calibration.evaluate_every, 1)?;
        at_least("calibration.patience", calibration.patience, 1)?;
        positive("calibration.learning_rate", calibration.learning_rate)?;

        within("sampling.tolerance", self.sampling.tolerance, 1e-12, 0.1)?;
        let guidance = self.sampling.guidance;
        ensure!(
            guidance.is_finite(),
            "sampling.guidance must be a number, got {guidance}"
        );
        let headless = [MethodKind::Falcon, MethodKind::FlowMatching];
        ensure!(
            guidance == 0.0 || (!headless.contains(&training.method) && calibration.steps == 0),
            "sampling.guidance must be 0 where training.method is \"falcon\" or \"flow_matching\" or calibration.steps is not 0: it follows the trained head's log-density; got {guidance}"
        );
        at_least("sampling.samples", self.sampling.samples, 2)?;
        at_least("sampling.steps", self.sampling.steps, 1)?;
        ensure!(
            self.audit.samples <= self.sampling.samples,
            "audit.samples must not exceed sampling.samples ({}), got {}",
            self.sampling.samples,
            self.audit.samples
        );
        at_least("evaluation.bootstrap", self.evaluation.bootstrap, 2)?;
        Ok(())
    }
}
