//! Jacobians against closed forms, finite differences and every other way to compute them.

use super::*;
use crate::builder::{Builder, Var};
use crate::exec::Executable;
use crate::{interpret, jvp};
use boltzmap_kernels::linalg::log_abs_det;
use proptest::prelude::*;

const PER_BLOCK: InputRole = InputRole::PerBlock { axis: 0 };

fn numbers(n: usize, seed: u64) -> Vec<f64> {
    crate::check::random_values(seed, n)
}

/// y = x + tanh(x W) V, per sample, with x of `[block, d]`.
fn curved(block: usize, d: usize) -> Program {
    let b = Builder::new();
    let x = b.input("x", &[block, d]);
    let w = b.input("w", &[d, d]);
    let v = b.input("v", &[d, d]);
    b.finish(&[("y", x + x.matmul(w).tanh().matmul(v) * 0.3)])
}

/// Exact Jacobian of `curved`: δ_ij + 0.3 Σ_h V_hi (1 − tanh²(xW)_h) W_jh.
fn curved_jacobian(x: &[f64], w: &[f64], v: &[f64]) -> Vec<f64> {
    let d = x.len();
    let slope: Vec<f64> = (0..d)
        .map(|h| {
            1.0 - (0..d)
                .map(|j| x[j] * w[j * d + h])
                .sum::<f64>()
                .tanh()
                .powi(2)
        })
        .collect();
    let entry = |i: usize, j: usize| {
        let inner: f64 = (0..d).map(|h| v[h * d + i] * slope[h] * w[j * d + h]).sum();
        f64::from(u8::from(i == j)) + 0.3 * inner
    };
    (0..d * d).map(|at| entry(at / d, at % d)).collect()
}

#[test]
fn matrix_diagonal_trace_and_hutchinson_agree() {
    let (n, d) = (5, 4);
    let (x, w, v) = (numbers(n * d, 1), numbers(d * d, 2), numbers(d * d, 3));
    let roles = vec![PER_BLOCK, InputRole::Shared, InputRole::Shared];
    for (block, tangents) in [(1, 1), (2, 3), (3, 4), (4, 9)] {
        let jacobian =
            Jacobian::<f64>::compile(&curved(block, d), 0, 0, roles.clone(), None, tangents);
        let mut y = vec![0.0; n * d];
        let matrix = jacobian.matrix(n, &[&x, &w, &v], Some(&mut y));
        let diagonal = jacobian.diagonal(n, &[&x, &w, &v], None);
        let trace = jacobian.trace(n, &[&x, &w, &v], None);
        // All 2^d sign vectors, whose mean of v vᵀ is exactly the identity.
        let mut probes = Vec::new();
        for signs in 0..1 << d {
            let sign = |a: usize| if signs >> a & 1 == 1 { 1.0 } else { -1.0 };
            (0..n).for_each(|_| probes.extend((0..d).map(sign)));
        }
        let estimate = jacobian.hutchinson_trace(n, &[&x, &w, &v], &probes, None);
        for s in 0..n {
            let exact = curved_jacobian(&x[s * d..][..d], &w, &v);
            for (e, f) in exact.iter().zip(&matrix[s * d * d..]) {
                assert!((e - f).abs() < 1e-13);
            }
            let exact_trace: f64 = (0..d).map(|i| exact[i * (d + 1)]).sum();
            assert!((0..d).all(|i| (diagonal[s * d + i] - exact[i * (d + 1)]).abs() < 1e-13));
            assert!((trace[s] - exact_trace).abs() < 1e-13);
            assert!((estimate[s] - exact_trace).abs() < 1e-12);
        }
        let direct = interpret(&curved(n, d), &[&x[..], &w[..], &v[..]]);
        assert!(direct[0].iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-14));
    }
}

#[test]
fn log_det_of_an_affine_map_on_a_subspace() {
    // y = s·x on the mean-free part, on which |det| = s^(d), d = D − 1; the mean itself is mapped to 0.
    let dimension = 5;
    let b = Builder::new();
    let x = b.input("x", &[2, dimension]);
    let y = (x - x.mean_keep(&[1])) * 1.7 + 0.4;
    let program = b.finish(&[("y", y)]);
    let mut q = vec![0.0; dimension * (dimension - 1)];
    for k in 0..dimension - 1 {
        // Helmert's basis: k + 1 entries of 1, then −(k + 1).
        let scale = 1.0 / (((k + 1) * (k + 2)) as f64).sqrt();
        (0..=k).for_each(|a| q[a * (dimension - 1) + k] = scale);
        q[(k + 1) * (dimension - 1) + k] = -((k + 1) as f64) * scale;
    }
    let basis = Basis::new(dimension, dimension - 1, q);
    let jacobian = Jacobian::<f64>::compile(&program, 0, 0, vec![PER_BLOCK], Some(basis), 3);
    let x = numbers(3 * dimension, 4);
    for (log_det, sign) in jacobian.log_abs_det(3, &[&x], None) {
        assert!((log_det - 4.0 * 1.7f64.ln()).abs() < 1e-12 && sign == 1.0);
    }
}

#[test]
fn log_det_against_finite_differences() {
    let d = 6;
    let (x, w, v) = (numbers(d, 5), numbers(d * d, 6), numbers(d * d, 7));
    let roles = vec![PER_BLOCK, InputRole::Shared, InputRole::Shared];
    let program = curved(1, d);
    let jacobian = Jacobian::<f64>::compile(&program, 0, 0, roles, None, 4);
    let step = 1e-5;
    let mut differences = vec![0.0; d * d];
    for j in 0..d {
        let moved = |by: f64| {
            let mut x = x.clone();
            x[j] += by;
            interpret(&program, &[&x[..], &w[..], &v[..]]).remove(0)
        };
        for (i, (up, down)) in moved(step).iter().zip(moved(-step)).enumerate() {
            differences[i * d + j] = (up - down) / (2.0 * step);
        }
    }
    let (expected, expected_sign) = log_abs_det(&differences, d);
    let found = jacobian.log_abs_det(1, &[&x, &w, &v], None);
    assert!(
        (found[0].0 - expected).abs() < 1e-8 && found[0].1 == expected_sign,
        "{found:?} {expected}"
    );
}

/// Sizes of a transformer for tests.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    block: usize,
    tokens: usize,
    channels: usize,
    heads: usize,
    head_width: usize,
    layers: usize,
    causal: bool,
    /// Projects the output to states without mean over the tokens.
    mean_free: bool,
}

/// A layer with its own parameters, weights of the size of initialised ones.
fn linear<'b>(
    x: Var<'b>,
    parameter: &impl Fn(&[usize]) -> Var<'b>,
    [from, to]: [usize; 2],
) -> Var<'b> {
    let factor = 1.5 / (from as f64).sqrt();
    x.matmul_t(parameter(&[to, from])) * factor + parameter(&[to])
}

/// y = a x + transformer(x), with layer-norms scaled per sample by input "scale" `[B, W]`. Parameters follow.
fn transformer(sizes: Sizes) -> Program {
    let Sizes {
        block,
        tokens,
        channels,
        heads,
        head_width,
        layers,
        ..
    } = sizes;
    let width = heads * head_width;
    let b = Builder::new();
    let x = b.input("x", &[block, tokens, channels]);
    let scale = b
        .input("scale", &[block, width])
        .reshape(&[block, 1, width]);
    let count = std::cell::Cell::new(0);
    let parameter = |shape: &[usize]| {
        count.set(count.get() + 1);
        b.input(&format!("p{}", count.get()), shape)
    };
    let mut h = linear(x, &parameter, [channels, width]) + parameter(&[tokens, width]);
    for _ in 0..layers {
        let n = h.layer_norm(1e-3) * (scale + 1.0);
        let qkv = linear(n, &parameter, [width, 3 * width])
            .reshape(&[block, tokens, 3, heads, head_width])
            .permute(&[2, 0, 3, 1, 4]);
        let part = |i: usize| {
            qkv.slice(0, i, 1)
                .reshape(&[block, heads, tokens, head_width])
        };
        let mut scores = (part(0) * (1.0 / (head_width as f64).sqrt())).matmul_t(part(1));
        if sizes.causal {
            let mask: Vec<f64> = (0..tokens * tokens)
                .map(|i| f64::from(u8::from(i % tokens <= i / tokens)))
                .collect();
            scores = b.tensor(mask, &[tokens, tokens]).select(scores, -1e30);
        }
        let mixed = scores
            .softmax()
            .matmul(part(2))
            .permute(&[0, 2, 1, 3])
            .reshape(&[block, tokens, width]);
        h = h + linear(mixed, &parameter, [width, width]);
        let inner = linear(h.layer_norm(1e-3), &parameter, [width, 2 * width]).gelu();
        h = h + linear(inner, &parameter, [2 * width, width]) * scale;
    }
    let n = linear(h.layer_norm(1e-3), &parameter, [width, channels]);
    let n = if sizes.mean_free {
        n - n.mean_keep(&[1])
    } else {
        n
    };
    b.finish(&[("y", x * 0.7 + n)])
}

/// A perceptron on the flattened state.
fn perceptron(block: usize, tokens: usize, channels: usize) -> Program {
    let (d, width) = (tokens * channels, 7);
    let b = Builder::new();
    let x = b.input("x", &[block, tokens, channels]);
    let (v, w, u) = (
        b.input("v", &[d, width]),
        b.input("w", &[width, width]),
        b.input("u", &[width, d]),
    );
    let mut h = x.reshape(&[block, d]).matmul(v);
    h = h + h.layer_norm(1e-3).matmul(w).gelu();
    b.finish(&[("y", x + h.matmul(u).reshape(&[block, tokens, channels]))])
}

fn roles(program: &Program, per_block: usize) -> Vec<InputRole> {
    (0..program.inputs.len())
        .map(|i| {
            if i < per_block {
                PER_BLOCK
            } else {
                InputRole::Shared
            }
        })
        .collect()
}

/// Random inputs of a block program for n samples.
fn batch_inputs(program: &Program, per_block: usize, n: usize, seed: u64) -> Vec<Vec<f64>> {
    (0..program.inputs.len())
        .map(|i| {
            let shape = program.input_shape(i);
            let count: usize = shape.iter().product();
            let count = if i < per_block {
                count / shape[0] * n
            } else {
                count
            };
            numbers(count, seed + i as u64)
        })
        .collect()
}

/// J of every sample by one tangent for each element, on the interpreter: `[n, D, D]`.
fn dense_jacobian(make: impl Fn(usize) -> Program, inputs: &[Vec<f64>], n: usize) -> Vec<f64> {
    let program = make(n);
    let d = program.input_shape(0)[1..].iter().product::<usize>();
    let derivative = jvp(&program, &[0], Some(d));
    let mut tangents = vec![0.0; d * n * d];
    for k in 0..d {
        (0..n).for_each(|b| tangents[(k * n + b) * d + k] = 1.0);
    }
    let mut all: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    all.push(&tangents);
    let columns = interpret(&derivative, &all).swap_remove(1);
    let mut jacobian = vec![0.0; n * d * d];
    for l in 0..d {
        for b in 0..n {
            for k in 0..d {
                jacobian[(b * d + k) * d + l] = columns[(l * n + b) * d + k];
            }
        }
    }
    jacobian
}

fn assert_close(what: &str, expected: &[f64], found: &[f64]) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let scale = expected.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
    for (i, (e, f)) in expected.iter().zip(found).enumerate() {
        assert!(
            (e - f).abs() <= 1e-12 * scale,
            "{what}, element {i}: expected {e}, found {f}, scale {scale}"
        );
    }
}

/// Everything a `Jacobian` computes, against dense tangents on the interpreter.
fn check_all(
    make: impl Fn(usize) -> Program,
    block: usize,
    per_block: usize,
    n: usize,
    tangents: usize,
    seed: u64,
) {
    let program = make(block);
    let shape = program.input_shape(0).to_vec();
    let d: usize = shape[1..].iter().product();
    let inputs = batch_inputs(&program, per_block, n, seed);
    let expected = dense_jacobian(&make, &inputs, n);
    let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let roles = roles(&program, per_block);
    let jacobian = Jacobian::<f64>::compile(&program, 0, 0, roles.clone(), None, tangents);
    let mut y = vec![0.0; n * d];
    assert_close(
        "matrix",
        &expected,
        &jacobian.matrix(n, &slices, Some(&mut y)),
    );
    assert_close("output", &interpret(&make(n), &slices)[0], &y);
    let diagonal: Vec<f64> = (0..n * d)
        .map(|i| expected[(i / d * d + i % d) * d + i % d])
        .collect();
    y.fill(0.0);
    assert_close(
        "diagonal",
        &diagonal,
        &jacobian.diagonal(n, &slices, Some(&mut y)),
    );
    assert_close("output", &interpret(&make(n), &slices)[0], &y);
    let traces: Vec<f64> = diagonal.chunks(d).map(|row| row.iter().sum()).collect();
    assert_close("trace", &traces, &jacobian.trace(n, &slices, None));
    let probes = numbers(3 * n * d, seed + 99);
    let estimate: Vec<f64> = (0..n)
        .map(|b| {
            let of_probe = |p: usize| {
                let v = &probes[(p * n + b) * d..][..d];
                let product = |k: usize| -> f64 {
                    (0..d).map(|l| expected[(b * d + k) * d + l] * v[l]).sum()
                };
                (0..d).map(|k| v[k] * product(k)).sum::<f64>()
            };
            (0..3).map(of_probe).sum::<f64>() / 3.0
        })
        .collect();
    assert_close(
        "Hutchinson",
        &estimate,
        &jacobian.hutchinson_trace(n, &slices, &probes, None),
    );
    // Any Q, with few and with many columns: nothing here needs it orthonormal.
    for columns in [1, d.div_ceil(3), d] {
        let q = numbers(d * columns, seed + 55);
        let basis = Basis::new(d, columns, q.clone());
        let on_subspace =
            Jacobian::<f64>::compile(&program, 0, 0, roles.clone(), Some(basis), tangents);
        let projected: Vec<f64> = (0..n * columns * columns)
            .map(|at| {
                let (b, k, l) = (
                    at / (columns * columns),
                    at / columns % columns,
                    at % columns,
                );
                (0..d * d)
                    .map(|e| {
                        q[e / d * columns + k] * expected[b * d * d + e] * q[e % d * columns + l]
                    })
                    .sum()
            })
            .collect();
        assert_close(
            "matrix on a subspace",
            &projected,
            &on_subspace.matrix(n, &slices, None),
        );
        let diagonal: Vec<f64> = (0..n * columns)
            .map(|i| projected[(i / columns * columns + i % columns) * columns + i % columns])
            .collect();
        assert_close(
            "diagonal on a subspace",
            &diagonal,
            &on_subspace.diagonal(n, &slices, None),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn transformers_agree_with_dense_tangents(
        (block, n, tokens, channels) in (1usize..4, 1usize..5, 1usize..6, 1usize..4),
        (heads, head_width, layers) in (1usize..3, 1usize..5, 1usize..4),
        (causal, mean_free) in (any::<bool>(), any::<bool>()),
        (tangents, seed) in (1usize..20, 0u64..1 << 40),
    ) {
        let sizes = |block| Sizes { block, tokens, channels, heads, head_width, layers, causal, mean_free };
        check_all(|block| transformer(sizes(block)), block, 2, n, tangents, seed);
    }

    #[test]
    fn perceptrons_agree_with_dense_tangents(
        (block, n, tokens, channels) in (1usize..4, 1usize..5, 1usize..5, 1usize..4),
        (tangents, seed) in (1usize..20, 0u64..1 << 40),
    ) {
        check_all(|block| perceptron(block, tokens, channels), block, 1, n, tangents, seed);
        check_all(|block| curved(block, tokens * channels), block, 1, n, tangents, seed);
    }
}

/// A transformer large enough for its products to dominate.
fn larger(block: usize, layers: usize) -> Program {
    transformer(Sizes {
        block,
        tokens: 9,
        channels: 2,
        heads: 4,
        head_width: 8,
        layers,
        causal: false,
        mean_free: false,
    })
}

/// How many multiplications remain of those of dense tangents.
fn remaining(program: &Program) -> [f64; 2] {
    let d = program.input_shape(0)[1..].iter().product();
    let jacobian = Jacobian::<f64>::compile(program, 0, 0, roles(program, 2), None, d);
    let dense = Executable::<f64>::compile(&jvp(program, &[0], Some(d)));
    let dense = dense.product_operations() as f64;
    let block = program.input_shape(0)[0];
    [
        jacobian.diagonal_product_operations(block) / dense,
        jacobian.product_operations(block) / dense,
    ]
}

#[test]
fn first_and_last_layers_cost_one_token() {
    for layers in [2, 4] {
        let found = remaining(&larger(2, layers));
        // Of 8 W² multiplications for each token and layer, the first layer saves up to 6 W² and the last 7 W², less what
        // attention, the single tokens, the products that write tangents out and those over the cut take.
        let most = (layers as f64 - 1.0) / layers as f64;
        assert!(found[0] < most && found[1] < most + 0.05, "{found:?}");
    }
}

#[test]
fn results_have_the_same_bits_on_any_number_of_threads() {
    let program = larger(2, 2);
    let inputs: Vec<Vec<f32>> = batch_inputs(&program, 2, 7, 3)
        .iter()
        .map(|input| input.iter().map(|&v| v as f32).collect())
        .collect();
    let slices: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a thread pool");
        pool.install(|| {
            let jacobian = Jacobian::<f32>::compile(&program, 0, 0, roles(&program, 2), None, 5);
            (
                jacobian.diagonal(7, &slices, None),
                jacobian.log_abs_det(7, &slices, None),
                jacobian.hutchinson_trace(7, &slices, slices[0], None),
            )
        })
    };
    let one = run(1);
    for threads in [2, 4, 8] {
        assert!(one == run(threads));
    }
}
