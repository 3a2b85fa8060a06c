//! Writing.

use super::PdbError;
use crate::sequence::AMINO_ACIDS;
use crate::topology::{Atom, Topology};
use std::fmt::Write;

/// The text of a PDB file with one model per frame; `positions` is `[frames, atoms, 3]`, nm.
///
/// Chains that are not bonded to each other are separated by TER; bonds of residues that are not amino acids are given as CONECT.
///
/// # Errors
/// If a coordinate is not finite or does not fit the format's columns.
///
/// # Panics
/// If the number of coordinates is not a multiple of 3·atoms.
pub fn write(topology: &Topology, positions: &[f64]) -> Result<String, PdbError> {
    let n = topology.n_atoms();
    assert!(
        n > 0 && positions.len().is_multiple_of(3 * n),
        "positions of {n} atoms must come in frames of {} coordinates",
        3 * n
    );
    let serials = serial_numbers(topology);
    let n_frames = positions.len() / (3 * n);
    let mut text = String::new();
    for (frame, positions) in positions.chunks_exact(3 * n).enumerate() {
        if n_frames > 1 {
            put(&mut text, format_args!("MODEL     {:>4}", frame + 1));
        }
        for (index, (atom, position)) in topology
            .atoms
            .iter()
            .zip(positions.as_chunks::<3>().0)
            .enumerate()
        {
            if position
                .iter()
                .any(|coordinate| !coordinate.is_finite() || coordinate.abs() >= 99.0)
            {
                return Err(PdbError::Coordinate {
                    atom: index + 1,
                    frame: frame + 1,
                });
            }
            let [x, y, z] = position.map(|coordinate| 10.0 * coordinate);
            let record = if is_amino_acid(atom) {
                "ATOM  "
            } else {
                "HETATM"
            };
            put(
                &mut text,
                format_args!(
                    "{record}{:>5} {} {:>3} {}{:>4}    {x:8.3}{y:8.3}{z:8.3}  1.00  0.00          {:>2}",
                    serials[index] % 100_000,
                    padded_name(atom),
                    atom.residue_name,
                    atom.chain,
                    (atom.residue_index + 1) % 10_000,
                    atom.element.symbol().to_uppercase(),
                ),
            );
            if ends_chain(topology, index) {
                let (serial, residue) = (
                    (serials[index] + 1) % 100_000,
                    (atom.residue_index + 1) % 10_000,
                );
                put(
                    &mut text,
                    format_args!(
                        "TER   {serial:>5}      {:>3} {}{residue:>4}",
                        atom.residue_name, atom.chain
                    ),
                );
            }
        }
        if n_frames > 1 {
            put(&mut text, format_args!("ENDMDL"));
        }
    }
    for (index, neighbours) in topology.neighbours().iter().enumerate() {
        let atom = &topology.atoms[index];
        let listed = |other: &&usize| {
            !is_amino_acid(atom)
                || !is_amino_acid(&topology.atoms[**other])
                || is_disulfide(topology, index, **other)
        };
        let listed: Vec<usize> = neighbours.iter().filter(listed).copied().collect();
        for four in listed.chunks(4) {
            let ends: String = four
                .iter()
                .map(|&other| format!("{:>5}", serials[other] % 100_000))
                .collect();
            put(
                &mut text,
                format_args!("CONECT{:>5}{ends}", serials[index] % 100_000),
            );
        }
    }
    text.push_str("END\n");
    Ok(text)
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string succeeds");
}

fn is_amino_acid(atom: &Atom) -> bool {
    AMINO_ACIDS
        .iter()
        .any(|(_, name)| *name == atom.residue_name)
}

fn is_disulfide(topology: &Topology, first: usize, second: usize) -> bool {
    topology.atoms[first].name == "SG" && topology.atoms[second].name == "SG"
}

/// Whether the atom is the last of a residue whose successor is missing, in another chain, or not bonded to it.
fn ends_chain(topology: &Topology, index: usize) -> bool {
    let atom = &topology.atoms[index];
    let Some(next) = topology.atoms.get(index + 1) else {
        return true;
    };
    let residue_of = |index: usize| topology.atoms[index].residue_index;
    next.residue_index != atom.residue_index
        && (next.chain != atom.chain
            || !topology.bonds.iter().any(|&[i, j]| {
                residue_of(i) == atom.residue_index && residue_of(j) == next.residue_index
            }))
}

/// Serial numbers count TER records too.
fn serial_numbers(topology: &Topology) -> Vec<usize> {
    let mut next = 1;
    let mut serials = Vec::with_capacity(topology.n_atoms());
    for index in 0..topology.n_atoms() {
        serials.push(next);
        next += 1 + usize::from(ends_chain(topology, index));
    }
    serials
}

/// The atom name in its four columns: one-letter elements stand in the second.
fn padded_name(atom: &Atom) -> String {
    if atom.name.len() >= 4 || atom.element.symbol().len() > 1 {
        format!("{:<4}", atom.name)
    } else {
        format!(" {:<3}", atom.name)
    }
}
