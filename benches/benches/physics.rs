//! Energies and forces of alanine dipeptide, one conformation per lane:
//! `cargo bench -p boltzmap-benches --bench physics`.

use std::hint::black_box;

use boltzmap_kernels::random::Stream;
use boltzmap_physics::{BatchEvaluator, ForceField, build_sequence, energy_forces_reference};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn evaluations(criterion: &mut Criterion) {
    let (topology, positions) = build_sequence("Ace-A-Nme").expect("a known sequence");
    let system = ForceField::amber99sbildn_obc2()
        .system(&topology)
        .expect("a molecule with parameters");
    let n = 4096;
    let mut stream = Stream::new(1, 0, 0);
    let frames: Vec<f64> = (0..n)
        .flat_map(|_| positions.clone())
        .map(|x| x + 0.002 * stream.standard_normal())
        .collect();
    let narrow: Vec<f32> = frames.iter().map(|&x| x as f32).collect();
    let mut group = criterion.benchmark_group("alanine dipeptide, energy and forces");
    group.throughput(Throughput::Elements(n as u64));
    let evaluator = BatchEvaluator::<f32>::new(&system);
    let (mut energies, mut forces) = (vec![0.0; n], vec![0.0f32; narrow.len()]);
    group.bench_function("f32, 4096 conformations, all threads", |bench| {
        bench.iter(|| {
            evaluator.energies_forces(black_box(&narrow), &mut energies, Some(&mut forces))
        });
    });
    let evaluator = BatchEvaluator::<f64>::new(&system);
    let mut forces = vec![0.0f64; frames.len()];
    group.bench_function("f64, 4096 conformations, all threads", |bench| {
        bench.iter(|| {
            evaluator.energies_forces(black_box(&frames), &mut energies, Some(&mut forces))
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("f64 reference, one conformation", |bench| {
        bench.iter(|| energy_forces_reference(&system, black_box(&positions)));
    });
    group.finish();
}

criterion_group!(benches, evaluations);
criterion_main!(benches);
