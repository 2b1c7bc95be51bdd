//! The probing loop: wakes for turns, for replies and for changes of the peers, and lets the [`Session`](crate::session::Session) decide.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::channel::{BATCH, Channel, open};
use crate::clock::{Mono, Reading};
use crate::exposition::SharedSession;
use crate::fleet_key::SharedKeys;
use crate::pace::Pace;
use crate::selection::{Selection, stretch};
use crate::session::Order;
use crate::stream::Streams;

/// A prober with its sockets open.
pub struct Prober {
    session: SharedSession,
    channels: Vec<Channel>,
    streams: Streams,
    pace: Pace,
    peers: watch::Receiver<Arc<Selection>>,
    all_up_to: usize,
}

impl Prober {
    /// Opens the sockets. In a fleet of more than `all_up_to` nodes the interval is [stretched](stretch). To be called on the runtime that will run it.
    ///
    /// # Errors
    /// Where no socket at all could be opened.
    pub fn open(
        session: SharedSession,
        peers: watch::Receiver<Arc<Selection>>,
        all_up_to: usize,
        keys: &SharedKeys,
    ) -> io::Result<Self> {
        let (channels, streams) = (open(&session, keys)?, Streams::new(session.clone()));
        Ok(Self { session, channels, streams, pace: Pace::new(Mono::now()), peers, all_up_to })
    }

    /// Probes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        self.take_peers();
        let mut source_lives = true;
        let mut orders = Vec::with_capacity(2 * BATCH);
        loop {
            let now = Mono::now();
            let planned = self.session.with(|session| self.pace.next(session.wake(), session.awaits_replies()));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.peers.changed(), if source_lives => match changed {
                    Ok(()) => self.take_peers(),
                    // Whoever told of peers ended: the last known ones stay.
                    Err(_) => source_lives = false,
                },
                () = wait(planned.since(now)) => {
                    self.session.with(|session| session.woke(planned, Mono::now()));
                }
            }
            self.receive_and_send(&mut orders);
        }
    }

    fn take_peers(&mut self) {
        let selection = self.peers.borrow_and_update().clone();
        let times = stretch(selection.fleet, self.all_up_to);
        self.session.with(|session| {
            session.set_stretch(times);
            session.set_peers(&selection.peers, Mono::now());
            self.pace.set(selection.peers.len(), session.interval());
        });
    }

    fn receive_and_send(&mut self, orders: &mut Vec<Order>) {
        let now = Mono::now();
        // A reply that is there already was not lost, however late we are: replies are read before probes are given up.
        for channel in &mut self.channels {
            channel.receive(&self.session, now);
        }
        orders.clear();
        let now = Reading::now();
        self.session.with(|session| {
            session.give_up(now.mono);
            session.due(now, BATCH, orders);
        });
        self.pace.woke(now.mono, !orders.is_empty());
        if !orders.is_empty() {
            for channel in &mut self.channels {
                channel.send(orders, &self.session);
            }
            self.streams.send(orders);
        }
    }
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("channels", &self.channels.len()).finish_non_exhaustive()
    }
}

/// The runtime's timers are no finer than a millisecond, so who is late already must not ask them.
async fn wait(duration: Duration) {
    if duration.is_zero() {
        tokio::task::yield_now().await;
    } else {
        sleep(duration).await;
    }
}
