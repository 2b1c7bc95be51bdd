//! The conditions under which a daemon is ready.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The set of missing conditions; ready when it is empty. Clones are cheap and share the set.
#[derive(Clone, Debug)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Readiness {
    /// Not ready until each of `conditions` was [reached](Self::reached).
    #[must_use]
    pub fn waiting_for(conditions: impl IntoIterator<Item = &'static str>) -> Self {
        Self { missing: Arc::new(Mutex::new(conditions.into_iter().collect())) }
    }

    /// `condition` holds from now on.
    pub fn reached(&self, condition: &'static str) {
        self.with(|missing| {
            missing.remove(condition);
        });
    }

    /// `condition` no longer holds.
    pub fn lost(&self, condition: &'static str) {
        self.with(|missing| {
            missing.insert(condition);
        });
    }

    /// What is missing, in order of name.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.with(|missing| missing.iter().copied().collect())
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeSet<&'static str>) -> T) -> T {
        // The set is valid after every operation, so a poisoned lock is harmless.
        change(&mut self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
