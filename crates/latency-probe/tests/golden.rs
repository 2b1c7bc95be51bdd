//! Everything that goes over a wire, byte by byte: probes, replies, echoes and rows. These files
//! may only change together with a version, because probers of two releases meet in every rolling
//! update. With `UPDATE_GOLDEN` in the environment they are rewritten.

#![expect(clippy::unwrap_used, reason = "in a test, what fails is to be seen")]

use std::path::Path;

use latency_matrix::{PeerRow, Protocol, Row, RttSeconds, StateKind};
use latency_probe::Wall;
use latency_probe::protocol::FleetKeys;
use latency_probe::protocol::{Echo, Family, strip_ipv4_header};
use latency_probe::protocol::{LocalAddress, read_notes};
use latency_probe::protocol::{ProbeRequest, Reply, Sequence, SessionId};
use latency_probe::report::binary;
use latency_probe::session::loss;

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn check(name: &str, bytes: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path(name), bytes).unwrap();
    }
    assert_eq!(bytes, std::fs::read(path(name)).unwrap(), "{name}");
}

const SESSION: SessionId = SessionId(0x0102_0304_0506_0708);
const SEQUENCE: Sequence = Sequence(0x1112_1314_1516_1718);

#[test]
fn probes_and_replies() {
    let request = ProbeRequest { session: SESSION, sequence: SEQUENCE, sent: Wall::from_nanos(0x2122_2324_2526_2728) };
    let reply =
        Reply { request, arrived: Wall::from_nanos(0x3132_3334_3536_3738), answered: Wall::from_nanos(0x4142_4344_4546_4748) };
    check("request.bin", &request.encode());
    check("reply.bin", &reply.encode());
    assert_eq!(ProbeRequest::decode(&std::fs::read(path("request.bin")).unwrap()), Ok(request));
    assert_eq!(Reply::decode(&std::fs::read(path("reply.bin")).unwrap()), Ok(reply));

    // In a train the same starts a longer packet.
    let in_train = [&request.encode_in_train()[..], &[0; 16]].concat();
    check("request-in-train.bin", &in_train);
    assert_eq!(ProbeRequest::decode_any(&in_train), Ok((request, &request.encode_in_train())));

    let key = FleetKeys::parse("a key that everybody may read here", Path::new("key")).unwrap();
    for (name, mut packet) in [("request-signed.bin", request.encode()), ("reply-signed.bin", reply.encode())] {
        key.sign(FleetKeys::signing(), &mut packet);
        check(name, &packet);
        assert!(key.verify(&packet).is_some());
    }
}

#[test]
fn echoes() {
    let echo = Echo { session: SESSION, sequence: SEQUENCE };
    check("echo-request-v4.bin", &echo.encode(Family::V4));
    check("echo-request-v6.bin", &echo.encode(Family::V6));
    for (name, family) in [("echo-reply-v4.bin", Family::V4), ("echo-reply-v6.bin", Family::V6)] {
        assert_eq!(Echo::decode_reply(&std::fs::read(path(name)).unwrap(), family), Some(echo));
    }
    let raw = std::fs::read(path("echo-reply-v4-behind-header.bin")).unwrap();
    assert_eq!(Echo::decode_reply(strip_ipv4_header(&raw).unwrap(), Family::V4), Some(echo));
}

/// The kernel's own layout, on the machines where it is laid out like this.
#[cfg(all(target_endian = "little", target_pointer_width = "64"))]
#[test]
fn notes_of_the_kernel() {
    let notes = read_notes(&std::fs::read(path("control-message.bin")).unwrap());
    assert_eq!(notes.stamp, Some(Wall::from_nanos(1_700_000_000_123_456_789)));
    assert_eq!((notes.ttl, notes.to), (Some(63), Some(LocalAddress("10.0.0.1".parse().unwrap()))));
}

fn peer(to: &str, state: StateKind, protocol: Protocol) -> PeerRow {
    PeerRow { protocol: Some(protocol), ..PeerRow::unmeasured(to.into(), state) }
}

#[test]
fn rows() {
    let lossy = loss(3, 60).unwrap();
    let known = PeerRow {
        rtt_seconds: Some(RttSeconds { min: 0.0005, p50: 0.050_123_456, p90: 0.051, p99: 0.25, ewma: 0.050_2 }),
        jitter_seconds: Some(0.000_012),
        loss_ratio: Some(lossy.ratio),
        loss_interval: Some((lossy.low, lossy.high)),
        probes_lost: lossy.lost,
        probes_ended: lossy.ended,
        age_seconds: Some(0.75),
        samples: 57,
        hops: Some(2),
        reordered: 1,
        duplicates: 300,
        ..peer("node-2", StateKind::Known, Protocol::Udp)
    };
    let gone = loss(60, 60).unwrap();
    let unreachable = PeerRow {
        loss_ratio: Some(gone.ratio),
        loss_interval: Some((gone.low, gone.high)),
        probes_lost: gone.lost,
        probes_ended: gone.ended,
        age_seconds: Some(3_600.0),
        ..peer("node-30", StateKind::Unreachable, Protocol::Icmp)
    };
    let peers = vec![known, unreachable, peer("zürich", StateKind::Unknown, Protocol::Http)];
    let row = Row { from: "node-1".into(), measured_at_unix_seconds: 1_700_000_000.25, peers };

    check("row.json", (serde_json::to_string_pretty(&row).unwrap() + "\n").as_bytes());
    check("row.bin", &binary::encode(&row));
    assert_eq!(binary::decode(&std::fs::read(path("row.bin")).unwrap()), Ok(row.clone()));
    // JSON read back may be off in a float's last bit, which is far below a nanosecond.
    let read_back: Row = serde_json::from_slice(&std::fs::read(path("row.json")).unwrap()).unwrap();
    assert_eq!(binary::decode(&binary::encode(&read_back)), Ok(row));
}
