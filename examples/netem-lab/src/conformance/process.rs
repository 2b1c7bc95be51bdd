//! A suite at work.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A suite that has been started. It ends when this is dropped.
pub(super) struct SuiteProcess {
    child: Child,
    /// What it prints, line by line, until it ends.
    pub(super) lines: mpsc::Receiver<String>,
}

impl SuiteProcess {
    /// Starts `command` and listens to both of its outputs.
    pub(super) fn start(mut command: Command) -> std::io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (said, lines) = mpsc::channel(1024);
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(pass_on(stdout, said.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(pass_on(stderr, said));
        }
        Ok(Self { child, lines })
    }

    pub(super) fn id(&self) -> Option<i32> {
        self.child.id().map(u32::cast_signed)
    }

    /// Ends it now.
    pub(super) async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }
}

async fn pass_on(stream: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    // A test may print anything at all.
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await.is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
        if lines.send(text).await.is_err() {
            return;
        }
        line.clear();
    }
}
