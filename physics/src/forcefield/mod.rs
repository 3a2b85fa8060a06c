//! Force fields: atom types, residue templates and term definitions, and how they become the parameters of a molecule.
//!
//! The program carries two protein force fields in [`table`]'s format, imported from OpenMM's files by `cargo xtask
//! import-forcefield`; [`ffxml`] reads such files at run time too. [`ForceField::system`] follows OpenMM's rules, so that energies agree with
//! it: residues are recognised by their bond graph ([`matching`]), not by name.

mod assign;
pub mod ffxml;
mod improper;
pub mod matching;
mod reduce;
pub mod table;

use crate::element::Element;
use crate::system::{BornModel, System};
use crate::topology::Topology;

/// An atom type.
#[derive(Clone, Debug, PartialEq)]
pub struct AtomType {
    /// Its unique name.
    pub name: String,
    /// Index of its class in [`ForceField::classes`].
    pub class: usize,
    /// Chemical element.
    pub element: Element,
    /// Da
    pub mass: f64,
    /// e, unless templates give the charge of every atom
    pub charge: Option<f64>,
    /// Lennard-Jones σ, nm
    pub sigma: f64,
    /// Lennard-Jones ε, kJ/mol
    pub epsilon: f64,
    /// Generalised Born radius (nm) and scale, if the force field gives them by type.
    pub born: Option<[f64; 2]>,
}

/// One atom of a residue template.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateAtom {
    /// Name within the residue.
    pub name: String,
    /// Index of its type in [`ForceField::types`].
    pub atom_type: usize,
    /// e, if the template gives it
    pub charge: Option<f64>,
    /// Number of bonds to other residues.
    pub external_bonds: usize,
}

/// A residue as a graph of typed atoms.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Name, with the protonation and terminal variants of AMBER (`HID`, `NALA`).
    pub name: String,
    /// The atoms.
    pub atoms: Vec<TemplateAtom>,
    /// Bonds inside the residue, in the order of the file.
    pub bonds: Vec<[usize; 2]>,
}

/// What a term definition asks of one atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Any type.
    Any,
    /// A class, by index.
    Class(usize),
    /// A type, by index.
    Type(usize),
}

/// Parameters for the bonds between two kinds of atoms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BondDefinition {
    /// The kinds.
    pub atoms: [Selector; 2],
    /// nm
    pub length: f64,
    /// kJ mol⁻¹ nm⁻²
    pub force_constant: f64,
}

/// Parameters for the angles between three kinds of atoms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AngleDefinition {
    /// The kinds, the vertex in the middle.
    pub atoms: [Selector; 3],
    /// rad
    pub angle: f64,
    /// kJ mol⁻¹ rad⁻²
    pub force_constant: f64,
}

/// One Fourier component of a torsion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Component {
    /// n
    pub periodicity: u32,
    /// rad
    pub phase: f64,
    /// kJ/mol
    pub force_constant: f64,
}

/// How the atoms of an improper torsion are ordered, which its energy depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImproperOrdering {
    /// By element and index.
    Default,
    /// By residue and position in the template, as AMBER's own programs do.
    Amber,
}

/// Parameters for the torsions of four kinds of atoms.
#[derive(Clone, Debug, PartialEq)]
pub struct TorsionDefinition {
    /// The kinds; of an improper the first is the centre.
    pub atoms: [Selector; 4],
    /// The components.
    pub components: Vec<Component>,
    /// Matters for impropers only.
    pub ordering: ImproperOrdering,
}

impl TorsionDefinition {
    /// Whether it accepts any type somewhere.
    pub fn has_wildcard(&self) -> bool {
        self.atoms.contains(&Selector::Any)
    }
}

/// A force field with its implicit solvent.
#[derive(Clone, Debug, PartialEq)]
pub struct ForceField {
    /// Names of the classes of atom types.
    pub classes: Vec<String>,
    /// Atom types.
    pub types: Vec<AtomType>,
    /// Residue templates.
    pub templates: Vec<Template>,
    /// In order of precedence.
    pub bonds: Vec<BondDefinition>,
    /// In order of precedence.
    pub angles: Vec<AngleDefinition>,
    /// In order of precedence.
    pub propers: Vec<TorsionDefinition>,
    /// In the order of the file.
    pub impropers: Vec<TorsionDefinition>,
    /// Scale of the Coulomb energy three bonds apart.
    pub coulomb14_scale: f64,
    /// Scale of ε three bonds apart.
    pub lennard_jones14_scale: f64,
    /// Implicit solvent of the systems it makes.
    pub implicit_solvent: Option<BornModel>,
    /// Cutoff of the systems it makes, nm.
    pub cutoff: Option<f64>,
}

/// Why a molecule cannot be given parameters.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum AssignError {
    /// A residue is not in the force field.
    #[error(
        "residue {residue} has no template in the force field: its {atoms} atoms ({formula}, {external} bonds to other residues) \
         match none; check that it is complete, with all hydrogens, and that its bonds to its neighbours are there{hint}"
    )]
    NoTemplate {
        /// The residue, as `ALA 2`.
        residue: String,
        /// How many atoms it has.
        atoms: usize,
        /// Its composition.
        formula: String,
        /// Bonds that leave it.
        external: usize,
        /// What the template of its name would have, if there is one.
        hint: String,
    },
    /// A residue matches templates that disagree.
    #[error(
        "residue {residue} matches several templates with different parameters ({templates}); the force field is ambiguous"
    )]
    Ambiguous {
        /// The residue, as `ALA 2`.
        residue: String,
        /// Names of the templates.
        templates: String,
    },
    /// Bond parameters are missing.
    #[error(
        "the force field has no parameters for the bond between {0}; the molecule needs another force field"
    )]
    NoBond(String),
    /// Angle parameters are missing.
    #[error(
        "the force field has no parameters for the angle between {0}; the molecule needs another force field"
    )]
    NoAngle(String),
    /// An atom has no charge.
    #[error(
        "the force field gives no charge for {0}; add a charge to its type or to its residue template"
    )]
    NoCharge(String),
    /// An atom has no generalised Born parameters.
    #[error(
        "the force field gives no generalised Born radius for {0}; use implicit solvent OBC1 or OBC2, or no implicit solvent"
    )]
    NoBornRadius(String),
}

impl ForceField {
    /// AMBER ff99SB-ILDN with the OBC2 solvent parametrised by atom type (OpenMM's `amber99sbildn.xml` and `amber99_obc.xml`), no cutoff.
    pub fn amber99sbildn_obc2() -> ForceField {
        table::amber99sbildn()
    }

    /// AMBER ff14SB with an implicit solvent of the data-driven kind (OpenMM's `amber14/protein.ff14SB.xml` and
    /// `implicit/obc1.xml` or `implicit/obc2.xml`) and an optional non-periodic cutoff, nm.
    pub fn ff14sb(implicit_solvent: Option<BornModel>, cutoff: Option<f64>) -> ForceField {
        ForceField {
            implicit_solvent,
            cutoff,
            ..table::ff14sb()
        }
    }

    /// All parameters of a molecule.
    ///
    /// # Errors
    /// Names the residue without a template, or the atoms without parameters.
    pub fn system(&self, topology: &Topology) -> Result<System, AssignError> {
        assign::assign(self, topology)
    }

    /// Whether a selector accepts a type.
    pub fn accepts(&self, selector: Selector, atom_type: usize) -> bool {
        match selector {
            Selector::Any => true,
            Selector::Class(class) => self.types[atom_type].class == class,
            Selector::Type(wanted) => wanted == atom_type,
        }
    }
}
