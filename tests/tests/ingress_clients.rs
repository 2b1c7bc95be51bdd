//! What clients of every kind meet at a gateway: a real Envoy with the deployed bootstrap and what
//! locality-ingress tells it. Each case is reported by its name. Needs root, for a network
//! namespace of its own.

#[path = "ingress_clients/client.rs"]
mod client;
#[path = "ingress_clients/echo.rs"]
mod echo;
#[path = "ingress_clients/stage.rs"]
mod stage;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use client::{Answer, Ask, Manner, Way, ask, connect, get, read_answer, text};
use echo::Echo;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_api::kingress::{HeaderMatch, IngressTls};
use locality_ingress::kubernetes::ServiceObject;
use locality_ingress::state::ObjectChange;
use locality_ingress::xds::ListenerSettings;
use rustls::pki_types::CertificateDer;
use stage::{GATEWAY, OURSELVES, Plan, Stage, in_own_network, named, rule, to};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const POD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 44, 1, 11)), 8012);
const HOST: &str = "hello.example";
const SECURE: &str = "secure.example";
const VANITY: &str = "vanity.example";

/// Results by name; all are printed before the first failed one fails the test.
#[derive(Default)]
struct Cases {
    passed: usize,
    failed: Vec<String>,
}

impl Cases {
    fn note(&mut self, name: &str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                eprintln!("ok      {name}");
            }
            Err(error) => {
                eprintln!("FAILED  {name}: {error:#}");
                self.failed.push(name.to_owned());
            }
        }
    }

    fn end(self, at_least: usize) -> anyhow::Result<()> {
        let (passed, failed) = (self.passed, self.failed.len());
        eprintln!("{passed} of {} cases", passed + failed);
        ensure!(self.failed.is_empty(), "{failed} cases failed: {}", self.failed.join(", "));
        ensure!(passed >= at_least, "only {passed} cases");
        Ok(())
    }
}

fn plain(port: u16) -> Way {
    Way { to: SocketAddr::new(GATEWAY, port), tls: None, first: Vec::new() }
}

/// A stage with what the cases ask for.
async fn furnished(
    envoy: std::path::PathBuf,
    plan: Plan,
) -> anyhow::Result<(Stage, CertificateDer<'static>, CertificateDer<'static>)> {
    let mut stage = Stage::start(envoy, plan).await?;
    stage.service("plain", false, &[(1, POD)]);
    stage.service("http2", true, &[(1, POD)]);
    let mut tagged = to("http2");
    tagged.headers.insert("Knative-Serving-Tag".into(), HeaderMatch { exact: "blue".into() });
    let mut untagged = to("plain");
    // The name of a header is the same in any case, and the share's own wins.
    untagged.append_headers.insert("k-set".into(), "by the path".into());
    untagged.splits[0].append_headers.insert("K-Set".into(), "by the share".into());
    stage.ingress("hello", vec![rule(&[HOST], "ExternalIP", vec![tagged, untagged])], |_| {});
    stage.ingress("inside", vec![rule(&["inside.default"], "ClusterLocal", vec![to("plain")])], |_| {});
    stage.ingress("grpc", vec![rule(&["grpc.example"], "ExternalIP", vec![to("http2")])], |_| {});
    let certificate = stage.certificate("cert", &[SECURE, VANITY])?;
    let fallback = stage.certificate("fallback", &["fallback.example"])?;
    let tls =
        |host: &str| IngressTls { hosts: vec![host.into()], secret_name: "cert".into(), secret_namespace: "default".into() };
    let mut challenge = to("http2");
    challenge.path = "/.well-known/acme-challenge/abc".into();
    stage.ingress("secure", vec![rule(&[SECURE], "ExternalIP", vec![challenge, to("plain")])], |spec| {
        spec.http_option = "Redirected".into();
        spec.tls.push(tls(SECURE));
    });
    // A DomainMapping.
    let ourselves = ServiceObject { external_name: Some(OURSELVES.into()), ..ServiceObject::default() };
    stage.note(ObjectChange::Service(named("hello"), Some(ourselves)));
    let mut mapped = to("hello");
    mapped.rewrite_host = HOST.into();
    mapped.append_headers.insert("K-Original-Host".into(), VANITY.into());
    stage.ingress("vanity", vec![rule(&[VANITY], "ExternalIP", vec![mapped])], |spec| spec.tls.push(tls(VANITY)));
    stage.settled().await?;
    Ok((stage, certificate.der().clone(), fallback.der().clone()))
}

fn status(answer: &Answer, expected: u16) -> anyhow::Result<()> {
    ensure!(answer.status == expected, "{} instead of {expected}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(())
}

fn is(what: &str, seen: Option<&str>, expected: &str) -> anyhow::Result<()> {
    ensure!(seen == Some(expected), "{what} is {seen:?} instead of {expected:?}");
    Ok(())
}

#[test]
fn every_client_gets_what_it_asks_for() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let plan = Plan { fallback_certificate: Some(named("fallback")), ..Plan::default() };
        let (_stage, certificate, fallback) = furnished(envoy, plan).await?;
        let _pod = Echo::start("pod", POD).await?;
        let mut cases = Cases::default();
        let secure = |host| Way { tls: Some((certificate.clone(), host)), ..plain(8443) };
        let clients = [
            ("http/1.0", Manner::Http10, plain(8080), HOST),
            ("http/1.0 inside", Manner::Http10, plain(8081), HOST),
            ("http/1.1", Manner::Http11, plain(8080), HOST),
            ("http/1.1 inside", Manner::Http11, plain(8081), HOST),
            ("http/2 without TLS", Manner::Http2, plain(8080), HOST),
            ("http/1.0 over TLS", Manner::Http10, secure(Some(SECURE)), SECURE),
            ("http/1.1 over TLS", Manner::Http11, secure(Some(SECURE)), SECURE),
            ("http/2 over TLS", Manner::Http2, secure(Some(SECURE)), SECURE),
        ];
        for (client, manner, way, host) in &clients {
            let proto = if way.tls.is_some() { "https" } else { "http" };
            let asked = async |one: Ask| ask(way, *manner, &one).await;
            let mut case = async |feature: &str, result: anyhow::Result<()>| cases.note(&format!("{client}: {feature}"), result);

            case("an answer", async { status(&asked(get(host)).await?, 200) }.await).await;
            case("host with port", async { status(&asked(get(&format!("{host}:8080"))).await?, 200) }.await).await;
            case("host with a final dot", async { status(&asked(get(&format!("{host}."))).await?, 200) }.await).await;
            case("host with a final dot and port", async { status(&asked(get(&format!("{host}.:80"))).await?, 200) }.await).await;
            case("host in capitals", async { status(&asked(get(&host.to_ascii_uppercase())).await?, 200) }.await).await;
            case("unknown host", async { status(&asked(get("unknown.example")).await?, 404) }.await).await;
            case(
                "body",
                async {
                    let answer = asked(Ask { method: "POST", body: vec![7; 300_000], ..get(host) }).await?;
                    ensure!(answer.seen()?["body_bytes"] == 300_000, "{:?}", answer.seen());
                    Ok(())
                }
                .await,
            )
            .await;
            case("70 kB of headers", async { status(&asked(get(host).with("x-big", "a".repeat(70_000))).await?, 200) }.await)
                .await;
            case(
                "path as it is",
                async {
                    let answer = asked(Ask { path: "//a/../b/%2F/./c?x=%20", ..get(host) }).await?;
                    is("path", answer.seen()?["path"].as_str(), "//a/../b/%2F/./c?x=%20")
                }
                .await,
            )
            .await;
            case(
                "protocol and address are told as they are",
                async {
                    let claims = get(host).with("X-Forwarded-Proto", "gopher").with("X-Forwarded-For", "203.0.113.9");
                    let answer = asked(claims).await?;
                    is("protocol", answer.seen_header("x-forwarded-proto")?.as_deref(), proto)?;
                    is("addresses", answer.seen_header("x-forwarded-for")?.as_deref(), "203.0.113.9,10.44.1.1")
                }
                .await,
            )
            .await;
            if *host == HOST {
                case(
                    "header set by the share",
                    async { is("header", asked(get(host)).await?.seen_header("k-set")?.as_deref(), "by the share") }.await,
                )
                .await;
                for tag in ["knative-serving-tag", "Knative-Serving-Tag", "KNATIVE-SERVING-TAG"] {
                    case(
                        &format!("routed by {tag}"),
                        async {
                            let answer = asked(get(host).with(tag, "blue")).await?;
                            is("protocol of the backend", answer.seen()?["version"].as_str(), "HTTP/2.0")
                        }
                        .await,
                    )
                    .await;
                }
            }
            case(
                "the domain that is mapped to it",
                async {
                    let way = match &way.tls {
                        Some((trusted, _)) => Way { tls: Some((trusted.clone(), Some(VANITY))), ..way.clone() },
                        None => way.clone(),
                    };
                    let answer = ask(&way, *manner, &get(VANITY)).await?;
                    status(&answer, 200)?;
                    let seen = answer.seen()?;
                    is("host", answer.seen_header("host")?.as_deref().or(seen["authority"].as_str()), HOST)?;
                    is("original host", answer.seen_header("k-original-host")?.as_deref(), VANITY)?;
                    is("protocol", answer.seen_header("x-forwarded-proto")?.as_deref(), proto)?;
                    is("addresses", answer.seen_header("x-forwarded-for")?.as_deref(), "10.44.1.1")
                }
                .await,
            )
            .await;
        }

        // What only some speak.
        let http1 = async |one: Ask| ask(&plain(8080), Manner::Http11, &one).await;
        for offer in ["TLS/1.2", "TLS/1.0, TLS/1.2", "tls/1.3", "h2c"] {
            let offered = get(HOST).with("Connection", "Upgrade, HTTP2-Settings, close").with("Upgrade", offer);
            let offered = offered.with("HTTP2-Settings", "AAMAAABkAAQAAP__");
            cases.note(&format!("offer of {offer} is ignored"), async { status(&http1(offered).await?, 200) }.await);
        }
        let too_large = get(HOST).with("x-big", "a".repeat(120_000));
        cases.note("120 kB of headers are too many", async { status(&http1(too_large).await?, 431) }.await);
        cases.note("a host from inside is unknown outside", async { status(&http1(get("inside.default")).await?, 404) }.await);
        for method in ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let one = Ask { method, ..get(HOST).with("Connection", "close") };
            let result = async {
                let mut stream = connect(&plain(8080), false).await?;
                stream.write_all(&text("HTTP/1.1", &one)).await?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await?;
                ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
                Ok(())
            };
            cases.note(&format!("method {method}"), result.await);
        }
        cases.note("expectation of 100", expects().await);
        cases.note("body in chunks", chunked().await);
        cases.note("two requests at once", pipelined().await);
        cases.note("http/1.0 that stays", kept_alive().await);
        cases.note("web socket", web_socket(&plain(8080), HOST).await);
        cases.note("web socket over TLS", web_socket(&secure(Some(SECURE)), SECURE).await);
        cases.note(
            "redirect",
            async {
                let answer = http1(Ask { path: "/x", ..get(SECURE) }).await?;
                status(&answer, 301)?;
                is("location", answer.header("location"), "https://secure.example/x")
            }
            .await,
        );
        let challenge = Ask { path: "/.well-known/acme-challenge/abc", ..get(SECURE) };
        cases.note("certificate challenge passes", async { status(&http1(challenge).await?, 200) }.await);
        cases.note(
            "a client that names no host gets the fallback certificate",
            async {
                let way = Way { tls: Some((fallback.clone(), None)), ..plain(8443) };
                status(&ask(&way, Manner::Http11, &get(SECURE)).await?, 200)
            }
            .await,
        );
        let grpc = Ask { method: "POST", path: "/a.B/c", body: vec![0, 0, 0, 0, 2, 1, 2], ..get("grpc.example") };
        let grpc = grpc.with("content-type", "application/grpc").with("te", "trailers").with("grpc-timeout", "250m");
        cases.note(
            "gRPC, with its trailers and deadline",
            async {
                let answer = ask(&plain(8080), Manner::Http2, &grpc).await?;
                is("status", answer.header("grpc-status"), "0")?;
                is("deadline", answer.header("saw-timeout"), "250m")?;
                ensure!(answer.body == grpc.body, "{:?}", answer.body);
                Ok(())
            }
            .await,
        );
        let host_with_port = Ask { host: "grpc.example:80".into(), ..grpc.clone() };
        cases.note(
            "gRPC to a host with port",
            async { is("status", ask(&plain(8080), Manner::Http2, &host_with_port).await?.header("grpc-status"), "0") }.await,
        );
        let quiet = grpc.clone().with("x-pause-seconds", "6");
        cases.note(
            "gRPC stream that is quiet for a while",
            async {
                let answer = ask(&plain(8080), Manner::Http2, &quiet).await?;
                is("status", answer.header("grpc-status"), "0")?;
                ensure!(answer.body.len() == 2 * quiet.body.len(), "{:?}", answer.body);
                Ok(())
            }
            .await,
        );
        cases.note("web socket over HTTP/2", web_socket_over_http2(&plain(8080), HOST, "http").await);
        cases.note("web socket over HTTP/2 and TLS", web_socket_over_http2(&secure(Some(SECURE)), SECURE, "https").await);
        // Probes.
        let probe = get(HOST).with("K-Network-Hash", "override");
        cases.note(
            "probe is answered by the gateway and not to be kept by caches",
            async {
                let answer = http1(probe.clone().with("K-Network-Probe", "probe")).await?;
                status(&answer, 200)?;
                is("cache-control", answer.header("cache-control"), "no-store")?;
                ensure!(
                    answer.body.is_empty() && answer.header("k-network-hash").is_some_and(|hash| hash.len() == 64),
                    "{answer:?}"
                );
                Ok(())
            }
            .await,
        );
        cases.note(
            "the header of a hash alone is no probe",
            async { is("name", http1(probe).await?.seen()?["name"].as_str(), "pod") }.await,
        );
        let foreign = get(HOST).with("K-Network-Hash", "abc").with("K-Network-Probe", "probe");
        cases.note("a foreign hash passes", async { is("hash", http1(foreign).await?.header("k-network-hash"), "abc") }.await);
        // The page of the gateway itself, and nothing else of its administration.
        for (path, expected) in
            [("/ready", 200), ("/live", 200), ("/stats?filter=server.live", 200), ("/config_dump", 404), ("/quitquitquit", 404)]
        {
            let asked = Ask { path, ..get("x") };
            let result = async { status(&ask(&plain(9000), Manner::Http11, &asked).await?, expected) };
            cases.note(&format!("the gateway's {path} is {expected}"), result.await);
        }
        cases.end(141)
    })
}

async fn expects() -> anyhow::Result<()> {
    let mut stream = connect(&plain(8080), false).await?;
    let head =
        format!("POST / HTTP/1.1\r\nhost: {HOST}\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    status(&read_answer(&mut *stream).await?, 100)?;
    stream.write_all(b"hello").await?;
    let answer = read_answer(&mut *stream).await?;
    ensure!(answer.seen()?["body_bytes"] == 5, "{:?}", answer.seen());
    Ok(())
}

async fn chunked() -> anyhow::Result<()> {
    let mut stream = connect(&plain(8080), false).await?;
    let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n").await?;
    let answer = read_answer(&mut *stream).await?;
    ensure!(answer.seen()?["body_bytes"] == 11, "{:?}", answer.seen());
    Ok(())
}

async fn pipelined() -> anyhow::Result<()> {
    let mut stream = connect(&plain(8080), false).await?;
    let one = text("HTTP/1.1", &get(HOST).with("connection", "keep-alive"));
    stream.write_all(&[one.clone(), one].concat()).await?;
    for _ in 0..2 {
        status(&read_answer(&mut *stream).await?, 200)?;
    }
    Ok(())
}

async fn kept_alive() -> anyhow::Result<()> {
    let mut stream = connect(&plain(8080), false).await?;
    for _ in 0..2 {
        stream.write_all(&text("HTTP/1.0", &get(HOST).with("Connection", "keep-alive"))).await?;
        status(&read_answer(&mut *stream).await?, 200)?;
    }
    Ok(())
}

async fn web_socket(way: &Way, host: &str) -> anyhow::Result<()> {
    let mut stream = connect(way, false).await?;
    let upgrade = format!("GET / HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    stream.write_all(upgrade.as_bytes()).await?;
    status(&read_answer(&mut *stream).await?, 101)?;
    stream.write_all(b"ping").await?;
    let mut echo = [0; 4];
    tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut echo)).await.context("no echo")??;
    ensure!(&echo == b"ping", "{echo:?}");
    Ok(())
}

async fn web_socket_over_http2(way: &Way, host: &str, scheme: &str) -> anyhow::Result<()> {
    let stream = connect(way, true).await?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, http_body_util::Empty<bytes::Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await?;
    let connection = tokio::spawn(connection);
    // That the gateway takes such requests is in its first words.
    let first = http::Request::builder().uri(format!("{scheme}://{host}/")).body(http_body_util::Empty::new())?;
    ensure!(sender.send_request(first).await?.status() == 200);
    let mut request =
        http::Request::builder().method("CONNECT").uri(format!("{scheme}://{host}/")).body(http_body_util::Empty::new())?;
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let response = sender.send_request(request).await?;
    ensure!(response.status() == 200, "{response:?}");
    let mut socket = TokioIo::new(hyper::upgrade::on(response).await?);
    socket.write_all(b"ping").await?;
    let mut echo = [0; 4];
    tokio::time::timeout(Duration::from_secs(60), socket.read_exact(&mut echo)).await.context("no echo")??;
    ensure!(&echo == b"ping", "{echo:?}");
    connection.abort();
    Ok(())
}

#[test]
fn proxies_in_front_are_believed_where_they_are_to_be() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let listening = ListenerSettings { trusted_hops: 1, proxy_protocol: true, ..ListenerSettings::default() };
        let (_stage, certificate, _) = furnished(envoy, Plan { listening, ..Plan::default() }).await?;
        let _pod = Echo::start("pod", POD).await?;
        let mut cases = Cases::default();
        let claims = |host| get(host).with("X-Forwarded-Proto", "https").with("X-Forwarded-For", "203.0.113.9");
        let told = async |way: &Way, one: &Ask| {
            let answer = ask(way, Manner::Http11, one).await?;
            status(&answer, 200)?;
            anyhow::Ok((answer.seen_header("x-forwarded-proto")?, answer.seen_header("x-forwarded-for")?))
        };
        let expect = |seen: (Option<String>, Option<String>), proto: &str, addresses: &str| {
            is("protocol", seen.0.as_deref(), proto)?;
            is("addresses", seen.1.as_deref(), addresses)
        };
        cases.note(
            "TLS that ended in front is told",
            async { expect(told(&plain(8080), &claims(HOST)).await?, "https", "203.0.113.9,10.44.1.1") }.await,
        );
        cases.note(
            "also of a mapped domain",
            async { expect(told(&plain(8080), &claims(VANITY)).await?, "https", "203.0.113.9,10.44.1.1") }.await,
        );
        cases.note(
            "nobody is believed inside",
            async { expect(told(&plain(8081), &claims(HOST)).await?, "http", "203.0.113.9,10.44.1.1") }.await,
        );
        let version1 = b"PROXY TCP4 198.51.100.7 10.44.1.1 4711 8080\r\n".to_vec();
        let mut version2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        version2.extend([198, 51, 100, 8, 10, 44, 1, 1, 0x12, 0x34, 0x1f, 0x90]);
        for (name, first, client) in [("1", version1.clone(), "198.51.100.7"), ("2", version2, "198.51.100.8")] {
            let way = Way { first: first.clone(), ..plain(8080) };
            cases.note(&format!("PROXY protocol {name}"), async { expect(told(&way, &get(HOST)).await?, "http", client) }.await);
            let way = Way { first, tls: Some((certificate.clone(), Some(SECURE))), ..plain(8443) };
            cases.note(
                &format!("PROXY protocol {name} before TLS"),
                async { expect(told(&way, &get(SECURE)).await?, "https", client) }.await,
            );
        }
        cases.note("without its header", async { expect(told(&plain(8080), &get(HOST)).await?, "http", "10.44.1.1") }.await);
        let inside = Way { first: version1, ..plain(8081) };
        cases.note(
            "not inside",
            async { ask(&inside, Manner::Http11, &get(HOST)).await.map(|answer| status(&answer, 400)).unwrap_or(Ok(())) }.await,
        );
        cases.end(9)
    })
}

#[test]
fn both_families_of_addresses_are_served() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        for (family, pod_addresses, first) in [
            ("dual-stack", "10.44.1.1,fd44::1", "10.44.1.1:9000"),
            ("IPv6 first", "fd44::1,10.44.1.1", "[fd44::1]:9000"),
            ("IPv6 only", "fd44::1", "[fd44::1]:9000"),
        ] {
            let mut cases = Cases::default();
            let plan = Plan { pod_addresses: Some(pod_addresses), ..Plan::default() };
            let mut stage = Stage::start(envoy.clone(), plan).await?;
            let pod: SocketAddr = "[fd44::11]:8012".parse()?;
            stage.service("plain", false, &[(1, pod)]);
            stage.ingress("hello", vec![rule(&[HOST], "ExternalIP", vec![to("plain")])], |_| {});
            stage.settled().await?;
            let _pod = Echo::start("pod", pod).await?;
            for to in ["[fd44::1]:8080", "[fd44::1]:8081", "10.44.1.1:8080"] {
                let way = Way { to: to.parse()?, ..plain(0) };
                let result = async { status(&ask(&way, Manner::Http11, &get(HOST)).await?, 200) };
                cases.note(&format!("{family}: request to {to}"), result.await);
            }
            let way = Way { to: first.parse()?, ..plain(0) };
            for path in ["/ready", "/live"] {
                let asked = Ask { path, ..get("x") };
                let result = async { status(&ask(&way, Manner::Http11, &asked).await?, 200) };
                cases.note(&format!("{family}: the kubelet's {path}"), result.await);
            }
            cases.end(5)?;
            drop(stage);
            // The port of the configuration is to be free again.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    })
}
