//! What each operation does to a bundle of tangents. `None` says that the result is no small sum of small products.

use super::{Factored, Form, LEAD, Tangents, Term};
use crate::builder::Builder;
use crate::ir::{Binary, Op, Unary};
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
                each(value, |term| reshaped(term, &value.shape, shape))?
            }
            Op::Permute { permutation, .. } => {
                each(linear(0)?, |term| Some(permuted(term, permutation)))?
            }
            Op::Slice {
                axis,
                start,
                length,
                ..
            } => each(linear(0)?, |term| {
                if term.support == Some(*axis) {
                    return None;
                }
                Some(map_factors(term, |factor| {
                    if factor.shape()[LEAD + axis] == 1 && *length > 0 {
                        factor
                    } else {
                        factor.slice(LEAD + axis, *start, *length)
                    }
                }))
            })?,
            Op::Pad {
                axis,
                before,
                after,
                ..
            } => {
                let value = linear(0)?;
                let size = value.shape[*axis];
                each(value, |term| {
                    let extends = |f: &Var<'b>| size > 1 && f.shape()[LEAD + axis] == size;
                    if term.support == Some(*axis) || !term.factors.iter().any(extends) {
                        return None;
                    }
                    Some(map_factors(term, |factor| {
                        if extends(&factor) {
                            factor.pad(LEAD + axis, *before, *after)
                        } else {
                            factor
                        }
                    }))
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
                        each(&a, |term| self.contracted(term, b, shape))?
                    }
                    // (A B)ᵀ = Bᵀ Aᵀ
                    (None, Some(b)) => {
                        let b = align(&exchanged(b, !transpose_b), rank);
                        let a = orient(known(0)?, !transpose_a);
                        let mut flipped = shape.to_vec();
                        flipped.swap(rank - 1, rank - 2);
                        let terms = each(&b, |term| self.contracted(term, a, &flipped))?;
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
                terms
            }
            Op::LayerNormTangent { .. } => {
                let (y, r, value) = (known(0)?, known(1)?, align(linear(2)?, shape.len()));
                each(&value, |term| {
                    let last = shape.len() - 1;
                    let (inner, mut others) = self.depending_on(term, last, shape)?;
                    let (y, r) = (self.seen_by(y, term, shape), self.seen_by(r, term, shape));
                    others.push(y.layer_norm_tangent(r, inner?));
                    Some(Term {
                        factors: others,
                        support: term.support,
                    })
                })?
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
    /// tangents of token τ.
    fn seen_by<'b>(self, known: Var<'b>, term: &Term<'b>, shape: &[usize]) -> Var<'b> {
        let own = known.shape();
        let mut aligned = vec![1; shape.len() - own.len()];
        aligned.extend(own);
        match term.support {
            Some(axis) if aligned[axis] == self.tokens => {
                let mut order = vec![axis];
                order.extend((0..aligned.len()).filter(|&other| other != axis));
                let mut lifted = vec![self.tokens, 1];
                lifted.extend(&aligned);
                lifted[LEAD + axis] = 1;
                known.reshape(&aligned).permute(&order).reshape(&lifted)
            }
            _ => known.reshape(&[&[1, 1][..], &aligned].concat()),
        }
    }

    /// value ⊙ coefficient.
    fn scaled<'b>(
        self,
        value: &Factored<'b>,
        coefficient: Var<'b>,
        shape: &[usize],
    ) -> Option<Vec<Term<'b>>> {
        each(&align(value, shape.len()), |term| {
            let seen = self.seen_by(coefficient, term, shape);
            Some(times(term.clone(), seen))
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
                let (inner, mut others) = self.depending_on(&term, axis, &value.shape)?;
                others.push(match inner {
                    Some(inner) => inner.sum_keep(&[LEAD + axis]),
                    None => self.scalar(builder, size as f64, &value.shape),
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
            Some(Term { factors, support })
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

    /// Term `[…, m, k]` times coefficient `[…, k, n]`; `shape` is the result's.
    fn contracted<'b>(
        self,
        term: &Term<'b>,
        coefficient: Var<'b>,
        shape: &[usize],
    ) -> Option<Term<'b>> {
        let rank = shape.len();
        let (row, column) = (rank - 2, rank - 1);
        if term.support == Some(column) {
            // Only row τ of the coefficient is met.
            let by_row = Term {
                factors: Vec::new(),
                support: Some(row),
            };
            let mut factors = term.factors.clone();
            factors.push(self.seen_by(coefficient, &by_row, shape));
            return Some(Term {
                factors,
                support: None,
            });
        }
        let (inner, mut others): (Vec<Var<'b>>, Vec<Var<'b>>) = term
            .factors
            .iter()
            .partition(|factor| factor.shape()[LEAD + column] > 1);
        let by_batch = Term {
            factors: Vec::new(),
            support: term.support.filter(|&axis| axis < row),
        };
        let seen = self.seen_by(coefficient, &by_batch, shape);
        others.push(match inner.into_iter().reduce(|a, b| a * b) {
            Some(inner) => {
                // The product's own size counts too: it is written to memory.
                let mut before = shape.to_vec();
                before[column] = inner.shape()[LEAD + column];
                if !self.is_small(inner, &before) {
                    return None;
                }
                inner.matmul(seen)
            }
            None => seen.sum_keep(&[LEAD + row]),
        });
        Some(Term {
            factors: others,
            support: term.support,
        })
    }

    /// y ⊙ (v − Σ y⊙v) over the last axis.
    fn softmax_tangent<'b>(
        self,
        term: &Term<'b>,
        y: Var<'b>,
        shape: &[usize],
    ) -> Option<Vec<Term<'b>>> {
        let last = shape.len() - 1;
        if term.support == Some(last) {
            // v is nonzero in column τ only: y_τ v there, and −y (y_τ v) everywhere.
            let column = times(term.clone(), self.seen_by(y, term, shape));
            let mut spread = column.clone();
            spread.support = None;
            match spread.factors.first_mut() {
                Some(first) => *first = -*first,
                None => return None,
            }
            let all = self.seen_by(
                y,
                &Term {
                    factors: Vec::new(),
                    support: None,
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
        }])
    }
}

fn each<'b>(
    value: &Factored<'b>,
    rule: impl Fn(&Term<'b>) -> Option<Term<'b>>,
) -> Option<Vec<Term<'b>>> {
    value.terms.iter().map(rule).collect()
}

fn map_factors<'b>(term: &Term<'b>, rule: impl Fn(Var<'b>) -> Var<'b>) -> Term<'b> {
    Term {
        factors: term.factors.iter().map(|factor| rule(*factor)).collect(),
        support: term.support,
    }
}

/// The value with axes of size 1 put in front up to this rank.
fn align<'b>(value: &Factored<'b>, rank: usize) -> Factored<'b> {
    let missing = rank - value.shape.len();
    if missing == 0 {
        return value.clone();
    }
    let ones = vec![1; missing];
    let lengthen = |factor: Var<'b>| {
        let own = factor.shape();
        factor.reshape(&[&own[..LEAD], &ones, &own[LEAD..]].concat())
    };
    Factored {
        shape: [&ones, &value.shape[..]].concat(),
        terms: value
            .terms
            .iter()
            .map(|term| Term {
                support: term.support.map(|axis| axis + missing),
                ..map_factors(term, lengthen)
            })
            .collect(),
    }
}

/// The last two axes exchanged, if asked for.
fn exchanged<'b>(value: &Factored<'b>, exchange: bool) -> Factored<'b> {
    if !exchange {
        return value.clone();
    }
    let rank = value.shape.len();
    let mut permutation: Vec<usize> = (0..rank).collect();
    permutation.swap(rank - 1, rank - 2);
    Factored {
        shape: permutation.iter().map(|&axis| value.shape[axis]).collect(),
        terms: value
            .terms
            .iter()
            .map(|term| permuted(term, &permutation))
            .collect(),
    }
}

fn permuted<'b>(term: &Term<'b>, permutation: &[usize]) -> Term<'b> {
    let order: Vec<usize> = (0..LEAD)
        .chain(permutation.iter().map(|axis| axis + LEAD))
        .collect();
    Term {
        factors: term
            .factors
            .iter()
            .map(|factor| factor.permute(&order))
            .collect(),
        support: term
            .support
            .and_then(|axis| permutation.iter().position(|&source| source == axis)),
    }
}

/// The term with another factor, multiplied into an existing one where that one does not grow.
fn times<'b>(mut term: Term<'b>, factor: Var<'b>) -> Term<'b> {
    let shape = factor.shape();
    let covers = |a: &[usize], b: &[usize]| a.iter().zip(b).all(|(a, b)| b == a || *b == 1);
    for own in &mut term.factors {
        let existing = own.shape();
        if covers(&existing, &shape) || covers(&shape, &existing) {
            *own = *own * factor;
            return term;
        }
    }
    term.factors.push(factor);
    term
}

/// The factors under another shape of the same elements: axes that are split or merged must be there entirely or not at
/// all.
fn reshaped<'b>(term: &Term<'b>, old: &[usize], new: &[usize]) -> Option<Term<'b>> {
    let parts = matching_parts(old, new);
    let factors: Option<Vec<Var<'b>>> = term
        .factors
        .iter()
        .map(|factor| {
            let own = factor.shape();
            let mut target = own[..LEAD].to_vec();
            for (from, to) in &parts {
                let sizes = &own[LEAD..][from.clone()];
                if sizes == &old[from.clone()] {
                    target.extend(&new[to.clone()]);
                } else if sizes.iter().all(|&size| size == 1) {
                    target.extend(std::iter::repeat_n(1, to.len()));
                } else {
                    return None;
                }
            }
            Some(factor.reshape(&target))
        })
        .collect();
    let support = match term.support {
        None => None,
        Some(axis) => {
            let (from, to) = parts.iter().find(|(from, _)| from.contains(&axis))?;
            let image = to.clone().find(|&i| new[i] == old[axis])?;
            let alone = |shape: &[usize], range: &std::ops::Range<usize>| {
                range.clone().filter(|&i| shape[i] > 1).count() == 1
            };
            if !alone(old, from) || !alone(new, to) {
                return None;
            }
            Some(image)
        }
    };
    Some(Term {
        factors: factors?,
        support,
    })
}

/// Ranges of axes of two shapes of the same elements that hold the same number of elements each, as short as possible.
fn matching_parts(
    old: &[usize],
    new: &[usize],
) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut parts = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let (first_i, first_j) = (i, j);
        let (mut p, mut q) = (1, 1);
        let mut take_old = |i: &mut usize| {
            let size = old.get(*i).copied();
            *i += usize::from(size.is_some());
            p *= size.unwrap_or(1);
            p
        };
        let mut take_new = |j: &mut usize| {
            let size = new.get(*j).copied();
            *j += usize::from(size.is_some());
            q *= size.unwrap_or(1);
            q
        };
        let (mut p, mut q) = (take_old(&mut i), take_new(&mut j));
        while p != q {
            if p < q {
                p = take_old(&mut i);
            } else {
                q = take_new(&mut j);
            }
        }
        parts.push((first_i..i, first_j..j));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_reshapes() {
        assert_eq!(
            matching_parts(&[4, 6, 1], &[1, 4, 2, 3]),
            [(0..1, 0..2), (1..2, 2..4), (2..3, 4..4)]
        );
        assert_eq!(
            matching_parts(&[2, 3, 5], &[6, 5]),
            [(0..2, 0..1), (2..3, 1..2)]
        );
    }
}
