//! How far tangents and cotangents stay small sums of products, for every value of a linear program, and where they meet.

use super::batch_axis::batch_axes;
use super::programs::Wanted;
use crate::builder::Builder;
use crate::factored::{Factored, Form, Tangents, Term, merged};
use crate::ir::{Binary, Op, Program, ValueId};
use crate::linearize::depends_on;
use crate::shape::element_count;
use crate::transpose::transpose;
use crate::var::Var;

/// What a multiplication of the product over the cut costs, in those of a layer: its factors are narrow, and the
/// cotangents have to be written out.
const PRODUCT_OVER_CUT: usize = 3;

/// What is known of every value of the linear program.
pub(super) struct Analysis<'p, 'b> {
    pub(super) builder: &'b Builder,
    pub(super) linear: &'p Program,
    pub(super) tangents: Tangents,
    pub(super) batch: usize,
    pub(super) batch_axes: Vec<Option<usize>>,
    /// Whether a value depends on the tangent.
    pub(super) depends: Vec<bool>,
    /// Coefficients, and tangents that are small; `None` where whole arrays are needed.
    pub(super) forms: Vec<Option<Form<'b>>>,
    /// Cotangents at the cut, by value.
    pub(super) cut: Vec<(ValueId, Factored<'b>)>,
}

impl<'p, 'b> Analysis<'p, 'b> {
    pub(super) fn new(
        builder: &'b Builder,
        linear: &'p Program,
        tangent_input: usize,
        residuals: &[Var<'b>],
        tangents: Tangents,
        batch: usize,
        wanted: Wanted,
    ) -> Self {
        let mut analysis = Self {
            builder,
            linear,
            tangents,
            batch,
            batch_axes: batch_axes(linear, tangent_input),
            depends: depends_on(linear, &[tangent_input]),
            forms: Vec::new(),
            cut: Vec::new(),
        };
        analysis.forwards(tangent_input, residuals);
        analysis.choose_cut(tangent_input, wanted);
        analysis
    }

    /// Takes cotangents back as far as that saves work. Entries of a matrix cost more where the cut is wide: all cotangents
    /// meet all tangents there.
    fn choose_cut(&mut self, tangent_input: usize, wanted: Wanted) {
        self.cut = self.backwards(tangent_input, 0);
        if wanted == Wanted::Diagonal {
            return;
        }
        let mut least = self.cost(&self.cut);
        let earliest = self.cut.iter().map(|(v, _)| v.index()).min().unwrap_or(0);
        for position in earliest..self.linear.instructions.len() {
            // Sums, where branches of a residual network meet, are narrow.
            let op = &self.linear.instructions[position].op;
            if self.depends[position] && matches!(op, Op::Binary(Binary::Add, _, _)) {
                let cut = self.backwards(tangent_input, position + 1);
                let cost = self.cost(&cut);
                if cost < least {
                    (self.cut, least) = (cut, cost);
                }
            }
        }
    }

    /// Multiplications for every tangent of the products on whole arrays before a cut, and of those over the cut.
    fn cost(&self, cut: &[(ValueId, Factored<'b>)]) -> usize {
        let shape = |v: ValueId| self.linear.shape(v);
        let over_cut = cut.iter().map(|(v, cotangent)| {
            let local = cotangent.terms.iter().all(|term| term.support.is_some());
            let cotangents = if local { 1 } else { self.tangents.tokens } * self.tangents.channels;
            PRODUCT_OVER_CUT * cotangents * element_count(shape(*v))
        });
        let instructions = self.linear.instructions.iter().zip(self.before(cut));
        let of_layers = instructions.map(|(instruction, dense)| match instruction.op {
            Op::MatMul { a, transpose_a, .. } if dense => {
                let axes = shape(a).len();
                let summed = shape(a)[axes - if transpose_a { 2 } else { 1 }];
                summed * element_count(&instruction.shape)
            }
            _ => 0,
        });
        over_cut.sum::<usize>() + of_layers.sum::<usize>()
    }

    /// Which instructions work on whole arrays: those between small tangents and the cut.
    pub(super) fn dense(&self) -> Vec<bool> {
        self.before(&self.cut)
    }

    fn before(&self, cut: &[(ValueId, Factored<'b>)]) -> Vec<bool> {
        let mut dense = vec![false; self.linear.instructions.len()];
        cut.iter().for_each(|(v, _)| dense[v.index()] = true);
        for (position, instruction) in self.linear.instructions.iter().enumerate().rev() {
            dense[position] &= self.forms[position].is_none();
            if dense[position] {
                let operands = instruction.op.operands();
                operands.iter().for_each(|v| dense[v.index()] = true);
            }
        }
        dense
    }

    fn forwards(&mut self, tangent_input: usize, residuals: &[Var<'b>]) {
        for (position, instruction) in self.linear.instructions.iter().enumerate() {
            let shape = &instruction.shape;
            let form = match &instruction.op {
                Op::Input(i) if *i == tangent_input => {
                    Some(Form::Linear(self.tangents.basis(self.builder, shape)))
                }
                Op::Input(i) => Some(Form::Known(residuals[*i])),
                op if !self.depends[position] => {
                    let op = op.map_operands(|v| self.coefficient(v).id);
                    Some(Form::Known(self.builder.emit(op, shape)))
                }
                op => {
                    let operands: Option<Vec<Form<'b>>> = op
                        .operands()
                        .iter()
                        .map(|v| self.forms[v.index()].clone())
                        .collect();
                    operands.and_then(|operands| {
                        self.tangents.apply(self.builder, op, &operands, shape)
                    })
                }
            };
            self.forms.push(form);
        }
    }

    /// A value that does not depend on the tangent.
    pub(super) fn coefficient(&self, v: ValueId) -> Var<'b> {
        match &self.forms[v.index()] {
            Some(Form::Known(value)) => *value,
            _ => unreachable!("a coefficient does not depend on the tangent"),
        }
    }

    /// The cut when cotangents pass the instructions from position `first` on as far as they stay small.
    fn backwards(&self, tangent_input: usize, first: usize) -> Vec<(ValueId, Factored<'b>)> {
        let n = self.linear.instructions.len();
        let mut cotangents: Vec<Vec<Term<'b>>> = vec![Vec::new(); n];
        let mut cut = Vec::new();
        // Values read by something that is evaluated forwards.
        let mut needed = vec![false; n];
        let output = self.linear.outputs[0];
        cotangents[output.index()] = self
            .tangents
            .basis(self.builder, self.linear.shape(output))
            .terms;
        for position in (0..n).rev() {
            let instruction = &self.linear.instructions[position];
            if !self.depends[position] || (cotangents[position].is_empty() && !needed[position]) {
                continue;
            }
            let terms = merged(std::mem::take(&mut cotangents[position]));
            let cotangent = Factored {
                shape: instruction.shape.clone(),
                terms,
            };
            let stays = needed[position] || instruction.op == Op::Input(tangent_input);
            let pulled = if stays || position < first {
                None
            } else {
                self.pull_back(&instruction.op, &cotangent)
            };
            match pulled {
                Some(parts) => {
                    for (operand, part) in parts {
                        cotangents[operand.index()].extend(part.terms);
                    }
                }
                None => {
                    for operand in instruction.op.operands() {
                        needed[operand.index()] = true;
                    }
                    if !cotangent.terms.is_empty() {
                        cut.push((ValueId(position as u32), cotangent));
                    }
                }
            }
        }
        cut
    }

    /// Cotangents of an operation's operands, if they are small and tell samples apart.
    fn pull_back(&self, op: &Op, cotangent: &Factored<'b>) -> Option<Vec<(ValueId, Factored<'b>)>> {
        let operands = op.operands();
        let fragment = Builder::new();
        let arguments: Vec<Var> = operands
            .iter()
            .enumerate()
            .map(|(i, v)| match self.linear.instructions[v.index()].op {
                // Transposition must see zeros.
                Op::Constant(number) => fragment.constant(number, self.linear.shape(*v)),
                _ => fragment.input(&i.to_string(), self.linear.shape(*v)),
            })
            .collect();
        let mut next = arguments.iter();
        let result = fragment.emit(
            op.map_operands(|_| next.next().expect("one argument per operand").id),
            &cotangent.shape,
        );
        let fragment = fragment.finish(&[("result", result)]);
        let is_input = |i: usize| {
            !matches!(
                self.linear.instructions[operands[i].index()].op,
                Op::Constant(_)
            )
        };
        let inputs: Vec<usize> = (0..operands.len()).filter(|&i| is_input(i)).collect();
        let depends = |i: usize| self.depends[operands[i].index()];
        let (linear, known): (Vec<usize>, Vec<usize>) =
            inputs.iter().copied().partition(|&i| depends(i));
        if self.batch > 1
            && linear
                .iter()
                .any(|&i| self.batch_axes[operands[i].index()].is_none())
        {
            return None;
        }
        let linear_inputs: Vec<usize> = (0..inputs.len()).filter(|&i| depends(inputs[i])).collect();
        let transposed = transpose(&fragment, &linear_inputs);
        let mut forms: Vec<Option<Form<'b>>> = Vec::new();
        for instruction in &transposed.instructions {
            let form = match &instruction.op {
                Op::Input(i) => Some(match known.get(*i) {
                    Some(&number) => Form::Known(self.coefficient(operands[number])),
                    None => Form::Linear(cotangent.clone()),
                }),
                op => {
                    let arguments: Option<Vec<Form<'b>>> = op
                        .operands()
                        .iter()
                        .map(|v| forms[v.index()].clone())
                        .collect();
                    arguments.and_then(|arguments| {
                        if arguments.iter().all(|a| matches!(a, Form::Known(_))) {
                            let mut next = arguments.iter();
                            let op = op.map_operands(|_| match next.next() {
                                Some(Form::Known(value)) => value.id,
                                _ => unreachable!("every argument is known"),
                            });
                            Some(Form::Known(self.builder.emit(op, &instruction.shape)))
                        } else {
                            self.tangents
                                .apply(self.builder, op, &arguments, &instruction.shape)
                        }
                    })
                }
            };
            forms.push(form);
        }
        linear
            .iter()
            .zip(&transposed.outputs)
            .map(|(&number, output)| match &forms[output.index()] {
                Some(Form::Linear(part)) => Some((operands[number], part.clone())),
                Some(Form::Known(zero)) if zero.is_zero() => {
                    let shape = self.linear.shape(operands[number]).to_vec();
                    let terms = Vec::new();
                    Some((operands[number], Factored { shape, terms }))
                }
                _ => None,
            })
            .collect()
    }

    pub(super) fn small_tangent(&self, v: ValueId) -> Option<&Factored<'b>> {
        match &self.forms[v.index()] {
            Some(Form::Linear(value)) => Some(value),
            _ => None,
        }
    }
}
