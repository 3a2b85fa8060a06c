//! `boltzmap remd`: equilibrium conformations by temperature replica exchange.

mod configurations;
mod independent;
mod sets;
mod summary;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use boltzmap_physics::BatchEvaluator;
use boltzmap_physics::langevin::LangevinSettings;
use boltzmap_physics::minimise::{MinimiseSettings, minimise};
use boltzmap_physics::replica_exchange::{
    ReplicaExchange, ReplicaExchangeError, ReplicaExchangeSettings, ReplicaExchangeState,
    ReplicaExchangeTrajectory, RunEnd,
};

use super::outputs::refuse_existing;
use super::print;
use crate::args::RemdArguments;
use crate::card::{self, Card};
use crate::molecule::Molecule;
use crate::progress::{self, Interrupted, Progress, note};
use crate::run_dir::check_writable;
use crate::{state, trajectory};
use configurations::{Configurations, Found};
use sets::Sets;

/// Time between two state files.
const CHECKPOINT: Duration = Duration::from_secs(60);
/// Units of the progress bar.
const UNITS: u64 = 10_000;

/// Steps of a length of time, at least one, in whole multiples.
pub(super) fn steps(name: &str, picoseconds: f64, timestep: f64, multiple: u64) -> Result<u64> {
    ensure!(
        picoseconds >= 0.0 && picoseconds.is_finite() && timestep > 0.0,
        "{name} is {picoseconds}, and the time step {} fs; the first must not be negative, the second must be positive",
        1000.0 * timestep
    );
    let multiple = multiple.max(1);
    Ok(((picoseconds / timestep).round() as u64).div_ceil(multiple) * multiple)
}

/// Simulated ns per day of all replicas together.
pub(super) fn pace(steps: u64, replicas: usize, timestep: f64, since: Instant) -> String {
    let ns = steps as f64 * replicas as f64 * timestep * 1e-3;
    let days = since.elapsed().as_secs_f64() / 86_400.0;
    format!("{:.0} ns/day", ns / days.max(1e-12))
}

fn settings(arguments: &RemdArguments) -> Result<ReplicaExchangeSettings> {
    let timestep = arguments.timestep_fs * 1e-3;
    let exchange = arguments.exchange_interval.max(1);
    let save = arguments.save_interval.max(1).div_ceil(exchange) * exchange;
    Ok(ReplicaExchangeSettings {
        n_ladders: arguments.ladders,
        n_temperatures: arguments.temperatures,
        lowest_temperature: arguments.temperature,
        highest_temperature: arguments.highest,
        langevin: LangevinSettings {
            timestep,
            friction: arguments.friction,
        },
        exchange_interval: exchange,
        equilibration_steps: steps(
            "--equilibration-ps",
            arguments.equilibration_ps,
            timestep,
            exchange,
        )?,
        steps: steps("--ps", arguments.ps, timestep, save)?,
        save_interval: save,
        recorded_temperatures: 1,
        seed: arguments.seed,
    })
}

/// The file that an interrupted run goes on from.
fn state_path(out: &Path) -> PathBuf {
    PathBuf::from(format!("{}.state.npz", out.display()))
}

/// Fails before any work if a file cannot be written, or must not be.
fn check_outputs(arguments: &RemdArguments, sets: &Sets) -> Result<()> {
    let mut outputs = sets.paths();
    outputs.extend(sets.paths().iter().map(|path| card::path_of(path)));
    outputs.push(summary::path_of(&arguments.out));
    if !arguments.resume && !arguments.overwrite {
        refuse_existing(&outputs, &state_path(&arguments.out))?;
    }
    outputs.iter().try_for_each(|path| check_writable(path))
}

/// Runs the command.
pub fn remd(arguments: &RemdArguments) -> Result<()> {
    trajectory::check_ending(&arguments.out)?;
    let settings = settings(arguments)?;
    ensure!(
        settings.steps > 0,
        "--ps is {}, so that no frame would be recorded; it must be positive",
        arguments.ps
    );
    let sets = Sets::new(arguments, &settings)?;
    check_outputs(arguments, &sets)?;
    let molecule = Molecule::from_arguments(&arguments.molecule)?;
    let torsions = summary::torsions(&molecule);
    let configurations = Configurations::new(&molecule, arguments.fixed_peptide_bonds);
    let mut watched: Vec<[usize; 4]> = torsions.iter().map(|torsion| torsion.atoms).collect();
    watched.extend(&configurations.watched);
    let exchange =
        ReplicaExchange::new(&molecule.system, settings.clone())?.watching(watched.clone());
    progress::install_interrupt_handler()?;
    let state_path = state_path(&arguments.out);
    let chosen = &arguments.molecule;
    let described = format!(
        "{} {} cutoff {:?} {settings:?}, configurations watched",
        chosen.molecule, chosen.force_field, chosen.cutoff
    );
    let size = 3 * molecule.n_atoms();
    let replicas = settings.n_ladders * settings.n_temperatures;
    let mut run = if arguments.resume {
        let shape = [
            settings.n_ladders,
            settings.n_temperatures,
            size,
            watched.len(),
        ];
        state::read_exchange(&state_path, &described, shape)?
    } else {
        let mut start = molecule.positions.clone();
        let evaluator = BatchEvaluator::<f64>::new(&molecule.system);
        minimise(&evaluator, &mut start, MinimiseSettings::default())?;
        let start: Vec<f32> = start.iter().map(|&x| x as f32).collect();
        exchange.start(&start.repeat(replicas))?
    };
    let units = |fraction: f64| (fraction * UNITS as f64) as u64;
    let mut bar = Progress::new("remd", UNITS, units(exchange.fraction_done(&run)));
    let (since, first_step) = (Instant::now(), run.replicas.step);
    let total = (settings.equilibration_steps + settings.steps) as f64;
    // The cancel flag is also raised, by this clock, when it is time for a state file.
    let end = loop {
        let flag = std::sync::atomic::AtomicBool::new(false);
        let leg = Instant::now();
        let end = exchange.run(
            &mut run,
            |fraction| {
                if progress::interrupted() || leg.elapsed() > CHECKPOINT {
                    flag.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                let done = (fraction * total).round() as u64 - first_step;
                bar.set(units(fraction), || {
                    pace(done, replicas, settings.langevin.timestep, since)
                });
            },
            &flag,
        );
        match end {
            Err(ReplicaExchangeError::Dynamics(error)) => return Err(molecule.explain(error)),
            Err(other) => return Err(other.into()),
            Ok(RunEnd::Finished) => break RunEnd::Finished,
            Ok(RunEnd::Cancelled) => state::write_exchange(&state_path, &run, &described)?,
        }
        if progress::interrupted() {
            break RunEnd::Cancelled;
        }
    };
    let trajectory = exchange.trajectory(&run);
    let found = configurations.find(
        &trajectory.level_angles,
        watched.len(),
        torsions.len(),
        trajectory.times.len(),
    );
    let frames = Frames {
        arguments,
        molecule: &molecule,
        settings: &settings,
        trajectory: &trajectory,
        found: &found,
    };
    let written = frames.write(&sets, end)?;
    if end == RunEnd::Cancelled {
        return Err(Interrupted.into());
    }
    bar.finish(&pace(
        run.replicas.step - first_step,
        replicas,
        settings.langevin.timestep,
        since,
    ));
    let summary = summary::Material {
        molecule: &molecule,
        torsions: &torsions,
        exchange: &exchange,
        run: &run,
        trajectory: &trajectory,
        found: &found,
        written: &written,
    }
    .summarise()?;
    summary::write(&arguments.out, &summary.value)?;
    // Only now is everything on disk that the state could still be needed for.
    if state_path.exists() {
        std::fs::remove_file(&state_path)?;
    }
    summary.warnings.iter().for_each(|warning| note(warning));
    print(&(headline(&run, &settings, &written) + &summary.sentences))
}

/// What was written, and how well the replicas exchanged.
fn headline(
    run: &ReplicaExchangeState,
    settings: &ReplicaExchangeSettings,
    written: &[Written],
) -> String {
    let mut text = String::new();
    for set in written {
        text += &format!(
            "{}: {} frames at {} K{}\n",
            set.path.display(),
            set.frames.len(),
            settings.lowest_temperature,
            match set.asked {
                Some(asked) if asked > set.frames.len() =>
                    format!(" of {asked} asked for, the others being left out"),
                _ => String::new(),
            }
        );
    }
    let acceptances = run.exchanges.iter().map(|count| count.acceptance());
    text + &match settings.n_temperatures {
        1 => "one temperature, no exchanges\n".to_owned(),
        _ => format!(
            "{} round trips through the temperatures, lowest exchange acceptance {:.2}\n",
            run.round_trips,
            acceptances.fold(1.0, f64::min)
        ),
    }
}

/// A set of frames as it was written.
struct Written {
    path: PathBuf,
    /// What the set is for.
    name: &'static str,
    /// How many frames were asked for, if a number was.
    asked: Option<usize>,
    /// Its frames' places in the trajectory, ladder by ladder.
    frames: Vec<usize>,
    ladders: Vec<usize>,
}

/// The frames of a run, with all that their cards say.
struct Frames<'r> {
    arguments: &'r RemdArguments,
    molecule: &'r Molecule,
    settings: &'r ReplicaExchangeSettings,
    trajectory: &'r ReplicaExchangeTrajectory,
    found: &'r Found,
}

impl Frames<'_> {
    /// Writes the frames there are, set by set, and their cards.
    fn write(&self, sets: &Sets, end: RunEnd) -> Result<Vec<Written>> {
        let frames = self.trajectory;
        if frames.times.is_empty() {
            return Ok(Vec::new());
        }
        let size = 3 * self.molecule.n_atoms();
        let written = sets.choose(&frames.ladders, |n| self.found.belongs(n));
        if let Some(set) = written.iter().find(|set| set.frames.is_empty()) {
            bail!(
                "every frame for {} changed its peptide bonds or its handedness and would be left out; the start is unstable, or --highest is too high (--fixed-peptide-bonds false keeps cis frames)",
                set.path.display()
            );
        }
        for set in &written {
            let pick = |values: &[f64]| set.frames.iter().map(|&n| values[n]).collect::<Vec<f64>>();
            let times: Vec<f32> = set.frames.iter().map(|&n| frames.times[n] as f32).collect();
            let positions: Vec<f32> = set
                .frames
                .iter()
                .flat_map(|&n| &frames.positions[n * size..(n + 1) * size])
                .copied()
                .collect();
            let ladders = set.frames.iter().map(|&n| f64::from(frames.ladders[n]));
            let extra = [
                ("potential_energy", pick(&frames.potential_energies)),
                ("ladder", ladders.collect()),
            ];
            trajectory::write(&set.path, self.molecule, &positions, &times, &extra)?;
            card::write(&set.path, self.card(set, end))?;
        }
        Ok(written)
    }

    fn card(&self, set: &Written, end: RunEnd) -> Card {
        let (arguments, settings) = (self.arguments, self.settings);
        let numbers: Vec<String> = set.ladders.iter().map(ToString::to_string).collect();
        Card {
            made_by: card::made_by(),
            molecule: arguments.molecule.molecule.clone(),
            residues: self.molecule.topology.residue_names(),
            force_field: arguments.molecule.force_field.clone(),
            cutoff_nm: arguments.molecule.cutoff,
            temperature_k: settings.lowest_temperature,
            method: format!(
                "LangevinMiddle temperature replica exchange, {} ladders of {} temperatures up to {} K, {} fs, friction {}/ps, exchanges every {} and frames every {} steps, {} steps after {}; frames of the ladders {}{}",
                settings.n_ladders,
                settings.n_temperatures,
                settings.highest_temperature,
                arguments.timestep_fs,
                arguments.friction,
                settings.exchange_interval,
                settings.save_interval,
                settings.steps,
                settings.equilibration_steps,
                numbers.join(", "),
                match arguments.fixed_peptide_bonds {
                    true =>
                        " whose peptide bonds and chiral centres are those of the starting structure",
                    false => " whose chiral centres are those of the starting structure",
                }
            ),
            seed: settings.seed,
            frames: set.frames.len(),
            atoms: self.molecule.n_atoms(),
            finished: end == RunEnd::Finished,
            sha256: String::new(),
            settings: None,
        }
    }
}
