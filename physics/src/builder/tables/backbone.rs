//! Caps, nitrogens, and the backbone from Cα to the carbonyl.

use super::{Place, place};
use crate::element::Element;

/// Backbone dihedrals of the structures built, degrees: φ and ψ of an antiparallel β strand.
pub(in crate::builder) const EXTENDED: [f64; 2] = [-139.0, 135.0];

/// φ of proline, whose ring fixes it, degrees.
const PROLINE_PHI: f64 = -69.0;

pub(in crate::builder) const ACETYL: [Place; 6] = [
    place("CH3", Element::C, ["-C", "-CA", "-O"], 0.1522, 111.0, 180.0),
    place("H1", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, -120.0),
    place("H2", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, 0.0),
    place("H3", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, 120.0),
    place("C", Element::C, ["CH3", "-C", "-CA"], 0.1522, 111.0, 180.0),
    place("O", Element::O, ["C", "CH3", "-C"], 0.1229, 120.4, 0.0),
];

pub(in crate::builder) const METHYLAMIDE: [Place; 6] = [
    place("N", Element::N, ["-C", "-CA", "-O"], 0.1335, 116.6, 180.0),
    place("H", Element::H, ["N", "-C", "-CA"], 0.1010, 119.8, 0.0),
    place("C", Element::C, ["N", "-C", "-CA"], 0.1449, 121.9, 180.0),
    place("H1", Element::H, ["C", "N", "-C"], 0.1090, 109.5, 180.0),
    place("H2", Element::H, ["C", "N", "-C"], 0.1090, 109.5, -60.0),
    place("H3", Element::H, ["C", "N", "-C"], 0.1090, 109.5, 60.0),
];

pub(in crate::builder) const PRIMARY_AMIDE: [Place; 3] = [
    place("N", Element::N, ["-C", "-CA", "-O"], 0.1335, 116.6, 180.0),
    place("HN1", Element::H, ["N", "-C", "-CA"], 0.1010, 120.0, 0.0),
    place("HN2", Element::H, ["N", "-C", "-CA"], 0.1010, 120.0, 180.0),
];

const NITROGEN: Place = place("N", Element::N, ["-C", "-CA", "-O"], 0.1335, 116.6, 180.0);

/// N with its hydrogen inside a chain.
const AMIDE: [Place; 2] = [
    NITROGEN,
    place("H", Element::H, ["N", "-C", "-CA"], 0.1010, 119.8, 0.0),
];

/// NH₃⁺ at the start of a chain.
const AMMONIUM: [Place; 4] = [
    NITROGEN,
    place("H", Element::H, ["N", "CA", "C"], 0.1010, 109.5, 180.0),
    place("H2", Element::H, ["N", "CA", "C"], 0.1010, 109.5, -60.0),
    place("H3", Element::H, ["N", "CA", "C"], 0.1010, 109.5, 60.0),
];

/// Proline's N inside a chain.
const IMIDE: [Place; 1] = [NITROGEN];

/// Proline's NH₂⁺ at the start of a chain, the ring's Cδ being the third neighbour.
const IMMONIUM: [Place; 3] = [
    NITROGEN,
    place("H2", Element::H, ["N", "CA", "C"], 0.1010, 109.5, -129.0),
    place("H3", Element::H, ["N", "CA", "C"], 0.1010, 109.5, -9.0),
];

/// The first nitrogen group of a residue.
pub(in crate::builder) fn front(residue: &str, charged: bool) -> &'static [Place] {
    match (residue == "PRO", charged) {
        (false, false) => &AMIDE,
        (false, true) => &AMMONIUM,
        (true, false) => &IMIDE,
        (true, true) => &IMMONIUM,
    }
}

const ALPHA_CARBON: Place = place("CA", Element::C, ["N", "-C", "-CA"], 0.1449, 121.9, 180.0);
// The dihedral N–C–Cα–HA is what makes the residue L.
const ALPHA_HYDROGEN: Place = place("HA", Element::H, ["CA", "C", "N"], 0.1090, 109.5, -119.5);
const CARBON: Place = place(
    "C",
    Element::C,
    ["CA", "N", "-C"],
    0.1522,
    110.1,
    EXTENDED[0],
);
const OXYGEN: Place = place(
    "O",
    Element::O,
    ["C", "CA", "N"],
    0.1229,
    120.4,
    EXTENDED[1] - 180.0,
);

/// Cα, its hydrogen and the carbonyl.
const BACKBONE: [Place; 4] = [ALPHA_CARBON, ALPHA_HYDROGEN, CARBON, OXYGEN];

const GLYCINE_BACKBONE: [Place; 5] = [
    ALPHA_CARBON,
    place("HA2", Element::H, ["CA", "C", "N"], 0.1090, 109.5, -119.5),
    place("HA3", Element::H, ["CA", "C", "N"], 0.1090, 109.5, 120.5),
    CARBON,
    OXYGEN,
];

const PROLINE_BACKBONE: [Place; 4] = [
    ALPHA_CARBON,
    ALPHA_HYDROGEN,
    place(
        "C",
        Element::C,
        ["CA", "N", "-C"],
        0.1522,
        113.0,
        PROLINE_PHI,
    ),
    OXYGEN,
];

/// From Cα to the carbonyl.
pub(in crate::builder) fn backbone(residue: &str) -> &'static [Place] {
    match residue {
        "GLY" => &GLYCINE_BACKBONE,
        "PRO" => &PROLINE_BACKBONE,
        _ => &BACKBONE,
    }
}

/// The second oxygen of COO⁻ at the end of a chain.
pub(in crate::builder) const CARBOXYLATE: [Place; 1] = [place(
    "OXT",
    Element::O,
    ["C", "CA", "O"],
    0.1250,
    117.0,
    180.0,
)];
