//! The walk over the steps of a schedule that everything deployed shares: states in chunks, forwards from noise to data or
//! backwards, with cancellation, progress and the check that states end finite.
//!
//! What a step does is its caller's: it is handed the states of one chunk, replaces them by those at the other end of the
//! step, and takes along whatever else it makes there (log-determinants, gaps, folds, states on the way). Chunks are
//! walked one after the other, each through all steps, so that what a step needs beside the states stays small.

use boltzmap_kernels::real::Real;

use crate::control::Control;
use crate::error::ModelError;
use crate::schedule::Schedule;

/// One chunk of states at one step of the schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// k, counted from the noise in both directions.
    pub step: usize,
    /// s = t_k, where a forward step starts and a backward one ends.
    pub s: f64,
    /// t = t_{k+1}.
    pub t: f64,
    /// Number of the chunk's first sample.
    pub first: usize,
    /// Samples in the chunk.
    pub count: usize,
}

/// A schedule, and how states are walked over it.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// The steps.
    pub schedule: &'a Schedule,
    /// Numbers in one state, T·C.
    pub size: usize,
    /// Samples per chunk.
    pub chunk: usize,
}

impl Walk<'_> {
    /// Takes states `[n, T, C]` at time 0 through all steps to time 1 − ε. `step` gets a leg and the chunk's states at s
    /// `[count, T, C]`, which it replaces by those at t. Samples in its errors count from the chunk's first.
    ///
    /// # Errors
    /// Those of `step` with the sample's number in the whole array, that a state is not finite after the last step, or
    /// that the caller cancels, for which it is asked before every step. Progress is reported after every chunk.
    pub fn forwards<T: Real>(
        &self,
        states: &mut [T],
        control: &Control,
        step: impl FnMut(Leg, &mut [T]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        self.take(states, control, self.schedule.intervals().enumerate(), step)
    }

    /// Takes states `[n, T, C]` at time 1 − ε through all steps to time 0; `step` replaces states at t by those at s.
    ///
    /// # Errors
    /// As [`Walk::forwards`].
    pub fn backwards<T: Real>(
        &self,
        states: &mut [T],
        control: &Control,
        step: impl FnMut(Leg, &mut [T]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let intervals = self.schedule.intervals().enumerate().rev();
        self.take(states, control, intervals, step)
    }

    fn take<T: Real>(
        &self,
        states: &mut [T],
        control: &Control,
        intervals: impl Iterator<Item = (usize, (f64, f64))> + Clone,
        mut step: impl FnMut(Leg, &mut [T]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let n = states.len() / self.size;
        let mut first = 0;
        for states in states.chunks_mut(self.chunk * self.size) {
            let count = states.len() / self.size;
            for (k, (s, t)) in intervals.clone() {
                control.check()?;
                let leg = Leg {
                    step: k,
                    s,
                    t,
                    first,
                    count,
                };
                step(leg, states).map_err(|error| error.of_later_sample(first))?;
            }
            require_finite("the state", states, self.size)
                .map_err(|error| error.of_later_sample(first))?;
            first += count;
            control.report(first, n);
        }
        Ok(())
    }
}

/// Refuses numbers that are not finite, naming the first sample.
pub(crate) fn require_finite<T: Real>(
    what: &'static str,
    values: &[T],
    per_sample: usize,
) -> Result<(), ModelError> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(ModelError::NotFinite {
            what,
            sample: at / per_sample,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Five samples of two numbers in chunks of two, over three steps.
    fn walk(schedule: &Schedule) -> Walk<'_> {
        Walk {
            schedule,
            size: 2,
            chunk: 2,
        }
    }

    #[test]
    fn every_chunk_takes_every_step_in_order_and_back() {
        let schedule = Schedule::explicit(vec![0.0, 0.25, 0.5, 1.0]).unwrap();
        let reports = Mutex::new(Vec::new());
        let report = |done, total| reports.lock().unwrap().push((done, total));
        let control = Control {
            progress: Some(&report),
            cancel: None,
        };
        let start: Vec<f64> = (0..10).map(f64::from).collect();
        let mut states = start.clone();
        let mut legs = Vec::new();
        walk(&schedule)
            .forwards(&mut states, &control, |leg, states| {
                assert_eq!(states.len(), 2 * leg.count);
                assert_eq!((leg.s, leg.t), {
                    let times = schedule.times();
                    (times[leg.step], times[leg.step + 1])
                });
                states.iter_mut().for_each(|x| *x = *x * 2.0 + leg.t);
                legs.push((leg.first, leg.count, leg.step));
                Ok(())
            })
            .unwrap();
        let expected: Vec<_> = [(0, 2), (2, 2), (4, 1)]
            .into_iter()
            .flat_map(|(first, count)| (0..3).map(move |k| (first, count, k)))
            .collect();
        assert_eq!(legs, expected);
        assert_eq!(states[9], ((9.0 * 2.0 + 0.25) * 2.0 + 0.5) * 2.0 + 1.0);
        walk(&schedule)
            .backwards(&mut states, &control, |leg, states| {
                states.iter_mut().for_each(|x| *x = (*x - leg.t) / 2.0);
                Ok(())
            })
            .unwrap();
        assert_eq!(states, start);
        let once = [(2, 5), (4, 5), (5, 5)];
        assert_eq!(reports.into_inner().unwrap(), [once, once].concat());
    }

    #[test]
    fn errors_name_the_sample_of_the_whole_array() {
        let schedule = Schedule::uniform(2, 0.0).unwrap();
        let mut states = vec![0.0f32; 10];
        let damaged = walk(&schedule).forwards(&mut states, &Control::default(), |leg, states| {
            if leg.first == 2 && leg.step == 1 {
                states[2] = f32::NAN;
            }
            Ok(())
        });
        assert!(matches!(
            damaged,
            Err(ModelError::NotFinite {
                what: "the state",
                sample: 3
            })
        ));
        let mut states = vec![0.0f32; 10];
        let refused =
            walk(&schedule).backwards(&mut states, &Control::default(), |leg, _| match leg.first {
                4 => require_finite("the log-determinant", &[f64::INFINITY], 1),
                _ => Ok(()),
            });
        assert!(matches!(
            refused,
            Err(ModelError::NotFinite {
                what: "the log-determinant",
                sample: 4
            })
        ));
    }

    #[test]
    fn a_request_to_stop_is_heard_before_the_next_step() {
        let schedule = Schedule::uniform(3, 0.0).unwrap();
        let cancel = AtomicBool::new(false);
        let control = Control {
            progress: None,
            cancel: Some(&cancel),
        };
        let mut taken = 0;
        let stopped = walk(&schedule).forwards(&mut [0.0f64; 10], &control, |_, _| {
            taken += 1;
            cancel.store(taken == 2, Ordering::Relaxed);
            Ok(())
        });
        assert!(matches!(stopped, Err(ModelError::Cancelled)));
        assert_eq!(taken, 2);
    }
}
