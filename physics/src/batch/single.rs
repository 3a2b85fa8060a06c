//! One conformation at a time in double precision, with its scratch space.

use super::blocks::{Blocks, Scratch};
use super::{BatchError, check_conformations, output_length};
use crate::energy::Energies;
use crate::system::System;
use boltzmap_kernels::simd::Tier;

/// Evaluates energy and forces of one conformation after the other, in `f64`.
///
/// For callers that need one answer before they can ask the next question; many conformations of a small molecule at once are faster in
/// [`BatchEvaluator`](super::BatchEvaluator), which holds no lane empty. The pairs of a large molecule are spread over the threads of the
/// rayon pool the call is made from, with the same bits for any number of them.
///
/// Exact to round-off; finite positions always give energies that are finite or +∞, never "not a number".
pub struct SingleEvaluator {
    blocks: Blocks<f64>,
    scratch: Scratch<f64>,
}

impl SingleEvaluator {
    /// Lays out the system's parameters.
    ///
    /// # Panics
    /// When the system's arrays disagree in length or a term names an atom that does not exist.
    pub fn new(system: &System) -> Self {
        let blocks = Blocks::new(system, Tier::active());
        Self {
            scratch: Scratch::new(&blocks),
            blocks,
        }
    }

    /// The same evaluator on a given instruction set, for comparisons.
    pub fn on(self, tier: Tier) -> Self {
        Self {
            blocks: self.blocks.on(tier),
            ..self
        }
    }

    /// Number of atoms of a conformation.
    pub fn n_atoms(&self) -> usize {
        self.blocks.parameters.n_atoms
    }

    /// Energies by term (kJ/mol), and forces (kJ/mol/nm) into `forces` `[atoms, 3]`, of `positions` `[atoms, 3]` (nm).
    ///
    /// # Errors
    /// If an array is not that long, or a coordinate is not finite.
    pub fn energies_forces(
        &mut self,
        positions: &[f64],
        forces: &mut [f64],
    ) -> Result<Energies, BatchError> {
        let n_atoms = self.n_atoms();
        if check_conformations(n_atoms, positions)? != 1 {
            return Err(BatchError::Shape {
                coordinates: positions.len(),
                n_atoms,
            });
        }
        output_length("forces", forces.len(), positions.len())?;
        Ok(self
            .blocks
            .evaluate(&mut self.scratch, positions, Some(forces)))
    }
}
