//! Whether a training diverges: losses that are not finite, or have left the size that they had at the start.
//!
//! Losses fall, spread and jump in a healthy training, and new ones join in; what they do not do is to stand at a hundred times
//! the flow-matching loss of the untrained network. That network's velocity is the one of Gaussian data, so its loss is the scale
//! of the problem: a network that has learnt nothing has it, and no useful one is far above. Other losses may start at almost
//! nothing (a map that is consistent because it is the same everywhere) and grow by many orders of magnitude before they shrink, or
//! be sums of squares with heavy tails. They are compared with the largest first value of any loss, and by a wider margin.
//!
//! One step proves nothing. A training diverges where half of the latest [`WINDOW`] steps were beyond these limits or were skipped
//! because their gradient was not finite.

use serde::{Deserialize, Serialize};

/// Steps that are looked at together.
pub const WINDOW: usize = 20;
/// Steps of the window beyond the limits from which on the training diverges.
const MOST_BEYOND: usize = WINDOW / 2;
/// Steps whose mean is the leading loss at the start.
const START: u32 = 10;
/// A step's part of that mean is at most this many times the first one's: what diverges at once must not set its own scale.
const LARGEST_OF_START: f32 = 3.0;
/// Times the start that the leading loss may reach.
const LEADING_LIMIT: f32 = 100.0;
/// Times the largest first value of any loss that another loss may reach.
const OTHER_LIMIT: f32 = 1e4;
/// Steps for which the leading loss must stand at a level for that level to be its peak.
const STANDING: usize = 5;

/// What is wrong with one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Symptom {
    /// Step, counted from 0.
    pub step: u64,
    /// The loss that is beyond its limit, or `gradient_norm` where only the gradient is.
    pub part: String,
    /// Its value; none where it is not finite.
    pub value: Option<f32>,
    /// What it is compared with, a loss at the start; none before there is one.
    pub start: Option<f32>,
}

/// Why a training diverges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The latest step.
    pub step: u64,
    /// The first step of those that led to the judgement.
    pub first: Symptom,
    /// The latest step that was beyond the limits.
    pub latest: Symptom,
    /// Steps of the whole training that were skipped because their gradient was not finite.
    pub skipped: u64,
}

/// Follows the losses of a training. Part of the training's state: it is stored with a checkpoint, so that a resumed training is judged
/// as if it had never stopped. Numbers are in single precision because text keeps them exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DivergenceWatch {
    /// The loss that sets the scale.
    leading: String,
    /// Its first value.
    first: Option<f32>,
    /// Sum and number of its values at the start.
    start: (f32, u32),
    /// What the leading loss at the start is at least.
    floor: f32,
    /// The largest first value of any loss.
    largest_first: f32,
    /// The losses that have had their first value.
    begun: Vec<String>,
    /// The latest symptoms, oldest first, each within the window.
    symptoms: Vec<Symptom>,
    /// The leading loss over that of the start, in the latest steps.
    levels: Vec<f32>,
    /// The highest level at which it stood, and the step.
    peak: (f32, u64),
    /// Steps skipped so far.
    skipped: u64,
}

/// A step's losses.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Step, counted from 0.
    pub step: u64,
    /// Losses by name; 0 where one takes no part.
    pub parts: &'a [(String, f64)],
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
}

impl DivergenceWatch {
    /// A watch whose scale is the loss of this name; every training starts with it.
    pub fn new(leading: &str) -> Self {
        Self {
            leading: leading.to_owned(),
            first: None,
            start: (0.0, 0),
            floor: 0.0,
            largest_first: 0.0,
            begun: Vec::new(),
            symptoms: Vec::new(),
            levels: Vec::new(),
            peak: (0.0, 0),
            skipped: 0,
        }
    }

    /// Compares the leading loss with at least this: for one that can start at almost nothing.
    pub fn with_floor(mut self, floor: f64) -> Self {
        self.floor = if floor.is_finite() { floor as f32 } else { 0.0 };
        self
    }

    /// The leading loss at the start.
    fn scale(&self) -> Option<f32> {
        let (sum, count) = self.start;
        (count > 0).then(|| (sum / count as f32).max(self.floor))
    }

    /// What is wrong with a step, if anything, judged by the steps before it.
    pub fn symptom(&self, observed: Observed) -> Option<Symptom> {
        let symptom = |part: &str, value: f64, start: Option<f32>| Symptom {
            step: observed.step,
            part: part.to_owned(),
            value: (value as f32).is_finite().then_some(value as f32),
            start,
        };
        let (scale, largest) = (self.scale(), self.largest_first.max(0.0));
        // The leading loss first: of several that are wrong, it says most.
        let leads = |(name, _): &&(String, f64)| *name == self.leading;
        let (leading, others): (Vec<_>, Vec<_>) = observed.parts.iter().partition(leads);
        for (name, value) in leading.iter().chain(&others) {
            let leads = *name == self.leading;
            let (start, limit) = match leads {
                true => (scale, LEADING_LIMIT),
                false => (Some(largest), OTHER_LIMIT),
            };
            // A loss has no limit before its first value, for it may set the scale.
            let begun = self.begun.contains(name) || (leads && start.is_some());
            let beyond = begun && start.is_some_and(|start| *value > f64::from(limit * start));
            if !value.is_finite() || beyond {
                // What is told of the leading loss is its first value, which nothing can have spoilt.
                let told = if leads { self.first } else { start };
                return Some(symptom(name, *value, told.filter(|_| begun)));
            }
        }
        if !observed.gradient_norm.is_finite() {
            return Some(symptom("gradient_norm", observed.gradient_norm, None));
        }
        None
    }

    /// Takes note of a step; says so once the training diverges. A step whose gradient is not finite is a skipped one.
    pub fn observe(&mut self, observed: Observed) -> Option<Divergence> {
        self.skipped += u64::from(!observed.gradient_norm.is_finite());
        let symptom = self.symptom(observed);
        for (name, value) in observed.parts {
            // Losses that take no part yet are 0.
            if *value != 0.0 && (*value as f32).is_finite() {
                self.take(name, *value as f32, observed.step);
            }
        }
        let since = (observed.step + 1).saturating_sub(WINDOW as u64);
        self.symptoms.retain(|symptom| symptom.step >= since);
        self.symptoms.extend(symptom);
        (self.symptoms.len() >= MOST_BEYOND).then(|| self.divergence(observed.step))?
    }

    /// The judgement on a training that ends with a symptom, for which half a window would be too late.
    pub fn ends_with(&self, symptom: Symptom) -> Divergence {
        Divergence {
            step: symptom.step,
            first: self.symptoms.first().unwrap_or(&symptom).clone(),
            latest: symptom,
            skipped: self.skipped,
        }
    }

    fn divergence(&self, step: u64) -> Option<Divergence> {
        Some(Divergence {
            step,
            first: self.symptoms.first()?.clone(),
            latest: self.symptoms.last()?.clone(),
            skipped: self.skipped,
        })
    }

    /// A finite value of a loss that takes part.
    fn take(&mut self, name: &str, value: f32, step: u64) {
        let leads = name == self.leading;
        if leads && self.start.1 < START {
            let first = *self.first.get_or_insert(value);
            self.start.0 += value.min(LARGEST_OF_START * first);
            self.start.1 += 1;
        }
        if !self.begun.iter().any(|begun| begun == name) {
            self.begun.push(name.to_owned());
            self.largest_first = self.largest_first.max(value);
        }
        if let (true, Some(scale)) = (leads, self.scale()) {
            if self.levels.len() == STANDING {
                self.levels.remove(0);
            }
            self.levels.push(value / scale);
            let standing = self.levels.iter().copied().fold(f32::INFINITY, f32::min);
            if self.levels.len() == STANDING && standing > self.peak.0 {
                self.peak = (standing, step);
            }
        }
    }

    /// Steps skipped because their gradient was not finite.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The highest level at which the leading loss stood for five steps, in units of its start, and the step at which it had done so.
    /// A healthy training's is about one.
    pub fn peak(&self) -> (f32, u64) {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    fn parts(values: &[(&str, f64)]) -> Vec<(String, f64)> {
        let owned = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        owned.collect()
    }

    fn see(
        watch: &mut DivergenceWatch,
        step: u64,
        values: &[(&str, f64)],
        gradient_norm: f64,
    ) -> Option<Divergence> {
        watch.observe(Observed {
            step,
            parts: &parts(values),
            gradient_norm,
        })
    }

    /// The courses of healthy trainings: losses that spread by 200 %, jump, start at nothing and join in late.
    #[test]
    fn healthy_trainings_go_on() {
        for seed in 0..50 {
            let mut stream = Stream::new(seed, 0, 0);
            let mut watch = DivergenceWatch::new("flow_matching");
            for step in 0..2000u64 {
                let progress = step as f64 / 2000.0;
                let spread = |deviation: f64, stream: &mut Stream| {
                    (deviation * stream.standard_normal()).exp()
                };
                // A spike of fifty times in one step of a hundred.
                let spike = if stream.uniform() < 0.01 { 50.0 } else { 1.0 };
                let flow = (1.4 - progress) * spread(0.3, &mut stream) * spike;
                // From 5e-6 to 1e-3 and with heavy tails, as measured with Hutchinson's probes.
                let divergence = 5e-6 * (1.0 + 200.0 * progress) * spread(1.5, &mut stream);
                let joined = f64::from(u8::from(step >= 600));
                let map = joined * 1e-6 * (1.0 + 1e5 * (progress - 0.3)) * spread(0.5, &mut stream);
                let log_det = joined * 300.0 * spread(1.5, &mut stream);
                // A rare step whose gradient overflows.
                let norm = if step % 97 == 96 { f64::INFINITY } else { 1.0 };
                let losses = [
                    ("flow_matching", flow),
                    ("divergence", divergence),
                    ("map_consistency", map),
                    ("divergence_consistency", log_det),
                ];
                let found = see(&mut watch, step, &losses, norm);
                assert_eq!(found, None, "seed {seed}");
            }
            assert_eq!(watch.skipped(), 20);
            assert!(watch.peak().0 < 3.0, "{:?}", watch.peak());
        }
    }

    #[test]
    fn exploded_and_missing_losses_stop_a_training() {
        // The loss of a training with learning rate 1e9: sane at step 0, then 2e17 for ever, every gradient infinite.
        let mut watch = DivergenceWatch::new("flow_matching");
        assert_eq!(see(&mut watch, 0, &[("flow_matching", 1.4)], 0.3), None);
        let mut found = None;
        for step in 1..=10 {
            assert_eq!(found, None);
            found = see(&mut watch, step, &[("flow_matching", 2.3e17)], f64::NAN);
        }
        let found = found.expect("ten bad steps");
        assert_eq!((found.step, found.first.step, found.skipped), (10, 1, 10));
        assert_eq!(found.first.part, "flow_matching");
        assert!(found.latest.value.unwrap() > 2e17);
        // What exploded did not set its own scale.
        assert!(
            found
                .latest
                .start
                .is_some_and(|start| (start - 1.4).abs() < 1e-6)
        );

        // Finite gradients, a loss that grows by half in every step.
        let mut watch = DivergenceWatch::new("flow_matching");
        let stopped = (0..200).find(|&step| {
            let loss = 1.4 * 1.5f64.powi(step as i32);
            see(&mut watch, step, &[("flow_matching", loss)], loss).is_some()
        });
        assert!(stopped.is_some_and(|step| step < 60), "{stopped:?}");

        // One loss that is not finite while the others are fine; and one that explodes.
        for bad in [f64::NAN, f64::INFINITY, 1e9] {
            let mut watch = DivergenceWatch::new("flow_matching");
            let stopped = (0..200).find_map(|step| {
                let other = if step < 50 { 2.0 } else { bad };
                let losses = [("flow_matching", 1.4), ("divergence", other)];
                see(&mut watch, step, &losses, 1.0)
            });
            let stopped = stopped.expect("it is seen");
            assert_eq!((stopped.step, stopped.first.step), (59, 50), "{bad}");
            assert_eq!(stopped.latest.part, "divergence");
            assert_eq!(stopped.latest.value.is_some(), bad.is_finite());
        }

        // Half of the steps skipped, every second one.
        let mut watch = DivergenceWatch::new("flow_matching");
        let stopped = (0..200).find_map(|step| {
            let norm = if step % 2 == 0 { f64::INFINITY } else { 1.0 };
            see(&mut watch, step, &[("flow_matching", 1.4)], norm)
        });
        let stopped = stopped.expect("it is seen");
        assert_eq!(
            (stopped.step, stopped.latest.part.as_str()),
            (18, "gradient_norm")
        );
    }

    #[test]
    fn a_floor_allows_to_start_at_nothing() {
        let mut watch = DivergenceWatch::new("error").with_floor(4.0);
        for step in 0..100 {
            let error = 1e-6 * 1.2f64.powi(step);
            assert_eq!(see(&mut watch, step as u64, &[("error", error)], 1.0), None);
        }
    }
}
