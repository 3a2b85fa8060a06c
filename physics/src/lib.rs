//! Peptide topology, the native force field, dynamics, observables and metrics.

pub mod system;
