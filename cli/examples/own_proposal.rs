//! A proposal of one's own, weighted against alanine dipeptide's energy: a Gaussian in whitened internal coordinates, mixed with a wider one
//! for the tails.
//!
//! `cargo run --release --example own_proposal`

use std::error::Error;

use boltzmap_kernels::random::Stream;
use boltzmap_physics::builder::build_minimised;
use boltzmap_physics::chart::{Coordinates, InternalChart, InternalOptions, ZMatrix};
use boltzmap_physics::langevin::{Langevin, LangevinSettings};
use boltzmap_physics::minimise::MinimiseSettings;
use boltzmap_physics::system::GAS_CONSTANT;
use boltzmap_physics::{ForceField, MolecularTarget};
use boltzmap_sampling::{
    Control, DiagonalGaussian, Draws, LogDensity, Proposal, SamplingError, Target, Trust,
    importance_sampling,
};
use boltzmap_statistics::log_sum_exp;

/// 0.8 N(0, I) + 0.2 N(0, 1.5² I).
struct TwoWidths {
    narrow: DiagonalGaussian,
    wide: DiagonalGaussian,
    seed: u64,
}

impl Proposal for TwoWidths {
    fn shape(&self) -> [usize; 2] {
        Proposal::shape(&self.narrow)
    }

    fn draw(&self, indices: &[u64], control: &Control<'_>) -> Result<Draws, SamplingError> {
        let mut states = Vec::new();
        for &index in indices {
            let is_wide = Stream::new(self.seed, 1, index).uniform() < 0.2;
            let from = if is_wide { &self.wide } else { &self.narrow };
            states.extend(from.draw(&[index], control)?.states);
        }
        Ok(Draws {
            log_density: self.log_density(&states, control)?,
            states,
            evaluations: 0,
            folds: 0,
        })
    }

    fn log_density(
        &self,
        states: &[f64],
        _control: &Control<'_>,
    ) -> Result<LogDensity, SamplingError> {
        let [narrow, wide] = [&self.narrow, &self.wide].map(|g| Target::log_density(g, states));
        let mixed = narrow?.into_iter().zip(wide?);
        let mixed = mixed.map(|(a, b)| log_sum_exp(&[0.8f64.ln() + a, 0.2f64.ln() + b]));
        Ok(LogDensity::Exact(mixed.collect()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let force_field = ForceField::amber99sbildn_obc2();
    let molecule = build_minimised("Ace-A-Nme", &force_field, MinimiseSettings::default())?;
    // A hundred replicas of dynamics near the minimum, from which the coordinates are whitened.
    let langevin = Langevin::new(&molecule.system, LangevinSettings::default())?;
    let start: Vec<f32> = molecule.positions.iter().map(|&x| x as f32).collect();
    let mut replicas = langevin.start(&start.repeat(100), &[300.0; 100], 1)?;
    let mut frames = Vec::new();
    for _ in 0..20 {
        langevin.run(&mut replicas, 500)?;
        frames.extend_from_slice(&replicas.positions);
    }
    let numbers = molecule.topology.atomic_numbers();
    let matrix = ZMatrix::build(numbers.len(), &molecule.topology.bonds, &numbers)?;
    let chart = InternalChart::fit(matrix, &numbers, InternalOptions::default(), &frames)?;
    let shape = chart.state_shape();
    let kt = GAS_CONSTANT * 300.0;
    let target = MolecularTarget::new(Coordinates::Internal(chart), &molecule.system, kt)?;

    let size = shape[0] * shape[1];
    let proposal = TwoWidths {
        narrow: DiagonalGaussian::standard(shape, 1),
        wide: DiagonalGaussian::new(shape, vec![0.0; size], vec![1.5; size], 1)?,
        seed: 1,
    };
    let (indices, control) = ((0..20_000).collect::<Vec<u64>>(), Control::default());
    let found = importance_sampling(&proposal, &target, &indices, Trust::Audited, &control)?;
    let effective = found.ess() * indices.len() as f64;
    println!(
        "{} states, log q {}: {effective:.1} effective, ln Z {:.2}",
        indices.len(),
        found.likelihood,
        found.log_normalisation()
    );
    let energies = target.conformations(&found.states)?.energy_kt;
    let weighted = found.weights()?.into_iter().zip(energies);
    let mean: f64 = weighted.map(|(w, e)| w * e).sum();
    println!("mean energy {mean:.2} kT");
    Ok(())
}
