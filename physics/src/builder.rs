//! Peptides in three dimensions from ideal internal coordinates: L-amino acids in an extended, clash-free conformation.
//!
//! Every residue is a list of atoms in the order of the PDB, each placed by its distance to a bonded atom, an angle and a dihedral.

use crate::element::Element;
use crate::sequence::{Sequence, SequenceError};
use crate::terms::vector::{add, cross, normalize, scale, subtract};
use crate::topology::{Atom, Topology};

/// Backbone dihedrals of the structures built, degrees: φ and ψ of an antiparallel β strand.
const EXTENDED: [f64; 2] = [-139.0, 135.0];

/// How one atom is placed: `name`, `element`, the atoms (bonded, angle, dihedral) that it is placed against, and its distance (nm), angle and
/// dihedral (degrees) to them. A leading `-` means the residue before.
struct Place {
    name: &'static str,
    element: Element,
    against: [&'static str; 3],
    length: f64,
    angle: f64,
    dihedral: f64,
}

const fn place(
    name: &'static str,
    element: Element,
    against: [&'static str; 3],
    length: f64,
    angle: f64,
    dihedral: f64,
) -> Place {
    Place {
        name,
        element,
        against,
        length,
        angle,
        dihedral,
    }
}

// Bond lengths and angles are AMBER's equilibrium values, rounded.
const ACETYL: [Place; 6] = [
    place("CH3", Element::C, ["-C", "-CA", "-O"], 0.1522, 111.0, 180.0),
    place("H1", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, -120.0),
    place("H2", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, 0.0),
    place("H3", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, 120.0),
    place("C", Element::C, ["CH3", "-C", "-CA"], 0.1522, 111.0, 180.0),
    place("O", Element::O, ["C", "CH3", "-C"], 0.1229, 120.4, 0.0),
];

const METHYLAMIDE: [Place; 6] = [
    place("N", Element::N, ["-C", "-CA", "-O"], 0.1335, 116.6, 180.0),
    place("H", Element::H, ["N", "-C", "-CA"], 0.1010, 119.8, 0.0),
    place("C", Element::C, ["N", "-C", "-CA"], 0.1449, 121.9, 180.0),
    place("H1", Element::H, ["C", "N", "-C"], 0.1090, 109.5, 180.0),
    place("H2", Element::H, ["C", "N", "-C"], 0.1090, 109.5, -60.0),
    place("H3", Element::H, ["C", "N", "-C"], 0.1090, 109.5, 60.0),
];

/// N with its hydrogen inside a chain.
const AMIDE: [Place; 2] = [
    place("N", Element::N, ["-C", "-CA", "-O"], 0.1335, 116.6, 180.0),
    place("H", Element::H, ["N", "-C", "-CA"], 0.1010, 119.8, 0.0),
];

/// NH₃⁺ at the start of a chain.
const AMMONIUM: [Place; 4] = [
    place("N", Element::N, ["-C", "-CA", "-O"], 0.1335, 116.6, 180.0),
    place("H", Element::H, ["N", "CA", "C"], 0.1010, 109.5, 180.0),
    place("H2", Element::H, ["N", "CA", "C"], 0.1010, 109.5, -60.0),
    place("H3", Element::H, ["N", "CA", "C"], 0.1010, 109.5, 60.0),
];

/// Cα, its hydrogen and the carbonyl. The dihedral N–C–Cα–HA is what makes the residue L.
const BACKBONE: [Place; 4] = [
    place("CA", Element::C, ["N", "-C", "-CA"], 0.1449, 121.9, 180.0),
    place("HA", Element::H, ["CA", "C", "N"], 0.1090, 109.5, -119.5),
    place(
        "C",
        Element::C,
        ["CA", "N", "-C"],
        0.1522,
        110.1,
        EXTENDED[0],
    ),
    place(
        "O",
        Element::O,
        ["C", "CA", "N"],
        0.1229,
        120.4,
        EXTENDED[1] - 180.0,
    ),
];

const ALANINE: [Place; 4] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB1", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, -60.0),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 180.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 60.0),
];

/// The second oxygen of COO⁻ at the end of a chain.
const CARBOXYLATE: [Place; 1] = [place(
    "OXT",
    Element::O,
    ["C", "CA", "O"],
    0.1250,
    117.0,
    180.0,
)];

/// The residues that can be built, with their side chains.
const SIDE_CHAINS: [(&str, &[Place]); 1] = [("ALA", &ALANINE)];

/// Topology and extended 3-D structure (3·atoms coordinates, nm, centred at the origin) of a sequence such as `Ace-A-Nme` or `AAA`.
///
/// # Errors
/// If the sequence is malformed, or holds a residue that there is no geometry for.
pub fn build_sequence(text: &str) -> Result<(Topology, Vec<f64>), SequenceError> {
    build(&text.parse()?)
}

/// Topology and extended 3-D structure (3·atoms coordinates, nm, centred at the origin) of a peptide.
///
/// # Errors
/// If it holds a residue that there is no geometry for.
pub fn build(sequence: &Sequence) -> Result<(Topology, Vec<f64>), SequenceError> {
    let mut chain = Chain::new();
    if sequence.acetyl_cap {
        chain.append("ACE", ACETYL.iter());
    }
    let last = sequence.residues.len().wrapping_sub(1);
    for (index, &name) in sequence.residues.iter().enumerate() {
        let (_, side_chain) = SIDE_CHAINS
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| SequenceError::NoBuilder {
                name: name.into(),
                position: index + 1,
                known: SIDE_CHAINS.map(|(known, _)| known).join(", "),
            })?;
        let front: &[Place] = if index == 0 && !sequence.acetyl_cap {
            &AMMONIUM
        } else {
            &AMIDE
        };
        let end: &[Place] = if index == last && !sequence.methylamide_cap {
            &CARBOXYLATE
        } else {
            &[]
        };
        chain.append(
            name,
            front.iter().chain(&BACKBONE).chain(*side_chain).chain(end),
        );
    }
    if sequence.methylamide_cap {
        chain.append("NME", METHYLAMIDE.iter());
    }
    Ok(chain.finish())
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

    fn append<'a>(&mut self, residue_name: &str, places: impl Iterator<Item = &'a Place>) {
        let start = self.atoms.len();
        let places: Vec<&Place> = places.collect();
        for place in &places {
            self.atoms.push(Atom {
                name: place.name.into(),
                element: place.element,
                residue_name: residue_name.into(),
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
                self.positions[start + index] =
                    put(references.map(|(position, _)| position), place);
                self.bonds
                    .extend(references[0].1.map(|bonded| [bonded, start + index]));
                false
            });
            assert!(
                waiting.len() < before,
                "the table of {residue_name} places atoms in a circle"
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

/// The point at the place's distance from a, with the place's angle to b and dihedral to c.
fn put([a, b, c]: [[f64; 3]; 3], place: &Place) -> [f64; 3] {
    let along = normalize(subtract(a, b));
    let normal = normalize(cross(subtract(b, c), along));
    let across = cross(normal, along);
    let (angle, dihedral) = (place.angle.to_radians(), place.dihedral.to_radians());
    let direction = add(
        scale(-angle.cos(), along),
        scale(
            angle.sin(),
            add(scale(dihedral.cos(), across), scale(dihedral.sin(), normal)),
        ),
    );
    add(a, scale(place.length, direction))
}
