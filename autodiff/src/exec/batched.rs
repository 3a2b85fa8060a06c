//! Running a program over a batch: fixed-size blocks on rayon's threads, with the same bits for any number of them.

use super::layout::count;
use super::turns::Turns;
use super::{Arena, Executable, Prepared};
use boltzmap_kernels::Real;
use rayon::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How an input of a block program relates to the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputRole {
    /// The same for all blocks (parameters).
    Shared,
    /// Its axis `axis` is the block's part of the batch axis.
    PerBlock {
        /// batch axis
        axis: usize,
    },
}

/// How an output of a block program relates to the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputRole {
    /// Its axis `axis` is the block's part of the batch axis.
    PerBlock {
        /// batch axis
        axis: usize,
    },
    /// Added up over the blocks (gradients, losses).
    Summed,
}

/// A block program with the rules for cutting a batch into blocks.
#[derive(Debug)]
pub struct Batched<T: Real> {
    executable: Executable<T>,
    inputs: Vec<InputRole>,
    outputs: Vec<OutputRole>,
    block: usize,
    workers: Mutex<Vec<Worker<T>>>,
    prepared: Mutex<Vec<Prepared<T>>>,
}

/// What one task needs: an arena, and a block's inputs and outputs where they are not contiguous in the caller's.
#[derive(Debug)]
struct Worker<T> {
    arena: Arena<T>,
    inputs: Vec<Vec<T>>,
    outputs: Vec<Vec<T>>,
}

impl<T: Real> Batched<T> {
    /// Compiles a block program. The block's size is the length of the batch axis of its per-block inputs.
    ///
    /// # Panics
    /// When the roles do not match the program or the batch axes differ in length.
    pub fn compile(
        program: &crate::ir::Program,
        inputs: Vec<InputRole>,
        outputs: Vec<OutputRole>,
    ) -> Self {
        let summed: Vec<bool> = outputs
            .iter()
            .map(|role| *role == OutputRole::Summed)
            .collect();
        let shared: Vec<bool> = inputs
            .iter()
            .map(|role| *role == InputRole::Shared)
            .collect();
        Self::new(
            Executable::compile_shared(program, &summed, &shared),
            inputs,
            outputs,
        )
    }

    /// As [`Batched::compile`], from an executable whose summed outputs were flagged for accumulation.
    ///
    /// # Panics
    /// As [`Batched::compile`].
    pub fn new(
        executable: Executable<T>,
        inputs: Vec<InputRole>,
        outputs: Vec<OutputRole>,
    ) -> Self {
        assert_eq!(
            inputs.len(),
            executable.input_shapes().len(),
            "one role for each input"
        );
        assert_eq!(
            outputs.len(),
            executable.output_shapes().len(),
            "one role for each output"
        );
        let mut block = None;
        let mut see = |shape: &[usize], axis: usize| {
            let length = shape[axis];
            assert!(
                *block.get_or_insert(length) == length,
                "batch axis {axis} of {shape:?} differs from the block size {block:?}"
            );
        };
        for (number, (role, shape)) in inputs.iter().zip(executable.input_shapes()).enumerate() {
            if let InputRole::PerBlock { axis } = role {
                see(shape, *axis);
                assert!(
                    !executable.is_shared(number),
                    "input {number} was compiled as shared, and differs from block to block"
                );
            }
        }
        for (number, (role, shape)) in outputs.iter().zip(executable.output_shapes()).enumerate() {
            match role {
                OutputRole::PerBlock { axis } => see(shape, *axis),
                OutputRole::Summed => assert!(
                    executable.accumulates(number),
                    "summed output {number} must be flagged when the program is compiled: use Batched::compile"
                ),
            }
        }
        let block =
            block.unwrap_or_else(|| panic!("a batched program needs an input or output per block"));
        Self {
            executable,
            inputs,
            outputs,
            block,
            workers: Mutex::default(),
            prepared: Mutex::default(),
        }
    }

    /// Samples in a block.
    pub fn block_size(&self) -> usize {
        self.block
    }

    /// The compiled block program.
    pub fn executable(&self) -> &Executable<T> {
        &self.executable
    }

    /// Runs over `n_samples` samples. Per-block arrays have the program's shape with `n_samples` on their batch axis. A
    /// last, partial block is filled up by repeating the last sample; that is refused with summed outputs, where the
    /// repeats would count.
    ///
    /// # Panics
    /// When lengths do not match, or a summed output meets a partial block.
    pub fn run(&self, n_samples: usize, inputs: &[&[T]], outputs: &mut [&mut [T]]) {
        assert_eq!(
            inputs.len(),
            self.inputs.len(),
            "the program has {} inputs",
            self.inputs.len()
        );
        assert_eq!(
            outputs.len(),
            self.outputs.len(),
            "the program has {} outputs",
            self.outputs.len()
        );
        let any_summed = self.outputs.contains(&OutputRole::Summed);
        assert!(
            !any_summed || n_samples.is_multiple_of(self.block),
            "{n_samples} samples are no multiple of the block size {}, which summed outputs need",
            self.block
        );
        for (i, (role, shape)) in self
            .inputs
            .iter()
            .zip(self.executable.input_shapes())
            .enumerate()
        {
            let expected = match role {
                InputRole::Shared => count(shape),
                InputRole::PerBlock { axis } => count(shape) / shape[*axis] * n_samples,
            };
            assert_eq!(
                inputs[i].len(),
                expected,
                "input {i} for {n_samples} samples of block shape {shape:?}"
            );
        }
        for (i, (role, shape)) in self
            .outputs
            .iter()
            .zip(self.executable.output_shapes())
            .enumerate()
        {
            let expected = match role {
                OutputRole::Summed => count(shape),
                OutputRole::PerBlock { axis } => count(shape) / shape[*axis] * n_samples,
            };
            assert_eq!(
                outputs[i].len(),
                expected,
                "output {i} for {n_samples} samples of block shape {shape:?}"
            );
        }
        let blocks = n_samples.div_ceil(self.block);
        if blocks == 0 {
            outputs.iter_mut().for_each(|output| output.fill(T::zero()));
            return;
        }
        let mut prepared = take(&self.prepared).unwrap_or_else(|| self.executable.prepared());
        self.executable.prepare(inputs, &mut prepared);
        let batch = Batch {
            n_samples,
            inputs,
            outputs: outputs
                .iter_mut()
                .map(|output| SharedOutput(output.as_mut_ptr()))
                .collect(),
            prepared: &prepared,
            turns: Turns::new(if any_summed {
                self.executable.n_turns()
            } else {
                0
            }),
        };
        let taken = AtomicUsize::new(0);
        // Blocks are begun in order, so the one that a block waits for is always running.
        let work = |_| {
            let mut worker = take(&self.workers).unwrap_or_else(|| self.worker());
            loop {
                let block = taken.fetch_add(1, Ordering::Relaxed);
                if block >= blocks {
                    break;
                }
                self.run_block(&mut worker, block, &batch);
            }
            put(&self.workers, worker);
        };
        (0..blocks.min(rayon::current_num_threads()))
            .into_par_iter()
            .for_each(work);
        drop(batch);
        put(&self.prepared, prepared);
    }

    fn worker(&self) -> Worker<T> {
        let inputs = self.inputs.iter().zip(self.executable.input_shapes());
        let outputs = self.outputs.iter().zip(self.executable.output_shapes());
        Worker {
            arena: self.executable.arena(),
            inputs: inputs
                .map(|(role, shape)| match role {
                    InputRole::Shared => Vec::new(),
                    InputRole::PerBlock { .. } => vec![T::zero(); count(shape)],
                })
                .collect(),
            outputs: outputs
                .map(|(role, shape)| match role {
                    OutputRole::Summed => Vec::new(),
                    OutputRole::PerBlock { .. } => vec![T::zero(); count(shape)],
                })
                .collect(),
        }
    }

    fn run_block(&self, worker: &mut Worker<T>, block: usize, batch: &Batch<'_, T>) {
        let first = block * self.block;
        let samples = self.block.min(batch.n_samples - first);
        // Whole blocks along the first axis lie in the caller's arrays as the program wants them.
        let in_place = |axis: usize| axis == 0 && samples == self.block;
        for (i, role) in self.inputs.iter().enumerate() {
            if let InputRole::PerBlock { axis } = *role
                && !in_place(axis)
            {
                gather_block(
                    batch.inputs[i],
                    &mut worker.inputs[i],
                    &self.executable.input_shapes()[i],
                    axis,
                    batch.n_samples,
                    first,
                    samples,
                );
            }
        }
        let Worker {
            arena,
            inputs,
            outputs,
        } = worker;
        let input = |i: usize| match self.inputs[i] {
            InputRole::Shared => batch.inputs[i],
            InputRole::PerBlock { axis } if in_place(axis) => {
                let length = count(&self.executable.input_shapes()[i]);
                &batch.inputs[i][block * length..][..length]
            }
            InputRole::PerBlock { .. } => &inputs[i],
        };
        let output = |i: usize| match self.outputs[i] {
            OutputRole::Summed => batch.outputs[i].0,
            OutputRole::PerBlock { axis } if in_place(axis) => {
                let length = count(&self.executable.output_shapes()[i]);
                batch.outputs[i].0.wrapping_add(block * length)
            }
            OutputRole::PerBlock { .. } => outputs[i].as_mut_ptr(),
        };
        // SAFETY: inputs and outputs have the program's lengths: those of whole blocks inside the batch's arrays, whose
        // lengths `run` checked. Blocks own disjoint parts of the per-block outputs, and take turns at the summed ones.
        unsafe {
            self.executable
                .run_block(arena, batch.prepared, input, output, (&batch.turns, block));
        }
        for (i, role) in self.outputs.iter().enumerate() {
            if let OutputRole::PerBlock { axis } = *role
                && !in_place(axis)
            {
                let shape = &self.executable.output_shapes()[i];
                // SAFETY: as above; this block's samples only.
                unsafe {
                    scatter(
                        &worker.outputs[i],
                        batch.outputs[i].0,
                        shape,
                        axis,
                        batch.n_samples,
                        first,
                        samples,
                    );
                }
            }
        }
    }
}

/// What the blocks of one run share.
struct Batch<'a, T> {
    n_samples: usize,
    inputs: &'a [&'a [T]],
    outputs: Vec<SharedOutput<T>>,
    prepared: &'a Prepared<T>,
    turns: Turns,
}

/// The first element of an output that several threads write to.
struct SharedOutput<T>(*mut T);

// SAFETY: `run` borrows the outputs exclusively; its threads write to disjoint parts, or one after another in turns.
unsafe impl<T: Send> Sync for SharedOutput<T> {}

fn take<V>(pool: &Mutex<Vec<V>>) -> Option<V> {
    pool.lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .pop()
}

fn put<V>(pool: &Mutex<Vec<V>>, value: V) {
    pool.lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .push(value);
}

/// Copies samples `first..first + samples` of a batch to a block, repeating the last one to its end.
pub(crate) fn gather_block<T: Real>(
    batch: &[T],
    block: &mut [T],
    shape: &[usize],
    axis: usize,
    n_samples: usize,
    first: usize,
    samples: usize,
) {
    let inner = count(&shape[axis + 1..]);
    for outer in 0..count(&shape[..axis]) {
        let source = &batch[outer * n_samples * inner..][..n_samples * inner];
        let target = &mut block[outer * shape[axis] * inner..][..shape[axis] * inner];
        target[..samples * inner]
            .copy_from_slice(&source[first * inner..(first + samples) * inner]);
        for sample in samples..shape[axis] {
            let last = first + samples - 1;
            target[sample * inner..(sample + 1) * inner]
                .copy_from_slice(&source[last * inner..(last + 1) * inner]);
        }
    }
}

/// Copies the first `samples` samples of a block to their place in a batch.
///
/// # Safety
/// `batch` has the block's shape with `n_samples` on its batch axis, and nothing else accesses these samples.
unsafe fn scatter<T: Real>(
    block: &[T],
    batch: *mut T,
    shape: &[usize],
    axis: usize,
    n_samples: usize,
    first: usize,
    samples: usize,
) {
    let inner = count(&shape[axis + 1..]);
    for outer in 0..count(&shape[..axis]) {
        let source = &block[outer * shape[axis] * inner..][..samples * inner];
        // SAFETY: the caller's.
        let target = unsafe {
            let start = batch.add((outer * n_samples + first) * inner);
            std::slice::from_raw_parts_mut(start, samples * inner)
        };
        target.copy_from_slice(source);
    }
}
