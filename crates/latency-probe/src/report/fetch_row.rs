//! Reads the row of another prober over HTTP.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use latency_matrix::Row;

use crate::report::row::binary;

/// A failure to read a row.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address cannot be parsed.
    #[error("failed to understand {0:?} as the address of a prober")]
    Address(String),
    /// No response, or none in time.
    #[error("failed to reach the prober at {url}: {reason}")]
    Reach {
        /// The address.
        url: String,
        /// The error.
        reason: String,
    },
    /// The response is no row.
    #[error("failed to understand the row of {url}: {reason}")]
    Content {
        /// The address.
        url: String,
        /// The error.
        reason: String,
    },
}

/// Enough for ten thousand peers.
const LONGEST_ROW_BYTES: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the row of the prober at `prober`: `HOST`, `HOST:PORT`, or a URL with or without the row's
/// path.
///
/// # Errors
/// [`FetchError`] with the prober's address.
pub async fn fetch_row(prober: &str, port: u16) -> Result<Row, FetchError> {
    let url = row_url(prober, port);
    let uri: axum::http::Uri = url.parse().map_err(|_| FetchError::Address(prober.to_owned()))?;
    let reach = |reason: String| FetchError::Reach { url: url.clone(), reason };
    let fetched = tokio::time::timeout(PATIENCE, get(uri)).await.map_err(|_| reach(format!("no answer within {PATIENCE:?}")))?;
    let (is_binary, body) = fetched.map_err(|error| reach(error.to_string()))?;
    let read = if is_binary {
        binary::decode(&body).map_err(|error| error.to_string())
    } else {
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    };
    read.map_err(|reason| FetchError::Content { url, reason })
}

/// The body, and whether it is in the binary form, which is requested; older probers send JSON.
async fn get(uri: axum::http::Uri) -> Result<(bool, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let accepted = format!("{}, application/json", binary::MEDIA_TYPE);
    let response = client.request(Request::get(uri).header(ACCEPT, accepted).body(Body::empty())?).await?;
    if !response.status().is_success() {
        return Err(response.status().to_string().into());
    }
    let is_binary = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == binary::MEDIA_TYPE);
    Ok((is_binary, Limited::new(response.into_body(), LONGEST_ROW_BYTES).collect().await?.to_bytes()))
}

fn row_url(prober: &str, port: u16) -> String {
    let rest = prober.strip_prefix("http://").unwrap_or(prober);
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let has_port = host.rsplit_once(':').is_some_and(|(before, _)| !before.contains(':') || before.ends_with(']'));
    let host = match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) if has_port => host.to_owned(),
        Err(_) => format!("{host}:{port}"),
    };
    format!("http://{host}/{}", if path.is_empty() { "v1/row" } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prober_may_be_named_in_any_usual_way() {
        for (given, url) in [
            ("10.0.0.1", "http://10.0.0.1:9798/v1/row"),
            ("node1:80", "http://node1:80/v1/row"),
            ("http://node1", "http://node1:9798/v1/row"),
            ("http://node1:80/v1/row", "http://node1:80/v1/row"),
            ("fd00::1", "http://[fd00::1]:9798/v1/row"),
            ("[fd00::1]:5", "http://[fd00::1]:5/v1/row"),
        ] {
            assert_eq!(row_url(given, 9798), url);
        }
    }

    #[tokio::test]
    async fn who_is_not_there_is_named() {
        let said = fetch_row("127.0.0.1:1", 1).await.unwrap_err().to_string();
        assert!(said.contains("127.0.0.1:1"), "{said}");
        assert!(matches!(fetch_row("not an address", 1).await, Err(FetchError::Address(_))));
    }
}
