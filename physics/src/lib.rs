//! Peptide topology, native force field, dynamics, observables and metrics.
