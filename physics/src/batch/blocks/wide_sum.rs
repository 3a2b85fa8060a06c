//! Sums in lanes that go on in double precision.

use boltzmap_kernels::real::Real;
use boltzmap_kernels::simd::{Lanes, VirtualSum};

/// Blocks that are added in the lanes' own precision.
const BLOCKS: usize = 16;

/// A sum of blocks of lanes, in one order on every instruction set; a few blocks are added in the lanes and their sums in `f64`, so that
/// single precision does not lose the digits of large sums.
#[derive(Clone, Copy)]
pub(super) struct WideSum<L: Lanes> {
    /// Where a block's vectors are added.
    pub(super) sum: VirtualSum<L>,
    blocks: usize,
    total: f64,
}

impl<L: Lanes> Default for WideSum<L> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            sum: VirtualSum::default(),
            blocks: 0,
            total: 0.0,
        }
    }
}

impl<L: Lanes> WideSum<L> {
    /// To be called after every block.
    #[inline(always)]
    pub(super) fn end_block(&mut self) {
        self.blocks += 1;
        if self.blocks == BLOCKS {
            self.flush();
        }
    }

    #[inline(always)]
    fn flush(&mut self) {
        self.total += self.sum.total().as_f64();
        self.sum = VirtualSum::default();
        self.blocks = 0;
    }

    #[inline(always)]
    pub(super) fn total(mut self) -> f64 {
        self.flush();
        self.total
    }
}
