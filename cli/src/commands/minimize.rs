//! `boltzmap minimize`: energy minima of conformations.

use anyhow::{Result, ensure};
use boltzmap_physics::BatchEvaluator;
use boltzmap_physics::minimise::{MinimiseSettings, minimise};

use super::print;
use crate::args::MinimizeArguments;
use crate::molecule::Molecule;
use crate::run_dir::check_writable;
use crate::trajectory;

/// Runs the command.
pub fn minimize(arguments: &MinimizeArguments) -> Result<()> {
    trajectory::check_ending(&arguments.out)?;
    ensure!(
        arguments.tolerance > 0.0,
        "--tolerance is {}, which must be positive",
        arguments.tolerance
    );
    let molecule = Molecule::from_arguments(&arguments.molecule)?;
    let mut positions = match &arguments.positions {
        Some(path) => trajectory::read(path, &molecule)?,
        None => molecule.positions.clone(),
    };
    check_writable(&arguments.out)?;
    let settings = MinimiseSettings {
        force_tolerance: arguments.tolerance,
        max_steps: arguments.max_steps,
        ..MinimiseSettings::default()
    };
    let evaluator = BatchEvaluator::<f64>::new(&molecule.system);
    let before = evaluator.energies(&positions)?;
    let results = minimise(&evaluator, &mut positions, settings)?;
    let energies: Vec<f64> = results.iter().map(|result| result.energy).collect();
    let single: Vec<f32> = positions.iter().map(|&x| x as f32).collect();
    let times: Vec<f32> = (0..results.len()).map(|index| index as f32).collect();
    let extra = [("potential_energy", energies.clone())];
    trajectory::write(&arguments.out, &molecule, &single, &times, &extra)?;
    let converged = results.iter().filter(|result| result.converged).count();
    let lowest = energies.iter().copied().fold(f64::INFINITY, f64::min);
    let first = before.iter().copied().fold(f64::INFINITY, f64::min);
    print(&format!(
        "{}: {converged} of {} conformations converged; lowest energy {lowest:.3} kJ/mol, {first:.3} before\n",
        arguments.out.display(),
        results.len()
    ))
}
