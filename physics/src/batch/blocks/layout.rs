//! The parameters of atoms and bonded terms as the lanes of a block read them: array by array, padded to whole blocks.
//!
//! Nothing here grows faster than the number of atoms: what a pair needs is combined from its two atoms when it is met.

use super::super::parameters::{BornAtom, Parameters, TorsionSeries};
use super::super::split::{Split, SplitLanes};
use crate::system::{COULOMB_CONSTANT, Pair14, System};
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::Lanes;

/// Numbers with what rounding took from them.
#[derive(Clone, Default)]
pub(super) struct SplitColumn<T> {
    value: Vec<T>,
    rest: Vec<T>,
}

impl<T: Real> SplitColumn<T> {
    fn push(&mut self, number: Split<T>) {
        self.value.push(number.value);
        self.rest.push(number.rest);
    }

    fn get(&self, index: usize) -> Split<T> {
        Split {
            value: self.value[index],
            rest: self.rest[index],
        }
    }

    /// Lanes from `from` on.
    #[inline(always)]
    pub(super) fn lanes<L: Lanes<Scalar = T>>(&self, from: usize) -> SplitLanes<L> {
        SplitLanes {
            value: part(&self.value, from),
            rest: part(&self.rest, from),
        }
    }

    /// One number in all lanes.
    #[inline(always)]
    pub(super) fn splat<L: Lanes<Scalar = T>>(&self, index: usize) -> SplitLanes<L> {
        SplitLanes::splat(self.get(index))
    }
}

/// Lanes from `from` on.
#[inline(always)]
pub(super) fn part<L: Lanes>(values: &[L::Scalar], from: usize) -> L {
    L::load(&values[from..from + L::WIDTH])
}

/// What the pairs of an atom are made from, `[atoms]` padded to whole blocks; in the system's order, or in that of the blocks.
#[derive(Clone, Default)]
pub(super) struct Atoms<T> {
    /// √K q, so that the product of two is K q_i q_j
    pub(super) charge: SplitColumn<T>,
    /// σ/2
    pub(super) half_sigma: Vec<T>,
    /// 2√ε, so that the product of two is 4√(ε_i ε_j)
    pub(super) root_epsilon: Vec<T>,
    /// Born parameters, see [`BornAtom`]; empty without implicit solvent.
    pub(super) offset: Vec<T>,
    pub(super) inverse_offset: Vec<T>,
    pub(super) sphere: Vec<T>,
    pub(super) inverse_radius: Vec<T>,
    pub(super) inverse_difference: Vec<T>,
    pub(super) self_charge: Vec<T>,
    pub(super) surface: Vec<T>,
}

impl<T: Real> Atoms<T> {
    pub(super) fn new(system: &System, parameters: &Parameters<T>) -> Self {
        let mut atoms = Self::default();
        let t = T::from_f64;
        let padded = parameters.n_atoms.next_multiple_of(T::VIRTUAL_WIDTH);
        for atom in 0..parameters.n_atoms {
            let charge = COULOMB_CONSTANT.sqrt() * system.charges[atom];
            atoms.charge.push(Split::new(charge));
            atoms.half_sigma.push(t(0.5 * system.sigma[atom]));
            atoms
                .root_epsilon
                .push(t(2.0 * system.epsilon[atom].sqrt()));
        }
        for _ in parameters.n_atoms..padded {
            atoms.charge.push(Split::new(0.0));
        }
        atoms.half_sigma.resize(padded, t(0.0));
        atoms.root_epsilon.resize(padded, t(0.0));
        if let Some(born) = &parameters.born {
            // Atoms of the padding have harmless values.
            let column = |value: fn(&BornAtom<T>) -> T, padding: f64| {
                let mut values: Vec<T> = born.atoms.iter().map(value).collect();
                values.resize(padded, t(padding));
                values
            };
            atoms.offset = column(|atom| atom.offset_radius, 0.1);
            atoms.inverse_offset = column(|atom| atom.inverse_offset_radius, 10.0);
            atoms.sphere = column(|atom| atom.scaled_radius, 0.1);
            atoms.inverse_radius = column(|atom| atom.inverse_radius, 9.0);
            atoms.inverse_difference = column(|atom| atom.inverse_difference, 1.0);
            atoms.self_charge = column(|atom| atom.self_charge, 0.0);
            atoms.surface = column(|atom| atom.surface, 0.0);
        }
        atoms
    }

    /// Makes this the atoms of `from` in another order.
    pub(super) fn reorder(&mut self, from: &Self, order: &[u32]) {
        for (to, from) in [
            (&mut self.charge.value, &from.charge.value),
            (&mut self.charge.rest, &from.charge.rest),
            (&mut self.half_sigma, &from.half_sigma),
            (&mut self.root_epsilon, &from.root_epsilon),
            (&mut self.offset, &from.offset),
            (&mut self.inverse_offset, &from.inverse_offset),
            (&mut self.sphere, &from.sphere),
            (&mut self.inverse_radius, &from.inverse_radius),
            (&mut self.inverse_difference, &from.inverse_difference),
            (&mut self.self_charge, &from.self_charge),
            (&mut self.surface, &from.surface),
        ] {
            if from.is_empty() {
                continue;
            }
            for (to, &atom) in to.iter_mut().zip(order) {
                *to = from[atom as usize];
            }
        }
    }
}

/// Harmonic terms of N atoms; those of the padding repeat the last without strength.
pub(super) struct Terms<T, const N: usize> {
    pub(super) count: usize,
    pub(super) atoms: [Vec<u32>; N],
    pub(super) rest: SplitColumn<T>,
    pub(super) force_constant: Vec<T>,
}

/// Column n holds the n-th atom of every term, and the last term's again in the padding.
fn atom_columns<const N: usize>(terms: &[[usize; N]], width: usize) -> [Vec<u32>; N] {
    std::array::from_fn(|n| {
        let mut column: Vec<u32> = terms.iter().map(|atoms| atoms[n] as u32).collect();
        let last = column.last().copied().unwrap_or(0);
        column.resize(terms.len().next_multiple_of(width), last);
        column
    })
}

impl<T: Real, const N: usize> Terms<T, N> {
    /// From atoms, rest value and force constant.
    pub(super) fn new(terms: &[([usize; N], Split<T>, T)]) -> Self {
        let atoms: Vec<[usize; N]> = terms.iter().map(|term| term.0).collect();
        let atoms = atom_columns(&atoms, T::VIRTUAL_WIDTH);
        let padded = terms.len().next_multiple_of(T::VIRTUAL_WIDTH);
        let mut rest = SplitColumn::default();
        for index in 0..padded {
            rest.push(terms[index.min(terms.len() - 1)].1);
        }
        let mut force_constant: Vec<T> = terms.iter().map(|term| term.2).collect();
        force_constant.resize(padded, T::from_f64(0.0));
        Self {
            count: terms.len(),
            atoms,
            rest,
            force_constant,
        }
    }
}

/// Fourier series of quadruples. Quadruples of as many harmonics stand together.
pub(super) struct Torsions<T> {
    pub(super) count: usize,
    pub(super) atoms: [Vec<u32>; 4],
    pub(super) constant: Vec<T>,
    /// Block by block: of every harmonic the cosines' and then the sines' coefficients of all lanes.
    pub(super) harmonics: Vec<T>,
    /// Where the harmonics of each block begin, and where those of the last end.
    pub(super) starts: Vec<usize>,
}

impl<T: Real> Torsions<T> {
    pub(super) fn new(series: &[TorsionSeries<T>]) -> Self {
        let width = T::VIRTUAL_WIDTH;
        let mut order: Vec<&TorsionSeries<T>> = series.iter().collect();
        order.sort_by_key(|term| term.harmonics.len());
        let quadruples: Vec<[usize; 4]> = order.iter().map(|term| term.atoms).collect();
        let zero = T::from_f64(0.0);
        let mut constant: Vec<T> = order.iter().map(|term| term.constant).collect();
        constant.resize(order.len().next_multiple_of(width), zero);
        let (mut harmonics, mut starts) = (Vec::new(), vec![0]);
        for chunk in order.chunks(width) {
            let highest = chunk.iter().map(|term| term.harmonics.len()).max();
            for n in 0..highest.unwrap_or(0) {
                for part in 0..2 {
                    for lane in 0..width {
                        let of = chunk.get(lane).and_then(|term| term.harmonics.get(n));
                        harmonics.push(of.map_or(zero, |harmonic| harmonic[part]));
                    }
                }
            }
            starts.push(harmonics.len());
        }
        Self {
            count: order.len(),
            atoms: atom_columns(&quadruples, width),
            constant,
            harmonics,
            starts,
        }
    }
}

/// Pairs three bonds apart, which no cutoff touches.
pub(super) struct ScaledPairs<T> {
    pub(super) count: usize,
    pub(super) atoms: [Vec<u32>; 2],
    /// K q_i q_j, scaled
    pub(super) charge: SplitColumn<T>,
    /// 4εσ¹²
    pub(super) repulsion: Vec<T>,
    /// 4εσ⁶
    pub(super) attraction: Vec<T>,
}

impl<T: Real> ScaledPairs<T> {
    pub(super) fn new(pairs: &[Pair14]) -> Self {
        let width = T::VIRTUAL_WIDTH;
        let padded = pairs.len().next_multiple_of(width);
        let atoms: Vec<[usize; 2]> = pairs.iter().map(|pair| pair.atoms).collect();
        let mut charge = SplitColumn::default();
        let (mut repulsion, mut attraction) = (Vec::new(), Vec::new());
        for index in 0..padded {
            let (product, sigma, epsilon) = pairs.get(index).map_or((0.0, 0.0, 0.0), |pair| {
                (pair.charge_product, pair.sigma, pair.epsilon)
            });
            charge.push(Split::new(COULOMB_CONSTANT * product));
            repulsion.push(T::from_f64(4.0 * epsilon * sigma.powi(12)));
            attraction.push(T::from_f64(4.0 * epsilon * sigma.powi(6)));
        }
        Self {
            count: pairs.len(),
            atoms: atom_columns(&atoms, width),
            charge,
            repulsion,
            attraction,
        }
    }
}

/// For every atom the partners with which the general rule does not hold: up to three bonds apart. In rising order.
pub(super) struct Partners {
    starts: Vec<u32>,
    partners: Vec<u32>,
}

impl Partners {
    /// # Panics
    /// If a pair names an atom twice or one that does not exist.
    pub(super) fn new(system: &System) -> Self {
        let n = system.n_atoms();
        let mut of = vec![Vec::new(); n];
        let scaled = system.pairs14.iter().map(|pair| pair.atoms);
        for [i, j] in system.excluded.iter().copied().chain(scaled) {
            assert!(
                i != j && i < n && j < n,
                "pair ({i}, {j}) is not a pair of the system's {n} atoms"
            );
            of[i].push(j as u32);
            of[j].push(i as u32);
        }
        let (mut starts, mut partners) = (vec![0], Vec::new());
        for list in &mut of {
            list.sort_unstable();
            list.dedup();
            partners.extend_from_slice(list);
            starts.push(partners.len() as u32);
        }
        Self { starts, partners }
    }

    pub(super) fn of(&self, atom: usize) -> &[u32] {
        &self.partners[self.starts[atom] as usize..self.starts[atom + 1] as usize]
    }
}
