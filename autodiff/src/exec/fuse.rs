//! An elementwise group becomes micro-operations: operands, outputs and registers get slots, products that only a sum
//! reads become multiply-adds.

use super::Step;
use super::fused::{Fused, MAX_SLOTS, Micro, MicroOp};
use super::groups::Unit;
use super::layout::{View, count};
use super::lower::Lowering;
use crate::ir::{Binary, Op, Unary, ValueId};
use std::collections::HashMap;

impl Lowering<'_> {
    pub(super) fn group(&mut self, unit: &Unit) {
        let program = self.program;
        let shape = program.instructions[unit.members[0]].shape.clone();
        let member: HashMap<usize, usize> = unit
            .members
            .iter()
            .enumerate()
            .map(|(j, &i)| (i, j))
            .collect();
        // Readers inside the group; the rest of a value's readers need it in memory.
        let mut inside = vec![0usize; unit.members.len()];
        let mut operands: Vec<View> = Vec::new();
        let mut operand_of: HashMap<usize, usize> = HashMap::new();
        for &i in &unit.members {
            for operand in program.instructions[i].op.operands() {
                let o = operand.index();
                if let Some(&j) = member.get(&o) {
                    inside[j] += 1;
                } else {
                    operand_of.entry(o).or_insert_with(|| {
                        let view = match &self.views[o] {
                            Some(view) => view.broadcast_to(&shape),
                            None => panic!("value {o} is read before it is computed"),
                        };
                        operands
                            .iter()
                            .position(|other| *other == view)
                            .unwrap_or_else(|| {
                                operands.push(view);
                                operands.len() - 1
                            })
                    });
                }
            }
        }
        // A product with one reader, a sum in the group, becomes a multiply-add.
        let mut absorbed = vec![false; unit.members.len()];
        let mut code: Vec<Option<(Micro, Vec<usize>)>> = Vec::new();
        for (j, &i) in unit.members.iter().enumerate() {
            let lone_product = |value: ValueId, absorbed: &[bool]| {
                let inner = *member.get(&value.index())?;
                match program.instructions[unit.members[inner]].op {
                    Op::Binary(Binary::Mul, x, y)
                        if self.uses[value.index()] == 1
                            && inside[inner] == 1
                            && !absorbed[inner] =>
                    {
                        Some((inner, x.index(), y.index()))
                    }
                    _ => None,
                }
            };
            let op = &program.instructions[i].op;
            let entry = match *op {
                Op::Unary(function, x) => (Micro::Unary(function), vec![x.index()]),
                Op::Binary(binary @ (Binary::Add | Binary::Sub), a, b) => {
                    if let Some((inner, x, y)) = lone_product(a, &absorbed) {
                        absorbed[inner] = true;
                        let micro = if binary == Binary::Add {
                            Micro::MulAdd
                        } else {
                            Micro::MulSub
                        };
                        (micro, vec![x, y, b.index()])
                    } else if let Some((inner, x, y)) = lone_product(b, &absorbed) {
                        absorbed[inner] = true;
                        let micro = if binary == Binary::Add {
                            Micro::MulAdd
                        } else {
                            Micro::NegMulAdd
                        };
                        (micro, vec![x, y, a.index()])
                    } else {
                        (Micro::Binary(binary), vec![a.index(), b.index()])
                    }
                }
                Op::Binary(binary, a, b) => (Micro::Binary(binary), vec![a.index(), b.index()]),
                Op::Select {
                    mask,
                    on_true,
                    on_false,
                } => (
                    Micro::Select,
                    vec![mask.index(), on_true.index(), on_false.index()],
                ),
                ref other => panic!("{other:?} is not elementwise"),
            };
            debug_assert_eq!(code.len(), j);
            code.push(Some(entry));
        }
        for (entry, _) in code
            .iter_mut()
            .zip(&absorbed)
            .filter(|(_, absorbed)| **absorbed)
        {
            *entry = None;
        }
        let pairs = pair_gelu(&mut code);
        let written: Vec<usize> = (0..unit.members.len())
            .filter(|&j| self.uses[unit.members[j]] > inside[j])
            .collect();
        let output_buffers: Vec<usize> =
            written.iter().map(|_| self.buffer(count(&shape))).collect();
        // Registers by last use.
        let mut last_use = vec![0usize; unit.members.len()];
        for (j, entry) in code.iter().enumerate() {
            if let Some((_, sources)) = entry {
                for source in sources {
                    if let Some(&inner) = member.get(source) {
                        last_use[inner] = j;
                    }
                }
            }
        }
        let first_register = operands.len() + written.len();
        let mut free: Vec<usize> = Vec::new();
        let mut registers = 0;
        let mut slot = vec![usize::MAX; unit.members.len()];
        let mut micro_ops = Vec::new();
        for (j, entry) in code.iter().enumerate() {
            let Some((micro, sources)) = entry else {
                continue;
            };
            let mut resolved = [0; 3];
            for (resolved, source) in resolved.iter_mut().zip(sources) {
                *resolved = match member.get(source) {
                    Some(&inner) => slot[inner],
                    None => operand_of[source],
                };
            }
            for source in sources {
                if let Some(&inner) = member.get(source)
                    && last_use[inner] == j
                    && slot[inner] >= first_register
                    && !free.contains(&slot[inner])
                {
                    free.push(slot[inner]);
                }
            }
            let mut place = |j: usize| match written.iter().position(|&w| w == j) {
                Some(output) => operands.len() + output,
                None => free.pop().unwrap_or_else(|| {
                    registers += 1;
                    first_register + registers - 1
                }),
            };
            slot[j] = place(j);
            let second = match pairs.iter().find(|pair| pair.0 == j) {
                Some(&(_, other)) => {
                    slot[other] = place(other);
                    slot[other]
                }
                None => slot[j],
            };
            // A GELU's own result comes first, wherever it stands in the program.
            let derivative_first = *micro == Micro::GeluAndPrime
                && matches!(
                    program.instructions[unit.members[j]].op,
                    Op::Unary(Unary::GeluPrime, _)
                );
            let (target, second) = if derivative_first {
                (second, slot[j])
            } else {
                (slot[j], second)
            };
            micro_ops.push(MicroOp {
                micro: *micro,
                target,
                second,
                sources: resolved,
            });
        }
        assert!(
            first_register + registers <= MAX_SLOTS,
            "an elementwise group of {} instructions uses {} tiles",
            unit.members.len(),
            first_register + registers
        );
        for (&j, &buffer) in written.iter().zip(&output_buffers) {
            self.views[unit.members[j]] = Some(View::dense(buffer, &shape));
        }
        operands.iter().for_each(|view| self.inside(view));
        let fused = Fused::new(
            &shape,
            &operands,
            output_buffers,
            micro_ops,
            registers,
            self.element_bytes,
        );
        self.steps.push(Step::Fused(fused));
    }
}

/// Joins a GELU and the derivative of a GELU at the same argument in the entry of the first of them. Pairs of that
/// entry and the other one, which becomes empty.
fn pair_gelu(code: &mut [Option<(Micro, Vec<usize>)>]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for j in 0..code.len() {
        let twin = match &code[j] {
            Some((Micro::Unary(Unary::Gelu), source)) => (Unary::GeluPrime, source.clone()),
            Some((Micro::Unary(Unary::GeluPrime), source)) => (Unary::Gelu, source.clone()),
            _ => continue,
        };
        let wanted = Some((Micro::Unary(twin.0), twin.1.clone()));
        if let Some(other) = (j + 1..code.len()).find(|&other| code[other] == wanted) {
            code[other] = None;
            code[j] = Some((Micro::GeluAndPrime, twin.1));
            pairs.push((j, other));
        }
    }
    pairs
}
