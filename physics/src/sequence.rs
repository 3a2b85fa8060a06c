//! Peptides written as sequences: `Ace-A-Nme`, `AAA`.
//!
//! Letters are the one-letter codes of amino acids, from the N-terminus. `Ace-` and `-Nme` cap the ends; an end without a cap is charged
//! (NH₃⁺, COO⁻).

use std::fmt;
use std::str::FromStr;

/// One-letter codes and names of the twenty amino acids.
pub const AMINO_ACIDS: [(char, &str); 20] = [
    ('A', "ALA"),
    ('R', "ARG"),
    ('N', "ASN"),
    ('D', "ASP"),
    ('C', "CYS"),
    ('Q', "GLN"),
    ('E', "GLU"),
    ('G', "GLY"),
    ('H', "HIS"),
    ('I', "ILE"),
    ('L', "LEU"),
    ('K', "LYS"),
    ('M', "MET"),
    ('F', "PHE"),
    ('P', "PRO"),
    ('S', "SER"),
    ('T', "THR"),
    ('W', "TRP"),
    ('Y', "TYR"),
    ('V', "VAL"),
];

/// A peptide's residues and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Three-letter names, N-terminus first, caps not included.
    pub residues: Vec<&'static str>,
    /// Whether the N-terminus is acetylated rather than charged.
    pub acetyl_cap: bool,
    /// Whether the C-terminus is an N-methyl amide rather than charged.
    pub methylamide_cap: bool,
}

/// Why a sequence cannot be understood or built.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SequenceError {
    /// No residues.
    #[error(
        "sequence {0:?} has no residues; write one-letter codes as in \"Ace-A-Nme\" or \"AAA\""
    )]
    Empty(String),
    /// A letter is no amino acid.
    #[error(
        "residue {position} of sequence {sequence:?} is {letter:?}, which is not the capital one-letter code of an amino acid (A R N D C Q E G H I L K M F P S T W Y V)"
    )]
    UnknownResidue {
        /// The whole sequence.
        sequence: String,
        /// The letter.
        letter: char,
        /// Counted from 1, caps not included.
        position: usize,
    },
    /// Something other than a cap is set off by a hyphen.
    #[error(
        "sequence {sequence:?} has {word:?} where only a cap may stand; known are \"Ace-\" in front and \"-Nme\" at the end, residues go without hyphens"
    )]
    UnknownCap {
        /// The whole sequence.
        sequence: String,
        /// The part that is not understood.
        word: String,
    },
    /// The builder knows the amino acid but not its geometry.
    #[error(
        "residue {position} is {name}, for which there is no 3-D builder yet (there is for {known}); give the structure as a PDB file instead"
    )]
    NoBuilder {
        /// Three-letter name.
        name: String,
        /// Counted from 1, caps not included.
        position: usize,
        /// What can be built.
        known: String,
    },
}

impl FromStr for Sequence {
    type Err = SequenceError;

    fn from_str(text: &str) -> Result<Sequence, SequenceError> {
        let mut parts: Vec<&str> = text.trim().split('-').collect();
        let acetyl_cap = parts
            .first()
            .is_some_and(|part| part.eq_ignore_ascii_case("ace"));
        if acetyl_cap {
            parts.remove(0);
        }
        let methylamide_cap = parts
            .last()
            .is_some_and(|part| part.eq_ignore_ascii_case("nme"));
        if methylamide_cap {
            parts.pop();
        }
        let letters = match parts[..] {
            [] | [""] => return Err(SequenceError::Empty(text.into())),
            [letters] => letters,
            _ => {
                // The part that is not a run of residues is the one to complain about; of several runs, the second.
                let is_run = |part: &&&str| {
                    !part.is_empty() && part.chars().all(|letter| name_of(letter).is_some())
                };
                let word = parts.iter().find(|part| !is_run(part)).unwrap_or(&parts[1]);
                return Err(SequenceError::UnknownCap {
                    sequence: text.into(),
                    word: (*word).into(),
                });
            }
        };
        let residue = |(index, letter)| {
            let error = || SequenceError::UnknownResidue {
                sequence: text.into(),
                letter,
                position: index + 1,
            };
            name_of(letter).ok_or_else(error)
        };
        let residues = letters
            .chars()
            .enumerate()
            .map(residue)
            .collect::<Result<_, _>>()?;
        Ok(Sequence {
            residues,
            acetyl_cap,
            methylamide_cap,
        })
    }
}

fn name_of(letter: char) -> Option<&'static str> {
    AMINO_ACIDS
        .iter()
        .find(|(code, _)| *code == letter)
        .map(|(_, name)| *name)
}

impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = |name: &&str| {
            AMINO_ACIDS
                .iter()
                .find(|(_, other)| other == name)
                .map_or('?', |(code, _)| *code)
        };
        let letters: String = self.residues.iter().map(code).collect();
        let (front, end) = (
            if self.acetyl_cap { "Ace-" } else { "" },
            if self.methylamide_cap { "-Nme" } else { "" },
        );
        write!(formatter, "{front}{letters}{end}")
    }
}
