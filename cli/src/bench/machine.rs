//! The machine and versions of a record.

use std::collections::BTreeMap;

use boltzmap_kernels::simd::Tier;
use serde::{Deserialize, Serialize};

/// Where and with what a record was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Threads of every side.
    pub threads: usize,
    /// Memory in bytes; 0 where unknown.
    pub memory_bytes: u64,
    /// Operating system and architecture.
    pub system: String,
    /// Instruction tier of our kernels.
    pub simd_tier: String,
    /// Versions of boltzmap and of the baselines' libraries.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// The line above a record's tables.
    pub fn headline(&self, date: &str, repeats: usize) -> String {
        format!(
            "{}, {} threads of {} processors, {}; {date}; medians of {repeats}\n\n",
            self.processor, self.threads, self.processors, self.simd_tier
        )
    }
}

/// The value of a `key : value` line of a file such as `/proc/cpuinfo`.
pub fn field(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// A `/proc` value in kB, in bytes.
pub fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let value = field(text, key)?;
    value
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}

impl Machine {
    /// Describes this machine.
    pub fn here(threads: usize) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let versions = [("boltzmap", crate::run_dir::VERSION)];
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            threads,
            memory_bytes: kilobytes(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            simd_tier: Tier::active().name().to_owned(),
            versions: versions
                .into_iter()
                .map(|(name, version)| (name.to_owned(), version.to_owned()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let text = "processor\t: 0\nmodel name\t: Some CPU: fast\nVmHWM:\t  1234 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU: fast"));
        assert_eq!(kilobytes(text, "VmHWM"), Some(1234 * 1024));
        assert_eq!(kilobytes(text, "VmRSS"), None);
    }
}
