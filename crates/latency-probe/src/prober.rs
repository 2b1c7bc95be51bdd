//! The probing loop: waits for replies, for turns and for changes of the peers, and lets the [`Session`](crate::session::Session) decide.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::channel::{BATCH, Channel, open};
use crate::clock::{Mono, Reading};
use crate::exposition::SharedSession;
use crate::fleet_key::SharedKeys;
use crate::selection::{Selection, stretch};

/// A prober with its sockets open.
pub struct Prober {
    session: SharedSession,
    channels: Vec<Channel>,
    peers: watch::Receiver<Arc<Selection>>,
    all_up_to: usize,
}

/// With nothing to do, look again after this.
const IDLE: Duration = Duration::from_secs(60);

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
        Ok(Self { channels: open(&session, keys)?, session, peers, all_up_to })
    }

    /// Probes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        self.take_peers();
        let mut source_lives = true;
        let mut orders = Vec::with_capacity(2 * BATCH);
        loop {
            let now = Mono::now();
            let planned = self.session.with(|session| session.wake()).unwrap_or_else(|| now.plus(IDLE));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.peers.changed(), if source_lives => match changed {
                    Ok(()) => self.take_peers(),
                    // Whoever told of peers ended: the last known ones stay.
                    Err(_) => source_lives = false,
                },
                index = readable(&self.channels) => self.channels[index].receive(&self.session),
                () = sleep_until(Instant::now() + planned.since(now)) => {
                    self.session.with(|session| session.woke(planned, Mono::now()));
                    // A reply that is there already was not lost, however late we are.
                    for channel in &mut self.channels {
                        channel.receive(&self.session);
                    }
                }
            }
            self.give_up_and_send(&mut orders);
        }
    }

    fn take_peers(&mut self) {
        let selection = self.peers.borrow_and_update().clone();
        let times = stretch(selection.fleet, self.all_up_to);
        self.session.with(|session| {
            session.set_stretch(times);
            session.set_peers(&selection.peers, Mono::now());
        });
    }

    fn give_up_and_send(&mut self, orders: &mut Vec<crate::session::Order>) {
        orders.clear();
        self.session.with(|session| {
            let now = Reading::now();
            session.give_up(now.mono);
            session.due(now, BATCH, orders);
        });
        if !orders.is_empty() {
            for channel in &mut self.channels {
                channel.send(orders, &self.session);
            }
        }
    }
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("channels", &self.channels.len()).finish_non_exhaustive()
    }
}

/// The index of a channel with something to read.
async fn readable(channels: &[Channel]) -> usize {
    poll_fn(|context| {
        for (index, channel) in channels.iter().enumerate() {
            // An error here means that the runtime ends; reading will not find anything.
            if let Poll::Ready(Ok(_)) = channel.socket().poll_read_ready(context) {
                return Poll::Ready(index);
            }
        }
        Poll::Pending
    })
    .await
}
