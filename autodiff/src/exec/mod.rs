//! Execution: a program becomes a planned schedule of steps over one arena.
//!
//! [`Executable::compile`] fuses elementwise instructions into groups (`fused`), turns reshapes, permutations,
//! slices and broadcasts into views (`layout`), lowers the rest to one step each (`lower`) and gives every buffer
//! an offset (`plan`). A run then walks the steps: no allocation, no shape checks, one thread. `batched` runs many
//! blocks of a batch over rayon's threads.

mod batched;
mod destinations;
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
mod turns;

pub(crate) use batched::gather_block;
pub use batched::{Batched, InputRole, OutputRole};
use memory::Aligned;
pub use memory::Arena;

use crate::ir::Program;
use crate::optimize::optimize;
use boltzmap_kernels::Real;
use boltzmap_kernels::gemm::{self, Factor};
use memory::{ALIGNMENT, Address, Memory};
use plan::Place;
use rayon::prelude::*;
use turns::Turns;

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
                let (read, written) = product.buffers();
                read.for_each(|buffer| visit(buffer, false));
                visit(written, true);
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
    shared: Vec<bool>,
    factors: Vec<(product::SharedFactor, usize)>,
    prepared_length: usize,
    /// For every step that adds to an output, its number among them.
    turns: Vec<Option<usize>>,
}

/// What many runs with the same shared inputs have in common: right factors of products in the order the kernel reads
/// them.
#[derive(Debug)]
pub struct Prepared<T> {
    panels: Aligned<T>,
}

impl<T: Real> Executable<T> {
    /// Optimises and plans a program.
    pub fn compile(program: &Program) -> Self {
        Self::compile_accumulating(program, &vec![false; program.outputs.len()])
    }

    /// As [`Executable::compile`]; the flagged outputs can be added to ([`Executable::run_adding`]).
    pub fn compile_accumulating(program: &Program, accumulate: &[bool]) -> Self {
        Self::compile_shared(program, accumulate, &vec![false; program.inputs.len()])
    }

    /// As [`Executable::compile_accumulating`], for many runs in which the inputs flagged in `shared` stay the same: what
    /// depends on them alone is prepared once ([`Executable::prepare`]) and used by [`Executable::run_prepared`].
    pub fn compile_shared(program: &Program, accumulate: &[bool], shared: &[bool]) -> Self {
        let program = optimize(program);
        let target = lower::Target {
            accumulate,
            shared,
            element_bytes: size_of::<T>(),
            panel_columns: gemm::panel_columns::<T>(),
        };
        let lowered = lower::lower(&program, target);
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
        let mut n_turns = 0;
        let turns = lowered
            .steps
            .iter()
            .map(|step| {
                let mut adds = false;
                step.for_each_buffer(|buffer, written| {
                    if let (Place::Output(number), true) = (places[buffer], written) {
                        adds |= accumulate[number];
                    }
                });
                n_turns += usize::from(adds);
                adds.then(|| n_turns - 1)
            })
            .collect();
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
            shared: shared.to_vec(),
            factors: lowered.factors,
            prepared_length: lowered.prepared_length,
            turns,
        }
    }

    /// Number of steps that add to outputs.
    fn n_turns(&self) -> usize {
        self.turns.iter().flatten().count()
    }

    /// Runs one block of a batch. Outputs that can be added to are shared by the blocks, which take turns: the first
    /// block overwrites them, the others add.
    ///
    /// # Safety
    /// Inputs and outputs have the program's lengths. Nothing else accesses the outputs that cannot be added to, and
    /// only blocks with the same turns the others.
    unsafe fn run_block<'i>(
        &self,
        arena: &mut Arena<T>,
        prepared: &Prepared<T>,
        input: impl Fn(usize) -> &'i [T],
        mut output: impl FnMut(usize) -> *mut T,
        (turns, block): (&Turns, usize),
    ) {
        let memory = self.place(arena, prepared.panels.values(), input, &mut output);
        let _guard = turns.guard();
        for (step, turn) in self.steps.iter().zip(&self.turns) {
            match turn {
                Some(place) => turns.take(*place, block, || step.run(&memory, block > 0)),
                None => step.run(&memory, false),
            }
        }
    }

    /// Memory for [`Executable::prepare`].
    pub fn prepared(&self) -> Prepared<T> {
        Prepared {
            panels: Aligned::new(self.prepared_length),
        }
    }

    /// Prepares what depends on the shared inputs alone, on rayon's threads. The other inputs are not looked at.
    ///
    /// # Panics
    /// When the length of a shared input differs from the program's, or `prepared` is another executable's.
    pub fn prepare(&self, inputs: &[&[T]], prepared: &mut Prepared<T>) {
        assert_eq!(
            prepared.panels.length(),
            self.prepared_length,
            "the prepared factors were made by another executable"
        );
        let mut rest = prepared.panels.values_mut();
        let mut jobs = Vec::with_capacity(self.factors.len());
        for (factor, _) in &self.factors {
            let Place::Input(number) = self.places[factor.buffer] else {
                unreachable!("prepared factors are inputs");
            };
            let expected = layout::count(&self.input_shapes[number]);
            assert_eq!(
                inputs[number].len(),
                expected,
                "input {number} has the shape {:?}",
                self.input_shapes[number]
            );
            let (panels, after) = rest.split_at_mut(gemm::panels_length::<T>(factor.k, factor.n));
            rest = after;
            jobs.push((factor, inputs[number], panels));
        }
        jobs.into_par_iter().for_each(|(factor, input, panels)| {
            let source = Factor {
                data: input[factor.offset..].as_ptr(),
                row: factor.strides[0],
                column: factor.strides[1],
            };
            // SAFETY: the factor's view was checked to lie in its buffer, which has the input's length.
            unsafe { gemm::pack_panels(source, factor.k, factor.n, panels) };
        });
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
        assert!(
            self.factors.is_empty(),
            "this executable has shared inputs: use run_prepared"
        );
        let memory = self.bind(arena, &[], inputs, outputs);
        for step in &self.steps {
            step.run(&memory, accumulate);
        }
    }

    /// As [`Executable::run_adding`], with what [`Executable::prepare`] made of the same shared inputs.
    ///
    /// # Panics
    /// As [`Executable::run_into`], or when `prepared` is another executable's.
    pub fn run_prepared(
        &self,
        arena: &mut Arena<T>,
        prepared: &Prepared<T>,
        inputs: &[&[T]],
        outputs: &mut [&mut [T]],
        accumulate: bool,
    ) {
        assert_eq!(
            prepared.panels.length(),
            self.prepared_length,
            "the prepared factors were made by another executable"
        );
        let memory = self.bind(arena, prepared.panels.values(), inputs, outputs);
        for step in &self.steps {
            step.run(&memory, accumulate);
        }
    }

    /// Whether an input was declared to stay the same over many runs.
    pub fn is_shared(&self, input: usize) -> bool {
        self.shared[input]
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
        let mut prepared = self.prepared();
        self.prepare(inputs, &mut prepared);
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
            let memory = self.bind(&mut arena, prepared.panels.values(), inputs, outputs);
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
        prepared: &[T],
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
        self.place(arena, prepared, |i| inputs[i], &mut |i| {
            outputs[i].as_mut_ptr()
        })
    }

    /// The address of every buffer.
    fn place<'a, 'i>(
        &self,
        arena: &'a mut Arena<T>,
        prepared: &[T],
        input: impl Fn(usize) -> &'i [T],
        output: &mut impl FnMut(usize) -> *mut T,
    ) -> Memory<'a, T> {
        assert!(
            arena.fits(self.arena_length, self.scratch_length, self.places.len()),
            "the arena was made by another executable"
        );
        arena.bind(|buffer| match self.places[buffer] {
            Place::Arena(offset) => Address::Arena(offset),
            Place::Input(i) => Address::External(input(i).as_ptr().cast_mut()),
            Place::Output(i) => Address::External(output(i)),
            Place::Prepared(offset) => Address::External(prepared[offset..].as_ptr().cast_mut()),
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
