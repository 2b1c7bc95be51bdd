//! What is fuzzed: every parser of bytes or text that comes from outside, each with what must hold whatever comes. The functions panic where it
//! does not. They are run by cargo-fuzz (`fuzz_targets/`) and, without any tool, by the scorecard's own runner.

use latency_probe::control_message::{read_name, read_notes};
use latency_probe::discovery::parse_peers_file;
use latency_probe::fleet_key::FleetKeys;
use latency_probe::histogram::Bounds;
use latency_probe::icmp::{Echo, Family, strip_ipv4_header};
use latency_probe::peers::Ports;
use latency_probe::row::{Row, binary};
use latency_probe::stream::status;
use latency_probe::wire::{PACKET_LEN, Reply, Request};

/// A parser, its name, and inputs that it understands, to begin from.
pub struct Target {
    /// As cargo-fuzz names it.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
    /// Inputs to begin from.
    pub seeds: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "udp_packet",
        run: udp_packet,
        seeds: &[include_bytes!("../../tests/golden/request.bin"), include_bytes!("../../tests/golden/reply.bin")],
    },
    Target {
        name: "icmp_message",
        run: icmp_message,
        seeds: &[
            include_bytes!("../../tests/golden/echo-reply-v4.bin"),
            include_bytes!("../../tests/golden/echo-reply-v6.bin"),
            include_bytes!("../../tests/golden/echo-reply-v4-behind-header.bin"),
        ],
    },
    Target { name: "control_message", run: control_message, seeds: &[include_bytes!("../../tests/golden/control-message.bin")] },
    Target { name: "row_binary", run: row_binary, seeds: &[include_bytes!("../../tests/golden/row.bin")] },
    Target { name: "http_status", run: http_status, seeds: &[b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"] },
    Target { name: "bucket_bounds", run: bucket_bounds, seeds: &[b"0.001,0.01,1e-1"] },
    Target { name: "row_json", run: row_json, seeds: &[include_bytes!("../../tests/golden/row.json")] },
    Target {
        name: "peers_file",
        run: peers_file,
        seeds: &[
            b"[[peers]]\nnode = \"a\"\naddress = \"10.0.0.1\"\nzone = \"z\"\nhttp_port = 1\n",
            b"{\"peers\": [{\"node\": \"a\", \"address\": \"[fd00::1]:9\"}]}",
            b"the first key of the fleet\nthe second key of the fleet\n",
        ],
    },
];

/// A packet on the UDP port, as request and as reply: what is understood goes out again as it came in, as far as it means anything.
pub fn udp_packet(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(bytes.len(), PACKET_LEN);
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(reply) = Reply::decode(bytes) {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        let _ = reply.held();
    }
}

/// A message on the ICMP sockets, with and without the IPv4 header.
pub fn icmp_message(bytes: &[u8]) {
    for family in [Family::V4, Family::V6] {
        if let Some(echo) = Echo::decode_reply(bytes, family) {
            assert_eq!(bytes[8..], echo.encode(family)[8..]);
        }
    }
    if let Some(message) = strip_ipv4_header(bytes) {
        assert!(message.len() + 20 <= bytes.len());
        let _ = Echo::decode_reply(message, Family::V4);
    }
}

/// What the kernel notes on a packet, and the address it came from.
pub fn control_message(bytes: &[u8]) {
    let _ = read_notes(bytes);
    let _ = read_name(bytes);
}

/// A row from another prober in its binary form, which is one only.
pub fn row_binary(bytes: &[u8]) {
    if let Ok(row) = binary::decode(bytes) {
        assert_eq!(binary::encode(&row), bytes);
    }
}

/// The first bytes of an answer to an HTTP probe.
pub fn http_status(bytes: &[u8]) {
    assert!(status(bytes).is_none_or(|status| (100..1_000).contains(&status)));
}

/// Bucket bounds from the command line.
pub fn bucket_bounds(bytes: &[u8]) {
    if let Ok(bounds) = String::from_utf8_lossy(bytes).parse::<Bounds>() {
        assert!(bounds.seconds().is_sorted());
    }
}

/// A row from another prober in JSON.
pub fn row_json(bytes: &[u8]) {
    if let Ok(row) = serde_json::from_slice::<Row>(bytes) {
        let _ = binary::encode(&row);
    }
}

/// A file of peers, and a file of keys.
pub fn peers_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(peers) = parse_peers_file(&text, Ports::DEFAULT) {
        assert!(peers.keys().all(|node| !node.as_str().is_empty()));
    }
    let _ = FleetKeys::parse(&text, std::path::Path::new("key"));
}
