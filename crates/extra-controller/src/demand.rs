//! Demand per revision and source node, from the gateways' own counters.
//!
//! Every gateway (Envoy) counts the requests it holds per cluster, and a cluster is named `<namespace>/<revision>`, by our ingress and by
//! Kourier alike. A gateway pod's node is the source node of everything that enters there.
//!
//! Two readings are combined, because each is blind to something:
//! - `upstream_rq_active` is the number of requests in flight at this instant. Read every quarter of a second (tenth while some revision is at zero) and averaged
//!   over a second it is unbiased, but a request of a few milliseconds is rarely caught by it;
//! - requests that ended times the mean response time is, by Little's law, the same average and catches every short request, but says
//!   nothing of requests that take longer than a second. Kourier's gateways count `upstream_rq_completed` and have a histogram of times, which
//!   lags with its flush (5 s in stock Envoy); ours leave both out, for they cost as much as a twentieth of a request: what ended is
//!   `upstream_rq_total` less what is in flight, and the mean is learnt from the gauge over the last half minute or so.
//!
//! [`estimate`] picks per second which one to believe.

mod board;
mod estimate;
mod page;
pub mod sampler;

pub use board::{DemandBoard, GatewayState};
pub use estimate::{SecondReading, estimate};
pub use page::{ClusterReading, Reading, parse_page};
