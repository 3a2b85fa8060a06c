//! Times at which a few-step sampler stops between noise and data.

use crate::error::ModelError;

/// Increasing times 0 = t₀ < t₁ < … < t_K = 1 − ε.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    times: Vec<f64>,
}

impl Schedule {
    /// Takes a list of times.
    ///
    /// # Errors
    /// If it does not start at 0, is not strictly increasing, has fewer than two times, or passes 1.
    pub fn explicit(times: Vec<f64>) -> Result<Self, ModelError> {
        let fail = |message: String| Err(ModelError::Schedule(message));
        if times.len() < 2 {
            return fail(format!(
                "{} time(s) given; at least a first and a last one are needed",
                times.len()
            ));
        }
        if times[0] != 0.0 {
            return fail(format!(
                "starts at {}; it must start at 0, where the noise is",
                times[0]
            ));
        }
        // Negated so that a time that is not a number is refused as well.
        if let Some(pair) = times.windows(2).find(|pair| {
            !matches!(
                pair[0].partial_cmp(&pair[1]),
                Some(std::cmp::Ordering::Less)
            )
        }) {
            return fail(format!(
                "{} is followed by {}; times must increase",
                pair[0], pair[1]
            ));
        }
        let last = times[times.len() - 1];
        if last > 1.0 {
            return fail(format!(
                "ends at {last}; it must not pass 1, where the data is"
            ));
        }
        Ok(Self { times })
    }

    /// K equal steps from 0 to 1 − ε.
    ///
    /// # Errors
    /// If `steps` is 0 or `epsilon` is outside [0, 1).
    pub fn uniform(steps: usize, epsilon: f64) -> Result<Self, ModelError> {
        Self::power(steps, epsilon, 1.0)
    }

    /// K steps with 1 − t_k = (1 + (ε^{1/ρ} − 1) k/K)^ρ: uniform for ρ = 1, and the larger ρ, the more of the times lie
    /// near the data. ρ = 7 is the spacing of Karras et al. (arXiv 2206.00364, eq. 5) in the noise level 1 − t.
    ///
    /// # Errors
    /// If `steps` is 0, `epsilon` is outside [0, 1) or `rho` is not positive.
    pub fn power(steps: usize, epsilon: f64, rho: f64) -> Result<Self, ModelError> {
        let fail = |message: String| Err(ModelError::Schedule(message));
        if steps == 0 {
            return fail("has no steps; give it at least 1".into());
        }
        if !(0.0..1.0).contains(&epsilon) {
            return fail(format!("ε is {epsilon}; it must lie in [0, 1)"));
        }
        if !(rho > 0.0 && rho.is_finite()) {
            return fail(format!("the exponent is {rho}; it must be positive"));
        }
        let last = epsilon.powf(1.0 / rho);
        let mut times: Vec<f64> = (0..=steps)
            .map(|k| 1.0 - (1.0 + (last - 1.0) * k as f64 / steps as f64).powf(rho))
            .collect();
        times[0] = 0.0;
        times[steps] = 1.0 - epsilon;
        Self::explicit(times)
    }

    /// All K + 1 times.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// (t_k, t_{k+1}) of every step k, in order.
    pub fn intervals(
        &self,
    ) -> impl DoubleEndedIterator<Item = (f64, f64)> + ExactSizeIterator + Clone + '_ {
        self.times.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// K.
    pub fn steps(&self) -> usize {
        self.times.len() - 1
    }

    /// ε = 1 − t_K, to be reported beside every likelihood.
    pub fn epsilon(&self) -> f64 {
        1.0 - self.times[self.steps()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constructors_span_noise_to_data() {
        for rho in [0.5, 1.0, 3.0, 7.0] {
            let schedule = Schedule::power(8, 2e-3, rho).unwrap();
            assert_eq!(
                (schedule.steps(), schedule.times()[0], schedule.times()[8]),
                (8, 0.0, 1.0 - 2e-3)
            );
        }
        let uniform = Schedule::uniform(4, 0.2).unwrap();
        assert!(
            uniform
                .times()
                .iter()
                .zip([0.0, 0.2, 0.4, 0.6, 0.8])
                .all(|(a, b)| (a - b).abs() < 1e-15)
        );
        let karras = Schedule::power(8, 2e-3, 7.0).unwrap();
        let steps: Vec<f64> = karras.intervals().map(|(s, t)| t - s).collect();
        assert!(
            steps.windows(2).all(|w| w[1] < w[0]),
            "steps shrink towards the data"
        );
    }

    #[test]
    fn bad_schedules_are_refused() {
        for times in [
            vec![0.0],
            vec![0.1, 0.5],
            vec![0.0, 0.5, 0.5],
            vec![0.0, f64::NAN],
            vec![0.0, 1.5],
        ] {
            assert!(Schedule::explicit(times).is_err());
        }
        assert!(Schedule::uniform(0, 0.1).is_err());
        assert!(Schedule::uniform(3, 1.0).is_err());
        assert!(Schedule::power(3, 0.1, -1.0).is_err());
    }
}
