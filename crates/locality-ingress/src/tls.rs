//! The certificates with which the gateways' connections are served: from [`files`], or made here
//! ([`authority`]), kept in Secrets ([`secrets`]) and renewed ([`renewal`]).

pub(crate) mod authority;
pub(crate) mod files;
pub(crate) mod renewal;
pub(crate) mod secrets;
