//! Progress reports and cancellation of long work.

use std::sync::atomic::{AtomicBool, Ordering};

/// The work was stopped by its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Watches long work: a callback told (samples done, samples in all), and a flag that stops the work when it is set.
#[derive(Clone, Copy, Default)]
pub struct Control<'a> {
    /// Called from the calling thread, or one at a time from workers.
    pub progress: Option<&'a (dyn Fn(usize, usize) + Sync)>,
    /// Set it to stop.
    pub cancel: Option<&'a AtomicBool>,
}

impl Control<'_> {
    /// Tells the callback how far the work is.
    pub fn report(&self, done: usize, total: usize) {
        if let Some(progress) = self.progress {
            progress(done, total);
        }
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`Cancelled`] once the flag is set.
    pub fn check(&self) -> Result<(), Cancelled> {
        match self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Cancelled),
            _ => Ok(()),
        }
    }
}
