//! Runs the programs of a Jacobian over the blocks of a batch, on rayon's threads.

use super::programs::{Programs, Source};
use crate::exec::{Arena, Executable, InputRole, Prepared, gather_block};
use crate::ir::Program;
use boltzmap_kernels::Real;
use rayon::prelude::*;
use std::sync::{Mutex, MutexGuard};

/// Compiled programs of one block of samples: the primal one, run once, and one or two for chunks of tangents.
#[derive(Debug)]
pub(super) struct Evaluator<T: Real> {
    primal: Executable<T>,
    chunks: Vec<Executable<T>>,
    sources: Vec<Source>,
    roles: Vec<InputRole>,
    /// B
    block: usize,
    /// `[T, T]`, the rows of the identity that chunks see as places.
    identity: Vec<T>,
    workers: Mutex<Vec<Worker<T>>>,
    /// For the primal program, then for each chunk's.
    prepared: Mutex<Vec<Vec<Prepared<T>>>>,
}

/// What one task needs.
#[derive(Debug)]
pub(super) struct Worker<T> {
    arena: Arena<T>,
    /// Taken out while a chunk runs.
    chunk_arenas: Vec<Option<Arena<T>>>,
    inputs: Vec<Vec<T>>,
    /// Outputs of the primal program: the map's, then what is kept for the chunks.
    kept: Vec<Vec<T>>,
    /// Output of each chunk's program.
    pub(super) outputs: Vec<Vec<T>>,
    /// Tangents, for a program that takes any.
    pub(super) tangents: Vec<T>,
}

/// One block at work.
pub(super) struct Block<'a, T: Real> {
    evaluator: &'a Evaluator<T>,
    inputs: &'a [&'a [T]],
    prepared: &'a [Prepared<T>],
    /// Number of its first sample.
    pub(super) first: usize,
    /// Its samples; the rest of a last block repeats the last one.
    pub(super) samples: usize,
}

impl<T: Real> Evaluator<T> {
    pub(super) fn compile(
        programs: &Programs,
        roles: &[InputRole],
        block: usize,
        tokens: usize,
    ) -> Self {
        let mut identity = vec![T::zero(); tokens * tokens];
        (0..tokens).for_each(|i| identity[i * (tokens + 1)] = T::one());
        let is_shared = |i: usize| roles[i] == InputRole::Shared;
        let compile = |program: &Program, shared: &[bool]| {
            Executable::compile_shared(program, &vec![false; program.outputs.len()], shared)
        };
        let originals: Vec<bool> = (0..roles.len()).map(is_shared).collect();
        let of_chunk: Vec<bool> = programs
            .sources
            .iter()
            .map(|source| matches!(*source, Source::Original(i) if is_shared(i)))
            .collect();
        let chunks = programs.chunks.iter();
        Self {
            primal: compile(&programs.primal, &originals),
            chunks: chunks.map(|chunk| compile(chunk, &of_chunk)).collect(),
            sources: programs.sources.clone(),
            roles: roles.to_vec(),
            block,
            identity,
            workers: Mutex::default(),
            prepared: Mutex::default(),
        }
    }

    /// Floating-point operations in the matrix products of the primal program and of each chunk's.
    pub(super) fn product_operations(&self) -> (usize, Vec<usize>) {
        let chunks = self.chunks.iter().map(Executable::product_operations);
        (self.primal.product_operations(), chunks.collect())
    }

    /// Steps of the primal program, then of the first chunk's, run `passes` times on the first block.
    pub(super) fn profile(
        &self,
        n_samples: usize,
        inputs: &[&[T]],
        passes: usize,
    ) -> [Vec<(String, usize, f64)>; 2] {
        let mut worker = self.worker();
        let prepared = self.prepare(inputs);
        let block = Block {
            evaluator: self,
            inputs,
            prepared: &prepared,
            first: 0,
            samples: self.block.min(n_samples),
        };
        block.run_primal(n_samples, &mut worker);
        let own: Vec<&[T]> = (0..self.roles.len())
            .map(|i| block.original(&worker.inputs, i))
            .collect();
        let mut kept = worker.kept.clone();
        let mut outputs: Vec<&mut [T]> = kept.iter_mut().map(Vec::as_mut_slice).collect();
        let primal = self.primal.profile(&own, &mut outputs, passes);
        let own = block.chunk_inputs(&worker, 0, 0);
        let mut output = worker.outputs[0].clone();
        let chunk = self.chunks[0].profile(&own, &mut [output.as_mut_slice()], passes);
        [primal, chunk]
    }

    /// What all blocks have in common.
    fn prepare(&self, inputs: &[&[T]]) -> Vec<Prepared<T>> {
        let pooled = pool(&self.prepared).pop();
        let mut prepared = pooled.unwrap_or_else(|| {
            let programs = std::iter::once(&self.primal).chain(&self.chunks);
            programs.map(Executable::prepared).collect()
        });
        self.primal.prepare(inputs, &mut prepared[0]);
        let of_chunk: Vec<&[T]> = self
            .sources
            .iter()
            .map(|source| match *source {
                Source::Original(i) => inputs[i],
                Source::Kept(_) | Source::KeptTokens(_) | Source::Place | Source::Tangents => &[],
            })
            .collect();
        for (chunk, prepared) in self.chunks.iter().zip(&mut prepared[1..]) {
            chunk.prepare(&of_chunk, prepared);
        }
        prepared
    }

    fn worker(&self) -> Worker<T> {
        let zeros = |shape: &Vec<usize>| vec![T::zero(); shape.iter().product()];
        let shapes = self.primal.input_shapes();
        let tangents = self
            .sources
            .iter()
            .position(|source| *source == Source::Tangents)
            .map_or_else(Vec::new, |i| zeros(&self.chunks[0].input_shapes()[i]));
        Worker {
            arena: self.primal.arena(),
            chunk_arenas: self
                .chunks
                .iter()
                .map(|chunk| Some(chunk.arena()))
                .collect(),
            inputs: self
                .roles
                .iter()
                .zip(shapes)
                .map(|(role, shape)| match role {
                    InputRole::Shared => Vec::new(),
                    InputRole::PerBlock { .. } => zeros(shape),
                })
                .collect(),
            kept: self.primal.output_shapes().iter().map(zeros).collect(),
            outputs: self
                .chunks
                .iter()
                .map(|chunk| zeros(&chunk.output_shapes()[0]))
                .collect(),
            tangents,
        }
    }

    /// Evaluates the map of every block, then calls `work` with the block and its samples' results, on rayon's threads.
    pub(super) fn run(
        &self,
        n_samples: usize,
        inputs: &[&[T]],
        y: Option<&mut [T]>,
        results: &mut [f64],
        per_sample: usize,
        work: impl Fn(&Block<'_, T>, &mut Worker<T>, &mut [f64]) + Sync,
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
            .zip(self.primal.input_shapes())
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
        let output: usize = self.primal.output_shapes()[0].iter().product();
        let dimension = output / self.block;
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
        let prepared = self.prepare(inputs);
        results
            .par_chunks_mut(self.block * per_sample)
            .zip(y.par_chunks_mut(self.block * dimension))
            .enumerate()
            .for_each(|(number, (results, y))| {
                let pooled = pool(&self.workers).pop();
                let mut worker = pooled.unwrap_or_else(|| self.worker());
                let first = number * self.block;
                let block = Block {
                    evaluator: self,
                    inputs,
                    prepared: &prepared,
                    first,
                    samples: self.block.min(n_samples - first),
                };
                block.run_primal(n_samples, &mut worker);
                work(&block, &mut worker, results);
                y.copy_from_slice(&worker.kept[0][..y.len()]);
                pool(&self.workers).push(worker);
            });
        pool(&self.prepared).push(prepared);
    }
}

fn pool<V>(pool: &Mutex<Vec<V>>) -> MutexGuard<'_, Vec<V>> {
    pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl<T: Real> Block<'_, T> {
    fn run_primal(&self, n_samples: usize, worker: &mut Worker<T>) {
        let Evaluator { primal, roles, .. } = self.evaluator;
        for (i, role) in roles.iter().enumerate() {
            if let InputRole::PerBlock { axis } = *role {
                gather_block(
                    self.inputs[i],
                    &mut worker.inputs[i],
                    &primal.input_shapes()[i],
                    axis,
                    n_samples,
                    self.first,
                    self.samples,
                );
            }
        }
        let inputs: Vec<&[T]> = (0..roles.len())
            .map(|i| self.original(&worker.inputs, i))
            .collect();
        let mut outputs: Vec<&mut [T]> = worker.kept.iter_mut().map(Vec::as_mut_slice).collect();
        primal.run_prepared(
            &mut worker.arena,
            &self.prepared[0],
            &inputs,
            &mut outputs,
            false,
        );
    }

    fn original<'w>(&'w self, own: &'w [Vec<T>], i: usize) -> &'w [T] {
        match self.evaluator.roles[i] {
            InputRole::Shared => self.inputs[i],
            InputRole::PerBlock { .. } => &own[i],
        }
    }

    /// What chunk program `which` reads for the tokens from `first_token` on.
    fn chunk_inputs<'w>(
        &'w self,
        worker: &'w Worker<T>,
        which: usize,
        first_token: usize,
    ) -> Vec<&'w [T]> {
        let evaluator = self.evaluator;
        let shapes = evaluator.chunks[which].input_shapes();
        let sources = evaluator.sources.iter().zip(shapes);
        sources
            .map(|(source, shape)| {
                let cut = || {
                    let inner = shape[1..].iter().product::<usize>();
                    first_token * inner..(first_token + shape[0]) * inner
                };
                match *source {
                    Source::Original(i) => self.original(&worker.inputs, i),
                    Source::Kept(i) => &worker.kept[i],
                    Source::KeptTokens(i) => &worker.kept[i][cut()],
                    Source::Place => &evaluator.identity[cut()],
                    Source::Tangents => &worker.tangents,
                }
            })
            .collect()
    }

    /// Runs chunk program `which` for the tokens from `first_token` on; its result lies in the worker's
    /// `outputs[which]`.
    pub(super) fn run_chunk(&self, worker: &mut Worker<T>, which: usize, first_token: usize) {
        let mut arena = std::mem::take(&mut worker.chunk_arenas[which]);
        let mut output = std::mem::take(&mut worker.outputs[which]);
        if let Some(arena) = &mut arena {
            let inputs = self.chunk_inputs(worker, which, first_token);
            self.evaluator.chunks[which].run_prepared(
                arena,
                &self.prepared[1 + which],
                &inputs,
                &mut [output.as_mut_slice()],
                false,
            );
        }
        worker.chunk_arenas[which] = arena;
        worker.outputs[which] = output;
    }
}
