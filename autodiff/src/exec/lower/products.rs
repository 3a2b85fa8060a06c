//! Matrix products: what of their neighbours they compute as a part of themselves, and where their results go.

use super::Lowering;
use crate::exec::Step;
use crate::exec::layout::{View, count};
use crate::exec::plan::Place;
use crate::exec::product::{Combine, Product, SharedFactor};
use crate::ir::{Binary, Op, Program, ValueId};
use std::collections::HashMap;

/// How a product stores its result for its only reader.
#[derive(Clone, Debug)]
pub(in crate::exec) enum ProductStore {
    /// Summed over batch axes, to this shape.
    Summed(Vec<usize>),
    /// Dense after this permutation.
    Permuted(Vec<usize>),
}

/// Products read once, by a sum over their batch axes or by a permutation that keeps their rows.
pub(super) fn product_stores(
    program: &Program,
    live: &[bool],
    uses: &[usize],
) -> HashMap<usize, ProductStore> {
    let mut stores = HashMap::new();
    for (i, instruction) in program
        .instructions
        .iter()
        .enumerate()
        .filter(|(i, _)| live[*i])
    {
        let (operand, store) = match &instruction.op {
            Op::SumTo(operand) => (*operand, ProductStore::Summed(instruction.shape.clone())),
            Op::Permute {
                operand,
                permutation,
            } => (*operand, ProductStore::Permuted(permutation.clone())),
            _ => continue,
        };
        let source = &program.instructions[operand.index()];
        let axes = source.shape.len();
        let fits = match &store {
            ProductStore::Summed(shape) => {
                shape.len() >= 2 && source.shape.ends_with(&shape[shape.len() - 2..])
            }
            ProductStore::Permuted(permutation) => permutation.last() == Some(&(axes - 1)),
        };
        if matches!(source.op, Op::MatMul { .. }) && uses[operand.index()] == 1 && fits {
            stores.insert(operand.index(), store);
        }
        debug_assert!(i > operand.index());
    }
    stores
}

/// For every product whose only reader adds a row or a matrix to it, or multiplies it by a matrix or a number, that
/// reader: the kernel's sums can start from the one and be multiplied by the other. Of a product that is first added to
/// and then multiplied, the sum's reader is the product.
pub(super) fn folded_products(
    program: &Program,
    live: &[bool],
    uses: &[usize],
    stores: &HashMap<usize, ProductStore>,
) -> Vec<Option<usize>> {
    let mut folded: Vec<Option<usize>> = vec![None; program.instructions.len()];
    for (i, instruction) in program.instructions.iter().enumerate() {
        let (Op::Binary(binary @ (Binary::Add | Binary::Mul), x, y), true) =
            (&instruction.op, live[i])
        else {
            continue;
        };
        let shape = &instruction.shape;
        let fits = |product: ValueId, other: ValueId| {
            let source = &program.instructions[product.index()];
            let other = &program.instructions[other.index()];
            let row = *binary == Binary::Add
                && count(&other.shape) == shape.last().copied().unwrap_or(0)
                && other.shape.last() == shape.last();
            // The same in the two matrix axes, the same or repeated in the others.
            let matrix = other.shape.len() >= 2
                && shape.len() >= 2
                && shape.ends_with(&other.shape[other.shape.len() - 2..])
                && !matches!(other.op, Op::Constant(_) | Op::BroadcastTo(_));
            let number = *binary == Binary::Mul && matches!(other.op, Op::Constant(_));
            // A product, or a sum that is folded already.
            let computed = match source.op {
                Op::MatMul { .. } => true,
                Op::Binary(Binary::Add, x, y) => {
                    let folded = |v: ValueId| folded[v.index()] == Some(product.index());
                    *binary == Binary::Mul && (folded(x) || folded(y))
                }
                _ => false,
            };
            computed
                && uses[product.index()] == 1
                && source.shape == *shape
                && !stores.contains_key(&product.index())
                && (row || matrix || number)
        };
        let (first, last) = if x < y { (*x, *y) } else { (*y, *x) };
        if fits(last, first) {
            folded[last.index()] = Some(i);
        } else if fits(first, last) {
            folded[first.index()] = Some(i);
        }
    }
    folded
}

impl Lowering<'_> {
    fn factor(&mut self, (value, transposed): (ValueId, bool), batch: &[usize]) -> View {
        let mut view = self.view(value);
        if !Product::readable(&view) {
            view = self.dense_view(value);
        }
        let axes = view.shape.len();
        if transposed {
            view.shape.swap(axes - 1, axes - 2);
            view.strides.swap(axes - 1, axes - 2);
        }
        let shape = [batch, &view.shape[axes - 2..]].concat();
        let mut full = view.broadcast_to(&shape);
        // Broadcasting leaves matrix axes alone; an axis of size 1 keeps its stride for merging.
        let axes_full = shape.len();
        full.strides[axes_full - 2] = view.strides[axes - 2];
        full.strides[axes_full - 1] = view.strides[axes - 1];
        full
    }

    /// Product number `i` of the program, or the instruction it is folded into.
    pub(super) fn product(
        &mut self,
        i: usize,
        a: (ValueId, bool),
        b: (ValueId, bool),
        shape: &[usize],
        store: Option<ProductStore>,
        addend: Option<ValueId>,
        multiplier: Option<ValueId>,
    ) -> View {
        let scale =
            multiplier.and_then(|value| match self.program.instructions[value.index()].op {
                Op::Constant(factor) => Some(factor),
                _ => None,
            });
        let mut array = |value: ValueId| self.row_view(value).broadcast_to(shape);
        let start = addend.map(&mut array);
        let multiply = multiplier.filter(|_| scale.is_none()).map(&mut array);
        let batch = &shape[..shape.len() - 2];
        let a = self.factor(a, batch);
        let b = self.factor(b, batch);
        let (target, spread) = match store {
            Some(ProductStore::Summed(summed)) => {
                let target = self.fresh(&summed);
                let spread = target.broadcast_to(shape);
                (target, spread)
            }
            Some(ProductStore::Permuted(permutation)) => {
                let target = self.fresh_permuted(shape, &permutation);
                (target.clone(), target)
            }
            None => {
                let target = match self.destination(i, shape) {
                    Some(part) => part,
                    None => self.fresh(shape),
                };
                (target.clone(), target)
            }
        };
        [&a, &b, &spread]
            .into_iter()
            .chain(&start)
            .chain(&multiply)
            .for_each(|view| self.inside(view));
        let combine = Combine {
            start: start.as_ref(),
            multiply: multiply.as_ref(),
            scale,
        };
        let mut product = Product::new(&a, &b, &spread, combine);
        if let Some(factor) = product.shared_factor()
            && self.is_shared(factor.buffer)
        {
            let (buffer, offset) = self.prepared(factor);
            product.use_panels(buffer, offset);
        }
        self.steps.push(Step::Product(product));
        target
    }

    /// Whether a buffer holds the same values in many runs.
    fn is_shared(&self, buffer: usize) -> bool {
        match self.buffers[buffer].fixed {
            Some(Place::Input(number)) => self.target.shared[number],
            Some(Place::Output(_) | Place::Constant(_) | Place::Prepared(_) | Place::Arena(_))
            | None => false,
        }
    }

    /// The buffer of the prepared factors, and where in it this one's panels start.
    fn prepared(&mut self, factor: SharedFactor) -> (usize, usize) {
        let buffer = match self.prepared_buffer {
            Some(buffer) => buffer,
            None => {
                let buffer = self.fixed(0, Place::Prepared(0));
                self.prepared_buffer = Some(buffer);
                buffer
            }
        };
        let known = self.factors.iter().find(|(known, _)| *known == factor);
        let offset = known.map_or(self.prepared_length, |(_, offset)| *offset);
        if known.is_none() {
            self.factors.push((factor, offset));
            self.prepared_length += factor.n.next_multiple_of(self.target.panel_columns) * factor.k;
        }
        (buffer, offset)
    }

    /// A matrix product together with its last reader `i`, a sum or product by elements.
    pub(super) fn folded_product(
        &mut self,
        i: usize,
        binary: Binary,
        [x, y]: [ValueId; 2],
        shape: &[usize],
    ) -> View {
        let parts = |reader: usize, [x, y]: [ValueId; 2]| match self.folded[x.index()] {
            Some(own) if own == reader => (x, y),
            _ => (y, x),
        };
        let (mut product, other) = parts(i, [x, y]);
        let (mut addend, mut multiplier) = (None, None);
        if binary == Binary::Add {
            addend = Some(other);
        } else {
            multiplier = Some(other);
        }
        if let Op::Binary(_, x, y) = self.program.instructions[product.index()].op {
            let (inner, other) = parts(product.index(), [x, y]);
            (product, addend) = (inner, Some(other));
        }
        match self.program.instructions[product.index()].op {
            Op::MatMul {
                a,
                b,
                transpose_a,
                transpose_b,
            } => self.product(
                i,
                (a, transpose_a),
                (b, transpose_b),
                shape,
                None,
                addend,
                multiplier,
            ),
            ref other => panic!("{other:?} is not a product"),
        }
    }
}
