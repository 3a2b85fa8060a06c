//! Reading force fields in OpenMM's XML format: the part of it that proteins in AMBER force fields use.
//!
//! Elements understood: `AtomTypes`, `Residues`, `HarmonicBondForce`, `HarmonicAngleForce`, `PeriodicTorsionForce`, `NonbondedForce`,
//! `GBSAOBCForce`. An empty class or type is a wildcard. Types of elements other than [`Element`]'s (metal ions) are left out together
//! with the residues that hold them, and a term that names an unknown class or type is left out, as OpenMM does.

use super::{
    AngleDefinition, AtomType, BondDefinition, Component, ForceField, ImproperOrdering, Selector,
    Template, TemplateAtom, TorsionDefinition,
};
use crate::element::Element;
use crate::system::BornModel;
use roxmltree::{Document, Node};
use std::collections::HashMap;
use std::str::FromStr;

/// Why force-field files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FfxmlError {
    /// Not XML.
    #[error("force-field file {file} (counted from 1) is not well-formed XML: {source}")]
    Xml {
        /// Which of the files.
        file: usize,
        /// What the parser says.
        source: roxmltree::Error,
    },
    /// An element is wrong.
    #[error("force-field file {file} (counted from 1), line {line}, element <{element}>: {what}")]
    Element {
        /// Which of the files.
        file: usize,
        /// Line in it.
        line: u32,
        /// Tag.
        element: String,
        /// What is wrong.
        what: String,
    },
    /// There is nothing for nonbonded interactions.
    #[error(
        "the force-field files hold no <NonbondedForce>, so no scale for pairs three bonds apart is known; add the file that has it"
    )]
    NoNonbonded,
    /// A type that a residue uses has no Lennard-Jones parameters.
    #[error(
        "atom type {atom_type:?}, which residue {residue} uses, has no entry in any <NonbondedForce>; add one with sigma and epsilon"
    )]
    NoNonbondedType {
        /// The type.
        atom_type: String,
        /// A residue that uses it.
        residue: String,
    },
}

/// Reads one force field from the texts of its files, in order of precedence.
///
/// # Errors
/// Names file, line and element of what is malformed or not supported (program code in `<Script>`, `<Patches>`).
pub fn parse(texts: &[&str]) -> Result<ForceField, FfxmlError> {
    let documents: Vec<Document<'_>> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            Document::parse(text).map_err(|source| FfxmlError::Xml {
                file: index + 1,
                source,
            })
        })
        .collect::<Result<_, _>>()?;
    let mut reader = Reader::default();
    // Later sections refer to types of any file, so each kind of section is read from all files first.
    for pass in [Reader::types, Reader::residues, Reader::forces] {
        for (index, document) in documents.iter().enumerate() {
            pass(&mut reader, document.root_element()).map_err(|(node, what)| {
                FfxmlError::Element {
                    file: index + 1,
                    line: document.text_pos_at(node.range().start).row,
                    element: node.tag_name().name().into(),
                    what,
                }
            })?;
        }
    }
    reader.finish()
}

type Failure<'a, 'i> = (Node<'a, 'i>, String);
type Step<'a, 'i, T = ()> = Result<T, Failure<'a, 'i>>;

fn attribute<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Step<'a, 'i, &'a str> {
    node.attribute(name)
        .ok_or_else(|| (node, format!("attribute {name:?} is missing")))
}

fn number<'a, 'i, T: FromStr>(node: Node<'a, 'i>, name: &str) -> Step<'a, 'i, T> {
    let text = attribute(node, name)?;
    text.parse().map_err(|_| {
        (
            node,
            format!("attribute {name}={text:?} is not a number of the expected kind"),
        )
    })
}

fn optional_number<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Step<'a, 'i, Option<f64>> {
    node.attribute(name).map(|_| number(node, name)).transpose()
}

fn children<'a, 'i>(node: Node<'a, 'i>, tag: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.has_tag_name(tag))
}

#[derive(Default)]
struct Reader {
    classes: Vec<String>,
    class_index: HashMap<String, usize>,
    type_index: HashMap<String, usize>,
    types: Vec<AtomType>,
    templates: Vec<Template>,
    bonds: Vec<BondDefinition>,
    angles: Vec<AngleDefinition>,
    propers: Vec<TorsionDefinition>,
    impropers: Vec<TorsionDefinition>,
    scales: Option<[f64; 2]>,
    born: Option<BornModel>,
}

impl Reader {
    fn types<'a, 'i>(&mut self, root: Node<'a, 'i>) -> Step<'a, 'i> {
        for section in children(root, "AtomTypes") {
            for node in children(section, "Type") {
                let Some(element) = Element::from_symbol(attribute(node, "element")?) else {
                    continue;
                };
                let (name, class) = (attribute(node, "name")?, attribute(node, "class")?);
                let class = *self.class_index.entry(class.into()).or_insert_with(|| {
                    self.classes.push(class.into());
                    self.classes.len() - 1
                });
                if self
                    .type_index
                    .insert(name.into(), self.types.len())
                    .is_some()
                {
                    return Err((node, format!("type {name:?} is defined twice")));
                }
                // Not a number until a NonbondedForce fills it in; types that no residue uses may stay without.
                let (mass, sigma, epsilon) = (number(node, "mass")?, f64::NAN, f64::NAN);
                self.types.push(AtomType {
                    name: name.into(),
                    class,
                    element,
                    mass,
                    charge: None,
                    sigma,
                    epsilon,
                    born: None,
                });
            }
        }
        Ok(())
    }

    fn residues<'a, 'i>(&mut self, root: Node<'a, 'i>) -> Step<'a, 'i> {
        if let Some(node) = root
            .children()
            .find(|child| child.has_tag_name("Script") || child.has_tag_name("Patches"))
        {
            return Err((node, "is not supported; implicit solvents given as program code are chosen by name instead".into()));
        }
        for section in children(root, "Residues") {
            for node in children(section, "Residue") {
                if let Some(template) = self.residue(node)? {
                    self.templates.push(template);
                }
            }
        }
        Ok(())
    }

    /// `None` if the residue holds an element that is left out.
    fn residue<'a, 'i>(&self, node: Node<'a, 'i>) -> Step<'a, 'i, Option<Template>> {
        let mut template = Template {
            name: attribute(node, "name")?.into(),
            atoms: Vec::new(),
            bonds: Vec::new(),
        };
        for atom in children(node, "Atom") {
            let Some(&atom_type) = self.type_index.get(attribute(atom, "type")?) else {
                return Ok(None);
            };
            let (name, charge) = (
                attribute(atom, "name")?.into(),
                optional_number(atom, "charge")?,
            );
            template.atoms.push(TemplateAtom {
                name,
                atom_type,
                charge,
                external_bonds: 0,
            });
        }
        for bond in children(node, "Bond") {
            let first = atom_index(bond, &template, "from", "atomName1")?;
            template
                .bonds
                .push([first, atom_index(bond, &template, "to", "atomName2")?]);
        }
        for bond in children(node, "ExternalBond") {
            let atom = atom_index(bond, &template, "from", "atomName")?;
            template.atoms[atom].external_bonds += 1;
        }
        Ok(Some(template))
    }

    fn forces<'a, 'i>(&mut self, root: Node<'a, 'i>) -> Step<'a, 'i> {
        for section in root.children().filter(Node::is_element) {
            match section.tag_name().name() {
                "HarmonicBondForce" => {
                    for node in children(section, "Bond") {
                        if let Some(atoms) = self.selectors(node)? {
                            let (length, force_constant) =
                                (number(node, "length")?, number(node, "k")?);
                            self.bonds.push(BondDefinition {
                                atoms,
                                length,
                                force_constant,
                            });
                        }
                    }
                }
                "HarmonicAngleForce" => {
                    for node in children(section, "Angle") {
                        if let Some(atoms) = self.selectors(node)? {
                            let (angle, force_constant) =
                                (number(node, "angle")?, number(node, "k")?);
                            self.angles.push(AngleDefinition {
                                atoms,
                                angle,
                                force_constant,
                            });
                        }
                    }
                }
                "PeriodicTorsionForce" => self.torsions(section)?,
                "NonbondedForce" => self.nonbonded(section)?,
                "GBSAOBCForce" => self.generalized_born(section)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn torsions<'a, 'i>(&mut self, section: Node<'a, 'i>) -> Step<'a, 'i> {
        let ordering = match section.attribute("ordering") {
            None | Some("default") => ImproperOrdering::Default,
            Some("amber") => ImproperOrdering::Amber,
            Some(other) => {
                return Err((
                    section,
                    format!(
                        "ordering {other:?} is not supported; known are \"default\" and \"amber\""
                    ),
                ));
            }
        };
        for (tag, proper) in [("Proper", true), ("Improper", false)] {
            for node in children(section, tag) {
                let Some(atoms) = self.selectors(node)? else {
                    continue;
                };
                let mut components = Vec::new();
                while node.has_attribute(format!("phase{}", components.len() + 1).as_str()) {
                    let name = |what: &str| format!("{what}{}", components.len() + 1);
                    components.push(Component {
                        periodicity: number(node, &name("periodicity"))?,
                        phase: number(node, &name("phase"))?,
                        force_constant: number(node, &name("k"))?,
                    });
                }
                let torsion = TorsionDefinition {
                    atoms,
                    components,
                    ordering,
                };
                if proper {
                    self.propers.push(torsion)
                } else {
                    self.impropers.push(torsion)
                }
            }
        }
        Ok(())
    }

    fn nonbonded<'a, 'i>(&mut self, section: Node<'a, 'i>) -> Step<'a, 'i> {
        let scales = [
            number(section, "coulomb14scale")?,
            number(section, "lj14scale")?,
        ];
        if self.scales.is_some_and(|earlier| earlier != scales) {
            return Err((
                section,
                "its scales for pairs three bonds apart differ from those of an earlier file"
                    .into(),
            ));
        }
        self.scales = Some(scales);
        for node in children(section, "Atom") {
            let (charge, sigma, epsilon) = (
                optional_number(node, "charge")?,
                number(node, "sigma")?,
                number(node, "epsilon")?,
            );
            for index in self.types_of(node)? {
                let atom_type = &mut self.types[index];
                (atom_type.charge, atom_type.sigma, atom_type.epsilon) = (charge, sigma, epsilon);
            }
        }
        Ok(())
    }

    fn generalized_born<'a, 'i>(&mut self, section: Node<'a, 'i>) -> Step<'a, 'i> {
        self.born = Some(BornModel::Amber99Obc);
        for node in children(section, "Atom") {
            let (charge, born): (f64, _) = (
                number(node, "charge")?,
                [number(node, "radius")?, number(node, "scale")?],
            );
            for index in self.types_of(node)? {
                // One charge serves both forces here; a file in which they differ would silently be evaluated wrongly.
                if self.types[index]
                    .charge
                    .is_some_and(|other| other != charge)
                {
                    return Err((
                        node,
                        format!(
                            "its charge differs from the nonbonded charge of type {:?}",
                            self.types[index].name
                        ),
                    ));
                }
                self.types[index].born = Some(born);
            }
        }
        Ok(())
    }

    /// The types that an `Atom` of a force speaks of; none if they are left out.
    fn types_of<'a, 'i>(&self, node: Node<'a, 'i>) -> Step<'a, 'i, Vec<usize>> {
        if let Some(class) = node.attribute("class") {
            let Some(&class) = self.class_index.get(class) else {
                return Ok(Vec::new());
            };
            return Ok((0..self.types.len())
                .filter(|&index| self.types[index].class == class)
                .collect());
        }
        Ok(self
            .type_index
            .get(attribute(node, "type")?)
            .copied()
            .into_iter()
            .collect())
    }

    /// What `class1`/`type1` … ask for; `None` if one of them is unknown.
    fn selectors<'a, 'i, const N: usize>(
        &self,
        node: Node<'a, 'i>,
    ) -> Step<'a, 'i, Option<[Selector; N]>> {
        let mut found = [Selector::Any; N];
        for (place, selector) in found.iter_mut().enumerate() {
            let (class, atom_type) = (format!("class{}", place + 1), format!("type{}", place + 1));
            let known = match (
                node.attribute(class.as_str()),
                node.attribute(atom_type.as_str()),
            ) {
                (Some(""), _) | (None, Some("")) => Some(Selector::Any),
                (Some(name), _) => self
                    .class_index
                    .get(name)
                    .map(|&index| Selector::Class(index)),
                (None, Some(name)) => self
                    .type_index
                    .get(name)
                    .map(|&index| Selector::Type(index)),
                (None, None) => {
                    return Err((node, format!("neither {class} nor {atom_type} is given")));
                }
            };
            let Some(known) = known else { return Ok(None) };
            *selector = known;
        }
        Ok(Some(found))
    }

    fn finish(self) -> Result<ForceField, FfxmlError> {
        let [coulomb14_scale, lennard_jones14_scale] =
            self.scales.ok_or(FfxmlError::NoNonbonded)?;
        for template in &self.templates {
            if let Some(atom) = template
                .atoms
                .iter()
                .find(|atom| self.types[atom.atom_type].sigma.is_nan())
            {
                let (atom_type, residue) = (
                    self.types[atom.atom_type].name.clone(),
                    template.name.clone(),
                );
                return Err(FfxmlError::NoNonbondedType { atom_type, residue });
            }
        }
        Ok(ForceField {
            classes: self.classes,
            types: self.types,
            templates: self.templates,
            bonds: self.bonds,
            angles: self.angles,
            propers: self.propers,
            impropers: self.impropers,
            coulomb14_scale,
            lennard_jones14_scale,
            implicit_solvent: self.born,
            cutoff: None,
        })
    }
}

fn atom_index<'a, 'i>(
    node: Node<'a, 'i>,
    template: &Template,
    by_index: &str,
    by_name: &str,
) -> Step<'a, 'i, usize> {
    let index = match node.attribute(by_name) {
        Some(name) => template.atoms.iter().position(|atom| atom.name == name),
        None => Some(number(node, by_index)?),
    };
    index
        .filter(|&index| index < template.atoms.len())
        .ok_or_else(|| {
            (
                node,
                format!("residue {:?} has no such atom", template.name),
            )
        })
}
