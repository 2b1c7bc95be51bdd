//! How long something long is going to take: a bar on a terminal, lines elsewhere.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use local_control_plane::progress::Progress;

/// Work that was planned, in seconds, and how much of it is done.
#[derive(Debug)]
pub struct Countdown {
    bar: ProgressBar,
    progress: Progress,
    seconds: Mutex<Seconds>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seconds {
    planned: f64,
    done: f64,
}

impl Seconds {
    fn left(self) -> f64 {
        (self.planned - self.done).max(0.0)
    }
}

impl Countdown {
    /// Shows itself on standard error. Lines go by way of `progress`.
    #[must_use]
    pub fn new(progress: Progress) -> Self {
        let bar = ProgressBar::new(0);
        if std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}") {
                bar.set_style(style);
            }
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { bar, progress, seconds: Mutex::default() }
    }

    /// Nothing is done of so many seconds of work.
    pub fn plan(&self, seconds: f64) {
        *self.lock() = Seconds { planned: seconds, done: 0.0 };
        self.show();
    }

    /// Says what comes now, and how long it is to the end.
    pub fn say(&self, what: impl fmt::Display) {
        let left = in_words(self.lock().left());
        self.bar.suspend(|| self.progress.line(format_args!("{what}; {left} left")));
        self.show();
    }

    /// So many more seconds of work are done.
    pub fn passed(&self, seconds: f64) {
        self.lock().done += seconds;
        self.show();
    }

    /// How many seconds of work are done.
    #[must_use]
    pub fn done(&self) -> f64 {
        self.lock().done
    }

    /// So many seconds of work are done, whatever was thought before.
    pub fn is_at(&self, seconds: f64) {
        self.lock().done = seconds;
        self.show();
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        let seconds = *self.lock();
        let millis = |seconds: f64| u64::try_from(Duration::from_secs_f64(seconds.max(0.0)).as_millis()).unwrap_or(u64::MAX);
        self.bar.set_length(millis(seconds.planned));
        self.bar.set_position(millis(seconds.done.min(seconds.planned)));
        self.bar.set_message(format!("{} left", in_words(seconds.left())));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seconds> {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_words(seconds: f64) -> String {
    if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("about {:.0} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_line_says_how_long_it_is_to_the_end() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&lines);
        let countdown = Countdown::new(Progress::to(move |line| sink.lock().unwrap().push(line.to_owned())));
        countdown.plan(600.0);
        countdown.say("first");
        countdown.passed(540.0);
        countdown.say("second");
        countdown.is_at(700.0);
        countdown.say("third");
        let lines = lines.lock().unwrap();
        let ends: Vec<&str> = lines.iter().filter_map(|line| line.split_once("] ")).map(|(_, text)| text).collect();
        assert_eq!(ends, ["first; about 10 min left", "second; 60 s left", "third; 0 s left"]);
    }
}
