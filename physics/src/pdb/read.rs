//! Reading.

use super::PdbError;
use super::bonds::{residue as known_residue, usual_name};
use crate::element::Element;
use crate::forcefield::ForceField;
use crate::forcefield::matching::is_known;
use crate::terms::vector::distance;
use crate::topology::{Atom, Topology};
use std::collections::{HashMap, HashSet};

/// C and N of successive residues farther apart than this (nm) are not bonded.
const LONGEST_PEPTIDE_BOND: f64 = 0.25;
/// Bonds by name longer than this (nm) hint that the names do not mean what they say: of hydrogen, of other atoms, of sulfur.
const LONGEST_NAMED_BOND: [f64; 3] = [0.16, 0.2, 0.23];
/// Two sulfurs without hydrogen closer than this (nm) form a disulfide bond.
const LONGEST_DISULFIDE_BOND: f64 = 0.25;
/// A hydrogen of unusual name belongs to the nearest heavy atom of its residue within this distance, nm.
const LONGEST_HYDROGEN_BOND: f64 = 0.15;

/// Topology and positions (3·atoms coordinates, nm) of the first model in a PDB file's text.
///
/// Bonds come from the atom names of standard residues, from successive residues of a chain, and from CONECT records. A residue whose names
/// do not fit is read by the distances between its atoms instead, if it then is one that a force field knows. Of alternate
/// locations the first is taken. Hydrogens are not added: parameters can be assigned only if the file has them all.
///
/// # Errors
/// Names the line and the residue of what cannot be understood or is missing.
pub fn read(text: &str) -> Result<(Topology, Vec<f64>), PdbError> {
    let file = parse(text)?;
    if file.atoms.is_empty() {
        return Err(PdbError::NoAtoms);
    }
    let force_field = ForceField::amber99sbildn_obc2();
    let mut bonds = file.conect.clone();
    let mut by_distance = LazyDistances::new(&file);
    let mut named = Vec::with_capacity(file.residues.len());
    for residue in &file.residues {
        let mut found = Vec::new();
        let by_name = residue_bonds(&force_field, &file, residue, &mut found);
        let plausible = by_name.is_ok()
            && names_have_their_elements(&force_field, &file, residue)
            && found.iter().all(|&bond| is_near(&file, bond));
        let use_names = plausible || !by_distance.fits(&force_field, residue);
        if use_names {
            by_name?;
            bonds.extend(found);
        } else {
            bonds.extend(by_distance.of(residue));
        }
        named.push(use_names);
    }
    for (pair, named) in file.residues.windows(2).zip(named.windows(2)) {
        if named == [true, true] {
            peptide_bond(&file, &pair[0], &pair[1], &mut bonds)?;
        }
    }
    disulfide_bonds(&file, &mut bonds);
    let positions = file.positions.concat();
    Ok((Topology::new(file.atoms, bonds), positions))
}

fn names_have_their_elements(force_field: &ForceField, file: &File, residue: &Residue) -> bool {
    let Some(known) = known_residue(force_field, &residue.name) else {
        return true;
    };
    file.atoms[residue.atoms.clone()].iter().all(|atom| {
        let element = known.names.get(usual_name(&residue.name, &atom.name));
        element.is_none_or(|element| *element == atom.element)
    })
}

/// The number of atoms and the positions `[models, atoms, 3]` (nm) of all models in a PDB file's text, in the order of the file. Nothing but
/// coordinates is read; of alternate locations the first is taken.
///
/// # Errors
/// Names the line that is malformed, or the model with another number of atoms.
pub fn read_models(text: &str) -> Result<(usize, Vec<f64>), PdbError> {
    let mut positions = Vec::new();
    // Coordinates before this model, and per model.
    let (mut before, mut size) = (0, 0);
    let mut close = |line: usize, end: usize| {
        let found = end - before;
        if found == 0 {
            return Ok(());
        }
        if size != 0 && found != size {
            return Err(PdbError::Line {
                line,
                what: format!(
                    "a model with {} atoms ends here where the first has {}; the file is truncated or mixed",
                    found / 3,
                    size / 3
                ),
            });
        }
        (before, size) = (end, found);
        Ok(())
    };
    for (index, line) in text.lines().enumerate() {
        let field = |from: usize, to: usize| line.get(from - 1..to).unwrap_or("").trim();
        match line.get(..6.min(line.len())).unwrap_or("").trim_end() {
            "ATOM" | "HETATM" if !matches!(field(17, 17), "" | "A" | "1") => {}
            "ATOM" | "HETATM" => {
                for from in [31, 39, 47] {
                    let text = field(from, from + 7);
                    let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                    positions.push(
                        0.1 * value.ok_or_else(|| PdbError::Line {
                            line: index + 1,
                            what: format!(
                                "the coordinate in columns {from}-{} is {text:?}, not a number",
                                from + 7
                            ),
                        })?,
                    );
                }
            }
            "ENDMDL" => close(index + 1, positions.len())?,
            _ => {}
        }
    }
    close(text.lines().count(), positions.len())?;
    if size == 0 {
        return Err(PdbError::NoAtoms);
    }
    Ok((size / 3, positions))
}

/// Whether two atoms that are bonded by name are also so near that no third fits between.
fn is_near(file: &File, [i, j]: [usize; 2]) -> bool {
    let has = |element| {
        [i, j]
            .iter()
            .any(|&atom| file.atoms[atom].element == element)
    };
    let limit = if has(Element::H) {
        LONGEST_NAMED_BOND[0]
    } else if has(Element::S) {
        LONGEST_NAMED_BOND[2]
    } else {
        LONGEST_NAMED_BOND[1]
    };
    distance(file.positions[i], file.positions[j]) < limit
}

/// Bonds by distance, worked out when first asked for.
struct LazyDistances<'a> {
    file: &'a File,
    topology: Option<(Topology, Vec<Vec<usize>>)>,
}

impl<'a> LazyDistances<'a> {
    fn new(file: &'a File) -> Self {
        LazyDistances {
            file,
            topology: None,
        }
    }

    fn topology(&mut self) -> &(Topology, Vec<Vec<usize>>) {
        let file = self.file;
        self.topology.get_or_insert_with(|| {
            let mut bonds = bonds_by_distance(&file.atoms, &file.positions);
            bonds.extend(&file.conect);
            let topology = Topology::new(file.atoms.clone(), bonds);
            let neighbours = topology.neighbours();
            (topology, neighbours)
        })
    }

    /// Whether the residue is one that the force field knows.
    fn fits(&mut self, force_field: &ForceField, residue: &Residue) -> bool {
        let (topology, neighbours) = self.topology();
        let atoms: Vec<usize> = residue.atoms.clone().collect();
        is_known(force_field, topology, neighbours, &atoms)
    }

    /// Bonds of the residue, inside and to others.
    fn of(&mut self, residue: &Residue) -> Vec<[usize; 2]> {
        let touches = |bond: &&[usize; 2]| bond.iter().any(|atom| residue.atoms.contains(atom));
        let (topology, _) = self.topology();
        topology.bonds.iter().filter(touches).copied().collect()
    }
}

/// Pairs of heavy atoms no farther apart than their covalent radii and a little more, and every hydrogen with its nearest heavy atom.
fn bonds_by_distance(atoms: &[Atom], positions: &[[f64; 3]]) -> Vec<[usize; 2]> {
    let radius = |atom: usize| match atoms[atom].element {
        Element::H => 0.031,
        Element::C => 0.076,
        Element::N => 0.071,
        Element::O => 0.066,
        Element::F => 0.057,
        Element::Si => 0.111,
        Element::P => 0.107,
        Element::S => 0.105,
        Element::Cl => 0.102,
    };
    let is_hydrogen = |atom: usize| atoms[atom].element == Element::H;
    let apart = |i: usize, j: usize| distance(positions[i], positions[j]);
    let mut bonds = Vec::new();
    for i in 0..atoms.len() {
        if is_hydrogen(i) {
            let nearest = (0..atoms.len())
                .filter(|&j| !is_hydrogen(j))
                .min_by(|&a, &b| apart(i, a).total_cmp(&apart(i, b)));
            let nearest = nearest.filter(|&j| apart(i, j) < LONGEST_HYDROGEN_BOND);
            bonds.extend(nearest.map(|j| [j, i]));
            continue;
        }
        let close = |&j: &usize| !is_hydrogen(j) && apart(i, j) < radius(i) + radius(j) + 0.045;
        bonds.extend((i + 1..atoms.len()).filter(close).map(|j| [i, j]));
    }
    bonds
}

/// A run of atoms with the same residue identification.
struct Residue {
    label: String,
    name: String,
    atoms: std::ops::Range<usize>,
    /// Which chain it is in: chains end at TER records and where the chain identifier changes.
    chain: usize,
}

struct File {
    atoms: Vec<Atom>,
    positions: Vec<[f64; 3]>,
    lines: Vec<usize>,
    residues: Vec<Residue>,
    conect: Vec<[usize; 2]>,
}

fn parse(text: &str) -> Result<File, PdbError> {
    let mut file = File {
        atoms: Vec::new(),
        positions: Vec::new(),
        lines: Vec::new(),
        residues: Vec::new(),
        conect: Vec::new(),
    };
    // Atoms by serial number, `None` for alternate locations that are left out.
    let mut serials: HashMap<String, Option<usize>> = HashMap::new();
    let (mut in_first_model, mut chain, mut previous) = (true, 0, None);
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let failure = |what: String| PdbError::Line { line: number, what };
        match line.get(..6.min(line.len())).unwrap_or("").trim_end() {
            "ATOM" | "HETATM" if in_first_model => {
                let field = |from: usize, to: usize| {
                    line.get(from - 1..to.min(line.len())).unwrap_or("").trim()
                };
                let (name, residue_name, serial) = (field(13, 16), field(18, 20), field(7, 11));
                if name.is_empty() || residue_name.is_empty() {
                    return Err(failure(
                        "atom name (columns 13-16) or residue name (columns 18-20) is blank".into(),
                    ));
                }
                let chain_identifier = line.chars().nth(21).unwrap_or(' ');
                let identification = (
                    chain_identifier,
                    line.get(22..27).unwrap_or("").to_string(),
                    residue_name.to_string(),
                );
                if previous.as_ref() != Some(&identification) {
                    if previous
                        .as_ref()
                        .is_some_and(|(before, _, _)| *before != chain_identifier)
                    {
                        chain += 1;
                    }
                    file.residues.push(Residue {
                        label: format!("{residue_name} {}", identification.1.trim()),
                        name: residue_name.into(),
                        atoms: file.atoms.len()..file.atoms.len(),
                        chain,
                    });
                    previous = Some(identification);
                }
                let residue_index = file.residues.len() - 1;
                let residue = &mut file.residues[residue_index];
                if file.atoms[residue.atoms.clone()]
                    .iter()
                    .any(|atom| atom.name == name)
                {
                    if field(17, 17).is_empty() {
                        return Err(failure(format!(
                            "residue {} has a second atom {name}; give its residues different numbers",
                            residue.label
                        )));
                    }
                    serials.insert(serial.into(), None);
                    continue;
                }
                let mut position = [0.0; 3];
                for (axis, coordinate) in position.iter_mut().enumerate() {
                    let text = field(31 + 8 * axis, 38 + 8 * axis);
                    let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                    let (atom, from) = (format!("{name} of {}", residue.label), 31 + 8 * axis);
                    *coordinate = 0.1 * value.ok_or_else(|| {
                        failure(format!(
                            "{} coordinate of {atom} (columns {from}-{}) is {text:?}, not a number",
                            ["x", "y", "z"][axis],
                            from + 7
                        ))
                    })?;
                }
                let symbol = field(77, 78);
                let element = if symbol.is_empty() {
                    element_of_name(name)
                } else {
                    Element::from_symbol(symbol)
                };
                let element = element.ok_or_else(|| {
                    let what = if symbol.is_empty() {
                        "cannot be told from its name; fill in columns 77-78".into()
                    } else {
                        format!("{symbol:?} is not known")
                    };
                    failure(format!("the element of {name} of {} {what}", residue.label))
                })?;
                residue.atoms.end += 1;
                serials.insert(serial.into(), Some(file.atoms.len()));
                file.atoms.push(Atom {
                    name: name.into(),
                    element,
                    residue_name: residue_name.into(),
                    residue_index,
                    chain: chain_identifier,
                });
                file.positions.push(position);
                file.lines.push(number);
            }
            "TER" if in_first_model => {
                chain += 1;
                previous = None;
            }
            "ENDMDL" => in_first_model = false,
            "CONECT" => {
                let columns = line
                    .as_bytes()
                    .get(6..)
                    .unwrap_or(&[])
                    .chunks(5)
                    .map(|chunk| String::from_utf8_lossy(chunk).trim().to_string());
                let mut ends = Vec::new();
                for serial in columns.filter(|serial| !serial.is_empty()) {
                    let end = serials.get(&serial).copied();
                    ends.push(end.ok_or_else(|| {
                        failure(format!(
                            "CONECT names atom {serial}, which is not in the file"
                        ))
                    })?);
                }
                if let Some((&Some(first), rest)) = ends.split_first() {
                    file.conect.extend(
                        rest.iter()
                            .flatten()
                            .filter(|&&other| other != first)
                            .map(|&other| [first, other]),
                    );
                }
            }
            _ => {}
        }
    }
    Ok(file)
}

/// Files without element columns: the first letter of the name, which is right for every atom of an amino acid.
fn element_of_name(name: &str) -> Option<Element> {
    let letter = name.chars().find(char::is_ascii_alphabetic)?;
    Element::from_symbol(letter.encode_utf8(&mut [0; 4]))
}

fn residue_bonds(
    force_field: &ForceField,
    file: &File,
    residue: &Residue,
    bonds: &mut Vec<[usize; 2]>,
) -> Result<(), PdbError> {
    let first_line = file.lines[residue.atoms.start];
    let bonded: HashSet<usize> = file.conect.iter().flatten().copied().collect();
    let Some(known) = known_residue(force_field, &residue.name) else {
        // A lone ion needs no bonds, but then no force field here knows it either.
        return match residue.atoms.clone().find(|atom| !bonded.contains(atom)) {
            Some(atom) => {
                let atom = file.atoms[atom].name.clone();
                Err(PdbError::UnknownResidue {
                    residue: residue.label.clone(),
                    line: first_line,
                    atom,
                })
            }
            None => Ok(()),
        };
    };
    let names: HashMap<&str, usize> = residue
        .atoms
        .clone()
        .map(|atom| (usual_name(&residue.name, &file.atoms[atom].name), atom))
        .collect();
    let missing: Vec<&str> = known
        .required
        .iter()
        .map(String::as_str)
        .filter(|name| !names.contains_key(name))
        .collect();
    if !missing.is_empty() {
        return Err(PdbError::MissingAtoms {
            residue: residue.label.clone(),
            line: first_line,
            missing: missing.join(", "),
        });
    }
    bonds.extend(
        known
            .bonds
            .iter()
            .filter_map(|(a, b)| Some([*names.get(a.as_str())?, *names.get(b.as_str())?])),
    );
    for (name, &atom) in names
        .iter()
        .filter(|(name, atom)| !known.names.contains_key(**name) && !bonded.contains(atom))
    {
        let unknown = |known: String| PdbError::UnknownAtom {
            line: file.lines[atom],
            residue: residue.label.clone(),
            atom: (*name).into(),
            known,
        };
        if file.atoms[atom].element != Element::H {
            let names: Vec<&str> = known.names.keys().map(String::as_str).collect();
            return Err(unknown(format!("known are {}", names.join(" "))));
        }
        let distance_to = |other: usize| distance(file.positions[atom], file.positions[other]);
        let heavy = residue
            .atoms
            .clone()
            .filter(|&other| file.atoms[other].element != Element::H);
        let nearest = heavy.min_by(|&a, &b| distance_to(a).total_cmp(&distance_to(b)));
        let nearest = nearest.filter(|&other| distance_to(other) < LONGEST_HYDROGEN_BOND);
        bonds.push([
            atom,
            nearest.ok_or_else(|| {
                unknown(format!(
                    "no heavy atom is within {LONGEST_HYDROGEN_BOND} nm of it"
                ))
            })?,
        ]);
    }
    Ok(())
}

fn atom_named(file: &File, residue: &Residue, name: &str) -> Option<usize> {
    residue
        .atoms
        .clone()
        .find(|&atom| usual_name(&residue.name, &file.atoms[atom].name) == name)
}

fn peptide_bond(
    file: &File,
    first: &Residue,
    second: &Residue,
    bonds: &mut Vec<[usize; 2]>,
) -> Result<(), PdbError> {
    let (Some(carbon), Some(nitrogen)) =
        (atom_named(file, first, "C"), atom_named(file, second, "N"))
    else {
        return Ok(());
    };
    if first.chain != second.chain || bonds.contains(&[carbon, nitrogen]) {
        return Ok(());
    }
    let gap = distance(file.positions[carbon], file.positions[nitrogen]);
    if gap > LONGEST_PEPTIDE_BOND {
        return Err(PdbError::ChainBreak {
            first: first.label.clone(),
            second: second.label.clone(),
            line: file.lines[second.atoms.start],
            distance: format!("{gap:.3}"),
        });
    }
    bonds.push([carbon, nitrogen]);
    Ok(())
}

fn disulfide_bonds(file: &File, bonds: &mut Vec<[usize; 2]>) {
    let bare = |residue: &&Residue| {
        ["CYS", "CYX"].contains(&residue.name.as_str()) && atom_named(file, residue, "HG").is_none()
    };
    let sulfurs: Vec<usize> = file
        .residues
        .iter()
        .filter(bare)
        .filter_map(|residue| atom_named(file, residue, "SG"))
        .collect();
    for (place, &first) in sulfurs.iter().enumerate() {
        let close = |&&second: &&usize| {
            distance(file.positions[first], file.positions[second]) < LONGEST_DISULFIDE_BOND
        };
        bonds.extend(
            sulfurs[place + 1..]
                .iter()
                .filter(close)
                .map(|&second| [first, second]),
        );
    }
}
