//! Harmonic restraints on dihedrals, and conformations that begin where they are restrained to.

use crate::batch::{BatchError, BatchEvaluator};
use crate::minimise::{MinimiseSettings, Minimised, minimise_restrained};
use crate::observables::{cross, dihedral, dot, neighbours, norm, point, sub};
use crate::topology::Topology;

/// Harmonic restraints Σ_d ½k_d(φ_d − c_d)² on dihedrals, for every replica its own; the difference is taken the short way round the
/// circle.
#[derive(Clone, Debug, PartialEq)]
pub struct Bias {
    /// The dihedrals.
    pub dihedrals: Vec<[usize; 4]>,
    /// `[replica][dihedral]`, rad in [−π, π]
    pub centres: Vec<f64>,
    /// `[replica][dihedral]`, kJ/mol/rad²
    pub force_constants: Vec<f64>,
}

impl Bias {
    /// # Panics
    /// If the bias has not one centre and force constant for each dihedral of `replicas` replicas.
    pub(crate) fn check(&self, replicas: usize) {
        let expected = replicas * self.dihedrals.len();
        assert_eq!(
            [self.centres.len(), self.force_constants.len()],
            [expected; 2]
        );
    }
}

/// The atoms on the far side of the bond from j to k, k first; nothing when the bond is part of a ring.
fn far_side(bonded: &[Vec<usize>], j: usize, k: usize) -> Vec<usize> {
    let mut found = vec![k];
    let mut seen = vec![false; bonded.len()];
    seen[k] = true;
    let mut at = 0;
    while at < found.len() {
        let atom = found[at];
        at += 1;
        for &next in &bonded[atom] {
            if next == j {
                if atom == k {
                    continue;
                }
                return Vec::new();
            }
            if !seen[next] {
                seen[next] = true;
                found.push(next);
            }
        }
    }
    found
}

/// Turns the far side of a dihedral's middle bond as a rigid body until the dihedral is `target` (rad).
///
/// Every bond length, angle and chirality, and every dihedral about another bond, keeps its value. False, and no atom moves, when the bond is
/// part of a ring.
pub fn set_dihedral(
    frame: &mut [f64],
    bonded: &[Vec<usize>],
    atoms @ [_, j, k, _]: [usize; 4],
    target: f64,
) -> bool {
    let moved = far_side(bonded, j, k);
    if moved.is_empty() {
        return false;
    }
    let [a, b, c, d] = atoms.map(|atom| point(frame, atom));
    // Seen along the bond from j to k, a positive turn of the far side adds to the dihedral.
    let (sin, cos) = (target - dihedral(a, b, c, d)).sin_cos();
    let axis = sub(c, b);
    let length = norm(axis);
    let axis = axis.map(|v| v / length);
    for atom in moved {
        let v = sub(point(frame, atom), c);
        let (along, across) = (dot(axis, v), cross(axis, v));
        // Rodrigues' rotation.
        for x in 0..3 {
            frame[3 * atom + x] =
                c[x] + cos * v[x] + sin * across[x] + (1.0 - cos) * along * axis[x];
        }
    }
    true
}

/// One conformation per replica of `bias`, with its dihedrals at their centres: `start` `[atom][xyz]` (nm) turned about the dihedrals' bonds,
/// then relaxed under the restraints.
///
/// To let restraints drag one conformation everywhere instead would put hundreds of kJ/mol into the farthest replicas, enough to turn a peptide
/// bond over or an amino acid inside out, and they would stay that way.
///
/// # Errors
/// If `start` is not one finite conformation.
pub fn restrained_starts(
    evaluator: &BatchEvaluator<f64>,
    topology: &Topology,
    start: &[f64],
    bias: &Bias,
    settings: MinimiseSettings,
) -> Result<(Vec<f64>, Vec<Minimised>), BatchError> {
    let bonded = neighbours(topology.n_atoms(), &topology.bonds);
    let mut positions = Vec::with_capacity(start.len() * bias.centres.len());
    for centres in bias.centres.chunks_exact(bias.dihedrals.len()) {
        let mut frame = start.to_vec();
        for (&atoms, &centre) in bias.dihedrals.iter().zip(centres) {
            // A ring cannot be turned; its restraint has to pull.
            set_dihedral(&mut frame, &bonded, atoms, centre);
        }
        positions.extend(frame);
    }
    let ends = minimise_restrained(evaluator, &mut positions, Some(bias), settings)?;
    Ok((positions, ends))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observables::{chirality, dihedrals, same_configuration, same_peptide_bonds};
    use crate::{ForceField, build_sequence};
    use boltzmap_statistics::angle::wrap;

    #[test]
    fn turning_changes_one_dihedral_only() {
        let (topology, start) = build_sequence("Ace-AFP-Nme").unwrap();
        let n = topology.n_atoms();
        let bonded = neighbours(n, &topology.bonds);
        let found = topology.backbone();
        let others = [found.phi.clone(), found.psi.clone(), found.omega.clone()].concat();
        // The φ of proline is in its ring.
        assert!(!set_dihedral(
            &mut start.clone(),
            &bonded,
            found.phi[2],
            0.3
        ));
        for &atoms in found.phi[..2].iter().chain(&found.psi) {
            let before = dihedrals(&start, n, &others);
            for target in [-3.0, -0.4, 1.7] {
                let mut frame = start.clone();
                assert!(set_dihedral(&mut frame, &bonded, atoms, target));
                let after = dihedrals(&frame, n, &others);
                for ((other, before), after) in others.iter().zip(&before).zip(&after) {
                    let expected = if *other == atoms { target } else { *before };
                    assert!(wrap(after - expected).abs() < 1e-9, "{other:?}");
                }
                for &[i, j] in &topology.bonds {
                    let length = |frame: &[f64]| {
                        crate::observables::distance(point(frame, i), point(frame, j))
                    };
                    assert!((length(&frame) - length(&start)).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn configurations_tell_cis_from_trans_and_d_from_l() {
        let (topology, start) = build_sequence("Ace-AA-Nme").unwrap();
        let bonded = neighbours(topology.n_atoms(), &topology.bonds);
        let found = topology.backbone();
        let of = |frame: &[f64]| {
            (
                same_configuration(&start, frame, &found),
                same_peptide_bonds(&start, frame, &found),
            )
        };
        for (targets, trans) in [(&[3.0, -2.0, 1.7][..], true), (&[1.4, -0.3, 0.1], false)] {
            for (&atoms, &target) in found.omega.iter().zip(targets) {
                let mut frame = start.clone();
                assert!(set_dihedral(&mut frame, &bonded, atoms, target));
                assert_eq!(of(&frame), (trans, trans), "{target}");
            }
        }
        let mirrored: Vec<f64> = start.iter().map(|x| -x).collect();
        assert_eq!(of(&mirrored), (false, true));
    }

    /// Over the whole torus, crowded corners included.
    #[test]
    fn starts_are_where_they_belong_and_keep_their_configuration() {
        let (topology, start) = build_sequence("Ace-A-Nme").unwrap();
        let n = topology.n_atoms();
        let found = topology.backbone();
        let system = ForceField::amber99sbildn_obc2().system(&topology).unwrap();
        let windows = crate::umbrella::Windows::grid(2, 12, 150.0, 300.0);
        let bias = windows.bias(vec![found.phi[0], found.psi[0]], 1);
        let evaluator = BatchEvaluator::<f64>::new(&system);
        let (starts, ends) = restrained_starts(
            &evaluator,
            &topology,
            &start,
            &bias,
            MinimiseSettings::default(),
        )
        .unwrap();
        for ((frame, end), centre) in starts
            .chunks(3 * n)
            .zip(&ends)
            .zip(windows.centres.chunks(2))
        {
            assert!(end.energy.is_finite());
            for (angle, centre) in dihedrals(frame, n, &bias.dihedrals).iter().zip(centre) {
                assert!(wrap(angle - centre).abs() < 0.6, "{angle} {centre}");
            }
            assert!(found.centres.iter().all(|&c| chirality(frame, c) > 0.0));
            assert!(
                dihedrals(frame, n, &found.omega)
                    .iter()
                    .all(|w| w.cos() < -0.5)
            );
        }
    }
}
