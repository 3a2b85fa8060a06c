//! Peak memory of our training step, in a process that does nothing else.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::machine::kilobytes;
use super::ours;
use super::workload::{Task, Workload};

/// Steps taken before the peak is read: buffers are made in the first.
const STEPS: usize = 3;

fn resident(key: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")
        .context("peak memory is only known where /proc/self/status exists")?;
    kilobytes(&text, key).with_context(|| format!("/proc/self/status has no {key}"))
}

/// Runs a task in this process and returns its peak resident memory above what was resident before it was built.
///
/// # Errors
/// If the system does not tell.
pub fn measure(workload: &str, task: Task) -> Result<u64> {
    let workload = Workload::named(workload)?;
    let inputs = workload.inputs();
    let before = resident("VmRSS")?;
    let mut prepared = ours::prepare(&workload, &inputs, task)?;
    for _ in 0..STEPS {
        (prepared.call)();
    }
    Ok(resident("VmHWM")?.saturating_sub(before))
}

/// As [`measure`], in a process of its own.
///
/// # Errors
/// If it cannot be started or fails.
pub fn measure_apart(workload: &Workload, task: Task, threads: usize) -> Result<u64> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let output = Command::new(&program)
        .args(["bench", "memory", workload.name, &task.name(), "--threads"])
        .arg(threads.to_string())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "the process that measures memory failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    match text.trim().parse() {
        Ok(bytes) => Ok(bytes),
        Err(_) => bail!(
            "the process that measures memory answered '{}'",
            text.trim()
        ),
    }
}
