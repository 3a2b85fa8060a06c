//! Checks every invariant of a program.

use crate::ir::{Op, Program};
use crate::shape::{ShapeError, result_shape};

/// A program that breaks an invariant of the representation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// An instruction reads a value that is not made before it.
    #[error(
        "instruction %{instruction} ({op}) reads %{operand}, which is not made before it; reorder the program"
    )]
    OperandOrder {
        /// reading instruction
        instruction: usize,
        /// its operation
        op: String,
        /// value read
        operand: u32,
    },
    /// An instruction's operands do not fit.
    #[error("instruction %{instruction} is ill-shaped: {error}")]
    Shape {
        /// ill-shaped instruction
        instruction: usize,
        /// what does not fit
        error: ShapeError,
    },
    /// The shape written at an instruction is not the one its operation yields.
    #[error(
        "instruction %{instruction} ({op}) declares the shape {declared:?}, but its operation yields {derived:?}"
    )]
    DeclaredShape {
        /// instruction
        instruction: usize,
        /// its operation
        op: String,
        /// shape written
        declared: Vec<usize>,
        /// shape of the rule
        derived: Vec<usize>,
    },
    /// The tables of inputs or outputs do not match the instructions.
    #[error("the table of {table} does not match the instructions: {reason}")]
    Table {
        /// "inputs" or "outputs"
        table: &'static str,
        /// what is wrong
        reason: String,
    },
}

/// Checks that operands are made before they are read, that shapes follow the shape rules, and that the tables of
/// inputs and outputs match the instructions.
pub fn verify(program: &Program) -> Result<(), VerifyError> {
    for (position, instruction) in program.instructions.iter().enumerate() {
        let operands = instruction.op.operands();
        if let Some(late) = operands.iter().find(|v| v.index() >= position) {
            let op = instruction.op.name();
            return Err(VerifyError::OperandOrder {
                instruction: position,
                op,
                operand: late.0,
            });
        }
        let shapes: Vec<&[usize]> = operands.iter().map(|&v| program.shape(v)).collect();
        let derived =
            result_shape(&instruction.op, &shapes, &instruction.shape).map_err(|error| {
                VerifyError::Shape {
                    instruction: position,
                    error,
                }
            })?;
        if derived != instruction.shape {
            return Err(VerifyError::DeclaredShape {
                instruction: position,
                op: instruction.op.name(),
                declared: instruction.shape.clone(),
                derived,
            });
        }
        if let Op::Input(i) = instruction.op
            && program.inputs.get(i).map(|v| v.index()) != Some(position)
        {
            let reason =
                format!("instruction %{position} is input {i}, which the table does not point at");
            return Err(VerifyError::Table {
                table: "inputs",
                reason,
            });
        }
    }
    let table = |table, reason| Err(VerifyError::Table { table, reason });
    if program.inputs.len() != program.input_names.len() {
        return table("inputs", "there is not one name for each".into());
    }
    for (i, input) in program.inputs.iter().enumerate() {
        if program
            .instructions
            .get(input.index())
            .map(|instruction| &instruction.op)
            != Some(&Op::Input(i))
        {
            return table("inputs", format!("%{} is not input {i}", input.0));
        }
    }
    if program.outputs.len() != program.output_names.len() {
        return table("outputs", "there is not one name for each".into());
    }
    match program
        .outputs
        .iter()
        .find(|v| v.index() >= program.instructions.len())
    {
        Some(missing) => table("outputs", format!("%{} does not exist", missing.0)),
        None => Ok(()),
    }
}

/// Passes a program on, verified in builds with debug assertions.
pub(crate) fn debug_verify(program: Program) -> Program {
    if cfg!(debug_assertions)
        && let Err(error) = verify(&program)
    {
        panic!("a transformation made an invalid program: {error}\n{program}");
    }
    program
}
