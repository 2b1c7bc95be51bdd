//! Measures what the way through the emulator costs beyond the delay asked for, so that it can be
//! taken off.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

use super::{WireError, WireNode, sys};

/// How long a packet is held while calibrating.
pub(super) const CALIBRATION_DELAY_SECONDS: f64 = 0.002;

/// Enough for a steady median; takes a fifth of a second.
const PROBES: usize = 60;

/// More than this is not the constant cost of the way but a busy machine: better not taken off.
const MOST_SECONDS: f64 = 0.000_4;

/// Sends datagrams from one node to another and answers with how much longer than `delay_seconds`
/// the median one was under way, from the sender's call to the kernel's stamp at the receiver: what
/// a program sees beyond that is its own wake-up. None when too few arrived.
pub(super) fn excess_seconds(from: &WireNode, to: &WireNode, delay_seconds: f64) -> Result<Option<f64>, WireError> {
    let sender = bound(from)?;
    let receiver = bound(to)?;
    let trip = || -> io::Result<Vec<f64>> {
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        setsockopt(&receiver, sockopt::ReceiveTimestampns, &true)?;
        let target: SocketAddr = receiver.local_addr()?;
        let mut excesses = Vec::new();
        for number in 0..PROBES {
            let mark = u32::try_from(number).unwrap_or_default().to_be_bytes();
            let sent = since_epoch();
            sender.send_to(&mark, target)?;
            if let Some(arrived) = receive(&receiver, mark)? {
                excesses.push(arrived.as_secs_f64() - sent.as_secs_f64() - delay_seconds);
            }
        }
        Ok(excesses)
    };
    let mut excesses = trip().map_err(|source| WireError::Node {
        node: to.name.clone(),
        action: format!("send calibration packets to it from {}", from.name),
        source,
    })?;
    if excesses.len() < PROBES / 2 {
        return Ok(None);
    }
    excesses.sort_by(f64::total_cmp);
    Ok(Some(excesses[excesses.len() / 2]))
}

/// What to take off every delay; nothing when the measured excess is not a plausible constant.
pub(super) fn compensation_nanos(excesses: &[f64]) -> u64 {
    let Some(least) = excesses.iter().copied().min_by(f64::total_cmp) else { return 0 };
    if (0.0..=MOST_SECONDS).contains(&least) { super::queue::nanos(least) } else { 0 }
}

fn bound(node: &WireNode) -> Result<UdpSocket, WireError> {
    sys::in_network_namespace(&node.netns, || UdpSocket::bind((node.address, 0))).map_err(|source| WireError::Node {
        node: node.name.clone(),
        action: format!("open a socket on its address {}", node.address),
        source,
    })
}

/// The kernel's stamp of the datagram with this mark; none when it does not come in time. Earlier
/// ones that were late are passed over.
fn receive(socket: &UdpSocket, mark: [u8; 4]) -> io::Result<Option<Duration>> {
    loop {
        let mut payload = [0_u8; 4];
        let mut slices = [IoSliceMut::new(&mut payload)];
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let stamp = match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty()) {
            Ok(message) => message.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                _ => None,
            }),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if payload == mark {
            return Ok(stamp);
        }
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plausible_constant_is_taken_off() {
        assert_eq!(compensation_nanos(&[]), 0);
        assert_eq!(compensation_nanos(&[0.000_12, 0.000_10]), 100_000);
        assert_eq!(compensation_nanos(&[0.000_12, -0.000_10]), 0);
        assert_eq!(compensation_nanos(&[0.005]), 0);
    }
}
