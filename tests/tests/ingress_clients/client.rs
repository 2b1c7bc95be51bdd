//! Clients, each in its own way of speaking.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Http10,
    Http11,
    Http2,
}

/// How it connects.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) to: SocketAddr,
    /// Over TLS: what it trusts, and the host that it names, if any.
    pub(crate) tls: Option<(rustls::pki_types::CertificateDer<'static>, Option<&'static str>)>,
    /// What it sends before all else.
    pub(crate) first: Vec<u8>,
}

/// What it asks.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) host: String,
    pub(crate) path: &'static str,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn get(host: &str) -> Ask {
    Ask { method: "GET", host: host.to_owned(), path: "/", headers: Vec::new(), body: Vec::new() }
}

impl Ask {
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// What it is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().chain(&self.trailers).find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What the backend says that it saw.
    pub(crate) fn seen(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// A header as the backend saw it.
    pub(crate) fn seen_header(&self, name: &str) -> anyhow::Result<Option<String>> {
        let seen = self.seen()?;
        let headers = seen["headers"].as_array().context("no headers")?;
        let found = headers.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str());
        Ok(found.map(ToOwned::to_owned))
    }
}

pub(crate) async fn connect(way: &Way, http2: bool) -> anyhow::Result<Box<dyn Wire>> {
    let mut stream = TcpStream::connect(way.to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&way.first).await?;
    let Some((certificate, host)) = &way.tls else { return Ok(Box::new(stream)) };
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    config.enable_sni = host.is_some();
    let name = ServerName::try_from(host.unwrap_or("fallback.example"))?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

pub(crate) async fn ask(way: &Way, manner: Manner, ask: &Ask) -> anyhow::Result<Answer> {
    let asked = async {
        let stream = connect(way, manner == Manner::Http2).await?;
        match manner {
            Manner::Http2 => over_http2(stream, way.tls.is_some(), ask).await,
            Manner::Http10 => over_http1(stream, "HTTP/1.0", ask).await,
            Manner::Http11 => over_http1(stream, "HTTP/1.1", ask).await,
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.context("no answer within 60 s")?
}

/// A request as text, for those that no library would send.
pub(crate) fn text(version: &str, ask: &Ask) -> Vec<u8> {
    let mut text = format!("{} {} {version}\r\nHost: {}\r\n", ask.method, ask.path, ask.host);
    for (name, value) in &ask.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !ask.body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", ask.body.len()));
    }
    if !ask.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
        text.push_str("Connection: close\r\n");
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend(&ask.body);
    bytes
}

async fn over_http1(mut stream: Box<dyn Wire>, version: &str, ask: &Ask) -> anyhow::Result<Answer> {
    stream.write_all(&text(version, ask)).await?;
    read_answer(&mut stream).await
}

/// One answer of HTTP/1, until its body's end.
pub(crate) async fn read_answer(stream: &mut (impl Wire + ?Sized)) -> anyhow::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.with_context(|| format!("after {:?}", String::from_utf8_lossy(&head)))?);
    }
    let head = String::from_utf8(head)?;
    let mut lines = head.lines();
    let status: u16 = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse::<usize>()).transpose()?;
    let mut body = Vec::new();
    match length {
        _ if (100..200).contains(&status) => {}
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body).await?;
        }
        None => {
            // Without a length, and closed at the end. A TLS client is not always told of it.
            let _ = stream.read_to_end(&mut body).await;
        }
    }
    Ok(Answer { status, headers, body, trailers: Vec::new() })
}

async fn over_http2(stream: Box<dyn Wire>, tls: bool, ask: &Ask) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(1024 * 1024)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await?;
    let connection = tokio::spawn(connection);
    let scheme = if tls { "https" } else { "http" };
    let mut request = http::Request::builder().method(ask.method).uri(format!("{scheme}://{}{}", ask.host, ask.path));
    for (name, value) in &ask.headers {
        request = request.header(name.to_ascii_lowercase(), value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(ask.body.clone())))?).await?;
    let pairs = |headers: &http::HeaderMap| -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
    };
    let (status, headers) = (response.status().as_u16(), pairs(response.headers()));
    let collected = response.into_body().collect().await?;
    let trailers = collected.trailers().map(pairs).unwrap_or_default();
    let body = collected.to_bytes().to_vec();
    connection.abort();
    Ok(Answer { status, headers, body, trailers })
}
