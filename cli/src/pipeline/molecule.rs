//! The molecule of a run, with what its observables need.

use anyhow::{Result, ensure};
use boltzmap_physics::MolecularTarget;
use boltzmap_physics::chart::Coordinates;
use boltzmap_physics::observables::{self, Backbone};
use boltzmap_physics::system::{GAS_CONSTANT, System};
use boltzmap_physics::topology::Topology;
use boltzmap_statistics::free_energy::is_positive_state;

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
    /// Backbone dihedrals, and chiral centres whose handedness is positive as built.
    pub backbone: Backbone,
    /// Number of angles in one row of [`Molecule::torus`].
    pub torus_dimension: usize,
    /// Atomic number of each atom.
    pub atomic_numbers: Vec<u8>,
    /// R T of the target, kJ/mol.
    pub thermal_energy: f64,
    /// Whether peptide bonds that are not cis or trans as built are outside the target.
    pub fixed_peptide_bonds: bool,
    /// Of every residue with φ and ψ, whether it is a D-residue, whose torsions are those of its mirror image with the opposite sign.
    mirrored: Vec<bool>,
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
        let atomic_numbers = topology.atomic_numbers();
        let mut backbone = topology.backbone();
        let alphas = backbone.phi.iter().map(|phi| phi[2]);
        let both = |alpha: &usize| backbone.psi.iter().any(|psi| psi[1] == *alpha);
        let alphas: Vec<usize> = alphas.filter(both).collect();
        let mut mirrored = vec![false; alphas.len()];
        // Read with two neighbours exchanged, a D-residue that keeps its handedness counts as L does.
        for centre in &mut backbone.centres {
            if observables::chirality(&positions, *centre) < 0.0 {
                for (mirrored, &alpha) in mirrored.iter_mut().zip(&alphas) {
                    *mirrored |= alpha == centre[0];
                }
                centre.swap(1, 2);
            }
        }
        let torus_dimension = observables::phi_psi(&positions, topology.n_atoms(), &backbone).len();
        ensure!(
            torus_dimension > 0,
            "{sequence} has no backbone dihedrals to report on; give it at least one residue between two peptide bonds"
        );
        Ok(Molecule {
            topology,
            positions,
            system,
            backbone,
            torus_dimension,
            atomic_numbers,
            thermal_energy: GAS_CONSTANT * config.system.temperature,
            fixed_peptide_bonds: config.system.fixed_peptide_bonds,
            mirrored,
        })
    }

    /// Number of atoms.
    pub fn n_atoms(&self) -> usize {
        self.topology.n_atoms()
    }

    /// Class of every atom for a network that treats a class alike: three hydrogens on one atom share one, as turning
    /// their group exchanges them; every other atom has its own. Numbered from 0 in order of their first atoms.
    pub fn atom_classes(&self) -> Vec<usize> {
        atom_classes(&self.topology.bonds, &self.atomic_numbers)
    }

    /// φ and ψ of each frame, rad, of the first residue that has both: what the figures show.
    pub fn first_phi_psi<T: Copy + Into<f64>>(&self, positions: &[T]) -> (Vec<f64>, Vec<f64>) {
        self.torus(positions)
            .chunks_exact(self.torus_dimension)
            .map(|row| (row[0], row[1]))
            .unzip()
    }

    /// φ₁, ψ₁, φ₂, ψ₂, … of each frame for the residues that have both, rad, `[n, torus_dimension]`: the point on the
    /// torus that T-W2 compares.
    pub fn torus<T: Copy + Into<f64>>(&self, positions: &[T]) -> Vec<f64> {
        observables::phi_psi(positions, self.n_atoms(), &self.backbone)
    }

    /// The names of the columns of [`Molecule::torus`], such as `phi ALA 2`, residues counted with caps.
    pub fn torsion_names(&self) -> Vec<String> {
        let label = |phi: &[usize; 4]| {
            let residue = self.topology.atoms[phi[2]].residue_index;
            self.topology.residue_label(residue)
        };
        let both = |phi: &&[usize; 4]| self.backbone.psi.iter().any(|psi| psi[1] == phi[2]);
        let residues = self.backbone.phi.iter().filter(both).map(label);
        residues
            .flat_map(|label| [format!("phi {label}"), format!("psi {label}")])
            .collect()
    }

    /// φ (rad) of a residue, counted among those with φ and ψ, with the sign that it has in an L-residue: the state of ΔF is then
    /// 0 < φ < 2 rad. The run's ΔF is about the first of them.
    pub fn as_in_l(&self, residue: usize, phi: f64) -> f64 {
        if self.mirrored[residue] { -phi } else { phi }
    }

    /// Whether φ (rad) of a residue lies in the state of ΔF.
    pub fn in_state(&self, residue: usize, phi: f64) -> bool {
        is_positive_state(self.as_in_l(residue, phi))
    }

    /// A residue's state of ΔF in words, with `name` for its φ.
    pub fn state(&self, residue: usize, name: &str) -> String {
        match self.mirrored[residue] {
            true => format!("-2 < {name} < 0 rad"),
            false => format!("0 < {name} < 2 rad"),
        }
    }

    /// Boltzmann's distribution over the states of coordinates.
    ///
    /// # Errors
    /// If the coordinates are those of another molecule.
    pub fn target(&self, coordinates: Coordinates) -> Result<MolecularTarget> {
        let target = MolecularTarget::new(coordinates, &self.system, self.thermal_energy)?;
        Ok(match self.fixed_peptide_bonds {
            true => target.with_fixed_peptide_bonds(&self.positions, &self.backbone),
            false => target,
        })
    }

    /// Whether one frame `[atoms, 3]` belongs to the target's ensemble.
    pub fn in_target<T: Copy + Into<f64>>(&self, frame: &[T]) -> bool {
        !self.fixed_peptide_bonds
            || observables::same_peptide_bonds(frame, &self.positions, &self.backbone)
    }

    /// Fraction of frames in which every Cα with a side chain has the handedness of the sequence (L, unless it asks for D); NaN where there is
    /// no such centre.
    pub fn fraction_chirality_kept<T: Copy + Into<f64>>(&self, positions: &[T]) -> f64 {
        match self.backbone.centres.is_empty() {
            true => f64::NAN,
            false => observables::fraction_all_l(positions, self.n_atoms(), &self.backbone.centres),
        }
    }
}

/// [`Molecule::atom_classes`] of a bond graph.
fn atom_classes(bonds: &[[usize; 2]], atomic_numbers: &[u8]) -> Vec<usize> {
    let mut neighbours = vec![Vec::new(); atomic_numbers.len()];
    for &[i, j] in bonds {
        neighbours[i].push(j);
        neighbours[j].push(i);
    }
    let hydrogens = |centre: usize| {
        let of_centre = neighbours[centre].iter().copied();
        of_centre
            .filter(|&i| atomic_numbers[i] == 1 && neighbours[i].len() == 1)
            .collect::<Vec<usize>>()
    };
    let mut classes: Vec<usize> = Vec::with_capacity(atomic_numbers.len());
    let mut next = 0;
    for atom in 0..atomic_numbers.len() {
        let group = match neighbours[atom][..] {
            [centre] if atomic_numbers[atom] == 1 => hydrogens(centre),
            _ => Vec::new(),
        };
        let first = group.iter().copied().min();
        match first.filter(|&first| group.len() == 3 && first < atom) {
            Some(first) => classes.push(classes[first]),
            None => {
                classes.push(next);
                next += 1;
            }
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ConfigArguments;
    use boltzmap_physics::build_sequence;

    #[test]
    fn the_state_of_a_d_residue_is_the_mirror_image() {
        let config = Config::resolve(&ConfigArguments {
            set: vec!["system.sequence=\"Ace-AdAG-Nme\"".into()],
            ..ConfigArguments::default()
        });
        let molecule = Molecule::new(&config.unwrap()).unwrap();
        let states: Vec<String> = (0..3).map(|k| molecule.state(k, "φ")).collect();
        let (l, d) = ("0 < φ < 2 rad", "-2 < φ < 0 rad");
        assert_eq!(states, [l, d, l]);
        for (residue, inside) in [true, false, true].into_iter().enumerate() {
            assert_eq!(molecule.in_state(residue, 1.0), inside);
            assert_eq!(molecule.in_state(residue, -1.0), !inside);
        }
    }

    #[test]
    fn only_hydrogens_of_one_rotor_share_a_class() {
        let (topology, _) = build_sequence("Ace-AG-Nme").unwrap();
        let classes = atom_classes(&topology.bonds, &topology.atomic_numbers());
        // Methyls of both caps and of alanine; the two hydrogens of glycine's carbon keep their own classes.
        let mut sizes = vec![0; classes.iter().max().unwrap() + 1];
        classes.iter().for_each(|&class| sizes[class] += 1);
        assert_eq!(sizes.iter().filter(|&&size| size == 3).count(), 3);
        assert_eq!(sizes.len(), topology.n_atoms() - 6);
        for name in ["HB1", "HB2", "HB3"] {
            let of = |name: &str| classes[topology.find(1, name).unwrap()];
            assert_eq!(of(name), of("HB1"));
            assert_ne!(of(name), of("CB"));
        }
        // Numbered in order of their first atoms.
        let mut seen = 0;
        for &class in &classes {
            assert!(class <= seen);
            seen = seen.max(class + 1);
        }
    }
}
