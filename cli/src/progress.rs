//! Progress on standard error, and Ctrl-C.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use boltzmap_sampling::Control;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use thiserror::Error;

static QUIET: AtomicBool = AtomicBool::new(false);
static INTERRUPT: AtomicBool = AtomicBool::new(false);

/// Time after the first Ctrl-C within which another counts as the same: `timeout -s INT` and some shells send one signal to the
/// process and one to its group, microseconds apart.
const SAME_INTERRUPT: Duration = Duration::from_millis(700);

/// Time between two plain lines where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// Silences progress and notes.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether progress and notes are silenced.
pub fn quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// One line on standard error, unless silenced.
pub fn note(text: &str) {
    use std::io::Write;
    if !quiet() {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// The work was stopped by Ctrl-C.
#[derive(Debug, Error)]
#[error("interrupted; go on with --resume")]
pub struct Interrupted;

/// Work that cannot go on later was stopped by Ctrl-C; the text says what was kept.
#[derive(Debug, Error)]
#[error("interrupted; {0}")]
pub struct Abandoned(pub String);

/// What a Ctrl-C asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Stop at the next safe point.
    Stop,
    /// Nothing new: it belongs to the one before.
    Same,
    /// Stop at once.
    Exit,
}

/// The request of a Ctrl-C at `now`, where `first` is when the first one came; it is set by that one.
fn request(first: &mut Option<Instant>, now: Instant) -> Request {
    match *first {
        None => {
            *first = Some(now);
            Request::Stop
        }
        Some(before) if now.duration_since(before) < SAME_INTERRUPT => Request::Same,
        Some(_) => Request::Exit,
    }
}

/// Makes Ctrl-C set a flag that long work looks at; a second one, after a moment, exits at once.
pub fn install_interrupt_handler() -> Result<()> {
    let mut first = None;
    ctrlc::set_handler(move || match request(&mut first, Instant::now()) {
        Request::Stop => {
            use std::io::Write;
            INTERRUPT.store(true, Ordering::SeqCst);
            let _ = writeln!(
                std::io::stderr(),
                "stopping at the next safe point (Ctrl-C again stops at once)"
            );
        }
        Request::Same => {}
        Request::Exit => std::process::exit(130),
    })
    .context("cannot catch Ctrl-C")
}

/// Whether Ctrl-C was pressed.
pub fn interrupted() -> bool {
    INTERRUPT.load(Ordering::SeqCst)
}

/// The flag itself, for loops in the libraries.
pub fn interrupt_flag() -> &'static AtomicBool {
    &INTERRUPT
}

/// Fails with [`Interrupted`] if Ctrl-C was pressed.
pub fn check_interrupt() -> Result<()> {
    if interrupted() {
        Err(Interrupted.into())
    } else {
        Ok(())
    }
}

/// Progress of one stage: a bar with an estimate on a terminal, a plain line now and then elsewhere.
pub struct Progress {
    stage: String,
    total: u64,
    start: Instant,
    first: u64,
    display: Display,
}

enum Display {
    Silent,
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Starts a stage of `total` units, `done` of which are done already (after a resume).
    pub fn new(stage: &str, total: u64, done: u64) -> Progress {
        let display = if quiet() {
            Display::Silent
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(
                "{prefix:>10} {bar:30} {percent:>3}%  {elapsed} elapsed, {eta} left  {msg}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(stage.to_owned());
            bar.set_position(done);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_secs(1));
            Display::Bar(bar)
        } else {
            note(&format!("{stage}: started"));
            Display::Lines {
                last: Instant::now(),
            }
        };
        Progress {
            stage: stage.to_owned(),
            total,
            start: Instant::now(),
            first: done,
            display,
        }
    }

    /// Reports that `done` of the total units are done; `message` says where things stand, such as the loss.
    /// It is only evaluated when it is shown.
    pub fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        match &mut self.display {
            Display::Silent => {}
            Display::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(message());
            }
            Display::Lines { last } => {
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    let fraction = done as f64 / self.total.max(1) as f64;
                    let elapsed = self.start.elapsed().as_secs_f64();
                    let fresh = done.saturating_sub(self.first);
                    let left = match fresh {
                        0 => String::new(),
                        fresh => {
                            let seconds =
                                elapsed / fresh as f64 * self.total.saturating_sub(done) as f64;
                            format!(", about {} left", duration(seconds))
                        }
                    };
                    let message = message();
                    let message = if message.is_empty() {
                        message
                    } else {
                        format!("  {message}")
                    };
                    note(&format!(
                        "{}: {:.0} %{left}{message}",
                        self.stage,
                        100.0 * fraction
                    ));
                }
            }
        }
    }

    /// Ends the stage and returns the seconds it took.
    pub fn finish(self, message: &str) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64();
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
        let message = if message.is_empty() {
            String::new()
        } else {
            format!("  {message}")
        };
        note(&format!(
            "{}: done in {}{message}",
            self.stage,
            duration(seconds)
        ));
        seconds
    }
}

/// Seconds for human readers.
pub fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.1} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

/// Runs long work with a bar and Ctrl-C.
pub fn with_progress<R, E: Into<anyhow::Error>>(
    stage: &str,
    total: usize,
    work: impl FnOnce(&Control<'_>) -> Result<R, E>,
) -> Result<R> {
    let bar = std::sync::Mutex::new(Progress::new(stage, total as u64, 0));
    let report = |done: usize, _total: usize| {
        if let Ok(mut bar) = bar.lock() {
            bar.set(done as u64, String::new);
        }
    };
    let control = Control {
        progress: Some(&report),
        cancel: Some(interrupt_flag()),
    };
    let result = work(&control);
    check_interrupt()?;
    if let Ok(bar) = bar.into_inner() {
        bar.finish("");
    }
    result.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_interrupt_counts_after_a_moment() {
        let (start, mut first) = (Instant::now(), None);
        let mut after = |milliseconds| {
            let now = start + Duration::from_millis(milliseconds);
            request(&mut first, now)
        };
        assert_eq!(after(0), Request::Stop);
        assert_eq!(after(0), Request::Same);
        assert_eq!(after(500), Request::Same);
        assert_eq!(after(1000), Request::Exit);
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(3.1234), "3.1 s");
        assert_eq!(duration(59.6), "60 s");
        assert_eq!(duration(600.0), "10.0 min");
        assert_eq!(duration(9000.0), "2.5 h");
    }
}
