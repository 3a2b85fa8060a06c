//! How the atoms of standard residues are bonded, by name: the union over a residue's protonation and terminal variants.

use crate::element::Element;
use crate::forcefield::{ForceField, TemplateAtom};
use crate::sequence::MIRRORED;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a residue's name.
pub(super) struct Residue {
    /// Pairs of names that are bonded where both are present.
    pub(super) bonds: BTreeSet<(String, String)>,
    /// Heavy atoms that every variant has.
    pub(super) required: BTreeSet<String>,
    /// Names of all atoms, with their elements.
    pub(super) names: BTreeMap<String, Element>,
}

/// PDB residue names that stand for several protonation states.
const VARIANTS: [(&str, &[&str]); 5] = [
    ("HIS", &["HID", "HIE", "HIP"]),
    ("CYS", &["CYS", "CYX", "CYM"]),
    ("ASP", &["ASP", "ASH"]),
    ("GLU", &["GLU", "GLH"]),
    ("LYS", &["LYS", "LYN"]),
];

/// The residue of that name; `None` if it is not an amino acid or a cap.
pub(super) fn residue(force_field: &ForceField, name: &str) -> Option<Residue> {
    let name = MIRRORED
        .iter()
        .find(|(mirrored, _)| *mirrored == name)
        .map_or(name, |(_, base)| base);
    let variants = VARIANTS
        .iter()
        .find(|(base, _)| *base == name)
        .map_or(vec![name], |(_, variants)| variants.to_vec());
    let mut found = Residue {
        bonds: BTreeSet::new(),
        required: BTreeSet::new(),
        names: BTreeMap::new(),
    };
    for template in &force_field.templates {
        let is_variant = |variant: &&str| {
            ["", "N", "C"]
                .iter()
                .any(|end| template.name == format!("{end}{variant}"))
        };
        if !variants.iter().any(is_variant) {
            continue;
        }
        let element = |atom: &TemplateAtom| force_field.types[atom.atom_type].element;
        let heavy: BTreeSet<String> = template
            .atoms
            .iter()
            .filter(|atom| element(atom) != Element::H)
            .map(|atom| atom.name.clone())
            .collect();
        found.required = if found.names.is_empty() {
            heavy
        } else {
            found.required.intersection(&heavy).cloned().collect()
        };
        found.names.extend(
            template
                .atoms
                .iter()
                .map(|atom| (atom.name.clone(), element(atom))),
        );
        let name = |index: usize| template.atoms[index].name.clone();
        found
            .bonds
            .extend(template.bonds.iter().map(|&[i, j]| (name(i), name(j))));
    }
    (!found.names.is_empty()).then_some(found)
}

/// The name that the tables use for an atom that PDB files also call otherwise.
pub(crate) fn usual_name<'a>(residue: &str, atom: &'a str) -> &'a str {
    match (residue, atom) {
        ("NME", "C") => "CH3",
        ("ACE", "CA") => "CH3",
        ("ILE", "CD") => "CD1",
        ("ACE" | "NME", "H1") => "HH31",
        ("ACE" | "NME", "H2") => "HH32",
        ("ACE" | "NME", "H3") => "HH33",
        (_, "OT1" | "OC1") => "O",
        (_, "OT2" | "OC2") => "OXT",
        _ => atom,
    }
}
