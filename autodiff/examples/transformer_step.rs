//! Times one training step of a transformer over atoms, as the executor sees it, and the largest of its steps.
//!
//! `cargo run --release -p boltzmap-autodiff --example transformer_step -- [batch] [block] [width] [profile|jvp|print|jacobian|divergence|hutchinson|jacobian-profile [tangents]]`

use boltzmap_autodiff::ir::Program;
use boltzmap_autodiff::{
    Batched, Builder, Executable, InputRole, Jacobian, OutputRole, Var, grad, jvp, optimize,
};
use std::time::Instant;

const TOKENS: usize = 22;
const LAYERS: usize = 4;
const HEADS: usize = 4;

/// Parameter shapes are pushed as they are used; input 0 is x, input 1 the target, input 2 the condition.
fn network<'b>(
    b: &'b Builder,
    x: Var<'b>,
    condition: Var<'b>,
    block: usize,
    width: usize,
) -> (Var<'b>, Vec<Var<'b>>) {
    let mut parameters = Vec::new();
    let mut parameter = |shape: &[usize]| {
        let p = b.input(&format!("p{}", parameters.len()), shape);
        parameters.push(p);
        p
    };
    let head = width / HEADS;
    let c = condition.matmul(parameter(&[64, width])) + parameter(&[width]); // [B, W]
    let c = c.silu();
    let mut h = x.matmul(parameter(&[3, width])) + parameter(&[TOKENS, width]); // [B, T, W]
    for _ in 0..LAYERS {
        let modulation = c.matmul(parameter(&[width, 6 * width])) + parameter(&[6 * width]); // [B, 6W]
        let part = |i: usize| {
            modulation
                .slice(1, i * width, width)
                .reshape(&[block, 1, width])
        };
        let n = h.layer_norm(1e-6) * (part(0) + 1.0) + part(1);
        let qkv = n.matmul(parameter(&[width, 3 * width])) + parameter(&[3 * width]); // [B, T, 3W]
        let heads = |i: usize| {
            qkv.slice(2, i * width, width)
                .reshape(&[block, TOKENS, HEADS, head])
                .permute(&[0, 2, 1, 3])
        };
        let scores = heads(0).matmul_t(heads(1)) * (1.0 / (head as f64).sqrt()); // [B, H, T, T]
        let mixed = scores
            .softmax()
            .matmul(heads(2))
            .permute(&[0, 2, 1, 3])
            .reshape(&[block, TOKENS, width]);
        let attended = mixed.matmul(parameter(&[width, width])) + parameter(&[width]);
        h = h + part(2) * attended;
        let n = h.layer_norm(1e-6) * (part(3) + 1.0) + part(4);
        let inner = (n.matmul(parameter(&[width, 4 * width])) + parameter(&[4 * width])).gelu();
        let outer = inner.matmul(parameter(&[4 * width, width])) + parameter(&[width]);
        h = h + part(5) * outer;
    }
    let y = h.layer_norm(1e-6).matmul(parameter(&[width, 3])) + parameter(&[3]);
    (y, parameters)
}

fn loss(block: usize, width: usize, with_jvp: bool) -> (Program, usize) {
    let n_parameters;
    let forward = {
        let b = Builder::new();
        let x = b.input("x", &[block, TOKENS, 3]);
        let condition = b.input("condition", &[block, 64]);
        let (y, parameters) = network(&b, x, condition, block, width);
        n_parameters = parameters.len();
        b.finish(&[("y", y)])
    };
    let b = Builder::new();
    let x = b.input("x", &[block, TOKENS, 3]);
    let target = b.input("target", &[block, TOKENS, 3]);
    let condition = b.input("condition", &[block, 64]);
    let parameters: Vec<Var> = (2..2 + n_parameters)
        .map(|i| b.input(&forward.input_names[i], forward.input_shape(i)))
        .collect();
    let mut arguments = vec![x, condition];
    arguments.extend(&parameters);
    let loss = if with_jvp {
        let tangent = jvp(&forward, &[0, 1], None);
        arguments.push(target);
        arguments.push(condition);
        let outputs = b.call(&tangent, &arguments);
        (outputs[0] + outputs[1] - target).square().sum(&[0, 1, 2])
    } else {
        (b.call(&forward, &arguments)[0] - target)
            .square()
            .sum(&[0, 1, 2])
    };
    (b.finish(&[("loss", loss)]), n_parameters)
}

/// What is computed of the network's Jacobian in x.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    LogDeterminant,
    Divergence,
    Hutchinson,
    Profile,
}

/// Jacobians in x, 66 elements for each sample.
fn jacobians(wanted: Wanted, samples: usize, block: usize, width: usize, tangents: usize) {
    let b = Builder::new();
    let x = b.input("x", &[block, TOKENS, 3]);
    let condition = b.input("condition", &[block, 64]);
    let (y, parameters) = network(&b, x, condition, block, width);
    let program = b.finish(&[("y", x + y)]);
    let mut roles = vec![InputRole::PerBlock { axis: 0 }; 2];
    roles.extend(vec![InputRole::Shared; parameters.len()]);
    let jacobian = Jacobian::<f32>::compile(&program, 0, 0, roles, None, tangents);
    let inputs: Vec<Vec<f32>> = (0..program.inputs.len())
        .map(|i| {
            let n = program.input_shape(i).iter().product::<usize>();
            let n = if i < 2 { n / block * samples } else { n };
            (0..n)
                .map(|j| ((j * 2654435761 % 1000003) as f32 / 1000003.0 - 0.5) * 0.2)
                .collect()
        })
        .collect();
    let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    if wanted == Wanted::Profile {
        for report in jacobian.profile(false, samples, &slices, 30) {
            print_profile(&report);
        }
        return;
    }
    let probes: Vec<f32> = (0..tangents).flat_map(|_| inputs[0].clone()).collect();
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        let results: Vec<f64> = match wanted {
            Wanted::LogDeterminant => jacobian
                .log_abs_det(samples, &slices, None)
                .iter()
                .map(|(log_det, _)| *log_det)
                .collect(),
            Wanted::Divergence => jacobian.trace(samples, &slices, None),
            Wanted::Hutchinson | Wanted::Profile => {
                jacobian.hutchinson_trace(samples, &slices, &probes, None)
            }
        };
        best = best.min(start.elapsed().as_secs_f64());
        assert!(results.iter().all(|result| result.is_finite()));
    }
    let operations = match wanted {
        Wanted::LogDeterminant => jacobian.product_operations(samples),
        Wanted::Divergence => jacobian.diagonal_product_operations(samples),
        Wanted::Hutchinson | Wanted::Profile => f64::NAN,
    };
    println!(
        "{wanted:?} of {samples} samples, blocks of {block} x {tangents} tangents, width {width}: {:.1} ms, {:.1} \
         samples/s, {:.0} GFLOP/s",
        best * 1e3,
        samples as f64 / best,
        operations / best / 1e9
    );
}

/// Steps of the same description together, the longest first.
fn print_profile(report: &[(String, usize, f64)]) {
    let mut kinds: std::collections::BTreeMap<String, (f64, usize, usize)> = Default::default();
    for (what, operations, seconds) in report {
        let entry = kinds.entry(what.clone()).or_default();
        entry.0 += seconds;
        entry.1 += 1;
        entry.2 += operations;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let total: f64 = report.iter().map(|r| r.2).sum();
    println!("one block: {:.2} ms in {} steps", total * 1e3, report.len());
    for (what, (seconds, count, operations)) in kinds.iter().take(45) {
        let rate = *operations as f64 / seconds / 1e9;
        println!(
            "{:8.1} us {count:3} x {rate:6.1} GFLOP/s  {what}",
            seconds * 1e6
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: usize| {
        arguments
            .get(i)
            .and_then(|a| a.parse().ok())
            .unwrap_or(default)
    };
    let (batch, block, width) = (number(1, 256), number(2, 32), number(3, 128));
    let mode = arguments.get(4).map_or("", String::as_str);
    let wanted = match mode {
        "jacobian" => Some(Wanted::LogDeterminant),
        "divergence" => Some(Wanted::Divergence),
        "hutchinson" => Some(Wanted::Hutchinson),
        "jacobian-profile" => Some(Wanted::Profile),
        _ => None,
    };
    if let Some(wanted) = wanted {
        return jacobians(wanted, batch, block, width, number(5, 20));
    }
    let start = Instant::now();
    let (program, n_parameters) = loss(block, width, mode == "jvp");
    let wrt: Vec<usize> = (3..3 + n_parameters).collect();
    let program = optimize(&grad(&program, &wrt));
    println!(
        "{} instructions, traced in {:.0} ms",
        program.instructions.len(),
        start.elapsed().as_secs_f64() * 1e3
    );
    if mode == "print" {
        println!("{program}");
    }
    let mut inputs_roles = vec![InputRole::PerBlock { axis: 0 }; 3];
    inputs_roles.extend(vec![InputRole::Shared; n_parameters]);
    let outputs_roles = vec![OutputRole::Summed; program.outputs.len()];
    let start = Instant::now();
    let batched = Batched::<f32>::compile(&program, inputs_roles, outputs_roles);
    println!("compiled in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let length = |shape: &[usize]| shape.iter().product::<usize>();
    let noise = |n: usize, scale: f32| -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 2654435761 % 1000003) as f32 / 1000003.0 - 0.5) * scale)
            .collect()
    };
    let mut inputs = Vec::new();
    for i in 0..program.inputs.len() {
        let n = length(program.input_shape(i));
        inputs.push(noise(
            if i < 3 { n / block * batch } else { n },
            if i < 3 { 2.0 } else { 0.2 },
        ));
    }
    let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outputs: Vec<Vec<f32>> = (0..program.outputs.len())
        .map(|i| vec![0.0; length(program.output_shape(i))])
        .collect();
    let executable: &Executable<f32> = batched.executable();
    println!(
        "arena {:.1} MB for each block",
        executable.arena_bytes() as f64 / 1e6
    );
    let mut targets: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    if mode == "profile" {
        let block_slices: Vec<&[f32]> = slices
            .iter()
            .enumerate()
            .map(|(i, s)| {
                if i < 3 {
                    &s[..s.len() / (batch / block)]
                } else {
                    s
                }
            })
            .collect();
        let report = executable.profile(&block_slices, &mut targets, 30);
        print_profile(&report);
        return;
    }
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        batched.run(batch, &slices, &mut targets);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let operations = executable.product_operations() as f64 * (batch / block) as f64;
    println!(
        "batch {batch}, blocks of {block}, width {width}: {:.1} ms, {:.2} GFLOP in products, {:.0} GFLOP/s, loss {}",
        best * 1e3,
        operations / 1e9,
        operations / best / 1e9,
        outputs[0][0]
    );
}
