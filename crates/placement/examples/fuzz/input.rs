//! Input from a seed, or from bytes.

use placement::NodeName;
use placement::latency::synthetic::Random;

/// A source of hostile values.
pub(crate) enum Input<'a> {
    Seed(Random),
    /// What is beyond these bytes is zero.
    Bytes(&'a [u8]),
}

/// Numbers at which something might break.
const ODD: [f64; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-9,
    1e-12,
    1e12,
    1e300,
    -1e300,
    f64::MAX,
    f64::MIN_POSITIVE,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];

#[allow(dead_code, reason = "one program has seeds, the other bytes")]
impl<'a> Input<'a> {
    pub(crate) fn new(seed: u64) -> Self {
        Self::Seed(Random::new(seed))
    }

    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        match self {
            Self::Seed(random) => random.below(count),
            // Few bytes for few choices, so that a changed byte changes one choice.
            Self::Bytes(_) if count <= 256 => self.next(1) as usize % count.max(1),
            Self::Bytes(_) => (self.next(8) % count as u64) as usize,
        }
    }

    /// The next so many bytes, at most eight, as a number.
    fn next(&mut self, count: usize) -> u64 {
        let Self::Bytes(bytes) = self else { return 0 };
        let (taken, rest) = bytes.split_at(count.min(bytes.len()));
        *bytes = rest;
        taken.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        match self {
            Self::Seed(random) => random.between(low, high),
            Self::Bytes(_) => low + (high - low) * self.next(2) as f64 / 65_536.0,
        }
    }

    pub(crate) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn bits(&mut self) -> u64 {
        match self {
            Self::Seed(random) => random.bits(),
            Self::Bytes(_) => self.next(8),
        }
    }

    /// Mostly a likely number, at times an odd one or any bits at all.
    pub(crate) fn number(&mut self, likely: f64) -> f64 {
        match self.below(12) {
            0 => ODD[self.below(ODD.len())],
            1 => f64::from_bits(self.bits()),
            2 => likely,
            _ => self.between(0.0, likely),
        }
    }

    /// A number that is finite and not negative.
    pub(crate) fn amount(&mut self, likely: f64) -> f64 {
        let number = self.number(likely);
        if number.is_finite() && number >= 0.0 { number } else { self.between(0.0, likely) }
    }

    pub(crate) fn count(&mut self, likely: u32) -> u32 {
        match self.below(24) {
            0 => u32::MAX,
            1 => self.bits() as u32,
            _ => self.below(likely as usize + 1) as u32,
        }
    }

    /// One of a few names.
    pub(crate) fn name(&mut self, of: usize) -> NodeName {
        NodeName::new(format!("n{}", self.below(of)))
    }

    /// A text with a few bytes changed, doubled, cut out, or replaced by odd JSON.
    pub(crate) fn mutated(&mut self, text: &str) -> Vec<u8> {
        const SCRAPS: [&str; 12] =
            ["null", "-1", "1e999", "\"\"", "[]", "{}", "NaN", "0.0000000001", "18446744073709551616", ",", "\u{0}", "[[["];
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len().max(1));
            let end = (at + self.below(12)).min(bytes.len());
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = self.bits() as u8,
                1 => drop(bytes.drain(at.min(end)..end)),
                2 => {
                    let part = bytes[at.min(end)..end].to_vec();
                    bytes.splice(at..at, part);
                }
                3 => {
                    let scrap = SCRAPS[self.below(SCRAPS.len())].bytes();
                    bytes.splice(at.min(end)..end, scrap);
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }
}
