//! Do stated intervals hold the truth as often as they say? Many short runs on double wells whose free energies are known, through the
//! estimators that `boltzmap umbrella` and `boltzmap remd` use.

use boltzmap_kernels::random::Stream;
use boltzmap_physics::replica_exchange::ReplicaExchangeTrajectory;
use boltzmap_physics::system::GAS_CONSTANT;
use boltzmap_physics::umbrella::{Analysis, Windows};
use boltzmap_statistics::angle::wrap;
use boltzmap_statistics::ensemble::Undetermined;
use boltzmap_statistics::free_energy::{delta_f_grouped, is_positive_state};
use boltzmap_statistics::jackknife::{Estimate, ONE_SIGMA};
use boltzmap_statistics::mbar::{Mbar, MbarErrors};
use boltzmap_statistics::statistical_inefficiency;
use rayon::prelude::*;
use std::f64::consts::{PI, TAU};

const TEMPERATURE: f64 = 300.0;
/// How much deeper the wells of the replica exchange are.
const SCALE: f64 = 1.5;

/// Two wells over φ at ±90° (kT), whose tilt depends on a hidden state s.
fn double_well(phi: f64, hidden: usize) -> f64 {
    let tilt = [1.2, -0.4][hidden];
    2.0 * (1.0 + (2.0 * phi).cos()) + tilt * phi.sin()
}

/// −ln of the ratio of the Boltzmann weights of 0 < φ < 2 and the rest, energies divided by `temperature` (in units of 300 K).
fn exact(hidden_states: usize, temperature: f64) -> f64 {
    const CELLS: usize = 20_000;
    let mut masses = [0.0; 2];
    for cell in 0..CELLS {
        let phi = -PI + TAU * (cell as f64 + 0.5) / CELLS as f64;
        for hidden in 0..hidden_states {
            masses[usize::from(!is_positive_state(phi))] +=
                (-double_well(phi, hidden) / temperature).exp();
        }
    }
    -(masses[0] / masses[1]).ln()
}

/// A walker with φ and a hidden state that changes seldom.
#[derive(Clone, Copy)]
struct Walker {
    phi: f64,
    hidden: usize,
}

impl Walker {
    /// Metropolis steps in φ, then one trial to change the hidden state with probability `rate`.
    fn advance(&mut self, stream: &mut Stream, rate: f64, energy: &dyn Fn(f64, usize) -> f64) {
        for _ in 0..4 {
            let phi = wrap(self.phi + 0.9 * (stream.uniform() - 0.5));
            let change = energy(phi, self.hidden) - energy(self.phi, self.hidden);
            if stream.uniform() < (-change).exp() {
                self.phi = phi;
            }
        }
        if stream.uniform() < rate {
            let change = energy(self.phi, 1 - self.hidden) - energy(self.phi, self.hidden);
            if stream.uniform() < (-change).exp() {
                self.hidden = 1 - self.hidden;
            }
        }
    }
}

/// Umbrella sampling in φ with exchanges between neighbours; the hidden state changes
/// at most once in 1/`rate` samples. `[window][replica][sample]`.
fn umbrella(seed: u64, replicas: usize, samples: usize, rate: f64) -> (Windows, Vec<f64>) {
    let windows = Windows::grid(1, 12, 35.0, TEMPERATURE);
    let n = windows.len();
    let thermal = GAS_CONSTANT * TEMPERATURE;
    let bias = |window: usize, phi: f64| {
        0.5 * windows.force_constant / thermal * wrap(phi - windows.centres[window]).powi(2)
    };
    let mut stream = Stream::new(seed, 11, 0);
    let mut walkers: Vec<Walker> = (0..n * replicas)
        .map(|index| Walker {
            phi: windows.centres[index / replicas],
            hidden: stream.below(2) as usize,
        })
        .collect();
    let mut angles = vec![0.0; n * replicas * samples];
    // A start that forgets itself.
    let before = 3 * samples;
    for time in 0..before + samples {
        for (index, walker) in walkers.iter_mut().enumerate() {
            let energy = |phi: f64, hidden| double_well(phi, hidden) + bias(index / replicas, phi);
            walker.advance(&mut stream, rate, &energy);
            if time >= before {
                angles[index * samples + time - before] = walker.phi;
            }
        }
        for [a, b] in windows.neighbours(time as u64) {
            for copy in 0..replicas {
                let (i, j) = (a * replicas + copy, b * replicas + copy);
                let [x, y] = [walkers[i].phi, walkers[j].phi];
                let change = bias(a, y) + bias(b, x) - bias(a, x) - bias(b, y);
                if stream.uniform() < (-change).exp() {
                    walkers.swap(i, j);
                }
            }
        }
    }
    (windows, angles)
}

/// Replica exchange over three temperatures in a double well with wide steps in time; what the library's MBAR makes of it, with the frames at
/// the lowest temperature and the ladder of each.
fn exchange(seed: u64, ladders: usize, saves: usize) -> (Result<Estimate, Undetermined>, Vec<f64>) {
    let temperatures = [300.0, 480.0, 770.0];
    let thermal = GAS_CONSTANT * TEMPERATURE;
    let levels = temperatures.len();
    let mut stream = Stream::new(seed, 12, 0);
    let (mut angles, mut energies) = (
        vec![0.0; levels * ladders * saves],
        vec![0.0; levels * ladders * saves],
    );
    for ladder in 0..ladders {
        let mut walkers = vec![
            Walker {
                phi: -1.5,
                hidden: 0
            };
            levels
        ];
        for time in 0..2 * saves {
            for (walker, temperature) in walkers.iter_mut().zip(temperatures) {
                let energy = |phi: f64, _| SCALE * double_well(phi, 0) * 300.0 / temperature;
                walker.advance(&mut stream, 0.0, &energy);
            }
            let of = |walker: &Walker| SCALE * thermal * double_well(walker.phi, 0);
            for low in (time % 2..levels - 1).step_by(2) {
                let beta = |level: usize| 1.0 / (GAS_CONSTANT * temperatures[level]);
                let ratio =
                    (beta(low) - beta(low + 1)) * (of(&walkers[low]) - of(&walkers[low + 1]));
                if stream.uniform() < ratio.exp() {
                    walkers.swap(low, low + 1);
                }
            }
            for (level, walker) in walkers.iter().enumerate().filter(|_| time >= saves) {
                let at = (level * ladders + ladder) * saves + time - saves;
                angles[at] = walker.phi;
                energies[at] = of(walker);
            }
        }
    }
    let lowest = angles[..ladders * saves].to_vec();
    let trajectory = ReplicaExchangeTrajectory {
        positions: Vec::new(),
        potential_energies: energies[..ladders * saves].to_vec(),
        ladders: (0..ladders * saves).map(|n| (n / saves) as u32).collect(),
        times: (0..ladders * saves).map(|n| (n % saves) as f64).collect(),
        temperatures: temperatures.to_vec(),
        warm_positions: Vec::new(),
        level_energies: energies,
        level_angles: angles.iter().map(|&a| a as f32).collect(),
    };
    let (ensemble, places) = trajectory.ensemble(levels, 1_000_000, |_| true).unwrap();
    let inside = |n: usize| is_positive_state(angles[places[n]]);
    (ensemble.difference(inside, |n| !inside(n)), lowest)
}

/// How many of the runs could be told, how many of these hold the truth within their 68 % and 95 % intervals, and the spread over the mean
/// stated error.
fn judge(name: &str, runs: &[Result<Estimate, Undetermined>], truth: f64) {
    let told: Vec<Estimate> = runs.iter().filter_map(|run| run.clone().ok()).collect();
    let n = told.len() as f64;
    let [inner, outer] = [ONE_SIGMA, 0.95].map(|level| {
        let held =
            |estimate: &&Estimate| (estimate.value - truth).abs() < estimate.half_width(level);
        told.iter().filter(held).count() as f64 / n
    });
    let mean = told.iter().map(|e| e.value).sum::<f64>() / n;
    let spread = (told.iter().map(|e| (e.value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let stated = (told.iter().map(|e| e.standard_error.powi(2)).sum::<f64>() / n).sqrt();
    let said = format!(
        "{name}: {n} of {} told, 68 % hold {inner:.3}, 95 % hold {outer:.3}, spread {spread:.3}, stated {stated:.3}, mean {mean:.3}, exactly {truth:.3}",
        runs.len()
    );
    println!("{said}");
    assert!(n >= 0.95 * runs.len() as f64, "{said}");
    // Three binomial deviations below. Above, a fifth wider than need be is 78 % and 98 %.
    let lowest = |level: f64| level - 3.0 * (level * (1.0 - level) / n).sqrt();
    assert!(
        inner >= lowest(ONE_SIGMA) && outer >= lowest(0.95),
        "{said}"
    );
    assert!((0.75..1.35).contains(&(stated / spread)), "{said}");
}

#[test]
fn umbrella_intervals_cover() {
    let truth = exact(2, 1.0);
    // The hidden state forgets itself in 15, 50 and 130 samples. (With two replicas as short as that last time, there being no more than
    // three independent values, nine in ten intervals of 95 % hold the truth.)
    for (replicas, samples, rate) in [
        (2, 200, 0.05),
        (2, 200, 0.015),
        (4, 200, 0.006),
        (1, 400, 0.05),
    ] {
        let found: Vec<_> = (0..100)
            .into_par_iter()
            .map(|seed| {
                let (windows, angles) = umbrella(seed, replicas, samples, rate);
                let analysis = Analysis::new(&windows, &angles, replicas).unwrap();
                let inside = |n: usize| is_positive_state(angles[n]);
                let found = analysis.difference(inside, |n| !inside(n));
                (found, by_window_correlation(&windows, &angles, replicas))
            })
            .collect();
        let (found, in_windows): (Vec<_>, Vec<f64>) = found.into_iter().unzip();
        judge(
            &format!("umbrella, {replicas} replicas, rate {rate}"),
            &found,
            truth,
        );
        // What this test is for: errors from correlation times within windows do not see the hidden state.
        let held = (found.iter().flatten().zip(&in_windows))
            .filter(|(estimate, error)| (estimate.value - truth).abs() < 1.96 * **error)
            .count();
        println!("from correlation within windows: 95 % hold {held} of 100");
        // More than three binomial deviations too few where it is slow.
        assert!(rate > 0.02 || held < 88, "{held}");
    }
}

/// The standard error of the same difference for independent samples, times the statistical inefficiency of φ within windows.
fn by_window_correlation(windows: &Windows, angles: &[f64], replicas: usize) -> f64 {
    let counts = vec![angles.len() / windows.len(); windows.len()];
    let reduced = windows.reduced(angles);
    let mbar = Mbar::solve(&reduced, &counts).unwrap();
    let weights = mbar.log_weights(&vec![0.0; angles.len()]);
    let side = |wanted: bool| -> Vec<(usize, f64)> {
        let members = (0..angles.len()).filter(|&n| is_positive_state(angles[n]) == wanted);
        let members: Vec<(usize, f64)> = members.map(|n| (n, weights[n].exp())).collect();
        let total: f64 = members.iter().map(|(_, w)| w).sum();
        members.into_iter().map(|(n, w)| (n, w / total)).collect()
    };
    let variance = MbarErrors::new(&mbar, &reduced, &counts).variance(&side(true), &side(false));
    let series = windows.len() * replicas;
    let length = angles.len() / series;
    let inefficiency: f64 = angles
        .chunks_exact(length)
        .flat_map(|chunk| [f64::sin, f64::cos].map(|f| chunk.iter().map(|&a| f(a)).collect()))
        .map(|values: Vec<f64>| statistical_inefficiency(&[values]) / (2 * series) as f64)
        .sum();
    (variance * inefficiency).sqrt()
}

#[test]
fn replica_exchange_intervals_cover() {
    let truth = exact(1, 1.0 / SCALE);
    for (ladders, saves, runs) in [(4, 400, 150), (9, 150, 150)] {
        let found: Vec<_> = (0..runs)
            .into_par_iter()
            .map(|seed| exchange(seed, ladders, saves))
            .collect();
        let by_mbar: Vec<_> = found.iter().map(|(estimate, _)| estimate.clone()).collect();
        judge(&format!("{ladders} ladders"), &by_mbar, truth);
        // The bootstrap over whole ladders, which the reports of trained models use.
        let mut held = 0;
        for (_, phi) in &found {
            let groups: Vec<[usize; 2]> =
                (0..ladders).map(|l| [l * saves, (l + 1) * saves]).collect();
            let interval = delta_f_grouped(phi, None, &groups, 400, 1).unwrap();
            held += usize::from(interval.low < truth && truth < interval.high);
        }
        let share = held as f64 / runs as f64;
        let said = format!("bootstrap of {ladders} ladders: 95 % hold {share:.3}");
        println!("{said}");
        assert!(
            share >= 0.95 - 3.0 * (0.0475 / runs as f64).sqrt(),
            "{said}"
        );
    }
}
