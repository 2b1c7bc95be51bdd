//! Settings of a session.

use std::sync::Arc;
use std::time::Duration;

use latency_matrix::Protocol;

use crate::session::histogram::BucketBounds;
use crate::session::pair::{StateLimits, WindowLimits};

/// The protocol that latency is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// UDP echo; for a peer whose responder is silent also ICMP echo, and TCP connect if ICMP does
    /// not answer.
    PreferUdp,
    /// UDP echo only.
    Udp,
    /// ICMP echo only.
    Icmp,
    /// TCP connect only.
    Tcp,
    /// HTTP GET only.
    Http,
}

impl Method {
    /// The protocol of every turn.
    #[must_use]
    pub const fn primary(self) -> Protocol {
        match self {
            Self::PreferUdp | Self::Udp => Protocol::Udp,
            Self::Icmp => Protocol::Icmp,
            Self::Tcp => Protocol::Tcp,
            Self::Http => Protocol::Http,
        }
    }

    /// Whether ICMP is used at all.
    #[must_use]
    pub const fn wants_icmp(self) -> bool {
        matches!(self, Self::PreferUdp | Self::Icmp)
    }
}

impl std::str::FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "prefer-udp" => Ok(Self::PreferUdp),
            "udp" => Ok(Self::Udp),
            "icmp" => Ok(Self::Icmp),
            "tcp" => Ok(Self::Tcp),
            "http" => Ok(Self::Http),
            other => Err(format!("unknown source of latency {other:?}: prefer-udp, udp, icmp, tcp or http")),
        }
    }
}

/// Settings of a session.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two probes of a peer.
    pub interval: Duration,
    /// Time after which a probe counts as lost; at most
    /// [`RttSample::MAX`](crate::session::RttSample::MAX).
    pub timeout: Duration,
    /// The window of each pair.
    pub window: WindowLimits,
    /// Limits between the states.
    pub states: StateLimits,
    /// The protocol to measure by.
    pub method: Method,
    /// Bounds of a histogram per pair; none for no such histogram.
    pub pair_bounds: Option<BucketBounds>,
    /// Number of source ports that UDP probes to each peer use in turn; at least 1.
    pub flows: u8,
    /// Size of ICMP packets with their headers, in bytes; a smaller number than the smallest packet
    /// means that.
    pub packet_size: u16,
    /// Number of probes per peer; none for no limit.
    pub probes_per_peer: Option<u32>,
    /// Path of HTTP probes.
    pub http_path: Arc<str>,
}
