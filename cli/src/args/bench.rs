//! Arguments of `bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::bench::physics::record::Task as PhysicsTask;
use crate::bench::workload::Task;

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
    /// Energies, forces, dynamics and gradients in states of peptides, beside OpenMM
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
(energy and forces of one conformation after the other, f64, one thread; beside OpenMM's Reference platform), target-gradient (of the
log-density of states of internal coordinates: decoding, forces, pull-back, f32, many a call; no other side; a second table shows its
time over that of energies, and what it is spent on).

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
