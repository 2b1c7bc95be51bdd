//! One run at a time makes components in a cache.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::ComponentsError;
use crate::progress::Progress;

/// Held while components are made. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct CacheLock {
    _file: File,
}

impl CacheLock {
    /// Waits for its turn, and says so if there is one to wait for.
    pub(super) fn take(cache: &Path, progress: &Progress) -> Result<Self, ComponentsError> {
        std::fs::create_dir_all(cache).map_err(ComponentsError::file("create", cache))?;
        let path = cache.join("lock");
        let file = File::create(&path).map_err(ComponentsError::file("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let waiting = progress.step(format!("waiting for another run that makes components in {}", cache.display()));
                file.lock().map_err(ComponentsError::file("lock", &path))?;
                waiting.done();
            }
            Err(TryLockError::Error(source)) => return Err(ComponentsError::file("lock", &path)(source)),
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_run_waits_for_the_first() {
        let cache = tempfile::tempdir().unwrap();
        let first = CacheLock::take(cache.path(), &Progress::to(|_| {})).unwrap();
        let (said, heard) = channel();
        let second = {
            let cache = cache.path().to_owned();
            std::thread::spawn(move || {
                let progress = Progress::to(move |line| said.send(line.to_owned()).unwrap());
                CacheLock::take(&cache, &progress).map(drop)
            })
        };
        assert!(heard.recv_timeout(Duration::from_secs(60)).unwrap().contains("waiting for another run"));
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap().unwrap();
    }
}
