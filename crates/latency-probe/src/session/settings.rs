//! How to probe.

use std::sync::Arc;
use std::time::Duration;

use crate::peers::Protocol;
use crate::session::histogram::Bounds;
use crate::session::pair::{StateLimits, WindowLimits};

/// Which protocol the exported latency comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// UDP echo. To a peer whose responder is silent ICMP echo as well, and TCP connect where ICMP tells nothing.
    PreferUdp,
    /// UDP echo alone.
    Udp,
    /// ICMP echo alone.
    Icmp,
    /// TCP connect alone.
    Tcp,
    /// HTTP GET alone.
    Http,
}

impl Feed {
    /// The protocol that is always used.
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

impl std::str::FromStr for Feed {
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

/// How to probe.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two probes of a peer.
    pub interval: Duration,
    /// How long a probe may be out before it is lost; at most [`Rtt::MAX`](crate::session::round_trip::Rtt::MAX).
    pub timeout: Duration,
    /// What is kept of each pair.
    pub window: WindowLimits,
    /// When a pair is no longer known.
    pub states: StateLimits,
    /// Which protocol tells.
    pub feed: Feed,
    /// Buckets of each pair's own histogram; none for no such histogram.
    pub pair_bounds: Option<Bounds>,
    /// Number of ports that UDP probes to each peer leave from in turn, at least 1: routes of equal cost are chosen by ports.
    pub flows: u8,
    /// How many times each peer is probed; none = for as long as it is a peer.
    pub probes_per_peer: Option<u32>,
    /// What HTTP probes ask for.
    pub http_path: Arc<str>,
}
