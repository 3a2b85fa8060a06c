//! Energies and forces of many conformations at once.
//!
//! Small molecules: one conformation per SIMD lane. The conformations of a batch are cut into fixed chunks for the threads and into
//! tiles of one conformation per lane. A tile holds its coordinates as one vector of lanes per atom and axis, so that every term of the
//! force field is straight vector arithmetic without gathers, and no lane ever influences another.
//!
//! Molecules of more than [`LARGEST_IN_TILES`] atoms: one conformation after the other, the atoms of one in the lanes (`blocks/`). A tile's
//! tables of pairs would no longer fit the caches, then the memory, and could not make use of a cutoff.
//!
//! Which of the two depends on the molecule alone: a conformation's result does not depend on which others it is evaluated with, nor on
//! the number of threads.

mod bias;
mod blocks;
mod bonded;
mod born;
mod counting;
mod nonbonded;
mod parameters;
mod single;
mod split;
mod sum;
mod tile;
mod vector;

use crate::energy::Energies;
use crate::system::System;
use blocks::{Blocks, Scratch};
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{Kernel, LaneKernel, Lanes, Simd, Tier, dispatch_on};
use nonbonded::PairScratch;
use parameters::Parameters;
use rayon::prelude::*;

pub(crate) use bias::Restraints;
pub use counting::{Operations, operations};
pub use single::SingleEvaluator;
pub(crate) use tile::{load_tile, store_tile};
pub(crate) use vector::V3;

/// Why a batch cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The positions are not whole conformations.
    #[error(
        "positions hold {coordinates} coordinates, which is not a whole number of conformations of {n_atoms} atoms; \
         pass an array of shape [n, {n_atoms}, 3]"
    )]
    Shape {
        /// Numbers passed.
        coordinates: usize,
        /// Atoms of the system.
        n_atoms: usize,
    },
    /// An output array has the wrong length.
    #[error(
        "the array for {what} has {found} elements where {expected} are needed; make it match the positions"
    )]
    Output {
        /// What the array is for.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The right length.
        expected: usize,
    },
    /// A coordinate is not finite.
    #[error(
        "atom {atom} of conformation {conformation} has a coordinate that is not finite; remove that conformation"
    )]
    NotFinite {
        /// Index of the conformation, from 0.
        conformation: usize,
        /// Index of the atom, from 0.
        atom: usize,
    },
}

/// Conformations one thread works on at a time; fixed, so that the work is cut the same way for any number of threads.
const CHUNK: usize = 32;

/// Atoms up to which conformations are evaluated side by side in tiles.
pub const LARGEST_IN_TILES: usize = 256;

/// How conformations are evaluated.
enum Method<T: Real> {
    Tiles(Parameters<T>),
    Blocks(Box<Blocks<T>>),
}

/// Evaluates the force field for batches of conformations in precision `T` (`f32` or `f64`).
///
/// Energies are exact to round-off of `T`; finite positions always give energies that are finite or +∞, never "not a number", and forces
/// whose undefined components are zero. Memory grows with the number of atoms, not with its square.
pub struct BatchEvaluator<T: Real> {
    n_atoms: usize,
    method: Method<T>,
    tier: Tier,
}

impl<T: Real> BatchEvaluator<T> {
    /// Lays out the system's parameters.
    ///
    /// # Panics
    /// When the system's arrays disagree in length or a term names an atom that does not exist.
    pub fn new(system: &System) -> Self {
        match system.n_atoms() <= LARGEST_IN_TILES {
            true => Self::in_tiles(system),
            false => Self::in_blocks(system),
        }
    }

    fn in_tiles(system: &System) -> Self {
        Self {
            n_atoms: system.n_atoms(),
            method: Method::Tiles(Parameters::new(system)),
            tier: Tier::active(),
        }
    }

    fn in_blocks(system: &System) -> Self {
        let tier = Tier::active();
        Self {
            n_atoms: system.n_atoms(),
            method: Method::Blocks(Box::new(Blocks::new(system, tier))),
            tier,
        }
    }

    /// The same evaluator on a given instruction set, for comparisons.
    pub fn on(self, tier: Tier) -> Self {
        Self {
            tier,
            method: match self.method {
                Method::Blocks(blocks) => Method::Blocks(Box::new(blocks.on(tier))),
                tiles => tiles,
            },
            ..self
        }
    }

    /// Number of atoms of a conformation.
    pub fn n_atoms(&self) -> usize {
        self.n_atoms
    }

    /// The instruction set in use.
    pub(crate) fn tier(&self) -> Tier {
        self.tier
    }

    /// Potential energies (kJ/mol) into `energies` `[n]`, and forces (kJ/mol/nm) into `forces` `[n, atoms, 3]` when wanted,
    /// of `positions` `[n, atoms, 3]` (nm).
    pub fn energies_forces(
        &self,
        positions: &[T],
        energies: &mut [f64],
        forces: Option<&mut [T]>,
    ) -> Result<(), BatchError> {
        let n = self.check(positions)?;
        output_length("energies", energies.len(), n)?;
        for (energy, terms) in energies.iter_mut().zip(self.terms(positions, forces)?) {
            *energy = terms.total();
        }
        Ok(())
    }

    /// Potential energies (kJ/mol) of `positions` `[n, atoms, 3]` (nm).
    pub fn energies(&self, positions: &[T]) -> Result<Vec<f64>, BatchError> {
        Ok(self
            .terms(positions, None)?
            .iter()
            .map(Energies::total)
            .collect())
    }

    /// Energies by term, and forces (kJ/mol/nm) into `forces` `[n, atoms, 3]` when wanted, of `positions` `[n, atoms, 3]` (nm).
    pub fn terms(
        &self,
        positions: &[T],
        forces: Option<&mut [T]>,
    ) -> Result<Vec<Energies>, BatchError> {
        let n = self.check(positions)?;
        let size = 3 * self.n_atoms();
        let mut energies = vec![Energies::default(); n];
        if size == 0 {
            return Ok(energies);
        }
        match forces {
            Some(forces) => {
                output_length("forces", forces.len(), positions.len())?;
                self.each_chunk(
                    (&mut energies, positions),
                    forces.par_chunks_mut(self.chunk() * size).map(Some),
                );
                for force in forces.iter_mut().filter(|force| force.is_nan()) {
                    *force = T::from_f64(0.0);
                }
            }
            None => {
                let none = rayon::iter::repeat_n((), n.div_ceil(self.chunk())).map(|()| None);
                self.each_chunk((&mut energies, positions), none);
            }
        }
        Ok(energies)
    }

    /// Conformations one task works on; fixed, so that the work is cut the same way for any number of threads.
    fn chunk(&self) -> usize {
        match self.method {
            Method::Tiles(_) => CHUNK,
            Method::Blocks(_) => 1,
        }
    }

    fn each_chunk<'f>(
        &self,
        (energies, positions): (&mut [Energies], &[T]),
        forces: impl IndexedParallelIterator<Item = Option<&'f mut [T]>>,
    ) {
        let chunk = self.chunk();
        let size = 3 * self.n_atoms;
        let work = energies
            .par_chunks_mut(chunk)
            .zip(positions.par_chunks(chunk * size))
            .zip(forces);
        match &self.method {
            Method::Tiles(parameters) => work.for_each(|((energies, positions), forces)| {
                dispatch_on(
                    self.tier,
                    EvaluateChunk {
                        parameters,
                        positions,
                        energies,
                        forces,
                    },
                );
            }),
            Method::Blocks(blocks) => work.for_each_init(
                || Scratch::new(blocks),
                |scratch, ((energies, positions), forces)| {
                    energies[0] = blocks.evaluate(scratch, positions, forces);
                },
            ),
        }
    }

    /// Number of conformations; refuses incomplete ones and coordinates that are not finite.
    pub(crate) fn check(&self, positions: &[T]) -> Result<usize, BatchError> {
        check_conformations(self.n_atoms, positions)
    }
}

/// Number of conformations; refuses incomplete ones and coordinates that are not finite.
fn check_conformations<T: Real>(n_atoms: usize, positions: &[T]) -> Result<usize, BatchError> {
    let size = 3 * n_atoms;
    if size == 0 || !positions.len().is_multiple_of(size) {
        return Err(BatchError::Shape {
            coordinates: positions.len(),
            n_atoms,
        });
    }
    if let Some(at) = positions.iter().position(|x| !x.is_finite()) {
        return Err(BatchError::NotFinite {
            conformation: at / size,
            atom: at % size / 3,
        });
    }
    Ok(positions.len() / size)
}

fn output_length(what: &'static str, found: usize, expected: usize) -> Result<(), BatchError> {
    if found == expected {
        Ok(())
    } else {
        Err(BatchError::Output {
            what,
            found,
            expected,
        })
    }
}

/// Energies of one tile, one vector of lanes per term.
#[derive(Clone, Copy)]
pub(crate) struct TileEnergies<L> {
    pub(crate) bond: L,
    pub(crate) angle: L,
    pub(crate) torsion: L,
    pub(crate) nonbonded: L,
    pub(crate) generalized_born: L,
}

impl<L: Lanes> TileEnergies<L> {
    /// Energies of one lane; what overflowed counts as +∞.
    #[inline(always)]
    pub(crate) fn lane(&self, lane: usize) -> Energies {
        Energies {
            bond: never_nan(self.bond.extract(lane).as_f64()),
            angle: never_nan(self.angle.extract(lane).as_f64()),
            torsion: never_nan(self.torsion.extract(lane).as_f64()),
            nonbonded: never_nan(self.nonbonded.extract(lane).as_f64()),
            generalized_born: never_nan(self.generalized_born.extract(lane).as_f64()),
        }
    }
}

/// Coordinates whose squares overflow lead to ∞ − ∞ in places: such conformations have no finite energy.
fn never_nan(energy: f64) -> f64 {
    if energy.is_nan() || energy == f64::NEG_INFINITY {
        f64::INFINITY
    } else {
        energy
    }
}

/// The force field on one tile inside a kernel: scratch space with the parameters.
pub(crate) struct TileEvaluator<'a, L: Lanes> {
    scratch: TileScratch<'a, L>,
}

enum TileScratch<'a, L: Lanes> {
    Tiles(&'a Parameters<L::Scalar>, PairScratch<L>),
    Blocks(Box<LaneByLane<'a, L::Scalar>>),
}

/// The lanes of a tile as conformations of their own, `[lanes, atoms, 3]`.
struct LaneByLane<'a, T: Real> {
    blocks: &'a Blocks<T>,
    scratch: Scratch<T>,
    positions: Vec<T>,
    forces: Vec<T>,
}

impl<'a, L: Lanes> TileEvaluator<'a, L> {
    #[inline(always)]
    pub(crate) fn new<T: Real>(evaluator: &'a BatchEvaluator<T>) -> Self
    where
        L: Lanes<Scalar = T>,
    {
        match &evaluator.method {
            Method::Tiles(parameters) => Self::with_parameters(parameters),
            Method::Blocks(blocks) => Self {
                scratch: TileScratch::Blocks(Box::new(LaneByLane {
                    blocks,
                    scratch: Scratch::new(blocks),
                    positions: Vec::new(),
                    forces: Vec::new(),
                })),
            },
        }
    }

    #[inline(always)]
    fn with_parameters(parameters: &'a Parameters<L::Scalar>) -> Self {
        Self {
            scratch: TileScratch::Tiles(parameters, PairScratch::new(parameters.n_atoms)),
        }
    }

    /// Energies of the tile `x` (`[atom][xyz]` vectors), whose lanes from `count` on repeat the last before; with `FORCES` overwrites `f`
    /// with the forces.
    #[inline(always)]
    pub(crate) fn evaluate<const FORCES: bool>(
        &mut self,
        count: usize,
        x: &[L],
        f: &mut [L],
    ) -> TileEnergies<L> {
        match &mut self.scratch {
            TileScratch::Tiles(parameters, scratch) => L::call(EvaluateTile::<L, FORCES> {
                parameters,
                scratch,
                x,
                f,
            }),
            TileScratch::Blocks(lanes) => lanes.evaluate::<L, FORCES>(count, x, f),
        }
    }
}

impl<T: Real> LaneByLane<'_, T> {
    fn evaluate<L: Lanes<Scalar = T>, const FORCES: bool>(
        &mut self,
        count: usize,
        x: &[L],
        f: &mut [L],
    ) -> TileEnergies<L> {
        L::call(EvaluateLanes::<L, FORCES> {
            by_lane: self,
            count,
            x,
            f,
        })
    }
}

/// [`LaneByLane::evaluate`], compiled for the instruction set of the tile.
struct EvaluateLanes<'a, 'b, L: Lanes, const FORCES: bool> {
    by_lane: &'a mut LaneByLane<'b, L::Scalar>,
    count: usize,
    x: &'a [L],
    f: &'a mut [L],
}

impl<L: Lanes, const FORCES: bool> LaneKernel for EvaluateLanes<'_, '_, L, FORCES> {
    type Output = TileEnergies<L>;

    #[inline(always)]
    fn run(self) -> TileEnergies<L> {
        let Self {
            by_lane,
            count,
            x,
            f,
        } = self;
        let size = x.len();
        let zero = L::Scalar::from_f64(0.0);
        by_lane.positions.resize(count * size, zero);
        by_lane.forces.resize(count * size, zero);
        store_tile(x, &mut by_lane.positions);
        // Terms, lanes.
        let mut energies = [[zero; 16]; 5];
        for lane in 0..L::WIDTH {
            let row = lane.min(count - 1) * size;
            if lane < count {
                let forces = &mut by_lane.forces[row..row + size];
                let found = by_lane.blocks.evaluate(
                    &mut by_lane.scratch,
                    &by_lane.positions[row..row + size],
                    FORCES.then_some(forces),
                );
                let terms = [
                    found.bond,
                    found.angle,
                    found.torsion,
                    found.nonbonded,
                    found.generalized_born,
                ];
                for (energies, term) in energies.iter_mut().zip(terms) {
                    energies[lane] = L::Scalar::from_f64(term);
                }
            } else {
                for energies in &mut energies {
                    energies[lane] = energies[count - 1];
                }
            }
        }
        if FORCES {
            load_tile(&by_lane.forces, f);
        }
        let [bond, angle, torsion, nonbonded, generalized_born] = energies;
        TileEnergies {
            bond: L::load(&bond),
            angle: L::load(&angle),
            torsion: L::load(&torsion),
            nonbonded: L::load(&nonbonded),
            generalized_born: L::load(&generalized_born),
        }
    }
}

/// [`TileEvaluator::evaluate`], compiled once for all that call it.
struct EvaluateTile<'a, L: Lanes, const FORCES: bool> {
    parameters: &'a Parameters<L::Scalar>,
    scratch: &'a mut PairScratch<L>,
    x: &'a [L],
    f: &'a mut [L],
}

impl<L: Lanes, const FORCES: bool> LaneKernel for EvaluateTile<'_, L, FORCES> {
    type Output = TileEnergies<L>;

    #[inline(always)]
    fn run(self) -> TileEnergies<L> {
        let Self {
            parameters: p,
            scratch,
            x,
            f,
        } = self;
        if FORCES {
            for force in f.iter_mut() {
                *force = L::zero();
            }
        }
        let bond = bonded::bonds::<L, FORCES>(&p.bonds, x, f);
        let angle = bonded::angles::<L, FORCES>(&p.angles, x, f);
        let torsion = bonded::torsions::<L, FORCES>(&p.torsions, x, f);
        let (nonbonded, generalized_born) = nonbonded::nonbonded::<L, FORCES>(p, x, f, scratch);
        TileEnergies {
            bond,
            angle,
            torsion,
            nonbonded,
            generalized_born,
        }
    }
}

/// One thread's conformations, tile by tile; the last tile is filled up with its last conformation.
struct EvaluateChunk<'a, T: Real> {
    parameters: &'a Parameters<T>,
    positions: &'a [T],
    energies: &'a mut [Energies],
    forces: Option<&'a mut [T]>,
}

impl<T: Real> Kernel for EvaluateChunk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let width = <T::Lanes<S> as Lanes>::WIDTH;
        let size = 3 * self.parameters.n_atoms;
        let mut evaluator = TileEvaluator::<T::Lanes<S>>::with_parameters(self.parameters);
        let mut x = vec![T::Lanes::<S>::zero(); size];
        let mut f = vec![T::Lanes::<S>::zero(); size];
        let mut forces = self.forces;
        let n = self.energies.len();
        let mut first = 0;
        while first < n {
            let count = width.min(n - first);
            let range = first * size..(first + count) * size;
            load_tile(&self.positions[range.clone()], &mut x);
            let energies = match &mut forces {
                Some(forces) => {
                    let energies = evaluator.evaluate::<true>(count, &x, &mut f);
                    store_tile(&f, &mut forces[range]);
                    energies
                }
                None => evaluator.evaluate::<false>(count, &x, &mut f),
            };
            for lane in 0..count {
                self.energies[first + lane] = energies.lane(lane);
            }
            first += count;
        }
    }
}

#[cfg(test)]
mod tests;
