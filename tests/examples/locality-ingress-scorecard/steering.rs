//! Where requests go, and how soon.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::figure::{as_f64, quantile_ms};
use crate::load::{Connection, shares};
use crate::stage::{Stage, entry};
use kantai_tests::ingress::backend::Backend;
use kantai_tests::ingress::bench::{NODES, eventually, pod_address};
use scorecards::{Figure, Goal};

const CHANGES: usize = 60;

/// A pod appears and another one goes, over and over: from the moment at which the write is sent to
/// the API server until the first request follows at each gateway, and until the last one still
/// went to the old pod.
pub(crate) async fn endpoint_to_traffic(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let _pods = [Backend::start("1", pod_address(2, 1)).await?, Backend::start("2", pod_address(2, 2)).await?];
    let host = stage.revision("swap", &[(2, 1)]).await?;
    let answers: Arc<Mutex<Vec<(Instant, u8, String)>>> = Arc::default();
    let mut clients = tokio::task::JoinSet::new();
    for node in NODES {
        let mut connection = Connection::open(entry(node), &host).await?;
        let answers = answers.clone();
        clients.spawn(async move {
            loop {
                let answer = connection.ask().await?;
                anyhow::ensure!(answer.status == 200, "status {}", answer.status);
                answers.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), node, answer.who));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            #[allow(unreachable_code)]
            anyhow::Ok(())
        });
    }
    let (mut after_answer, mut after_sending) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let (old, new) = if change % 2 == 0 { ("1", "2") } else { ("2", "1") };
        answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let sending = Instant::now();
        stage.bench.pods("swap-00001", &[(2, new.parse()?)]).await?;
        let answered = Instant::now();
        tokio::time::sleep(Duration::from_millis(250)).await;
        let seen = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for node in NODES {
            let of = |who: &str| {
                seen.iter().filter(|(_, at, one)| *at == node && one == who).map(|(when, ..)| *when).collect::<Vec<_>>()
            };
            let first_new =
                of(new).into_iter().min().ok_or_else(|| anyhow::anyhow!("node{node} did not follow change {change}"))?;
            let last_old = of(old).into_iter().max().unwrap_or(sending);
            for moment in [first_new, last_old] {
                after_answer.push(moment.saturating_duration_since(answered));
                after_sending.push(moment.saturating_duration_since(sending));
            }
        }
        if let Some(ended) = clients.try_join_next() {
            ended??;
        }
    }
    clients.abort_all();
    stage.forget("swap").await?;
    eprintln!(
        "counted from the API server's answer to the write: p50 {:.1} ms, p99 {:.1} ms",
        quantile_ms(&after_answer, 0.5),
        quantile_ms(&after_answer, 0.99)
    );
    let figure =
        |id, quantile, most| Figure { id, value: quantile_ms(&after_sending, quantile), unit: "ms", goal: Goal::AtMost(most) };
    Ok(vec![figure("endpoint_to_traffic_ms_p50", 0.5, 10.0), figure("endpoint_to_traffic_ms_p99", 0.99, 40.0)])
}

/// A plan of 62, 27 and 11 %.
pub(crate) async fn weights(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    const PLANNED: [(&str, u32); 3] = [("node1", 62), ("node2", 27), ("node3", 11)];
    const REQUESTS: usize = 10_000;
    let mut pods = Vec::new();
    for node in NODES {
        pods.push(Backend::start(&format!("node{node}"), pod_address(node, 1)).await?);
    }
    let host = stage.revision("split", &[(1, 1), (2, 1), (3, 1)]).await?;
    stage.plan.say("split-00001", &[("node1", &PLANNED)])?;
    eventually("the plan to be followed", async || {
        let shares = shares(entry(1), &host, 2, 100).await?;
        anyhow::ensure!(shares.len() == 3, "{shares:?}");
        Ok(())
    })
    .await?;
    let shares = shares(entry(1), &host, 8, REQUESTS).await?;
    eprintln!("planned {PLANNED:?}, of {REQUESTS} requests: {shares:?}");
    let deviation = |(node, planned): (&str, u32)| {
        let share = as_f64(shares.get(node).copied().unwrap_or(0)) / as_f64(REQUESTS) * 100.0;
        (share - f64::from(planned)).abs()
    };
    let largest = PLANNED.into_iter().map(deviation).fold(0.0, f64::max);
    stage.forget("split").await?;
    Ok(vec![Figure { id: "weight_error_pct", value: largest, unit: "points", goal: Goal::AtMost(2.0) }])
}

/// A pod on every node, and a plan that keeps every node's requests there.
pub(crate) async fn local_when_possible(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    const REQUESTS: usize = 4_000;
    let mut pods = Vec::new();
    for node in NODES {
        pods.push(Backend::start(&format!("node{node}"), pod_address(node, 1)).await?);
    }
    stage.plan.say("near-00001", &[("node1", &[("node1", 100)]), ("node2", &[("node2", 100)]), ("node3", &[("node3", 100)])])?;
    let host = stage.revision("near", &[(1, 1), (2, 1), (3, 1)]).await?;
    let sources = NODES.map(|node| shares(entry(node), &host, 4, REQUESTS));
    let shares = futures::future::try_join_all(sources).await?;
    let local: usize =
        NODES.iter().zip(&shares).map(|(node, shares)| shares.get(&format!("node{node}")).copied().unwrap_or(0)).sum();
    eprintln!("answered by: {shares:?}");
    stage.forget("near").await?;
    let value = as_f64(local) / as_f64(REQUESTS * NODES.len()) * 100.0;
    Ok(vec![Figure { id: "local_when_possible_pct", value, unit: "%", goal: Goal::AtLeast(99.9) }])
}
