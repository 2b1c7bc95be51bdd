//! What the API server holds, kept in stores by watches that survive any outage.

mod changes;
mod watching;

pub use changes::{Change, ChangeLog, Changes};
pub(crate) use watching::is_ready;
pub use watching::{Objects, WatchScope, spawn};
