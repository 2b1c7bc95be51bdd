//! How busy the machine is, second by second: whatever is measured on a machine without a processor
//! to spare is a measure of the machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::measure::{Share, as_f64};
use crate::run::unix_seconds;

const EVERY: Duration = Duration::from_secs(1);

/// Looks every second until it is dropped.
#[derive(Debug)]
pub(super) struct CpuWatch {
    seen: Arc<Mutex<Vec<(f64, f64)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for CpuWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CpuWatch {
    pub(super) fn start() -> Self {
        let seen: Arc<Mutex<Vec<(f64, f64)>>> = Arc::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut before = read();
            loop {
                tokio::time::sleep(EVERY).await;
                let now = read();
                if let Some(share) = before.zip(now).and_then(|(before, now)| busy_pct(before, now)) {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).push((unix_seconds(), share));
                }
                before = now;
            }
        });
        Self { seen, task }
    }

    /// How busy it was between two moments; none when that was not seen.
    pub(super) fn between(&self, from_unix_seconds: f64, to_unix_seconds: f64) -> Option<Share> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let during: Vec<f64> =
            seen.iter().filter(|(at, _)| (from_unix_seconds..to_unix_seconds).contains(at)).map(|(_, pct)| *pct).collect();
        let max_pct = during.iter().copied().max_by(f64::total_cmp)?;
        Some(Share { mean_pct: during.iter().sum::<f64>() / as_f64(during.len()), max_pct })
    }
}

/// Ticks that processors were busy, and all ticks.
fn read() -> Option<(u64, u64)> {
    parse(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn parse(stat: &str) -> Option<(u64, u64)> {
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // What guests took is in the first two already.
    let ticks: Vec<u64> = fields.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = ticks.get(3)? + ticks.get(4)?;
    let all: u64 = ticks.iter().sum();
    Some((all - idle, all))
}

#[allow(clippy::cast_precision_loss)]
fn busy_pct(before: (u64, u64), now: (u64, u64)) -> Option<f64> {
    let all = now.1.checked_sub(before.1).filter(|all| *all > 0)?;
    Some(now.0.saturating_sub(before.0) as f64 / all as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_disk_is_not_being_busy() {
        let text = "cpu  10 0 20 60 10 0 0 0 5 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse(text), Some((30, 100)));
        assert_eq!(parse("intr 5\n"), None);
        assert_eq!(busy_pct((30, 100), (80, 200)), Some(50.0));
        assert_eq!(busy_pct((30, 100), (30, 100)), None);
    }
}
