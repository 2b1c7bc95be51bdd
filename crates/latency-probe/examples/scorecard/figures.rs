//! The figures.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use latency_matrix::NodeName;
use latency_probe::discovery::PeerSelection;
use latency_probe::net::Prober as InProcessProber;
use latency_probe::net::{AnswerPolicy, Responder, ResponderCounters};
use latency_probe::session::SharedSession;
use latency_probe::session::{Method, Session, Settings};
use latency_probe::session::{StateLimits, WindowLimits, percentile};
use latency_probe::use_batch_scheduling;
use latency_probe::{Peer, PeerSet};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};
use scorecards::{Figure, Goal, Report};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bench::{Lab, Prober, until, value};
use crate::capture::{Capture, wire_nanos};

pub(crate) fn lab(name: &str) -> Lab {
    Lab::new(name, std::env::current_exe().unwrap())
}

fn settings(interval: Duration, samples: usize) -> Settings {
    Settings {
        interval,
        timeout: Duration::from_secs(2),
        window: WindowLimits { samples, span: Duration::from_secs(600) },
        states: StateLimits { unreachable_after: 5, stale_after: Duration::from_secs(60) },
        method: Method::Udp,
        pair_bounds: None,
        flows: 1,
        packet_size: 0,
        probes_per_peer: None,
        http_path: "/healthz".into(),
    }
}

/// Prints a figure with its conditions.
pub(crate) fn print(report: &mut Report, id: &'static str, value: f64, unit: &'static str, goal: Goal, conditions: &str) {
    report.print_under(&Figure { id, value, unit, goal }, conditions);
}

/// What a prober on a thread of its own came to.
struct Probed {
    session: SharedSession,
    thread_cpu: Duration,
    lasted: Duration,
}

/// Probes within this process, in a namespace of the lab.
fn probe(lab: &Lab, peers: PeerSet, settings: Settings, lasting: Duration) -> Probed {
    let session = SharedSession::new(Session::new(NodeName::from("a"), settings, rand::random()));
    let shared = session.clone();
    lab.inside(0, || {
        // As the daemon's own thread does.
        use_batch_scheduling().unwrap();
        let (_keys_out, keys) = watch::channel(None);
        let fleet = peers.len() + 1;
        let (_peers_out, chosen) = watch::channel(Arc::new(PeerSelection { peers, fleet, is_choice: false }));
        let prober = InProcessProber::open(shared, chosen, fleet, &keys).unwrap();
        let stop = CancellationToken::new();
        let (started, cpu) = (Instant::now(), thread_cpu());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(lasting);
                stop.cancel();
            });
            prober.run(&stop);
        });
        Probed { session, thread_cpu: thread_cpu() - cpu, lasted: started.elapsed() }
    })
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// A responder within this process, in a namespace of the lab, without limits; until the token is
/// dropped. Gives its thread.
fn respond(lab: &Lab, index: usize, stop: &CancellationToken) -> Pid {
    let stop = stop.clone();
    let (ready_out, ready_in) = std::sync::mpsc::channel();
    lab.inside(index, || {
        // A thread that is started in the namespace stays in it.
        std::thread::spawn(move || {
            use_batch_scheduling().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (_keys_out, keys) = watch::channel(None);
                let policy = AnswerPolicy { keys, per_source_second: 0 };
                let responder =
                    Responder::open(&["0.0.0.0:9799".parse().unwrap()], policy, Arc::new(ResponderCounters::default())).unwrap();
                ready_out.send(gettid()).unwrap();
                // As a task, as the daemon runs it.
                tokio::spawn(responder.run(stop)).await.unwrap();
            });
        });
    });
    ready_in.recv().unwrap()
}

/// Processor time of a thread of this process.
fn cpu_of(thread: Pid) -> Duration {
    let account = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    Duration::from_nanos(account.split_whitespace().next().unwrap().parse().unwrap())
}

/// So many peers on the loopback device, all answered by one responder.
fn loopback_peers(count: u32) -> PeerSet {
    let address = |n: u32| {
        (
            [
                127,
                1 + u8::try_from(n / 62_500).unwrap(),
                u8::try_from(n / 250 % 250).unwrap(),
                u8::try_from(n % 250 + 1).unwrap(),
            ],
            9799,
        )
    };
    (0..count).map(|n| (NodeName::from(format!("node{n}")), Peer::at(address(n).into()))).collect()
}

/// Peers enough for as many of their probes to leave together as ever do.
const MANY: u16 = 480;

/// Our round-trip times against those of a packet capture at both ends.
struct Accuracy {
    errors: Vec<u64>,
    cable: Vec<i64>,
}

impl Accuracy {
    /// Probes peers that all live at the far end of a cable, with or without other work for all
    /// cores.
    fn of(name: &str, peers: u16, busy: bool, probing: &Settings, lasting: Duration) -> Self {
        let lab = lab(name);
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        respond(&lab, 1, &stop);
        let peers: Vec<(NodeName, Ipv4Addr)> = (1..=peers)
            .map(|n| (NodeName::from(format!("b{n}")), Ipv4Addr::from((10 << 24) + (98 << 16) + u32::from(n))))
            .collect();
        lab.add_far_network("10.98.0.0/16");
        let captures = [0, 1].map(|index| lab.inside(index, Capture::start));
        let burning = Arc::new(AtomicBool::new(busy));
        for _ in 0..if busy { std::thread::available_parallelism().unwrap().get() } else { 0 } {
            let burning = burning.clone();
            std::thread::spawn(move || while burning.load(Ordering::Relaxed) {});
        }
        let set = peers.iter().map(|(node, address)| (node.clone(), Peer::at((*address, 9799).into()))).collect();
        let probed = probe(&lab, set, probing.clone(), lasting);
        burning.store(false, Ordering::Relaxed);
        let [near, far] = captures.map(Capture::end);
        let mut errors: Vec<u64> = peers
            .iter()
            .flat_map(|(node, address)| {
                let ours: Vec<i64> =
                    probed.session.with(|session| session.times(node).map(|rtt| i64::from(rtt.as_nanos())).collect());
                differences(&ours, &wire_nanos(*address, &near, &far))
            })
            .collect();
        errors.sort_unstable();
        let mut cable: Vec<i64> = near.iter().filter_map(|(probe, [left, _])| Some(far.get(probe)?[0]? - (*left)?)).collect();
        cable.sort_unstable();
        let lost = probed.session.with(|session| session.counters().lost[0]);
        eprintln!("accuracy: {} probes of {name}, {lost} lost", errors.len());
        Self { errors, cable }
    }

    /// In microseconds. A machine that lets through few probes has nothing to say about accuracy.
    fn micros(&self, percent: usize) -> f64 {
        percentile(&self.errors, percent).filter(|_| self.errors.len() >= 500).map_or(f64::NAN, |nanos| nanos as f64 / 1e3)
    }

    fn note(&self) -> String {
        let floor = |percent| percentile(&self.cable, percent).map_or(f64::NAN, |nanos| nanos as f64 / 1e3);
        format!(
            "{} probes; noise floor: one way along the cable, kernel to kernel, p50 {:.1} us, p99 {:.1} us",
            self.errors.len(),
            floor(50),
            floor(99)
        )
    }
}

/// How far our times are from the wire's. What was on the wire at the very end was not read any
/// more, and how much that is nobody says.
fn differences(ours: &[i64], wire: &[i64]) -> Vec<u64> {
    let unread = |unread: usize| {
        let mut errors: Vec<u64> =
            ours.iter().rev().zip(wire.iter().rev().skip(unread)).map(|(ours, wire)| ours.abs_diff(*wire)).collect();
        errors.sort_unstable();
        errors
    };
    (0..8).map(unread).min_by_key(|errors| percentile(errors, 50)).unwrap()
}

/// How accurate the times are: of one peer, with the machine idle and busy, and of many whose
/// probes leave together.
pub(crate) fn accuracy(report: &mut Report, quick: bool) {
    let lasting = Duration::from_secs(if quick { 5 } else { 18 });
    let often = settings(Duration::from_millis(5), 4_000);
    let idle = Accuracy::of("idle", 1, false, &often, lasting);
    let (p50, p99) = (idle.micros(50), idle.micros(99));
    print(report, "rtt_err_p50_us", p50, "us", Goal::AtMost(20.0), &idle.note());
    print(report, "rtt_err_p99_us", p99, "us", Goal::AtMost(100.0), &idle.note());
    let busy = Accuracy::of("busy", 1, true, &often, lasting);
    let p99 = busy.micros(99);
    print(report, "rtt_err_busy_p99_us", p99, "us", Goal::AtMost(200.0), &busy.note());
    let together = Accuracy::of("together", MANY, false, &settings(Duration::from_millis(100), 4_000), lasting);
    let p99 = together.micros(99);
    let note = format!("{MANY} peers, some 48 of whose probes leave together; {}", together.note());
    print(report, "rtt_err_together_p99_us", p99, "us", Goal::AtMost(100.0), &note);
}

/// What a packet of a probe's length costs this machine at the very least, by the plainest loop
/// there is: one send, one receive, in processor seconds.
fn bare_packet_seconds(lab: &Lab) -> f64 {
    const PACKETS: u32 = 50_000;
    lab.inside(0, || {
        let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = far.local_addr().unwrap();
        let mut buffer = [0; 64];
        let before = thread_cpu();
        for _ in 0..PACKETS {
            near.send_to(&buffer, to).unwrap();
            far.recv(&mut buffer).unwrap();
        }
        (thread_cpu() - before).as_secs_f64() / f64::from(PACKETS)
    })
}

/// Probes per second of processor time, and replies that we lost and not the wire.
pub(crate) fn throughput(report: &mut Report, quick: bool) {
    let lab = lab("rate");
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    respond(&lab, 0, &stop);
    // More than can be done, so that the prober never waits.
    let probed = probe(
        &lab,
        loopback_peers(4_000),
        settings(Duration::from_millis(5), 60),
        Duration::from_secs(if quick { 3 } else { 10 }),
    );
    let answered = probed.session.with(|session| session.counters().answered[0]) as f64;
    let per_core = answered / probed.thread_cpu.as_secs_f64();
    let note = format!(
        "prober's thread at {:.0} % of a core; noise floor: a bare send and receive takes {:.2} us here",
        100.0 * probed.thread_cpu.as_secs_f64() / probed.lasted.as_secs_f64(),
        bare_packet_seconds(&lab) * 1e6
    );
    eprintln!(
        "throughput: {:.0} answered a second, {:.0} % of a core",
        answered / probed.lasted.as_secs_f64(),
        100.0 * probed.thread_cpu.as_secs_f64() / probed.lasted.as_secs_f64()
    );
    print(report, "probes_per_core", per_core, "1/s", Goal::AtLeast(300_000.0), &note);

    let probed = probe(
        &lab,
        loopback_peers(1_100),
        settings(Duration::from_millis(10), 60),
        Duration::from_secs(if quick { 5 } else { 62 }),
    );
    let (sent, lost) = probed.session.with(|session| (session.counters().sent[0], session.counters().lost[0]));
    let rate = sent as f64 / probed.lasted.as_secs_f64();
    let note = format!("{sent} probes, {rate:.0} a second for {:.0} s", probed.lasted.as_secs_f64());
    print(report, "false_loss", lost as f64, "probes", Goal::AtMost(0.0), &note);
    print(report, "false_loss_rate", rate, "1/s", Goal::AtLeast(100_000.0), "the rate at which false_loss was measured");
}

/// A peers file for these peers, in JSON.
fn file_of(lab: &Lab, peers: &PeerSet) -> std::path::PathBuf {
    let line = |(node, peer): (&NodeName, &Peer)| format!("{{\"node\": \"{node}\", \"address\": \"{}\"}}", peer.echo);
    let lines: Vec<String> = peers.iter().map(line).collect();
    lab.file("peers.json", &format!("{{\"peers\": [{}]}}", lines.join(",\n")))
}

/// Waits until our daemon knows this many peers.
fn await_known(daemon: &Prober<'_>, peers: usize) {
    let known = || value(&daemon.get("/metrics"), "kantai_probe_peers{state=\"known\"}").unwrap();
    until(Duration::from_secs(60), || (known() >= peers as f64).then_some(()));
}

/// Our daemon's processor seconds within `lasting`.
fn daemon_cpu(daemon: &Prober<'_>, lasting: Duration) -> f64 {
    let used = || value(&daemon.get("/metrics"), "process_cpu_seconds_total").unwrap();
    // Asking costs something too, so it is asked twice only.
    let before = used();
    std::thread::sleep(lasting);
    used() - before
}

/// A line of a process's `/proc/PID/status` in MiB.
fn status_mebibytes(process: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let kibibytes = status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse::<f64>().ok());
    kibibytes.unwrap() / 1024.0
}

/// What many peers cost the daemon.
pub(crate) fn many_peers(report: &mut Report, quick: bool) {
    let lab = lab("many");
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    respond(&lab, 0, &stop);
    let peers = file_of(&lab, &loopback_peers(5_000));
    let arguments = [
        "--latency-from",
        "udp",
        "--interval",
        "10s",
        "--all-up-to",
        "6000",
        "--echo-listen",
        "127.0.0.1:1",
        "--peers-file",
        peers.to_str().unwrap(),
    ];
    let daemon = Prober::start(&lab, 0, "a", &arguments);
    let lasting = Duration::from_secs(if quick { 10 } else { 60 });
    await_known(&daemon, 5_000);
    let cpu = daemon_cpu(&daemon, lasting);
    let percent = 100.0 * cpu / lasting.as_secs_f64();
    let floor = 100.0 * 500.0 * bare_packet_seconds(&lab);
    let note = format!(
        "500 probes a second for {lasting:?}, one scrape in it; noise floor: bare sends and receives would take {floor:.2} %"
    );
    print(report, "peers_5k_cpu_pct", percent, "%", Goal::AtMost(0.5), &note);
    let mebibytes = status_mebibytes(daemon.id(), "VmRSS:");
    let note = format!("between scrapes; peak while scraped {:.1} MiB", status_mebibytes(daemon.id(), "VmHWM:"));
    print(report, "peers_5k_rss_mib", mebibytes, "MiB", Goal::AtMost(16.0), &note);
}

/// Targets and rate of the comparisons.
const TARGETS: u32 = 500;

fn children_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    [usage.user_time(), usage.system_time()].iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum()
}

/// Processor time per probe, theirs divided by ours: same targets, same rate, and at the same time,
/// because what a probe costs depends on what else the machine does.
fn against(
    report: &mut Report,
    (id, package, goal): (&'static str, &str, f64),
    quick: bool,
    theirs: impl FnOnce(&Lab, Duration) -> Option<f64> + Send,
) {
    let lab = lab(id);
    let lasting = Duration::from_secs(if quick { 5 } else { 20 });
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let responder = respond(&lab, 0, &stop);
    let peers = file_of(&lab, &loopback_peers(TARGETS));
    let arguments =
        ["--latency-from", "udp", "--all-up-to", "6000", "--echo-listen", "127.0.0.1:1", "--peers-file", peers.to_str().unwrap()];
    let daemon = Prober::start(&lab, 0, "a", &arguments);
    await_known(&daemon, TARGETS as usize);
    let (theirs, ours, answering) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| theirs(&lab, lasting));
        let before = cpu_of(responder);
        let ours = daemon_cpu(&daemon, lasting) / lasting.as_secs_f64();
        let answering = (cpu_of(responder) - before).as_secs_f64() / lasting.as_secs_f64();
        (theirs.join().unwrap(), ours, answering)
    });
    let Some(theirs) = theirs else {
        report.absent(id, "times", &format!("needs the Debian package {package} (apt-get install {package})"));
        return;
    };
    let note = format!(
        "{TARGETS} targets, 1 probe a second each, {lasting:?}: theirs {:.2} % of a core, ours {:.2} %, and whoever answers it {:.2} % (of theirs, the kernel does); noise floor: bare sends and receives would take {:.2} %",
        theirs * 100.0,
        ours * 100.0,
        answering * 100.0,
        100.0 * f64::from(TARGETS) * bare_packet_seconds(&lab)
    );
    print(report, id, theirs / ours, "times", Goal::AtLeast(goal), &note);
}

/// Against fping.
pub(crate) fn against_fping(report: &mut Report, quick: bool) {
    against(report, ("vs_fping_cpu", "fping", 5.0), quick, |lab, lasting| {
        let targets: String = loopback_peers(TARGETS).values().map(|peer| format!("{}\n", peer.address())).collect();
        let file = lab.file("targets", &targets);
        let rounds = lasting.as_secs().to_string();
        let before = children_cpu();
        let mut command = Command::new("fping");
        command.args(["-q", "-p", "1000", "-i", "1", "-c", &rounds, "-f"]).arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        lab.inside(0, || command.status()).ok()?;
        Some((children_cpu() - before) / lasting.as_secs_f64())
    });
}

/// Against smokeping_prober.
pub(crate) fn against_smokeping(report: &mut Report, quick: bool) {
    against(report, ("vs_smokeping_cpu", "prometheus-smokeping-prober", 100.0), quick, |lab, lasting| {
        let targets = loopback_peers(TARGETS);
        let mut command = Command::new("prometheus-smokeping-prober");
        command.args(["--web.listen-address=127.0.0.1:9374", "--ping.interval=1s", "--privileged"]);
        command.args(targets.values().map(|peer| peer.address().to_string())).stdout(Stdio::null()).stderr(Stdio::null());
        let before = children_cpu();
        let mut child = lab.inside(0, || command.spawn()).ok()?;
        std::thread::sleep(lasting);
        let _ = child.kill();
        let _ = child.wait();
        Some((children_cpu() - before) / lasting.as_secs_f64())
    });
}
