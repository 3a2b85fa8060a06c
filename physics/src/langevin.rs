//! Langevin dynamics of many replicas at once, one replica per SIMD lane.
//!
//! The integrator is LangevinMiddle (Zhang, Liu, Yan, Tuckerman, Liu, J. Phys. Chem. A 123, 6056 (2019)) without constraints:
//!
//! v ← v + Δt f(x)/m; x ← x + Δt/2 v; v ← a v + √((1−a²)kT/m) ξ, a = e^{−γΔt}; x ← x + Δt/2 v.
//!
//! Without friction (γ = 0) it is velocity Verlet at constant energy, with velocities half a step before the positions.
//!
//! Replicas do not interact: each has its own temperature and its own random stream, so a trajectory does not depend on the other
//! replicas or on the number of threads.

use crate::batch::{BatchError, BatchEvaluator, Restraints, TileEvaluator, load_tile, store_tile};
use crate::restraint::Bias;
use crate::system::{GAS_CONSTANT, System};
use boltzmap_kernels::random::{LaneStreams, Stream, StreamPosition, domain};
use boltzmap_kernels::simd::{Kernel, Lanes, Simd, dispatch_on};
use rayon::prelude::*;

/// Random numbers of the thermostat; the stream index is the replica's.
const NOISE: u64 = domain::LANGEVIN_NOISE;
/// Random numbers of the first velocities.
const VELOCITIES: u64 = domain::LANGEVIN_VELOCITIES;
/// Replicas one thread works on at a time: one tile of the widest vectors.
const CHUNK: usize = 16;
/// Steps between moves of every replica's centre of mass to the origin, without which single precision would run out as the
/// molecule diffuses away. The dynamics does not depend on the origin.
const RECENTRE_EVERY: u64 = 1000;

/// Why dynamics stopped or could not start.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DynamicsError {
    /// The positions cannot be used.
    #[error(transparent)]
    Positions(#[from] BatchError),
    /// As many temperatures as replicas are needed.
    #[error(
        "{temperatures} temperatures were given for {replicas} replicas; give one temperature for each replica"
    )]
    Temperatures {
        /// Temperatures given.
        temperatures: usize,
        /// Replicas started.
        replicas: usize,
    },
    /// A setting has no physical meaning.
    #[error("{name} is {value}, which must be {requirement}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        requirement: &'static str,
    },
    /// The integration became unstable.
    #[error(
        "replica {replica} left the range of numbers at step {step} (atom {atom}); \
         minimise the start or use a shorter time step"
    )]
    Diverged {
        /// Index of the replica.
        replica: usize,
        /// Steps since the start of the dynamics.
        step: u64,
        /// First atom with a coordinate that is not finite.
        atom: usize,
    },
}

/// Time step and friction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LangevinSettings {
    /// Δt, ps
    pub timestep: f64,
    /// γ, ps⁻¹
    pub friction: f64,
}

impl Default for LangevinSettings {
    /// 1 fs, the longest usual step without constraints, and 1 ps⁻¹.
    fn default() -> Self {
        Self {
            timestep: 0.001,
            friction: 1.0,
        }
    }
}

/// The complete state of the dynamics of n replicas: continuing a copy gives the same bits as continuing the original.
#[derive(Clone, Debug, PartialEq)]
pub struct Replicas {
    /// `[n, atoms, 3]`, nm
    pub positions: Vec<f32>,
    /// `[n, atoms, 3]`, nm/ps
    pub velocities: Vec<f32>,
    /// `[n]`, K
    pub temperatures: Vec<f64>,
    /// `[n]`, kJ/mol, of `positions`
    pub potential_energies: Vec<f64>,
    /// Thermostat's random numbers, `[n]`.
    pub streams: Vec<StreamPosition>,
    /// Steps done.
    pub step: u64,
}

impl Replicas {
    /// Number of replicas.
    pub fn len(&self) -> usize {
        self.temperatures.len()
    }

    /// Whether there are no replicas.
    pub fn is_empty(&self) -> bool {
        self.temperatures.is_empty()
    }

    /// Exchanges the temperatures of two replicas, scaling each velocity by √(T_new/T_old).
    pub fn exchange_temperatures(&mut self, first: usize, second: usize) {
        let (a, b) = (self.temperatures[first], self.temperatures[second]);
        let size = self.velocities.len() / self.len();
        for (replica, factor) in [
            (first, (b / a).sqrt() as f32),
            (second, (a / b).sqrt() as f32),
        ] {
            for velocity in &mut self.velocities[replica * size..(replica + 1) * size] {
                *velocity *= factor;
            }
        }
        self.temperatures.swap(first, second);
    }

    /// Swaps positions and velocities of two replicas; temperatures and random streams stay.
    pub fn swap_conformations(&mut self, first: usize, second: usize) {
        let size = self.positions.len() / self.len();
        for k in 0..size {
            self.positions.swap(first * size + k, second * size + k);
            self.velocities.swap(first * size + k, second * size + k);
        }
        self.potential_energies.swap(first, second);
    }
}

/// The same system with every atom lighter than 2 Da given `mass` (Da).
///
/// Masses do not enter the Boltzmann distribution of positions, so sampling may use heavier hydrogens, whose slower bonds allow
/// a longer time step (about 2 fs with 3 Da); the kinetics are then not those of the molecule.
pub fn with_hydrogen_mass(system: &System, mass: f64) -> System {
    let mut heavier = system.clone();
    for m in heavier.masses.iter_mut().filter(|m| **m < 2.0) {
        *m = mass;
    }
    heavier
}

/// The LangevinMiddle integrator for one system.
pub struct Langevin {
    evaluator: BatchEvaluator<f32>,
    masses: Vec<f64>,
    settings: LangevinSettings,
}

impl Langevin {
    /// An integrator; masses of the system in Da.
    pub fn new(system: &System, settings: LangevinSettings) -> Result<Self, DynamicsError> {
        let positive = |name, value: f64| {
            if value > 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(DynamicsError::Setting {
                    name,
                    value,
                    requirement: "positive",
                })
            }
        };
        positive("the time step in ps", settings.timestep)?;
        if !(settings.friction >= 0.0 && settings.friction.is_finite()) {
            return Err(DynamicsError::Setting {
                name: "the friction in 1/ps",
                value: settings.friction,
                requirement: "zero or positive",
            });
        }
        for &mass in &system.masses {
            positive("an atom's mass in Da", mass)?;
        }
        Ok(Self {
            evaluator: BatchEvaluator::new(system),
            masses: system.masses.clone(),
            settings,
        })
    }

    /// Time step and friction.
    pub fn settings(&self) -> LangevinSettings {
        self.settings
    }

    /// Number of atoms of a replica.
    pub fn n_atoms(&self) -> usize {
        self.masses.len()
    }

    /// Replicas at rest in the given positions `[n, atoms, 3]` (nm), with velocities drawn from each temperature's Maxwell
    /// distribution. Replica r's random numbers depend on `seed` and r only.
    pub fn start(
        &self,
        positions: &[f32],
        temperatures: &[f64],
        seed: u64,
    ) -> Result<Replicas, DynamicsError> {
        let potential_energies = self.evaluator.energies(positions)?;
        let n = potential_energies.len();
        if temperatures.len() != n {
            return Err(DynamicsError::Temperatures {
                temperatures: temperatures.len(),
                replicas: n,
            });
        }
        if let Some(&value) = temperatures.iter().find(|t| !(**t > 0.0 && t.is_finite())) {
            return Err(DynamicsError::Setting {
                name: "a temperature in K",
                value,
                requirement: "positive",
            });
        }
        let mut velocities = vec![0.0f32; positions.len()];
        for (r, v) in velocities.chunks_mut(3 * self.n_atoms()).enumerate() {
            Stream::new(seed, VELOCITIES, r as u64).fill_standard_normal(v);
            for (atom, v) in v.chunks_mut(3).enumerate() {
                let scale = (GAS_CONSTANT * temperatures[r] / self.masses[atom]).sqrt() as f32;
                v.iter_mut().for_each(|v| *v *= scale);
            }
        }
        Ok(Replicas {
            positions: positions.to_vec(),
            velocities,
            temperatures: temperatures.to_vec(),
            potential_energies,
            streams: (0..n)
                .map(|r| Stream::new(seed, NOISE, r as u64).position())
                .collect(),
            step: 0,
        })
    }

    /// Advances every replica by `steps` steps. However the steps are split into calls, the trajectory is the same bit by bit.
    pub fn run(&self, replicas: &mut Replicas, steps: u64) -> Result<(), DynamicsError> {
        self.run_biased(replicas, None, steps)
    }

    /// The same with restraints on dihedrals, which `potential_energies` do not count.
    ///
    /// # Panics
    /// If the bias has not one centre and force constant per replica and dihedral, or names an atom that does not exist.
    pub fn run_biased(
        &self,
        replicas: &mut Replicas,
        bias: Option<&Bias>,
        steps: u64,
    ) -> Result<(), DynamicsError> {
        if let Some(bias) = bias {
            bias.check(replicas.len());
        }
        let size = 3 * self.n_atoms();
        let first_step = replicas.step;
        let failures: Vec<Option<Failure>> = replicas
            .positions
            .par_chunks_mut(CHUNK * size)
            .zip(replicas.velocities.par_chunks_mut(CHUNK * size))
            .zip(replicas.temperatures.par_chunks(CHUNK))
            .zip(replicas.potential_energies.par_chunks_mut(CHUNK))
            .zip(replicas.streams.par_chunks_mut(CHUNK))
            .enumerate()
            .map(
                |(
                    chunk,
                    ((((positions, velocities), temperatures), potential_energies), streams),
                )| {
                    let chunk = RunChunk {
                        langevin: self,
                        positions,
                        velocities,
                        temperatures,
                        potential_energies,
                        streams,
                        bias,
                        first_replica: chunk * CHUNK,
                        first_step,
                        steps,
                    };
                    dispatch_on(self.evaluator.tier(), chunk)
                },
            )
            .collect();
        replicas.step += steps;
        for (chunk, failure) in failures.into_iter().enumerate() {
            if let Some(Failure {
                replica,
                step,
                atom,
            }) = failure
            {
                return Err(DynamicsError::Diverged {
                    replica: chunk * CHUNK + replica,
                    step,
                    atom,
                });
            }
        }
        Ok(())
    }
}

/// A coordinate that is not finite.
struct Failure {
    replica: usize,
    step: u64,
    atom: usize,
}

/// One thread's replicas.
struct RunChunk<'a> {
    langevin: &'a Langevin,
    positions: &'a mut [f32],
    velocities: &'a mut [f32],
    temperatures: &'a [f64],
    potential_energies: &'a mut [f64],
    streams: &'a mut [StreamPosition],
    bias: Option<&'a Bias>,
    first_replica: usize,
    first_step: u64,
    steps: u64,
}

/// Per-atom factors of a step.
struct AtomFactors {
    /// Δt/m
    kick: f32,
    /// √(1/m)
    noise: f32,
    /// m/Σm
    weight: f32,
}

impl Kernel for RunChunk<'_> {
    type Output = Option<Failure>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Option<Failure> {
        let width = S::F32::WIDTH;
        let langevin = self.langevin;
        let size = 3 * langevin.n_atoms();
        let LangevinSettings { timestep, friction } = langevin.settings;
        let total_mass: f64 = langevin.masses.iter().sum();
        let mut factors = Vec::with_capacity(langevin.n_atoms());
        for &mass in &langevin.masses {
            factors.push(AtomFactors {
                kick: (timestep / mass) as f32,
                noise: (1.0 / mass).sqrt() as f32,
                weight: (mass / total_mass) as f32,
            });
        }
        let keep = (-friction * timestep).exp();
        let mut evaluator = TileEvaluator::<S::F32>::new(&langevin.evaluator);
        let zero = S::F32::zero();
        let mut x = vec![zero; size];
        let mut v = vec![zero; size];
        let mut f = vec![zero; size];
        let n = self.temperatures.len();
        let mut first = 0;
        while first < n {
            let count = width.min(n - first);
            let rows = first * size..(first + count) * size;
            load_tile(&self.positions[rows.clone()], &mut x);
            load_tile(&self.velocities[rows.clone()], &mut v);
            let mut noise = LaneStreams::<S>::new(&self.streams[first..first + count]);
            let mut amplitude = [0.0f32; 16];
            for lane in 0..width {
                let temperature = self.temperatures[first + lane.min(count - 1)];
                amplitude[lane] =
                    (-(2.0 * -friction * timestep).exp_m1() * GAS_CONSTANT * temperature).sqrt()
                        as f32;
            }
            let tile = Tile::<S> {
                half_step: S::F32::splat((0.5 * timestep) as f32),
                keep: S::F32::splat(keep as f32),
                amplitude: S::F32::load(&amplitude),
                factors: &factors,
            };
            let restraints = Restraints::new(self.bias, self.first_replica + first, count);
            for step in 0..self.steps {
                let now = self.first_step + step + 1;
                evaluator.evaluate::<true>(count, &x, &mut f);
                restraints.add_forces(&x, &mut f);
                if tile.step(&mut x, &mut v, &f, &mut noise) {
                    store_tile(&x, &mut self.positions[rows.clone()]);
                    let bad = self.positions[rows.clone()]
                        .iter()
                        .position(|x| !x.is_finite());
                    if let Some(bad) = bad {
                        return Some(Failure {
                            replica: first + bad / size,
                            step: now,
                            atom: bad % size / 3,
                        });
                    }
                }
                if now.is_multiple_of(RECENTRE_EVERY) {
                    tile.recentre(&mut x);
                }
            }
            let energies = evaluator.evaluate::<false>(count, &x, &mut f);
            for lane in 0..count {
                self.potential_energies[first + lane] = energies.lane(lane).total();
            }
            store_tile(&x, &mut self.positions[rows.clone()]);
            store_tile(&v, &mut self.velocities[rows]);
            self.streams[first..first + count].copy_from_slice(&noise.positions());
            first += count;
        }
        None
    }
}

/// The constants of a tile's steps.
struct Tile<'a, S: Simd> {
    half_step: S::F32,
    keep: S::F32,
    /// √((1−a²)RT) of each lane
    amplitude: S::F32,
    factors: &'a [AtomFactors],
}

impl<S: Simd> Tile<'_, S> {
    /// One step with the forces `f` at `x`; true when a coordinate is no longer finite.
    #[inline(always)]
    fn step(
        &self,
        x: &mut [S::F32],
        v: &mut [S::F32],
        f: &[S::F32],
        noise: &mut LaneStreams<S>,
    ) -> bool {
        let zero = S::F32::zero();
        // x·0 is zero for finite x only.
        let mut finite = zero;
        for (atom, factor) in self.factors.iter().enumerate() {
            let kick = S::F32::splat(factor.kick);
            let amplitude = self.amplitude * S::F32::splat(factor.noise);
            for k in 3 * atom..3 * atom + 3 {
                let before = f[k].mul_add(kick, v[k]);
                let middle = self.half_step.mul_add(before, x[k]);
                let after = amplitude.mul_add(noise.next_normals(), self.keep * before);
                v[k] = after;
                x[k] = self.half_step.mul_add(after, middle);
                finite = x[k].mul_add(zero, finite);
            }
        }
        S::F32::mask_any(S::F32::mask_not(finite.eq(zero)))
    }

    /// Moves the centre of mass to the origin.
    #[inline(always)]
    fn recentre(&self, x: &mut [S::F32]) {
        for axis in 0..3 {
            let mut centre = S::F32::zero();
            for (atom, factor) in self.factors.iter().enumerate() {
                centre = S::F32::splat(factor.weight).mul_add(x[3 * atom + axis], centre);
            }
            for atom in 0..self.factors.len() {
                x[3 * atom + axis] = x[3 * atom + axis] - centre;
            }
        }
    }
}
