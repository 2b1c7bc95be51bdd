//! Instant queries of Prometheus' HTTP API, over TLS where the address says so.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Deserializer};

use crate::LatencyError;

/// A query that takes longer is of no use to anyone.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read: five series of some 300 bytes for each pair of 200 nodes.
const ANSWER_MAX_BYTES: usize = 96 * 1024 * 1024;

type BoxError = Box<dyn Error + Send + Sync>;
type Http = Client<HttpsConnector<HttpConnector>, Empty<bytes::Bytes>>;

/// By what right a store is asked.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// PEM file of the authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// File of a bearer token, read for every query.
    pub token_file: Option<PathBuf>,
    /// Tenant, sent as `X-Scope-OrgID`.
    pub tenant: Option<String>,
}

/// A store's query API.
#[derive(Debug)]
pub(crate) struct PromqlClient {
    url: String,
    access: Access,
    /// Created again after a failure, so that new authorities are loaded.
    http: Mutex<Option<Http>>,
}

/// The newest sample of one series.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Series {
    /// Its labels.
    pub(crate) metric: HashMap<String, String>,
    /// When the query was evaluated, in seconds since the epoch, and the value.
    #[serde(deserialize_with = "sample")]
    pub(crate) value: (f64, f64),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Series>),
}

fn sample<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(f64, f64), D::Error> {
    let (at, value) = <(f64, String)>::deserialize(deserializer)?;
    // `NaN`, `+Inf` and `-Inf` are what Rust reads, too.
    Ok((at, value.parse().map_err(serde::de::Error::custom)?))
}

impl PromqlClient {
    /// The store at `url`, which may have a path before `/api/v1`.
    ///
    /// # Errors
    /// [`LatencyError::Address`] where `url` is none.
    pub(crate) fn new(url: &str, access: Access) -> Result<Self, LatencyError> {
        let url = url.trim_end_matches('/').to_owned();
        match format!("{url}/").parse::<Uri>() {
            Ok(_) => Ok(Self { url, access, http: Mutex::default() }),
            Err(source) => Err(LatencyError::Address { url, source }),
        }
    }

    /// Its address.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The series that `query` names or makes, as they stand now.
    ///
    /// # Errors
    /// [`LatencyError`] where it does not answer within 5 s, or not with series.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<Series>, LatencyError> {
        let answer = tokio::time::timeout(QUERY_TIMEOUT, self.ask(query)).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(elapsed.into()));
        answer.map_err(|source| {
            *self.http.lock().unwrap_or_else(PoisonError::into_inner) = None;
            LatencyError::Query { url: self.url.clone(), query: query.to_owned(), source }
        })
    }

    async fn ask(&self, query: &str) -> Result<Vec<Series>, BoxError> {
        let response = self.http()?.request(self.request(query)?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await?.to_bytes();
        series(&body).map_err(|error| if status.is_success() { error } else { format!("{status}: {error}").into() })
    }

    fn request(&self, query: &str) -> Result<Request<Empty<bytes::Bytes>>, BoxError> {
        let parameters = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .append_pair("timeout", &format!("{}s", QUERY_TIMEOUT.as_secs()))
            // VictoriaMetrics answers as of 30 s ago without it; Prometheus ignores it.
            .append_pair("nocache", "1")
            .finish();
        let mut request = Request::get(format!("{}/api/v1/query?{parameters}", self.url));
        if let Some(path) = &self.access.token_file {
            let token = fs::read_to_string(path).map_err(|source| file("a bearer token", path, source))?;
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(tenant) = &self.access.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        Ok(request.body(Empty::new())?)
    }

    fn http(&self) -> Result<Http, BoxError> {
        let mut held = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(http) = &*held {
            return Ok(http.clone());
        }
        let https = HttpsConnectorBuilder::new().with_tls_config(self.tls()?).https_or_http().enable_http1().build();
        let http = Client::builder(TokioExecutor::new()).build(https);
        Ok(held.insert(http).clone())
    }

    fn tls(&self) -> Result<ClientConfig, BoxError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.access.ca_file {
            let listed = CertificateDer::pem_file_iter(path).map_err(|source| file("certificates", path, source))?;
            for certificate in listed {
                roots.add(certificate.map_err(|source| file("certificates", path, source))?)?;
            }
        } else if self.url.starts_with("https:") {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

fn file(what: &'static str, path: &Path, source: impl Into<BoxError>) -> LatencyError {
    LatencyError::File { what, path: path.to_owned(), source: source.into() }
}

fn series(body: &[u8]) -> Result<Vec<Series>, BoxError> {
    let answer: Answer = serde_json::from_slice(body)?;
    match answer {
        Answer { error: Some(error), .. } => Err(error.into()),
        Answer { data: Some(Data::Vector(series)), .. } => Ok(series),
        Answer { .. } => Err("the answer holds no series".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::extract::State;
    use axum::http::Request as Received;

    use super::*;

    #[test]
    fn series_are_read_and_errors_are_told() {
        let one = br#"{"status":"success","isPartial":false,"data":{"resultType":"vector","result":[
            {"metric":{"__name__":"m","from":"a"},"value":[1700000000.5,"0.25"]},{"metric":{},"value":[1700000000,"NaN"]}]}}"#;
        let read = series(one).unwrap();
        assert_eq!((read.len(), read[0].metric["from"].as_str(), read[0].value), (2, "a", (1_700_000_000.5, 0.25)));
        assert!(read[1].value.1.is_nan());
        let told = |body: &str| series(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(told(r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#), "parse error");
        assert!(told(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#).contains("matrix"));
        assert_eq!(told(r#"{"status":"success"}"#), "the answer holds no series");
        assert!(series(b"<html>").is_err());
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        assert!(matches!(PromqlClient::new("http://a b", Access::default()), Err(LatencyError::Address { .. })));
        assert_eq!(PromqlClient::new("http://a:9090/prom/", Access::default()).unwrap().url(), "http://a:9090/prom");
    }

    /// Answers with what it was asked, and by what right.
    async fn echo(State(()): State<()>, request: Received<axum::body::Body>) -> String {
        let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let asked = format!("{} {} {}", request.uri(), header("authorization"), header("x-scope-orgid"));
        let metric = HashMap::from([("asked", asked)]);
        serde_json::json!({"data": {"resultType": "vector", "result": [{"metric": metric, "value": [1, "2"]}]}}).to_string()
    }

    #[tokio::test]
    async fn a_query_carries_the_token_of_the_moment_the_tenant_and_nocache() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/select/0/prometheus/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(echo).with_state(())).await });
        let mut token = tempfile::NamedTempFile::new().unwrap();
        let access = Access { token_file: Some(token.path().to_owned()), tenant: Some("edge".into()), ca_file: None };
        let client = PromqlClient::new(&url, access).unwrap();
        writeln!(token, "secret").unwrap();
        let asked = client.query("m{a=\"b\"}").await.unwrap().remove(0).metric.remove("asked").unwrap();
        assert_eq!(asked, "/select/0/prometheus/api/v1/query?query=m%7Ba%3D%22b%22%7D&timeout=5s&nocache=1 Bearer secret edge");
        fs::write(token.path(), "another").unwrap();
        let asked = client.query("m").await.unwrap().remove(0).metric.remove("asked").unwrap();
        assert!(asked.contains("Bearer another"), "{asked}");
        fs::remove_file(token.path()).unwrap();
        let error = client.query("m").await.unwrap_err();
        assert!(
            matches!(&error, LatencyError::Query { source, .. } if source.to_string().starts_with("failed to read a bearer token"))
        );
    }

    #[tokio::test]
    async fn over_tls_the_authorities_of_the_file_are_trusted_and_new_ones_are_taken_in() {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(socket).await else { continue };
                let service = hyper_util::service::TowerToHyperService::new(axum::Router::new().fallback(echo).with_state(()));
                let stream = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
            }
        });
        let authorities = tempfile::NamedTempFile::new().unwrap();
        fs::write(authorities.path(), other.cert.pem()).unwrap();
        let access = Access { ca_file: Some(authorities.path().to_owned()), ..Access::default() };
        let client = PromqlClient::new(&url, access).unwrap();
        assert!(client.query("m").await.is_err());
        fs::write(authorities.path(), own.cert.pem()).unwrap();
        assert_eq!(client.query("m").await.unwrap().len(), 1);
    }
}
