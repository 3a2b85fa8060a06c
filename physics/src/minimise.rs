//! Energy minimisation of many conformations at once, one per SIMD lane.
//!
//! FIRE (Bitzek, Koskinen, Gähler, Moseler, Gumbsch, Phys. Rev. Lett. 97, 170201 (2006)) with unit masses; every lane adapts its own
//! time step, and no atom moves more than [`MinimiseSettings::largest_move`] in a step, so overlapping atoms come apart
//! gently.

use crate::batch::{BatchError, BatchEvaluator, Restraints, TileEvaluator, load_tile, store_tile};
use crate::restraint::Bias;
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{Kernel, Lanes, Simd, dispatch_on};
use rayon::prelude::*;

/// Conformations one thread works on at a time.
const CHUNK: usize = 16;
/// Time steps of the first and of the fastest descent, in units in which a bond of 3·10⁵ kJ/mol/nm² between unit masses
/// oscillates with period 0.008.
const FIRST_TIMESTEP: f64 = 2e-4;
const LONGEST_TIMESTEP: f64 = 2e-3;
/// FIRE's constants, as published.
const MIXING: f64 = 0.1;
const MIXING_DECAY: f64 = 0.99;
const SPEED_UP: f64 = 1.1;
const SLOW_DOWN: f64 = 0.5;
const PATIENCE: f64 = 5.0;

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinimiseSettings {
    /// A conformation is done when no component of a force is larger, kJ/mol/nm.
    pub force_tolerance: f64,
    /// Steps after which a conformation is given back as it is.
    pub max_steps: usize,
    /// Farthest any coordinate moves in one step, nm.
    pub largest_move: f64,
}

impl Default for MinimiseSettings {
    fn default() -> Self {
        Self {
            force_tolerance: 10.0,
            max_steps: 5000,
            largest_move: 0.005,
        }
    }
}

/// How the minimisation of one conformation ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Minimised {
    /// Potential energy of the final conformation, kJ/mol.
    pub energy: f64,
    /// Largest component of a force there, kJ/mol/nm.
    pub largest_force: f64,
    /// Whether that is within the tolerance.
    pub converged: bool,
    /// Steps done by it and those that share its vector.
    pub steps: usize,
}

/// Minimises every conformation of `positions` `[n, atoms, 3]` (nm) in place.
pub fn minimise<T: Real>(
    evaluator: &BatchEvaluator<T>,
    positions: &mut [T],
    settings: MinimiseSettings,
) -> Result<Vec<Minimised>, BatchError> {
    minimise_restrained(evaluator, positions, None, settings)
}

/// The same with restraints on dihedrals, which the results' forces count and their energies do not.
///
/// # Panics
/// If the bias has not one centre and force constant per conformation and dihedral, or names an atom that does not exist.
pub fn minimise_restrained<T: Real>(
    evaluator: &BatchEvaluator<T>,
    positions: &mut [T],
    bias: Option<&Bias>,
    settings: MinimiseSettings,
) -> Result<Vec<Minimised>, BatchError> {
    let n = evaluator.check(positions)?;
    if let Some(bias) = bias {
        bias.check(n);
    }
    let size = 3 * evaluator.n_atoms();
    let mut results = vec![Minimised::default(); n];
    positions
        .par_chunks_mut(CHUNK * size)
        .zip(results.par_chunks_mut(CHUNK))
        .enumerate()
        .for_each(|(chunk, (positions, results))| {
            dispatch_on(
                evaluator.tier(),
                MinimiseChunk {
                    evaluator,
                    positions,
                    results,
                    bias,
                    first_conformation: chunk * CHUNK,
                    settings,
                },
            );
        });
    Ok(results)
}

struct MinimiseChunk<'a, T: Real> {
    evaluator: &'a BatchEvaluator<T>,
    positions: &'a mut [T],
    results: &'a mut [Minimised],
    bias: Option<&'a Bias>,
    first_conformation: usize,
    settings: MinimiseSettings,
}

impl<T: Real> Kernel for MinimiseChunk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let width = <T::Lanes<S> as Lanes>::WIDTH;
        let size = 3 * self.evaluator.n_atoms();
        let mut evaluator = TileEvaluator::<T::Lanes<S>>::new(self.evaluator);
        let zero = T::Lanes::<S>::zero();
        let mut x = vec![zero; size];
        let mut v = vec![zero; size];
        let mut f = vec![zero; size];
        let n = self.results.len();
        let mut first = 0;
        while first < n {
            let count = width.min(n - first);
            let rows = first * size..(first + count) * size;
            load_tile(&self.positions[rows.clone()], &mut x);
            for velocity in v.iter_mut() {
                *velocity = zero;
            }
            let restraints = Restraints::new(self.bias, self.first_conformation + first, count);
            let steps = descend(
                &mut evaluator,
                &restraints,
                &self.settings,
                count,
                &mut x,
                &mut v,
                &mut f,
            );
            let energies = evaluator.evaluate::<true>(count, &x, &mut f);
            restraints.add_forces(&x, &mut f);
            let largest = largest_component(&f);
            for lane in 0..count {
                let largest_force = largest.extract(lane).as_f64();
                self.results[first + lane] = Minimised {
                    energy: energies.lane(lane).total(),
                    largest_force,
                    converged: largest_force <= self.settings.force_tolerance,
                    steps,
                };
            }
            store_tile(&x, &mut self.positions[rows]);
            first += count;
        }
    }
}

/// FIRE until every lane has converged. A lane that has stands still, whatever the others do.
#[inline(always)]
fn descend<L: Lanes>(
    evaluator: &mut TileEvaluator<'_, L>,
    restraints: &Restraints<L>,
    settings: &MinimiseSettings,
    count: usize,
    x: &mut [L],
    v: &mut [L],
    f: &mut [L],
) -> usize {
    let (zero, one) = (L::zero(), L::constant(1.0));
    let tolerance = L::constant(settings.force_tolerance);
    let limit = L::constant(settings.largest_move);
    let tiny = L::constant(1e-30);
    let mut timestep = L::constant(FIRST_TIMESTEP);
    let mut mixing = L::constant(MIXING);
    let mut downhill_steps = zero;
    for step in 0..settings.max_steps {
        evaluator.evaluate::<true>(count, x, f);
        restraints.add_forces(x, f);
        let active = L::mask_not(largest_component(f).le(tolerance));
        if !L::mask_any(active) {
            return step;
        }
        let (mut power, mut speed2, mut force2) = (zero, zero, zero);
        for k in 0..x.len() {
            // Bounded, so that squares of the forces of overlapping atoms do not overflow in single precision.
            let bound = L::constant(1e15);
            let force = bound.min((zero - bound).max(f[k]));
            f[k] = force;
            power = force.mul_add(v[k], power);
            speed2 = v[k].mul_add(v[k], speed2);
            force2 = force.mul_add(force, force2);
        }
        let downhill = zero.lt(power);
        let patient = L::mask_and(downhill, L::constant(PATIENCE).lt(downhill_steps));
        let faster = L::constant(LONGEST_TIMESTEP).min(timestep * L::constant(SPEED_UP));
        timestep = L::select(
            patient,
            faster,
            L::select(downhill, timestep, timestep * L::constant(SLOW_DOWN)),
        );
        // The first step has no velocity and so no power; without a floor, repeated uphill steps would stop all motion.
        timestep = L::constant(FIRST_TIMESTEP * 1e-2).max(timestep);
        let keep = L::select(downhill, one - mixing, zero);
        let turn = L::select(downhill, mixing * (speed2 / tiny.max(force2)).sqrt(), zero);
        mixing = L::select(
            patient,
            mixing * L::constant(MIXING_DECAY),
            L::select(downhill, mixing, L::constant(MIXING)),
        );
        downhill_steps = L::select(downhill, downhill_steps + one, zero);
        let mut farthest = zero;
        for k in 0..x.len() {
            v[k] = (turn + timestep).mul_add(f[k], keep * v[k]);
            farthest = farthest.max((timestep * v[k]).abs());
        }
        let shorten = one.min(limit / tiny.max(farthest));
        let advance = L::select(active, timestep, zero);
        for k in 0..x.len() {
            v[k] = v[k] * shorten;
            x[k] = advance.mul_add(v[k], x[k]);
        }
    }
    settings.max_steps
}

/// The largest |component| of each lane.
#[inline(always)]
fn largest_component<L: Lanes>(f: &[L]) -> L {
    let mut largest = L::zero();
    for &component in f {
        largest = largest.max(component.abs());
    }
    largest
}
