//! The molecule of a run: topology, parameters, and what its observables need.

use anyhow::{Context, Result, ensure};
use boltzmap_physics::forcefield::ForceField;
use boltzmap_physics::observables::{self, Backbone};
use boltzmap_physics::sequence::build_sequence;
use boltzmap_physics::system::{GAS_CONSTANT, System};
use boltzmap_physics::topology::Topology;

use crate::config::Config;

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
        let (topology, positions) = build_sequence(sequence)?;
        let force_field = ForceField::by_name(&config.system.force_field)?;
        let system = force_field
            .system(&topology)
            .with_context(|| format!("cannot assign parameters to {sequence}"))?;
        let atomic_numbers: Vec<u8> = topology
            .atoms
            .iter()
            .map(|atom| atom.element.atomic_number())
            .collect();
        let backbone = observables::backbone(topology.n_atoms(), &topology.bonds, &atomic_numbers);
        ensure!(
            !backbone.phi.is_empty() && !backbone.psi.is_empty(),
            "{sequence} has no backbone dihedral to report on; give it at least one residue between two peptide bonds"
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

    /// φ and ψ of the first residue that has both, per frame, rad.
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
}
