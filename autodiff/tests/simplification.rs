//! Random programs written instruction by instruction, so that nothing is simplified while they are made: optimising
//! them must not change what they compute, and their derivatives must hold.

use std::sync::Arc;

use boltzmap_autodiff::check::{check_tangent_axis, check_vjp, random_values};
use boltzmap_autodiff::ir::{Binary, Instruction, Op, Program, Unary, ValueId};
use boltzmap_autodiff::shape::{broadcast_shapes, broadcasts_to, element_count, result_shape};
use boltzmap_autodiff::verify::verify;
use boltzmap_autodiff::{interpret, optimize};
use proptest::prelude::*;

/// Draws choices from a list of random numbers.
struct Choices {
    numbers: Vec<u32>,
    next: usize,
}

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.next += 1;
        self.numbers[(self.next - 1) % self.numbers.len()] as usize % bound
    }
}

/// A program of `length` operations on two inputs, of bounded smooth functions so that values stay moderate.
fn random_program(choices: &mut Choices, length: usize) -> Program {
    let mut program = Program::default();
    for (i, shape) in [vec![2, 3], vec![3, 1, 3]].into_iter().enumerate() {
        program.inputs.push(ValueId(i as u32));
        program.input_names.push(format!("x{i}"));
        program.instructions.push(Instruction {
            op: Op::Input(i),
            shape,
        });
    }
    while program.instructions.len() < length {
        if let Some((op, declared)) = random_operation(choices, &program) {
            let operands = op.operands();
            let shapes: Vec<&[usize]> = operands.iter().map(|&v| program.shape(v)).collect();
            if let Ok(shape) = result_shape(&op, &shapes, &declared)
                && element_count(&shape) <= 200
            {
                program.instructions.push(Instruction { op, shape });
            }
        }
    }
    for i in 0..3 {
        program.outputs.push(ValueId((length - 1 - i) as u32));
        program.output_names.push(format!("y{i}"));
    }
    program
}

fn random_operation(choices: &mut Choices, program: &Program) -> Option<(Op, Vec<usize>)> {
    let count = program.instructions.len();
    // Recent values more often, so that chains form.
    let mut value = || {
        let reach = if choices.below(2) == 0 {
            3.min(count)
        } else {
            count
        };
        ValueId((count - 1 - choices.below(reach)) as u32)
    };
    let (a, b) = (value(), value());
    let shape = program.shape(a).to_vec();
    let none = Vec::new();
    Some(match choices.below(16) {
        0 => {
            let value = [0.0, 1.0, -1.0, 2.0, 0.5][choices.below(5)];
            (
                Op::Constant(value),
                if choices.below(2) == 0 { none } else { shape },
            )
        }
        1 => {
            let values = random_values(choices.below(100) as u64, element_count(&shape));
            (Op::ConstantTensor(Arc::new(values)), shape)
        }
        2 => (Op::Unary(Unary::Neg, a), none),
        3 => (
            Op::Unary(
                [Unary::Tanh, Unary::Sin, Unary::Sigmoid, Unary::Erf][choices.below(4)],
                a,
            ),
            none,
        ),
        4..=6 => (
            Op::Binary(
                [Binary::Add, Binary::Sub, Binary::Mul][choices.below(3)],
                a,
                b,
            ),
            none,
        ),
        7 => {
            let denominator = program
                .instructions
                .iter()
                .position(|i| i.op == Op::Constant(2.0))?;
            (
                Op::Binary(Binary::Div, a, ValueId(denominator as u32)),
                none,
            )
        }
        8 => {
            let mask = program
                .instructions
                .iter()
                .position(|i| matches!(i.op, Op::Constant(_)))?;
            (
                Op::Select {
                    mask: ValueId(mask as u32),
                    on_true: a,
                    on_false: b,
                },
                none,
            )
        }
        9 => (
            Op::BroadcastTo(a),
            broadcast_shapes(&shape, program.shape(b))?,
        ),
        10 => {
            let mut target = shape[choices.below(shape.len() + 1)..].to_vec();
            if let Some(size) = target.first_mut() {
                *size = if choices.below(2) == 0 { 1 } else { *size };
            }
            assert!(broadcasts_to(&target, &shape));
            (Op::SumTo(a), target)
        }
        11 => {
            let mut target = shape.clone();
            match choices.below(3) {
                0 => target = vec![element_count(&shape)],
                1 => target.insert(0, 1),
                _ => target.reverse(),
            }
            (Op::Reshape(a), target)
        }
        12 => {
            let mut permutation: Vec<usize> = (0..shape.len()).collect();
            if choices.below(2) == 0 {
                permutation.reverse();
            } else if shape.len() > 1 {
                permutation.swap(shape.len() - 1, shape.len() - 2);
            }
            (
                Op::Permute {
                    operand: a,
                    permutation,
                },
                none,
            )
        }
        13 => {
            let axis = choices.below(shape.len().max(1));
            let size = *shape.get(axis)?;
            let start = choices.below(size);
            (
                Op::Slice {
                    operand: a,
                    axis,
                    start,
                    length: 1 + choices.below(size - start),
                },
                none,
            )
        }
        14 => {
            let axis = choices.below(shape.len().max(1));
            let size = *shape.get(axis)?;
            match choices.below(4) {
                0 => (
                    Op::Pad {
                        operand: a,
                        axis,
                        before: choices.below(3),
                        after: choices.below(3),
                    },
                    none,
                ),
                1 => (
                    Op::Concat {
                        operands: vec![a, b],
                        axis,
                    },
                    none,
                ),
                2 => {
                    let start = choices.below(size);
                    (
                        Op::Gather {
                            operand: a,
                            axis,
                            indices: Arc::new((start..size).collect()),
                        },
                        none,
                    )
                }
                _ => {
                    let indices = Arc::new((1..=size).collect());
                    (
                        Op::ScatterAdd {
                            operand: a,
                            axis,
                            indices,
                            size: size + 2,
                        },
                        none,
                    )
                }
            }
        }
        _ => {
            let (transpose_a, transpose_b) = (choices.below(2) == 0, choices.below(2) == 0);
            (
                Op::MatMul {
                    a,
                    b,
                    transpose_a,
                    transpose_b,
                },
                none,
            )
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn optimised_programs_compute_the_same(numbers in proptest::collection::vec(0u32..10_000, 60..240)) {
        let program = random_program(&mut Choices { numbers, next: 0 }, 24);
        verify(&program).unwrap();
        let optimised = optimize(&program);
        prop_assert!(optimised.instructions.len() <= program.instructions.len() + 4, "{program}\n{optimised}");
        let inputs = [random_values(1, 6), random_values(2, 9)];
        let (expected, found) = (interpret(&program, &inputs), interpret(&optimised, &inputs));
        // Large values may cancel on the way to a small output, so round-off goes with the largest of all values.
        let mut every_value = program.clone();
        every_value.outputs = (0..program.instructions.len() as u32).map(ValueId).collect();
        every_value.output_names = every_value.outputs.iter().map(|v| format!("v{}", v.0)).collect();
        let size = interpret(&every_value, &inputs).iter().flatten().fold(0.0, |size: f64, x| size.max(x.abs()));
        for (expected, found) in expected.iter().zip(&found) {
            prop_assert_eq!(expected.len(), found.len());
            for (x, y) in expected.iter().zip(found) {
                prop_assert!((x - y).abs() <= 1e-12 * size, "{} against {}\n{}\n{}", x, y, program, optimised);
            }
        }
        prop_assert_eq!(optimize(&optimised).instructions.len(), optimised.instructions.len(), "{}", optimised);
    }

    #[test]
    fn random_programs_have_consistent_derivatives(numbers in proptest::collection::vec(0u32..10_000, 60..240)) {
        let program = random_program(&mut Choices { numbers, next: 0 }, 16);
        let inputs = [random_values(1, 6), random_values(2, 9)];
        let checks = [check_vjp(&program, &inputs, &[0, 1], 3), check_tangent_axis(&program, &inputs, &[1, 0], 4)];
        for check in checks {
            prop_assert!(check.is_ok(), "{}\n{}", check.unwrap_err(), program);
        }
    }
}
