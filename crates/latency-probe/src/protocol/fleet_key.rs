//! The key that the probers of one fleet may share, so that only their packets are answered and
//! accepted. The last bytes of a packet are then an HMAC-SHA256 over the rest, truncated to 128
//! bits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use tokio::sync::watch;

use crate::protocol::wire::{Packet, SIGNED_LEN, TAG_LEN};

/// One or more keys: the first signs, each is accepted. A key is rotated without a gap in three
/// steps: add the new one everywhere, put it first everywhere, remove the old one.
#[derive(Clone, Debug)]
pub struct FleetKeys(Vec<hmac::Key>);

/// Which key a packet was signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIndex(usize);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("failed to read the fleet's key from {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file has no key.
    #[error("failed to find a key in {0}")]
    Empty(PathBuf),
    /// A key is too short.
    #[error("failed to take the key in line {line} of {path}: a key has at least 16 bytes")]
    Short {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// A key shorter than the tag would be easier to guess than the tag.
const SHORTEST_KEY: usize = 16;

impl FleetKeys {
    /// Parses keys, one per line; empty lines are skipped. `path` is for error texts.
    ///
    /// # Errors
    /// [`KeyFileError`] if there is no key, or one is too short.
    pub fn parse(text: &str, path: &Path) -> Result<Self, KeyFileError> {
        let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, key)| !key.is_empty());
        let key = |(line, key): (usize, &str)| match key.as_bytes() {
            key if key.len() >= SHORTEST_KEY => Ok(hmac::Key::new(hmac::HMAC_SHA256, key)),
            _ => Err(KeyFileError::Short { path: path.to_owned(), line }),
        };
        let keys: Vec<_> = lines.map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyFileError::Empty(path.to_owned())) } else { Ok(Self(keys)) }
    }

    /// Reads a file of keys.
    ///
    /// # Errors
    /// [`KeyFileError`] with the file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// The index of the key that signs requests.
    #[must_use]
    pub const fn signing() -> KeyIndex {
        KeyIndex(0)
    }

    /// Writes the tag.
    pub fn sign(&self, with: KeyIndex, packet: &mut Packet) {
        if let Some(key) = self.0.get(with.0).or(self.0.first()) {
            let tag = hmac::sign(key, &packet[..SIGNED_LEN]);
            packet[SIGNED_LEN..].copy_from_slice(&tag.as_ref()[..TAG_LEN]);
        }
    }

    /// The key that a packet was signed with; none if it was with none of ours.
    #[must_use]
    pub fn verify(&self, packet: &Packet) -> Option<KeyIndex> {
        let made_with = |key: &hmac::Key| {
            let tag = hmac::sign(key, &packet[..SIGNED_LEN]);
            // All keys are compared in constant time, so that timing does not show how many bytes
            // were right.
            let difference =
                tag.as_ref().iter().zip(&packet[SIGNED_LEN..]).fold(0, |difference, (ours, theirs)| difference | (ours ^ theirs));
            std::hint::black_box(difference) == 0
        };
        self.0.iter().position(made_with).map(KeyIndex)
    }
}

/// The present keys as senders and receivers see them; none if the fleet has no key.
pub type SharedKeys = watch::Receiver<Option<Arc<FleetKeys>>>;

/// Re-reads the file every `period` and publishes its keys to `keys` until there are no receivers.
/// While it cannot be read or parsed, the last known keys stay.
pub(crate) async fn watch_keys(path: &Path, period: Duration, keys: watch::Sender<Option<Arc<FleetKeys>>>) {
    let mut held = std::fs::read_to_string(path).ok();
    loop {
        tokio::select! {
            () = keys.closed() => return,
            () = tokio::time::sleep(period) => {}
        }
        let text = match tokio::fs::read_to_string(path).await {
            Ok(text) if held.as_ref() != Some(&text) => text,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "failed to read the fleet's key again: keeping the one known so far");
                continue;
            }
        };
        match FleetKeys::parse(&text, path) {
            Ok(parsed) => {
                tracing::info!(path = %path.display(), "the fleet's key changed");
                keys.send_replace(Some(Arc::new(parsed)));
            }
            Err(error) => tracing::warn!(%error, "keeping the key known so far"),
        }
        held = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::wire::PACKET_LEN;

    fn keys(text: &str) -> FleetKeys {
        FleetKeys::parse(text, Path::new("key")).unwrap()
    }

    const OLD: &str = "an old key of some length";
    const NEW: &str = "a new key of another length";

    #[test]
    fn a_key_is_changed_without_a_gap() {
        let stages = [format!("{OLD}\n"), format!("{OLD}\n\n{NEW}\n"), format!("{NEW}\n{OLD}\n"), format!("{NEW}\n")];
        for neighbours in stages.windows(2) {
            for (from, to) in [(0, 1), (1, 0)] {
                let mut packet = [7; PACKET_LEN];
                keys(&neighbours[from]).sign(FleetKeys::signing(), &mut packet);
                let with = keys(&neighbours[to]).verify(&packet).unwrap();
                let mut answer = [9; PACKET_LEN];
                keys(&neighbours[to]).sign(with, &mut answer);
                assert!(keys(&neighbours[from]).verify(&answer).is_some());
            }
        }
    }

    #[test]
    fn a_key_that_is_none_is_named() {
        for (text, named) in [("", "find a key"), ("\n \n", "find a key"), ("\nshort\n", "line 2")] {
            let said = FleetKeys::parse(text, Path::new("/run/key")).unwrap_err().to_string();
            assert!(said.contains(named) && said.contains("/run/key"), "{said}");
        }
        assert!(matches!(FleetKeys::read(Path::new("/nowhere")), Err(KeyFileError::Read { .. })));
    }

    proptest! {
        #[test]
        fn one_wrong_bit_is_enough(bytes in proptest::collection::vec(any::<u8>(), PACKET_LEN), bit in 0..PACKET_LEN * 8) {
            let mut packet: Packet = bytes.try_into().unwrap();
            keys(OLD).sign(FleetKeys::signing(), &mut packet);
            prop_assert!(keys(OLD).verify(&packet).is_some() && keys(NEW).verify(&packet).is_none());
            packet[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(keys(OLD).verify(&packet).is_none());
        }
    }
}
