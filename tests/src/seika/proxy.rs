//! A way to the API server for processes: plain HTTP on loopback, passed on by a client that may be
//! an unreliable one. What a process has asked for is passed on even if it is killed meanwhile, as
//! on a network.

use std::net::{Ipv4Addr, SocketAddr};

use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tower::BoxError;

/// Passes on as long as it is kept.
pub struct Proxy {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Proxy {
    /// Begins to pass on what it is asked with the rights of `client`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(client: Client) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let client = client.clone();
                let answer = service_fn(move |request| pass_on(client.clone(), request));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, accepting: accepting.abort_handle() })
    }

    /// The kubeconfig for clients of it.
    #[must_use]
    pub fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{ "name": "proxy", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "proxy", "user": {} }],
            "contexts": [{ "name": "proxy", "context": { "cluster": "proxy", "user": "proxy" } }],
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Without an answer, the connection is closed without one.
async fn pass_on(client: Client, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(header::HOST);
    let request = Request::from_parts(parts, Body::from(body.collect().await?.to_bytes()));
    Ok(tokio::spawn(async move { client.send(request).await }).await??)
}
