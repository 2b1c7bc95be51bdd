//! What a node's kernel can do for connections to backends.

use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use nix::libc;

/// `TCP_RTO_MAX_MS` of Linux 6.15 and later: the maximum wait before a retransmission.
pub(crate) const TCP_RTO_MAX_MS: i32 = 44;

/// The release of a kernel: major and minor version.
///
/// ```
/// use locality_ingress::kubernetes::Release;
///
/// let release = |text: &str| text.parse::<Release>().unwrap();
/// assert!(release("6.15.0-1004-aws") > release("6.8.0-60-generic"));
/// assert_eq!(release("6.18.44"), release("6.18.2-fc"));
/// assert!("unknown".parse::<Release>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: u32,
    minor: u32,
}

/// A text that is no kernel release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the kernel release {text:?}")]
pub struct NoRelease {
    /// The text.
    pub text: String,
}

impl std::str::FromStr for Release {
    type Err = NoRelease;

    fn from_str(text: &str) -> Result<Self, NoRelease> {
        let mut numbers = text.trim().split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err(NoRelease { text: text.to_owned() }),
        }
    }
}

/// The release of this node's kernel, if it accepts `TCP_RTO_MAX_MS`. Kernels at least as new
/// accept it too. A kernel without the option would fail every connection, so no other gateway is
/// sent it.
#[must_use]
pub async fn bounds_retransmissions_here() -> Option<Release> {
    let tried = async {
        // The option needs a connection; it is made to a listener of our own.
        let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.ok()?;
        let stream = tokio::net::TcpStream::connect(listener.local_addr().ok()?).await.ok()?.into_std().ok()?;
        accepts_bound(&stream).then_some(())
    };
    tried.await?;
    std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.parse().ok()
}

// No crate in use has the option yet.
#[allow(unsafe_code)]
fn accepts_bound(stream: &TcpStream) -> bool {
    let milliseconds: libc::c_int = 1_000;
    let length = libc::socklen_t::try_from(size_of_val(&milliseconds)).unwrap_or_default();
    // SAFETY: the socket is open for as long as it is borrowed, and value and length are those of
    // an int that outlives the call.
    let answer = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, TCP_RTO_MAX_MS, (&raw const milliseconds).cast(), length)
    };
    answer == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_itself_says_whether_it_has_the_option() {
        // The same patch series of Linux brought a setting of this name.
        let expected = std::path::Path::new("/proc/sys/net/ipv4/tcp_rto_max_ms").exists();
        assert_eq!(bounds_retransmissions_here().await.is_some(), expected);
    }
}
