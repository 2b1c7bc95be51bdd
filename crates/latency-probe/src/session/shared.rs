//! The session behind a lock, shared by the probing loop and the readers.

use std::sync::{Arc, Mutex, PoisonError};

use crate::session::Session;

/// A session that threads share.
#[derive(Clone, Debug)]
pub struct SharedSession(Arc<Mutex<Session>>);

impl SharedSession {
    /// Shares a session.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self(Arc::new(Mutex::new(session)))
    }

    /// Runs `action` under the lock. Keep it short: replies wait meanwhile, although their
    /// timestamps stay right.
    pub fn with<T>(&self, action: impl FnOnce(&mut Session) -> T) -> T {
        // Every change leaves the session consistent, and a reader that panicked changed nothing.
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
