//! What a probe costs apart from the kernel: its turn, its packet, its reply, and the statistics of
//! its pair.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use latency_probe::protocol::FleetKeys;
use latency_probe::protocol::{ProbeRequest, Reply, Sequence, SessionId};
use latency_probe::session::RttSample;
use latency_probe::session::{Method, ReceivedReply, Session, Settings};
use latency_probe::session::{PairWindow, PeerSilence, StateLimits, WindowLimits};
use latency_probe::{ClockReading, Mono, Wall};
use latency_probe::{Peer, PeerSet};

const WINDOW: WindowLimits = WindowLimits { samples: 60, span: Duration::from_secs(60) };
const STATES: StateLimits = StateLimits { unreachable_after: 5, stale_after: Duration::from_secs(10) };
const SLOT_NANOS: u64 = 50_000_000;

fn at(nanos: u64) -> ClockReading {
    ClockReading { mono: Mono::from_nanos(nanos), wall: Wall::from_nanos(1_700_000_000_000_000_000 + nanos) }
}

/// A session that has probed each of its peers every second for longer than its window.
fn session(peers: u32) -> Session {
    let settings = Settings {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        window: WINDOW,
        states: STATES,
        method: Method::Udp,
        pair_bounds: None,
        flows: 1,
        packet_size: 0,
        probes_per_peer: None,
        http_path: "/".into(),
    };
    let mut session = Session::new("own".into(), settings, 1);
    let at_address = |n: u32| Peer::at(((n | 0x0a00_0000).to_be_bytes(), 9_799).into());
    let known: PeerSet = (0..peers).map(|n| (format!("n{n}").into(), at_address(n))).collect();
    session.set_peers(&known, Mono::from_nanos(0));
    for slot in 1..=20 * 70 {
        probe(&mut session, slot);
    }
    session
}

/// One waking: turns are taken, and answered 200 us later. Gives the number of probes.
fn probe(session: &mut Session, slot: u64) -> u64 {
    let now = at(slot * SLOT_NANOS);
    session.give_up(now.mono);
    let mut orders = Vec::new();
    session.take_due(now, 1_000, &mut orders);
    for order in &orders {
        session.mark_sent(order.sequence, now);
    }
    let read = at(slot * SLOT_NANOS + 200_000);
    for order in &orders {
        let reply = ReceivedReply {
            protocol: order.protocol,
            from: order.to,
            session: session.id(),
            sequence: order.sequence,
            held: Some(Duration::from_micros(20)),
            turned: None,
            stamp: None,
            prompt: true,
            ttl: Some(63),
        };
        session.handle_reply(&reply, read);
    }
    orders.len() as u64
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    for peers in [500, 5_000] {
        // A second's worth, which is a probe to each peer.
        group.throughput(Throughput::Elements(peers.into()));
        group.bench_function(BenchmarkId::new("second", peers), |bencher| {
            let (mut session, mut slot) = (session(peers), 20 * 70);
            bencher.iter(|| {
                (0..20)
                    .map(|_| {
                        slot += 1;
                        probe(&mut session, slot)
                    })
                    .sum::<u64>()
            });
        });
    }
    group.finish();
}

fn pairs(criterion: &mut Criterion) {
    let mut pair = PairWindow::new(WINDOW);
    let mut second = 0;
    let mut answer = |pair: &mut PairWindow| {
        second += 1;
        let rtt = RttSample::from_nanos(1_000_000 + second % 7 * 1_000).unwrap();
        pair.answered(WINDOW, Mono::from_nanos(second * 1_000_000_000), rtt);
        Mono::from_nanos(second * 1_000_000_000)
    };
    criterion.bench_function("pair/answer", |bencher| bencher.iter(|| answer(&mut pair)));
    let now = answer(&mut pair);
    criterion.bench_function("pair/summary", |bencher| {
        bencher.iter(|| black_box(&pair).summary(WINDOW, STATES, PeerSilence::Unexplained, now));
    });
}

fn packets(criterion: &mut Criterion) {
    let request = ProbeRequest { session: SessionId(1), sequence: Sequence(2), sent: Wall::from_nanos(3) };
    let reply = Reply { request, arrived: Wall::from_nanos(4), answered: Wall::from_nanos(5) }.encode();
    criterion.bench_function("packet/encode", |bencher| bencher.iter(|| black_box(&request).encode()));
    criterion.bench_function("packet/decode", |bencher| bencher.iter(|| Reply::decode(black_box(&reply))));
    let keys = FleetKeys::parse("a key of sufficient length", std::path::Path::new("key")).unwrap();
    criterion.bench_function("packet/verify", |bencher| bencher.iter(|| keys.verify(black_box(&reply))));
}

criterion_group!(benches, sessions, pairs, packets);
criterion_main!(benches);
