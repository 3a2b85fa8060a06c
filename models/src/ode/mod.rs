//! Explicit Runge–Kutta methods for a batch of ordinary differential equations, with fixed and adaptive steps.

mod tableau;
#[cfg(test)]
mod tests;

pub use tableau::{Embedded, Tableau};

use boltzmap_kernels::real::Real;

use crate::error::ModelError;

/// What an integration did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Steps taken.
    pub accepted: usize,
    /// Steps tried and refused by the error estimate.
    pub rejected: usize,
    /// Evaluations of the right-hand side (of a whole batch each).
    pub evaluations: usize,
}

impl Statistics {
    /// The larger of each count: the cost of the slowest of several batches.
    pub fn worst(self, other: Self) -> Self {
        Self {
            accepted: self.accepted.max(other.accepted),
            rejected: self.rejected.max(other.rejected),
            evaluations: self.evaluations.max(other.evaluations),
        }
    }
}

/// Limits of an adaptive integration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Error allowed relative to the state.
    pub relative: f64,
    /// Error allowed where the state is small.
    pub absolute: f64,
    /// Steps, accepted and rejected, before giving up.
    pub max_steps: usize,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self {
            relative: 1e-5,
            absolute: 1e-5,
            max_steps: 10_000,
        }
    }
}

/// Work arrays of one integration.
struct Stages<T> {
    slopes: Vec<Vec<T>>,
    trial: Vec<T>,
    next: Vec<T>,
}

impl<T: Real> Stages<T> {
    fn new(tableau: &Tableau, n: usize) -> Self {
        Self {
            slopes: vec![vec![T::zero(); n]; tableau.nodes.len()],
            trial: vec![T::zero(); n],
            next: vec![T::zero(); n],
        }
    }

    /// y + h Σ w_j k_j, summed in f64 in stage order.
    fn combine(slopes: &[Vec<T>], weights: &[f64], h: f64, y: &[T], out: &mut [T]) {
        for (i, out) in out.iter_mut().enumerate() {
            let sum: f64 = weights
                .iter()
                .zip(slopes)
                .map(|(w, k)| w * Real::as_f64(k[i]))
                .sum();
            *out = T::from_f64(Real::as_f64(y[i]) + h * sum);
        }
    }

    /// Fills the slopes from stage `first` on and `next`.
    fn step(
        &mut self,
        tableau: &Tableau,
        system: &mut impl FnMut(f64, &[T], &mut [T]) -> Result<(), ModelError>,
        t: f64,
        h: f64,
        y: &[T],
        first: usize,
    ) -> Result<(), ModelError> {
        for i in first..tableau.nodes.len() {
            Self::combine(&self.slopes, tableau.stages[i], h, y, &mut self.trial);
            system(t + tableau.nodes[i] * h, &self.trial, &mut self.slopes[i])?;
        }
        Self::combine(&self.slopes, tableau.weights, h, y, &mut self.next);
        Ok(())
    }
}

/// Integrates dy/dt = f(t, y) from `from` to `to` (either direction) in `steps` equal steps; `y` becomes the result.
///
/// # Errors
/// Those of `system`.
pub fn integrate_fixed<T: Real>(
    tableau: &Tableau,
    mut system: impl FnMut(f64, &[T], &mut [T]) -> Result<(), ModelError>,
    y: &mut [T],
    from: f64,
    to: f64,
    steps: usize,
) -> Result<Statistics, ModelError> {
    let mut stages = Stages::new(tableau, y.len());
    let h = (to - from) / steps as f64;
    let count = tableau.nodes.len();
    let reuse = tableau.first_same_as_last();
    let mut statistics = Statistics::default();
    for k in 0..steps {
        let first = usize::from(reuse && k > 0);
        stages.step(tableau, &mut system, from + h * k as f64, h, y, first)?;
        y.copy_from_slice(&stages.next);
        if reuse {
            stages.slopes.swap(0, count - 1);
        }
        statistics.accepted += 1;
        statistics.evaluations += count - first;
    }
    Ok(statistics)
}

/// Largest over the rows of the root mean square of error/(absolute + relative · max(|y|, |y'|)).
fn error_norm<T: Real>(
    errors: &[f64],
    y: &[T],
    next: &[T],
    row: usize,
    tolerances: &Tolerances,
) -> f64 {
    let mut worst: f64 = 0.0;
    for start in (0..y.len()).step_by(row) {
        let squares: f64 = (start..start + row)
            .map(|i| {
                let size = Real::as_f64(y[i]).abs().max(Real::as_f64(next[i]).abs());
                (errors[i] / (tolerances.absolute + tolerances.relative * size)).powi(2)
            })
            .sum();
        let norm = (squares / row as f64).sqrt();
        // A norm that is not a number must not lose against a number.
        worst = if norm.is_nan() {
            f64::INFINITY
        } else {
            worst.max(norm)
        };
    }
    worst
}

/// Integrates dy/dt = f(t, y) from `from` to `to` (either direction) with steps chosen so that the estimated error of
/// every row of `row` numbers (one sample of the batch) stays within the tolerances; `y` becomes the result.
///
/// Proportional-integral step control after Hairer, Nørsett & Wanner, *Solving Ordinary Differential Equations I*, II.4.
///
/// # Errors
/// If the step limit is reached or the step size underflows; those of `system`.
///
/// # Panics
/// If the tableau has no embedded solution, or `y` is not a whole number of rows.
pub fn integrate_adaptive<T: Real>(
    tableau: &Tableau,
    mut system: impl FnMut(f64, &[T], &mut [T]) -> Result<(), ModelError>,
    y: &mut [T],
    row: usize,
    from: f64,
    to: f64,
    tolerances: &Tolerances,
) -> Result<Statistics, ModelError> {
    let Embedded {
        order: embedded_order,
        error_weights,
    } = tableau
        .embedded
        .expect("an adaptive method has an embedded solution");
    assert!(
        row > 0 && y.len().is_multiple_of(row),
        "the state is a whole number of rows"
    );
    let mut statistics = Statistics::default();
    if from == to || y.is_empty() {
        return Ok(statistics);
    }
    let mut stages = Stages::new(tableau, y.len());
    let mut errors = vec![0.0; y.len()];
    let direction = (to - from).signum();
    let span = (to - from).abs();
    system(from, y, &mut stages.slopes[0])?;
    let mut h = first_step(
        tableau,
        &mut system,
        y,
        &mut stages,
        row,
        from,
        direction,
        span,
        tolerances,
    )?;
    statistics.evaluations = 2;
    // The error estimate goes with the power of the step that the less accurate of the two solutions misses first.
    let exponent = 1.0 / f64::from(tableau.order.min(embedded_order) + 1);
    let mut t = from;
    let mut previous_norm: f64 = 1e-4;
    let mut grow = 10.0;
    loop {
        if statistics.accepted + statistics.rejected >= tolerances.max_steps {
            return Err(ModelError::Integration {
                time: t,
                problem: format!("{} steps were not enough", tolerances.max_steps),
            });
        }
        if h < 1e-13 * span.max(t.abs()) {
            return Err(ModelError::Integration {
                time: t,
                problem: format!("the step size fell to {h:e}"),
            });
        }
        let remaining = (to - t).abs();
        let last = h >= remaining * (1.0 - 1e-12);
        let step = direction * if last { remaining } else { h };
        stages.step(tableau, &mut system, t, step, y, 1)?;
        statistics.evaluations += tableau.nodes.len() - 1;
        for (i, error) in errors.iter_mut().enumerate() {
            *error = step
                * error_weights
                    .iter()
                    .zip(&stages.slopes)
                    .map(|(w, k)| w * Real::as_f64(k[i]))
                    .sum::<f64>();
        }
        let norm = error_norm(&errors, y, &stages.next, row, tolerances).max(1e-10);
        if norm <= 1.0 {
            statistics.accepted += 1;
            y.copy_from_slice(&stages.next);
            if last {
                return Ok(statistics);
            }
            t += step;
            if tableau.first_same_as_last() {
                let end = stages.slopes.len() - 1;
                stages.slopes.swap(0, end);
            } else {
                system(t, y, &mut stages.slopes[0])?;
                statistics.evaluations += 1;
            }
            let factor = 0.9 * norm.powf(-0.7 * exponent) * previous_norm.powf(0.4 * exponent);
            h = step.abs() * factor.clamp(0.2, grow);
            previous_norm = norm.max(1e-4);
            grow = 10.0;
        } else {
            statistics.rejected += 1;
            h = step.abs() * (0.9 * norm.powf(-exponent)).clamp(0.1, 1.0);
            grow = 1.0;
        }
    }
}

/// Start value of the step (Hairer, Nørsett & Wanner, II.4, "Starting step size"). One evaluation.
fn first_step<T: Real>(
    tableau: &Tableau,
    system: &mut impl FnMut(f64, &[T], &mut [T]) -> Result<(), ModelError>,
    y: &[T],
    stages: &mut Stages<T>,
    row: usize,
    from: f64,
    direction: f64,
    span: f64,
    tolerances: &Tolerances,
) -> Result<f64, ModelError> {
    let as_f64 = |values: &[T]| {
        values
            .iter()
            .map(|&v| Real::as_f64(v))
            .collect::<Vec<f64>>()
    };
    let size = error_norm(&as_f64(y), y, y, row, tolerances);
    let slope = error_norm(&as_f64(&stages.slopes[0]), y, y, row, tolerances);
    let guess = if size < 1e-5 || slope < 1e-5 {
        1e-6
    } else {
        0.01 * size / slope
    }
    .min(span);
    Stages::combine(
        &stages.slopes[..1],
        &[1.0],
        direction * guess,
        y,
        &mut stages.trial,
    );
    system(
        from + direction * guess,
        &stages.trial,
        &mut stages.slopes[1],
    )?;
    let change: Vec<f64> = stages.slopes[1]
        .iter()
        .zip(&stages.slopes[0])
        .map(|(a, b)| Real::as_f64(*a) - Real::as_f64(*b))
        .collect();
    let curvature = error_norm(&change, y, y, row, tolerances) / guess;
    let largest = slope.max(curvature);
    let refined = if largest <= 1e-15 {
        (guess * 1e-3).max(1e-6)
    } else {
        (0.01 / largest).powf(1.0 / f64::from(tableau.order))
    };
    Ok((100.0 * guess).min(refined).min(span))
}
