use super::*;
use crate::builder::{Builder, Var};
use crate::check::Random;
use crate::interpret::interpret;
use crate::ir::Program;
use proptest::prelude::*;

fn assert_close(what: &str, expected: &[f64], found: &[f64], tolerance: f64) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
    for (i, (e, f)) in expected.iter().zip(found).enumerate() {
        assert!(
            (e - f).abs() <= tolerance * scale,
            "{what}, element {i}: expected {e}, found {f}, scale {scale}"
        );
    }
}

/// Runs a program in f64 and f32 against the interpreter, twice in one arena.
fn check(program: &Program, seed: u64) {
    let mut random = Random(seed);
    let inputs: Vec<Vec<f64>> = (0..program.inputs.len())
        .map(|i| random.numbers(layout::count(program.input_shape(i))))
        .collect();
    let expected = interpret(program, &inputs);
    let executable = Executable::<f64>::compile(program);
    let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outputs: Vec<Vec<f64>> = expected.iter().map(|e| vec![f64::NAN; e.len()]).collect();
    let mut arena = executable.arena();
    for _ in 0..2 {
        let mut targets: Vec<&mut [f64]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        executable.run_into(&mut arena, &slices, &mut targets);
        for (i, (e, f)) in expected.iter().zip(&outputs).enumerate() {
            assert_close(&format!("f64 output {i} of\n{program}"), e, f, 1e-12);
        }
    }
    let inputs: Vec<Vec<f32>> = inputs
        .iter()
        .map(|x| x.iter().map(|&x| x as f32).collect())
        .collect();
    let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let exact: Vec<Vec<f64>> = inputs
        .iter()
        .map(|x| x.iter().map(|&x| f64::from(x)).collect())
        .collect();
    let expected = interpret(program, &exact);
    for (i, (e, f)) in expected
        .iter()
        .zip(Executable::<f32>::compile(program).run(&slices))
        .enumerate()
    {
        let f: Vec<f64> = f.into_iter().map(f64::from).collect();
        assert_close(&format!("f32 output {i} of\n{program}"), e, &f, 2e-5);
    }
}

/// One program with every operation applied to operands of the given sizes.
fn every_operation(which: usize, [p, q, r]: [usize; 3]) -> Program {
    let b = Builder::new();
    let x = b.input("x", &[p, q, r]);
    let y = b.input("y", &[p, 1, r]);
    let z = b.input("z", &[q, 1]);
    let positive = x.square() + 0.5;
    let mut indices: Vec<usize> = (0..q + 2).map(|j| (j * 7 + 3) % q).collect();
    let outputs: Vec<(&str, Var)> = match which {
        0 => vec![
            ("neg", -x),
            ("abs", x.abs()),
            ("sign", x.sign()),
            ("exp", x.exp()),
            ("ln", positive.ln()),
            ("tanh", x.tanh()),
            ("sin", (x * 3.0).sin()),
            ("cos", (x * 3.0).cos()),
            ("sqrt", positive.sqrt()),
            ("rsqrt", positive.rsqrt()),
            ("reciprocal", positive.reciprocal()),
            ("square", x.square()),
            ("sigmoid", x.sigmoid()),
            ("erf", x.erf()),
            ("gelu", (x * 3.0).gelu()),
            ("gelu_prime", (x * 3.0).gelu_prime()),
        ],
        1 => vec![
            ("add", x + y),
            ("sub", y - z),
            ("mul", x * z),
            ("div", x / (y.square() + 1.0)),
            ("max", x.maximum(y)),
            ("min", x.minimum(z)),
            ("greater", x.greater(y)),
            ("select", x.greater(z).select(y, x * y)),
            ("fma", x * y + z),
            ("fms", x * y - z),
            ("fnma", z - x * y),
        ],
        2 => vec![
            ("broadcast", z.broadcast_to(&[p, q, r])),
            ("sum 0", x.sum(&[0])),
            ("sum 1", x.sum(&[1])),
            ("sum 2", x.sum(&[2])),
            ("sum 01", x.sum(&[0, 1])),
            ("sum 02", x.sum_keep(&[0, 2])),
            ("sum all", x.sum(&[0, 1, 2])),
            ("sum of broadcast", (z.broadcast_to(&[p, q, r])).sum(&[2])),
            ("sum of view", x.permute(&[2, 0, 1]).sum(&[1])),
        ],
        3 => {
            let turned = x.permute(&[1, 2, 0]);
            vec![
                ("reshape", x.reshape(&[p * q, r])),
                ("permute", turned),
                ("permute reshape", turned.reshape(&[q * r * p])),
                ("slice", x.slice(1, q / 2, q - q / 2)),
                ("slice tanh", x.slice(2, r / 2, r - r / 2).tanh()),
                ("slice reshape", x.slice(2, 0, 1).reshape(&[p * q])),
                ("pad", x.pad(1, 2, 1)),
                ("pad last", x.pad(2, 0, 3)),
                (
                    "concat",
                    b.concat(&[x, y.broadcast_to(&[p, q, r]).tanh(), x.slice(1, 0, 1)], 1),
                ),
                ("stop", x.stop_gradient() * y),
            ]
        }
        4 => {
            let tensor = b.tensor((0..q * r).map(|i| i as f64 * 0.1).collect(), &[q, r]);
            vec![
                ("gather", x.gather(1, &indices)),
                ("gather last", x.gather(2, &[0, r - 1])),
                (
                    "scatter",
                    x.scatter_add(
                        1,
                        &{
                            indices.truncate(q);
                            indices.clone()
                        },
                        q + 1,
                    ),
                ),
                ("scatter first", x.scatter_add(0, &vec![0; p], 2)),
                ("tensor", x * tensor),
                ("constant", b.constant(1.5, &[p, q])),
                ("same", x),
                ("same again", x),
            ]
        }
        _ => {
            let s = x.softmax();
            let v = b.input("v", &[3, p, q, r]);
            // 1/σ stays below 10, so that rows of nearly equal values do not magnify the rounding of single precision.
            let n = x.layer_norm(1e-2);
            let d = x.row_reciprocal_std(1e-2);
            vec![
                ("softmax", s),
                ("softmax turned", x.permute(&[0, 2, 1]).softmax()),
                ("softmax tangent", s.softmax_tangent(v)),
                ("layer norm", n),
                ("reciprocal std", d),
                ("layer norm tangent", n.layer_norm_tangent(d, v)),
            ]
        }
    };
    b.finish(&outputs)
}

/// Products with transposes, broadcasting, sums and permutations around them.
fn products([p, q, r, s]: [usize; 4]) -> Program {
    let b = Builder::new();
    let x = b.input("x", &[p, q, r]);
    let w = b.input("w", &[r, s]);
    let wt = b.input("wt", &[s, r]);
    let y = b.input("y", &[p, s, r]);
    let g = b.input("g", &[p, q, s]);
    let v = b.input("v", &[2, p, q, r]);
    b.finish(&[
        ("tall", x.matmul(w)),
        ("tall transposed", x.matmul_t(wt)),
        ("batched transposed", x.matmul_t(y)),
        ("left transposed", x.transpose_last().matmul(g)),
        (
            "weight gradient",
            x.transpose_last().matmul(g).sum_to(&[r, s]),
        ),
        (
            "weight gradient 1",
            x.transpose_last().matmul(g).sum_to(&[1, r, s]),
        ),
        ("tangent axis", v.matmul_t(y)),
        ("tangent axis tall", v.matmul(w)),
        ("tangent sum", v.matmul_t(y).sum_to(&[p, q, s])),
        (
            "matrix first",
            w.transpose_last().matmul(x.transpose_last()),
        ),
        ("permuted", x.matmul(w).permute(&[1, 0, 2]) * 2.0),
        ("column", x.matmul(w.slice(1, 0, 1))),
        ("row", x.slice(1, 0, 1).matmul(w)),
        (
            "repeated",
            x.slice(1, 0, 1).broadcast_to(&[p, q, r]).matmul(w),
        ),
        ("residual", x.matmul(w) * g + g),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_operation_equals_the_interpreter(
        which in 0usize..6, p in 1usize..5, q in 1usize..9, r in 1usize..40, seed in any::<u64>()
    ) {
        check(&every_operation(which, [p, q, r]), seed);
    }

    #[test]
    fn products_equal_the_interpreter(
        p in 1usize..5, q in 1usize..24, r in 1usize..40, s in 1usize..70, seed in any::<u64>()
    ) {
        check(&products([p, q, r, s]), seed);
    }
}

#[test]
fn long_tiles() {
    for which in 0..6 {
        check(&every_operation(which, [3, 17, 300]), 5);
    }
    check(&products([2, 70, 90, 130]), 6);
}

/// A small network's loss and gradient per block of `block` samples, and the roles of its inputs.
fn network(block: usize) -> (Program, Vec<InputRole>) {
    let b = Builder::new();
    let x = b.input("x", &[block, 5, 6]);
    let w = b.input("w", &[6, 33]);
    let v = b.input("v", &[33, 6]);
    let bias = b.input("bias", &[33]);
    let h = (x.matmul(w) + bias).gelu().matmul(v);
    let mixed = h.matmul_t(x).softmax().matmul(h).layer_norm(1e-5);
    let per_sample = (mixed - x).square().sum(&[1, 2]);
    let program = b.finish(&[
        ("loss", per_sample.sum(&[0])),
        ("per sample", per_sample),
        ("mixed", mixed),
    ]);
    let roles = vec![
        InputRole::PerBlock { axis: 0 },
        InputRole::Shared,
        InputRole::Shared,
        InputRole::Shared,
    ];
    (crate::grad(&program, &[1, 2, 3]), roles)
}

fn run_network(threads: usize, block: usize, samples: usize) -> Vec<Vec<f32>> {
    let (program, roles) = network(block);
    let per_block = OutputRole::PerBlock { axis: 0 };
    let summed = OutputRole::Summed;
    let batched = Batched::<f32>::compile(
        &program,
        roles,
        vec![summed, per_block, per_block, summed, summed, summed],
    );
    let mut random = Random(7);
    let lengths = [samples * 30, 6 * 33, 33 * 6, 33];
    let inputs: Vec<Vec<f32>> = lengths
        .iter()
        .map(|&n| random.numbers(n).into_iter().map(|x| x as f32).collect())
        .collect();
    let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let lengths = [1, samples, samples * 30, 6 * 33, 33 * 6, 33];
    let mut outputs: Vec<Vec<f32>> = lengths.iter().map(|&n| vec![f32::NAN; n]).collect();
    let mut targets: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a thread pool");
    pool.install(|| (0..2).for_each(|_| batched.run(samples, &slices, &mut targets)));
    outputs
}

#[test]
fn same_bits_for_any_number_of_threads() {
    let bits = |outputs: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        outputs
            .into_iter()
            .map(|output| output.into_iter().map(f32::to_bits).collect())
            .collect()
    };
    let one = bits(run_network(1, 4, 84));
    for threads in [2, 4, 8] {
        assert!(
            one == bits(run_network(threads, 4, 84)),
            "{threads} threads"
        );
    }
}

#[test]
fn blocks_equal_the_whole_batch() {
    let (whole, blocks) = (run_network(1, 84, 84), run_network(2, 4, 84));
    for (i, (e, f)) in whole.iter().zip(&blocks).enumerate() {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        assert_close(&format!("output {i}"), &wide(e), &wide(f), 1e-5);
    }
}

#[test]
fn partial_blocks_repeat_the_last_sample() {
    let b = Builder::new();
    let x = b.input("x", &[2, 4, 3]);
    let program = b.finish(&[("y", x.exp().permute(&[1, 0, 2]))]);
    let roles = (
        vec![InputRole::PerBlock { axis: 1 }],
        vec![OutputRole::PerBlock { axis: 0 }],
    );
    let batched = Batched::<f64>::compile(&program, roles.0, roles.1);
    let x = Random(3).numbers(2 * 7 * 3);
    let mut y = vec![0.0; 7 * 2 * 3];
    batched.run(7, &[&x], &mut [&mut y]);
    for sample in 0..7 {
        for a in 0..2 {
            for c in 0..3 {
                assert!(
                    (y[(sample * 2 + a) * 3 + c] - x[(a * 7 + sample) * 3 + c].exp()).abs() < 1e-15
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "no multiple of the block size")]
fn sums_refuse_partial_blocks() {
    run_network(1, 4, 82);
}

#[test]
fn whole_network_equals_the_interpreter() {
    let (program, _) = network(3);
    check(&program, 11);
    let tangents = crate::jvp(&program, &[0, 2], Some(3));
    check(&tangents, 12);
}

/// Everything the executor folds into matrix products, and what looks like it but must not be folded.
fn folded([p, q, r, n]: [usize; 4]) -> Program {
    let b = Builder::new();
    let x = b.input("x", &[p, q, r]);
    let w = b.input("w", &[n, r]);
    let v = b.input("v", &[r, n]);
    let bias = b.input("bias", &[n]);
    let same = b.input("same", &[p, q, n]);
    let repeated = b.input("repeated", &[q, n]);
    let rows = b.input("rows", &[p, 1, n]);
    let read_twice = x.matmul(v);
    let pre = x.matmul_t(w) + bias;
    let parts = [x.matmul(v), x.matmul_t(w) * 0.25, same].map(|part| part.reshape(&[1, p, q, n]));
    let twice = x.matmul(v * 2.0).reshape(&[1, p, q, n]);
    b.finish(&[
        ("bias", x.matmul_t(w) + bias),
        ("residual", same + x.matmul(v)),
        ("residual first", x.matmul(v) + same.tanh()),
        ("two products", x.matmul(v) + x.matmul_t(w * 0.5)),
        ("addend repeated", x.matmul(v) + repeated),
        ("addend of one row each", x.matmul(v) + rows),
        ("gate", x.matmul(v) * same),
        ("gate repeated", repeated * x.matmul(v)),
        ("scaled", x.matmul(v) * -0.3),
        ("added, then gated", (x.matmul(v) + same) * repeated),
        ("biased, then gated", same.tanh() * (x.matmul_t(w) + bias)),
        ("added, then scaled", (repeated + x.matmul(v * 0.5)) * 0.7),
        (
            "gated by its addend",
            (x.matmul(v) + same.sin()) * same.sin(),
        ),
        ("gated, then added", x.matmul(v) * same + repeated),
        ("gate by gate", (x.matmul(v) + same) * rows * repeated),
        ("twice", read_twice * same + read_twice),
        ("with itself", read_twice + read_twice),
        ("gelu", pre.gelu()),
        ("gelu and slope", pre.gelu() * 0.5 + pre.gelu_prime()),
        ("slope", pre.gelu_prime() * same),
        ("joined", b.concat(&parts, 0).permute(&[1, 2, 0, 3])),
        ("joined, last axis", b.concat(&[x.matmul(v), same], 2)),
        ("joined twice", b.concat(&[twice, twice], 0)),
        ("joined and read", b.concat(&[read_twice, same], 1) * 2.0),
    ])
}

/// Multi-head attention of x `[p, t, heads·e]` with its value weighted, as the networks trace it.
fn attention([p, t, heads, e]: [usize; 4]) -> Program {
    let b = Builder::new();
    let width = heads * e;
    let x = b.input("x", &[p, t, width]);
    let w = b.input("w", &[3 * width, width]);
    let bias = b.input("bias", &[3 * width]);
    let out = b.input("out", &[width, width]);
    let qkv = (x.matmul_t(w) + bias)
        .reshape(&[p, t, 3, heads, e])
        .permute(&[2, 0, 3, 1, 4]);
    let part = |i: usize| qkv.slice(0, i, 1).reshape(&[p, heads, t, e]);
    let scores = part(0).matmul_t(part(1)) * (1.0 / (e as f64).sqrt());
    let mixed = scores.softmax().matmul(part(2));
    let joined = mixed.permute(&[0, 2, 1, 3]).reshape(&[p, t, width]);
    b.finish(&[("y", x + joined.matmul_t(out))])
}

/// Runs blocks of a program, whose first input alone is per block, against the interpreter on the whole batch.
fn check_shared(make: impl Fn(usize) -> Program, block: usize, blocks: usize, seed: u64) {
    let (program, whole) = (make(block), make(block * blocks));
    let mut random = Random(seed);
    let inputs: Vec<Vec<f64>> = (0..whole.inputs.len())
        .map(|i| random.numbers(layout::count(whole.input_shape(i))))
        .collect();
    let expected = interpret(&whole, &inputs);
    let mut roles = vec![InputRole::Shared; inputs.len()];
    roles[0] = InputRole::PerBlock { axis: 0 };
    let outputs: Vec<OutputRole> = (0..whole.outputs.len())
        .map(|i| {
            if whole.output_shape(i) == program.output_shape(i) {
                OutputRole::Summed
            } else {
                OutputRole::PerBlock { axis: 0 }
            }
        })
        .collect();
    let batched = Batched::<f64>::compile(&program, roles, outputs);
    let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let mut found: Vec<Vec<f64>> = expected.iter().map(|e| vec![f64::NAN; e.len()]).collect();
    for _ in 0..2 {
        let mut targets: Vec<&mut [f64]> = found.iter_mut().map(Vec::as_mut_slice).collect();
        batched.run(block * blocks, &slices, &mut targets);
        for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
            assert_close(&format!("output {i} of\n{program}"), e, f, 1e-11);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn folded_products_equal_the_interpreter(
        p in 1usize..4, q in 1usize..24, r in 1usize..40, n in 1usize..70, seed in any::<u64>()
    ) {
        check(&folded([p, q, r, n]), seed);
    }

    #[test]
    fn attention_and_its_derivatives_equal_the_interpreter(
        p in 1usize..4, t in 1usize..24, heads in 1usize..4, e in 1usize..20, seed in any::<u64>()
    ) {
        let program = attention([p, t, heads, e]);
        check(&program, seed);
        check(&crate::vjp(&program, &[0, 1, 2, 3]), seed);
        check(&crate::jvp(&program, &[0], Some(3)), seed);
        check(&crate::jvp(&program, &[0, 1], None), seed);
    }

    #[test]
    fn shared_factors_equal_the_interpreter(
        block in 1usize..4, blocks in 1usize..4, t in 1usize..24, heads in 1usize..4, e in 1usize..20,
        seed in any::<u64>()
    ) {
        check_shared(|p| attention([p, t, heads, e]), block, blocks, seed);
        let gradient = |p: usize| {
            let program = attention([p, t, heads, e]);
            let b = Builder::new();
            let inputs: Vec<Var> = (0..4)
                .map(|i| b.input(&program.input_names[i], program.input_shape(i)))
                .collect();
            let loss = b.call(&program, &inputs)[0].square().sum(&[0, 1, 2]);
            crate::grad(&b.finish(&[("loss", loss)]), &[1, 2, 3])
        };
        check_shared(gradient, block, blocks, seed);
    }
}

#[test]
fn attention_over_hundreds_of_tokens() {
    let program = attention([1, 300, 2, 40]);
    check(&program, 3);
    check(&crate::vjp(&program, &[0, 1]), 4);
}

/// Prints the bits of a network's outputs; run by the test below with a tier of its own.
#[test]
#[ignore = "a part of: cargo test -p boltzmap-autodiff the_same_bits_on_avx2_and_avx512"]
fn print_bits() {
    for output in run_network(2, 4, 84) {
        let bits: Vec<u32> = output.into_iter().map(f32::to_bits).collect();
        println!("bits {bits:?}");
    }
}

#[test]
fn the_same_bits_on_avx2_and_avx512() {
    use boltzmap_kernels::Tier;
    if !Tier::Avx512.is_available() {
        eprintln!("skipped: this processor has no AVX-512");
        return;
    }
    let bits = |tier: &str| -> Vec<String> {
        let this = std::env::current_exe().expect("the path of this test");
        let output = std::process::Command::new(this)
            .args([
                "exec::tests::print_bits",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env("BOLTZMAP_SIMD", tier)
            .output()
            .expect("this test runs");
        assert!(output.status.success(), "{tier}");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.starts_with("bits "))
            .map(str::to_owned)
            .collect()
    };
    let narrow = bits("avx2");
    assert_eq!(narrow.len(), 6, "loss, two outputs and three gradients");
    assert!(narrow == bits("avx512"), "the tiers differ");
}
