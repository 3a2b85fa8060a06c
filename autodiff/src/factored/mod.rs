//! Many tangents of one linear program at once, kept as sums of products of small arrays for as long as they stay that.
//!
//! The tangents of a Jacobian are the basis vectors e_(τ,c): entry τ of one axis (the tokens), element c of what lies
//! behind it. All T·C of them together have the shape `[T, C, value's shape…]`, but through layers that treat tokens
//! alike tangent (τ, c) is nonzero at token τ only, and where attention first mixes tokens the result is a sum of outer
//! products. A [`Factored`] value holds such a bundle as Σ (product of factors); a factor has the bundle's rank and size
//! 1 along every axis on which it does not depend, and a [`Term`] may vanish except at entry τ of one axis, its
//! *support*. [`Tangents::apply`] is the rule of each operation; where a rule has no answer in this form, the caller
//! writes the bundle out ([`Tangents::dense`]) and continues with ordinary arrays.
//!
//! The same rules, run on the transposed operations with the basis vectors as cotangents, follow a Jacobian's rows
//! backwards from the output.

mod rules;

use crate::ir::Op;
use crate::shape::element_count;
use crate::var::Var;

/// Axes in front of a value's own: T and C.
pub(crate) const LEAD: usize = 2;

/// A product of factors, each `[T or 1, C or 1, size or 1 for every axis of the value]`.
#[derive(Clone, Debug)]
pub(crate) struct Term<'b> {
    pub(crate) factors: Vec<Var<'b>>,
    /// The axis of the value along which tangent (τ, c) is nonzero at τ only. Factors have size 1 there.
    pub(crate) support: Option<usize>,
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
        let c = self.channels;
        let mut identity = vec![0.0; c * c];
        (0..c).for_each(|i| identity[i * (c + 1)] = 1.0);
        let mut factor = vec![1, c, 1];
        if shape.len() > 1 {
            factor.push(1);
            factor.extend_from_slice(&shape[2..]);
        }
        Factored {
            shape: shape.to_vec(),
            terms: vec![Term {
                factors: vec![builder.tensor(identity, &factor)],
                support: (self.tokens > 1).then_some(1),
            }],
        }
    }

    /// Whether a factor is smaller than the whole bundle of a value, so that keeping it apart saves work.
    pub(crate) fn is_small(self, factor: Var<'_>, shape: &[usize]) -> bool {
        element_count(&factor.shape()) < self.tokens * self.channels * element_count(shape)
    }

    /// The bundle written out, `[n, C, shape…]`. Factors are looked up through `import`, which may cut their first axis to
    /// n of the T tokens; `place` `[n, T]` holds 1 where a tangent's token is.
    pub(crate) fn dense<'b, 'c>(
        self,
        value: &Factored<'b>,
        n: usize,
        builder: &'c crate::builder::Builder,
        place: Option<Var<'c>>,
        mut import: impl FnMut(Var<'b>) -> Var<'c>,
    ) -> Var<'c> {
        let full = [&[n, self.channels][..], &value.shape].concat();
        let mut sum: Option<Var<'c>> = None;
        for term in &value.terms {
            let mut product: Option<Var<'c>> = None;
            let mut times = |factor: Var<'c>| {
                product = Some(product.map_or(factor, |product| product * factor));
            };
            if let (Some(axis), Some(place)) = (term.support, place) {
                let mut shape = vec![1; full.len()];
                (shape[0], shape[LEAD + axis]) = (n, self.tokens);
                times(place.reshape(&shape));
            }
            term.factors
                .iter()
                .for_each(|factor| times(import(*factor)));
            let product = product.unwrap_or_else(|| builder.constant(1.0, &full));
            sum = Some(sum.map_or(product, |sum| sum + product));
        }
        sum.unwrap_or_else(|| builder.constant(0.0, &full))
            .broadcast_to(&full)
    }

    /// The product of a term's factors, `[T, C, shape…]` with size 1 at its support.
    pub(crate) fn product<'b>(self, term: &Term<'b>, shape: &[usize]) -> Option<Var<'b>> {
        let mut full = [&[self.tokens, self.channels][..], shape].concat();
        if let Some(axis) = term.support {
            full[LEAD + axis] = 1;
        }
        let product = term.factors.iter().copied().reduce(|a, b| a * b)?;
        Some(product.broadcast_to(&full))
    }
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

/// The same sum with terms that differ in one factor of one shape joined: f a + f b = f (a + b). A function written as a
/// product of two, as x σ(x) is, would double the terms of its operand otherwise.
fn merged(terms: Vec<Term<'_>>) -> Vec<Term<'_>> {
    let mut result: Vec<Term> = Vec::new();
    for term in terms {
        let differing = |other: &Term| {
            if other.support != term.support || other.factors.len() != term.factors.len() {
                return None;
            }
            let pairs = || other.factors.iter().zip(&term.factors);
            let at = pairs().position(|(a, b)| a.id != b.id)?;
            let alone = pairs().filter(|(a, b)| a.id != b.id).count() == 1;
            let alike = other.factors[at].shape() == term.factors[at].shape();
            (alone && alike).then_some(at)
        };
        let found = result
            .iter()
            .enumerate()
            .find_map(|(i, other)| Some((i, differing(other)?)));
        match found {
            Some((i, at)) => result[i].factors[at] = result[i].factors[at] + term.factors[at],
            None => result.push(term),
        }
    }
    result
}
