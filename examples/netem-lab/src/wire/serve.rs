//! The wire process: lays the wire, then answers on the control socket until it is stopped.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::calibrate::{self, CALIBRATION_DELAY_SECONDS};
use super::control::{Answer, EmulatorKind, Request, WireStatus};
use super::userspace::{Emulator, Orders};
use super::{EmulatorChoice, Link, LinkMatrix, Slice, WireConfig, WireError, install, kernel};

/// How many seconds of statistics are kept: longer than any scenario takes.
const KEPT_SLICES: usize = 4 * 3_600;

/// Options of `netem-lab wire`.
#[derive(Debug, clap::Args)]
pub struct WireArgs {
    /// The wire's configuration, a JSON file.
    #[arg(long)]
    pub config: PathBuf,
}

enum Way {
    Kernel,
    Userspace { orders: Arc<Orders>, slices: mpsc::Receiver<Slice>, thread: std::thread::JoinHandle<std::io::Result<()>> },
}

struct Wire {
    config: WireConfig,
    way: Way,
    refused: Vec<String>,
    kept: VecDeque<Slice>,
}

/// Lays the wire and keeps it until SIGTERM or SIGINT. SIGHUP reads the links again from the
/// configuration.
///
/// # Errors
///
/// When the wire cannot be laid, or its thread fails.
pub async fn serve(args: WireArgs) -> Result<(), WireError> {
    let own = |action: &'static str| move |source| WireError::Own { action: action.to_owned(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(own("listen to signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(own("listen to signals"))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(own("listen to signals"))?;

    let config = WireConfig::read(&args.config)?;
    let socket = config.socket();
    let mut wire = Wire::lay(config)?;
    // The socket appears only now: who can connect knows that the wire is laid.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(own("open the control socket"))?;
    info!(refused = ?wire.refused, compensation_seconds = wire.compensation_seconds(), "the wire is laid");

    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => wire.read_links_again(&args.config),
            _ = every_second.tick() => {
                if wire.thread_ended() {
                    break;
                }
                wire.keep_slices();
                wire.write_statistics();
            }
            connection = listener.accept() => match connection {
                Ok((stream, _)) => wire.answer(stream).await,
                Err(error) => warn!(%error, "failed to accept a control connection"),
            },
        }
    }
    let _ = std::fs::remove_file(&socket);
    wire.end()
}

impl Wire {
    fn lay(config: WireConfig) -> Result<Self, WireError> {
        let use_kernel = match config.emulator {
            EmulatorChoice::Kernel => true,
            EmulatorChoice::Userspace => false,
            EmulatorChoice::Auto => kernel::has_netem(),
        };
        if use_kernel {
            kernel::set_up(&config)?;
            return Ok(Self { config, way: Way::Kernel, refused: Vec::new(), kept: VecDeque::new() });
        }
        let orders = Arc::new(Orders::default());
        let (slice_sender, slices) = mpsc::channel();
        let emulator = Emulator::open(&config, Arc::clone(&orders), slice_sender)?;
        install::turn_routes(&config)?;
        let (ready_sender, ready) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("wire".to_owned())
            .spawn(move || emulator.run(&ready_sender))
            .map_err(|source| WireError::Own { action: "start the emulator's thread".to_owned(), source })?;
        let refused = ready.recv().unwrap_or_default();
        for refusal in &refused {
            warn!("{refusal}: expect packets to be late");
        }
        let wire = Self { config, way: Way::Userspace { orders, slices, thread }, refused, kept: VecDeque::new() };
        wire.calibrate()?;
        Ok(wire)
    }

    /// Measures the constant cost between the first two nodes, both ways, under a short delay, and
    /// takes it off from then on.
    fn calibrate(&self) -> Result<(), WireError> {
        let Way::Userspace { orders, .. } = &self.way else { return Ok(()) };
        let [first, second, ..] = &self.config.nodes[..] else { return Ok(()) };
        let flat = Link { delay_seconds: CALIBRATION_DELAY_SECONDS, ..Link::default() };
        orders.set_links(LinkMatrix::uniform(self.config.links.nodes().to_vec(), flat));
        // Longer than the emulator's longest sleep: from here on it has seen the order.
        std::thread::sleep(Duration::from_millis(60));
        let mut excesses = Vec::new();
        for (from, to) in [(first, second), (second, first)] {
            excesses.extend(calibrate::excess_seconds(from, to, CALIBRATION_DELAY_SECONDS)?);
        }
        orders.set_compensation(calibrate::compensation_nanos(&excesses));
        orders.set_links(self.config.links.clone());
        info!(?excesses, "measured the emulator's constant cost");
        Ok(())
    }

    #[allow(clippy::cast_precision_loss)]
    fn compensation_seconds(&self) -> f64 {
        match &self.way {
            Way::Kernel => 0.0,
            Way::Userspace { orders, .. } => orders.compensation_nanos() as f64 / 1e9,
        }
    }

    fn thread_ended(&self) -> bool {
        matches!(&self.way, Way::Userspace { thread, .. } if thread.is_finished())
    }

    fn keep_slices(&mut self) {
        if let Way::Userspace { slices, .. } = &self.way {
            self.kept.extend(slices.try_iter());
            while self.kept.len() > KEPT_SLICES {
                self.kept.pop_front();
            }
        }
    }

    fn status(&self, since_unix_seconds: f64) -> WireStatus {
        WireStatus {
            kind: if matches!(self.way, Way::Kernel) { EmulatorKind::Kernel } else { EmulatorKind::Userspace },
            refused: self.refused.clone(),
            compensation_seconds: self.compensation_seconds(),
            links: self.config.links.clone(),
            slices: self.kept.iter().filter(|slice| slice.at_unix_seconds >= since_unix_seconds).cloned().collect(),
        }
    }

    /// Writes the totals to a file, which remains after the process.
    fn write_statistics(&self) {
        let mut total = super::Lateness::default();
        let mut counts = [0_u64; 5];
        for slice in &self.kept {
            total.merge(&slice.lateness);
            let slice_counts = [slice.delivered, slice.lost, slice.overflowed, slice.unroutable, slice.refused];
            for (sum, count) in counts.iter_mut().zip(slice_counts) {
                *sum += count;
            }
        }
        let [delivered, lost, overflowed, unroutable, refused] = counts;
        let text = serde_json::json!({
            "lateness_seconds": { "p50": total.quantile_seconds(0.5), "p99": total.quantile_seconds(0.99) },
            "packets": { "delivered": delivered, "lost": lost, "overflowed": overflowed, "unroutable": unroutable, "refused": refused },
            "refused_by_the_system": self.refused,
            "compensation_seconds": self.compensation_seconds(),
        });
        if let Err(error) = std::fs::write(self.config.statistics(), format!("{text:#}\n")) {
            warn!(%error, "failed to write the wire's statistics");
        }
    }

    async fn answer(&mut self, mut stream: UnixStream) {
        self.keep_slices();
        let mut request = Vec::new();
        // A client that stays silent must not keep the others waiting.
        let read = tokio::time::timeout(Duration::from_secs(2), (&mut stream).take(1 << 20).read_to_end(&mut request)).await;
        let answer = match read {
            Ok(Ok(_)) => match serde_json::from_slice(&request) {
                Ok(Request::Status { since_unix_seconds }) => Answer::Status(self.status(since_unix_seconds)),
                Ok(Request::SetLinks { links }) => match self.set_links(links) {
                    Ok(()) => Answer::Done,
                    Err(error) => Answer::Refused { problem: error.to_string() },
                },
                Err(error) => Answer::Refused { problem: format!("not a request: {error}") },
            },
            Ok(Err(error)) => Answer::Refused { problem: error.to_string() },
            Err(_) => Answer::Refused { problem: "no request within 2 s".to_owned() },
        };
        let written = match serde_json::to_vec(&answer) {
            Ok(text) => stream.write_all(&text).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            warn!(%error, "failed to answer on the control socket");
        }
    }

    fn read_links_again(&mut self, path: &std::path::Path) {
        match WireConfig::read(path).and_then(|config| self.set_links(config.links)) {
            Ok(()) => info!("read the links again"),
            Err(error) => warn!(%error, "the links stay as they are"),
        }
    }

    fn set_links(&mut self, links: LinkMatrix) -> Result<(), WireError> {
        if !links.is_sound() || links.nodes() != self.config.links.nodes() {
            return Err(WireError::Invalid {
                problem: "the links are not between the nodes of this wire, or make no sense".to_owned(),
            });
        }
        match &self.way {
            Way::Kernel => kernel::change(&self.config, &links)?,
            Way::Userspace { orders, .. } => orders.set_links(links.clone()),
        }
        self.config.links = links;
        Ok(())
    }

    fn end(mut self) -> Result<(), WireError> {
        self.keep_slices();
        self.write_statistics();
        let Way::Userspace { orders, thread, .. } = self.way else { return Ok(()) };
        orders.stop();
        let action = || "keep the emulator's thread running".to_owned();
        match thread.join() {
            Ok(result) => result.map_err(|source| WireError::Own { action: action(), source }),
            Err(_) => Err(WireError::Own { action: action(), source: std::io::Error::other("it panicked") }),
        }
    }
}
