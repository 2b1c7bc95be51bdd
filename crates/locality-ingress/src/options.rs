//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lease_election::PodOptions;
use ops_http::{OpsOptions, duration};

use crate::endpoints::locality::LocalityPolicy;
use crate::endpoints::plan_stream::FollowSettings;
use crate::kubernetes::objects::ObjectName;
use crate::tls::files::{TlsError, TlsFiles};
use crate::xds::listeners::ListenerSettings;

/// Knative ingress class on stock Envoy. Each node has a gateway with its own routing weights, so
/// that a request is answered near where it entered.
#[derive(Clone, Debug, clap::Parser)]
#[command(version)]
pub struct Options {
    /// Address that gateways connect to (delta ADS over HTTP/2).
    #[arg(long, env = "KANTAI_XDS_LISTEN", default_value = "[::]:18000")]
    pub xds_listen: SocketAddr,
    /// The transport security of gateways' connections.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Where operators look.
    #[command(flatten)]
    pub ops: OpsOptions,
    /// The stream of routes.
    #[command(flatten)]
    pub routes: FollowSettings,
    /// Ingress class to serve.
    #[arg(long, env = "KANTAI_INGRESS_CLASS", default_value = k8s_api::kingress::CLASS)]
    pub ingress_class: String,
    /// How gateways choose endpoints: locality (by the routes, else the nearest) or spread (evenly
    /// over all).
    #[arg(long, env = "KANTAI_POLICY", default_value = "locality")]
    pub policy: LocalityPolicy,
    /// Interval at which gateways with traffic report their load. Gateways without traffic report
    /// at most four times a second. A request that an activator holds is reported at once.
    #[arg(long, env = "KANTAI_DEMAND_INTERVAL", default_value = "50ms", value_parser = duration)]
    pub demand_interval: Duration,
    /// Service of the gateways' external listeners.
    #[arg(long, env = "KANTAI_GATEWAY_SERVICE", default_value = "kantai-gateway")]
    pub gateway_service: String,
    /// Service of the gateways' internal listeners. Its ready endpoints are the live gateways.
    #[arg(long, env = "KANTAI_GATEWAY_INTERNAL_SERVICE", default_value = "kantai-gateway-internal")]
    pub gateway_internal_service: String,
    /// Service of this daemon. Its replicas follow each other's demand, so that spill counts the
    /// load of all gateways.
    #[arg(long, env = "KANTAI_OWN_SERVICE", default_value = "locality-ingress")]
    pub own_service: String,
    /// DNS suffix of the cluster. The default is the one in /etc/resolv.conf, as the kubelet writes
    /// it, or else cluster.local.
    #[arg(long, env = "KANTAI_CLUSTER_DOMAIN")]
    pub cluster_domain: Option<String>,
    /// The gateways' listeners.
    #[command(flatten)]
    pub listening: ListenerSettings,
    /// TLS Secret, as namespace/name, for external HTTPS clients whose SNI is missing or names a
    /// host without a certificate.
    #[arg(long, env = "KANTAI_FALLBACK_CERTIFICATE")]
    pub fallback_certificate: Option<ObjectName>,
    /// Secret, as namespace/name, with the authority (ca.crt) of the certificates of activators and
    /// queue-proxies under Knative's internal encryption (system-internal-tls).
    #[arg(long, env = "KANTAI_INTERNAL_AUTHORITY", default_value = "knative-serving/routing-serving-certs")]
    pub internal_authority: ObjectName,
    /// Service, as namespace/name, of Knative's activators. They hold what would be too much for
    /// the pods of a revision that limits its containerConcurrency and sets no
    /// target-burst-capacity.
    #[arg(long, env = "KANTAI_ACTIVATOR_SERVICE", default_value = "knative-serving/activator-service")]
    pub activator_service: ObjectName,
    /// Namespaces whose Secrets are read for certificates, separated by commas. The default is all
    /// namespaces. With this flag, Roles in these namespaces can replace the ClusterRole's rule for
    /// Secrets.
    #[arg(long, env = "KANTAI_SECRET_NAMESPACES", value_delimiter = ',')]
    pub secret_namespaces: Vec<String>,
    /// Which pod this is.
    #[command(flatten)]
    pub pod: PodOptions,
}

/// The transport security of gateways' connections.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TlsOptions {
    /// Server certificate for gateways, in PEM. Without it the daemon makes one. The file is read
    /// again when it changes.
    #[arg(long, env = "KANTAI_XDS_CERTIFICATE_FILE")]
    pub xds_certificate_file: Option<PathBuf>,
    /// Key of the server certificate, in PEM.
    #[arg(long, env = "KANTAI_XDS_KEY_FILE")]
    pub xds_key_file: Option<PathBuf>,
    /// Authorities that sign the gateways' client certificates, in PEM. With
    /// --xds-certificate-file and without this flag, any client is served.
    #[arg(long, env = "KANTAI_XDS_CLIENT_CA_FILE")]
    pub xds_client_ca_file: Option<PathBuf>,
    /// Serve gateways in plain text. Any client that reaches the port then gets the keys of
    /// certificates. The default is mutual TLS, from the files above or with certificates that the
    /// daemon makes, renews and keeps in Secrets of its namespace: an authority
    /// (kantai-xds-authority), the server certificate (locality-ingress-xds) and the client
    /// certificate of the gateways (kantai-gateway-xds).
    #[arg(long, env = "KANTAI_XDS_PLAIN_TEXT")]
    pub xds_plain_text: bool,
}

/// What these options come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum XdsTls {
    /// Plain text.
    Off,
    /// TLS with certificates from files.
    Files(TlsFiles),
    /// TLS with certificates made by this daemon, kept in Secrets of its namespace.
    SelfMade,
}

impl TlsOptions {
    /// # Errors
    /// Where the options contradict each other: TLS must not be off because one file is missing.
    pub(crate) fn chosen(self) -> Result<XdsTls, TlsError> {
        match TlsFiles::given(self.xds_certificate_file, self.xds_key_file, self.xds_client_ca_file)? {
            Some(_) if self.xds_plain_text => Err(TlsError::Contradiction),
            Some(files) => Ok(XdsTls::Files(files)),
            None if self.xds_plain_text => Ok(XdsTls::Off),
            None => Ok(XdsTls::SelfMade),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn parse(flags: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["locality-ingress"].iter().chain(flags))
    }

    #[test]
    fn defaults_work_and_nonsense_is_refused() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.listening, ListenerSettings::default());
        assert_eq!(options.demand_interval, Duration::from_millis(50));
        assert_eq!((options.routes.silence_limit, options.routes.expiry), (Duration::from_secs(15), Duration::from_secs(300)));
        assert_eq!(options.tls.chosen().unwrap(), XdsTls::SelfMade);
        for nonsense in [["--demand-interval", "0s"], ["--policy", "fastest"], ["--request-headers-kib", "0"]] {
            assert!(parse(&nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn plain_text_excludes_certificates() {
        let files = ["--xds-certificate-file", "a", "--xds-key-file", "b"];
        assert!(matches!(parse(&files).unwrap().tls.chosen(), Ok(XdsTls::Files(_))));
        assert_eq!(parse(&["--xds-plain-text"]).unwrap().tls.chosen().unwrap(), XdsTls::Off);
        let both = parse(&[&files[..], &["--xds-plain-text"]].concat()).unwrap();
        assert!(matches!(both.tls.chosen(), Err(TlsError::Contradiction)));
    }
}
