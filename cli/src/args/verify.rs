//! Arguments of the commands that ask whether likelihoods are true: `verify` and `study`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What `verify` tries methods on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Targets with closed forms.
    Analytic,
}

/// How much `verify --suite` trains and measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BudgetKind {
    /// Seconds, only to see it work.
    Tiny,
    /// About six seconds per method and target on two cores.
    Small,
    /// A few minutes per method and target on two cores.
    Full,
}

/// Arguments of `verify`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Draws samples with the deployed schedule and compares the log-density that the head reports for them with the exact
log-determinant of the same steps, with the continuous flow of the same network, and with other numbers of steps; inverts the
map numerically. Where the run or the checkpoint names a target, it also compares free energies and averages by weights from
the report with those by exact weights. It looks at 4000 samples and doubles them until the verdict is decided or there are N;
what is open then is called undecided. Fewer than 1843 samples cannot show that a report is true.
Writes verify.json, verify.html and verify.npz into DIR [default: beside the checkpoint].

With --suite analytic, first tries itself on inputs whose errors are known, then trains methods on targets with closed forms
and does the same for each of them, beside the density of the data. Writes verify.json, verify.html and models/ into DIR
[default: runs/verify-analytic-BUDGET-seedN].

Examples:
  boltzmap verify runs/ala2-seed1
  boltzmap verify runs/ala2-seed1 --samples 10000 --out verified
  boltzmap verify map.safetensors --times 0,0.3,0.6,0.8,0.99 --json
  boltzmap verify --suite analytic
  boltzmap verify --suite analytic --targets circle,checkerboard --methods scallop --budget full")]
pub struct VerifyArguments {
    /// A run directory, or a checkpoint with its config.toml beside it or with --times
    #[arg(
        value_name = "RUN_DIR|CHECKPOINT",
        required_unless_present = "suite",
        conflicts_with = "suite"
    )]
    pub model: Option<PathBuf>,
    /// Verify training methods instead of one model
    #[arg(long, value_enum)]
    pub suite: Option<Suite>,
    /// The directory to write
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Most samples to draw; costlier parts use fewer [default: 16000; of a suite exactly N, those of its budget]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Numbers of steps to compare
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,2,4,8,16",
        conflicts_with = "suite"
    )]
    pub steps: Vec<usize>,
    /// Deployed times from 0 to 1 - epsilon, instead of the configuration's
    #[arg(
        long,
        value_name = "T,...",
        value_delimiter = ',',
        conflicts_with = "suite"
    )]
    pub times: Vec<f64>,
    /// Methods of the suite [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Targets of the suite [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub targets: Vec<String>,
    /// How much to train and to measure
    #[arg(long, value_enum, default_value = "small")]
    pub budget: BudgetKind,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    pub seed: u64,
    /// Print the record as JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `study`.
#[derive(Clone, Debug, Args)]
pub struct StudyArguments {
    /// What to study.
    #[command(subcommand)]
    pub command: StudyCommand,
}

/// The subcommands of `study`.
#[derive(Clone, Debug, Subcommand)]
pub enum StudyCommand {
    /// Bias and spread of Hutchinson's and SCALLOP's targets for the divergence, per time
    Estimators(EstimatorStudyArguments),
}

/// Arguments of `study estimators`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
On a Gaussian in 60 dimensions, whose velocity is exact, and on the trained network of a run, where the truth is the exact
trace of that network's own velocity: SCALLOP's forms estimate the divergence of the exact conditional velocity, so what they
are off by there is what a network that is not perfect makes of them.

Examples:
  boltzmap study estimators
  boltzmap study estimators runs/ala2-seed1 --json estimators.json")]
pub struct EstimatorStudyArguments {
    /// A finished run, whose network is studied too
    #[arg(value_name = "RUN_DIR")]
    pub run: Option<PathBuf>,
    /// Samples at each time
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=1_000_000))]
    pub samples: usize,
    /// Times between 0 (noise) and 1 (data)
    #[arg(long, value_name = "T,...", value_delimiter = ',', value_parser = inner_time, default_values_t = [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99])]
    pub times: Vec<f64>,
    /// Seed of every random number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    pub seed: u64,
    /// Write everything measured as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn inner_time(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(time) if time > 0.0 && time < 1.0 => Ok(time),
        _ => Err("a time is a number between 0 and 1, both excluded".into()),
    }
}
