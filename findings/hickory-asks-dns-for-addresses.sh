#!/usr/bin/env bash
# hickory-resolver: in a pod, looking up an address asks the DNS server eight questions first.
#
# Part:     hickory-resolver 0.26.3 (Rust crate).
# Date:     28 November 2026.
# Expected: the address of an IP address is that address. lookup_ip("10.96.0.1") answers without a
#           question to anybody, whatever the search domains, as the C library does.
# Seen:     only while ndots is at most 4. Kubernetes writes ndots:5 and three search domains into
#           the pods' resolv.conf. With these the crate asks for
#           10.96.0.1.default.svc.cluster.local and so on, for each search domain and for the bare
#           name, each for IPv4 and IPv6, and gives the address when all eight have failed.
# Who meets it: whoever resolves what a flag or an endpoint list gives as an address, in a pod. A
#           connection to a neighbour waits for the cluster's DNS, which may be on the far side of
#           the link that is being measured, and for its timeouts when DNS is away.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v cargo >/dev/null || { echo "cannot run: cargo is missing"; exit 2; }
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
hickory-resolver = { version = "=0.26.3", default-features = false, features = ["tokio"] }
tokio = { version = "1", features = ["macros", "net", "rt", "time"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::Resolver;
use tokio::net::UdpSocket;

/// Answers every question with "no such name", and keeps the names that were asked for.
async fn serve(socket: UdpSocket, asked: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0_u8; 512];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let mut labels = Vec::new();
        let mut at = 12;
        while buffer[at] > 0 {
            let end = at + 1 + usize::from(buffer[at]);
            labels.push(String::from_utf8_lossy(&buffer[at + 1..end]).into_owned());
            at = end;
        }
        let kind = if buffer[at + 2] == 28 { "AAAA" } else { "A" };
        asked.lock().expect("no test panicked").push(format!("{kind} {}", labels.join(".")));
        // The header says: an answer, one question, no such name. The question follows.
        let mut answer = buffer[..length.min(at + 5)].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0]);
        let _ = socket.send_to(&answer, client).await;
    }
}

async fn questions(server: SocketAddr, asked: &Mutex<Vec<String>>, ndots: usize) -> Vec<String> {
    asked.lock().expect("no test panicked").clear();
    let search = ["default.svc.cluster.local.", "svc.cluster.local.", "cluster.local."];
    let search = search.map(|domain| Name::from_ascii(domain).expect("it is a name")).to_vec();
    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    let name_server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, search, vec![name_server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().ndots = ndots;
    let resolver = builder.build().expect("the configuration is complete");
    let found = resolver.lookup_ip("10.96.0.1").await.expect("an address is found");
    assert!(found.iter().eq([Ipv4Addr::new(10, 96, 0, 1)]), "it is the address that was given");
    asked.lock().expect("no test panicked").clone()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a port");
    let server = socket.local_addr().expect("it is bound");
    let asked = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(serve(socket, asked.clone()));
    let few = questions(server, &asked, 4).await;
    let pod = questions(server, &asked, 5).await;
    println!("lookup_ip(\"10.96.0.1\") with ndots 4: {} questions; with ndots 5: {}", few.len(), pod.len());
    for question in &pod {
        println!("  {question}");
    }
    let seen = few.is_empty() && pod.len() == 8;
    if seen {
        println!("seen: eight questions for an address, with the ndots of a pod");
    } else {
        println!("not seen: other questions are asked for an address than before");
    }
    std::process::exit(i32::from(!seen));
}
RUST
(cd "$work" && CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet) 2>"$work/cargo.log" \
    || { cat "$work/cargo.log"; echo "cannot run: cargo build failed"; exit 2; }
timeout 60 "$work/target/debug/finding" || exit 1
