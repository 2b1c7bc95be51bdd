//! Bytes on the network and in the kernel's buffers: UDP probes and their signature, ICMP echo,
//! socket addresses and control messages. Pure.

pub(crate) mod control_message;
pub(crate) mod fleet_key;
pub(crate) mod icmp;
pub(crate) mod wire;

pub use control_message::{IcmpReachability, LocalAddress, Notes, read_name, read_notes};
pub use fleet_key::{FleetKeys, KeyFileError, KeyIndex, SharedKeys};
pub use icmp::{Echo, Family, strip_ipv4_header};
pub use wire::{LONGEST_IN_TRAIN, PACKET_LEN, Packet, ProbeRequest, Reply, Sequence, SessionId, WireError};
