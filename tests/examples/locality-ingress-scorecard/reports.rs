//! Load reports of fifty gateways with ten thousand revisions, of which two hundred have traffic.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use locality_ingress::demand::SharedLoadBoard;
use scorecards::{Figure, Goal};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;

use crate::figure::as_f64;
use crate::idle::cpu_seconds;
use crate::scale::{GATEWAYS, XdsServer, state_with_revisions};

/// Revisions with pods and traffic; all others are at zero.
pub(crate) const BUSY: u32 = 200;
/// As deployed.
const INTERVAL: Duration = Duration::from_millis(50);
const TIME: Duration = Duration::from_secs(20);

/// Bytes of reports per second, and the processor time that they take here.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let (changes, mut loads) = tokio::sync::mpsc::channel(4096);
    let demand = SharedLoadBoard::default();
    let server = XdsServer::start(demand.clone(), INTERVAL, changes).await?;
    let mut state = state_with_revisions(&server.store, BUSY);
    state.publish_changes(Instant::now());
    let follow = tokio::spawn(async move {
        while let Some(change) = loads.recv().await {
            state.apply_change(change);
            state.publish_changes(Instant::now());
        }
    });
    let mut gateways = server.start_gateways(true)?;
    let (total, mut sent) = watch::channel(0_u64);
    let mut lines = BufReader::new(gateways.stdout.take().context("no output")?).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            total.send_replace(line.parse().unwrap_or_default());
        }
    });
    server.wait_for_all().await?;
    sent.wait_for(|sent| *sent > 0).await?;
    // The first reports have all clusters, and the gateways' own description.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (began, bytes, cpu) = (Instant::now(), *sent.borrow(), cpu_seconds(std::process::id())?);
    tokio::time::sleep(TIME).await;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = (cpu_seconds(std::process::id())? - cpu) / seconds * 100.0;
    let bytes = *sent.borrow() - bytes;
    let busy = demand.board().all().values().filter(|sources| !sources.is_empty()).count();
    eprintln!("{GATEWAYS} gateways reported {bytes} bytes in {seconds:.1} s; {busy} revisions have load");
    anyhow::ensure!(busy == usize::try_from(BUSY)?, "{busy} revisions have load instead of {BUSY}");
    server.end(gateways).await?;
    follow.abort();
    let mb_s = as_f64(usize::try_from(bytes)?) / 1e6 / seconds;
    Ok(vec![
        Figure { id: "reports_mb_s", value: mb_s, unit: "MB/s", goal: Goal::AtMost(2.0) },
        Figure { id: "reports_core_pct", value: cpu, unit: "%", goal: Goal::AtMost(20.0) },
    ])
}
