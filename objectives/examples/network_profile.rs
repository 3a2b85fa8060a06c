//! Where the time of one block of a network's program goes, and how fast a batch runs.
//!
//! `cargo run --release -p boltzmap-objectives --example network_profile -- [network] [task] [block] [batch] [tangents]`
//! with the network `dit-128`, `dit-256` or `mlp-512` and the task `forward`, `jvp`, `diagonal` or `lagrangian` (value and
//! gradient of the loss), `divergence` or `log-det` (exact, with that many tangents at a time). `BOLTZMAP_PROFILE=print`
//! prints the program.

use boltzmap_autodiff::{
    Batched, InputRole, Jacobian, OutputRole, grad, ir::Program, jvp, optimize,
};
use boltzmap_models::flow_map::{FlowMap, FlowMapConfig};
use boltzmap_models::network::{DitConfig, MlpConfig, NetworkConfig};
use boltzmap_models::subspace::Subspace;
use boltzmap_objectives::losses::{
    ConsistencyWeights, DiagonalWeights, LossShape, StopGradient, corrections_program,
    diagonal_loss, lagrangian_loss,
};
use std::collections::BTreeMap;
use std::time::Instant;

fn network(name: &str) -> NetworkConfig {
    let dit = |tokens, width, layers, heads| {
        NetworkConfig::Dit(DitConfig {
            tokens,
            channels: 3,
            width,
            layers,
            heads,
            mlp_ratio: 4,
            conditioning_width: width,
            time_frequencies: 16,
        })
    };
    match name {
        "dit-256" => dit(63, 256, 6, 8),
        "mlp-512" => NetworkConfig::Mlp(MlpConfig {
            tokens: 1,
            channels: 2,
            width: 512,
            blocks: 4,
            conditioning_width: 64,
            time_frequencies: 16,
        }),
        _ => dit(22, 128, 4, 4),
    }
}

/// The program, its number of shared inputs and whether its outputs are sums.
fn task_program(map: &FlowMap, task: &str, block: usize) -> (Program, usize, bool) {
    let corrections = corrections_program(map, block);
    let count = map.layout().count();
    let wrt: Vec<usize> = (0..count).collect();
    let shape = LossShape {
        block,
        tokens: map.tokens(),
        channels: map.channels(),
        kappa: 1.0,
    };
    match task {
        "forward" => (corrections, count, false),
        "jvp" => (jvp(&corrections, &[count, count + 2], None), count, false),
        "lagrangian" => {
            let weights = ConsistencyWeights {
                map: 1.0,
                divergence: 1.0,
            };
            let loss = lagrangian_loss(&corrections, shape, weights, StopGradient::Target);
            (grad(loss.program(), &wrt), loss.shared(), true)
        }
        _ => {
            let weights = DiagonalWeights {
                velocity: 1.0,
                divergence: 1.0,
            };
            let loss = diagonal_loss(&corrections, shape, weights);
            (grad(loss.program(), &wrt), loss.shared(), true)
        }
    }
}

fn noise(n: usize, offset: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i + offset) * 2_654_435_761 % 1_000_003) as f32 / 1_000_003.0 - 0.5)
        .collect()
}

/// The costliest kinds of steps.
fn print_profile(what: &str, report: &[(String, usize, f64)]) {
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
        "{what} on one thread: {:.2} ms in {} steps",
        total * 1e3,
        report.len()
    );
    for (what, (seconds, count, operations)) in kinds.iter().take(45) {
        let rate = *operations as f64 / seconds / 1e9;
        println!(
            "{:8.1} us {count:3} x {rate:6.1} GFLOP/s  {what}",
            seconds * 1e6
        );
    }
}

/// Seconds of 12 runs after a first, sorted.
fn timed(mut run: impl FnMut()) -> Vec<f64> {
    run();
    let mut times: Vec<f64> = (0..12)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn print_times(what: &str, times: &[f64], operations: f64) {
    println!(
        "{what}: least {:.1} ms, median {:.1} ms, {:.2} GFLOP, {:.0} GFLOP/s",
        times[0] * 1e3,
        times[times.len() / 2] * 1e3,
        operations / 1e9,
        operations / times[0] / 1e9
    );
}

/// Inputs of a program for a batch: shared ones around 0, the others between 0 and 1.
fn batch_inputs(program: &Program, shared: usize, block: usize, batch: usize) -> Vec<Vec<f32>> {
    (0..program.inputs.len())
        .map(|i| {
            let n: usize = program.input_shape(i).iter().product();
            let n = if i < shared { n } else { n / block * batch };
            let (scale, shift) = if i < shared { (0.2, 0.0) } else { (0.9, 0.5) };
            let values = noise(n, i);
            values.iter().map(|x| x * scale + shift).collect()
        })
        .collect()
}

fn jacobian(map: &FlowMap, task: &str, block: usize, samples: usize, tangents: usize) {
    let program = map.velocity_program(block);
    let parameters = map.layout().count();
    let inputs = batch_inputs(&program, parameters, block, samples);
    let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut roles = vec![InputRole::Shared; parameters];
    roles.resize(inputs.len(), InputRole::PerBlock { axis: 0 });
    let jacobian = Jacobian::<f32>::compile(&program, parameters, 0, roles, None, tangents);
    let divergence = task == "divergence";
    let times = timed(|| match divergence {
        true => drop(std::hint::black_box(jacobian.trace(samples, &slices, None))),
        false => drop(std::hint::black_box(
            jacobian.log_abs_det(samples, &slices, None),
        )),
    });
    let operations = match divergence {
        true => jacobian.diagonal_product_operations(samples),
        false => jacobian.product_operations(samples),
    };
    let what = format!("{task} of {samples} samples, blocks of {block}, {tangents} tangents");
    print_times(&what, &times, operations);
    let [primal, chunk] = jacobian.profile(divergence, samples, &slices, 20);
    print_profile("once for a block", &primal);
    let chunks = jacobian.chunk_count();
    print_profile(&format!("the first of {chunks} chunks of tangents"), &chunk);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let text = |i: usize, default: &'static str| arguments.get(i).map_or(default, |a| a.as_str());
    let number = |i: usize, default: usize| text(i, "").parse().unwrap_or(default);
    let (name, task) = (text(1, "dit-128"), text(2, "diagonal"));
    let (block, batch) = (number(3, 16), number(4, 256));
    let map = FlowMap::new(&FlowMapConfig {
        subspace: Subspace::Full,
        network: network(name),
    })
    .unwrap_or_else(|error| panic!("{error}"));
    if matches!(task, "divergence" | "log-det") {
        return jacobian(&map, task, number(3, 1), number(4, 64), number(5, 18));
    }
    let start = Instant::now();
    let (program, shared, summed) = task_program(&map, task, block);
    let program = optimize(&program);
    let traced = start.elapsed();
    if std::env::var("BOLTZMAP_PROFILE").is_ok_and(|value| value == "print") {
        println!("{program}");
    }
    let mut roles = vec![InputRole::Shared; shared];
    roles.resize(program.inputs.len(), InputRole::PerBlock { axis: 0 });
    let output_role = if summed {
        OutputRole::Summed
    } else {
        OutputRole::PerBlock { axis: 0 }
    };
    let start = Instant::now();
    let batched =
        Batched::<f32>::compile(&program, roles, vec![output_role; program.outputs.len()]);
    println!(
        "{} instructions, traced in {:.0} ms, planned in {:.0} ms, arena {:.1} MB",
        program.instructions.len(),
        traced.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3,
        batched.executable().arena_bytes() as f64 / 1e6
    );
    let length = |shape: &[usize]| shape.iter().product::<usize>();
    let inputs = batch_inputs(&program, shared, block, batch);
    let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let make = |samples: usize| -> Vec<Vec<f32>> {
        (0..program.outputs.len())
            .map(|i| {
                let n = length(program.output_shape(i));
                vec![0.0; if summed { n } else { n / block * samples }]
            })
            .collect()
    };
    let mut outputs = make(batch);
    let mut targets: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let times = timed(|| batched.run(batch, &slices, &mut targets));
    let operations = batched.executable().product_operations() as f64 * (batch / block) as f64;
    let what = format!("{name} {task}, batch {batch} in blocks of {block}");
    print_times(&what, &times, operations);
    let one_block: Vec<&[f32]> = (0..slices.len())
        .map(|i| &slices[i][..length(program.input_shape(i))])
        .collect();
    let mut outputs = make(block);
    let mut targets: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let report = batched.executable().profile(&one_block, &mut targets, 30);
    print_profile("one block", &report);
}
