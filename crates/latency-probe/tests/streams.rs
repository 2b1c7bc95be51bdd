//! Probes that are no packets among probers: TCP connect, HTTP GET and ICMP echo, over real sockets
//! on the loopback device, in both versions of the internet protocol. Whoever is probed is a few
//! lines of this file, so that each can misbehave in its own way.

#![expect(clippy::unwrap_used, reason = "in a test, what fails is to be seen")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use clap::Parser as _;
use latency_matrix::{PeerRow, Protocol, Row, StateKind};
use latency_probe::once::{self, OnceError};
use latency_probe::{Command, Options};

const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Probes to each peer.
const COUNT: u64 = 6;

/// A server that reports the requests it got. Its threads end with the test's process.
struct Server {
    address: SocketAddr,
    asked: Receiver<String>,
}

impl Server {
    /// One that does with each connection what `serve` says, given what it was asked.
    fn start(ip: IpAddr, serve: impl Fn(&mut TcpStream, &str) + Send + Clone + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked_out, asked) = channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (serve, asked_out) = (serve.clone(), asked_out.clone());
                std::thread::spawn(move || {
                    let mut request = [0; 1_024];
                    // A probe by connecting alone ends in a reset, not in a request.
                    let length = stream.read(&mut request).unwrap_or(0);
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    serve(&mut stream, &request);
                    let _ = asked_out.send(request);
                });
            }
        });
        Self { address, asked }
    }

    /// One that gives this answer after a while.
    fn answering(ip: IpAddr, answer: &'static str, after: Duration) -> Self {
        Self::start(ip, move |stream, _| {
            std::thread::sleep(after);
            // Whoever probes does not wait for the end.
            let _ = stream.write_all(answer.as_bytes());
        })
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";

/// An address without a listener.
fn nobody(ip: IpAddr) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

async fn probe(from: &str, peers: &[(&str, String)]) -> Result<Row, OnceError> {
    let peers: Vec<String> = peers.iter().map(|(node, at)| format!("{node}={at}")).collect();
    let count = COUNT.to_string();
    let given = ["latency-probe", "once", "--latency-from", from, "--interval", "40ms", "--timeout", "400ms", "--count", &count];
    let options = Options::parse_from(given.into_iter().chain(peers.iter().map(String::as_str)));
    let Command::Once(options) = options.command else { panic!("not the command that was given") };
    once::run(&options).await
}

fn peer<'row>(row: &'row Row, node: &str) -> &'row PeerRow {
    row.peers.iter().find(|peer| peer.to.as_str() == node).unwrap()
}

/// It is known, and every probe of it came back.
fn assert_known(peer: &PeerRow, protocol: Protocol, at_least: Duration) {
    assert_eq!((peer.state, peer.protocol, peer.probes_lost), (StateKind::Known, Some(protocol), 0), "{peer:?}");
    assert_eq!(peer.samples, COUNT, "{peer:?}");
    let rtt = peer.rtt_seconds.unwrap();
    assert!(rtt.min >= at_least.as_secs_f64() && rtt.min > 0.0 && rtt.min <= rtt.p50 && rtt.p50 <= rtt.p99, "{rtt:?}");
}

/// What was not answered as it should be is lost, and gives no time.
fn assert_lost(peer: &PeerRow) {
    // The node may be up: only the listener is missing, or does not answer properly.
    assert_eq!((peer.state, peer.rtt_seconds, peer.samples), (StateKind::Unknown, None, 0), "{peer:?}");
    assert!(peer.probes_lost == COUNT && peer.loss_ratio == Some(1.0), "{peer:?}");
}

#[tokio::test]
async fn a_tcp_connection_is_timed_and_one_that_is_refused_is_lost() {
    for ip in BOTH {
        let there = Server::answering(ip, "", Duration::ZERO);
        let row = probe("tcp", &[("there", there.address.to_string()), ("nobody", nobody(ip).to_string())]).await.unwrap();
        assert_known(peer(&row, "there"), Protocol::Tcp, Duration::ZERO);
        // The kernel shakes hands, whatever the program does then: a hundredth of a second would be
        // no handshake on one machine.
        assert!(peer(&row, "there").rtt_seconds.unwrap().min < 0.01, "{row:?}");
        assert_lost(peer(&row, "nobody"));
        // Nothing is ever said over it.
        assert!(there.asked.try_iter().all(|request| request.is_empty()));
    }
}

#[tokio::test]
async fn an_http_request_is_timed_to_its_answer_and_asks_properly() {
    let slow = Duration::from_millis(30);
    for ip in BOTH {
        let (quick, late) = (Server::answering(ip, OK, Duration::ZERO), Server::answering(ip, OK, slow));
        let moved = Server::answering(ip, "HTTP/1.0 302 Found\r\nlocation: /\r\n\r\n", Duration::ZERO);
        let at = |server: &Server| server.address.to_string();
        let row = probe("http", &[("quick", at(&quick)), ("late", at(&late)), ("moved", at(&moved))]).await.unwrap();
        assert_known(peer(&row, "quick"), Protocol::Http, Duration::ZERO);
        assert_known(peer(&row, "moved"), Protocol::Http, Duration::ZERO);
        // It includes the server's own time, here all there is.
        assert_known(peer(&row, "late"), Protocol::Http, slow);
        assert!(peer(&row, "quick").rtt_seconds.unwrap().min < slow.as_secs_f64(), "{row:?}");
        let asked: Vec<String> = quick.asked.try_iter().collect();
        let wanted = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n", quick.address);
        assert!(!asked.is_empty() && asked.iter().all(|request| request.starts_with(&wanted) && request.ends_with("\r\n\r\n")));
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_lost() {
    for ip in BOTH {
        let servers = [
            ("failing", Server::answering(ip, "HTTP/1.1 503 Service Unavailable\r\n\r\n", Duration::ZERO)),
            ("missing", Server::answering(ip, "HTTP/1.1 404 Not Found\r\n\r\n", Duration::ZERO)),
            ("stranger", Server::answering(ip, "SSH-2.0-OpenSSH_9.2p1\r\n", Duration::ZERO)),
            ("silent", Server::answering(ip, OK, Duration::from_secs(5))),
            ("closing", Server::answering(ip, "", Duration::ZERO)),
        ];
        let mut peers: Vec<_> = servers.iter().map(|(node, server)| (*node, server.address.to_string())).collect();
        peers.push(("nobody", nobody(ip).to_string()));
        let row = probe("http", &peers).await.unwrap();
        for (node, _) in &peers {
            assert_lost(peer(&row, node));
        }
    }
}

/// The time is that of the first byte, however long the rest of the status then takes.
#[tokio::test]
async fn an_answer_in_pieces_is_timed_to_the_first_of_them() {
    let server = Server::start(BOTH[0], |stream, _| {
        let _ = stream.set_nodelay(true);
        for byte in OK.as_bytes() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let row = probe("http", &[("pieces", server.address.to_string())]).await.unwrap();
    assert_known(peer(&row, "pieces"), Protocol::Http, Duration::ZERO);
    // The whole status takes a tenth of a second.
    assert!(peer(&row, "pieces").rtt_seconds.unwrap().min < 0.1, "{row:?}");
}

/// The kernel answers. Where this process may have neither a ping socket nor a raw one, that is
/// said, and never taken for a silent peer.
#[tokio::test]
async fn icmp_is_timed_in_both_versions_or_known_to_be_forbidden() {
    match probe("icmp", &[("four", "127.0.0.1".into()), ("six", "::1".into())]).await {
        Ok(row) => {
            for node in ["four", "six"] {
                assert_known(peer(&row, node), Protocol::Icmp, Duration::ZERO);
            }
        }
        Err(OnceError::Probe(refused)) => assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{refused}"),
        Err(other) => panic!("{other}"),
    }
}
