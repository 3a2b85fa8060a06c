//! What each operation does to a bundle of tangents. `None` says that the result is no small sum of small products.

use super::movement::{align, exchanged, padded, part, permuted, reshaped, sliced};
use super::{Factored, Form, LEAD, Tangents, Term};
use crate::builder::Builder;
use crate::ir::{Binary, Op, Unary};
use crate::shape::element_count;
use crate::var::Var;

/// Terms of a sum that is still worth keeping apart. Layers that mix tokens more than once multiply them.
const MOST_TERMS: usize = 32;

impl Tangents {
    /// The operation on operands in this form; `shape` is its result's. At least one operand is linear in the tangent.
    pub(crate) fn apply<'b>(
        self,
        builder: &'b Builder,
        op: &Op,
        operands: &[Form<'b>],
        shape: &[usize],
    ) -> Option<Form<'b>> {
        let linear = |i: usize| match &operands[i] {
            Form::Linear(value) => Some(value),
            Form::Known(_) => None,
        };
        let known = |i: usize| match &operands[i] {
            Form::Known(value) => Some(*value),
            Form::Linear(_) => None,
        };
        let terms = match op {
            Op::Unary(Unary::Neg, _) => {
                let negate = |term: &Term<'b>| {
                    let mut term = term.clone();
                    match term.factors.first_mut() {
                        Some(first) => *first = -*first,
                        None => term.factors.push(self.scalar(builder, -1.0, shape)),
                    }
                    Some(term)
                };
                each(linear(0)?, negate)?
            }
            Op::Binary(function @ (Binary::Add | Binary::Sub), _, _) => {
                let mut terms = Vec::new();
                for i in 0..2 {
                    match &operands[i] {
                        Form::Known(value) if value.is_zero() => {}
                        Form::Known(_) => return None,
                        Form::Linear(value) => {
                            let aligned = align(value, shape.len());
                            if i == 1 && *function == Binary::Sub {
                                let negated = self.apply(
                                    builder,
                                    &Op::Unary(Unary::Neg, crate::ir::ValueId(0)),
                                    &[Form::Linear(aligned)],
                                    shape,
                                )?;
                                let Form::Linear(negated) = negated else {
                                    return None;
                                };
                                terms.extend(negated.terms);
                            } else {
                                terms.extend(aligned.terms);
                            }
                        }
                    }
                }
                super::merged(terms)
            }
            Op::Binary(Binary::Mul, _, _) => {
                let (value, coefficient) = match (linear(0), linear(1)) {
                    (Some(value), None) => (value, known(1)?),
                    (None, Some(value)) => (value, known(0)?),
                    _ => return None,
                };
                self.scaled(value, coefficient, shape)?
            }
            Op::Binary(Binary::Div, _, _) => {
                self.scaled(linear(0)?, known(1)?.reciprocal(), shape)?
            }
            Op::Select { .. } => {
                let mask = known(0)?;
                let mut terms = Vec::new();
                for (i, kept) in [(1, mask.select(1.0, 0.0)), (2, mask.select(0.0, 1.0))] {
                    match &operands[i] {
                        Form::Known(value) if value.is_zero() => {}
                        Form::Known(_) => return None,
                        Form::Linear(value) => terms.extend(self.scaled(value, kept, shape)?),
                    }
                }
                terms
            }
            Op::BroadcastTo(_) => align(linear(0)?, shape.len()).terms,
            Op::SumTo(_) => self.summed(builder, linear(0)?, shape)?,
            Op::Reshape(_) => {
                let value = linear(0)?;
                let mut terms = Vec::new();
                for term in &value.terms {
                    terms.extend(reshaped(term, &value.shape, shape)?);
                }
                terms
            }
            Op::Permute { permutation, .. } => {
                each(linear(0)?, |term| Some(permuted(term, permutation)))?
            }
            Op::Slice {
                axis,
                start,
                length,
                ..
            } => {
                let mut terms = Vec::new();
                for term in &linear(0)?.terms {
                    terms.extend(sliced(term, *axis, *start, *length)?);
                }
                terms
            }
            Op::Pad {
                axis,
                before,
                after,
                ..
            } => {
                let value = linear(0)?;
                each(value, |term| {
                    padded(term, *axis, value.shape[*axis], *before, *after)
                })?
            }
            Op::Concat { axis, .. } => {
                let mut terms = Vec::new();
                let mut before = 0;
                for operand in operands {
                    let size = match operand {
                        Form::Known(value) if value.is_zero() => value.shape()[*axis],
                        Form::Known(_) => return None,
                        Form::Linear(value) => {
                            let pad = Op::Pad {
                                operand: crate::ir::ValueId(0),
                                axis: *axis,
                                before,
                                after: shape[*axis] - before - value.shape[*axis],
                            };
                            let Form::Linear(padded) =
                                self.apply(builder, &pad, std::slice::from_ref(operand), shape)?
                            else {
                                return None;
                            };
                            terms.extend(padded.terms);
                            value.shape[*axis]
                        }
                    };
                    before += size;
                }
                terms
            }
            Op::MatMul {
                transpose_a,
                transpose_b,
                ..
            } => {
                let (rank, orient) = (
                    shape.len(),
                    |v: Var<'b>, flip: bool| {
                        if flip { v.transpose_last() } else { v }
                    },
                );
                match (linear(0), linear(1)) {
                    (Some(a), None) => {
                        let a = align(&exchanged(a, *transpose_a), rank);
                        let b = orient(known(1)?, *transpose_b);
                        self.product(&a, b, shape)?
                    }
                    // (A B)ᵀ = Bᵀ Aᵀ
                    (None, Some(b)) => {
                        let b = align(&exchanged(b, !transpose_b), rank);
                        let a = orient(known(0)?, !transpose_a);
                        let mut flipped = shape.to_vec();
                        flipped.swap(rank - 1, rank - 2);
                        let terms = self.product(&b, a, &flipped)?;
                        let product = Factored {
                            shape: flipped,
                            terms,
                        };
                        exchanged(&product, true).terms
                    }
                    _ => return None,
                }
            }
            Op::SoftmaxTangent { .. } => {
                let (y, value) = (known(0)?, align(linear(1)?, shape.len()));
                let mut terms = Vec::new();
                for term in &value.terms {
                    terms.extend(self.softmax_tangent(term, y, shape)?);
                }
                super::merged(terms)
            }
            Op::LayerNormTangent { .. } => {
                let (y, r, value) = (known(0)?, known(1)?, align(linear(2)?, shape.len()));
                let mut terms = Vec::new();
                for term in &value.terms {
                    terms.extend(self.layer_norm_tangent(term, y, r, shape)?);
                }
                super::merged(terms)
            }
            Op::Input(_)
            | Op::Constant(_)
            | Op::ConstantTensor(_)
            | Op::Unary(_, _)
            | Op::Binary(Binary::Max | Binary::Min | Binary::Greater, _, _)
            | Op::StopGradient(_)
            | Op::Gather { .. }
            | Op::ScatterAdd { .. }
            | Op::Softmax(_)
            | Op::LayerNorm { .. }
            | Op::RowReciprocalStd { .. } => return None,
        };
        let small = |factor: &Var<'b>| self.is_small(*factor, shape);
        (terms.len() <= MOST_TERMS && terms.iter().all(|term| term.factors.iter().all(small))).then(
            || {
                Form::Linear(Factored {
                    shape: shape.to_vec(),
                    terms,
                })
            },
        )
    }

    /// A factor that is one number.
    fn scalar<'b>(self, builder: &'b Builder, value: f64, shape: &[usize]) -> Var<'b> {
        builder.constant(value, &vec![1; LEAD + shape.len()])
    }

    /// A coefficient as a term with this support meets it: `[1 or T, 1, …]`, entry τ of the support's axis taken for the
    /// tangents of token τ, and the term's windows cut out.
    fn seen_by<'b>(self, known: Var<'b>, term: &Term<'b>, shape: &[usize]) -> Var<'b> {
        let own = known.shape();
        let mut aligned = vec![1; shape.len() - own.len()];
        aligned.extend(own);
        let lifted = match term.support {
            Some(axis) if aligned[axis] == self.tokens => {
                let mut order = vec![axis];
                order.extend((0..aligned.len()).filter(|&other| other != axis));
                let mut lifted = vec![self.tokens, 1];
                lifted.extend(&aligned);
                lifted[LEAD + axis] = 1;
                known.reshape(&aligned).permute(&order).reshape(&lifted)
            }
            _ => known.reshape(&[&[1, 1][..], &aligned].concat()),
        };
        term.windows.iter().fold(lifted, |seen, window| {
            part(seen, window.axis, window.start, window.length)
        })
    }

    /// value ⊙ coefficient. An outer product stays one of two factors: what multiplies neither alone ends the sum of small
    /// products, because it costs a pass over the bundle for all terms together but one for each of them apart.
    fn scaled<'b>(
        self,
        value: &Factored<'b>,
        coefficient: Var<'b>,
        shape: &[usize],
    ) -> Option<Vec<Term<'b>>> {
        each(&align(value, shape.len()), |term| {
            let seen = self.seen_by(coefficient, term, shape);
            let scaled = self.times(term.clone(), seen);
            let grows = scaled.factors.len() > term.factors.len().max(2);
            (!grows).then_some(scaled)
        })
    }

    fn summed<'b>(
        self,
        builder: &'b Builder,
        value: &Factored<'b>,
        shape: &[usize],
    ) -> Option<Vec<Term<'b>>> {
        let missing = value.shape.len() - shape.len();
        each(value, |term| {
            let mut term = term.clone();
            for axis in 0..value.shape.len() {
                let size = value.shape[axis];
                let kept = axis >= missing && shape[axis - missing] == size;
                if size == 1 || kept {
                    continue;
                }
                if term.support == Some(axis) {
                    term.support = None;
                    continue;
                }
                let extent = term.window(axis).map_or(size, |window| window.length);
                term.windows.retain(|window| window.axis != axis);
                let (inner, mut others) = self.depending_on(&term, axis, &value.shape)?;
                others.push(match inner {
                    Some(inner) => inner.sum_keep(&[LEAD + axis]),
                    None => self.scalar(builder, extent as f64, &value.shape),
                });
                term.factors = others;
            }
            let factors = term
                .factors
                .iter()
                .map(|factor| {
                    let own = factor.shape();
                    factor.reshape(&[&own[..LEAD], &own[LEAD + missing..]].concat())
                })
                .collect();
            let support = match term.support {
                Some(axis) => Some(axis.checked_sub(missing)?),
                None => None,
            };
            let mut windows = term.windows;
            for window in &mut windows {
                window.axis = window.axis.checked_sub(missing)?;
            }
            Some(Term {
                factors,
                support,
                windows,
            })
        })
    }

    /// The product of the factors that vary along an axis, if any, and the others. `None` when that product would be as
    /// large as the bundle, or the term's support is the axis.
    fn depending_on<'b>(
        self,
        term: &Term<'b>,
        axis: usize,
        shape: &[usize],
    ) -> Option<(Option<Var<'b>>, Vec<Var<'b>>)> {
        if term.support == Some(axis) {
            return None;
        }
        let (inner, others): (Vec<Var<'b>>, Vec<Var<'b>>) = term
            .factors
            .iter()
            .partition(|factor| factor.shape()[LEAD + axis] > 1);
        let inner = inner.into_iter().reduce(|a, b| a * b);
        match inner {
            Some(product) if !self.is_small(product, shape) => None,
            _ => Some((inner, others)),
        }
    }

    /// Value `[…, m, k]` times coefficient `[…, k, n]`; `shape` is the result's.
    fn product<'b>(
        self,
        value: &Factored<'b>,
        coefficient: Var<'b>,
        shape: &[usize],
    ) -> Option<Vec<Term<'b>>> {
        // Many terms' products together may cost as much as the bundle's, which spares writing them out.
        let of_terms: usize = value.terms.iter().map(inner_size).sum();
        let of_bundle = self.tokens * self.channels * element_count(&value.shape);
        if value.terms.len() > 1 && 4 * of_terms > 3 * of_bundle {
            return None;
        }
        each(value, |term| self.contracted(term, coefficient, shape))
    }

    /// Term `[…, m, k]` times coefficient `[…, k, n]`; `shape` is the result's.
    fn contracted<'b>(
        self,
        term: &Term<'b>,
        coefficient: Var<'b>,
        shape: &[usize],
    ) -> Option<Term<'b>> {
        let rank = shape.len();
        let (row, column) = (rank - 2, rank - 1);
        // The columns of the term are the rows of the coefficient, which knows nothing of the term's rows.
        let mut met = Term {
            factors: Vec::new(),
            support: match term.support {
                Some(axis) if axis == column => Some(row),
                support => support.filter(|&axis| axis < row),
            },
            windows: term.windows.clone(),
        };
        met.windows.retain(|window| window.axis != row);
        for window in met.windows.iter_mut().filter(|w| w.axis == column) {
            window.axis = row;
        }
        let seen = self.seen_by(coefficient, &met, shape);
        let mut windows = term.windows.clone();
        windows.retain(|window| window.axis != column);
        if term.support == Some(column) {
            // Only row τ of the coefficient is met.
            let mut factors = term.factors.clone();
            factors.push(seen);
            return Some(Term {
                factors,
                support: None,
                windows,
            });
        }
        let (inner, mut others): (Vec<Var<'b>>, Vec<Var<'b>>) = term
            .factors
            .iter()
            .partition(|factor| factor.shape()[LEAD + column] > 1);
        others.push(match inner.into_iter().reduce(|a, b| a * b) {
            Some(inner) => {
                // The product's own size counts too: it is written to memory.
                let mut before = shape.to_vec();
                before[column] = inner.shape()[LEAD + column];
                if !self.is_small(inner, &before) {
                    return None;
                }
                self.through(inner, |inner| inner.matmul(seen))
            }
            None => seen.sum_keep(&[LEAD + row]),
        });
        Some(Term {
            factors: others,
            support: term.support,
            windows,
        })
    }

    /// r ⊙ (v − mean v − y ⊙ mean(y⊙v)) over the last axis. For an outer product of coefficients a of the rows and a
    /// vector v it is one again, of r a and v − mean v, less one of r a mean(y⊙v) and y.
    fn layer_norm_tangent<'b>(
        self,
        term: &Term<'b>,
        y: Var<'b>,
        r: Var<'b>,
        shape: &[usize],
    ) -> Option<Vec<Term<'b>>> {
        let last = shape.len() - 1;
        let term = term.clone().whole_along(last, shape[last]);
        let (inner, others) = self.depending_on(&term, last, shape)?;
        let inner = inner?;
        let (y, r) = (self.seen_by(y, &term, shape), self.seen_by(r, &term, shape));
        let with = |factors: Vec<Var<'b>>| Term {
            factors,
            support: term.support,
            windows: term.windows.clone(),
        };
        let rows = |value: Var<'b>| last > 0 && value.shape()[LEAD + last - 1] > 1;
        let split = rows(y) && (!rows(inner) || self.narrow_product(inner).is_some());
        if !split {
            let mut factors = others;
            factors.push(y.layer_norm_tangent(r, inner));
            return Some(vec![with(factors)]);
        }
        let mut centred = self.times(with(others.clone()), r);
        centred
            .factors
            .push(self.through(inner, |inner| inner - inner.mean_keep(&[LEAD + last])));
        let along = if rows(inner) {
            (inner * y).sum_keep(&[LEAD + last])
        } else {
            let along = self.through(inner, |inner| inner.matmul_t(y));
            along.transpose_last()
        };
        let along = along * (-1.0 / shape[last] as f64);
        let mut turned = self.times(self.times(with(others), along), r);
        turned.factors.push(y);
        Some(vec![centred, turned])
    }

    /// U and P of a factor that was made as U·P, P the same for all tangents and with fewer rows than there are tangents:
    /// what is linear in the factor's last axis costs less applied to P, which the terms of a head have in common.
    fn narrow_product<'b>(self, factor: Var<'b>) -> Option<[Var<'b>; 2]> {
        let builder = factor.builder();
        let factors = builder.with_instruction(factor.id, |instruction| match instruction.op {
            Op::MatMul {
                a,
                b,
                transpose_a: false,
                transpose_b: false,
            } => Some((a, b)),
            _ => None,
        });
        let (u, p) = factors.map(|(u, p)| (builder.var(u), builder.var(p)))?;
        let shape = p.shape();
        let [inner, columns] = [shape[shape.len() - 2], shape[shape.len() - 1]];
        let shared = shape.len() == factor.rank() && shape[..LEAD] == [1, 1];
        let narrow = 2 * inner <= columns && inner < self.tokens * self.channels;
        (shared && narrow).then_some([u, p])
    }

    /// A function linear in the last axis, and the same for all rows, of a factor.
    fn through<'b>(self, factor: Var<'b>, function: impl Fn(Var<'b>) -> Var<'b>) -> Var<'b> {
        match self.narrow_product(factor) {
            Some([u, p]) => u.matmul(function(p)),
            None => function(factor),
        }
    }

    /// The term with another factor, multiplied into an existing one where that one does not grow.
    fn times<'b>(self, mut term: Term<'b>, factor: Var<'b>) -> Term<'b> {
        let shape = factor.shape();
        let covers = |a: &[usize], b: &[usize]| a.iter().zip(b).all(|(a, b)| b == a || *b == 1);
        for own in &mut term.factors {
            let existing = own.shape();
            if covers(&existing, &shape) || covers(&shape, &existing) {
                let rank = shape.len();
                let same_for_rows = rank > LEAD + 1
                    && shape[..LEAD] == [1, 1]
                    && shape[rank - 2] == 1
                    && covers(&existing, &shape);
                *own = if same_for_rows {
                    self.through(*own, |own| own * factor)
                } else {
                    *own * factor
                };
                return term;
            }
        }
        term.factors.push(factor);
        term
    }

    /// y ⊙ (v − Σ y⊙v) over the last axis.
    fn softmax_tangent<'b>(
        self,
        term: &Term<'b>,
        y: Var<'b>,
        shape: &[usize],
    ) -> Option<Vec<Term<'b>>> {
        let last = shape.len() - 1;
        let term = &term.clone().whole_along(last, shape[last]);
        if term.support == Some(last) {
            // v is nonzero in column τ only: y_τ v there, and −y (y_τ v) everywhere.
            let column = self.times(term.clone(), self.seen_by(y, term, shape));
            let mut spread = column.clone();
            spread.support = None;
            match spread.factors.first_mut() {
                Some(first) => *first = -*first,
                None => return None,
            }
            let all = self.seen_by(
                y,
                &Term {
                    windows: term.windows.clone(),
                    ..Term::default()
                },
                shape,
            );
            spread.factors.push(all);
            return Some(vec![column, spread]);
        }
        let (inner, mut others) = self.depending_on(term, last, shape)?;
        let y = self.seen_by(y, term, shape);
        others.push(y.softmax_tangent(inner?));
        Some(vec![Term {
            factors: others,
            support: term.support,
            windows: term.windows.clone(),
        }])
    }
}

/// Elements of the product of the factors that vary along the last axis.
fn inner_size(term: &Term<'_>) -> usize {
    let mut shape: Vec<usize> = Vec::new();
    for factor in &term.factors {
        let own = factor.shape();
        if own.last().is_some_and(|&size| size > 1) {
            shape.resize(own.len(), 1);
            shape
                .iter_mut()
                .zip(&own)
                .for_each(|(size, own)| *size = *own.max(size));
        }
    }
    if shape.is_empty() {
        0
    } else {
        element_count(&shape)
    }
}

fn each<'b>(
    value: &Factored<'b>,
    rule: impl Fn(&Term<'b>) -> Option<Term<'b>>,
) -> Option<Vec<Term<'b>>> {
    value.terms.iter().map(rule).collect()
}
