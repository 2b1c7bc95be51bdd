//! The way to the API server, on which silence is noticed.

use std::time::Duration;

use kube::{Client, Config};

/// How long a watch lasts. The API server then ends it (and says before up to where it had come),
/// and the next goes on from there. So a watch on which nothing happens is heard of this often, and
/// one that is not heard of for longer is dead.
pub const WATCH_SECONDS: u32 = 20;
/// A connection on which nothing has come for this long is given up: longer than the longest
/// silence of a healthy watch, and as long as kube's watcher waits for a watch of
/// [`WATCH_SECONDS`].
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// How long to wait for a new connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A client that gives up connections which have gone silent without a word, as they do when the
/// machine at their other end loses power or something between forgets them. kube's own default is
/// to wait for ever: for the answer to a request, for the parts of a list, and, where its
/// connection is taken from those that are idle, for the beginning of a watch.
///
/// # Errors
/// Where the configuration is not usable.
pub fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.read_timeout = Some(SILENCE_MAX);
    // Counted from when the request was sent, not from when the connection became idle.
    config.reset_reader_on_write = true;
    config.connect_timeout = Some(CONNECT_WITHIN);
    Client::try_from(config)
}
