//! What a revision has on its way from one node to another, as the stream of demand has it.

pub use gateway_link::demand::{ByServing, Load};
