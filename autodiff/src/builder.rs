//! Tracing: a [`Builder`] records what is done to its [`Var`] handles as a [`Program`].
//!
//! Every operation passes `Builder::emit`, which checks its shapes, simplifies it (see `simplify.rs`), and returns the
//! earlier value where the same operation was already recorded, so traced programs contain no common subexpressions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::ir::{Instruction, Op, Program, ValueId};
use crate::optimize::eliminate_dead_code;
use crate::shape::result_shape;
pub use crate::var::{IntoVar, Var};
use crate::verify::debug_verify;

#[derive(Default)]
struct State {
    instructions: Vec<Instruction>,
    /// The value of every operation recorded so far, under [`key`].
    recorded: HashMap<Vec<u64>, ValueId>,
    input_names: Vec<String>,
    inputs: Vec<ValueId>,
}

/// Records a program.
#[derive(Default)]
pub struct Builder {
    state: RefCell<State>,
}

impl Builder {
    /// A builder with nothing recorded.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new input.
    #[track_caller]
    pub fn input(&self, name: &str, shape: &[usize]) -> Var<'_> {
        let number = self.state.borrow().inputs.len();
        let input = self.emit(Op::Input(number), shape);
        let mut state = self.state.borrow_mut();
        state.input_names.push(name.to_string());
        state.inputs.push(input.id);
        drop(state);
        input
    }

    /// An array holding one number everywhere.
    pub fn constant(&self, value: f64, shape: &[usize]) -> Var<'_> {
        self.emit(Op::Constant(value), shape)
    }

    /// A constant array, row-major.
    #[track_caller]
    pub fn tensor(&self, values: Vec<f64>, shape: &[usize]) -> Var<'_> {
        self.emit(Op::ConstantTensor(Arc::new(values)), shape)
    }

    /// Joins arrays along an axis.
    #[track_caller]
    pub fn concat<'b>(&'b self, parts: &[Var<'b>], axis: usize) -> Var<'b> {
        self.emit(
            Op::Concat {
                operands: parts.iter().map(|v| v.id).collect(),
                axis,
            },
            &[],
        )
    }

    /// Records everything a program does to these arguments; returns its outputs.
    ///
    /// # Panics
    /// If the number or the shapes of the arguments differ from the program's inputs.
    #[track_caller]
    pub fn call<'b>(&'b self, program: &Program, arguments: &[Var<'b>]) -> Vec<Var<'b>> {
        let values = self.replay(program, arguments);
        program.outputs.iter().map(|v| values[v.index()]).collect()
    }

    /// As [`Builder::call`], but returns the image of every value of the program.
    #[track_caller]
    pub(crate) fn replay<'b>(&'b self, program: &Program, arguments: &[Var<'b>]) -> Vec<Var<'b>> {
        assert_eq!(
            arguments.len(),
            program.inputs.len(),
            "call: the program takes the inputs {:?}, but {} arguments were given",
            program.input_names,
            arguments.len()
        );
        for (i, argument) in arguments.iter().enumerate() {
            assert!(
                argument.shape() == program.input_shape(i),
                "call: input {} has the shape {:?}, but the argument has {:?}",
                program.input_names[i],
                program.input_shape(i),
                argument.shape()
            );
        }
        let mut values: Vec<Var<'b>> = Vec::with_capacity(program.instructions.len());
        for instruction in &program.instructions {
            values.push(match &instruction.op {
                Op::Input(i) => arguments[*i],
                op => self.emit(
                    op.map_operands(|v| values[v.index()].id),
                    &instruction.shape,
                ),
            });
        }
        values
    }

    /// The recorded program with these outputs, without dead code. Inputs stay, used or not.
    pub fn finish(&self, outputs: &[(&str, Var<'_>)]) -> Program {
        let state = self.state.borrow();
        let program = Program {
            input_names: state.input_names.clone(),
            inputs: state.inputs.clone(),
            instructions: state.instructions.clone(),
            output_names: outputs.iter().map(|(name, _)| name.to_string()).collect(),
            outputs: outputs.iter().map(|(_, v)| v.id).collect(),
        };
        debug_verify(eliminate_dead_code(&program))
    }

    /// A handle of a value.
    pub(crate) fn var(&self, id: ValueId) -> Var<'_> {
        Var { id, builder: self }
    }

    /// Reads the instruction that makes a value.
    pub(crate) fn with_instruction<R>(
        &self,
        id: ValueId,
        read: impl FnOnce(&Instruction) -> R,
    ) -> R {
        read(&self.state.borrow().instructions[id.index()])
    }

    /// A copy of the instruction that makes a value.
    pub(crate) fn instruction(&self, id: ValueId) -> Instruction {
        self.with_instruction(id, Instruction::clone)
    }

    /// Records an operation. `declared` is the target shape of the operations that carry one, see [`result_shape`].
    ///
    /// # Panics
    /// If the operands' shapes do not fit the operation.
    #[track_caller]
    pub(crate) fn emit(&self, op: Op, declared: &[usize]) -> Var<'_> {
        let shape = {
            let state = self.state.borrow();
            let operands = op.operands();
            let shapes: Vec<&[usize]> = operands
                .iter()
                .map(|v| state.instructions[v.index()].shape.as_slice())
                .collect();
            match result_shape(&op, &shapes, declared) {
                Ok(shape) => shape,
                Err(error) => panic!("{error}"),
            }
        };
        let key = key(&op, &shape);
        let recorded = self.state.borrow().recorded.get(&key).copied();
        if let Some(id) = recorded {
            return self.var(id);
        }
        let id = match self.simplify(&op, &shape) {
            Some(simpler) => simpler.id,
            None => {
                let mut state = self.state.borrow_mut();
                let id = ValueId(
                    u32::try_from(state.instructions.len()).expect("fewer than 2^32 instructions"),
                );
                state.instructions.push(Instruction { op, shape });
                id
            }
        };
        self.state.borrow_mut().recorded.insert(key, id);
        self.var(id)
    }
}

/// A word per field of an operation, equal exactly when two operations compute the same.
fn key(op: &Op, shape: &[usize]) -> Vec<u64> {
    let mut key = vec![op_number(op)];
    match op {
        Op::Input(i) => key.push(*i as u64),
        Op::Constant(value) => key.push(value.to_bits()),
        Op::ConstantTensor(values) => key.extend(values.iter().map(|v| v.to_bits())),
        Op::Unary(function, _) => key.push(*function as u64),
        Op::Binary(function, _, _) => key.push(*function as u64),
        Op::Permute { permutation, .. } => key.extend(permutation.iter().map(|&i| i as u64)),
        Op::Slice {
            axis,
            start,
            length,
            ..
        } => key.extend([*axis as u64, *start as u64, *length as u64]),
        Op::Pad {
            axis,
            before,
            after,
            ..
        } => key.extend([*axis as u64, *before as u64, *after as u64]),
        Op::Concat { axis, .. } => key.push(*axis as u64),
        Op::Gather { axis, indices, .. } => {
            key.push(*axis as u64);
            key.extend(indices.iter().map(|&i| i as u64));
        }
        Op::ScatterAdd {
            axis,
            indices,
            size,
            ..
        } => {
            key.extend([*axis as u64, *size as u64]);
            key.extend(indices.iter().map(|&i| i as u64));
        }
        Op::MatMul {
            transpose_a,
            transpose_b,
            ..
        } => key.extend([u64::from(*transpose_a), u64::from(*transpose_b)]),
        Op::LayerNorm { epsilon, .. } | Op::RowReciprocalStd { epsilon, .. } => {
            key.push(epsilon.to_bits())
        }
        Op::Select { .. }
        | Op::StopGradient(_)
        | Op::BroadcastTo(_)
        | Op::SumTo(_)
        | Op::Reshape(_)
        | Op::Softmax(_)
        | Op::SoftmaxTangent { .. }
        | Op::LayerNormTangent { .. } => {}
    }
    // Lengths keep fields of variable size from running into each other.
    let fields = key.len() as u64;
    key.push(fields);
    key.extend(op.operands().iter().map(|v| u64::from(v.0)));
    key.push(shape.len() as u64);
    key.extend(shape.iter().map(|&size| size as u64));
    key
}

/// A distinct number for each kind of operation.
fn op_number(op: &Op) -> u64 {
    match op {
        Op::Input(_) => 0,
        Op::Constant(_) => 1,
        Op::ConstantTensor(_) => 2,
        Op::Unary(_, _) => 3,
        Op::Binary(_, _, _) => 4,
        Op::Select { .. } => 5,
        Op::StopGradient(_) => 6,
        Op::BroadcastTo(_) => 7,
        Op::SumTo(_) => 8,
        Op::Reshape(_) => 9,
        Op::Permute { .. } => 10,
        Op::Slice { .. } => 11,
        Op::Pad { .. } => 12,
        Op::Concat { .. } => 13,
        Op::Gather { .. } => 14,
        Op::ScatterAdd { .. } => 15,
        Op::MatMul { .. } => 16,
        Op::Softmax(_) => 17,
        Op::SoftmaxTangent { .. } => 18,
        Op::LayerNorm { .. } => 19,
        Op::RowReciprocalStd { .. } => 20,
        Op::LayerNormTangent { .. } => 21,
    }
}
