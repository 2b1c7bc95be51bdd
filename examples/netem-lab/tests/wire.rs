//! The wire between real network namespaces: delays are kept, changes take hold, nothing is left
//! behind. Needs root.
// A test may panic, also in its helpers.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use netem_lab::wire::{EmulatorChoice, EmulatorKind, Link, LinkMatrix, WireClient, WireConfig, WireNode, lateness_outside};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a clock read in a program and a measured correction may make a round trip shorter than
/// asked for.
const SLACK: Duration = Duration::from_micros(300);
/// How long a busy machine may take for what it does within a moment otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Namespaces of nodes on a bridge in a namespace of its own; removed when dropped.
struct Nodes {
    prefix: String,
    count: u8,
}

impl Nodes {
    fn new(test: &str, count: u8) -> Self {
        let nodes = Self { prefix: format!("wt{test}{}", std::process::id()), count };
        let hub = nodes.netns(0);
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add br0 type bridge"));
        ip(&format!("-n {hub} addr add {}/24 dev br0", Self::address(0)));
        ip(&format!("-n {hub} link set br0 up"));
        for number in 1..=count {
            let netns = nodes.netns(number);
            ip(&format!("netns add {netns}"));
            ip(&format!("-n {hub} link add port{number} type veth peer name eth0 netns {netns}"));
            ip(&format!("-n {hub} link set port{number} master br0 up"));
            ip(&format!("-n {netns} addr add {}/24 dev eth0", Self::address(number)));
            ip(&format!("-n {netns} link set eth0 up"));
            ip(&format!("-n {netns} link set lo up"));
            // Stands for a pod.
            ip(&format!("-n {netns} addr add 10.244.{number}.5/32 dev lo"));
        }
        nodes
    }

    fn netns(&self, number: u8) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn address(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 89, 0, 1 + number)
    }

    fn config(&self, folder: &Path, link: Link) -> WireConfig {
        let nodes: Vec<WireNode> = (1..=self.count)
            .map(|number| WireNode {
                name: format!("n{number}"),
                netns: Path::new("/run/netns").join(self.netns(number)),
                address: Self::address(number),
                pod_cidr: format!("10.244.{number}.0/24").parse().unwrap(),
                uplink: "eth0".to_owned(),
            })
            .collect();
        let links = LinkMatrix::uniform(nodes.iter().map(|node| node.name.clone()).collect(), link);
        let mut config = WireConfig::new(nodes, links, folder.to_owned());
        config.emulator = EmulatorChoice::Userspace;
        config
    }

    /// Does something in a node, on a thread of its own.
    fn within<T: Send + 'static>(&self, number: u8, action: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let netns = Path::new("/run/netns").join(self.netns(number));
        thread::spawn(move || {
            setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            action()
        })
    }

    fn udp(&self, number: u8, address: Ipv4Addr) -> UdpSocket {
        let socket = self.within(number, move || UdpSocket::bind((address, 0)).unwrap()).join().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for number in 0..=self.count {
            let _ = Command::new("ip").args(["netns", "del", &self.netns(number)]).stderr(Stdio::null()).status();
        }
    }
}

/// The wire process; ended when dropped.
struct Wire {
    process: Child,
    client: WireClient,
}

impl Wire {
    async fn start(config: &WireConfig) -> Self {
        let file = config.folder.join("wire.json");
        config.write(&file).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_netem-lab")).arg("wire").arg("--config").arg(&file).spawn().unwrap();
        let wire = Self { process, client: WireClient::new(&config.socket()) };
        wire.client.wait_until_laid(PATIENCE).await.unwrap();
        wire
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers datagrams until none came for a minute.
fn echo(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
}

/// The shortest of some round trips, for what is not to take longer: a busy machine makes most
/// longer.
fn round_trip(socket: &UdpSocket, to: SocketAddr) -> Duration {
    round_trips(socket, to)[0]
}

/// The median of some round trips, for what is not to take less: the emulator takes off by how much
/// it is late as a rule, so single ones are shorter where it is late no more.
fn median_round_trip(socket: &UdpSocket, to: SocketAddr) -> Duration {
    let sorted = round_trips(socket, to);
    sorted[sorted.len() / 2]
}

/// Some round trips, the shortest first.
fn round_trips(socket: &UdpSocket, to: SocketAddr) -> Vec<Duration> {
    let one = |number: u8| {
        let begin = Instant::now();
        socket.send_to(&[number], to).unwrap();
        let mut buffer = [0; 64];
        while buffer[0] != number {
            socket.recv_from(&mut buffer).unwrap();
        }
        begin.elapsed()
    };
    let mut times: Vec<Duration> = (1..=15).map(one).collect();
    times.sort();
    times
}

/// Whether none of some datagrams is answered, for half a second.
fn is_silent(socket: &UdpSocket, to: SocketAddr) -> bool {
    for number in 100..115_u8 {
        socket.send_to(&[number], to).unwrap();
    }
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let received = socket.recv_from(&mut [0; 64]);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    match received {
        Ok(_) => false,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Looks until something is there.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) => assert!(begin.elapsed() < PATIENCE, "{what}: the last that was seen is {instead}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn millis(millis: f64) -> Link {
    Link { delay_seconds: millis / 1e3, ..Link::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_has_its_own_delay_and_the_control_plane_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = Nodes::new("a", 3);
    let mut config = nodes.config(folder.path(), millis(2.0));
    config.links.set("n1", "n3", millis(30.0));
    config.links.set("n3", "n1", millis(10.0));
    let wire = Wire::start(&config).await;

    let target = |number: u8, address: Ipv4Addr| {
        let socket = nodes.udp(number, address);
        let at = socket.local_addr().unwrap();
        echo(socket);
        at
    };
    let source = nodes.udp(1, Nodes::address(1));
    let near = median_round_trip(&source, target(2, Nodes::address(2)));
    let far = median_round_trip(&source, target(3, Nodes::address(3)));
    let far_pod = median_round_trip(&nodes.udp(1, "10.244.1.5".parse().unwrap()), target(3, "10.244.3.5".parse().unwrap()));
    let hub = target(0, Nodes::address(0));
    let control_plane = eventually("a way without a delay", async || {
        let time = round_trip(&source, hub);
        if time < Duration::from_millis(4) { Ok(time) } else { Err(format!("{time:?}")) }
    })
    .await;
    println!("near {near:?}, far {far:?}, far pod {far_pod:?}, control plane {control_plane:?}");
    assert!(near + SLACK >= Duration::from_millis(4), "{near:?}");
    assert!(far + SLACK >= Duration::from_millis(40), "{far:?}");
    assert!(far_pod + SLACK >= Duration::from_millis(40), "{far_pod:?}");

    // The second in which the packets passed is reported when it is over.
    let (status, lateness) = eventually("all packets in the statistics", async || {
        let status = wire.client.status(0.0).await.unwrap();
        let lateness = lateness_outside(&status.slices, &[]);
        if lateness.count() >= 90 { Ok((status, lateness)) } else { Err(format!("{} packets", lateness.count())) }
    })
    .await;
    println!(
        "lateness p50 {:?} p99 {:?} s, taken off {} s, refused: {:?}",
        lateness.quantile_seconds(0.5),
        lateness.quantile_seconds(0.99),
        status.compensation_seconds,
        status.refused
    );
    assert_eq!(status.kind, EmulatorKind::Userspace);
    assert!(status.slices.iter().all(|slice| slice.overflowed == 0 && slice.lost == 0 && slice.refused == 0));
    assert!(config.statistics().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_links_take_hold_while_packets_flow() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = Nodes::new("b", 2);
    let mut config = nodes.config(folder.path(), millis(20.0));
    let mut wire = Wire::start(&config).await;
    let answering = nodes.udp(2, Nodes::address(2));
    let to = answering.local_addr().unwrap();
    echo(answering);
    let source = nodes.udp(1, Nodes::address(1));
    let before = median_round_trip(&source, to);
    assert!(before + SLACK >= Duration::from_millis(40), "{before:?}");

    let mut links = config.links.clone();
    links.set("n1", "n2", millis(5.0));
    wire.client.set_links(links.clone()).await.unwrap();
    eventually("the shorter delay", async || {
        let time = round_trip(&source, to);
        if time < Duration::from_millis(35) { Ok(()) } else { Err(format!("{time:?}")) }
    })
    .await;
    let between = median_round_trip(&source, to);
    assert!(between + SLACK >= Duration::from_millis(25), "{between:?}");
    assert_eq!(wire.client.status(f64::MAX).await.unwrap().links, links);

    // A link that loses everything, by way of the file.
    config.links.set("n2", "n1", Link { loss_ratio: 1.0, ..millis(1.0) });
    config.write(&folder.path().join("wire.json")).unwrap();
    wire.signal(Signal::SIGHUP);
    eventually(
        "a link that loses everything",
        async || {
            if is_silent(&source, to) { Ok(()) } else { Err("an answer".to_owned()) }
        },
    )
    .await;

    // Links between other nodes are refused and change nothing.
    let strangers = LinkMatrix::uniform(vec!["x".into(), "y".into()], millis(1.0));
    let refusal = wire.client.set_links(strangers).await.unwrap_err().to_string();
    assert!(refusal.contains("not between the nodes"), "{refusal}");
    assert_eq!(wire.client.status(f64::MAX).await.unwrap().links, config.links);

    wire.signal(Signal::SIGTERM);
    assert!(wire.process.wait().unwrap().success());
    assert!(!config.socket().exists());
    let devices = nodes.within(1, || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()).join().unwrap();
    assert!(!devices.contains("wire0"), "{devices}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_arrives_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = Nodes::new("c", 2);
    let config = nodes.config(folder.path(), Link { jitter_seconds: 0.001, ..millis(2.0) });
    let _wire = Wire::start(&config).await;
    let listener = nodes.within(2, || TcpListener::bind((Nodes::address(2), 0)).unwrap()).join().unwrap();
    let to = listener.local_addr().unwrap();
    let sent: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let expected = sent.clone();
    let received = thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut bytes).unwrap();
        bytes
    });
    nodes.within(1, move || std::io::Write::write_all(&mut TcpStream::connect(to).unwrap(), &sent).unwrap()).join().unwrap();
    assert!(received.join().unwrap() == expected, "what arrived is not what was sent");
}

#[test]
fn a_wire_that_cannot_be_laid_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wire.json");
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_netem-lab")).arg("wire").arg("--config").arg(&file).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run().contains("failed to use wire configuration"));
    let nodes = Nodes { prefix: "no-such-namespace".to_owned(), count: 0 };
    let mut config = nodes.config(folder.path(), millis(1.0));
    config.nodes.push(WireNode {
        name: "lost".to_owned(),
        netns: "/run/netns/no-such-namespace".into(),
        address: Ipv4Addr::new(10, 89, 0, 9),
        pod_cidr: "10.244.9.0/24".parse().unwrap(),
        uplink: "eth0".to_owned(),
    });
    config.links = LinkMatrix::uniform(vec!["lost".to_owned()], millis(1.0));
    config.write(&file).unwrap();
    let error = run();
    assert!(error.contains("node lost") && error.contains("no-such-namespace"), "{error}");
}
