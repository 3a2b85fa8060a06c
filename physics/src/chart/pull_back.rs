//! Pull-backs: gradients in positions become gradients in states.
//!
//! With x(y) the positions that a state y decodes to, there are two things to pull back:
//!
//! * a function f of positions: ∇_y f(x(y)) = (∂x/∂y)ᵀ ∂f/∂x, by `pull_back`;
//! * a log-density ln p of positions, whose density of states is p(x) c |∂x/∂y| (see [`Decoded::log_share`]):
//!   ∇_y [ln p(x(y)) + ln|∂x/∂y| + ln c], by `pull_back_log_density`. For Boltzmann's distribution ∂(ln p)/∂x is the forces over kT.
//!
//! Both are products of a gradient with the transposed Jacobian, written out in the reverse order of decoding: centring (the mean
//! gradient is removed), placing of atoms (`placement`), the shear of folded rotors, t₀ = ψ − (δ₁ + δ₂ − 2π)/3, with the slope of the
//! share along ψ, and whitening, q = mean + std C^{1/2} y. No Jacobian is formed. They take the result of `decode` and decode nothing again:
//!
//! ```text
//! let decoded = chart.decode(&states)?;
//! // forces(decoded.positions)/kT into score
//! let gradient = chart.pull_back_log_density(&states, &decoded, &score)?;
//! ```
//!
//! States outside the domain get zero, whatever their forces are. Where a state is not finite its positions are not either, and an evaluator
//! of energies refuses them: leave such states out before.
//!
//! # Precision and layout
//!
//! States and gradients are `f32` or `f64`, one conformation per vector lane: sweeping over atoms in reverse is straight arithmetic on
//! positions, equal for all conformations, and whitening multiplies all lanes by the same matrix. In `f32` the arithmetic is `f32` too, except
//! for ψ, which is found in `f64`, since the share's slope is steep near the ends of a window. Decoding stays `f64` per conformation: a
//! chain of placements in `f32` would move far atoms by more than a force field in `f32` can bear. A result depends on its own conformation
//! alone, not on its neighbours or the number of threads.

mod placement;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use super::panels::{PANEL, Panels};
use super::{CartesianChart, ChartError, Decoded, InternalChart, check_shape};
use crate::batch::{load_tile, store_tile};
use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{Kernel, Lanes, Simd, Tier, dispatch_on};
use placement::undo_placement;
use rayon::prelude::*;

/// Conformations one task works on, a multiple of every number of lanes.
const CHUNK: usize = 32;

impl InternalChart {
    /// ∇_y f(x(y)) `[n, tokens, 3]`, per unit of state, from states `[n, tokens, 3]`, their decoded conformations and ∂f/∂x
    /// `[n, atoms, 3]`, per nm.
    ///
    /// f is any function of positions as [`Self::decode`] returns them; it need be invariant neither to turning nor to shifting the molecule.
    /// Where `in_domain` is false the state stands for no conformation, and the result is zero whatever ∂f/∂x is there.
    ///
    /// # Errors
    /// Arrays whose lengths do not belong together.
    pub fn pull_back<T: Real>(
        &self,
        state: &[T],
        decoded: &Decoded,
        gradient: &[T],
    ) -> Result<Vec<T>, ChartError> {
        self.pull_back_on::<T, false>(Tier::active(), state, decoded, gradient)
    }

    /// ∇_y [ln p(x(y)) + ln|∂x/∂y| + ln c] `[n, tokens, 3]`, per unit of state, from states `[n, tokens, 3]`, their decoded conformations
    /// and ∂(ln p)/∂x `[n, atoms, 3]`, per nm; for Boltzmann's distribution the forces over kT. The terms are what [`Decoded::log_det`]
    /// and [`Decoded::log_share`] are the values of:
    /// ∂ ln|∂x/∂q| is 2/r and cot θ, and ∂ ln c/∂ψ is ± π/(2h) cot(π/4 (1 + x/h)) within h of a rotor's edge
    /// ([`SymmetricRotor`](super::SymmetricRotor)), infinite where c is zero at the far end of a window.
    ///
    /// Where `in_domain` is false the density is zero, its logarithm has no gradient, and the result is zero whatever ∂(ln p)/∂x is there: a
    /// caller must not read a stationary point into it.
    ///
    /// # Errors
    /// Arrays whose lengths do not belong together.
    pub fn pull_back_log_density<T: Real>(
        &self,
        state: &[T],
        decoded: &Decoded,
        gradient: &[T],
    ) -> Result<Vec<T>, ChartError> {
        self.pull_back_on::<T, true>(Tier::active(), state, decoded, gradient)
    }

    /// [`Self::pull_back_log_density`] with `DENSITY`, [`Self::pull_back`] without, on one instruction set.
    fn pull_back_on<T: Real, const DENSITY: bool>(
        &self,
        tier: Tier,
        state: &[T],
        decoded: &Decoded,
        gradient: &[T],
    ) -> Result<Vec<T>, ChartError> {
        let d = self.dimension();
        let width = 3 * self.matrix.n_atoms();
        let n = check_shape("the array of states", state.len(), d)?;
        check_lengths(n, width, decoded, gradient)?;
        let colouring = Colouring::new(self);
        let mut pulled = vec![T::from_f64(0.0); state.len()];
        pulled
            .par_chunks_mut(CHUNK * d)
            .zip(state.par_chunks(CHUNK * d))
            .zip(decoded.positions.par_chunks(CHUNK * width))
            .zip(gradient.par_chunks(CHUNK * width))
            .zip(decoded.in_domain.par_chunks(CHUNK))
            .for_each(|((((pulled, state), positions), gradient), in_domain)| {
                let positions: Vec<T> = positions.iter().map(|&v| T::from_f64(v)).collect();
                let share_slopes = if DENSITY {
                    self.share_slopes(state)
                } else {
                    Vec::new()
                };
                dispatch_on(
                    tier,
                    PullBackChunk::<T, DENSITY> {
                        chart: self,
                        colouring: &colouring,
                        positions: &positions,
                        gradient,
                        share_slopes: &share_slopes,
                        pulled,
                    },
                );
                clear_outside(in_domain, pulled);
            });
        Ok(pulled)
    }

    /// ∂ ln c/∂ψ of every state and rotor, `[n, rotors]`.
    fn share_slopes<T: Real>(&self, state: &[T]) -> Vec<T> {
        let d = self.dimension();
        state
            .chunks_exact(d)
            .flat_map(|y| {
                self.rotors.iter().map(|rotor| {
                    let [psi, ..] = rotor.coordinates();
                    let psi = self.standardiser.coordinate(y, psi);
                    T::from_f64(rotor.log_share_slope(psi))
                })
            })
            .collect()
    }
}

impl CartesianChart {
    /// ∇_y f(x(y)) = s (∂f/∂x − its mean over atoms) `[n, atoms, 3]`, per unit of state, from states, their decoded conformations and ∂f/∂x
    /// `[n, atoms, 3]`, per nm. It lies on the mean-free subspace. Where `in_domain` is false, that is, a state is not finite, it is zero.
    ///
    /// # Errors
    /// Arrays whose lengths do not belong together.
    pub fn pull_back<T: Real>(
        &self,
        state: &[T],
        decoded: &Decoded,
        gradient: &[T],
    ) -> Result<Vec<T>, ChartError> {
        let [n_atoms, axes] = self.state_shape();
        let width = n_atoms * axes;
        let n = check_shape("the array of states", state.len(), width)?;
        check_lengths(n, width, decoded, gradient)?;
        let mut pulled = gradient.to_vec();
        let (scale, atoms) = (T::from_f64(self.scale()), T::from_f64(n_atoms as f64));
        pulled.par_chunks_exact_mut(width).for_each(|frame| {
            for axis in 0..3 {
                let sum: T = frame.iter().skip(axis).step_by(3).copied().sum();
                for v in frame.iter_mut().skip(axis).step_by(3) {
                    *v = scale * (*v - sum / atoms);
                }
            }
        });
        clear_outside(&decoded.in_domain, &mut pulled);
        Ok(pulled)
    }

    /// ∇_y [ln p(x(y)) + ln|∂x/∂y| + ln c]: that of [`Self::pull_back`], for |∂x/∂y| = s^(3·atoms − 3) and c = 1 are constant.
    ///
    /// # Errors
    /// Arrays whose lengths do not belong together.
    pub fn pull_back_log_density<T: Real>(
        &self,
        state: &[T],
        decoded: &Decoded,
        gradient: &[T],
    ) -> Result<Vec<T>, ChartError> {
        self.pull_back(state, decoded, gradient)
    }
}

/// Whether decoded conformations and gradients are those of n states.
fn check_lengths<T>(
    n: usize,
    width: usize,
    decoded: &Decoded,
    gradient: &[T],
) -> Result<(), ChartError> {
    for (what, found, expected) in [
        (
            "the array of decoded positions",
            decoded.positions.len(),
            n * width,
        ),
        (
            "the list of states in the domain",
            decoded.in_domain.len(),
            n,
        ),
        ("the array of gradients", gradient.len(), n * width),
    ] {
        if found != expected {
            return Err(ChartError::Shape {
                what,
                found,
                expected,
            });
        }
    }
    Ok(())
}

/// Zero for states outside the domain.
fn clear_outside<T: Real>(in_domain: &[bool], pulled: &mut [T]) {
    let width = pulled.len() / in_domain.len().max(1);
    for (row, inside) in pulled.chunks_exact_mut(width.max(1)).zip(in_domain) {
        if !inside {
            row.fill(T::from_f64(0.0));
        }
    }
}

/// ∂q/∂y transposed, laid out for tiles.
enum Colouring<T> {
    /// Standard deviations, `[d]`.
    Diagonal(Vec<T>),
    /// C^{1/2} std
    Full(Panels<T>),
}

impl<T: Real> Colouring<T> {
    fn new(chart: &InternalChart) -> Self {
        let standardiser = &chart.standardiser;
        let std = standardiser.std();
        let d = std.len();
        match standardiser.colour() {
            None => Self::Diagonal(std.iter().map(|&s| T::from_f64(s)).collect()),
            Some(colour) => Self::Full(Panels::new(d, |i, j| {
                T::from_f64(colour[i * d + j] * std[j])
            })),
        }
    }

    /// The gradient in q (`[d]` lanes) to the gradient in y, which has room for whole panels.
    #[inline(always)]
    fn apply<L: Lanes<Scalar = T>>(&self, q: &[L], y: &mut [L]) {
        match self {
            Self::Diagonal(std) => {
                for ((y, &q), &s) in y.iter_mut().zip(q).zip(std) {
                    *y = q * L::splat(s);
                }
            }
            Self::Full(panels) => panels.multiply::<L, true>(q, y),
        }
    }
}

/// One task's conformations, tile by tile.
struct PullBackChunk<'a, T: Real, const DENSITY: bool> {
    chart: &'a InternalChart,
    colouring: &'a Colouring<T>,
    /// `[n, atoms, 3]`
    positions: &'a [T],
    /// `[n, atoms, 3]`
    gradient: &'a [T],
    /// `[n, rotors]` with `DENSITY`
    share_slopes: &'a [T],
    /// `[n, d]`
    pulled: &'a mut [T],
}

impl<T: Real, const DENSITY: bool> Kernel for PullBackChunk<'_, T, DENSITY> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let chart = self.chart;
        let lanes = <T::Lanes<S> as Lanes>::WIDTH;
        let width = 3 * chart.matrix.n_atoms();
        let (d, rotors) = (chart.matrix.dimension(), chart.rotors.len());
        let zero = T::Lanes::<S>::zero();
        let mut x = vec![zero; width];
        let mut g = vec![zero; width];
        let mut q = vec![zero; d];
        let mut y = vec![zero; d.next_multiple_of(PANEL)];
        for (k, pulled) in self.pulled.chunks_mut(lanes * d).enumerate() {
            let first = k * lanes;
            let last = first + pulled.len() / d;
            load_tile(&self.positions[first * width..last * width], &mut x);
            load_tile(&self.gradient[first * width..last * width], &mut g);
            remove_mean(&mut g);
            undo_placement::<_, DENSITY>(&chart.matrix, &x, &mut g, &mut q);
            for (number, rotor) in chart.rotors.iter().enumerate() {
                let [psi, first_other, second_other] = rotor.coordinates();
                // t₀ = ψ − (δ₁ + δ₂ − 2π)/3
                let third = q[psi] * T::Lanes::<S>::constant(1.0 / 3.0);
                q[first_other] = q[first_other] - third;
                q[second_other] = q[second_other] - third;
                if DENSITY {
                    let mut slopes = [T::from_f64(0.0); 16];
                    for (slope, row) in slopes.iter_mut().zip(first..last) {
                        *slope = self.share_slopes[row * rotors + number];
                    }
                    q[psi] = q[psi] + T::Lanes::<S>::load(&slopes);
                }
            }
            self.colouring.apply(&q, &mut y);
            store_tile(&y[..d], pulled);
        }
    }
}

/// The reverse of centring: decoded positions do not feel a gradient that is the same for all atoms.
#[inline(always)]
fn remove_mean<L: Lanes>(g: &mut [L]) {
    let per_atom = L::constant(3.0 / g.len() as f64);
    for axis in 0..3 {
        let mut sum = L::zero();
        for v in g.iter().skip(axis).step_by(3) {
            sum = sum + *v;
        }
        let mean = sum * per_atom;
        for v in g.iter_mut().skip(axis).step_by(3) {
            *v = *v - mean;
        }
    }
}
