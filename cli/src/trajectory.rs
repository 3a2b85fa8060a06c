//! Conformations in files of any format, told by the ending of the name.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use boltzmap_physics::pdb;
use boltzmap_physics::trajectory::{dcd, xtc};

use crate::card;
use crate::molecule::Molecule;
use crate::npz::{self, Array, NpzFile, NpzWriter};
use crate::run_dir::write_atomically;

/// What a trajectory file can be.
const ENDINGS: &str = "npy, npz, pdb, xtc or dcd";

fn ending(path: &Path) -> String {
    path.extension()
        .map(|ending| ending.to_string_lossy().to_lowercase())
        .unwrap_or_default()
}

/// Refuses a name whose ending is no format that can be written.
pub fn check_ending(path: &Path) -> Result<()> {
    let known = ["npz", "pdb", "xtc", "dcd"].contains(&ending(path).as_str());
    ensure!(
        known,
        "{} must end in .npz, .pdb, .xtc or .dcd, which says what to write",
        path.display()
    );
    Ok(())
}

/// Conformations `[n, atoms, 3]`, nm, all finite, at least one. A data set's card is checked where there is one.
///
/// # Errors
/// Names the file, and the conformation and atom of a position that is not finite.
pub fn read(path: &Path, molecule: &Molecule) -> Result<Vec<f64>> {
    let shown = path.display().to_string();
    let atoms = molecule.n_atoms();
    card::verify(path)?;
    let shape = [None, Some(atoms), Some(3)];
    let bytes = || std::fs::read(path).with_context(|| format!("cannot read {shown}"));
    let widened = |frames: boltzmap_physics::trajectory::Frames| {
        ensure!(
            frames.n_atoms == atoms,
            "{shown} has {} atoms where the molecule has {atoms}",
            frames.n_atoms
        );
        Ok(frames.positions.into_iter().map(f64::from).collect())
    };
    let values: Vec<f64> = match ending(path).as_str() {
        "npz" => {
            let file = NpzFile::open(path)?;
            file.array::<f64>("positions", &shape)?.values
        }
        "pdb" => {
            let text = String::from_utf8(bytes()?)
                .map_err(|_| anyhow!("{shown} is not a PDB file: it is not text"))?;
            let (n, positions) = pdb::read_models(&text).with_context(|| shown.clone())?;
            ensure!(
                n == atoms,
                "{shown} has {n} atoms where the molecule has {atoms}"
            );
            positions
        }
        "xtc" => widened(xtc::read(&bytes()?).with_context(|| shown.clone())?)?,
        "dcd" => widened(dcd::read(&bytes()?).with_context(|| shown.clone())?)?,
        "npy" => npz::read_npy::<f64>(path, &shape)?.values,
        other => {
            bail!("{shown} ends in '{other}', which is no format of conformations; give {ENDINGS}")
        }
    };
    let n = values.len() / (3 * atoms);
    let array = Array {
        shape: vec![n, atoms, 3],
        values,
    };
    if let Some(index) = array.first_not_finite() {
        bail!(
            "{shown} has a position that is not finite: conformation {}, atom {} ({}), counted from 0",
            index[0],
            index[1],
            molecule.atom_label(index[1])
        );
    }
    ensure!(n > 0, "{shown} holds no conformations");
    Ok(array.values)
}

/// Writes conformations `[n, atoms, 3]`, nm, at `times` (ps, evenly apart for dcd). `extra` arrays `[n]` go into an npz file and are left
/// out of others.
///
/// # Errors
/// If the ending is unknown or a coordinate does not fit the format.
pub fn write(
    path: &Path,
    molecule: &Molecule,
    positions: &[f32],
    times: &[f32],
    extra: &[(&str, Vec<f64>)],
) -> Result<()> {
    check_ending(path)?;
    let atoms = molecule.n_atoms();
    let n = times.len();
    let shown = || path.display().to_string();
    match ending(path).as_str() {
        "npz" => {
            let mut writer = NpzWriter::new().array("positions", &[n, atoms, 3], positions);
            writer = writer.array("time", &[n], times);
            for (name, values) in extra {
                writer = writer.array(name, &[n], values);
            }
            writer.write(path)
        }
        "xtc" => write_atomically(
            path,
            &xtc::write(atoms, positions, times).with_context(shown)?,
        ),
        "dcd" => {
            let interval = match times {
                [first, second, ..] => f64::from(second - first),
                _ => 1.0,
            };
            write_atomically(
                path,
                &dcd::write(atoms, positions, interval).with_context(shown)?,
            )
        }
        _ => {
            let wide: Vec<f64> = positions.iter().map(|&x| f64::from(x)).collect();
            let text = pdb::write(&molecule.topology, &wide).with_context(shown)?;
            write_atomically(path, text.as_bytes())
        }
    }
}
