//! Umbrella sampling in dihedrals: windows, their bias, and the free energy of the unbiased molecule from all of them together.
//!
//! A window w adds Σ_d ½k_d(φ_d − c_wd)², the difference taken the short way round the circle. All windows have one temperature, so that
//! the molecule's own energy cancels in MBAR, which needs the dihedrals of the frames only.
//!
//! Neighbouring windows may exchange conformations (Sugita, Kitao, Okamoto, J. Chem. Phys. 113, 6042 (2000)). What is slow in one window, such
//! as the other dihedral on top of a barrier, then relaxes in another on the way.

use crate::langevin::Replicas;
use crate::replica_exchange::ExchangeCount;
use crate::restraint::Bias;
use crate::system::GAS_CONSTANT;
use boltzmap_kernels::random::{Stream, domain};
use boltzmap_statistics::angle::wrap;
use boltzmap_statistics::ensemble::{Ensemble, Layout, Undetermined};
use boltzmap_statistics::jackknife::Estimate;
use boltzmap_statistics::mbar::MbarError;
use boltzmap_statistics::statistical_inefficiency;
use rayon::prelude::*;

/// Random numbers of the exchanges; the stream index is the step.
const EXCHANGES: u64 = domain::WINDOW_EXCHANGES;

/// A grid of windows over the circle or the torus.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// Number of dihedrals.
    pub dimension: usize,
    /// Windows over a turn of each.
    pub per_turn: usize,
    /// `[window][dihedral]`, rad
    pub centres: Vec<f64>,
    /// kJ/mol/rad²
    pub force_constant: f64,
    /// K
    pub temperature: f64,
}

impl Windows {
    /// `per_turn` centres per dihedral, evenly over the circle from −π on.
    pub fn grid(
        dimension: usize,
        per_turn: usize,
        force_constant: f64,
        temperature: f64,
    ) -> Windows {
        let step = std::f64::consts::TAU / per_turn as f64;
        let count = per_turn.pow(dimension as u32);
        let centres = (0..count)
            .flat_map(|window| {
                (0..dimension).map(move |axis| {
                    let place = window / per_turn.pow((dimension - 1 - axis) as u32) % per_turn;
                    -std::f64::consts::PI + step * place as f64
                })
            })
            .collect();
        Windows {
            dimension,
            per_turn,
            centres,
            force_constant,
            temperature,
        }
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.centres.len() / self.dimension
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.centres.is_empty()
    }

    /// The bias for `copies` replicas of every window, window by window.
    pub fn bias(&self, dihedrals: Vec<[usize; 4]>, copies: usize) -> Bias {
        assert_eq!(dihedrals.len(), self.dimension);
        let centres: Vec<f64> = self
            .centres
            .chunks_exact(self.dimension)
            .flat_map(|centre| centre.repeat(copies))
            .collect();
        Bias {
            dihedrals,
            force_constants: vec![self.force_constant; centres.len()],
            centres,
        }
    }

    /// The reduced bias energy (kT) of every window at every sample, `[window][sample]`; `angles` is `[sample][dihedral]`, rad.
    pub fn reduced(&self, angles: &[f64]) -> Vec<f64> {
        (0..self.len())
            .into_par_iter()
            .flat_map_iter(|window| {
                angles
                    .chunks_exact(self.dimension)
                    .map(move |angles| self.reduced_energy(window, angles))
            })
            .collect()
    }

    /// The reduced bias energy (kT) of a window at dihedrals (rad).
    fn reduced_energy(&self, window: usize, angles: &[f64]) -> f64 {
        let centre = &self.centres[window * self.dimension..(window + 1) * self.dimension];
        let squares = centre.iter().zip(angles).map(|(c, a)| wrap(a - c).powi(2));
        0.5 * self.force_constant / (GAS_CONSTANT * self.temperature) * squares.sum::<f64>()
    }

    /// The pairs of neighbours that may exchange in a round: along one dihedral after the other, every second pair, no window twice. An odd
    /// number of windows is not closed to a circle.
    pub fn neighbours(&self, round: u64) -> Vec<[usize; 2]> {
        let d = self.dimension as u64;
        let axis = (round % d) as usize;
        let parity = (round / d % 2) as usize;
        let stride = self.per_turn.pow((self.dimension - 1 - axis) as u32);
        (0..self.len())
            .filter_map(|window| {
                let place = window / stride % self.per_turn;
                let next = (place + 1) % self.per_turn;
                let closed = next != 0 || self.per_turn.is_multiple_of(2);
                let neighbour = window - place * stride + next * stride;
                (place % 2 == parity && closed).then_some([window, neighbour])
            })
            .collect()
    }

    /// One round of exchanges between the replicas of [`Windows::bias`], each copy of a window with the same copy of its neighbour, accepted
    /// with probability min(1, e^{−Δ}), Δ the change of both windows' reduced bias energies. `angles` are the replicas'
    /// `[replica][dihedral]`, rad.
    pub fn exchange(
        &self,
        replicas: &mut Replicas,
        angles: &[f64],
        copies: usize,
        round: u64,
        seed: u64,
    ) -> ExchangeCount {
        let mut stream = Stream::new(seed, EXCHANGES, replicas.step);
        let mut count = ExchangeCount::default();
        for [a, b] in self.neighbours(round) {
            for copy in 0..copies {
                let (i, j) = (a * copies + copy, b * copies + copy);
                let of = |replica: usize| &angles[replica * self.dimension..][..self.dimension];
                let change = self.reduced_energy(a, of(j)) + self.reduced_energy(b, of(i))
                    - self.reduced_energy(a, of(i))
                    - self.reduced_energy(b, of(j));
                count.tried += 1;
                if stream.uniform() < (-change).exp() {
                    count.accepted += 1;
                    replicas.swap_conformations(i, j);
                }
            }
        }
        count
    }
}

/// Free energies from umbrella sampling, in kT.
pub struct Analysis {
    ensemble: Ensemble,
    layout: Layout,
}

impl Analysis {
    /// MBAR over all windows. `angles` `[window][replica][sample][dihedral]`, rad, with `replicas` equally long series of every window.
    ///
    /// Replica c of all windows together is one independent series: exchanges carry conformations between windows, never between replicas
    /// of different numbers.
    ///
    /// # Errors
    /// If the windows do not overlap, or shapes do not fit.
    pub fn new(windows: &Windows, angles: &[f64], replicas: usize) -> Result<Analysis, MbarError> {
        let samples = angles.len() / windows.dimension;
        let layout = Layout {
            states: windows.len(),
            chains: replicas,
            length: samples / (windows.len() * replicas).max(1),
        };
        let ensemble = Ensemble::new(&windows.reduced(angles), &vec![0.0; samples], layout)?;
        Ok(Analysis { ensemble, layout })
    }

    /// Of the windows, the first being 0.
    pub fn window_free_energies(&self) -> &[f64] {
        &self.ensemble.free_energies
    }

    /// Log-weights of the samples in the unbiased ensemble, Σ w = 1.
    pub fn log_weights(&self) -> &[f64] {
        &self.ensemble.log_weights
    }

    /// −ln p of the samples chosen against −ln p of the others chosen, kT ([`Ensemble::difference`]).
    ///
    /// # Errors
    /// What keeps it from being told.
    pub fn difference(
        &self,
        first: impl Fn(usize) -> bool,
        second: impl Fn(usize) -> bool,
    ) -> Result<Estimate, Undetermined> {
        self.ensemble.difference(first, second)
    }

    /// Free energy −ln(p/p_max) and its standard error (of −ln p) in cells of the circle or torus, kT, `[cell]`, the last dihedral fastest;
    /// infinite where there are no samples, the error also where all are of one group.
    pub fn surface(&self, angles: &[f64], dimension: usize, bins: usize) -> (Vec<f64>, Vec<f64>) {
        let bin = |angle: f64| {
            let turn = (wrap(angle) + std::f64::consts::PI) / std::f64::consts::TAU;
            ((turn * bins as f64) as usize).min(bins - 1)
        };
        let cell = |sample: usize| {
            angles[sample * dimension..(sample + 1) * dimension]
                .iter()
                .fold(0, |cell, &angle| cell * bins + bin(angle))
        };
        let (mut free, errors) = self.ensemble.profile(cell, bins.pow(dimension as u32));
        let lowest = free.iter().copied().fold(f64::INFINITY, f64::min);
        free.iter_mut().for_each(|f| *f -= lowest);
        (free, errors)
    }
}

/// Whether the windows tell one story.
///
/// MBAR assumes that every window was sampled to its own equilibrium. A window that is too soft for a barrier lets its replicas slip to one
/// side and stay there, which no estimate of its error sees from within. But the other windows predict what it should have seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Consistency {
    /// For every window, by how many of its standard errors the means of sin and cos of the dihedrals are off what all windows together
    /// predict for it; the largest of them.
    pub deviations: Vec<f64>,
    /// For every window, how many independent samples its replicas amount to, in the slowest of these functions.
    pub effective_samples: Vec<f64>,
    /// The overlap that must be crossed to go from any window to any other on the best way.
    pub weakest_overlap: f64,
}

impl Consistency {
    /// Root mean square of the deviations; up to 2 where all is well, being the largest of several of unit variance with errors that are
    /// estimates themselves.
    pub fn typical_deviation(&self) -> f64 {
        let squares = self.deviations.iter().map(|d| d * d).sum::<f64>();
        (squares / self.deviations.len().max(1) as f64).sqrt()
    }

    /// What is wrong, one sentence each.
    pub fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        let n = self.deviations.len();
        let far = self.deviations.iter().filter(|d| **d > 6.0).count();
        // No window of many is this far off by chance, and one that is can carry a whole basin.
        let largest = self.deviations.iter().copied().fold(0.0, f64::max);
        if self.typical_deviation() > 2.5 || far > n / 20 || largest > 12.0 {
            found.push(format!(
                "{far} of {n} windows saw something else than the others predict for them (typical deviation {:.1} standard errors, largest {largest:.0}): replicas slipped off a barrier or are caught in another conformation, and the free energies are not to be trusted; raise --force-constant and --windows, or run longer",
                self.typical_deviation()
            ));
        }
        let few = self.effective_samples.iter().filter(|e| **e < 10.0).count();
        if few > n / 50 {
            found.push(format!(
                "{few} of {n} windows hold fewer than 10 independent samples; raise --ps or --replicas"
            ));
        }
        if self.weakest_overlap < 0.01 {
            found.push(format!(
                "some windows share almost no conformations with the others (overlap {:.1e}); use more windows or a smaller --force-constant",
                self.weakest_overlap
            ));
        }
        found
    }
}

impl Analysis {
    /// Compares every window with what all of them predict for it. `angles` as for [`Analysis::new`].
    pub fn consistency(&self, windows: &Windows, angles: &[f64]) -> Consistency {
        let d = windows.dimension;
        let samples = angles.len() / d;
        let per_window = samples / windows.len();
        let per_replica = self.layout.length;
        let functions: Vec<Vec<f64>> = (0..d)
            .flat_map(|axis| {
                [f64::sin, f64::cos].map(|function: fn(f64) -> f64| {
                    angles
                        .iter()
                        .skip(axis)
                        .step_by(d)
                        .map(|&angle| function(angle))
                        .collect()
                })
            })
            .collect();
        let of_window = |window: usize| -> (f64, f64) {
            let weights = &self.ensemble.weights()[window];
            let (mut worst, mut fewest) = (0.0f64, f64::INFINITY);
            for values in &functions {
                let own = &values[window * per_window..(window + 1) * per_window];
                let predicted: f64 = weights.iter().zip(values).map(|(w, v)| w * v).sum();
                let square: f64 = weights.iter().zip(values).map(|(w, v)| w * v * v).sum();
                let variance = square - predicted * predicted;
                let series: Vec<&[f64]> = own.chunks_exact(per_replica).collect();
                let effective = own.len() as f64 / statistical_inefficiency(&series);
                let mean = own.iter().sum::<f64>() / own.len() as f64;
                let own_variance =
                    own.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / own.len() as f64;
                // The smaller of two estimates, so that neither a stuck window nor a wrong prediction hides the difference.
                let error = (variance.min(own_variance).max(1e-300) / effective).sqrt();
                worst = worst.max((mean - predicted).abs() / error);
                fewest = fewest.min(effective);
            }
            (worst, fewest)
        };
        let all: Vec<(f64, f64)> = (0..windows.len()).into_par_iter().map(of_window).collect();
        Consistency {
            deviations: all.iter().map(|(deviation, _)| *deviation).collect(),
            effective_samples: all.iter().map(|(_, effective)| *effective).collect(),
            weakest_overlap: self.ensemble.weakest_overlap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn neighbours_exchange_in_turn_and_none_twice_in_a_round() {
        for (dimension, per_turn, pairs) in [(1, 6, 6), (1, 5, 4), (2, 4, 32), (2, 5, 40)] {
            let windows = Windows::grid(dimension, per_turn, 1.0, 300.0);
            let mut all = HashSet::new();
            for round in 0..2 * dimension as u64 {
                let mut seen = HashSet::new();
                for [a, b] in windows.neighbours(round) {
                    assert!(seen.insert(a) && seen.insert(b));
                    all.insert([a.min(b), a.max(b)]);
                    // One step along one dihedral.
                    let distances: Vec<f64> = (0..dimension)
                        .map(|axis| {
                            let centre = |window: usize| windows.centres[window * dimension + axis];
                            wrap(centre(a) - centre(b)).abs()
                        })
                        .collect();
                    let step = std::f64::consts::TAU / per_turn as f64;
                    assert!((distances.iter().sum::<f64>() - step).abs() < 1e-9);
                }
            }
            assert_eq!(all.len(), pairs, "{dimension} {per_turn}");
        }
    }
}
