//! Peptide topology, the native force field, dynamics and observables.

pub mod batch;
pub mod builder;
pub mod chart;
pub mod element;
pub mod energy;
pub mod forcefield;
pub mod langevin;
mod linear;
pub mod minimise;
pub mod observables;
pub mod pdb;
pub mod replica_exchange;
pub mod restraint;
pub mod rotations;
pub mod sequence;
pub mod system;
pub mod target;
pub mod terms;
pub mod topology;
pub mod trajectory;
pub mod umbrella;

pub use batch::{BatchError, BatchEvaluator, SingleEvaluator};
pub use builder::build_sequence;
pub use element::Element;
pub use energy::{Energies, energy_forces_reference, energy_reference};
pub use forcefield::ForceField;
pub use system::System;
pub use target::MolecularTarget;
pub use topology::{Atom, Topology};
