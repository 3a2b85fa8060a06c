//! Jacobians of batched maps by forward mode with many tangents at once: exact trace, diagonal, matrix and log|det|.
//!
//! For a program with an input x `[B, …]` and an output y of the same shape, where y of a sample depends on x of the
//! same sample only, the Jacobian of sample b is J = ∂y_b/∂x_b, a D × D matrix with D the elements of a sample. States
//! often live on a subspace with orthonormal basis Q `[D, d]` (for example the mean-free one); everything here is about
//! the d × d matrix Qᵀ J Q.
//!
//! The K-tangent program evaluates every nonlinearity once for K columns of Q, and its layers are products of K·B·T
//! rows. Blocks of B samples run on rayon's threads; results do not depend on their number.

use crate::exec::{Arena, Executable, InputRole, gather_block};
use crate::ir::Program;
use crate::jvp::jvp;
use boltzmap_kernels::Real;
use boltzmap_kernels::linalg::log_abs_det;
use rayon::prelude::*;
use std::sync::Mutex;

/// An orthonormal basis Q of the subspace on which states live: row-major `[rows, columns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Basis {
    /// D, elements of a sample.
    pub rows: usize,
    /// d, dimension of the subspace.
    pub columns: usize,
    /// Q, row-major.
    pub values: Vec<f64>,
}

impl Basis {
    /// The whole space.
    pub fn identity(dimension: usize) -> Self {
        let mut values = vec![0.0; dimension * dimension];
        (0..dimension).for_each(|i| values[i * (dimension + 1)] = 1.0);
        Self {
            rows: dimension,
            columns: dimension,
            values,
        }
    }

    /// From row-major values.
    ///
    /// # Panics
    /// When the length is not rows · columns.
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(
            values.len(),
            rows * columns,
            "a basis of {columns} vectors in {rows} dimensions"
        );
        Self {
            rows,
            columns,
            values,
        }
    }
}

/// Evaluates Jacobians of one program.
#[derive(Debug)]
pub struct Jacobian<T: Real> {
    executable: Executable<T>,
    roles: Vec<InputRole>,
    input: usize,
    basis: Basis,
    /// B
    block: usize,
    /// K
    tangents: usize,
    /// Tangents `[K, B, D]` of each chunk of basis vectors, the last one filled up with zeros.
    chunks: Vec<Vec<T>>,
    workers: Mutex<Vec<Worker<T>>>,
}

#[derive(Debug)]
struct Worker<T> {
    arena: Arena<T>,
    inputs: Vec<Vec<T>>,
    probes: Vec<T>,
    output: Vec<T>,
    output_tangents: Vec<T>,
}

/// What a chunk of tangents adds to a sample's result.
#[derive(Clone, Copy)]
enum Gather {
    /// q_kᵀ J q_l for all k, l.
    Matrix,
    /// q_kᵀ J q_k for all k.
    Diagonal,
}

impl<T: Real> Jacobian<T> {
    /// Prepares the derivative of output `output` in input `input`, with `tangents` basis vectors at a time. The block
    /// size is the length of the input's first axis; `roles` says how every input relates to the batch, and that of
    /// `input` must be per block along axis 0. Without a basis the whole space is taken.
    ///
    /// Four samples and some twenty tangents keep a transformer 128 wide over 22 tokens near the caches.
    ///
    /// # Panics
    /// When shapes or roles do not fit together.
    pub fn compile(
        program: &Program,
        input: usize,
        output: usize,
        roles: Vec<InputRole>,
        basis: Option<Basis>,
        tangents: usize,
    ) -> Self {
        let shape = program.input_shape(input).to_vec();
        assert_eq!(roles.len(), program.inputs.len(), "one role for each input");
        assert_eq!(
            roles[input],
            InputRole::PerBlock { axis: 0 },
            "the state's first axis is its batch axis"
        );
        assert_eq!(
            shape,
            program.output_shape(output),
            "the Jacobian of a map from a space to itself"
        );
        let block = shape[0];
        for (number, role) in roles.iter().enumerate() {
            if let InputRole::PerBlock { axis } = *role {
                let length = program.input_shape(number)[axis];
                assert_eq!(
                    length, block,
                    "batch axis {axis} of input {number} against the block size"
                );
            }
        }
        let dimension = shape[1..].iter().product();
        let basis = basis.unwrap_or_else(|| Basis::identity(dimension));
        assert_eq!(
            basis.rows, dimension,
            "the basis lies in the space of a sample"
        );
        let tangents = tangents.clamp(1, basis.columns.max(1));
        let mut one_output = program.clone();
        one_output.outputs = vec![program.outputs[output]];
        one_output.output_names = vec![program.output_names[output].clone()];
        let executable = Executable::compile(&jvp(&one_output, &[input], Some(tangents)));
        let chunks = (0..basis.columns)
            .step_by(tangents)
            .map(|first| {
                let mut chunk = vec![T::zero(); tangents * block * dimension];
                for k in 0..tangents.min(basis.columns - first) {
                    for sample in 0..block {
                        for a in 0..dimension {
                            chunk[(k * block + sample) * dimension + a] =
                                T::from_f64(basis.values[a * basis.columns + first + k]);
                        }
                    }
                }
                chunk
            })
            .collect();
        Self {
            executable,
            roles,
            input,
            basis,
            block,
            tangents,
            chunks,
            workers: Mutex::default(),
        }
    }

    /// D
    pub fn dimension(&self) -> usize {
        self.basis.rows
    }

    /// d
    pub fn subspace_dimension(&self) -> usize {
        self.basis.columns
    }

    /// Qᵀ J Q of every sample: `[n_samples, d, d]`, entry (k, l) = q_kᵀ J q_l. `y`, when given, receives the map's
    /// output. Inputs are those of the program with `n_samples` on their batch axes.
    ///
    /// # Panics
    /// When a length does not match.
    pub fn matrix(&self, n_samples: usize, inputs: &[&[T]], y: Option<&mut [T]>) -> Vec<f64> {
        let d = self.basis.columns;
        self.evaluate(n_samples, inputs, y, Gather::Matrix, d * d)
    }

    /// The diagonal of Qᵀ J Q of every sample: `[n_samples, d]`.
    ///
    /// # Panics
    /// When a length does not match.
    pub fn diagonal(&self, n_samples: usize, inputs: &[&[T]], y: Option<&mut [T]>) -> Vec<f64> {
        self.evaluate(n_samples, inputs, y, Gather::Diagonal, self.basis.columns)
    }

    /// tr Qᵀ J Q of every sample.
    ///
    /// # Panics
    /// When a length does not match.
    pub fn trace(&self, n_samples: usize, inputs: &[&[T]], y: Option<&mut [T]>) -> Vec<f64> {
        let d = self.basis.columns;
        self.diagonal(n_samples, inputs, y)
            .chunks(d.max(1))
            .map(|row| row.iter().sum())
            .collect()
    }

    /// log|det Qᵀ J Q| and the determinant's sign (0 when singular) of every sample, from an LU factorisation in `f64`.
    ///
    /// # Panics
    /// When a length does not match.
    pub fn log_abs_det(
        &self,
        n_samples: usize,
        inputs: &[&[T]],
        y: Option<&mut [T]>,
    ) -> Vec<(f64, f64)> {
        let d = self.basis.columns;
        self.matrix(n_samples, inputs, y)
            .par_chunks(d * d)
            .map(|matrix| log_abs_det(matrix, d))
            .collect()
    }

    /// Hutchinson's estimate (1/P) Σ_p v_pᵀ J v_p of every sample, from probes `[P, n_samples, D]`. For the trace on a
    /// subspace the probes must lie in it.
    ///
    /// # Panics
    /// When a length does not match.
    pub fn hutchinson_trace(
        &self,
        n_samples: usize,
        inputs: &[&[T]],
        probes: &[T],
        y: Option<&mut [T]>,
    ) -> Vec<f64> {
        let sample = n_samples * self.basis.rows;
        assert!(
            sample > 0 && !probes.is_empty() && probes.len().is_multiple_of(sample),
            "{} numbers are no probes for {n_samples} samples of {} elements",
            probes.len(),
            self.basis.rows
        );
        let count = probes.len() / sample;
        let mut traces = vec![0.0; n_samples];
        self.run_blocks(
            n_samples,
            inputs,
            y,
            &mut traces,
            1,
            |worker, block_inputs, first, samples, results| {
                let chunk_length = self.block * self.basis.rows;
                for start in (0..count).step_by(self.tangents) {
                    let now = self.tangents.min(count - start);
                    let mut tangents = std::mem::take(&mut worker.probes);
                    tangents.fill(T::zero());
                    for k in 0..now {
                        let probe = &probes[(start + k) * sample..][..sample];
                        let shape = [self.block, self.basis.rows];
                        let target = &mut tangents[k * chunk_length..][..chunk_length];
                        gather_block(probe, target, &shape, 0, n_samples, first, samples);
                    }
                    self.push_forward(worker, block_inputs, &tangents);
                    for (b, result) in results.iter_mut().enumerate() {
                        for k in 0..now {
                            let at = (k * self.block + b) * self.basis.rows;
                            let range = at..at + self.basis.rows;
                            let pairs = tangents[range.clone()]
                                .iter()
                                .zip(&worker.output_tangents[range]);
                            *result += pairs.map(|(v, jv)| v.as_f64() * jv.as_f64()).sum::<f64>()
                                / count as f64;
                        }
                    }
                    worker.probes = tangents;
                }
            },
        );
        traces
    }

    fn evaluate(
        &self,
        n_samples: usize,
        inputs: &[&[T]],
        y: Option<&mut [T]>,
        gather: Gather,
        per_sample: usize,
    ) -> Vec<f64> {
        let (dimension, d) = (self.basis.rows, self.basis.columns);
        let q = &self.basis.values;
        let mut results = vec![0.0; n_samples * per_sample];
        self.run_blocks(
            n_samples,
            inputs,
            y,
            &mut results,
            per_sample,
            |worker, block_inputs, _, samples, results| {
                for (chunk, tangents) in self.chunks.iter().enumerate() {
                    self.push_forward(worker, block_inputs, tangents);
                    let first = chunk * self.tangents;
                    for b in 0..samples {
                        let result = &mut results[b * per_sample..][..per_sample];
                        for l in first..d.min(first + self.tangents) {
                            let column = &worker.output_tangents
                                [((l - first) * self.block + b) * dimension..][..dimension];
                            match gather {
                                Gather::Matrix => {
                                    for (a, value) in column.iter().enumerate() {
                                        let value = value.as_f64();
                                        for k in 0..d {
                                            result[k * d + l] += q[a * d + k] * value;
                                        }
                                    }
                                }
                                Gather::Diagonal => {
                                    let terms = column
                                        .iter()
                                        .enumerate()
                                        .map(|(a, value)| q[a * d + l] * value.as_f64());
                                    result[l] = terms.sum();
                                }
                            }
                        }
                    }
                }
            },
        );
        results
    }

    /// Runs the K-tangent program on a worker's block.
    fn push_forward(
        &self,
        worker: &mut Worker<T>,
        block_inputs: &BlockInputs<'_, T>,
        tangents: &[T],
    ) {
        let mut inputs: Vec<&[T]> = Vec::with_capacity(self.roles.len() + 1);
        for (i, role) in self.roles.iter().enumerate() {
            inputs.push(match role {
                InputRole::Shared => block_inputs.shared[i],
                InputRole::PerBlock { .. } => &worker.inputs[i],
            });
        }
        inputs.push(tangents);
        let mut outputs = [
            worker.output.as_mut_slice(),
            worker.output_tangents.as_mut_slice(),
        ];
        self.executable
            .run_into(&mut worker.arena, &inputs, &mut outputs);
    }

    fn worker(&self) -> Worker<T> {
        let length = |shape: &Vec<usize>| shape.iter().product::<usize>();
        let shapes = self.executable.input_shapes();
        Worker {
            arena: self.executable.arena(),
            inputs: self
                .roles
                .iter()
                .zip(shapes)
                .map(|(role, shape)| match role {
                    InputRole::Shared => Vec::new(),
                    InputRole::PerBlock { .. } => vec![T::zero(); length(shape)],
                })
                .collect(),
            probes: vec![T::zero(); length(&shapes[self.roles.len()])],
            output: vec![T::zero(); length(&self.executable.output_shapes()[0])],
            output_tangents: vec![T::zero(); length(&self.executable.output_shapes()[1])],
        }
    }

    /// Calls `work` for every block, on rayon's threads, with the block's inputs in the worker, its first sample, its
    /// number of samples and its samples' results; then writes the block's output.
    fn run_blocks(
        &self,
        n_samples: usize,
        inputs: &[&[T]],
        y: Option<&mut [T]>,
        results: &mut [f64],
        per_sample: usize,
        work: impl Fn(&mut Worker<T>, &BlockInputs<'_, T>, usize, usize, &mut [f64]) + Sync,
    ) {
        assert_eq!(
            inputs.len(),
            self.roles.len(),
            "the program has {} inputs",
            self.roles.len()
        );
        for (i, (role, shape)) in self
            .roles
            .iter()
            .zip(self.executable.input_shapes())
            .enumerate()
        {
            let length: usize = shape.iter().product();
            let expected = match role {
                InputRole::Shared => length,
                InputRole::PerBlock { .. } => length / self.block * n_samples,
            };
            assert_eq!(
                inputs[i].len(),
                expected,
                "input {i} of block shape {shape:?} for {n_samples} samples"
            );
        }
        let dimension = self.basis.rows;
        let mut spare = Vec::new();
        let y = match y {
            Some(y) => {
                assert_eq!(
                    y.len(),
                    n_samples * dimension,
                    "output of {n_samples} samples"
                );
                y
            }
            None => {
                spare.resize(n_samples * dimension, T::zero());
                spare.as_mut_slice()
            }
        };
        let block_inputs = BlockInputs { shared: inputs };
        results
            .par_chunks_mut(self.block * per_sample)
            .zip(y.par_chunks_mut(self.block * dimension))
            .enumerate()
            .for_each(|(block, (results, y))| {
                let pool = || {
                    self.workers
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner())
                };
                let pooled = pool().pop();
                let mut worker = pooled.unwrap_or_else(|| self.worker());
                let first = block * self.block;
                let samples = self.block.min(n_samples - first);
                for (i, role) in self.roles.iter().enumerate() {
                    if let InputRole::PerBlock { axis } = *role {
                        let shape = &self.executable.input_shapes()[i];
                        gather_block(
                            inputs[i],
                            &mut worker.inputs[i],
                            shape,
                            axis,
                            n_samples,
                            first,
                            samples,
                        );
                    }
                }
                work(&mut worker, &block_inputs, first, samples, results);
                y.copy_from_slice(&worker.output[..samples * dimension]);
                pool().push(worker);
            });
    }

    /// Floating-point operations in the matrix products of one evaluation of `n_samples` samples.
    pub fn product_operations(&self, n_samples: usize) -> f64 {
        let runs = n_samples.div_ceil(self.block) * self.chunks.len();
        runs as f64 * self.executable.product_operations() as f64
    }

    /// The number of the state's input.
    pub fn state_input(&self) -> usize {
        self.input
    }
}

struct BlockInputs<'a, T> {
    shared: &'a [&'a [T]],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;

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
            let direct = crate::interpret(&curved(n, d), &[&x[..], &w[..], &v[..]]);
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
                crate::interpret(&program, &[&x[..], &w[..], &v[..]]).remove(0)
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
}
