//! A gateway's page in Prometheus' text form.

use std::collections::BTreeMap;

use gateway_link::RevisionKey;

/// What a page says of one cluster. What it does not say is `None`, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClusterReading {
    /// Requests in flight now.
    pub active: Option<f64>,
    /// Requests sent to a pod since the gateway started.
    pub total: Option<f64>,
    /// Requests answered since the gateway started; not every gateway counts them.
    pub completed: Option<f64>,
    /// Milliseconds that answered requests took, summed, up to the last flush.
    pub time_sum_ms: Option<f64>,
    /// How many requests that sum is of.
    pub time_count: Option<f64>,
}

impl ClusterReading {
    /// Requests that came since the gateway started.
    #[must_use]
    pub fn arrived(&self) -> Option<f64> {
        self.total.or_else(|| Some(self.completed? + self.active?))
    }

    /// Requests that ended since the gateway started.
    #[must_use]
    pub fn ended(&self) -> Option<f64> {
        // The two are read one after the other, so what began in between can make them differ by a
        // request or two.
        self.completed.or_else(|| Some((self.total? - self.active?).max(0.0)))
    }
}

/// A page, by the revision that each cluster serves.
pub type Reading = BTreeMap<RevisionKey, ClusterReading>;

/// Reads a page. Lines that are not about a revision's requests (other metrics, clusters not named
/// `<namespace>/<revision>`, broken lines, numbers that are negative or not finite) are passed
/// over: a gateway shows much more than this.
#[must_use]
pub fn parse_page(text: &str) -> Reading {
    let mut reading = Reading::new();
    for line in text.lines() {
        let Some((metric, key, number)) = parse_line(line) else { continue };
        let cluster: &mut ClusterReading = reading.entry(key).or_default();
        let field = match metric {
            "upstream_rq_active" => &mut cluster.active,
            "upstream_rq_total" => &mut cluster.total,
            "upstream_rq_completed" => &mut cluster.completed,
            "upstream_rq_time_sum" => &mut cluster.time_sum_ms,
            "upstream_rq_time_count" => &mut cluster.time_count,
            _ => continue,
        };
        // Two clusters may serve one revision (HTTP/1 and HTTP/2 of it): what they hold adds up.
        *field = Some(field.unwrap_or(0.0) + number);
    }
    reading.retain(|_, cluster| *cluster != ClusterReading::default());
    reading
}

fn parse_line(line: &str) -> Option<(&str, RevisionKey, f64)> {
    let (name, rest) = line.split_once('{')?;
    let metric = name.strip_prefix("envoy_cluster_")?;
    let (labels, value) = rest.rsplit_once('}')?;
    let cluster = labels.split(',').find_map(|label| label.trim().strip_prefix("envoy_cluster_name=\"")?.strip_suffix('"'))?;
    let (namespace, revision) = cluster.split_once('/')?;
    if namespace.is_empty() || revision.is_empty() || revision.contains('/') {
        return None;
    }
    let number: f64 = value.split_whitespace().next()?.parse().ok()?;
    (number.is_finite() && number >= 0.0).then(|| (metric, RevisionKey::new(namespace, revision), number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = r#"# TYPE envoy_cluster_upstream_rq_active gauge
envoy_cluster_upstream_rq_active{envoy_cluster_name="default/hello-00001"} 3
envoy_cluster_upstream_rq_active{envoy_cluster_name="default/idle-00002"} 0
envoy_cluster_upstream_rq_total{envoy_cluster_name="default/idle-00002"} 7
envoy_cluster_upstream_rq_active{envoy_cluster_name="xds"} 1
# TYPE envoy_cluster_upstream_rq_completed counter
envoy_cluster_upstream_rq_completed{envoy_cluster_name="default/hello-00001"} 120
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="default/hello-00001",le="0.5"} 0
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="default/hello-00001"} 610.5
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="default/hello-00001"} 120
envoy_server_uptime{} 12
envoy_cluster_upstream_rq_active{envoy_cluster_name="default/broken"} NaN
envoy_cluster_upstream_rq_active{envoy_cluster_name="default/bro
"#;

    #[test]
    fn reads_revisions_only() {
        let reading = parse_page(PAGE);
        let hello = reading[&RevisionKey::new("default", "hello-00001")];
        assert_eq!(
            hello,
            ClusterReading {
                active: Some(3.0),
                total: None,
                completed: Some(120.0),
                time_sum_ms: Some(610.5),
                time_count: Some(120.0)
            }
        );
        assert_eq!(hello.ended(), Some(120.0));
        let idle = reading[&RevisionKey::new("default", "idle-00002")];
        assert_eq!((idle.active, idle.ended()), (Some(0.0), Some(7.0)));
        assert_eq!(reading.len(), 2);
    }

    #[test]
    fn clusters_of_one_revision_add_up() {
        let line = "envoy_cluster_upstream_rq_active{envoy_cluster_name=\"a/b\"} 2\n";
        assert_eq!(parse_page(&line.repeat(2))[&RevisionKey::new("a", "b")].active, Some(4.0));
    }

    proptest! {
        #[test]
        fn hostile_pages_never_panic(text in "(envoy_cluster_)?[ -~\n]{0,200}") {
            let _ = parse_page(&text);
        }
    }
}
