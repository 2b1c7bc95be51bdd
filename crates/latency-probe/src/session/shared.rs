//! The session as the probing loop and its readers share it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::session::Session;

/// The session as its loop and its readers share it.
#[derive(Clone, Debug)]
pub struct SharedSession(Arc<Mutex<Session>>);

impl SharedSession {
    /// Shares a session.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self(Arc::new(Mutex::new(session)))
    }

    /// Does something with the session. Keep it short: replies wait meanwhile (their times do not change by that).
    pub fn with<T>(&self, action: impl FnOnce(&mut Session) -> T) -> T {
        // Each change leaves the session whole; a reader that panicked in between did not change it.
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
