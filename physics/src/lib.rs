//! Peptide topology, the native force field, dynamics, observables and metrics.

pub mod chart;
pub mod element;
pub mod energy;
pub mod metrics;
pub mod observables;
pub mod system;
pub mod terms;
pub mod topology;

pub use element::Element;
pub use energy::{Energies, energy_forces_reference, energy_reference};
pub use system::System;
pub use topology::{Atom, Topology};
