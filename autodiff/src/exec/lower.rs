//! From a program to steps over buffers: views where no data move, one step for everything else.

mod products;

use super::Step;
use super::destinations::Destinations;
use super::groups::{live, units};
use super::layout::{View, count};
use super::movement::{Copy, Fill, Indexed, Sum};
use super::plan::{Buffer, Place};
use super::product::{SharedFactor, Store};
use super::rows::{RowFunction, Rows};
use crate::ir::{Binary, Op, Program, ValueId};
use std::collections::HashMap;

pub(super) use products::ProductStore;
use products::{folded_products, product_stores};

/// The unplanned schedule.
pub(super) struct Lowered {
    pub(super) steps: Vec<Step>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) constants: Vec<f64>,
    /// Shared right factors and where their panels start.
    pub(super) factors: Vec<(SharedFactor, usize)>,
    /// Elements of all panels.
    pub(super) prepared_length: usize,
}

/// What lowering needs to know besides the program.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    /// Outputs that can be added to instead of overwritten.
    pub(super) accumulate: &'t [bool],
    /// Inputs that stay the same over many runs.
    pub(super) shared: &'t [bool],
    pub(super) element_bytes: usize,
    /// Columns of a panel of a prepared factor.
    pub(super) panel_columns: usize,
}

pub(super) struct Lowering<'p> {
    pub(super) program: &'p Program,
    pub(super) element_bytes: usize,
    pub(super) steps: Vec<Step>,
    pub(super) buffers: Vec<Buffer>,
    constants: Vec<f64>,
    constant_buffers: HashMap<u64, usize>,
    pub(super) views: Vec<Option<View>>,
    /// Dense copies made of views.
    dense: HashMap<usize, View>,
    /// Live instructions reading each value, outputs counted.
    pub(super) uses: Vec<usize>,
    /// Products whose result only one other instruction reads, and how they are stored for it.
    product_stores: HashMap<usize, ProductStore>,
    /// The sum or product by elements that a matrix product computes as a part of itself.
    folded: Vec<Option<usize>>,
    destinations: Destinations,
    /// Targets of concatenations made before their time, for the products stored in them.
    concatenated: HashMap<usize, View>,
    target: Target<'p>,
    factors: Vec<(SharedFactor, usize)>,
    prepared_length: usize,
    prepared_buffer: Option<usize>,
}

/// Lowers `program`.
pub(super) fn lower(program: &Program, target: Target<'_>) -> Lowered {
    let live = live(program);
    let mut uses = vec![0; program.instructions.len()];
    for (i, instruction) in program.instructions.iter().enumerate() {
        if live[i] {
            instruction
                .op
                .operands()
                .iter()
                .for_each(|operand| uses[operand.index()] += 1);
        }
    }
    program
        .outputs
        .iter()
        .for_each(|output| uses[output.index()] += 1);
    let product_stores = product_stores(program, &live, &uses);
    let folded = folded_products(program, &live, &uses, &product_stores);
    let units = units(program, &live, &folded);
    let destinations = Destinations::find(program, &live, &uses, &product_stores, &folded);
    let mut lowering = Lowering {
        program,
        element_bytes: target.element_bytes,
        steps: Vec::new(),
        buffers: Vec::new(),
        constants: Vec::new(),
        constant_buffers: HashMap::new(),
        views: vec![None; program.instructions.len()],
        dense: HashMap::new(),
        uses,
        product_stores,
        folded,
        destinations,
        concatenated: HashMap::new(),
        target,
        factors: Vec::new(),
        prepared_length: 0,
        prepared_buffer: None,
    };
    for unit in units {
        if unit.elementwise {
            lowering.group(&unit);
        } else {
            lowering.instruction(unit.members[0]);
        }
    }
    for (number, &output) in program.outputs.iter().enumerate() {
        lowering.output(number, output, target.accumulate[number]);
    }
    if let Some(buffer) = lowering.prepared_buffer {
        lowering.buffers[buffer].length = lowering.prepared_length;
    }
    Lowered {
        steps: lowering.steps,
        buffers: lowering.buffers,
        constants: lowering.constants,
        factors: lowering.factors,
        prepared_length: lowering.prepared_length,
    }
}

impl Lowering<'_> {
    pub(super) fn buffer(&mut self, length: usize) -> usize {
        self.buffers.push(Buffer {
            length,
            fixed: None,
        });
        self.buffers.len() - 1
    }

    fn fixed(&mut self, length: usize, place: Place) -> usize {
        self.buffers.push(Buffer {
            length,
            fixed: Some(place),
        });
        self.buffers.len() - 1
    }

    /// Every view a step reads or writes passes here: the steps' raw accesses rely on it.
    pub(super) fn inside(&self, view: &View) {
        let length = self.buffers[view.buffer].length;
        assert!(
            view.end() <= length,
            "{view:?} ends outside its buffer of {length} elements"
        );
    }

    fn copy(&mut self, source: &View, target: &View, store: Store) {
        self.inside(source);
        self.inside(target);
        self.steps
            .push(Step::Copy(Copy::new(source, target, store)));
    }

    fn fresh(&mut self, shape: &[usize]) -> View {
        let buffer = self.buffer(count(shape));
        View::dense(buffer, shape)
    }

    fn view(&self, value: ValueId) -> View {
        match &self.views[value.index()] {
            Some(view) => view.clone(),
            None => panic!("value {} is read before it is computed", value.index()),
        }
    }

    /// A dense copy of a view, unless it is dense already.
    fn densify(&mut self, view: View) -> View {
        if view.is_dense() {
            return view;
        }
        let target = self.fresh(&view.shape);
        self.copy(&view, &target, Store::Replace);
        target
    }

    /// The value stored densely; the copy is kept for other readers.
    fn dense_view(&mut self, value: ValueId) -> View {
        if let Some(view) = self.dense.get(&value.index()) {
            return view.clone();
        }
        let view = self.view(value);
        let dense = self.densify(view);
        self.dense.insert(value.index(), dense.clone());
        dense
    }

    /// A view whose last axis has stride 1.
    fn row_view(&mut self, value: ValueId) -> View {
        let view = self.view(value);
        let last = view.shape.len() - 1;
        if view.strides[last] == 1 || view.shape[last] == 1 {
            view
        } else {
            self.dense_view(value)
        }
    }

    fn instruction(&mut self, i: usize) {
        let program = self.program;
        let instruction = &program.instructions[i];
        let shape = &instruction.shape;
        if self.folded[i].is_some() {
            // Computed where its reader is.
            return;
        }
        let view = match &instruction.op {
            Op::Input(number) => {
                let buffer = self.fixed(count(shape), Place::Input(*number));
                View::dense(buffer, shape)
            }
            Op::Constant(value) => {
                let buffer = match self.constant_buffers.get(&value.to_bits()) {
                    Some(&buffer) => buffer,
                    None => {
                        let buffer = self.fixed(1, Place::Constant(self.constants.len()));
                        self.constants.push(*value);
                        self.constant_buffers.insert(value.to_bits(), buffer);
                        buffer
                    }
                };
                View::dense(buffer, &[]).broadcast_to(shape)
            }
            Op::ConstantTensor(values) => {
                let buffer = self.fixed(values.len(), Place::Constant(self.constants.len()));
                self.constants.extend_from_slice(values);
                View::dense(buffer, shape)
            }
            Op::Binary(binary @ (Binary::Add | Binary::Mul), x, y) => {
                self.folded_product(i, *binary, [*x, *y], shape)
            }
            Op::Unary(..) | Op::Binary(..) | Op::Select { .. } => {
                unreachable!("elementwise instructions are in groups")
            }
            Op::StopGradient(operand) => self.view(*operand),
            Op::BroadcastTo(operand) => self.view(*operand).broadcast_to(shape),
            Op::SumTo(operand) => match self.product_stores.get(&operand.index()) {
                Some(ProductStore::Summed(_)) => self.view(*operand),
                Some(ProductStore::Permuted(_)) | None => self.sum(*operand, shape),
            },
            Op::Reshape(operand) => match self.view(*operand).reshape(shape) {
                Some(view) => view,
                None => {
                    let dense = self.dense_view(*operand);
                    View {
                        shape: shape.clone(),
                        strides: super::layout::row_major(shape),
                        ..dense
                    }
                }
            },
            Op::Permute {
                operand,
                permutation,
            } => self.view(*operand).permute(permutation),
            Op::Slice {
                operand,
                axis,
                start,
                length,
            } => self.view(*operand).slice(*axis, *start, *length),
            Op::Pad {
                operand,
                axis,
                before,
                after: _,
            } => {
                let target = self.fresh(shape);
                self.steps.push(Step::Fill(Fill {
                    target: target.buffer,
                    length: count(shape),
                    value: 0.0,
                }));
                let source = self.view(*operand);
                let part = target.slice(*axis, *before, source.shape[*axis]);
                self.copy(&source, &part, Store::Replace);
                target
            }
            Op::Concat { operands, axis } => {
                let target = self.concatenation(i);
                let mut start = 0;
                for &operand in operands {
                    let source = self.view(operand);
                    let length = source.shape[*axis];
                    if source.buffer != target.buffer {
                        let part = target.slice(*axis, start, length);
                        self.copy(&source, &part, Store::Replace);
                    }
                    start += length;
                }
                target
            }
            Op::Gather {
                operand,
                axis,
                indices,
            } => {
                let source = self.dense_view(*operand);
                self.indexed(&source, *axis, indices, shape, false)
            }
            Op::ScatterAdd {
                operand,
                axis,
                indices,
                size: _,
            } => {
                let source = self.dense_view(*operand);
                self.indexed(&source, *axis, indices, shape, true)
            }
            Op::MatMul {
                a,
                b,
                transpose_a,
                transpose_b,
            } => {
                let store = self.product_stores.get(&i).cloned();
                self.product(
                    i,
                    (*a, *transpose_a),
                    (*b, *transpose_b),
                    shape,
                    store,
                    None,
                    None,
                )
            }
            Op::Softmax(operand) => self.rows(RowFunction::Softmax, &[*operand], shape),
            Op::SoftmaxTangent { softmax, direction } => {
                self.rows(RowFunction::SoftmaxTangent, &[*softmax, *direction], shape)
            }
            Op::LayerNorm { operand, epsilon } => self.layer_norm(*operand, *epsilon, shape),
            Op::RowReciprocalStd { operand, epsilon } => match &self.views[i] {
                // Made together with its layer-norm.
                Some(view) => view.clone(),
                None => self.rows(
                    RowFunction::ReciprocalStd { epsilon: *epsilon },
                    &[*operand],
                    shape,
                ),
            },
            Op::LayerNormTangent {
                normalized,
                reciprocal_std,
                direction,
            } => self.rows(
                RowFunction::LayerNormTangent,
                &[*normalized, *reciprocal_std, *direction],
                shape,
            ),
        };
        self.views[i] = Some(view);
    }

    fn indexed(
        &mut self,
        source: &View,
        axis: usize,
        indices: &std::sync::Arc<Vec<usize>>,
        shape: &[usize],
        scatter: bool,
    ) -> View {
        let target = self.fresh(shape);
        self.inside(source);
        self.steps.push(Step::Indexed(Indexed {
            source: source.buffer,
            source_start: source.offset,
            target: target.buffer,
            outer: count(&shape[..axis]),
            source_entries: source.shape[axis],
            target_entries: shape[axis],
            inner: count(&shape[axis + 1..]),
            indices: indices.clone(),
            scatter,
        }));
        target
    }

    fn rows(&mut self, function: RowFunction, operands: &[ValueId], shape: &[usize]) -> View {
        let direction = operands[operands.len() - 1];
        let wide = match function {
            RowFunction::ReciprocalStd { .. } => self.program.shape(direction).to_vec(),
            RowFunction::Softmax
            | RowFunction::SoftmaxTangent
            | RowFunction::LayerNorm { .. }
            | RowFunction::LayerNormAndStd { .. }
            | RowFunction::LayerNormTangent => shape.to_vec(),
        };
        let views: Vec<View> = operands
            .iter()
            .map(|&operand| {
                let view = self.row_view(operand);
                let mut full = wide.clone();
                if let (Some(last), Some(&own)) = (full.last_mut(), view.shape.last()) {
                    *last = own;
                }
                let mut broadcast = view.broadcast_to(&full);
                if let (Some(stride), Some(1)) = (broadcast.strides.last_mut(), full.last()) {
                    *stride = 1;
                }
                broadcast
            })
            .collect();
        views.iter().for_each(|view| self.inside(view));
        let target = self.fresh(shape);
        let mut outputs = vec![target.buffer];
        if matches!(function, RowFunction::LayerNormAndStd { .. }) {
            let mut narrow = shape.to_vec();
            if let Some(last) = narrow.last_mut() {
                *last = 1;
            }
            outputs.push(self.fresh(&narrow).buffer);
        }
        self.steps
            .push(Step::Rows(Rows::new(function, &views, outputs)));
        target
    }

    /// Layer-norm and, in the same step, the reciprocal standard deviation of the same rows when the program has it.
    fn layer_norm(&mut self, operand: ValueId, epsilon: f64, shape: &[usize]) -> View {
        let same = |op: &Op| *op == Op::RowReciprocalStd { operand, epsilon };
        let twin = (operand.index() + 1..self.program.instructions.len()).find(|&i| {
            self.uses[i] > 0 && self.views[i].is_none() && same(&self.program.instructions[i].op)
        });
        let Some(twin) = twin else {
            return self.rows(RowFunction::LayerNorm { epsilon }, &[operand], shape);
        };
        let view = self.rows(RowFunction::LayerNormAndStd { epsilon }, &[operand], shape);
        let narrow = self.program.instructions[twin].shape.clone();
        self.views[twin] = Some(View::dense(self.buffers.len() - 1, &narrow));
        view
    }

    fn sum(&mut self, operand: ValueId, shape: &[usize]) -> View {
        let source = self.view(operand);
        let last = source.shape.iter().rposition(|&n| n > 1);
        let source = match last {
            Some(axis) if source.strides[axis] != 1 => self.dense_view(operand),
            _ => source,
        };
        let target = self.fresh(shape);
        let spread = target.broadcast_to(&source.shape);
        self.inside(&source);
        self.steps.push(Step::Sum(Sum::new(
            &source,
            target.buffer,
            count(shape),
            &spread.strides,
        )));
        target
    }

    /// The target of concatenation `i`, laid out as its only reader wants it.
    fn concatenation(&mut self, i: usize) -> View {
        if let Some(view) = self.concatenated.get(&i) {
            return view.clone();
        }
        let shape = &self.program.instructions[i].shape;
        let target = match self.destinations.permuted.get(&i).cloned() {
            Some(permutation) => self.fresh_permuted(shape, &permutation),
            None => self.fresh(shape),
        };
        self.concatenated.insert(i, target.clone());
        target
    }

    /// A new array that is dense after a permutation.
    fn fresh_permuted(&mut self, shape: &[usize], permutation: &[usize]) -> View {
        let permuted: Vec<usize> = permutation.iter().map(|&axis| shape[axis]).collect();
        let mut inverse = vec![0; permutation.len()];
        permutation
            .iter()
            .enumerate()
            .for_each(|(i, &axis)| inverse[axis] = i);
        self.fresh(&permuted).permute(&inverse)
    }

    /// The part of a concatenation in which the product of instruction `i` is stored, if there is one.
    fn destination(&mut self, i: usize, shape: &[usize]) -> Option<View> {
        let &(concat, axis, start, length) = self.destinations.parts.get(&i)?;
        let target = self.concatenation(concat);
        let part = target.slice(axis, start, length).reshape(shape)?;
        (part.strides.last() == Some(&1)).then_some(part)
    }

    /// Puts a value into the caller's output, computed there where possible.
    fn output(&mut self, number: usize, value: ValueId, accumulate: bool) {
        let view = self.view(value);
        let whole = view.is_dense()
            && view.offset == 0
            && count(&view.shape) == self.buffers[view.buffer].length;
        let mut writers = Vec::new();
        let mut read = false;
        for (t, step) in self.steps.iter().enumerate() {
            step.for_each_buffer(|buffer, writes| {
                if buffer == view.buffer {
                    if writes { writers.push(t) } else { read = true }
                }
            });
        }
        if whole && self.buffers[view.buffer].fixed.is_none() {
            if !accumulate {
                self.buffers[view.buffer].fixed = Some(Place::Output(number));
                return;
            }
            // Accumulated in place when one product or sum makes it and nothing else looks.
            let others = self
                .program
                .outputs
                .iter()
                .filter(|&&other| other == value)
                .count()
                > 1;
            if let (&[writer], false, false) = (&writers[..], read, others) {
                let store = match &mut self.steps[writer] {
                    Step::Product(product) => {
                        product.can_accumulate().then_some(&mut product.store)
                    }
                    Step::Sum(sum) => Some(&mut sum.store),
                    Step::Fused(_)
                    | Step::Copy(_)
                    | Step::Fill(_)
                    | Step::Indexed(_)
                    | Step::Rows(_) => None,
                };
                if let Some(store) = store {
                    *store = Store::AddIfAccumulating;
                    self.buffers[view.buffer].fixed = Some(Place::Output(number));
                    return;
                }
            }
        }
        let target = self.fixed(count(&view.shape), Place::Output(number));
        let target = View::dense(target, &view.shape);
        let store = if accumulate {
            Store::AddIfAccumulating
        } else {
            Store::Replace
        };
        self.copy(&view, &target, store);
    }
}
