//! Learning-rate schedule: linear warm-up, then half a cosine to zero.

use serde::{Deserialize, Serialize};

/// lr(k) = peak·min(1, (k+1)/w) for k < w, then peak·[f + (1−f)(1+cos(π(k−w)/(n−w)))/2], with f the final fraction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmupCosine {
    /// Largest learning rate, reached at the end of the warm-up.
    pub peak: f64,
    /// Steps w of linear warm-up.
    pub warmup_steps: u64,
    /// Steps n of the whole training.
    pub total_steps: u64,
    /// Fraction f of the peak that remains at the end.
    pub final_fraction: f64,
}

impl WarmupCosine {
    /// Learning rate of step `step`, counted from 0. Steps past the end keep the final rate.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = ((step - self.warmup_steps) as f64 / span).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.peak * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_linearly_peaks_and_ends_at_the_final_fraction() {
        let schedule = WarmupCosine {
            peak: 2.0,
            warmup_steps: 4,
            total_steps: 104,
            final_fraction: 0.1,
        };
        assert_eq!(schedule.rate(0), 0.5);
        assert_eq!(schedule.rate(3), 2.0);
        assert_eq!(schedule.rate(4), 2.0);
        // Half-way through the cosine the rate is the mean of both ends.
        assert!((schedule.rate(54) - 1.1).abs() < 1e-12);
        assert!((schedule.rate(104) - 0.2).abs() < 1e-12);
        assert!((schedule.rate(1000) - 0.2).abs() < 1e-12);
        for step in 4..200 {
            assert!(schedule.rate(step + 1) <= schedule.rate(step));
        }
    }
}
