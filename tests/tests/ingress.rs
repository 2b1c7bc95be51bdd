//! locality-ingress against a real API server and real Envoys. Needs root, for a network namespace
//! of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kantai_tests::ingress::backend::{Backend, Manner};
use kantai_tests::ingress::bench::{
    Bench, CLASS, OPS, SECOND_OPS, XDS, eventually, gateway_address, gateway_pod_address, in_own_network, pod_address,
};
use kantai_tests::ingress::certificates::Authority;
use kantai_tests::ingress::plan::PlanWriter;
use kantai_tests::ingress::relay::Relay;
use locality_ingress::endpoints::LocalityPolicy;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HOST: &str = "hello.default";

fn all(name: &str, count: usize) -> BTreeMap<String, usize> {
    [(name.to_owned(), count)].into()
}

#[test]
fn each_gateway_goes_its_own_way() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        let pod1 = Backend::start("pod1", pod_address(1, 1)).await?;
        let pod3 = Backend::start("pod3", pod_address(3, 1)).await?;
        let _activator1 = Backend::start("activator1", pod_address(1, 2)).await?;
        let _activator3 = Backend::start("activator3", pod_address(3, 2)).await?;
        bench.revision("hello-00001", &[(1, 1), (3, 1)]).await?;
        let _gateway1 = bench.gateway(1).await?;
        let _gateway3 = bench.gateway(3).await?;
        bench.gateways_ready(&[1, 3]).await?;
        bench.ingress("hello", &[("hello-00001", 100)]).await?;
        let ready = bench.ready("hello").await?;
        eprintln!("Ready after {ready:?}");

        // Without a plan each gateway prefers its own node.
        assert_eq!(bench.shares(1, HOST, 50).await?, all("pod1", 50));
        assert_eq!(bench.shares(3, HOST, 50).await?, all("pod3", 50));
        let headers = pod3.last_headers.lock().expect("no holder panics").clone();
        let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(header("knative-serving-revision"), Some("hello-00001"));
        assert_eq!(header("host"), Some(HOST));
        assert!(header("x-forwarded-for").is_some());
        // The external listener knows external hosts only; a port in the host does not matter.
        assert_eq!(bench.get(1, 8080, HOST, "/").await?.0, 404);
        assert_eq!(bench.get(1, 8080, "hello.default.example.com:80", "/x").await?, (200, "pod1".into()));

        // The plan, and how soon it is followed.
        plan.say("hello-00001", &[("node1", &[("node1", 80), ("node3", 20)]), ("node3", &[("node1", 100)])])?;
        let told = Instant::now();
        eventually("the plan to be followed", async || {
            anyhow::ensure!(bench.get(3, 8081, HOST, "/").await?.1 == "pod1");
            Ok(())
        })
        .await?;
        eprintln!("plan followed after {:?}", told.elapsed());
        assert_eq!(bench.shares(3, HOST, 100).await?, all("pod1", 100));
        // Each of Envoy's threads counts for itself.
        let shares = bench.shares(1, HOST, 500).await?;
        assert!((395..=405).contains(&shares["pod1"]) && shares["pod1"] + shares["pod3"] == 500, "{shares:?}");
        plan.say("hello-00001", &[("node1", &[("node1", 20), ("node3", 80)]), ("node3", &[("node1", 100)])])?;
        eventually("the new plan", async || {
            let shares = bench.shares(1, HOST, 20).await?;
            anyhow::ensure!(shares.get("pod3").is_some_and(|share| (14..=18).contains(share)), "{shares:?}");
            Ok(())
        })
        .await?;

        // A pod that is gone without a word: its node's requests go to the other one, none fails.
        drop(pod1);
        // Responses that it had begun when it ended cannot be saved.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.shares(3, HOST, 50).await?, all("pod3", 50));
        // Its endpoint goes: the plan's other node serves.
        bench.pods("hello-00001", &[(3, 1)]).await?;
        assert_eq!(bench.shares(1, HOST, 50).await?, all("pod3", 50));

        // To zero: each gateway has the activator of its node, whatever the plan still says.
        let activators = [(pod_address(1, 2).ip(), 1), (pod_address(3, 2).ip(), 3)];
        bench.slice("default", "hello-00001", "http", 8012, &activators, "knative-serving").await?;
        eventually("the activators", async || {
            anyhow::ensure!(bench.get(1, 8081, HOST, "/").await?.1 == "activator1");
            anyhow::ensure!(bench.get(3, 8081, HOST, "/").await?.1 == "activator3");
            Ok(())
        })
        .await?;
        // Without any endpoint there is no response but 503.
        bench.slice("default", "hello-00001", "http", 8012, &[], "default").await?;
        eventually("nobody", async || {
            anyhow::ensure!(bench.get(1, 8081, HOST, "/").await?.0 == 503);
            Ok(())
        })
        .await?;
        daemon.end().await
    })
}

#[test]
fn the_baseline_spreads_evenly_and_a_gateway_out_of_memory_says_so() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let mut bench = Bench::start(&components).await?;
        // No extra-controller there at all.
        let daemon = bench.daemon(LocalityPolicy::Spread, "http://127.0.0.1:1/v1/routes").await?;
        let _pods = [
            Backend::start("pod1", pod_address(1, 1)).await?,
            Backend::start("pod2", pod_address(2, 1)).await?,
            Backend::start("pod3", pod_address(3, 1)).await?,
        ];
        bench.revision("hello-00001", &[(1, 1), (2, 1), (3, 1)]).await?;
        let [_gateway] = bench.publish([1]).await?;
        let shares = bench.shares(1, HOST, 300).await?;
        assert_eq!(shares.len(), 3);
        assert!(shares.values().all(|share| (95..=105).contains(share)), "{shares:?}");

        bench.gateway_heap_bytes = 1;
        let _full = bench.gateway(3).await?;
        eventually("a gateway that has no memory left to take no requests", async || {
            let (status, answer) = bench.get(3, 8081, HOST, "/").await?;
            anyhow::ensure!(status == 503 && answer.contains("overloaded"), "{status} {answer}");
            Ok(())
        })
        .await?;
        assert!(bench.stats(3, "overload").await?.contains("stop_accepting_requests"));
        assert_eq!(bench.get(1, 8081, HOST, "/").await?.0, 200);
        daemon.end().await
    })
}

#[test]
fn statuses_updates_and_restarts() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let mut bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        let _pods = [Backend::start("old", pod_address(1, 1)).await?, Backend::start("new", pod_address(1, 2)).await?];
        for (service, pod) in [("hello-00001", 1), ("hello-00002", 2)] {
            bench.service("default", service, "http").await?;
            bench.pods(service, &[(1, pod)]).await?;
        }
        // Another class is none of our business, and is left as it is.
        bench.ingress("other", &[("hello-00001", 100)]).await?;
        bench
            .apply(json!({
                "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
                "metadata": {"namespace": "default", "name": "other",
                    "annotations": {"networking.knative.dev/ingress.class": "other.ingress.networking.knative.dev"}},
            }))
            .await?;
        let other = bench.ingresses().get("other").await?;

        bench.ingress("hello", &[("hello-00001", 100)]).await?;
        // No gateway yet: not ready, and it says so.
        eventually("the status to say that there is no gateway", async || {
            let status = bench.ingresses().get("hello").await?.status;
            let ready = status.conditions.iter().find(|one| one.type_ == "Ready");
            anyhow::ensure!(ready.is_some_and(|one| one.status == "Unknown" && one.message.contains("gateway")), "{status:?}");
            Ok(())
        })
        .await?;
        let gateway1 = bench.gateway(1).await?;
        bench.gateways_ready(&[1]).await?;
        bench.ready("hello").await?;
        let status = bench.ingresses().get("hello").await?.status;
        let name = |balancer: Option<k8s_api::kingress::LoadBalancer>| {
            balancer.map(|one| one.ingress.into_iter().map(|entry| entry.domain_internal).collect::<Vec<_>>())
        };
        assert_eq!(name(status.public_load_balancer), Some(vec!["kantai-gateway.kantai-system.svc.cluster.local".into()]));
        assert_eq!(
            name(status.private_load_balancer),
            Some(vec!["kantai-gateway-internal.kantai-system.svc.cluster.local".into()])
        );

        // Twenty changes of the backend under requests: none fails, and once an update is Ready the
        // old backend sees no request.
        let mut slowest = Duration::ZERO;
        for round in 0..20 {
            let (service, who) = if round % 2 == 0 { ("hello-00002", "new") } else { ("hello-00001", "old") };
            bench.ingress("hello", &[(service, 100)]).await?;
            let asked = async {
                let mut asked = 0;
                loop {
                    let (status, _) = bench.get(1, 8081, HOST, "/").await.expect("the gateway answers");
                    assert_eq!(status, 200, "round {round}");
                    asked += 1;
                    tokio::task::yield_now().await;
                    if asked > 10_000 {
                        return;
                    }
                }
            };
            tokio::select! {
                ready = bench.ready("hello") => slowest = slowest.max(ready?),
                () = asked => anyhow::bail!("not ready after 10,000 requests"),
            }
            assert_eq!(bench.shares(1, HOST, 5).await?, all(who, 5));
        }
        eprintln!("slowest of 20 updates: {slowest:?}");
        // A busy machine stalls for seconds; a configuration that is not pushed takes a minute.
        assert!(slowest < Duration::from_secs(30));

        // A gateway that Kubernetes still takes for ready but that is gone holds nothing up for
        // long.
        bench.gateways_ready(&[1, 3]).await?;
        bench.ingress("hello", &[("hello-00001", 50), ("hello-00002", 50)]).await?;
        let without_it = bench.ready("hello").await?;
        eprintln!("Ready without a lost gateway after {without_it:?}");
        bench.gateways_ready(&[1]).await?;

        // The control plane goes: requests are answered. It comes back: nothing is lost, and
        // changes are followed again.
        daemon.end().await?;
        assert_eq!(bench.shares(1, HOST, 200).await?.get("200"), None);
        let shares = bench.shares(1, HOST, 200).await?;
        assert!(shares.keys().all(|who| who == "old" || who == "new"), "{shares:?}");
        // So far nothing was written about requests; from now on it is.
        assert_eq!(bench.access_log(1)?, "");
        bench.access_log = true;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        bench.ingress("hello", &[("hello-00002", 100)]).await?;
        let after_restart = bench.ready("hello").await?;
        eprintln!("Ready after a restart of the control plane after {after_restart:?}");
        assert_eq!(bench.shares(1, HOST, 20).await?, all("new", 20));
        each_request_is_logged(&bench).await?;

        // An Ingress that came from another class with that one's finalizer can be deleted.
        let finalizer = json!({"metadata": {"finalizers": [k8s_api::kingress::FOREIGN_FINALIZER, "stays.example.com/x"]}});
        let patch = kube::api::Patch::Merge(&finalizer);
        bench.ingresses().patch("hello", &kube::api::PatchParams::default(), &patch).await?;
        bench.ingresses().delete("hello", &kube::api::DeleteParams::default()).await?;
        eventually("the foreign finalizer to go", async || {
            let finalizers = bench.ingresses().get("hello").await?.metadata.finalizers;
            anyhow::ensure!(finalizers.as_deref() == Some(&["stays.example.com/x".to_owned()]), "{finalizers:?}");
            Ok(())
        })
        .await?;
        eventually("the host to be unknown", async || {
            anyhow::ensure!(bench.get(1, 8081, HOST, "/").await?.0 == 404);
            Ok(())
        })
        .await?;
        assert_eq!(bench.ingresses().get("other").await?, other);
        drop(gateway1);
        daemon.end().await
    })
}

async fn each_request_is_logged(bench: &Bench) -> anyhow::Result<()> {
    let request = format!("GET /logged HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: says \"hello\"\r\nconnection: close\r\n\r\n");
    // A gateway confirms a listener before it takes connections with it.
    let line = eventually("a request to be logged", async || {
        let mut client = tokio::net::TcpStream::connect((gateway_address(1), 8081)).await?;
        client.write_all(request.as_bytes()).await?;
        client.read_to_end(&mut Vec::new()).await?;
        let log = bench.access_log(1)?;
        // The last one may be half written.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().find(|line| line.contains("/logged")).map(ToOwned::to_owned).context("nothing about it")
    })
    .await?;
    let mut logged: BTreeMap<String, serde_json::Value> = serde_json::from_str(&line)?;
    assert!(logged.remove("time").is_some_and(|time| time.as_str().is_some_and(|text| text.ends_with('Z'))), "{line}");
    assert!(logged.remove("duration_ms").is_some_and(|milliseconds| milliseconds.is_u64()), "{line}");
    assert!(logged.remove("client").is_some_and(|client| client.as_str().is_some_and(|text| text.contains(':'))), "{line}");
    let serving = pod_address(1, 2).to_string();
    let expected = json!({
        "method": "GET", "authority": HOST, "path": "/logged", "protocol": "HTTP/1.1", "request_id": null, "user_agent": "says \"hello\"",
        "status": 200, "details": "via_upstream", "flags": "-", "bytes_received": 0, "bytes_sent": 3, "attempts": 1,
        "cluster": "default/hello-00002/80", "serving_pod": serving,
    });
    assert_eq!(serde_json::to_value(&logged)?, expected);
    Ok(())
}

#[test]
fn demand_is_told_full_pods_spill_and_a_gateway_that_ends_sends_its_clients_away() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        let manner = Manner { at_once: 1, takes: Duration::from_millis(100) };
        let _near = Backend::with_manner("near", pod_address(1, 1), manner).await?;
        let _far = Backend::with_manner("far", pod_address(3, 1), Manner { at_once: 100, ..manner }).await?;
        bench.limited_revision("hello-00001", 1).await?;
        bench.revision("hello-00001", &[(1, 1), (3, 1)]).await?;
        plan.say("hello-00001", &[("node1", &[("node1", 100)])])?;
        let [_gateway] = bench.publish([1]).await?;

        // One at a time fits where it is planned.
        assert_eq!(bench.shares(1, HOST, 10).await?, all("near", 10));
        // Six do not: the near pod takes one at once.
        let many = futures::future::try_join_all((0..6).map(|_| bench.shares(1, HOST, 20)));
        let seen = eventually("demand to be told", async || {
            let demand = bench.demand().await?;
            let of = demand.iter().find(|one| one.key.revision == "hello-00001");
            let loads = of.and_then(|of| of.loads.get("node1")).cloned().unwrap_or_default();
            let in_flight: u64 = loads.values().map(|load| load.in_flight).sum();
            anyhow::ensure!(in_flight >= 4, "{loads:?}");
            Ok(())
        });
        let (shares, ()) = futures::future::try_join(many, seen).await?;
        let far: usize = shares.iter().filter_map(|shares| shares.get("far")).sum();
        let near: usize = shares.iter().filter_map(|shares| shares.get("near")).sum();
        assert_eq!(near + far, 120, "{shares:?}");
        assert!(far > 20, "{shares:?}");

        // The gateway's pod is replaced: the old one takes no new connections after a while, the
        // new one does.
        let _replacement = bench.gateway_pod(1, 2).await?;
        let old = std::net::SocketAddr::new(gateway_address(1), 8081);
        let new = std::net::SocketAddr::new(gateway_pod_address(1, 2), 8081);
        tokio::net::TcpStream::connect(old).await?;
        bench.gateway_pods_ready(&[(1, 2)], &[(1, 1)]).await?;
        eventually("the old gateway to take no connections", async || {
            anyhow::ensure!(tokio::net::TcpStream::connect(old).await.is_err());
            Ok(())
        })
        .await?;
        tokio::net::TcpStream::connect(new).await?;
        daemon.end().await
    })
}

#[test]
fn a_refusal_is_told_whichever_replica_the_gateway_is_connected_to_and_goes_with_its_cause() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let mut bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        // The first leads; the only gateway is connected to the second.
        let leader = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> =
            kube::Api::namespaced(bench.client.clone(), "kantai-system");
        eventually("the first replica to lead", async || {
            let holder = leases.get("locality-ingress").await?.spec.and_then(|spec| spec.holder_identity);
            anyhow::ensure!(holder.as_deref() == Some("locality-ingress-0"), "{holder:?}");
            Ok(())
        })
        .await?;
        let follower = bench.second_daemon(LocalityPolicy::Locality, &plan.url).await?;
        let _pod = Backend::start("pod", pod_address(1, 1)).await?;
        bench.revision("hello-00001", &[(1, 1)]).await?;
        bench.xds_port = 18001;
        let [_gateway] = bench.publish([1]).await?;

        // A key that does not belong to its certificate passes with everybody but a gateway.
        let (one, other) = (
            rcgen::generate_simple_self_signed(["secure.example.com".to_owned()])?,
            rcgen::generate_simple_self_signed(["other.example.com".to_owned()])?,
        );
        let certificate = async |key: &rcgen::KeyPair| {
            bench
                .apply(json!({
                    "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"namespace": "default", "name": "cert"},
                    "stringData": {"tls.crt": one.cert.pem(), "tls.key": key.serialize_pem()},
                }))
                .await
        };
        certificate(&other.signing_key).await?;
        let splits = json!([{"serviceNamespace": "default", "serviceName": "hello-00001", "servicePort": 80}]);
        bench
            .apply(json!({
                "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
                "metadata": {"namespace": "default", "name": "secure", "annotations": {"networking.knative.dev/ingress.class": CLASS}},
                "spec": {
                    "tls": [{"hosts": ["secure.example.com"], "secretName": "cert", "secretNamespace": "default"}],
                    "rules": [{"hosts": ["secure.example.com"], "visibility": "ExternalIP", "http": {"paths": [{"splits": splits}]}}],
                },
            }))
            .await?;
        let reason = async || -> anyhow::Result<String> {
            let status = bench.ingresses().get("secure").await?.status;
            let ready = status.conditions.into_iter().find(|one| one.type_ == "Ready").context("no condition yet")?;
            Ok(format!("{} {}", ready.status, ready.reason))
        };
        let began = Instant::now();
        eventually("the refusal to be told", async || {
            let reason = reason().await?;
            anyhow::ensure!(reason == "False RefusedByGateway", "{reason}");
            Ok(())
        })
        .await?;
        eprintln!("a refusal is told after {:?}", began.elapsed());
        // Who leads does not say otherwise.
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(reason().await?, "False RefusedByGateway");
        }
        certificate(&one.signing_key).await?;
        bench.ready("secure").await?;
        assert_eq!(bench.get_tls(1, "secure.example.com", &one.cert).await?, "pod");
        follower.end().await?;
        leader.end().await
    })
}

#[test]
fn spill_leaves_nodes_alone_that_gateways_of_another_replica_have_filled() -> anyhow::Result<()> {
    const MANNER: Manner = Manner { at_once: 1, takes: Duration::from_millis(100) };
    const PODS: [u8; 3] = [1, 2, 3];
    in_own_network(async |components| {
        let mut bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        let first = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        let second = bench.second_daemon(LocalityPolicy::Locality, &plan.url).await?;
        let replica = json!({
            "addresses": [SECOND_OPS.split(':').next()], "nodeName": "node3", "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": "locality-ingress-1", "namespace": "kantai-system"},
        });
        bench
            .apply(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"namespace": "kantai-system", "name": "locality-ingress-1",
                             "labels": {"kubernetes.io/service-name": "locality-ingress"}},
                "addressType": "IPv4", "endpoints": [replica], "ports": [{"name": "xds", "port": 18000}],
            }))
            .await?;
        let mut pods = vec![(1, 1)];
        pods.extend([2, 3].into_iter().flat_map(|node| PODS.map(|pod| (node, pod))));
        let mut backends = Vec::new();
        for &(node, pod) in &pods {
            backends.push(Backend::with_manner(&format!("node{node}"), pod_address(node, pod), MANNER).await?);
        }
        bench.limited_revision("hello-00001", MANNER.at_once).await?;
        bench.revision("hello-00001", &pods).await?;
        plan.say("hello-00001", &[("node1", &[("node1", 100)]), ("node2", &[("node2", 100)])])?;
        let _gateway1 = bench.gateway(1).await?;
        bench.xds_port = 18001;
        let [_gateway2] = bench.publish([2]).await?;

        // The gateway of node2, which is connected to the second replica, keeps its pods full.
        // (With more requests than they take it would spill to node3 itself.)
        let client = reqwest::Client::builder().no_proxy().build()?;
        let others = async {
            let mut requests = tokio::task::JoinSet::new();
            loop {
                while requests.len() < PODS.len() {
                    requests.spawn(client.get("http://10.44.2.1:8081/").header("host", HOST).send());
                }
                requests.join_next().await;
            }
        };
        // Four clients that ask again as soon as they are answered: their own pod takes one at
        // once, and there is room for the others on node3.
        let ours = eventually("the load of the other replica to count", async || {
            let answers = futures::future::try_join_all((0..4).map(|_| bench.shares(1, HOST, 25))).await?;
            let on = |node: &str| answers.iter().filter_map(|of| of.get(node)).sum::<usize>();
            anyhow::ensure!(on("node3") > 10, "nothing is moved: {answers:?}");
            anyhow::ensure!(on("node2") * 4 <= on("node3"), "node2 is full, node3 is not: {answers:?}");
            Ok(())
        });
        tokio::select! {
            () = others => unreachable!("it never ends"),
            done = ours => done?,
        }
        first.end().await?;
        second.end().await
    })
}

#[test]
fn requests_that_clients_give_up_are_in_flight_no_more_and_long_ones_stay() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        let _pod =
            Backend::with_manner("pod", pod_address(1, 1), Manner { at_once: 100, takes: Duration::from_secs(600) }).await?;
        bench.revision("hello-00001", &[(1, 1)]).await?;
        let [_gateway] = bench.publish([1]).await?;

        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..20 {
            waiting.spawn(client.get("http://10.44.1.1:8081/").header("host", HOST).send());
        }
        let in_flight = async || {
            let demand = bench.demand().await?;
            let of = demand.iter().find(|one| one.key.revision == "hello-00001");
            let loads = of.and_then(|of| of.loads.get("node1")).into_iter().flat_map(|loads| loads.values());
            anyhow::Ok(loads.map(|load| load.in_flight).sum::<u64>())
        };
        let told = async |expected| {
            eventually("the requests in flight", async || {
                let count = in_flight().await?;
                anyhow::ensure!(count == expected, "{count} in flight, not {expected}");
                Ok(())
            })
            .await
        };
        told(20).await?;
        // Nothing comes and nothing ends for many reports.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(in_flight().await?, 20);
        let given_up = Instant::now();
        waiting.shutdown().await;
        told(0).await?;
        // They took some five seconds each, and nobody reports their end.
        eprintln!("in flight no more {:?} after their clients left", given_up.elapsed());
        daemon.end().await
    })
}

#[test]
fn a_burst_capacity_that_knative_sets_for_all_revisions_is_followed() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        bench.limited_revision("hello-00001", 5).await?;
        bench.revision("hello-00001", &[(1, 1)]).await?;
        bench.service("knative-serving", "activator-service", "http").await?;
        let activator = [(pod_address(3, 1).ip(), 3)];
        bench.slice("knative-serving", "activator-service", "http", 8012, &activator, "knative-serving").await?;
        let [_gateway] = bench.publish([1]).await?;

        let holds = async |expected: bool| {
            eventually("the burst capacity to be followed", async || {
                let explained = bench.explain(HOST, 1).await?;
                let limit = &explained["clusters"]["default/hello-00001/80"]["most_in_flight"];
                anyhow::ensure!(limit.is_number() == expected, "{limit}");
                Ok(())
            })
            .await
        };
        let settings = |data: Value| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}, "data": data,
            })
        };
        holds(true).await?;
        bench.apply(settings(json!({"target-burst-capacity": "0", "stable-window": "60s"}))).await?;
        holds(false).await?;
        bench.apply(settings(json!({"stable-window": "60s"}))).await?;
        holds(true).await?;
        daemon.end().await
    })
}

#[test]
fn a_silent_api_server_is_noticed_and_an_open_demand_stream_does_not_hold_up_the_stop() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        let relay = Relay::to(bench.api_server()?).await?;
        let daemon = bench.daemon_through(Some(relay.address), LocalityPolicy::Locality, &plan.url).await?;
        let _pods = [Backend::start("old", pod_address(1, 1)).await?, Backend::start("new", pod_address(1, 2)).await?];
        bench.revision("hello-00001", &[(1, 1)]).await?;
        let [_gateway] = bench.publish([1]).await?;
        assert_eq!(bench.get(1, 8081, HOST, "/").await?, (200, "old".into()));

        relay.fall_silent();
        bench.pods("hello-00001", &[(1, 2)]).await?;
        let began = Instant::now();
        while bench.get(1, 8081, HOST, "/").await?.1 != "new" {
            anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "a change is not followed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        eprintln!("a change during a silence is followed after {:?}", began.elapsed());
        // What is written to the API server is, too.
        bench.revision("hello-00002", &[(1, 1)]).await?;
        bench.ingress("hello", &[("hello-00002", 100)]).await?;
        bench.ready("hello").await?;

        // Somebody reads demand, and goes on reading.
        let _reader = reqwest::get(format!("http://{}{}", OPS, gateway_link::demand::DEMAND_PATH)).await?;
        let began = Instant::now();
        daemon.end().await?;
        anyhow::ensure!(began.elapsed() < Duration::from_secs(30), "stopped after {:?}", began.elapsed());
        Ok(())
    })
}

#[test]
fn tls_redirects_web_sockets_and_other_names_of_ourselves() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        let _pod = Backend::start("pod", pod_address(1, 1)).await?;
        bench.revision("hello-00001", &[(1, 1)]).await?;
        let [_gateway] = bench.publish([1]).await?;

        // Demand is read by the name of the revision.
        bench.get(1, 8081, HOST, "/").await?;
        let stats = bench.stats(1, "upstream_rq_active").await?;
        assert!(stats.contains("envoy_cluster_upstream_rq_active{envoy_cluster_name=\"default/hello-00001\"} 0"), "{stats}");
        // Nothing else of the administration is reachable.
        assert_eq!(bench.get(1, 9000, "x", "/config_dump").await?.0, 404);

        // A web socket: both ways, after the upgrade.
        let mut socket = tokio::net::TcpStream::connect((gateway_address(1), 8081)).await?;
        let upgrade = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
        socket.write_all(upgrade.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await?);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        socket.write_all(b"ping").await?;
        let mut echo = [0; 4];
        socket.read_exact(&mut echo).await?;
        assert_eq!(&echo, b"ping");

        // HTTPS, from a Secret that comes with the Ingress and is renewed later. Plain HTTP is sent
        // there.
        let secure = "secure.default.example.com";
        // As tools make it, and as people do.
        let certificate = async |of_type: &str| {
            let made = rcgen::generate_simple_self_signed([secure.to_owned()])?;
            bench
                .apply(json!({
                    "apiVersion": "v1", "kind": "Secret", "type": of_type,
                    "metadata": {"namespace": "default", "name": "cert"},
                    "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
                }))
                .await?;
            anyhow::Ok(made.cert)
        };
        let first = certificate("kubernetes.io/tls").await?;
        let splits = json!([{"serviceNamespace": "default", "serviceName": "hello-00001", "servicePort": 80}]);
        bench
            .apply(json!({
                "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
                "metadata": {"namespace": "default", "name": "secure", "annotations": {"networking.knative.dev/ingress.class": CLASS}},
                "spec": {
                    "httpOption": "Redirected",
                    "tls": [{"hosts": [secure], "secretName": "cert", "secretNamespace": "default"}],
                    "rules": [{"hosts": [secure], "visibility": "ExternalIP", "http": {"paths": [{"splits": splits}]}}],
                },
            }))
            .await?;
        bench.ready("secure").await?;
        assert_eq!(bench.get_tls(1, secure, &first).await?, "pod");
        assert_eq!(bench.get(1, 8080, secure, "/x").await?.0, 301);
        assert_eq!(bench.get(1, 8081, secure, "/").await?, (200, "pod".into()));
        // Its type cannot be changed. Meanwhile the certificate stays.
        let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(bench.client.clone(), "default");
        secrets.delete("cert", &kube::api::DeleteParams::default()).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(bench.get_tls(1, secure, &first).await?, "pod");
        let second = certificate("Opaque").await?;
        eventually("the renewed certificate", async || bench.get_tls(1, secure, &second).await).await?;
        assert!(bench.get_tls(1, secure, &first).await.is_err());

        // A DomainMapping: a Service that is another name of our own gateway, and another host for
        // the backend.
        bench
            .apply(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "hello"},
                "spec": {"type": "ExternalName", "externalName": "kantai-gateway-internal.kantai-system.svc.cluster.local",
                         "ports": [{"name": "http2", "port": 80}]},
            }))
            .await?;
        let splits = json!([{"serviceNamespace": "default", "serviceName": "hello", "servicePort": 80}]);
        bench
            .apply(json!({
                "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
                "metadata": {"namespace": "default", "name": "vanity", "annotations": {"networking.knative.dev/ingress.class": CLASS}},
                "spec": {"rules": [{"hosts": ["vanity.example.org"], "visibility": "ExternalIP",
                                    "http": {"paths": [{"rewriteHost": HOST, "splits": splits}]}}]},
            }))
            .await?;
        bench.ready("vanity").await?;
        assert_eq!(bench.get(1, 8080, "vanity.example.org", "/").await?, (200, "pod".into()));

        // What goes where, and why.
        let explained = bench.explain(HOST, 1).await?;
        assert_eq!(explained["clusters"]["default/hello-00001/80"]["assignment"]["localities"][0]["node"], "node1");
        daemon.end().await
    })
}

#[test]
fn gateways_are_served_over_tls_and_both_sides_take_new_certificates_over() -> anyhow::Result<()> {
    // What is deployed with TLS differs from what is deployed without by that alone.
    let [plain, tls] =
        [include_str!("../../deploy/xds-plain/envoy.yaml"), include_str!("../../deploy/kantai-gateway/envoy.yaml")];
    let (before, socket) = tls.split_once("      transport_socket:\n").expect("it has TLS");
    let (_, after) = socket.split_once("      load_assignment:\n").expect("something follows");
    assert_eq!(format!("{before}      load_assignment:\n{after}"), plain);

    in_own_network(async |components| {
        let mut bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        bench.secure(&Authority::new()?)?;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        let _pod = Backend::start("pod", pod_address(1, 1)).await?;
        bench.revision("hello-00001", &[(1, 1)]).await?;
        let [_first] = bench.publish([1]).await?;
        assert_eq!(bench.get(1, 8081, HOST, "/").await?, (200, "pod".into()));

        // Another authority on both sides. A gateway that knows no other one finds the daemon with
        // its new certificate.
        bench.renew_certificates(&Authority::new()?)?;
        let _second = bench.gateway(2).await?;
        bench.gateways_ready(&[1, 2]).await?;
        assert_eq!(bench.get(2, 8081, HOST, "/").await?, (200, "pod".into()));
        // The old gateway has the new certificates, too, when it reconnects.
        daemon.end().await?;
        let daemon = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        bench.revision("hello-00002", &[(1, 1)]).await?;
        bench.ingress("hello", &[("hello-00002", 100)]).await?;
        bench.ready("hello").await?;
        let stats = bench.stats(1, "upstream_rq_active").await?;
        assert!(stats.contains("default/hello-00002"), "{stats}");
        daemon.end().await
    })
}

#[test]
fn gateways_are_served_with_certificates_that_the_daemon_made_and_nobody_else_is() -> anyhow::Result<()> {
    in_own_network(async |components| {
        let mut bench = Bench::start(&components).await?;
        let plan = PlanWriter::start().await?;
        bench.secure_by_itself();
        let first = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        bench.mount_made_certificates().await?;
        let _pod = Backend::start("pod", pod_address(1, 1)).await?;
        bench.revision("hello-00001", &[(1, 1)]).await?;
        let [_gateway] = bench.publish([1]).await?;
        assert_eq!(bench.get(1, 8081, HOST, "/").await?, (200, "pod".into()));
        // Whoever comes without a certificate is not even listened to.
        let mut stranger = tokio::net::TcpStream::connect(XDS).await?;
        stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(60), stranger.read_to_end(&mut answer)).await?;
        // No frame of HTTP/2: at most an alert of TLS.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");

        // Another replica, or the same one later, has the same certificates.
        first.end().await?;
        let second = bench.daemon(LocalityPolicy::Locality, &plan.url).await?;
        bench.revision("hello-00002", &[(1, 1)]).await?;
        bench.ingress("hello", &[("hello-00002", 100)]).await?;
        bench.ready("hello").await?;
        second.end().await
    })
}
