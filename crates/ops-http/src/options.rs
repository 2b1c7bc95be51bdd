//! Options that every daemon has, to be flattened into its own.

use std::net::SocketAddr;
use std::time::Duration;

use crate::LogFormat;

/// Where operators look.
#[derive(Clone, Debug, clap::Args)]
pub struct OpsOptions {
    /// Address that serves /healthz, /readyz and /metrics
    #[arg(long, env = "KANTAI_OPS_LISTEN", default_value = "[::]:8080")]
    pub ops_listen: SocketAddr,
    /// Format of log lines: json or text
    #[arg(long, env = "KANTAI_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

/// The longest duration that an option may have.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the duration of an option, from 1ms to 24h.
///
/// # Errors
/// What is wrong with it, for the message of the command line.
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(ops_http::duration("50ms"), Ok(Duration::from_millis(50)));
/// assert_eq!(ops_http::duration("1m30s"), Ok(Duration::from_secs(90)));
/// assert!(ops_http::duration("0s").is_err());
/// assert!(ops_http::duration("5").is_err());
/// ```
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|error| format!("no duration such as 30s: {error}"))?;
    let duration = Duration::try_from(parsed).map_err(|_| "must not be negative".to_owned())?;
    if duration < Duration::from_millis(1) || duration > LONGEST {
        Err("must be between 1ms and 24h".to_owned())
    } else {
        Ok(duration)
    }
}
