//! The compact text format in which the program carries its force fields: one record per line, deflated.
//!
//! `cargo xtask import-forcefield` writes the files in `physics/data`; `ATTRIBUTION.md` there says where the numbers come from.

use super::{
    AngleDefinition, AtomType, BondDefinition, Component, ForceField, ImproperOrdering, Selector,
    Template, TemplateAtom, TorsionDefinition,
};
use crate::element::Element;
use crate::system::BornModel;
use std::fmt::Write;
use std::str::{FromStr, SplitAsciiWhitespace};
use std::sync::LazyLock;

const HEADER: &str = "boltzmap-force-field 1";
/// More than any table inflates to; a damaged file must not exhaust memory.
const LARGEST_TABLE: usize = 16 << 20;

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TableError {
    /// The compressed stream is damaged.
    #[error(
        "the force-field table does not decompress; it is damaged or not a table, make it again with `cargo xtask import-forcefield`"
    )]
    Damaged,
    /// A line makes no sense.
    #[error(
        "line {line} of the force-field table: {what}; make the table again with `cargo xtask import-forcefield`"
    )]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

fn embedded(bytes: &[u8]) -> ForceField {
    decompress(bytes).expect("the embedded table is tested")
}

pub(super) fn amber99sbildn() -> ForceField {
    static TABLE: LazyLock<ForceField> =
        LazyLock::new(|| embedded(include_bytes!("../../data/amber99sbildn.bin")));
    TABLE.clone()
}

pub(super) fn ff14sb() -> ForceField {
    static TABLE: LazyLock<ForceField> =
        LazyLock::new(|| embedded(include_bytes!("../../data/ff14sb.bin")));
    TABLE.clone()
}

/// The force field as a compressed table.
pub fn compress(force_field: &ForceField) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec(write(force_field).as_bytes(), 10)
}

/// Reads what [`compress`] wrote.
///
/// # Errors
/// If the bytes do not decompress or the table is malformed.
pub fn decompress(bytes: &[u8]) -> Result<ForceField, TableError> {
    let text = miniz_oxide::inflate::decompress_to_vec_with_limit(bytes, LARGEST_TABLE)
        .map_err(|_| TableError::Damaged)?;
    read(std::str::from_utf8(&text).map_err(|_| TableError::Damaged)?)
}

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".into(), |value| value.to_string())
}

fn selectors(list: &[Selector]) -> String {
    let one = |selector: &Selector| match selector {
        Selector::Any => "?".to_string(),
        Selector::Class(index) => format!("c{index}"),
        Selector::Type(index) => format!("t{index}"),
    };
    list.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The force field as text. Numbers are written with as many digits as reading them back exactly takes.
pub fn write(force_field: &ForceField) -> String {
    let mut text = format!(
        "{HEADER}\nscales {} {}\n",
        force_field.coulomb14_scale, force_field.lennard_jones14_scale
    );
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        writeln!(text, "{arguments}").expect("writing to a string succeeds")
    };
    if let Some(model) = force_field.implicit_solvent {
        line(format_args!("born {}", born_name(model)));
    }
    if let Some(cutoff) = force_field.cutoff {
        line(format_args!("cutoff {cutoff}"));
    }
    for class in &force_field.classes {
        line(format_args!("class {class}"));
    }
    for t in &force_field.types {
        let (charge, born) = (
            optional(t.charge),
            t.born.map(|[radius, scale]| format!("{radius} {scale}")),
        );
        let born = optional(born);
        line(format_args!(
            "type {} {} {} {} {charge} {} {} {born}",
            t.name, t.class, t.element, t.mass, t.sigma, t.epsilon
        ));
    }
    for template in &force_field.templates {
        line(format_args!("template {}", template.name));
        for atom in &template.atoms {
            line(format_args!(
                "atom {} {} {} {}",
                atom.name,
                atom.atom_type,
                atom.external_bonds,
                optional(atom.charge)
            ));
        }
        for [i, j] in &template.bonds {
            line(format_args!("link {i} {j}"));
        }
    }
    for bond in &force_field.bonds {
        line(format_args!(
            "bond {} {} {}",
            selectors(&bond.atoms),
            bond.length,
            bond.force_constant
        ));
    }
    for angle in &force_field.angles {
        line(format_args!(
            "angle {} {} {}",
            selectors(&angle.atoms),
            angle.angle,
            angle.force_constant
        ));
    }
    let torsions = force_field
        .propers
        .iter()
        .map(|torsion| ("proper", torsion));
    for (kind, torsion) in torsions.chain(
        force_field
            .impropers
            .iter()
            .map(|torsion| ("improper", torsion)),
    ) {
        let ordering = match torsion.ordering {
            ImproperOrdering::Default => "default",
            ImproperOrdering::Amber => "amber",
        };
        let component =
            |c: &Component| format!(" {} {} {}", c.periodicity, c.phase, c.force_constant);
        let components: String = torsion.components.iter().map(component).collect();
        line(format_args!(
            "{kind} {ordering} {}{components}",
            selectors(&torsion.atoms)
        ));
    }
    text
}

fn born_name(model: BornModel) -> &'static str {
    match model {
        BornModel::Amber99Obc => "amber99obc",
        BornModel::Obc1 => "obc1",
        BornModel::Obc2 => "obc2",
    }
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// Names the line that is malformed.
pub fn read(text: &str) -> Result<ForceField, TableError> {
    let mut force_field = ForceField {
        classes: Vec::new(),
        types: Vec::new(),
        templates: Vec::new(),
        bonds: Vec::new(),
        angles: Vec::new(),
        propers: Vec::new(),
        impropers: Vec::new(),
        coulomb14_scale: 1.0,
        lennard_jones14_scale: 1.0,
        implicit_solvent: None,
        cutoff: None,
    };
    for (index, line) in text.lines().enumerate() {
        let failure = |what: String| TableError::Line {
            line: index + 1,
            what,
        };
        if index == 0 {
            if line != HEADER {
                return Err(failure(format!("it must read {HEADER:?}")));
            }
            continue;
        }
        let mut fields = Fields(line.split_ascii_whitespace());
        record(&mut force_field, &mut fields).map_err(failure)?;
    }
    check_indices(&force_field).map_err(|what| TableError::Line {
        line: text.lines().count(),
        what,
    })?;
    Ok(force_field)
}

struct Fields<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Fields<'a> {
    fn word(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "a field is missing".into())
    }

    fn value<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse()
            .map_err(|_| format!("{word:?} is not a number of the expected kind"))
    }

    /// A number, or `-` for none.
    fn optional(&mut self) -> Result<Option<f64>, String> {
        match self.word()? {
            "-" => Ok(None),
            word => word
                .parse()
                .map(Some)
                .map_err(|_| format!("{word:?} is not a number")),
        }
    }

    fn selectors<const N: usize>(&mut self) -> Result<[Selector; N], String> {
        let mut list = [Selector::Any; N];
        for selector in &mut list {
            let word = self.word()?;
            let index = |digits: &str| {
                digits
                    .parse()
                    .map_err(|_| format!("{word:?} is not a selector"))
            };
            *selector = match word.split_at_checked(1) {
                Some(("?", "")) => Selector::Any,
                Some(("c", digits)) => Selector::Class(index(digits)?),
                Some(("t", digits)) => Selector::Type(index(digits)?),
                _ => return Err(format!("{word:?} is not a selector")),
            };
        }
        Ok(list)
    }
}

fn record(force_field: &mut ForceField, fields: &mut Fields<'_>) -> Result<(), String> {
    let kind = fields.word()?;
    match kind {
        "scales" => {
            (
                force_field.coulomb14_scale,
                force_field.lennard_jones14_scale,
            ) = (fields.value()?, fields.value()?)
        }
        "born" => {
            let name = fields.word()?;
            let models = [BornModel::Amber99Obc, BornModel::Obc1, BornModel::Obc2];
            let model = models.into_iter().find(|model| born_name(*model) == name);
            force_field.implicit_solvent =
                Some(model.ok_or_else(|| format!("{name:?} is not an implicit solvent"))?);
        }
        "cutoff" => force_field.cutoff = Some(fields.value()?),
        "class" => force_field.classes.push(fields.word()?.into()),
        "type" => {
            let name = fields.word()?.to_string();
            let class = fields.value()?;
            let symbol = fields.word()?;
            let element = Element::from_symbol(symbol)
                .ok_or_else(|| format!("{symbol:?} is not an element"))?;
            let (mass, charge, sigma, epsilon) = (
                fields.value()?,
                fields.optional()?,
                fields.value()?,
                fields.value()?,
            );
            let born = match fields.optional()? {
                Some(radius) => Some([radius, fields.value()?]),
                None => None,
            };
            force_field.types.push(AtomType {
                name,
                class,
                element,
                mass,
                charge,
                sigma,
                epsilon,
                born,
            });
        }
        "template" => force_field.templates.push(Template {
            name: fields.word()?.into(),
            atoms: Vec::new(),
            bonds: Vec::new(),
        }),
        "atom" | "link" => {
            let template = force_field
                .templates
                .last_mut()
                .ok_or("an atom or link stands before any template")?;
            if kind == "atom" {
                template.atoms.push(TemplateAtom {
                    name: fields.word()?.into(),
                    atom_type: fields.value()?,
                    external_bonds: fields.value()?,
                    charge: fields.optional()?,
                });
            } else {
                template.bonds.push([fields.value()?, fields.value()?]);
            }
        }
        "bond" => force_field.bonds.push(BondDefinition {
            atoms: fields.selectors()?,
            length: fields.value()?,
            force_constant: fields.value()?,
        }),
        "angle" => force_field.angles.push(AngleDefinition {
            atoms: fields.selectors()?,
            angle: fields.value()?,
            force_constant: fields.value()?,
        }),
        "proper" | "improper" => {
            let ordering = match fields.word()? {
                "default" => ImproperOrdering::Default,
                "amber" => ImproperOrdering::Amber,
                word => return Err(format!("{word:?} is not an ordering of impropers")),
            };
            let atoms = fields.selectors()?;
            let mut components = Vec::new();
            while let Some(word) = fields.0.next() {
                let periodicity = word
                    .parse()
                    .map_err(|_| format!("{word:?} is not a periodicity"))?;
                components.push(Component {
                    periodicity,
                    phase: fields.value()?,
                    force_constant: fields.value()?,
                });
            }
            let torsion = TorsionDefinition {
                atoms,
                components,
                ordering,
            };
            if kind == "proper" {
                force_field.propers.push(torsion)
            } else {
                force_field.impropers.push(torsion)
            }
        }
        _ => return Err(format!("{kind:?} is not a kind of record")),
    }
    match fields.0.next() {
        Some(word) => Err(format!("{word:?} is one field too many")),
        None => Ok(()),
    }
}

fn check_indices(force_field: &ForceField) -> Result<(), String> {
    if force_field
        .types
        .iter()
        .any(|t| t.class >= force_field.classes.len())
    {
        return Err("an atom type names a class that does not exist".into());
    }
    for template in &force_field.templates {
        let n = template.atoms.len();
        if template
            .atoms
            .iter()
            .any(|atom| atom.atom_type >= force_field.types.len())
        {
            return Err(format!(
                "template {} names an atom type that does not exist",
                template.name
            ));
        }
        if template.bonds.iter().any(|[i, j]| *i >= n || *j >= n) {
            return Err(format!(
                "template {} names an atom that does not exist",
                template.name
            ));
        }
    }
    Ok(())
}
