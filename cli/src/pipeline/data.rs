//! Reference dynamics by replica exchange: `data.npz`.
//!
//! Ladders are independent of one another, so they are what is split ([`super::frames`]): two fifths of them for training, a fifth
//! each for two reference sets and for the frames that the coverage is judged with. Distances between the two reference sets are the
//! floors that no sampler can be expected to beat.
//!
//! Some of the training frames come from warmer rungs. A proposal q that learns the mixture (1 − a) p + a p_warm has weights of at
//! most 1/(1 − a) where it learns it well (defensive importance sampling: Hesterberg, Technometrics 37, 185, 1995), and it learns
//! the rims of p, where frames at the target temperature are too few to learn from and a missing factor of the density is
//! a heavy weight.

use anyhow::{Result, ensure};
use boltzmap_physics::batch::BatchEvaluator;
use boltzmap_physics::langevin::LangevinSettings;
use boltzmap_physics::minimise::{MinimiseSettings, minimise};
use boltzmap_physics::replica_exchange::{ReplicaExchange, ReplicaExchangeSettings, RunEnd};
use boltzmap_statistics::basins::Basin;

use super::Stage;
use super::frames::{self, Enrichment, ResidueBasin, Share, share, spread};
use super::molecule::Molecule;
use crate::card::{self, Card};
use crate::config::Config;
use crate::npz::{NpzFile, NpzWriter};
use crate::progress::{self, Progress};
use crate::run_dir::RunDir;

/// The data set of a run.
pub struct Data {
    /// Training frames `[n, atoms, 3]`, nm; rare basins enriched as configured.
    pub train: Vec<f32>,
    /// First reference set, unbiased `[n, atoms, 3]`, nm, ladder by ladder.
    pub reference: Vec<f32>,
    /// Second reference set, from other ladders.
    pub second: Vec<f32>,
    /// Frames with which the coverage is judged, from other ladders still.
    pub coverage: Vec<f32>,
    /// The ladder of each of those.
    pub coverage_ladder: Vec<i64>,
    /// φ₁, ψ₁, φ₂, ψ₂, … of every frame of every ladder at the target temperature, rad, `[n, dimension]`.
    pub torus: Vec<f64>,
    /// The ladder of each of those frames.
    pub ladder: Vec<i64>,
    /// The basins of every residue's φ in them.
    pub basins: Vec<ResidueBasin>,
    /// How well the replicas exchanged.
    pub exchange: Exchange,
}

/// How well the replicas of the dynamics exchanged temperatures.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// Acceptance between neighbouring rungs.
    pub acceptance: Vec<f64>,
    /// Journeys of a replica from the lowest rung to the highest and back, over all ladders.
    pub round_trips: u64,
}

impl Data {
    /// Reads the data set of a run.
    pub fn read(run: &RunDir, molecule: &Molecule) -> Result<Data> {
        let path = run.data();
        ensure!(
            path.exists(),
            "{} does not exist; make it with 'boltzmap md {}'",
            path.display(),
            run.root().display()
        );
        let file = NpzFile::open(&path)?;
        let frames = |name: &str| -> Result<Vec<f32>> {
            let frames = file.finite(name, &[None, Some(molecule.n_atoms()), Some(3)])?;
            ensure!(
                !frames.values.is_empty(),
                "{} holds no frames in '{name}'; make it again with 'boltzmap md'",
                path.display()
            );
            Ok(frames.values)
        };
        let (train, reference) = (frames("train")?, frames("reference")?);
        let second = frames("reference_second")?;
        ensure!(
            file.contains("coverage"),
            "{} was made by an older version, which kept no frames for the coverage; make it again with 'boltzmap md {}'",
            path.display(),
            run.root().display()
        );
        let coverage = frames("coverage")?;
        let of_coverage = coverage.len() / (3 * molecule.n_atoms());
        let dimension = molecule.torus_dimension;
        let torus = file.finite::<f64>("torus", &[None, Some(dimension)])?;
        let n = torus.shape[0];
        let basins = file.finite::<f64>("basins", &[None, Some(3)])?.values;
        let basins: Vec<ResidueBasin> = basins
            .chunks_exact(3)
            .map(|row| ResidueBasin {
                residue: row[0] as usize,
                basin: Basin {
                    low: row[1],
                    high: row[2],
                },
            })
            .collect();
        ensure!(
            basins.iter().all(|basin| 2 * basin.residue < dimension),
            "{} names a residue in 'basins' that the molecule does not have; make it again with 'boltzmap md'",
            path.display()
        );
        let data = Data {
            train,
            reference,
            second,
            coverage,
            coverage_ladder: file.array("coverage_ladder", &[Some(of_coverage)])?.values,
            torus: torus.values,
            ladder: file.array("ladder", &[Some(n)])?.values,
            basins,
            exchange: Exchange {
                acceptance: file.finite("exchange_acceptance", &[None])?.values,
                round_trips: file.array::<i64>("round_trips", &[Some(1)])?.values[0] as u64,
            },
        };
        card::verify(&path)?;
        Ok(data)
    }
}

/// Rungs whose frames are trained on, from the lowest, with the share of each. The warm fraction is divided among those above the lowest
/// up to `warm_t_max` (K), each with half of the share of the one below.
fn shares(warm_fraction: f64, warm_t_max: f64, temperatures: &[f64]) -> Vec<f64> {
    let warm = temperatures[1..]
        .iter()
        .take_while(|t| **t <= warm_t_max)
        .count();
    if warm == 0 || warm_fraction == 0.0 {
        return vec![1.0];
    }
    let halves = |k: usize| 0.5f64.powi(k as i32);
    let total: f64 = (0..warm).map(halves).sum();
    let warm_shares = (0..warm).map(|k| warm_fraction * halves(k) / total);
    std::iter::once(1.0 - warm_fraction)
        .chain(warm_shares)
        .collect()
}

/// Runs the dynamics and writes the data set.
pub fn generate(run: &RunDir, config: &Config) -> Result<()> {
    let molecule = Molecule::new(config)?;
    let sampled = simulate(config, &molecule)?;
    let (size, dimension) = (3 * molecule.n_atoms(), molecule.torus_dimension);
    let n_frames = sampled.ladder.len();
    let in_target =
        |positions: &[f32], i: usize| molecule.in_target(&positions[i * size..(i + 1) * size]);
    let kept: Vec<usize> = (0..n_frames)
        .filter(|&i| in_target(&sampled.positions, i))
        .collect();
    let of_set = |which: Share| -> Vec<usize> {
        let serves = |&&i: &&usize| share(sampled.ladder[i]) == which;
        kept.iter().filter(serves).copied().collect()
    };
    let gather = |positions: &[f32], indices: &[usize]| -> Vec<f32> {
        indices
            .iter()
            .flat_map(|&i| &positions[i * size..(i + 1) * size])
            .copied()
            .collect()
    };
    let all_rows = molecule.torus(&sampled.positions);
    let row = |i: usize| &all_rows[i * dimension..(i + 1) * dimension];
    let torus: Vec<f64> = kept.iter().flat_map(|&i| row(i)).copied().collect();
    let ladder: Vec<i64> = kept.iter().map(|&i| sampled.ladder[i] as i64).collect();
    let basins = ResidueBasin::find(&torus, dimension);

    let train = training_frames(config, &molecule, &sampled, &basins)?;
    let sets = [Share::Reference, Share::Second, Share::Coverage].map(of_set);
    let data = &config.data;
    let n_reference = sets
        .iter()
        .map(Vec::len)
        .fold(data.reference_frames, usize::min);
    ensure!(
        !train.is_empty() && n_reference > 0,
        "data.ladders is {}; at least {} are needed, for training, two independent reference sets and the coverage",
        data.ladders,
        frames::FEWEST_LADDERS
    );
    let sets = sets.map(|set| spread(&set, n_reference));
    let coverage_ladder: Vec<i64> = sets[2].iter().map(|&i| sampled.ladder[i] as i64).collect();
    let [reference, second, coverage] = sets.map(|set| gather(&sampled.positions, &set));
    let unchanged = molecule
        .fraction_chirality_kept(&sampled.positions)
        .min(molecule.fraction_chirality_kept(&train));
    // Without chiral centres it is NaN, and nothing can be wrong with them.
    ensure!(
        unchanged == 1.0 || unchanged.is_nan(),
        "{:.2} % of the dynamics' frames changed the chirality of a residue; the integrator broke the molecule, lower data.t_max or data.timestep_fs",
        100.0 * (1.0 - unchanged)
    );
    let frames = |values: &[f32]| [values.len() / size, molecule.n_atoms(), 3];
    let n_train = frames(&train)[0];
    progress::note(&format!(
        "data: {n_train} training frames, three times {n_reference} of reference{}; {}",
        match n_frames - kept.len() {
            0 => String::new(),
            left_out => format!(", {left_out} of {n_frames} left out for a cis peptide bond"),
        },
        sampled.statistics
    ));
    for (found, asked, setting) in [
        (n_train, data.train_frames, "data.train_frames"),
        (n_reference, data.reference_frames, "data.reference_frames"),
    ] {
        // Rounding of shares may cost a frame or two.
        if found + 4 < asked {
            progress::note(&format!(
                "data: {setting} asks for {asked}, but the dynamics gave {found}; raise data.production_ps or data.ladders, or lower data.save_interval"
            ));
        }
    }
    let flat_basins: Vec<f64> = basins
        .iter()
        .flat_map(|b| [b.residue as f64, b.basin.low, b.basin.high])
        .collect();
    NpzWriter::new()
        .array("train", &frames(&train), &train)
        .array("reference", &frames(&reference), &reference)
        .array("reference_second", &frames(&second), &second)
        .array("coverage", &frames(&coverage), &coverage)
        .array("coverage_ladder", &[n_reference], &coverage_ladder)
        .array("torus", &[ladder.len(), dimension], &torus)
        .array("ladder", &[ladder.len()], &ladder)
        .array("basins", &[basins.len(), 3], &flat_basins)
        .array(
            "exchange_acceptance",
            &[sampled.exchange.acceptance.len()],
            &sampled.exchange.acceptance,
        )
        .array("round_trips", &[1], &[sampled.exchange.round_trips as i64])
        .write(&run.data())?;
    write_card(run, config, &molecule, &sampled, n_train, n_reference)
}

/// Training frames of every rung, from ladders of their own.
fn training_frames(
    config: &Config,
    molecule: &Molecule,
    sampled: &Sampled,
    basins: &[ResidueBasin],
) -> Result<Vec<f32>> {
    let (size, dimension) = (3 * molecule.n_atoms(), molecule.torus_dimension);
    let data = &config.data;
    let warm = sampled
        .warm_positions
        .chunks(sampled.positions.len().max(1));
    let rungs = std::iter::once(&sampled.positions[..]).chain(warm);
    let mut train = Vec::new();
    for (positions, rung_share) in rungs.zip(&sampled.shares) {
        let frame = |i: usize| &positions[i * size..(i + 1) * size];
        let serves = |i: &usize| share(sampled.ladder[*i]) == Share::Train;
        let candidates: Vec<usize> = (0..sampled.ladder.len())
            .filter(|i| serves(i) && molecule.in_target(frame(*i)))
            .collect();
        let torus = molecule.torus(positions);
        let rows: Vec<f64> = candidates
            .iter()
            .flat_map(|&i| &torus[i * dimension..(i + 1) * dimension])
            .copied()
            .collect();
        let enrichment = Enrichment::new(&rows, dimension, basins, data.rare_basin_fraction);
        let count = (data.train_frames as f64 * rung_share).round() as usize;
        let chosen = enrichment.draw(&candidates, &torus, dimension, count, config.seed);
        train.extend(chosen.iter().flat_map(|&i| frame(i)));
    }
    Ok(train)
}

/// Writes down how the frames were made.
fn write_card(
    run: &RunDir,
    config: &Config,
    molecule: &Molecule,
    sampled: &Sampled,
    n_train: usize,
    n_reference: usize,
) -> Result<()> {
    let (data, settings) = (&config.data, &sampled.settings);
    let method = format!(
        "LangevinMiddle temperature replica exchange, {} ladders of {} temperatures up to {} K, {} fs, friction {}/ps, exchanges every {} and frames every {} steps, {} steps after {}; {n_train} training frames, rare basins of phi raised to a share of {} of them and shares of {:?} from the rungs upwards, and three times {n_reference} reference frames, from ladders of their own",
        settings.n_ladders,
        settings.n_temperatures,
        settings.highest_temperature,
        data.timestep_fs,
        data.friction,
        settings.exchange_interval,
        settings.save_interval,
        settings.steps,
        settings.equilibration_steps,
        data.rare_basin_fraction,
        sampled.shares,
    );
    card::write(
        &run.data(),
        Card {
            made_by: card::made_by(),
            molecule: config.system.sequence.clone(),
            residues: molecule.topology.residue_names(),
            force_field: config.system.force_field.clone(),
            cutoff_nm: molecule.system.cutoff,
            temperature_k: settings.lowest_temperature,
            method,
            seed: settings.seed,
            frames: n_train + 3 * n_reference,
            atoms: molecule.n_atoms(),
            finished: true,
            sha256: String::new(),
            settings: Some(Stage::Data.settings(config)),
        },
    )
}

/// Frames at the target temperature and above.
struct Sampled {
    positions: Vec<f32>,
    /// Frames of the rungs above, `[rung]` as `positions`.
    warm_positions: Vec<f32>,
    /// Of the training frames, the share of each rung.
    shares: Vec<f64>,
    ladder: Vec<usize>,
    exchange: Exchange,
    statistics: String,
    settings: ReplicaExchangeSettings,
}

/// Replica exchange from the minimised built structure.
fn simulate(config: &Config, molecule: &Molecule) -> Result<Sampled> {
    let data = &config.data;
    let timestep = data.timestep_fs * 1e-3;
    let steps = |picoseconds: f64, multiple: usize| {
        let multiple = multiple as u64;
        ((picoseconds / timestep) as u64).div_ceil(multiple) * multiple
    };
    let save_interval =
        data.save_interval.div_ceil(data.exchange_interval) * data.exchange_interval;
    let mut settings = ReplicaExchangeSettings {
        n_ladders: data.ladders,
        n_temperatures: data.temperatures,
        lowest_temperature: config.system.temperature,
        highest_temperature: data.t_max,
        langevin: LangevinSettings {
            timestep,
            friction: data.friction,
        },
        exchange_interval: data.exchange_interval as u64,
        equilibration_steps: steps(data.equilibration_ps, data.exchange_interval),
        steps: steps(data.production_ps, save_interval),
        save_interval: save_interval as u64,
        recorded_temperatures: 1,
        seed: config.seed,
    };
    let shares = shares(
        data.warm_fraction,
        data.warm_t_max,
        &settings.temperatures(),
    );
    settings.recorded_temperatures = shares.len();
    let exchange = ReplicaExchange::new(&molecule.system, settings)?;
    let mut start = molecule.positions.clone();
    let evaluator = BatchEvaluator::<f64>::new(&molecule.system);
    minimise(&evaluator, &mut start, MinimiseSettings::default())?;
    let start: Vec<f32> = start.iter().map(|&x| x as f32).collect();
    let mut state = exchange.start(&start.repeat(data.ladders * data.temperatures))?;

    const UNITS: u64 = 10_000;
    let mut bar = Progress::new("data", UNITS, 0);
    let end = exchange.run(
        &mut state,
        |fraction| bar.set((fraction * UNITS as f64) as u64, String::new),
        progress::interrupt_flag(),
    )?;
    if let RunEnd::Cancelled = end {
        return Err(progress::Interrupted.into());
    }
    bar.finish("");
    let acceptance: Vec<f64> = state.exchanges.iter().map(|c| c.acceptance()).collect();
    let lowest = acceptance.iter().copied().fold(1.0, f64::min);
    let statistics = format!(
        "{} round trips through the temperatures, lowest exchange acceptance {:.2}",
        state.round_trips, lowest
    );
    let trajectory = exchange.trajectory(&state);
    Ok(Sampled {
        ladder: trajectory.ladders.iter().map(|&l| l as usize).collect(),
        positions: trajectory.positions,
        warm_positions: trajectory.warm_positions,
        shares,
        exchange: Exchange {
            acceptance,
            round_trips: state.round_trips,
        },
        statistics,
        settings: exchange.settings().clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_frames_are_shared_out_by_halves() {
        let temperatures = [300.0, 378.0, 476.0, 600.0];
        let found = shares(0.3, 500.0, &temperatures);
        assert_eq!(found.len(), 3);
        for (found, expected) in found.iter().zip([0.7, 0.2, 0.1]) {
            assert!((found - expected).abs() < 1e-15, "{found}");
        }
        assert_eq!(shares(0.3, 320.0, &temperatures), [1.0]);
        assert_eq!(shares(0.0, 500.0, &temperatures), [1.0]);
        assert_eq!(shares(0.3, 500.0, &temperatures[..1]), [1.0]);
    }
}
