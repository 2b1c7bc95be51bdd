//! The probing loop: wakes for turns and replies; the [`Session`](crate::session::Session) decides.
//! It runs on a thread of its own and sleeps by the kernel alone: at about twenty wakings a second,
//! a runtime's timers would cost as much as several probes each time.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{ClockReading, Mono};
use crate::discovery::selection::{PeerSelection, stretch};
use crate::net::channel::{BATCH, Channel, Occasion, open};
use crate::net::stream::Streams;
use crate::net::wait_readable;
use crate::protocol::fleet_key::SharedKeys;
use crate::session::SharedSession;
use crate::session::pace::WakeUps;
use crate::session::{ProbeOrder, Session};

/// Longest time between two checks for changed peers or the stop.
const LONGEST_NAP: Duration = Duration::from_millis(100);

/// A prober with its sockets open.
pub struct Prober {
    session: SharedSession,
    channels: Vec<Channel>,
    streams: Streams,
    pace: WakeUps,
    peers: watch::Receiver<Arc<PeerSelection>>,
    all_up_to: usize,
}

impl Prober {
    /// Opens the sockets. In a fleet of more than `all_up_to` nodes the interval grows with the
    /// logarithm of its size.
    ///
    /// # Errors
    /// The system's error if no socket could be opened.
    pub fn open(
        session: SharedSession,
        peers: watch::Receiver<Arc<PeerSelection>>,
        all_up_to: usize,
        keys: &SharedKeys,
    ) -> io::Result<Self> {
        let (channels, streams) = (open(&session, keys)?, Streams::new(session.clone())?);
        Ok(Self { session, channels, streams, pace: WakeUps::new(Mono::now()), peers, all_up_to })
    }

    /// Probes until `stop`, on the calling thread.
    pub fn run(mut self, stop: &CancellationToken) {
        self.take_peers();
        let mut orders = Vec::with_capacity(2 * BATCH);
        while !stop.is_cancelled() {
            // If the sender of peers is gone, the last known ones stay.
            if self.peers.has_changed().unwrap_or(false) {
                self.take_peers();
            }
            let before = ClockReading::now();
            let (event, awaits) = self.session.with(|session| {
                let awaits = session.awaits_replies();
                (self.pace.next(session.wake(), awaits), awaits && session.needs_prompt_reading(before.mono))
            });
            let planned = event.min(before.mono.plus(LONGEST_NAP));
            // Do not sleep if late.
            if planned > before.mono {
                self.sleep(planned.since(before.mono), awaits);
            }
            let now = ClockReading::now();
            if Session::was_stopped(planned, before, now) {
                self.receive(now.mono, Occasion::Late);
                self.session.with(Session::write_off_in_flight);
            } else if awaits {
                self.receive(now.mono, Occasion::Awaited);
            }
            if event <= now.mono {
                self.receive_and_send(&mut orders);
            }
        }
    }

    /// Sleeps for `duration`, or until a reply arrives if `awaits`.
    fn sleep(&self, duration: Duration, awaits: bool) {
        let waited = awaits.then(|| wait_readable(self.channels.iter().map(Channel::as_fd), duration));
        if waited.is_none_or(|waited| waited.is_err()) {
            std::thread::sleep(duration);
        }
    }

    fn receive(&mut self, now: Mono, occasion: Occasion) {
        for channel in &mut self.channels {
            channel.receive(&self.session, now, occasion);
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

    fn receive_and_send(&mut self, orders: &mut Vec<ProbeOrder>) {
        // Replies are read before probes time out: a reply that has arrived is no loss, however
        // late we are.
        self.receive(Mono::now(), Occasion::Waking);
        orders.clear();
        let now = ClockReading::now();
        self.session.with(|session| {
            session.give_up(now.mono);
            session.take_due(now, BATCH, orders);
        });
        self.pace.record_waking(now.mono, !orders.is_empty());
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
