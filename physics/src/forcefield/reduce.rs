//! Leaving out of a force field what proteins do not need, so that the embedded tables are small.

use super::{ForceField, Selector, Template};

impl ForceField {
    /// The force field with amino acids and their caps only: other templates go, then types and classes that are no longer used, then terms
    /// that can no longer apply. What stays keeps its order, so every protein gets the same parameters as before.
    pub fn proteins_only(&self) -> ForceField {
        let is_protein = |template: &&Template| {
            let has = |name| template.atoms.iter().any(|atom| atom.name == name);
            has("CA") || ["ACE", "NME", "NHE"].contains(&template.name.as_str())
        };
        let mut templates: Vec<Template> =
            self.templates.iter().filter(is_protein).cloned().collect();
        let type_places = places(self.types.len(), |index| {
            templates
                .iter()
                .any(|template| template.atoms.iter().any(|atom| atom.atom_type == index))
        });
        let class_places = places(self.classes.len(), |class| {
            self.types
                .iter()
                .zip(&type_places)
                .any(|(atom_type, place)| place.is_some() && atom_type.class == class)
        });
        for atom in templates
            .iter_mut()
            .flat_map(|template| &mut template.atoms)
        {
            atom.atom_type = type_places[atom.atom_type].expect("types of kept templates are kept");
        }
        let mut types: Vec<_> = self
            .types
            .iter()
            .zip(&type_places)
            .filter(|(_, place)| place.is_some())
            .map(|(atom_type, _)| atom_type.clone())
            .collect();
        for atom_type in &mut types {
            atom_type.class =
                class_places[atom_type.class].expect("classes of kept types are kept");
        }
        let translate = |selector: Selector| match selector {
            Selector::Any => Some(Selector::Any),
            Selector::Class(index) => class_places[index].map(Selector::Class),
            Selector::Type(index) => type_places[index].map(Selector::Type),
        };
        let classes = self
            .classes
            .iter()
            .zip(&class_places)
            .filter(|(_, place)| place.is_some())
            .map(|(class, _)| class.clone());
        let torsions = |list: &[super::TorsionDefinition]| {
            let one = |torsion: &super::TorsionDefinition| {
                Some(super::TorsionDefinition {
                    atoms: each(torsion.atoms, translate)?,
                    ..torsion.clone()
                })
            };
            list.iter().filter_map(one).collect()
        };
        ForceField {
            classes: classes.collect(),
            types,
            templates,
            bonds: self
                .bonds
                .iter()
                .filter_map(|bond| {
                    Some(super::BondDefinition {
                        atoms: each(bond.atoms, translate)?,
                        ..*bond
                    })
                })
                .collect(),
            angles: self
                .angles
                .iter()
                .filter_map(|angle| {
                    Some(super::AngleDefinition {
                        atoms: each(angle.atoms, translate)?,
                        ..*angle
                    })
                })
                .collect(),
            propers: torsions(&self.propers),
            impropers: torsions(&self.impropers),
            ..*self
        }
    }
}

/// The new index of everything that is kept.
fn places(n: usize, keep: impl Fn(usize) -> bool) -> Vec<Option<usize>> {
    let mut next = 0;
    (0..n)
        .map(|index| {
            keep(index).then(|| {
                next += 1;
                next - 1
            })
        })
        .collect()
}

fn each<const N: usize>(
    selectors: [Selector; N],
    translate: impl Fn(Selector) -> Option<Selector>,
) -> Option<[Selector; N]> {
    let mut found = selectors;
    for selector in &mut found {
        *selector = translate(*selector)?;
    }
    Some(found)
}
