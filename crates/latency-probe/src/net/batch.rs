//! Packets in batches: one system call for many. Sending and receiving need `unsafe`, because the
//! system calls take pointers; everything they point to is owned here and laid out again before
//! every call.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::protocol::control_message::{
    CONTROL_LEN, LocalAddress, NAME_LEN, Notes, SOURCE_LEN, read_name, read_notes, write_name, write_source,
};

#[derive(Clone)]
#[repr(align(8))]
struct Control([u8; CONTROL_LEN]);

#[derive(Clone)]
#[repr(align(8))]
struct SourceControl([u8; SOURCE_LEN]);

#[derive(Clone)]
#[repr(align(8))]
struct AddressBytes([u8; NAME_LEN]);

/// Received packets of at most `size` bytes.
pub(crate) struct Inbox {
    /// One after the other, `size` bytes each.
    packets: Box<[u8]>,
    size: usize,
    controls: Box<[Control]>,
    names: Box<[AddressBytes]>,
    lengths: Box<[Lengths]>,
    received: usize,
}

#[derive(Clone, Copy, Default)]
struct Lengths {
    packet: usize,
    control: usize,
    name: usize,
}

/// A received packet.
#[derive(Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) bytes: &'a [u8],
    /// The sender; in the error queue, the target of the packet that failed.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) notes: Notes,
}

impl Inbox {
    /// An empty inbox for `batch` packets of at most `size` bytes, which is not 0.
    pub(crate) fn new(batch: usize, size: usize) -> Self {
        Self {
            packets: vec![0; batch * size].into(),
            size,
            controls: vec![Control([0; CONTROL_LEN]); batch].into(),
            names: vec![AddressBytes([0; NAME_LEN]); batch].into(),
            lengths: vec![Lengths::default(); batch].into(),
            received: 0,
        }
    }

    /// Receives what is in the socket without waiting, in place of the previous packets. Returns
    /// whether there may be more.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.receive_with(socket, libc::MSG_DONTWAIT)
    }

    /// The same for the error queue, where the kernel puts departure timestamps and ICMP errors.
    pub(crate) fn receive_errors(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.receive_with(socket, libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE)
    }

    fn receive_with(&mut self, socket: BorrowedFd<'_>, flags: i32) -> io::Result<bool> {
        self.received = 0;
        let mut vectors: Vec<libc::iovec> = vectors(&mut self.packets, self.size).collect();
        let mut headers: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .zip(&mut self.controls)
            .zip(&mut self.names)
            .map(|((vector, control), name)| header(&mut name.0, NAME_LEN, vector, control.0.as_mut_ptr(), CONTROL_LEN))
            .collect();
        let batch = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        // SAFETY: each header points to a vector, a control buffer and a name that outlive the call
        // and are not otherwise borrowed during it; the lengths in the header are theirs; `batch`
        // is the number of headers.
        let received = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), batch, flags, std::ptr::null_mut()) };
        self.received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (lengths, header) in self.lengths.iter_mut().zip(&headers).take(self.received) {
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            *lengths = Lengths {
                // A packet that did not fit is not ours: show nothing of it.
                packet: if truncated { 0 } else { usize::try_from(header.msg_len).unwrap_or(0).min(self.size) },
                control: header.msg_hdr.msg_controllen.min(CONTROL_LEN),
                name: usize::try_from(header.msg_hdr.msg_namelen).unwrap_or(0).min(NAME_LEN),
            };
        }
        Ok(self.received == self.lengths.len())
    }

    /// The packets received last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        let packets = self.packets.chunks_exact(self.size);
        let parts = packets.zip(&self.controls).zip(&self.names).zip(&self.lengths).take(self.received);
        parts.map(|(((packet, control), name), lengths)| Datagram {
            bytes: &packet[..lengths.packet],
            from: read_name(&name.0[..lengths.name]),
            notes: read_notes(&control.0[..lengths.control]),
        })
    }
}

/// The vectors of packets of `size` bytes that lie one after the other.
fn vectors(packets: &mut [u8], size: usize) -> impl Iterator<Item = libc::iovec> {
    packets.chunks_exact_mut(size).map(move |packet| libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: size })
}

/// Packets of exactly `size` bytes to be sent.
pub(crate) struct Outbox {
    /// One after the other, `size` bytes each.
    packets: Vec<u8>,
    size: usize,
    controls: Vec<(SourceControl, usize)>,
    names: Vec<(AddressBytes, usize)>,
}

impl Outbox {
    /// An empty outbox with capacity for `batch` packets of `size` bytes, which is not 0.
    pub(crate) fn new(batch: usize, size: usize) -> Self {
        Self {
            packets: Vec::with_capacity(batch * size),
            size,
            controls: Vec::with_capacity(batch),
            names: Vec::with_capacity(batch),
        }
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.controls.clear();
        self.names.clear();
    }

    /// Adds a packet, to leave from the given local address or from one that the kernel chooses. A
    /// shorter packet is padded with zeros.
    pub(crate) fn push(&mut self, packet: &[u8], to: SocketAddr, from: Option<LocalAddress>) {
        let mut name = AddressBytes([0; NAME_LEN]);
        let name_len = write_name(&mut name.0, to);
        let mut control = SourceControl([0; SOURCE_LEN]);
        let control_len = from.map_or(0, |from| write_source(&mut control.0, from));
        let end = self.packets.len() + self.size;
        self.packets.extend_from_slice(packet);
        self.packets.resize(end, 0);
        self.controls.push((control, control_len));
        self.names.push((name, name_len));
    }

    /// Number of packets.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Sends the packets from index `first` on without waiting. Returns how many were sent.
    ///
    /// # Errors
    /// The error of the packet at `first`.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, first: usize) -> io::Result<usize> {
        let mut vectors: Vec<libc::iovec> = vectors(&mut self.packets, self.size).skip(first).collect();
        let mut headers: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .zip(self.controls.iter_mut().skip(first))
            .zip(self.names.iter_mut().skip(first))
            .map(|((vector, (control, control_len)), (name, name_len))| {
                let control_pointer = if *control_len == 0 { std::ptr::null_mut() } else { control.0.as_mut_ptr() };
                header(&mut name.0, *name_len, vector, control_pointer, *control_len)
            })
            .collect();
        let batch = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        // SAFETY: as for receiving; the kernel only reads through these pointers.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), batch, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn header(
    name: &mut [u8; NAME_LEN],
    name_len: usize,
    vector: &mut libc::iovec,
    control: *mut u8,
    control_len: usize,
) -> libc::mmsghdr {
    // SAFETY: all fields are numbers and pointers, for which zero is valid (padding differs between
    // C libraries, hence no literal).
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = name.as_mut_ptr().cast();
    header.msg_hdr.msg_namelen = u32::try_from(name_len).unwrap_or(0);
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_control = control.cast();
    header.msg_hdr.msg_controllen = control_len as _;
    header
}
