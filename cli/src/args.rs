//! Command-line arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::physics::record::Task as PhysicsTask;
use crate::bench::workload::Task;

const EXAMPLES: &str = "\
Examples:
  boltzmap run                                  alanine dipeptide, from sequence to report
  boltzmap run ala2-tiny --out runs/try         the same in two minutes, only to see it work
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
A stage reads the run directory's config.toml and the files of the stages before it.
To start from nothing but a configuration:
  mkdir -p runs/mine && boltzmap info ala2 > runs/mine/config.toml
  boltzmap md runs/mine && boltzmap train runs/mine && boltzmap sample runs/mine && boltzmap evaluate runs/mine")]
pub struct StageArguments {
    /// The run directory
    #[arg(value_name = "RUN_DIR")]
    pub directory: PathBuf,
    /// Go on from the stage's last checkpoint
    #[arg(long)]
    pub resume: bool,
}

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

/// Arguments of `build`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Sequences:
  AAA  GYDPETGTWG        one-letter codes; ends are charged
  Ace-A-Nme  Ace-A-NH2   caps
  Ace-Ala-Val-Nme        three-letter codes with hyphens between them
  AdAA  Ala-d-Ala-Ala    a D-residue
  A[HIP]A  Ala-Hip-Ala   a protonation state: ASH GLH LYN HID HIE HIP CYM (H is HIE)
  Ace-CGGC-Nme:1-4       a disulfide, counted without the caps")]
pub struct BuildArguments {
    /// The peptide, e.g. Ace-A-Nme, AAA, Ala-d-Val-Hip, Ace-CGGC-Nme:1-4
    #[arg(value_name = "SEQUENCE")]
    pub sequence: String,
    /// The PDB file to write
    #[arg(long, value_name = "FILE.pdb")]
    pub out: PathBuf,
    /// The force field whose energy is minimised
    #[arg(long, value_name = "NAME", default_value = "amber99sbildn+obc2")]
    pub force_field: String,
    /// Ideal bonds and angles, extended, not minimised
    #[arg(long)]
    pub ideal: bool,
}

/// Floating-point precision of the energy evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Double precision.
    F64,
    /// Single precision, the evaluator that dynamics use.
    F32,
}

/// Arguments of `energy`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The npz file holds energy [n] and forces [n, atoms, 3] in kJ/mol and kJ/mol/nm, and the terms
bond, angle, torsion, nonbonded and gb [n].")]
pub struct EnergyArguments {
    /// The molecule, with its coordinates
    #[arg(value_name = "FILE.pdb")]
    pub pdb: PathBuf,
    /// The force field, e.g. amber99sbildn+obc2
    #[arg(long, value_name = "NAME")]
    pub force_field: String,
    /// Cutoff of the pair interactions, not periodic (default: none, all pairs)
    #[arg(long, value_name = "NM", allow_negative_numbers = true)]
    pub cutoff: Option<f64>,
    /// Conformations instead of the PDB file's own: npy or npz [n, atoms, 3] in nm, pdb with models, xtc or dcd
    #[arg(long, value_name = "FILE")]
    pub positions: Option<PathBuf>,
    /// Arithmetic to evaluate in
    #[arg(long, value_enum, default_value = "f64")]
    pub precision: Precision,
    /// The npz file to write
    #[arg(long, value_name = "E.npz")]
    pub out: PathBuf,
    /// Print a summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// A molecule and its force field.
#[derive(Clone, Debug, Args)]
pub struct MoleculeArguments {
    /// A PDB file (ending in .pdb) or a sequence such as Ace-A-Nme (see `boltzmap build --help`)
    #[arg(value_name = "FILE.pdb|SEQUENCE")]
    pub molecule: String,
    /// The force field
    #[arg(long, value_name = "NAME", default_value = "amber99sbildn+obc2")]
    pub force_field: String,
    /// Cutoff of the pair interactions, not periodic (default: none, all pairs)
    #[arg(long, value_name = "NM", allow_negative_numbers = true)]
    pub cutoff: Option<f64>,
}

/// Arguments of `minimize`.
#[derive(Clone, Debug, Args)]
pub struct MinimizeArguments {
    /// The molecule.
    #[command(flatten)]
    pub molecule: MoleculeArguments,
    /// Conformations to start from: npy or npz [n, atoms, 3] in nm, pdb with models, xtc or dcd
    #[arg(long, value_name = "FILE")]
    pub positions: Option<PathBuf>,
    /// Largest force component at the end, kJ/mol/nm
    #[arg(long, value_name = "F", default_value_t = 10.0)]
    pub tolerance: f64,
    /// Most steps
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub max_steps: usize,
    /// The file to write: npz, pdb, xtc or dcd
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `remd`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Writes the frames at the lowest temperature, ladder by ladder, as npz (with potential_energy, ladder and time), pdb, xtc or dcd;
beside it FILE.card.json (force field, temperatures, method, seed, counts, SHA-256), FILE.summary.json (effective sample sizes, basin
free energies by MBAR over all temperatures, distances between independent halves) and, until it is finished, FILE.state.npz.
Ctrl-C leaves both; --resume goes on bit by bit as if nothing had happened.")]
pub struct RemdArguments {
    /// The molecule.
    #[command(flatten)]
    pub molecule: MoleculeArguments,
    /// The file to write: npz, pdb, xtc or dcd
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Temperature of the frames, K
    #[arg(long, value_name = "K", default_value_t = 300.0)]
    pub temperature: f64,
    /// Highest temperature, K
    #[arg(long, value_name = "K", default_value_t = 1200.0)]
    pub highest: f64,
    /// Temperatures of a ladder, in geometric progression
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub temperatures: usize,
    /// Independent ladders
    #[arg(long, value_name = "N", default_value_t = 9)]
    pub ladders: usize,
    /// Length of the recorded dynamics of every replica, ps
    #[arg(long, value_name = "PS", default_value_t = 1000.0)]
    pub ps: f64,
    /// Dynamics before, not recorded, ps
    #[arg(long, value_name = "PS", default_value_t = 50.0)]
    pub equilibration_ps: f64,
    /// Time step, fs
    #[arg(long, value_name = "FS", default_value_t = 1.0)]
    pub timestep_fs: f64,
    /// Friction, 1/ps
    #[arg(long, value_name = "RATE", default_value_t = 2.0)]
    pub friction: f64,
    /// Steps between exchanges
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub exchange_interval: u64,
    /// Steps between frames, rounded up to whole exchanges
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub save_interval: u64,
    /// Write three files from ladders of their own, FILE with .train, .validation and .test before its ending, of so many frames
    #[arg(long, value_name = "TRAIN,VALIDATION,TEST", value_delimiter = ',')]
    pub split: Vec<usize>,
    /// Seed of every random number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    pub seed: u64,
    /// Go on from FILE.state.npz
    #[arg(long)]
    pub resume: bool,
}

/// The dihedrals of an umbrella sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Variables {
    /// φ.
    Phi,
    /// φ and ψ.
    PhiPsi,
}

/// Arguments of `umbrella`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Writes into DIR: umbrella.npz (angles [window, sample, variable], centres, window free energies), surface.npz (free energy and
standard error of every cell, kT), surface.svg, summary.json (the difference between 0 < phi < 2 rad and the rest, with its error)
and state.npz. Ctrl-C leaves what there is; --resume goes on. Windows must be stiff enough to hold the molecule on a barrier: each
is compared with what all of them predict for it, and summary.json and the log warn where they disagree.")]
pub struct UmbrellaArguments {
    /// The molecule.
    #[command(flatten)]
    pub molecule: MoleculeArguments,
    /// The directory to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The dihedrals
    #[arg(long, value_enum, default_value = "phi")]
    pub variables: Variables,
    /// Which residue, counted from 1 among those that have both dihedrals
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub residue: usize,
    /// Windows over a turn of each dihedral [default: 36 for one, 24 for two]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=360))]
    pub windows: Option<u16>,
    /// Force constant, kJ/mol/rad² [default: 5 RT over the square of the windows' distance]
    #[arg(long, value_name = "K")]
    pub force_constant: Option<f64>,
    /// Replicas of every window
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub replicas: u16,
    /// Temperature, K
    #[arg(long, value_name = "K", default_value_t = 300.0)]
    pub temperature: f64,
    /// Length of the recorded dynamics of every replica, ps
    #[arg(long, value_name = "PS", default_value_t = 200.0)]
    pub ps: f64,
    /// Dynamics before, not recorded, ps
    #[arg(long, value_name = "PS", default_value_t = 20.0)]
    pub equilibration_ps: f64,
    /// Time step, fs
    #[arg(long, value_name = "FS", default_value_t = 1.0)]
    pub timestep_fs: f64,
    /// Friction, 1/ps
    #[arg(long, value_name = "RATE", default_value_t = 5.0)]
    pub friction: f64,
    /// Steps between samples
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub save_interval: u64,
    /// Keep neighbouring windows from exchanging conformations at every sample
    #[arg(long)]
    pub no_exchange: bool,
    /// Write the samples' conformations too: DIR/frames.npz (positions, window, log_weight in the unbiased ensemble) with its card
    #[arg(long)]
    pub save_frames: bool,
    /// Seed of every random number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    pub seed: u64,
    /// Go on from DIR/state.npz
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

/// Arguments of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArguments {
    /// What to time.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// The subcommands of `bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Networks of real size: forward, training steps, derivatives, determinants
    Engine(EngineBenchArguments),
    /// Energies, forces and dynamics of peptides, beside OpenMM
    Physics(PhysicsBenchArguments),
    /// Peak memory of one task in bytes; `engine` starts it in a process of its own
    #[command(hide = true)]
    Memory {
        /// The workload.
        workload: String,
        /// The task.
        task: Task,
    },
}

/// Libraries to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BaselineKind {
    /// PyTorch, eager and compiled.
    Torch,
    /// JAX, jitted.
    Jax,
}

/// What `bench physics` compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OpenMmBaseline {
    /// OpenMM's Reference and CPU platforms.
    Openmm,
}

/// Arguments of `bench physics`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Tasks: energies (with forces, f32, many conformations a call), dynamics (steps of Langevin dynamics of all replicas, f32), single
(energy and forces of one conformation after the other, f64, one thread; beside OpenMM's Reference platform).

OpenMM evaluates the same conformations through its Python interface, one per call, on its Reference and CPU platforms, in one process
and in two at the same time. A side whose energies differ by more than 0.002 kJ/mol, or whose forces by more than 1e-4 of the largest,
is not timed (single: 1e-9). Sides take turns, one sample each; the table shows medians.

OpenMM is installed by benches/baselines/setup.sh; where it is absent it is skipped with a message.

Examples:
  boltzmap bench physics
  boltzmap bench physics --baseline openmm --json now.json
  boltzmap bench physics --workload chignolin --task energies --compare before.json --fail-on-regression")]
pub struct PhysicsBenchArguments {
    /// Workloads, of alanine-dipeptide, hexa-alanine and chignolin [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub workload: Vec<String>,
    /// Tasks [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_enum)]
    pub task: Vec<PhysicsTask>,
    /// What to compare with
    #[arg(long, value_name = "NAME", value_enum)]
    pub baseline: Vec<OpenMmBaseline>,
    /// The Python interpreter that has OpenMM [default: .venv/bin/python]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Samples of every side
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub repeats: usize,
    /// At most 3 samples of every side: a look, no measurement
    #[arg(long)]
    pub quick: bool,
    /// Conformations of one call on our side [default: 4096, 2048 for larger peptides]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    pub conformations: Option<usize>,
    /// Write everything measured as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Compare our times with those of an earlier --json file
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// With --compare: exit with code 1 if a row became slower
    #[arg(long, requires = "compare")]
    pub fail_on_regression: bool,
}

/// Arguments of `bench engine`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Every side gets the same parameters and inputs; a side whose results differ by more than 1e-4 of an
array's largest value is not timed. Sides take turns, one sample each; the table shows medians. 'roof'
is the rate of plain matrix products at the task's own shapes on all threads, measured in between, and
'of roof' our matrix-product operations per second over it. Memory is the peak of a process of its own
above what was resident before the step was built.

Baselines are installed by benches/baselines/setup.sh; what is absent is skipped with a message.

Examples:
  boltzmap bench engine
  boltzmap bench engine --workload dit-128 --task forward,training-step --baseline torch,jax
  boltzmap bench engine --json before.json
  boltzmap bench engine --compare before.json --fail-on-regression")]
pub struct EngineBenchArguments {
    /// Workloads, of dit-128, dit-256, mlp-512, tarflow-256 and tiny [default: all but tiny]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub workload: Vec<String>,
    /// Tasks [default: all that make sense for a workload]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_enum)]
    pub task: Vec<Task>,
    /// Libraries to compare with
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_enum)]
    pub baseline: Vec<BaselineKind>,
    /// The Python interpreter that has them [default: .venv/bin/python]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Samples of every side
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub repeats: usize,
    /// At most 3 samples of every side: a look, no measurement
    #[arg(long)]
    pub quick: bool,
    /// Samples in divergence, log-det and hutchinson [default: 64, fewer or more for some workloads]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    pub jacobian_samples: Option<usize>,
    /// Seconds that a baseline may take to compile and try one of its ways to do a task
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::builder::RangedU64ValueParser::<u32>::new().range(1..=86_400))]
    pub candidate_seconds: u32,
    /// Samples per block of our forward, jvp and training steps, to tune the engine
    #[arg(long, value_name = "N", hide = true, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    pub block: Option<usize>,
    /// Write everything measured as JSON; rows are added as they are measured
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Compare our times with those of an earlier --json file
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// With --compare: exit with code 1 if a row became slower
    #[arg(long, requires = "compare")]
    pub fail_on_regression: bool,
}
