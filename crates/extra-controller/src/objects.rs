//! What the API server holds, followed by watches: one store per kind, and a call to look again at whatever revision an object is about.

mod triggers;
mod watching;

pub use triggers::Triggers;
pub(crate) use watching::is_ready;
pub use watching::{Objects, WatchScope, spawn};
