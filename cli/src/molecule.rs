//! From a sequence or a PDB file to a molecule with parameters.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use boltzmap_physics::langevin::DynamicsError;
use boltzmap_physics::{ForceField, System, Topology, build_sequence, pdb};

use crate::args::MoleculeArguments;
use crate::config::nearest;
use crate::run_dir::write_atomically;

/// Names of the force fields, each with its implicit solvent.
pub const FORCE_FIELDS: [&str; 3] = ["amber99sbildn+obc2", "ff14sb+obc1", "ff14sb+obc2"];

/// The force field of a name.
pub fn force_field(name: &str) -> Result<ForceField> {
    use boltzmap_physics::system::BornModel::{Obc1, Obc2};
    Ok(match name {
        "amber99sbildn+obc2" => ForceField::amber99sbildn_obc2(),
        "ff14sb+obc1" => ForceField::ff14sb(Some(Obc1), None),
        "ff14sb+obc2" => ForceField::ff14sb(Some(Obc2), None),
        other => {
            let hint = nearest(other, FORCE_FIELDS.into_iter())
                .map_or_else(String::new, |name| format!("; did you mean {name}?"));
            bail!(
                "unknown force field '{other}' (known: {}){hint}",
                FORCE_FIELDS.join(", ")
            )
        }
    })
}

/// The force field of a name with a non-periodic cutoff (nm) instead of all pairs.
pub fn force_field_with_cutoff(name: &str, cutoff: Option<f64>) -> Result<ForceField> {
    if let Some(cutoff) = cutoff {
        ensure!(
            cutoff > 0.0 && cutoff.is_finite(),
            "the cutoff is {cutoff} nm, which must be positive"
        );
    }
    Ok(ForceField {
        cutoff,
        ..force_field(name)?
    })
}

/// A molecule with its parameters and one conformation.
#[derive(Clone, Debug)]
pub struct Molecule {
    /// Atoms and bonds.
    pub topology: Topology,
    /// Parameters.
    pub system: System,
    /// Positions, `[atoms, 3]`, nm.
    pub positions: Vec<f64>,
}

impl Molecule {
    /// Builds a peptide in an extended conformation.
    pub fn from_sequence(sequence: &str, force_field_name: &str) -> Result<Molecule> {
        let (topology, positions) = build_sequence(sequence)?;
        let system = force_field(force_field_name)?.system(&topology)?;
        Ok(Molecule {
            topology,
            system,
            positions,
        })
    }

    /// Reads a PDB file.
    pub fn from_pdb(path: &Path, force_field_name: &str) -> Result<Molecule> {
        Molecule::read(path, &force_field(force_field_name)?)
    }

    /// Reads a PDB file.
    pub fn read(path: &Path, force_field: &ForceField) -> Result<Molecule> {
        let shown = path.display();
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| anyhow!("{shown} is not a PDB file: it is not text"))?;
        let (topology, positions) = pdb::read(&text).with_context(|| shown.to_string())?;
        let system = force_field
            .system(&topology)
            .with_context(|| shown.to_string())?;
        Ok(Molecule {
            topology,
            system,
            positions,
        })
    }

    /// What the arguments name: a PDB file if it ends in `.pdb`, a sequence otherwise.
    pub fn from_arguments(arguments: &MoleculeArguments) -> Result<Molecule> {
        let force_field = force_field_with_cutoff(&arguments.force_field, arguments.cutoff)?;
        let path = Path::new(&arguments.molecule);
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ending.eq_ignore_ascii_case("pdb")) {
            return Molecule::read(path, &force_field);
        }
        let (topology, positions) = build_sequence(&arguments.molecule)?;
        let system = force_field.system(&topology)?;
        Ok(Molecule {
            topology,
            system,
            positions,
        })
    }

    /// An atom as people name it: `CB of ALA 2`.
    pub fn atom_label(&self, atom: usize) -> String {
        let named = &self.topology.atoms[atom];
        let residue = self.topology.residue_label(named.residue_index);
        format!("{} of {residue}", named.name)
    }

    /// An error of the dynamics with the atom by name.
    pub fn explain(&self, error: DynamicsError) -> anyhow::Error {
        match error {
            DynamicsError::Diverged {
                replica,
                step,
                atom,
            } => anyhow!(
                "replica {replica} left the range of numbers at step {step}, first {}; use a shorter time step or more friction",
                self.atom_label(atom)
            ),
            other => other.into(),
        }
    }

    /// Number of atoms.
    pub fn n_atoms(&self) -> usize {
        self.topology.n_atoms()
    }
}

/// Writes a conformation (`[atoms, 3]`, nm) as a PDB file.
pub fn write_pdb(path: &Path, topology: &Topology, positions: &[f64]) -> Result<()> {
    write_atomically(path, pdb::write(topology, positions)?.as_bytes())
}
