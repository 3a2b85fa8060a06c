//! Frames whose configuration is not the starting structure's: peptide bonds that turned over between cis and trans, Cα that turned from
//! L to D or back. Hot replicas do the first; the force field lets them do the second, and the result is another molecule.

use boltzmap_physics::observables::dihedrals;
use serde_json::{Value, json};

use crate::molecule::Molecule;

/// What is watched, and how it was at the start.
pub(super) struct Configurations {
    /// ω of every peptide bond, then N–CA–C–CB of every chiral Cα, whose sign is its handedness.
    pub(super) watched: Vec<[usize; 4]>,
    peptide_bonds: usize,
    start: Vec<f64>,
    /// Whether frames with other peptide bonds than at the start are left out.
    fixed_peptide_bonds: bool,
}

/// The configuration of every frame at every temperature, `[level][ladder][save]`.
pub(super) struct Found {
    /// Frames of one temperature.
    per_level: usize,
    turned: Vec<bool>,
    mirrored: Vec<bool>,
    fixed_peptide_bonds: bool,
    peptide_bonds: usize,
    centres: usize,
}

impl Configurations {
    pub(super) fn new(molecule: &Molecule, fixed_peptide_bonds: bool) -> Configurations {
        let backbone = molecule.topology.backbone();
        let peptide_bonds = backbone.omega.len();
        let mut watched = backbone.omega;
        // The sign of this dihedral is opposite to that of the signed volume (N−CA)·[(C−CA)×(CB−CA)].
        let centres = backbone.centres.iter();
        watched.extend(centres.map(|&[alpha, n, c, beta]| [n, alpha, c, beta]));
        Configurations {
            start: dihedrals(&molecule.positions, molecule.n_atoms(), &watched),
            watched,
            peptide_bonds,
            fixed_peptide_bonds,
        }
    }

    /// Looks at `angles` `[level][ladder][save][width]`, in whose rows the watched dihedrals come from `first` on; `per_level` rows are of one
    /// temperature.
    pub(super) fn find(
        &self,
        angles: &[f32],
        width: usize,
        first: usize,
        per_level: usize,
    ) -> Found {
        let (mut turned, mut mirrored) = (Vec::new(), Vec::new());
        for row in angles.chunks_exact(width.max(1)) {
            let (omega, centres) = row[first..].split_at(self.peptide_bonds);
            let (omega_start, centres_start) = self.start.split_at(self.peptide_bonds);
            let is_cis = |omega: f64| omega.cos() > 0.0;
            turned.push(
                omega
                    .iter()
                    .zip(omega_start)
                    .any(|(&now, &then)| is_cis(now.into()) != is_cis(then)),
            );
            mirrored.push(
                centres
                    .iter()
                    .zip(centres_start)
                    .any(|(&now, &then)| (now > 0.0) != (then > 0.0)),
            );
        }
        Found {
            per_level,
            turned,
            mirrored,
            fixed_peptide_bonds: self.fixed_peptide_bonds,
            peptide_bonds: self.peptide_bonds,
            centres: self.start.len() - self.peptide_bonds,
        }
    }
}

fn count(of: &[bool]) -> usize {
    of.iter().filter(|&&found| found).count()
}

impl Found {
    /// Whether a frame belongs to the ensemble.
    pub(super) fn belongs(&self, place: usize) -> bool {
        !(self.mirrored[place] || self.fixed_peptide_bonds && self.turned[place])
    }

    /// Frames at the lowest temperature that changed their handedness.
    pub(super) fn mirrored_at_lowest(&self) -> usize {
        count(&self.mirrored[..self.per_level])
    }

    /// Counts at every temperature, lowest first.
    pub(super) fn value(&self) -> Value {
        let per_level = self.per_level.max(1);
        let counts = |of: &[bool]| of.chunks(per_level).map(count).collect::<Vec<usize>>();
        let left_out = (0..self.per_level).filter(|&n| !self.belongs(n)).count();
        json!({
            "frames_of_each_temperature": self.per_level,
            "peptide_bonds": self.peptide_bonds,
            "frames_with_another_peptide_bond": counts(&self.turned),
            "chiral_centres": self.centres,
            "frames_with_another_chirality": counts(&self.mirrored),
            "fixed_peptide_bonds": self.fixed_peptide_bonds,
            "left_out": left_out,
        })
    }

    /// The counts in words; `temperatures` of the levels, K, lowest first.
    pub(super) fn sentences(&self, temperatures: &[f64]) -> String {
        let n = self.per_level;
        let mut text = String::new();
        let at = |of: &[bool]| -> String {
            let cold = count(&of[..n]);
            match temperatures {
                [] => "no frames".to_owned(),
                [only] => format!("{cold} of {n} frames at {only} K"),
                [lowest, .., highest] => format!(
                    "{cold} of {n} frames at {lowest} K, {} at {highest:.0} K",
                    count(&of[of.len() - n..])
                ),
            }
        };
        text += &match (self.peptide_bonds, self.fixed_peptide_bonds) {
            (0, _) => "no peptide bond that could turn over\n".to_owned(),
            (_, true) => format!(
                "a peptide bond turned over between cis and trans in {}; such frames are left out (--fixed-peptide-bonds)\n",
                at(&self.turned)
            ),
            (_, false) => format!(
                "a peptide bond turned over between cis and trans in {}; such frames are kept\n",
                at(&self.turned)
            ),
        };
        text += &match self.centres {
            0 => "no chiral centre\n".to_owned(),
            1 => format!(
                "the chiral centre changed its handedness in {}; such frames are left out\n",
                at(&self.mirrored)
            ),
            centres => format!(
                "one of {centres} chiral centres changed its handedness in {}; such frames are left out\n",
                at(&self.mirrored)
            ),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_physics::observables::neighbours;
    use boltzmap_physics::restraint::set_dihedral;

    /// Frames of one molecule: as built, with a cis bond, and the mirror image; the mirror image turns a handedness, not cis into trans.
    #[test]
    fn cis_and_mirrored_frames_are_counted_against_the_start() {
        for (sequence, centres) in [("Ace-A-Nme", 1), ("Ace-d-Ala-Gly-Nme", 1), ("Ace-G-Nme", 0)] {
            let molecule = Molecule::from_sequence(sequence, "amber99sbildn+obc2").unwrap();
            let n = molecule.n_atoms();
            let bonded = neighbours(n, &molecule.topology.bonds);
            let mut cis = molecule.positions.clone();
            assert!(set_dihedral(
                &mut cis,
                &bonded,
                molecule.topology.backbone().omega[0],
                0.2
            ));
            let mirrored: Vec<f64> = molecule.positions.iter().map(|x| -x).collect();
            for fixed in [true, false] {
                let configurations = Configurations::new(&molecule, fixed);
                let angles: Vec<f32> = [&molecule.positions, &cis, &mirrored]
                    .iter()
                    .flat_map(|frame| dihedrals(frame, n, &configurations.watched))
                    .map(|angle| angle as f32)
                    .collect();
                let found = configurations.find(&angles, configurations.watched.len(), 0, 3);
                let belongs = [0, 1, 2].map(|n| found.belongs(n));
                assert_eq!(belongs, [true, !fixed, centres == 0], "{sequence}");
                let value = found.value();
                assert_eq!(
                    value["frames_with_another_peptide_bond"][0], 1,
                    "{sequence}"
                );
                assert_eq!(
                    value["frames_with_another_chirality"][0], centres,
                    "{sequence}"
                );
                assert_eq!(value["chiral_centres"], centres, "{sequence}");
                assert_eq!(found.mirrored_at_lowest(), centres);
                let told = found.sentences(&[300.0]);
                assert!(told.contains("1 of 3 frames at 300 K"), "{told}");
                assert_eq!(told.contains("no chiral centre"), centres == 0, "{told}");
            }
        }
    }
}
