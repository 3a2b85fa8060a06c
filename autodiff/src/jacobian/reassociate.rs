//! Products of tangents with two known factors, (x W) K, in the cheaper order.
//!
//! Attention turns tangents x `[…, T, W]` into those of queries, x W_q, and multiplies them by known keys. With many
//! tangents, W_q Kᵀ is worth a product of its own whenever tokens are fewer than a head is wide: x (W_q Kᵀ) then takes
//! W·T multiplications for each row and head instead of W·D + D·T. Between the two products lie only reshapes,
//! permutations and slices, which tell heads apart; what they do is read off the indices of the elements.

use crate::builder::Builder;
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
    Some(rewritten(program, &seconds, &others))
}

fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Permute { .. } | Op::Slice { .. })
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
    let mut shape = program.instructions[product].shape.clone();
    let width = *shape.last()?;
    let mut indices: Vec<usize> = (0..element_count(&shape)).collect();
    for v in path.iter().rev().skip(1) {
        indices = viewed(
            &indices,
            &shape,
            &program.instructions[v.index()].op,
            program.shape(*v),
        );
        shape = program.shape(*v).to_vec();
    }
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
    let all = rows * width == element_count(&program.instructions[product].shape);
    let agrees = || (0..indices.len()).all(|position| indices[position] == as_read(position));
    (all && reading.first_column + reading.columns() <= width && agrees()).then_some(reading)
}

/// What a view makes of an array of indices.
fn viewed(indices: &[usize], shape: &[usize], op: &Op, result: &[usize]) -> Vec<usize> {
    let strides: Vec<usize> = (0..shape.len())
        .map(|axis| shape[axis + 1..].iter().product())
        .collect();
    let (strides, offset) = match op {
        Op::Permute { permutation, .. } => {
            (permutation.iter().map(|&axis| strides[axis]).collect(), 0)
        }
        Op::Slice { axis, start, .. } => {
            let offset = start * strides[*axis];
            (strides, offset)
        }
        _ => return indices.to_vec(),
    };
    let at = |position: usize| {
        let mut rest = position;
        let mut from = offset;
        for axis in (0..result.len()).rev() {
            from += rest % result[axis] * strides[axis];
            rest /= result[axis];
        }
        indices[from]
    };
    (0..element_count(result)).map(at).collect()
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
    let mut saving: Vec<usize> = costs
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
        .collect();
    saving.sort_unstable();
    saving
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
    seconds: &HashMap<usize, Second>,
    others: &HashMap<usize, Reading>,
) -> Program {
    let builder = Builder::new();
    let mut values: Vec<Var> = Vec::with_capacity(program.instructions.len());
    let mut inputs = 0;
    for (position, instruction) in program.instructions.iter().enumerate() {
        let value = match &instruction.op {
            Op::Input(number) => {
                debug_assert_eq!(*number, inputs);
                inputs += 1;
                builder.input(&program.input_names[*number], &instruction.shape)
            }
            op => match (seconds.get(&position), others.get(&position)) {
                (Some(second), _) => other_order(program, &values, second),
                (_, Some(reading)) => read_alone(program, &values, reading),
                _ => builder.emit(
                    op.map_operands(|v| values[v.index()].id),
                    &instruction.shape,
                ),
            },
        };
        values.push(value);
    }
    let outputs: Vec<(&str, Var)> = program
        .output_names
        .iter()
        .map(String::as_str)
        .zip(program.outputs.iter().map(|v| values[v.index()]))
        .collect();
    builder.finish(&outputs)
}

/// x, and W `[columns, W_in]` of a reading.
fn factors<'b>(program: &Program, values: &[Var<'b>], reading: &Reading) -> [Var<'b>; 2] {
    match program.instructions[reading.product].op {
        Op::MatMul {
            a, b, transpose_b, ..
        } => {
            let (x, w) = (values[a.index()], values[b.index()]);
            let w = if transpose_b { w } else { w.transpose_last() };
            [x, w.slice(0, reading.first_column, reading.columns())]
        }
        ref other => unreachable!("{other:?} is no product"),
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

/// The reading from a product of its columns alone.
fn read_alone<'b>(program: &Program, values: &[Var<'b>], reading: &Reading) -> Var<'b> {
    let [x, w] = factors(program, values, reading);
    let shape = [reading.sizes(false), reading.sizes(true)].concat();
    in_order(x.matmul_t(w).reshape(&shape), &reading.over_columns, false)
}

/// x (W K), put in the order of (x W) K.
fn other_order<'b>(program: &Program, values: &[Var<'b>], second: &Second) -> Var<'b> {
    let reading = &second.reading;
    let [x, w] = factors(program, values, reading);
    let rank = reading.shape.len();
    let depth = reading.shape[rank - 1];
    let width = w.shape()[1];
    // W for every head: [heads or 1…, depth, W_in].
    let axes = 0..rank - 2;
    let mut of_heads: Vec<usize> = axes
        .clone()
        .map(|axis| {
            if reading.over_columns[axis] {
                reading.shape[axis]
            } else {
                1
            }
        })
        .collect();
    of_heads.extend([depth, width]);
    let known = values[second.known.index()];
    let rows = if second.transposed {
        known
    } else {
        known.transpose_last()
    };
    // [samples…, W_in, heads…, columns of K], of which columns become one axis.
    let both = rows.matmul(w.reshape(&of_heads));
    let samples = axes.clone().filter(|&axis| !reading.over_columns[axis]);
    let heads = axes.clone().filter(|&axis| reading.over_columns[axis]);
    let order: Vec<usize> = samples
        .clone()
        .chain([rank - 1])
        .chain(heads.clone())
        .chain([rank - 2])
        .collect();
    let sizes = |axes: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
        axes.map(|axis| reading.shape[axis]).collect()
    };
    let (of_samples, of_heads) = (sizes(&mut samples.clone()), sizes(&mut heads.clone()));
    let columns = of_heads.iter().product::<usize>() * second.width;
    let right = both
        .permute(&order)
        .reshape(&[&of_samples[..], &[width, columns]].concat());
    let x = x.reshape(&[&of_samples[..], &[reading.shape[rank - 2], width]].concat());
    let shape = [
        &of_samples[..],
        &[reading.shape[rank - 2]],
        &of_heads,
        &[second.width],
    ]
    .concat();
    let product = in_order(
        x.matmul(right).reshape(&shape),
        &reading.over_columns[..rank - 1],
        true,
    );
    if second.left {
        product.transpose_last()
    } else {
        product
    }
}
