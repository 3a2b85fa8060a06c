//! Bundles written out as whole arrays.
//!
//! Terms that are outer products of what depends on the row and what depends on the column are gathered, so that a few
//! products of narrow matrices write them all: element (i, w) of a tangent is Σ_k A_ik V_kw, where a term that touches
//! one token contributes a column of A with a single one. Where V depends on the row but not on the tangent, the product
//! runs over tangents for each row.

use super::{Factored, LEAD, Tangents, Term, identity};
use crate::builder::Builder;
use crate::var::Var;

/// Outer products fewer than these are as well multiplied element by element.
const FEWEST_GATHERED: usize = 3;

/// A bundle ready to be written out for some or all of its tokens.
#[derive(Clone, Debug)]
pub(crate) struct Gathered<'b> {
    shape: Vec<usize>,
    /// A `[T, C, …, m, K]` and V `[T, C, …, K, n]`.
    by_tangent: Option<[Var<'b>; 2]>,
    /// A `[T, C, …, m, K]` and V `[1, 1, …, m, K, n]`.
    by_row: Option<[Var<'b>; 2]>,
    /// Multiplied element by element.
    rest: Vec<Term<'b>>,
}

impl Tangents {
    /// Sorts the terms by how they are written.
    pub(crate) fn gathered<'b>(self, value: &Factored<'b>) -> Gathered<'b> {
        let shape = value.shape.clone();
        let (mut local, mut by_tangent, mut by_row, mut rest) = (vec![], vec![], vec![], vec![]);
        let rank = shape.len();
        for term in &value.terms {
            let term = term.clone().whole(&shape);
            if self.tokens > 1
                && rank >= 2
                && term.support == Some(rank - 2)
                && !term.factors.is_empty()
            {
                local.push(term);
                continue;
            }
            match outer_product(&term, rank) {
                Some([a, v]) if v.shape()[LEAD + rank - 2] == 1 => by_tangent.push((term, a, v)),
                Some([a, v]) if v.shape()[..LEAD] == [1, 1] => by_row.push((term, a, v)),
                _ => rest.push(term),
            }
        }
        let mut gathered = Gathered {
            shape,
            by_tangent: None,
            by_row: None,
            rest,
        };
        if !by_tangent.is_empty() && by_tangent.len() + local.len() >= FEWEST_GATHERED {
            gathered.by_tangent =
                Some(self.gather_by_tangent(&gathered.shape, &local, &by_tangent));
        } else {
            gathered.rest.append(&mut local);
            gathered
                .rest
                .extend(by_tangent.into_iter().map(|(term, _, _)| term));
        }
        if by_row.len() >= FEWEST_GATHERED {
            gathered.by_row = Some(self.gather_by_row(&gathered.shape, &by_row));
        } else {
            gathered
                .rest
                .extend(by_row.into_iter().map(|(term, _, _)| term));
        }
        gathered
    }

    /// A and V of terms whose vectors are the same for all rows, and of those that touch one row.
    fn gather_by_tangent<'b>(
        self,
        shape: &[usize],
        local: &[Term<'b>],
        outer: &[(Term<'b>, Var<'b>, Var<'b>)],
    ) -> [Var<'b>; 2] {
        let rank = shape.len();
        let lead = [self.tokens, self.channels];
        let mut a_shape = [&lead[..], shape].concat();
        a_shape[LEAD + rank - 1] = 1;
        let mut v_shape = [&lead[..], shape].concat();
        v_shape[LEAD + rank - 2] = 1;
        let mut a: Vec<Var<'b>> = Vec::new();
        let mut v: Vec<Var<'b>> = Vec::new();
        let products = local.iter().filter_map(|term| {
            let product = term.factors.iter().copied().reduce(|a, b| a * b)?;
            Some(product.broadcast_to(&v_shape))
        });
        if let Some(sum) = products.reduce(|a, b| a + b) {
            let mut one_token = vec![1; LEAD + rank];
            (one_token[0], one_token[LEAD + rank - 2]) = (self.tokens, self.tokens);
            let own = sum.builder().tensor(identity(self.tokens), &one_token);
            a.push(own.broadcast_to(&a_shape));
            v.push(sum);
        }
        for (_, coefficient, vector) in outer {
            a.push(coefficient.broadcast_to(&a_shape));
            v.push(vector.broadcast_to(&v_shape));
        }
        [
            Var::concat(&a, LEAD + rank - 1),
            Var::concat(&v, LEAD + rank - 2),
        ]
    }

    /// A and V of terms whose vectors are the same for all tangents.
    fn gather_by_row<'b>(
        self,
        shape: &[usize],
        outer: &[(Term<'b>, Var<'b>, Var<'b>)],
    ) -> [Var<'b>; 2] {
        let rank = shape.len();
        let mut a_shape = [&[self.tokens, self.channels][..], shape].concat();
        a_shape[LEAD + rank - 1] = 1;
        let v_shape = [&[1, 1], &shape[..rank - 1], &[1, shape[rank - 1]]].concat();
        let a = outer.iter().map(|(_, a, _)| a.broadcast_to(&a_shape));
        let v = outer.iter().map(|(_, _, v)| {
            let own = v.shape();
            let (before, last) = own.split_at(LEAD + rank - 1);
            v.reshape(&[before, &[1], last].concat())
                .broadcast_to(&v_shape)
        });
        [
            Var::concat(&a.collect::<Vec<_>>(), LEAD + rank - 1),
            Var::concat(&v.collect::<Vec<_>>(), LEAD + rank - 1),
        ]
    }

    /// The bundle written out, `[n, C, shape…]`. Factors are looked up through `import`, which may cut their first axis to
    /// n of the T tokens; `place` `[n, T]` holds 1 where a tangent's token is.
    pub(crate) fn dense<'b, 'c>(
        self,
        value: &Gathered<'b>,
        n: usize,
        builder: &'c Builder,
        place: Option<Var<'c>>,
        mut import: impl FnMut(Var<'b>) -> Var<'c>,
    ) -> Var<'c> {
        let full = [&[n, self.channels][..], &value.shape].concat();
        let rank = value.shape.len();
        let mut sum: Option<Var<'c>> = None;
        let mut add = |part: Var<'c>| sum = Some(sum.map_or(part, |sum| sum + part));
        if let Some([a, v]) = value.by_row {
            // […, m, n, C, K] · […, m, 1, K, columns]
            let to_rows: Vec<usize> = (LEAD..LEAD + rank - 1)
                .chain([0, 1, LEAD + rank - 1])
                .collect();
            let back: Vec<usize> = [rank - 1, rank]
                .into_iter()
                .chain(0..rank - 1)
                .chain([rank + 1])
                .collect();
            let v = import(v);
            let mut shape = v.shape()[LEAD..].to_vec();
            shape.insert(rank - 1, 1);
            add(import(a)
                .permute(&to_rows)
                .matmul(v.reshape(&shape))
                .permute(&back));
        }
        if let Some([a, v]) = value.by_tangent {
            add(import(a).matmul(import(v)));
        }
        for term in &value.rest {
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
            add(product.unwrap_or_else(|| builder.constant(1.0, &full)));
        }
        sum.unwrap_or_else(|| builder.constant(0.0, &full))
            .broadcast_to(&full)
    }
}

/// The parts of a term that do not and do depend on the column, if rows and columns are told apart.
fn outer_product<'b>(term: &Term<'b>, rank: usize) -> Option<[Var<'b>; 2]> {
    if rank < 2 || term.support.is_some() {
        return None;
    }
    let (vectors, coefficients): (Vec<Var<'b>>, Vec<Var<'b>>) = term
        .factors
        .iter()
        .partition(|factor| factor.shape()[LEAD + rank - 1] > 1);
    let product = |factors: Vec<Var<'b>>| factors.into_iter().reduce(|a, b| a * b);
    Some([product(coefficients)?, product(vectors)?])
}
