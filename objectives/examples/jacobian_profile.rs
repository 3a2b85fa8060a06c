//! Where the time of exact divergences and Jacobians goes.
//!
//! `cargo run --release -p boltzmap-objectives --example jacobian_profile -- [network] [task] [block] [samples]
//! [tangents]` with the network `dit-128` or `dit-256` and the task `divergence` or `matrix`.

use boltzmap_autodiff::{InputRole, Jacobian};
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{DitConfig, NetworkConfig};
use boltzmap_models::subspace::Subspace;
use std::collections::BTreeMap;
use std::time::Instant;

fn noise(n: usize, offset: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i + offset) * 2_654_435_761 % 1_000_003) as f32 / 1_000_003.0 - 0.5)
        .collect()
}

/// The costliest kinds of steps, each step run this many times.
fn print(what: &str, report: &[(String, usize, f64)], times: usize) {
    let mut kinds: BTreeMap<&str, (f64, usize, usize)> = BTreeMap::new();
    for (what, operations, seconds) in report {
        let entry = kinds.entry(what).or_default();
        entry.0 += seconds;
        entry.1 += 1;
        entry.2 += operations;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let total: f64 = report.iter().map(|step| step.2).sum();
    println!(
        "{what}: {times} x {:.2} ms in {} steps",
        total * 1e3,
        report.len()
    );
    for (what, (seconds, count, operations)) in kinds.iter().take(30) {
        let rate = *operations as f64 / seconds / 1e9;
        println!(
            "{:8.1} us {count:3} x {rate:6.1} GFLOP/s  {what}",
            seconds * 1e6
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let text = |i: usize, default: &'static str| arguments.get(i).map_or(default, |a| a.as_str());
    let number = |i: usize, default: usize| text(i, "").parse().unwrap_or(default);
    let (name, diagonal) = (text(1, "dit-128"), text(2, "divergence") != "matrix");
    let large = name == "dit-256";
    let block = number(3, if large { 1 } else { 2 });
    let samples = number(4, if large { 8 } else { 64 });
    let tangents = number(5, 22);
    let (tokens, width, layers, heads) = if large {
        (63, 256, 6, 8)
    } else {
        (22, 128, 4, 4)
    };
    let map = FlowMap::new(&FlowMapConfig {
        subspace: Subspace::Full,
        network: NetworkConfig::Dit(DitConfig {
            tokens,
            channels: 3,
            width,
            layers,
            heads,
            mlp_ratio: 4,
            conditioning_width: width,
            time_frequencies: 16,
        }),
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let program = map.velocity_program(block);
    let parameters = map.layout().count();
    let roles = (0..program.inputs.len())
        .map(|i| match i < parameters {
            true => InputRole::Shared,
            false => InputRole::PerBlock { axis: 0 },
        })
        .collect();
    let inputs: Vec<Vec<f32>> = (0..program.inputs.len())
        .map(|i| {
            let n: usize = program.input_shape(i).iter().product();
            let n = if i < parameters {
                n
            } else {
                n / block * samples
            };
            let (scale, shift) = if i < parameters {
                (0.2, 0.0)
            } else {
                (0.9, 0.5)
            };
            noise(n, i).iter().map(|x| x * scale + shift).collect()
        })
        .collect();
    let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let jacobian = Jacobian::<f32>::compile(&program, parameters, 0, roles, None, tangents);
    let run = || match diagonal {
        true => jacobian.trace(samples, &slices, None),
        false => {
            let results = jacobian.log_abs_det(samples, &slices, None);
            results.iter().map(|result| result.0).collect()
        }
    };
    println!("first result {:.6}", run()[0]);
    let mut times: Vec<f64> = (0..12)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(run());
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let operations = match diagonal {
        true => jacobian.diagonal_product_operations(samples),
        false => jacobian.product_operations(samples),
    };
    println!(
        "{name}, {samples} samples in blocks of {block}, {tangents} tangents: least {:.1} ms, median {:.1} ms, {:.2} GFLOP, {:.0} GFLOP/s",
        times[0] * 1e3,
        times[times.len() / 2] * 1e3,
        operations / 1e9,
        operations / times[0] / 1e9
    );
    let [primal, chunk] = jacobian.profile(diagonal, samples, &slices, 20);
    print("once for a block, on one thread", &primal, 1);
    print("first chunk, on one thread", &chunk, jacobian.chunk_count());
}
