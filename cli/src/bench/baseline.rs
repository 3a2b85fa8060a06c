//! Baselines: long-lived Python processes that speak one JSON object per line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use boltzmap_models::checkpoint::Checkpoint;
use serde_json::{Value, json};

use super::ours::Outputs;
use super::process::Process;
use super::workload::Task;

/// A way to run a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Column of the table.
    pub name: &'static str,
    /// The `--baseline` it belongs to.
    pub baseline: &'static str,
    script: &'static str,
    argument: &'static str,
}

/// All variants, in the order of the table's columns.
pub const VARIANTS: [Variant; 3] = [
    Variant {
        name: "torch eager",
        baseline: "torch",
        script: "engine_torch.py",
        argument: "eager",
    },
    Variant {
        name: "torch compile",
        baseline: "torch",
        script: "engine_torch.py",
        argument: "compile",
    },
    Variant {
        name: "jax jit",
        baseline: "jax",
        script: "engine_jax.py",
        argument: "jit",
    },
];

/// The scripts, which travel with the binary.
const SCRIPTS: [(&str, &str); 3] = [
    (
        "common.py",
        include_str!("../../../benches/baselines/common.py"),
    ),
    (
        "engine_torch.py",
        include_str!("../../../benches/baselines/engine_torch.py"),
    ),
    (
        "engine_jax.py",
        include_str!("../../../benches/baselines/engine_jax.py"),
    ),
];

/// Where `setup.sh` installs the baselines.
pub const DEFAULT_PYTHON: &str = ".venv/bin/python";

/// What to tell someone whose baselines are not installed.
pub fn how_to_install(python: &Path) -> String {
    format!(
        "run benches/baselines/setup.sh, which installs PyTorch and JAX into .venv, or name another interpreter than {} with --python",
        python.display()
    )
}

/// Writes the scripts to a directory.
pub fn write_scripts(directory: &Path) -> Result<()> {
    for (name, text) in SCRIPTS {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What a baseline answered to a request to prepare a task.
pub struct Ready {
    /// Its results.
    pub outputs: Outputs,
    /// The fastest candidate.
    pub strategy: String,
    /// Every candidate: seconds, or why it does not run.
    pub candidates: BTreeMap<String, Value>,
}

/// One running process.
pub struct Baseline {
    variant: Variant,
    process: Process,
    /// Versions of the libraries.
    pub versions: BTreeMap<String, String>,
}

impl Baseline {
    /// Starts a process for a workload and waits until its libraries are loaded.
    ///
    /// # Errors
    /// If the interpreter or a library is absent.
    pub fn start(
        variant: Variant,
        python: &Path,
        directory: &Path,
        specification: &Path,
    ) -> Result<Self> {
        let (process, versions) = Process::start(
            variant.name,
            python,
            &[
                directory.join(variant.script).as_os_str(),
                specification.as_os_str(),
                variant.argument.as_ref(),
            ],
            directory,
        )?;
        Ok(Self {
            variant,
            process,
            versions,
        })
    }

    /// The variant.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Builds a task's candidates and keeps the fastest.
    ///
    /// # Errors
    /// If none runs.
    pub fn prepare(&mut self, task: Task, candidate_seconds: u32) -> Result<Ready> {
        let reply = self.process.ask(&json!({
            "op": "prepare",
            "task": task.name(),
            "candidate_seconds": candidate_seconds,
        }))?;
        let path = PathBuf::from(reply["outputs"].as_str().unwrap_or_default());
        let file = Checkpoint::read(&path)?;
        // Nothing reads the file again; a leftover goes with the directory.
        let _ = fs::remove_file(&path);
        let outputs = file
            .tensors
            .into_iter()
            .map(|(name, tensor)| (name, tensor.values))
            .collect();
        let candidates = reply["candidates"]
            .as_object()
            .map(|map| map.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
            .unwrap_or_default();
        Ok(Ready {
            outputs,
            strategy: reply["strategy"].as_str().unwrap_or_default().to_owned(),
            candidates,
        })
    }

    /// Seconds of one call, the mean of `calls`.
    pub fn sample(&mut self, calls: usize) -> Result<f64> {
        let reply = self.process.ask(&json!({"op": "sample", "calls": calls}))?;
        reply["seconds"]
            .as_f64()
            .context("the baseline returned no time")
    }

    /// Peak memory of a task in bytes; to be asked of a process that did nothing else.
    pub fn memory(&mut self, task: Task, strategy: &str) -> Result<u64> {
        let request = json!({"op": "memory", "task": task.name(), "strategy": strategy});
        let reply = self.process.ask(&request)?;
        reply["bytes"]
            .as_u64()
            .context("the baseline returned no size")
    }
}
