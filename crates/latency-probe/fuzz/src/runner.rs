//! Fuzzing without any tool: inputs that a parser understands, changed at random. No feedback from the code as cargo-fuzz has it, but
//! it runs on any compiler and as fast as the parsers themselves.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

const LONGEST_INPUT: usize = 1_024;
/// Changes pile up on an input for so long, then it begins from a seed again.
const CHANGES_KEPT: u32 = 16;
/// Values at which parsers go wrong.
const ODD_BYTES: [u8; 12] = [0, 1, 4, 5, 0x45, 0x7f, 0x80, 0x81, 0xff, b'0', b'"', b'\n'];

/// Runs a parser on so many inputs.
///
/// # Errors
/// The input that it broke on.
pub(crate) fn run(parser: fn(&[u8]), seeds: &[&[u8]], executions: u64, seed: u64) -> Result<u64, Vec<u8>> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut input = Vec::with_capacity(LONGEST_INPUT);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for execution in 0..executions {
            if execution % u64::from(CHANGES_KEPT) == 0 {
                input.clear();
                if let Some(seed) = seeds.get(rng.random_range(0..seeds.len().max(1))) {
                    input.extend_from_slice(seed);
                }
            }
            for _ in 0..rng.random_range(1..4) {
                change(&mut input, &mut rng);
            }
            parser(&input);
        }
    }));
    outcome.map(|()| executions).map_err(|_| input)
}

fn change(input: &mut Vec<u8>, rng: &mut SmallRng) {
    let length = input.len();
    let at = rng.random_range(0..=length);
    match rng.random_range(0..8) {
        0 | 1 if at < length => input[at] ^= 1 << rng.random_range(0..8),
        2 if at < length => input[at] = rng.random(),
        3 if at < length => input[at] = ODD_BYTES[rng.random_range(0..ODD_BYTES.len())],
        4 if length < LONGEST_INPUT => input.insert(at, rng.random()),
        5 if at < length => {
            input.drain(at..length.min(at + rng.random_range(1..9)));
        }
        6 if at < length && length < LONGEST_INPUT / 2 => {
            let piece = input[at..length.min(at + rng.random_range(1..17))].to_vec();
            let to = rng.random_range(0..=length);
            input.splice(to..to, piece);
        }
        7 => input.truncate(at.max(1)),
        _ => input.extend(rng.random::<[u8; 2]>()),
    }
    input.truncate(LONGEST_INPUT);
}
