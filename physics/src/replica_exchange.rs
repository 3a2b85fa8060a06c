//! Temperature replica exchange over many replicas in SIMD lanes.
//!
//! Several independent *ladders* of replicas run side by side. In a ladder, one replica is at each temperature; every
//! `exchange_interval` steps, neighbours in temperature exchange their temperatures with probability
//! min(1, exp((1/RT_a − 1/RT_b)(E_a − E_b))), pairs (0,1), (2,3), … and (1,2), (3,4), … by turns, and velocities are scaled to the
//! new temperature (Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999)). Replicas stay in their lanes, temperatures move.
//!
//! Every replica and every ladder has its own random stream: results depend on the seed, not on threads.

use crate::langevin::{DynamicsError, Langevin, LangevinSettings, Replicas};
use crate::observables::dihedrals;
use crate::system::{GAS_CONSTANT, System};
use boltzmap_kernels::random::{Stream, StreamPosition, domain};
use boltzmap_statistics::ensemble::{Ensemble, Layout};
use boltzmap_statistics::mbar::MbarError;
use std::sync::atomic::{AtomicBool, Ordering};

/// Random numbers of the exchanges; the stream index is the ladder's.
const EXCHANGES: u64 = domain::REPLICA_EXCHANGES;

/// Why a replica exchange cannot be set up or went wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReplicaExchangeError {
    /// From the dynamics of the replicas.
    #[error(transparent)]
    Dynamics(#[from] DynamicsError),
    /// A setting is not usable.
    #[error("{name} is {value}, which must be {requirement}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        requirement: &'static str,
    },
    /// The starting positions do not fit the ladders.
    #[error(
        "{conformations} starting conformations were given for {ladders} ladders of {levels} temperatures; give {ladders}·{levels}"
    )]
    Starts {
        /// Conformations given.
        conformations: usize,
        /// Number of ladders.
        ladders: usize,
        /// Temperatures in a ladder.
        levels: usize,
    },
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaExchangeSettings {
    /// Independent ladders.
    pub n_ladders: usize,
    /// Temperatures in a ladder, in geometric progression.
    pub n_temperatures: usize,
    /// K; the temperature of the recorded frames.
    pub lowest_temperature: f64,
    /// K
    pub highest_temperature: f64,
    /// Integrator.
    pub langevin: LangevinSettings,
    /// Steps between exchanges.
    pub exchange_interval: u64,
    /// Steps at the beginning that are not recorded; a multiple of `exchange_interval`.
    pub equilibration_steps: u64,
    /// Recorded steps of every replica; a multiple of `save_interval`.
    pub steps: u64,
    /// Steps between recorded frames; a multiple of `exchange_interval`.
    pub save_interval: u64,
    /// Temperatures, from the lowest, whose frames are recorded.
    pub recorded_temperatures: usize,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl Default for ReplicaExchangeSettings {
    /// A ladder for a capped amino acid, whose φ barriers (11 kT at 300 K and more) are crossed near 1200 K: nine ladders of
    /// seven temperatures, 63 replicas in four tiles of 16 lanes, 38 % of exchanges accepted.
    fn default() -> Self {
        Self {
            n_ladders: 9,
            n_temperatures: 7,
            lowest_temperature: 300.0,
            highest_temperature: 1200.0,
            langevin: LangevinSettings {
                timestep: 0.001,
                friction: 2.0,
            },
            exchange_interval: 100,
            equilibration_steps: 50_000,
            steps: 1_000_000,
            save_interval: 200,
            recorded_temperatures: 1,
            seed: 0,
        }
    }
}

impl ReplicaExchangeSettings {
    /// T_k = T_0 (T_max/T_0)^{k/(n−1)}, K.
    pub fn temperatures(&self) -> Vec<f64> {
        let ratio = self.highest_temperature / self.lowest_temperature;
        (0..self.n_temperatures)
            .map(|k| {
                self.lowest_temperature
                    * ratio.powf(k as f64 / (self.n_temperatures.max(2) - 1) as f64)
            })
            .collect()
    }

    fn check(&self) -> Result<(), ReplicaExchangeError> {
        let refuse = |name, value, requirement| {
            Err(ReplicaExchangeError::Setting {
                name,
                value,
                requirement,
            })
        };
        if self.n_ladders == 0 {
            return refuse("the number of ladders", 0.0, "at least 1");
        }
        if self.n_temperatures == 0 {
            return refuse("the number of temperatures", 0.0, "at least 1");
        }
        if !(self.lowest_temperature > 0.0 && self.lowest_temperature.is_finite()) {
            return refuse(
                "the lowest temperature in K",
                self.lowest_temperature,
                "positive",
            );
        }
        if !(self.highest_temperature >= self.lowest_temperature
            && self.highest_temperature.is_finite())
        {
            return refuse(
                "the highest temperature in K",
                self.highest_temperature,
                "at least the lowest one",
            );
        }
        if self.exchange_interval == 0 {
            return refuse("the number of steps between exchanges", 0.0, "at least 1");
        }
        if self.save_interval == 0 || !self.save_interval.is_multiple_of(self.exchange_interval) {
            return refuse(
                "the number of steps between frames",
                self.save_interval as f64,
                "a multiple of the steps between exchanges",
            );
        }
        if !self
            .equilibration_steps
            .is_multiple_of(self.exchange_interval)
        {
            return refuse(
                "the number of equilibration steps",
                self.equilibration_steps as f64,
                "a multiple of the steps between exchanges",
            );
        }
        if !(1..=self.n_temperatures).contains(&self.recorded_temperatures) {
            return refuse(
                "the number of temperatures with recorded frames",
                self.recorded_temperatures as f64,
                "at least 1 and no more than there are",
            );
        }
        if !self.steps.is_multiple_of(self.save_interval) {
            return refuse(
                "the number of steps",
                self.steps as f64,
                "a multiple of the steps between frames",
            );
        }
        Ok(())
    }
}

/// Which end of its ladder a replica visited last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastEnd {
    /// None yet.
    Neither,
    /// The lowest temperature.
    Lowest,
    /// The highest temperature, having come from the lowest.
    HighestFromLowest,
}

/// Everything a run is: continuing a copy gives the same bits as continuing the original.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaExchangeState {
    /// The replicas, ladder by ladder.
    pub replicas: Replicas,
    /// `[ladder][level]`: the replica (index within its ladder) at each temperature.
    pub replica_at: Vec<usize>,
    /// Random numbers of each ladder's exchanges.
    pub exchange_streams: Vec<StreamPosition>,
    /// For each replica, for counting round trips.
    pub last_end: Vec<LastEnd>,
    /// Exchanges tried and accepted between levels k and k+1, over all ladders.
    pub exchanges: Vec<ExchangeCount>,
    /// Lowest → highest → lowest temperature journeys completed, over all replicas.
    pub round_trips: u64,
    /// Recorded so far: frames at the lowest temperatures, `[save][ladder][level][atom][xyz]`, nm.
    pub frames: Vec<f32>,
    /// Recorded so far: potential energies, `[save][ladder][level]`, kJ/mol.
    pub energies: Vec<f64>,
    /// Recorded so far: the watched dihedrals, `[save][ladder][level][dihedral]`, rad.
    pub angles: Vec<f32>,
}

/// How often neighbours, in temperature or among umbrella windows, exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExchangeCount {
    /// Exchanges tried.
    pub tried: u64,
    /// Exchanges done.
    pub accepted: u64,
}

impl ExchangeCount {
    /// Accepted over tried; 0 when none was tried.
    pub fn acceptance(&self) -> f64 {
        self.accepted as f64 / self.tried.max(1) as f64
    }
}

/// Equilibrium frames at the lowest temperature, ladder by ladder, in time order within a ladder.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaExchangeTrajectory {
    /// `[n, atoms, 3]`, nm; the centre of mass is near, not at, the origin.
    pub positions: Vec<f32>,
    /// `[n]`, kJ/mol
    pub potential_energies: Vec<f64>,
    /// `[n]`, which ladder
    pub ladders: Vec<u32>,
    /// `[n]`, ps since the end of the equilibration
    pub times: Vec<f64>,
    /// Temperatures of the levels, K.
    pub temperatures: Vec<f64>,
    /// `[level][ladder][save][atom][xyz]`, nm: recorded frames above the lowest temperature, from the second level on.
    pub warm_positions: Vec<f32>,
    /// `[level][ladder][save]`, kJ/mol, potential energies at every temperature.
    pub level_energies: Vec<f64>,
    /// `[level][ladder][save][dihedral]`, rad, the watched dihedrals at every temperature.
    pub level_angles: Vec<f32>,
}

impl ReplicaExchangeTrajectory {
    /// Ladders.
    pub fn n_ladders(&self) -> usize {
        self.ladders.last().map_or(0, |&last| last as usize + 1)
    }

    /// Frames of a ladder at one temperature.
    pub fn saves(&self) -> usize {
        self.times.len() / self.n_ladders().max(1)
    }

    /// The ensemble at the lowest temperature from the frames of the lowest `levels` temperatures, every so many of them that no more than
    /// `most` are used. `belongs` tells which of `[level][ladder][save]` belong to the target; others count in the mixture of temperatures,
    /// where they belong, and weigh nothing. With the ensemble comes the place of each of its samples among `[level][ladder][save]`.
    ///
    /// # Errors
    /// No frames, temperatures that do not overlap.
    pub fn ensemble(
        &self,
        levels: usize,
        most: usize,
        belongs: impl Fn(usize) -> bool,
    ) -> Result<(Ensemble, Vec<usize>), MbarError> {
        let (ladders, saves) = (self.n_ladders(), self.saves());
        let stride = (levels * ladders * saves).div_ceil(most.max(1)).max(1);
        let places: Vec<usize> = (0..levels * ladders)
            .flat_map(|series| {
                (stride / 2..saves)
                    .step_by(stride)
                    .map(move |save| series * saves + save)
            })
            .collect();
        let layout = Layout {
            states: levels,
            chains: ladders,
            length: places.len() / (levels * ladders).max(1),
        };
        let reduced: Vec<f64> = self.temperatures[..levels]
            .iter()
            .flat_map(|temperature| {
                let thermal = GAS_CONSTANT * temperature;
                let places = places.iter();
                places.map(move |&place| self.level_energies[place] / thermal)
            })
            .collect();
        let target: Vec<f64> = places
            .iter()
            .zip(&reduced)
            .map(|(&place, &u)| if belongs(place) { u } else { f64::INFINITY })
            .collect();
        Ok((Ensemble::new(&reduced, &target, layout)?, places))
    }
}

/// How [`ReplicaExchange::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// All steps are done.
    Finished,
    /// The cancel flag was raised; running the state again continues.
    Cancelled,
}

/// Temperature replica exchange for one system.
pub struct ReplicaExchange {
    langevin: Langevin,
    settings: ReplicaExchangeSettings,
    temperatures: Vec<f64>,
    watched: Vec<[usize; 4]>,
}

impl ReplicaExchange {
    /// Checks the settings.
    pub fn new(
        system: &System,
        settings: ReplicaExchangeSettings,
    ) -> Result<Self, ReplicaExchangeError> {
        settings.check()?;
        let langevin = Langevin::new(system, settings.langevin)?;
        let temperatures = settings.temperatures();
        Ok(Self {
            langevin,
            settings,
            temperatures,
            watched: Vec::new(),
        })
    }

    /// Records these dihedrals at every temperature, with which all of them can be analysed together.
    pub fn watching(self, dihedrals: Vec<[usize; 4]>) -> Self {
        Self {
            watched: dihedrals,
            ..self
        }
    }

    /// The settings.
    pub fn settings(&self) -> &ReplicaExchangeSettings {
        &self.settings
    }

    /// The dihedrals that are recorded at every temperature.
    pub fn watched(&self) -> &[[usize; 4]] {
        &self.watched
    }

    /// The temperatures of a ladder, lowest first, K.
    pub fn temperatures(&self) -> &[f64] {
        &self.temperatures
    }

    /// The beginning of a run. `positions` `[ladders, temperatures, atoms, 3]` (nm) are energy minima, say; replica k of a ladder
    /// begins at temperature k. Starting ladders in different basins shows, by their agreement later, that the run was long enough.
    pub fn start(&self, positions: &[f32]) -> Result<ReplicaExchangeState, ReplicaExchangeError> {
        let (ladders, levels) = (self.settings.n_ladders, self.temperatures.len());
        let size = 3 * self.langevin.n_atoms();
        if size == 0 || positions.len() != ladders * levels * size {
            let conformations = positions.len() / size.max(1);
            return Err(ReplicaExchangeError::Starts {
                conformations,
                ladders,
                levels,
            });
        }
        let replicas = self.langevin.start(
            positions,
            &self.temperatures.repeat(ladders),
            self.settings.seed,
        )?;
        let mut state = ReplicaExchangeState {
            replicas,
            replica_at: (0..ladders).flat_map(|_| 0..levels).collect(),
            exchange_streams: (0..ladders)
                .map(|l| Stream::new(self.settings.seed, EXCHANGES, l as u64).position())
                .collect(),
            last_end: vec![LastEnd::Neither; ladders * levels],
            exchanges: vec![ExchangeCount::default(); levels - 1],
            round_trips: 0,
            frames: Vec::new(),
            energies: Vec::new(),
            angles: Vec::new(),
        };
        self.note_ends(&mut state);
        Ok(state)
    }

    /// Fraction of the run done.
    pub fn fraction_done(&self, state: &ReplicaExchangeState) -> f64 {
        state.replicas.step as f64
            / (self.settings.equilibration_steps + self.settings.steps).max(1) as f64
    }

    /// Runs to the end, or until `cancel` is raised, calling `progress` with the fraction done after every exchange.
    pub fn run(
        &self,
        state: &mut ReplicaExchangeState,
        mut progress: impl FnMut(f64),
        cancel: &AtomicBool,
    ) -> Result<RunEnd, ReplicaExchangeError> {
        let settings = &self.settings;
        let end = settings.equilibration_steps + settings.steps;
        while state.replicas.step < end {
            if cancel.load(Ordering::Relaxed) {
                return Ok(RunEnd::Cancelled);
            }
            self.langevin
                .run(&mut state.replicas, settings.exchange_interval)?;
            self.exchange(state);
            let step = state.replicas.step;
            if step > settings.equilibration_steps
                && (step - settings.equilibration_steps).is_multiple_of(settings.save_interval)
            {
                self.record(state);
            }
            progress(self.fraction_done(state));
        }
        Ok(RunEnd::Finished)
    }

    /// One round of exchanges in every ladder.
    fn exchange(&self, state: &mut ReplicaExchangeState) {
        let levels = self.temperatures.len();
        let round = state.replicas.step / self.settings.exchange_interval;
        for ladder in 0..self.settings.n_ladders {
            let mut stream = Stream::at(state.exchange_streams[ladder]);
            for low in ((round % 2) as usize..levels - 1).step_by(2) {
                let at = ladder * levels + low;
                let (a, b) = (
                    ladder * levels + state.replica_at[at],
                    ladder * levels + state.replica_at[at + 1],
                );
                let energy = |replica: usize| state.replicas.potential_energies[replica];
                let beta = |level: usize| 1.0 / (GAS_CONSTANT * self.temperatures[level]);
                let log_ratio = (beta(low) - beta(low + 1)) * (energy(a) - energy(b));
                let count = &mut state.exchanges[low];
                count.tried += 1;
                if stream.uniform() < log_ratio.exp() {
                    count.accepted += 1;
                    state.replicas.exchange_temperatures(a, b);
                    state.replica_at.swap(at, at + 1);
                }
            }
            state.exchange_streams[ladder] = stream.position();
        }
        self.note_ends(state);
    }

    /// Follows the replicas from end to end of their ladders.
    fn note_ends(&self, state: &mut ReplicaExchangeState) {
        let levels = self.temperatures.len();
        for ladder in 0..self.settings.n_ladders {
            let first = ladder * levels;
            let lowest = first + state.replica_at[first];
            if state.last_end[lowest] == LastEnd::HighestFromLowest {
                state.round_trips += 1;
            }
            state.last_end[lowest] = LastEnd::Lowest;
            let highest = first + state.replica_at[first + levels - 1];
            if levels > 1 && state.last_end[highest] == LastEnd::Lowest {
                state.last_end[highest] = LastEnd::HighestFromLowest;
            }
        }
    }

    fn record(&self, state: &mut ReplicaExchangeState) {
        let levels = self.temperatures.len();
        let size = 3 * self.langevin.n_atoms();
        for ladder in 0..self.settings.n_ladders {
            for level in 0..levels {
                let replica = ladder * levels + state.replica_at[ladder * levels + level];
                state
                    .energies
                    .push(state.replicas.potential_energies[replica]);
                let positions = &state.replicas.positions[replica * size..(replica + 1) * size];
                if level < self.settings.recorded_temperatures {
                    state.frames.extend_from_slice(positions);
                }
                let angles = dihedrals(positions, self.langevin.n_atoms(), &self.watched);
                state.angles.extend(angles.iter().map(|&a| a as f32));
            }
        }
    }

    /// The frames recorded so far.
    pub fn trajectory(&self, state: &ReplicaExchangeState) -> ReplicaExchangeTrajectory {
        let (ladders, levels) = (self.settings.n_ladders, self.temperatures.len());
        let size = 3 * self.langevin.n_atoms();
        let saves = state.energies.len() / (ladders * levels);
        let recorded = self.settings.recorded_temperatures;
        let frame = |save: usize, ladder: usize, level: usize| {
            let at = (save * ladders + ladder) * recorded + level;
            &state.frames[at * size..(at + 1) * size]
        };
        let mut trajectory = ReplicaExchangeTrajectory {
            positions: Vec::with_capacity(saves * ladders * size),
            warm_positions: Vec::with_capacity(state.frames.len() - saves * ladders * size),
            potential_energies: Vec::with_capacity(saves * ladders),
            ladders: Vec::with_capacity(saves * ladders),
            times: Vec::with_capacity(saves * ladders),
            temperatures: self.temperatures.clone(),
            level_energies: Vec::with_capacity(state.energies.len()),
            level_angles: Vec::with_capacity(state.angles.len()),
        };
        for ladder in 0..ladders {
            for save in 0..saves {
                trajectory
                    .positions
                    .extend_from_slice(frame(save, ladder, 0));
                trajectory
                    .potential_energies
                    .push(state.energies[(save * ladders + ladder) * levels]);
                trajectory.ladders.push(ladder as u32);
                let steps = (save as u64 + 1) * self.settings.save_interval;
                trajectory
                    .times
                    .push(steps as f64 * self.settings.langevin.timestep);
            }
        }
        for level in 0..levels {
            for ladder in 0..ladders {
                for save in 0..saves {
                    if (1..recorded).contains(&level) {
                        let positions = frame(save, ladder, level);
                        trajectory.warm_positions.extend_from_slice(positions);
                    }
                    let at = (save * ladders + ladder) * levels + level;
                    trajectory.level_energies.push(state.energies[at]);
                    let width = self.watched.len();
                    trajectory
                        .level_angles
                        .extend_from_slice(&state.angles[at * width..(at + 1) * width]);
                }
            }
        }
        trajectory
    }
}
