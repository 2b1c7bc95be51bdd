//! The HTTP side of the verbs.
//!
//! kube-scheduler keeps one connection, sends one request at a time, and keeps the connection idle
//! for up to 90 s. Any answer but 200 is an error to it, and a redirect is followed without a body.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::report::Reporter;
use crate::verbs::{Answer, Outcome, Verb, Verbs};

/// The longest request that is read: a pod, and 20,000 names of 253 bytes.
const REQUEST_MAX_BYTES: usize = 8 * 1024 * 1024;
/// A request is of no use to anyone after that.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may be idle: longer than the scheduler keeps one.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Connections at a time. A scheduler has one.
const MOST_CONNECTIONS: u32 = 64;
/// How long requests in flight may take when the program stops.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// What answers requests.
pub(crate) struct Server {
    pub(crate) verbs: Arc<Verbs>,
    pub(crate) reporter: Reporter,
}

impl Server {
    /// Serves until `stop` is cancelled, then lets requests in flight finish.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS as usize));
        loop {
            let socket = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => socket,
                    Err(error) => {
                        // Too many open files and the like: it passes.
                        tracing::warn!(%error, "failed to accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                tracing::warn!(most = MOST_CONNECTIONS, "a connection was closed: there are too many");
                continue;
            };
            drop(socket.set_nodelay(true));
            let (server, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                server.connection(socket, stop).await;
                drop(permit);
            });
        }
        // Every connection has given back its permit then.
        drop(tokio::time::timeout(LAST_REQUESTS, room.acquire_many(MOST_CONNECTIONS)).await);
    }

    async fn connection(self: Arc<Self>, socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, stop: CancellationToken) {
        let service = service_fn(move |request: Request<Incoming>| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.request(request).await) }
        });
        let mut http = http1::Builder::new();
        // Counted from the end of the last request.
        http.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(socket), service));
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended");
        }
    }

    async fn request(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // The prefix is the scheduler's own business.
        let verb = request.uri().path().rsplit('/').next().and_then(Verb::named);
        let Some(verb) = verb else { return text(StatusCode::NOT_FOUND, "no verb: prioritize, filter or preempt\n") };
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "POST only\n");
        }
        let body = match tokio::time::timeout(REQUEST_WITHIN, read(request.into_body())).await {
            Ok(Ok(body)) => body,
            Ok(Err(Unread::TooLong)) => {
                self.reporter.fault(self.verbs.was_too_long());
                return self.refuse(verb, StatusCode::PAYLOAD_TOO_LARGE, "the request is too long: set nodeCacheCapable: true\n");
            }
            Ok(Err(Unread::Broken)) => return self.refuse(verb, StatusCode::BAD_REQUEST, "the request broke off\n"),
            Err(_) => return self.refuse(verb, StatusCode::REQUEST_TIMEOUT, "the request came too slowly\n"),
        };
        let begun = Instant::now();
        match self.verbs.answer(verb, &body) {
            Ok(answer) => {
                self.reporter.answered(verb, answer.outcome, begun.elapsed());
                self.report(answer, body)
            }
            Err(error) => self.refuse(verb, StatusCode::BAD_REQUEST, &format!("the request cannot be read: {error}\n")),
        }
    }

    fn report(&self, answer: Answer, asked: Bytes) -> Response<Full<Bytes>> {
        self.reporter.fault(answer.fault);
        if let Some(news) = answer.news {
            self.reporter.news(&news);
        }
        if answer.needs_a_look {
            let (verbs, reporter) = (self.verbs.clone(), self.reporter.clone());
            tokio::spawn(async move { reporter.fault(verbs.look(&asked)) });
        }
        let mut response = Response::new(Full::new(answer.body));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }

    fn refuse(&self, verb: Verb, status: StatusCode, why: &str) -> Response<Full<Bytes>> {
        self.reporter.answered(verb, Outcome::Unreadable, Duration::ZERO);
        text(status, why)
    }
}

/// Why a request was not read.
enum Unread {
    TooLong,
    Broken,
}

async fn read(body: Incoming) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > REQUEST_MAX_BYTES as u64 {
        return Err(Unread::TooLong);
    }
    let is_too_long = |error: &(dyn std::error::Error + Send + Sync + 'static)| error.is::<LengthLimitError>();
    match Limited::new(body, REQUEST_MAX_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(if is_too_long(&*error) { Unread::TooLong } else { Unread::Broken }),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::metrics::Metrics;

    fn connect() -> (DuplexStream, CancellationToken) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let stop = CancellationToken::new();
        let reporter = Reporter::new(None, Metrics::register(&mut Registry::default()));
        let server = Arc::new(Server { verbs: Arc::new(Verbs::new(false, 0.005)), reporter });
        tokio::spawn(server.connection(theirs, stop.clone()));
        (ours, stop)
    }

    async fn ask(stream: &mut DuplexStream, head: &str, body: &str) -> String {
        let request = format!("{head} HTTP/1.1\r\nHost: extender\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 1 << 16];
        let count = stream.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    const PLAIN: &str = r#"{"Pod":{"metadata":{"name":"p"}},"Nodes":null,"NodeNames":["n1","n2"]}"#;

    #[tokio::test(start_paused = true)]
    async fn a_connection_outlives_the_schedulers_idle_time_and_not_for_ever() {
        let (mut stream, _stop) = connect();
        assert!(ask(&mut stream, "POST /prioritize", PLAIN).await.ends_with("\r\n\r\n[]"));
        tokio::time::sleep(Duration::from_secs(105)).await;
        assert!(ask(&mut stream, "POST /any/prefix//prioritize", PLAIN).await.ends_with("\r\n\r\n[]"));
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap_or(0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_request_of_a_scheduler_is_refused_and_the_next_one_answered() {
        let (mut stream, _stop) = connect();
        for (head, body, status) in [
            ("POST /bind", PLAIN, "404"),
            ("GET /prioritize", "", "405"),
            ("POST /prioritize", "<html>", "400"),
            ("POST /filter", PLAIN, "200"),
            ("POST /prioritize", PLAIN, "200"),
        ] {
            let answer = ask(&mut stream, head, body).await;
            assert_eq!(answer.split(' ').nth(1), Some(status), "{head}: {answer}");
        }
        let long = format!("POST /prioritize HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", REQUEST_MAX_BYTES + 1);
        stream.write_all(long.as_bytes()).await.unwrap();
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(String::from_utf8_lossy(&buffer[..count]).starts_with("HTTP/1.1 413"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_too_slowly_is_given_up() {
        let (mut stream, _stop) = connect();
        stream.write_all(b"POST /prioritize HTTP/1.1\r\nHost: x\r\nContent-Length: 70\r\n\r\n{\"Pod\"").await.unwrap();
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(String::from_utf8_lossy(&buffer[..count]).starts_with("HTTP/1.1 408"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_idle_connections() {
        let (mut stream, stop) = connect();
        assert!(ask(&mut stream, "POST /prioritize", PLAIN).await.contains(" 200 "));
        stop.cancel();
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap_or(0), 0);
    }
}
