//! Backends that are slow, vanish, or are only some of those that there are: a real Envoy with the
//! deployed bootstrap and what locality-ingress tells it. Needs root, for a network namespace of
//! its own.

#[path = "ingress_clients/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "ingress_clients/echo.rs"]
mod echo;
#[path = "ingress_clients/stage.rs"]
#[allow(dead_code)]
mod stage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use client::{Manner, Way, ask, connect, get, read_answer};
use echo::Echo;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use locality_ingress::kubernetes::{
    Concurrency, ObjectName, SecretObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject,
};
use locality_ingress::state::ObjectChange;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use stage::{GATEWAY, Plan, Stage, in_own_network, named, rule, to};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const HOST: &str = "hello.example";

fn pod(node: u8, number: u8) -> SocketAddr {
    ([10, 44, node, 10 + number], 8012).into()
}

fn way() -> Way {
    Way { to: SocketAddr::new(GATEWAY, 8080), tls: None, first: Vec::new() }
}

/// Reads the head of a request, pauses, and then reads its body to the end.
async fn pausing(address: SocketAddr, pause: Duration) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind(address).await?;
    Ok(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<u64>().ok());
                tokio::time::sleep(pause).await;
                let mut body = (&mut stream).take(length.unwrap_or(0));
                tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await
            });
        }
    }))
}

/// Uploads of several sizes at once to a backend that reads nothing for half a minute.
async fn uploads_outlast_a_pause(envoy: std::path::PathBuf, bounds_retransmissions: bool) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_secs(30);
    let mut stage = Stage::start(envoy, Plan { bounds_retransmissions, ..Plan::default() }).await?;
    stage.service("slow", false, &[(1, pod(1, 1))]);
    stage.ingress("hello", vec![rule(&[HOST], "ExternalIP", vec![to("slow")])], |_| {});
    stage.settled().await?;
    let backend = pausing(pod(1, 1), PAUSE).await?;
    let sizes = [256 * 1024, 1024 * 1024, 16 * 1024 * 1024, 64 * 1024 * 1024];
    let mut uploads = tokio::task::JoinSet::new();
    for size in sizes.into_iter().cycle().take(20) {
        uploads.spawn(async move {
            let mut stream = TcpStream::connect(way().to).await?;
            let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let (mut read, mut write) = stream.split();
            let body = tokio::io::repeat(b'x').take(size);
            // An answer that comes before the end of the upload ends the upload.
            let sent = async { tokio::io::copy(&mut { body }, &mut write).await.map(drop) };
            let mut answer = vec![0; 12];
            let answered = async { read.read_exact(&mut answer).await.map(drop) };
            let (_, answered) = tokio::join!(sent, answered);
            answered.with_context(|| format!("no answer to {size} bytes"))?;
            anyhow::Ok((size, String::from_utf8_lossy(&answer).into_owned()))
        });
    }
    while let Some(upload) = uploads.join_next().await {
        let (size, answer) = upload??;
        ensure!(answer == "HTTP/1.1 200", "{size} bytes: {answer}");
    }
    backend.abort();
    Ok(())
}

#[test]
fn uploads_outlast_a_pause_of_half_a_minute() -> anyhow::Result<()> {
    in_own_network(async |envoy| uploads_outlast_a_pause(envoy, false).await)
}

#[test]
fn uploads_outlast_a_pause_where_the_kernel_bounds_retransmissions() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        if locality_ingress::kubernetes::bounds_retransmissions_here().await.is_none() {
            eprintln!("this kernel does not bound retransmissions");
            return Ok(());
        }
        uploads_outlast_a_pause(envoy, true).await
    })
}

/// A request over a connection whose other end is gone without a word: how long until it is
/// answered, with an error.
async fn vanished(envoy: std::path::PathBuf, bounds_retransmissions: bool) -> anyhow::Result<Duration> {
    let mut stage = Stage::start(envoy, Plan { bounds_retransmissions, ..Plan::default() }).await?;
    stage.service("plain", false, &[(1, pod(1, 1))]);
    stage.ingress("hello", vec![rule(&[HOST], "ExternalIP", vec![to("plain")])], |_| {});
    stage.settled().await?;
    let _pod = Echo::start("pod", pod(1, 1)).await?;
    // One connection to the gateway is one of its threads, which then has one to the pod.
    let mut client = connect(&way(), false).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    client.write_all(request.as_bytes()).await?;
    ensure!(read_answer(&mut *client).await?.status == 200);
    // From now on nothing gets there or back.
    let rules = "table ip gone { chain input { type filter hook input priority 0; ip daddr 10.44.1.11 drop; ip saddr 10.44.1.11 drop; }; }";
    let status = std::process::Command::new("nft").arg(rules).status().context("failed to run nft")?;
    ensure!(status.success(), "failed to drop packets");
    let began = Instant::now();
    client.write_all(request.as_bytes()).await?;
    let answer = tokio::time::timeout(Duration::from_secs(60), read_answer(&mut *client)).await.context("not within 60 s")??;
    ensure!(answer.status == 503, "{answer:?}");
    Ok(began.elapsed())
}

#[test]
fn a_backend_that_vanished_is_noticed_within_31_seconds() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let noticed = vanished(envoy, false).await?;
        eprintln!("noticed after {noticed:?}");
        // The limit, and what a busy machine adds to it.
        ensure!(noticed < Duration::from_secs(31 + 4), "only after {noticed:?}");
        Ok(())
    })
}

#[test]
fn a_backend_that_vanished_is_noticed_within_15_seconds_where_the_kernel_bounds_retransmissions() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        if locality_ingress::kubernetes::bounds_retransmissions_here().await.is_none() {
            eprintln!("this kernel does not bound retransmissions");
            return Ok(());
        }
        let noticed = vanished(envoy, true).await?;
        eprintln!("noticed after {noticed:?}");
        ensure!(noticed < Duration::from_secs(15 + 4), "only after {noticed:?}");
        Ok(())
    })
}

#[test]
fn a_gateway_that_is_being_ended_still_answers_what_it_has_and_mapped_domains_too() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let mut stage = Stage::start(envoy, Plan::default()).await?;
        stage.service("slow", false, &[(1, pod(1, 1))]);
        stage.service("plain", false, &[(3, pod(3, 1))]);
        let ourselves = ServiceObject { external_name: Some(stage::OURSELVES.into()), ..ServiceObject::default() };
        stage.note(ObjectChange::Service(named("ourselves"), Some(ourselves)));
        let mut mapped = to("ourselves");
        mapped.rewrite_host = "plain.example".into();
        for (host, path) in [(HOST, to("slow")), ("plain.example", to("plain")), ("vanity.example", mapped)] {
            stage.ingress(host, vec![rule(&[host], "ExternalIP", vec![path])], |_| {});
        }
        stage.settled().await?;
        let _slow = pausing(pod(1, 1), Duration::from_secs(8)).await?;
        let _plain = Echo::start("plain", pod(3, 1)).await?;
        // A long request is under way, and a connection for others is open.
        let long = tokio::spawn(async { ask(&way(), Manner::Http11, &get(HOST)).await });
        let mut kept = connect(&way(), false).await?;
        let request = b"GET / HTTP/1.1\r\nhost: vanity.example\r\n\r\n";
        kept.write_all(request).await?;
        ensure!(read_answer(&mut *kept).await?.status == 200);

        let ending = SliceEndpoint {
            address: GATEWAY,
            node: Some("node1".into()),
            ready: false,
            serving_last: true,
            pod: None,
            stand_in: false,
        };
        let service = ObjectName::new("kantai-system", "kantai-gateway-internal");
        let slice = SliceObject { ports: vec![("http2".into(), 8081)], endpoints: vec![ending] };
        let of_gateways = ObjectName::new("kantai-system", "kantai-gateway-internal-x");
        stage.note(ObjectChange::Slice(of_gateways, Some((service, slice))));
        stage.settled().await?;
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        stage.settled().await?;
        ensure!(TcpStream::connect(way().to).await.is_err(), "a new connection is taken");
        kept.write_all(request).await?;
        let answer = read_answer(&mut *kept).await?;
        ensure!(answer.status == 200 && answer.header("connection") == Some("close"), "{answer:?}");
        let answer = long.await??;
        ensure!(answer.status == 200 && answer.body == b"ok", "{answer:?}");
        Ok(())
    })
}

/// What a queue-proxy or activator of that name shows, of the authority.
fn encrypted(authority: &Authority, name: &str) -> anyhow::Result<rustls::ServerConfig> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &authority.issuer)?;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?, issuer: Issuer::new(params, key) })
    }
}

#[test]
fn internal_encryption_is_spoken_with_those_who_show_the_right_name() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let mut stage = Stage::start(envoy, Plan::default()).await?;
        let ports = ["http", "https"].map(|name| ServicePort {
            name: name.into(),
            number: if name == "https" { 443 } else { 80 },
            http2: false,
        });
        for name in ["queue", "activator", "stranger", "forger"] {
            let service = ServiceObject { ports: ports.to_vec(), of_revision: true, ..ServiceObject::default() };
            stage.note(ObjectChange::Service(named(name), Some(service)));
        }
        let (authority, other) = (Authority::new()?, Authority::new()?);
        let mut backends = Vec::new();
        for (number, (name, shows, of)) in (1..).zip([
            ("queue", "kn-user-default", &authority),
            ("activator", "kn-routing", &authority),
            ("stranger", "kn-user-other", &authority),
            ("forger", "kn-routing", &other),
        ]) {
            let address = SocketAddr::new(pod(1, 1).ip(), 8112 + number);
            let endpoint = SliceEndpoint {
                address: address.ip(),
                node: Some("node1".into()),
                ready: true,
                serving_last: false,
                pod: None,
                stand_in: false,
            };
            let slice = SliceObject { ports: vec![("https".into(), address.port())], endpoints: vec![endpoint] };
            stage.note(ObjectChange::Slice(named(&format!("{name}-x")), Some((named(name), slice))));
            let mut path = to(name);
            path.splits[0].service_port = IntOrString::Int(443);
            stage.ingress(name, vec![rule(&[&format!("{name}.example")], "ExternalIP", vec![path])], |_| {});
            backends.push(Echo::over_tls(name, address, encrypted(of, shows)?).await?);
        }
        let secret = SecretObject {
            certificate_pem: Vec::new(),
            key_pem: Vec::new(),
            authority_pem: Some(authority.certificate.pem().into_bytes()),
        };
        stage.note(ObjectChange::Secret(ObjectName::new("knative-serving", "routing-serving-certs"), Some(secret)));
        stage.settled().await?;
        for (name, expected) in [("queue", 200), ("activator", 200), ("stranger", 503), ("forger", 503)] {
            let answer = ask(&way(), Manner::Http11, &get(&format!("{name}.example"))).await?;
            ensure!(answer.status == expected, "{name}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(())
    })
}

async fn who_answers(count: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut who = BTreeMap::new();
    for _ in 0..count {
        let answer = ask(&way(), Manner::Http11, &get(HOST)).await?;
        let key = match answer.status {
            200 => answer.seen()?["name"].as_str().unwrap_or_default().to_owned(),
            status => status.to_string(),
        };
        *who.entry(key).or_default() += 1;
    }
    Ok(who)
}

#[test]
fn the_near_node_keeps_everything_while_one_of_its_endpoints_is_healthy() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let mut stage = Stage::start(envoy, Plan::default()).await?;
        // Nobody listens at the second address.
        stage.service("plain", false, &[(1, pod(1, 1)), (1, pod(1, 2)), (3, pod(3, 1))]);
        stage.ingress("hello", vec![rule(&[HOST], "ExternalIP", vec![to("plain")])], |_| {});
        stage.settled().await?;
        let near = Echo::start("near", pod(1, 1)).await?;
        let _far = Echo::start("far", pod(3, 1)).await?;
        // Ejections of the one that is not there come and go meanwhile.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            let who = who_answers(50).await?;
            ensure!(who == BTreeMap::from([("near".to_owned(), 50)]), "{who:?}");
        }
        // With none left the others serve.
        drop(near);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let who = who_answers(50).await?;
        ensure!(who == BTreeMap::from([("far".to_owned(), 50)]), "{who:?}");
        Ok(())
    })
}

#[test]
fn activators_get_what_each_can_use_while_there_are_pods_and_the_nearest_holds_at_zero() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let mut stage = Stage::start(envoy, Plan::default()).await?;
        stage.service("revision", false, &[]);
        stage.note(ObjectChange::Revision(named("revision"), NonZeroU32::new(5).map(|limit| Concurrency::Limited(limit).into())));
        let pods = ServiceObject { pods_of: Some("revision".into()), ..ServiceObject::default() };
        stage.note(ObjectChange::Service(named("revision-private"), Some(pods)));
        let endpoint = |address: SocketAddr, node: u8, stand_in| SliceEndpoint {
            address: address.ip(),
            node: Some(format!("node{node}")),
            ready: true,
            serving_last: false,
            pod: None,
            stand_in,
        };
        let slice = |endpoints| SliceObject { ports: vec![("http".into(), 8012)], endpoints };
        let activators = vec![endpoint(pod(1, 1), 1, true), endpoint(pod(3, 1), 3, true)];
        stage.note(ObjectChange::Slice(named("revision-x"), Some((named("revision"), slice(activators)))));
        stage.ingress("hello", vec![rule(&[HOST], "ExternalIP", vec![to("revision")])], |_| {});
        let _activators = (Echo::start("near", pod(1, 1)).await?, Echo::start("far", pod(3, 1)).await?);
        stage.settled().await?;
        ensure!(who_answers(40).await? == BTreeMap::from([("near".to_owned(), 40)]), "at zero the nearest holds");
        // Three pods: the activator with the lower address has two of them.
        let three = (1..=3).map(|number| endpoint(pod(2, number), 2, false)).collect();
        let private =
            |endpoints| ObjectChange::Slice(named("revision-private-x"), Some((named("revision-private"), slice(endpoints))));
        stage.note(private(three));
        stage.settled().await?;
        let who = who_answers(120).await?;
        // Each of Envoy's threads counts for itself.
        ensure!(who.get("near").is_some_and(|near| (76..=84).contains(near)) && who["far"] + who["near"] == 120, "{who:?}");
        stage.note(private(Vec::new()));
        stage.settled().await?;
        ensure!(who_answers(40).await? == BTreeMap::from([("near".to_owned(), 40)]), "at zero the nearest holds");
        Ok(())
    })
}
