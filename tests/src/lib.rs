//! What the tests across crates share. The tests themselves are in `tests/`.

pub mod api_server;
pub mod daemon;
pub mod ingress;
pub mod knative;
pub mod lab;
pub mod seika;

use std::future::Future;
use std::time::{Duration, Instant};

/// A cluster needs a while for everything. Longer than any of it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is yes; after [`PATIENCE`] it fails with what the last
/// answer was instead.
///
/// The answer is `Ok(value)` for yes, and `Err(what is there instead)` for not yet.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Result<T, String>>>,
{
    let begun = Instant::now();
    loop {
        match ask().await? {
            Ok(value) => return Ok(value),
            Err(instead) if begun.elapsed() > PATIENCE => anyhow::bail!("failed to see that {what}: {instead}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
