//! Programs as readable text, one line per instruction.

use std::fmt::{Display, Formatter, Result};

use crate::ir::{Op, Program};

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let inputs: Vec<String> = (0..self.inputs.len())
            .map(|i| format!("{}: {:?}", self.input_names[i], self.input_shape(i)))
            .collect();
        writeln!(f, "program({}) {{", inputs.join(", "))?;
        for (position, instruction) in self.instructions.iter().enumerate() {
            write!(
                f,
                "  %{position} {:?} = {}",
                instruction.shape,
                instruction.op.name()
            )?;
            let attributes = attributes(self, &instruction.op);
            if !attributes.is_empty() {
                write!(f, " {attributes}")?;
            }
            for operand in instruction.op.operands() {
                write!(f, " %{}", operand.0)?;
            }
            writeln!(f)?;
        }
        let outputs: Vec<String> = self
            .output_names
            .iter()
            .zip(&self.outputs)
            .map(|(name, v)| format!("{name}: %{}", v.0))
            .collect();
        writeln!(f, "}} -> ({})", outputs.join(", "))
    }
}

fn attributes(program: &Program, op: &Op) -> String {
    match op {
        Op::Input(i) => program
            .input_names
            .get(*i)
            .cloned()
            .unwrap_or_else(|| format!("number {i}")),
        Op::Constant(value) => format!("{value:?}"),
        Op::ConstantTensor(values) => {
            let first: Vec<String> = values.iter().take(4).map(|v| format!("{v:?}")).collect();
            format!(
                "({}{})",
                first.join(", "),
                if values.len() > 4 { ", …" } else { "" }
            )
        }
        Op::Permute { permutation, .. } => format!("{permutation:?}"),
        Op::Slice {
            axis,
            start,
            length,
            ..
        } => format!("axis={axis} start={start} length={length}"),
        Op::Pad {
            axis,
            before,
            after,
            ..
        } => format!("axis={axis} before={before} after={after}"),
        Op::Concat { axis, .. } => format!("axis={axis}"),
        Op::Gather { axis, indices, .. } => format!("axis={axis} indices={}", short(indices)),
        Op::ScatterAdd {
            axis,
            indices,
            size,
            ..
        } => format!("axis={axis} size={size} indices={}", short(indices)),
        Op::MatMul {
            transpose_a,
            transpose_b,
            ..
        } => [(transpose_a, "transpose_a"), (transpose_b, "transpose_b")]
            .iter()
            .filter(|(flag, _)| **flag)
            .map(|(_, name)| *name)
            .collect::<Vec<_>>()
            .join(" "),
        Op::LayerNorm { epsilon, .. } | Op::RowReciprocalStd { epsilon, .. } => {
            format!("epsilon={epsilon:?}")
        }
        Op::Unary(_, _)
        | Op::Binary(_, _, _)
        | Op::Select { .. }
        | Op::StopGradient(_)
        | Op::BroadcastTo(_)
        | Op::SumTo(_)
        | Op::Reshape(_)
        | Op::Softmax(_)
        | Op::SoftmaxTangent { .. }
        | Op::LayerNormTangent { .. } => String::new(),
    }
}

fn short(indices: &[usize]) -> String {
    if indices.len() <= 8 {
        format!("{indices:?}")
    } else {
        format!("{:?}…({} in all)", &indices[..6], indices.len())
    }
}
