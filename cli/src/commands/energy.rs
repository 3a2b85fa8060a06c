//! `boltzmap energy`: force-field energies and forces of conformations.

use std::time::Instant;

use anyhow::Result;
use boltzmap_kernels::real::Real;
use boltzmap_physics::Energies;
use boltzmap_physics::batch::BatchEvaluator;
use serde_json::{Value, json};

use super::print;
use crate::args::{EnergyArguments, Precision};
use crate::molecule::{Molecule, force_field_with_cutoff};
use crate::npz::NpzWriter;
use crate::progress::note;
use crate::run_dir::check_writable;
use crate::trajectory;

/// The name of a term in the file, and the term.
type Term = (&'static str, fn(&Energies) -> f64);

const TERMS: [Term; 5] = [
    ("bond", |e| e.bond),
    ("angle", |e| e.angle),
    ("torsion", |e| e.torsion),
    ("nonbonded", |e| e.nonbonded),
    ("gb", |e| e.generalized_born),
];

/// Runs the command.
pub fn energy(arguments: &EnergyArguments) -> Result<()> {
    let force_field = force_field_with_cutoff(&arguments.force_field, arguments.cutoff)?;
    let molecule = Molecule::read(&arguments.pdb, &force_field)?;
    let atoms = molecule.n_atoms();
    let positions = match &arguments.positions {
        Some(path) => trajectory::read(path, &molecule)?,
        None => molecule.positions.clone(),
    };
    check_writable(&arguments.out)?;
    let n = positions.len() / (3 * atoms);
    let shape = [n, atoms, 3];

    let start = Instant::now();
    let (energies, largest_force, writer) = match arguments.precision {
        Precision::F64 => {
            let (energies, forces) = evaluate(&molecule, &positions)?;
            let writer = NpzWriter::new().array("forces", &shape, &forces);
            (energies, largest(forces.into_iter()), writer)
        }
        Precision::F32 => {
            let (energies, forces) = evaluate(&molecule, &centred(&positions, atoms))?;
            let writer = NpzWriter::new().array("forces", &shape, &forces);
            (energies, largest(forces.into_iter().map(f64::from)), writer)
        }
    };
    let seconds = start.elapsed().as_secs_f64();

    let total: Vec<f64> = energies.iter().map(Energies::total).collect();
    let mut writer = writer.array("energy", &[n], &total);
    for (name, term) in TERMS {
        let values: Vec<f64> = energies.iter().map(term).collect();
        writer = writer.array(name, &[n], &values);
    }
    writer.write(&arguments.out)?;
    let lost = total.iter().filter(|energy| !energy.is_finite()).count();
    if lost > 0 {
        note(&format!(
            "note: {lost} of {n} conformations have no finite energy; do atoms lie on one another?"
        ));
    }
    let summary = summary(arguments, &energies, &total, largest_force, atoms, seconds);
    if arguments.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&summary)?));
    }
    print(&table(arguments, &energies, &total, seconds))
}

/// Energies by term, and forces `[n, atoms, 3]`.
fn evaluate<T: Real>(molecule: &Molecule, positions: &[T]) -> Result<(Vec<Energies>, Vec<T>)> {
    let mut forces = vec![T::from_f64(0.0); positions.len()];
    let energies =
        BatchEvaluator::<T>::new(&molecule.system).terms(positions, Some(&mut forces))?;
    Ok((energies, forces))
}

/// The conformations in single precision, each around its mean: single precision resolves distances best near the origin, and energies do
/// not see the shift.
fn centred(positions: &[f64], atoms: usize) -> Vec<f32> {
    let mut centred = Vec::with_capacity(positions.len());
    for conformation in positions.chunks_exact(3 * atoms) {
        let mut mean = [0.0; 3];
        for atom in conformation.as_chunks::<3>().0 {
            for axis in 0..3 {
                mean[axis] += atom[axis] / atoms as f64;
            }
        }
        centred.extend(
            conformation
                .as_chunks::<3>()
                .0
                .iter()
                .flat_map(|atom| [0, 1, 2].map(|axis| (atom[axis] - mean[axis]) as f32)),
        );
    }
    centred
}

/// The largest absolute value; NaN if there is one.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |largest: f64, value| {
        if value.is_nan() {
            value
        } else {
            largest.max(value.abs())
        }
    })
}

/// Smallest, mean and largest.
fn range(values: &[f64]) -> [f64; 3] {
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [
        smallest,
        values.iter().sum::<f64>() / values.len() as f64,
        greatest,
    ]
}

fn precision(arguments: &EnergyArguments) -> &'static str {
    match arguments.precision {
        Precision::F64 => "f64",
        Precision::F32 => "f32",
    }
}

fn summary(
    arguments: &EnergyArguments,
    energies: &[Energies],
    total: &[f64],
    largest_force: f64,
    atoms: usize,
    seconds: f64,
) -> Value {
    let describe = |values: &[f64]| {
        let [min, mean, max] = range(values);
        json!({"min": min, "mean": mean, "max": max})
    };
    let mut summary = json!({
        "n": total.len(),
        "atoms": atoms,
        "force_field": arguments.force_field,
        "cutoff_nm": arguments.cutoff,
        "precision": precision(arguments),
        "unit": "kJ/mol",
        "energy": describe(total),
        "largest_force_component": largest_force,
        "seconds": seconds,
        "out": arguments.out.display().to_string(),
    });
    for (name, term) in TERMS {
        summary[name] = describe(&energies.iter().map(term).collect::<Vec<_>>());
    }
    summary
}

fn table(
    arguments: &EnergyArguments,
    energies: &[Energies],
    total: &[f64],
    seconds: f64,
) -> String {
    let n = total.len();
    let plural = if n == 1 { "" } else { "s" };
    let mut text = format!(
        "{}: {n} conformation{plural} in {} by {}, {seconds:.3} s; kJ/mol:\n",
        arguments.out.display(),
        precision(arguments),
        arguments.force_field
    );
    if n > 1 {
        text += &format!("{:<10} {:>14} {:>14} {:>14}\n", "", "min", "mean", "max");
    }
    let mut line = |name: &str, values: &[f64]| {
        let [min, mean, max] = range(values);
        text += &match n {
            1 => format!("{name:<10} {mean:>14.6}\n"),
            _ => format!("{name:<10} {min:>14.4} {mean:>14.4} {max:>14.4}\n"),
        };
    };
    for (name, term) in TERMS {
        line(name, &energies.iter().map(term).collect::<Vec<_>>());
    }
    line("energy", total);
    text
}
