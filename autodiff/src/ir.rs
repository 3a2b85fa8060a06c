//! The program representation: a static-shape SSA list of instructions.
//!
//! A [`Program`] is traced once per (function, shapes). Every value is produced by exactly one [`Instruction`], in
//! order, so an instruction only refers to earlier ones. Programs carry no element type: constants are kept in
//! `f64` and an executor chooses `f32` or `f64`.

use std::sync::Arc;

/// Index of an instruction in its program, and of the value it produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

impl ValueId {
    /// The position of the producing instruction in [`Program::instructions`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Elementwise functions of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// −x
    Neg,
    /// |x|, derivative sign(x) with 0 at 0
    Abs,
    /// −1, 0 or 1; derivative 0
    Sign,
    /// eˣ
    Exp,
    /// Natural logarithm
    Ln,
    /// Hyperbolic tangent
    Tanh,
    /// Sine
    Sin,
    /// Cosine
    Cos,
    /// √x
    Sqrt,
    /// 1/√x
    Rsqrt,
    /// 1/x
    Reciprocal,
    /// x²
    Square,
    /// 1/(1+e⁻ˣ)
    Sigmoid,
    /// Error function
    Erf,
    /// x Φ(x), Φ the standard normal distribution function
    Gelu,
    /// Derivative of GELU: Φ(x) + x φ(x)
    GeluPrime,
}

/// Elementwise functions of two arguments, broadcasting as numpy does (shapes aligned at their last axes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// max(a, b); at a tie the derivative goes to a
    Max,
    /// min(a, b); at a tie the derivative goes to a
    Min,
    /// 1 where a > b, else 0; derivative 0
    Greater,
}

/// What an instruction computes. Operands are earlier values; the result's shape is [`Instruction::shape`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The program's input of this number.
    Input(usize),
    /// One number at every place of the shape.
    Constant(f64),
    /// A constant array, row-major.
    ConstantTensor(Arc<Vec<f64>>),
    /// An elementwise function of one argument.
    Unary(Unary, ValueId),
    /// An elementwise function of two arguments, with broadcasting.
    Binary(Binary, ValueId, ValueId),
    /// `mask ≠ 0 ? on_true : on_false`, broadcasting; no derivative in the mask.
    Select {
        /// 0 or 1
        mask: ValueId,
        /// taken where the mask is not 0
        on_true: ValueId,
        /// taken where the mask is 0
        on_false: ValueId,
    },
    /// The identity, with derivative zero.
    StopGradient(ValueId),
    /// Repeats along axes of size 1 and new leading axes, to the instruction's shape. Transpose of [`Op::SumTo`].
    BroadcastTo(ValueId),
    /// Sums over leading axes and axes that shrink to 1, to the instruction's shape. Transpose of [`Op::BroadcastTo`].
    SumTo(ValueId),
    /// The same elements in row-major order under another shape.
    Reshape(ValueId),
    /// Axis i of the result is axis `permutation[i]` of the operand.
    Permute {
        /// operand
        operand: ValueId,
        /// source axis of each result axis
        permutation: Vec<usize>,
    },
    /// `length` entries from `start` along `axis`. Transpose of [`Op::Pad`].
    Slice {
        /// operand
        operand: ValueId,
        /// axis cut
        axis: usize,
        /// first entry
        start: usize,
        /// entries kept
        length: usize,
    },
    /// Zeros before and after along `axis`. Transpose of [`Op::Slice`].
    Pad {
        /// operand
        operand: ValueId,
        /// axis padded
        axis: usize,
        /// zeros in front
        before: usize,
        /// zeros behind
        after: usize,
    },
    /// Joins operands along `axis`.
    Concat {
        /// operands, in order
        operands: Vec<ValueId>,
        /// axis joined
        axis: usize,
    },
    /// Entry j along `axis` of the result is entry `indices[j]` of the operand. Transpose of [`Op::ScatterAdd`].
    Gather {
        /// operand
        operand: ValueId,
        /// axis indexed
        axis: usize,
        /// source index of each result entry
        indices: Arc<Vec<usize>>,
    },
    /// Adds entry j along `axis` of the operand to entry `indices[j]` of a zero array with `size` entries there.
    ScatterAdd {
        /// operand
        operand: ValueId,
        /// axis indexed
        axis: usize,
        /// target index of each operand entry
        indices: Arc<Vec<usize>>,
        /// entries of the result along the axis
        size: usize,
    },
    /// Matrix product over the last two axes: op(a) `[…, m, k]` · op(b) `[…, k, n]`, op transposing where flagged;
    /// leading axes broadcast.
    MatMul {
        /// left factor
        a: ValueId,
        /// right factor
        b: ValueId,
        /// a is stored `[…, k, m]`
        transpose_a: bool,
        /// b is stored `[…, n, k]`
        transpose_b: bool,
    },
    /// Softmax over the last axis.
    Softmax(ValueId),
    /// y ⊙ (v − Σ y⊙v) over the last axis: the (symmetric) Jacobian of softmax at output y applied to v.
    /// Linear in v and its own transpose. y and v broadcast in leading axes.
    SoftmaxTangent {
        /// output of the softmax
        softmax: ValueId,
        /// direction
        direction: ValueId,
    },
    /// (x − mean)·r over the last axis, r = 1/√(variance + ε) (biased variance), no gain or bias.
    LayerNorm {
        /// operand
        operand: ValueId,
        /// ε
        epsilon: f64,
    },
    /// r = 1/√(variance + ε) over the last axis, which becomes 1.
    RowReciprocalStd {
        /// operand
        operand: ValueId,
        /// ε
        epsilon: f64,
    },
    /// r ⊙ (v − mean(v) − y·mean(y⊙v)) over the last axis: the (symmetric) Jacobian of layer-norm at output y applied
    /// to v. Linear in v and its own transpose. y, r and v broadcast in leading axes.
    LayerNormTangent {
        /// output y of the layer-norm
        normalized: ValueId,
        /// r, last axis 1
        reciprocal_std: ValueId,
        /// direction
        direction: ValueId,
    },
}

/// One operation with the shape of its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// What is computed.
    pub op: Op,
    /// Static shape of the result; empty for a scalar.
    pub shape: Vec<usize>,
}

/// A traced function: inputs, instructions in order, outputs.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Program {
    /// Name of each input, in order. Input i is the value of some instruction `Op::Input(i)`.
    pub input_names: Vec<String>,
    /// The value of each input.
    pub inputs: Vec<ValueId>,
    /// All instructions; instruction i produces value i.
    pub instructions: Vec<Instruction>,
    /// Name of each output, in order.
    pub output_names: Vec<String>,
    /// The value of each output.
    pub outputs: Vec<ValueId>,
}

impl Program {
    /// Shape of a value.
    pub fn shape(&self, value: ValueId) -> &[usize] {
        &self.instructions[value.index()].shape
    }

    /// Shape of input number `i`.
    pub fn input_shape(&self, i: usize) -> &[usize] {
        self.shape(self.inputs[i])
    }

    /// Shape of output number `i`.
    pub fn output_shape(&self, i: usize) -> &[usize] {
        self.shape(self.outputs[i])
    }
}
