//! How others talk with the wire process: one JSON request per connection on a Unix socket, one
//! JSON answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{LinkMatrix, Slice, WireError};

/// Which emulator is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EmulatorKind {
    /// `tc netem`.
    #[serde(rename = "kernel netem")]
    Kernel,
    /// Our own over TUN devices.
    #[serde(rename = "userspace over TUN")]
    Userspace,
}

/// What the wire says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireStatus {
    /// Which emulator is at work.
    pub kind: EmulatorKind,
    /// What the system refused to do for its punctuality; empty when nothing.
    pub refused: Vec<String>,
    /// Taken off every one-way delay, the measured cost of the way through the emulator.
    pub compensation_seconds: f64,
    /// What lies between the nodes now.
    pub links: LinkMatrix,
    /// The statistics since the start, or since the moment asked for; empty for the kernel's
    /// emulator, which keeps none.
    pub slices: Vec<Slice>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    Status { since_unix_seconds: f64 },
    SetLinks { links: LinkMatrix },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Status(WireStatus),
    Done,
    Refused { problem: String },
}

/// Talks with a running wire process.
#[derive(Debug, Clone)]
pub struct WireClient {
    socket: PathBuf,
}

impl WireClient {
    /// A client of the process with this control socket
    /// ([`WireConfig::socket`](super::WireConfig::socket)).
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Waits until the wire is laid: the process answers only then.
    ///
    /// # Errors
    ///
    /// When it does not answer within `patience`.
    pub async fn wait_until_laid(&self, patience: Duration) -> Result<WireStatus, WireError> {
        let begin = tokio::time::Instant::now();
        loop {
            match self.status(f64::MAX).await {
                Ok(status) => return Ok(status),
                Err(error) if begin.elapsed() >= patience => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// What the wire says of itself, with the statistics of slices that began at this moment or
    /// later.
    ///
    /// # Errors
    ///
    /// When the process does not answer.
    pub async fn status(&self, since_unix_seconds: f64) -> Result<WireStatus, WireError> {
        match self.ask(&Request::Status { since_unix_seconds }).await? {
            Answer::Status(status) => Ok(status),
            answer => Err(self.unexpected(&answer)),
        }
    }

    /// Other links between the same nodes from now on.
    ///
    /// # Errors
    ///
    /// When the process does not answer, or refuses them.
    pub async fn set_links(&self, links: LinkMatrix) -> Result<(), WireError> {
        match self.ask(&Request::SetLinks { links }).await? {
            Answer::Done => Ok(()),
            answer => Err(self.unexpected(&answer)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Answer, WireError> {
        let talk = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(&serde_json::to_vec(request)?).await?;
            stream.shutdown().await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(serde_json::from_slice(&answer)?)
        };
        match tokio::time::timeout(Duration::from_secs(5), talk).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.problem(error.to_string())),
            Err(_) => Err(self.problem("no answer within 5 s".to_owned())),
        }
    }

    fn unexpected(&self, answer: &Answer) -> WireError {
        match answer {
            Answer::Refused { problem } => self.problem(problem.clone()),
            Answer::Done | Answer::Status(_) => self.problem("an answer to another question".to_owned()),
        }
    }

    fn problem(&self, problem: String) -> WireError {
        WireError::Control { socket: self.socket.clone(), problem }
    }
}
