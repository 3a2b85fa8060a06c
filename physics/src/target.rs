//! A molecule in its force field as a target: Boltzmann's distribution over the states of a chart.
//!
//! log p(y) = −E(x(y))/RT + ln|∂x/∂y| + ln c, with the share c of a state in its conformation ([`Decoded::log_share`]); −∞ outside of the
//! chart's domain, where a peptide bond is turned, and where atoms lie on top of each other.

use boltzmap_sampling::SamplingError;
use boltzmap_sampling::target::{DensityAndGradient, Target, count_states};

use crate::batch::{BatchError, BatchEvaluator};
use crate::chart::{ChartError, Coordinates, Decoded};
use crate::observables::{Backbone, same_peptide_bonds};
use crate::system::System;

/// What can go wrong that is no property of a state.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// States that the chart does not take.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// Conformations that the force field does not take.
    #[error("the energies of the states cannot be computed: {0}")]
    Energy(#[from] BatchError),
    /// A temperature that is none.
    #[error("RT is {0} kJ/mol; it must be positive")]
    ThermalEnergy(f64),
    /// A chart of another molecule.
    #[error(
        "the chart is of {chart} atoms and the molecule has {molecule}; fit it to frames of this molecule"
    )]
    Atoms {
        /// Atoms of the chart.
        chart: usize,
        /// Atoms of the molecule.
        molecule: usize,
    },
}

impl From<TargetError> for SamplingError {
    fn from(error: TargetError) -> Self {
        SamplingError::failed(error)
    }
}

/// Boltzmann's distribution of a molecule over the states of a chart.
pub struct MolecularTarget {
    coordinates: Coordinates,
    evaluator: BatchEvaluator<f64>,
    thermal_energy: f64,
    scale: f64,
    peptide_bonds: Option<(Vec<f64>, Backbone)>,
}

/// States as conformations.
#[derive(Clone, Debug, PartialEq)]
pub struct Conformations {
    /// log p of the states, up to ln Z, `[n]`.
    pub log_density: Vec<f64>,
    /// E/RT, `[n]`; 0 where log p is −∞.
    pub energy_kt: Vec<f64>,
    /// What the states decode to.
    pub decoded: Decoded,
    /// ∂(−E/RT)/∂x, per nm, `[n, atoms, 3]`; 0 where log p is −∞. Empty unless asked for.
    forces: Vec<f64>,
}

impl MolecularTarget {
    /// At the thermal energy RT in kJ/mol.
    ///
    /// # Errors
    /// If the chart is of another number of atoms, or RT is not positive.
    pub fn new(
        coordinates: Coordinates,
        system: &System,
        thermal_energy: f64,
    ) -> Result<Self, TargetError> {
        if !(thermal_energy > 0.0 && thermal_energy.is_finite()) {
            return Err(TargetError::ThermalEnergy(thermal_energy));
        }
        let (chart, molecule) = (coordinates.n_atoms(), system.n_atoms());
        if chart != molecule {
            return Err(TargetError::Atoms { chart, molecule });
        }
        Ok(Self {
            coordinates,
            evaluator: BatchEvaluator::new(system),
            thermal_energy,
            scale: 1.0,
            peptide_bonds: None,
        })
    }

    /// Without conformations whose peptide bonds are not cis or trans as in `positions` `[atoms, 3]`.
    ///
    /// # Panics
    /// If these are the positions of another number of atoms.
    pub fn with_fixed_peptide_bonds(mut self, positions: &[f64], backbone: &Backbone) -> Self {
        assert_eq!(positions.len(), 3 * self.coordinates.n_atoms());
        self.peptide_bonds = Some((positions.to_vec(), backbone.clone()));
        self
    }

    /// Of states that are the chart's times `scale`, as a map's are that ends before time 1.
    ///
    /// # Panics
    /// If it is not positive and finite.
    pub fn with_scale(mut self, scale: f64) -> Self {
        assert!(scale > 0.0 && scale.is_finite(), "the scale is {scale}");
        self.scale = scale;
        self
    }

    /// The chart.
    pub fn coordinates(&self) -> &Coordinates {
        &self.coordinates
    }

    /// States `[n, tokens, channels]` as conformations.
    ///
    /// # Errors
    /// If the array is no whole number of states.
    pub fn conformations(&self, states: &[f64]) -> Result<Conformations, TargetError> {
        Ok(self.evaluate(states, false)?.1)
    }

    /// The chart's states, and the conformations.
    fn evaluate(
        &self,
        states: &[f64],
        forces: bool,
    ) -> Result<(Vec<f64>, Conformations), TargetError> {
        let states: Vec<f64> = states.iter().map(|x| x / self.scale).collect();
        let decoded = self.coordinates.decode(&states)?;
        let width = 3 * self.coordinates.n_atoms();
        let frame = |i: usize| &decoded.positions[i * width..(i + 1) * width];
        let n = decoded.in_domain.len();
        let belongs = |i: usize| match &self.peptide_bonds {
            Some((built, backbone)) => same_peptide_bonds(frame(i), built, backbone),
            None => true,
        };
        let inside: Vec<usize> = (0..n)
            .filter(|&i| decoded.in_domain[i] && belongs(i))
            .collect();
        let positions: Vec<f64> = inside.iter().flat_map(|&i| frame(i)).copied().collect();
        let mut energies = vec![0.0; inside.len()];
        let mut gradients = vec![0.0; if forces { positions.len() } else { 0 }];
        let wanted = forces.then_some(&mut gradients[..]);
        self.evaluator
            .energies_forces(&positions, &mut energies, wanted)?;
        let mut found = Conformations {
            log_density: vec![f64::NEG_INFINITY; n],
            energy_kt: vec![0.0; n],
            forces: vec![0.0; if forces { n * width } else { 0 }],
            decoded,
        };
        let constant = self.coordinates.dimension() as f64 * self.scale.ln();
        for (k, &i) in inside.iter().enumerate() {
            let energy = energies[k] / self.thermal_energy;
            let value = found.decoded.log_det[i] + found.decoded.log_share[i] - energy - constant;
            let of = k * width..(k + 1) * width;
            let regular = !forces || gradients[of.clone()].iter().all(|f| f.is_finite());
            // Atoms on top of each other have no weight.
            if value.is_finite() && regular {
                found.log_density[i] = value;
                found.energy_kt[i] = energy;
                if forces {
                    let to = &mut found.forces[i * width..(i + 1) * width];
                    for (to, force) in to.iter_mut().zip(&gradients[of]) {
                        *to = force / self.thermal_energy;
                    }
                }
            }
        }
        Ok((states, found))
    }
}

impl Target for MolecularTarget {
    fn shape(&self) -> [usize; 2] {
        self.coordinates.state_shape()
    }

    fn dimension(&self) -> usize {
        self.coordinates.dimension()
    }

    fn log_density(&self, states: &[f64]) -> Result<Vec<f64>, SamplingError> {
        count_states(states, self.state_size())?;
        Ok(self.conformations(states)?.log_density)
    }

    fn log_density_and_gradient(
        &self,
        states: &[f64],
    ) -> Result<DensityAndGradient, SamplingError> {
        let n = count_states(states, self.state_size())?;
        let (own, found) = self.evaluate(states, true)?;
        let mut gradients = self
            .coordinates
            .pull_back_log_density(&own, &found.decoded, &found.forces)
            .map_err(TargetError::from)?;
        let size = self.state_size();
        for i in 0..n {
            let gradient = &mut gradients[i * size..(i + 1) * size];
            match found.log_density[i] == f64::NEG_INFINITY {
                true => gradient.fill(0.0),
                false => gradient.iter_mut().for_each(|g| *g /= self.scale),
            }
        }
        Ok(DensityAndGradient {
            log_density: found.log_density,
            gradients,
        })
    }

    fn project(&self, states: &mut [f64]) {
        if !self.coordinates.is_mean_free() {
            return;
        }
        let [tokens, channels] = self.shape();
        for state in states.chunks_exact_mut(tokens * channels) {
            for channel in 0..channels {
                let place = |token: usize| token * channels + channel;
                let sum: f64 = (0..tokens).map(|token| state[place(token)]).sum();
                let mean = sum / tokens as f64;
                (0..tokens).for_each(|token| state[place(token)] -= mean);
            }
        }
    }
}
