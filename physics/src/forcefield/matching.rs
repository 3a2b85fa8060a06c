//! Recognising a residue by its bond graph: which template has the same elements, bonds inside and bonds outside.
//!
//! Equivalent atoms can be matched in several ways, and because impropers depend on the order of atoms in the template the
//! search visits atoms and candidates in exactly OpenMM's order.

use super::{AssignError, ForceField, Template};
use crate::element::Element;
use crate::pdb::bonds::usual_name;
use crate::topology::{Atom, Topology};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// A residue's template and, for every atom of the residue, the template atom that it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// Index into [`ForceField::templates`].
    pub template: usize,
    /// Template atom of every residue atom, in the topology's order.
    pub atoms: Vec<usize>,
}

/// A residue as a graph, local indices.
struct Graph {
    elements: Vec<Element>,
    neighbours: Vec<Vec<usize>>,
    external: Vec<usize>,
}

impl Graph {
    fn of_residue(topology: &Topology, neighbours: &[Vec<usize>], atoms: &[usize]) -> Graph {
        let local = |atom: &usize| atoms.iter().position(|other| other == atom);
        let inside: Vec<Vec<usize>> = atoms
            .iter()
            .map(|&atom| neighbours[atom].iter().filter_map(local).collect())
            .collect();
        Graph {
            elements: atoms
                .iter()
                .map(|&atom| topology.atoms[atom].element)
                .collect(),
            external: atoms
                .iter()
                .zip(&inside)
                .map(|(&atom, inside)| neighbours[atom].len() - inside.len())
                .collect(),
            neighbours: inside,
        }
    }

    fn of_template(force_field: &ForceField, template: &Template) -> Graph {
        let mut neighbours = vec![Vec::new(); template.atoms.len()];
        for &[i, j] in &template.bonds {
            neighbours[i].push(j);
            neighbours[j].push(i);
        }
        Graph {
            elements: template
                .atoms
                .iter()
                .map(|atom| force_field.types[atom.atom_type].element)
                .collect(),
            neighbours,
            external: template
                .atoms
                .iter()
                .map(|atom| atom.external_bonds)
                .collect(),
        }
    }

    /// What must agree for two atoms to be the same: element, bonds inside, bonds outside.
    fn signature(&self, atom: usize) -> (Element, usize, usize) {
        (
            self.elements[atom],
            self.neighbours[atom].len(),
            self.external[atom],
        )
    }

    fn signatures(&self) -> Vec<(Element, usize, usize)> {
        let mut all: Vec<_> = (0..self.elements.len())
            .map(|atom| self.signature(atom))
            .collect();
        all.sort_unstable();
        all
    }
}

/// Finds the template of every residue.
///
/// # Errors
/// If a residue has none, or several that disagree about types or charges.
pub fn match_residues(
    force_field: &ForceField,
    topology: &Topology,
) -> Result<Vec<Assignment>, AssignError> {
    let neighbours = topology.neighbours();
    let templates: Vec<Graph> = force_field
        .templates
        .iter()
        .map(|template| Graph::of_template(force_field, template))
        .collect();
    let match_one = |(index, atoms): (usize, &Vec<usize>)| {
        let residue = Graph::of_residue(topology, &neighbours, atoms);
        let hits: Vec<Assignment> = templates
            .iter()
            .enumerate()
            .filter_map(|(template, graph)| {
                Some(Assignment {
                    template,
                    atoms: isomorphism(&residue, graph)?,
                })
            })
            .collect();
        let Some(first) = hits.first() else {
            return Err(no_template(force_field, topology, index, &residue));
        };
        let parameters = |hit: &Assignment| {
            let template = &force_field.templates[hit.template];
            hit.atoms
                .iter()
                .map(|&atom| (template.atoms[atom].atom_type, template.atoms[atom].charge))
                .collect::<Vec<_>>()
        };
        if hits.iter().any(|hit| parameters(hit) != parameters(first)) {
            let names: Vec<&str> = hits
                .iter()
                .map(|hit| force_field.templates[hit.template].name.as_str())
                .collect();
            return Err(AssignError::Ambiguous {
                residue: topology.residue_label(index),
                templates: names.join(", "),
            });
        }
        Ok(first.clone())
    };
    topology
        .residues()
        .iter()
        .enumerate()
        .map(match_one)
        .collect()
}

fn formula(elements: &[Element]) -> String {
    let mut counts = BTreeMap::new();
    for element in elements {
        *counts.entry(*element).or_insert(0) += 1;
    }
    counts
        .iter()
        .map(|(element, count)| format!("{element}{count}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn no_template(
    force_field: &ForceField,
    topology: &Topology,
    index: usize,
    residue: &Graph,
) -> AssignError {
    let label = topology.residue_label(index);
    let hint = closest(force_field, topology, index, residue).unwrap_or_default();
    AssignError::NoTemplate {
        residue: label,
        atoms: residue.elements.len(),
        formula: formula(&residue.elements),
        external: residue.external.iter().sum(),
        hint,
    }
}

/// What distinguishes the residue from the template of its name with as many bonds to other residues. The name does not decide the
/// match, but it says best what the user meant.
fn closest(
    force_field: &ForceField,
    topology: &Topology,
    index: usize,
    residue: &Graph,
) -> Option<String> {
    let atoms: Vec<&Atom> = topology
        .atoms
        .iter()
        .filter(|atom| atom.residue_index == index)
        .collect();
    let base = &atoms.first()?.residue_name;
    // The first ammonium hydrogen is also called H.
    let same = |ours: &str, theirs: &str| {
        usual_name(base, ours) == theirs || (ours == "H" && theirs == "H1")
    };
    let compare = |template: &Template| {
        let names = template.atoms.iter().map(|atom| atom.name.as_str());
        let lacking: Vec<&str> = names
            .clone()
            .filter(|name| !atoms.iter().any(|atom| same(&atom.name, name)))
            .collect();
        let extra: Vec<&str> = atoms
            .iter()
            .map(|atom| atom.name.as_str())
            .filter(|ours| !names.clone().any(|name| same(ours, name)))
            .collect();
        let external: usize = template.atoms.iter().map(|atom| atom.external_bonds).sum();
        let off = external.abs_diff(residue.external.iter().sum());
        (
            off,
            template.name.clone(),
            lacking.join(", "),
            extra.join(", "),
        )
    };
    let (off, name, lacking, extra) = force_field
        .templates
        .iter()
        .filter(|template| {
            ["", "N", "C"]
                .iter()
                .any(|end| template.name == format!("{end}{base}"))
        })
        .map(compare)
        .min_by_key(|(off, _, lacking, extra)| (*off, lacking.len() + extra.len()))?;
    let mut what = Vec::new();
    if !lacking.is_empty() {
        what.push(format!("lacks {lacking}"));
    }
    if !extra.is_empty() {
        what.push(format!("has {extra} too many"));
    }
    if off > 0 {
        what.push(format!("is {off} bonds to other residues off"));
    }
    if what.is_empty() {
        what.push("has the same atoms, bonded otherwise".into());
    }
    Some(format!("; compared with {name} it {}", what.join(" and ")))
}

/// Whether a residue, given by its atoms, is one of the force field's.
pub(crate) fn is_known(
    force_field: &ForceField,
    topology: &Topology,
    neighbours: &[Vec<usize>],
    atoms: &[usize],
) -> bool {
    let residue = Graph::of_residue(topology, neighbours, atoms);
    let fits = |template: &Template| {
        isomorphism(&residue, &Graph::of_template(force_field, template)).is_some()
    };
    force_field.templates.iter().any(fits)
}

/// For every atom of the residue its atom in the template, or `None` if the graphs differ.
fn isomorphism(residue: &Graph, template: &Graph) -> Option<Vec<usize>> {
    let n = residue.elements.len();
    if n != template.elements.len() || residue.signatures() != template.signatures() {
        return None;
    }
    let candidates: Vec<Vec<usize>> = (0..n)
        .map(|atom| {
            (0..n)
                .filter(|&other| template.signature(other) == residue.signature(atom))
                .collect()
        })
        .collect();
    let order = search_order(residue, &candidates);
    let mut position = vec![0; n];
    for (rank, &atom) in order.iter().enumerate() {
        position[atom] = rank;
    }
    let mut search = Search {
        residue,
        template,
        candidates,
        order,
        position,
        image: vec![usize::MAX; n],
        used: vec![false; n],
    };
    search.extend(0).then_some(search.image)
}

/// Starts at the atom with fewest candidates (the first of equals), then always takes the reachable atom with the least (candidates, index).
fn search_order(residue: &Graph, candidates: &[Vec<usize>]) -> Vec<usize> {
    let mut waiting: BTreeSet<usize> = (0..candidates.len()).collect();
    let mut queued = BTreeSet::new();
    let mut heap = BinaryHeap::new();
    let mut order = Vec::with_capacity(candidates.len());
    loop {
        let next = match heap.pop() {
            Some(Reverse((_, atom))) => atom,
            None => match waiting
                .iter()
                .copied()
                .min_by_key(|&atom| candidates[atom].len())
            {
                Some(atom) => atom,
                None => return order,
            },
        };
        order.push(next);
        waiting.remove(&next);
        for &neighbour in &residue.neighbours[next] {
            if waiting.contains(&neighbour) && queued.insert(neighbour) {
                heap.push(Reverse((candidates[neighbour].len(), neighbour)));
            }
        }
    }
}

struct Search<'a> {
    residue: &'a Graph,
    template: &'a Graph,
    candidates: Vec<Vec<usize>>,
    order: Vec<usize>,
    /// Rank of every atom in `order`.
    position: Vec<usize>,
    image: Vec<usize>,
    used: Vec<bool>,
}

impl Search<'_> {
    /// Places the atoms from `rank` on, depth first.
    fn extend(&mut self, rank: usize) -> bool {
        let Some(&atom) = self.order.get(rank) else {
            return true;
        };
        let placed: Vec<usize> = self.residue.neighbours[atom]
            .iter()
            .copied()
            .filter(|&other| self.position[other] < rank)
            .collect();
        // Next to a placed neighbour, candidates come in the template's bond order; that choice fixes impropers.
        let options = match placed.first() {
            Some(&first) => self.template.neighbours[self.image[first]].clone(),
            None => self.candidates[atom].clone(),
        };
        for option in options {
            let fits = !self.used[option]
                && self.candidates[atom].contains(&option)
                && placed
                    .iter()
                    .all(|&other| self.template.neighbours[option].contains(&self.image[other]));
            if fits {
                self.image[atom] = option;
                self.used[option] = true;
                if self.extend(rank + 1) {
                    return true;
                }
                self.used[option] = false;
            }
        }
        false
    }
}
