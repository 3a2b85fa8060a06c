//! Jacobians of batched maps by forward mode with many tangents at once: exact trace, diagonal, matrix and log|det|.
//!
//! For a program with an input x `[B, …]` and an output y of the same shape, where y of a sample depends on x of the
//! same sample only, the Jacobian of sample b is J = ∂y_b/∂x_b, a D × D matrix with D the elements of a sample. States
//! often live on a subspace with orthonormal basis Q `[D, d]` (for example the mean-free one); everything here is about
//! the d × d matrix Qᵀ J Q.
//!
//! A block of B samples is evaluated once; then chunks of tangents pass through the linear program of its residuals, in
//! products of K·B·T rows. For a state `[B, T, …]` the first layers see basis vectors that touch one token each, and
//! the last ones are passed backwards by cotangents that touch one token each; after the first and before the last mixing
//! of tokens both are sums of a few outer products for a while (`analysis`). Only the layers between cost T tokens
//! for every tangent (`programs`), less what the order of products saves (`reassociate`). Blocks run on rayon's
//! threads; results do not depend on their number.

mod analysis;
mod basis;
mod batch_axis;
mod evaluate;
mod programs;
mod reassociate;
#[cfg(test)]
mod tests;

pub use basis::Basis;

use crate::exec::{InputRole, gather_block};
use crate::ir::Program;
use boltzmap_kernels::Real;
use boltzmap_kernels::linalg::log_abs_det_in_place;
use evaluate::Evaluator;
use programs::{Wanted, arbitrary, local};
use std::sync::OnceLock;

/// Evaluates Jacobians of one program. What a method needs is compiled when it is first called.
#[derive(Debug)]
pub struct Jacobian<T: Real> {
    /// The program with the differentiated output alone.
    program: Program,
    roles: Vec<InputRole>,
    input: usize,
    basis: Basis,
    whole_space: bool,
    /// B
    block: usize,
    /// K
    tangents: usize,
    diagonal: OnceLock<Evaluator<T>>,
    matrix: OnceLock<Evaluator<T>>,
    arbitrary: OnceLock<Evaluator<T>>,
}

/// The T tokens cut into chunks of about the same size.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Chunks {
    /// T
    tokens: usize,
    /// C
    channels: usize,
    /// Tokens of every chunk but the last.
    size: usize,
}

impl Chunks {
    fn new(shape: &[usize], tangents: usize) -> Self {
        let tokens = shape.get(1).copied().unwrap_or(1);
        let channels: usize = shape.iter().skip(2).product();
        let most = (tangents / channels.max(1)).clamp(1, tokens.max(1));
        let chunks = tokens.div_ceil(most).max(1);
        Self {
            tokens,
            channels,
            size: tokens.div_ceil(chunks),
        }
    }

    /// The different sizes.
    fn sizes(self) -> Vec<usize> {
        let last = self.tokens - (self.tokens.div_ceil(self.size) - 1) * self.size;
        if last == self.size {
            vec![last]
        } else {
            vec![self.size, last]
        }
    }

    /// First token and number of the size of every chunk.
    fn iter(self) -> impl Iterator<Item = (usize, usize)> {
        let whole = move |first| first + self.size <= self.tokens;
        (0..self.tokens)
            .step_by(self.size)
            .map(move |first| (first, usize::from(!whole(first))))
    }
}

impl<T: Real> Jacobian<T> {
    /// Prepares the derivative of output `output` in input `input`, with about `tangents` basis vectors at a time. The
    /// block size is the length of the input's first axis; `roles` says how every input relates to the batch, and that
    /// of `input` must be per block along axis 0. Without a basis the whole space is taken.
    ///
    /// One sample and some twenty tangents keep a transformer 128 wide over 22 tokens near the caches.
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
        let mut one_output = program.clone();
        one_output.outputs = vec![program.outputs[output]];
        one_output.output_names = vec![program.output_names[output].clone()];
        Self {
            program: one_output,
            roles,
            input,
            whole_space: basis.is_identity(),
            block,
            tangents: tangents.max(1),
            basis,
            diagonal: OnceLock::new(),
            matrix: OnceLock::new(),
            arbitrary: OnceLock::new(),
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
        self.reduce_matrices(n_samples, inputs, y, d * d, |matrix, result| {
            result.copy_from_slice(matrix);
        })
    }

    /// The diagonal of Qᵀ J Q of every sample: `[n_samples, d]`.
    ///
    /// # Panics
    /// When a length does not match.
    pub fn diagonal(&self, n_samples: usize, inputs: &[&[T]], y: Option<&mut [T]>) -> Vec<f64> {
        let d = self.basis.columns;
        if !self.whole_space {
            return self.reduce_matrices(n_samples, inputs, y, d, |matrix, result| {
                (0..d).for_each(|k| result[k] = matrix[k * (d + 1)]);
            });
        }
        let evaluator = self
            .diagonal
            .get_or_init(|| self.local_evaluator(Wanted::Diagonal));
        let chunks = self.chunks();
        let mut results = vec![0.0; n_samples * d];
        evaluator.run(
            n_samples,
            inputs,
            y,
            &mut results,
            d,
            |block, worker, results| {
                for (first, which) in chunks.iter() {
                    block.run_chunk(worker, which, first);
                    let entries = worker.outputs[which].chunks_exact(self.block);
                    for (k, of_block) in entries.enumerate() {
                        for (b, value) in of_block[..block.samples].iter().enumerate() {
                            results[b * d + first * chunks.channels + k] = value.as_f64();
                        }
                    }
                }
            },
        );
        results
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
        self.reduce_matrices(n_samples, inputs, y, 2, |matrix, result| {
            let (log, sign) = log_abs_det_in_place(matrix, d);
            result.copy_from_slice(&[log, sign]);
        })
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
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
        let forms = self.quadratic_forms(n_samples, inputs, probes, y);
        let count = forms.len() / n_samples;
        forms
            .chunks_exact(count)
            .map(|forms| forms.iter().sum::<f64>() / count as f64)
            .collect()
    }

    /// v_pᵀ J v_p of every sample and probe: `[n_samples, P]`, from probes `[P, n_samples, D]`.
    ///
    /// # Panics
    /// When a length does not match.
    pub fn quadratic_forms(
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
        let mut forms = vec![0.0; n_samples * count];
        self.arbitrary().run(
            n_samples,
            inputs,
            y,
            &mut forms,
            count,
            |block, worker, forms| {
                let chunk_length = self.block * self.basis.rows;
                let shape = [self.block, self.basis.rows];
                for start in (0..count).step_by(self.tangents) {
                    let now = self.tangents.min(count - start);
                    worker.tangents.fill(T::zero());
                    for k in 0..now {
                        let probe = &probes[(start + k) * sample..][..sample];
                        let target = &mut worker.tangents[k * chunk_length..][..chunk_length];
                        gather_block(
                            probe,
                            target,
                            &shape,
                            0,
                            n_samples,
                            block.first,
                            block.samples,
                        );
                    }
                    block.run_chunk(worker, 0, 0);
                    for (b, forms) in forms.chunks_exact_mut(count).enumerate() {
                        for k in 0..now {
                            let at = (k * self.block + b) * self.basis.rows;
                            let range = at..at + self.basis.rows;
                            let pairs = worker.tangents[range.clone()]
                                .iter()
                                .zip(&worker.outputs[0][range]);
                            forms[start + k] = pairs.map(|(v, jv)| v.as_f64() * jv.as_f64()).sum();
                        }
                    }
                }
            },
        );
        forms
    }

    /// Calls `reduce` with Qᵀ J Q `[d, d]` of every sample and the sample's part of the result.
    fn reduce_matrices(
        &self,
        n_samples: usize,
        inputs: &[&[T]],
        y: Option<&mut [T]>,
        per_sample: usize,
        reduce: impl Fn(&mut [f64], &mut [f64]) + Sync,
    ) -> Vec<f64> {
        let (dimension, d) = (self.basis.rows, self.basis.columns);
        let mut results = vec![0.0; n_samples * per_sample];
        if self.few_columns() {
            self.arbitrary().run(
                n_samples,
                inputs,
                y,
                &mut results,
                per_sample,
                |block, worker, results| {
                    // J Q `[D, d]` of every sample.
                    let mut columns = vec![0.0; block.samples * dimension * d];
                    for first in (0..d).step_by(self.tangents) {
                        let now = self.tangents.min(d - first);
                        worker.tangents.fill(T::zero());
                        let tangents = worker.tangents.chunks_exact_mut(dimension);
                        for (row, tangent) in tangents.take(now * self.block).enumerate() {
                            for (a, value) in tangent.iter_mut().enumerate() {
                                let q = self.basis.values[a * d + first + row / self.block];
                                *value = T::from_f64(q);
                            }
                        }
                        block.run_chunk(worker, 0, 0);
                        let tangents = worker.outputs[0].chunks_exact(dimension);
                        for (row, tangent) in tangents.take(now * self.block).enumerate() {
                            let (l, b) = (first + row / self.block, row % self.block);
                            if b < block.samples {
                                for (a, value) in tangent.iter().enumerate() {
                                    columns[(b * dimension + a) * d + l] = value.as_f64();
                                }
                            }
                        }
                    }
                    for (b, result) in results.chunks_exact_mut(per_sample).enumerate() {
                        let own = &columns[b * dimension * d..][..dimension * d];
                        reduce(&mut self.basis.rows_of(own, d), result);
                    }
                },
            );
            return results;
        }
        let evaluator = self
            .matrix
            .get_or_init(|| self.local_evaluator(Wanted::Matrix));
        let chunks = self.chunks();
        evaluator.run(
            n_samples,
            inputs,
            y,
            &mut results,
            per_sample,
            |block, worker, results| {
                let mut whole = vec![0.0; block.samples * dimension * dimension];
                for (first, which) in chunks.iter() {
                    block.run_chunk(worker, which, first);
                    let output = &worker.outputs[which];
                    let width = output.len() / (self.block * dimension);
                    let rows = whole.chunks_exact_mut(dimension);
                    for (row, values) in rows.zip(output.chunks_exact(width)) {
                        let target = &mut row[first * chunks.channels..][..width];
                        for (target, value) in target.iter_mut().zip(values) {
                            *target = value.as_f64();
                        }
                    }
                }
                let matrices = whole.chunks_exact_mut(dimension * dimension);
                for (matrix, result) in matrices.zip(results.chunks_exact_mut(per_sample)) {
                    if self.whole_space {
                        reduce(matrix, result);
                    } else {
                        let columns = self.basis.columns_of(matrix, dimension);
                        reduce(&mut self.basis.rows_of(&columns, d), result);
                    }
                }
            },
        );
        results
    }

    /// Whether d arbitrary tangents cost less than D basis vectors of the whole space.
    fn few_columns(&self) -> bool {
        2 * self.basis.columns < self.basis.rows
    }

    fn chunks(&self) -> Chunks {
        Chunks::new(self.program.input_shape(self.input), self.tangents)
    }

    fn local_evaluator(&self, wanted: Wanted) -> Evaluator<T> {
        let chunks = self.chunks();
        let programs = local(&self.program, self.input, &chunks.sizes(), wanted);
        Evaluator::compile(&programs, &self.roles, self.block, chunks.tokens)
    }

    fn arbitrary(&self) -> &Evaluator<T> {
        self.arbitrary.get_or_init(|| {
            let programs = arbitrary(&self.program, self.input, self.tangents);
            Evaluator::compile(&programs, &self.roles, self.block, 1)
        })
    }

    /// Floating-point operations in the matrix products of one evaluation of the matrix of `n_samples` samples.
    pub fn product_operations(&self, n_samples: usize) -> f64 {
        let blocks = n_samples.div_ceil(self.block) as f64;
        if self.few_columns() {
            let (primal, chunks) = self.arbitrary().product_operations();
            let runs = self.basis.columns.div_ceil(self.tangents);
            return blocks * (primal + runs * chunks[0]) as f64;
        }
        let evaluator = self
            .matrix
            .get_or_init(|| self.local_evaluator(Wanted::Matrix));
        blocks * self.operations_of(evaluator)
    }

    /// As [`Jacobian::product_operations`], of the diagonal.
    pub fn diagonal_product_operations(&self, n_samples: usize) -> f64 {
        if !self.whole_space {
            return self.product_operations(n_samples);
        }
        let evaluator = self
            .diagonal
            .get_or_init(|| self.local_evaluator(Wanted::Diagonal));
        n_samples.div_ceil(self.block) as f64 * self.operations_of(evaluator)
    }

    fn operations_of(&self, evaluator: &Evaluator<T>) -> f64 {
        let (primal, chunks) = evaluator.product_operations();
        let in_chunks: usize = self.chunks().iter().map(|(_, which)| chunks[which]).sum();
        (primal + in_chunks) as f64
    }

    /// What the time of a matrix, or of its diagonal alone, goes to: for every step of the program run once for a block,
    /// then of the one run for a chunk of tangents, its description, floating-point operations in matrix products, and
    /// least seconds of `passes`. The state is not projected on the basis here.
    ///
    /// # Panics
    /// When a length does not match.
    pub fn profile(
        &self,
        diagonal: bool,
        n_samples: usize,
        inputs: &[&[T]],
        passes: usize,
    ) -> [Vec<(String, usize, f64)>; 2] {
        let (evaluator, wanted) = if diagonal {
            (&self.diagonal, Wanted::Diagonal)
        } else {
            (&self.matrix, Wanted::Matrix)
        };
        evaluator
            .get_or_init(|| self.local_evaluator(wanted))
            .profile(n_samples, inputs, passes)
    }

    /// Chunks of tangents that a block takes.
    pub fn chunk_count(&self) -> usize {
        self.chunks().iter().count()
    }

    /// The number of the state's input.
    pub fn state_input(&self) -> usize {
        self.input
    }
}
