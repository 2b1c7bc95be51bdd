//! `top`: requests and response times per source and serving node, as they are now.

mod rates;

use std::time::Duration;

use futures::StreamExt as _;
use gateway_link::demand::{DEMAND_PATH, DemandEvent};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::{Cluster, Scope, Target};
use crate::daemons::{self, INGRESS, OPS};
use crate::error::PluginError;
use crate::known::Unread;
use crate::options::TopOptions;
use crate::output::Output;
use rates::{Board, Rate};

/// Rows that are shown on a terminal.
const MOST_ROWS: usize = 40;
/// Events of all replicas that may wait.
const QUEUE: usize = 256;

/// What `top` shows, for programs.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    interval_seconds: f64,
    rates: &'a [Rate],
    /// Replicas whose demand is missing, and why.
    unread: &'a [(String, Unread)],
}

/// What comes from one replica.
enum Heard {
    Event(Box<DemandEvent>),
    Ended(Unread),
}

pub(crate) async fn run(cluster: &Cluster, options: &TopOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    let scope = cluster.scope(&options.namespaces)?;
    let mut replicas = daemons::pods(cluster, INGRESS).await?;
    replicas.retain(|replica| replica.is_started);
    if replicas.is_empty() {
        let says = format!("no pod of {INGRESS} runs in namespace {}", cluster.system);
        return Err(PluginError::Nobody { doing: "read demand".to_owned(), says });
    }
    let (sender, mut heard) = mpsc::channel(QUEUE);
    let followed = replicas.iter().map(|pod| follow(cluster, Target::pod(&cluster.system, &pod.name, OPS), sender.clone()));
    let following = futures::future::join_all(followed);
    let showing = show(&mut heard, &scope, options, out);
    tokio::select! {
        shown = showing => shown,
        _ = following => Err(PluginError::Nobody { doing: "read demand".to_owned(), says: "every stream has ended".to_owned() }),
    }
}

/// Reads the stream of one replica, again and again.
async fn follow(cluster: &Cluster, target: Target, heard: mpsc::Sender<(String, Heard)>) {
    /// How long to wait before a stream that ended is opened again.
    const PAUSE: Duration = Duration::from_secs(2);
    loop {
        let ended = match read(cluster, &target, &heard).await {
            Ok(()) => Unread::because("its stream has ended"),
            Err(error) => error.into(),
        };
        if heard.send((target.name.clone(), Heard::Ended(ended))).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read(cluster: &Cluster, target: &Target, heard: &mpsc::Sender<(String, Heard)>) -> Result<(), PluginError> {
    let mut lines = std::pin::pin!(cluster.proxied_lines(target, DEMAND_PATH).await?);
    while let Some(line) = lines.next().await {
        let event = DemandEvent::from_line(&line?)
            .map_err(|error| PluginError::Odd { doing: format!("read demand of {target}"), says: error.to_string() })?;
        if heard.send((target.name.clone(), Heard::Event(Box::new(event)))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn show(
    heard: &mut mpsc::Receiver<(String, Heard)>,
    scope: &Scope,
    options: &TopOptions,
    out: &mut Output<'_>,
) -> Result<(), PluginError> {
    let mut board = Board::default();
    let mut looked = Instant::now();
    let mut looks = 0_u32;
    loop {
        let next = looked + options.interval;
        tokio::select! {
            Some((replica, what)) = heard.recv() => match what {
                Heard::Event(event) => board.hear(&replica, *event),
                Heard::Ended(why) => board.lose(&replica, why),
            },
            () = tokio::time::sleep_until(next) => {
                let seconds = looked.elapsed().as_secs_f64();
                let mut rates = board.rates(seconds);
                looked = Instant::now();
                looks += 1;
                // The first look has nothing to compare with.
                if looks == 1 {
                    continue;
                }
                rates.retain(|rate| scope.holds(&rate.namespace) && options.revision.as_ref().is_none_or(|name| rate.revision == *name));
                let shown = Shown { interval_seconds: seconds, rates: &rates, unread: &board.unread() };
                if options.form.is_json() {
                    return out.json(&shown);
                }
                print(&shown, options, out)?;
                if options.once {
                    return Ok(());
                }
            }
        }
    }
}

fn print(shown: &Shown<'_>, options: &TopOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    if out.is_terminal && !options.once {
        out.clear()?;
    }
    out.line(&format!("Requests over the last {:.1} s", shown.interval_seconds))?;
    if shown.rates.is_empty() {
        out.line("None, and none in flight.")?;
    } else {
        let rows: Vec<_> = shown.rates.iter().take(MOST_ROWS).map(Rate::row).collect();
        out.table(&["NAMESPACE", "REVISION", "ENTER AT", "ANSWERED AT", "REQ/S", "IN FLIGHT", "MEAN", "FAILED"], &rows)?;
        if shown.rates.len() > MOST_ROWS {
            out.line(&format!("and {} rows more", shown.rates.len() - MOST_ROWS))?;
        }
    }
    for (replica, why) in shown.unread {
        out.line(&format!("{replica} is not heard, so requests may be missing: {why}"))?;
    }
    Ok(())
}
