//! An unreliable way to the API server: answers that come late, say no, get lost or break off, and
//! watches that lag, break, or fall silent.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, future};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::{Body, ClientBuilder, DynBody};
use kube::{Client, Config};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

/// How bad it is. Ratios are between 0 and 1; times are the longest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Requests that are refused without reaching the API server.
    pub refused: f64,
    /// Requests whose answer is lost: what was asked has been done.
    pub answer_lost: f64,
    /// Answers that break off at some byte.
    pub answer_cut: f64,
    /// How much later a request is sent, and again its answer comes.
    pub delay: Duration,
    /// Watches that are refused as too old.
    pub watch_expired: f64,
    /// How much later each part of a watch comes.
    pub watch_lag: Duration,
    /// Watches that break off after some thousand bytes, at any of them.
    pub watch_cut: f64,
    /// Watches that deliver nothing more after some of their parts, and do not end either.
    pub watch_stall: f64,
}

impl Weather {
    /// Some of each fault, or none of it; no watch is stalled. Noticing that takes half a minute,
    /// so it is a disturbance, and has a test, of its own.
    pub fn any(chance: &mut StdRng) -> Self {
        let mut sometimes = |most: f64| if chance.random_bool(0.4) { chance.random_range(0.0..most) } else { 0.0 };
        Self {
            refused: sometimes(0.5),
            answer_lost: sometimes(0.5),
            answer_cut: sometimes(0.3),
            delay: Duration::from_secs_f64(sometimes(0.03)),
            watch_expired: sometimes(0.5),
            watch_lag: Duration::from_secs_f64(sometimes(0.2)),
            watch_cut: sometimes(0.8),
            watch_stall: 0.0,
        }
    }
}

/// The faults of all clients made with it.
#[derive(Clone)]
pub struct Faults {
    chance: Arc<Mutex<StdRng>>,
    weather: watch::Sender<Weather>,
    watches: watch::Sender<u64>,
    stalls: watch::Sender<u64>,
}

impl Faults {
    /// Good weather at first; the faults to come depend on `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            chance: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            weather: watch::Sender::new(Weather::default()),
            watches: watch::Sender::new(0),
            stalls: watch::Sender::new(0),
        }
    }

    /// Every watch that is open now delivers nothing more, and does not end. Those that begin later
    /// work.
    pub fn stall_watches(&self) {
        self.stalls.send_modify(|stalls| *stalls += 1);
    }

    /// A client that has to live with them.
    pub fn client(&self, config: Config) -> Result<Client, kube::Error> {
        Ok(ClientBuilder::try_from(config)?.with_layer(self).build())
    }

    /// The weather turns.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Ends every watch that is open.
    pub fn cut_watches(&self) {
        self.watches.send_modify(|cuts| *cuts += 1);
    }

    fn happens(&self, ratio: f64) -> bool {
        self.chance.lock().unwrap().random_bool(ratio)
    }

    fn up_to(&self, most: Duration) -> Duration {
        if most.is_zero() { most } else { self.chance.lock().unwrap().random_range(Duration::ZERO..most) }
    }

    fn bytes_up_to(&self, most: usize) -> usize {
        self.chance.lock().unwrap().random_range(0..most)
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Faulty { inner, faults: self.clone() }
    }
}

/// A client's way to the API server, with faults.
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Box<DynBody>>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let faults = self.faults.clone();
        let weather = *faults.weather.borrow();
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if is_watch {
            if faults.happens(weather.watch_expired) {
                return Box::pin(future::ready(Ok(refusal(410, "Expired"))));
            }
            let cut_after = if faults.happens(weather.watch_cut) { faults.bytes_up_to(20_000) } else { usize::MAX };
            let stall_after = if faults.happens(weather.watch_stall) { faults.bytes_up_to(20) } else { usize::MAX };
            let answer = self.inner.call(request);
            return Box::pin(async move { Ok(answer.await?.map(|body| watch_body(body, faults, cut_after, stall_after))) });
        }
        if faults.happens(weather.refused) {
            let all = [
                (409, "Conflict"),
                (429, "TooManyRequests"),
                (500, "InternalError"),
                (503, "ServiceUnavailable"),
                (403, "Forbidden"),
            ];
            let (code, reason) = all[faults.bytes_up_to(all.len())];
            return Box::pin(future::ready(Ok(refusal(code, reason))));
        }
        let lost = faults.happens(weather.answer_lost);
        let cut_after = if faults.happens(weather.answer_cut) { faults.bytes_up_to(500) } else { usize::MAX };
        let (before, after) = (faults.up_to(weather.delay), faults.up_to(weather.delay));
        let answer = self.inner.call(request);
        Box::pin(async move {
            tokio::time::sleep(before).await;
            let answer = answer.await?;
            tokio::time::sleep(after).await;
            if lost {
                return Err(reset().into());
            }
            Ok(answer.map(|body| body_of(cut(chunks(body), cut_after))))
        })
    }
}

fn watch_body(body: Box<DynBody>, faults: Faults, cut_after: usize, stall_after: usize) -> Box<DynBody> {
    let mut cuts = faults.watches.subscribe();
    cuts.mark_unchanged();
    let lagging = stalling(chunks(body), faults.stalls.subscribe(), stall_after).then(move |chunk| {
        let lag = faults.up_to(faults.weather.borrow().watch_lag);
        async move {
            tokio::time::sleep(lag).await;
            chunk
        }
    });
    let broken = async move {
        let _ = cuts.changed().await;
    };
    body_of(cut(lagging.take_until(Box::pin(broken)).boxed(), cut_after))
}

fn body_of(chunks: BoxStream<'static, Result<Bytes, BoxError>>) -> Box<DynBody> {
    Box::new(StreamBody::new(chunks.map_ok(Frame::data)))
}

fn chunks(body: Box<DynBody>) -> BoxStream<'static, Result<Bytes, BoxError>> {
    body.into_data_stream().boxed()
}

/// The first `parts` chunks, or those that come until `stalls` changes; then nothing, and no end.
fn stalling(
    chunks: BoxStream<'static, Result<Bytes, BoxError>>,
    stalls: watch::Receiver<u64>,
    parts: usize,
) -> BoxStream<'static, Result<Bytes, BoxError>> {
    futures::stream::unfold((chunks, stalls, parts), async |(mut chunks, mut stalls, left)| {
        let Some(left) = left.checked_sub(1) else { return future::pending().await };
        tokio::select! {
            biased;
            Ok(()) = stalls.changed() => future::pending().await,
            chunk = chunks.next() => Some((chunk?, (chunks, stalls, left))),
        }
    })
    .boxed()
}

/// The first `length` bytes, then an error.
fn cut(chunks: BoxStream<'static, Result<Bytes, BoxError>>, length: usize) -> BoxStream<'static, Result<Bytes, BoxError>> {
    chunks
        .scan(Some(length), |left, chunk| {
            let Some(before) = *left else { return future::ready(None) };
            let item = match chunk {
                Ok(chunk) if chunk.len() <= before => {
                    *left = Some(before - chunk.len());
                    vec![Ok(chunk)]
                }
                Ok(chunk) => {
                    *left = None;
                    vec![Ok(chunk.slice(..before)), Err(reset().into())]
                }
                Err(error) => vec![Err(error)],
            };
            future::ready(Some(futures::stream::iter(item)))
        })
        .flatten()
        .boxed()
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the way to the API server broke")
}

fn refusal(code: u16, reason: &str) -> Response<Box<DynBody>> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": format!("{reason}: a fault of this test") });
    let mut response = Response::new(body_of(futures::stream::once(future::ready(Ok(status.to_string().into()))).boxed()));
    *response.status_mut() = http::StatusCode::from_u16(code).expect("a known code");
    response
}
