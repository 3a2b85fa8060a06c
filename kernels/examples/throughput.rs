//! Prints the throughput of the kernels on this machine: `cargo run --release -p boltzmap-kernels --example throughput`.

use boltzmap_kernels::gemm::{BatchedGemmShape, GemmShape, batched_gemm_on, gemm};
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::{Real, Tier};
use std::time::Instant;

/// Seconds per call: the best of several rounds.
fn time(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let mut repeats = 1;
    for _ in 0..12 {
        let start = Instant::now();
        for _ in 0..repeats {
            work();
        }
        let seconds = start.elapsed().as_secs_f64();
        best = best.min(seconds / repeats as f64);
        if seconds < 0.02 {
            repeats = (repeats as f64 * 0.02 / seconds.max(1e-9)).ceil().min(1e6) as usize;
        }
    }
    best
}

fn normals<T: Real>(count: usize) -> Vec<T> {
    let mut values = vec![T::zero(); count];
    Stream::new(0, 0, 0).fill_standard_normal(&mut values);
    values
}

fn products<T: Real>() {
    for (m, n, k) in [
        (1408, 512, 128),
        (1408, 128, 512),
        (352, 128, 128),
        (64, 64, 64),
        (22, 128, 128),
    ] {
        for (ta, tb) in [(false, false), (false, true), (true, false)] {
            let (a, b, mut c) = (
                normals::<T>(m * k),
                normals::<T>(k * n),
                normals::<T>(m * n),
            );
            let shape = GemmShape { m, n, k };
            let seconds = time(|| gemm(shape, T::one(), &a, ta, &b, tb, T::zero(), &mut c));
            let rate = 2.0 * (m * n * k) as f64 / seconds * 1e-9;
            println!(
                "gemm {} {m}x{k} {k}x{n} transposed {ta} {tb}: {rate:.0} GFLOP/s",
                T::NAME
            );
        }
    }
    for (m, n, k) in [
        (22, 22, 16),
        (22, 16, 22),
        (22, 32, 22),
        (22, 22, 32),
        (60, 60, 60),
        (9, 9, 8),
    ] {
        let batch = BatchedGemmShape::contiguous(64, m, n, k);
        let (a, b, mut c) = (
            normals::<T>(64 * m * k),
            normals::<T>(64 * k * n),
            normals::<T>(64 * m * n),
        );
        for (ta, tb) in [(false, false), (false, true), (true, false)] {
            for tier in Tier::available() {
                let seconds = time(|| {
                    batched_gemm_on(tier, batch, T::one(), &a, ta, &b, tb, T::zero(), &mut c)
                });
                let rate = 2.0 * (64 * m * n * k) as f64 / seconds * 1e-9;
                print!(
                    "{} {}x{k} {k}x{n} {ta} {tb} {}: {rate:.0}; ",
                    T::NAME,
                    m,
                    tier.name()
                );
            }
            let seconds = time(|| {
                for i in 0..64 {
                    let c = &mut c[i * m * n..];
                    gemm(
                        batch.shape,
                        T::one(),
                        &a[i * m * k..],
                        ta,
                        &b[i * k * n..],
                        tb,
                        T::zero(),
                        c,
                    );
                }
            });
            println!(
                "faer {:.0} GFLOP/s",
                2.0 * (64 * m * n * k) as f64 / seconds * 1e-9
            );
        }
    }
}

fn main() {
    println!("tier {}", Tier::active().name());
    products::<f32>();
    products::<f64>();
}
