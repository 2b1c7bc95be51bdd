//! From a problem to its plan; nothing here is public but what `routing` shows of the flow.

mod anneal;
mod bound;
mod branch;
pub(crate) mod flow;
pub(crate) mod instance;
pub(crate) mod large;
mod near;
pub(crate) mod posed;
mod reduce;
mod regions;
pub(crate) mod search;
pub(crate) mod solve;
pub(crate) mod tie;
pub(crate) mod toward;
pub(crate) mod uniform;
pub(crate) mod zones;
