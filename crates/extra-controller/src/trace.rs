//! Records decisions for listeners. Without listeners nothing is recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use autoscaler::trace::{Begun, DecisionRecorder, TracedCall};
use autoscaler::{DecideError, Decision, Memory, Picture};
use tokio::sync::broadcast;

/// A listener that is this many lines behind is dropped.
const LINES: usize = 64;
/// Limit of concurrent listeners.
const MOST_LISTENERS: usize = 4;

/// One line of a recording.
#[derive(Clone, Debug)]
pub(crate) struct RecordedLine {
    /// Whether a recording begins with it.
    pub(crate) is_beginning: bool,
    pub(crate) text: Arc<str>,
}

/// Where lines go. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct TraceBook {
    lines: broadcast::Sender<RecordedLine>,
    /// Whether a listener has arrived since the last line.
    is_wanted: Arc<AtomicBool>,
}

impl Default for TraceBook {
    fn default() -> Self {
        Self { lines: broadcast::channel(LINES).0, is_wanted: Arc::default() }
    }
}

impl TraceBook {
    /// Lines from the next beginning on; `None` where too many listen already.
    pub(crate) fn follow(&self) -> Option<broadcast::Receiver<RecordedLine>> {
        if self.lines.receiver_count() >= MOST_LISTENERS {
            return None;
        }
        let lines = self.lines.subscribe();
        self.is_wanted.store(true, Ordering::Release);
        Some(lines)
    }
}

/// Stands beside the loop of decisions.
#[derive(Debug)]
pub(crate) struct Tracer {
    book: TraceBook,
    recorder: DecisionRecorder,
}

/// A line that lacks its decisions.
pub(crate) struct Started {
    begun: Begun,
    is_beginning: bool,
}

impl Tracer {
    pub(crate) fn new(book: TraceBook) -> Self {
        Self { book, recorder: DecisionRecorder::default() }
    }

    /// Must be called before a decision; `None` without listeners.
    pub(crate) fn before(&mut self, call: TracedCall, picture: &Picture, memory: &Memory) -> Option<Started> {
        if self.book.lines.receiver_count() == 0 {
            self.recorder.begin();
            return None;
        }
        if self.book.is_wanted.swap(false, Ordering::AcqRel) {
            self.recorder.begin();
        }
        let is_beginning = self.recorder.begins();
        Some(Started { begun: self.recorder.before(call, picture, memory), is_beginning })
    }

    /// To be called after it.
    pub(crate) fn after(&self, started: Option<Started>, decisions: &[Result<Decision, DecideError>]) {
        let Some(Started { begun, is_beginning }) = started else { return };
        match begun.line(decisions) {
            // Whoever has just gone hears nothing.
            Ok(text) => drop(self.book.lines.send(RecordedLine { is_beginning, text: (text + "\n").into() })),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to record a decision"),
        }
    }
}
