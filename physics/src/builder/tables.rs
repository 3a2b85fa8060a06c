//! Internal coordinates of the amino acids and caps, from which the builder makes their geometry.
//!
//! Lengths and angles are the equilibrium values of AMBER's bonds and angles, rounded; in the rings of histidine, tryptophan and
//! proline, whose equilibrium angles do not close, they are those of minimised structures. Names and their sense around prochiral
//! centres follow the IUPAC recommendations (Markley et al., Pure Appl. Chem. 70, 117 (1998)): seen along the chain from the
//! backbone, the next heavy atom, `2` and `3` turn clockwise.

use crate::element::Element;

/// Backbone dihedrals of the structures built, degrees: φ and ψ of an antiparallel β strand.
pub(super) const EXTENDED: [f64; 2] = [-139.0, 135.0];

/// φ of proline, whose ring fixes it, degrees.
const PROLINE_PHI: f64 = -69.0;

/// How one atom is placed: `name`, `element`, the atoms (bonded, angle, dihedral) that it is placed against, and its distance (nm), angle and
/// dihedral (degrees) to them. A leading `-` means the residue before.
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) element: Element,
    pub(super) against: [&'static str; 3],
    pub(super) length: f64,
    pub(super) angle: f64,
    pub(super) dihedral: f64,
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

pub(super) const ACETYL: [Place; 6] = [
    place("CH3", Element::C, ["-C", "-CA", "-O"], 0.1522, 111.0, 180.0),
    place("H1", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, -120.0),
    place("H2", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, 0.0),
    place("H3", Element::H, ["CH3", "C", "O"], 0.1090, 109.5, 120.0),
    place("C", Element::C, ["CH3", "-C", "-CA"], 0.1522, 111.0, 180.0),
    place("O", Element::O, ["C", "CH3", "-C"], 0.1229, 120.4, 0.0),
];

pub(super) const METHYLAMIDE: [Place; 6] = [
    place("N", Element::N, ["-C", "-CA", "-O"], 0.1335, 116.6, 180.0),
    place("H", Element::H, ["N", "-C", "-CA"], 0.1010, 119.8, 0.0),
    place("C", Element::C, ["N", "-C", "-CA"], 0.1449, 121.9, 180.0),
    place("H1", Element::H, ["C", "N", "-C"], 0.1090, 109.5, 180.0),
    place("H2", Element::H, ["C", "N", "-C"], 0.1090, 109.5, -60.0),
    place("H3", Element::H, ["C", "N", "-C"], 0.1090, 109.5, 60.0),
];

pub(super) const PRIMARY_AMIDE: [Place; 3] = [
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
pub(super) fn front(residue: &str, charged: bool) -> &'static [Place] {
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
pub(super) fn backbone(residue: &str) -> &'static [Place] {
    match residue {
        "GLY" => &GLYCINE_BACKBONE,
        "PRO" => &PROLINE_BACKBONE,
        _ => &BACKBONE,
    }
}

/// The second oxygen of COO⁻ at the end of a chain.
pub(super) const CARBOXYLATE: [Place; 1] = [place(
    "OXT",
    Element::O,
    ["C", "CA", "O"],
    0.1250,
    117.0,
    180.0,
)];

/// A side chain's atoms, and the bonds that close its rings.
pub(super) struct SideChain {
    pub(super) name: &'static str,
    pub(super) places: &'static [Place],
    pub(super) closures: &'static [[&'static str; 2]],
}

const fn open(name: &'static str, places: &'static [Place]) -> SideChain {
    SideChain {
        name,
        places,
        closures: &[],
    }
}

const fn ring(
    name: &'static str,
    places: &'static [Place],
    closures: &'static [[&'static str; 2]],
) -> SideChain {
    SideChain {
        name,
        places,
        closures,
    }
}

/// Every residue that can be built. `HIS` is the neutral tautomer with its hydrogen on Nε.
pub(super) const SIDE_CHAINS: [SideChain; 28] = [
    open("ALA", &ALANINE),
    open("ARG", &ARGININE),
    open("ASN", &ASPARAGINE),
    open("ASP", &ASPARTATE),
    open("ASH", &ASPARTIC_ACID),
    open("CYS", &CYSTEINE),
    open("CYX", &THIOLATE),
    open("CYM", &THIOLATE),
    open("GLN", &GLUTAMINE),
    open("GLU", &GLUTAMATE),
    open("GLH", &GLUTAMIC_ACID),
    open("GLY", &[]),
    ring("HIS", &HISTIDINE_EPSILON, &[["CE1", "NE2"]]),
    ring("HID", &HISTIDINE_DELTA, &[["CE1", "NE2"]]),
    ring("HIE", &HISTIDINE_EPSILON, &[["CE1", "NE2"]]),
    ring("HIP", &HISTIDINIUM, &[["CE1", "NE2"]]),
    open("ILE", &ISOLEUCINE),
    open("LEU", &LEUCINE),
    open("LYS", &LYSINIUM),
    open("LYN", &LYSINE),
    open("MET", &METHIONINE),
    ring("PHE", &PHENYLALANINE, &[["CE2", "CZ"]]),
    ring("PRO", &PROLINE, &[["N", "CD"]]),
    open("SER", &SERINE),
    open("THR", &THREONINE),
    ring("TRP", &TRYPTOPHAN, &[["NE1", "CE2"], ["CZ3", "CH2"]]),
    ring("TYR", &TYROSINE, &[["CE2", "CZ"]]),
    open("VAL", &VALINE),
];

/// The side chain of a residue.
pub(super) fn side_chain(residue: &str) -> Option<&'static SideChain> {
    SIDE_CHAINS
        .iter()
        .find(|side_chain| side_chain.name == residue)
}

const ALANINE: [Place; 4] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB1", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, -60.0),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 180.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 60.0),
];

const ARGININE: [Place; 18] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -65.0),
    place("HG2", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, -60.0),
    place("HG3", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, 60.0),
    place("CD", Element::C, ["CG", "CB", "CA"], 0.1526, 109.5, 180.0),
    place("HD2", Element::H, ["CD", "CG", "CB"], 0.1090, 109.5, -60.0),
    place("HD3", Element::H, ["CD", "CG", "CB"], 0.1090, 109.5, 60.0),
    place("NE", Element::N, ["CD", "CG", "CB"], 0.1463, 111.2, 180.0),
    place("HE", Element::H, ["NE", "CD", "CG"], 0.1010, 118.4, 0.0),
    place("CZ", Element::C, ["NE", "CD", "CG"], 0.1340, 123.2, 180.0),
    place("NH1", Element::N, ["CZ", "NE", "CD"], 0.1340, 120.0, 0.0),
    place(
        "HH11",
        Element::H,
        ["NH1", "CZ", "NE"],
        0.1010,
        120.0,
        180.0,
    ),
    place("HH12", Element::H, ["NH1", "CZ", "NE"], 0.1010, 120.0, 0.0),
    place("NH2", Element::N, ["CZ", "NE", "CD"], 0.1340, 120.0, 180.0),
    place("HH21", Element::H, ["NH2", "CZ", "NE"], 0.1010, 120.0, 0.0),
    place(
        "HH22",
        Element::H,
        ["NH2", "CZ", "NE"],
        0.1010,
        120.0,
        180.0,
    ),
];

const ASPARAGINE: [Place; 8] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1522, 111.1, -65.0),
    place("OD1", Element::O, ["CG", "CB", "CA"], 0.1229, 120.4, -40.0),
    place("ND2", Element::N, ["CG", "CB", "CA"], 0.1335, 116.6, 140.0),
    place(
        "HD21",
        Element::H,
        ["ND2", "CG", "CB"],
        0.1010,
        120.0,
        180.0,
    ),
    place("HD22", Element::H, ["ND2", "CG", "CB"], 0.1010, 120.0, 0.0),
];

const ASPARTATE: [Place; 6] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1522, 111.1, -65.0),
    place("OD1", Element::O, ["CG", "CB", "CA"], 0.1250, 117.0, -40.0),
    place("OD2", Element::O, ["CG", "CB", "CA"], 0.1250, 117.0, 140.0),
];

const ASPARTIC_ACID: [Place; 7] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1522, 111.1, -65.0),
    place("OD1", Element::O, ["CG", "CB", "CA"], 0.1229, 120.4, -40.0),
    place("OD2", Element::O, ["CG", "CB", "CA"], 0.1364, 110.0, 140.0),
    place("HD2", Element::H, ["OD2", "CG", "CB"], 0.0960, 113.0, 180.0),
];

const CYSTEINE: [Place; 5] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("SG", Element::S, ["CB", "CA", "N"], 0.1810, 108.6, -65.0),
    place("HG", Element::H, ["SG", "CB", "CA"], 0.1336, 96.0, 180.0),
];

const THIOLATE: [Place; 4] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("SG", Element::S, ["CB", "CA", "N"], 0.1810, 114.7, -65.0),
];

const GLUTAMINE: [Place; 11] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -65.0),
    place("HG2", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, -60.0),
    place("HG3", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, 60.0),
    place("CD", Element::C, ["CG", "CB", "CA"], 0.1522, 111.1, 180.0),
    place("OE1", Element::O, ["CD", "CG", "CB"], 0.1229, 120.4, 0.0),
    place("NE2", Element::N, ["CD", "CG", "CB"], 0.1335, 116.6, 180.0),
    place(
        "HE21",
        Element::H,
        ["NE2", "CD", "CG"],
        0.1010,
        120.0,
        180.0,
    ),
    place("HE22", Element::H, ["NE2", "CD", "CG"], 0.1010, 120.0, 0.0),
];

const GLUTAMATE: [Place; 9] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -65.0),
    place("HG2", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, -60.0),
    place("HG3", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, 60.0),
    place("CD", Element::C, ["CG", "CB", "CA"], 0.1522, 111.1, 180.0),
    place("OE1", Element::O, ["CD", "CG", "CB"], 0.1250, 117.0, 0.0),
    place("OE2", Element::O, ["CD", "CG", "CB"], 0.1250, 117.0, 180.0),
];

const GLUTAMIC_ACID: [Place; 10] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -65.0),
    place("HG2", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, -60.0),
    place("HG3", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, 60.0),
    place("CD", Element::C, ["CG", "CB", "CA"], 0.1522, 111.1, 180.0),
    place("OE1", Element::O, ["CD", "CG", "CB"], 0.1229, 120.4, 0.0),
    place("OE2", Element::O, ["CD", "CG", "CB"], 0.1364, 110.0, 180.0),
    place("HE2", Element::H, ["OE2", "CD", "CG"], 0.0960, 113.0, 180.0),
];

const HISTIDINE_DELTA: [Place; 11] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1504, 113.1, -65.0),
    place("ND1", Element::N, ["CG", "CB", "CA"], 0.1399, 125.6, -90.0),
    place("HD1", Element::H, ["ND1", "CG", "CB"], 0.1010, 120.0, 0.0),
    place("CD2", Element::C, ["CG", "CB", "CA"], 0.1365, 125.6, 90.0),
    place("HD2", Element::H, ["CD2", "CG", "CB"], 0.1083, 126.2, 0.0),
    place("CE1", Element::C, ["ND1", "CG", "CB"], 0.1345, 105.9, 180.0),
    place(
        "HE1",
        Element::H,
        ["CE1", "ND1", "CG"],
        0.1085,
        125.0,
        180.0,
    ),
    place("NE2", Element::N, ["CD2", "CG", "CB"], 0.1378, 106.5, 180.0),
];

const HISTIDINE_EPSILON: [Place; 11] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1504, 113.1, -65.0),
    place("ND1", Element::N, ["CG", "CB", "CA"], 0.1399, 125.6, -90.0),
    place("CD2", Element::C, ["CG", "CB", "CA"], 0.1365, 125.6, 90.0),
    place("HD2", Element::H, ["CD2", "CG", "CB"], 0.1083, 126.2, 0.0),
    place("CE1", Element::C, ["ND1", "CG", "CB"], 0.1345, 105.9, 180.0),
    place(
        "HE1",
        Element::H,
        ["CE1", "ND1", "CG"],
        0.1085,
        125.0,
        180.0,
    ),
    place("NE2", Element::N, ["CD2", "CG", "CB"], 0.1378, 106.5, 180.0),
    place(
        "HE2",
        Element::H,
        ["NE2", "CD2", "CG"],
        0.1016,
        126.5,
        180.0,
    ),
];

const HISTIDINIUM: [Place; 12] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1504, 113.1, -65.0),
    place("ND1", Element::N, ["CG", "CB", "CA"], 0.1399, 125.6, -90.0),
    place("HD1", Element::H, ["ND1", "CG", "CB"], 0.1010, 120.0, 0.0),
    place("CD2", Element::C, ["CG", "CB", "CA"], 0.1365, 125.6, 90.0),
    place("HD2", Element::H, ["CD2", "CG", "CB"], 0.1083, 126.2, 0.0),
    place("CE1", Element::C, ["ND1", "CG", "CB"], 0.1345, 105.9, 180.0),
    place(
        "HE1",
        Element::H,
        ["CE1", "ND1", "CG"],
        0.1085,
        125.0,
        180.0,
    ),
    place("NE2", Element::N, ["CD2", "CG", "CB"], 0.1378, 106.5, 180.0),
    place(
        "HE2",
        Element::H,
        ["NE2", "CD2", "CG"],
        0.1016,
        126.5,
        180.0,
    ),
];

const ISOLEUCINE: [Place; 13] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 60.0),
    place("CG1", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -60.0),
    place(
        "HG12",
        Element::H,
        ["CG1", "CB", "CA"],
        0.1090,
        109.5,
        -70.0,
    ),
    place("HG13", Element::H, ["CG1", "CB", "CA"], 0.1090, 109.5, 50.0),
    place("CG2", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, 180.0),
    place(
        "HG21",
        Element::H,
        ["CG2", "CB", "CA"],
        0.1090,
        109.5,
        -60.0,
    ),
    place("HG22", Element::H, ["CG2", "CB", "CA"], 0.1090, 109.5, 60.0),
    place(
        "HG23",
        Element::H,
        ["CG2", "CB", "CA"],
        0.1090,
        109.5,
        180.0,
    ),
    place("CD1", Element::C, ["CG1", "CB", "CA"], 0.1526, 109.5, 170.0),
    place(
        "HD11",
        Element::H,
        ["CD1", "CG1", "CB"],
        0.1090,
        109.5,
        -60.0,
    ),
    place(
        "HD12",
        Element::H,
        ["CD1", "CG1", "CB"],
        0.1090,
        109.5,
        60.0,
    ),
    place(
        "HD13",
        Element::H,
        ["CD1", "CG1", "CB"],
        0.1090,
        109.5,
        180.0,
    ),
];

const LEUCINE: [Place; 13] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -65.0),
    place("HG", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, 55.0),
    place("CD1", Element::C, ["CG", "CB", "CA"], 0.1526, 109.5, 175.0),
    place(
        "HD11",
        Element::H,
        ["CD1", "CG", "CB"],
        0.1090,
        109.5,
        -60.0,
    ),
    place("HD12", Element::H, ["CD1", "CG", "CB"], 0.1090, 109.5, 60.0),
    place(
        "HD13",
        Element::H,
        ["CD1", "CG", "CB"],
        0.1090,
        109.5,
        180.0,
    ),
    place("CD2", Element::C, ["CG", "CB", "CA"], 0.1526, 109.5, -65.0),
    place(
        "HD21",
        Element::H,
        ["CD2", "CG", "CB"],
        0.1090,
        109.5,
        -60.0,
    ),
    place("HD22", Element::H, ["CD2", "CG", "CB"], 0.1090, 109.5, 60.0),
    place(
        "HD23",
        Element::H,
        ["CD2", "CG", "CB"],
        0.1090,
        109.5,
        180.0,
    ),
];

const LYSINIUM: [Place; 16] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -65.0),
    place("HG2", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, -60.0),
    place("HG3", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, 60.0),
    place("CD", Element::C, ["CG", "CB", "CA"], 0.1526, 109.5, 180.0),
    place("HD2", Element::H, ["CD", "CG", "CB"], 0.1090, 109.5, -60.0),
    place("HD3", Element::H, ["CD", "CG", "CB"], 0.1090, 109.5, 60.0),
    place("CE", Element::C, ["CD", "CG", "CB"], 0.1526, 109.5, 180.0),
    place("HE2", Element::H, ["CE", "CD", "CG"], 0.1090, 109.5, -60.0),
    place("HE3", Element::H, ["CE", "CD", "CG"], 0.1090, 109.5, 60.0),
    place("NZ", Element::N, ["CE", "CD", "CG"], 0.1471, 111.2, 180.0),
    place("HZ1", Element::H, ["NZ", "CE", "CD"], 0.1010, 109.5, -60.0),
    place("HZ2", Element::H, ["NZ", "CE", "CD"], 0.1010, 109.5, 60.0),
    place("HZ3", Element::H, ["NZ", "CE", "CD"], 0.1010, 109.5, 180.0),
];

const LYSINE: [Place; 15] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -65.0),
    place("HG2", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, -60.0),
    place("HG3", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, 60.0),
    place("CD", Element::C, ["CG", "CB", "CA"], 0.1526, 109.5, 180.0),
    place("HD2", Element::H, ["CD", "CG", "CB"], 0.1090, 109.5, -60.0),
    place("HD3", Element::H, ["CD", "CG", "CB"], 0.1090, 109.5, 60.0),
    place("CE", Element::C, ["CD", "CG", "CB"], 0.1526, 109.5, 180.0),
    place("HE2", Element::H, ["CE", "CD", "CG"], 0.1090, 109.5, -60.0),
    place("HE3", Element::H, ["CE", "CD", "CG"], 0.1090, 109.5, 60.0),
    place("NZ", Element::N, ["CE", "CD", "CG"], 0.1471, 111.2, 180.0),
    place("HZ2", Element::H, ["NZ", "CE", "CD"], 0.1010, 109.5, 60.0),
    place("HZ3", Element::H, ["NZ", "CE", "CD"], 0.1010, 109.5, -60.0),
];

const METHIONINE: [Place; 11] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -65.0),
    place("HG2", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, -60.0),
    place("HG3", Element::H, ["CG", "CB", "CA"], 0.1090, 109.5, 60.0),
    place("SD", Element::S, ["CG", "CB", "CA"], 0.1810, 114.7, 180.0),
    place("CE", Element::C, ["SD", "CG", "CB"], 0.1810, 98.9, 180.0),
    place("HE1", Element::H, ["CE", "SD", "CG"], 0.1090, 109.5, -60.0),
    place("HE2", Element::H, ["CE", "SD", "CG"], 0.1090, 109.5, 60.0),
    place("HE3", Element::H, ["CE", "SD", "CG"], 0.1090, 109.5, 180.0),
];

const PHENYLALANINE: [Place; 14] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1510, 114.0, -65.0),
    place("CD1", Element::C, ["CG", "CB", "CA"], 0.1400, 120.0, 90.0),
    place("HD1", Element::H, ["CD1", "CG", "CB"], 0.1080, 120.0, 0.0),
    place("CE1", Element::C, ["CD1", "CG", "CB"], 0.1400, 120.0, 180.0),
    place(
        "HE1",
        Element::H,
        ["CE1", "CD1", "CG"],
        0.1080,
        120.0,
        180.0,
    ),
    place("CD2", Element::C, ["CG", "CB", "CA"], 0.1400, 120.0, -90.0),
    place("HD2", Element::H, ["CD2", "CG", "CB"], 0.1080, 120.0, 0.0),
    place("CE2", Element::C, ["CD2", "CG", "CB"], 0.1400, 120.0, 180.0),
    place(
        "HE2",
        Element::H,
        ["CE2", "CD2", "CG"],
        0.1080,
        120.0,
        180.0,
    ),
    place("CZ", Element::C, ["CE1", "CD1", "CG"], 0.1400, 120.0, 0.0),
    place("HZ", Element::H, ["CZ", "CE1", "CD1"], 0.1080, 120.0, 180.0),
];

const TYROSINE: [Place; 15] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1510, 114.0, -65.0),
    place("CD1", Element::C, ["CG", "CB", "CA"], 0.1400, 120.0, 90.0),
    place("HD1", Element::H, ["CD1", "CG", "CB"], 0.1080, 120.0, 0.0),
    place("CE1", Element::C, ["CD1", "CG", "CB"], 0.1400, 120.0, 180.0),
    place(
        "HE1",
        Element::H,
        ["CE1", "CD1", "CG"],
        0.1080,
        120.0,
        180.0,
    ),
    place("CD2", Element::C, ["CG", "CB", "CA"], 0.1400, 120.0, -90.0),
    place("HD2", Element::H, ["CD2", "CG", "CB"], 0.1080, 120.0, 0.0),
    place("CE2", Element::C, ["CD2", "CG", "CB"], 0.1400, 120.0, 180.0),
    place(
        "HE2",
        Element::H,
        ["CE2", "CD2", "CG"],
        0.1080,
        120.0,
        180.0,
    ),
    place("CZ", Element::C, ["CE1", "CD1", "CG"], 0.1409, 120.0, 0.0),
    place("OH", Element::O, ["CZ", "CE1", "CD1"], 0.1364, 120.0, 180.0),
    place("HH", Element::H, ["OH", "CZ", "CE1"], 0.0960, 113.0, 0.0),
];

const PROLINE: [Place; 9] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1532, 111.7, 118.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 112.5, 150.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1091, 109.4, -87.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1527, 103.2, 29.5),
    place("HG2", Element::H, ["CG", "CB", "CA"], 0.1091, 109.7, 81.0),
    place("HG3", Element::H, ["CG", "CB", "CA"], 0.1090, 111.8, -155.5),
    place("CD", Element::C, ["CG", "CB", "CA"], 0.1527, 102.8, -35.5),
    place("HD2", Element::H, ["CD", "CG", "CB"], 0.1090, 110.0, 150.0),
    place("HD3", Element::H, ["CD", "CG", "CB"], 0.1091, 109.7, -88.5),
];

const SERINE: [Place; 5] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, -175.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, -55.0),
    place("OG", Element::O, ["CB", "CA", "N"], 0.1410, 109.5, 65.0),
    place("HG", Element::H, ["OG", "CB", "CA"], 0.0960, 108.5, 180.0),
];

const THREONINE: [Place; 8] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 180.0),
    place("OG1", Element::O, ["CB", "CA", "N"], 0.1410, 109.5, 60.0),
    place("HG1", Element::H, ["OG1", "CB", "CA"], 0.0960, 108.5, 180.0),
    place("CG2", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -60.0),
    place(
        "HG21",
        Element::H,
        ["CG2", "CB", "CA"],
        0.1090,
        109.5,
        -60.0,
    ),
    place("HG22", Element::H, ["CG2", "CB", "CA"], 0.1090, 109.5, 60.0),
    place(
        "HG23",
        Element::H,
        ["CG2", "CB", "CA"],
        0.1090,
        109.5,
        180.0,
    ),
];

const TRYPTOPHAN: [Place; 18] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1495, 115.6, -65.0),
    place("CD1", Element::C, ["CG", "CB", "CA"], 0.1353, 125.5, -90.0),
    place("HD1", Element::H, ["CD1", "CG", "CB"], 0.1087, 124.9, 0.0),
    place("CD2", Element::C, ["CG", "CB", "CA"], 0.1463, 128.7, 90.0),
    place("NE1", Element::N, ["CD1", "CG", "CB"], 0.1382, 109.7, 180.0),
    place(
        "HE1",
        Element::H,
        ["NE1", "CD1", "CG"],
        0.1015,
        123.3,
        180.0,
    ),
    place("CE2", Element::C, ["CD2", "CG", "CB"], 0.1428, 108.4, 180.0),
    place("CE3", Element::C, ["CD2", "CG", "CB"], 0.1413, 134.7, 0.0),
    place("HE3", Element::H, ["CE3", "CD2", "CG"], 0.1082, 119.1, 0.0),
    place("CZ2", Element::C, ["CE2", "CD2", "CE3"], 0.1403, 122.5, 0.0),
    place(
        "HZ2",
        Element::H,
        ["CZ2", "CE2", "CD2"],
        0.1082,
        120.2,
        180.0,
    ),
    place("CZ3", Element::C, ["CE3", "CD2", "CE2"], 0.1409, 121.0, 0.0),
    place(
        "HZ3",
        Element::H,
        ["CZ3", "CE3", "CD2"],
        0.1083,
        119.8,
        180.0,
    ),
    place("CH2", Element::C, ["CZ2", "CE2", "CD2"], 0.1405, 119.1, 0.0),
    place(
        "HH2",
        Element::H,
        ["CH2", "CZ2", "CE2"],
        0.1084,
        120.1,
        180.0,
    ),
];

const VALINE: [Place; 10] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 60.0),
    place("CG1", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, 180.0),
    place(
        "HG11",
        Element::H,
        ["CG1", "CB", "CA"],
        0.1090,
        109.5,
        -60.0,
    ),
    place("HG12", Element::H, ["CG1", "CB", "CA"], 0.1090, 109.5, 60.0),
    place(
        "HG13",
        Element::H,
        ["CG1", "CB", "CA"],
        0.1090,
        109.5,
        180.0,
    ),
    place("CG2", Element::C, ["CB", "CA", "N"], 0.1526, 109.5, -60.0),
    place(
        "HG21",
        Element::H,
        ["CG2", "CB", "CA"],
        0.1090,
        109.5,
        -60.0,
    ),
    place("HG22", Element::H, ["CG2", "CB", "CA"], 0.1090, 109.5, 60.0),
    place(
        "HG23",
        Element::H,
        ["CG2", "CB", "CA"],
        0.1090,
        109.5,
        180.0,
    ),
];
