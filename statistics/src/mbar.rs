//! Multistate Bennett acceptance ratio (Shirts and Chodera, J. Chem. Phys. 129, 124105, 2008): free energies of K states
//! from samples of all of them.

use crate::linear::PositiveDefinite;
use crate::weights::log_sum_exp;
use boltzmap_kernels::gemm::{GemmShape, gemm};
use rayon::prelude::*;

/// Why MBAR failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MbarError {
    /// Shapes that do not fit.
    #[error("the reduced energies have {found} entries but {states} states and {samples} samples need {}", states * samples)]
    Shape {
        /// Entries given.
        found: usize,
        /// K
        states: usize,
        /// N
        samples: usize,
    },
    /// NaN or −∞ somewhere.
    #[error(
        "the reduced energy of sample {sample} in state {state} is not a number above minus infinity; drop the sample"
    )]
    NotFinite {
        /// k
        state: usize,
        /// n
        sample: usize,
    },
    /// A sample outside the support of every sampled state, or no samples at all.
    #[error(
        "sample {0} has an infinite energy in every state that was sampled, so it cannot have come from any; drop it"
    )]
    Impossible(usize),
    /// No convergence.
    #[error(
        "the free energies did not converge in {iterations} iterations (gradient {gradient:.1e}); the states may not overlap, add states between them"
    )]
    NotConverged {
        /// Iterations done.
        iterations: usize,
        /// The remaining gradient, as a fraction of samples.
        gradient: f64,
    },
}

/// Converged MBAR free energies.
#[derive(Clone, Debug, PartialEq)]
pub struct Mbar {
    /// f_k = −ln Z_k up to a constant, with f_0 = 0, `[K]`
    pub free_energies: Vec<f64>,
    /// ln Σ_k N_k exp(f_k − u_k(x_n)) of each sample: minus the log-density of the mixture of all states, `[N]`
    log_mixture: Vec<f64>,
    /// Newton and self-consistent iterations used.
    pub iterations: usize,
}

/// Samples worked on at a time.
const BLOCK: usize = 512;
/// Groups of samples with sums of their own, which are added in order: the result does not depend on the number of threads.
const GROUPS: usize = 16;

/// Samples of a group, whole blocks.
fn group(samples: usize) -> usize {
    samples.div_ceil(GROUPS).next_multiple_of(BLOCK)
}

/// A Aᵀ `[rows, rows]` of a matrix A `[rows, samples]` whose columns from n on `fill(n, block)` writes, `[rows, width]`.
fn gram(rows: usize, samples: usize, fill: impl Fn(usize, &mut [f64]) + Sync) -> Vec<f64> {
    let partial: Vec<Vec<f64>> = (0..samples)
        .into_par_iter()
        .step_by(group(samples))
        .map(|from| {
            let mut products = vec![0.0; rows * rows];
            let mut block = vec![0.0; rows * BLOCK];
            for from in (from..samples.min(from + group(samples))).step_by(BLOCK) {
                let width = BLOCK.min(samples - from);
                let block = &mut block[..rows * width];
                fill(from, block);
                let shape = GemmShape {
                    m: rows,
                    n: rows,
                    k: width,
                };
                gemm(shape, 1.0, block, false, block, true, 1.0, &mut products);
            }
            products
        })
        .collect();
    sum(partial, rows * rows)
}

/// The sum of vectors of one length.
fn sum(parts: Vec<Vec<f64>>, length: usize) -> Vec<f64> {
    parts
        .into_iter()
        .fold(vec![0.0; length], |mut total, part| {
            total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
            total
        })
}

/// What the samples say of the sampled states.
struct Problem<'a> {
    /// `[K, N]`
    reduced: &'a [f64],
    samples: usize,
    /// The states with samples.
    sampled: Vec<usize>,
    /// Their numbers of samples.
    counts: Vec<f64>,
    log_counts: Vec<f64>,
}

/// One trial of the free energies of the sampled states.
struct Trial {
    f: Vec<f64>,
    /// ln Σ_k N_k e^{f_k − u_kn} of every sample
    mixture: Vec<f64>,
    /// Σ_n p_kn with p_kn = N_k e^{f_k − u_kn − mixture_n}, N_k at the solution
    sums: Vec<f64>,
    /// Largest |Σ_n p_kn − N_k|/N
    worst: f64,
}

impl Problem<'_> {
    /// u of the a-th sampled state from a sample on.
    fn energies(&self, a: usize, from: usize, width: usize) -> &[f64] {
        &self.reduced[self.sampled[a] * self.samples + from..][..width]
    }

    fn evaluate(&self, f: Vec<f64>) -> Trial {
        let s = self.sampled.len();
        let mut mixture = vec![0.0; self.samples];
        let partial: Vec<Vec<f64>> = mixture
            .par_chunks_mut(group(self.samples))
            .enumerate()
            .map(|(index, mixture)| {
                let mut sums = vec![0.0; s];
                let mut terms = vec![0.0; s * BLOCK];
                for (block, mixture) in mixture.chunks_mut(BLOCK).enumerate() {
                    let width = mixture.len();
                    let from = index * group(self.samples) + block * BLOCK;
                    let mut highest = [f64::NEG_INFINITY; BLOCK];
                    for (a, terms) in terms.chunks_mut(BLOCK).enumerate() {
                        let shift = self.log_counts[a] + f[a];
                        let energies = self.energies(a, from, width);
                        for ((term, u), highest) in terms.iter_mut().zip(energies).zip(&mut highest)
                        {
                            *term = shift - u;
                            *highest = highest.max(*term);
                        }
                    }
                    let mut totals = [0.0; BLOCK];
                    for terms in terms.chunks_mut(BLOCK) {
                        for n in 0..width {
                            terms[n] = (terms[n] - highest[n]).exp();
                            totals[n] += terms[n];
                        }
                    }
                    for (terms, sum) in terms.chunks(BLOCK).zip(&mut sums) {
                        *sum += (0..width).map(|n| terms[n] / totals[n]).sum::<f64>();
                    }
                    for n in 0..width {
                        mixture[n] = highest[n] + totals[n].ln();
                    }
                }
                sums
            })
            .collect();
        let sums = sum(partial, s);
        let off = sums
            .iter()
            .zip(&self.counts)
            .map(|(sum, n)| (sum - n).abs());
        Trial {
            worst: off.fold(0.0, f64::max) / self.samples as f64,
            f,
            mixture,
            sums,
        }
    }

    /// The self-consistent step from a trial, with f_0 = 0.
    fn consistent(&self, trial: &Trial) -> Vec<f64> {
        let mut next: Vec<f64> = (0..self.sampled.len())
            .into_par_iter()
            .map(|a| {
                if trial.sums[a] > 1e-200 {
                    return trial.f[a] - (trial.sums[a] / self.counts[a]).ln();
                }
                // A sum that underflows, as it may at the start, still has a logarithm.
                let energies = self.energies(a, 0, self.samples).iter();
                let terms: Vec<f64> = energies.zip(&trial.mixture).map(|(u, m)| -u - m).collect();
                -log_sum_exp(&terms)
            })
            .collect();
        let shift = next[0];
        next.iter_mut().for_each(|v| *v -= shift);
        next
    }

    /// Newton's step, where the Hessian can be factored.
    fn newton(&self, trial: &Trial) -> Option<Vec<f64>> {
        let s = self.sampled.len();
        let products = gram(s, self.samples, |from, block| {
            let width = block.len() / s;
            for (a, row) in block.chunks_mut(width).enumerate() {
                let shift = self.log_counts[a] + trial.f[a];
                let terms = self
                    .energies(a, from, width)
                    .iter()
                    .zip(&trial.mixture[from..]);
                for (p, (u, m)) in row.iter_mut().zip(terms) {
                    *p = (shift - u - m).exp();
                }
            }
        });
        // Gradient Σ_n p − N_k, Hessian diag(Σ_n p) − p pᵀ, without the gauge's row and column.
        let mut hessian = vec![0.0; (s - 1) * (s - 1)];
        for a in 1..s {
            for b in 1..s {
                hessian[(a - 1) * (s - 1) + b - 1] = -products[a * s + b];
            }
            hessian[(a - 1) * s] += trial.sums[a];
        }
        let gradient: Vec<f64> = (1..s).map(|a| trial.sums[a] - self.counts[a]).collect();
        let step = PositiveDefinite::factor(&hessian, s - 1)?.solve(&gradient);
        let mut next = trial.f.clone();
        next[1..]
            .iter_mut()
            .zip(step)
            .for_each(|(f, step)| *f -= step);
        next.iter().all(|f| f.is_finite()).then_some(next)
    }
}

impl Mbar {
    /// Solves f_k = −ln Σ_n exp(−u_k(x_n)) / Σ_l N_l exp(f_l − u_l(x_n)).
    ///
    /// `reduced` is u_k(x_n), row-major `[K, N]`, with the N samples of all states pooled in any order; `counts[k]` is how many of them were drawn from state k
    /// (0 is allowed for states of interest that were not sampled). Newton's method on the convex objective
    /// Σ_n ln Σ_k N_k e^{f_k − u_kn} − Σ_k N_k f_k, with a self-consistent step wherever that leaves the smaller gradient.
    ///
    /// # Errors
    /// Wrong shapes, energies that are not numbers, states without overlap.
    pub fn solve(reduced: &[f64], counts: &[usize]) -> Result<Self, MbarError> {
        let states = counts.len();
        let samples: usize = counts.iter().sum();
        if samples == 0 || reduced.len() != states * samples {
            return Err(MbarError::Shape {
                found: reduced.len(),
                states,
                samples,
            });
        }
        if let Some(at) = reduced
            .iter()
            .position(|u| u.is_nan() || *u == f64::NEG_INFINITY)
        {
            return Err(MbarError::NotFinite {
                state: at / samples,
                sample: at % samples,
            });
        }
        let sampled: Vec<usize> = (0..states).filter(|&k| counts[k] > 0).collect();
        if let Some(n) = (0..samples).find(|&n| {
            sampled
                .iter()
                .all(|&k| reduced[k * samples + n] == f64::INFINITY)
        }) {
            return Err(MbarError::Impossible(n));
        }
        let own: Vec<f64> = sampled.iter().map(|&k| counts[k] as f64).collect();
        let problem = Problem {
            reduced,
            samples,
            log_counts: own.iter().map(|n| n.ln()).collect(),
            counts: own,
            sampled,
        };
        const LIMIT: usize = 2000;
        let s = problem.sampled.len();
        let mut state = problem.evaluate(vec![0.0; s]);
        let mut iterations = 0;
        while s > 1 && state.worst > 1e-13 {
            if iterations == LIMIT {
                return Err(MbarError::NotConverged {
                    iterations,
                    gradient: state.worst,
                });
            }
            iterations += 1;
            // Far from the solution Newton overshoots; the self-consistent step always descends. The smaller gradient wins.
            let mut best = problem.evaluate(problem.consistent(&state));
            if let Some(newton) = problem.newton(&state) {
                let trial = problem.evaluate(newton);
                if trial.worst <= best.worst {
                    best = trial;
                }
            }
            let stalled = best.worst >= state.worst && state.worst < 1e-9;
            // Rounding of the sums can keep the gradient from falling further.
            if stalled {
                break;
            }
            state = best;
        }
        let mut result = Self {
            free_energies: vec![0.0; states],
            log_mixture: state.mixture,
            iterations,
        };
        let all: Vec<f64> = (0..states)
            .map(|k| result.free_energy(&reduced[k * samples..(k + 1) * samples]))
            .collect();
        // Gauge f_0 = 0 also when state 0 was not sampled.
        let shift = all[0];
        result.free_energies = all.iter().map(|v| v - shift).collect();
        result.log_mixture.iter_mut().for_each(|m| *m -= shift);
        Ok(result)
    }

    /// f of a state with reduced energies `target` `[N]` at the pooled samples, relative to state 0.
    pub fn free_energy(&self, target: &[f64]) -> f64 {
        -log_sum_exp(&self.raw_log_weights(target))
    }

    /// Log-weights of the pooled samples at the state with reduced energies `target` `[N]`, normalised to Σ w = 1.
    pub fn log_weights(&self, target: &[f64]) -> Vec<f64> {
        let mut weights = self.raw_log_weights(target);
        let total = log_sum_exp(&weights);
        weights.iter_mut().for_each(|w| *w -= total);
        weights
    }

    fn raw_log_weights(&self, target: &[f64]) -> Vec<f64> {
        target
            .iter()
            .zip(&self.log_mixture)
            .map(|(u, m)| -u - m)
            .collect()
    }
}

/// The asymptotic covariance of free energies, after Shirts and Chodera's equation (8), in a form without large matrices.
///
/// With W_sn the weights of the samples in the sampled states and N their counts, two further states with weights a, b have
/// var(f_a − f_b) = |a|² − 2a·b + |b|² + dᵀ(N⁻¹ − WWᵀ)⁺d, d = W(a − b). The matrix's null vector N1 is orthogonal to every d, so that
/// any multiple of 11ᵀ may be added to make it definite.
#[derive(Clone, Debug)]
pub struct MbarErrors {
    /// W, one row per sampled state.
    weights: Vec<Vec<f64>>,
    /// Samples of each sampled state.
    counts: Vec<usize>,
    /// WWᵀ
    products: Vec<f64>,
    /// N⁻¹ − WWᵀ + 11ᵀ/ΣN; absent where states do not overlap.
    factors: Option<PositiveDefinite>,
}

impl MbarErrors {
    /// For the free energies solved from the same `reduced` and `counts`.
    pub fn new(mbar: &Mbar, reduced: &[f64], counts: &[usize]) -> MbarErrors {
        let samples: usize = counts.iter().sum();
        let sampled: Vec<usize> = (0..counts.len()).filter(|&k| counts[k] > 0).collect();
        let weights: Vec<Vec<f64>> = sampled
            .par_iter()
            .map(|&k| {
                let row = &reduced[k * samples..(k + 1) * samples];
                mbar.log_weights(row).iter().map(|w| w.exp()).collect()
            })
            .collect();
        let s = sampled.len();
        let products = gram(s, samples, |from, block| {
            let width = block.len() / s;
            for (row, weights) in block.chunks_mut(width).zip(&weights) {
                row.copy_from_slice(&weights[from..from + width]);
            }
        });
        let counts: Vec<usize> = sampled.iter().map(|&k| counts[k]).collect();
        let mut matrix: Vec<f64> = products
            .iter()
            .map(|product| 1.0 / samples as f64 - product)
            .collect();
        for (a, &count) in counts.iter().enumerate() {
            matrix[a * s + a] += 1.0 / count as f64;
        }
        MbarErrors {
            factors: PositiveDefinite::factor(&matrix, s),
            weights,
            counts,
            products,
        }
    }

    /// Weights of the pooled samples in each sampled state, Σ weight = 1.
    pub fn weights(&self) -> &[Vec<f64>] {
        &self.weights
    }

    /// The probability that a sample of the sampled state a could have been of the sampled state b, O_ab = N_b Σ_n W_an W_bn.
    pub fn overlap(&self, a: usize, b: usize) -> f64 {
        self.counts[b] as f64 * self.products[a * self.counts.len() + b]
    }

    /// M⁻¹v for v `[state]` orthogonal to M's null vector, M = N⁻¹ − WWᵀ; NaN where states do not overlap at all.
    pub(crate) fn solve(&self, v: &[f64]) -> Vec<f64> {
        match &self.factors {
            Some(factors) => factors.solve(v),
            None => vec![f64::NAN; v.len()],
        }
    }

    /// W a of a state given by its (sample, weight) pairs, Σ weight = 1.
    pub fn overlaps(&self, state: &[(usize, f64)]) -> Vec<f64> {
        self.weights
            .iter()
            .map(|row| state.iter().map(|&(n, weight)| row[n] * weight).sum())
            .collect()
    }

    /// var(f_a − f_b) for independent samples; states are (sample, weight) pairs in increasing order of samples. Of correlated samples
    /// [`crate::ensemble::Ensemble`] tells the errors.
    pub fn variance(&self, a: &[(usize, f64)], b: &[(usize, f64)]) -> f64 {
        let square = |state: &[(usize, f64)]| state.iter().map(|(_, w)| w * w).sum::<f64>();
        let mut both = 0.0;
        for &(n, weight) in a {
            if let Ok(at) = b.binary_search_by_key(&n, |&(n, _)| n) {
                both += weight * b[at].1;
            }
        }
        let difference: Vec<f64> = self
            .overlaps(a)
            .iter()
            .zip(self.overlaps(b))
            .map(|(a, b)| a - b)
            .collect();
        let between = self.factors.as_ref().map_or(f64::INFINITY, |factors| {
            let solved = factors.solve(&difference);
            solved.iter().zip(&difference).map(|(x, d)| x * d).sum()
        });
        square(a) - 2.0 * both + square(b) + between
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    /// Samples of oscillators u_k = ½κ_k (x − c_k)², whose f_k − f_0 = ½ ln(κ_k/κ_0).
    fn oscillators(
        kappa: &[f64],
        centre: &[f64],
        counts: &[usize],
        seed: u64,
    ) -> (Vec<f64>, Vec<f64>) {
        let mut x = Vec::new();
        for (k, &count) in counts.iter().enumerate() {
            let mut stream = Stream::new(seed, 1, k as u64);
            x.extend((0..count).map(|_| centre[k] + stream.standard_normal() / kappa[k].sqrt()));
        }
        let reduced = (0..kappa.len())
            .flat_map(|k| {
                x.iter()
                    .map(move |x| 0.5 * kappa[k] * (x - centre[k]).powi(2))
                    .collect::<Vec<_>>()
            })
            .collect();
        (x, reduced)
    }

    #[test]
    fn harmonic_oscillators_have_their_closed_form() {
        let kappa: [f64; 4] = [1.0, 4.0, 9.0, 2.0];
        let centre = [0.0, 0.5, 1.0, -0.5];
        let counts = [4000, 5000, 3000, 0];
        let (x, reduced) = oscillators(&kappa, &centre, &counts, 3);
        let mbar = Mbar::solve(&reduced, &counts).unwrap();
        for k in 0..4 {
            let expected = 0.5 * (kappa[k] / kappa[0]).ln();
            // Standard errors are near 0.01 at these counts and overlaps.
            assert!(
                (mbar.free_energies[k] - expected).abs() < 0.05,
                "{k} {} {expected}",
                mbar.free_energies[k]
            );
        }
        let n = x.len();
        let weights = mbar.log_weights(&reduced[3 * n..]);
        let mean: f64 = weights.iter().zip(&x).map(|(w, x)| w.exp() * x).sum();
        let square: f64 = weights
            .iter()
            .zip(&x)
            .map(|(w, x)| w.exp() * (x + 0.5).powi(2))
            .sum();
        assert!((weights.iter().map(|w| w.exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(
            (mean + 0.5).abs() < 0.05 && (square - 0.5).abs() < 0.05,
            "{mean} {square}"
        );
    }

    #[test]
    fn satisfies_its_own_equations_and_shifts() {
        let counts = [300, 200, 400];
        let (_, mut reduced) = oscillators(&[1.0, 30.0, 5.0], &[0.0, 2.0, 1.0], &counts, 5);
        let n = 900;
        let mbar = Mbar::solve(&reduced, &counts).unwrap();
        for k in 0..3 {
            let direct = mbar.free_energy(&reduced[k * n..(k + 1) * n]);
            assert!((direct - mbar.free_energies[k]).abs() < 1e-10);
        }
        // A constant added to one state's energy adds to its free energy.
        reduced[n..2 * n].iter_mut().for_each(|u| *u += 1e4);
        let shifted = Mbar::solve(&reduced, &counts).unwrap();
        assert!((shifted.free_energies[1] - mbar.free_energies[1] - 1e4).abs() < 1e-8);
        assert!((shifted.free_energies[2] - mbar.free_energies[2]).abs() < 1e-9);
    }

    /// The spread of ΔF over independent repetitions is the standard error that each of them states.
    #[test]
    fn standard_errors_are_the_spread_of_repetitions() {
        let counts = [100, 150, 120];
        let (mut found, mut stated) = (Vec::new(), 0.0);
        const REPEATS: u64 = 300;
        for seed in 0..REPEATS {
            let (_, reduced) = oscillators(&[1.0, 4.0, 6.0], &[0.0, 0.8, 1.6], &counts, 100 + seed);
            let n = 370;
            let mbar = Mbar::solve(&reduced, &counts).unwrap();
            let errors = MbarErrors::new(&mbar, &reduced, &counts);
            let state = |k: usize| -> Vec<(usize, f64)> {
                let weights = mbar.log_weights(&reduced[k * n..(k + 1) * n]);
                weights.iter().map(|w| w.exp()).enumerate().collect()
            };
            found.push(mbar.free_energies[2] - mbar.free_energies[0]);
            stated += errors.variance(&state(2), &state(0)) / REPEATS as f64;
        }
        let mean = found.iter().sum::<f64>() / REPEATS as f64;
        let spread = found.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / (REPEATS - 1) as f64;
        // The variance of 300 repetitions is known to 8 %.
        let ratio = spread / stated;
        assert!((0.75..1.3).contains(&ratio), "{spread} is not {stated}");
        assert!((mean - 0.5 * 6f64.ln()).abs() < 4.0 * (spread / REPEATS as f64).sqrt() + 0.01);
    }

    #[test]
    fn two_states_are_bennett() {
        // Bennett's equation: Σ_0 1/(1 + (N_0/N_1) e^{u_1−u_0−Δf}) = Σ_1 1/(1 + (N_1/N_0) e^{u_0−u_1+Δf}).
        let counts = [500, 800];
        let (_, reduced) = oscillators(&[1.0, 3.0], &[0.0, 1.0], &counts, 9);
        let delta = Mbar::solve(&reduced, &counts).unwrap().free_energies[1];
        let ratio = (500.0f64 / 800.0).ln();
        let difference = |n: usize| reduced[1300 + n] - reduced[n];
        let left: f64 = (0..500)
            .map(|n| 1.0 / (1.0 + (ratio + difference(n) - delta).exp()))
            .sum();
        let right: f64 = (500..1300)
            .map(|n| 1.0 / (1.0 + (-ratio - difference(n) + delta).exp()))
            .sum();
        assert!((left - right).abs() < 1e-8, "{left} {right}");
    }

    #[test]
    fn bad_input_is_one_sentence() {
        assert!(matches!(
            Mbar::solve(&[0.0; 3], &[1, 1]),
            Err(MbarError::Shape { found: 3, .. })
        ));
        assert!(matches!(
            Mbar::solve(&[0.0, f64::NAN], &[2]),
            Err(MbarError::NotFinite { sample: 1, .. })
        ));
        assert_eq!(
            Mbar::solve(&[0.0, f64::INFINITY], &[2]),
            Err(MbarError::Impossible(1))
        );
    }
}
