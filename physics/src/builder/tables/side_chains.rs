//! Which side chain a residue has.

use super::Place;
use super::chains::*;
use super::rings::*;

/// A side chain's atoms, and the bonds that close its rings.
pub(in crate::builder) struct SideChain {
    pub(in crate::builder) name: &'static str,
    pub(in crate::builder) places: &'static [Place],
    pub(in crate::builder) closures: &'static [[&'static str; 2]],
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
pub(in crate::builder) const SIDE_CHAINS: [SideChain; 28] = [
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
pub(in crate::builder) fn side_chain(residue: &str) -> Option<&'static SideChain> {
    SIDE_CHAINS
        .iter()
        .find(|side_chain| side_chain.name == residue)
}
