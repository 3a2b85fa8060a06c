//! Internal coordinates of the amino acids and caps, from which the builder makes their geometry.
//!
//! Lengths and angles are the equilibrium values of AMBER's bonds and angles, rounded; in the rings of histidine, tryptophan and
//! proline, whose equilibrium angles do not close, they are those of minimised structures. Names and their sense around prochiral
//! centres follow the IUPAC recommendations (Markley et al., Pure Appl. Chem. 70, 117 (1998)): seen along the chain from the
//! backbone, the next heavy atom, `2` and `3` turn clockwise.

mod backbone;
mod chains;
mod rings;
mod side_chains;

pub(super) use backbone::{ACETYL, CARBOXYLATE, METHYLAMIDE, PRIMARY_AMIDE, backbone, front};
pub(super) use side_chains::side_chain;

use crate::element::Element;

/// How one atom is placed: `name`, `element`, the atoms (bonded, angle, dihedral) that it is placed against, and its distance (nm), angle and
/// dihedral (degrees) to them. A leading `-` means the residue before.
pub(in crate::builder) struct Place {
    pub(in crate::builder) name: &'static str,
    pub(in crate::builder) element: Element,
    pub(in crate::builder) against: [&'static str; 3],
    pub(in crate::builder) length: f64,
    pub(in crate::builder) angle: f64,
    pub(in crate::builder) dihedral: f64,
}

const fn place(
    name: &'static str,
    element: Element,
    against: [&'static str; 3],
    length: f64,
    angle: f64,
    dihedral: f64,
) -> Place {
    Place {
        name,
        element,
        against,
        length,
        angle,
        dihedral,
    }
}
