//! Which atoms a molecule has and which of them are bonded: everything about it but parameters and positions.

use crate::element::Element;
use crate::observables::{Backbone, backbone};

/// One atom of a [`Topology`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atom {
    /// Name within its residue, as in PDB files (`CA`, `HB1`).
    pub name: String,
    /// Chemical element.
    pub element: Element,
    /// Three-letter residue name (`ALA`, `ACE`). Parameter assignment ignores it and looks at the bond graph.
    pub residue_name: String,
    /// Index of the residue, counted from 0 over the whole molecule; atoms of one residue are contiguous.
    pub residue_index: usize,
    /// PDB chain identifier.
    pub chain: char,
}

/// Atoms and bonds of a molecule.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Topology {
    /// The atoms, residue by residue.
    pub atoms: Vec<Atom>,
    /// Bonded pairs, each with the lower index first, sorted, none twice.
    pub bonds: Vec<[usize; 2]>,
}

impl Topology {
    /// A topology whose bonds are brought into canonical order (lower index first, sorted, no duplicates).
    ///
    /// # Panics
    /// If a bond names an atom that does not exist or an atom twice.
    pub fn new(atoms: Vec<Atom>, bonds: impl IntoIterator<Item = [usize; 2]>) -> Topology {
        let mut bonds: Vec<[usize; 2]> = bonds
            .into_iter()
            .map(|[i, j]| [i.min(j), i.max(j)])
            .collect();
        bonds.sort_unstable();
        bonds.dedup();
        for [i, j] in &bonds {
            assert!(
                i != j && *j < atoms.len(),
                "bond {i}-{j} in a molecule of {} atoms",
                atoms.len()
            );
        }
        Topology { atoms, bonds }
    }

    /// Number of atoms.
    pub fn n_atoms(&self) -> usize {
        self.atoms.len()
    }

    /// Atomic number of every atom.
    pub fn atomic_numbers(&self) -> Vec<u8> {
        self.atoms
            .iter()
            .map(|atom| atom.element.atomic_number())
            .collect()
    }

    /// φ, ψ, ω and the chiral centres.
    pub fn backbone(&self) -> Backbone {
        backbone(self.n_atoms(), &self.bonds, &self.atomic_numbers())
    }

    /// Name of every residue, caps included.
    pub fn residue_names(&self) -> Vec<String> {
        self.residues()
            .iter()
            .map(|atoms| self.atoms[atoms[0]].residue_name.clone())
            .collect()
    }

    /// Number of residues, caps included.
    pub fn n_residues(&self) -> usize {
        self.atoms
            .iter()
            .map(|atom| atom.residue_index + 1)
            .max()
            .unwrap_or(0)
    }

    /// The bonded neighbours of every atom, in increasing order.
    pub fn neighbours(&self) -> Vec<Vec<usize>> {
        let mut neighbours = vec![Vec::new(); self.atoms.len()];
        for &[i, j] in &self.bonds {
            neighbours[i].push(j);
            neighbours[j].push(i);
        }
        for list in &mut neighbours {
            list.sort_unstable();
        }
        neighbours
    }

    /// The atom indices of every residue.
    pub fn residues(&self) -> Vec<Vec<usize>> {
        let mut residues = vec![Vec::new(); self.n_residues()];
        for (index, atom) in self.atoms.iter().enumerate() {
            residues[atom.residue_index].push(index);
        }
        residues
    }

    /// The index of the atom of that name in a residue, if there is one.
    pub fn find(&self, residue_index: usize, name: &str) -> Option<usize> {
        self.atoms
            .iter()
            .position(|atom| atom.residue_index == residue_index && atom.name == name)
    }

    /// A residue as people name it, counted from 1: `ALA 2`.
    pub fn residue_label(&self, residue_index: usize) -> String {
        let name = self
            .atoms
            .iter()
            .find(|atom| atom.residue_index == residue_index)
            .map_or("?", |atom| &atom.residue_name);
        format!("{name} {}", residue_index + 1)
    }
}
