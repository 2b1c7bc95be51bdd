//! One line per step, with the time it took, so that the terminal is not silent for minutes.
//!
//! A step that is over within a blink prints one line. A longer one says at once what it is about,
//! and again every ten seconds that it still is.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ANNOUNCE_AFTER: Duration = Duration::from_millis(300);
const REMIND_EVERY: Duration = Duration::from_secs(10);

/// Where lines of progress go. Cheap to clone; clones share the clock.
#[derive(Clone)]
pub struct Progress {
    started: Instant,
    sink: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("elapsed", &self.started.elapsed()).finish_non_exhaustive()
    }
}

impl Progress {
    /// Lines on standard error.
    pub fn to_stderr() -> Self {
        Self::to(|line| eprintln!("{line}"))
    }

    /// Lines to wherever `sink` puts them.
    pub fn to(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { started: Instant::now(), sink: Arc::new(sink) }
    }

    /// Prints one line, stamped with the seconds since the start.
    pub fn line(&self, text: impl fmt::Display) {
        (self.sink)(&format!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64()));
    }

    /// Begins a step. Dropping it without [`Step::done`] reports it as given up, so an early `?`
    /// needs no care.
    pub fn step(&self, what: impl Into<String>) -> Step {
        let what = what.into();
        let (over, told) = channel::<()>();
        let reminder = {
            let (progress, what, begun) = (self.clone(), what.clone(), Instant::now());
            std::thread::spawn(move || {
                let mut wait = ANNOUNCE_AFTER;
                while matches!(told.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                    if wait == ANNOUNCE_AFTER {
                        progress.line(format_args!("{what} ..."));
                    } else {
                        progress.line(format_args!("{what} ... {:.0} s so far", begun.elapsed().as_secs_f64()));
                    }
                    wait = REMIND_EVERY;
                }
            })
        };
        Step { progress: self.clone(), what, begun: Instant::now(), over: Some(over), reminder: Some(reminder), finished: false }
    }
}

/// A step under way; see [`Progress::step`].
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    what: String,
    begun: Instant,
    over: Option<Sender<()>>,
    reminder: Option<JoinHandle<()>>,
    finished: bool,
}

impl Step {
    /// Ends the step well and prints how long it took.
    pub fn done(mut self) -> Duration {
        self.silence();
        self.finished = true;
        let took = self.begun.elapsed();
        self.progress.line(format_args!("{}: {:.1} s", self.what, took.as_secs_f64()));
        took
    }

    fn silence(&mut self) {
        drop(self.over.take());
        if let Some(reminder) = self.reminder.take() {
            // A reminder that panicked has nothing left to say.
            let _ = reminder.join();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.silence();
            self.progress.line(format_args!("{}: given up after {:.1} s", self.what, self.begun.elapsed().as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn recorder() -> (Progress, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        (Progress::to(move |line| sink.lock().unwrap().push(line.to_owned())), lines)
    }

    #[test]
    fn a_quick_step_is_one_line() {
        let (progress, lines) = recorder();
        progress.step("finding runc").done();
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("finding runc: 0.0 s"), "{lines:?}");
    }

    #[test]
    fn a_longer_step_announces_itself() {
        let (progress, lines) = recorder();
        let step = progress.step("building etcd");
        std::thread::sleep(ANNOUNCE_AFTER + Duration::from_millis(200));
        step.done();
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("building etcd ..."), "{lines:?}");
    }

    #[test]
    fn a_dropped_step_is_reported_as_given_up() {
        let (progress, lines) = recorder();
        drop(progress.step("building etcd"));
        assert!(lines.lock().unwrap()[0].contains("building etcd: given up after"));
    }
}
