//! With which certificates gateways are served: from files, or of our own making.

pub(crate) mod authority;
pub(crate) mod files;
pub(crate) mod renewal;
pub(crate) mod secrets;
