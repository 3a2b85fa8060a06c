//! Minimiser, Langevin dynamics and replica exchange against exact results and against themselves.

use boltzmap_physics::langevin::{DynamicsError, Langevin, LangevinSettings, with_hydrogen_mass};
use boltzmap_physics::minimise::{MinimiseSettings, minimise};
use boltzmap_physics::replica_exchange::{
    ReplicaExchange, ReplicaExchangeError, ReplicaExchangeSettings, RunEnd,
};
use boltzmap_physics::system::{Bond, GAS_CONSTANT};
use boltzmap_physics::{BatchEvaluator, ForceField, System, build_sequence};
use std::sync::atomic::{AtomicBool, Ordering};

fn alanine_dipeptide() -> (System, Vec<f32>) {
    let (topology, positions) = build_sequence("Ace-A-Nme").unwrap();
    let system = ForceField::amber99sbildn_obc2().system(&topology).unwrap();
    (system, positions.iter().map(|&x| x as f32).collect())
}

const SPRING: f64 = 1000.0;

/// Two atoms of 1 and 2 Da on a spring of length zero: three exactly harmonic coordinates, ⟨E⟩ = 3/2 RT.
fn harmonic() -> System {
    System {
        masses: vec![1.0, 2.0],
        charges: vec![0.0; 2],
        sigma: vec![0.0; 2],
        epsilon: vec![0.0; 2],
        bonds: vec![Bond {
            atoms: [0, 1],
            length: 0.0,
            force_constant: SPRING,
        }],
        angles: vec![],
        torsions: vec![],
        excluded: vec![[0, 1]],
        pairs14: vec![],
        generalized_born: None,
        cutoff: None,
    }
}

#[test]
fn the_minimiser_converges_from_distorted_starts_and_lanes_do_not_disturb_each_other() {
    let (system, built) = alanine_dipeptide();
    let built: Vec<f64> = built.iter().map(|&x| f64::from(x)).collect();
    let mut stream = boltzmap_kernels::random::Stream::new(9, 9, 9);
    let mut positions: Vec<f64> = (0..11)
        .flat_map(|i| {
            built
                .iter()
                .map(|x| x + 0.003 * f64::from(i) * stream.standard_normal())
                .collect::<Vec<_>>()
        })
        .collect();
    let start = positions.clone();
    let evaluator = BatchEvaluator::<f64>::new(&system);
    let settings = MinimiseSettings {
        force_tolerance: 1.0,
        ..MinimiseSettings::default()
    };
    let before = evaluator.energies(&positions).unwrap();
    let results = minimise(&evaluator, &mut positions, settings).unwrap();
    for (result, before) in results.iter().zip(before) {
        assert!(result.converged, "{result:?}");
        assert!(
            result.energy < before && result.energy < -90.0,
            "{result:?} from {before}"
        );
    }
    let mut alone = start[3 * 66..4 * 66].to_vec();
    minimise(&evaluator, &mut alone, settings).unwrap();
    assert_eq!(alone, positions[3 * 66..4 * 66]);
}

#[test]
fn a_harmonic_oscillator_has_the_exact_variance_at_every_temperature_even_with_a_long_step() {
    let system = harmonic();
    // ω = √(k/μ) = 38.7/ps: ωΔt = 0.97, where the exactness of the middle scheme for harmonic forces matters.
    let settings = LangevinSettings {
        timestep: 0.025,
        friction: 40.0,
    };
    let langevin = Langevin::new(&system, settings).unwrap();
    let temperatures: Vec<f64> = (0..48).map(|r| 200.0 + 50.0 * f64::from(r % 3)).collect();
    let mut replicas = langevin
        .start(&vec![0.0; 48 * 6], &temperatures, 5)
        .unwrap();
    langevin.run(&mut replicas, 100).unwrap();
    let mut sums = [0.0; 3];
    let samples = 1500;
    for _ in 0..samples {
        langevin.run(&mut replicas, 8).unwrap();
        for (r, x) in replicas.positions.chunks(6).enumerate() {
            for axis in 0..3 {
                let d = f64::from(x[axis]) - f64::from(x[3 + axis]);
                sums[r % 3] += SPRING * d * d / (GAS_CONSTANT * temperatures[r]);
            }
        }
    }
    for sum in sums {
        // 72 000 samples per temperature, nearly independent: standard error √(2/72000) = 0.5 %.
        let ratio = sum / f64::from(samples * 16 * 3);
        assert!(
            (ratio - 1.0).abs() < 0.02,
            "variance is {ratio} of the exact one"
        );
    }
}

#[test]
fn kinetic_energy_is_equally_partitioned() {
    let (system, built) = alanine_dipeptide();
    let langevin = Langevin::new(
        &system,
        LangevinSettings {
            timestep: 0.0005,
            friction: 20.0,
        },
    )
    .unwrap();
    let mut replicas = langevin.start(&built.repeat(32), &[300.0; 32], 3).unwrap();
    let (mut light, mut heavy) = ((0.0, 0u32), (0.0, 0u32));
    for snapshot in 0..40 {
        langevin.run(&mut replicas, 100).unwrap();
        if snapshot < 4 {
            continue;
        }
        for v in replicas.velocities.chunks(66) {
            for (k, &v) in v.iter().enumerate() {
                let mass = system.masses[k / 3];
                let sum = if mass < 2.0 { &mut light } else { &mut heavy };
                sum.0 += mass * f64::from(v).powi(2) / GAS_CONSTANT;
                sum.1 += 1;
            }
        }
    }
    for (sum, count) in [light, heavy] {
        let temperature = sum / f64::from(count);
        assert!(
            (temperature - 300.0).abs() < 9.0,
            "kinetic temperature {temperature} K"
        );
    }
}

#[test]
fn dynamics_is_the_same_however_it_is_split_grouped_and_threaded() {
    let (system, built) = alanine_dipeptide();
    let langevin = Langevin::new(&system, LangevinSettings::default()).unwrap();
    let temperatures: Vec<f64> = (0..20).map(|r| 300.0 + 10.0 * f64::from(r)).collect();
    let start = langevin.start(&built.repeat(20), &temperatures, 1).unwrap();
    let mut whole = start.clone();
    langevin.run(&mut whole, 1100).unwrap();

    let mut split = start.clone();
    for steps in [1, 6, 992, 101] {
        langevin.run(&mut split, steps).unwrap();
        split = split.clone();
    }
    assert_eq!(split, whole);

    let mut few = langevin
        .start(&built.repeat(3), &temperatures[..3], 1)
        .unwrap();
    langevin.run(&mut few, 1100).unwrap();
    assert_eq!(few.positions, whole.positions[..3 * 66]);
    assert_eq!(few.velocities, whole.velocities[..3 * 66]);
    assert_eq!(few.potential_energies, whole.potential_energies[..3]);

    let mut threaded = start;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    pool.install(|| langevin.run(&mut threaded, 1100)).unwrap();
    assert_eq!(threaded, whole);
    assert_ne!(whole.positions[..66], whole.positions[66..132]);
}

#[test]
fn an_unstable_step_names_replica_step_and_atom() {
    let (system, built) = alanine_dipeptide();
    let langevin = Langevin::new(
        &system,
        LangevinSettings {
            timestep: 0.02,
            friction: 1.0,
        },
    )
    .unwrap();
    let mut replicas = langevin.start(&built.repeat(18), &[300.0; 18], 1).unwrap();
    let error = langevin.run(&mut replicas, 1000).unwrap_err();
    let DynamicsError::Diverged {
        replica,
        step,
        atom,
    } = error
    else {
        panic!("{error}")
    };
    assert!(
        replica < 18 && (1..=1000).contains(&step) && atom < 22,
        "{error}"
    );

    let refused = Langevin::new(
        &system,
        LangevinSettings {
            timestep: 0.0,
            friction: 1.0,
        },
    );
    assert!(matches!(refused.err(), Some(DynamicsError::Setting { .. })));
    let langevin = Langevin::new(&system, LangevinSettings::default()).unwrap();
    let error = langevin.start(&built.repeat(2), &[300.0], 1).unwrap_err();
    assert_eq!(
        error,
        DynamicsError::Temperatures {
            temperatures: 1,
            replicas: 2
        }
    );
}

fn toy_exchange(seed: u64, steps: u64) -> ReplicaExchangeSettings {
    ReplicaExchangeSettings {
        n_ladders: 6,
        n_temperatures: 4,
        lowest_temperature: 300.0,
        highest_temperature: 1500.0,
        langevin: LangevinSettings {
            timestep: 0.02,
            friction: 20.0,
        },
        exchange_interval: 5,
        equilibration_steps: 100,
        steps,
        save_interval: 10,
        recorded_temperatures: 3,
        seed,
    }
}

#[test]
fn exchange_leaves_every_temperature_its_boltzmann_distribution() {
    let exchange = ReplicaExchange::new(&harmonic(), toy_exchange(3, 20_000)).unwrap();
    let mut state = exchange.start(&[0.0; 6 * 4 * 6]).unwrap();
    let mut last = 0.0;
    let never = AtomicBool::new(false);
    let progress = |fraction: f64| {
        assert!(fraction > last);
        last = fraction;
    };
    assert_eq!(
        exchange.run(&mut state, progress, &never).unwrap(),
        RunEnd::Finished
    );
    assert_eq!(last, 1.0);
    let trajectory = exchange.trajectory(&state);
    let saves = 2000;
    for (level, energies) in trajectory.level_energies.chunks(6 * saves).enumerate() {
        let rt = GAS_CONSTANT * exchange.temperatures()[level];
        let n = energies.len() as f64;
        let mean = energies.iter().sum::<f64>() / n / rt;
        let variance = energies.iter().map(|e| (e / rt - 1.5).powi(2)).sum::<f64>() / n;
        // A gamma distribution of shape 3/2: mean 3/2, variance 3/2. 12 000 samples a few steps apart.
        assert!(
            (mean - 1.5).abs() < 0.06,
            "level {level}: mean energy {mean} RT"
        );
        assert!(
            (variance - 1.5).abs() < 0.2,
            "level {level}: variance {variance} (RT)²"
        );
    }

    for count in &state.exchanges {
        assert!(
            (count.acceptance() - TOY_ACCEPTANCE).abs() < 0.03,
            "{count:?}"
        );
    }
    assert!(state.round_trips > 100);
    assert_eq!(trajectory.positions.len(), 6 * saves * 6);
    assert_eq!(trajectory.times[..2], [0.2, 0.4]);
    assert_eq!((trajectory.ladders[0], trajectory.ladders[saves]), (0, 1));
    // The recorded energies belong to the recorded frames.
    let evaluator = BatchEvaluator::<f32>::new(&harmonic());
    assert_eq!(
        evaluator.energies(&trajectory.positions).unwrap(),
        trajectory.potential_energies
    );
    let warm = evaluator.energies(&trajectory.warm_positions).unwrap();
    assert_eq!(warm, trajectory.level_energies[6 * saves..3 * 6 * saves]);
}

/// E[min(1, exp((β_a−β_b)(E_a−E_b)))] for E ~ Gamma(3/2, RT) at neighbouring temperatures.
const TOY_ACCEPTANCE: f64 = 0.670;

#[test]
fn a_cancelled_run_continues_bit_by_bit_and_threads_do_not_matter() {
    let exchange = ReplicaExchange::new(&harmonic(), toy_exchange(8, 400)).unwrap();
    let never = AtomicBool::new(false);
    let start = exchange.start(&[0.01; 6 * 4 * 6]).unwrap();
    let mut whole = start.clone();
    exchange.run(&mut whole, |_| (), &never).unwrap();

    let mut cancelled = start.clone();
    let cancel = AtomicBool::new(false);
    let stop_half_way = |fraction: f64| cancel.store(fraction > 0.5, Ordering::Relaxed);
    assert_eq!(
        exchange
            .run(&mut cancelled, stop_half_way, &cancel)
            .unwrap(),
        RunEnd::Cancelled
    );
    assert!(cancelled.replicas.step < 300);
    exchange.run(&mut cancelled, |_| (), &never).unwrap();
    assert_eq!(cancelled, whole);

    let mut threaded = start;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    pool.install(|| exchange.run(&mut threaded, |_| (), &never))
        .unwrap();
    assert_eq!(threaded, whole);
}

#[test]
fn unusable_exchange_settings_are_refused() {
    for change in [
        (|s| s.n_ladders = 0) as fn(&mut ReplicaExchangeSettings),
        |s| s.n_temperatures = 0,
        |s| s.highest_temperature = 200.0,
        |s| s.exchange_interval = 0,
        |s| s.save_interval = 7,
        |s| s.steps = 401,
        |s| s.equilibration_steps = 3,
        |s| s.lowest_temperature = f64::NAN,
    ] {
        let mut settings = toy_exchange(1, 400);
        change(&mut settings);
        let refused = ReplicaExchange::new(&harmonic(), settings.clone());
        assert!(
            matches!(refused.err(), Some(ReplicaExchangeError::Setting { .. })),
            "{settings:?}"
        );
    }
    let exchange = ReplicaExchange::new(&harmonic(), toy_exchange(1, 400)).unwrap();
    let error = exchange.start(&[0.0; 18]).unwrap_err();
    assert_eq!(
        error,
        ReplicaExchangeError::Starts {
            conformations: 3,
            ladders: 6,
            levels: 4
        }
    );
}

#[test]
fn the_default_ladder_is_valid_and_heavier_hydrogens_stay_the_same_molecule() {
    let (system, built) = alanine_dipeptide();
    let heavier = with_hydrogen_mass(&system, 3.0);
    assert_eq!(heavier.masses.iter().filter(|m| **m == 3.0).count(), 12);
    let energy = |system| BatchEvaluator::<f32>::new(system).energies(&built).unwrap();
    assert_eq!(energy(&heavier), energy(&system));
    let settings = ReplicaExchangeSettings {
        equilibration_steps: 100,
        steps: 200,
        ..ReplicaExchangeSettings::default()
    };
    let exchange = ReplicaExchange::new(&heavier, settings).unwrap();
    let mut state = exchange.start(&built.repeat(63)).unwrap();
    exchange
        .run(&mut state, |_| (), &AtomicBool::new(false))
        .unwrap();
    assert_eq!(exchange.trajectory(&state).times, [0.2; 9]);
}
