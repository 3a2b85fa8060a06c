//! Many tangents of one linear program at once, kept as sums of products of small arrays for as long as they stay that.
//!
//! The tangents of a Jacobian are the basis vectors e_(τ,c): entry τ of one axis (the tokens), element c of what lies
//! behind it. All T·C of them together have the shape `[T, C, value's shape…]`, but through layers that treat tokens
//! alike tangent (τ, c) is nonzero at token τ only, and where attention first mixes tokens the result is a sum of outer
//! products. A [`Factored`] value holds such a bundle as Σ (product of factors); a factor has the bundle's rank and size
//! 1 along every axis on which it does not depend. A [`Term`] may vanish except at entry τ of one axis, its *support*, and
//! except in a range of other axes, its *windows*: where heads of an attention merge, each is a term of its own.
//! [`Tangents::apply`] is the rule of each operation; where a rule has no answer in this form, the caller writes the bundle
//! out (`write`) and continues with ordinary arrays.
//!
//! The same rules, run on the transposed operations with the basis vectors as cotangents, follow a Jacobian's rows
//! backwards from the output.

mod movement;
mod rules;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use crate::ir::Op;
use crate::shape::{broadcasts_to, element_count};
use crate::var::Var;

/// Axes in front of a value's own: T and C.
pub(crate) const LEAD: usize = 2;

/// A product of factors, each `[T or 1, C or 1, extent or 1 for every axis of the value]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Term<'b> {
    pub(crate) factors: Vec<Var<'b>>,
    /// The axis of the value along which tangent (τ, c) is nonzero at τ only. Factors have size 1 there.
    pub(crate) support: Option<usize>,
    /// Outside of them the term vanishes. At most one for an axis, in the order of axes, none on the support.
    pub(crate) windows: Vec<Window>,
}

/// A range of an axis. Factors have its length there, or 1 if they are the same in all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) axis: usize,
    pub(crate) start: usize,
    pub(crate) length: usize,
}

impl<'b> Term<'b> {
    fn window(&self, axis: usize) -> Option<Window> {
        self.windows.iter().copied().find(|w| w.axis == axis)
    }

    /// The same term without a window along an axis of this size: factors padded with zeros.
    fn whole_along(mut self, axis: usize, size: usize) -> Self {
        let Some(window) = self.window(axis) else {
            return self;
        };
        self.windows.retain(|w| w.axis != axis);
        let after = size - window.start - window.length;
        let pad = |factor: Var<'b>| factor.pad(LEAD + axis, window.start, after);
        let varies = |factor: &Var<'b>| factor.shape()[LEAD + axis] > 1;
        if self.factors.iter().any(varies) {
            for factor in self.factors.iter_mut().filter(|factor| varies(factor)) {
                *factor = pad(*factor);
            }
        } else if let Some(first) = self.factors.first() {
            let mut shape = vec![1; first.rank()];
            shape[LEAD + axis] = window.length;
            let inside = first.builder().constant(1.0, &shape);
            self.factors.push(pad(inside));
        }
        self
    }

    /// The same term of a value of this shape without windows.
    pub(crate) fn whole(self, shape: &[usize]) -> Self {
        let axes: Vec<usize> = self.windows.iter().map(|w| w.axis).collect();
        axes.into_iter()
            .fold(self, |term, axis| term.whole_along(axis, shape[axis]))
    }
}

/// A bundle of tangents of one value: a sum of terms, zero without any.
#[derive(Clone, Debug)]
pub(crate) struct Factored<'b> {
    pub(crate) shape: Vec<usize>,
    pub(crate) terms: Vec<Term<'b>>,
}

/// A value of a linear program under all tangents.
#[derive(Clone, Debug)]
pub(crate) enum Form<'b> {
    /// The same for all tangents: a coefficient.
    Known(Var<'b>),
    /// Linear in the tangent.
    Linear(Factored<'b>),
}

/// Sizes of a bundle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tangents {
    /// T, entries of the axis on which basis vectors are local.
    pub(crate) tokens: usize,
    /// C, basis vectors for each entry.
    pub(crate) channels: usize,
}

impl Tangents {
    /// Basis vectors of values `[B, T, …]`, the same for every sample.
    pub(crate) fn basis<'b>(
        self,
        builder: &'b crate::builder::Builder,
        shape: &[usize],
    ) -> Factored<'b> {
        let mut factor = vec![1, self.channels, 1];
        if shape.len() > 1 {
            factor.push(1);
            factor.extend_from_slice(&shape[2..]);
        }
        Factored {
            shape: shape.to_vec(),
            terms: vec![Term {
                factors: vec![builder.tensor(identity(self.channels), &factor)],
                support: (self.tokens > 1).then_some(1),
                windows: Vec::new(),
            }],
        }
    }

    /// Whether a factor is smaller than the whole bundle of a value, so that keeping it apart saves work.
    pub(crate) fn is_small(self, factor: Var<'_>, shape: &[usize]) -> bool {
        element_count(&factor.shape()) < self.tokens * self.channels * element_count(shape)
    }
}

/// Elements of the unit matrix.
fn identity(n: usize) -> Vec<f64> {
    (0..n * n)
        .map(|i| f64::from(u8::from(i % (n + 1) == 0)))
        .collect()
}

/// Whether an operation only renames or repeats elements, so that repeating it costs nothing.
pub(crate) fn is_view(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape(_)
            | Op::Permute { .. }
            | Op::Slice { .. }
            | Op::BroadcastTo(_)
            | Op::StopGradient(_)
    )
}

/// The same sum with fewer terms. Those that differ in one factor of one shape join, f a + f b = f (a + b): a function
/// written as a product of two, as x σ(x) is, would double the terms of its operand otherwise. So do those whose factors
/// make up no more than one array of the same shape.
pub(crate) fn merged(terms: Vec<Term<'_>>) -> Vec<Term<'_>> {
    let mut result: Vec<Term> = Vec::new();
    for term in terms {
        let found = result
            .iter()
            .enumerate()
            .find_map(|(i, other)| Some((i, joined(other, &term)?)));
        match found {
            Some((i, both)) => result[i] = both,
            None => result.push(term),
        }
    }
    result
}

fn joined<'b>(a: &Term<'b>, b: &Term<'b>) -> Option<Term<'b>> {
    if a.support != b.support || a.windows != b.windows {
        return None;
    }
    let mut both = a.clone();
    let differing: Vec<usize> = (0..a.factors.len().min(b.factors.len()))
        .filter(|&i| a.factors[i].id != b.factors[i].id)
        .collect();
    if let (&[at], true) = (&differing[..], a.factors.len() == b.factors.len())
        && a.factors[at].shape() == b.factors[at].shape()
    {
        both.factors[at] = a.factors[at] + b.factors[at];
        return Some(both);
    }
    let whole = |term: &Term<'b>| {
        let product = |factors: &[Var<'b>]| factors.iter().copied().reduce(|a, b| a * b);
        let sizes = |factor: &Var<'b>| element_count(&factor.shape());
        let largest = term
            .factors
            .iter()
            .max_by_key(|factor| sizes(factor))?
            .shape();
        let covers = |factor: &Var<'b>| broadcasts_to(&factor.shape(), &largest);
        (term.factors.iter().all(covers)).then(|| product(&term.factors))?
    };
    let (a, b) = (whole(a)?, whole(b)?);
    both.factors = vec![a + b];
    (a.shape() == b.shape()).then_some(both)
}
