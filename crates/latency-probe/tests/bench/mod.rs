#![allow(dead_code, reason = "each user of the bench needs another part of it")]
//! A test bench: two namespaces joined by a cable, probers in them, and a way to talk to both. All
//! of it goes away with its owner, also when a test fails.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use latency_matrix::{PeerRow, Row};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};

const HTTP_PORT: u16 = 9798;
const NOBODY: u32 = 65_532;

/// Two namespaces, a cable between them, and a folder.
pub(crate) struct Lab {
    program: PathBuf,
    namespaces: [String; 2],
    folder: PathBuf,
}

impl Lab {
    /// A new one, with `program` for its probers; `name` tells it from the others of this process.
    pub(crate) fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        assert!(Uid::effective().is_root(), "network namespaces need root");
        let id = std::process::id();
        let namespaces = [format!("lp-{id}-{name}-0"), format!("lp-{id}-{name}-1")];
        let folder = std::env::temp_dir().join(format!("lp-{id}-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        // From here on a failure cleans up.
        let lab = Self { program: folder.join("latency-probe"), namespaces, folder };
        // Where it was built may be hidden from users without privileges. Copied by another
        // process: a file that this one had open for writing could not be executed while any of its
        // other threads is just starting a program.
        run(&["cp", &program.into().to_string_lossy(), &lab.program.to_string_lossy()]);
        for namespace in &lab.namespaces {
            run(&["ip", "netns", "add", namespace]);
            run(&["ip", "-n", namespace, "link", "set", "lo", "up"]);
        }
        let [first, second] = &lab.namespaces;
        run(&["ip", "-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second]);
        for index in 0..2 {
            let namespace = &lab.namespaces[index];
            run(&["ip", "-n", namespace, "addr", "add", &format!("{}/24", lab.ip(index)), "dev", "eth0"]);
            run(&["ip", "-n", namespace, "addr", "add", &format!("{}/64", lab.address_v6(index)), "dev", "eth0", "nodad"]);
            run(&["ip", "-n", namespace, "link", "set", "eth0", "up"]);
        }
        lab
    }

    fn ip(&self, index: usize) -> IpAddr {
        Ipv4Addr::new(10, 99, 0, u8::try_from(index).unwrap() + 1).into()
    }

    /// Gives all addresses of a network to the second namespace, for the first to reach.
    pub(crate) fn add_far_network(&self, network: &str) {
        let [first, second] = &self.namespaces;
        run(&["ip", "-n", first, "route", "add", network, "via", &self.ip(1).to_string()]);
        run(&["ip", "-n", second, "route", "add", "local", network, "dev", "lo"]);
    }

    /// Where a prober in that namespace answers.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        (self.ip(index), 9799).into()
    }

    /// The namespace's IPv6 address.
    pub(crate) fn address_v6(&self, index: usize) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(index).unwrap() + 1).into()
    }

    /// Writes a file all at once, as a mounted ConfigMap changes.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    /// Narrows what leaves a namespace to a rate, by the kernel's token bucket. Returns whether
    /// this kernel has one.
    pub(crate) fn narrow(&self, index: usize, bits_per_second: u64) -> bool {
        let rate = format!("{bits_per_second}bit");
        let arguments = ["-n", &self.namespaces[index], "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", &rate];
        let bucket = ["burst", "5kb", "latency", "500ms"];
        Command::new("tc").args(arguments).args(bucket).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// A counter of a namespace's end of the cable.
    pub(crate) fn counter(&self, index: usize, name: &str) -> u64 {
        let path = format!("/sys/class/net/eth0/statistics/{name}");
        let command = ["netns", "exec", &self.namespaces[index], "cat", &path];
        let output = Command::new("ip").args(command).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// Runs a program in a namespace.
    pub(crate) fn run_in(&self, index: usize, command: &[&str]) {
        run(&[&["ip", "netns", "exec", &self.namespaces[index]], command].concat());
    }

    /// Runs latency-probe in a namespace, and gives its exit code and what it printed.
    pub(crate) fn latency_probe(&self, index: usize, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.inside(index, || Command::new(&self.program).args(arguments).output().unwrap());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Runs a piece of code in a namespace.
    pub(crate) fn inside<T: Send>(&self, index: usize, action: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.namespaces[index])).unwrap();
        // Only the thread changes over, and it ends here.
        let enter = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            action()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// Sends packets of all lengths to a port, from a namespace.
    pub(crate) fn send_rubbish(&self, from: usize, to: SocketAddr) {
        self.inside(from, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for length in 0..200 {
                let mut packet = vec![0xa5; length];
                if let Some(start) = packet.get_mut(..6) {
                    start.copy_from_slice(b"KLPB\x01\x02");
                }
                socket.send_to(&packet, to).unwrap();
            }
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A prober in a namespace.
pub(crate) struct Prober<'lab> {
    lab: &'lab Lab,
    index: usize,
    child: Child,
}

impl<'lab> Prober<'lab> {
    /// Starts one as root.
    pub(crate) fn start(lab: &'lab Lab, index: usize, node: &str, arguments: &[&str]) -> Self {
        Self::start_as(lab, index, node, arguments, None)
    }

    /// Starts one as a user without any privilege.
    pub(crate) fn start_unprivileged(lab: &'lab Lab, index: usize, node: &str, arguments: &[&str]) -> Self {
        Self::start_as(lab, index, node, arguments, Some(NOBODY))
    }

    fn start_as(lab: &'lab Lab, index: usize, node: &str, arguments: &[&str], user: Option<u32>) -> Self {
        let child = lab.inside(index, || {
            let mut command = Command::new(&lab.program);
            command.args(["run", "--log-format", "text", "--node-name", node]).args(arguments);
            if let Some(user) = user {
                command.uid(user).gid(Gid::from_raw(user).as_raw());
            }
            command.spawn().unwrap()
        });
        let prober = Self { lab, index, child };
        until(Duration::from_secs(60), || prober.try_get("/healthz"));
        prober
    }

    fn try_get(&self, path: &str) -> Option<String> {
        self.lab.inside(self.index, || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, HTTP_PORT)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
        })
    }

    /// What it answers over HTTP.
    pub(crate) fn get(&self, path: &str) -> String {
        self.try_get(path).unwrap()
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it knows of a peer, if that is a peer.
    pub(crate) fn peer(&self, node: &str) -> Option<PeerRow> {
        let row: Row = serde_json::from_str(&self.get("/v1/row")).unwrap();
        row.peers.into_iter().find(|peer| peer.to.as_str() == node)
    }

    /// Waits for a state of a peer, for a minute. Says what was seen last where it does not come.
    pub(crate) fn until_peer(&self, node: &str, wanted: impl Fn(&PeerRow) -> bool) -> PeerRow {
        let started = Instant::now();
        loop {
            let seen = self.peer(node);
            if let Some(peer) = seen.as_ref().filter(|peer| wanted(peer)) {
                return peer.clone();
            }
            let anomalies =
                || self.get("/metrics").lines().filter(|line| line.contains("anomalies_total{")).collect::<Vec<_>>().join("\n");
            assert!(started.elapsed() < Duration::from_secs(60), "the last that was seen of {node}: {seen:?}\n{}", anomalies());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Keeps it from running for so long.
    pub(crate) fn pause(&self, duration: Duration) {
        let process = Pid::from_raw(self.child.id().cast_signed());
        kill(process, Signal::SIGSTOP).unwrap();
        std::thread::sleep(duration);
        kill(process, Signal::SIGCONT).unwrap();
    }

    /// Asks it to stop, and gives its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Prober<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A piece of wire: hands packets over after a delay, each way.
pub(crate) struct Relay {
    address: SocketAddr,
    one_way_nanos: Arc<AtomicU64>,
    lose_one_of: Arc<AtomicU64>,
    bits_per_second: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts one beside the first prober, towards `to`.
    pub(crate) fn start(lab: &Lab, one_way: Duration, to: SocketAddr) -> Self {
        let (near, far) = lab.inside(0, || (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap()));
        let address = near.local_addr().unwrap();
        far.connect(to).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let one_way_nanos = Arc::new(AtomicU64::new(nanos(one_way)));
        let lose_one_of = Arc::new(AtomicU64::new(0));
        let bits_per_second = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (stop, one_way_nanos) = (stop.clone(), one_way_nanos.clone());
            let (lose_one_of, bits_per_second) = (lose_one_of.clone(), bits_per_second.clone());
            move || relay(&near, &far, &one_way_nanos, &lose_one_of, &bits_per_second, &stop)
        });
        Self { address, one_way_nanos, lose_one_of, bits_per_second, stop, thread: Some(thread) }
    }

    /// From now on every so manieth request is lost; 0 = none.
    pub(crate) fn lose_one_of(&self, requests: u64) {
        self.lose_one_of.store(requests, Ordering::Relaxed);
    }

    /// From now on requests pass one after the other at this rate, as on a narrow link; 0 = at
    /// once.
    pub(crate) fn narrow_to(&self, bits_per_second: u64) {
        self.bits_per_second.store(bits_per_second, Ordering::Relaxed);
    }

    /// From now on packets take so long each way.
    pub(crate) fn set_one_way(&self, one_way: Duration) {
        self.one_way_nanos.store(nanos(one_way), Ordering::Relaxed);
    }

    /// What a prober should take for its peer's address.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

fn relay(
    near: &UdpSocket,
    far: &UdpSocket,
    one_way_nanos: &AtomicU64,
    lose_one_of: &AtomicU64,
    bits_per_second: &AtomicU64,
    stop: &AtomicBool,
) {
    /// Of IPv4 and UDP.
    const HEADER_BYTES: u64 = 28;
    let mut waiting: VecDeque<(Instant, bool, Vec<u8>)> = VecDeque::new();
    let mut prober = None;
    let mut requests: u64 = 0;
    let mut is_free = Instant::now();
    let mut buffer = [0; 2_048];
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let one_way = Duration::from_nanos(one_way_nanos.load(Ordering::Relaxed));
        while let Ok((length, from)) = near.recv_from(&mut buffer) {
            prober = Some(from);
            let (one_of, rate) = (lose_one_of.load(Ordering::Relaxed), bits_per_second.load(Ordering::Relaxed));
            requests += 1;
            if one_of == 0 || !requests.is_multiple_of(one_of) {
                let bits = (length as u64 + HEADER_BYTES) * 8;
                let takes = Duration::from_nanos((bits * 1_000_000_000).checked_div(rate).unwrap_or(0));
                is_free = is_free.max(Instant::now()) + takes;
                waiting.push_back((is_free + one_way, true, buffer[..length].to_vec()));
            }
        }
        if let Ok(length) = far.recv(&mut buffer) {
            waiting.push_back((Instant::now() + one_way, false, buffer[..length].to_vec()));
        }
        while let Some((_, outward, packet)) = next_due(&mut waiting) {
            // The other end may not be there yet.
            let _ = match prober {
                _ if outward => far.send(&packet),
                Some(prober) => near.send_to(&packet, prober),
                None => Ok(0),
            };
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn next_due(waiting: &mut VecDeque<(Instant, bool, Vec<u8>)>) -> Option<(Instant, bool, Vec<u8>)> {
    waiting.front().filter(|(due, ..)| *due <= Instant::now())?;
    waiting.pop_front()
}

/// A peers file.
pub(crate) fn peers_file(peers: &[(&str, SocketAddr)]) -> String {
    peers.iter().map(|(node, address)| format!("[[peers]]\nnode = \"{node}\"\naddress = \"{address}\"\n")).collect()
}

/// The value of a series.
pub(crate) fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// Waits for something, but not for ever.
pub(crate) fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < patience, "did not come about within {patience:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
