//! Conformations without overlaps in which the disulfides close.
//!
//! The extended strand is taken if it has neither disulfides nor overlapping atoms. Otherwise backbone dihedrals and χ₁ are searched:
//! many starts in the common basins of the Ramachandran plot, each improved one dihedral at a time. Bonds, angles and chirality stay
//! as they are built, so what is left to a minimiser is small.

use super::{Turn, assemble};
use crate::element::Element;
use crate::sequence::{Residue, Sequence, SequenceError};
use crate::terms::vector::distance;
use crate::topology::Topology;
use boltzmap_kernels::random::{Stream, domain};

/// Random numbers of the search; the stream index is the start's.
const SEARCH: u64 = domain::DISULFIDE_SEARCH;
const STARTS: u64 = 200;
/// Starts when there is nothing to close, only overlaps to avoid.
const STARTS_WITHOUT_DISULFIDES: u64 = 8;
/// Where the steps of an improvement (degrees) begin and end.
const LARGEST_STEP: f64 = 40.0;
const SMALLEST_STEP: f64 = 1.0;

/// Bond S–S and distance Cβ–S across it, nm.
const DISULFIDE: f64 = 0.2038;
const ACROSS: f64 = 0.3030;
/// A search has succeeded when no distance of a disulfide is off by more than this, nm.
const CLOSED: f64 = 0.03;
/// Below these distances (nm) two atoms that are not close in the bond graph repel: two heavy atoms, a heavy atom and a hydrogen, two
/// hydrogens.
const ROOM: [f64; 3] = [0.29, 0.22, 0.18];
/// Atoms overlap below this fraction of the room they need.
const OVERLAP: f64 = 0.75;

/// φ, ψ (degrees) relative to the extended strand: itself, helix, polyproline, left-handed helix.
const BASINS: [[f64; 2]; 4] = [[0.0, 0.0], [75.0, 180.0], [65.0, 10.0], [-161.0, -95.0]];
const ROTAMERS: [f64; 3] = [0.0, 120.0, -120.0];

/// How the residues must be turned.
pub(super) fn conformation(sequence: &Sequence) -> Result<Vec<Turn>, SequenceError> {
    let straight = vec![Turn::default(); sequence.residues.len()];
    let goal = Goal::new(sequence, &straight);
    if goal.is_reached(sequence, &straight) {
        return Ok(straight);
    }
    let starts = if sequence.disulfides.is_empty() {
        STARTS_WITHOUT_DISULFIDES
    } else {
        STARTS
    };
    for start in 0..starts {
        let mut stream = Stream::new(0, SEARCH, start);
        let turns = goal.search(sequence, &mut stream, start == 0);
        if goal.is_reached(sequence, &turns) {
            return Ok(turns);
        }
    }
    // Without disulfides a tight spot is the minimiser's to ease.
    if sequence.disulfides.is_empty() {
        return Ok(straight);
    }
    Err(SequenceError::CannotClose(sequence.to_string()))
}

/// One of a residue's dihedrals.
type Dihedral = fn(&mut Turn) -> &mut f64;

/// What a conformation is measured by.
struct Goal {
    /// Pairs four or more bonds apart with the distance they need.
    apart: Vec<(usize, usize, f64)>,
    /// Pairs with the distance they must have.
    closed: Vec<(usize, usize, f64)>,
}

impl Goal {
    fn new(sequence: &Sequence, turns: &[Turn]) -> Goal {
        let (topology, _) = assemble(sequence, turns);
        let close = close_pairs(&topology);
        let n = topology.n_atoms();
        let hydrogen = |atom: usize| usize::from(topology.atoms[atom].element == Element::H);
        let mut apart = Vec::new();
        for i in 0..n {
            for j in i + 1..n {
                if !close[i * n + j] {
                    apart.push((i, j, ROOM[hydrogen(i) + hydrogen(j)]));
                }
            }
        }
        let caps = usize::from(sequence.front == crate::sequence::Front::Acetyl);
        let atom = |residue: usize, name: &str| {
            topology
                .find(caps + residue, name)
                .expect("a cysteine has it")
        };
        let mut closed = Vec::new();
        for &[first, second] in &sequence.disulfides {
            let [[b1, s1], [b2, s2]] =
                [first, second].map(|residue| ["CB", "SG"].map(|name| atom(residue, name)));
            closed.extend([(s1, s2, DISULFIDE), (b1, s2, ACROSS), (b2, s1, ACROSS)]);
        }
        Goal { apart, closed }
    }

    fn penalty(&self, sequence: &Sequence, turns: &[Turn]) -> f64 {
        let (_, positions) = assemble(sequence, turns);
        let x = positions.as_chunks::<3>().0;
        let squared =
            |&(i, j, target): &(usize, usize, f64)| (distance(x[i], x[j]) - target).powi(2);
        let room = |pair: &(usize, usize, f64)| {
            if distance(x[pair.0], x[pair.1]) < pair.2 {
                squared(pair)
            } else {
                0.0
            }
        };
        self.closed.iter().map(squared).sum::<f64>() + self.apart.iter().map(room).sum::<f64>()
    }

    fn is_reached(&self, sequence: &Sequence, turns: &[Turn]) -> bool {
        let (_, positions) = assemble(sequence, turns);
        let x = positions.as_chunks::<3>().0;
        let closed =
            |&(i, j, target): &(usize, usize, f64)| (distance(x[i], x[j]) - target).abs() < CLOSED;
        let free = |&(i, j, room): &(usize, usize, f64)| distance(x[i], x[j]) > OVERLAP * room;
        self.closed.iter().all(closed) && self.apart.iter().all(free)
    }

    /// One start: dihedrals from the common basins (of the first start, the strand's), improved one by one.
    fn search(&self, sequence: &Sequence, stream: &mut Stream, from_strand: bool) -> Vec<Turn> {
        // Only residues within a loop need to turn their backbone; χ₁ may turn everywhere.
        let inside = |index: usize| {
            sequence
                .disulfides
                .iter()
                .any(|&[first, second]| (first..=second).contains(&index))
        };
        let mut choose = |from: usize| ((stream.uniform() * from as f64) as usize).min(from - 1);
        let mut turns: Vec<Turn> = (0..sequence.residues.len())
            .map(|index| {
                let mut turn = Turn::default();
                if !from_strand {
                    if inside(index) {
                        [turn.phi, turn.psi] = BASINS[choose(BASINS.len())];
                    }
                    turn.chi1 = ROTAMERS[choose(ROTAMERS.len())];
                }
                turn
            })
            .collect();
        let mut free: Vec<(usize, Dihedral)> = Vec::new();
        for (index, residue) in sequence.residues.iter().enumerate() {
            if inside(index) {
                if residue.name != "PRO" {
                    free.push((index, |turn| &mut turn.phi));
                }
                free.push((index, |turn| &mut turn.psi));
            }
            if has_rotamers(residue) {
                free.push((index, |turn| &mut turn.chi1));
            }
        }
        let mut best = self.penalty(sequence, &turns);
        let mut step = LARGEST_STEP;
        while step >= SMALLEST_STEP {
            let before = best;
            for &(index, dihedral) in &free {
                for change in [step, -step] {
                    *dihedral(&mut turns[index]) += change;
                    let penalty = self.penalty(sequence, &turns);
                    if penalty < best {
                        best = penalty;
                        break;
                    }
                    *dihedral(&mut turns[index]) -= change;
                }
            }
            if best >= 0.9 * before {
                step *= 0.5;
            }
        }
        turns
    }
}

fn has_rotamers(residue: &Residue) -> bool {
    !["GLY", "ALA", "PRO"].contains(&residue.name)
}

/// `[n, n]`: which pairs are the same or at most three bonds apart.
fn close_pairs(topology: &Topology) -> Vec<bool> {
    let n = topology.n_atoms();
    let neighbours = topology.neighbours();
    let mut close = vec![false; n * n];
    for start in 0..n {
        let mut front = vec![start];
        for _ in 0..=3 {
            for &atom in &front {
                close[start * n + atom] = true;
            }
            front = front
                .iter()
                .flat_map(|&atom| neighbours[atom].iter().copied())
                .filter(|&atom| !close[start * n + atom])
                .collect();
        }
    }
    close
}
