//! One conformation at a time, its atoms in blocks of as many as a sum has lanes (8 in `f64`, 16 in `f32`, on every instruction set).
//!
//! For molecules too large for tiles, and for callers that need one answer before they can ask the next question. Parameters of pairs are
//! made from those of their atoms and passes keep little or nothing per pair, so memory grows with the number of atoms. With a cutoff the atoms
//! are ordered in space and blocks meet only blocks within reach (`neighbours.rs`): the result is that of all pairs, the time grows with the
//! atoms. The pairs of one conformation are shared out among the threads (`tasks.rs`). Formulas are the functions that tiles use; sums run in
//! another order, so results agree to rounding, not to the bit.

mod lane_bits;
mod layout;
mod neighbours;
mod pairs;
mod tasks;
mod terms;
mod wide_sum;

use super::never_nan;
use super::parameters::Parameters;
use crate::energy::Energies;
use crate::system::{COULOMB_CONSTANT, System};
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{Kernel, Simd, Tier, dispatch_on};
use lane_bits::LaneBits;
use layout::{Atoms, Partners, ScaledPairs, Terms, Torsions};
use neighbours::Tree;
use rayon::prelude::*;
use tasks::{Task, number_of_tasks};

/// The force field of one molecule, laid out for blocks.
pub(super) struct Blocks<T: Real> {
    pub(super) parameters: Parameters<T>,
    tier: Tier,
    atoms: Atoms<T>,
    /// Partners up to three bonds away.
    exceptions: Partners,
    bonds: Terms<T, 2>,
    angles: Terms<T, 3>,
    torsions: Torsions<T>,
    scaled: ScaledPairs<T>,
    /// 1 − 1/ε_w, with Coulomb's constant as the Born model has it: what Born pair energies are of K q_i q_j/f.
    born_share: f64,
    /// Bits of all lanes of a block.
    full: u32,
    lane_bits: LaneBits<T>,
}

/// A conformation as the passes see it: arrays `[atoms]` padded to whole blocks, in the order of the blocks.
struct Places<T> {
    tree: Tree,
    /// Place of every atom, the inverse of the tree's order.
    place: Vec<u32>,
    /// Parameters in this order; unused without a cutoff, where it is the system's.
    atoms: Atoms<T>,
    x: [Vec<T>; 3],
    /// As in [`super::nonbonded`]: integrals, then radii.
    radius: Vec<T>,
    inverse_radius: Vec<T>,
    slope: Vec<T>,
    force: Vec<T>,
}

/// What one evaluation after the other writes on.
pub(super) struct Scratch<T> {
    places: Places<T>,
    tasks: Vec<Task<T>>,
    /// Forces of the bonded terms, `[atoms, 3]`.
    bonded: Vec<T>,
}

impl<T: Real> Scratch<T> {
    pub(super) fn new(of: &Blocks<T>) -> Self {
        let zeros = || vec![T::from_f64(0.0); of.padded()];
        let n = of.parameters.n_atoms;
        let tasks = number_of_tasks(of.n_blocks());
        Self {
            places: Places {
                tree: Tree::unordered(n),
                place: (0..n as u32).collect(),
                atoms: match of.parameters.cutoff {
                    Some(_) => of.atoms.clone(),
                    None => Atoms::default(),
                },
                x: [zeros(), zeros(), zeros()],
                radius: zeros(),
                inverse_radius: zeros(),
                slope: zeros(),
                force: zeros(),
            },
            tasks: (0..tasks).map(|task| Task::new(of, task, tasks)).collect(),
            bonded: vec![T::from_f64(0.0); 3 * n],
        }
    }
}

impl<T: Real> Blocks<T> {
    /// # Panics
    /// When the system's arrays disagree in length or a term names an atom that does not exist.
    pub(super) fn new(system: &System, tier: Tier) -> Self {
        let parameters = Parameters::<T>::without_pairs(system);
        let bonds: Vec<_> = parameters
            .bonds
            .iter()
            .map(|bond| (bond.atoms, bond.length, bond.force_constant))
            .collect();
        let angles: Vec<_> = parameters
            .angles
            .iter()
            .map(|angle| (angle.atoms, angle.angle, angle.force_constant))
            .collect();
        let model = system.generalized_born.as_ref().map(|born| born.model);
        Self {
            tier,
            atoms: Atoms::new(system, &parameters),
            exceptions: Partners::new(system),
            bonds: Terms::new(&bonds),
            angles: Terms::new(&angles),
            torsions: Torsions::new(&parameters.torsions),
            scaled: ScaledPairs::new(&system.pairs14),
            born_share: model.map_or(0.0, |model| {
                super::parameters::born_prefactor(model) / COULOMB_CONSTANT
            }),
            full: u32::MAX >> (32 - T::VIRTUAL_WIDTH),
            lane_bits: LaneBits::new(),
            parameters,
        }
    }

    /// The same on another instruction set.
    pub(super) fn on(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    fn n_blocks(&self) -> usize {
        self.parameters.n_atoms.div_ceil(T::VIRTUAL_WIDTH)
    }

    fn padded(&self) -> usize {
        self.n_blocks() * T::VIRTUAL_WIDTH
    }

    /// Atoms of a block.
    #[inline(always)]
    fn rows(&self, block: usize) -> usize {
        T::VIRTUAL_WIDTH.min(self.parameters.n_atoms - block * T::VIRTUAL_WIDTH)
    }

    /// Bits of the lanes of a partner block that a row meets: not those before it, nor the padding.
    #[inline(always)]
    fn partners(&self, block: usize, row: usize, partner: usize) -> u32 {
        let mut lanes = self.full >> (T::VIRTUAL_WIDTH - self.rows(partner));
        if partner == block {
            // Shifted twice, because a shift by all bits is none.
            lanes &= u32::MAX << row << 1;
        }
        lanes
    }

    /// The parameters in the order of the places.
    #[inline(always)]
    fn atoms<'a>(&'a self, places: &'a Places<T>) -> &'a Atoms<T> {
        match self.parameters.cutoff {
            Some(_) => &places.atoms,
            None => &self.atoms,
        }
    }

    /// Energies of `positions` `[atoms, 3]`, and its forces when wanted.
    pub(super) fn evaluate(
        &self,
        scratch: &mut Scratch<T>,
        positions: &[T],
        forces: Option<&mut [T]>,
    ) -> Energies {
        let Scratch {
            places,
            tasks,
            bonded,
        } = scratch;
        self.place(places, positions);
        let mut terms = || {
            bonded.fill(T::from_f64(0.0));
            dispatch_on(
                self.tier,
                BondedTerms {
                    of: self,
                    x: positions,
                    f: bonded,
                },
            )
        };
        let prepare = |places: &Places<T>, tasks: &mut [Task<T>]| {
            each(tasks, |task| {
                task.prepare(self, positions, places);
                self.pass::<1>(places, task);
            });
        };
        let mut energies = if tasks.len() == 1 {
            prepare(places, tasks);
            terms()
        } else {
            rayon::join(|| prepare(places, tasks), terms).1
        };
        energies.generalized_born = self.radii(places, tasks);
        each(tasks, |task| self.pass::<2>(places, task));
        for task in tasks.iter() {
            energies.nonbonded += task.nonbonded;
            energies.generalized_born -= self.born_share * task.polar;
        }
        if let Some(forces) = forces {
            if self.parameters.born.is_some() {
                self.slopes(places, tasks);
                each(tasks, |task| self.pass::<3>(places, task));
            }
            self.gather_forces(places, tasks, bonded, forces);
        }
        Energies {
            bond: never_nan(energies.bond),
            angle: never_nan(energies.angle),
            torsion: never_nan(energies.torsion),
            nonbonded: never_nan(energies.nonbonded),
            generalized_born: never_nan(energies.generalized_born),
        }
    }

    fn pass<const NUMBER: u8>(&self, places: &Places<T>, task: &mut Task<T>) {
        dispatch_on(
            self.tier,
            pairs::Pass::<T, NUMBER> {
                of: self,
                places,
                task,
            },
        );
    }

    /// Puts the conformation in order. The padding repeats an atom.
    fn place(&self, places: &mut Places<T>, positions: &[T]) {
        if self.parameters.cutoff.is_some() {
            places.tree.build(positions, T::VIRTUAL_WIDTH);
            for (place, &atom) in places.tree.order.iter().enumerate() {
                places.place[atom as usize] = place as u32;
            }
            places.atoms.reorder(&self.atoms, &places.tree.order);
        }
        let order = &places.tree.order;
        for (axis, x) in places.x.iter_mut().enumerate() {
            for (place, x) in x.iter_mut().enumerate() {
                let atom = order[place.min(order.len() - 1)] as usize;
                *x = positions[3 * atom + axis];
            }
        }
    }

    /// Adds up the tasks' Born integrals in order and makes radii of them; the energies of single atoms.
    fn radii(&self, places: &mut Places<T>, tasks: &[Task<T>]) -> f64 {
        if self.parameters.born.is_none() {
            return 0.0;
        }
        for (place, radius) in places.radius.iter_mut().enumerate() {
            let parts = tasks.iter().map(|task| task.integral[place].as_f64());
            *radius = T::from_f64(parts.sum());
        }
        dispatch_on(self.tier, pairs::Radii { of: self, places })
    }

    /// Turns dB/dI into ∂E/∂B dB/dI.
    fn slopes(&self, places: &mut Places<T>, tasks: &[Task<T>]) {
        for (place, slope) in places.slope.iter_mut().enumerate() {
            let parts = tasks.iter().map(|task| task.force[place].as_f64());
            let pairs = self.born_share * parts.sum::<f64>();
            let force = 0.5 * (places.force[place].as_f64() + pairs);
            *slope = T::from_f64(slope.as_f64() * force);
        }
    }

    fn gather_forces(&self, places: &Places<T>, tasks: &[Task<T>], bonded: &[T], forces: &mut [T]) {
        for (place, &atom) in places.tree.order.iter().enumerate() {
            for axis in 0..3 {
                let at = 3 * atom as usize + axis;
                let parts = tasks.iter().map(|task| task.f[axis][place].as_f64());
                forces[at] = T::from_f64(bonded[at].as_f64() + parts.sum::<f64>());
            }
        }
    }
}

/// Every task, on any thread.
fn each<T: Real>(tasks: &mut [Task<T>], work: impl Fn(&mut Task<T>) + Sync + Send) {
    match tasks {
        [only] => work(only),
        _ => tasks.par_iter_mut().for_each(work),
    }
}

/// Bonds, angles, torsions and pairs three bonds apart.
struct BondedTerms<'a, T: Real> {
    of: &'a Blocks<T>,
    x: &'a [T],
    f: &'a mut [T],
}

impl<T: Real> Kernel for BondedTerms<'_, T> {
    type Output = Energies;

    #[inline(always)]
    fn run<S: Simd>(self) -> Energies {
        let Self { of, x, f } = self;
        let smallest = of.parameters.smallest_squared_distance;
        Energies {
            bond: terms::bonds::<T::Lanes<S>>(&of.bonds, x, f),
            angle: terms::angles::<T::Lanes<S>>(&of.angles, x, f),
            torsion: terms::torsions::<T::Lanes<S>>(&of.torsions, x, f),
            nonbonded: terms::scaled_pairs::<T::Lanes<S>>(&of.scaled, smallest, x, f),
            generalized_born: 0.0,
        }
    }
}
