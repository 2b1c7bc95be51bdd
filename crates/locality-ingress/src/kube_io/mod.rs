//! The way from and to the API server: watches, statuses, events.

pub mod certificates;
pub mod convert;
pub mod events;
pub mod revision;
pub mod status_writer;
pub mod watches;
