//! The target of a map where there is one at hand: its density at the map's samples, and what is averaged over it.
//!
//! A run directory names a molecule: w = e^{−E/kT} |dx/dy| c / q(y), with the chart's Jacobian and the share c of a state in its
//! conformation, and no weight outside the chart's domain and the target's peptide bonds. A model of the analytic suite names
//! a distribution with a closed form.

use anyhow::Result;
use boltzmap_models::checkpoint::Checkpoint;
use boltzmap_objectives::targets::AnalyticTarget;
use boltzmap_physics::MolecularTarget;

use crate::config::Config;
use crate::pipeline::model::{ModelMetadata, require_atoms};
use crate::pipeline::molecule::Molecule;
use crate::pipeline::proposals::scale_at;

/// Coordinates of an analytic target whose means are compared.
const MEANS: usize = 4;

/// What is averaged.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A free energy: whether each sample is in the state.
    State(Vec<bool>),
    /// An average: the value at each sample.
    Average(Vec<f64>),
}

/// An observable at every sample.
#[derive(Clone, Debug)]
pub struct Observable {
    /// Its name.
    pub name: String,
    /// Its unit; empty for numbers without one.
    pub unit: &'static str,
    /// Its values.
    pub kind: Kind,
}

impl Observable {
    fn state(name: impl Into<String>, inside: Vec<bool>) -> Observable {
        Observable {
            name: name.into(),
            unit: "kT",
            kind: Kind::State(inside),
        }
    }

    fn average(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Observable {
        Observable {
            name: name.into(),
            unit,
            kind: Kind::Average(values),
        }
    }
}

/// The target at samples.
#[derive(Clone, Debug)]
pub struct Weighed {
    /// Log-density of the target at each sample in the coordinates of the map, up to a constant; −∞ outside of it. `[n]`
    pub log_density: Vec<f64>,
    /// What is averaged.
    pub observables: Vec<Observable>,
}

impl Weighed {
    /// The target given by its log-density and one state: for tests of known errors.
    pub fn with_state(log_density: Vec<f64>, name: &str, inside: Vec<bool>) -> Weighed {
        Weighed {
            log_density,
            observables: vec![Observable::state(name, inside)],
        }
    }
}

/// A molecule with the chart of a trained map.
pub struct Conformations {
    molecule: Molecule,
    target: MolecularTarget,
}

/// Where weights come from.
pub enum Weigher {
    /// A molecule in its force field.
    Molecule(Box<Conformations>),
    /// A closed form at time 1 − ε.
    Analytic(AnalyticTarget, f64),
}

impl Weigher {
    /// The target that a configuration or the metadata of a checkpoint name; none where neither does. ε is the schedule's.
    ///
    /// # Errors
    /// If the molecule cannot be built or the checkpoint belongs to another one.
    pub fn of(
        checkpoint: &Checkpoint,
        path: &std::path::Path,
        config: Option<&Config>,
        epsilon: f64,
    ) -> Result<Option<Weigher>> {
        let metadata = &checkpoint.metadata;
        if let Some(config) = config.filter(|_| metadata.get("coordinates").is_some()) {
            let coordinates = ModelMetadata::of(checkpoint, path)?.coordinates;
            let molecule = Molecule::new(config)?;
            require_atoms(&coordinates, &molecule, path)?;
            let target = molecule.target(coordinates)?;
            return Ok(Some(Weigher::Molecule(Box::new(Conformations {
                target: target.with_scale(scale_at(config, epsilon)),
                molecule,
            }))));
        }
        let named = metadata.get("target").and_then(|name| name.as_str());
        Ok(named
            .and_then(AnalyticTarget::named)
            .map(|target| Weigher::Analytic(target, 1.0 - epsilon)))
    }

    /// The target at final states `[n, T, C]` of the map.
    ///
    /// # Errors
    /// If states cannot be decoded or energies not computed.
    pub fn weigh(&self, states: &[f32]) -> Result<Weighed> {
        match self {
            Weigher::Molecule(conformations) => conformations.weigh(states),
            Weigher::Analytic(target, time) => {
                let wide: Vec<f64> = states.iter().map(|&v| f64::from(v)).collect();
                Ok(analytic(target, &wide, *time))
            }
        }
    }
}

impl Conformations {
    fn weigh(&self, states: &[f32]) -> Result<Weighed> {
        let molecule = &self.molecule;
        let wide: Vec<f64> = states.iter().map(|&v| f64::from(v)).collect();
        let found = self.target.conformations(&wide)?;
        let width = 3 * molecule.n_atoms();
        let dimension = molecule.torus_dimension;
        let mut torus = vec![0.0; found.log_density.len() * dimension];
        for (i, torus) in torus.chunks_exact_mut(dimension).enumerate() {
            if found.log_density[i] > f64::NEG_INFINITY {
                let frame = &found.decoded.positions[i * width..(i + 1) * width];
                torus.copy_from_slice(&molecule.torus(frame));
            }
        }
        let mut observables = Vec::new();
        let angle = |column: usize| -> Vec<f64> {
            torus
                .iter()
                .skip(column)
                .step_by(dimension)
                .copied()
                .collect()
        };
        let index = |residue: usize| match dimension {
            2 => String::new(),
            _ => (residue + 1).to_string(),
        };
        for residue in 0..dimension / 2 {
            let phi = angle(2 * residue);
            let inside = phi.iter().map(|&phi| molecule.in_state(residue, phi));
            let name = molecule.state(residue, &format!("φ{}", index(residue)));
            observables.push(Observable::state(name, inside.collect()));
        }
        observables.push(Observable::average("energy", "kT", found.energy_kt));
        for column in 0..dimension {
            let name = ["φ", "ψ"][column % 2];
            let name = format!("{name}{}", index(column / 2));
            let angles = angle(column);
            let cosines = angles.iter().map(|a| a.cos()).collect();
            let sines = angles.iter().map(|a| a.sin()).collect();
            observables.push(Observable::average(format!("cos {name}"), "", cosines));
            observables.push(Observable::average(format!("sin {name}"), "", sines));
        }
        Ok(Weighed {
            log_density: found.log_density,
            observables,
        })
    }
}

/// A closed form at points `[n, d]`: the free energy of its parts, its means, and its mean log-density.
pub fn analytic(target: &AnalyticTarget, points: &[f64], time: f64) -> Weighed {
    let d = target.dimension();
    let log_density: Vec<f64> = points
        .chunks_exact(d)
        .map(|x| target.log_density(x, time))
        .collect();
    let mut observables = parts(target, points, time);
    for column in 0..d.min(MEANS) {
        let values = points.iter().skip(column).step_by(d).copied().collect();
        let name = format!("x{}", column + 1);
        observables.push(Observable::average(name, "", values));
    }
    observables.push(Observable::average("log p", "nats", log_density.clone()));
    Weighed {
        log_density,
        observables,
    }
}

/// The parts that a target falls into: components of a mixture, by the largest share in the density; squares of the checkerboard;
/// the two halves of a Gaussian and its outer twentieth along the widest axis.
fn parts(target: &AnalyticTarget, points: &[f64], time: f64) -> Vec<Observable> {
    let d = target.dimension();
    match target {
        AnalyticTarget::Mixture(mixture) => {
            let nearest: Vec<usize> = points
                .chunks_exact(d)
                .map(|x| {
                    let shares = mixture.responsibilities(x, time);
                    let largest = |a: &usize, b: &usize| shares[*a].total_cmp(&shares[*b]);
                    (0..shares.len()).max_by(largest).unwrap_or(0)
                })
                .collect();
            states(&nearest, mixture.weights.len(), "component")
        }
        AnalyticTarget::Checkerboard { scale } => {
            let square: Vec<usize> = points
                .chunks_exact(2)
                .map(|x| {
                    let column = (x[0] / (time * scale)).floor().clamp(-2.0, 1.0) + 2.0;
                    // The squares of a column end at its parity plus one and begin at its parity less two.
                    let middle = column % 2.0 - 0.5;
                    2 * column as usize + usize::from(x[1] / (time * scale) < middle)
                })
                .collect();
            states(&square, 8, "square")
        }
        AnalyticTarget::Gaussian {
            standard_deviations,
        } => {
            let last = d - 1;
            let sigma = ((time * standard_deviations[last]).powi(2) + (1.0 - time).powi(2)).sqrt();
            let along = |limit: f64| {
                let x = points.iter().skip(last).step_by(d);
                x.map(|x| x / sigma > limit).collect()
            };
            vec![
                Observable::state(format!("x{d} > 0"), along(0.0)),
                Observable::state(format!("x{d} > 1.645 σ"), along(1.645)),
            ]
        }
    }
}

fn states(of: &[usize], count: usize, name: &str) -> Vec<Observable> {
    (0..count)
        .map(|k| {
            Observable::state(
                format!("{name} {}", k + 1),
                of.iter().map(|&place| place == k).collect(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltzmap_kernels::random::Stream;

    #[test]
    fn parts_hold_what_their_target_puts_into_them() {
        for (name, expected) in [
            ("mixture-2d", vec![0.5, 0.3, 0.2]),
            ("circle", vec![0.125; 8]),
            ("checkerboard", vec![0.125; 8]),
            ("gaussian-8d", vec![0.5, 0.05]),
        ] {
            let target = AnalyticTarget::named(name).unwrap();
            let (d, n) = (target.dimension(), 20_000);
            let mut points = vec![0.0; n * d];
            for (i, x) in points.chunks_exact_mut(d).enumerate() {
                target.sample(&mut Stream::new(3, 0, i as u64), x);
            }
            let shares: Vec<f64> = parts(&target, &points, 1.0)
                .iter()
                .map(|part| match &part.kind {
                    Kind::State(inside) => {
                        inside.iter().filter(|&&inside| inside).count() as f64 / n as f64
                    }
                    Kind::Average(_) => unreachable!("parts are states"),
                })
                .collect();
            assert_eq!(shares.len(), expected.len(), "{name}");
            for (share, expected) in shares.iter().zip(expected) {
                // Five standard errors and what the components of the mixture share.
                assert!((share - expected).abs() < 0.02, "{name}: {shares:?}");
            }
        }
    }
}
