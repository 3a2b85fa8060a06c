//! One ensemble from samples of several: weights by MBAR, and free energies of its states with errors from groups of samples.
//!
//! The samples of every state (an umbrella window, a temperature) are independent chains of one length: copy c of every window, or ladder c
//! at every temperature, belong together, as exchanges carry conformations between the states of a chain but never between chains. So a group
//! that is left out ([`mod@jackknife`]) is a block of time of one chain in *all* states. Correlation within a state,
//! between states, and with coordinates that nobody watches, all count then, which errors from the correlation time of a watched coordinate
//! in one state do not see.

use crate::jackknife::{self, Estimate, jackknife};
use crate::mbar::{Mbar, MbarError, MbarErrors};
use crate::weights::log_sum_exp;

/// Overlap of neighbouring states below which their free energies have no connection.
const LEAST_OVERLAP: f64 = 1e-3;

/// Why a free energy could not be estimated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Undetermined {
    /// One of the two has no samples.
    #[error("no sample lies in {0}")]
    Empty(&'static str),
    /// One block of one chain holds all that a state has.
    #[error("all that was seen of {0} is one visit, in one block of one independent series")]
    OneVisit(&'static str),
    /// States that do not overlap, by the smallest overlap on the way from one to another.
    #[error("neighbouring states share almost no conformations (overlap {0:.1e})")]
    NoOverlap(f64),
    /// Groups that amount to fewer than two.
    #[error(
        "the samples are one independent series, and too short against its slowest motion to tell an error"
    )]
    OneSeries,
}

/// How pooled samples are ordered: `[state][chain][time]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// States that were sampled.
    pub states: usize,
    /// Independent chains of every state.
    pub chains: usize,
    /// Samples of a chain in one state.
    pub length: usize,
}

impl Layout {
    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.states * self.chains * self.length
    }

    /// Blocks of a chain.
    fn blocks(&self) -> usize {
        jackknife::blocks(self.chains, self.length)
    }

    /// Number of groups.
    fn groups(&self) -> usize {
        self.chains * self.blocks()
    }

    /// The group of a sample: `[chain][block]`.
    fn group(&self, sample: usize) -> usize {
        let (chain, time) = (sample / self.length % self.chains, sample % self.length);
        chain * self.blocks() + time * self.blocks() / self.length
    }
}

/// Samples of several states with their weights in one ensemble of interest.
pub struct Ensemble {
    /// Of the sampled states, −ln Z, the first being 0, kT.
    pub free_energies: Vec<f64>,
    /// Log-weights of the samples in the ensemble of interest, Σ w = 1.
    pub log_weights: Vec<f64>,
    layout: Layout,
    errors: MbarErrors,
    /// How the free energies of the states answer when a group is left out, to first order, `[group][state]`.
    responses: Vec<Vec<f64>>,
    weakest_overlap: f64,
}

impl Ensemble {
    /// MBAR over all states. `reduced` `[state][sample]` are the reduced energies u_k(x_n), `target` `[sample]` those of the ensemble of
    /// interest, samples ordered as `layout` says.
    ///
    /// # Errors
    /// Shapes that do not fit, energies that are not numbers, free energies that do not converge.
    pub fn new(reduced: &[f64], target: &[f64], layout: Layout) -> Result<Ensemble, MbarError> {
        let samples = layout.samples();
        if reduced.len() != layout.states * samples || target.len() != samples {
            return Err(MbarError::Shape {
                found: reduced.len(),
                states: layout.states,
                samples,
            });
        }
        let counts = vec![layout.chains * layout.length; layout.states];
        let mbar = Mbar::solve(reduced, &counts)?;
        let errors = MbarErrors::new(&mbar, reduced, &counts);
        let responses = responses(&errors, layout);
        Ok(Ensemble {
            log_weights: mbar.log_weights(target),
            free_energies: mbar.free_energies,
            weakest_overlap: weakest_overlap(&errors, layout.states),
            errors,
            layout,
            responses,
        })
    }

    /// The overlap that must be crossed to go from any state to any other on the best way: the smallest on the maximum spanning tree.
    pub fn weakest_overlap(&self) -> f64 {
        self.weakest_overlap
    }

    /// Weights of all samples in each sampled state, Σ weight = 1.
    pub fn weights(&self) -> &[Vec<f64>] {
        self.errors.weights()
    }

    /// −ln p of the samples chosen against −ln p of the others chosen, kT: F(first) − F(second).
    ///
    /// The error leaves out group after group, with the masses of both summed without it and MBAR's weights solved anew to first order:
    /// without group g, f moves by (N/(N − N_g)) M⁺ Σ_{n∈g}(W_n − e_k(n)/N_k), M = N⁻¹ − WWᵀ as in [`MbarErrors`].
    ///
    /// # Errors
    /// What keeps it from being told.
    pub fn difference(
        &self,
        first: impl Fn(usize) -> bool,
        second: impl Fn(usize) -> bool,
    ) -> Result<Estimate, Undetermined> {
        if self.weakest_overlap < LEAST_OVERLAP {
            return Err(Undetermined::NoOverlap(self.weakest_overlap));
        }
        let a = self.part(&first).ok_or(Undetermined::Empty("the state"))?;
        let b = self.part(&second).ok_or(Undetermined::Empty("the rest"))?;
        for (part, name) in [(&a, "the state"), (&b, "the rest")] {
            if part.effective_groups() < 1.5 {
                return Err(Undetermined::OneVisit(name));
            }
        }
        self.between(&a, &b).ok_or(Undetermined::OneSeries)
    }

    /// −ln p of every part of the samples, kT, and its standard error, infinite where that cannot be told; `part` tells where a sample
    /// belongs, below `parts`. Without samples both are infinite.
    pub fn profile(&self, part: impl Fn(usize) -> usize, parts: usize) -> (Vec<f64>, Vec<f64>) {
        let mut members = vec![Vec::new(); parts];
        (0..self.log_weights.len()).for_each(|n| members[part(n)].push(n));
        let everything = self.part(&|_| true);
        let one = |members: &Vec<usize>| {
            let Some(part) = self.part_of(members) else {
                return (f64::INFINITY, f64::INFINITY);
            };
            let estimate = everything.as_ref().and_then(|all| self.between(&part, all));
            let error = estimate.map_or(f64::INFINITY, |estimate| estimate.standard_error);
            (-part.log_mass, error)
        };
        members.iter().map(one).unzip()
    }

    fn part(&self, keep: &dyn Fn(usize) -> bool) -> Option<Part> {
        let members: Vec<usize> = (0..self.log_weights.len()).filter(|&n| keep(n)).collect();
        self.part_of(&members)
    }

    fn part_of(&self, members: &[usize]) -> Option<Part> {
        let logs: Vec<f64> = members.iter().map(|&n| self.log_weights[n]).collect();
        let log_mass = log_sum_exp(&logs);
        if !log_mass.is_finite() {
            return None;
        }
        let mut shares = vec![0.0; self.layout.groups()];
        let weights: Vec<(usize, f64)> = members
            .iter()
            .zip(logs)
            .map(|(&n, log)| (n, (log - log_mass).exp()))
            .collect();
        for &(n, weight) in &weights {
            shares[self.layout.group(n)] += weight;
        }
        Some(Part {
            log_mass,
            shares,
            overlaps: self.errors.overlaps(&weights),
        })
    }

    fn between(&self, a: &Part, b: &Part) -> Option<Estimate> {
        let value = b.log_mass - a.log_mass;
        let without: Vec<f64> = self
            .responses
            .iter()
            .enumerate()
            .map(|(group, response)| {
                let moved: f64 = (a.overlaps.iter().zip(&b.overlaps).zip(response))
                    .map(|((a, b), r)| (a - b) * r)
                    .sum();
                // Sums of shares are 1 but for rounding, which must not leave a part where there is none.
                let left = |part: &Part| match 1.0 - part.shares[group] {
                    left if left < 1e-12 => 0.0,
                    left => left,
                };
                value - left(a).ln() + left(b).ln() + moved
            })
            .collect();
        jackknife(value, &without, self.layout.chains)
    }
}

/// Some of the samples.
struct Part {
    /// ln Σ w
    log_mass: f64,
    /// The share of every group in the mass.
    shares: Vec<f64>,
    /// [`MbarErrors::overlaps`] of its weights.
    overlaps: Vec<f64>,
}

impl Part {
    /// How many groups of equal masses would be as uneven as these.
    fn effective_groups(&self) -> f64 {
        1.0 / self.shares.iter().map(|share| share * share).sum::<f64>()
    }
}

/// [`Ensemble::responses`].
fn responses(errors: &MbarErrors, layout: Layout) -> Vec<Vec<f64>> {
    let (groups, samples) = (layout.groups(), layout.samples());
    let mut sums = vec![vec![0.0; layout.states]; groups];
    let mut counts = vec![0.0; groups];
    // In every state, a group has this share of its samples.
    for chain in 0..layout.chains {
        for time in 0..layout.length {
            counts[layout.group(chain * layout.length + time)] += 1.0;
        }
    }
    for (state, weights) in errors.weights().iter().enumerate() {
        for (n, weight) in weights.iter().enumerate() {
            sums[layout.group(n)][state] += weight;
        }
    }
    let per_state = (layout.chains * layout.length) as f64;
    for (sums, count) in sums.iter_mut().zip(&counts) {
        sums.iter_mut().for_each(|sum| *sum -= count / per_state);
    }
    sums.iter()
        .zip(counts)
        .map(|(sums, count)| {
            let share = count * layout.states as f64 / samples as f64;
            let solved = errors.solve(sums);
            solved.into_iter().map(|x| x / (1.0 - share)).collect()
        })
        .collect()
}

/// Prim's algorithm.
fn weakest_overlap(errors: &MbarErrors, states: usize) -> f64 {
    let mut reached = vec![false; states];
    let mut best = vec![0.0f64; states];
    let mut weakest = f64::INFINITY;
    let mut current = 0;
    for _ in 1..states {
        reached[current] = true;
        for (other, best) in best.iter_mut().enumerate() {
            *best = best.max(errors.overlap(current, other));
        }
        let next = (0..states)
            .filter(|&state| !reached[state])
            .max_by(|&a, &b| best[a].total_cmp(&best[b]));
        let Some(next) = next else { break };
        weakest = weakest.min(best[next]);
        current = next;
    }
    weakest
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    /// Three oscillators ½κ(x − c)² with chains of first order, the target being the first; its reduced energies and samples.
    fn samples(layout: Layout, seed: u64) -> (Vec<f64>, Vec<f64>) {
        let state = [(1.0, 0.0), (2.0, 0.8), (1.5, 1.8)];
        let mut x = Vec::new();
        for (k, &(kappa, centre)) in state.iter().enumerate() {
            for chain in 0..layout.chains {
                let mut stream = Stream::new(seed, k as u64, chain as u64);
                let mut z = stream.standard_normal();
                for _ in 0..layout.length {
                    z = 0.8 * z + 0.6 * stream.standard_normal();
                    x.push(centre + z / f64::sqrt(kappa));
                }
            }
        }
        let reduced = state
            .iter()
            .flat_map(|(kappa, centre)| x.iter().map(move |x| 0.5 * kappa * (x - centre).powi(2)))
            .collect();
        (x, reduced)
    }

    /// Leaving out a group to first order is what comes out of all samples but that group, solved from the beginning.
    #[test]
    fn leaving_out_a_group_is_solving_without_it() {
        let layout = Layout {
            states: 3,
            chains: 2,
            length: 400,
        };
        let n = layout.samples();
        let (x, reduced) = samples(layout, 5);
        let ensemble = Ensemble::new(&reduced, &reduced[..n], layout).unwrap();
        let inside = |n: usize| x[n] > 1.0;
        let found = ensemble.difference(inside, |n| !inside(n)).unwrap();
        let value = |keep: &dyn Fn(usize) -> bool| -> f64 {
            let kept: Vec<usize> = (0..n).filter(|&n| keep(n)).collect();
            let rows: Vec<f64> = (0..3)
                .flat_map(|k| kept.iter().map(move |&m| (k, m)))
                .map(|(k, m)| reduced[k * n + m])
                .collect();
            let per_state = kept.iter().filter(|&&m| m < n / 3).count();
            let mbar = Mbar::solve(&rows, &[per_state; 3]).unwrap();
            let weights = mbar.log_weights(&rows[..kept.len()]);
            let mass = |side: bool| -> f64 {
                let logs: Vec<f64> = (kept.iter().zip(&weights))
                    .filter(|(m, _)| inside(**m) == side)
                    .map(|(_, w)| *w)
                    .collect();
                log_sum_exp(&logs)
            };
            mass(false) - mass(true)
        };
        assert!((found.value - value(&|_| true)).abs() < 1e-10);
        let without: Vec<f64> = (0..layout.groups())
            .map(|group| value(&|n| layout.group(n) != group))
            .collect();
        let solved = jackknife(found.value, &without, 2).unwrap();
        let ratio = found.standard_error / solved.standard_error;
        assert!((ratio - 1.0).abs() < 0.03, "{found:?} {solved:?}");
        // Φ(1) of the standard normal: ln(0.8413/0.1587).
        assert!(
            (found.value - 1.6682).abs() < found.half_width(0.999),
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_told_is_not() {
        let layout = Layout {
            states: 3,
            chains: 2,
            length: 50,
        };
        let n = layout.samples();
        let (x, reduced) = samples(layout, 6);
        let ensemble = Ensemble::new(&reduced, &reduced[..n], layout).unwrap();
        let rest = |_: usize| true;
        let nowhere = ensemble.difference(|_| false, rest);
        assert_eq!(nowhere, Err(Undetermined::Empty("the state")));
        let once = ensemble.difference(|m| m == 7, rest);
        assert_eq!(once, Err(Undetermined::OneVisit("the state")));
        // The same states far apart.
        let reduced: Vec<f64> = (0..3)
            .flat_map(|k| {
                let x = &x;
                (0..n).map(move |m| {
                    let own = m / (n / 3);
                    0.5 * (x[m] + 40.0 * own as f64 - 40.0 * k as f64).powi(2)
                })
            })
            .collect();
        let apart = Ensemble::new(&reduced, &reduced[..n], layout);
        let told = apart.map(|e| e.difference(|m| x[m] > 0.5, |m| x[m] <= 0.5));
        assert!(
            matches!(told, Err(_) | Ok(Err(Undetermined::NoOverlap(_)))),
            "{told:?}"
        );
        assert!(matches!(
            Ensemble::new(&reduced, &reduced[..n - 1], layout),
            Err(MbarError::Shape { .. })
        ));
    }
}
