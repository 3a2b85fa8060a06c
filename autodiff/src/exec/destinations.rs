//! Products that are computed in their place inside a concatenation.

use super::lower::ProductStore;
use crate::ir::{Op, Program, ValueId};
use std::collections::HashMap;

/// Where the parts of concatenations are computed.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    /// For the instruction that computes a product: the concatenation it is a part of, the axis, and its first entry and
    /// number of entries there.
    pub(super) parts: HashMap<usize, (usize, usize, usize, usize)>,
    /// For a concatenation that only a permutation reads: the permutation, after which it is stored densely.
    pub(super) permuted: HashMap<usize, Vec<usize>>,
}

impl Destinations {
    pub(super) fn find(
        program: &Program,
        live: &[bool],
        uses: &[usize],
        stores: &HashMap<usize, ProductStore>,
        folded: &[Option<usize>],
    ) -> Self {
        let mut found = Self::default();
        let computes_product = |i: usize| {
            let bare = matches!(program.instructions[i].op, Op::MatMul { .. })
                && folded[i].is_none()
                && !stores.contains_key(&i);
            bare || (folded.contains(&Some(i)) && folded[i].is_none())
        };
        for (i, instruction) in program.instructions.iter().enumerate() {
            match &instruction.op {
                Op::Concat { operands, axis } if live[i] => {
                    let mut start = 0;
                    for &operand in operands {
                        let length = program.shape(operand)[*axis];
                        let source = before_unit_axes(program, uses, operand);
                        // A value that appears twice has two places and is computed apart.
                        if uses[source.index()] == 1 && computes_product(source.index()) {
                            found
                                .parts
                                .insert(source.index(), (i, *axis, start, length));
                        }
                        start += length;
                    }
                }
                Op::Permute {
                    operand,
                    permutation,
                } if live[i] => {
                    let source = &program.instructions[operand.index()];
                    let keeps_rows = permutation.last() == Some(&(source.shape.len() - 1));
                    if matches!(source.op, Op::Concat { .. })
                        && uses[operand.index()] == 1
                        && keeps_rows
                    {
                        found.permuted.insert(operand.index(), permutation.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// The value of which `value` differs by axes of size 1 only, if nothing else reads what lies between.
fn before_unit_axes(program: &Program, uses: &[usize], mut value: ValueId) -> ValueId {
    let long =
        |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|&n| n > 1).collect() };
    while let Op::Reshape(operand) = program.instructions[value.index()].op {
        if uses[value.index()] != 1 || long(program.shape(value)) != long(program.shape(operand)) {
            break;
        }
        value = operand;
    }
    value
}
