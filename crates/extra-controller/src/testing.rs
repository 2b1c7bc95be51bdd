//! One revision on two nodes, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autoscaler::rollout::{Counts, Maker, Pod};
use autoscaler::room::{NodeRoom, Resources};
use autoscaler::settings::{ClusterSettings, RevisionSettings};
use autoscaler::{Decision, Facts, Inputs, Memory, Network, Now, Picture};
use gateway_link::RevisionKey;
use jiff::Timestamp;
use k8s_api::{PodAutoscalerStatus, Reachability};
use placement::CostMatrix;
use placement::problem::CostModel;

/// A revision with these annotations and one ready pod of its Deployment on node1.
pub(crate) fn inputs(annotations: &[(&str, &str)]) -> Inputs {
    let annotations = annotations.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let each = Resources { cpu_millis: 100, pods: 1, ..Resources::default() };
    let facts = Facts {
        uid: "one".to_owned(),
        service: "hello".to_owned(),
        generation: 1,
        created: None,
        status: PodAutoscalerStatus::default(),
        reachability: Reachability::Reachable,
        settings: RevisionSettings::read(&annotations, 0, true, &ClusterSettings::default()),
        sks: None,
        pods: vec![Pod { is_ready: true, ..Pod::on("boot", "node1", Maker::Deployment) }],
        seika: Counts::new(),
        deployment: 1,
        deployment_generation: 1,
        template: Arc::default(),
        each,
        earns_locality: true,
        is_seika_observed: true,
        is_handing_back: false,
        was_handed_back: false,
    };
    Inputs { facts: Arc::new(facts), demand: Arc::default(), activator: None }
}

/// Two nodes with room, 20 ms apart, and this revision.
pub(crate) fn picture(inputs: Inputs) -> Picture {
    let nodes = ["node1", "node2"].map(Into::into).to_vec();
    let room = ["node1", "node2"].map(|node| NodeRoom {
        node: node.into(),
        offers: Resources { cpu_millis: 4000, memory_bytes: 1 << 40, pods: 110, ..Resources::default() },
        taken: Resources::default(),
        taken_ports: Vec::new(),
        is_ready: true,
        is_cordoned: false,
        os: None,
        taints: Arc::default(),
        labels: Arc::default(),
    });
    let costs = CostMatrix::from_row_major(nodes, vec![0.0, 0.020, 0.020, 0.0]);
    Picture {
        now: Now { wall: Timestamp::UNIX_EPOCH, monotonic: Duration::from_secs(100) },
        network: Arc::new(Network { version: 1, costs, model: CostModel::LocalFirst }),
        room: Arc::new(room.to_vec()),
        revisions: BTreeMap::from([(RevisionKey::new("default", "hello-00001"), inputs)]),
    }
}

/// What is decided about a revision without annotations.
pub(crate) fn decision() -> Decision {
    autoscaler::decide(&picture(inputs(&[])), &mut Memory::default()).remove(0).unwrap()
}
