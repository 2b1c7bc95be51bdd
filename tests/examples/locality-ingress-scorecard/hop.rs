//! What our configuration costs against one that is written by hand.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::figure::as_f64;
use crate::load::{shares, throughput};
use crate::stage::{Stage, entry};
use kantai_tests::ingress::backend::Backend;
use kantai_tests::ingress::bench::{eventually, gateway_pod_address, pod_address};
use scorecards::{Figure, Goal};

const CONNECTIONS: usize = 16;
const SLICE: Duration = Duration::from_millis(150);
/// A round alone is off by some percent, since connections fall to Envoy's workers by chance.
const ROUNDS: usize = 20;
/// And so is a process, for as long as it lives: where its memory comes to lie is luck, too.
const PAIRS: usize = 8;

/// Requests per second through our gateway, and through the same Envoy with a static configuration,
/// in turns.
pub(crate) async fn measure(stage: &mut Stage) -> anyhow::Result<Vec<Figure>> {
    let _pod = Backend::start("pod", pod_address(1, 1)).await?;
    let host = stage.revision("hop", &[(1, 1)]).await?;
    let address: SocketAddr = (gateway_pod_address(1, 3), 8081).into();
    let (mut ratios, mut totals) = (Vec::new(), [0; 2]);
    for _ in 0..PAIRS {
        // The old one first: the new one takes its address.
        drop(stage.gateways.remove(0));
        stage.gateways.insert(0, stage.bench.gateway(1).await?);
        let _by_hand = by_hand(stage, address, &host)?;
        for gateway in [entry(1), address] {
            eventually("both gateways", async || {
                let shares = shares(gateway, &host, 1, 1).await?;
                anyhow::ensure!(shares.contains_key("pod"), "{shares:?}");
                Ok(())
            })
            .await?;
        }
        for round in 0..=ROUNDS {
            let mut answered = [0; 2];
            // Each is first as often as second, so that what drifts meanwhile is no advantage for
            // either.
            for which in [0, 1, 1, 0] {
                let done = throughput([entry(1), address][which], &host, CONNECTIONS, SLICE).await?;
                anyhow::ensure!(done.failed == 0, "{} requests failed", done.failed);
                answered[which] += done.answered;
            }
            // The first round warms up.
            if round > 0 {
                ratios.push(as_f64(answered[0]) / as_f64(answered[1]) * 100.0);
                totals = [totals[0] + answered[0], totals[1] + answered[1]];
            }
        }
        eprintln!("by round {:.1?} %", &ratios[ratios.len() - ROUNDS..]);
    }
    stage.forget("hop").await?;
    let [ours, by_hand] = totals.map(|total| as_f64(total) / (as_f64(2 * PAIRS * ROUNDS) * SLICE.as_secs_f64()));
    eprintln!("ours {ours:.0} requests/s, by hand {by_hand:.0}");
    ratios.sort_by(f64::total_cmp);
    // What else runs on the machine hits a round now and then; the middle one tells what is ours.
    let value = ratios[ratios.len() / 2];
    Ok(vec![Figure { id: "hop_overhead_pct", value, unit: "%", goal: Goal::AtLeast(98.0) }])
}

struct ByHand(Child);

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn by_hand(stage: &Stage, address: SocketAddr, host: &str) -> anyhow::Result<ByHand> {
    let (ip, port) = (address.ip(), address.port());
    let pod = pod_address(1, 1);
    let configuration = format!(
        r#"
static_resources:
  listeners:
    - address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: hand
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
                route_config:
                  virtual_hosts:
                    - name: hello
                      domains: ["{host}"]
                      routes: [{{ match: {{ prefix: / }}, route: {{ cluster: pod }} }}]
  clusters:
    - name: pod
      type: STATIC
      load_assignment:
        cluster_name: pod
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}
"#,
        pod.ip(),
        pod.port()
    );
    let path = stage.bench.folder.path().join("by-hand.yaml");
    std::fs::write(&path, configuration)?;
    let process = Command::new(&stage.bench.envoy)
        .arg("--config-path")
        .arg(&path)
        .args(["--concurrency", "2", "--disable-hot-restart", "--log-level", "error"])
        .stdout(Stdio::null())
        .spawn()?;
    Ok(ByHand(process))
}
