//! The molecule of a run, with what its observables need.

use anyhow::{Result, ensure};
use boltzmap_physics::observables::{self, Backbone};
use boltzmap_physics::system::{GAS_CONSTANT, System};
use boltzmap_physics::topology::Topology;

use crate::config::Config;
use crate::molecule;

/// The molecule of a run.
pub struct Molecule {
    /// Atoms and bonds.
    pub topology: Topology,
    /// Built coordinates `[atoms, 3]`, nm.
    pub positions: Vec<f64>,
    /// All force-field parameters.
    pub system: System,
    /// Backbone dihedrals and chiral centres.
    pub backbone: Backbone,
    /// Atomic number of each atom.
    pub atomic_numbers: Vec<u8>,
    /// R T of the target, kJ/mol.
    pub thermal_energy: f64,
}

impl Molecule {
    /// Builds the molecule that a configuration names.
    pub fn new(config: &Config) -> Result<Molecule> {
        let sequence = &config.system.sequence;
        let molecule::Molecule {
            topology,
            system,
            positions,
        } = molecule::Molecule::from_sequence(sequence, &config.system.force_field)?;
        let atomic_numbers: Vec<u8> = topology
            .atoms
            .iter()
            .map(|atom| atom.element.atomic_number())
            .collect();
        let backbone = observables::backbone(topology.n_atoms(), &topology.bonds, &atomic_numbers);
        ensure!(
            !backbone.phi.is_empty() && !backbone.psi.is_empty(),
            "{sequence} has no backbone dihedrals to report on; give it at least one residue between two peptide bonds"
        );
        Ok(Molecule {
            topology,
            positions,
            system,
            backbone,
            atomic_numbers,
            thermal_energy: GAS_CONSTANT * config.system.temperature,
        })
    }

    /// Number of atoms.
    pub fn n_atoms(&self) -> usize {
        self.topology.n_atoms()
    }

    /// First φ and first ψ of each frame, rad: what the figures show.
    pub fn first_phi_psi<T: Copy + Into<f64>>(&self, positions: &[T]) -> (Vec<f64>, Vec<f64>) {
        let quadruples = [self.backbone.phi[0], self.backbone.psi[0]];
        observables::dihedrals(positions, self.n_atoms(), &quadruples)
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .unzip()
    }

    /// All φ and ψ of each frame, `[n, torsions]`, rad: the point on the torus that T-W2 compares.
    pub fn torus<T: Copy + Into<f64>>(&self, positions: &[T]) -> Vec<f64> {
        observables::phi_psi(positions, self.n_atoms(), &self.backbone)
    }

    /// Number of angles in one row of [`Molecule::torus`].
    pub fn torus_dimension(&self) -> usize {
        self.backbone.phi.len() + self.backbone.psi.len()
    }

    /// Fraction of frames in which every chiral centre is L.
    pub fn fraction_l<T: Copy + Into<f64>>(&self, positions: &[T]) -> f64 {
        observables::fraction_all_l(positions, self.n_atoms(), &self.backbone.centres)
    }
}
