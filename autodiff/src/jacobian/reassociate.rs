//! Products of tangents with two known factors, (x W) K, in the cheaper order.
//!
//! Attention turns tangents x `[…, T, W]` into those of queries, x W_q, and multiplies them by known keys. With many
//! tangents, W_q Kᵀ is worth a product of its own whenever tokens are fewer than a head is wide: x (W_q Kᵀ) then takes
//! W·T multiplications for each row and head instead of W·D + D·T. Between the two products lie only reshapes,
//! permutations and slices, which tell heads apart; what they do is read off the indices of the elements.

use crate::builder::Builder;
use crate::factored::is_view;
use crate::interpret;
use crate::ir::{Op, Program, ValueId};
use crate::shape::element_count;
use crate::var::Var;
use std::collections::HashMap;

/// A view of y = x Wᵀ whose element (e…, r, d) is y[m, c]: m counts the elements along its row axes in order, c those
/// along its column axes from a first column on.
struct Reading {
    /// Position of y.
    product: usize,
    shape: Vec<usize>,
    /// For every axis, whether it runs over columns.
    over_columns: Vec<bool>,
    first_column: usize,
}

impl Reading {
    fn columns(&self) -> usize {
        self.sizes(true).iter().product()
    }

    /// Sizes of the column or the row axes.
    fn sizes(&self, columns: bool) -> Vec<usize> {
        let axes = self.shape.iter().zip(&self.over_columns);
        axes.filter(|(_, over)| **over == columns)
            .map(|(size, _)| *size)
            .collect()
    }
}

/// One product K with a reading of another.
struct Second {
    reading: Reading,
    known: ValueId,
    /// Whether the result is K (x W)ᵀ instead of (x W) K.
    left: bool,
    /// Columns of K.
    width: usize,
    /// Whether K is stored with its columns as rows.
    transposed: bool,
}

impl Second {
    /// Columns of x (W K), all heads side by side.
    fn columns(&self) -> usize {
        let heads = &self.reading.shape[..self.reading.shape.len() - 2];
        let over = heads.iter().zip(&self.reading.over_columns);
        let sizes = over.filter(|(_, over)| **over).map(|(size, _)| size);
        sizes.product::<usize>() * self.width
    }
}

/// The program with such products in the cheaper order, if there are any among the instructions marked `dense`.
/// `depends` marks the values that depend on the tangents.
pub(super) fn reassociated(program: &Program, depends: &[bool], dense: &[bool]) -> Option<Program> {
    let mut seconds: HashMap<usize, Second> = HashMap::new();
    // Other readings of a product, by the value read.
    let mut others: HashMap<usize, Reading> = HashMap::new();
    let mut unreadable: Vec<usize> = Vec::new();
    let mut read = |v: ValueId, others: &mut HashMap<usize, Reading>| {
        if let Some(product) = product_behind(program, depends, v) {
            match reading(program, product, v) {
                Some(reading) => _ = others.insert(v.index(), reading),
                None => unreadable.push(product),
            }
        }
    };
    for (position, instruction) in program.instructions.iter().enumerate() {
        if !depends[position] || is_view(&instruction.op) {
            continue;
        }
        match second_product(program, depends, &instruction.op) {
            Some(second) if dense[position] && dense[second.reading.product] => {
                seconds.insert(position, second);
            }
            _ => {
                for v in instruction.op.operands() {
                    read(v, &mut others);
                }
            }
        }
    }
    for v in &program.outputs {
        read(*v, &mut others);
    }
    let saving: Vec<usize> = products_that_save(program, &seconds, &others)
        .into_iter()
        .filter(|product| !unreadable.contains(product))
        .collect();
    seconds.retain(|_, second| saving.contains(&second.reading.product));
    others.retain(|_, reading| saving.contains(&reading.product));
    if seconds.is_empty() {
        return None;
    }
    Some(rewritten(program, depends, &seconds, &others))
}

/// The position of the product x W, W a matrix, that a value is a view of.
fn product_behind(program: &Program, depends: &[bool], mut v: ValueId) -> Option<usize> {
    while is_view(&program.instructions[v.index()].op) {
        v = program.instructions[v.index()].op.operands()[0];
    }
    match program.instructions[v.index()].op {
        Op::MatMul {
            a,
            b,
            transpose_a: false,
            ..
        } if depends[a.index()] && !depends[b.index()] && program.shape(b).len() == 2 => {
            Some(v.index())
        }
        _ => None,
    }
}

/// How a view reads the product behind it.
fn reading(program: &Program, product: usize, v: ValueId) -> Option<Reading> {
    let mut path = vec![v];
    while let Some(last) = path.last()
        && last.index() != product
    {
        path.push(program.instructions[last.index()].op.operands()[0]);
    }
    let whole = &program.instructions[product].shape;
    let width = *whole.last()?;
    let fragment = Builder::new();
    let mut view = fragment.input("indices", whole);
    for v in path.iter().rev().skip(1) {
        let op = &program.instructions[v.index()].op;
        view = fragment.emit(op.map_operands(|_| view.id), program.shape(*v));
    }
    let shape = view.shape();
    let fragment = fragment.finish(&[("view", view)]);
    let all: Vec<f64> = (0..element_count(whole)).map(|i| i as f64).collect();
    let indices: Vec<usize> = interpret(&fragment, &[all])[0]
        .iter()
        .map(|index| *index as usize)
        .collect();
    if indices.is_empty() {
        return None;
    }
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let over_columns: Vec<bool> = (0..shape.len())
        .map(|axis| shape[axis] > 1 && indices[stride(axis)] % width != indices[0] % width)
        .collect();
    let reading = Reading {
        product,
        over_columns,
        first_column: indices[0] % width,
        shape,
    };
    let rows: usize = reading.sizes(false).iter().product();
    let as_read = |position: usize| {
        let (mut m, mut c, mut rest) = (0, 0, position);
        let mut index = vec![0; reading.shape.len()];
        for axis in (0..reading.shape.len()).rev() {
            index[axis] = rest % reading.shape[axis];
            rest /= reading.shape[axis];
        }
        for (axis, index) in index.into_iter().enumerate() {
            let count = if reading.over_columns[axis] {
                &mut c
            } else {
                &mut m
            };
            *count = *count * reading.shape[axis] + index;
        }
        m * width + reading.first_column + c
    };
    let all = rows * width == element_count(whole);
    let agrees = || (0..indices.len()).all(|position| indices[position] == as_read(position));
    (all && reading.first_column + reading.columns() <= width && agrees()).then_some(reading)
}

/// An operation as a product of a reading with known matrices, one for each of the reading's heads.
fn second_product(program: &Program, depends: &[bool], op: &Op) -> Option<Second> {
    let &Op::MatMul {
        a,
        b,
        transpose_a,
        transpose_b,
    } = op
    else {
        return None;
    };
    let (v, known, left, transposed) = match (depends[a.index()], depends[b.index()]) {
        (true, false) if !transpose_a => (a, b, false, transpose_b),
        (false, true) if transpose_b => (b, a, true, !transpose_a),
        _ => return None,
    };
    let reading = reading(program, product_behind(program, depends, v)?, v)?;
    let rank = reading.shape.len();
    let (own, of_known) = (&reading.over_columns, program.shape(known));
    // Rows before columns in each product, and K for every head of every sample or the same for some.
    let fits = rank >= 3
        && !own[rank - 2]
        && (own[rank - 1] || reading.shape[rank - 1] == 1)
        && of_known.len() == rank
        && of_known[..rank - 2] == reading.shape[..rank - 2];
    let width = of_known[rank - if transposed { 2 } else { 1 }];
    fits.then_some(Second {
        reading,
        known,
        left,
        width,
        transposed,
    })
}

/// The products whose readings cost less in the other order, all together.
fn products_that_save(
    program: &Program,
    seconds: &HashMap<usize, Second>,
    others: &HashMap<usize, Reading>,
) -> Vec<usize> {
    // Multiplications for every row of x.
    let mut costs: HashMap<usize, (usize, usize)> = HashMap::new();
    for second in seconds.values() {
        let reading = &second.reading;
        let depth = reading.shape[reading.shape.len() - 1];
        let heads = reading.columns() / depth;
        let (before, after) = costs.entry(reading.product).or_default();
        *before += heads * depth * second.width;
        *after += heads * second.width * summed(program, reading.product);
    }
    for reading in others.values() {
        if let Some((_, after)) = costs.get_mut(&reading.product) {
            *after += reading.columns() * summed(program, reading.product);
        }
    }
    costs
        .into_iter()
        .filter(|&(product, (before, after))| {
            let columns = program.instructions[product]
                .shape
                .last()
                .copied()
                .unwrap_or(0);
            after < before + columns * summed(program, product)
        })
        .map(|(product, _)| product)
        .collect()
}

/// Length of the axis that a product sums over.
fn summed(program: &Program, product: usize) -> usize {
    match program.instructions[product].op {
        Op::MatMul { a, .. } => program.shape(a).last().copied().unwrap_or(0),
        _ => 0,
    }
}

fn rewritten(
    program: &Program,
    depends: &[bool],
    seconds: &HashMap<usize, Second>,
    others: &HashMap<usize, Reading>,
) -> Program {
    let builder = Builder::new();
    let inputs: Vec<Var> = (0..program.inputs.len())
        .map(|i| builder.input(&program.input_names[i], program.input_shape(i)))
        .collect();
    let mut values = Values {
        program,
        images: vec![None; program.instructions.len()],
        joint: HashMap::new(),
    };
    // What is known comes first, so that all second factors of a product are there when it is made.
    for now_depends in [false, true] {
        for (position, instruction) in program.instructions.iter().enumerate() {
            if depends[position] != now_depends {
                continue;
            }
            let value = match &instruction.op {
                Op::Input(number) => inputs[*number],
                op => match (seconds.get(&position), others.get(&position)) {
                    (Some(_), _) => values.other_order(position, seconds),
                    (_, Some(reading)) => values.read_alone(reading),
                    _ => {
                        let op = op.map_operands(|v| values.of(v).id);
                        builder.emit(op, &instruction.shape)
                    }
                },
            };
            values.images[position] = Some(value);
        }
    }
    let outputs: Vec<(&str, Var)> = program
        .output_names
        .iter()
        .map(String::as_str)
        .zip(program.outputs.iter().map(|v| values.of(*v)))
        .collect();
    builder.finish(&outputs)
}

/// Values of the new program.
struct Values<'p, 'b> {
    program: &'p Program,
    /// By position in the old program.
    images: Vec<Option<Var<'b>>>,
    /// By position of a second product: x times its own and its siblings' factors side by side, and its first column and
    /// number of columns.
    joint: HashMap<usize, (Var<'b>, usize, usize)>,
}

impl<'b> Values<'_, 'b> {
    fn of(&self, v: ValueId) -> Var<'b> {
        self.images[v.index()].expect("operands come before what reads them")
    }

    /// x, and W `[columns, W_in]` of a reading.
    fn factors(&self, reading: &Reading) -> [Var<'b>; 2] {
        match self.program.instructions[reading.product].op {
            Op::MatMul {
                a, b, transpose_b, ..
            } => {
                let (x, w) = (self.of(a), self.of(b));
                let w = if transpose_b { w } else { w.transpose_last() };
                [x, w.slice(0, reading.first_column, reading.columns())]
            }
            ref other => unreachable!("{other:?} is no product"),
        }
    }

    /// The reading from a product of its columns alone.
    fn read_alone(&self, reading: &Reading) -> Var<'b> {
        let [x, w] = self.factors(reading);
        let shape = [reading.sizes(false), reading.sizes(true)].concat();
        in_order(x.matmul_t(w).reshape(&shape), &reading.over_columns, false)
    }

    /// W K of all heads, `[samples…, W_in, columns]`.
    fn second_factor(&self, second: &Second) -> Var<'b> {
        let reading = &second.reading;
        let w = self.factors(reading)[1];
        let rank = reading.shape.len();
        let width = w.shape()[1];
        let is_head = |axis: &usize| reading.over_columns[*axis];
        // W for every head: [heads or 1…, depth, W_in].
        let mut of_heads: Vec<usize> = (0..rank - 2)
            .map(|axis| {
                if is_head(&axis) {
                    reading.shape[axis]
                } else {
                    1
                }
            })
            .collect();
        of_heads.extend([reading.shape[rank - 1], width]);
        let known = self.of(second.known);
        let rows = if second.transposed {
            known
        } else {
            known.transpose_last()
        };
        let both = rows.matmul(w.reshape(&of_heads));
        let (heads, samples): (Vec<usize>, Vec<usize>) = (0..rank - 2).partition(is_head);
        let order = [&samples[..], &[rank - 1], &heads, &[rank - 2]].concat();
        let mut shape: Vec<usize> = samples.iter().map(|&axis| reading.shape[axis]).collect();
        shape.extend([width, second.columns()]);
        both.permute(&order).reshape(&shape)
    }

    /// x (W K), put in the order of (x W) K.
    fn other_order(&mut self, position: usize, seconds: &HashMap<usize, Second>) -> Var<'b> {
        let second = &seconds[&position];
        let reading = &second.reading;
        let rank = reading.shape.len();
        let samples: Vec<usize> = (0..rank - 2)
            .filter(|&axis| !reading.over_columns[axis])
            .map(|axis| reading.shape[axis])
            .collect();
        if !self.joint.contains_key(&position) {
            let mut siblings: Vec<usize> = seconds
                .iter()
                .filter(|(_, other)| other.reading.product == reading.product)
                .map(|(position, _)| *position)
                .collect();
            siblings.sort_unstable();
            let mut factors = Vec::new();
            for sibling in &siblings {
                factors.push(self.second_factor(&seconds[sibling]));
            }
            let axes = samples.len();
            let alike =
                |factor: &Var<'b>| factor.shape()[..axes + 1] == factors[0].shape()[..axes + 1];
            if !factors
                .iter()
                .all(|factor| factor.rank() == axes + 2 && alike(factor))
            {
                siblings = vec![position];
                factors = vec![self.second_factor(second)];
            }
            let x = self.factors(reading)[0];
            let width = x.shape()[x.rank() - 1];
            let x = x.reshape(&[&samples[..], &[reading.shape[rank - 2], width]].concat());
            let product = x.matmul(Var::concat(&factors, axes + 1));
            let mut first = 0;
            for sibling in siblings {
                let columns = seconds[&sibling].columns();
                self.joint.insert(sibling, (product, first, columns));
                first += columns;
            }
        }
        let (product, first, columns) = self.joint[&position];
        let own = product.slice(product.rank() - 1, first, columns);
        let heads = reading.shape[..rank - 2].iter().zip(&reading.over_columns);
        let heads = heads.filter(|(_, over)| **over).map(|(size, _)| *size);
        let mut shape = [&samples[..], &[reading.shape[rank - 2]]].concat();
        shape.extend(heads);
        shape.push(second.width);
        let product = in_order(own.reshape(&shape), &reading.over_columns[..rank - 1], true);
        if second.left {
            product.transpose_last()
        } else {
            product
        }
    }
}

/// Elements `[rows…, columns…]` put in the order of the reading's axes, with the last axis of `value` kept where `last`.
fn in_order<'b>(value: Var<'b>, over_columns: &[bool], last: bool) -> Var<'b> {
    let rows = over_columns.iter().filter(|over| !**over).count();
    let (mut row, mut column) = (0, rows);
    let mut order: Vec<usize> = over_columns
        .iter()
        .map(|over| {
            let next = if *over { &mut column } else { &mut row };
            *next += 1;
            *next - 1
        })
        .collect();
    if last {
        order.push(column);
    }
    value.permute(&order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random_values;
    use crate::linearize::{Linearized, depends_on, linearize};

    /// Scores and mixed values of a layer of attention with all projections in one product.
    fn attention(samples: usize, tokens: usize, heads: usize, depth: usize) -> Program {
        let b = Builder::new();
        let width = 12;
        let x = b.input("x", &[samples, tokens, width]);
        let w = b.input("w", &[3 * heads * depth, width]);
        let qkv = x
            .matmul_t(w)
            .reshape(&[samples, tokens, 3, heads, depth])
            .permute(&[2, 0, 3, 1, 4]);
        let part = |i: usize| qkv.slice(0, i, 1).reshape(&[samples, heads, tokens, depth]);
        let scores = part(0).matmul_t(part(1)) * 0.3;
        b.finish(&[("y", scores.softmax().matmul(part(2)))])
    }

    fn linear_program(program: &Program) -> (Linearized, Vec<bool>) {
        let parts = linearize(program, &[0], None);
        let depends = depends_on(&parts.linear, &[parts.residual_count]);
        (parts, depends)
    }

    #[test]
    fn the_cheaper_order_computes_the_same() {
        for (samples, heads, depth) in [(1, 1, 7), (2, 3, 8), (3, 2, 6)] {
            let (parts, depends) = linear_program(&attention(samples, 4, heads, depth));
            let all = vec![true; depends.len()];
            let other = reassociated(&parts.linear, &depends, &all).expect("a cheaper order");
            assert_eq!(other.input_names, parts.linear.input_names);
            let inputs: Vec<Vec<f64>> = (0..other.inputs.len())
                .map(|i| random_values(i as u64, element_count(other.input_shape(i))))
                .collect();
            let expected = interpret(&parts.linear, &inputs);
            let found = interpret(&other, &inputs);
            for (e, f) in expected[0].iter().zip(&found[0]) {
                assert!((e - f).abs() < 1e-12, "{f} for {e}");
            }
            // Queries and keys of tangents are not computed any more. (Of one head the axes differ.)
            if heads == 1 {
                continue;
            }
            let columns = |program: &Program| -> Vec<usize> {
                let instructions = program.instructions.iter();
                let products = instructions.filter(|instruction| {
                    matches!(instruction.op, Op::MatMul { .. }) && instruction.shape.len() == 3
                });
                products.map(|product| product.shape[2]).collect()
            };
            let (before, after) = (columns(&parts.linear), columns(&other));
            assert_eq!(before, [3 * heads * depth]);
            assert!(!after.contains(&before[0]));
            assert!(after.contains(&(heads * depth)) && after.contains(&(2 * heads * 4)));
        }
    }

    #[test]
    fn many_tokens_keep_their_order() {
        let (parts, depends) = linear_program(&attention(2, 9, 2, 4));
        let all = vec![true; depends.len()];
        assert!(reassociated(&parts.linear, &depends, &all).is_none());
        // Nor does anything change outside the part that works on whole arrays.
        let (parts, depends) = linear_program(&attention(2, 4, 2, 8));
        let none = vec![false; depends.len()];
        assert!(reassociated(&parts.linear, &depends, &none).is_none());
    }
}
