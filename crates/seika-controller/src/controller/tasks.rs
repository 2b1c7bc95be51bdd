//! The tasks in the background, none of which may end as long as the controller is at work.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio::task::JoinSet;

/// A part of the controller ended, and the rest would continue with outdated data for ever. The
/// process should be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to go on: {task} {how}")]
pub struct Ended {
    task: &'static str,
    how: &'static str,
}

impl Ended {
    pub(super) fn by_itself(task: &'static str) -> Self {
        Self { task, how: "ended" }
    }
}

/// Background tasks. They end when this is dropped.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<Ended>);

impl Tasks {
    pub(super) fn spawn(&mut self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            // What it shares with others is behind locks that are taken whatever became of who held
            // them.
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(()) => Ended::by_itself(task),
                Err(_panic) => Ended { task, how: "panicked" },
            }
        });
    }

    /// Comes back when one of them has ended.
    pub(super) async fn one_ends(&mut self) -> Ended {
        match self.0.join_next().await {
            Some(Ok(ended)) => ended,
            // Cancelled, which does not happen.
            Some(Err(_)) => Ended { task: "a task", how: "was cancelled" },
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    #[tokio::test]
    async fn the_first_task_that_ends_is_told_of_by_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("the watch of nodes", future::pending());
        assert!(futures::poll!(std::pin::pin!(tasks.one_ends())).is_pending());
        tasks.spawn("the watch of pods", future::ready(()));
        assert_eq!(tasks.one_ends().await.to_string(), "failed to go on: the watch of pods ended");
        tasks.spawn("the events", async { panic!("on purpose") });
        assert_eq!(tasks.one_ends().await.to_string(), "failed to go on: the events panicked");
    }
}
