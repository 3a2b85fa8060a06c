//! Improper torsions: which definition applies to a centre and three neighbours, and in which order the atoms enter the torsion.
//!
//! The energy depends on that order, so OpenMM's is followed to the letter, including its cache: the first centre with a given signature of types
//! fixes the permutation for all later ones.

use super::{Component, ForceField, ImproperOrdering, TorsionDefinition};
use crate::topology::Topology;
use std::collections::HashMap;

/// What the ordering looks at, per atom of the molecule.
pub(super) struct Context<'a> {
    pub(super) force_field: &'a ForceField,
    pub(super) topology: &'a Topology,
    /// Type of every atom.
    pub(super) types: &'a [usize],
    /// Index of every atom in its residue's template.
    pub(super) template_index: &'a [usize],
}

/// The torsion's atoms and its components.
type Match<'a> = ([usize; 4], &'a [Component]);

/// All impropers of the molecule: every atom with three or more neighbours, every three of them.
pub(super) fn impropers<'a>(context: &Context<'a>, neighbours: &[Vec<usize>]) -> Vec<Match<'a>> {
    let mut cache: HashMap<[usize; 4], Option<Match<'a>>> = HashMap::new();
    let mut found = Vec::new();
    for (centre, around) in neighbours.iter().enumerate() {
        for first in 0..around.len() {
            for second in first + 1..around.len() {
                for third in second + 1..around.len() {
                    let atoms = [centre, around[first], around[second], around[third]];
                    // The cache keeps places within `atoms`, not atoms.
                    let cached = *cache
                        .entry(atoms.map(|atom| context.types[atom]))
                        .or_insert_with(|| {
                            let (ordered, components) = best_match(context, atoms)?;
                            let place = |atom| {
                                atoms
                                    .iter()
                                    .position(|&other| other == atom)
                                    .expect("a permutation of the same atoms")
                            };
                            Some((ordered.map(place), components))
                        });
                    if let Some((places, components)) = cached {
                        found.push((places.map(|place| atoms[place]), components));
                    }
                }
            }
        }
    }
    found
}

/// The last specific definition that fits, or else the first with a wildcard.
fn best_match<'a>(context: &Context<'a>, [centre, a, b, c]: [usize; 4]) -> Option<Match<'a>> {
    let force_field = context.force_field;
    let fits = |selector, atom: usize| force_field.accepts(selector, context.types[atom]);
    let mut found: Option<Match<'a>> = None;
    for definition in &force_field.impropers {
        if (found.is_some() && definition.has_wildcard()) || !fits(definition.atoms[0], centre) {
            continue;
        }
        let permutations = [
            [a, b, c],
            [a, c, b],
            [b, a, c],
            [b, c, a],
            [c, a, b],
            [c, b, a],
        ];
        let accepted = permutations.into_iter().find(|permutation| {
            permutation
                .iter()
                .zip(&definition.atoms[1..])
                .all(|(&atom, &selector)| fits(selector, atom))
        });
        if let Some(permutation) = accepted {
            let [second, third, fourth] = match definition.ordering {
                ImproperOrdering::Default => order_by_element(context, permutation),
                ImproperOrdering::Amber => order_by_template(context, definition, permutation),
            };
            found = Some(([second, third, centre, fourth], &definition.components));
        }
    }
    found
}

fn order_by_element(context: &Context<'_>, [a, b, c]: [usize; 3]) -> [usize; 3] {
    let element = |atom: usize| context.topology.atoms[atom].element;
    use crate::element::Element;
    let swap = if element(a) == element(b) {
        a > b
    } else {
        element(a) != Element::C
            && (element(b) == Element::C || element(a).mass() < element(b).mass())
    };
    if swap { [b, a, c] } else { [a, b, c] }
}

fn order_by_template(
    context: &Context<'_>,
    definition: &TorsionDefinition,
    permutation: [usize; 3],
) -> [usize; 3] {
    let key = |atom: usize| {
        (
            context.topology.atoms[atom].residue_index,
            context.template_index[atom],
        )
    };
    let wildcard = definition.has_wildcard();
    // Compared are the kinds of the permutation before any swap.
    let same = |i: usize, j: usize| {
        let (x, y) = (permutation[i], permutation[j]);
        if wildcard {
            context.topology.atoms[x].element == context.topology.atoms[y].element
        } else {
            context.types[x] == context.types[y]
        }
    };
    let mut order = permutation;
    let mut swap_if = |condition: bool, i: usize, j: usize| {
        if condition && key(order[i]) > key(order[j]) {
            order.swap(i, j);
        }
    };
    swap_if(same(0, 2), 0, 2);
    swap_if(same(1, 2), 1, 2);
    swap_if(wildcard || same(0, 1), 0, 1);
    order
}
