//! Which values an operation reads, and the same operation on other values.

use crate::ir::{Binary, Op, Unary, ValueId};

impl Op {
    /// The values this operation reads, in the order of its fields.
    pub fn operands(&self) -> Vec<ValueId> {
        match self {
            Op::Input(_) | Op::Constant(_) | Op::ConstantTensor(_) => Vec::new(),
            Op::Unary(_, operand)
            | Op::StopGradient(operand)
            | Op::BroadcastTo(operand)
            | Op::SumTo(operand)
            | Op::Reshape(operand)
            | Op::Softmax(operand)
            | Op::Permute { operand, .. }
            | Op::Slice { operand, .. }
            | Op::Pad { operand, .. }
            | Op::Gather { operand, .. }
            | Op::ScatterAdd { operand, .. }
            | Op::LayerNorm { operand, .. }
            | Op::RowReciprocalStd { operand, .. } => vec![*operand],
            Op::Binary(_, a, b) | Op::MatMul { a, b, .. } => vec![*a, *b],
            Op::Select {
                mask,
                on_true,
                on_false,
            } => vec![*mask, *on_true, *on_false],
            Op::Concat { operands, .. } => operands.clone(),
            Op::SoftmaxTangent { softmax, direction } => vec![*softmax, *direction],
            Op::LayerNormTangent {
                normalized,
                reciprocal_std,
                direction,
            } => {
                vec![*normalized, *reciprocal_std, *direction]
            }
        }
    }

    /// The same operation with every operand replaced by its image.
    pub fn map_operands(&self, mut image: impl FnMut(ValueId) -> ValueId) -> Op {
        let mut mapped = self.clone();
        match &mut mapped {
            Op::Input(_) | Op::Constant(_) | Op::ConstantTensor(_) => {}
            Op::Unary(_, operand)
            | Op::StopGradient(operand)
            | Op::BroadcastTo(operand)
            | Op::SumTo(operand)
            | Op::Reshape(operand)
            | Op::Softmax(operand)
            | Op::Permute { operand, .. }
            | Op::Slice { operand, .. }
            | Op::Pad { operand, .. }
            | Op::Gather { operand, .. }
            | Op::ScatterAdd { operand, .. }
            | Op::LayerNorm { operand, .. }
            | Op::RowReciprocalStd { operand, .. } => *operand = image(*operand),
            Op::Binary(_, a, b) | Op::MatMul { a, b, .. } => {
                *a = image(*a);
                *b = image(*b);
            }
            Op::Select {
                mask,
                on_true,
                on_false,
            } => {
                *mask = image(*mask);
                *on_true = image(*on_true);
                *on_false = image(*on_false);
            }
            Op::Concat { operands, .. } => operands.iter_mut().for_each(|v| *v = image(*v)),
            Op::SoftmaxTangent { softmax, direction } => {
                *softmax = image(*softmax);
                *direction = image(*direction);
            }
            Op::LayerNormTangent {
                normalized,
                reciprocal_std,
                direction,
            } => {
                *normalized = image(*normalized);
                *reciprocal_std = image(*reciprocal_std);
                *direction = image(*direction);
            }
        }
        mapped
    }

    /// Short name for messages and the printer.
    pub fn name(&self) -> String {
        match self {
            Op::Input(_) => "input".into(),
            Op::Constant(_) => "constant".into(),
            Op::ConstantTensor(_) => "constant_tensor".into(),
            Op::Unary(function, _) => function.name().into(),
            Op::Binary(function, _, _) => function.name().into(),
            Op::Select { .. } => "select".into(),
            Op::StopGradient(_) => "stop_gradient".into(),
            Op::BroadcastTo(_) => "broadcast_to".into(),
            Op::SumTo(_) => "sum_to".into(),
            Op::Reshape(_) => "reshape".into(),
            Op::Permute { .. } => "permute".into(),
            Op::Slice { .. } => "slice".into(),
            Op::Pad { .. } => "pad".into(),
            Op::Concat { .. } => "concat".into(),
            Op::Gather { .. } => "gather".into(),
            Op::ScatterAdd { .. } => "scatter_add".into(),
            Op::MatMul { .. } => "matmul".into(),
            Op::Softmax(_) => "softmax".into(),
            Op::SoftmaxTangent { .. } => "softmax_tangent".into(),
            Op::LayerNorm { .. } => "layer_norm".into(),
            Op::RowReciprocalStd { .. } => "row_reciprocal_std".into(),
            Op::LayerNormTangent { .. } => "layer_norm_tangent".into(),
        }
    }
}

impl Unary {
    /// Short name for messages and the printer.
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Sign => "sign",
            Unary::Exp => "exp",
            Unary::Ln => "ln",
            Unary::Tanh => "tanh",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Reciprocal => "reciprocal",
            Unary::Square => "square",
            Unary::Sigmoid => "sigmoid",
            Unary::Erf => "erf",
            Unary::Gelu => "gelu",
            Unary::GeluPrime => "gelu_prime",
        }
    }
}

impl Binary {
    /// Short name for messages and the printer.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Max => "max",
            Binary::Min => "min",
            Binary::Greater => "greater",
        }
    }
}
