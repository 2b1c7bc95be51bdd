//! What is fuzzed: every parser of bytes or text that comes from outside, each with what must hold
//! whatever comes. The functions panic where it does not. They are run by cargo-fuzz
//! (`fuzz_targets/`) and, without any tool, by the scorecard's own runner.

use std::time::Duration;

use latency_matrix::{Protocol, Row};
use latency_probe::discovery::parse_peers_file;
use latency_probe::net::status;
use latency_probe::protocol::FleetKeys;
use latency_probe::protocol::{Echo, Family, strip_ipv4_header};
use latency_probe::protocol::{IcmpReachability, Notes, read_name, read_notes};
use latency_probe::protocol::{LONGEST_IN_TRAIN, PACKET_LEN, ProbeRequest, Reply, Sequence, SessionId};
use latency_probe::report::{binary, prefers_binary};
use latency_probe::session::BucketBounds;
use latency_probe::session::{IcmpError, Method, NotSent, ProbeOrder, ReceivedReply, Session, Settings};
use latency_probe::session::{StateLimits, WindowLimits};
use latency_probe::{ClockReading, Mono, Wall};
use latency_probe::{Peer, PeerSet, Ports};

/// A parser, its name, and inputs that it understands, to begin from.
pub struct Target {
    /// As cargo-fuzz names it.
    pub name: &'static str,
    /// Runs it on one input, and says whether it understood that.
    pub run: fn(&[u8]) -> bool,
    /// Inputs to begin from.
    pub seeds: &'static [&'static [u8]],
    /// What inputs are made of, where that is more than bytes.
    pub words: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target {
        name: "udp_packet",
        run: udp_packet,
        seeds: &[
            include_bytes!("../../tests/golden/request.bin"),
            include_bytes!("../../tests/golden/reply.bin"),
            include_bytes!("../../tests/golden/reply-signed.bin"),
            include_bytes!("../../tests/golden/request-in-train.bin"),
        ],
        words: &[b"KLPB"],
    },
    Target {
        name: "icmp_message",
        run: icmp_message,
        seeds: &[
            include_bytes!("../../tests/golden/echo-reply-v4.bin"),
            include_bytes!("../../tests/golden/echo-reply-v6.bin"),
            include_bytes!("../../tests/golden/echo-reply-v4-behind-header.bin"),
        ],
        words: &[b"KLPBicmp", b"\x45", b"\x4f"],
    },
    Target {
        name: "control_message",
        run: control_message,
        seeds: &[include_bytes!("../../tests/golden/control-message.bin")],
        words: &[],
    },
    Target {
        name: "row_binary",
        run: row_binary,
        seeds: &[include_bytes!("../../tests/golden/row.bin")],
        words: &[b"KLPR\x01", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "z\u{fc}rich".as_bytes()],
    },
    Target {
        name: "http_status",
        run: http_status,
        seeds: &[b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"],
        words: &[b"HTTP/1.0 ", b"HTTP/1.1 ", b"503", b"-1"],
    },
    Target {
        name: "accept_header",
        run: accept_header,
        seeds: &[b"application/json;q=0.5, application/vnd.kantai.latency-row"],
        words: &[b"application/json", b"application/vnd.kantai.latency-row", b";q=", b",", b"0.1", b"NaN", b"-1", b"inf"],
    },
    Target {
        name: "bucket_bounds",
        run: bucket_bounds,
        seeds: &[b"0.001,0.01,1e-1"],
        words: &[b",", b"1e9", b"e-324", b"inf", b"NaN", b"-0", b" "],
    },
    Target {
        name: "row_json",
        run: row_json,
        seeds: &[
            include_bytes!("../../tests/golden/row.json"),
            b"{\"from\":\"a\",\"measured_at_unix_seconds\":1.5,\"peers\":[]}",
            b"{\"from\":\"a\",\"measured_at_unix_seconds\":1,\"peers\":[{\"to\":\"b\",\"state\":\"stale\",\"protocol\":\"tcp\",\
              \"samples\":1,\"rtt_seconds\":{\"min\":1e-3,\"p50\":1e-3,\"p90\":1,\"p99\":1,\"ewma\":1}}]}",
        ],
        words: &[
            b"null",
            b"-1",
            b"1e308",
            b"1e-400",
            b"18446744073709551616",
            b"[]",
            b"{}",
            b"\"stale\"",
            b"\\u0000",
            b"\\ud800",
        ],
    },
    Target {
        name: "peers_file",
        run: peers_file,
        seeds: &[
            b"[[peers]]\nnode = \"a\"\naddress = \"10.0.0.1\"\nzone = \"z\"\nhttp_port = 1\n",
            b"{\"peers\": [{\"node\": \"a\", \"address\": \"[fd00::1]:9\"}]}",
            b"the first key of the fleet\nthe second key of the fleet\n",
        ],
        words: &[b"[[peers]]\n", b"node = ", b"\"\"\"", b"'", b"address = ", b"65536", b"-1", b"::", b"%eth0", b"\\u0000"],
    },
    Target {
        name: "replies",
        run: replies,
        seeds: &[
            b"\x00\x4f\x12\x03\x00\x00\x00\x00\x10\x01\x00\x00\x02\x01\x00\x01\x00\x00\x00\x4f\x12\x03\x00\x00\x04\x00\x0a\x01\x00\x08\x00\x4f\x14\x03\x00\x00\x05\x03\x00",
        ],
        words: &[],
    },
];

/// A packet on the UDP port, as request and as reply: what is understood goes out again as it came
/// in, as far as it means anything.
pub fn udp_packet(bytes: &[u8]) -> bool {
    let request = ProbeRequest::decode(bytes);
    if let Ok(request) = request {
        assert_eq!(bytes.len(), PACKET_LEN);
        assert_eq!(ProbeRequest::decode(&request.encode()), Ok(request));
    }
    let any = ProbeRequest::decode_any(bytes);
    if let Ok((in_train, start)) = any {
        assert!(bytes.starts_with(start) && bytes.len() <= LONGEST_IN_TRAIN);
        assert_eq!(bytes.len() == PACKET_LEN, request == Ok(in_train));
    }
    let reply = Reply::decode(bytes);
    if let Ok(reply) = reply {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        let _ = reply.held();
    }
    assert!(request.is_err() || reply.is_err(), "one or the other");
    any.is_ok() || reply.is_ok()
}

/// What a client of `/v1/row` accepts.
pub fn accept_header(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let prefers = prefers_binary(&text);
    // Without its name nobody gets it.
    assert!(!prefers || text.to_ascii_lowercase().contains(binary::MEDIA_TYPE));
    prefers
}

/// A message on the ICMP sockets, with and without the IPv4 header.
pub fn icmp_message(bytes: &[u8]) -> bool {
    let mut understood = false;
    for family in [Family::V4, Family::V6] {
        if let Some(echo) = Echo::decode_reply(bytes, family) {
            assert_eq!(bytes[8..], echo.encode(family)[8..]);
            understood = true;
        }
    }
    if let Some(message) = strip_ipv4_header(bytes) {
        assert!(message.len() + 20 <= bytes.len());
        understood |= Echo::decode_reply(message, Family::V4).is_some();
    }
    understood
}

/// What the kernel notes on a packet, and the address it came from.
pub fn control_message(bytes: &[u8]) -> bool {
    read_name(bytes).is_some() || read_notes(bytes) != Notes::default()
}

/// A row from another prober in its binary form, which is one only.
pub fn row_binary(bytes: &[u8]) -> bool {
    let row = binary::decode(bytes);
    if let Ok(row) = &row {
        assert_eq!(binary::encode(row), bytes);
    }
    row.is_ok()
}

/// The first bytes of an answer to an HTTP probe.
pub fn http_status(bytes: &[u8]) -> bool {
    let status = status(bytes);
    assert!(status.is_none_or(|status| (100..1_000).contains(&status)));
    status.is_some()
}

/// Bucket bounds from the command line.
pub fn bucket_bounds(bytes: &[u8]) -> bool {
    let bounds = String::from_utf8_lossy(bytes).parse::<BucketBounds>();
    if let Ok(bounds) = &bounds {
        assert!(bounds.seconds().is_sorted());
    }
    bounds.is_ok()
}

/// A row from another prober in JSON.
pub fn row_json(bytes: &[u8]) -> bool {
    let row = serde_json::from_slice::<Row>(bytes);
    if let Ok(row) = &row {
        // Not all that JSON can say is a row in binary, but that is then found out, too.
        let _ = binary::decode(&binary::encode(row));
    }
    row.is_ok()
}

/// A file of peers, and a file of keys.
pub fn peers_file(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let peers = parse_peers_file(&text, Ports::DEFAULT);
    if let Ok(peers) = &peers {
        assert!(peers.keys().all(|node| !node.as_str().is_empty()));
    }
    peers.is_ok() | FleetKeys::parse(&text, std::path::Path::new("key")).is_ok()
}

/// Not a parser but what is behind it: whatever well-formed replies come, when and in which order,
/// while peers come and go and clocks jump, books balance and memory stays bounded. Three bytes say
/// what happens next.
pub fn replies(bytes: &[u8]) -> bool {
    const EPOCH: u64 = 1_700_000_000_000_000_000;
    let settings = Settings {
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(100),
        window: WindowLimits { samples: 8, span: Duration::from_secs(1) },
        states: StateLimits { unreachable_after: 3, stale_after: Duration::from_millis(200) },
        method: Method::PreferUdp,
        pair_bounds: None,
        flows: 1,
        packet_size: 0,
        probes_per_peer: None,
        http_path: "/".into(),
    };
    let peers = |count: u8| -> PeerSet {
        (0..count % 4).map(|n| (format!("n{n}").into(), Peer::at(([10, 0, 0, n], 9_799).into()))).collect()
    };
    let mut session = Session::new("own".into(), settings, 7);
    session.enable_icmp(Family::V4);
    let (mut mono, mut wall) = (0_u64, EPOCH);
    let mut orders: Vec<ProbeOrder> = Vec::new();
    session.set_peers(&peers(2), Mono::from_nanos(0));
    for event in bytes.chunks_exact(3) {
        let (what, which, how) = (event[0], usize::from(event[1]), event[2]);
        let now = ClockReading { mono: Mono::from_nanos(mono), wall: Wall::from_nanos(wall) };
        let order = orders.len().checked_sub(1 + which).and_then(|index| orders.get(index)).copied();
        match (what % 8, order) {
            (0, _) => {
                let nanos = (which as u64 + 1) << (how % 32);
                (mono, wall) = (mono.saturating_add(nanos), wall.saturating_add(nanos));
            }
            (1 | 2, Some(order)) => {
                let off = |bit: u8| u64::from(how >> bit & 1);
                session.handle_reply(
                    &ReceivedReply {
                        protocol: order.protocol,
                        from: order.to,
                        session: SessionId(session.id().0 ^ off(0)),
                        sequence: Sequence(order.sequence.0.wrapping_add(off(1))),
                        held: (how < 250).then(|| Duration::from_nanos(off(2) << (how >> 3))),
                        turned: None,
                        stamp: (off(3) == 1).then(|| Wall::from_nanos(wall.wrapping_sub(u64::from(how) << (how % 32)))),
                        prompt: how % 3 > 0,
                        ttl: Some(how),
                    },
                    now,
                );
            }
            (3, _) => {
                session.give_up(now.mono);
                let before = orders.len();
                session.take_due(now, 4, &mut orders);
                for order in &orders[before..] {
                    session.mark_sent(order.sequence, now);
                }
            }
            (4, Some(order)) => session.mark_departed(order.sequence, Wall::from_nanos(wall.wrapping_add(1 << (how % 48)))),
            (5, _) => session.set_peers(&peers(how), now.mono),
            (6, Some(order)) => {
                session.not_sent(
                    order.sequence,
                    [NotSent::NoRoute, NotSent::Refused, NotSent::Failed, NotSent::OurFault][usize::from(how % 4)],
                    now.mono,
                );
            }
            (7, _) if how < 8 => wall = EPOCH.wrapping_add(u64::from(how) << 40),
            (7, _) if how < 32 => session.write_off_in_flight(),
            (7, Some(order)) if how < 128 => {
                let reachability =
                    [IcmpReachability::NobodyListens, IcmpReachability::NoRoute, IcmpReachability::Unclear][usize::from(how % 3)];
                let probe = (how < 96).then_some((session.id(), order.sequence));
                let stamp = (how % 2 == 0).then_some(now.wall);
                session.handle_icmp_error(
                    &IcmpError { to: order.to, probe, reachability, stamp, ttl: Some(how) },
                    now,
                    how % 5 == 0,
                );
            }
            (7, _) => session.note_overrun(Protocol::ALL[usize::from(how % 4)], u64::from(how)),
            _ => {}
        }
    }
    let counters = session.counters();
    let total = |of: &[u64]| of.iter().sum::<u64>();
    let ended = total(&counters.answered) + total(&counters.lost) + counters.discarded_asleep + counters.not_sent;
    assert!(ended <= total(&counters.sent) && session.in_flight() <= orders.len());
    let row = session.row(ClockReading { mono: Mono::from_nanos(mono), wall: Wall::from_nanos(wall) });
    assert!(row.peers.len() <= 3 && row.peers.iter().all(|peer| peer.probes_ended <= 8));
    assert_eq!(binary::decode(&binary::encode(&row)).map(|row| row.peers.len()), Ok(row.peers.len()));
    total(&counters.answered) > 0
}
