//! From topology and force field to a [`System`].

use super::improper::{Context, impropers};
use super::matching::match_residues;
use super::{AssignError, ForceField, TorsionDefinition};
use crate::element::Element;
use crate::system::{Angle, Bond, BornModel, GeneralizedBorn, Pair14, System, Torsion};
use crate::terms::nonbonded::{combine_epsilon, combine_sigma};
use crate::topology::Topology;
use std::collections::BTreeSet;

pub(super) fn assign(force_field: &ForceField, topology: &Topology) -> Result<System, AssignError> {
    let n = topology.n_atoms();
    let neighbours = topology.neighbours();
    let (mut types, mut template_index, mut charges) = (vec![0; n], vec![0; n], vec![0.0; n]);
    for (assignment, atoms) in match_residues(force_field, topology)?
        .iter()
        .zip(topology.residues())
    {
        let template = &force_field.templates[assignment.template];
        for (&index, atom) in assignment.atoms.iter().zip(atoms) {
            let definition = &template.atoms[index];
            types[atom] = definition.atom_type;
            template_index[atom] = index;
            let charge = force_field.types[definition.atom_type]
                .charge
                .or(definition.charge);
            charges[atom] =
                charge.ok_or_else(|| AssignError::NoCharge(describe(topology, &[atom])))?;
        }
    }
    let of_types = |value: fn(&super::AtomType) -> f64| {
        types
            .iter()
            .map(|&index| value(&force_field.types[index]))
            .collect::<Vec<f64>>()
    };
    let (sigma, epsilon) = (of_types(|t| t.sigma), of_types(|t| t.epsilon));
    let (excluded, apart14) = close_pairs(&neighbours);
    let pairs14 = apart14
        .into_iter()
        .map(|[i, j]| Pair14 {
            atoms: [i, j],
            charge_product: force_field.coulomb14_scale * charges[i] * charges[j],
            sigma: combine_sigma(sigma[i], sigma[j]),
            epsilon: force_field.lennard_jones14_scale * combine_epsilon(epsilon[i], epsilon[j]),
        })
        .collect();
    Ok(System {
        masses: of_types(|t| t.mass),
        bonds: bonds(force_field, topology, &types)?,
        angles: angles(force_field, topology, &types, &neighbours)?,
        torsions: torsions(
            &Context {
                force_field,
                topology,
                types: &types,
                template_index: &template_index,
            },
            &neighbours,
        ),
        excluded,
        pairs14,
        generalized_born: generalized_born(force_field, topology, &types, &neighbours)?,
        cutoff: force_field.cutoff,
        charges,
        sigma,
        epsilon,
    })
}

fn describe(topology: &Topology, atoms: &[usize]) -> String {
    let label = |&atom: &usize| {
        format!(
            "{} of {}",
            topology.atoms[atom].name,
            topology.residue_label(topology.atoms[atom].residue_index)
        )
    };
    atoms.iter().map(label).collect::<Vec<_>>().join(", ")
}

/// The first definition that fits, in either direction, counts; one with force constant zero stands for no bond term.
fn bonds(
    force_field: &ForceField,
    topology: &Topology,
    types: &[usize],
) -> Result<Vec<Bond>, AssignError> {
    let mut found = Vec::new();
    for &atoms in &topology.bonds {
        let fits = |[a, b]: [usize; 2], selectors: [super::Selector; 2]| {
            force_field.accepts(selectors[0], types[a])
                && force_field.accepts(selectors[1], types[b])
        };
        let [i, j] = atoms;
        let definition = force_field
            .bonds
            .iter()
            .find(|definition| fits([i, j], definition.atoms) || fits([j, i], definition.atoms))
            .ok_or_else(|| AssignError::NoBond(describe(topology, &atoms)))?;
        if definition.force_constant != 0.0 {
            found.push(Bond {
                atoms,
                length: definition.length,
                force_constant: definition.force_constant,
            });
        }
    }
    Ok(found)
}

/// Every angle once, as i < k around j, sorted; definitions count as for bonds.
fn angles(
    force_field: &ForceField,
    topology: &Topology,
    types: &[usize],
    neighbours: &[Vec<usize>],
) -> Result<Vec<Angle>, AssignError> {
    let mut all = BTreeSet::new();
    for (vertex, around) in neighbours.iter().enumerate() {
        for (place, &first) in around.iter().enumerate() {
            all.extend(
                around[place + 1..]
                    .iter()
                    .map(|&last| [first, vertex, last]),
            );
        }
    }
    let mut found = Vec::new();
    for atoms in all {
        let [i, j, k] = atoms.map(|atom| types[atom]);
        let definition = force_field
            .angles
            .iter()
            .find(|definition| {
                let [a, b, c] = definition.atoms;
                force_field.accepts(b, j)
                    && ((force_field.accepts(a, i) && force_field.accepts(c, k))
                        || (force_field.accepts(a, k) && force_field.accepts(c, i)))
            })
            .ok_or_else(|| AssignError::NoAngle(describe(topology, &atoms)))?;
        if definition.force_constant != 0.0 {
            found.push(Angle {
                atoms,
                angle: definition.angle,
                force_constant: definition.force_constant,
            });
        }
    }
    Ok(found)
}

/// Propers, sorted by atoms with the lower end first, then impropers in the order of their centres.
fn torsions(context: &Context<'_>, neighbours: &[Vec<usize>]) -> Vec<Torsion> {
    let mut propers = BTreeSet::new();
    for &[a, b] in &context.topology.bonds {
        for &first in neighbours[a].iter().filter(|&&atom| atom != b) {
            for &last in neighbours[b]
                .iter()
                .filter(|&&atom| atom != a && atom != first)
            {
                propers.insert(if first < last {
                    [first, a, b, last]
                } else {
                    [last, b, a, first]
                });
            }
        }
    }
    let mut found = Vec::new();
    let mut add = |atoms: [usize; 4], components: &[super::Component]| {
        found.extend(
            components
                .iter()
                .filter(|component| component.force_constant != 0.0)
                .map(|component| Torsion {
                    atoms,
                    periodicity: component.periodicity,
                    phase: component.phase,
                    force_constant: component.force_constant,
                }),
        );
    };
    for atoms in propers {
        if let Some(definition) = proper(context, atoms) {
            add(atoms, &definition.components);
        }
    }
    for (atoms, components) in impropers(context, neighbours) {
        add(atoms, components);
    }
    found
}

/// The first definition without wildcards that fits in either direction, or else the first that fits.
fn proper<'a>(context: &Context<'a>, atoms: [usize; 4]) -> Option<&'a TorsionDefinition> {
    let force_field = context.force_field;
    let types = atoms.map(|atom| context.types[atom]);
    let fits = |definition: &&TorsionDefinition| {
        let accepts =
            |place: usize, of: usize| force_field.accepts(definition.atoms[place], types[of]);
        (0..4).all(|place| accepts(place, place)) || (0..4).all(|place| accepts(place, 3 - place))
    };
    let specific = force_field
        .propers
        .iter()
        .filter(|definition| !definition.has_wildcard())
        .find(fits);
    specific.or_else(|| {
        force_field
            .propers
            .iter()
            .filter(|definition| definition.has_wildcard())
            .find(fits)
    })
}

/// Pairs at bond distance one or two, and pairs at distance three; the shortest path decides.
fn close_pairs(neighbours: &[Vec<usize>]) -> (Vec<[usize; 2]>, Vec<[usize; 2]>) {
    let (mut excluded, mut apart14) = (BTreeSet::new(), BTreeSet::new());
    for start in 0..neighbours.len() {
        let mut seen = BTreeSet::from([start]);
        let mut front = vec![start];
        for separation in 1..=3 {
            let reached = front
                .iter()
                .flat_map(|&atom| neighbours[atom].iter().copied());
            front = reached
                .collect::<BTreeSet<_>>()
                .into_iter()
                .filter(|&atom| seen.insert(atom))
                .collect();
            let pairs = if separation < 3 {
                &mut excluded
            } else {
                &mut apart14
            };
            pairs.extend(
                front
                    .iter()
                    .filter(|&&atom| atom > start)
                    .map(|&atom| [start, atom]),
            );
        }
    }
    (
        excluded.into_iter().collect(),
        apart14.into_iter().collect(),
    )
}

fn generalized_born(
    force_field: &ForceField,
    topology: &Topology,
    types: &[usize],
    neighbours: &[Vec<usize>],
) -> Result<Option<GeneralizedBorn>, AssignError> {
    let Some(model) = force_field.implicit_solvent else {
        return Ok(None);
    };
    let parameters = (0..types.len()).map(|atom| match model {
        BornModel::Amber99Obc => force_field.types[types[atom]]
            .born
            .ok_or_else(|| AssignError::NoBornRadius(describe(topology, &[atom]))),
        BornModel::Obc1 | BornModel::Obc2 => Ok(modified_bondi(topology, neighbours, atom)),
    });
    let parameters: Vec<[f64; 2]> = parameters.collect::<Result<_, _>>()?;
    Ok(Some(GeneralizedBorn {
        model,
        radius: parameters.iter().map(|&[radius, _]| radius).collect(),
        scale: parameters.iter().map(|&[_, scale]| scale).collect(),
    }))
}

/// Radius (nm) and scale of the "mbondi2" set: Bondi radii, hydrogen on nitrogen a little larger than other hydrogen.
fn modified_bondi(topology: &Topology, neighbours: &[Vec<usize>], atom: usize) -> [f64; 2] {
    let element = |atom: usize| topology.atoms[atom].element;
    let radius = match element(atom) {
        Element::H
            if neighbours[atom]
                .first()
                .is_some_and(|&other| element(other) == Element::N) =>
        {
            1.3
        }
        Element::H => 1.2,
        Element::C | Element::Cl => 1.7,
        Element::N => 1.55,
        Element::O | Element::F => 1.5,
        Element::Si => 2.1,
        Element::P => 1.85,
        Element::S => 1.8,
    };
    let scale = match element(atom) {
        Element::H => 0.85,
        Element::C => 0.72,
        Element::N => 0.79,
        Element::O => 0.85,
        Element::F => 0.88,
        Element::P => 0.86,
        Element::S => 0.96,
        Element::Si | Element::Cl => 0.8,
    };
    [radius / 10.0, scale]
}
