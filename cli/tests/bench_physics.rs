//! `boltzmap bench physics` on alanine dipeptide: rows, files, comparison, and a baseline that is absent or wrong.

use std::process::{Command, Output};

use boltzmap_cli::bench::physics::record::{Record, Task};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boltzmap"))
        .args(["bench", "physics", "--workload", "alanine-dipeptide"])
        .args(["--quick", "--conformations", "64"])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn rows_limit_file_and_comparison() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("physics.json");
    let file = path.to_str().unwrap();
    let output = bench(&["--json", file]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for words in [
        "alanine-dipeptide energies",
        "alanine-dipeptide dynamics",
        "alanine-dipeptide single",
        "alanine-dipeptide target-gradient",
        "time / energies",
        "pull back",
        "limit per second",
    ] {
        assert!(table.contains(words), "{words} in {table}");
    }
    let mut record = Record::read(&path).unwrap();
    assert_eq!(record.rows.len(), 4);
    let gradient = record
        .rows
        .iter()
        .find(|row| row.task == Task::TargetGradient);
    let stages = &gradient.unwrap().stages;
    let shares: f64 = stages.iter().map(|stage| stage.share).sum();
    assert!((shares - 1.0).abs() < 1e-12 && stages.iter().all(|stage| stage.share > 0.0));
    assert!(record.rows[0].stages.is_empty());
    let limit = record.rows[0].limit.clone().unwrap();
    // More than ten thousand, fewer than a hundred thousand vector operations for 231 pairs and the bonded terms.
    assert!((1e4..1e5).contains(&limit.instructions()), "{limit:?}");
    let rate = 1.0 / record.rows[0].ours.median;
    assert!(rate < limit.evaluations_per_second(), "{rate} {limit:?}");

    for row in &mut record.rows {
        row.ours.median /= 1e3;
        row.ours.minimum /= 1e3;
    }
    record.write(&path).unwrap();
    let output = bench(&[
        "--task",
        "energies",
        "--compare",
        file,
        "--fail-on-regression",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("SLOWER"));
    std::fs::write(&path, "{}").unwrap();
    let output = bench(&["--compare", file]);
    assert!(text(&output.stderr).contains("no record of"));
}

#[test]
fn an_absent_openmm_is_skipped_with_the_remedy() {
    let output = bench(&[
        "--task",
        "single",
        "--baseline",
        "openmm",
        "--python",
        "no/such/python",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for words in [
        "OpenMM Reference is skipped: cannot start no/such/python",
        "benches/baselines/setup.sh",
        "alanine-dipeptide single",
    ] {
        assert!(table.contains(words), "{words} in {table}");
    }
    let output = bench(&["--workload", "alanin-dipeptide"]);
    assert!(text(&output.stderr).contains("did you mean alanine-dipeptide"));
}

/// A shell script in the interpreter's place, which answers with energies from a file.
#[cfg(unix)]
#[test]
fn a_baseline_is_timed_only_where_it_agrees() {
    use boltzmap_physics::{BatchEvaluator, SingleEvaluator};
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let workload =
        boltzmap_cli::bench::physics::workload::Workload::named("alanine-dipeptide").unwrap();
    let prepared = workload.prepare(64).unwrap();
    let wide: Vec<f64> = prepared.frames[..32 * 66]
        .iter()
        .map(|&x| f64::from(x))
        .collect();
    let energies = BatchEvaluator::<f64>::new(&prepared.system)
        .energies(&wide)
        .unwrap();
    let mut forces = vec![0.0; wide.len()];
    let mut single = SingleEvaluator::new(&prepared.system);
    for (x, f) in wide.chunks(66).zip(forces.chunks_mut(66)) {
        single.energies_forces(x, f).unwrap();
    }
    let npy = |name: &str, shape: &str, values: &[f64]| {
        let mut header =
            format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape}), }}");
        let padding = 63 - (10 + header.len()) % 64;
        header += &" ".repeat(padding);
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        std::fs::write(directory.path().join(name), bytes).unwrap();
    };
    let folder = directory.path().to_str().unwrap();
    let script = directory.path().join("python");
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\necho '{{\"ok\": true, \"versions\": {{\"openmm\": \"0\"}}}}'\nwhile read line; do case \"$line\" in *prepare*) \
             echo '{{\"ok\": true, \"energies\": \"{folder}/energies.npy\", \"forces\": \"{folder}/forces.npy\"}}';; \
             *) echo '{{\"ok\": true, \"seconds\": 0.05}}';; esac; done\n"
        ),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    npy("forces.npy", "32, 22, 3", &forces);
    for (shift, timed) in [(0.0, true), (0.01, false)] {
        let mut shifted = energies.clone();
        shifted[7] += shift;
        npy("energies.npy", "32,", &shifted);
        let path = directory.path().join("physics.json");
        let output = bench(&[
            "--task",
            "energies",
            "--baseline",
            "openmm",
            "--python",
            script.to_str().unwrap(),
            "--json",
            path.to_str().unwrap(),
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let record = Record::read(&path).unwrap();
        let row = &record.rows[0];
        assert_eq!(row.task, Task::Energies);
        assert_eq!(row.sides.len(), 4);
        for side in &row.sides {
            assert_eq!(side.series.is_some(), timed, "{side:?}");
            assert_eq!(side.problem.is_none(), timed, "{side:?}");
        }
        if !timed {
            assert!(text(&output.stdout).contains("the energy of conformation 7"));
        }
    }
}
