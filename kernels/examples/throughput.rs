//! Prints the throughput of the kernels on this machine: `cargo run --release -p boltzmap-kernels --example throughput`.

use boltzmap_kernels::elementwise::{Dot, Map1, Unary};
use boltzmap_kernels::gemm::{BatchedGemmShape, GemmShape, batched_gemm_on, gemm};
use boltzmap_kernels::linalg::log_abs_det_in_place_on;
use boltzmap_kernels::random::{LaneStreams, Stream, StreamPosition};
use boltzmap_kernels::rows::{LayerNormRows, SoftmaxRows};
use boltzmap_kernels::{Kernel, Lanes, Real, Simd, Tier, dispatch_on};
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

/// Seconds per element of elementwise and row kernels, in cache.
fn maps<T: Real>() {
    let (x, mut y) = (normals::<T>(4096), vec![T::zero(); 4096]);
    for tier in Tier::available() {
        print!("{} {} ns per element:", T::NAME, tier.name());
        for &function in Unary::ALL {
            let seconds = time(|| {
                dispatch_on(
                    tier,
                    Map1 {
                        function,
                        x: &x,
                        y: &mut y,
                    },
                )
            });
            print!(" {function:?} {:.2}", seconds / 4096.0 * 1e9);
        }
        let seconds = time(|| {
            dispatch_on(
                tier,
                SoftmaxRows {
                    x: &x[..22 * 186],
                    columns: 22,
                    y: &mut y[..22 * 186],
                },
            )
        });
        print!(" softmax(22) {:.2}", seconds / 4092.0 * 1e9);
        let mut r = [T::zero(); 32];
        let seconds = time(|| {
            dispatch_on(
                tier,
                LayerNormRows {
                    x: &x,
                    columns: 128,
                    epsilon: 1e-5,
                    y: &mut y,
                    reciprocal_std: &mut r,
                },
            )
        });
        print!(" layer norm(128) {:.2}", seconds / 4096.0 * 1e9);
        let seconds = time(|| {
            std::hint::black_box(dispatch_on(tier, Dot { a: &x, b: &x }));
        });
        println!(" squared norm {:.2}", seconds / 4096.0 * 1e9);
    }
}

/// Draws normals and keeps a sum.
struct Draw<T>(usize, std::marker::PhantomData<T>);

impl<T: Real> Kernel for Draw<T> {
    type Output = (f64, usize);

    #[inline(always)]
    fn run<S: Simd>(self) -> (f64, usize) {
        let width = T::Lanes::<S>::WIDTH;
        let positions: Vec<StreamPosition> = (0..width as u64)
            .map(|index| StreamPosition {
                seed: 0,
                domain: 0,
                index,
                word: 0,
            })
            .collect();
        let mut streams = LaneStreams::<S, T>::new(&positions);
        let mut sum = T::Lanes::<S>::zero();
        for _ in 0..self.0 {
            sum = sum + streams.next_normals();
        }
        (sum.reduce_sum().as_f64(), width)
    }
}

fn random_numbers<T: Real>() {
    for tier in Tier::available() {
        let mut width = 1;
        let seconds = time(|| {
            width =
                std::hint::black_box(dispatch_on(tier, Draw::<T>(4096, std::marker::PhantomData))).1
        });
        let each = seconds / 4096.0 * 1e9;
        println!(
            "{} {} normals: {each:.2} ns per vector of {width}, {:.2} per number",
            T::NAME,
            tier.name(),
            each / width as f64
        );
    }
    let (mut stream, mut values) = (Stream::new(0, 0, 0), vec![T::zero(); 4096]);
    let seconds = time(|| stream.fill_standard_normal(&mut values));
    println!(
        "{} one stream: {:.2} ns per normal",
        T::NAME,
        seconds / 4096.0 * 1e9
    );
}

fn determinants() {
    for n in [9, 57, 60, 63, 123] {
        let a = normals::<f64>(n * n);
        let mut copy = a.clone();
        for tier in Tier::available() {
            let seconds = time(|| {
                copy.copy_from_slice(&a);
                std::hint::black_box(log_abs_det_in_place_on(tier, &mut copy, n));
            });
            print!(
                "log|det| n = {n} {}: {:.1} us, ",
                tier.name(),
                seconds * 1e6
            );
        }
        let seconds = time(|| {
            std::hint::black_box(faer::MatRef::from_row_major_slice(&a, n, n).partial_piv_lu());
        });
        println!("faer LU {:.1} us", seconds * 1e6);
    }
}

fn main() {
    println!("tier {}", Tier::active().name());
    random_numbers::<f32>();
    random_numbers::<f64>();
    determinants();
    maps::<f32>();
    maps::<f64>();
    products::<f32>();
    products::<f64>();
}
