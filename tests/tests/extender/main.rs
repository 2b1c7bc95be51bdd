//! scheduler-extender with the real kube-scheduler on a real API server, under its own rights and
//! by the commands of its page. Nodes are objects; their probers are played by the test.

mod stage;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use stage::{Stage, until};

/// One after the other on one API server: most of the time goes into starting that.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_opt_in_go_where_it_is_near_and_all_others_where_they_would_go_anyway() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let extender = stage.extender(&[]).await?;
    let scheduler = stage.scheduler(&extender, |_| ()).await?;
    the_commands_of_the_page_work(&stage).await?;
    near_things_are_preferred(&stage).await?;
    who_did_not_opt_in_is_not_asked_for(&stage, &extender).await?;
    bad_annotations_are_told(&stage).await?;
    assert!(!extender.metrics().await?.contains("configuration_faults{fault=\"nodes_sent\"} 1"));

    // Nobody answers: pods are bound all the same.
    extender.stop().await?;
    stage.pod("orphan", &json!({"talks-to": "cart"}), true).await?;
    stage.bound("orphan").await?;
    scheduler.kill().await?;

    configurations_that_do_not_fit_are_noticed(&stage).await?;
    a_filter_refuses_what_is_too_far(&stage).await
}

/// `docs/embed-scheduler.md`, word by word, but for what needs kubelets.
async fn the_commands_of_the_page_work(stage: &Stage) -> anyhow::Result<()> {
    let page = include_str!("../../../docs/embed-scheduler.md");
    let commands: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("$ kubectl ")).collect();
    let runnable = commands.iter().filter(|command| !command.contains("port-forward"));
    let mut count = 0;
    for command in runnable {
        stage.kubectl(&command.split_whitespace().collect::<Vec<_>>()).await?;
        count += 1;
    }
    anyhow::ensure!(count >= 6, "{commands:?}");
    until("the pods of the example are near to their service", async || {
        let pods = stage.pods("app=web").await?;
        Ok(pods.len() == 2 && pods.iter().all(|pod| stage::node_of(pod) == Some("node3")))
    })
    .await
}

async fn near_things_are_preferred(stage: &Stage) -> anyhow::Result<()> {
    for (name, annotations, node) in [
        ("caller", json!({"talks-to": "cart"}), "node3"),
        ("called", json!({"asked-from": "node:node2"}), "node2"),
        ("zone", json!({"asked-from": "zone:west=1, node3=9", "talks-to": "default/cart"}), "node3"),
    ] {
        // By chance one of three would be right.
        for number in 0..3 {
            let name = format!("{name}-{number}");
            stage.pod(&name, &annotations, true).await?;
            anyhow::ensure!(stage.bound(&name).await? == node, "{name} is on {}", stage.bound(&name).await?);
        }
    }
    until("the scores are told", async || {
        let notes = stage.events("caller-0", "NodesScored").await?;
        Ok(notes.iter().any(|note| note.contains("service default/cart: node3 10 (0.0 ms)")))
    })
    .await
}

async fn who_did_not_opt_in_is_not_asked_for(stage: &Stage, extender: &stage::Extender) -> anyhow::Result<()> {
    let asked = async || {
        let metrics = extender.metrics().await?;
        let lines =
            metrics.lines().filter_map(|line| line.strip_prefix("kantai_scheduler_extender_requests_total{")?.rsplit_once(' '));
        anyhow::Ok(lines.map(|(_, count)| count.parse::<u64>().unwrap_or_default()).sum::<u64>())
    };
    let before = asked().await?;
    anyhow::ensure!(before >= 9, "{before} requests");
    stage.pod("plain", &json!({}), false).await?;
    stage.bound("plain").await?;
    anyhow::ensure!(asked().await? == before, "the scheduler asked for a pod that did not opt in");
    // With the resource and without annotations it is asked for, and gets no score.
    stage.pod("asks", &json!({}), true).await?;
    stage.bound("asks").await?;
    let metrics = extender.metrics().await?;
    anyhow::ensure!(metrics.contains("requests_total{verb=\"prioritize\",outcome=\"not_asked\"} 1"), "{metrics}");
    let (code, explained) = extender.get("/v1/explain/default/caller-0").await?;
    anyhow::ensure!(code == 200 && explained.contains("\"node\":\"node3\",\"score\":10"), "{explained}");
    anyhow::ensure!(extender.get("/v1/explain/default/plain").await?.0 == 404);
    Ok(())
}

async fn bad_annotations_are_told(stage: &Stage) -> anyhow::Result<()> {
    stage.pod("misspelt", &json!({"talks-to": "cart=much"}), true).await?;
    stage.bound("misspelt").await?;
    until("the annotation is named", async || {
        let notes = stage.events("misspelt", "BadAnnotations").await?;
        Ok(notes.iter().any(|note| note.contains("placement.kantai.dev/talks-to: the weight \"much\"")))
    })
    .await
}

async fn configurations_that_do_not_fit_are_noticed(stage: &Stage) -> anyhow::Result<()> {
    let extender = stage.extender(&[]).await?;
    let scheduler = stage
        .scheduler(&extender, |extender| {
            extender["nodeCacheCapable"] = json!(false);
            extender.as_object_mut().map(|extender| extender.remove("managedResources"));
        })
        .await?;
    // Whole nodes are understood, so the score is right all the same.
    stage.pod("whole", &json!({"talks-to": "cart"}), false).await?;
    anyhow::ensure!(stage.bound("whole").await? == "node3");
    until("it is noticed", async || Ok(extender.metrics().await?.contains("configuration_faults{fault=\"nodes_sent\"} 1")))
        .await?;
    scheduler.kill().await?;
    extender.stop().await
}

async fn a_filter_refuses_what_is_too_far(stage: &Stage) -> anyhow::Result<()> {
    let extender = stage.extender(&["--filter"]).await?;
    let scheduler = stage
        .scheduler(&extender, |extender| {
            extender["filterVerb"] = json!("filter");
            extender["preemptVerb"] = json!("preempt");
        })
        .await?;
    stage.cordon("node3", true).await?;
    stage.pod("picky", &json!({"talks-to": "cart", "max-rtt": "10ms"}), true).await?;
    until("it waits and says why", async || {
        let pod: Pod = stage.get("picky").await?;
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        let why = conditions.iter().find(|one| one.type_ == "PodScheduled").and_then(|one| one.message.clone());
        Ok(why.is_some_and(|why| why.contains("farther than 10 ms")))
    })
    .await?;
    stage.pod("modest", &json!({"talks-to": "cart"}), true).await?;
    anyhow::ensure!(stage.bound("modest").await? != "node3");
    stage.cordon("node3", false).await?;
    anyhow::ensure!(stage.bound("picky").await? == "node3");
    scheduler.kill().await?;
    extender.stop().await
}
