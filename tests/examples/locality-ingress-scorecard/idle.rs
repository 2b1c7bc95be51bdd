//! What the daemon needs while nothing happens.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use scorecards::{Figure, Goal};

use crate::stage::Stage;
use kantai_tests::ingress::backend::Backend;
use kantai_tests::ingress::bench::{eventually, pod_address};

/// A daemon that has just started, three gateways and one revision, without any request.
pub(crate) async fn measure(stage: &mut Stage) -> anyhow::Result<Vec<Figure>> {
    const SETTLES: Duration = Duration::from_secs(15);
    const TIME: Duration = Duration::from_secs(60);
    let _pods = [Backend::start("1", pod_address(1, 1)).await?, Backend::start("2", pod_address(2, 1)).await?];
    let host = stage.revision("idle", &[(1, 1)]).await?;
    stage.kill_daemon().await?;
    stage.start_daemon()?;
    // The daemon follows once it has acted upon a change.
    stage.bench.pods("idle-00001", &[(2, 1)]).await?;
    eventually("a change to be followed", async || {
        let (status, who) = stage.bench.get(1, 8081, &host, "/").await?;
        anyhow::ensure!(status == 200 && who == "2", "{status} from {who}");
        Ok(())
    })
    .await?;
    tokio::time::sleep(SETTLES).await;
    let process = stage.daemon_process().context("the daemon has ended")?;
    let (began, before) = (Instant::now(), cpu_seconds(process)?);
    tokio::time::sleep(TIME).await;
    let mcores = (cpu_seconds(process)? - before) / began.elapsed().as_secs_f64() * 1e3;
    let mib = resident_mib(process)?;
    stage.forget("idle").await?;
    Ok(vec![
        Figure { id: "idle_mib", value: mib, unit: "MiB", goal: Goal::AtMost(10.0) },
        Figure { id: "idle_mcores", value: mcores, unit: "mcores", goal: Goal::AtMost(2.0) },
    ])
}

/// Processor time that a process has used, in user and in kernel mode.
pub(crate) fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    // Fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms; the name before them may have spaces.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

fn resident_mib(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
