//! `latency-probe once`: sends a number of probes to some peers and prints a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use latency_matrix::{NodeName, PeerRow, Protocol, Row, StateKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bandwidth;
use crate::discovery::selection::PeerSelection;
use crate::net::prober::Prober;
use crate::options::OnceOptions;
use crate::peers::{Peer, PeerSet, Ports};
use crate::protocol::fleet_key::{FleetKeys, KeyFileError};
use crate::session::SharedSession;
use crate::session::pair::{StateLimits, WindowLimits};
use crate::session::{Method, Session, Settings};

/// A failure before anything was measured.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// A peer's name or address cannot be resolved.
    #[error("failed to find the address of {peer}")]
    Address {
        /// The peer as given.
        peer: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Two peers have the same name.
    #[error("failed to tell peers apart: {0} is given twice (write NAME=ADDRESS)")]
    Twice(NodeName),
    /// Only ICMP packets can be of any size.
    #[error("failed to apply --packet-size: only ICMP packets have a size (add --latency-from icmp)")]
    PacketSize,
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// No socket or thread to probe from.
    #[error("failed to open a socket or start a thread to probe from")]
    Probe(#[source] std::io::Error),
}

/// Sends each peer `--count` probes, waits until all have ended, and returns the row.
///
/// # Errors
/// [`OnceError`] if it cannot start.
pub async fn run(options: &OnceOptions) -> Result<Row, OnceError> {
    if options.packet_size.is_some() && options.probe.latency_from != Method::Icmp {
        return Err(OnceError::PacketSize);
    }
    let mut peers = PeerSet::new();
    for given in &options.peers {
        let (node, peer) = resolve(given, options.probe.ports())?;
        if peers.insert(node.clone(), peer).is_some() {
            return Err(OnceError::Twice(node));
        }
    }
    let targets: BTreeMap<NodeName, SocketAddr> = peers.iter().map(|(node, peer)| (node.clone(), peer.echo)).collect();
    let keys = options.key_file.as_deref().map(FleetKeys::read).transpose()?;
    let session = SharedSession::new(Session::new(own_name(&peers), settings(options), rand::random()));
    let fleet = peers.len() + 1;
    let (_peers_out, peers_in) = watch::channel(Arc::new(PeerSelection { peers, fleet, is_choice: false }));
    let (_keys_out, keys_in) = watch::channel(keys.map(Arc::new));
    let prober = Prober::open(session.clone(), peers_in, fleet, &keys_in).map_err(OnceError::Probe)?;
    let stop = CancellationToken::new();
    let end = stop.clone();
    std::thread::Builder::new().name("prober".into()).spawn(move || prober.run(&end)).map_err(OnceError::Probe)?;
    // Intervals are jittered by 10 %. Only a starved machine takes longer than this.
    let at_most = options.probe.interval * (2 * u32::from(options.count)) + options.probe.timeout + PATIENCE;
    let finished = async {
        while !session.with(|session| session.is_finished()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let _ = tokio::time::timeout(at_most, finished).await;
    stop.cancel();
    let mut row = session.row();
    if options.bandwidth {
        let keys = keys_in.borrow().clone();
        for peer in &mut row.peers {
            let Some(to) = targets.get(&peer.to).copied() else { continue };
            let (keys, patience) = (keys.clone(), options.probe.timeout);
            let measured = tokio::task::spawn_blocking(move || bandwidth::measure(to, keys.as_deref(), patience)).await;
            // A path that takes no packets has no bandwidth to tell of; the probes say why.
            peer.bandwidth = measured.map_err(|panicked| OnceError::Probe(panicked.into()))?.unwrap_or_default();
        }
    }
    Ok(row)
}

/// How long to wait beyond the expected end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Polling period for the end of all probes.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A name for this node that no peer has: a peer with the own name is not probed.
fn own_name(peers: &PeerSet) -> NodeName {
    let mut name = String::from("here");
    while peers.contains_key(&NodeName::from(name.as_str())) {
        name.push('_');
    }
    name.into()
}

fn settings(options: &OnceOptions) -> Settings {
    Settings {
        interval: options.probe.interval,
        timeout: options.probe.timeout,
        window: WindowLimits { samples: usize::from(options.count), span: Duration::from_secs(24 * 60 * 60) },
        // A short run: ICMP is tried after the first loss.
        states: StateLimits { unreachable_after: 1, stale_after: Duration::from_secs(24 * 60 * 60) },
        method: options.probe.latency_from,
        pair_bounds: None,
        flows: 1,
        packet_size: options.packet_size.unwrap_or(0),
        probes_per_peer: Some(options.count.into()),
        http_path: options.probe.http_path.clone(),
    }
}

/// Resolves `ADDRESS`, `ADDRESS:PORT`, `NAME` or `NAME:PORT`, optionally after `NODE=`. A given
/// port is probed by every protocol.
fn resolve(peer: &str, ports: Ports) -> Result<(NodeName, Peer), OnceError> {
    let (node, at) = peer.split_once('=').unwrap_or((peer, peer));
    let named = |source| OnceError::Address { peer: peer.to_owned(), source };
    let alone = at.parse::<IpAddr>();
    let (address, given) = if let Ok(address) = alone {
        (address, None)
    } else if let Ok(socket) = at.parse::<SocketAddr>() {
        (socket.ip(), Some(socket.port()))
    } else {
        let with_port = at.contains(':');
        let found = if with_port { at.to_socket_addrs() } else { (at, ports.echo).to_socket_addrs() };
        let found = found.and_then(|mut all| all.next().ok_or_else(|| std::io::ErrorKind::NotFound.into())).map_err(named)?;
        (found.ip(), with_port.then_some(found.port()))
    };
    let echo = SocketAddr::new(address, given.unwrap_or(ports.echo));
    Ok((NodeName::from(node), Peer { http_port: given.unwrap_or(ports.http), ..Peer::at(echo) }))
}

/// Whether every peer has an RTT.
#[must_use]
pub fn all_known(row: &Row) -> bool {
    row.peers.iter().all(|peer| peer.rtt_seconds.is_some())
}

/// Whether every peer has a bandwidth, if it was asked for.
#[must_use]
pub fn all_estimated(row: &Row, options: &OnceOptions) -> bool {
    !options.bandwidth || row.peers.iter().all(|peer| peer.bandwidth.is_some())
}

/// Bandwidths as a table for people.
///
/// ```
/// let json = r#"{"from": "here", "peers": [{"to": "b", "state": "known", "bandwidth":
///   {"bits_per_second": 20.1e6, "low": 19.5e6, "high": 20.6e6, "is_lower_bound": false,
///    "trains": 12, "packets_lost": 3, "bytes_sent": 983040}}]}"#;
/// let row: latency_matrix::Row = serde_json::from_str(json).unwrap();
/// assert_eq!(
///     latency_probe::once::bandwidth_table(&row).lines().nth(1).unwrap(),
///     "b           20.1      19.5      20.6     12     3"
/// );
/// ```
#[must_use]
pub fn bandwidth_table(row: &Row) -> String {
    let width = width_of_names(row);
    let mut text = format!("{:width$}  {:>10} {:>9} {:>9} {:>6} {:>5}\n", "peer", "Mbit/s", "95 % from", "to", "trains", "lost");
    for peer in &row.peers {
        let line = match &peer.bandwidth {
            Some(found) => {
                let bound = if found.is_lower_bound { ">= " } else { "" };
                format!(
                    "{:>10} {:>9.1} {:>9.1} {:>6} {:>5}",
                    format!("{bound}{:.1}", found.bits_per_second / 1e6),
                    found.low / 1e6,
                    found.high / 1e6,
                    found.trains,
                    found.packets_lost
                )
            }
            None => format!("{:>10}", "no answer"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:width$}  {line}", peer.to.as_str());
    }
    text
}

fn width_of_names(row: &Row) -> usize {
    row.peers.iter().map(|peer| peer.to.as_str().chars().count()).max().unwrap_or(0).max(4)
}

/// The row as a table for people.
///
/// ```
/// let json = r#"{"from": "here", "measured_at_unix_seconds": 1.5e9, "peers": [
///   {"to": "b", "state": "known", "protocol": "udp", "jitter_seconds": 1e-5, "loss_ratio": 0.5,
///    "age_seconds": 0.1, "samples": 5, "hops": 2,
///    "rtt_seconds":
///      {"min": 0.001, "p50": 0.0012, "p90": 0.002, "p99": 0.003, "ewma": 0.0012}}]}"#;
/// let row: latency_matrix::Row = serde_json::from_str(json).unwrap();
/// assert_eq!(
///     latency_probe::once::table(&row).lines().nth(1).unwrap(),
///     "b     udp       5   50.0 %    1.000    1.200    2.000    3.000    0.010     2"
/// );
/// ```
#[must_use]
pub fn table(row: &Row) -> String {
    let width = width_of_names(row);
    let mut text = format!(
        "{:width$}  {:5} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>5}\n",
        "peer", "by", "back", "loss", "min ms", "p50", "p90", "p99", "jitter", "hops"
    );
    for peer in &row.peers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:width$}  {}", peer.to.as_str(), line(peer));
    }
    text
}

fn line(peer: &PeerRow) -> String {
    let loss = peer.loss_ratio.map_or_else(|| "-".to_owned(), |loss| format!("{:.1} %", loss * 100.0));
    let start = format!("{:5} {:>5} {loss:>8}", peer.protocol.map_or("-", Protocol::as_str), peer.samples);
    let Some(rtt) = peer.rtt_seconds else {
        let silent = peer.probes_ended > 0;
        return format!(
            "{start}  {}",
            match peer.state {
                StateKind::Unreachable => "unreachable",
                _ if silent => "no answer",
                _ => "unknown",
            }
        );
    };
    let millis = |seconds: f64| seconds * 1e3;
    format!(
        "{start} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>5}",
        millis(rtt.min),
        millis(rtt.p50),
        millis(rtt.p90),
        millis(rtt.p99),
        peer.jitter_seconds.map_or(0.0, millis),
        peer.hops.map_or_else(|| "-".to_owned(), |hops| hops.to_string())
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    async fn once(arguments: &[&str]) -> Result<Row, OnceError> {
        let given = ["latency-probe", "once", "--latency-from", "tcp", "--interval", "20ms", "--timeout", "200ms"];
        let options = crate::options::Options::parse_from(given.iter().chain(arguments));
        let crate::options::Command::Once(options) = options.command else { panic!("not the command that was given") };
        run(&options).await
    }

    #[tokio::test]
    async fn each_peer_gets_its_number_of_probes_whatever_its_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap().to_string();
        let row = once(&["--count", "7", &format!("here={to}"), &format!("b={to}")]).await.unwrap();
        let ended: Vec<_> = row.peers.iter().map(|peer| (peer.to.as_str(), peer.probes_ended, peer.samples)).collect();
        assert_eq!(ended, [("b", 7, 7), ("here", 7, 7)]);
        assert!(all_known(&row));
        let twice = once(&[&format!("b={to}"), &format!("b={to}")]).await.unwrap_err();
        assert!(twice.to_string().contains("b is given twice"), "{twice}");
    }

    #[test]
    fn peers_may_be_given_in_any_usual_way() {
        for (given, node, echo, http_port) in [
            ("10.0.0.2", "10.0.0.2", "10.0.0.2:9799", 9798),
            ("b=10.0.0.2:1", "b", "10.0.0.2:1", 1),
            ("fd00::2", "fd00::2", "[fd00::2]:9799", 9798),
            ("b=[fd00::2]:7", "b", "[fd00::2]:7", 7),
        ] {
            let (name, peer) = resolve(given, Ports::DEFAULT).unwrap();
            assert_eq!((name.as_str(), peer.echo.to_string().as_str(), peer.http_port), (node, echo, http_port));
        }
        let (name, peer) = resolve("localhost:5", Ports::DEFAULT).unwrap();
        assert!(name.as_str() == "localhost:5" && peer.address().is_loopback() && peer.echo.port() == 5);
        assert!(resolve("no such host.invalid", Ports::DEFAULT).unwrap_err().to_string().contains("no such host"));
    }
}
