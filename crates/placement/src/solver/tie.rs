//! A stable order among equals.

/// 64-bit FNV-1a over a seed and a name, finished with a mixer, so that equals are ordered the same
/// way in every process and on every platform, but neither by name nor the same way for every
/// service.
#[must_use]
pub(crate) fn stable_hash(seed: &str, name: &str) -> u64 {
    Seed::new(seed).hash(name)
}

/// A seed, for many names.
#[derive(Clone, Copy)]
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn new(seed: &str) -> Self {
        Self(extend(extend(0xcbf2_9ce4_8422_2325, seed.as_bytes()), &[0xff]))
    }

    pub(crate) fn hash(self, name: &str) -> u64 {
        mix(extend(self.0, name.as_bytes()))
    }
}

fn extend(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Spreads 64 bits so that neighbours end far apart (the finaliser of MurmurHash3).
#[must_use]
pub(crate) fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_depends_on_the_seed_and_not_on_the_alphabet() {
        let order = |seed: &str| {
            let mut names: Vec<String> = (0..9).map(|i| format!("node{i}")).collect();
            names.sort_by_key(|name| stable_hash(seed, name));
            names
        };
        assert_ne!(order("one"), order("two"));
        assert!(!order("one").is_sorted());
        assert_eq!(stable_hash("hello", "node1"), stable_hash("hello", "node1"));
    }
}
