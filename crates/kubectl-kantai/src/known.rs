//! Facts that could be read, or why not. What is unknown is neither zero nor bad.

use serde::Serialize;

use crate::error::PluginError;

/// A fact, or why it could not be read.
pub(crate) type Known<T> = Result<T, Unread>;

/// Why a fact could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Unread {
    /// The reason, for people.
    pub(crate) unknown: String,
}

impl Unread {
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self { unknown: reason.into() }
    }
}

impl From<PluginError> for Unread {
    fn from(error: PluginError) -> Self {
        Self::because(error.in_full())
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.unknown)
    }
}

/// As JSON: the fact, or an object whose only field `unknown` has the reason.
pub(crate) fn serialize<T: Serialize, S: serde::Serializer>(fact: &Known<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match fact {
        Ok(fact) => fact.serialize(serializer),
        Err(unread) => unread.serialize(serializer),
    }
}
