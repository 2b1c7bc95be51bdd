//! The key that the probers of one fleet may share, so that nobody else's packets are answered or believed. A packet's last bytes are then
//! an HMAC-SHA256 over the rest, cut to 128 bits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use tokio::sync::watch;

use crate::protocol::wire::{Packet, SIGNED_LEN, TAG_LEN};

/// One or more keys: the first signs, any of them is believed. With two, a key is changed without a gap: first the new one is added
/// everywhere, then it is put in front everywhere, then the old one is taken away.
#[derive(Clone, Debug)]
pub struct FleetKeys(Vec<hmac::Key>);

/// Which key a packet was signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIndex(usize);

/// What is wrong with a file of keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("failed to read the fleet's key from {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no key in it.
    #[error("failed to find a key in {0}")]
    Empty(PathBuf),
    /// A key can be guessed.
    #[error("failed to take the key in line {line} of {path}: a key has at least 16 bytes")]
    Short {
        /// Which file.
        path: PathBuf,
        /// Which line of it, from 1.
        line: usize,
    },
}

/// Shorter keys than the tag are the easier ones to guess.
const SHORTEST_KEY: usize = 16;

impl FleetKeys {
    /// Reads keys, one a line; empty lines are passed over. `path` is for errors only.
    ///
    /// # Errors
    /// [`KeyFileError`] where there is no key, or one that is too short.
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
    /// [`KeyFileError`] naming the file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// The key that signs what we send of our own accord.
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

    /// Which key the tag was made with, or none.
    #[must_use]
    pub fn verify(&self, packet: &Packet) -> Option<KeyIndex> {
        let made_with = |key: &hmac::Key| {
            let tag = hmac::sign(key, &packet[..SIGNED_LEN]);
            // Every byte is looked at, so that the time this takes does not tell how many were right.
            let difference =
                tag.as_ref().iter().zip(&packet[SIGNED_LEN..]).fold(0, |difference, (ours, theirs)| difference | (ours ^ theirs));
            std::hint::black_box(difference) == 0
        };
        self.0.iter().position(made_with).map(KeyIndex)
    }
}

/// The keys as whoever sends or receives sees them; none where the fleet has no key.
pub type SharedKeys = watch::Receiver<Option<Arc<FleetKeys>>>;

/// Tells `keys` what the file says, every `period` anew, for as long as anybody listens. While it cannot be read or understood, the last known
/// keys stay.
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
