//! Command-line arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod bench;
mod physics;
mod verify;

pub use bench::{
    BaselineKind, BenchArguments, BenchCommand, EngineBenchArguments, OpenMmBaseline,
    PhysicsBenchArguments,
};
pub use physics::{
    BuildArguments, EnergyArguments, MinimizeArguments, MoleculeArguments, Precision,
    RemdArguments, UmbrellaArguments, Variables,
};
pub use verify::{
    BudgetKind, EstimatorStudyArguments, StudyArguments, StudyCommand, Suite, VerifyArguments,
};

const EXAMPLES: &str = "\
Examples:
  boltzmap run                                  alanine dipeptide, from sequence to report
  boltzmap run ala2-tiny --out runs/try         the same in seconds, only to see it work
  boltzmap run --set system.temperature=310     one setting changed
  boltzmap run my.toml --seed 7 --resume        go on after an interruption
  boltzmap info ala2 > my.toml                  every setting, explained, to start from
  boltzmap verify runs/ala2-seed1               whether the likelihood it reports is true
  boltzmap build Ace-A-Nme --out ala2.pdb
  boltzmap energy ala2.pdb --force-field amber99sbildn+obc2 --out energies.npz
  boltzmap bench engine --baseline torch,jax    how fast the engine is, beside PyTorch and JAX

Exit codes:
  0    done
  1    bad input, or something failed; one sentence on standard error says what
  2    the command line could not be understood
  101  a bug in boltzmap
  130  interrupted by Ctrl-C; what was checkpointed is kept, see --resume";

/// From a peptide sequence to weighted equilibrium samples, in a handful of network evaluations.
#[derive(Debug, Parser)]
#[command(name = "boltzmap", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Worker threads (default: one per core); results do not depend on it
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// No progress on standard error
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything: dynamics, training, sampling, audit, evaluation, report
    #[command(after_help = "\
Examples:
  boltzmap run
  boltzmap run ala2-tiny --out runs/try --seed 3
  boltzmap run ala2 --set network.width=192 --set training.steps=20000

The run directory then holds config.toml, data.npz, checkpoint.safetensors, metrics.jsonl,
samples.npz, summary.json and report.html. Open report.html in a browser.")]
    Run(RunArguments),
    /// Build a peptide from its sequence and write it as a PDB file
    Build(BuildArguments),
    /// Minimise the energy of conformations
    Minimize(MinimizeArguments),
    /// Equilibrium conformations by temperature replica exchange
    Remd(RemdArguments),
    /// Free energies along backbone dihedrals by umbrella sampling and MBAR
    Umbrella(UmbrellaArguments),
    /// The dynamics stage: make the reference data (data.npz) of a run
    Md(StageArguments),
    /// The training stage: train the map on data.npz (checkpoint.safetensors)
    Train(StageArguments),
    /// The sampling stage: draw samples with log-likelihoods and audit them (samples.npz)
    Sample(StageArguments),
    /// The evaluation stage: metrics and report (summary.json, report.html)
    Evaluate(StageArguments),
    /// Whether a reported likelihood is true
    Verify(VerifyArguments),
    /// Force-field energies and forces of conformations
    Energy(EnergyArguments),
    /// Measure the estimators that likelihoods are learned from
    Study(StudyArguments),
    /// Time the engine, beside PyTorch and JAX where they are installed
    Bench(BenchArguments),
    /// Version, machine and presets; with a preset or file, its resolved configuration
    Info(InfoArguments),
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArguments {
    /// Name of a preset (see `boltzmap info`) or path of a TOML file [default: ala2]
    #[arg(value_name = "PRESET|CONFIG.toml")]
    pub source: Option<String>,
    /// Change one setting, e.g. --set training.steps=4000 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed of every random number of the run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    pub seed: Option<u64>,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The run directory [default: runs/NAME-seedN]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the run that the directory already holds, from its last checkpoint
    #[arg(long)]
    pub resume: bool,
}

/// Arguments of the single stages.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A stage reads the run directory's config.toml and the files of the stages before it. Every file states the settings that made it:
where config.toml was edited since, --resume goes on if the new settings can be followed (a training with another
training.learning_rate, more training.steps) and otherwise says which setting differs. sample and evaluate always start anew.
To start from nothing but a configuration:
  mkdir -p runs/mine && boltzmap info ala2 > runs/mine/config.toml
  boltzmap md runs/mine && boltzmap train runs/mine && boltzmap sample runs/mine && boltzmap evaluate runs/mine")]
pub struct StageArguments {
    /// The run directory
    #[arg(value_name = "RUN_DIR")]
    pub directory: PathBuf,
    /// Go on from where the stage was left, doing nothing where it is done
    #[arg(long)]
    pub resume: bool,
}

/// Arguments of `info`.
#[derive(Clone, Debug, Args)]
pub struct InfoArguments {
    /// The configuration to print in full; without it, the version, the machine and the presets.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}
