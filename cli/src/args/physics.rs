//! Arguments of the commands that need no network: building, energies and dynamics.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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
beside it FILE.card.json (force field, temperatures, method, seed, counts, SHA-256), FILE.summary.json (independent values of every
torsion, counts of cis and D frames, basin free energies by MBAR over all temperatures with the reason where there is none, distances
between independent halves, warnings) and, until it is finished, FILE.state.npz. Ctrl-C leaves both; --resume goes on bit by bit as if
nothing had happened. Files that are there already are not overwritten without --overwrite.

The state of a free energy is 0 < phi < 2 rad, of a D-residue -2 < phi < 0 rad, against the rest. Its standard error and its interval of
95 % leave out blocks of ladders one after the other, with the weights solved anew. Frames whose peptide bonds are not cis or trans as in
the starting structure are left out (--fixed-peptide-bonds false keeps them), and so are frames in which a residue changed from L to D
or back, which the sequence excludes.")]
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
    /// Leave out frames whose peptide bonds are not cis or trans as in the starting structure, as system.fixed_peptide_bonds of 'run'
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub fixed_peptide_bonds: bool,
    /// Go on from FILE.state.npz
    #[arg(long)]
    pub resume: bool,
    /// Replace files that are there already
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
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
standard error of every cell, kT), surface.svg, summary.json (the difference between 0 < phi < 2 rad, of a D-residue -2 < phi < 0 rad,
and the rest, with its error) and state.npz. Ctrl-C leaves what there is; --resume goes on. Results that are there already are not
overwritten without --overwrite. Windows must be stiff enough to hold the molecule on a barrier: each is compared with what all of them
predict for it, and summary.json and the log warn where they disagree. Errors leave out blocks of time of one replica of all windows after
the other, with the weights solved anew: replicas of a window are independent, so --replicas 4 tells errors better than 2 of twice the --ps.")]
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
    /// Replace results that are there already
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
}
