//! The pipeline as a user runs it: whole runs, single stages, interruptions, threads, and damaged files.
//!
//! One small run serves most tests; each works on a copy of it.

mod damage;
mod methods;
mod runs;
mod verified;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Settings that make every stage take a fraction of a second.
pub(crate) const SMALL: &[&str] = &[
    "data.temperatures=2",
    "data.exchange_interval=20",
    "data.save_interval=20",
    "data.equilibration_ps=0.2",
    "data.production_ps=3.0",
    "data.train_frames=300",
    "data.reference_frames=60",
    "network.width=16",
    "network.layers=1",
    "training.steps=60",
    "training.batch=24",
    "training.warmup=5",
    "training.checkpoint_every=20",
    "sampling.samples=50",
    "sampling.steps=2",
    "audit.samples=12",
    "audit.reference_frames=12",
    "evaluation.bootstrap=20",
];

/// The files of a finished run, in alphabetical order.
pub(crate) const FILES: &[&str] = &[
    "checkpoint.safetensors",
    "config.toml",
    "data.npz",
    "data.npz.card.json",
    "metrics.jsonl",
    "provenance.json",
    "report.html",
    "samples.npz",
    "summary.json",
    "timings.json",
];

/// The files that the seed alone determines.
pub(crate) const REPRODUCIBLE: &[&str] = &[
    "checkpoint.safetensors",
    "config.toml",
    "data.npz",
    "metrics.jsonl",
    "samples.npz",
];

pub(crate) fn boltzmap(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boltzmap"));
    command.args(arguments);
    command
}

/// Arguments of a small run with more settings after the common ones.
pub(crate) fn run_arguments<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["run", "ala2-tiny", "--out", path(out)];
    for &setting in SMALL.iter().chain(more) {
        arguments.extend(["--set", setting]);
    }
    arguments
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[track_caller]
pub(crate) fn succeed(mut command: Command) -> Output {
    let output = command.output().expect("the command starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        text(&output.stderr)
    );
    output
}

/// Runs a command that must fail with one sentence and leave the directory as it was; returns the sentence.
#[track_caller]
pub(crate) fn refused(directory: &Path, arguments: &[&str]) -> String {
    let before = contents(directory);
    let output = boltzmap(arguments)
        .arg("--quiet")
        .output()
        .expect("the command starts");
    let complaint = text(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{:?}: {complaint}",
        output.status
    );
    assert!(
        complaint.starts_with("error: ") && complaint.lines().count() == 1,
        "{complaint}"
    );
    assert!(!complaint.contains("panicked"), "{complaint}");
    let after = contents(directory);
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .collect();
    assert!(changed.is_empty(), "{changed:?} changed by {arguments:?}");
    complaint
}

/// Name → bytes of every file in a directory.
pub(crate) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(directory)
        .expect("the directory exists")
        .map(|entry| {
            let entry = entry.expect("readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = std::fs::read(entry.path()).expect("readable");
            (name, bytes)
        })
        .collect()
}

/// The small run that tests compare with and damage copies of: two threads, the default seed.
pub(crate) fn finished() -> &'static Path {
    static RUN: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, root) = RUN.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("run");
        let mut command = boltzmap(&run_arguments(&root, &[]));
        command.args(["--threads", "2"]);
        succeed(command);
        (directory, root)
    });
    root
}

/// A copy of some files of the finished run.
pub(crate) fn copy_of(files: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in files {
        std::fs::copy(finished().join(name), directory.path().join(name)).expect("copied");
    }
    directory
}

/// Asserts that two run directories hold the same bytes in these files.
#[track_caller]
pub(crate) fn assert_same(one: &Path, other: &Path, files: &[&str]) {
    for name in files {
        let [a, b] = [one, other].map(|root| std::fs::read(root.join(name)).expect("readable"));
        assert!(a == b, "{name} differs");
    }
}
