//! One request over HTTP/1.1, with the system's name resolution.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{LoadError, Outcome, TargetArgs, in_range, served_by, unix_seconds};

/// The most of an answer that is read.
const LONGEST_ANSWER: usize = 1 << 20;

/// Whether connections are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connections {
    /// A connection that has its answer takes the next request.
    KeepAlive,
    /// Every request resolves the name and opens a new connection.
    New,
}

/// What to ask for: an `http://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err("only http:// can be asked".to_owned());
        }
        let authority = uri.authority().ok_or("names no host")?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

type Sender = SendRequest<Empty<Bytes>>;

pub(super) struct Client {
    target: Target,
    from_node: String,
    timeout: Duration,
    connections: Connections,
    idle: Mutex<Vec<Sender>>,
    /// As many as there may be requests at a time.
    permits: Semaphore,
}

struct Answer {
    status: u16,
    text: String,
}

impl Client {
    pub(super) fn new(args: &TargetArgs, connections: Connections) -> Result<Self, LoadError> {
        let timeout = in_range("--timeout-seconds", args.timeout_seconds, 3_600.0)?;
        Ok(Self {
            target: args.url.clone(),
            from_node: args.from_node.clone(),
            timeout: Duration::from_secs_f64(timeout),
            connections,
            idle: Mutex::default(),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// Opens this many connections, and sends at most as many requests at a time from now on.
    pub(super) async fn open(&mut self, size: usize) -> Result<(), LoadError> {
        in_range("--pool", size as f64, 1_000.0)?;
        let opened = futures::future::try_join_all((0..size).map(|_| self.connect())).await.map_err(LoadError::Pool)?;
        self.idle = Mutex::new(opened);
        self.permits = Semaphore::new(size);
        Ok(())
    }

    /// Sends a request that was meant to be sent at `intended`, which is not in the future.
    pub(super) async fn send(&self, intended: Instant) -> Outcome {
        let late_seconds = intended.elapsed().as_secs_f64();
        let at_unix_seconds = unix_seconds() - late_seconds;
        let result = match tokio::time::timeout_at(intended + self.timeout, self.exchange()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", self.timeout.as_secs_f64())),
        };
        let seconds = intended.elapsed().as_secs_f64();
        let (status, text, error) = match result {
            Ok(answer) => (Some(answer.status), answer.text, None),
            Err(error) => (None, String::new(), Some(error)),
        };
        let served = served_by(&text);
        // An answer without success says why in its text.
        let error = error.or_else(|| status.filter(|status| *status >= 300).map(|_| text.chars().take(200).collect()));
        Outcome {
            from_node: self.from_node.clone(),
            status,
            served_by_node: served.map(|(_, node)| node.to_owned()),
            served_by_pod: served.map(|(pod, _)| pod.to_owned()),
            seconds,
            at_unix_seconds,
            error,
            late_seconds,
        }
    }

    async fn exchange(&self) -> Result<Answer, String> {
        let _permit = self.permits.acquire().await.map_err(|error| error.to_string())?;
        while let Some(mut sender) = self.take_idle() {
            match self.ask(&mut sender).await {
                // The other side had closed the idle connection and nothing was sent: as every HTTP
                // client does, take another.
                Err(error) if error.is_canceled() => {}
                Err(error) => return Err(describe(&error)),
                Ok(answer) => return self.finish(sender, answer),
            }
        }
        let mut sender = self.connect().await?;
        let answer = self.ask(&mut sender).await.map_err(|error| describe(&error))?;
        self.finish(sender, answer)
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(Sender::is_ready)
    }

    fn finish(&self, sender: Sender, answer: Result<Answer, String>) -> Result<Answer, String> {
        if self.connections == Connections::KeepAlive && answer.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
        answer
    }

    async fn connect(&self) -> Result<Sender, String> {
        let Target { host, port, .. } = &self.target;
        let stream = TcpStream::connect((host.as_str(), *port))
            .await
            .map_err(|error| format!("failed to connect to {host}:{port}: {error}"))?;
        // A small request must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| describe(&error))?;
        // What goes wrong with the connection is seen by the request on it.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Outer error: no answer began. Inner error: it began and broke off.
    async fn ask(&self, sender: &mut Sender) -> Result<Result<Answer, String>, hyper::Error> {
        sender.ready().await?;
        let mut request = Request::new(Empty::new());
        // Both were read from a URL that parsed.
        *request.uri_mut() = self.target.path.parse().unwrap_or_default();
        if let Ok(host) = self.target.authority.parse() {
            request.headers_mut().insert(header::HOST, host);
        }
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        Ok(match body {
            Ok(body) => Ok(Answer { status, text: String::from_utf8_lossy(&body.to_bytes()).into_owned() }),
            Err(error) => Err(format!("the answer broke off: {error}")),
        })
    }
}

fn describe(error: &hyper::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target: Target = "http://greeter.shop.svc.cluster.local/?wait_ms=5".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port), ("greeter.shop.svc.cluster.local", 80));
        assert_eq!(target.path, "/?wait_ms=5");
        let target: Target = "http://10.1.2.3:8080".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("10.1.2.3", 8080, "/"));
        assert_eq!(target.authority, "10.1.2.3:8080");
        assert!("https://x/".parse::<Target>().is_err());
        assert!("nonsense".parse::<Target>().is_err());
    }
}
