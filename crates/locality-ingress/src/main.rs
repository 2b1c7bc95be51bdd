//! The daemon.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use locality_ingress::endpoints::{FollowSettings, Policy};
use locality_ingress::kubernetes::{ObjectName, cluster_domain};
use locality_ingress::xds::{DEFAULT_REQUEST_HEADERS_KIB, GatewayPorts, ListenerSettings};
use locality_ingress::{Listeners, Settings, TlsFiles, XdsTls, noticing_silence, run};

/// Knative ingress class on stock Envoy: one view per node, so that a request is answered near
/// where it entered.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Where gateways connect (delta ADS over HTTP/2).
    #[arg(long, env = "KANTAI_XDS_LISTEN", default_value = "[::]:18000")]
    xds_listen: SocketAddr,
    /// Our certificate for gateways, in PEM, where it is not to be made here. Taken over again
    /// whenever it changes.
    #[arg(long, env = "KANTAI_XDS_CERTIFICATE_FILE")]
    xds_certificate_file: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long, env = "KANTAI_XDS_KEY_FILE")]
    xds_key_file: Option<PathBuf>,
    /// The authorities that the gateways' own certificates are of. With a certificate of ours but
    /// without this whoever reaches the port is served.
    #[arg(long, env = "KANTAI_XDS_CLIENT_CA_FILE")]
    xds_client_ca_file: Option<PathBuf>,
    /// Serve gateways in plain text: whoever reaches the port is sent everything, keys of
    /// certificates included. Otherwise they are served over TLS, and without files with
    /// certificates that the daemon makes, keeps in Secrets of its namespace and renews: an
    /// authority (kantai-xds-authority), its own (locality-ingress-xds), and the one that gateways
    /// have to show (kantai-gateway-xds).
    #[arg(long, env = "KANTAI_XDS_PLAIN_TEXT")]
    xds_plain_text: bool,
    /// Where /healthz, /readyz, /metrics, /v1/demand and /v1/explain are served.
    #[arg(long, env = "KANTAI_OPS_LISTEN", default_value = "[::]:8080")]
    ops_listen: SocketAddr,
    /// Where the extra-controller serves the plan.
    #[arg(long, env = "KANTAI_ROUTES_URL", default_value = "http://extra-controller.kantai-system.svc:18080/v1/routes")]
    routes_url: String,
    /// A stream of plans on which nothing is heard for this many seconds, not even a heartbeat, is
    /// taken for dead.
    #[arg(long, env = "KANTAI_ROUTES_SILENCE_SECONDS", default_value_t = 15)]
    routes_silence_seconds: u64,
    /// A plan counts no more when its writer was not heard of for this many seconds.
    #[arg(long, env = "KANTAI_ROUTES_EXPIRY_SECONDS", default_value_t = 300)]
    routes_expiry_seconds: u64,
    /// The ingress class to serve.
    #[arg(long, env = "KANTAI_INGRESS_CLASS", default_value = "kantai.ingress.networking.knative.dev")]
    ingress_class: String,
    /// How gateways choose endpoints: locality (where the plan says, else the nearest) or spread
    /// (evenly over all).
    #[arg(long, env = "KANTAI_POLICY", default_value = "locality")]
    policy: Policy,
    /// How often gateways with traffic report what they have in flight, in milliseconds. One
    /// without traffic does so four times a second at most; a request that an activator holds is
    /// told of at once in any case.
    #[arg(long, env = "KANTAI_DEMAND_INTERVAL_MILLISECONDS", default_value_t = 50)]
    demand_interval_milliseconds: u64,
    /// The Service in front of the gateways' external listeners.
    #[arg(long, env = "KANTAI_GATEWAY_SERVICE", default_value = "kantai-gateway")]
    gateway_service: String,
    /// The Service in front of the gateways' internal listeners; its ready endpoints are the live
    /// gateways.
    #[arg(long, env = "KANTAI_GATEWAY_INTERNAL_SERVICE", default_value = "kantai-gateway-internal")]
    gateway_internal_service: String,
    /// Service of this daemon. Its replicas follow each other's demand, so that spill counts the
    /// load of all gateways.
    #[arg(long, env = "KANTAI_OWN_SERVICE", default_value = "locality-ingress")]
    own_service: String,
    /// The cluster's DNS suffix. Unless it is given, the one in /etc/resolv.conf, as the kubelet
    /// writes it, or else cluster.local.
    #[arg(long, env = "KANTAI_CLUSTER_DOMAIN")]
    cluster_domain: Option<String>,
    /// The gateways' port of plain HTTP from outside.
    #[arg(long, env = "KANTAI_EXTERNAL_PORT", default_value_t = GatewayPorts::default().external)]
    external_port: u16,
    /// The gateways' port of plain HTTP from inside.
    #[arg(long, env = "KANTAI_INTERNAL_PORT", default_value_t = GatewayPorts::default().internal)]
    internal_port: u16,
    /// The gateways' port of HTTPS from outside.
    #[arg(long, env = "KANTAI_EXTERNAL_TLS_PORT", default_value_t = GatewayPorts::default().external_tls)]
    external_tls_port: u16,
    /// The gateways' port of HTTPS from inside.
    #[arg(long, env = "KANTAI_INTERNAL_TLS_PORT", default_value_t = GatewayPorts::default().internal_tls)]
    internal_tls_port: u16,
    /// Have gateways write a line of JSON per request to their standard output.
    #[arg(long, env = "KANTAI_ACCESS_LOG")]
    access_log: bool,
    /// How many proxies stand in front of the gateways' external ports whose X-Forwarded-For and
    /// X-Forwarded-Proto count: with 1, a load balancer that ends TLS. Whoever reaches the ports
    /// past it can then claim any address.
    #[arg(long, env = "KANTAI_TRUSTED_HOPS", default_value_t = 0)]
    trusted_hops: u32,
    /// Connections to the gateways' external ports may begin with a header of the PROXY protocol,
    /// version 1 or 2, which then says where they come from.
    #[arg(long, env = "KANTAI_PROXY_PROTOCOL")]
    proxy_protocol: bool,
    /// How large the headers of a request may be together, in KiB; larger ones are answered
    /// with 431.
    #[arg(long, env = "KANTAI_REQUEST_HEADERS_KIB", default_value_t = DEFAULT_REQUEST_HEADERS_KIB, value_parser = clap::value_parser!(u32).range(1..=8192))]
    request_headers_kib: u32,
    /// The TLS Secret, as namespace/name, for HTTPS clients from outside that name no host, or one
    /// without a certificate of its own.
    #[arg(long, env = "KANTAI_FALLBACK_CERTIFICATE")]
    fallback_certificate: Option<ObjectName>,
    /// The Secret, as namespace/name, with the authority (ca.crt) of what activators and
    /// queue-proxies show with Knative's internal encryption (system-internal-tls).
    #[arg(long, env = "KANTAI_INTERNAL_AUTHORITY", default_value = "knative-serving/routing-serving-certs")]
    internal_authority: ObjectName,
    /// The namespaces whose Secrets are read for certificates, with commas between them; all where
    /// there are none. With some, Roles in each of them may take the place of the ClusterRole's
    /// rule for Secrets.
    #[arg(long, env = "KANTAI_SECRET_NAMESPACES", value_delimiter = ',')]
    secret_namespaces: Vec<String>,
    /// Our namespace, which is the gateways', too.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kantai-system")]
    namespace: String,
    /// Our pod.
    #[arg(long, env = "POD_NAME", default_value = "locality-ingress")]
    pod_name: String,
    /// json or text.
    #[arg(long, env = "KANTAI_LOG_FORMAT", default_value = "json")]
    log_format: ops_http::LogFormat,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    ops_http::init_logging(flags.log_format);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), class = flags.ingress_class, policy = ?flags.policy, "starting");
    let stop = ops_http::stop_on_signal()?;
    let config = kube::Config::infer().await.context("failed to find the API server")?;
    let client = kube::Client::try_from(noticing_silence(config)).context("failed to make a client of the API server")?;
    let listeners = Listeners { xds: ops_http::bind(flags.xds_listen).await?, ops: ops_http::bind(flags.ops_listen).await? };
    let ports = GatewayPorts {
        external: flags.external_port,
        internal: flags.internal_port,
        external_tls: flags.external_tls_port,
        internal_tls: flags.internal_tls_port,
    };
    let settings = Settings {
        class: flags.ingress_class,
        policy: flags.policy,
        tls: match TlsFiles::given(flags.xds_certificate_file, flags.xds_key_file, flags.xds_client_ca_file)? {
            Some(_) if flags.xds_plain_text => {
                anyhow::bail!(
                    "failed to set TLS up: files are given for certificates, and gateways are to be served in plain text"
                )
            }
            Some(files) => XdsTls::Files(files),
            None if flags.xds_plain_text => XdsTls::Off,
            None => XdsTls::SelfMade,
        },
        listening: ListenerSettings {
            ports,
            access_log: flags.access_log,
            trusted_hops: flags.trusted_hops,
            proxy_protocol: flags.proxy_protocol,
            request_headers_kib: flags.request_headers_kib,
        },
        fallback_certificate: flags.fallback_certificate,
        internal_authority: flags.internal_authority,
        secret_namespaces: flags.secret_namespaces,
        plan: FollowSettings {
            url: flags.routes_url,
            silence_limit: Duration::from_secs(flags.routes_silence_seconds),
            expiry: Duration::from_secs(flags.routes_expiry_seconds),
        },
        demand_interval: Duration::from_millis(flags.demand_interval_milliseconds.max(1)),
        gateway_service: flags.gateway_service,
        gateway_internal_service: flags.gateway_internal_service,
        own_service: flags.own_service,
        cluster_domain: flags.cluster_domain.unwrap_or_else(cluster_domain),
        namespace: flags.namespace,
        pod_name: flags.pod_name,
    };
    Ok(run(client, settings, listeners, stop).await?)
}
