//! The command as a user meets it: help, complaints, exit codes, files.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn boltzmap(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boltzmap"))
        .args(arguments)
        .output()
        .expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Runs a command that must fail with one sentence, and returns the sentence.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = boltzmap(arguments);
    let complaint = text(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{:?}: {complaint}",
        output.status
    );
    assert_eq!(complaint.matches("error:").count(), 1, "{complaint}");
    assert!(
        complaint.starts_with("error: ") && complaint.lines().count() == 1,
        "{complaint}"
    );
    assert!(!complaint.contains("panicked"), "{complaint}");
    complaint
}

/// The names in a directory.
fn entries(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).expect("directory exists");
    let mut names: Vec<_> = names
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let output = boltzmap(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for word in [
        "Examples:",
        "boltzmap run",
        "Exit codes:",
        "--threads",
        "energy",
        "evaluate",
    ] {
        assert!(help.contains(word), "{word} in {help}");
    }
    for command in [
        "run", "build", "md", "train", "sample", "evaluate", "energy", "bench", "info",
    ] {
        let output = boltzmap(&[command, "--help"]);
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{command}"
        );
    }
}

#[test]
fn info_describes_the_machine_and_presets() {
    let output = boltzmap(&["info", "--json", "--threads", "3"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("valid JSON");
    assert_eq!(value["threads"], 3);
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        value["presets"]["ala2-tiny"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    let forced = Command::new(env!("CARGO_BIN_EXE_boltzmap"))
        .args(["info", "--json"])
        .env("BOLTZMAP_SIMD", "portable")
        .output()
        .expect("the command starts");
    let value: serde_json::Value = serde_json::from_slice(&forced.stdout).expect("valid JSON");
    assert_eq!(value["simd_tier"], "portable");
}

#[test]
fn a_printed_configuration_can_be_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    let printed = boltzmap(&[
        "info",
        "ala2-tiny",
        "--set",
        "training.batch=17",
        "--seed",
        "5",
    ]);
    assert!(printed.status.success());
    std::fs::write(&file, &printed.stdout).unwrap();
    let again = boltzmap(&["info", file.to_str().unwrap()]);
    assert_eq!(text(&printed.stdout), text(&again.stdout));
    assert!(text(&printed.stdout).contains("batch = 17"));
}

#[test]
fn misspelt_keys_are_refused_with_the_nearest_name() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("run");
    let out = out.to_str().unwrap();
    let complaint = refused(&["run", "--out", out, "--set", "training.learing_rate=1e-4"]);
    assert!(
        complaint.contains("training.learing_rate")
            && complaint.contains("did you mean training.learning_rate?")
    );
    let file = directory.path().join("mine.toml");
    std::fs::write(&file, "[trainng]\nsteps = 5\n").unwrap();
    let complaint = refused(&["run", file.to_str().unwrap(), "--out", out]);
    assert!(
        complaint.contains("trainng.steps") && complaint.contains("did you mean training.steps?"),
        "{complaint}"
    );
    std::fs::write(&file, "[training]\nsteps = \"five\"\n").unwrap();
    let complaint = refused(&["run", file.to_str().unwrap(), "--out", out]);
    assert!(
        complaint.contains("training.steps") && complaint.contains("expected an integer"),
        "{complaint}"
    );
    std::fs::write(&file, "[training]\nsteps = = 5\n").unwrap();
    let complaint = refused(&["run", file.to_str().unwrap(), "--out", out]);
    assert!(complaint.contains("line 2"), "{complaint}");
    refused(&["run", "no-such-file.toml", "--out", out]);
    let complaint = refused(&["run", "ala2-tny", "--out", out]);
    assert!(complaint.contains("did you mean ala2-tiny?"), "{complaint}");
    let complaint = refused(&["run", "--out", out, "--sede", "3"]);
    assert!(
        complaint.contains("--sede") && complaint.contains("--seed"),
        "{complaint}"
    );
    refused(&["run", "--out", out, "--threads", "0"]);
    refused(&["energi"]);
    assert_eq!(entries(directory.path()), ["mine.toml"], "nothing was made");
}

#[test]
fn unwritable_places_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let under = file.join("run");
    let complaint = refused(&["run", "ala2-tiny", "--out", under.to_str().unwrap()]);
    assert!(complaint.contains(under.to_str().unwrap()), "{complaint}");
    let complaint = refused(&["run", "ala2-tiny", "--out", file.to_str().unwrap()]);
    assert!(complaint.contains("is a file"), "{complaint}");
    let complaint = refused(&[
        "run",
        "ala2-tiny",
        "--out",
        directory.path().to_str().unwrap(),
    ]);
    assert!(complaint.contains("not empty"), "{complaint}");
    let complaint = refused(&["train", directory.path().join("nowhere").to_str().unwrap()]);
    assert!(complaint.contains("no run directory"), "{complaint}");
    let complaint = refused(&["train", directory.path().to_str().unwrap()]);
    assert!(complaint.contains("config.toml"), "{complaint}");
    assert_eq!(entries(directory.path()), ["file"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_boltzmap"))
        .args(["info", "ala2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        text(&output.stderr)
    );
}
