//! One conformation at a time in double precision, its pairs and bonded terms in the lanes.
//!
//! For callers that need one answer before they can ask the next question. Many conformations at once are faster in
//! [`BatchEvaluator`](super::BatchEvaluator), which holds no lane empty. The formulas are the same functions; sums run in another order,
//! so results agree to rounding, not to the bit.
//!
//! Atom i meets its partners j > i in blocks of eight consecutive j, aligned, with lanes that are no partner switched off. Blocks are
//! eight wide on every instruction set, so that results do not depend on it.

mod pairs;
mod terms;

use super::parameters::{PairKind, Parameters, TorsionSeries};
use super::{BatchError, never_nan, output_length};
use crate::energy::Energies;
use crate::system::System;
use boltzmap_kernels::simd::{Kernel, Lanes, Simd, Tier, dispatch_on};

/// Width of a block.
const BLOCK: usize = 8;

/// Parameters of the pairs of one atom with one block of partners; zero where a lane is no partner.
#[derive(Clone)]
struct PairBlock {
    charge: [f64; BLOCK],
    repulsion: [f64; BLOCK],
    attraction: [f64; BLOCK],
    born_charge: [f64; BLOCK],
    /// Squared distance up to which the pair interacts directly.
    direct_reach: [f64; BLOCK],
    /// What the cutoff takes from the direct energy.
    shift: [f64; BLOCK],
    /// Squared distance up to which the pair interacts through the solvent; negative where the lane is no partner.
    reach: [f64; BLOCK],
}

/// What the passes hand on for one block; see [`super::nonbonded`].
#[derive(Clone)]
struct BlockState {
    squared: [f64; BLOCK],
    inverse: [f64; BLOCK],
    slope_i: [f64; BLOCK],
    slope_j: [f64; BLOCK],
}

/// Arrays `[atoms]`, padded to whole blocks.
struct Atoms {
    offset: Vec<f64>,
    inverse_offset: Vec<f64>,
    sphere: Vec<f64>,
    inverse_radius: Vec<f64>,
    inverse_difference: Vec<f64>,
    self_charge: Vec<f64>,
    surface: Vec<f64>,
}

/// Eight bonded terms of N atoms; those beyond `count` have no strength.
struct TermBlock<const N: usize> {
    count: usize,
    atoms: [[usize; BLOCK]; N],
    rest: [f64; BLOCK],
    force_constant: [f64; BLOCK],
}

/// Eight quadruples of atoms.
struct TorsionBlock {
    count: usize,
    atoms: [[usize; BLOCK]; 4],
    constant: [f64; BLOCK],
    harmonics: Vec<[[f64; BLOCK]; 2]>,
}

/// Evaluates energy and forces of one conformation after the other, in `f64`.
///
/// Exact to round-off; finite positions always give energies that are finite or +∞, never "not a number".
pub struct SingleEvaluator {
    parameters: Parameters<f64>,
    tier: Tier,
    atoms: Atoms,
    pairs: Vec<PairBlock>,
    bonds: Vec<TermBlock<2>>,
    angles: Vec<TermBlock<3>>,
    torsions: Vec<TorsionBlock>,
    scratch: Scratch,
}

struct Scratch {
    states: Vec<BlockState>,
    /// Coordinates and forces, axis by axis.
    x: [Vec<f64>; 3],
    f: [Vec<f64>; 3],
    /// As in [`super::nonbonded`].
    radius: Vec<f64>,
    inverse_radius: Vec<f64>,
    slope: Vec<f64>,
    force: Vec<f64>,
}

/// Lane l of a block of terms, or the last term again without strength.
fn blocks<const N: usize>(terms: &[([usize; N], f64, f64)]) -> Vec<TermBlock<N>> {
    terms
        .chunks(BLOCK)
        .map(|chunk| {
            let at = |lane: usize| &chunk[lane.min(chunk.len() - 1)];
            TermBlock {
                count: chunk.len(),
                atoms: std::array::from_fn(|n| std::array::from_fn(|lane| at(lane).0[n])),
                rest: std::array::from_fn(|lane| at(lane).1),
                force_constant: std::array::from_fn(|lane| match lane < chunk.len() {
                    true => at(lane).2,
                    false => 0.0,
                }),
            }
        })
        .collect()
}

fn torsion_blocks(terms: &[TorsionSeries<f64>]) -> Vec<TorsionBlock> {
    // Terms of as many harmonics stand together.
    let mut order: Vec<&TorsionSeries<f64>> = terms.iter().collect();
    order.sort_by_key(|term| term.harmonics.len());
    order
        .chunks(BLOCK)
        .map(|chunk| {
            let at = |lane: usize| chunk[lane.min(chunk.len() - 1)];
            let orders = chunk.iter().map(|term| term.harmonics.len());
            let harmonic = |lane: usize, n: usize, part: usize| match lane < chunk.len() {
                true => at(lane).harmonics.get(n).map_or(0.0, |h| h[part]),
                false => 0.0,
            };
            TorsionBlock {
                count: chunk.len(),
                atoms: std::array::from_fn(|n| std::array::from_fn(|lane| at(lane).atoms[n])),
                constant: std::array::from_fn(|lane| match lane < chunk.len() {
                    true => at(lane).constant,
                    false => 0.0,
                }),
                harmonics: (0..orders.max().unwrap_or(0))
                    .map(|n| {
                        std::array::from_fn(|part| {
                            std::array::from_fn(|lane| harmonic(lane, n, part))
                        })
                    })
                    .collect(),
            }
        })
        .collect()
}

fn pair_blocks(p: &Parameters<f64>) -> Vec<PairBlock> {
    let n = p.n_atoms;
    let mut blocks = Vec::new();
    let mut row = 0;
    let squared_cutoff = p.cutoff.map_or(f64::INFINITY, |cutoff| cutoff * cutoff);
    for i in 0..n {
        for block in (i + 1) / BLOCK..n.div_ceil(BLOCK) {
            let mut out = PairBlock {
                charge: [0.0; BLOCK],
                repulsion: [0.0; BLOCK],
                attraction: [0.0; BLOCK],
                born_charge: [0.0; BLOCK],
                direct_reach: [-1.0; BLOCK],
                shift: [0.0; BLOCK],
                reach: [-1.0; BLOCK],
            };
            for lane in 0..BLOCK {
                let j = BLOCK * block + lane;
                if j <= i || j >= n {
                    continue;
                }
                let pair = &p.pairs[row + j - i - 1];
                out.born_charge[lane] = pair.born_charge.value;
                out.reach[lane] = squared_cutoff;
                if pair.kind == PairKind::Excluded {
                    continue;
                }
                out.charge[lane] = pair.charge.value;
                out.repulsion[lane] = pair.repulsion;
                out.attraction[lane] = pair.attraction;
                out.direct_reach[lane] = f64::INFINITY;
                if let (PairKind::Direct, Some(cutoff)) = (pair.kind, p.cutoff) {
                    out.direct_reach[lane] = squared_cutoff;
                    out.shift[lane] = pair.charge.value / cutoff;
                }
            }
            blocks.push(out);
        }
        row += n - 1 - i;
    }
    blocks
}

impl SingleEvaluator {
    /// Lays out the system's parameters.
    ///
    /// # Panics
    /// When the system's arrays disagree in length or a term names an atom that does not exist.
    pub fn new(system: &System) -> Self {
        let parameters = Parameters::<f64>::new(system);
        let padded = parameters.n_atoms.next_multiple_of(BLOCK);
        let born = parameters.born.as_ref();
        // Atoms of the padding have harmless values.
        let per_atom = |value: fn(&super::parameters::BornAtom<f64>) -> f64, padding: f64| {
            let atoms = born.map_or(&[][..], |born| &born.atoms);
            let mut values: Vec<f64> = atoms.iter().map(value).collect();
            values.resize(padded, padding);
            values
        };
        let pairs = pair_blocks(&parameters);
        let empty = BlockState {
            squared: [0.0; BLOCK],
            inverse: [0.0; BLOCK],
            slope_i: [0.0; BLOCK],
            slope_j: [0.0; BLOCK],
        };
        let zeros = || vec![0.0; padded];
        let axes = || [zeros(), zeros(), zeros()];
        let of_bonds = parameters.bonds.iter();
        let of_angles = parameters.angles.iter();
        Self {
            tier: Tier::active(),
            atoms: Atoms {
                offset: per_atom(|atom| atom.offset_radius, 0.1),
                inverse_offset: per_atom(|atom| atom.inverse_offset_radius, 10.0),
                sphere: per_atom(|atom| atom.scaled_radius, 0.1),
                inverse_radius: per_atom(|atom| atom.inverse_radius, 9.0),
                inverse_difference: per_atom(|atom| atom.inverse_difference, 1.0),
                self_charge: per_atom(|atom| atom.self_charge, 0.0),
                surface: per_atom(|atom| atom.surface, 0.0),
            },
            scratch: Scratch {
                states: vec![empty; pairs.len()],
                x: axes(),
                f: axes(),
                radius: zeros(),
                inverse_radius: zeros(),
                slope: zeros(),
                force: zeros(),
            },
            pairs,
            bonds: blocks(
                &of_bonds
                    .map(|b| (b.atoms, b.length.value, b.force_constant))
                    .collect::<Vec<_>>(),
            ),
            angles: blocks(
                &of_angles
                    .map(|a| (a.atoms, a.angle.value, a.force_constant))
                    .collect::<Vec<_>>(),
            ),
            torsions: torsion_blocks(&parameters.torsions),
            parameters,
        }
    }

    /// The same evaluator on a given instruction set, for comparisons.
    pub fn on(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// Number of atoms of a conformation.
    pub fn n_atoms(&self) -> usize {
        self.parameters.n_atoms
    }

    /// Energies by term (kJ/mol), and forces (kJ/mol/nm) into `forces` `[atoms, 3]`, of `positions` `[atoms, 3]` (nm).
    ///
    /// # Errors
    /// If an array is not that long, or a coordinate is not finite.
    pub fn energies_forces(
        &mut self,
        positions: &[f64],
        forces: &mut [f64],
    ) -> Result<Energies, BatchError> {
        let n_atoms = self.n_atoms();
        if positions.len() != 3 * n_atoms || n_atoms == 0 {
            return Err(BatchError::Shape {
                coordinates: positions.len(),
                n_atoms,
            });
        }
        output_length("forces", forces.len(), positions.len())?;
        if let Some(at) = positions.iter().position(|x| !x.is_finite()) {
            return Err(BatchError::NotFinite {
                conformation: 0,
                atom: at / 3,
            });
        }
        let (tier, cutoff) = (self.tier, self.parameters.cutoff.is_some());
        Ok(match cutoff {
            true => dispatch_on(
                tier,
                Evaluate::<true> {
                    of: self,
                    positions,
                    forces,
                },
            ),
            false => dispatch_on(
                tier,
                Evaluate::<false> {
                    of: self,
                    positions,
                    forces,
                },
            ),
        })
    }
}

struct Evaluate<'a, const CUTOFF: bool> {
    of: &'a mut SingleEvaluator,
    positions: &'a [f64],
    forces: &'a mut [f64],
}

impl<const CUTOFF: bool> Kernel for Evaluate<'_, CUTOFF> {
    type Output = Energies;

    #[inline(always)]
    fn run<S: Simd>(self) -> Energies {
        let of = self.of;
        let n = of.parameters.n_atoms;
        let scratch = &mut of.scratch;
        for axis in 0..3 {
            for atom in 0..n {
                scratch.x[axis][atom] = self.positions[3 * atom + axis];
            }
            for force in &mut scratch.f[axis] {
                *force = 0.0;
            }
        }
        let bond = terms::bonds::<S::F64>(&of.bonds, scratch);
        let angle = terms::angles::<S::F64>(&of.angles, scratch);
        let torsion = terms::torsions::<S::F64>(&of.torsions, scratch);
        pairs::first_pass::<S::F64>(&of.parameters, &of.atoms, &of.pairs, scratch);
        let mut solvent = 0.0;
        if of.parameters.born.is_some() {
            solvent = pairs::born_radii::<S::F64>(&of.parameters, &of.atoms, scratch);
        }
        let (nonbonded, polar) =
            pairs::second_pass::<S::F64, CUTOFF>(&of.parameters, &of.pairs, scratch);
        pairs::third_pass::<S::F64>(&of.parameters, scratch);
        for axis in 0..3 {
            for atom in 0..n {
                self.forces[3 * atom + axis] = scratch.f[axis][atom];
            }
        }
        Energies {
            bond: never_nan(bond),
            angle: never_nan(angle),
            torsion: never_nan(torsion),
            nonbonded: never_nan(nonbonded),
            generalized_born: never_nan(solvent + polar),
        }
    }
}

/// Lanes of the block that start at `from`.
#[inline(always)]
fn part<L: Lanes<Scalar = f64>>(block: &[f64; BLOCK], from: usize) -> L {
    L::load(&block[from..from + L::WIDTH])
}
