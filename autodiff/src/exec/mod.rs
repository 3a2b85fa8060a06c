//! Execution: a program becomes a planned schedule of steps over one arena.
//!
//! [`Executable::compile`] fuses elementwise instructions into groups (`fused`), turns reshapes, permutations,
//! slices and broadcasts into views (`layout`), lowers the rest to one step each (`lower`) and gives every buffer
//! an offset (`plan`). A run then walks the steps: no allocation, no shape checks, one thread. `batched` runs many
//! blocks of a batch over rayon's threads.

mod batched;
mod functions;
mod fuse;
mod fused;
mod groups;
mod layout;
mod lower;
mod memory;
mod movement;
mod plan;
mod product;
mod rows;
#[cfg(test)]
mod tests;

pub(crate) use batched::gather_block;
pub use batched::{Batched, InputRole, OutputRole};
pub use memory::Arena;

use crate::ir::Program;
use crate::optimize::optimize;
use boltzmap_kernels::Real;
use memory::{ALIGNMENT, Address, Memory};
use plan::Place;

/// One planned operation.
#[derive(Clone, Debug)]
enum Step {
    Fused(fused::Fused),
    Product(product::Product),
    Copy(movement::Copy),
    Fill(movement::Fill),
    Sum(movement::Sum),
    Indexed(movement::Indexed),
    Rows(rows::Rows),
}

impl Step {
    /// Calls `visit` with every buffer touched and whether it is written.
    fn for_each_buffer(&self, mut visit: impl FnMut(usize, bool)) {
        match self {
            Step::Fused(group) => {
                group
                    .operands
                    .iter()
                    .for_each(|operand| visit(operand.buffer, false));
                group.outputs.iter().for_each(|&output| visit(output, true));
            }
            Step::Product(product) => {
                let [a, b, c] = product.buffers();
                visit(a, false);
                visit(b, false);
                visit(c, true);
            }
            Step::Copy(copy) => {
                visit(copy.source, false);
                visit(copy.target, true);
            }
            Step::Fill(fill) => visit(fill.target, true),
            Step::Sum(sum) => {
                visit(sum.source, false);
                visit(sum.target, true);
            }
            Step::Indexed(indexed) => {
                visit(indexed.source, false);
                visit(indexed.target, true);
            }
            Step::Rows(rows) => {
                rows.operands
                    .iter()
                    .for_each(|&operand| visit(operand, false));
                rows.outputs.iter().for_each(|&output| visit(output, true));
            }
        }
    }

    fn run<T: Real>(&self, memory: &Memory<'_, T>, accumulate: bool) {
        match self {
            Step::Fused(group) => group.run(memory),
            Step::Product(product) => product.run(memory, accumulate),
            Step::Copy(copy) => copy.run(memory, accumulate),
            Step::Fill(fill) => fill.run(memory),
            Step::Sum(sum) => sum.run(memory, accumulate),
            Step::Indexed(indexed) => indexed.run(memory),
            Step::Rows(rows) => rows.run(memory),
        }
    }

    fn describe(&self) -> String {
        match self {
            Step::Fused(group) => group.describe(),
            Step::Product(product) => format!("product {}", product.describe()),
            Step::Copy(copy) => format!("copy {:?}", copy.shape()),
            Step::Fill(fill) => format!("fill {}", fill.length),
            Step::Sum(sum) => format!("sum {}", sum.describe()),
            Step::Indexed(indexed) => {
                format!(
                    "indexed [{} x {} x {}]",
                    indexed.outer, indexed.target_entries, indexed.inner
                )
            }
            Step::Rows(rows) => rows.describe(),
        }
    }
}

/// A program compiled for one element type, on one thread. Immutable: any number of threads may run it at the same
/// time, each with its own [`Arena`].
#[derive(Clone, Debug)]
pub struct Executable<T> {
    steps: Vec<Step>,
    places: Vec<Place>,
    constants: Vec<T>,
    arena_length: usize,
    scratch_length: usize,
    input_shapes: Vec<Vec<usize>>,
    output_shapes: Vec<Vec<usize>>,
    accumulating: Vec<bool>,
}

impl<T: Real> Executable<T> {
    /// Optimises and plans a program.
    pub fn compile(program: &Program) -> Self {
        Self::compile_accumulating(program, &vec![false; program.outputs.len()])
    }

    /// As [`Executable::compile`]; the flagged outputs can be added to ([`Executable::run_adding`]).
    pub fn compile_accumulating(program: &Program, accumulate: &[bool]) -> Self {
        let program = optimize(program);
        let lowered = lower::lower(&program, accumulate, size_of::<T>());
        let (places, arena_length) =
            plan::plan(&lowered.buffers, &lowered.steps, ALIGNMENT / size_of::<T>());
        let scratch_length = lowered
            .steps
            .iter()
            .map(|step| {
                if let Step::Fused(group) = step {
                    group.scratch()
                } else {
                    0
                }
            })
            .max()
            .unwrap_or(0);
        let shapes = |values: &[crate::ir::ValueId]| {
            values.iter().map(|&v| program.shape(v).to_vec()).collect()
        };
        Self {
            steps: lowered.steps,
            places,
            constants: lowered
                .constants
                .iter()
                .map(|&value| T::from_f64(value))
                .collect(),
            arena_length,
            scratch_length,
            input_shapes: shapes(&program.inputs),
            output_shapes: shapes(&program.outputs),
            accumulating: accumulate.to_vec(),
        }
    }

    /// Shape of every input.
    pub fn input_shapes(&self) -> &[Vec<usize>] {
        &self.input_shapes
    }

    /// Shape of every output.
    pub fn output_shapes(&self) -> &[Vec<usize>] {
        &self.output_shapes
    }

    /// Whether an output can be added to.
    pub fn accumulates(&self, output: usize) -> bool {
        self.accumulating[output]
    }

    /// Memory for one run at a time.
    pub fn arena(&self) -> Arena<T> {
        Arena::new(self.arena_length, self.scratch_length, self.places.len())
    }

    /// Bytes of intermediate values a run keeps.
    pub fn arena_bytes(&self) -> usize {
        self.arena_length * size_of::<T>()
    }

    /// Runs once, allocating the arena and the outputs.
    ///
    /// # Panics
    /// When the number or length of the inputs differs from the program's.
    pub fn run(&self, inputs: &[&[T]]) -> Vec<Vec<T>> {
        let mut outputs: Vec<Vec<T>> = self
            .output_shapes
            .iter()
            .map(|shape| vec![T::zero(); layout::count(shape)])
            .collect();
        let mut slices: Vec<&mut [T]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        self.run_into(&mut self.arena(), inputs, &mut slices);
        outputs
    }

    /// Runs once into the given outputs, without allocating. `arena` must come from this executable.
    ///
    /// # Panics
    /// When the number or length of inputs or outputs differs from the program's, or the arena is another's.
    pub fn run_into(&self, arena: &mut Arena<T>, inputs: &[&[T]], outputs: &mut [&mut [T]]) {
        self.run_adding(arena, inputs, outputs, false);
    }

    /// As [`Executable::run_into`]; with `accumulate`, outputs flagged at compile time are added to.
    ///
    /// # Panics
    /// As [`Executable::run_into`].
    pub fn run_adding(
        &self,
        arena: &mut Arena<T>,
        inputs: &[&[T]],
        outputs: &mut [&mut [T]],
        accumulate: bool,
    ) {
        let memory = self.bind(arena, inputs, outputs);
        for step in &self.steps {
            step.run(&memory, accumulate);
        }
    }

    /// Runs `passes` times and returns, for each step, its description, floating-point operations in matrix products,
    /// and least seconds.
    pub fn profile(
        &self,
        inputs: &[&[T]],
        outputs: &mut [&mut [T]],
        passes: usize,
    ) -> Vec<(String, usize, f64)> {
        let mut arena = self.arena();
        let operations = |step: &Step| {
            if let Step::Product(product) = step {
                product.operations()
            } else {
                0
            }
        };
        let mut report: Vec<_> = self
            .steps
            .iter()
            .map(|step| (step.describe(), operations(step), f64::INFINITY))
            .collect();
        for _ in 0..passes {
            let memory = self.bind(&mut arena, inputs, outputs);
            for (step, entry) in self.steps.iter().zip(&mut report) {
                let start = std::time::Instant::now();
                step.run(&memory, false);
                entry.2 = entry.2.min(start.elapsed().as_secs_f64());
            }
        }
        report
    }

    /// Floating-point operations in the matrix products of one run.
    pub fn product_operations(&self) -> usize {
        let operations = |step: &Step| {
            if let Step::Product(product) = step {
                product.operations()
            } else {
                0
            }
        };
        self.steps.iter().map(operations).sum()
    }

    fn bind<'a>(
        &self,
        arena: &'a mut Arena<T>,
        inputs: &[&[T]],
        outputs: &mut [&mut [T]],
    ) -> Memory<'a, T> {
        check_lengths(
            "input",
            &self.input_shapes,
            inputs.iter().map(|input| input.len()),
        );
        check_lengths(
            "output",
            &self.output_shapes,
            outputs.iter().map(|output| output.len()),
        );
        assert!(
            arena.fits(self.arena_length, self.scratch_length, self.places.len()),
            "the arena was made by another executable"
        );
        arena.bind(|buffer| match self.places[buffer] {
            Place::Arena(offset) => Address::Arena(offset),
            Place::Input(i) => Address::External(inputs[i].as_ptr().cast_mut()),
            Place::Output(i) => Address::External(outputs[i].as_mut_ptr()),
            Place::Constant(offset) => {
                Address::External(self.constants[offset..].as_ptr().cast_mut())
            }
        })
    }
}

fn check_lengths(what: &str, shapes: &[Vec<usize>], lengths: impl ExactSizeIterator<Item = usize>) {
    assert_eq!(
        shapes.len(),
        lengths.len(),
        "the program has {} {what}s, got {}",
        shapes.len(),
        lengths.len()
    );
    for (i, (shape, length)) in shapes.iter().zip(lengths).enumerate() {
        assert_eq!(
            layout::count(shape),
            length,
            "{what} {i} has the shape {shape:?}, got {length} elements"
        );
    }
}
