//! Limits the probes per source that are answered. Memory is fixed: sources share a table of
//! buckets by a hash that cannot be predicted from outside. Pure: time is an argument.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::clock::Mono;

/// Few enough to be small, many enough that two sources rarely share one.
const BUCKETS: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f32,
    filled: Mono,
}

/// Token buckets by source.
#[derive(Debug)]
pub(super) struct Limiter {
    buckets: Box<[Bucket]>,
    hash: RandomState,
    per_second: f32,
}

impl Limiter {
    /// At most `per_second` probes of one source, which is also the burst; none if 0.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a limit need not be exact to the last of sixteen million")]
    pub(super) fn new(per_second: u32) -> Option<Self> {
        (per_second > 0).then(|| {
            let per_second = per_second as f32;
            let full = Bucket { tokens: per_second, filled: Mono::from_nanos(0) };
            Self { buckets: vec![full; BUCKETS].into(), hash: RandomState::new(), per_second }
        })
    }

    /// Takes a token of the source; false if there is none.
    pub(super) fn allows(&mut self, source: IpAddr, now: Mono) -> bool {
        let hash = match source {
            IpAddr::V4(address) => self.hash.hash_one(address),
            // An IPv6 host usually has 2^64 addresses.
            IpAddr::V6(address) => self.hash.hash_one(&address.octets()[..8]),
        };
        let index = usize::try_from(hash % BUCKETS as u64).unwrap_or(0);
        let Some(bucket) = self.buckets.get_mut(index) else { return false };
        bucket.tokens = (now.since(bucket.filled).as_secs_f32() * self.per_second + bucket.tokens).min(self.per_second);
        bucket.filled = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn millis(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_source_gets_its_rate_and_does_not_take_that_of_others() {
        let mut limiter = Limiter::new(100).unwrap();
        let allowed = (0..10_000).filter(|milli| limiter.allows([10, 0, 0, 1].into(), millis(1_000 + milli))).count();
        assert!((1_090..=1_110).contains(&allowed), "ten seconds and what was in the bucket: {allowed}");
        // Of a hundred others, hardly one shares the bucket.
        let others = (0..100).filter(|last| limiter.allows([10, 0, 1, *last].into(), millis(11_000))).count();
        assert!(others >= 97, "{others}");
        assert!(Limiter::new(0).is_none());
    }

    #[test]
    fn a_network_of_version_6_is_one_source() {
        let mut limiter = Limiter::new(10).unwrap();
        let addresses = (0..1_000).map(|host| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 7, 0, 0, 0, host)));
        assert_eq!(addresses.filter(|address| limiter.allows(*address, millis(1_000))).count(), 10);
    }
}
