//! Splits a differentiated program into what depends on the inputs only and what is linear in the tangents.

use crate::builder::Builder;
use crate::factored::is_view;
use crate::ir::{Op, Program, ValueId};
use crate::jvp::jvp;
use crate::var::Var;
use crate::verify::debug_verify;

/// A program at a point, and its derivative there as a linear program.
#[derive(Clone, Debug, PartialEq)]
pub struct Linearized {
    /// Inputs: the originals. Outputs: the originals, then the residuals.
    pub primal: Program,
    /// Inputs: the residuals, then the tangents. Outputs: the tangent of every original output. Linear in the tangents.
    pub linear: Program,
    /// Number of residuals.
    pub residual_count: usize,
}

/// Which values of a program depend on the given inputs.
pub(crate) fn depends_on(program: &Program, inputs: &[usize]) -> Vec<bool> {
    let mut depends = Vec::with_capacity(program.instructions.len());
    for instruction in &program.instructions {
        depends.push(match instruction.op {
            Op::Input(i) => inputs.contains(&i),
            ref op => op.operands().iter().any(|v| depends[v.index()]),
        });
    }
    depends
}

/// Linearizes a program in the inputs `wrt`: the primal program evaluates every nonlinearity once, the linear one maps
/// tangents (with leading axis K for `tangents: Some(K)`) to output tangents from the residuals kept. Reshapes, slices and
/// repetitions of residuals are left to the linear program.
pub fn linearize(program: &Program, wrt: &[usize], tangents: Option<usize>) -> Linearized {
    let derivative = jvp(program, wrt, tangents);
    let originals = program.inputs.len();
    let tangent_inputs: Vec<usize> = (originals..derivative.inputs.len()).collect();
    let linear = depends_on(&derivative, &tangent_inputs);
    let is_constant = |v: ValueId| {
        matches!(
            derivative.instructions[v.index()].op,
            Op::Constant(_) | Op::ConstantTensor(_)
        )
    };
    let mut residuals: Vec<ValueId> = Vec::new();
    let source = |mut v: ValueId| {
        while let (op, false) = (&derivative.instructions[v.index()].op, linear[v.index()]) {
            match is_view(op) {
                true => v = op.operands()[0],
                false => break,
            }
        }
        v
    };
    let mut keep = |v: ValueId| {
        let v = source(v);
        if !linear[v.index()] && !is_constant(v) && !residuals.contains(&v) {
            residuals.push(v);
        }
    };
    for (position, instruction) in derivative.instructions.iter().enumerate() {
        if linear[position] {
            instruction.op.operands().into_iter().for_each(&mut keep);
        }
    }
    derivative.outputs[program.outputs.len()..]
        .iter()
        .copied()
        .for_each(&mut keep);

    let builder = Builder::new();
    let inputs: Vec<Var> = (0..originals)
        .map(|i| builder.input(&program.input_names[i], program.input_shape(i)))
        .collect();
    let mut values: Vec<Option<Var>> = Vec::new();
    for (position, instruction) in derivative.instructions.iter().enumerate() {
        values.push(match &instruction.op {
            Op::Input(i) => inputs.get(*i).copied(),
            _ if linear[position] => None,
            op => Some(builder.emit(
                op.map_operands(|v| known(&values, v).id),
                &instruction.shape,
            )),
        });
    }
    let names: Vec<String> = (0..residuals.len())
        .map(|i| format!("residual_{i}"))
        .collect();
    let outputs: Vec<(&str, Var)> = (program.output_names.iter().map(String::as_str))
        .zip(&derivative.outputs)
        .chain(names.iter().map(String::as_str).zip(&residuals))
        .map(|(name, v)| (name, known(&values, *v)))
        .collect();
    let primal = builder.finish(&outputs);

    let builder = Builder::new();
    let mut values: Vec<Option<Var>> = vec![None; derivative.instructions.len()];
    for (name, residual) in names.iter().zip(&residuals) {
        values[residual.index()] = Some(builder.input(name, derivative.shape(*residual)));
    }
    for &i in &tangent_inputs {
        values[derivative.inputs[i].index()] =
            Some(builder.input(&derivative.input_names[i], derivative.input_shape(i)));
    }
    for (position, instruction) in derivative.instructions.iter().enumerate() {
        let view =
            is_view(&instruction.op) && values[instruction.op.operands()[0].index()].is_some();
        let computed = linear[position] || view || is_constant(ValueId(position as u32));
        if values[position].is_none() && computed {
            let op = instruction.op.map_operands(|v| known(&values, v).id);
            values[position] = Some(builder.emit(op, &instruction.shape));
        }
    }
    let outputs: Vec<(&str, Var)> = (program.outputs.len()..derivative.outputs.len())
        .map(|i| {
            (
                derivative.output_names[i].as_str(),
                known(&values, derivative.outputs[i]),
            )
        })
        .collect();
    let linear = debug_verify(builder.finish(&outputs));
    Linearized {
        primal: debug_verify(primal),
        linear,
        residual_count: residuals.len(),
    }
}

fn known<'b>(values: &[Option<Var<'b>>], v: ValueId) -> Var<'b> {
    values[v.index()].expect("the value belongs to this half of the program")
}

/// A program linear in the inputs `linear_inputs` (jointly), for many tangents at once: these inputs and all outputs get
/// the axes `lead` in front. The order of the inputs stays.
pub(crate) fn lift(program: &Program, linear_inputs: &[usize], lead: &[usize]) -> Program {
    let mut lifted = program.clone();
    for &size in lead.iter().rev() {
        let derivative = jvp(&lifted, linear_inputs, Some(size));
        let (inputs, outputs) = (lifted.inputs.len(), lifted.outputs.len());
        let builder = Builder::new();
        let mut tangents: Vec<Option<Var>> = vec![None; linear_inputs.len()];
        let mut arguments: Vec<Var> = (0..inputs)
            .map(|i| {
                let (name, shape) = (&lifted.input_names[i], lifted.input_shape(i));
                match linear_inputs.iter().position(|&other| other == i) {
                    Some(position) => {
                        let shape = derivative.input_shape(inputs + position);
                        tangents[position] = Some(builder.input(name, shape));
                        builder.constant(0.0, lifted.input_shape(i))
                    }
                    None => builder.input(name, shape),
                }
            })
            .collect();
        arguments.extend(tangents.into_iter().flatten());
        let results = builder.call(&derivative, &arguments);
        let named: Vec<(&str, Var)> = lifted
            .output_names
            .iter()
            .map(String::as_str)
            .zip(results[outputs..].iter().copied())
            .collect();
        lifted = builder.finish(&named);
    }
    debug_verify(lifted)
}
