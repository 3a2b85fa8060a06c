//! The order in which the blocks of a batch add to the sums they share.
//!
//! Every step that adds to a shared output is a place where blocks take turns: block b adds after block b − 1 has. So
//! each sum is one chain over the blocks in order, whatever the number of threads, without a second array. Threads fall
//! into step one turn apart and then hardly wait.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Blocks that have taken their turn, for every place.
#[derive(Debug)]
pub(super) struct Turns {
    done: Vec<AtomicUsize>,
    /// A block panicked: nobody may wait for it.
    broken: AtomicBool,
}

/// Looks at the counter so many times before giving the processor away.
const SPINS: usize = 2000;

impl Turns {
    pub(super) fn new(places: usize) -> Self {
        Self {
            done: (0..places).map(|_| AtomicUsize::new(0)).collect(),
            broken: AtomicBool::new(false),
        }
    }

    /// Waits until all blocks before this one have been at the place, then runs `work` there.
    ///
    /// # Panics
    /// When another block panicked.
    pub(super) fn take(&self, place: usize, block: usize, work: impl FnOnce()) {
        let mut looked = 0;
        while self.done[place].load(Ordering::Acquire) != block {
            assert!(
                !self.broken.load(Ordering::Relaxed),
                "another block of the batch panicked"
            );
            looked += 1;
            if looked < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        work();
        self.done[place].store(block + 1, Ordering::Release);
    }

    /// Lets nobody wait for ever when the current block panics before the returned guard is dropped.
    pub(super) fn guard(&self) -> Guard<'_> {
        Guard(self)
    }
}

/// Marks the turns as broken when dropped during a panic.
pub(super) struct Guard<'t>(&'t Turns);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}
