//! The plugin against a real API server, whose proxy leads it to the real daemons. Needs root, for
//! a network namespace of its own.

mod inside;
mod mistakes;
mod stage;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ObjectReference;
use kantai_tests::knative::stage::Born;
use kube::runtime::events::EventType;
use serde_json::Value;

use stage::{World, in_own_network};

const REVISION: &str = "hello-00001";

#[test]
fn what_is_decided_is_told_through_the_proxy_of_the_api_server() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let world = World::start(&components).await?;
        let _probers = (world.prober("node01")?, world.prober("node02")?);
        world.decider().await?;
        world.ingress().await?;
        world.stage.add_revision(REVISION, Born::default()).await?;

        let routes = world.until("routes", &["routes"], |text| text.contains(REVISION)).await?;
        ensure!(routes.starts_with("NAMESPACE") && routes.contains("node01 100 %"), "{routes}");
        let routes: Value = serde_json::from_str(&world.says(&["routes", "-A", "-o", "json"]).await?)?;
        ensure!(routes[0]["rows"]["node02"]["node01"] == 100, "{routes}");

        let words = world.says(&["explain", REVISION]).await?;
        ensure!(words.lines().count() > 1 && !words.contains('{'), "{words}");
        let explained: Value = serde_json::from_str(&world.says(&["explain", REVISION, "-o", "json"]).await?)?;
        ensure!(explained["decision"]["key"]["revision"] == REVISION, "{explained}");
        let unknown = world.asks(&["explain", "other-00001"]).await.err().context("it explains what is not there")?;
        ensure!(unknown.to_string().contains("no revision of this name"), "{unknown}");

        let shown = ["extra-controller", "Switch: on", "node02", REVISION];
        let status = world.until("a status", &["status"], |text| shown.iter().all(|part| text.contains(part))).await?;
        let leader = world.decider_pod.get().context("no decider")?;
        ensure!(status.lines().any(|line| line.starts_with("extra-controller ") && line.contains(leader)), "{status}");
        // No gateway has connected, so none is in sync, and none is behind.
        ensure!(status.contains("unknown, connected to no locality-ingress"), "{status}");
        let elsewhere = world.says(&["status", "-n", "kube-system"]).await?;
        ensure!(!elsewhere.contains(REVISION), "{elsewhere}");

        // Notes hold words of others.
        let (events, write) = event_writer::EventWriter::new(
            Some(world.stage.client()),
            "extra-controller",
            event_writer::pod("kantai-system", "a"),
            event_writer::Repeats::Separate,
        );
        let about = ObjectReference {
            kind: Some("PodAutoscaler".into()),
            name: Some(REVISION.into()),
            namespace: Some("default".into()),
            ..ObjectReference::default()
        };
        ensure!(events.about(&about, EventType::Warning, "NoRoom", "node1\u{1b}[2J is full".to_owned()));
        drop(events);
        write.await;
        let events = world.says(&["events", "--warnings"]).await?;
        ensure!(events.contains("node1\\u{1b}[2J is full") && !events.contains('\u{1b}'), "{events}");
        ensure!(events.contains(&format!("podautoscaler/{REVISION}")), "{events}");

        // Who may not ask is told so, and what is unknown is said to be.
        let nobody = world.says(&["status", "--as", "nobody"]).await?;
        ensure!(nobody.contains("Switch: unknown, ") && nobody.contains("forbidden"), "{nobody}");
        Ok(())
    })
}
