//! The naive `f64` interpreter: every rule written straight from its definition, with index arithmetic in the open.
//! It is the reference for the executor and for the derivative checks, and folds constants.

use crate::ir::{Binary, Op, Program, Unary};
use crate::shape::element_count;

/// Evaluates a program on row-major inputs; returns its outputs row-major.
///
/// # Panics
/// If the number of inputs or the length of one does not match the program.
pub fn interpret<I: AsRef<[f64]>>(program: &Program, inputs: &[I]) -> Vec<Vec<f64>> {
    let values = interpret_values(program, inputs);
    program
        .outputs
        .iter()
        .map(|v| values[v.index()].clone())
        .collect()
}

/// As [`interpret`], but returns the value of every instruction.
pub fn interpret_values<I: AsRef<[f64]>>(program: &Program, inputs: &[I]) -> Vec<Vec<f64>> {
    assert_eq!(
        inputs.len(),
        program.inputs.len(),
        "the program takes {} inputs",
        program.inputs.len()
    );
    for (i, input) in inputs.iter().enumerate() {
        let (name, shape) = (&program.input_names[i], program.input_shape(i));
        assert_eq!(
            input.as_ref().len(),
            element_count(shape),
            "input {name} has the shape {shape:?}"
        );
    }
    let mut values: Vec<Vec<f64>> = Vec::with_capacity(program.instructions.len());
    for instruction in &program.instructions {
        let value = if let Op::Input(i) = instruction.op {
            inputs[i].as_ref().to_vec()
        } else {
            let operands: Vec<Operand> = (instruction.op.operands().iter())
                .map(|&v| Operand {
                    values: &values[v.index()],
                    shape: program.shape(v),
                })
                .collect();
            evaluate(&instruction.op, &operands, &instruction.shape)
        };
        values.push(value);
    }
    values
}

/// An operand's numbers and shape.
pub(crate) struct Operand<'a> {
    pub(crate) values: &'a [f64],
    pub(crate) shape: &'a [usize],
}

impl Operand<'_> {
    /// The element that broadcasting shows at `index` of a result.
    fn at(&self, index: &[usize]) -> f64 {
        let offset = index.len() - self.shape.len();
        let flat = self
            .shape
            .iter()
            .enumerate()
            .fold(0, |flat, (axis, &size)| {
                flat * size + if size == 1 { 0 } else { index[axis + offset] }
            });
        self.values[flat]
    }
}

/// Calls `visit` with every multi-index of a shape in row-major order.
fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..element_count(shape) {
        visit(&index);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

fn build(shape: &[usize], mut entry: impl FnMut(&[usize]) -> f64) -> Vec<f64> {
    let mut result = Vec::with_capacity(element_count(shape));
    for_each_index(shape, |index| result.push(entry(index)));
    result
}

/// Maps each row (last axis) of a broadcast result.
fn map_rows(shape: &[usize], mut row: impl FnMut(&[usize], &mut [f64])) -> Vec<f64> {
    let width = shape[shape.len() - 1];
    let mut result = vec![0.0; element_count(shape)];
    if width == 0 {
        return result;
    }
    let mut chunks = result.chunks_mut(width);
    for_each_index(&shape[..shape.len() - 1], |index| {
        row(index, chunks.next().expect("one chunk per row"))
    });
    result
}

/// The numbers an operation yields.
pub(crate) fn evaluate(op: &Op, operands: &[Operand], shape: &[usize]) -> Vec<f64> {
    let mut full_index = Vec::new();
    let mut at_row = |operand: &Operand, row: &[usize], column: usize| {
        full_index.clear();
        full_index.extend_from_slice(row);
        full_index.push(column);
        operand.at(&full_index)
    };
    match op {
        Op::Input(_) => unreachable!("inputs are given, not computed"),
        Op::Constant(value) => vec![*value; element_count(shape)],
        Op::ConstantTensor(values) => values.to_vec(),
        Op::Unary(function, _) => operands[0]
            .values
            .iter()
            .map(|&x| unary(*function, x))
            .collect(),
        Op::Binary(function, _, _) => build(shape, |i| {
            binary(*function, operands[0].at(i), operands[1].at(i))
        }),
        Op::Select { .. } => build(shape, |i| {
            operands[if operands[0].at(i) != 0.0 { 1 } else { 2 }].at(i)
        }),
        Op::StopGradient(_) | Op::Reshape(_) => operands[0].values.to_vec(),
        Op::BroadcastTo(_) => build(shape, |i| operands[0].at(i)),
        Op::SumTo(_) => {
            let mut result = vec![0.0; element_count(shape)];
            let mut source = operands[0].values.iter();
            let offset = operands[0].shape.len() - shape.len();
            for_each_index(operands[0].shape, |i| {
                let flat = (shape.iter().enumerate()).fold(0, |flat, (axis, &size)| {
                    flat * size + if size == 1 { 0 } else { i[axis + offset] }
                });
                result[flat] += source.next().expect("one element per index");
            });
            result
        }
        Op::Permute { permutation, .. } => build(shape, |i| {
            let mut source = vec![0; i.len()];
            for (axis, &from) in permutation.iter().enumerate() {
                source[from] = i[axis];
            }
            operands[0].at(&source)
        }),
        Op::Slice { axis, start, .. } => build(shape, |i| {
            let mut source = i.to_vec();
            source[*axis] += start;
            operands[0].at(&source)
        }),
        Op::Pad { axis, before, .. } => build(shape, |i| {
            let size = operands[0].shape[*axis];
            if i[*axis] < *before || i[*axis] >= before + size {
                return 0.0;
            }
            let mut source = i.to_vec();
            source[*axis] -= before;
            operands[0].at(&source)
        }),
        Op::Concat { axis, .. } => build(shape, |i| {
            let mut source = i.to_vec();
            for operand in operands {
                if source[*axis] < operand.shape[*axis] {
                    return operand.at(&source);
                }
                source[*axis] -= operand.shape[*axis];
            }
            unreachable!("the joined sizes add up")
        }),
        Op::Gather { axis, indices, .. } => build(shape, |i| {
            let mut source = i.to_vec();
            source[*axis] = indices[i[*axis]];
            operands[0].at(&source)
        }),
        Op::ScatterAdd { axis, indices, .. } => {
            let mut result = vec![0.0; element_count(shape)];
            for_each_index(operands[0].shape, |i| {
                let flat = (shape.iter().enumerate()).fold(0, |flat, (a, &size)| {
                    flat * size + if a == *axis { indices[i[a]] } else { i[a] }
                });
                result[flat] += operands[0].at(i);
            });
            result
        }
        Op::MatMul {
            transpose_a,
            transpose_b,
            ..
        } => {
            let (a, b) = (&operands[0], &operands[1]);
            let inner = a.shape[a.shape.len() - if *transpose_a { 2 } else { 1 }];
            build(shape, |i| {
                let (row, column) = (i[i.len() - 2], i[i.len() - 1]);
                let (mut index_a, mut index_b) = (i.to_vec(), i.to_vec());
                let last = i.len() - 1;
                (0..inner).fold(0.0, |sum, k| {
                    (index_a[last - 1], index_a[last]) =
                        if *transpose_a { (k, row) } else { (row, k) };
                    (index_b[last - 1], index_b[last]) = if *transpose_b {
                        (column, k)
                    } else {
                        (k, column)
                    };
                    sum + a.at(&index_a) * b.at(&index_b)
                })
            })
        }
        Op::Softmax(_) => map_rows(shape, |row, out| {
            (0..out.len()).for_each(|j| out[j] = at_row(&operands[0], row, j));
            let largest = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            out.iter_mut().for_each(|x| *x = (*x - largest).exp());
            let sum: f64 = out.iter().sum();
            out.iter_mut().for_each(|x| *x /= sum);
        }),
        Op::SoftmaxTangent { .. } => map_rows(shape, |row, out| {
            let y: Vec<f64> = (0..out.len())
                .map(|j| at_row(&operands[0], row, j))
                .collect();
            let v: Vec<f64> = (0..out.len())
                .map(|j| at_row(&operands[1], row, j))
                .collect();
            let dot: f64 = y.iter().zip(&v).map(|(y, v)| y * v).sum();
            (0..out.len()).for_each(|j| out[j] = y[j] * (v[j] - dot));
        }),
        Op::LayerNorm { epsilon, .. } => map_rows(shape, |row, out| {
            (0..out.len()).for_each(|j| out[j] = at_row(&operands[0], row, j));
            let (mean, reciprocal_std) = row_moments(out, *epsilon);
            out.iter_mut()
                .for_each(|x| *x = (*x - mean) * reciprocal_std);
        }),
        Op::RowReciprocalStd { epsilon, .. } => {
            let width = operands[0].shape[operands[0].shape.len() - 1];
            map_rows(shape, |row, out| {
                let values: Vec<f64> = (0..width).map(|j| at_row(&operands[0], row, j)).collect();
                out[0] = row_moments(&values, *epsilon).1;
            })
        }
        Op::LayerNormTangent { .. } => map_rows(shape, |row, out| {
            let width = out.len() as f64;
            let y: Vec<f64> = (0..out.len())
                .map(|j| at_row(&operands[0], row, j))
                .collect();
            let r = at_row(&operands[1], row, 0);
            let v: Vec<f64> = (0..out.len())
                .map(|j| at_row(&operands[2], row, j))
                .collect();
            let mean = v.iter().sum::<f64>() / width;
            let correlation = y.iter().zip(&v).map(|(y, v)| y * v).sum::<f64>() / width;
            (0..out.len()).for_each(|j| out[j] = r * (v[j] - mean - y[j] * correlation));
        }),
    }
}

/// Mean and 1/√(biased variance + ε).
fn row_moments(row: &[f64], epsilon: f64) -> (f64, f64) {
    let width = row.len() as f64;
    let mean = row.iter().sum::<f64>() / width;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

fn unary(function: Unary, x: f64) -> f64 {
    match function {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign => {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                0.0
            }
        }
        Unary::Exp => x.exp(),
        Unary::Ln => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Square => x * x,
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Erf => erf(x),
        Unary::Gelu => x * normal_distribution(x),
        Unary::GeluPrime => {
            normal_distribution(x) + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
        }
    }
}

fn binary(function: Binary, a: f64, b: f64) -> f64 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => {
            if b > a {
                b
            } else {
                a
            }
        }
        Binary::Min => {
            if a > b {
                b
            } else {
                a
            }
        }
        Binary::Greater => f64::from(a > b),
    }
}

/// Φ(x) = erfc(−x/√2)/2
fn normal_distribution(x: f64) -> f64 {
    0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// Error function: for |x| < 2 the all-positive series 2/√π e^(−x²) Σ 2ⁿ x^(2n+1)/(2n+1)!! (Abramowitz and Stegun
/// 7.1.6), beyond 1 − erfc(x).
fn erf(x: f64) -> f64 {
    if x.abs() >= 2.0 {
        return 1.0 - erfc(x);
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// Complementary error function: for |x| < 2 as 1 − erf(x), beyond from the continued fraction
/// erfc(x) = e^(−x²)/√π · 1/(x + ½/(x + 1/(x + 3⁄2/(x + …)))) (Abramowitz and Stegun 7.1.14).
fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() < 2.0 {
        return 1.0 - erf(x);
    }
    let magnitude = x.abs();
    let fraction = (1..=120)
        .rev()
        .fold(magnitude, |tail, n| magnitude + 0.5 * f64::from(n) / tail);
    let tail = 0.5 * std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() / fraction;
    if x > 0.0 { tail } else { 2.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::var::Var;

    #[test]
    fn error_function_matches_tabulated_values() {
        // erfc(x): Abramowitz and Stegun table 7.1 and DLMF 7.23
        for (x, expected) in [
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 0.004_677_734_981_047_266),
            (3.0, 2.209_049_699_858_544e-5),
            (5.0, 1.537_459_794_428_035e-12),
        ] {
            assert!(
                (erfc(x) / expected - 1.0).abs() < 1e-12,
                "erfc({x}) = {:e}",
                erfc(x)
            );
            assert!((erfc(-x) - (2.0 - expected)).abs() < 4e-16 * 4.0);
        }
    }

    /// Evaluates one operation of operands given with their shapes.
    fn one(
        shapes: &[&[usize]],
        values: &[&[f64]],
        op: impl for<'b> Fn(&'b Builder, &[Var<'b>]) -> Var<'b>,
    ) -> Vec<f64> {
        let builder = Builder::new();
        let inputs: Vec<Var> = shapes
            .iter()
            .map(|shape| builder.input("x", shape))
            .collect();
        let output = op(&builder, &inputs);
        interpret(&builder.finish(&[("y", output)]), values).remove(0)
    }

    const COUNTING: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn elements_move_where_the_definitions_say() {
        let on = |shape: &[usize], op: fn(Var) -> Var| one(&[shape], &[&COUNTING], |_, x| op(x[0]));
        assert_eq!(
            on(&[2, 3], |x| x.permute(&[1, 0])),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
        // y[i, j, k] = x[k, i, j]
        assert_eq!(
            on(&[3, 1, 2], |x| x.permute(&[1, 2, 0])),
            [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]
        );
        assert_eq!(on(&[2, 3], |x| x.slice(1, 1, 2)), [2.0, 3.0, 5.0, 6.0]);
        assert_eq!(
            on(&[3, 2], |x| x.pad(1, 1, 0)),
            [0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 5.0, 6.0]
        );
        assert_eq!(
            on(&[2, 3], |x| x.gather(1, &[2, 0, 2, 1])),
            [3.0, 1.0, 3.0, 2.0, 6.0, 4.0, 6.0, 5.0]
        );
        assert_eq!(
            on(&[3, 2], |x| x.scatter_add(0, &[1, 1, 0], 3)),
            [5.0, 6.0, 4.0, 6.0, 0.0, 0.0]
        );
        assert_eq!(on(&[2, 3], |x| x.sum(&[0])), [5.0, 7.0, 9.0]);
        assert_eq!(on(&[2, 3], |x| x.sum(&[1])), [6.0, 15.0]);
        assert_eq!(on(&[1, 2, 3], |x| x.sum_to(&[2, 1])), [6.0, 15.0]);
        assert_eq!(on(&[2, 3], |x| x.mean(&[0, 1])), [3.5]);
        assert_eq!(
            on(&[2, 1, 3], |x| x.broadcast_to(&[2, 2, 3]))[3..9],
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        );
        let joined = one(
            &[&[2, 1], &[2, 2]],
            &[&[7.0, 8.0], &[1.0, 2.0, 3.0, 4.0]],
            |b, x| b.concat(x, 1),
        );
        assert_eq!(joined, [7.0, 1.0, 2.0, 8.0, 3.0, 4.0]);
    }

    #[test]
    fn products_and_selections_broadcast() {
        // a is [2, 1, 2] times b [2, 2], batch axis from a only
        let product = one(
            &[&[2, 1, 2], &[2, 2]],
            &[&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]],
            |_, x| x[0].matmul(x[1]),
        );
        assert_eq!(product, [19.0, 22.0, 43.0, 50.0]);
        let flags = |ta, tb| {
            one(
                &[&[2, 2], &[2, 2]],
                &[&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]],
                move |_, x| x[0].matmul_flags(x[1], ta, tb),
            )
        };
        assert_eq!(flags(false, true), [17.0, 23.0, 39.0, 53.0]);
        assert_eq!(flags(true, false), [26.0, 30.0, 38.0, 44.0]);
        assert_eq!(flags(true, true), [23.0, 31.0, 34.0, 46.0]);
        let chosen = one(
            &[&[2, 1], &[3]],
            &[&[1.0, 0.0], &[4.0, 5.0, 6.0]],
            |_, x| x[0].select(x[1], 2.0),
        );
        assert_eq!(chosen, [4.0, 5.0, 6.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn rows_follow_their_formulas() {
        let ln = [1f64, 2.0, 5.0].map(f64::ln);
        let softmax = one(&[&[3]], &[&ln], |_, x| x[0].softmax());
        softmax
            .iter()
            .zip([0.125, 0.25, 0.625])
            .for_each(|(y, expected)| assert!((y - expected).abs() < 1e-15));
        // rows (1, 3) and (−2, 2): means 2 and 0, variances 1 and 4, ε = 0
        let rows = [1.0, 3.0, -2.0, 2.0];
        assert_eq!(
            one(&[&[2, 2]], &[&rows], |_, x| x[0].layer_norm(0.0)),
            [-1.0, 1.0, -1.0, 1.0]
        );
        assert_eq!(
            one(&[&[2, 2]], &[&rows], |_, x| x[0].row_reciprocal_std(0.0)),
            [1.0, 0.5]
        );
        assert_eq!(
            one(&[&[2, 2]], &[&rows], |_, x| x[0].row_reciprocal_std(3.0)),
            [0.5, 1.0 / 7f64.sqrt()]
        );
    }
}
