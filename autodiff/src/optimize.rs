//! Transformations that keep a program's meaning: dead-code elimination, and everything the builder does to each
//! operation it records (common subexpressions, constant folding, algebraic simplification).

use crate::builder::Builder;
use crate::ir::{Instruction, Op, Program, ValueId};
use crate::verify::debug_verify;

/// Removes instructions no output depends on. Inputs stay, used or not.
pub fn eliminate_dead_code(program: &Program) -> Program {
    let mut live: Vec<bool> = program
        .instructions
        .iter()
        .map(|i| matches!(i.op, Op::Input(_)))
        .collect();
    program.outputs.iter().for_each(|v| live[v.index()] = true);
    for (position, instruction) in program.instructions.iter().enumerate().rev() {
        if live[position] {
            instruction
                .op
                .operands()
                .iter()
                .for_each(|v| live[v.index()] = true);
        }
    }
    let mut image: Vec<Option<ValueId>> = vec![None; program.instructions.len()];
    let renamed = |image: &[Option<ValueId>], v: ValueId| {
        image[v.index()].expect("operands of live values are live")
    };
    let mut instructions = Vec::new();
    for (position, instruction) in program.instructions.iter().enumerate() {
        if live[position] {
            image[position] = Some(ValueId(instructions.len() as u32));
            let op = instruction.op.map_operands(|v| renamed(&image, v));
            instructions.push(Instruction {
                op,
                shape: instruction.shape.clone(),
            });
        }
    }
    Program {
        input_names: program.input_names.clone(),
        inputs: program.inputs.iter().map(|&v| renamed(&image, v)).collect(),
        instructions,
        output_names: program.output_names.clone(),
        outputs: program
            .outputs
            .iter()
            .map(|&v| renamed(&image, v))
            .collect(),
    }
}

/// The same program without dead code and common subexpressions, constants folded, trivial operations removed.
pub fn optimize(program: &Program) -> Program {
    let builder = Builder::new();
    let inputs: Vec<_> = (0..program.inputs.len())
        .map(|i| builder.input(&program.input_names[i], program.input_shape(i)))
        .collect();
    let outputs = builder.call(program, &inputs);
    let named: Vec<_> = program
        .output_names
        .iter()
        .map(String::as_str)
        .zip(outputs)
        .collect();
    debug_verify(builder.finish(&named))
}
