//! Explicit Runge–Kutta methods for a batch of ordinary differential equations, with fixed and adaptive steps.

use boltzmap_kernels::real::Real;

use crate::error::ModelError;

/// Coefficients of an explicit Runge–Kutta method:
/// k_i = f(t + c_i h, y + h Σ_{j<i} a_ij k_j), y' = y + h Σ b_i k_i.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tableau {
    /// Usual name.
    pub name: &'static str,
    /// Order of the solution.
    pub order: u32,
    /// c
    pub nodes: &'static [f64],
    /// a, row i with i entries
    pub stages: &'static [&'static [f64]],
    /// b
    pub weights: &'static [f64],
    /// b − b̂, for methods with an embedded solution of lower order: h Σ (b_i − b̂_i) k_i estimates the error.
    pub error_weights: Option<&'static [f64]>,
}

impl Tableau {
    /// y' = y + h f(t, y), order 1.
    pub const EULER: Tableau = Tableau {
        name: "Euler",
        order: 1,
        nodes: &[0.0],
        stages: &[&[]],
        weights: &[1.0],
        error_weights: None,
    };

    /// Heun's trapezoidal rule, order 2, with Euler embedded.
    pub const HEUN: Tableau = Tableau {
        name: "Heun",
        order: 2,
        nodes: &[0.0, 1.0],
        stages: &[&[], &[1.0]],
        weights: &[0.5, 0.5],
        error_weights: Some(&[-0.5, 0.5]),
    };

    /// The classical method of order 4.
    pub const RK4: Tableau = Tableau {
        name: "classical Runge-Kutta",
        order: 4,
        nodes: &[0.0, 0.5, 0.5, 1.0],
        stages: &[&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
        weights: &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
        error_weights: None,
    };

    /// Dormand & Prince 5(4) (J. Comput. Appl. Math. 6, 19 (1980)); its last stage is the next step's first.
    pub const DORMAND_PRINCE: Tableau = Tableau {
        name: "Dormand-Prince 5(4)",
        order: 5,
        nodes: &[0.0, 1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0],
        stages: &[
            &[],
            &[1.0 / 5.0],
            &[3.0 / 40.0, 9.0 / 40.0],
            &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
            &[
                19372.0 / 6561.0,
                -25360.0 / 2187.0,
                64448.0 / 6561.0,
                -212.0 / 729.0,
            ],
            &[
                9017.0 / 3168.0,
                -355.0 / 33.0,
                46732.0 / 5247.0,
                49.0 / 176.0,
                -5103.0 / 18656.0,
            ],
            &[
                35.0 / 384.0,
                0.0,
                500.0 / 1113.0,
                125.0 / 192.0,
                -2187.0 / 6784.0,
                11.0 / 84.0,
            ],
        ],
        weights: &[
            35.0 / 384.0,
            0.0,
            500.0 / 1113.0,
            125.0 / 192.0,
            -2187.0 / 6784.0,
            11.0 / 84.0,
            0.0,
        ],
        error_weights: Some(&[
            71.0 / 57600.0,
            0.0,
            -71.0 / 16695.0,
            71.0 / 1920.0,
            -17253.0 / 339200.0,
            22.0 / 525.0,
            -1.0 / 40.0,
        ]),
    };

    /// Whether the last stage is evaluated at the step's result, so that the next step can use it.
    fn first_same_as_last(&self) -> bool {
        let last = self.nodes.len() - 1;
        last > 0
            && self.nodes[last] == 1.0
            && self.stages[last] == &self.weights[..last]
            && self.weights[last] == 0.0
    }
}

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
    for k in 0..steps {
        stages.step(tableau, &mut system, from + h * k as f64, h, y, 0)?;
        y.copy_from_slice(&stages.next);
    }
    Ok(Statistics {
        accepted: steps,
        rejected: 0,
        evaluations: steps * tableau.nodes.len(),
    })
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
    let error_weights = tableau
        .error_weights
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
    let exponent = 1.0 / f64::from(tableau.order);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// y' = cos(t) y, y(0) = 1: y = exp(sin t). Not autonomous, so that the nodes are tested as well.
    fn growth(t: f64, y: &[f64], slope: &mut [f64]) -> Result<(), ModelError> {
        slope[0] = t.cos() * y[0];
        slope[1] = -2.0 * t * y[1] * y[1]; // y = 1/(1 + t²)
        Ok(())
    }

    fn error_at_two(tableau: &Tableau, steps: usize) -> f64 {
        let mut y = [1.0, 1.0];
        integrate_fixed(tableau, growth, &mut y, 0.0, 2.0, steps).unwrap();
        (y[0] - 2.0f64.sin().exp()).abs().max((y[1] - 0.2).abs())
    }

    #[test]
    fn every_tableau_converges_at_its_order() {
        for (tableau, steps) in [
            (Tableau::EULER, 2000),
            (Tableau::HEUN, 400),
            (Tableau::RK4, 80),
            (Tableau::DORMAND_PRINCE, 100),
        ] {
            let order = (error_at_two(&tableau, steps) / error_at_two(&tableau, 2 * steps)).log2();
            assert!(
                (order - f64::from(tableau.order)).abs() < 0.25,
                "{}: {order}",
                tableau.name
            );
        }
    }

    #[test]
    fn tableaux_are_consistent() {
        for tableau in [
            Tableau::EULER,
            Tableau::HEUN,
            Tableau::RK4,
            Tableau::DORMAND_PRINCE,
        ] {
            assert!((tableau.weights.iter().sum::<f64>() - 1.0).abs() < 1e-15);
            for (row, node) in tableau.stages.iter().zip(tableau.nodes) {
                assert!(
                    (row.iter().sum::<f64>() - node).abs() < 1e-14,
                    "{}",
                    tableau.name
                );
            }
            if let Some(weights) = tableau.error_weights {
                assert!(
                    weights.iter().sum::<f64>().abs() < 1e-15,
                    "{}",
                    tableau.name
                );
            }
        }
        assert!(Tableau::DORMAND_PRINCE.first_same_as_last() && !Tableau::RK4.first_same_as_last());
    }

    #[test]
    fn adaptive_steps_follow_the_tolerance_in_both_directions() {
        for tableau in [Tableau::DORMAND_PRINCE, Tableau::HEUN] {
            let mut previous = 0;
            for tolerance in [1e-4, 1e-6, 1e-8] {
                let tolerances = Tolerances {
                    relative: tolerance,
                    absolute: tolerance,
                    max_steps: 100_000,
                };
                let mut y = [1.0, 1.0];
                let statistics =
                    integrate_adaptive(&tableau, growth, &mut y, 2, 0.0, 2.0, &tolerances).unwrap();
                let error = (y[0] - 2.0f64.sin().exp()).abs().max((y[1] - 0.2).abs());
                assert!(
                    error < 20.0 * tolerance,
                    "{}: {error} at {tolerance}",
                    tableau.name
                );
                assert!(statistics.evaluations > previous);
                previous = statistics.evaluations;
                integrate_adaptive(&tableau, growth, &mut y, 2, 2.0, 0.0, &tolerances).unwrap();
                assert!(
                    (y[0] - 1.0).abs() < 100.0 * tolerance
                        && (y[1] - 1.0).abs() < 100.0 * tolerance
                );
            }
        }
    }

    #[test]
    fn the_worst_sample_decides_the_step() {
        // One slow and one fast oscillation as two rows: the joint root mean square would hide the fast one's error.
        let system = |_: f64, y: &[f64], slope: &mut [f64]| {
            for (i, frequency) in [1.0, 40.0].into_iter().enumerate() {
                slope[2 * i] = frequency * y[2 * i + 1];
                slope[2 * i + 1] = -frequency * y[2 * i];
            }
            Ok(())
        };
        let tolerances = Tolerances {
            relative: 1e-8,
            absolute: 1e-8,
            max_steps: 10_000,
        };
        let mut y = [0.0, 1.0, 0.0, 1.0];
        integrate_adaptive(
            &Tableau::DORMAND_PRINCE,
            system,
            &mut y,
            2,
            0.0,
            1.0,
            &tolerances,
        )
        .unwrap();
        assert!((y[2] - 40.0f64.sin()).abs() < 1e-5 && (y[0] - 1.0f64.sin()).abs() < 1e-7);
    }

    #[test]
    fn a_blow_up_and_a_step_limit_are_errors() {
        let blow_up = |_: f64, y: &[f64], slope: &mut [f64]| {
            slope[0] = y[0] * y[0];
            Ok(())
        };
        let mut y = [1.0];
        let tolerances = Tolerances::default();
        let result = integrate_adaptive(
            &Tableau::DORMAND_PRINCE,
            blow_up,
            &mut y,
            1,
            0.0,
            2.0,
            &tolerances,
        );
        assert!(
            matches!(result, Err(ModelError::Integration { .. })),
            "{result:?}"
        );
        let few = Tolerances {
            max_steps: 3,
            ..tolerances
        };
        let result = integrate_adaptive(
            &Tableau::DORMAND_PRINCE,
            growth,
            &mut [1.0, 1.0],
            2,
            0.0,
            2.0,
            &few,
        );
        assert!(
            result
                .unwrap_err()
                .to_string()
                .contains("3 steps were not enough")
        );
    }
}
