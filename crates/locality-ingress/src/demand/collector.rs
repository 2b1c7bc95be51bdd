//! Demand as metrics, read from the board on each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::shared::SharedLoadBoard;
use gateway_link::demand::Load;

/// Exports the board.
#[derive(Clone, Debug)]
pub(crate) struct DemandMetrics {
    demand: SharedLoadBoard,
}

impl DemandMetrics {
    /// The metrics of `demand`.
    #[must_use]
    pub(crate) fn new(demand: SharedLoadBoard) -> Self {
        Self { demand }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    revision: String,
    source: String,
    serving: String,
}

impl Collector for DemandMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let loads: Vec<(Labels, Load)> = {
            let revisions = self.demand.board().all().into_iter();
            revisions
                .flat_map(|(revision, by_source)| {
                    by_source.into_iter().flat_map(move |(source, by_serving)| {
                        let revision = revision.clone();
                        by_serving.into_iter().map(move |(serving, load)| {
                            let labels = Labels {
                                namespace: revision.namespace.clone(),
                                revision: revision.name.clone(),
                                source: source.clone(),
                                serving,
                            };
                            (labels, load)
                        })
                    })
                })
                .collect()
        };
        let gauge = |load: &Load, metric: MetricEncoder<'_>| {
            ConstGauge::new(i64::try_from(load.in_flight).unwrap_or(i64::MAX)).encode(metric)
        };
        let mut family = encoder.encode_descriptor(
            "kantai_locality_ingress_requests_in_flight",
            "Requests in flight",
            None,
            MetricType::Gauge,
        )?;
        for (labels, load) in &loads {
            gauge(load, family.encode_family(labels)?)?;
        }
        type Count = fn(&Load) -> u64;
        let counts: [(&str, &str, Count); 3] = [
            ("kantai_locality_ingress_requests_arrived", "Requests sent to a serving node", |load| load.arrived),
            ("kantai_locality_ingress_requests_finished", "Requests answered with anything but a server error", |load| {
                load.finished
            }),
            ("kantai_locality_ingress_requests_failed", "Requests answered with a server error, or not at all", |load| {
                load.failed
            }),
        ];
        for (name, help, count) in counts {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, load) in &loads {
                ConstCounter::new(count(load)).encode(family.encode_family(labels)?)?;
            }
        }
        let help = "Requests in flight, added up over time; divided by those that ended it is the mean response time";
        let mut family =
            encoder.encode_descriptor("kantai_locality_ingress_requests_busy_seconds", help, None, MetricType::Counter)?;
        for (labels, load) in &loads {
            ConstCounter::new(load.busy_seconds).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::demand::board::tests::report;

    #[test]
    fn what_the_board_knows_is_on_the_page() {
        let demand = SharedLoadBoard::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(DemandMetrics::new(demand.clone())));
        let report = report(&[("default/hello-00001/80", "node1", 3, 4, 0)]);
        demand.board().open_stream(1, "node3", Instant::now()).unwrap();
        demand.board().apply_report(1, &report, |_| true, Instant::now());
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        let labels = r#"{namespace="default",revision="hello-00001",source="node3",serving="node1"}"#;
        assert!(page.contains(&format!("kantai_locality_ingress_requests_in_flight{labels} 3\n")), "{page}");
        assert!(page.contains(&format!("kantai_locality_ingress_requests_arrived_total{labels} 4\n")), "{page}");
    }
}
