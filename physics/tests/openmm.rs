//! Energies and forces of built peptides against OpenMM's Reference platform: all residues, termini, protonation states, disulfides and
//! D-residues, in every force field and solvent, with and without a cutoff.
//!
//! `benches/baselines/openmm_energies.py` wrote the numbers, and compares more of them where OpenMM is installed.

use boltzmap_physics::system::BornModel;
use boltzmap_physics::{BatchEvaluator, ForceField, build_sequence, energy_forces_reference};
use serde_json::Value;

const TOLERANCE: f64 = 1e-10;

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn force_field(name: &str, cutoff: Option<f64>) -> ForceField {
    let force_field = match name {
        "amber99sbildn+obc2" => ForceField::amber99sbildn_obc2(),
        "ff14sb+obc1" => ForceField::ff14sb(Some(BornModel::Obc1), None),
        "ff14sb+obc2" => ForceField::ff14sb(Some(BornModel::Obc2), None),
        other => panic!("unknown force field {other}"),
    };
    ForceField {
        cutoff,
        ..force_field
    }
}

#[test]
fn every_term_and_the_forces_are_those_of_openmm() {
    let text = include_str!("data/openmm.json");
    let records: Vec<Value> = serde_json::from_str(text).expect("JSON");
    let mut systems = 0;
    for record in &records {
        let sequence = record["sequence"].as_str().expect("a sequence");
        let (topology, _) = build_sequence(sequence).expect("it can be built");
        let positions: Vec<f64> = record["positions"]
            .as_array()
            .expect("positions")
            .iter()
            .map(number)
            .collect();
        for theirs in record["systems"].as_array().expect("systems") {
            let name = theirs["force_field"].as_str().expect("a name");
            let cutoff = theirs["cutoff"].as_f64();
            let system = force_field(name, cutoff)
                .system(&topology)
                .expect("parameters");
            let (energies, forces) = energy_forces_reference(&system, &positions);
            let mut batch_forces = vec![0.0; positions.len()];
            let batch = BatchEvaluator::<f64>::new(&system)
                .terms(&positions, Some(&mut batch_forces))
                .expect("energies");
            for (energies, forces) in [(energies, forces), (batch[0], batch_forces)] {
                for (term, ours) in [
                    ("bond", energies.bond),
                    ("angle", energies.angle),
                    ("torsion", energies.torsion),
                    ("nonbonded", energies.nonbonded),
                    ("gb", energies.generalized_born),
                ] {
                    let theirs = number(&theirs[term]);
                    assert!(
                        (ours - theirs).abs() <= TOLERANCE * theirs.abs().max(1.0),
                        "{sequence} {name} {cutoff:?}: {term} is {ours}, not {theirs}"
                    );
                }
                let projection: f64 = forces
                    .iter()
                    .enumerate()
                    .map(|(k, force)| force * (k as f64).cos())
                    .sum();
                let largest = number(&theirs["largest_force"]);
                let off = (projection - number(&theirs["force_projection"])).abs();
                assert!(
                    off <= TOLERANCE * largest * (forces.len() as f64).sqrt(),
                    "{sequence} {name} {cutoff:?}: forces are off by {off}"
                );
            }
            systems += 1;
        }
    }
    assert_eq!(systems, 6 * records.len());
    assert!(records.len() > 30);
}
