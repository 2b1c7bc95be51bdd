//! The row in a compact binary form, about a tenth of its JSON, for readers of thousands of nodes.
//! It leaves out flows, hop changes, the difference of directions and bandwidths. Pure.
//!
//! | what | how |
//! |---|---|
//! | `KLPR`, version 1 | 5 bytes |
//! | when it was said, seconds since 1970 | a double, big-endian |
//! | the node that measured | number of bytes, then UTF-8 |
//! | number of peers | number |
//! | each peer, in order of name | as below |
//!
//! A peer is: the number of bytes that its name shares with the start of the previous name, the
//! length of the rest, and the rest; one byte with the state (lowest two bits), the protocol (next
//! two), and flags for RTTs (16), loss (32), age (64) and hops (128); then, as flagged, RTTs in ns
//! (min, then the differences to p50, p90 and p99, then EWMA and jitter), probes lost and ended,
//! age in us, hops (one byte); and always the numbers of samples, of reordered and of duplicate
//! replies. Numbers are unsigned LEB128 in their shortest form, so that a row has exactly one
//! encoding.

use latency_matrix::{NodeName, PeerRow, Protocol, Row, RttSeconds, StateKind};

use crate::session::pair::loss;

/// The media type of this form.
pub const MEDIA_TYPE: &str = "application/vnd.kantai.latency-row";

const MAGIC: [u8; 5] = *b"KLPR\x01";
const TIMES: u8 = 16;
const LOSS: u8 = 32;
const AGE: u8 = 64;
const HOPS: u8 = 128;

/// Limits: shared prefixes would let a small message become a large row.
const MOST_PEERS: u64 = 1 << 16;
const LONGEST_NAME: usize = 1 << 10;

/// Why bytes are no row in this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Another magic number or version.
    #[error("failed to read a row: not of this format and version")]
    Format,
    /// The row is incomplete.
    #[error("failed to read a row: it ends early")]
    Short,
    /// Bytes follow the row.
    #[error("failed to read a row: {0} bytes follow it")]
    Long(usize),
    /// A number is not in its shortest form, or too large.
    #[error("failed to read a row: a number that is none")]
    Number,
    /// A name is empty, too long, out of order, or not UTF-8.
    #[error("failed to read a row: a name that is none, or out of order")]
    Name,
}

/// Encodes a row. RTTs are rounded to nanoseconds, ages to microseconds.
///
/// ```
/// use latency_matrix::Row;
/// use latency_probe::report::binary;
/// let json = r#"{"from": "a", "measured_at_unix_seconds": 1.5, "peers": [
///   {"to": "b", "state": "unknown", "protocol": "udp", "jitter_seconds": null,
///    "loss_ratio": null, "age_seconds": null, "samples": 0, "rtt_seconds": null}]}"#;
/// let row: Row = serde_json::from_str(json).unwrap();
/// let bytes = binary::encode(&row);
/// assert_eq!((bytes.len(), binary::decode(&bytes).unwrap()), (23, row));
/// ```
#[must_use]
pub fn encode(row: &Row) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(row.measured_at_unix_seconds.to_be_bytes());
    put_text(&mut bytes, row.from.as_str().as_bytes());
    put(&mut bytes, row.peers.len() as u64);
    let mut before: &[u8] = b"";
    for peer in &row.peers {
        let name = peer.to.as_str().as_bytes();
        let shared = before.iter().zip(name).take_while(|(a, b)| a == b).count();
        put(&mut bytes, shared as u64);
        put_text(&mut bytes, &name[shared..]);
        before = name;
        put_peer(&mut bytes, peer);
    }
    bytes
}

fn put_peer(bytes: &mut Vec<u8>, peer: &PeerRow) {
    let has_loss = peer.probes_ended > 0;
    let flag = |has: bool, flag: u8| if has { flag } else { 0 };
    bytes.push(
        state_code(peer.state)
            // A row that names no known protocol has no form of its own here.
            | (peer.protocol.unwrap_or(Protocol::Udp) as u8) << 2
            | flag(peer.rtt_seconds.is_some(), TIMES)
            | flag(has_loss, LOSS)
            | flag(peer.age_seconds.is_some(), AGE)
            | flag(peer.hops.is_some(), HOPS),
    );
    if let Some(rtt) = &peer.rtt_seconds {
        let nanos = |seconds| rounded(seconds, 1e9);
        let mut least = 0;
        for time in [rtt.min, rtt.p50, rtt.p90, rtt.p99].map(nanos) {
            put(bytes, time.saturating_sub(least));
            least = time.max(least);
        }
        put(bytes, nanos(rtt.ewma));
        put(bytes, nanos(peer.jitter_seconds.unwrap_or(0.0)));
    }
    if has_loss {
        put(bytes, peer.probes_lost);
        put(bytes, peer.probes_ended);
    }
    if let Some(age) = peer.age_seconds {
        put(bytes, rounded(age, 1e6));
    }
    bytes.extend(peer.hops);
    put(bytes, peer.samples);
    put(bytes, peer.reordered.into());
    put(bytes, peer.duplicates.into());
}

/// Decodes a row.
///
/// # Errors
/// [`RowError`] for bytes that [`encode`] does not produce.
pub fn decode(bytes: &[u8]) -> Result<Row, RowError> {
    let mut rest = bytes.strip_prefix(&MAGIC).ok_or(RowError::Format)?;
    let (at, after) = rest.split_first_chunk::<8>().ok_or(RowError::Short)?;
    rest = after;
    let measured_at_unix_seconds = f64::from_be_bytes(*at);
    if !measured_at_unix_seconds.is_finite() {
        return Err(RowError::Number);
    }
    let length = take_length(&mut rest)?;
    let from = text(take_bytes(&mut rest, length)?)?;
    let count = take(&mut rest)?;
    if count > MOST_PEERS {
        return Err(RowError::Number);
    }
    // Capacity grows with the content, not with the announced number.
    let mut peers: Vec<PeerRow> = Vec::new();
    for _ in 0..count {
        let before = peers.last().map_or(&b""[..], |peer| peer.to.as_str().as_bytes());
        let shared = take_length(&mut rest)?;
        let length = take_length(&mut rest)?;
        let own = take_bytes(&mut rest, length)?;
        let name = [before.get(..shared).ok_or(RowError::Name)?, own].concat();
        // In the shortest form the previous name continues differently, and sorts before this one.
        let in_order = before.is_empty() || name.as_slice() > before;
        let shortest = before.get(shared).zip(own.first()).is_none_or(|(theirs, ours)| theirs != ours);
        if !in_order || !shortest {
            return Err(RowError::Name);
        }
        let to = text(&name)?;
        peers.push(take_peer(&mut rest, to)?);
    }
    if !rest.is_empty() {
        return Err(RowError::Long(rest.len()));
    }
    Ok(Row { from, measured_at_unix_seconds, peers })
}

fn take_peer(rest: &mut &[u8], to: NodeName) -> Result<PeerRow, RowError> {
    let flags = take_byte(rest)?;
    let has = |flag| flags & flag != 0;
    let (mut rtt_seconds, mut jitter_seconds) = (None, None);
    if has(TIMES) {
        let mut nanos = 0_u64;
        let mut next = |rest: &mut &[u8]| -> Result<f64, RowError> {
            nanos = nanos.checked_add(take(rest)?).filter(|nanos| *nanos <= MOST_NANOS).ok_or(RowError::Number)?;
            Ok(parts(nanos, 1e9))
        };
        let (min, p50, p90, p99) = (next(rest)?, next(rest)?, next(rest)?, next(rest)?);
        let lone = |number: u64| if number <= MOST_NANOS { Ok(parts(number, 1e9)) } else { Err(RowError::Number) };
        rtt_seconds = Some(RttSeconds { min, p50, p90, p99, ewma: lone(take(rest)?)? });
        jitter_seconds = Some(lone(take(rest)?)?);
    }
    let (lost, ended) = if has(LOSS) { (take_count(rest)?.into(), take_count(rest)?.into()) } else { (0, 0) };
    if has(LOSS) && (ended == 0 || lost > ended) {
        return Err(RowError::Number);
    }
    let age = if has(AGE) { Some(take(rest)?) } else { None };
    if age.is_some_and(|micros| micros > MOST_NANOS) {
        return Err(RowError::Number);
    }
    let hops = if has(HOPS) { Some(take_byte(rest)?) } else { None };
    let loss = loss(lost, ended);
    Ok(PeerRow {
        to,
        state: StateKind::ALL[usize::from(flags & 3)],
        protocol: Some(Protocol::ALL[usize::from(flags >> 2 & 3)]),
        rtt_seconds,
        jitter_seconds,
        loss_ratio: loss.map(|loss| loss.ratio),
        loss_interval: loss.map(|loss| (loss.low, loss.high)),
        probes_lost: lost,
        probes_ended: ended,
        age_seconds: age.map(|micros| parts(micros, 1e6)),
        samples: take_count(rest)?.into(),
        hops,
        hop_changes: 0,
        forward_minus_back_seconds: None,
        flows: Vec::new(),
        reordered: take_count(rest)?,
        duplicates: take_count(rest)?,
        bandwidth: None,
    })
}

/// Far below the integers that a double holds exactly.
const MOST_NANOS: u64 = 1 << 50;

const fn state_code(state: StateKind) -> u8 {
    match state {
        StateKind::Known => 0,
        StateKind::Unknown => 1,
        StateKind::Stale => 2,
        StateKind::Unreachable => 3,
    }
}

/// Seconds in integer units. Values out of range saturate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturation is meant")]
fn rounded(seconds: f64, parts_a_second: f64) -> u64 {
    (seconds * parts_a_second).round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "at most 2^50")]
fn parts(number: u64, parts_a_second: f64) -> f64 {
    number as f64 / parts_a_second
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    put(bytes, text.len() as u64);
    bytes.extend(text);
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, RowError> {
    let (byte, after) = rest.split_first().ok_or(RowError::Short)?;
    *rest = after;
    Ok(*byte)
}

fn take_bytes<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], RowError> {
    let (bytes, after) = rest.split_at_checked(length).ok_or(RowError::Short)?;
    *rest = after;
    Ok(bytes)
}

fn take(rest: &mut &[u8]) -> Result<u64, RowError> {
    let mut number = 0_u64;
    for place in 0..10 {
        let byte = take_byte(rest)?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds one bit only; a last byte of zero could be left out.
        if (place == 9 && bits > 1) || (place > 0 && byte == 0) {
            return Err(RowError::Number);
        }
        number |= bits << (7 * place);
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(RowError::Number)
}

fn take_count(rest: &mut &[u8]) -> Result<u32, RowError> {
    u32::try_from(take(rest)?).map_err(|_| RowError::Number)
}

fn take_length(rest: &mut &[u8]) -> Result<usize, RowError> {
    let length = take_count(rest)? as usize;
    if length <= LONGEST_NAME { Ok(length) } else { Err(RowError::Name) }
}

fn text(bytes: &[u8]) -> Result<NodeName, RowError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= LONGEST_NAME);
    text.and_then(|text| text.parse().ok()).ok_or(RowError::Name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer() -> impl Strategy<Value = PeerRow> {
        let times = proptest::option::of(proptest::collection::vec(0_u64..4_000_000_000, 6));
        let name = "(node|edge)-[0-9]{1,3}|[^\\PC\\s]{1,9}";
        let counts = (0_u64..60, 0_u64..60, 0_u64..5_000, any::<[u32; 2]>());
        let rest = (0_usize..4, 0_usize..4, proptest::option::of(0_u64..1 << 40), proptest::option::of(any::<u8>()));
        (name, times, counts, rest).prop_map(|(to, times, (a, b, samples, odd), (state, protocol, age, hops))| {
            let (lost, ended) = (a.min(b), a.max(b));
            let nanos = times.map(|mut times| {
                times[..4].sort_unstable();
                times.into_iter().map(|nanos| parts(nanos, 1e9)).collect::<Vec<_>>()
            });
            let loss = loss(lost, ended);
            PeerRow {
                to: to.into(),
                state: StateKind::ALL[state],
                protocol: Some(Protocol::ALL[protocol]),
                rtt_seconds: nanos.as_ref().map(|s| RttSeconds { min: s[0], p50: s[1], p90: s[2], p99: s[3], ewma: s[4] }),
                jitter_seconds: nanos.as_ref().map(|s| s[5]),
                loss_ratio: loss.map(|loss| loss.ratio),
                loss_interval: loss.map(|loss| (loss.low, loss.high)),
                probes_lost: lost,
                probes_ended: ended,
                age_seconds: age.map(|micros| parts(micros, 1e6)),
                samples,
                hops,
                hop_changes: 0,
                forward_minus_back_seconds: None,
                flows: Vec::new(),
                reordered: odd[0],
                duplicates: odd[1],
                bandwidth: None,
            }
        })
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_in(measured_at_unix_seconds in 0.0..1e12, peers in proptest::collection::vec(peer(), 0..20)) {
            let mut peers = peers;
            peers.sort_by(|a, b| a.to.cmp(&b.to));
            peers.dedup_by(|a, b| a.to == b.to);
            let row = Row { from: "from".into(), measured_at_unix_seconds, peers };
            let bytes = encode(&row);
            prop_assert_eq!(decode(&bytes), Ok(row));
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn what_comes_in_has_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let bytes = [&MAGIC[..], &[0; 8], b"\x01a", &bytes].concat();
            if let Ok(row) = decode(&bytes) {
                prop_assert_eq!(encode(&row), bytes);
            }
        }
    }

    #[test]
    fn what_is_no_row_is_named() {
        let empty = encode(&Row { from: "a".into(), measured_at_unix_seconds: 7.0, peers: Vec::new() });
        assert_eq!(decode(b"KLPR\x02"), Err(RowError::Format));
        assert_eq!(decode(&empty[..empty.len() - 1]), Err(RowError::Short));
        assert_eq!(decode(&[&empty[..], b"x"].concat()), Err(RowError::Long(1)));
        let with_count = |count: &[u8]| decode(&[&empty[..empty.len() - 1], count].concat());
        assert_eq!(with_count(&[0x80, 0]), Err(RowError::Number), "two bytes for zero");
        assert_eq!(with_count(&[0xff; 10]), Err(RowError::Number));
        assert_eq!(with_count(&[0x81, 0x80, 0x04]), Err(RowError::Number), "more peers than there are");
        assert_eq!(with_count(&[1, 1, 1, b'x', 0, 0, 0, 0]), Err(RowError::Name), "shares a byte with nothing");
        assert_eq!(with_count(&[1, 0, 0, 0, 0, 0, 0]), Err(RowError::Name), "no name");
    }
}
