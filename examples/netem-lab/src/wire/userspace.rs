//! The emulator's thread: reads packets from the nodes' devices, holds them, writes them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::install::DEVICE;
use super::lateness::Slice;
use super::queue::{DelayQueue, Delivery, Nanos, Verdict};
use super::{LinkMatrix, WireConfig, WireError, WireNode, realtime, sys};

/// Shortly before a packet is due the thread stops sleeping and watches the clock: a sleep ends
/// some tens of microseconds late.
const SPIN: Nanos = 150_000;

/// The longest sleep, so that orders from other threads are seen soon.
const LONGEST_SLEEP: Nanos = 50_000_000;

/// How many packets of one node are read before the others have their turn.
const BATCH: usize = 64;

/// What the emulator's thread and the others share.
#[derive(Debug, Default)]
pub(super) struct Orders {
    stop: AtomicBool,
    changed: AtomicBool,
    links: Mutex<Option<LinkMatrix>>,
    compensation_nanos: AtomicU64,
}

impl Orders {
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn set_links(&self, links: LinkMatrix) {
        *self.links.lock().unwrap_or_else(PoisonError::into_inner) = Some(links);
        self.changed.store(true, Ordering::Release);
    }

    pub(super) fn set_compensation(&self, nanos: u64) {
        self.compensation_nanos.store(nanos, Ordering::Release);
        self.changed.store(true, Ordering::Release);
    }

    pub(super) fn compensation_nanos(&self) -> u64 {
        self.compensation_nanos.load(Ordering::Acquire)
    }
}

/// The emulator, with a device open in every node.
pub(super) struct Emulator {
    devices: Vec<File>,
    destinations: Destinations,
    queue: DelayQueue,
    orders: Arc<Orders>,
    slices: mpsc::Sender<Slice>,
    slice: Slice,
    clock: Instant,
    /// Memory of delivered packets, to be used again.
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,
}

impl Emulator {
    /// Opens the devices. Slices of the statistics go to `slices`, one a second.
    pub(super) fn open(config: &WireConfig, orders: Arc<Orders>, slices: mpsc::Sender<Slice>) -> Result<Self, WireError> {
        let open = |node: &WireNode| {
            sys::in_network_namespace(&node.netns, || sys::open_tun(DEVICE)).map_err(|source| WireError::Node {
                node: node.name.clone(),
                action: format!("open device {DEVICE} in {}", node.netns.display()),
                source,
            })
        };
        Ok(Self {
            devices: config.nodes.iter().map(open).collect::<Result<_, _>>()?,
            destinations: Destinations::new(&config.nodes),
            queue: DelayQueue::new(&config.links, config.queue_limit, config.seed),
            orders,
            slices,
            slice: Slice::starting_at(unix_seconds().floor()),
            clock: Instant::now(),
            spare: Vec::new(),
            scratch: vec![0; 65_536],
        })
    }

    /// Runs on a thread of its own until the stop. Sends to `ready` what the system refused to do
    /// for punctuality.
    pub(super) fn run(mut self, ready: &mpsc::Sender<Vec<String>>) -> io::Result<()> {
        let _ = ready.send(realtime::prepare_thread());
        while !self.orders.stop.load(Ordering::Acquire) {
            self.obey();
            self.turn_slice();
            self.deliver_due();
            if self.wait()? {
                for from in 0..self.devices.len() {
                    self.take_in(from)?;
                    self.deliver_due();
                }
            }
        }
        Ok(())
    }

    fn now(&self) -> Nanos {
        Nanos::try_from(self.clock.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    fn obey(&mut self) {
        if !self.orders.changed.swap(false, Ordering::AcqRel) {
            return;
        }
        self.queue.set_compensation(self.orders.compensation_nanos());
        match self.orders.links.try_lock() {
            Ok(mut links) => {
                if let Some(links) = links.take() {
                    self.queue.set_links(&links);
                }
            }
            // Whoever holds it is giving an order right now: look again, rather than wait for a
            // thread of lower priority.
            Err(_) => self.orders.changed.store(true, Ordering::Release),
        }
    }

    fn turn_slice(&mut self) {
        let second = unix_seconds().floor();
        if second > self.slice.at_unix_seconds {
            let full = std::mem::replace(&mut self.slice, Slice::starting_at(second));
            // Nobody listens any more only when the process is about to end.
            let _ = self.slices.send(full);
        }
    }

    fn deliver_due(&mut self) {
        while let Some(Delivery { due, to, packet }) = self.queue.pop_due(self.now()) {
            match (&self.devices[to]).write(&packet) {
                Ok(_) => self.slice.delivered += 1,
                Err(_) => self.slice.refused += 1,
            }
            // After the write: what the packet's receiver sees includes it.
            let lateness = self.now().saturating_sub(due);
            self.slice.lateness.record(lateness);
            self.recycle(packet);
        }
    }

    /// Sleeps until packets arrive or one is about to be due. Says whether any arrived.
    fn wait(&self) -> io::Result<bool> {
        let until_due = self.queue.next_due().map_or(Nanos::MAX, |due| due.saturating_sub(self.now()));
        let sleep = until_due.saturating_sub(SPIN).min(LONGEST_SLEEP);
        let mut watched: Vec<PollFd<'_>> =
            self.devices.iter().map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN)).collect();
        let timeout = TimeSpec::from_duration(std::time::Duration::from_nanos(sleep));
        match ppoll(&mut watched, Some(timeout), None) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn take_in(&mut self, from: usize) -> io::Result<()> {
        for _ in 0..BATCH {
            let length = match (&self.devices[from]).read(&mut self.scratch) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(()),
                Err(error) => return Err(error),
            };
            let bytes = &self.scratch[..length];
            let Some(to) =
                destination_address(bytes).and_then(|address| self.destinations.node_of(address)).filter(|to| *to != from)
            else {
                self.slice.unroutable += 1;
                continue;
            };
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.extend_from_slice(bytes);
            let (verdict, returned) = self.queue.push(self.now(), from, to, packet);
            match verdict {
                Verdict::Queued => {}
                Verdict::Lost => self.slice.lost += 1,
                Verdict::Overflowed => self.slice.overflowed += 1,
            }
            if let Some(packet) = returned {
                self.recycle(packet);
            }
        }
        Ok(())
    }

    fn recycle(&mut self, mut packet: Vec<u8>) {
        if self.spare.len() < 4_096 {
            packet.clear();
            self.spare.push(packet);
        }
    }
}

/// Which node an address belongs to.
#[derive(Debug)]
struct Destinations {
    nodes: Vec<(Ipv4Addr, super::PodCidr)>,
}

impl Destinations {
    fn new(nodes: &[WireNode]) -> Self {
        Self { nodes: nodes.iter().map(|node| (node.address, node.pod_cidr)).collect() }
    }

    fn node_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.nodes.iter().position(|(node, pods)| *node == address || pods.contains(address))
    }
}

/// Where an IPv4 packet goes; none for anything else.
fn destination_address(packet: &[u8]) -> Option<Ipv4Addr> {
    let header = packet.first_chunk::<20>()?;
    if header[0] >> 4 != 4 {
        return None;
    }
    Some(Ipv4Addr::new(header[16], header[17], header[18], header[19]))
}

pub(super) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_node_addresses_and_pod_networks() {
        let node = |number: u8| WireNode {
            name: format!("n{number}"),
            netns: "/run/netns/x".into(),
            address: Ipv4Addr::new(10, 89, 0, number),
            pod_cidr: format!("10.244.{number}.0/24").parse().unwrap(),
            uplink: "eth0".into(),
        };
        let destinations = Destinations::new(&[node(1), node(2)]);
        assert_eq!(destinations.node_of(Ipv4Addr::new(10, 89, 0, 2)), Some(1));
        assert_eq!(destinations.node_of(Ipv4Addr::new(10, 244, 1, 9)), Some(0));
        assert_eq!(destinations.node_of(Ipv4Addr::new(10, 96, 0, 1)), None);
    }

    #[test]
    fn only_whole_ipv4_headers_have_a_destination() {
        let mut packet = [0_u8; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(destination_address(&packet), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(destination_address(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(destination_address(&packet), None);
        assert_eq!(destination_address(&[]), None);
    }
}
