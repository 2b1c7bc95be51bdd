//! What must have happened before a daemon is ready.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// A set of things still missing; ready when it is empty. Cheap to clone, all clones share the set.
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
        // A set of names is whole after every operation, so a panic elsewhere while it was held does no harm.
        change(&mut self.missing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
