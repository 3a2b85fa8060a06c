//! `boltzmap bench engine` on the tiny workload: rows, files, comparison, and baselines that are absent or wrong.

use std::path::Path;
use std::process::{Command, Output};

use boltzmap_cli::bench::record::Record;
use boltzmap_cli::bench::workload::Task;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boltzmap"))
        .args(["bench", "engine", "--workload", "tiny", "--quick"])
        .args(arguments)
        .output()
        .expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[test]
fn every_task_is_measured_recorded_and_compared() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.json");
    let file = path.to_str().unwrap();
    let output = bench(&["--json", file]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let record = Record::read(&path).unwrap();
    assert_eq!(record.rows.len(), 7);
    assert_eq!(record.repeats, 3);
    for row in &record.rows {
        assert!(
            table.contains(&format!("tiny {} ", row.task.name())),
            "{table}"
        );
        assert_eq!(row.ours.seconds.len(), 3);
        assert!(row.ours.minimum > 0.0 && row.ours.minimum <= row.ours.median);
        assert!(row.operations > 0.0 && row.compile_seconds > 0.0);
        assert!(row.roof.as_ref().is_some_and(|roof| roof.median > 0.0));
        assert!(row.baselines.is_empty());
        let training = row.task == Task::TrainingStep;
        assert_eq!(!row.scaling.is_empty(), training);
        assert_eq!(
            row.peak_memory.is_some(),
            training && cfg!(target_os = "linux")
        );
    }

    // Against times a thousand times longer nothing is slower, against times a thousand times shorter everything is.
    for (factor, words, code) in [
        (1e3, "No row became slower", 0),
        (1e-3, "7 rows became slower", 1),
    ] {
        let mut other = record.clone();
        for row in &mut other.rows {
            row.ours.median *= factor;
            row.ours.minimum *= factor;
        }
        other.write(&path).unwrap();
        let output = bench(&["--compare", file, "--fail-on-regression"]);
        let table = text(&output.stdout);
        assert!(table.contains(words), "{table}");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        if code == 1 {
            assert!(text(&output.stderr).contains("7 of 7 rows became slower"));
        }
    }
}

#[test]
fn absent_baselines_are_skipped_with_the_remedy() {
    let output = bench(&[
        "--task",
        "forward",
        "--baseline",
        "torch,jax",
        "--python",
        "no/such/python",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for words in [
        "torch eager is skipped: cannot start no/such/python",
        "jax jit is skipped",
        "benches/baselines/setup.sh",
        "tiny forward",
    ] {
        assert!(table.contains(words), "{words} in {table}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (arguments, words) in [
        (
            &["--compare", "no-such-file.json"][..],
            "cannot read no-such-file.json",
        ),
        (&["--workload", "dit-129"], "choose among dit-128"),
        (&["--repeats", "0"], "--repeats"),
        (&["--task", "forwards"], "forward"),
        (&["--fail-on-regression"], "--compare"),
        (&["--json", "no/such/directory/x.json"], "no/such/directory"),
    ] {
        let output = bench(arguments);
        let complaint = text(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            complaint.contains(words) && complaint.lines().count() == 1,
            "{arguments:?}: {complaint}"
        );
    }
}

/// A baseline as the protocol sees it: a shell script in the interpreter's place, which answers with results from a
/// file.
#[cfg(unix)]
fn with_results(directory: &Path, states: [f32; 16], log_det: [f32; 8]) -> String {
    use boltzmap_models::checkpoint::{Checkpoint, Tensor};
    use std::os::unix::fs::PermissionsExt;

    let results = directory.join("results.safetensors");
    let mut file = Checkpoint::new(serde_json::json!({}));
    let arrays = [
        ("state", vec![8, 1, 2], states.to_vec()),
        ("log_det", vec![8], log_det.to_vec()),
    ];
    for (name, shape, values) in arrays {
        file.tensors.insert(name.into(), Tensor { shape, values });
    }
    file.write(&results).unwrap();
    let script = directory.join("python");
    let answer = format!(
        r#"{{"ok": true, "outputs": "{}", "strategy": "script", "candidates": {{"script": 0.5}}}}"#,
        results.display()
    );
    let body = format!(
        "#!/bin/sh\necho '{{\"ready\": true, \"versions\": {{\"script\": \"1\"}}}}'\n\
         while IFS= read -r line; do\n  case \"$line\" in\n    *prepare*) echo '{answer}' ;;\n    \
         *) echo '{{\"ok\": true, \"seconds\": 0.25, \"bytes\": 7}}' ;;\n  esac\ndone\n"
    );
    std::fs::write(&script, body).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script.to_str().unwrap().to_owned()
}

#[test]
#[cfg(unix)]
fn sides_are_timed_only_where_results_agree() {
    use boltzmap_cli::bench::ours;
    use boltzmap_cli::bench::workload::Workload;

    let workload = Workload::named("tiny").unwrap();
    let prepared = ours::prepare(&workload, &workload.inputs(), Task::Forward).unwrap();
    let mut states: [f32; 16] = prepared.outputs["state"].as_slice().try_into().unwrap();
    let log_det: [f32; 8] = prepared.outputs["log_det"].as_slice().try_into().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("engine.json");
    let run = |python: &str| {
        let file = json.to_str().unwrap();
        let output = bench(&[
            "--task",
            "forward",
            "--baseline",
            "jax",
            "--python",
            python,
            "--json",
            file,
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        (Record::read(&json).unwrap(), text(&output.stdout))
    };

    let (record, table) = run(&with_results(directory.path(), states, log_det));
    let side = &record.rows[0].baselines[0];
    assert_eq!(
        side.series.as_ref().map(|series| series.median),
        Some(0.25),
        "{table}"
    );
    assert_eq!(
        (side.deviation, side.strategy.as_str()),
        (Some(0.0), "script")
    );
    assert_eq!(record.machine.versions["script"], "1");
    assert!(
        table.contains("250 ms") && table.contains("jax jit"),
        "{table}"
    );

    let largest = states.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    states[5] += 2e-4 * largest;
    let (record, table) = run(&with_results(directory.path(), states, log_det));
    let side = &record.rows[0].baselines[0];
    assert!(side.series.is_none() && record.rows[0].speedup().is_none());
    assert!(
        table.contains("its results disagree: 'state' differs by 2.0e-4"),
        "{table}"
    );
}
