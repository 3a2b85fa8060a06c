//! Peptides written as sequences: `Ace-A-Nme`, `AAA`, `Ace-Ala-d-Val-Hip-NH2`, `Ace-CGGC-Nme:1-4`.
//!
//! A sequence is `[cap-]residues[-cap][:disulfides]`, N-terminus first.
//!
//! * **Residues** are either one run of one-letter codes without hyphens (`GYDPETGTWG`), or three-letter codes in any case with
//!   hyphens between them (`Gly-Tyr-Asp`). Capitals without hyphens are always one-letter codes: `Ace-ALA-Nme` is Ala-Leu-Ala,
//!   `Ace-Ala-Nme` is alanine.
//! * **Protonation**: the charged states of neutral water are the default, and `H` is the neutral histidine with its hydrogen on
//!   Nε. Others have AMBER's names: `ASH`, `GLH` (protonated acids), `LYN` (neutral lysine), `HID`, `HIE`, `HIP` (histidine with
//!   hydrogen on Nδ, on Nε, on both), `CYM` (thiolate), `CYX` (in a disulfide). In a run they stand in brackets: `A[HIP]A`.
//! * **D-residues**: `d` before the code, as in `AdAA`, `A[d-HIP]A`, `Ala-d-Ala` or `Ala-D-Ala`.
//! * **Caps**: `Ace-` in front, `-Nme` (N-methyl amide) or `-NH2` (amide, also written `-Nhe`) at the end, in any case. An end
//!   without a cap is charged (NH₃⁺, COO⁻).
//! * **Disulfides**: pairs of cysteines, counted from 1 without the caps: `:1-4,2-6`. A single pair of `CYX` needs no list.

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

/// Names of protonation states and of the cysteine of a disulfide, each with the amino acid that it is a state of.
pub const VARIANTS: [(&str, &str); 8] = [
    ("ASH", "ASP"),
    ("GLH", "GLU"),
    ("LYN", "LYS"),
    ("HID", "HIS"),
    ("HIE", "HIS"),
    ("HIP", "HIS"),
    ("CYM", "CYS"),
    ("CYX", "CYS"),
];

/// Names that PDB files have for D-amino acids, each with the amino acid that it mirrors.
pub const MIRRORED: [(&str, &str); 19] = [
    ("DAL", "ALA"),
    ("DAR", "ARG"),
    ("DSG", "ASN"),
    ("DAS", "ASP"),
    ("DCY", "CYS"),
    ("DGN", "GLN"),
    ("DGL", "GLU"),
    ("DHI", "HIS"),
    ("DIL", "ILE"),
    ("DLE", "LEU"),
    ("DLY", "LYS"),
    ("MED", "MET"),
    ("DPN", "PHE"),
    ("DPR", "PRO"),
    ("DSN", "SER"),
    ("DTH", "THR"),
    ("DTR", "TRP"),
    ("DTY", "TYR"),
    ("DVA", "VAL"),
];

/// The variants that force fields have inside a chain only.
const INSIDE_ONLY: [&str; 4] = ["ASH", "GLH", "LYN", "CYM"];

/// One residue of a [`Sequence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residue {
    /// Name in [`AMINO_ACIDS`] or [`VARIANTS`].
    pub name: &'static str,
    /// Whether it is the D- rather than the L-form.
    pub mirrored: bool,
}

impl Residue {
    /// The residue name that a PDB file has for it.
    pub fn pdb_name(&self) -> &'static str {
        let base = VARIANTS
            .iter()
            .find(|(name, _)| *name == self.name)
            .map_or(self.name, |(_, base)| base);
        let mirrored = MIRRORED.iter().find(|(_, name)| *name == base);
        match (self.mirrored, mirrored) {
            (true, Some((name, _))) => name,
            _ => self.name,
        }
    }
}

/// The start of a peptide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// NH₃⁺
    Charged,
    /// CH₃CO–
    Acetyl,
}

/// The end of a peptide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// COO⁻
    Charged,
    /// –NHCH₃
    MethylAmide,
    /// –NH₂
    Amide,
}

/// A peptide's residues and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// N-terminus first, caps not included.
    pub residues: Vec<Residue>,
    /// How it starts.
    pub front: Front,
    /// How it ends.
    pub end: End,
    /// Pairs of `CYX` (indices from 0), lower index first, sorted.
    pub disulfides: Vec<[usize; 2]>,
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
        "residue {position} of sequence {sequence:?} is {letter:?}, which is not the capital one-letter code of an amino acid (A R N D C Q E G H I L K M F P S T W Y V); other states stand in brackets as in \"A[HIP]A\", D-residues follow a d as in \"AdAA\""
    )]
    UnknownResidue {
        /// The whole sequence.
        sequence: String,
        /// The letter.
        letter: char,
        /// Counted from 1, caps not included.
        position: usize,
    },
    /// A part set off by hyphens or brackets is neither a residue nor, where it stands, a cap.
    #[error(
        "sequence {sequence:?} has {word:?}, which is neither a three-letter residue code (ALA, HIP, …) nor a cap in its place (\"Ace-\" in front; \"-Nme\" or \"-NH2\" at the end); one-letter codes go without hyphens"
    )]
    UnknownWord {
        /// The whole sequence.
        sequence: String,
        /// The part that is not understood.
        word: String,
    },
    /// The list of disulfides is malformed.
    #[error(
        "the disulfides of sequence {sequence:?}: {what}; write pairs of cysteines, counted from 1 without the caps, as in \"Ace-CGGC-Nme:1-4\""
    )]
    Disulfide {
        /// The whole sequence.
        sequence: String,
        /// What is wrong with it.
        what: String,
    },
    /// A residue for which force fields have no charged end.
    #[error(
        "residue {position} of sequence {sequence:?} is {name} at {end}, which no force field here has; cap that end (\"Ace-\" in front, \"-Nme\" or \"-NH2\" at the end)"
    )]
    NoTerminal {
        /// The whole sequence.
        sequence: String,
        /// Name of the residue.
        name: String,
        /// Counted from 1, caps not included.
        position: usize,
        /// Which end.
        end: &'static str,
    },
    /// No conformation was found in which the disulfides close.
    #[error(
        "no conformation of {0} was found in which its disulfides close without overlap; give the structure as a PDB file instead"
    )]
    CannotClose(String),
}

impl FromStr for Sequence {
    type Err = SequenceError;

    fn from_str(text: &str) -> Result<Sequence, SequenceError> {
        let trimmed = text.trim();
        let (chain, pairs) = trimmed
            .split_once(':')
            .map_or((trimmed, None), |(chain, pairs)| (chain, Some(pairs)));
        let mut parts: Vec<&str> = chain.split('-').collect();
        let is = |part: Option<&&str>, names: &[&str]| {
            part.is_some_and(|part| names.iter().any(|name| part.eq_ignore_ascii_case(name)))
        };
        let mut sequence = Sequence {
            residues: Vec::new(),
            front: Front::Charged,
            end: End::Charged,
            disulfides: Vec::new(),
        };
        if is(parts.first(), &["ace", "ac"]) {
            sequence.front = Front::Acetyl;
            parts.remove(0);
        }
        // A bracket may hold a hyphen, as in A[d-HIP].
        if is(parts.last(), &["nme", "nhme"]) {
            sequence.end = End::MethylAmide;
            parts.pop();
        } else if is(parts.last(), &["nh2", "nhe"]) {
            sequence.end = End::Amide;
            parts.pop();
        }
        sequence.residues = residues(text, &parts)?;
        sequence.disulfides = disulfides(text, pairs, &mut sequence.residues)?;
        check_ends(text, &sequence)?;
        Ok(sequence)
    }
}

/// The residues of what stands between the caps.
fn residues(text: &str, parts: &[&str]) -> Result<Vec<Residue>, SequenceError> {
    let unknown = |word: &str| SequenceError::UnknownWord {
        sequence: text.into(),
        word: word.into(),
    };
    if matches!(parts, [] | [""]) {
        return Err(SequenceError::Empty(text.into()));
    }
    let whole = parts.join("-");
    if parts.len() == 1 || whole.contains('[') {
        let is_code = !whole.chars().all(|letter| letter.is_ascii_uppercase());
        return match three_letters(&whole).filter(|_| is_code) {
            Some(residue) => Ok(vec![residue]),
            None => run(text, &whole),
        };
    }
    let mut found = Vec::new();
    let mut rest = parts.iter().enumerate();
    while let Some((index, part)) = rest.next() {
        let next = parts.get(index + 1);
        let prefixed = next.and_then(|next| three_letters(next));
        let residue = match (*part, prefixed) {
            ("d" | "D" | "l" | "L", Some(residue)) => {
                rest.next();
                Residue {
                    mirrored: part.eq_ignore_ascii_case("d"),
                    ..residue
                }
            }
            _ => three_letters(part).ok_or_else(|| unknown(part))?,
        };
        found.push(mirror_glycine(residue));
    }
    Ok(found)
}

/// A run of one-letter codes.
fn run(text: &str, letters: &str) -> Result<Vec<Residue>, SequenceError> {
    let mut found = Vec::new();
    let mut rest = letters;
    while let Some(first) = rest.chars().next() {
        let position = found.len() + 1;
        let unknown = |letter| SequenceError::UnknownResidue {
            sequence: text.into(),
            letter,
            position,
        };
        let (mirrored, after) = match rest.strip_prefix('d') {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let Some(letter) = after.chars().next() else {
            return Err(unknown(first));
        };
        let residue;
        if letter == '[' {
            let (word, after) =
                after[1..]
                    .split_once(']')
                    .ok_or_else(|| SequenceError::UnknownWord {
                        sequence: text.into(),
                        word: after.into(),
                    })?;
            let bare = word.strip_prefix("d-").or_else(|| word.strip_prefix("D-"));
            residue = three_letters(bare.unwrap_or(word))
                .map(|residue| Residue {
                    mirrored: residue.mirrored || mirrored || bare.is_some(),
                    ..residue
                })
                .ok_or_else(|| SequenceError::UnknownWord {
                    sequence: text.into(),
                    word: word.into(),
                })?;
            rest = after;
        } else {
            let name = AMINO_ACIDS.iter().find(|(code, _)| *code == letter);
            // Of "dx" the x is wrong, of "aA" the a.
            let (_, name) = name.ok_or_else(|| unknown(letter))?;
            residue = Residue { name, mirrored };
            rest = &after[letter.len_utf8()..];
        }
        found.push(mirror_glycine(residue));
    }
    Ok(found)
}

/// The residue of a three-letter code in any case, perhaps with a small d before it.
fn three_letters(word: &str) -> Option<Residue> {
    let known = |word: &str| {
        AMINO_ACIDS
            .iter()
            .map(|(_, name)| *name)
            .chain(VARIANTS.iter().map(|(name, _)| *name))
            .find(|name| name.eq_ignore_ascii_case(word))
    };
    let plain = known(word).map(|name| Residue {
        name,
        mirrored: false,
    });
    plain.or_else(|| {
        known(word.strip_prefix('d')?).map(|name| Residue {
            name,
            mirrored: true,
        })
    })
}

/// Glycine has no D-form.
fn mirror_glycine(residue: Residue) -> Residue {
    Residue {
        mirrored: residue.mirrored && residue.name != "GLY",
        ..residue
    }
}

/// The pairs of the list, or of the only two `CYX`. Cysteines in it become `CYX`.
fn disulfides(
    text: &str,
    list: Option<&str>,
    residues: &mut [Residue],
) -> Result<Vec<[usize; 2]>, SequenceError> {
    let failure = |what: String| SequenceError::Disulfide {
        sequence: text.into(),
        what,
    };
    let mut pairs: Vec<[usize; 2]> = Vec::new();
    for word in list.into_iter().flat_map(|list| list.split(',')) {
        let number = |part: &str| part.trim().parse::<usize>().ok();
        let both = word
            .split_once('-')
            .and_then(|(a, b)| Some([number(a)?, number(b)?]));
        let both = both.ok_or_else(|| failure(format!("{word:?} is not a pair of numbers")))?;
        for position in both {
            let residue = position
                .checked_sub(1)
                .and_then(|index| residues.get_mut(index))
                .ok_or_else(|| failure(format!("there is no residue {position}")))?;
            if !["CYS", "CYX"].contains(&residue.name) {
                return Err(failure(format!(
                    "residue {position} is {}, not a cysteine",
                    residue.name
                )));
            }
            if pairs.as_flattened().contains(&(position - 1)) || both[0] == both[1] {
                return Err(failure(format!("residue {position} is in two of them")));
            }
            residue.name = "CYX";
        }
        pairs.push([both[0].min(both[1]) - 1, both[0].max(both[1]) - 1]);
    }
    let waiting: Vec<usize> = (0..residues.len())
        .filter(|index| residues[*index].name == "CYX" && !pairs.as_flattened().contains(index))
        .collect();
    match waiting[..] {
        [] => {}
        [first, second] if pairs.is_empty() => pairs.push([first, second]),
        [first, ..] => {
            return Err(failure(format!(
                "residue {} is CYX and has no partner",
                first + 1
            )));
        }
    }
    pairs.sort_unstable();
    Ok(pairs)
}

/// Refuses charged ends that no force field has.
fn check_ends(text: &str, sequence: &Sequence) -> Result<(), SequenceError> {
    let refuse = |index: usize, end| {
        Err(SequenceError::NoTerminal {
            sequence: text.into(),
            name: sequence.residues[index].name.into(),
            position: index + 1,
            end,
        })
    };
    let last = sequence.residues.len() - 1;
    let inside_only = |index: usize| INSIDE_ONLY.contains(&sequence.residues[index].name);
    match (
        sequence.front == Front::Charged,
        sequence.end == End::Charged,
    ) {
        (true, true) if last == 0 => refuse(0, "both charged ends of the chain"),
        (true, _) if inside_only(0) => refuse(0, "the charged N-terminus"),
        (_, true) if inside_only(last) => refuse(last, "the charged C-terminus"),
        _ => Ok(()),
    }
}

/// As a run of one-letter codes with what does not fit in brackets; reading it gives the same sequence.
impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.front == Front::Acetyl {
            write!(formatter, "Ace-")?;
        }
        for residue in &self.residues {
            let mirrored = if residue.mirrored { "d" } else { "" };
            let name = if residue.name == "CYX" {
                "CYS"
            } else {
                residue.name
            };
            match AMINO_ACIDS.iter().find(|(_, other)| *other == name) {
                Some((code, _)) => write!(formatter, "{mirrored}{code}")?,
                None => write!(formatter, "{mirrored}[{name}]")?,
            }
        }
        match self.end {
            End::Charged => {}
            End::MethylAmide => write!(formatter, "-Nme")?,
            End::Amide => write!(formatter, "-NH2")?,
        }
        for (place, [first, second]) in self.disulfides.iter().enumerate() {
            let separator = if place == 0 { ':' } else { ',' };
            write!(formatter, "{separator}{}-{}", first + 1, second + 1)?;
        }
        Ok(())
    }
}
