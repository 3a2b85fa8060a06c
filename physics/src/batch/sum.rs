//! Sums of many terms in lanes, with little of single precision's rounding.

use boltzmap_kernels::simd::Lanes;

/// A sum whose rounding errors are summed beside it (Knuth's two-sum).
#[derive(Clone, Copy)]
pub(super) struct CompensatedSum<L> {
    sum: L,
    error: L,
}

impl<L: Lanes> CompensatedSum<L> {
    #[inline(always)]
    pub(super) fn zero() -> Self {
        Self {
            sum: L::zero(),
            error: L::zero(),
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, value: L) {
        let sum = self.sum + value;
        let part = sum - self.sum;
        self.error = self.error + ((self.sum - (sum - part)) + (value - part));
        self.sum = sum;
    }

    /// The sum; where it has overflowed, its error is no number and left out.
    #[inline(always)]
    pub(super) fn total(self) -> L {
        let total = self.sum + self.error;
        L::select(self.error.eq(self.error), total, self.sum)
    }
}

/// Terms that are added plainly before their sum goes to a [`CompensatedSum`].
pub(super) const BLOCK: usize = 16;

/// A sum of blocks of [`BLOCK`] terms.
#[derive(Clone, Copy)]
pub(super) struct BlockSum<L> {
    pub(super) block: L,
    blocks: CompensatedSum<L>,
}

impl<L: Lanes> BlockSum<L> {
    #[inline(always)]
    pub(super) fn zero() -> Self {
        Self {
            block: L::zero(),
            blocks: CompensatedSum::zero(),
        }
    }

    /// Ends a block.
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        self.blocks.add(self.block);
        self.block = L::zero();
    }

    #[inline(always)]
    pub(super) fn total(mut self) -> L {
        self.flush();
        self.blocks.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::simd::{Portable, Simd};

    #[test]
    fn a_compensated_sum_keeps_what_a_plain_one_loses() {
        type Wide = <Portable as Simd>::F32;
        let (mut plain, mut compensated) = (Wide::zero(), CompensatedSum::<Wide>::zero());
        let mut exact = 0.0;
        for k in 0..10_000 {
            let value = (f64::from(k) * 0.7).sin() as f32 + 1.0;
            exact += f64::from(value);
            plain = plain + Wide::splat(value);
            compensated.add(Wide::splat(value));
        }
        let error = |found: f32| (f64::from(found) - exact).abs();
        assert!(error(compensated.total().first()) < 5e-4);
        assert!(error(plain.first()) > 5e-3, "{}", error(plain.first()));
        let mut overflown = CompensatedSum::<Wide>::zero();
        overflown.add(Wide::splat(3e38));
        overflown.add(Wide::splat(3e38));
        overflown.add(Wide::splat(1.0));
        assert_eq!(overflown.total().first(), f32::INFINITY);
    }
}
