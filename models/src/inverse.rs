//! The inverse of a flow map: the x with X_{s,t}(x) = y, and with it the density of the deployed map at any state.
//!
//! Each step starts from the inverse of the Gaussian reference, x = y S_s/S_t. While it contracts, the fixed-point
//! iteration x ← x − (S_s/S_t)(X(x) − y) costs one evaluation each; what it leaves over goes to Newton's method with a
//! line search on the norm of the residual, on the subspace of the states: Qᵀ J Q δ = Qᵀ (X(x) − y), x ← x − λ Q δ.
//!
//! Where a map folds, y has several preimages or none. An inverse found is one of them; signs of the determinants tell
//! whether a step reverses the orientation of space there.

use boltzmap_autodiff::exec::{Batched, OutputRole};
use boltzmap_autodiff::jacobian::Jacobian;
use boltzmap_kernels::linalg::{log_abs_det_in_place, solve};
use boltzmap_kernels::real::Real;
use rayon::prelude::*;

use crate::control::Control;
use crate::deploy::count_states;
use crate::error::ModelError;
use crate::flow_map::{FlowMap, reference_variance};
use crate::jacobians::{input_roles, step_jacobian};
use crate::parameters::Parameters;
use crate::schedule::Schedule;
use crate::walk::{Leg, Walk, require_finite};

/// States per block of plain evaluations.
const BLOCK: usize = 16;
/// States worked on together, between two looks at the cancel flag.
const CHUNK: usize = 64;
/// The line search halves its step at most this often.
const HALVINGS: usize = 12;
/// Round-off of one evaluation of the map in units of the precision's ε and of 1 + |y|, for error bounds.
const ROUND_OFF: f64 = 32.0;
/// Distance from the subspace that is more than the rounding of a file, in units of 1 + ‖y‖₂.
const OFF_SUBSPACE: f64 = 1e-4;

/// When an inverse is good enough, and when to give up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InverseOptions {
    /// Largest residual ‖X(x) − y‖₂ allowed, in units of 1 + ‖y‖₂.
    pub tolerance: f64,
    /// Fixed-point iterations at most.
    pub fixed_point_steps: usize,
    /// Newton steps at most.
    pub newton_steps: usize,
}

impl InverseOptions {
    /// A tolerance a few hundred times the round-off of `T`.
    pub fn of_precision<T: Real>() -> Self {
        Self {
            tolerance: 256.0 * Real::as_f64(T::epsilon()),
            fixed_point_steps: 20,
            newton_steps: 30,
        }
    }
}

/// Preimages of states under one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInverse<T> {
    /// x with X_{s,t}(x) ≈ y, `[n, T, C]`.
    pub states: Vec<T>,
    /// ‖X_{s,t}(x) − y‖₂, `[n]`.
    pub residuals: Vec<f64>,
    /// Whether the residual is within the tolerance, `[n]`.
    pub converged: Vec<bool>,
    /// First-order bound of ‖x − X⁻¹(y)‖₂, `[n]`: ‖J⁻¹‖₂ times the residual and the round-off of X.
    pub errors: Vec<f64>,
    /// A bound of ‖J⁻¹‖₂ on the subspace, `[n]`: how much an error of y grows. Infinite where J is singular.
    pub inverse_norms: Vec<f64>,
    /// log|det ∂X_{s,t}/∂x| at x on the subspace, `[n]`.
    pub log_det: Vec<f64>,
    /// Sign of that determinant, `[n]`.
    pub signs: Vec<f64>,
    /// Fixed-point and Newton steps of the slowest state.
    pub iterations: usize,
}

/// States traced back to their noise, with the exact density of the deployed map.
#[derive(Clone, Debug, PartialEq)]
pub struct Inverse<T> {
    /// The noise that the map carries to the states, `[n, T, C]`.
    pub noise: Vec<T>,
    /// log q of the states, `[n]`: log p₀(noise) − Σ_k log|det ∂X_k/∂x|.
    pub log_density: Vec<f64>,
    /// First-order bound of the noise's distance from the exact preimage, `[n]`.
    pub errors: Vec<f64>,
    /// Largest residual of the steps, `[n]`.
    pub residuals: Vec<f64>,
    /// Steps, over all states, whose determinant was not positive.
    pub folded_steps: usize,
}

/// Inverts the steps of a schedule with fixed parameters.
pub struct Inverter<T: Real> {
    map: FlowMap,
    parameters: Parameters<T>,
    schedule: Schedule,
    options: InverseOptions,
    step: Batched<T>,
    jacobian: Jacobian<T>,
    /// Q, row-major `[T·C, d]`.
    basis: Vec<f64>,
}

/// One state on its way to its preimage.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// ‖X(x) − y‖₂; infinite where the map's value is not finite.
    residual: f64,
    /// The residual that is good enough.
    goal: f64,
    /// S_s/S_t
    ratio: f64,
    active: bool,
    iterations: usize,
}

impl<T: Real> Inverter<T> {
    /// Compiles the step and its Jacobian. The Jacobian runs in `T`, its factorisation in f64.
    pub fn new(
        map: &FlowMap,
        parameters: &Parameters<T>,
        schedule: &Schedule,
        options: InverseOptions,
    ) -> Self {
        let inputs = input_roles(map.layout().count(), 3);
        let outputs = vec![OutputRole::PerBlock { axis: 0 }];
        Self {
            map: map.clone(),
            parameters: parameters.clone(),
            schedule: schedule.clone(),
            options,
            step: Batched::compile(&map.map_program(BLOCK), inputs, outputs),
            jacobian: step_jacobian(map, 1),
            basis: map.subspace().basis(map.tokens(), map.channels()),
        }
    }

    /// Traces states `[n, T, C]` at time 1 − ε back through all steps.
    ///
    /// # Errors
    /// If the array is not a whole number of finite states on the subspace, the caller cancels, or a state has no preimage
    /// that the iteration finds: [`ModelError::NotInverted`].
    pub fn invert(&self, states: &[T], control: &Control) -> Result<Inverse<T>, ModelError> {
        let n = count_states(&self.map, "the states", states)?;
        let mut result = Inverse {
            noise: states.to_vec(),
            log_density: vec![0.0; n],
            errors: vec![0.0; n],
            residuals: vec![0.0; n],
            folded_steps: 0,
        };
        self.walk(&mut result.noise, control, |leg, _, step| {
            step.require_converged(&vec![leg.s; leg.count], &vec![leg.t; leg.count])?;
            for i in 0..leg.count {
                let at = leg.first + i;
                result.log_density[at] -= step.log_det[i];
                result.errors[at] = step.errors[i] + step.inverse_norms[i] * result.errors[at];
                result.residuals[at] = result.residuals[at].max(step.residuals[i]);
            }
            result.folded_steps += step.signs.iter().filter(|sign| **sign <= 0.0).count();
            Ok(())
        })?;
        let base = self.map.subspace().gaussian_log_density(
            &result.noise,
            self.map.tokens(),
            self.map.channels(),
        );
        for (log_density, base) in result.log_density.iter_mut().zip(base) {
            *log_density += base;
        }
        Ok(result)
    }

    /// Traces states `[n, T, C]` at time 1 − ε back through all steps, in place. After each, `visit` is told the leg, the
    /// chunk's states at s, which it may replace, and how they were found. A state that does not converge is marked
    /// there and goes on from the best point found, unless `visit` makes an error of it.
    ///
    /// # Errors
    /// If the array is not a whole number of finite states on the subspace, the caller cancels, or `visit` fails.
    pub fn walk(
        &self,
        states: &mut [T],
        control: &Control,
        mut visit: impl FnMut(Leg, &mut [T], &StepInverse<T>) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        count_states(&self.map, "the states", states)?;
        self.require_states(states)?;
        let walk = Walk {
            schedule: &self.schedule,
            size: self.map.state_size(),
            chunk: CHUNK,
        };
        walk.backwards(states, control, |leg, states| {
            let (s, t) = (vec![leg.s; leg.count], vec![leg.t; leg.count]);
            let step = self.chunk(states, &s, &t, control)?;
            states.copy_from_slice(&step.states);
            visit(leg, states, &step)
        })
    }

    /// The x with X_{s,t}(x) = y for states y `[n, T, C]` and times s, t `[n]`. A state that does not converge is marked
    /// in the result; [`StepInverse::require_converged`] makes an error of it.
    ///
    /// # Errors
    /// If the arrays do not fit each other, a state is not finite or not on the subspace, or the caller cancels.
    pub fn step(
        &self,
        y: &[T],
        s: &[f64],
        t: &[f64],
        control: &Control,
    ) -> Result<StepInverse<T>, ModelError> {
        let n = count_states(&self.map, "the states", y)?;
        let size = self.map.state_size();
        for (what, times) in [("the start times", s), ("the end times", t)] {
            if times.len() != n {
                return Err(ModelError::Length {
                    what: what.into(),
                    expected: n,
                    found: times.len(),
                });
            }
        }
        self.require_states(y)?;
        let mut result = StepInverse {
            states: Vec::with_capacity(y.len()),
            residuals: Vec::with_capacity(n),
            converged: Vec::with_capacity(n),
            errors: Vec::with_capacity(n),
            inverse_norms: Vec::with_capacity(n),
            log_det: Vec::with_capacity(n),
            signs: Vec::with_capacity(n),
            iterations: 0,
        };
        for first in (0..n).step_by(CHUNK) {
            let count = CHUNK.min(n - first);
            let part = self.chunk(
                &y[first * size..(first + count) * size],
                &s[first..first + count],
                &t[first..first + count],
                control,
            )?;
            result.states.extend(part.states);
            result.residuals.extend(part.residuals);
            result.converged.extend(part.converged);
            result.errors.extend(part.errors);
            result.inverse_norms.extend(part.inverse_norms);
            result.log_det.extend(part.log_det);
            result.signs.extend(part.signs);
            result.iterations = result.iterations.max(part.iterations);
        }
        Ok(result)
    }

    /// Refuses states that are not finite or do not lie on the subspace, where they have no density.
    fn require_states(&self, states: &[T]) -> Result<(), ModelError> {
        let size = self.map.state_size();
        require_finite("the state", states, size)?;
        let mut projected = states.to_vec();
        let (tokens, channels) = (self.map.tokens(), self.map.channels());
        self.map
            .subspace()
            .project_states(&mut projected, tokens, channels);
        let pairs = states.chunks_exact(size).zip(projected.chunks_exact(size));
        for (sample, (state, projected)) in pairs.enumerate() {
            let distance = state
                .iter()
                .zip(projected)
                .map(|(&a, &b)| (Real::as_f64(a) - Real::as_f64(b)).powi(2))
                .sum::<f64>()
                .sqrt();
            if distance > OFF_SUBSPACE * (1.0 + norm_of(state)) {
                return Err(ModelError::OffSubspace { sample, distance });
            }
        }
        Ok(())
    }

    /// One chunk of [`Inverter::step`].
    fn chunk(
        &self,
        y: &[T],
        s: &[f64],
        t: &[f64],
        control: &Control,
    ) -> Result<StepInverse<T>, ModelError> {
        let (n, size) = (s.len(), self.map.state_size());
        let mut x = y.to_vec();
        let mut progress: Vec<Progress> = (0..n)
            .map(|i| Progress {
                residual: f64::INFINITY,
                goal: self.options.tolerance * (1.0 + norm_of(&y[i * size..(i + 1) * size])),
                ratio: (reference_variance(s[i]) / reference_variance(t[i])).sqrt(),
                active: true,
                iterations: 0,
            })
            .collect();
        for (state, progress) in x.chunks_exact_mut(size).zip(&progress) {
            for value in state {
                *value = T::from_f64(Real::as_f64(*value) * progress.ratio);
            }
        }
        let all: Vec<usize> = (0..n).collect();
        let mut residual = self.residuals(&all, &x, y, s, t);
        for (progress, r) in progress.iter_mut().zip(residual.chunks_exact(size)) {
            progress.residual = norm(r);
        }
        self.fixed_point(&mut x, &mut residual, &mut progress, y, s, t, control)?;
        self.newton(&mut x, &mut residual, &mut progress, y, s, t, control)?;
        Ok(self.assess(x, &progress, y, s, t))
    }

    /// Iterates every state for as long as each iteration at least halves its residual.
    fn fixed_point(
        &self,
        x: &mut [T],
        residual: &mut [f64],
        progress: &mut [Progress],
        y: &[T],
        s: &[f64],
        t: &[f64],
        control: &Control,
    ) -> Result<(), ModelError> {
        let size = self.map.state_size();
        for _ in 0..self.options.fixed_point_steps {
            control.check()?;
            let active: Vec<usize> = (0..progress.len())
                .filter(|&i| progress[i].active && progress[i].residual > progress[i].goal)
                .collect();
            if active.is_empty() {
                break;
            }
            let trial = self.moved(&active, x, |i, e| {
                progress[i].ratio * residual[i * size + e]
            });
            let new = self.residuals(&active, &trial, y, s, t);
            for (k, &i) in active.iter().enumerate() {
                let at_trial = norm(&new[k * size..(k + 1) * size]);
                let now = &mut progress[i];
                now.iterations += 1;
                now.active = at_trial <= 0.5 * now.residual;
                if at_trial < now.residual {
                    now.residual = at_trial;
                    x[i * size..(i + 1) * size].copy_from_slice(&trial[k * size..(k + 1) * size]);
                    residual[i * size..(i + 1) * size]
                        .copy_from_slice(&new[k * size..(k + 1) * size]);
                }
            }
        }
        Ok(())
    }

    /// Newton's method for what is still above its goal. A state whose residual no step lowers stays where it is.
    fn newton(
        &self,
        x: &mut [T],
        residual: &mut [f64],
        progress: &mut [Progress],
        y: &[T],
        s: &[f64],
        t: &[f64],
        control: &Control,
    ) -> Result<(), ModelError> {
        let (size, d) = (self.map.state_size(), self.map.dimension());
        progress.iter_mut().for_each(|now| now.active = true);
        for _ in 0..self.options.newton_steps {
            control.check()?;
            let mut active: Vec<usize> = (0..progress.len())
                .filter(|&i| progress[i].active && progress[i].residual > progress[i].goal)
                .collect();
            if active.is_empty() {
                break;
            }
            let jacobians = self.jacobians(&active, x, s, t);
            let directions: Vec<Option<Vec<f64>>> = active
                .par_iter()
                .enumerate()
                .map(|(k, &i)| {
                    let right: Vec<f64> = (0..d)
                        .map(|c| {
                            (0..size)
                                .map(|e| self.basis[e * d + c] * residual[i * size + e])
                                .sum()
                        })
                        .collect();
                    let jacobian = &jacobians[k * d * d..(k + 1) * d * d];
                    let delta = solve(jacobian, d, &right, 1).ok()?;
                    let direction = (0..size)
                        .map(|e| (0..d).map(|c| self.basis[e * d + c] * delta[c]).sum())
                        .collect();
                    Some(direction)
                })
                .collect();
            // Only states that a Newton direction exists for are moved.
            let mut direction = vec![0.0; progress.len() * size];
            for (&i, found) in active.iter().zip(&directions) {
                progress[i].iterations += 1;
                match found {
                    Some(found) => direction[i * size..(i + 1) * size].copy_from_slice(found),
                    None => progress[i].active = false,
                }
            }
            active.retain(|&i| progress[i].active);
            let mut length = 1.0;
            for _ in 0..=HALVINGS {
                if active.is_empty() {
                    break;
                }
                let trial = self.moved(&active, x, |i, e| length * direction[i * size + e]);
                let new = self.residuals(&active, &trial, y, s, t);
                let mut refused = Vec::new();
                for (k, &i) in active.iter().enumerate() {
                    let at_trial = norm(&new[k * size..(k + 1) * size]);
                    if at_trial <= (1.0 - 1e-4 * length) * progress[i].residual {
                        progress[i].residual = at_trial;
                        x[i * size..(i + 1) * size]
                            .copy_from_slice(&trial[k * size..(k + 1) * size]);
                        residual[i * size..(i + 1) * size]
                            .copy_from_slice(&new[k * size..(k + 1) * size]);
                    } else {
                        refused.push(i);
                    }
                }
                active = refused;
                length *= 0.5;
            }
            for i in active {
                progress[i].active = false;
            }
        }
        Ok(())
    }

    /// Determinants and error bounds at the points found.
    fn assess(
        &self,
        x: Vec<T>,
        progress: &[Progress],
        y: &[T],
        s: &[f64],
        t: &[f64],
    ) -> StepInverse<T> {
        let (n, size, d) = (s.len(), self.map.state_size(), self.map.dimension());
        let all: Vec<usize> = (0..n).collect();
        let mut jacobians = self.jacobians(&all, &x, s, t);
        let mut identity = vec![0.0; d * d];
        (0..d).for_each(|i| identity[i * (d + 1)] = 1.0);
        let measures: Vec<(f64, f64, f64)> = jacobians
            .par_chunks_exact_mut(d * d)
            .map(|jacobian| {
                let inverse_norm = solve(jacobian, d, &identity, d)
                    .map_or(f64::INFINITY, |inverse| spectral_norm_bound(&inverse, d));
                let (log_det, sign) = log_abs_det_in_place(jacobian, d);
                (inverse_norm, log_det, sign)
            })
            .collect();
        let epsilon = Real::as_f64(T::epsilon());
        let errors = (0..n).map(|i| {
            let scale = 1.0 + norm_of(&y[i * size..(i + 1) * size]);
            measures[i].0 * (progress[i].residual + ROUND_OFF * epsilon * scale)
        });
        StepInverse {
            errors: errors.collect(),
            states: x,
            residuals: progress.iter().map(|now| now.residual).collect(),
            converged: progress
                .iter()
                .map(|now| now.residual <= now.goal)
                .collect(),
            inverse_norms: measures.iter().map(|m| m.0).collect(),
            log_det: measures.iter().map(|m| m.1).collect(),
            signs: measures.iter().map(|m| m.2).collect(),
            iterations: progress.iter().map(|now| now.iterations).max().unwrap_or(0),
        }
    }

    /// x − shift of the states numbered in `which`, one after the other.
    fn moved(&self, which: &[usize], x: &[T], shift: impl Fn(usize, usize) -> f64) -> Vec<T> {
        let size = self.map.state_size();
        which
            .iter()
            .flat_map(|&i| (0..size).map(move |e| (i, e)))
            .map(|(i, e)| T::from_f64(Real::as_f64(x[i * size + e]) - shift(i, e)))
            .collect()
    }

    /// X(x) − y in f64 of the states numbered in `which`, whose x lie one after the other.
    fn residuals(&self, which: &[usize], x: &[T], y: &[T], s: &[f64], t: &[f64]) -> Vec<f64> {
        let size = self.map.state_size();
        let mut images = vec![T::zero(); x.len()];
        let (s, t) = (pick::<T>(which, s), pick::<T>(which, t));
        let mut inputs = self.parameters.slices();
        inputs.extend([x, &s, &t]);
        self.step.run(which.len(), &inputs, &mut [&mut images]);
        which
            .iter()
            .flat_map(|&i| &y[i * size..(i + 1) * size])
            .zip(&images)
            .map(|(&y, &image)| Real::as_f64(image) - Real::as_f64(y))
            .collect()
    }

    /// Qᵀ J Q of the states numbered in `which`, of all states x.
    fn jacobians(&self, which: &[usize], x: &[T], s: &[f64], t: &[f64]) -> Vec<f64> {
        let size = self.map.state_size();
        let x: Vec<T> = which
            .iter()
            .flat_map(|&i| x[i * size..(i + 1) * size].iter().copied())
            .collect();
        let (s, t) = (pick::<T>(which, s), pick::<T>(which, t));
        let mut inputs = self.parameters.slices();
        inputs.extend([x.as_slice(), &s, &t]);
        self.jacobian.matrix(which.len(), &inputs, None)
    }
}

impl<T> StepInverse<T> {
    /// Refuses a result in which a state did not converge, naming the first.
    ///
    /// # Errors
    /// [`ModelError::NotInverted`], with the times s and t of that state.
    pub fn require_converged(&self, s: &[f64], t: &[f64]) -> Result<(), ModelError> {
        match self.converged.iter().position(|converged| !converged) {
            Some(sample) => Err(ModelError::NotInverted {
                sample,
                from: s[sample],
                to: t[sample],
                residual: self.residuals[sample],
            }),
            None => Ok(()),
        }
    }
}

/// The times of some states in the map's precision.
fn pick<T: Real>(which: &[usize], times: &[f64]) -> Vec<T> {
    which.iter().map(|&i| T::from_f64(times[i])).collect()
}

/// ‖v‖₂, infinite where a component is not finite.
fn norm(v: &[f64]) -> f64 {
    let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
    if norm.is_nan() { f64::INFINITY } else { norm }
}

fn norm_of<T: Real>(v: &[T]) -> f64 {
    v.iter()
        .map(|&v| Real::as_f64(v).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// min(‖B‖_F, √(‖B‖₁ ‖B‖_∞)) ≥ ‖B‖₂ of a matrix `[d, d]`.
fn spectral_norm_bound(b: &[f64], d: usize) -> f64 {
    let largest_row = b
        .chunks_exact(d)
        .map(|row| row.iter().map(|v| v.abs()).sum::<f64>())
        .fold(0.0, f64::max);
    let largest_column = (0..d)
        .map(|c| (0..d).map(|r| b[r * d + c].abs()).sum::<f64>())
        .fold(0.0, f64::max);
    norm(b).min((largest_row * largest_column).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_bound_lies_between_the_spectral_norm_and_the_frobenius_norm() {
        // diag(3, −2) turned: its spectral norm is 3.
        let (c, s) = (0.6, 0.8);
        let b = [
            3.0 * c * c - 2.0 * s * s,
            5.0 * c * s,
            5.0 * c * s,
            3.0 * s * s - 2.0 * c * c,
        ];
        let bound = spectral_norm_bound(&b, 2);
        assert!((3.0..=13.0f64.sqrt() + 1e-12).contains(&bound), "{bound}");
        assert_eq!(spectral_norm_bound(&[2.0, 0.0, 0.0, -4.0], 2), 4.0);
    }
}
