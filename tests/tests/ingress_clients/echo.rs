//! A backend of HTTP/1.1 and HTTP/2 on one port that answers with what it saw.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// It ends with this.
pub(crate) struct Echo(tokio::task::JoinHandle<()>);

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Echo {
    pub(crate) async fn start(name: &'static str, address: SocketAddr) -> anyhow::Result<Self> {
        Self::serve(name, address, None).await
    }

    /// The same over TLS.
    #[allow(dead_code)]
    pub(crate) async fn over_tls(name: &'static str, address: SocketAddr, config: rustls::ServerConfig) -> anyhow::Result<Self> {
        Self::serve(name, address, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(name: &'static str, address: SocketAddr, tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let tls = tls.clone();
                connections.spawn(async move {
                    let stream = match tls {
                        None => Either::Left(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Either::Right(stream),
                            Err(_) => return,
                        },
                    };
                    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // As a queue-proxy, which takes 1 MiB.
                    server.http1().max_buf_size(1024 * 1024);
                    server.http2().max_header_list_size(1024 * 1024);
                    let service = service_fn(move |request| answer(name, request));
                    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        })))
    }
}

async fn answer(name: &str, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let header = |key: &str| request.headers().get(key).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    if header("upgrade").as_deref() == Some("websocket") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            // What a web socket carries does not matter to anybody on its way: it is sent back as
            // it is.
            if let Ok(upgraded) = upgraded.await {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response.header("upgrade", "websocket").header("connection", "upgrade");
        return Ok(response.body(full("")).unwrap_or_default());
    }
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if header_of(&head.headers, "content-type") == Some("application/grpc") {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let response = Response::builder().header("content-type", "application/grpc");
        let response = response.header("saw-timeout", header_of(&head.headers, "grpc-timeout").unwrap_or("none"));
        if let Some(pause) = header_of(&head.headers, "x-pause-seconds").and_then(|text| text.parse().ok()) {
            // A stream that says something, is quiet for long, and then ends.
            let frames = futures::stream::once(std::future::ready(Ok(http_body::Frame::data(bytes.clone()))));
            let last = futures::stream::once(async move {
                tokio::time::sleep(std::time::Duration::from_secs(pause)).await;
                Ok(http_body::Frame::data(bytes))
            });
            let end = futures::stream::once(std::future::ready(Ok(http_body::Frame::trailers(trailers))));
            let body = StreamBody::new(futures::StreamExt::chain(futures::StreamExt::chain(frames, last), end));
            return Ok(response.body(body.boxed_unsync()).unwrap_or_default());
        }
        let body = Full::new(bytes).with_trailers(std::future::ready(Some(Ok(trailers))));
        return Ok(response.body(body.boxed_unsync()).unwrap_or_default());
    }
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(key, value)| (key.to_string(), String::from_utf8_lossy(value.as_bytes()).chars().take(200).collect()))
        .collect();
    let authority = head.uri.authority().map(ToString::to_string);
    let seen: Value = json!({
        "name": name, "version": format!("{:?}", head.version), "method": head.method.as_str(),
        "path": head.uri.path_and_query().map(ToString::to_string), "authority": authority,
        "headers": headers, "body_bytes": bytes.len(),
    });
    // Only what was asked for itself echoes: anything else would prove nothing.
    let mut response = Response::builder();
    if let Some(hash) = header_of(&head.headers, "k-network-hash") {
        response = response.header("k-network-hash", hash);
    }
    Ok(response.body(full(&seen.to_string())).unwrap_or_default())
}

fn header_of<'a>(headers: &'a HeaderMap, key: &str) -> Option<&'a str> {
    headers.get(key).and_then(|value| value.to_str().ok())
}

fn full(text: &str) -> Body {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed_unsync()
}
