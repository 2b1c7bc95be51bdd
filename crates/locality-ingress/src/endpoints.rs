//! Which endpoints a gateway uses, and in which proportion: the weights of the plan (`plan`,
//! `locality`), moved away from full pods (`overload`, `spill`); for activators, their shares
//! of the pods (`activators`).

pub(crate) mod activators;
pub(crate) mod locality;
pub(crate) mod overflow;
pub(crate) mod overload;
pub(crate) mod plan;
pub(crate) mod plan_stream;
pub(crate) mod spill;

pub use activators::shares;
pub use locality::{LocalityPolicy, assign};
pub use overflow::OverflowLimits;
pub use plan::PlanChange;
pub use plan_stream::FollowSettings;
pub use spill::move_shares;
