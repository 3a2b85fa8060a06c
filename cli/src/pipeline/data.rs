//! Reference dynamics by replica exchange: `data.npz`.
//!
//! Ladders are independent of one another, so they are what is split: half of them for training, a quarter each for
//! two reference sets. Distances between the two sets are the floors that no sampler can be expected to beat.
//!
//! Some of the training frames come from warmer rungs. A proposal q that learns the mixture (1 − a) p + a p_warm has weights of at
//! most 1/(1 − a) where it learns it well (defensive importance sampling: Hesterberg, Technometrics 37, 185, 1995), and it learns
//! the rims of p, where frames at the target temperature are too few to learn from and a missing factor of the density is
//! a heavy weight.

use anyhow::{Result, ensure};
use boltzmap_kernels::random::Stream;
use boltzmap_physics::batch::BatchEvaluator;
use boltzmap_physics::langevin::LangevinSettings;
use boltzmap_physics::metrics::free_energy::is_positive_state;
use boltzmap_physics::minimise::{MinimiseSettings, minimise};
use boltzmap_physics::replica_exchange::{ReplicaExchange, ReplicaExchangeSettings, RunEnd};

use super::Stage;
use super::molecule::Molecule;
use crate::card::{self, Card};
use crate::config::Config;
use crate::npz::{NpzFile, NpzWriter};
use crate::progress::{self, Progress};
use crate::run_dir::RunDir;

/// Stream domain of the choice of frames.
const DOMAIN_FRAMES: u64 = 0x6672_616d_6573;

/// The data set of a run.
pub struct Data {
    /// Training frames `[n, atoms, 3]`, nm; φ re-weighted as configured.
    pub train: Vec<f32>,
    /// First reference set, unbiased `[n, atoms, 3]`, nm.
    pub reference: Vec<f32>,
    /// Second reference set, from other ladders.
    pub second: Vec<f32>,
    /// φ of every frame of every ladder at the target temperature, rad.
    pub phi: Vec<f32>,
    /// The ladder of each of those frames.
    pub ladder: Vec<i64>,
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
        let phi = file.finite("phi", &[None])?;
        let data = Data {
            train: frames("train")?,
            reference: frames("reference")?,
            second: frames("reference_second")?,
            ladder: file.array("ladder", &[Some(phi.shape[0])])?.values,
            phi: phi.values,
        };
        card::verify(&path)?;
        Ok(data)
    }
}

/// Which of the three sets a ladder serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Train,
    Reference,
    Second,
}

/// Of every four ladders two serve training and one each reference set.
fn share(ladder: usize) -> Share {
    match ladder % 4 {
        0 | 2 => Share::Train,
        1 => Share::Reference,
        _ => Share::Second,
    }
}

/// Chooses `count` of `candidates` evenly over their order, without repetition where there are enough.
fn spread(candidates: &[usize], count: usize) -> Vec<usize> {
    let n = candidates.len();
    (0..count.min(n))
        .map(|k| candidates[k * n / count.min(n)])
        .collect()
}

/// Training frames with a given fraction at positive φ. The rarer side is drawn with repetition if it is too small.
fn balance(
    candidates: &[usize],
    phi: &[f64],
    count: usize,
    positive: f64,
    seed: u64,
) -> Vec<usize> {
    let (inside, outside): (Vec<usize>, Vec<usize>) = candidates
        .iter()
        .partition(|&&index| is_positive_state(phi[index]));
    if positive <= 0.0 || inside.is_empty() || outside.is_empty() {
        return spread(candidates, count);
    }
    let mut stream = Stream::new(seed, DOMAIN_FRAMES, 0);
    let mut draw = |from: &[usize], wanted: usize| -> Vec<usize> {
        let mut chosen = Vec::with_capacity(wanted);
        // Whole copies first, so that no frame weighs more than one above another.
        while wanted - chosen.len() >= from.len() {
            chosen.extend_from_slice(from);
        }
        let rest = wanted - chosen.len();
        let mut pool = from.to_vec();
        for k in 0..rest {
            let other = k + (stream.uniform() * (pool.len() - k) as f64) as usize;
            let last = pool.len() - 1;
            pool.swap(k, other.min(last));
        }
        chosen.extend_from_slice(&pool[..rest]);
        chosen
    };
    // If the common side cannot fill its share without repetition, the whole set shrinks instead.
    let common = ((count as f64 * (1.0 - positive)) as usize).min(outside.len());
    let rare = (common as f64 * positive / (1.0 - positive)).round() as usize;
    let mut chosen = draw(&outside, common);
    chosen.extend(draw(&inside, rare.max(1)));
    chosen
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
    let size = 3 * molecule.n_atoms();
    let n_frames = sampled.ladder.len();
    let in_target =
        |positions: &[f32], i: usize| molecule.in_target(&positions[i * size..(i + 1) * size]);
    let candidates = |positions: &[f32], which: Share| -> Vec<usize> {
        (0..n_frames)
            .filter(|&i| share(sampled.ladder[i]) == which && in_target(positions, i))
            .collect()
    };
    let gather = |positions: &[f32], indices: &[usize]| -> Vec<f32> {
        indices
            .iter()
            .flat_map(|&i| &positions[i * size..(i + 1) * size])
            .copied()
            .collect()
    };
    let data = &config.data;
    let mut train = Vec::new();
    let warm = sampled
        .warm_positions
        .chunks(sampled.positions.len().max(1));
    let rungs = std::iter::once(&sampled.positions[..]).chain(warm);
    for (positions, rung_share) in rungs.zip(&sampled.shares) {
        let (phi, _) = molecule.first_phi_psi(positions);
        let chosen = balance(
            &candidates(positions, Share::Train),
            &phi,
            (data.train_frames as f64 * rung_share).round() as usize,
            data.positive_phi_fraction,
            config.seed,
        );
        train.extend(gather(positions, &chosen));
    }
    let reference = candidates(&sampled.positions, Share::Reference);
    let second = candidates(&sampled.positions, Share::Second);
    ensure!(
        !train.is_empty() && !reference.is_empty() && !second.is_empty(),
        "data.ladders is {}; at least 4 are needed, for training and two independent reference sets",
        data.ladders
    );
    let kept: Vec<usize> = (0..n_frames)
        .filter(|&i| in_target(&sampled.positions, i))
        .collect();
    let (phi, psi) = molecule.first_phi_psi(&sampled.positions);
    let of_kept = |values: &[f64]| kept.iter().map(|&i| values[i]).collect::<Vec<f64>>();
    let (phi, psi) = (of_kept(&phi), of_kept(&psi));
    let n_reference = data.reference_frames.min(reference.len()).min(second.len());
    let (reference, second) = (
        gather(&sampled.positions, &spread(&reference, n_reference)),
        gather(&sampled.positions, &spread(&second, n_reference)),
    );
    let left = molecule
        .fraction_l(&sampled.positions)
        .min(molecule.fraction_l(&train));
    ensure!(
        left == 1.0,
        "{:.2} % of the dynamics' frames changed the chirality of a residue; the integrator broke the molecule, lower data.t_max or data.timestep_fs",
        100.0 * (1.0 - left)
    );
    let frames = |values: &[f32]| [values.len() / size, molecule.n_atoms(), 3];
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let ladder: Vec<i64> = kept.iter().map(|&i| sampled.ladder[i] as i64).collect();
    progress::note(&format!(
        "data: {} training frames, twice {} reference frames{}; {}",
        frames(&train)[0],
        n_reference,
        match n_frames - kept.len() {
            0 => String::new(),
            left_out => format!(", {left_out} of {n_frames} left out for a cis peptide bond"),
        },
        sampled.statistics
    ));
    NpzWriter::new()
        .array("train", &frames(&train), &train)
        .array("reference", &frames(&reference), &reference)
        .array("reference_second", &frames(&second), &second)
        .array("phi", &[phi.len()], &narrow(&phi))
        .array("psi", &[psi.len()], &narrow(&psi))
        .array("ladder", &[ladder.len()], &ladder)
        .write(&run.data())?;
    let settings = &sampled.settings;
    card::write(
        &run.data(),
        Card {
            made_by: card::made_by(),
            molecule: config.system.sequence.clone(),
            residues: molecule.topology.residue_names(),
            force_field: config.system.force_field.clone(),
            cutoff_nm: molecule.system.cutoff,
            temperature_k: settings.lowest_temperature,
            method: format!(
                "LangevinMiddle temperature replica exchange, {} ladders of {} temperatures up to {} K, {} fs, friction {}/ps, exchanges every {} and frames every {} steps, {} steps after {}; {} training frames, a share of {} of them at 0 < phi < 2 rad and shares of {:?} from the rungs upwards, and twice {n_reference} reference frames, from ladders of their own",
                settings.n_ladders,
                settings.n_temperatures,
                settings.highest_temperature,
                data.timestep_fs,
                data.friction,
                settings.exchange_interval,
                settings.save_interval,
                settings.steps,
                settings.equilibration_steps,
                frames(&train)[0],
                data.positive_phi_fraction,
                sampled.shares,
            ),
            seed: settings.seed,
            frames: frames(&train)[0] + 2 * n_reference,
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
    let lowest = state
        .exchanges
        .iter()
        .map(|count| count.acceptance())
        .fold(1.0, f64::min);
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
