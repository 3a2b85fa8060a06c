//! Metropolis-adjusted Langevin moves (Roberts & Tweedie 1996), many particles at a time.
//!
//! x' = x + h²/2 ∇log π(x) + h ξ, accepted with probability min(1, π(x') k(x'→x) / (π(x) k(x→x'))), which leaves π as it is for every h.
//! Any drift would: where a part of the gradient cannot be had, it is left out and only the acceptance suffers.

use boltzmap_kernels::random::Stream;

use crate::error::SamplingError;

/// Acceptance that moves are fastest at in many dimensions (Roberts & Rosenthal 1998).
pub const BEST_ACCEPTANCE: f64 = 0.574;

/// A density at particles, with what drives them.
pub trait Density {
    /// What is known at particles and kept with them.
    type Point: Clone;

    /// At states `[n, T, C]`.
    ///
    /// # Errors
    /// Those of the proposal and the target.
    fn at(&self, states: &[f64]) -> Result<Self::Point, SamplingError>;

    /// log π of particle i; −∞ outside of the support.
    fn log_density(&self, point: &Self::Point, i: usize) -> f64;

    /// Writes the drift of particle i, ∇log π or a part of it, `[T, C]`.
    fn drift(&self, point: &Self::Point, i: usize, drift: &mut [f64]);

    /// Puts particle `from` of one point in the place of particle i.
    fn replace(&self, point: &mut Self::Point, i: usize, by: &Self::Point);

    /// Projects states on the subspace that the density lives on.
    fn project(&self, states: &mut [f64]);
}

/// One move of every particle with step h; `streams` has one stream for each. Gives the mean probability of acceptance.
///
/// # Errors
/// Those of the density.
pub fn langevin<D: Density>(
    density: &D,
    states: &mut [f64],
    point: &mut D::Point,
    streams: &mut [Stream],
    step: f64,
) -> Result<f64, SamplingError> {
    let n = streams.len();
    if n == 0 {
        return Ok(f64::NAN);
    }
    let size = states.len() / n;
    let mut noise = vec![0.0; states.len()];
    for (noise, stream) in noise.chunks_exact_mut(size).zip(streams.iter_mut()) {
        stream.fill_standard_normal(noise);
    }
    density.project(&mut noise);
    let mut drift = vec![0.0; size];
    let mut moved = states.to_vec();
    for (i, (moved, noise)) in moved
        .chunks_exact_mut(size)
        .zip(noise.chunks_exact(size))
        .enumerate()
    {
        density.drift(point, i, &mut drift);
        for ((x, g), z) in moved.iter_mut().zip(&drift).zip(noise) {
            *x += 0.5 * step * step * g + step * z;
        }
    }
    let there = density.at(&moved)?;
    let mut accepted = 0.0;
    for i in 0..n {
        let of = i * size..(i + 1) * size;
        density.drift(&there, i, &mut drift);
        // −2 ln k: forward it is |ξ|², backward |x − x' − h²/2 ∇log π(x')|²/h².
        let forward: f64 = noise[of.clone()].iter().map(|z| z * z).sum();
        let backward: f64 = states[of.clone()]
            .iter()
            .zip(&moved[of.clone()])
            .zip(&drift)
            .map(|((x, y), g)| ((x - y - 0.5 * step * step * g) / step).powi(2))
            .sum();
        let change = density.log_density(&there, i) - density.log_density(point, i)
            + 0.5 * (forward - backward);
        // Drawn whether it is needed or not, so that a stream's numbers do not depend on what happened.
        let chance = streams[i].uniform();
        // A change that is not a number, from outside of the support, is refused.
        let probability = if change.is_nan() {
            0.0
        } else {
            change.min(0.0).exp()
        };
        accepted += probability;
        if chance < probability {
            states[of.clone()].copy_from_slice(&moved[of]);
            density.replace(point, i, &there);
        }
    }
    Ok(accepted / n as f64)
}

/// The step to try next, after moves with `step` were accepted with the given probability.
pub fn adapted(step: f64, acceptance: f64) -> f64 {
    step * (acceptance - BEST_ACCEPTANCE).exp()
}
