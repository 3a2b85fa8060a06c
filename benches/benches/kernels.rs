//! Kernels at the shapes that networks and audits really use: `cargo bench -p boltzmap-benches --bench kernels`.
//!
//! The transformer is DiT-128 (128 wide, 4 heads, 22 tokens, feed-forward ×4) over blocks of 16 samples: 352 rows.

use std::hint::black_box;

use boltzmap_kernels::elementwise::{AdamWStep, Unary, adamw_ema, map1, squared_norm};
use boltzmap_kernels::gemm::{BatchedGemmShape, GemmShape, batched_gemm, gemm};
use boltzmap_kernels::linalg::log_abs_det;
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::rows::{
    layer_norm_rows, layer_norm_tangent_rows, softmax_rows, softmax_tangent_rows,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SAMPLES: usize = 16;
const TOKENS: usize = 22;
const WIDTH: usize = 128;
const HEADS: usize = 4;
/// Rows of a block: one per token.
const ROWS: usize = SAMPLES * TOKENS;

fn normals(n: usize) -> Vec<f32> {
    let mut values = vec![0.0; n];
    Stream::new(1, 2, 3).fill_standard_normal(&mut values);
    values
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("DiT-128 products f32, elements are flops");
    for (name, m, n, k, transpose_a, transpose_b) in [
        ("qkv 352x384x128", ROWS, 3 * WIDTH, WIDTH, false, true),
        (
            "qkv, gradient of x 352x128x384",
            ROWS,
            WIDTH,
            3 * WIDTH,
            false,
            false,
        ),
        (
            "qkv, gradient of W 384x128x352",
            3 * WIDTH,
            WIDTH,
            ROWS,
            true,
            false,
        ),
        (
            "attention output 352x128x128",
            ROWS,
            WIDTH,
            WIDTH,
            false,
            true,
        ),
        (
            "feed-forward up 352x512x128",
            ROWS,
            4 * WIDTH,
            WIDTH,
            false,
            true,
        ),
        (
            "feed-forward down 352x128x512",
            ROWS,
            WIDTH,
            4 * WIDTH,
            false,
            true,
        ),
        (
            "feed-forward up, gradient of W 512x128x352",
            4 * WIDTH,
            WIDTH,
            ROWS,
            true,
            false,
        ),
        (
            "modulation 16x768x128",
            SAMPLES,
            6 * WIDTH,
            WIDTH,
            false,
            true,
        ),
        (
            "22 tangents of 2 samples, feed-forward up 968x512x128",
            968,
            512,
            128,
            false,
            true,
        ),
    ] {
        let (a, b, mut c) = (normals(m * k), normals(k * n), vec![0.0; m * n]);
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        group.bench_function(name, |bench| {
            let shape = GemmShape { m, n, k };
            bench.iter(|| {
                gemm(
                    shape,
                    1.0,
                    black_box(&a),
                    transpose_a,
                    &b,
                    transpose_b,
                    0.0,
                    &mut c,
                )
            });
        });
    }
    let (batch, head) = (SAMPLES * HEADS, WIDTH / HEADS);
    for (name, m, n, k, transpose_b) in [
        (
            "attention scores 64 of 22x22x32",
            TOKENS,
            TOKENS,
            head,
            true,
        ),
        (
            "attention values 64 of 22x32x22",
            TOKENS,
            head,
            TOKENS,
            false,
        ),
    ] {
        let (a, b) = (normals(batch * m * k), normals(batch * k * n));
        let mut c = vec![0.0; batch * m * n];
        let shape = BatchedGemmShape::contiguous(batch, m, n, k);
        group.throughput(Throughput::Elements(2 * (batch * m * n * k) as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                batched_gemm(
                    shape,
                    1.0,
                    black_box(&a),
                    false,
                    &b,
                    transpose_b,
                    0.0,
                    &mut c,
                )
            });
        });
    }
    group.finish();
}

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("DiT-128 rows f32");
    let scores = SAMPLES * HEADS * TOKENS * TOKENS;
    let (x, direction, mut y) = (normals(scores), normals(scores), vec![0.0; scores]);
    group.throughput(Throughput::Elements(scores as u64));
    group.bench_function("softmax 1408 rows of 22", |bench| {
        bench.iter(|| softmax_rows(black_box(&x), TOKENS, &mut y));
    });
    let softmax = y.clone();
    group.bench_function("softmax tangent 1408 rows of 22", |bench| {
        bench.iter(|| softmax_tangent_rows(black_box(&softmax), &direction, TOKENS, &mut y));
    });
    let activations = ROWS * WIDTH;
    let (x, direction) = (normals(activations), normals(activations));
    let (mut y, mut tangent) = (vec![0.0; activations], vec![0.0; activations]);
    let mut deviation = vec![0.0; ROWS];
    group.throughput(Throughput::Elements(activations as u64));
    group.bench_function("layer norm 352 rows of 128", |bench| {
        bench.iter(|| layer_norm_rows(black_box(&x), WIDTH, 1e-6, &mut y, &mut deviation));
    });
    group.bench_function("layer norm tangent 352 rows of 128", |bench| {
        bench.iter(|| {
            layer_norm_tangent_rows(black_box(&y), &deviation, &direction, WIDTH, &mut tangent)
        });
    });
    group.finish();
}

fn functions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("functions f32");
    let (x, mut y) = (normals(2048), vec![0.0; 2048]);
    group.throughput(Throughput::Elements(2048));
    for (name, function) in [
        ("exp 2048", Unary::Exp),
        ("tanh 2048", Unary::Tanh),
        ("sigmoid 2048", Unary::Sigmoid),
        ("erf 2048", Unary::Erf),
        ("sin 2048", Unary::Sin),
        ("cos 2048", Unary::Cos),
        ("rsqrt 2048", Unary::Rsqrt),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| map1(function, black_box(&x), &mut y));
        });
    }
    let positive: Vec<f32> = x.iter().map(|x| x.abs() + 0.1).collect();
    group.bench_function("ln 2048", |bench| {
        bench.iter(|| map1(Unary::Ln, black_box(&positive), &mut y));
    });
    // The hidden layer of the feed-forward network of a block.
    let (x, mut y) = (normals(ROWS * 4 * WIDTH), vec![0.0; ROWS * 4 * WIDTH]);
    group.throughput(Throughput::Elements(x.len() as u64));
    for (name, function) in [
        ("gelu 352x512", Unary::Gelu),
        ("derivative of gelu 352x512", Unary::GeluPrime),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| map1(function, black_box(&x), &mut y));
        });
    }
    group.finish();
}

fn optimiser(criterion: &mut Criterion) {
    // Parameters of DiT-128 with 4 layers, about.
    let count = 1_250_000;
    let gradient = normals(count);
    let mut state: Vec<Vec<f32>> = (0..4).map(|_| vec![0.01; count]).collect();
    let [parameters, first, second, average] = state.as_mut_slice() else {
        unreachable!("there are four vectors")
    };
    let mut group = criterion.benchmark_group("optimiser f32, one thread");
    group.throughput(Throughput::Elements(count as u64));
    let mut number = 0;
    group.bench_function("adamw with moving average 1250000", |bench| {
        bench.iter(|| {
            number += 1;
            let step = AdamWStep {
                step: number,
                learning_rate: 1e-4,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.01,
                gradient_scale: 1.0,
                ema_decay: 0.999,
            };
            adamw_ema(
                parameters,
                black_box(&gradient),
                first,
                second,
                average,
                step,
            );
        });
    });
    group.bench_function("norm of the gradient 1250000", |bench| {
        bench.iter(|| squared_norm(black_box(&gradient)));
    });
    group.finish();
}

fn determinants(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log|det| f64");
    for n in [60, 66, 189] {
        let matrix: Vec<f64> = normals(n * n).iter().map(|&x| f64::from(x)).collect();
        group.bench_function(format!("{n}x{n}"), |bench| {
            bench.iter(|| log_abs_det(black_box(&matrix), n));
        });
    }
    group.finish();
}

criterion_group!(benches, products, rows, functions, optimiser, determinants);
criterion_main!(benches);
