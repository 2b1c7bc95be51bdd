//! Names of nodes and round-trip times.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The name of a node, as the cluster knows it. A clone shares the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// A node's name; any string, since what is valid is the cluster's business.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for NodeName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

/// Names from people: an empty one is a mistake.
impl FromStr for NodeName {
    type Err = EmptyNodeName;

    fn from_str(name: &str) -> Result<Self, EmptyNodeName> {
        if name.trim().is_empty() { Err(EmptyNodeName) } else { Ok(name.into()) }
    }
}

/// A name without a character that can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("failed to read a node's name: it is empty")]
pub struct EmptyNodeName;

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Rows hold a name for every pair: the text is copied once.
impl<'de> Deserialize<'de> for NodeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = NodeName;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a node")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<NodeName, E> {
                Ok(name.into())
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Names are compared and hashed as their text, so that maps by name accept a `&str` as key.
impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why a number is not a round-trip time.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum RttError {
    /// NaN or infinite.
    #[error("failed to read {0} seconds as a round-trip time: not finite")]
    NotFinite(f64),
    /// Below zero.
    #[error("failed to read {0} seconds as a round-trip time: negative")]
    Negative(f64),
    /// Above [`Rtt::ABSURD`].
    #[error("failed to read {0} seconds as a round-trip time: more than {max} seconds", max = Rtt::ABSURD.seconds())]
    Absurd(f64),
}

/// A round-trip time in seconds: finite, not negative, at most [`Rtt::ABSURD`].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rtt(f64);

impl Rtt {
    /// From a node to itself.
    pub const ZERO: Self = Self(0.0);
    /// No packet of a working network takes longer: a greater number is a broken clock or a broken
    /// unit. It is also what a pair of which nothing is known costs, so that no measured pair ever
    /// costs more than an unmeasured one.
    pub const ABSURD: Self = Self(10.0);

    /// A round-trip time in seconds.
    ///
    /// # Errors
    /// When `seconds` is NaN, infinite, negative or more than [`Rtt::ABSURD`].
    pub fn from_seconds(seconds: f64) -> Result<Self, RttError> {
        if !seconds.is_finite() {
            Err(RttError::NotFinite(seconds))
        } else if seconds < 0.0 {
            Err(RttError::Negative(seconds))
        } else if seconds > Self::ABSURD.0 {
            Err(RttError::Absurd(seconds))
        } else {
            // Adding zero turns -0.0 into 0.0.
            Ok(Self(seconds + 0.0))
        }
    }

    /// The time in seconds.
    #[must_use]
    pub const fn seconds(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Rtt {
    type Error = RttError;

    fn try_from(seconds: f64) -> Result<Self, RttError> {
        Self::from_seconds(seconds)
    }
}

impl From<Rtt> for f64 {
    fn from(rtt: Rtt) -> Self {
        rtt.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_round_trip_times_are_refused() {
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-9, 10.1] {
            assert!(Rtt::from_seconds(seconds).is_err(), "{seconds}");
        }
        assert_eq!(Rtt::from_seconds(-0.0).unwrap().seconds().to_bits(), 0);
        assert_eq!(Rtt::from_seconds(0.025).unwrap().seconds(), 0.025);
    }

    #[test]
    fn an_empty_name_is_a_mistake() {
        assert_eq!("node1".parse(), Ok(NodeName::from("node1")));
        assert_eq!(" ".parse::<NodeName>(), Err(EmptyNodeName));
    }

    #[test]
    fn a_map_by_name_is_asked_with_text() {
        let ordered = std::collections::BTreeMap::from([(NodeName::from("node1"), 1), (NodeName::from("node2"), 2)]);
        let hashed: std::collections::HashMap<NodeName, u8> = ordered.clone().into_iter().collect();
        assert_eq!((ordered.get("node2"), ordered.get("node3")), (Some(&2), None));
        assert_eq!((hashed.get("node1"), hashed.get("node3")), (Some(&1), None));
    }

    #[test]
    fn a_name_is_a_plain_string_on_the_wire() {
        assert_eq!(serde_json::to_string(&NodeName::from("node1")).unwrap(), "\"node1\"");
        assert_eq!(serde_json::from_str::<NodeName>("\"node1\"").unwrap(), "node1".into());
        assert!(serde_json::from_str::<Rtt>("-3").is_err());
    }
}
