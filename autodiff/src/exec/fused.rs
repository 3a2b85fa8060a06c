//! Elementwise fusion: one group of elementwise instructions of one shape becomes a list of micro-operations, run over
//! tiles that stay in the first-level cache.

use super::functions;
use super::layout::{MAX_AXES, View, collapse};
use super::memory::{Memory, load, store};
use crate::ir::{Binary, Unary};
use boltzmap_kernels::{Kernel, Lanes, Real, Simd, dispatch};

/// Where a micro-operation reads or writes: an index into the tile's pointer table, which lists operands, then outputs,
/// then registers.
pub(super) type Slot = usize;

/// What a micro-operation computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Micro {
    Unary(Unary),
    Binary(Binary),
    /// a·b + c
    MulAdd,
    /// a·b − c
    MulSub,
    /// c − a·b
    NegMulAdd,
    /// a ≠ 0 ? b : c
    Select,
    /// GELU to the target, its derivative to the second one.
    GeluAndPrime,
}

/// One pass over a tile.
#[derive(Clone, Debug)]
pub(super) struct MicroOp {
    pub(super) micro: Micro,
    pub(super) target: Slot,
    /// Where a second result goes; the target when there is none.
    pub(super) second: Slot,
    pub(super) sources: [Slot; 3],
}

/// How an operand reaches the micro-operations.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Dense: read where it lies.
    Direct,
    /// One number: a tile is filled once.
    Scalar,
    /// Repeats with a period that divides the tile: a tile is filled once.
    Periodic,
    /// Anything else: copied to a tile each time.
    Strided,
}

#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) buffer: usize,
    offset: usize,
    strides: Vec<usize>,
    mode: Mode,
}

impl Operand {
    pub(super) fn is_direct_from_start(&self) -> bool {
        self.mode == Mode::Direct && self.offset == 0
    }
}

/// A compiled group.
#[derive(Clone, Debug)]
pub(super) struct Fused {
    shape: Vec<usize>,
    pub(super) length: usize,
    pub(super) operands: Vec<Operand>,
    /// Output buffers, dense.
    pub(super) outputs: Vec<usize>,
    pub(super) micro_ops: Vec<MicroOp>,
    registers: usize,
    tile: usize,
}

/// Bytes that the private tiles of a group may fill of the first-level cache.
const TILE_BYTES: usize = 20 * 1024;

impl Fused {
    /// `operands` are broadcast to the group's shape; slots of `micro_ops` follow the table order.
    pub(super) fn new(
        shape: &[usize],
        operands: &[View],
        outputs: Vec<usize>,
        micro_ops: Vec<MicroOp>,
        registers: usize,
        element_bytes: usize,
    ) -> Self {
        let dense = super::layout::row_major(shape);
        let mut strides: Vec<&[usize]> = operands
            .iter()
            .map(|view| view.strides.as_slice())
            .collect();
        strides.push(&dense);
        let (mut merged, mut merged_strides) = collapse(shape, &strides);
        if merged.is_empty() {
            merged.push(1);
            merged_strides.iter_mut().for_each(|s| s.push(0));
        }
        let length = merged.iter().product();
        let own = merged_strides.pop().unwrap_or_default();
        // Every stream that passes through the tile's pointers competes for the cache.
        let streams = operands.len() + outputs.len() + registers;
        let tile = (TILE_BYTES / (element_bytes * streams.max(1)) / 128 * 128).clamp(256, 2048);
        let axes = merged.len();
        let operands = operands
            .iter()
            .zip(merged_strides)
            .map(|(view, strides)| {
                let mode = if merged
                    .iter()
                    .zip(&strides)
                    .zip(&own)
                    .all(|((&n, s), o)| n == 1 || s == o)
                {
                    Mode::Direct
                } else if strides.iter().all(|&s| s == 0) {
                    Mode::Scalar
                } else if strides[..axes - 1].iter().all(|&s| s == 0)
                    && tile.is_multiple_of(merged[axes - 1])
                {
                    Mode::Periodic
                } else {
                    Mode::Strided
                };
                Operand {
                    buffer: view.buffer,
                    offset: view.offset,
                    strides,
                    mode,
                }
            })
            .collect();
        Self {
            shape: merged,
            length,
            operands,
            outputs,
            micro_ops,
            registers,
            tile,
        }
    }

    /// Elements of scratch a run needs.
    pub(super) fn scratch(&self) -> usize {
        (self.operands.len() + self.registers) * self.tile
    }

    /// Whether output `output` may overwrite operand `operand`, supposing nothing reads the operand's buffer later:
    /// nothing in the group may read the operand after the output is written.
    pub(super) fn may_overwrite(&self, output: usize, operand: usize) -> bool {
        let slot = self.operands.len() + output;
        let writes = |op: &MicroOp| op.target == slot || op.second == slot;
        let Some(written) = self.micro_ops.iter().position(writes) else {
            return false;
        };
        self.micro_ops[written + 1..]
            .iter()
            .all(|op| !op.sources[..op.arity()].contains(&operand))
            && self.operands[operand].is_direct_from_start()
            && self
                .operands
                .iter()
                .enumerate()
                .all(|(i, other)| i == operand || other.buffer != self.operands[operand].buffer)
    }

    pub(super) fn describe(&self) -> String {
        let names: Vec<String> = self
            .micro_ops
            .iter()
            .map(|op| format!("{:?}", op.micro))
            .collect();
        let modes: Vec<String> = self
            .operands
            .iter()
            .map(|operand| format!("{:?}", operand.mode))
            .collect();
        format!(
            "fused {:?} {} from {} to {}",
            self.shape,
            names.join(" "),
            modes.join(" "),
            self.outputs.len()
        )
    }

    pub(super) fn run<T: Real>(&self, memory: &Memory<'_, T>) {
        dispatch(RunFused {
            group: self,
            memory,
        });
    }
}

impl MicroOp {
    /// How many sources are read.
    pub(super) fn arity(&self) -> usize {
        match self.micro {
            Micro::Unary(_) | Micro::GeluAndPrime => 1,
            Micro::Binary(_) => 2,
            Micro::MulAdd | Micro::MulSub | Micro::NegMulAdd | Micro::Select => 3,
        }
    }
}

/// Most operands, outputs and registers a group may have together.
pub(super) const MAX_SLOTS: usize = 128;

struct RunFused<'a, 'm, T> {
    group: &'a Fused,
    memory: &'a Memory<'m, T>,
}

impl<T: Real> Kernel for RunFused<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { group, memory } = self;
        let operands = group.operands.len();
        let outputs = group.outputs.len();
        let tile = group.tile;
        let mut pointers = [std::ptr::null_mut::<T>(); MAX_SLOTS];
        for i in 0..operands {
            pointers[i] = memory.scratch().wrapping_add(i * tile);
        }
        for i in 0..group.registers {
            pointers[operands + outputs + i] = memory.scratch().wrapping_add((operands + i) * tile);
        }
        for (i, operand) in group.operands.iter().enumerate() {
            if matches!(operand.mode, Mode::Scalar | Mode::Periodic) {
                let base = memory.at(operand.buffer, operand.offset);
                // SAFETY: tile `i` of the scratch is this operand's; the operand's view lies inside its buffer.
                unsafe {
                    fill(
                        pointers[i],
                        base,
                        &group.shape,
                        &operand.strides,
                        0,
                        tile.min(group.length),
                    )
                };
            }
        }
        let mut start = 0;
        while start < group.length {
            let length = tile.min(group.length - start);
            for (i, operand) in group.operands.iter().enumerate() {
                match operand.mode {
                    Mode::Direct => pointers[i] = memory.at(operand.buffer, operand.offset + start),
                    Mode::Strided => {
                        let base = memory.at(operand.buffer, operand.offset);
                        // SAFETY: as above.
                        unsafe {
                            fill(
                                pointers[i],
                                base,
                                &group.shape,
                                &operand.strides,
                                start,
                                length,
                            )
                        };
                    }
                    Mode::Scalar | Mode::Periodic => {}
                }
            }
            for (i, &buffer) in group.outputs.iter().enumerate() {
                pointers[operands + i] = memory.at(buffer, start);
            }
            for op in &group.micro_ops {
                // SAFETY: every pointer of the table has `length` elements from here on: operands and outputs by the
                // check of views at compile time, registers and filled tiles by the scratch length. A target equals a
                // source or is disjoint from it (in place only on equal ranges).
                unsafe {
                    let source = op.sources.map(|slot| pointers[slot].cast_const());
                    let targets = [pointers[op.target], pointers[op.second]];
                    run_micro::<T, S>(op.micro, targets, source, length);
                }
            }
            start += length;
        }
    }
}

/// Copies elements `start..start + length` of a strided array to `target`.
///
/// # Safety
/// The array lies in one allocation that `target` does not overlap; `target` has `length` elements.
#[inline(always)]
unsafe fn fill<T: Real>(
    target: *mut T,
    base: *const T,
    shape: &[usize],
    strides: &[usize],
    start: usize,
    length: usize,
) {
    let axes = shape.len();
    let inner = shape[axes - 1];
    let inner_stride = strides[axes - 1];
    let mut index = [0usize; MAX_AXES];
    let mut rest = start / inner;
    let mut position = start % inner;
    let mut offset = 0;
    for axis in (0..axes - 1).rev() {
        index[axis] = rest % shape[axis];
        rest /= shape[axis];
        offset += index[axis] * strides[axis];
    }
    let mut done = 0;
    while done < length {
        let run = (inner - position).min(length - done);
        // SAFETY: the caller's.
        unsafe {
            let target = target.add(done);
            let source = base.add(offset + position * inner_stride);
            match inner_stride {
                1 => copy_run(target, source, run),
                0 => {
                    let value = *source;
                    for i in 0..run {
                        *target.add(i) = value;
                    }
                }
                step => {
                    for i in 0..run {
                        *target.add(i) = *source.add(i * step);
                    }
                }
            }
        }
        done += run;
        position = 0;
        let mut axis = axes - 1;
        while axis > 0 {
            axis -= 1;
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            offset -= shape[axis] * strides[axis];
            index[axis] = 0;
        }
    }
}

/// # Safety
/// Both have `length` elements and do not overlap.
#[inline(always)]
unsafe fn copy_run<T: Real>(target: *mut T, source: *const T, length: usize) {
    // SAFETY: the caller's.
    unsafe { std::ptr::copy_nonoverlapping(source, target, length) }
}

/// # Safety
/// `pointer` has `count` elements.
#[inline(always)]
unsafe fn load_some<T: Real, S: Simd>(pointer: *const T, count: usize) -> T::Lanes<S> {
    // SAFETY: the caller's.
    T::Lanes::<S>::load_partial(
        unsafe { std::slice::from_raw_parts(pointer, count) },
        T::one(),
    )
}

/// # Safety
/// `pointer` has `count` elements.
#[inline(always)]
unsafe fn store_some<T: Real, S: Simd>(pointer: *mut T, value: T::Lanes<S>, count: usize) {
    // SAFETY: the caller's.
    value.store_partial(unsafe { std::slice::from_raw_parts_mut(pointer, count) });
}

/// A loop over a tile whose body is an expression of the loaded vectors.
macro_rules! tile_loop {
    ($target:ident, $sources:ident, $length:ident, |$($name:ident),+| $body:expr) => {{
        let width = T::Lanes::<S>::WIDTH;
        let mut i = 0;
        while i + width <= $length {
            let mut next = $sources.iter();
            $(let $name = match next.next() {
                // SAFETY: `i + width` elements lie behind every pointer.
                Some(source) => unsafe { load::<T, S>(source.add(i)) },
                None => T::Lanes::<S>::zero(),
            };)+
            // SAFETY: as above.
            unsafe { store::<T, S>($target.add(i), $body) };
            i += width;
        }
        if i < $length {
            let rest = $length - i;
            let mut next = $sources.iter();
            $(let $name = match next.next() {
                // SAFETY: `length` elements lie behind every pointer.
                Some(source) => unsafe { load_some::<T, S>(source.add(i), rest) },
                None => T::Lanes::<S>::zero(),
            };)+
            // SAFETY: as above.
            unsafe { store_some::<T, S>($target.add(i), $body, rest) };
        }
    }};
}

/// # Safety
/// All have `length` elements; a target equals the source or does not overlap it.
#[inline(always)]
unsafe fn gelu_and_prime<T: Real, S: Simd>(
    value: *mut T,
    derivative: *mut T,
    source: *const T,
    length: usize,
) {
    let width = T::Lanes::<S>::WIDTH;
    let mut i = 0;
    // SAFETY: the caller's.
    unsafe {
        while i + width <= length {
            let (y, slope) = functions::gelu_and_prime(load::<T, S>(source.add(i)));
            store::<T, S>(value.add(i), y);
            store::<T, S>(derivative.add(i), slope);
            i += width;
        }
        if i < length {
            let rest = length - i;
            let (y, slope) = functions::gelu_and_prime(load_some::<T, S>(source.add(i), rest));
            store_some::<T, S>(value.add(i), y, rest);
            store_some::<T, S>(derivative.add(i), slope, rest);
        }
    }
}

/// # Safety
/// The targets and the sources the operation reads have `length` elements; the target equals a source or does not
/// overlap it.
#[inline(always)]
unsafe fn run_micro<T: Real, S: Simd>(
    micro: Micro,
    [target, second]: [*mut T; 2],
    sources: [*const T; 3],
    length: usize,
) {
    match micro {
        Micro::GeluAndPrime => {
            // SAFETY: the caller's.
            unsafe { gelu_and_prime::<T, S>(target, second, sources[0], length) }
        }
        Micro::MulAdd => tile_loop!(target, sources, length, |a, b, c| a.mul_add(b, c)),
        Micro::MulSub => tile_loop!(target, sources, length, |a, b, c| a.mul_add(b, -c)),
        Micro::NegMulAdd => tile_loop!(target, sources, length, |a, b, c| a.neg_mul_add(b, c)),
        Micro::Select => tile_loop!(target, sources, length, |mask, a, b| {
            let zero = <T::Lanes<S> as Lanes>::eq(mask, T::Lanes::<S>::zero());
            T::Lanes::<S>::select(zero, b, a)
        }),
        Micro::Binary(binary) => match binary {
            Binary::Add => tile_loop!(target, sources, length, |a, b| a + b),
            Binary::Sub => tile_loop!(target, sources, length, |a, b| a - b),
            Binary::Mul => tile_loop!(target, sources, length, |a, b| a * b),
            Binary::Div => tile_loop!(target, sources, length, |a, b| a / b),
            Binary::Max => tile_loop!(target, sources, length, |a, b| b.max(a)),
            Binary::Min => tile_loop!(target, sources, length, |a, b| b.min(a)),
            Binary::Greater => tile_loop!(target, sources, length, |a, b| {
                T::Lanes::<S>::select(a.gt(b), T::Lanes::<S>::constant(1.0), T::Lanes::<S>::zero())
            }),
        },
        Micro::Unary(unary) => match unary {
            Unary::Neg => tile_loop!(target, sources, length, |x| -x),
            Unary::Abs => tile_loop!(target, sources, length, |x| x.abs()),
            Unary::Sign => tile_loop!(target, sources, length, |x| functions::sign(x)),
            Unary::Exp => tile_loop!(target, sources, length, |x| functions::exp(x)),
            Unary::Ln => tile_loop!(target, sources, length, |x| functions::ln(x)),
            Unary::Tanh => tile_loop!(target, sources, length, |x| functions::tanh(x)),
            Unary::Sin => tile_loop!(target, sources, length, |x| functions::sin(x)),
            Unary::Cos => tile_loop!(target, sources, length, |x| functions::cos(x)),
            Unary::Sqrt => tile_loop!(target, sources, length, |x| x.sqrt()),
            Unary::Rsqrt => tile_loop!(target, sources, length, |x| x.rsqrt()),
            Unary::Reciprocal => tile_loop!(target, sources, length, |x| x.reciprocal()),
            Unary::Square => tile_loop!(target, sources, length, |x| x * x),
            Unary::Sigmoid => tile_loop!(target, sources, length, |x| functions::sigmoid(x)),
            Unary::Erf => tile_loop!(target, sources, length, |x| functions::erf(x)),
            Unary::Gelu => tile_loop!(target, sources, length, |x| functions::gelu(x)),
            Unary::GeluPrime => tile_loop!(target, sources, length, |x| functions::gelu_prime(x)),
        },
    }
}
