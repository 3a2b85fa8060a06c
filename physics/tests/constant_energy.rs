//! Dynamics at constant energy: without friction the integrator is velocity Verlet, whose energy swings with the square of the step and does
//! not drift.

use boltzmap_physics::langevin::{Langevin, LangevinSettings, Replicas};
use boltzmap_physics::{BatchEvaluator, ForceField, System, build_sequence};

const REPLICAS: usize = 16;

/// Alanine dipeptide with its potential in double precision.
struct Molecule {
    system: System,
    evaluator: BatchEvaluator<f64>,
}

impl Molecule {
    fn integrator(&self, timestep: f64, friction: f64) -> Langevin {
        Langevin::new(&self.system, LangevinSettings { timestep, friction }).unwrap()
    }

    /// Potential energies and accelerations of all replicas.
    fn accelerations(&self, replicas: &Replicas) -> (Vec<f64>, Vec<f64>) {
        let positions: Vec<f64> = replicas.positions.iter().map(|&x| x.into()).collect();
        let mut energies = vec![0.0; replicas.len()];
        let mut forces = vec![0.0; positions.len()];
        self.evaluator
            .energies_forces(&positions, &mut energies, Some(&mut forces))
            .unwrap();
        let masses = self.system.masses.iter().cycle();
        for (force, mass) in forces.chunks_mut(3).zip(masses) {
            force.iter_mut().for_each(|f| *f /= mass);
        }
        (energies, forces)
    }

    /// The replicas with velocities half a step earlier, as the integrator keeps them.
    fn half_a_step_back(&self, mut replicas: Replicas, timestep: f64) -> Replicas {
        let (_, accelerations) = self.accelerations(&replicas);
        for (v, a) in replicas.velocities.iter_mut().zip(accelerations) {
            *v = (f64::from(*v) - 0.5 * timestep * a) as f32;
        }
        replicas
    }

    /// Total energies, with velocities brought half a step forwards to the time of the positions.
    fn total_energies(&self, replicas: &Replicas, timestep: f64) -> Vec<f64> {
        let (mut energies, accelerations) = self.accelerations(replicas);
        let size = 3 * self.system.masses.len();
        for (k, (v, a)) in replicas.velocities.iter().zip(&accelerations).enumerate() {
            let v = f64::from(*v) + 0.5 * timestep * a;
            energies[k / size] += 0.5 * self.system.masses[k % size / 3] * v * v;
        }
        energies
    }

    /// Total energies of every replica, `samples` of them `apart` ps from each other.
    fn trajectory(
        &self,
        start: &Replicas,
        timestep: f64,
        apart: f64,
        samples: usize,
    ) -> Vec<Vec<f64>> {
        let langevin = self.integrator(timestep, 0.0);
        let mut replicas = self.half_a_step_back(start.clone(), timestep);
        let mut series = vec![Vec::new(); replicas.len()];
        for _ in 0..samples {
            let steps = (apart / timestep).round() as u64;
            langevin.run(&mut replicas, steps).unwrap();
            let energies = self.total_energies(&replicas, timestep);
            for (series, energy) in series.iter_mut().zip(energies) {
                series.push(energy);
            }
        }
        series
    }
}

fn at_room_temperature() -> (Molecule, Replicas) {
    let (topology, positions) = build_sequence("Ace-A-Nme").unwrap();
    let system = ForceField::amber99sbildn_obc2().system(&topology).unwrap();
    let evaluator = BatchEvaluator::<f64>::new(&system);
    let molecule = Molecule { system, evaluator };
    let start: Vec<f32> = positions.iter().map(|&x| x as f32).collect();
    let langevin = molecule.integrator(0.0005, 20.0);
    let mut replicas = langevin
        .start(&start.repeat(REPLICAS), &[300.0; REPLICAS], 5)
        .unwrap();
    langevin.run(&mut replicas, 2000).unwrap();
    (molecule, replicas)
}

/// Mean over the replicas of the standard deviation of each one's energy.
fn swing(series: &[Vec<f64>]) -> f64 {
    let deviation = |series: &Vec<f64>| {
        let mean = series.iter().sum::<f64>() / series.len() as f64;
        let squares: f64 = series.iter().map(|e| (e - mean).powi(2)).sum();
        (squares / series.len() as f64).sqrt()
    };
    series.iter().map(deviation).sum::<f64>() / series.len() as f64
}

#[test]
fn energy_swings_with_the_square_of_the_step() {
    let (molecule, start) = at_room_temperature();
    let swings =
        [0.001, 0.0005, 0.00025].map(|step| swing(&molecule.trajectory(&start, step, 0.002, 200)));
    for pair in swings.windows(2) {
        let order = (pair[0] / pair[1]).log2();
        assert!((1.9..2.1).contains(&order), "order {order} of {swings:?}");
    }
}

#[test]
fn energy_does_not_drift() {
    let (molecule, start) = at_room_temperature();
    let timestep = 0.0005;
    // 10 ps, with averages over its first and its last fifth.
    let series = molecule.trajectory(&start, timestep, 0.01, 1000);
    let mean = |energies: &[f64]| energies.iter().sum::<f64>() / energies.len() as f64;
    let drifts: Vec<f64> = series
        .iter()
        .map(|series| mean(&series[800..]) - mean(&series[..200]))
        .collect();
    let scatter = (drifts.iter().map(|d| d * d).sum::<f64>() / REPLICAS as f64).sqrt();
    // 8 ps apart, in kJ/mol, of 66 degrees of freedom that hold 82 kJ/mol of kinetic energy.
    assert!(mean(&drifts).abs() < 0.03 && scatter < 0.1, "{drifts:?}");
    // Langevin dynamics of the same length exchanges several kJ/mol with its bath.
    let langevin = molecule.integrator(timestep, 2.0);
    let mut replicas = start;
    let before = molecule.total_energies(&replicas, timestep);
    langevin.run(&mut replicas, 16_000).unwrap();
    let after = molecule.total_energies(&replicas, timestep);
    let changes = before.iter().zip(&after).map(|(a, b)| (a - b).powi(2));
    assert!((changes.sum::<f64>() / REPLICAS as f64).sqrt() > 3.0);
}
