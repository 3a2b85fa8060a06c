//! Which elementwise instructions run together, and in which order everything runs.

use crate::ir::{Op, Program, ValueId};
use std::collections::{BinaryHeap, HashMap};

/// A step's worth of instructions: one, or a group of elementwise ones of equal shape.
#[derive(Debug)]
pub(super) struct Unit {
    /// Positions in the program, increasing.
    pub(super) members: Vec<usize>,
    /// Whether the members form an elementwise group.
    pub(super) elementwise: bool,
}

/// Most micro-operations of one group.
const LARGEST_GROUP: usize = 32;

/// Whether an instruction is computed inside an elementwise group.
pub(super) fn is_elementwise(op: &Op) -> bool {
    match op {
        Op::Unary(..) | Op::Binary(..) | Op::Select { .. } => true,
        Op::Input(_)
        | Op::Constant(_)
        | Op::ConstantTensor(_)
        | Op::StopGradient(_)
        | Op::BroadcastTo(_)
        | Op::SumTo(_)
        | Op::Reshape(_)
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::ScatterAdd { .. }
        | Op::MatMul { .. }
        | Op::Softmax(_)
        | Op::SoftmaxTangent { .. }
        | Op::LayerNorm { .. }
        | Op::RowReciprocalStd { .. }
        | Op::LayerNormTangent { .. } => false,
    }
}

/// Instructions the outputs depend on.
pub(super) fn live(program: &Program) -> Vec<bool> {
    let mut live = vec![false; program.instructions.len()];
    for output in &program.outputs {
        live[output.index()] = true;
    }
    for i in (0..live.len()).rev() {
        if live[i] {
            for operand in program.instructions[i].op.operands() {
                live[operand.index()] = true;
            }
        }
    }
    live
}

/// Partitions the live instructions and orders the parts.
///
/// The depth of a value counts, along the deepest path to it, the steps that leave a group: any instruction that is not
/// elementwise, and a change of shape. A path that leaves a group and comes back would have grown in depth, so
/// elementwise instructions of one shape and depth can always run together; those connected by an edge or a common
/// operand of that shape do.
///
/// `folded` gives, for a matrix product, the reader that is computed together with it.
pub(super) fn units(program: &Program, live: &[bool], folded: &[Option<usize>]) -> Vec<Unit> {
    let n = program.instructions.len();
    let mut elementwise: Vec<bool> = program
        .instructions
        .iter()
        .map(|instruction| is_elementwise(&instruction.op))
        .collect();
    folded
        .iter()
        .flatten()
        .for_each(|&reader| elementwise[reader] = false);
    let mut depth = vec![0usize; n];
    let mut parent: Vec<usize> = (0..n).collect();
    let mut readers: HashMap<(usize, usize), usize> = HashMap::new();
    for i in (0..n).filter(|&i| live[i]) {
        let instruction = &program.instructions[i];
        let operands = instruction.op.operands();
        let joins = |operand: &ValueId| {
            let other = &program.instructions[operand.index()];
            elementwise[i] && elementwise[operand.index()] && other.shape == instruction.shape
        };
        depth[i] = operands
            .iter()
            .map(|operand| depth[operand.index()] + usize::from(!joins(operand)))
            .max()
            .unwrap_or(0);
        if !elementwise[i] {
            continue;
        }
        for operand in &operands {
            let o = operand.index();
            if joins(operand) && depth[o] == depth[i] {
                union(&mut parent, o, i);
            }
            let other = &program.instructions[o];
            if other.shape == instruction.shape && !matches!(other.op, Op::Constant(_)) {
                match readers.get(&(o, depth[i])) {
                    Some(&sibling) => union(&mut parent, sibling, i),
                    None => {
                        readers.insert((o, depth[i]), i);
                    }
                }
            }
        }
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut open: HashMap<usize, usize> = HashMap::new();
    let mut unit_of = vec![usize::MAX; n];
    for i in (0..n).filter(|&i| live[i]) {
        let root = find(&mut parent, i);
        let unit = match open.get(&root) {
            Some(&unit) if elementwise[i] && units[unit].members.len() < LARGEST_GROUP => unit,
            _ => {
                units.push(Unit {
                    members: Vec::new(),
                    elementwise: elementwise[i],
                });
                open.insert(root, units.len() - 1);
                units.len() - 1
            }
        };
        units[unit].members.push(i);
        unit_of[i] = unit;
    }
    order(program, units, &unit_of)
}

/// Topological order of the units; among the ready ones the one whose last instruction comes first in the program.
fn order(program: &Program, units: Vec<Unit>, unit_of: &[usize]) -> Vec<Unit> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); units.len()];
    let mut missing = vec![0usize; units.len()];
    for (u, unit) in units.iter().enumerate() {
        let mut sources: Vec<usize> = unit
            .members
            .iter()
            .flat_map(|&i| program.instructions[i].op.operands())
            .map(|operand| unit_of[operand.index()])
            .filter(|&source| source != u)
            .collect();
        sources.sort_unstable();
        sources.dedup();
        missing[u] = sources.len();
        for source in sources {
            readers[source].push(u);
        }
    }
    let key = |u: usize| std::cmp::Reverse((units[u].members.last().copied(), u));
    let mut ready: BinaryHeap<_> = (0..units.len())
        .filter(|&u| missing[u] == 0)
        .map(key)
        .collect();
    let mut order = Vec::with_capacity(units.len());
    while let Some(std::cmp::Reverse((_, u))) = ready.pop() {
        order.push(u);
        for &reader in &readers[u] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                ready.push(key(reader));
            }
        }
    }
    assert_eq!(
        order.len(),
        units.len(),
        "elementwise groups depend on each other in a circle"
    );
    let mut slots: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
    order.into_iter().filter_map(|u| slots[u].take()).collect()
}

fn find(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}

/// Joins under the earlier root.
fn union(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (find(parent, a), find(parent, b));
    parent[a.max(b)] = a.min(b);
}
