//! Which endpoints a gateway uses, in which proportion: by the plan's routes, away from pods that
//! are full, and with activators in the request path by their shares of the pods.

pub(crate) mod activators;
pub(crate) mod locality;
pub(crate) mod overload;
pub(crate) mod plan;
pub(crate) mod plan_stream;
pub(crate) mod spill;

pub use activators::{Concurrency, shares};
pub use locality::{Policy, assign};
pub use plan::PlanChange;
pub use plan_stream::FollowSettings;
pub use spill::relieve;
