//! What the API server holds, kept in stores by watches that survive any outage.

mod changes;
mod watching;

pub(crate) use changes::{ChangeLog, Changes, PodChanges};
pub(crate) use watching::is_ready;
pub(crate) use watching::{Objects, WatchScope, spawn};
