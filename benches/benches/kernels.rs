//! Kernels at the shapes that networks and audits really use: `cargo bench -p boltzmap-benches --bench kernels`.

use std::hint::black_box;

use boltzmap_kernels::elementwise::{Unary, map1};
use boltzmap_kernels::gemm::{BatchedGemmShape, GemmShape, batched_gemm, gemm};
use boltzmap_kernels::linalg::log_abs_det;
use boltzmap_kernels::random::Stream;
use boltzmap_kernels::rows::softmax_rows;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn normals(n: usize) -> Vec<f32> {
    let mut values = vec![0.0; n];
    Stream::new(1, 2, 3).fill_standard_normal(&mut values);
    values
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm f32, elements are flops");
    // Rows: 32 samples of 22 tokens; the layers of a transformer 128 wide.
    for (name, m, n, k) in [
        ("feed-forward up 704x512x128", 704, 512, 128),
        ("feed-forward down 704x128x512", 704, 128, 512),
        ("attention qkv 704x384x128", 704, 384, 128),
    ] {
        let (a, b, mut c) = (normals(m * k), normals(k * n), vec![0.0; m * n]);
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                gemm(
                    GemmShape { m, n, k },
                    1.0,
                    black_box(&a),
                    false,
                    &b,
                    false,
                    0.0,
                    &mut c,
                )
            });
        });
    }
    let (batch, m, n, k) = (1024, 22, 22, 16);
    let (a, b, mut c) = (
        normals(batch * m * k),
        normals(batch * k * n),
        vec![0.0; batch * m * n],
    );
    group.throughput(Throughput::Elements(2 * (batch * m * n * k) as u64));
    group.bench_function("attention scores 1024 of 22x22x16", |bench| {
        let shape = BatchedGemmShape::contiguous(batch, m, n, k);
        bench.iter(|| batched_gemm(shape, 1.0, black_box(&a), false, &b, false, 0.0, &mut c));
    });
    group.finish();
}

fn functions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("functions f32");
    let n = 2048;
    let (x, mut y) = (normals(n), vec![0.0; n]);
    group.throughput(Throughput::Elements(n as u64));
    for (name, function) in [
        ("exp 2048", Unary::Exp),
        ("gelu 2048", Unary::Gelu),
        ("tanh 2048", Unary::Tanh),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| map1(function, black_box(&x), &mut y))
        });
    }
    let (x, mut y) = (normals(4 * 22 * 22 * 32), vec![0.0; 4 * 22 * 22 * 32]);
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("softmax 2816 rows of 22", |bench| {
        bench.iter(|| softmax_rows(black_box(&x), 22, &mut y));
    });
    group.finish();
    let matrix: Vec<f64> = normals(60 * 60).iter().map(|&x| x as f64).collect();
    criterion.bench_function("log|det| 60x60 f64", |bench| {
        bench.iter(|| log_abs_det(black_box(&matrix), 60))
    });
}

criterion_group!(benches, products, functions);
criterion_main!(benches);
