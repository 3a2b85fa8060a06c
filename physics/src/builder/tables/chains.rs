//! Side chains without rings.

use super::{Place, place};
use crate::element::Element;

pub(super) const ALANINE: [Place; 4] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB1", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, -60.0),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 180.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 60.0),
];

pub(super) const ARGININE: [Place; 18] = [
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

pub(super) const ASPARAGINE: [Place; 8] = [
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

pub(super) const ASPARTATE: [Place; 6] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1522, 111.1, -65.0),
    place("OD1", Element::O, ["CG", "CB", "CA"], 0.1250, 117.0, -40.0),
    place("OD2", Element::O, ["CG", "CB", "CA"], 0.1250, 117.0, 140.0),
];

pub(super) const ASPARTIC_ACID: [Place; 7] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("CG", Element::C, ["CB", "CA", "N"], 0.1522, 111.1, -65.0),
    place("OD1", Element::O, ["CG", "CB", "CA"], 0.1229, 120.4, -40.0),
    place("OD2", Element::O, ["CG", "CB", "CA"], 0.1364, 110.0, 140.0),
    place("HD2", Element::H, ["OD2", "CG", "CB"], 0.0960, 113.0, 180.0),
];

pub(super) const CYSTEINE: [Place; 5] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("SG", Element::S, ["CB", "CA", "N"], 0.1810, 108.6, -65.0),
    place("HG", Element::H, ["SG", "CB", "CA"], 0.1336, 96.0, 180.0),
];

pub(super) const THIOLATE: [Place; 4] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 55.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, 175.0),
    place("SG", Element::S, ["CB", "CA", "N"], 0.1810, 114.7, -65.0),
];

pub(super) const GLUTAMINE: [Place; 11] = [
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

pub(super) const GLUTAMATE: [Place; 9] = [
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

pub(super) const GLUTAMIC_ACID: [Place; 10] = [
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

pub(super) const ISOLEUCINE: [Place; 13] = [
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

pub(super) const LEUCINE: [Place; 13] = [
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

pub(super) const LYSINIUM: [Place; 16] = [
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

pub(super) const LYSINE: [Place; 15] = [
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

pub(super) const METHIONINE: [Place; 11] = [
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

pub(super) const SERINE: [Place; 5] = [
    place("CB", Element::C, ["CA", "C", "N"], 0.1526, 111.1, 122.5),
    place("HB2", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, -175.0),
    place("HB3", Element::H, ["CB", "CA", "N"], 0.1090, 109.5, -55.0),
    place("OG", Element::O, ["CB", "CA", "N"], 0.1410, 109.5, 65.0),
    place("HG", Element::H, ["OG", "CB", "CA"], 0.0960, 108.5, 180.0),
];

pub(super) const THREONINE: [Place; 8] = [
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

pub(super) const VALINE: [Place; 10] = [
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
