//! The chemical elements of proteins.

use std::fmt;

/// A chemical element that the force fields here know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Element {
    /// Hydrogen.
    H,
    /// Carbon.
    C,
    /// Nitrogen.
    N,
    /// Oxygen.
    O,
    /// Fluorine.
    F,
    /// Silicon.
    Si,
    /// Phosphorus.
    P,
    /// Sulfur.
    S,
    /// Chlorine.
    Cl,
}

impl Element {
    /// Every element, in order of atomic number (which is also the order of mass).
    pub const ALL: [Element; 9] = [
        Element::H,
        Element::C,
        Element::N,
        Element::O,
        Element::F,
        Element::Si,
        Element::P,
        Element::S,
        Element::Cl,
    ];

    /// The chemical symbol.
    pub fn symbol(self) -> &'static str {
        match self {
            Element::H => "H",
            Element::C => "C",
            Element::N => "N",
            Element::O => "O",
            Element::F => "F",
            Element::Si => "Si",
            Element::P => "P",
            Element::S => "S",
            Element::Cl => "Cl",
        }
    }

    /// The atomic number.
    pub fn atomic_number(self) -> u8 {
        match self {
            Element::H => 1,
            Element::C => 6,
            Element::N => 7,
            Element::O => 8,
            Element::F => 9,
            Element::Si => 14,
            Element::P => 15,
            Element::S => 16,
            Element::Cl => 17,
        }
    }

    /// Standard atomic mass, Da. Force fields bring their own masses; this one orders elements and weighs structures
    /// that have no force field yet.
    pub fn mass(self) -> f64 {
        match self {
            Element::H => 1.008,
            Element::C => 12.011,
            Element::N => 14.007,
            Element::O => 15.999,
            Element::F => 18.998,
            Element::Si => 28.085,
            Element::P => 30.974,
            Element::S => 32.06,
            Element::Cl => 35.45,
        }
    }

    /// The element of a symbol, in any letter case; `None` if it is not one of these.
    pub fn from_symbol(symbol: &str) -> Option<Element> {
        Element::ALL
            .into_iter()
            .find(|element| element.symbol().eq_ignore_ascii_case(symbol.trim()))
    }
}

impl fmt::Display for Element {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.symbol())
    }
}
