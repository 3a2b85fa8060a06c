//! Parameters, energies and forces against OpenMM's Reference platform in double precision.
//!
//! `tests/data/oracle` holds peptides with the parameters that OpenMM 8.6.1 assigns and the energies and forces it computes: alanine peptides in 25
//! conformations each, other peptides in one distorted conformation for every force field, solvent and cutoff.

use boltzmap_physics::forcefield::matching::match_residues;
use boltzmap_physics::system::{BornModel, System};
use boltzmap_physics::{
    Atom, BatchEvaluator, Element, ForceField, SingleEvaluator, Topology, energy_forces_reference,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Largest deviation of an energy relative to max(1 kJ/mol, |E|), and of a force relative to the largest force component.
const TOLERANCE: f64 = 1e-10;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value)
        .iter()
        .map(|number| number.as_f64().expect("a number"))
        .collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    list(value).iter().map(numbers).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn index(value: &Value) -> usize {
    value.as_u64().expect("an index") as usize
}

fn topology(record: &Value) -> Topology {
    let atom = |atom: &Value| Atom {
        name: text(&atom[0]).into(),
        element: Element::from_symbol(text(&atom[1])).expect("a known element"),
        residue_name: text(&atom[2]).into(),
        residue_index: index(&atom[3]),
        chain: 'A',
    };
    let bonds = list(&record["bonds"])
        .iter()
        .map(|bond| [index(&bond[0]), index(&bond[1])]);
    Topology::new(list(&record["atoms"]).iter().map(atom).collect(), bonds)
}

fn force_field(key: &str, cutoff: Option<f64>) -> ForceField {
    match key.split('/').next().expect("a key") {
        "amber99sbildn+amber99_obc" => ForceField::amber99sbildn_obc2(),
        "ff14SB+obc1" => ForceField::ff14sb(Some(BornModel::Obc1), cutoff),
        "ff14SB+obc2" => ForceField::ff14sb(Some(BornModel::Obc2), cutoff),
        other => panic!("unknown force field {other}"),
    }
}

/// Rows with their atoms in canonical direction, sorted.
fn canonical(mut rows: Vec<Vec<f64>>, n_atoms: usize) -> Vec<Vec<f64>> {
    for row in &mut rows {
        let reversed: Vec<f64> = row[..n_atoms].iter().rev().copied().collect();
        if reversed.as_slice() < &row[..n_atoms] {
            row[..n_atoms].copy_from_slice(&reversed);
        }
    }
    rows.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    rows
}

fn assert_rows(what: &str, ours: Vec<Vec<f64>>, theirs: Vec<Vec<f64>>, n_atoms: usize) {
    let (ours, theirs) = (canonical(ours, n_atoms), canonical(theirs, n_atoms));
    assert_eq!(ours.len(), theirs.len(), "{what}: number of entries");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        // The last digit of a number may be lost in reading JSON.
        let same = ours.len() == theirs.len()
            && ours
                .iter()
                .zip(theirs)
                .all(|(a, b)| (a - b).abs() <= 1e-15 * b.abs());
        assert!(same, "{what}: {ours:?} is not {theirs:?}");
    }
}

fn with_atoms<const N: usize, const M: usize>(atoms: [usize; N], values: [f64; M]) -> Vec<f64> {
    atoms
        .iter()
        .map(|&atom| atom as f64)
        .chain(values)
        .collect()
}

fn check_parameters(label: &str, system: &System, record: &Value) {
    let theirs = &record["params"];
    let check = |what: &str, ours: Vec<Vec<f64>>, n_atoms| {
        assert_rows(
            &format!("{label}: {what}"),
            ours,
            rows(&theirs[what]),
            n_atoms,
        )
    };
    check(
        "bonds",
        system
            .bonds
            .iter()
            .map(|b| with_atoms(b.atoms, [b.length, b.force_constant]))
            .collect(),
        2,
    );
    check(
        "angles",
        system
            .angles
            .iter()
            .map(|a| with_atoms(a.atoms, [a.angle, a.force_constant]))
            .collect(),
        3,
    );
    let torsion = |t: &boltzmap_physics::system::Torsion| {
        with_atoms(
            t.atoms,
            [f64::from(t.periodicity), t.phase, t.force_constant],
        )
    };
    check("torsions", system.torsions.iter().map(torsion).collect(), 4);
    check(
        "excluded",
        system
            .excluded
            .iter()
            .map(|&pair| with_atoms(pair, []))
            .collect(),
        2,
    );
    let pair14 = |p: &boltzmap_physics::system::Pair14| {
        with_atoms(p.atoms, [p.charge_product, p.sigma, p.epsilon])
    };
    check(
        "exceptions14",
        system.pairs14.iter().map(pair14).collect(),
        2,
    );
    let atoms = 0..system.n_atoms();
    let nonbonded = atoms.clone().map(|i| {
        with_atoms(
            [i],
            [
                system.charges[i],
                system.sigma[i],
                system.epsilon[i],
                system.masses[i],
            ],
        )
    });
    let (parameters, masses) = (rows(&theirs["nonbonded"]), numbers(&theirs["masses"]));
    let their_nonbonded = atoms.clone().map(|i| {
        with_atoms(
            [i],
            [
                parameters[i][0],
                parameters[i][1],
                parameters[i][2],
                masses[i],
            ],
        )
    });
    assert_rows(
        &format!("{label}: nonbonded"),
        nonbonded.collect(),
        their_nonbonded.collect(),
        1,
    );
    let born = system
        .generalized_born
        .as_ref()
        .expect("every record has implicit solvent");
    if born.model == BornModel::Amber99Obc {
        let ours = atoms
            .map(|i| vec![system.charges[i], born.radius[i], born.scale[i]])
            .collect();
        assert_rows(
            &format!("{label}: generalised Born"),
            ours,
            rows(&record["gb_params"]),
            0,
        );
    }
}

/// By the `reference`, the `batch` or the `single` evaluator; returns the number of conformations and the worst deviations of energies and forces.
fn check_file(path: &Path, evaluator: &str) -> (usize, f64, f64) {
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("a readable file"))
            .expect("JSON");
    let topology = topology(&record);
    let (mut count, mut worst_energy, mut worst_force) = (0, 0.0f64, 0.0f64);
    for (key, reference) in record["ff"].as_object().expect("force fields") {
        let label = format!("{} {key}", path.display());
        let force_field = force_field(key, reference["cutoff_nm"].as_f64());
        let assignments =
            match_residues(&force_field, &topology).expect("every residue has a template");
        let templates: Vec<&str> = assignments
            .iter()
            .map(|found| force_field.templates[found.template].name.as_str())
            .collect();
        assert_eq!(
            templates,
            list(&reference["templates"])
                .iter()
                .map(text)
                .collect::<Vec<_>>(),
            "{label}"
        );
        let system = force_field
            .system(&topology)
            .expect("every term has parameters");
        if reference["params"].is_object() {
            let type_of = |found: &boltzmap_physics::forcefield::matching::Assignment,
                           atom: usize| {
                force_field.types[force_field.templates[found.template].atoms[atom].atom_type]
                    .name
                    .clone()
            };
            let types: Vec<String> = assignments
                .iter()
                .flat_map(|found| found.atoms.iter().map(|&atom| type_of(found, atom)))
                .collect();
            assert_eq!(
                types,
                list(&reference["params"]["types"])
                    .iter()
                    .map(text)
                    .collect::<Vec<_>>(),
                "{label}"
            );
            check_parameters(&label, &system, reference);
        }
        for (conformation, positions) in list(&record["positions"]).iter().enumerate() {
            let positions = numbers(positions);
            let (energies, forces) = match evaluator {
                "reference" => energy_forces_reference(&system, &positions),
                "batch" => {
                    let mut forces = vec![0.0; positions.len()];
                    let energies = BatchEvaluator::<f64>::new(&system)
                        .terms(&positions, Some(&mut forces))
                        .expect("finite positions");
                    (energies[0], forces)
                }
                _ => {
                    let mut forces = vec![0.0; positions.len()];
                    let energies = SingleEvaluator::new(&system)
                        .energies_forces(&positions, &mut forces)
                        .expect("finite positions");
                    (energies, forces)
                }
            };
            let terms = [
                ("total", energies.total()),
                ("bond", energies.bond),
                ("angle", energies.angle),
                ("torsion", energies.torsion),
                ("nonbonded", energies.nonbonded),
                ("gb", energies.generalized_born),
            ];
            for (name, ours) in terms {
                let theirs = reference["energies"][name][conformation]
                    .as_f64()
                    .expect("an energy");
                let deviation = (ours - theirs).abs() / theirs.abs().max(1.0);
                assert!(
                    deviation <= TOLERANCE,
                    "{label} conformation {conformation}: {name} energy is {ours}, not {theirs}"
                );
                worst_energy = worst_energy.max(deviation);
            }
            let theirs = numbers(&reference["forces"][conformation]);
            let largest = theirs
                .iter()
                .fold(0.0f64, |largest, force| largest.max(force.abs()));
            let deviation = forces
                .iter()
                .zip(&theirs)
                .fold(0.0f64, |worst, (a, b)| worst.max((a - b).abs()))
                / largest;
            assert!(
                forces.len() == theirs.len() && deviation <= TOLERANCE,
                "{label} conformation {conformation}: forces deviate by {deviation}"
            );
            worst_force = worst_force.max(deviation);
            count += 1;
        }
    }
    (count, worst_energy, worst_force)
}

#[test]
fn agrees_with_openmm_in_every_term_and_force() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(data())
        .expect("the data folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    assert_eq!(files.len(), 15, "the data folder is incomplete");
    for path in files {
        for evaluator in ["reference", "batch", "single"] {
            let (count, energy, force) = check_file(&path, evaluator);
            println!(
                "{}, {evaluator}: {count} evaluations, energies within {energy:.1e}, forces within {force:.1e}",
                path.display()
            );
        }
    }
}

/// Bonds that the reader derives from names are those OpenMM has, and parameters do not depend on names.
#[test]
fn pdb_files_give_the_same_molecules() {
    let mut checked = 0;
    for path in std::fs::read_dir(data())
        .expect("the data folder")
        .map(|entry| entry.expect("an entry").path())
    {
        if path.extension().is_none_or(|extension| extension != "pdb") {
            continue;
        }
        let json = std::fs::read_to_string(path.with_extension("json"))
            .expect("a record beside each structure");
        let record: Value = serde_json::from_str(&json).expect("JSON");
        let (found, positions) =
            boltzmap_physics::pdb::read(&std::fs::read_to_string(&path).expect("a readable file"))
                .expect("a structure");
        assert_eq!(found, topology(&record), "{}", path.display());
        if record["labels"][0] == "min" {
            for (ours, theirs) in positions.iter().zip(numbers(&record["positions"][0])) {
                assert!(
                    (ours - theirs).abs() < 5.1e-5,
                    "{}: coordinate {ours} is not {theirs}",
                    path.display()
                );
            }
        }
        let mut renamed = found.clone();
        for (number, atom) in renamed.atoms.iter_mut().enumerate() {
            (atom.name, atom.residue_name) = (format!("X{number}"), "UNK".into());
        }
        let force_field = ForceField::amber99sbildn_obc2();
        assert_eq!(
            force_field.system(&renamed),
            force_field.system(&found),
            "{}",
            path.display()
        );
        checked += 1;
    }
    assert_eq!(checked, 12);
}
