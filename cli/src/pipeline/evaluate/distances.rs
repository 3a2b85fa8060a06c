//! E-W2 and T-W2 between samples and reference, before and after re-weighting, with their floors.

use anyhow::Result;
use boltzmap_physics::batch::BatchEvaluator;
use boltzmap_statistics as statistics;

use super::super::frames::spread;
use super::super::molecule::Molecule;
use crate::progress;

/// Points of the unweighted proposal's T-W2. Training shifts weight between basins on purpose, so that much mass must
/// travel far, and exact transport over far more points would take minutes.
const PROPOSAL_POINTS: usize = 2500;

/// Conformations with the quantities that metrics compare.
pub(super) struct Compared {
    /// φ₁, ψ₁, φ₂, ψ₂, …, rad, `[n, dimension]`.
    pub(super) torus: Vec<f64>,
    /// Potential energies, kT, `[n]`.
    pub(super) energy_kt: Vec<f64>,
    dimension: usize,
}

impl Compared {
    /// Of frames `[n, atoms, 3]`, nm.
    pub(super) fn frames(positions: &[f32], molecule: &Molecule) -> Result<Compared> {
        let wide: Vec<f64> = positions.iter().map(|&x| x as f64).collect();
        let energies = BatchEvaluator::<f64>::new(&molecule.system).energies(&wide)?;
        Ok(Compared::new(
            molecule.torus(&wide),
            energies.iter().map(|e| e / molecule.thermal_energy),
            molecule.torus_dimension,
        ))
    }

    pub(super) fn new(
        torus: Vec<f64>,
        energy_kt: impl Iterator<Item = f64>,
        dimension: usize,
    ) -> Compared {
        Compared {
            torus,
            energy_kt: energy_kt.collect(),
            dimension,
        }
    }

    /// The rows of this and another set.
    pub(super) fn and(&self, other: &Compared) -> Compared {
        let energies = self.energy_kt.iter().chain(&other.energy_kt).copied();
        let torus = [&self.torus[..], &other.torus].concat();
        Compared::new(torus, energies, self.dimension)
    }

    pub(super) fn count(&self) -> usize {
        self.energy_kt.len()
    }

    /// The chosen rows, with repetitions.
    pub(super) fn rows(&self, chosen: &[usize]) -> Compared {
        let d = self.dimension;
        let torus = chosen
            .iter()
            .flat_map(|&i| &self.torus[i * d..(i + 1) * d])
            .copied()
            .collect();
        Compared::new(torus, chosen.iter().map(|&i| self.energy_kt[i]), d)
    }

    /// `n` rows evenly over their order. Frames come ladder by ladder, so these are of all ladders and times; the first `n` would be of the
    /// first ladders alone.
    pub(super) fn thinned(&self, n: usize) -> Compared {
        let all: Vec<usize> = (0..self.count()).collect();
        self.rows(&spread(&all, n))
    }

    /// E-W2 (kT) and T-W2 (rad) between two sets.
    fn distances(&self, other: &Compared) -> Result<(f64, f64)> {
        progress::check_interrupt()?;
        let energy = statistics::e_w2(&self.energy_kt, &other.energy_kt)?;
        let torus = statistics::t_w2(&self.torus, &other.torus, self.dimension)?;
        Ok((energy, torus.distance))
    }
}

/// Distances to the reference; each pair is E-W2 (kT) and T-W2 (rad).
pub(super) struct Distances {
    /// Of the re-weighted samples.
    pub(super) reweighted: (f64, f64),
    /// Of the samples as drawn.
    pub(super) proposal: (f64, f64),
    /// Of the second reference set.
    pub(super) floor: (f64, f64),
}

impl Distances {
    /// Between as many points of each side as the smaller has: `resampled` places of `proposal` drawn in proportion to weights, and
    /// `inside`, those with finite energies.
    pub(super) fn measure(
        proposal: &Compared,
        resampled: &[usize],
        inside: &[usize],
        reference: &Compared,
        second: &Compared,
    ) -> Result<Distances> {
        let compared = resampled.len();
        let part = reference.thinned(compared);
        let (_, torsions) = proposal
            .rows(&inside[..inside.len().min(PROPOSAL_POINTS)])
            .distances(&reference.thinned(PROPOSAL_POINTS))?;
        let energies = statistics::e_w2(&proposal.rows(inside).energy_kt, &part.energy_kt)?;
        Ok(Distances {
            reweighted: proposal.rows(resampled).distances(&part)?,
            proposal: (energies, torsions),
            floor: second.thinned(compared).distances(&part)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_takes_every_ladder() {
        // Two ladders one after the other, each of 500 frames in another place: half of the frames is half of each, as the first half is not.
        let torus: Vec<f64> = (0..1000)
            .map(|i| if i < 500 { -1.0 } else { 1.0 })
            .collect();
        let ladders = Compared::new(torus, (0..1000).map(|i| i as f64), 1);
        let half = ladders.thinned(500);
        assert_eq!(half.torus.iter().filter(|angle| **angle > 0.0).count(), 250);
        let (_, to_all) = half.distances(&ladders).unwrap();
        let first: Vec<usize> = (0..500).collect();
        let (_, of_first) = ladders.rows(&first).distances(&ladders).unwrap();
        assert!(to_all < 1e-9 && of_first > 1.0, "{to_all} {of_first}");
        assert_eq!(ladders.thinned(2000).count(), 1000);
    }
}
