//! What a pod asks for, by its annotations. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use latency_matrix::NodeName;

/// What all annotations that are read here begin with.
pub(crate) const PREFIX: &str = "placement.kantai.dev/";
/// Services that the pod calls.
const TALKS_TO: &str = "placement.kantai.dev/talks-to";
/// From where the pod is called.
const ASKED_FROM: &str = "placement.kantai.dev/asked-from";
/// The greatest round trip that the pod can live with.
const MAX_RTT: &str = "placement.kantai.dev/max-rtt";
/// The score of the best node.
const STRENGTH: &str = "placement.kantai.dev/strength";
/// What a request takes apart from the network.
const SERVING_TIME: &str = "placement.kantai.dev/serving-time";

/// The greatest score that the scheduler expects of an extender.
pub(crate) const MAX_SCORE: u8 = 10;
/// More than these in one annotation are a mistake.
const MOST_ITEMS: usize = 32;
/// The greatest weight of an item.
const MOST_WEIGHT: f64 = 1e6;
/// The longest time in an annotation.
const LONGEST: Duration = Duration::from_secs(10);

/// What a pod asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    /// What it is to be near to, at least one thing.
    pub(crate) near: Vec<Near>,
    /// The greatest mean round trip to each of them, in seconds.
    pub(crate) max_rtt_seconds: Option<f64>,
    /// The score of the best node, 1 to [`MAX_SCORE`].
    pub(crate) strength: u8,
    /// What a request takes apart from the network, in seconds; none where the pod does not say.
    pub(crate) serving_seconds: Option<f64>,
}

/// Something that a pod is to be near to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Near {
    /// What it is.
    pub(crate) what: What,
    /// How much it counts beside the others; above 0.
    pub(crate) weight: f64,
}

/// Something in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The ready endpoints of a Service.
    Service(ServiceName),
    /// A node.
    Node(NodeName),
    /// The nodes of a zone.
    Zone(String),
    /// The nodes of a region.
    Region(String),
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceName {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl fmt::Display for What {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(formatter, "service {}/{}", service.namespace, service.name),
            Self::Node(node) => write!(formatter, "node {node}"),
            Self::Zone(zone) => write!(formatter, "zone {zone}"),
            Self::Region(region) => write!(formatter, "region {region}"),
        }
    }
}

/// An annotation that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("failed to read the annotation {annotation}: {why}; write {instead}")]
pub(crate) struct BadAnnotation {
    annotation: &'static str,
    why: String,
    instead: &'static str,
}

/// What a pod of `namespace` asks for with its annotations; `None` where it does not opt in. A pod
/// opts in by saying what it talks to or from where it is asked.
///
/// # Errors
/// All annotations that cannot be read.
pub(crate) fn read(namespace: &str, annotations: &BTreeMap<String, String>) -> Result<Option<Wish>, Vec<BadAnnotation>> {
    let mut bad = Vec::new();
    let mut read = Reader { annotations, bad: &mut bad };
    let mut near = read.items(TALKS_TO, "services of the pod's namespace or NAMESPACE/SERVICE, as in cart, db/main=3", |item| {
        let (namespace, name) = item.split_once('/').unwrap_or((namespace, item));
        let is_name = |name: &str| !name.is_empty() && !name.contains([':', '/', ' ']);
        let service = || What::Service(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() });
        if is_name(namespace) && is_name(name) { Ok(service()) } else { Err(format!("{item:?} is no service")) }
    });
    near.extend(read.items(ASKED_FROM, "nodes, zones or regions, as in node1, zone:west=3, region:eu", |item| {
        match item.split_once(':').map_or(("node", item), |(kind, name)| (kind.trim(), name.trim())) {
            ("node", "auto") => Err("the demand at gateways is not read here".to_owned()),
            (_, "") => Err(format!("{item:?} has no name")),
            ("node", name) => Ok(What::Node(name.into())),
            ("zone", name) => Ok(What::Zone(name.to_owned())),
            ("region", name) => Ok(What::Region(name.to_owned())),
            (kind, _) => Err(format!("{kind:?} is neither node, zone nor region")),
        }
    }));
    let max_rtt_seconds = read.value(MAX_RTT, "a time from 1us to 10s, as 20ms", seconds);
    let serving_seconds = read.value(SERVING_TIME, "a time from 1us to 10s, as 5ms", seconds);
    let strength = read.value(STRENGTH, "a whole number from 1 to 10", |text| match text.parse::<u8>() {
        Ok(strength) if (1..=MAX_SCORE).contains(&strength) => Ok(strength),
        _ => Err(format!("{text:?} is no such number")),
    });
    if !bad.is_empty() {
        return Err(bad);
    }
    let wish = || Wish { near, max_rtt_seconds, strength: strength.unwrap_or(MAX_SCORE), serving_seconds };
    let opts_in = annotations.contains_key(TALKS_TO) || annotations.contains_key(ASKED_FROM);
    Ok(opts_in.then(wish))
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    bad: &'a mut Vec<BadAnnotation>,
}

impl Reader<'_> {
    fn value<T>(
        &mut self,
        annotation: &'static str,
        instead: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.annotations.get(annotation)?;
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(why) => {
                self.bad.push(BadAnnotation { annotation, why, instead });
                None
            }
        }
    }

    /// A list of items with or without weights.
    fn items(
        &mut self,
        annotation: &'static str,
        instead: &'static str,
        parse: impl Fn(&str) -> Result<What, String>,
    ) -> Vec<Near> {
        let all = |text: &str| {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items: Vec<Near> = items.take(MOST_ITEMS + 1).map(|item| weighed(item, &parse)).collect::<Result<_, _>>()?;
            match items.len() {
                0 => Err("it names nothing".to_owned()),
                count if count > MOST_ITEMS => Err(format!("it names more than {MOST_ITEMS}")),
                _ => Ok(items),
            }
        };
        self.value(annotation, instead, all).unwrap_or_default()
    }
}

fn weighed(item: &str, parse: impl Fn(&str) -> Result<What, String>) -> Result<Near, String> {
    let (name, weight) = item.split_once('=').map_or((item, "1"), |(name, weight)| (name.trim(), weight.trim()));
    match weight.parse::<f64>() {
        Ok(weight) if weight > 0.0 && weight <= MOST_WEIGHT => Ok(Near { what: parse(name)?, weight }),
        _ => Err(format!("the weight {weight:?} is no number above 0 and at most {MOST_WEIGHT}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| format!("{text:?} is no time"))?;
    let duration = Duration::try_from(parsed).map_err(|_| format!("{text:?} is negative"))?;
    let is_sound = duration >= Duration::from_micros(1) && duration <= LONGEST;
    if is_sound { Ok(duration.as_secs_f64()) } else { Err(format!("{text:?} is too short or too long")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(annotations: &[(&str, &str)]) -> Result<Option<Wish>, Vec<BadAnnotation>> {
        let annotations = annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()));
        read("shop", &annotations.collect())
    }

    fn near(what: What, weight: f64) -> Near {
        Near { what, weight }
    }

    #[test]
    fn a_pod_says_what_it_talks_to_and_from_where_it_is_asked() {
        let service =
            |namespace: &str, name: &str| What::Service(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() });
        let wish = of(&[
            ("talks-to", "cart, db/main = 2.5,"),
            ("asked-from", "node1,node:node2=3, zone:west,region:eu=1"),
            ("max-rtt", "20ms"),
            ("strength", "4"),
            ("serving-time", "500us"),
        ]);
        let expected = Wish {
            near: vec![
                near(service("shop", "cart"), 1.0),
                near(service("db", "main"), 2.5),
                near(What::Node("node1".into()), 1.0),
                near(What::Node("node2".into()), 3.0),
                near(What::Zone("west".to_owned()), 1.0),
                near(What::Region("eu".to_owned()), 1.0),
            ],
            max_rtt_seconds: Some(0.02),
            strength: 4,
            serving_seconds: Some(0.0005),
        };
        assert_eq!(wish, Ok(Some(expected)));
    }

    #[test]
    fn only_what_says_near_to_what_opts_in() {
        assert_eq!(of(&[]), Ok(None));
        // Of revisions, which the extra-controller reads.
        assert_eq!(of(&[("warm", "2"), ("zones", "3")]), Ok(None));
        assert_eq!(of(&[("strength", "3")]), Ok(None));
        assert_eq!(of(&[("talks-to", "cart")]).unwrap().unwrap().strength, MAX_SCORE);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_the_remedy() {
        let bad = of(&[("talks-to", "cart=0"), ("max-rtt", "20"), ("strength", "11")]).unwrap_err();
        let texts: Vec<String> = bad.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts[0],
            "failed to read the annotation placement.kantai.dev/talks-to: the weight \"0\" is no number above 0 and at most \
             1000000; write services of the pod's namespace or NAMESPACE/SERVICE, as in cart, db/main=3"
        );
        assert!(texts[1].contains("max-rtt: \"20\" is no time; write a time"), "{}", texts[1]);
        assert!(texts[2].contains("strength"), "{}", texts[2]);
        for (key, value) in [
            ("talks-to", ""),
            ("talks-to", "http://cart"),
            ("talks-to", "/cart"),
            ("talks-to", "cart=NaN"),
            ("asked-from", "auto"),
            ("asked-from", "city:rome"),
            ("asked-from", "zone:"),
            ("max-rtt", "-1ms"),
            ("serving-time", "1h"),
        ] {
            assert!(of(&[(key, value)]).is_err(), "{key} {value}");
        }
        let many = vec!["a"; MOST_ITEMS + 1].join(",");
        assert!(of(&[("talks-to", &many)]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(key in "talks-to|asked-from|max-rtt|strength|serving-time", value in ".{0,40}") {
            if let Ok(Some(wish)) = of(&[(&key, &value)]) {
                prop_assert!(!wish.near.is_empty());
                prop_assert!(wish.near.iter().all(|near| near.weight > 0.0 && near.weight <= MOST_WEIGHT));
                prop_assert!((1..=MAX_SCORE).contains(&wish.strength));
            }
        }
    }
}
