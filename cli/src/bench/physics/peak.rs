//! How many independent vector multiply-adds all threads together do in a second.

use std::time::Instant;

use boltzmap_kernels::simd::{Kernel, Lanes, Simd, dispatch};
use rayon::ThreadPool;

/// Chains that run beside each other: more than latency times throughput of any processor, fewer than its registers.
const CHAINS: usize = 12;
/// Rounds of one measurement, about ten milliseconds.
const ROUNDS: usize = 3_000_000;

struct Chains {
    seed: f32,
}

impl Kernel for Chains {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self) -> f32 {
        let factor = S::F32::splat(0.999);
        let mut sums = [S::F32::splat(self.seed); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, factor);
            }
        }
        sums.into_iter().map(Lanes::reduce_sum).sum()
    }
}

struct Width;

impl Kernel for Width {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self) -> usize {
        S::F32::WIDTH
    }
}

/// Lanes of a vector of `f32` on this processor.
pub fn lanes() -> usize {
    dispatch(Width)
}

/// Vector multiply-adds per second of all threads of a pool.
pub fn multiply_adds(pool: &ThreadPool) -> f64 {
    let barrier = std::sync::Barrier::new(pool.current_num_threads());
    let seconds = pool
        .broadcast(|_| {
            barrier.wait();
            let clock = Instant::now();
            std::hint::black_box(dispatch(Chains {
                seed: std::hint::black_box(1.0),
            }));
            clock.elapsed().as_secs_f64()
        })
        .into_iter()
        .fold(0.0, f64::max);
    (CHAINS * ROUNDS * pool.current_num_threads()) as f64 / seconds
}
