//! Structures in PDB files. Coordinates are Å in the file, nm in memory.

pub(crate) mod bonds;
mod read;
mod write;

pub use read::{read, read_models};
pub use write::write;

/// Why a PDB file cannot be read or written.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PdbError {
    /// A record is malformed.
    #[error("line {line} of the PDB file: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what to do.
        what: String,
    },
    /// There are no atoms.
    #[error("the PDB file has no ATOM or HETATM records; give a file with a structure in it")]
    NoAtoms,
    /// A residue is unknown and nothing says how its atoms are bonded.
    #[error(
        "residue {residue}, which starts on line {line} of the PDB file, is not a standard amino acid, ACE or NME, and no CONECT record bonds its \
         atom {atom}; rename it if it is one, or add CONECT records"
    )]
    UnknownResidue {
        /// Name and number.
        residue: String,
        /// Counted from 1.
        line: usize,
        /// An atom without bonds.
        atom: String,
    },
    /// An atom is not in its residue.
    #[error(
        "line {line} of the PDB file: {residue} has no atom {atom} that could be bonded; {known}"
    )]
    UnknownAtom {
        /// Counted from 1.
        line: usize,
        /// Name and number of the residue.
        residue: String,
        /// The atom's name.
        atom: String,
        /// The names known, or what was looked for.
        known: String,
    },
    /// Heavy atoms of a residue are missing.
    #[error(
        "residue {residue}, which starts on line {line} of the PDB file, lacks {missing}; complete the structure first"
    )]
    MissingAtoms {
        /// Name and number.
        residue: String,
        /// Counted from 1.
        line: usize,
        /// Names of what is missing.
        missing: String,
    },
    /// Two residues in sequence are not within bonding distance.
    #[error(
        "residues {first} and {second} (line {line} of the PDB file) follow each other but C and N are {distance} nm apart; \
         add what is missing between them, or a TER record if they belong to different chains"
    )]
    ChainBreak {
        /// Name and number.
        first: String,
        /// Name and number.
        second: String,
        /// Where the second starts, counted from 1.
        line: usize,
        /// nm, three decimals
        distance: String,
    },
    /// Coordinates do not fit the format.
    #[error(
        "atom {atom} (counted from 1) of frame {frame} is at a coordinate that a PDB file cannot hold (not finite, or beyond ±99 nm)"
    )]
    Coordinate {
        /// Counted from 1.
        atom: usize,
        /// Counted from 1.
        frame: usize,
    },
}
