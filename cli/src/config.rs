//! Configuration: presets, TOML files and `--set`, merged into one resolved [`Config`].
//!
//! The default preset's file holds every key with its documentation and default value. It is the schema too: a
//! key that it lacks does not exist, and the type of its value is the type of the setting.

mod merge;
mod recipe;
mod render;
mod suggest;
mod validate;

pub(crate) use suggest::nearest;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::args::ConfigArguments;

/// The embedded presets: name and text.
pub const PRESETS: [(&str, &str); 3] = [
    ("ala2", include_str!("../presets/ala2.toml")),
    ("ala2-tiny", include_str!("../presets/ala2-tiny.toml")),
    ("ala2-long", include_str!("../presets/ala2-long.toml")),
];

/// The preset that holds every key.
const DEFAULTS: &str = PRESETS[0].1;

/// An enumeration that is written in configuration files by name.
macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// The names that configuration files use.
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            /// The name that configuration files use.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.name())
            }
        }
    };
}

named_enum!(
    /// The coordinates that the map acts on.
    Chart {
        /// Bonds, angles and torsions.
        Internal = "internal",
        /// Mean-free Cartesian positions.
        Cartesian = "cartesian",
    }
);

named_enum!(
    /// The network.
    NetworkKind {
        /// Transformer over tokens.
        Dit = "dit",
        /// Residual multi-layer perceptron.
        Mlp = "mlp",
        /// Equivariant message passing between atoms.
        Egnn = "egnn",
    }
);

named_enum!(
    /// Spacing of the sampling times.
    ScheduleKind {
        /// Equal steps.
        Uniform = "uniform",
        /// Equal steps of atan(t/(1−t)).
        Angle = "angle",
        /// Equal steps of (1−t)^½, denser towards the data.
        Quadratic = "quadratic",
        /// Equal steps of (1−t)^⅐, densest towards the data.
        Karras = "karras",
    }
);

named_enum!(
    /// Whose diagonal the off-diagonal losses aim at.
    TeacherKind {
        /// The network being trained.
        Online = "online",
        /// Its moving average.
        Average = "average",
    }
);

named_enum!(
    /// How the map is trained.
    MethodKind {
        /// SCALLOP, a divergence target per coordinate.
        Scallop = "scallop",
        /// SCALLOP, one divergence target per sample.
        ScallopScalar = "scallop_scalar",
        /// F2D2.
        F2d2 = "f2d2",
        /// FALCON.
        Falcon = "falcon",
        /// Flow matching alone.
        FlowMatching = "flow_matching",
    }
);

named_enum!(
    /// Off-diagonal conditions of F2D2.
    InstantiationKind {
        /// Two halves make a step.
        Shortcut = "shortcut",
        /// The mean-flow identity.
        MeanFlow = "mean_flow",
        /// From a frozen flow-matching teacher.
        Distilled = "distilled",
        /// The Lagrangian condition.
        Lagrangian = "lagrangian",
    }
);

named_enum!(
    /// Distribution of Hutchinson's probes.
    ProbeKind {
        /// ±1.
        Rademacher = "rademacher",
        /// Standard normal.
        Gaussian = "gaussian",
    }
);

named_enum!(
    /// The path between noise and data.
    InterpolantKind {
        /// (1 − t) noise + t data.
        Linear = "linear",
        /// cos(πt/2) noise + sin(πt/2) data.
        Trigonometric = "trigonometric",
    }
);

named_enum!(
    /// How the continuous flow is integrated.
    SolverKind {
        /// Dormand and Prince's method of order 5(4).
        DormandPrince = "dormand_prince",
        /// Tsitouras' method of order 5(4).
        Tsitouras = "tsitouras",
    }
);

/// Settings whose value is one of a few names.
const CHOICES: [(&str, &[&str]); 9] = [
    ("training.interpolant", InterpolantKind::NAMES),
    ("sampling.solver", SolverKind::NAMES),
    ("training.method", MethodKind::NAMES),
    ("training.f2d2_instantiation", InstantiationKind::NAMES),
    ("training.f2d2_probe_distribution", ProbeKind::NAMES),
    ("training.teacher", TeacherKind::NAMES),
    ("coordinates.chart", Chart::NAMES),
    ("network.kind", NetworkKind::NAMES),
    ("sampling.schedule", ScheduleKind::NAMES),
];

/// What is simulated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemConfig {
    /// Peptide sequence.
    pub sequence: String,
    /// Force field and implicit solvent.
    pub force_field: String,
    /// Temperature of the target, K.
    pub temperature: f64,
    /// Whether the target holds only conformations whose peptide bonds are cis or trans as built.
    pub fixed_peptide_bonds: bool,
}

/// The reference dynamics and the data drawn from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Independent ladders of replica exchange.
    pub ladders: usize,
    /// Rungs of a ladder.
    pub temperatures: usize,
    /// Temperature of the hottest rung, K.
    pub t_max: f64,
    /// Time step, fs.
    pub timestep_fs: f64,
    /// Friction, 1/ps.
    pub friction: f64,
    /// Steps between exchange attempts.
    pub exchange_interval: usize,
    /// Steps between saved frames.
    pub save_interval: usize,
    /// Discarded at the start, ps per replica.
    pub equilibration_ps: f64,
    /// Kept, ps per replica.
    pub production_ps: f64,
    /// Frames for training.
    pub train_frames: usize,
    /// Unbiased frames at the target temperature for evaluation.
    pub reference_frames: usize,
    /// Least fraction of training frames in a basin of a residue's φ; 0 leaves them unbiased.
    pub rare_basin_fraction: f64,
    /// Fraction of training frames from warmer rungs.
    pub warm_fraction: f64,
    /// K, up to which rungs count as warm.
    pub warm_t_max: f64,
}

/// The coordinates that the map acts on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatesConfig {
    /// Which coordinates.
    pub chart: Chart,
    /// Scale every coordinate by the training data's standard deviation.
    pub whiten: bool,
    /// Map every methyl rotor to one of its three equivalent positions.
    pub canonical_methyls: bool,
    /// How far a methyl rotor's window of 120° reaches beyond its edges, degrees.
    pub methyl_overlap: f64,
}

/// The network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Which network.
    pub kind: NetworkKind,
    /// Channels of a token.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden width of a block's perceptron over `width`.
    pub mlp_ratio: usize,
}

/// The objective and the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// How the map is trained.
    pub method: MethodKind,
    /// Off-diagonal conditions of F2D2.
    pub f2d2_instantiation: InstantiationKind,
    /// Hutchinson's probes per sample of F2D2.
    pub f2d2_probes: usize,
    /// Distribution of the probes.
    pub f2d2_probe_distribution: ProbeKind,
    /// Weight of FALCON's mean-flow condition.
    pub falcon_average_weight: f64,
    /// Weight of FALCON's cycle.
    pub falcon_cycle_weight: f64,
    /// The path between noise and data.
    pub interpolant: InterpolantKind,
    /// Optimiser steps.
    pub steps: usize,
    /// Samples in a step.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Decay of the exponential moving average.
    pub ema: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub clip: f64,
    /// Fraction of a batch with s = t.
    pub diagonal_fraction: f64,
    /// Probability that an off-diagonal pair starts at a sampling step's start.
    pub start_fraction: f64,
    /// Probability that an off-diagonal pair ends at a sampling step's end.
    pub end_fraction: f64,
    /// Part of the steps after which the off-diagonal terms join in.
    pub distillation_start: f64,
    /// Whose diagonal the off-diagonal terms aim at.
    pub teacher: TeacherKind,
    /// Share of diagonal times uniform in ln(1−t).
    pub data_end_fraction: f64,
    /// Weight of the flow-matching loss.
    pub velocity_weight: f64,
    /// Weight of the diagonal's divergence loss.
    pub divergence_weight: f64,
    /// Weight of the map's self-distillation.
    pub map_weight: f64,
    /// Weight of the log-determinant's self-distillation.
    pub log_det_weight: f64,
    /// Times lie in [ε, 1 − ε].
    pub epsilon: f64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
}

/// The calibration of the divergence head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationConfig {
    /// Largest number of optimiser steps; 0 for none.
    pub steps: usize,
    /// Trajectories whose steps the head is fitted to.
    pub trajectories: usize,
    /// Trajectories held out.
    pub held_out: usize,
    /// Steps after which the trajectories are drawn again; 0 for never.
    pub refresh: usize,
    /// Deployed steps in an optimiser step.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps between evaluations on the held-out trajectories.
    pub evaluate_every: usize,
    /// Evaluations without improvement after which to stop.
    pub patience: usize,
}

/// The proposal samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Samples to draw.
    pub samples: usize,
    /// Steps of the map per sample.
    pub steps: usize,
    /// Error allowed in a step of the continuous flow.
    pub tolerance: f64,
    /// How the continuous flow is integrated.
    pub solver: SolverKind,
    /// Step along the gradient of the log-density before the map; 0 for none.
    pub guidance: f64,
    /// Spacing of their times.
    pub schedule: ScheduleKind,
}

/// The audit of the likelihoods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// Samples whose likelihood is also computed exactly.
    pub samples: usize,
    /// Reference frames at which the proposal's density is computed.
    pub reference_frames: usize,
    /// Whether to test that likelihoods integrate to one in every basin.
    pub normalisation: bool,
}

/// The evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Bootstrap replicates for error bars.
    pub bootstrap: usize,
}

/// A resolved configuration: every setting of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the run.
    pub name: String,
    /// Seed of every random number.
    pub seed: u64,
    /// What is simulated.
    pub system: SystemConfig,
    /// Reference dynamics and data.
    pub data: DataConfig,
    /// Coordinates of the map.
    pub coordinates: CoordinatesConfig,
    /// The network.
    pub network: NetworkConfig,
    /// Objective and optimiser.
    pub training: TrainingConfig,
    /// Calibration of the divergence head.
    pub calibration: CalibrationConfig,
    /// Proposal samples.
    pub sampling: SamplingConfig,
    /// Audit of the likelihoods.
    pub audit: AuditConfig,
    /// Evaluation.
    pub evaluation: EvaluationConfig,
}

impl Config {
    /// Resolves command-line arguments: the defaults, then the preset or file, then `--set`, then `--seed`.
    pub fn resolve(arguments: &ConfigArguments) -> Result<Config> {
        let source = arguments.source.as_deref().unwrap_or(PRESETS[0].0);
        let mut table = merge::defaults();
        if let Some((_, text)) = PRESETS.iter().find(|(name, _)| *name == source) {
            merge::text(&mut table, text, &format!("the preset {source}"))?;
        } else if source.ends_with(".toml") || Path::new(source).exists() {
            let path = Path::new(source);
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration file {source}"))?;
            if let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) {
                table.insert("name".into(), stem.into());
            }
            merge::text(&mut table, &text, source)?;
        } else {
            let names = PRESETS.map(|(name, _)| name);
            let hint = nearest(source, names.iter().copied())
                .map_or_else(String::new, |name| format!("; did you mean {name}?"));
            bail!(
                "there is no preset or configuration file named '{source}' (presets: {}){hint}",
                names.join(", ")
            );
        }
        for assignment in &arguments.set {
            merge::assignment(&mut table, assignment)?;
        }
        if let Some(seed) = arguments.seed {
            table.insert("seed".into(), toml::Value::Integer(i64::try_from(seed)?));
        }
        Config::from_table(table)
    }

    /// Reads a run directory's resolved configuration.
    pub fn read(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        let mut table = merge::defaults();
        merge::text(&mut table, &text, &path.display().to_string())?;
        Config::from_table(table)
    }

    fn from_table(table: toml::Table) -> Result<Config> {
        let config: Config = table.try_into().map_err(|error: toml::de::Error| {
            anyhow::anyhow!("the configuration is not valid: {}", error.message())
        })?;
        config.validate()?;
        Ok(config)
    }

    /// The whole configuration as commented TOML; reading it back gives the same configuration.
    pub fn to_toml(&self) -> String {
        render::render(self)
    }

    /// The first setting in which two configurations differ: its path and both values.
    pub fn first_difference(&self, other: &Config) -> Option<(String, String, String)> {
        let (mine, theirs) = (
            merge::flatten(&merge::table_of(self)),
            merge::flatten(&merge::table_of(other)),
        );
        let show = |value: Option<&toml::Value>| {
            value.map_or_else(|| "unset".to_owned(), ToString::to_string)
        };
        merge::paths().into_iter().find_map(|path| {
            let (a, b) = (mine.get(&path), theirs.get(&path));
            (a != b).then(|| (path, show(a), show(b)))
        })
    }

    /// Every setting by its path, as a TOML value.
    pub fn settings(&self) -> BTreeMap<String, String> {
        merge::flatten(&merge::table_of(self))
            .into_iter()
            .map(|(path, value)| (path, render::literal(&value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(source: &str, set: &[&str]) -> Result<Config> {
        Config::resolve(&ConfigArguments {
            source: Some(source.into()),
            set: set.iter().map(|&text| text.to_owned()).collect(),
            seed: None,
        })
    }

    fn message(source: &str, set: &[&str]) -> String {
        format!("{:#}", resolve(source, set).expect_err("must be refused"))
    }

    #[test]
    fn every_preset_resolves_and_round_trips() {
        for (name, _) in PRESETS {
            let config = resolve(name, &[]).unwrap();
            assert_eq!(config.name, name);
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("config.toml");
            std::fs::write(&path, config.to_toml()).unwrap();
            assert_eq!(Config::read(&path).unwrap(), config, "{name}");
        }
    }

    #[test]
    fn rendering_keeps_values_and_comments() {
        let config = resolve(
            "ala2-tiny",
            &["system.sequence=Ace-AA-Nme", "training.learning_rate=3e-7"],
        )
        .unwrap();
        let text = config.to_toml();
        assert!(text.contains("\nsequence = \"Ace-AA-Nme\"\n"), "{text}");
        assert!(text.contains("# Peptide:"), "{text}");
        let read: Config = toml::from_str(&text).unwrap();
        assert_eq!(read, config);
    }

    #[test]
    fn every_key_is_documented() {
        let mut documented = false;
        for line in DEFAULTS.lines() {
            let key = line.contains(" = ") && !line.starts_with('#');
            assert!(!key || documented, "no comment above: {line}");
            documented = line.starts_with('#');
        }
    }

    #[test]
    fn misspelt_keys_name_the_nearest() {
        let text = message("ala2", &["training.stpes=3"]);
        assert!(
            text.contains("training.stpes") && text.contains("training.steps"),
            "{text}"
        );
        let text = message("ala2", &["learning_rate=3"]);
        assert!(text.contains("training.learning_rate"), "{text}");
        let text = message("ala2", &["trainng.batch=3"]);
        assert!(text.contains("training.batch"), "{text}");
        let text = message("ala2", &["network.kind=dti"]);
        assert!(text.contains("\"dit\", \"mlp\" or \"egnn\""), "{text}");
        let text = message("ala3", &[]);
        assert!(text.contains("did you mean ala2"), "{text}");
    }

    #[test]
    fn wrong_types_and_ranges_say_what_was_expected() {
        let text = message("ala2", &["training.steps=1.5"]);
        assert!(
            text.contains("expected an integer, got the number 1.5"),
            "{text}"
        );
        let text = message("ala2", &["coordinates.whiten=1"]);
        assert!(
            text.contains("expected true or false, got the integer 1"),
            "{text}"
        );
        let text = message("ala2", &["training.steps=-4"]);
        assert!(
            text.contains("training.steps") && text.contains("negative"),
            "{text}"
        );
        let text = message("ala2", &["training.learning_rate=nan"]);
        assert!(text.contains("must be positive"), "{text}");
        let text = message("ala2", &["network.heads=5"]);
        assert!(text.contains("must divide"), "{text}");
        let text = message("ala2", &["network.kind=egnn"]);
        assert!(
            text.contains("needs coordinates.chart \"cartesian\""),
            "{text}"
        );
        let text = message("ala2", &["training=3"]);
        assert!(text.contains("section"), "{text}");
        let text = message("ala2", &["training.steps"]);
        assert!(text.contains("KEY=VALUE"), "{text}");
        // An integer is a number.
        assert_eq!(
            resolve("ala2", &["system.temperature=310"])
                .unwrap()
                .system
                .temperature,
            310.0
        );
    }

    #[test]
    fn differences_are_named() {
        let a = resolve("ala2", &[]).unwrap();
        let b = resolve("ala2", &["training.batch=7"]).unwrap();
        assert_eq!(a.first_difference(&a), None);
        let (path, mine, theirs) = a.first_difference(&b).unwrap();
        assert_eq!(
            (path.as_str(), mine, theirs.as_str()),
            ("training.batch", a.training.batch.to_string(), "7")
        );
    }
}
