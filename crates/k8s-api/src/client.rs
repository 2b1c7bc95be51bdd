//! A client of the API server that notices silent connections.

use std::time::Duration;

use kube::{Client, Config};

/// The time limit of a watch. The API server ends the watch after it, with a bookmark, and the next
/// watch continues from there. So a quiet watch is heard from this often, and a longer silence
/// means that it is dead.
pub const WATCH_SECONDS: u32 = 20;
/// How long a connection may be silent: longer than a healthy watch, and as long as kube's watcher
/// waits for a watch of [`WATCH_SECONDS`].
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// How long to wait for a new connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A client that closes silent connections, as a server leaves them that loses power, or a network
/// device that forgets them. kube's default is to wait for ever: for a response, for the rest of a
/// list, and, on a reused connection, for the begin of a watch.
///
/// # Errors
/// If the configuration cannot be used.
pub fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.read_timeout = Some(SILENCE_MAX);
    // Counted from the request, not from when the connection became idle.
    config.reset_reader_on_write = true;
    config.connect_timeout = Some(CONNECT_WITHIN);
    Client::try_from(config)
}
