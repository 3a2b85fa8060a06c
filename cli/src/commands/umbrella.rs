//! `boltzmap umbrella`: free energies along backbone dihedrals.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use boltzmap_physics::BatchEvaluator;
use boltzmap_physics::langevin::{Langevin, LangevinSettings, Replicas};
use boltzmap_physics::minimise::{MinimiseSettings, minimise};
use boltzmap_physics::observables::{self, same_configuration};
use boltzmap_physics::replica_exchange::ExchangeCount;
use boltzmap_physics::restraint::restrained_starts;
use boltzmap_physics::system::GAS_CONSTANT;
use boltzmap_physics::umbrella::{Analysis, Windows};
use serde_json::json;

use super::free_energy::{self, PhiState};
use super::outputs::refuse_existing;
use super::print;
use super::remd::{pace, steps};
use crate::args::{UmbrellaArguments, Variables};
use crate::card::{self, Card, made_by};
use crate::molecule::Molecule;
use crate::npz::NpzWriter;
use crate::progress::{self, Interrupted, Progress, note};
use crate::report::surface::picture;
use crate::run_dir::write_atomically;
use crate::{state, trajectory};

const CHECKPOINT: Duration = Duration::from_secs(60);
/// Cells of a turn in the free-energy surface.
const BINS: usize = 36;
/// Samples of a replica below which there is nothing to analyse.
const FEWEST_SAMPLES: usize = 4;

/// The dihedrals: φ, or φ and ψ, of the chosen residue.
fn dihedrals(molecule: &Molecule, arguments: &UmbrellaArguments) -> Result<Vec<[usize; 4]>> {
    let backbone = molecule.topology.backbone();
    let both: Vec<[[usize; 4]; 2]> = backbone
        .phi
        .iter()
        .filter_map(|phi| Some([*phi, *backbone.psi.iter().find(|psi| psi[1] == phi[2])?]))
        .collect();
    let chosen = arguments
        .residue
        .checked_sub(1)
        .and_then(|index| both.get(index));
    let [phi, psi] = chosen.with_context(|| {
        format!(
            "--residue is {}, but {} residues of {} have both phi and psi",
            arguments.residue,
            both.len(),
            arguments.molecule.molecule
        )
    })?;
    Ok(match arguments.variables {
        Variables::Phi => vec![*phi],
        Variables::PhiPsi => vec![*phi, *psi],
    })
}

fn windows(arguments: &UmbrellaArguments, dimension: usize) -> Result<Windows> {
    let per_turn = usize::from(
        arguments
            .windows
            .unwrap_or(if dimension == 1 { 36 } else { 24 }),
    );
    ensure!(
        arguments.temperature > 0.0 && arguments.temperature.is_finite(),
        "--temperature is {}, which must be positive",
        arguments.temperature
    );
    let spacing = std::f64::consts::TAU / per_turn as f64;
    // Stiff enough, with this many windows, to hold alanine dipeptide on its steepest ridge (φ near 125°): windows that it can slip off have two
    // distributions far apart and sample only one.
    let default = 5.0 * GAS_CONSTANT * arguments.temperature / (spacing * spacing);
    let force_constant = arguments.force_constant.unwrap_or(default);
    ensure!(
        force_constant > 0.0 && force_constant.is_finite(),
        "--force-constant is {force_constant}, which must be positive"
    );
    Ok(Windows::grid(
        dimension,
        per_turn,
        force_constant,
        arguments.temperature,
    ))
}

/// A run in progress.
struct Run {
    replicas: Replicas,
    /// `[sample][replica][dihedral]`, rad
    angles: Vec<f64>,
    /// `[sample][replica][atom][xyz]`, nm, if they are to be saved
    frames: Vec<f32>,
    exchanges: ExchangeCount,
    /// Samples whose configuration is not the starting structure's.
    changed: u64,
}

/// Fails before any work if the results must not be written.
fn check_outputs(arguments: &UmbrellaArguments) -> Result<()> {
    let out = &arguments.out;
    ensure!(
        !out.exists() || out.is_dir(),
        "{} is a file, not a directory; give another --out",
        out.display()
    );
    if arguments.resume || arguments.overwrite {
        return Ok(());
    }
    let names = [
        "umbrella.npz",
        "surface.npz",
        "surface.svg",
        "summary.json",
        "frames.npz",
        "frames.npz.card.json",
    ];
    let outputs: Vec<PathBuf> = names.iter().map(|name| out.join(name)).collect();
    refuse_existing(&outputs, &out.join("state.npz"))
}

/// Runs the command.
pub fn umbrella(arguments: &UmbrellaArguments) -> Result<()> {
    check_outputs(arguments)?;
    let molecule = Molecule::from_arguments(&arguments.molecule)?;
    let dihedrals = dihedrals(&molecule, arguments)?;
    let windows = windows(arguments, dihedrals.len())?;
    let copies = usize::from(arguments.replicas);
    let n = windows.len() * copies;
    let bias = windows.bias(dihedrals.clone(), copies);
    let timestep = arguments.timestep_fs * 1e-3;
    let settings = LangevinSettings {
        timestep,
        friction: arguments.friction,
    };
    let langevin = Langevin::new(&molecule.system, settings)?;
    let equilibration = steps(
        "--equilibration-ps",
        arguments.equilibration_ps,
        timestep,
        1,
    )?;
    let interval = arguments.save_interval;
    let production = steps("--ps", arguments.ps, timestep, interval)?;
    let end = equilibration + production;
    ensure!(
        production / interval >= FEWEST_SAMPLES as u64,
        "--ps {} with --save-interval {interval} records {} samples of each replica, too few for free energies, which need {FEWEST_SAMPLES} at the very least; raise --ps or lower --save-interval",
        arguments.ps,
        production / interval
    );
    progress::install_interrupt_handler()?;
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let state_path = out.join("state.npz");
    let chosen = &arguments.molecule;
    let described = format!(
        "{} {} cutoff {:?} {dihedrals:?} {} windows, {} kJ/mol/rad2, {copies} replicas, {} K, {settings:?}, {equilibration} + {production} steps, every {interval}, seed {}{}{}",
        chosen.molecule,
        chosen.force_field,
        chosen.cutoff,
        windows.len(),
        windows.force_constant,
        windows.temperature,
        arguments.seed,
        match arguments.no_exchange {
            true => "",
            false => ", with exchanges",
        },
        match arguments.save_frames {
            true => ", with frames",
            false => "",
        }
    );
    let size = 3 * molecule.n_atoms();
    let mut run = if arguments.resume {
        let file = state::open(&state_path, &described)?;
        let angles = file.finite::<f64>("angles", &[None])?.values;
        let counts = file.array::<i64>("exchanges", &[Some(2)])?.values;
        Run {
            exchanges: ExchangeCount {
                tried: counts[0] as u64,
                accepted: counts[1] as u64,
            },
            changed: file.array::<i64>("changed", &[Some(1)])?.values[0] as u64,
            replicas: state::get_replicas(&file, n, size)?,
            frames: file
                .finite(
                    "frames",
                    &[Some(
                        angles.len() / dihedrals.len() * size * usize::from(arguments.save_frames),
                    )],
                )?
                .values,
            angles,
        }
    } else {
        let mut start = molecule.positions.clone();
        let evaluator = BatchEvaluator::<f64>::new(&molecule.system);
        let minimisation = MinimiseSettings::default();
        minimise(&evaluator, &mut start, minimisation)?;
        let one = windows.bias(dihedrals.clone(), 1);
        let (starts, _) =
            restrained_starts(&evaluator, &molecule.topology, &start, &one, minimisation)?;
        let starts: Vec<f32> = starts
            .chunks_exact(size)
            .flat_map(|start| start.repeat(copies))
            .map(|x| x as f32)
            .collect();
        let temperatures = vec![arguments.temperature; n];
        Run {
            replicas: langevin.start(&starts, &temperatures, arguments.seed)?,
            angles: Vec::new(),
            frames: Vec::new(),
            exchanges: ExchangeCount::default(),
            changed: 0,
        }
    };
    let backbone = molecule.topology.backbone();
    let first = run.replicas.step;
    let mut bar = Progress::new("umbrella", end, first);
    let (since, mut saved) = (Instant::now(), Instant::now());
    let mut interrupted = false;
    while run.replicas.step < end && !interrupted {
        let step = run.replicas.step;
        let next = if step < equilibration {
            interval.min(equilibration - step)
        } else {
            interval
        };
        langevin
            .run_biased(&mut run.replicas, Some(&bias), next)
            .map_err(|error| molecule.explain(error))?;
        let angles =
            observables::dihedrals(&run.replicas.positions, molecule.n_atoms(), &dihedrals);
        if step >= equilibration {
            run.angles.extend_from_slice(&angles);
            let frames = run.replicas.positions.chunks_exact(size);
            run.changed += frames
                .filter(|frame| !same_configuration(&molecule.positions, frame, &backbone))
                .count() as u64;
            if arguments.save_frames {
                run.frames.extend_from_slice(&run.replicas.positions);
            }
        }
        if !arguments.no_exchange {
            let round = run.replicas.step / interval;
            let replicas = &mut run.replicas;
            let count = windows.exchange(replicas, &angles, copies, round, arguments.seed);
            run.exchanges.tried += count.tried;
            run.exchanges.accepted += count.accepted;
        }
        bar.set(run.replicas.step, || {
            pace(run.replicas.step - first, n, timestep, since)
        });
        interrupted = progress::interrupted();
        if interrupted || saved.elapsed() > CHECKPOINT || run.replicas.step >= end {
            saved = Instant::now();
            state::put_replicas(NpzWriter::new(), &run.replicas, &described)
                .array("angles", &[run.angles.len()], &run.angles)
                .array("frames", &[run.frames.len()], &run.frames)
                .array(
                    "exchanges",
                    &[2],
                    &[run.exchanges.tried as i64, run.exchanges.accepted as i64],
                )
                .array("changed", &[1], &[run.changed as i64])
                .write(&state_path)?;
        }
    }
    let samples = run.angles.len() / (n * dihedrals.len());
    if samples < FEWEST_SAMPLES {
        note(&format!(
            "{samples} samples of each replica were recorded, too few to analyse; {} holds the state",
            state_path.display()
        ));
    } else {
        let state = PhiState::of(&molecule, dihedrals[0]);
        let log_weights = Results {
            arguments,
            molecule: &molecule,
            windows: &windows,
            run: &run,
            copies,
            described: &described,
            state,
        }
        .write()?;
        if arguments.save_frames {
            let finished = run.replicas.step >= end;
            save_frames(
                arguments,
                &molecule,
                &windows,
                &run.frames,
                copies,
                log_weights,
                finished,
            )?;
        }
    }
    if interrupted {
        return Err(Interrupted.into());
    }
    bar.finish(&pace(run.replicas.step - first, n, timestep, since));
    Ok(())
}

/// What there is to analyse.
struct Results<'r> {
    arguments: &'r UmbrellaArguments,
    molecule: &'r Molecule,
    windows: &'r Windows,
    run: &'r Run,
    copies: usize,
    described: &'r str,
    state: PhiState,
}

impl Results<'_> {
    /// `[window][replica][sample][dihedral]` from the run's `[sample][replica][dihedral]`.
    fn ordered(&self) -> Vec<f64> {
        let row = self.windows.len() * self.copies * self.windows.dimension;
        let d = self.windows.dimension;
        (0..row / d)
            .flat_map(|replica| {
                let samples = self.run.angles.chunks_exact(row);
                samples.flat_map(move |angles| &angles[replica * d..(replica + 1) * d])
            })
            .copied()
            .collect()
    }

    /// MBAR over what there is; writes the results and gives the samples' weights.
    fn write(&self) -> Result<Vec<f64>> {
        let (windows, out) = (self.windows, &self.arguments.out);
        let d = windows.dimension;
        let angles = self.ordered();
        let analysis = Analysis::new(windows, &angles, self.copies)?;
        let consistency = analysis.consistency(windows, &angles);
        let samples = angles.len() / d;
        let mut complaints = consistency.complaints();
        complaints.extend(self.changed(samples));
        for complaint in &complaints {
            note(complaint);
        }
        let (free, errors) = analysis.surface(&angles, d, BINS);
        let inside = |sample: usize| self.state.contains(angles[sample * d]);
        let difference = analysis
            .difference(inside, |sample| !inside(sample))
            .map_err(|undetermined| {
                free_energy::reason(
                    &undetermined,
                    "use more --windows or a smaller --force-constant",
                    "raise --ps or --replicas",
                )
            });
        let per_window = samples / windows.len();
        NpzWriter::new()
            .array("angles", &[windows.len(), per_window, d], &angles)
            .array("centres", &[windows.len(), d], &windows.centres)
            .array(
                "window_free_energy_kt",
                &[windows.len()],
                analysis.window_free_energies(),
            )
            .array(
                "log_weight",
                &[windows.len(), per_window],
                analysis.log_weights(),
            )
            .write(&out.join("umbrella.npz"))?;
        let shape = vec![BINS; d];
        NpzWriter::new()
            .array("free_energy_kt", &shape, &free)
            .array("standard_error_kt", &shape, &errors)
            .write(&out.join("surface.npz"))?;
        let svg = picture(&free, &errors, BINS, d);
        write_atomically(&out.join("surface.svg"), svg.as_bytes())?;
        let exchanges = &self.run.exchanges;
        let summary = json!({
            "made_by": made_by(),
            "settings": self.described,
            "samples_per_window": per_window,
            "delta_f_state": self.state.inequality(),
            "delta_f": free_energy::value(&difference),
            "typical_deviation_of_windows": consistency.typical_deviation(),
            "largest_deviation_of_windows":
                consistency.deviations.iter().copied().fold(0.0, f64::max),
            "fewest_effective_samples_of_a_window":
                consistency.effective_samples.iter().copied().fold(f64::INFINITY, f64::min),
            "weakest_overlap": consistency.weakest_overlap,
            "samples_of_another_configuration": self.run.changed,
            "exchange_acceptance": (exchanges.tried > 0).then(|| exchanges.acceptance()),
            "warnings": complaints,
        });
        let text = serde_json::to_string_pretty(&summary)? + "\n";
        write_atomically(&out.join("summary.json"), text.as_bytes())?;
        print(&format!(
            "{}: F({}) - F(rest){} {}\n",
            out.display(),
            self.state.inequality(),
            self.state.remark(),
            match &difference {
                Ok(estimate) => format!("= {}", free_energy::words(estimate)),
                Err(reason) => format!("could not be estimated: {reason}"),
            }
        ))?;
        Ok(analysis.log_weights().to_vec())
    }

    /// A complaint of samples that are of another molecule.
    fn changed(&self, samples: usize) -> Option<String> {
        let backbone = self.molecule.topology.backbone();
        let kinds = match backbone.centres.is_empty() {
            true => "cis or trans",
            false => "L or D, cis or trans",
        };
        (self.run.changed > 0).then(|| {
            format!(
                "{} of {samples} samples have another configuration than the start ({kinds}) and are of another molecule; use a smaller --force-constant with more --windows, or a shorter --timestep-fs",
                self.run.changed
            )
        })
    }
}

/// Writes the frames, window by window as the angles, with what each weighs in the unbiased ensemble.
fn save_frames(
    arguments: &UmbrellaArguments,
    molecule: &Molecule,
    windows: &Windows,
    frames: &[f32],
    copies: usize,
    log_weights: Vec<f64>,
    finished: bool,
) -> Result<()> {
    let size = 3 * molecule.n_atoms();
    let n = windows.len() * copies;
    let samples = frames.len() / (n * size);
    let timestep = arguments.timestep_fs * 1e-3;
    let (mut positions, mut times) = (Vec::with_capacity(frames.len()), Vec::new());
    let mut of_window = Vec::new();
    for replica in 0..n {
        for sample in 0..samples {
            let at = (sample * n + replica) * size;
            positions.extend_from_slice(&frames[at..at + size]);
            let steps = (sample as u64 + 1) * arguments.save_interval;
            times.push((steps as f64 * timestep) as f32);
            of_window.push((replica / copies) as f64);
        }
    }
    let path = arguments.out.join("frames.npz");
    let extra = [("window", of_window), ("log_weight", log_weights)];
    trajectory::write(&path, molecule, &positions, &times, &extra)?;
    card::write(
        &path,
        Card {
            made_by: made_by(),
            molecule: arguments.molecule.molecule.clone(),
            residues: molecule.topology.residue_names(),
            force_field: arguments.molecule.force_field.clone(),
            cutoff_nm: arguments.molecule.cutoff,
            temperature_k: windows.temperature,
            method: format!(
                "LangevinMiddle umbrella sampling, {} windows in {} dihedrals of {} kJ/mol/rad2, {copies} replicas each{}, {} fs, friction {}/ps, frames every {} steps; frames are of biased ensembles, exp(log_weight) weighs them in the unbiased one",
                windows.len(),
                windows.dimension,
                windows.force_constant,
                match arguments.no_exchange {
                    true => "",
                    false => ", neighbours exchange at every frame",
                },
                arguments.timestep_fs,
                arguments.friction,
                arguments.save_interval
            ),
            seed: arguments.seed,
            frames: times.len(),
            atoms: molecule.n_atoms(),
            finished,
            sha256: String::new(),
            settings: None,
        },
    )
}
