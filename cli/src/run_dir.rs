//! Run directories: everything a run made, in one place, written so that nothing is ever half there.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use boltzmap_kernels::simd::Tier;
use serde::Serialize;

use crate::config::Config;

/// The version and commit of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that this binary was built from, or "unknown".
pub const COMMIT: &str = env!("BOLTZMAP_COMMIT");

/// Which code and machine made a run.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    /// Version of the crate.
    pub version: &'static str,
    /// Commit it was built from.
    pub commit: &'static str,
    /// Instruction tier of the kernels.
    pub simd_tier: &'static str,
    /// Worker threads.
    pub threads: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Date and time, UTC.
    pub date: String,
}

impl Provenance {
    /// Describes this process.
    pub fn now(seed: u64) -> Provenance {
        Provenance {
            version: VERSION,
            commit: COMMIT,
            simd_tier: Tier::active().name(),
            threads: rayon::current_num_threads(),
            seed,
            date: timestamp(SystemTime::now()),
        }
    }
}

/// A time as `2026-01-31T12:00:00Z`.
fn timestamp(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |duration| duration.as_secs());
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Civil date from days since 1970 in years that begin in March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The directory of one run.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// The default place of a run.
    pub fn default_path(config: &Config) -> PathBuf {
        PathBuf::from("runs").join(format!("{}-seed{}", config.name, config.seed))
    }

    /// Makes a new run directory, or with `resume` goes on with one that was made with the same configuration.
    pub fn create(root: &Path, config: &Config, resume: bool) -> Result<RunDir> {
        let run = RunDir {
            root: root.to_owned(),
        };
        let shown = root.display();
        match fs::metadata(root) {
            Err(_) => {}
            Ok(metadata) if !metadata.is_dir() => {
                bail!("{shown} is a file, not a directory; choose another --out")
            }
            Ok(_) if run.config().exists() => {
                if !resume && run.summary().exists() {
                    bail!(
                        "{shown} already holds a finished run; choose another --out or remove it"
                    );
                }
                if !resume {
                    bail!(
                        "{shown} already holds an unfinished run; go on with --resume or choose another --out"
                    );
                }
                let held = Config::read(&run.config())?;
                if let Some((path, there, here)) = held.first_difference(config) {
                    bail!(
                        "cannot resume {shown}: its {path} is {there}, not {here}; choose another --out"
                    );
                }
                return Ok(run);
            }
            Ok(_) => {
                let mut entries = fs::read_dir(root)
                    .with_context(|| format!("cannot read the directory {shown}"))?;
                ensure!(
                    entries.next().is_none(),
                    "{shown} is not empty and is no run directory; choose another --out"
                );
            }
        }
        fs::create_dir_all(root).with_context(|| format!("cannot create the directory {shown}"))?;
        run.record(config)?;
        Ok(run)
    }

    /// Opens the directory of a run for one of its stages.
    pub fn open(root: &Path) -> Result<(RunDir, Config)> {
        let run = RunDir {
            root: root.to_owned(),
        };
        ensure!(
            root.is_dir(),
            "there is no run directory {}",
            root.display()
        );
        ensure!(
            run.config().exists(),
            "{} holds no config.toml; make one with 'boltzmap info ala2 > {}'",
            root.display(),
            run.config().display()
        );
        let config = Config::read(&run.config())?;
        Ok((run, config))
    }

    /// Writes the resolved configuration and the provenance.
    pub fn record(&self, config: &Config) -> Result<()> {
        let provenance = serde_json::to_string_pretty(&Provenance::now(config.seed))?;
        write_atomically(
            &self.root.join("provenance.json"),
            format!("{provenance}\n").as_bytes(),
        )?;
        write_atomically(&self.config(), config.to_toml().as_bytes())
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// The data set.
    pub fn data(&self) -> PathBuf {
        self.root.join("data.npz")
    }

    /// The last checkpoint of training.
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint.safetensors")
    }

    /// One JSON object per line: the course of training.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The samples.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples.npz")
    }

    /// The numbers of the report; its presence marks a finished run.
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// The report.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The seconds that each stage has taken so far.
    pub fn timings(&self) -> PathBuf {
        self.root.join("timings.json")
    }

    /// Records the seconds that a stage took from its start to its end.
    pub fn set_seconds(&self, stage: &str, seconds: f64) -> Result<()> {
        self.record_seconds(stage, |_| seconds)
    }

    /// Adds to the seconds of a stage that goes on from where it was left.
    pub fn add_seconds(&self, stage: &str, seconds: f64) -> Result<()> {
        self.record_seconds(stage, |before| before + seconds)
    }

    fn record_seconds(&self, stage: &str, update: impl FnOnce(f64) -> f64) -> Result<()> {
        let mut timings = self.seconds()?;
        match timings.iter_mut().find(|(name, _)| name == stage) {
            Some((_, total)) => *total = update(*total),
            None => timings.push((stage.to_owned(), update(0.0))),
        }
        write_atomically(
            &self.timings(),
            format!("{}\n", serde_json::to_string(&timings)?).as_bytes(),
        )
    }

    /// The seconds of every stage so far, in the order of the stages.
    pub fn seconds(&self) -> Result<Vec<(String, f64)>> {
        let path = self.timings();
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged", path.display())),
        }
    }
}

/// Writes a file under a temporary name beside it and renames it, so that it is either complete or not there.
///
/// Links are followed. What is neither a file nor a directory, such as a pipe, is written to as it stands.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let shown = path.display();
    if is_special(path) {
        return fs::write(path, bytes).with_context(|| format!("cannot write {shown}"));
    }
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = temporary_name(&target);
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &target));
    written.map_err(|error| {
        // What was written so far is of no use; if it cannot be removed either, the first error still counts.
        let _ = fs::remove_file(&temporary);
        anyhow::Error::new(error).context(format!("cannot write {shown}"))
    })
}

/// Whether something other than a file or a directory is there already.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

/// A hidden name in the same directory, for writers that need a path; rename it when it is complete.
pub fn temporary_name(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map_or_else(Default::default, |name| name.to_string_lossy());
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Fails early, before long work, if a file cannot be written at this path.
pub fn check_writable(path: &Path) -> Result<()> {
    ensure!(
        !path.is_dir(),
        "cannot write {}: it is a directory",
        path.display()
    );
    if is_special(path) {
        return Ok(());
    }
    let temporary = temporary_name(path);
    File::create(&temporary).with_context(|| format!("cannot write {}", path.display()))?;
    fs::remove_file(&temporary).with_context(|| format!("cannot write {}", path.display()))
}

/// The log of training: one JSON object per line, each with its `step`.
pub struct MetricsLog {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl MetricsLog {
    /// Opens the log. Lines past `last_step` are dropped: the steps after the checkpoint are made again.
    /// `None` starts an empty log.
    pub fn open(path: &Path, last_step: Option<u64>) -> Result<MetricsLog> {
        let kept: Vec<u8> = match last_step {
            None => Vec::new(),
            Some(last) => read_metrics(path)?
                .into_iter()
                .filter(|line| step_of(line).is_some_and(|step| step <= last))
                .flat_map(|line| format!("{line}\n").into_bytes())
                .collect(),
        };
        write_atomically(path, &kept)?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(MetricsLog {
            path: path.to_owned(),
            writer: BufWriter::new(file),
        })
    }

    /// Appends one object; it must have a `step`.
    pub fn append(&mut self, line: &serde_json::Value) -> Result<()> {
        debug_assert!(step_of(line).is_some(), "a line of the metrics has a step");
        writeln!(self.writer, "{line}")
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Writes out what is buffered; to be called before a checkpoint is.
    pub fn flush(&mut self) -> Result<()> {
        self.writer
            .flush()
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn step_of(line: &serde_json::Value) -> Option<u64> {
    line.get("step")?.as_u64()
}

/// Reads a log; a missing one is empty, and an incomplete last line (a killed process) is left out.
pub fn read_metrics(path: &Path) -> Result<Vec<serde_json::Value>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut lines = Vec::new();
    let mut damaged = None;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(number) = damaged {
            bail!("line {number} of {} is damaged", path.display());
        }
        match serde_json::from_str(&line) {
            Ok(value) => lines.push(value),
            Err(_) => damaged = Some(number + 1),
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ConfigArguments;
    use std::time::Duration;

    fn config(set: &[&str]) -> Config {
        let arguments = ConfigArguments {
            source: Some("ala2-tiny".into()),
            set: set.iter().map(|&text| text.to_owned()).collect(),
            seed: None,
        };
        Config::resolve(&arguments).unwrap()
    }

    #[test]
    fn times_are_civil() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn runs_are_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("a/b");
        let run = RunDir::create(&root, &config(&[]), false).unwrap();
        let refuse = |root: &Path, config: &Config, resume| {
            RunDir::create(root, config, resume)
                .expect_err("must be refused")
                .to_string()
        };
        assert!(refuse(&root, &config(&[]), false).contains("unfinished run"));
        RunDir::create(&root, &config(&[]), true).unwrap();
        let other = refuse(&root, &config(&["training.batch=3"]), true);
        assert!(other.contains("its training.batch is 64, not 3"), "{other}");
        write_atomically(&run.summary(), b"{}").unwrap();
        assert!(refuse(&root, &config(&[]), false).contains("finished run"));
        assert!(refuse(&run.summary(), &config(&[]), false).contains("is a file"));
        assert!(refuse(directory.path(), &config(&[]), false).contains("no run directory"));
        assert_eq!(RunDir::open(&root).unwrap().1, config(&[]));
    }

    #[test]
    fn failed_writes_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("inside"), "").unwrap();
        assert!(
            write_atomically(&target, b"text").is_err(),
            "a file cannot replace a directory"
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(check_writable(&target).is_err());
        #[cfg(target_os = "linux")]
        {
            let full = write_atomically(Path::new("/dev/full"), b"text").unwrap_err();
            assert!(format!("{full:#}").contains("No space left"), "{full:#}");
        }
        check_writable(&directory.path().join("y")).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn metrics_are_cut_to_the_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, None).unwrap();
        for step in 0..10 {
            log.append(&serde_json::json!({"step": step, "loss": 0.5}))
                .unwrap();
        }
        log.flush().unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"step\": 10, \"lo"].concat()).unwrap();
        let mut log = MetricsLog::open(&path, Some(6)).unwrap();
        for step in 7..10 {
            log.append(&serde_json::json!({"step": step, "loss": 0.5}))
                .unwrap();
        }
        log.flush().unwrap();
        assert_eq!(whole, fs::read(&path).unwrap());
        fs::write(&path, "{\n{}\n").unwrap();
        assert!(
            read_metrics(&path)
                .unwrap_err()
                .to_string()
                .contains("line 1 of")
        );
    }

    #[test]
    fn seconds_add_up_where_a_stage_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDir::create(&directory.path().join("r"), &config(&[]), false).unwrap();
        run.add_seconds("data", 1.0).unwrap();
        run.add_seconds("train", 2.0).unwrap();
        run.add_seconds("train", 3.0).unwrap();
        run.set_seconds("data", 4.0).unwrap();
        assert_eq!(
            run.seconds().unwrap(),
            [("data".to_owned(), 4.0), ("train".to_owned(), 5.0)]
        );
    }
}
