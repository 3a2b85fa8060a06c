//! Baselines: long-lived Python processes that speak one JSON object per line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use boltzmap_models::checkpoint::Checkpoint;
use serde_json::{Value, json};

use super::ours::Outputs;
use super::workload::Task;
use crate::progress;

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

/// Longest time that a process may take to answer: compilers are slow.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How often a wait looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(200);

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
    child: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<String>,
    log: PathBuf,
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
        let log = directory.join(format!("{}.log", variant.name.replace(' ', "-")));
        let errors =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(python)
            .arg(directory.join(variant.script))
            .arg(specification)
            .arg(variant.argument)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let requests = child.stdin.take();
        let output = child.stdout.take().context("the process has no output")?;
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut baseline = Self {
            variant,
            child,
            requests,
            replies,
            log,
            versions: BTreeMap::new(),
        };
        let hello = baseline.reply()?;
        if let Some(versions) = hello["versions"].as_object() {
            baseline.versions = versions
                .iter()
                .map(|(name, version)| {
                    (
                        name.clone(),
                        version.as_str().unwrap_or("unknown").to_owned(),
                    )
                })
                .collect();
        }
        Ok(baseline)
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
        let reply = self.ask(&json!({
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
        let reply = self.ask(&json!({"op": "sample", "calls": calls}))?;
        reply["seconds"]
            .as_f64()
            .context("the baseline returned no time")
    }

    /// Peak memory of a task in bytes; to be asked of a process that did nothing else.
    pub fn memory(&mut self, task: Task, strategy: &str) -> Result<u64> {
        let request = json!({"op": "memory", "task": task.name(), "strategy": strategy});
        let reply = self.ask(&request)?;
        reply["bytes"]
            .as_u64()
            .context("the baseline returned no size")
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        let sent = match &mut self.requests {
            Some(pipe) => writeln!(pipe, "{request}").and_then(|()| pipe.flush()),
            None => Ok(()),
        };
        if sent.is_err() {
            bail!("{} ended{}", self.variant.name, self.last_words());
        }
        let reply = self.reply()?;
        if reply["ok"] != json!(true) {
            bail!(
                "{}",
                reply["error"]
                    .as_str()
                    .unwrap_or("it failed without a reason")
            );
        }
        Ok(reply)
    }

    fn reply(&mut self) -> Result<Value> {
        let start = Instant::now();
        let line = loop {
            progress::check_interrupt()?;
            match self.replies.recv_timeout(TICK) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Timeout) if start.elapsed() < PATIENCE => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} gave no answer for an hour", self.variant.name)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended{}", self.variant.name, self.last_words())
                }
            }
        };
        serde_json::from_str(&line)
            .with_context(|| format!("{} answered '{line}'", self.variant.name))
    }

    /// The last line that the process wrote before it ended.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let line = text.lines().rev().find(|line| !line.trim().is_empty());
        line.map_or_else(String::new, |line| format!(": {}", line.trim()))
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // Closing the pipe ends the process; one that hangs is killed.
        drop(self.requests.take());
        for _ in 0..20 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
