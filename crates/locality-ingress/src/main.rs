//! The daemon locality-ingress.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use locality_ingress::endpoints::{FollowSettings, Policy};
use locality_ingress::kubernetes::{ObjectName, cluster_domain};
use locality_ingress::xds::{DEFAULT_REQUEST_HEADERS_KIB, GatewayPorts, ListenerSettings};
use locality_ingress::{Listeners, Settings, TlsFiles, XdsTls, run};

/// Knative ingress class on stock Envoy. Each node has a gateway with its own routing weights, so
/// that a request is answered near where it entered.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Address that gateways connect to (delta ADS over HTTP/2).
    #[arg(long, env = "KANTAI_XDS_LISTEN", default_value = "[::]:18000")]
    xds_listen: SocketAddr,
    /// Server certificate for gateways, in PEM. Without it the daemon makes one. The file is read
    /// again when it changes.
    #[arg(long, env = "KANTAI_XDS_CERTIFICATE_FILE")]
    xds_certificate_file: Option<PathBuf>,
    /// Key of the server certificate, in PEM.
    #[arg(long, env = "KANTAI_XDS_KEY_FILE")]
    xds_key_file: Option<PathBuf>,
    /// Authorities that sign the gateways' client certificates, in PEM. With
    /// --xds-certificate-file and without this flag, any client is served.
    #[arg(long, env = "KANTAI_XDS_CLIENT_CA_FILE")]
    xds_client_ca_file: Option<PathBuf>,
    /// Serve gateways in plain text. Any client that reaches the port then gets the keys of
    /// certificates. The default is mutual TLS, from the files above or with certificates that the
    /// daemon makes, renews and keeps in Secrets of its namespace: an authority
    /// (kantai-xds-authority), the server certificate (locality-ingress-xds) and the client
    /// certificate of the gateways (kantai-gateway-xds).
    #[arg(long, env = "KANTAI_XDS_PLAIN_TEXT")]
    xds_plain_text: bool,
    /// Address that serves /healthz, /readyz, /metrics, /v1/demand and /v1/explain.
    #[arg(long, env = "KANTAI_OPS_LISTEN", default_value = "[::]:8080")]
    ops_listen: SocketAddr,
    /// URL of the extra-controller's stream of routes.
    #[arg(long, env = "KANTAI_ROUTES_URL", default_value = "http://extra-controller.kantai-system.svc:18080/v1/routes")]
    routes_url: String,
    /// Reconnect when the stream of routes delivers nothing for this many seconds, heartbeats
    /// included.
    #[arg(long, env = "KANTAI_ROUTES_SILENCE_SECONDS", default_value_t = 15)]
    routes_silence_seconds: u64,
    /// Drop the routes when the stream has delivered nothing for this many seconds. Gateways then
    /// prefer their own node.
    #[arg(long, env = "KANTAI_ROUTES_EXPIRY_SECONDS", default_value_t = 300)]
    routes_expiry_seconds: u64,
    /// Ingress class to serve.
    #[arg(long, env = "KANTAI_INGRESS_CLASS", default_value = "kantai.ingress.networking.knative.dev")]
    ingress_class: String,
    /// How gateways choose endpoints: locality (by the routes, else the nearest) or spread (evenly
    /// over all).
    #[arg(long, env = "KANTAI_POLICY", default_value = "locality")]
    policy: Policy,
    /// Interval at which gateways with traffic report their load, in milliseconds. Gateways without
    /// traffic report at most four times a second. A request that an activator holds is reported
    /// at once.
    #[arg(long, env = "KANTAI_DEMAND_INTERVAL_MILLISECONDS", default_value_t = 50)]
    demand_interval_milliseconds: u64,
    /// Service of the gateways' external listeners.
    #[arg(long, env = "KANTAI_GATEWAY_SERVICE", default_value = "kantai-gateway")]
    gateway_service: String,
    /// Service of the gateways' internal listeners. Its ready endpoints are the live gateways.
    #[arg(long, env = "KANTAI_GATEWAY_INTERNAL_SERVICE", default_value = "kantai-gateway-internal")]
    gateway_internal_service: String,
    /// Service of this daemon. Its replicas follow each other's demand, so that spill counts the
    /// load of all gateways.
    #[arg(long, env = "KANTAI_OWN_SERVICE", default_value = "locality-ingress")]
    own_service: String,
    /// DNS suffix of the cluster. The default is the one in /etc/resolv.conf, as the kubelet writes
    /// it, or else cluster.local.
    #[arg(long, env = "KANTAI_CLUSTER_DOMAIN")]
    cluster_domain: Option<String>,
    /// Port of the gateways' external HTTP listener.
    #[arg(long, env = "KANTAI_EXTERNAL_PORT", default_value_t = GatewayPorts::default().external)]
    external_port: u16,
    /// Port of the gateways' internal HTTP listener.
    #[arg(long, env = "KANTAI_INTERNAL_PORT", default_value_t = GatewayPorts::default().internal)]
    internal_port: u16,
    /// Port of the gateways' external HTTPS listener.
    #[arg(long, env = "KANTAI_EXTERNAL_TLS_PORT", default_value_t = GatewayPorts::default().external_tls)]
    external_tls_port: u16,
    /// Port of the gateways' internal HTTPS listener.
    #[arg(long, env = "KANTAI_INTERNAL_TLS_PORT", default_value_t = GatewayPorts::default().internal_tls)]
    internal_tls_port: u16,
    /// Make gateways log each request as a line of JSON on standard output.
    #[arg(long, env = "KANTAI_ACCESS_LOG")]
    access_log: bool,
    /// Number of trusted proxies in front of the gateways' external ports, such as 1 for a load
    /// balancer that terminates TLS. Their X-Forwarded-For and X-Forwarded-Proto are used. A client
    /// that bypasses them can claim any address.
    #[arg(long, env = "KANTAI_TRUSTED_HOPS", default_value_t = 0)]
    trusted_hops: u32,
    /// Accept the PROXY protocol, version 1 or 2, on the gateways' external ports. Connections
    /// without its header are accepted too.
    #[arg(long, env = "KANTAI_PROXY_PROTOCOL")]
    proxy_protocol: bool,
    /// Maximum size of all headers of a request, in KiB. Requests above it are answered with 431.
    #[arg(long, env = "KANTAI_REQUEST_HEADERS_KIB", default_value_t = DEFAULT_REQUEST_HEADERS_KIB, value_parser = clap::value_parser!(u32).range(1..=8192))]
    request_headers_kib: u32,
    /// TLS Secret, as namespace/name, for external HTTPS clients whose SNI is missing or names a
    /// host without a certificate.
    #[arg(long, env = "KANTAI_FALLBACK_CERTIFICATE")]
    fallback_certificate: Option<ObjectName>,
    /// Secret, as namespace/name, with the authority (ca.crt) of the certificates of activators and
    /// queue-proxies under Knative's internal encryption (system-internal-tls).
    #[arg(long, env = "KANTAI_INTERNAL_AUTHORITY", default_value = "knative-serving/routing-serving-certs")]
    internal_authority: ObjectName,
    /// The Service, as namespace/name, of Knative's activators. Where a revision's containers take
    /// only so many requests at once, and the revision does not say by target-burst-capacity what
    /// is to become of more, its activators hold what would be too much for its pods.
    #[arg(long, env = "KANTAI_ACTIVATOR_SERVICE", default_value = "knative-serving/activator-service")]
    activator_service: ObjectName,
    /// Namespaces whose Secrets are read for certificates, separated by commas. The default is all
    /// namespaces. With this flag, Roles in these namespaces can replace the ClusterRole's rule for
    /// Secrets.
    #[arg(long, env = "KANTAI_SECRET_NAMESPACES", value_delimiter = ',')]
    secret_namespaces: Vec<String>,
    /// Namespace of this daemon and of the gateways.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kantai-system")]
    namespace: String,
    /// Name of the pod of this replica.
    #[arg(long, env = "POD_NAME", default_value = "locality-ingress")]
    pod_name: String,
    /// Format of log lines: json or text.
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
    let client = k8s_api::client::client(config).context("failed to make a client of the API server")?;
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
                anyhow::bail!("failed to set up TLS: certificate files and plain text exclude each other")
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
        activators: flags.activator_service,
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
