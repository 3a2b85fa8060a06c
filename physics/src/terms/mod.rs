//! The force-field terms, one per file: formula, energy over any [`Scalar`], hand-written force in f64.
//!
//! These are the reference: clear, unhurried, and what the vectorised evaluator is held to.

pub mod angle;
pub mod bond;
pub mod generalized_born;
pub mod nonbonded;
mod scalar;
pub mod torsion;
pub mod vector;

pub use scalar::Scalar;

#[cfg(test)]
pub(crate) use scalar::Dual;
#[cfg(test)]
mod tests;
