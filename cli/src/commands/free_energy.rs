//! What `remd` and `umbrella` say of free energies between basins of φ: which state is meant, and how sure it is.

use boltzmap_physics::observables::chirality;
use boltzmap_statistics::ensemble::Undetermined;
use boltzmap_statistics::free_energy::is_positive_state;
use boltzmap_statistics::jackknife::Estimate;
use serde_json::{Value, json};

use crate::molecule::Molecule;

/// The handedness of a residue's Cα.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handedness {
    L,
    D,
    /// No chiral centre, as glycine has none.
    Neither,
}

/// The state that a residue's ΔF is about: 0 < φ < 2 rad, for a D-residue its mirror image −2 < φ < 0 rad.
#[derive(Clone, Debug)]
pub(super) struct PhiState {
    residue: String,
    handedness: Handedness,
}

impl PhiState {
    /// Of the residue that the dihedral φ `[C(i−1), N, CA, C]` belongs to, by the handedness that it has in the molecule as given.
    pub(super) fn of(molecule: &Molecule, phi: [usize; 4]) -> PhiState {
        let backbone = molecule.topology.backbone();
        let centre = backbone.centres.iter().find(|centre| centre[0] == phi[2]);
        PhiState {
            residue: molecule
                .topology
                .residue_label(molecule.topology.atoms[phi[2]].residue_index),
            handedness: match centre.map(|&centre| chirality(&molecule.positions, centre) > 0.0) {
                Some(true) => Handedness::L,
                Some(false) => Handedness::D,
                None => Handedness::Neither,
            },
        }
    }

    /// Whether φ (rad) lies in the state.
    pub(super) fn contains(&self, phi: f64) -> bool {
        is_positive_state(match self.handedness {
            Handedness::D => -phi,
            Handedness::L | Handedness::Neither => phi,
        })
    }

    /// The state as an inequality.
    pub(super) fn inequality(&self) -> String {
        match self.handedness {
            Handedness::D => format!("-2 < phi {} < 0 rad", self.residue),
            Handedness::L | Handedness::Neither => format!("0 < phi {} < 2 rad", self.residue),
        }
    }

    /// What the handedness means for the state, where it is not the usual one.
    pub(super) fn remark(&self) -> &'static str {
        match self.handedness {
            Handedness::L => "",
            Handedness::D => " (a D-residue: the mirror image of 0 < phi < 2 rad)",
            Handedness::Neither => {
                " (no chiral centre: both signs of phi would be equal but for its neighbours)"
            }
        }
    }
}

/// An estimate in words: `3.93 ± 0.20 kT (95 %: 3.50 to 4.36)`, the standard error with two digits at least.
pub(super) fn words(estimate: &Estimate) -> String {
    let digits = -estimate.standard_error.log10().floor() + 1.0;
    // Casting takes NaN and what is negative to 0.
    let digits = (digits as usize).clamp(2, 12);
    let [low, high] = estimate.interval(0.95);
    format!(
        "{:.digits$} ± {:.digits$} kT (95 %: {low:.digits$} to {high:.digits$})",
        estimate.value, estimate.standard_error
    )
}

/// An estimate, or why there is none, as JSON.
pub(super) fn value(found: &Result<Estimate, String>) -> Value {
    match found {
        Ok(estimate) => {
            let [low, high] = estimate.interval(0.95);
            json!({
                "kt": estimate.value,
                "standard_error_kt": estimate.standard_error,
                "low_95_kt": low,
                "high_95_kt": high,
                "groups": estimate.groups,
                "effective_groups": estimate.effective_groups,
            })
        }
        Err(reason) => json!({
            "kt": null,
            "standard_error_kt": null,
            "could_not_be_estimated": reason,
        }),
    }
}

/// Why there is no estimate, with what can be done: `overlap` where states do not overlap, `longer` where samples are too few.
pub(super) fn reason(undetermined: &Undetermined, overlap: &str, longer: &str) -> String {
    let remedy = match undetermined {
        Undetermined::NoOverlap(_) => overlap,
        Undetermined::Empty(_) | Undetermined::OneVisit(_) | Undetermined::OneSeries => longer,
    };
    format!("{undetermined}; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(sequence: &str) -> Vec<PhiState> {
        let molecule = Molecule::from_sequence(sequence, "amber99sbildn+obc2").unwrap();
        let backbone = molecule.topology.backbone();
        let of = |&phi: &[usize; 4]| PhiState::of(&molecule, phi);
        backbone.phi.iter().map(of).collect()
    }

    #[test]
    fn the_state_follows_the_handedness() {
        let found = states("Ace-Ala-d-Ala-Gly-Nme");
        let words: Vec<String> = found.iter().map(PhiState::inequality).collect();
        assert_eq!(
            words[..3],
            [
                "0 < phi ALA 2 < 2 rad",
                "-2 < phi DAL 3 < 0 rad",
                "0 < phi GLY 4 < 2 rad"
            ]
        );
        assert!(found[0].contains(1.0) && !found[0].contains(-1.0));
        assert!(found[1].contains(-1.0) && !found[1].contains(1.0));
        assert!(found[2].contains(1.0) && found[0].remark().is_empty());
        assert!(found[2].remark().contains("no chiral centre"));
    }

    #[test]
    fn an_error_is_never_shown_as_nothing() {
        let estimate = |standard_error| Estimate {
            value: 3.9341,
            standard_error,
            degrees_of_freedom: 15.0,
            groups: 16,
            effective_groups: 16.0,
        };
        let told = words(&estimate(0.2));
        assert!(
            told.starts_with("3.93 ± 0.20 kT (95 %: 3.51 to 4.36)"),
            "{told}"
        );
        let told = words(&estimate(0.00034));
        assert!(told.starts_with("3.93410 ± 0.00034 kT"), "{told}");
        assert!(words(&estimate(12.0)).starts_with("3.93 ± 12.00 kT"));
    }
}
