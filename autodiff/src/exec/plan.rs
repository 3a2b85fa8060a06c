//! Where every buffer lies: lifetimes become offsets in one arena.

use super::Step;

/// A buffer's home.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// The caller's input of this number.
    Input(usize),
    /// The caller's output of this number.
    Output(usize),
    /// This offset in the constants.
    Constant(usize),
    /// This offset in the prepared factors.
    Prepared(usize),
    /// This offset in the arena.
    Arena(usize),
}

/// A buffer before planning: its length, and its home when that is not the arena.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    pub(super) length: usize,
    pub(super) fixed: Option<Place>,
}

/// Gives every buffer a place, and the length of the arena. Buffers alive at the same step never overlap, except that
/// an elementwise group may write over an operand, and a product over its addend, that nothing reads afterwards.
pub(super) fn plan(buffers: &[Buffer], steps: &[Step], line: usize) -> (Vec<Place>, usize) {
    let n = buffers.len();
    let mut first = vec![usize::MAX; n];
    let mut last = vec![0usize; n];
    for (t, step) in steps.iter().enumerate() {
        step.for_each_buffer(|buffer, _| {
            first[buffer] = first[buffer].min(t);
            last[buffer] = last[buffer].max(t);
        });
    }
    // In-place elementwise groups: the output joins the operand's storage.
    let mut storage: Vec<usize> = (0..n).collect();
    for (t, step) in steps.iter().enumerate() {
        if let Step::Product(product) = step {
            let (_, output) = product.buffers();
            if let Some(addend) = product.may_overwrite() {
                let root = storage[addend];
                if buffers[output].fixed.is_none()
                    && first[output] == t
                    && buffers[addend].fixed.is_none()
                    && last[root] == t
                    && buffers[addend].length == buffers[output].length
                    && product.buffers().0.filter(|&b| storage[b] == root).count() == 1
                {
                    storage[output] = root;
                    last[root] = last[output];
                }
            }
        }
        let Step::Fused(group) = step else { continue };
        let mut taken = Vec::new();
        for (j, &output) in group.outputs.iter().enumerate() {
            if buffers[output].fixed.is_some() || first[output] != t {
                continue;
            }
            let candidate = (0..group.operands.len()).find(|&i| {
                let operand = group.operands[i].buffer;
                let root = storage[operand];
                buffers[operand].fixed.is_none()
                    && !taken.contains(&root)
                    && last[root] == t
                    && buffers[operand].length == buffers[output].length
                    && group.may_overwrite(j, i)
                    && group
                        .operands
                        .iter()
                        .enumerate()
                        .all(|(o, other)| o == i || storage[other.buffer] != root)
            });
            if let Some(i) = candidate {
                let root = storage[group.operands[i].buffer];
                storage[output] = root;
                last[root] = last[output];
                taken.push(root);
            }
        }
    }
    let mut roots: Vec<usize> = (0..n)
        .filter(|&b| storage[b] == b && buffers[b].fixed.is_none() && first[b] != usize::MAX)
        .collect();
    // Largest first, into the tightest gap between the storages alive at the same time.
    roots.sort_by_key(|&b| (std::cmp::Reverse(buffers[b].length), first[b]));
    let mut offsets = vec![0usize; n];
    let mut placed: Vec<usize> = Vec::new();
    let mut arena = 0;
    for b in roots {
        let length = buffers[b].length.next_multiple_of(line);
        let mut busy: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&other| first[other] <= last[b] && first[b] <= last[other])
            .map(|&other| {
                (
                    offsets[other],
                    offsets[other] + buffers[other].length.next_multiple_of(line),
                )
            })
            .collect();
        busy.sort_unstable();
        let mut best: Option<(usize, usize)> = None;
        let mut end = 0;
        for (start, stop) in busy {
            if start >= end + length && best.is_none_or(|(gap, _)| start - end < gap) {
                best = Some((start - end, end));
            }
            end = end.max(stop);
        }
        offsets[b] = best.map_or(end, |(_, offset)| offset);
        arena = arena.max(offsets[b] + length);
        placed.push(b);
    }
    let places = (0..n)
        .map(|b| {
            buffers[b]
                .fixed
                .unwrap_or(Place::Arena(offsets[storage[b]]))
        })
        .collect();
    (places, arena)
}
