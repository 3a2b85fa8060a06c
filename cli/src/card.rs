//! The card of a data set: what is in a file, how it was made, and its SHA-256, as JSON beside it (`FILE.card.json`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::run_dir::{COMMIT, VERSION, write_atomically};

/// What a card says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Version and commit of the program.
    pub made_by: String,
    /// The sequence or PDB file that was given.
    pub molecule: String,
    /// Residue names, N-terminus first, caps included.
    pub residues: Vec<String>,
    /// The force field.
    pub force_field: String,
    /// nm; absent for all pairs
    pub cutoff_nm: Option<f64>,
    /// K, of the frames
    pub temperature_k: f64,
    /// How the frames were made.
    pub method: String,
    /// Seed of every random number.
    pub seed: u64,
    /// Number of frames.
    pub frames: usize,
    /// Number of atoms.
    pub atoms: usize,
    /// Whether the simulation was finished.
    pub finished: bool,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// The settings of a run that made the file, by their paths; absent where no configuration did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<BTreeMap<String, String>>,
}

/// Where the card of a file is.
pub fn path_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".card.json");
    name.into()
}

/// The program as a card names it.
pub fn made_by() -> String {
    format!("boltzmap {VERSION} ({COMMIT})")
}

/// SHA-256 of a file, in hexadecimal digits.
pub fn digest(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut text = String::new();
    for byte in Sha256::digest(&bytes) {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// Writes the card of a file that is complete, filling in its SHA-256.
pub fn write(file: &Path, mut card: Card) -> Result<()> {
    card.sha256 = digest(file)?;
    let text = serde_json::to_string_pretty(&card)? + "\n";
    write_atomically(&path_of(file), text.as_bytes())
}

/// The card of a file, if it has one. The file itself is not looked at.
///
/// # Errors
/// If the card is no card.
pub fn read(file: &Path) -> Result<Option<Card>> {
    let path = path_of(file);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let card = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is not a card of a data set; delete it or make the data again",
            path.display()
        )
    })?;
    Ok(Some(card))
}

/// Checks a file against its card, if it has one.
///
/// # Errors
/// If the card is no card, or the file is not the one it was written for.
pub fn verify(file: &Path) -> Result<Option<Card>> {
    let Some(card) = read(file)? else {
        return Ok(None);
    };
    ensure!(
        card.sha256 == digest(file)?,
        "{} is not the file that {} describes: its SHA-256 differs; it was changed or damaged, make it again or delete the card",
        file.display(),
        path_of(file).display()
    );
    Ok(Some(card))
}
