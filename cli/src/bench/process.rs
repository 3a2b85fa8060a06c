//! Long-lived processes that speak one JSON object per line.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::progress;

/// Longest time that a process may take to answer: compilers are slow.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How often a wait looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(200);

/// One running process.
pub struct Process {
    name: String,
    child: Child,
    requests: Option<ChildStdin>,
    replies: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts an interpreter, whose messages go to a log in `directory`, and waits for its first answer, which tells the versions of its
    /// libraries.
    ///
    /// # Errors
    /// If the interpreter or a library is absent.
    pub fn start(
        name: &str,
        interpreter: &Path,
        arguments: &[&OsStr],
        directory: &Path,
    ) -> Result<(Self, BTreeMap<String, String>)> {
        let log = directory.join(format!("{}.log", name.replace(' ', "-")));
        let errors =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(interpreter)
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", interpreter.display()))?;
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
        let process = Self {
            name: name.to_owned(),
            child,
            requests,
            replies,
            log,
        };
        let hello = process.reply()?;
        let versions = hello["versions"]
            .as_object()
            .map_or_else(BTreeMap::new, |versions| {
                versions
                    .iter()
                    .map(|(name, version)| {
                        (
                            name.clone(),
                            version.as_str().unwrap_or("unknown").to_owned(),
                        )
                    })
                    .collect()
            });
        Ok((process, versions))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// What the process says, or that it ended.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        self.send(request)?;
        self.answer()
    }

    /// Sends a request, so that others can be sent elsewhere before its answer is awaited.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn send(&mut self, request: &Value) -> Result<()> {
        let sent = match &mut self.requests {
            Some(pipe) => writeln!(pipe, "{request}").and_then(|()| pipe.flush()),
            None => Ok(()),
        };
        if sent.is_err() {
            bail!("{} ended{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Waits for the answer to a request.
    ///
    /// # Errors
    /// What the process says, or that it ended.
    pub fn answer(&mut self) -> Result<Value> {
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

    fn reply(&self) -> Result<Value> {
        let start = Instant::now();
        let line = loop {
            progress::check_interrupt()?;
            match self.replies.recv_timeout(TICK) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Timeout) if start.elapsed() < PATIENCE => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} gave no answer for an hour", self.name)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended{}", self.name, self.last_words())
                }
            }
        };
        serde_json::from_str(&line).with_context(|| format!("{} answered '{line}'", self.name))
    }

    /// The last line that the process wrote before it ended.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let line = text.lines().rev().find(|line| !line.trim().is_empty());
        line.map_or_else(String::new, |line| format!(": {}", line.trim()))
    }
}

impl Drop for Process {
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
