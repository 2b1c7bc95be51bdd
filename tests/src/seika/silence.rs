//! How long it takes until a controller notices that the API server has fallen silent.

use std::time::{Duration, Instant};

use super::cluster::Case;

/// Lets the way of the case's controller to the API server fall silent, changes the counts, and
/// says after what time they are heeded.
///
/// # Errors
/// Where they are not within a minute.
pub async fn noticed_after(case: &Case, fall_silent: impl Fn()) -> anyhow::Result<Duration> {
    case.create(case.sample(&[1])?).await?;
    case.until_per_node(&[1]).await?;
    case.until_status("it is told of", |seika| seika.status.is_some()).await?;
    fall_silent();
    let begun = Instant::now();
    case.set(&[3]).await?;
    case.until_per_node(&[3]).await?;
    Ok(begun.elapsed())
}
