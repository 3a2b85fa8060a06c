//! Peptides in three dimensions from ideal internal coordinates, in an extended conformation; with disulfides, in one that closes
//! them.
//!
//! Every residue is a list of atoms in the order of the PDB, each placed by its distance to a bonded atom, an angle and a dihedral
//! (`builder/tables.rs`). D-residues are mirror images: all their dihedrals change sign.

mod closure;
mod tables;

use crate::batch::{BatchError, BatchEvaluator};
use crate::forcefield::{AssignError, ForceField};
use crate::minimise::{MinimiseSettings, Minimised, minimise};
use crate::sequence::{End, Front, Sequence, SequenceError};
use crate::system::System;
use crate::terms::vector::{add, cross, normalize, scale, subtract};
use crate::topology::{Atom, Topology};
use tables::{ACETYL, CARBOXYLATE, METHYLAMIDE, PRIMARY_AMIDE, Place, backbone, front, side_chain};

/// Topology and ideal 3-D structure (3·atoms coordinates, nm, centred at the origin) of a sequence such as `Ace-A-Nme` or `AAA`;
/// see [`crate::sequence`] for what can be written.
///
/// # Errors
/// If the sequence is malformed, or its disulfides cannot be closed.
pub fn build_sequence(text: &str) -> Result<(Topology, Vec<f64>), SequenceError> {
    build(&text.parse()?)
}

/// Topology and ideal 3-D structure (3·atoms coordinates, nm, centred at the origin) of a peptide.
///
/// # Errors
/// If its disulfides cannot be closed.
pub fn build(sequence: &Sequence) -> Result<(Topology, Vec<f64>), SequenceError> {
    let turns = closure::conformation(sequence)?;
    Ok(assemble(sequence, &turns))
}

/// A peptide with its parameters in a minimum of its energy.
#[derive(Clone, Debug)]
pub struct Built {
    /// Atoms and bonds.
    pub topology: Topology,
    /// Parameters.
    pub system: System,
    /// 3·atoms coordinates, nm.
    pub positions: Vec<f64>,
    /// How the minimisation ended.
    pub minimised: Minimised,
}

/// Why a peptide cannot be built and minimised.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BuildError {
    /// The sequence cannot be built.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The force field does not know it.
    #[error(transparent)]
    Assign(#[from] AssignError),
    /// The structure has no energy.
    #[error(transparent)]
    Evaluate(#[from] BatchError),
}

/// Builds a sequence and minimises its energy in a force field.
///
/// # Errors
/// If the sequence is malformed, cannot be built, or has residues that the force field does not know.
pub fn build_minimised(
    text: &str,
    force_field: &ForceField,
    settings: MinimiseSettings,
) -> Result<Built, BuildError> {
    let (topology, mut positions) = build_sequence(text)?;
    let system = force_field.system(&topology)?;
    let evaluator = BatchEvaluator::<f64>::new(&system);
    let minimised = minimise(&evaluator, &mut positions, settings)?[0];
    Ok(Built {
        topology,
        system,
        positions,
        minimised,
    })
}

/// What is added to a residue's dihedrals, degrees. φ of proline stays as its ring asks.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    phi: f64,
    psi: f64,
    chi1: f64,
}

impl Turn {
    fn of(&self, residue: &str, place: &Place) -> f64 {
        match (place.name, place.against) {
            ("C", ["CA", ..]) if residue != "PRO" => self.phi,
            ("O", ["C", "CA", ..]) => self.psi,
            (_, ["CB", "CA", "N"]) if residue != "PRO" => self.chi1,
            _ => 0.0,
        }
    }
}

/// The structure whose residues are turned as given, or not where `turns` ends.
fn assemble(sequence: &Sequence, turns: &[Turn]) -> (Topology, Vec<f64>) {
    let mut chain = Chain::new();
    let still = Turn::default();
    if sequence.front == Front::Acetyl {
        chain.append("ACE", "ACE", false, &still, ACETYL.iter());
    }
    let caps = chain.residues;
    let last = sequence.residues.len() - 1;
    for (index, residue) in sequence.residues.iter().enumerate() {
        let name = residue.name;
        let side_chain = side_chain(name).expect("every residue of a sequence has a side chain");
        let charged = index == 0 && sequence.front == Front::Charged;
        let end: &[Place] = if index == last && sequence.end == End::Charged {
            &CARBOXYLATE
        } else {
            &[]
        };
        let places = front(name, charged)
            .iter()
            .chain(backbone(name))
            .chain(side_chain.places)
            .chain(end);
        let turn = turns.get(index).unwrap_or(&still);
        chain.append(name, residue.pdb_name(), residue.mirrored, turn, places);
        for &[first, second] in side_chain.closures {
            let ends = [first, second].map(|name| chain.find(caps + index, name));
            chain.bonds.push(ends);
        }
    }
    match sequence.end {
        End::Charged => {}
        End::MethylAmide => chain.append("NME", "NME", false, &still, METHYLAMIDE.iter()),
        End::Amide => chain.append("NHE", "NHE", false, &still, PRIMARY_AMIDE.iter()),
    }
    for pair in &sequence.disulfides {
        let ends = pair.map(|residue| chain.find(caps + residue, "SG"));
        chain.bonds.push(ends);
    }
    chain.finish()
}

struct Chain {
    atoms: Vec<Atom>,
    positions: Vec<[f64; 3]>,
    bonds: Vec<[usize; 2]>,
    /// Where the atoms of the residue before start.
    previous: usize,
    residues: usize,
}

impl Chain {
    fn new() -> Chain {
        Chain {
            atoms: Vec::new(),
            positions: Vec::new(),
            bonds: Vec::new(),
            previous: 0,
            residues: 0,
        }
    }

    fn find(&self, residue: usize, name: &str) -> usize {
        self.atoms
            .iter()
            .position(|atom| atom.residue_index == residue && atom.name == name)
            .expect("tables name atoms of the residue")
    }

    /// Position and index of an atom that others are placed against. Before the first residue stands a phantom carbonyl.
    fn reference(&self, start: usize, name: &str) -> ([f64; 3], Option<usize>) {
        let Some(earlier) = name.strip_prefix('-') else {
            let index = start
                + self.atoms[start..]
                    .iter()
                    .position(|atom| atom.name == name)
                    .expect("tables name atoms of the residue");
            return (self.positions[index], Some(index));
        };
        if self.residues == 0 {
            let phantom = match earlier {
                "CA" => [0.0, 0.0, 0.0],
                "C" => [0.1522, 0.0, 0.0],
                _ => [0.2144, 0.1060, 0.0],
            };
            return (phantom, None);
        }
        // The acetyl cap's methyl stands where other residues have Cα.
        let is_it = |atom: &Atom| atom.name == earlier || (earlier == "CA" && atom.name == "CH3");
        let index = self.previous
            + self.atoms[self.previous..start]
                .iter()
                .position(is_it)
                .expect("every residue before has a carbonyl");
        (self.positions[index], Some(index))
    }

    fn append<'a>(
        &mut self,
        residue: &str,
        pdb_name: &str,
        mirrored: bool,
        turn: &Turn,
        places: impl Iterator<Item = &'a Place>,
    ) {
        let start = self.atoms.len();
        let places: Vec<&Place> = places.collect();
        for place in &places {
            self.atoms.push(Atom {
                name: place.name.into(),
                element: place.element,
                residue_name: pdb_name.into(),
                residue_index: self.residues,
                chain: 'A',
            });
            self.positions.push([f64::NAN; 3]);
        }
        // Atoms come in the PDB's order, in which some stand before those they are placed against.
        let mut waiting: Vec<usize> = (0..places.len()).collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|&index| {
                let place = places[index];
                let references = place.against.map(|name| self.reference(start, name));
                if references.iter().any(|(position, _)| position[0].is_nan()) {
                    return true;
                }
                let turned = place.dihedral + turn.of(residue, place);
                let dihedral = if mirrored { -turned } else { turned };
                self.positions[start + index] =
                    put(references.map(|(position, _)| position), place, dihedral);
                self.bonds
                    .extend(references[0].1.map(|bonded| [bonded, start + index]));
                false
            });
            assert!(
                waiting.len() < before,
                "the table of {residue} places atoms in a circle"
            );
        }
        self.previous = start;
        self.residues += 1;
    }

    fn finish(self) -> (Topology, Vec<f64>) {
        let count = self.positions.len() as f64;
        let centre = scale(
            1.0 / count,
            self.positions
                .iter()
                .fold([0.0; 3], |sum, &position| add(sum, position)),
        );
        let positions: Vec<f64> = self
            .positions
            .iter()
            .flat_map(|&position| subtract(position, centre))
            .collect();
        (Topology::new(self.atoms, self.bonds), positions)
    }
}

/// The point at the place's distance from a, with the place's angle to b and the dihedral (degrees) to c.
fn put([a, b, c]: [[f64; 3]; 3], place: &Place, dihedral: f64) -> [f64; 3] {
    let along = normalize(subtract(a, b));
    let normal = normalize(cross(subtract(b, c), along));
    let across = cross(normal, along);
    let (angle, dihedral) = (place.angle.to_radians(), dihedral.to_radians());
    let direction = add(
        scale(-angle.cos(), along),
        scale(
            angle.sin(),
            add(scale(dihedral.cos(), across), scale(dihedral.sin(), normal)),
        ),
    );
    add(a, scale(place.length, direction))
}
