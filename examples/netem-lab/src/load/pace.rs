//! When requests are sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client::Client;
use super::{Outcome, stdin_end};

/// Sends on time, whatever is still under way; then waits for the answers.
pub(super) async fn open_loop(
    client: &Arc<Client>,
    rate_per_second: f64,
    length: Duration,
    stop_on_stdin_end: bool,
    outcomes: UnboundedSender<Outcome>,
) {
    let begin = Instant::now();
    let mut under_way = JoinSet::new();
    let sending = async {
        for number in 0_u32.. {
            let intended = begin + Duration::from_secs_f64(f64::from(number) / rate_per_second);
            if intended >= begin + length {
                break;
            }
            sleep_until(intended).await;
            let (client, outcomes) = (Arc::clone(client), outcomes.clone());
            under_way.spawn(async move {
                // Nobody reads any more only when the output is gone, and then the program ends
                // with that error.
                let _ = outcomes.send(client.send(intended).await);
            });
            while under_way.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = sending => {}
        () = stdin_end(stop_on_stdin_end) => {}
    }
    while under_way.join_next().await.is_some() {}
}

/// Each worker sends when it has its answer.
pub(super) async fn closed_loop(
    client: &Arc<Client>,
    workers: usize,
    length: Duration,
    stop_on_stdin_end: bool,
    outcomes: UnboundedSender<Outcome>,
) {
    let end = Instant::now() + length;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut working = JoinSet::new();
    for _ in 0..workers {
        let (client, outcomes, stopped) = (Arc::clone(client), outcomes.clone(), stopped.clone());
        working.spawn(async move {
            while Instant::now() < end && !*stopped.borrow() {
                let _ = outcomes.send(client.send(Instant::now()).await);
            }
        });
    }
    if timeout_at(end, stdin_end(stop_on_stdin_end)).await.is_ok() {
        let _ = stop.send(true);
    }
    while working.join_next().await.is_some() {}
}
