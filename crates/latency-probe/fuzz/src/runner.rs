//! Fuzzing without any tool: inputs that a parser understands, changed at random, and changed again
//! where it still understood them. No feedback from the code as cargo-fuzz has it, but it runs on
//! any compiler and as fast as the parsers themselves.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Longer than every seed.
const LONGEST_INPUT: usize = 2_048;
/// Changes pile up on an input for so long, then another is begun from.
const CHANGES_KEPT: u32 = 16;
/// So many inputs that were understood are kept to begin from, beside the seeds.
const POOL: usize = 64;
/// Values at which parsers go wrong.
const ODD_BYTES: [u8; 12] = [0, 1, 4, 5, 0x45, 0x7f, 0x80, 0x81, 0xff, b'0', b'"', b'\n'];
const ODD_NUMBERS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, u64::MAX];

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Inputs tried.
    pub(crate) executions: u64,
    /// Of these, inputs that the parser understood.
    pub(crate) understood: u64,
}

/// Runs a parser on `executions` inputs. `parser` says whether it understood one; inputs are made
/// of `words`.
///
/// # Errors
/// The input that it broke on.
pub(crate) fn run(
    parser: fn(&[u8]) -> bool,
    seeds: &[&[u8]],
    words: &[&[u8]],
    executions: u64,
    seed: u64,
) -> Result<Ran, Vec<u8>> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut input = Vec::with_capacity(LONGEST_INPUT);
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let (mut understood, mut begin_anew) = (0, true);
        for execution in 0..executions {
            if begin_anew || execution % u64::from(CHANGES_KEPT) == 0 {
                input.clear();
                input.extend_from_slice(begin(seeds, &pool, &mut rng));
            }
            for _ in 0..1 << rng.random_range(0..3) {
                change(&mut input, words, begin(seeds, &pool, &mut rng), &mut rng);
            }
            if parser(&input) {
                (understood, begin_anew) = (understood + 1, false);
                keep(&mut pool, &input, &mut rng);
            } else {
                // What was refused seldom becomes right again by more changes, but it may become
                // wrong in a worse way.
                begin_anew = rng.random();
            }
        }
        Ran { executions, understood }
    }));
    outcome.map_err(|_| input)
}

/// One of the seeds, or one that was understood.
fn begin<'input>(seeds: &[&'input [u8]], pool: &'input [Vec<u8>], rng: &mut SmallRng) -> &'input [u8] {
    let index = rng.random_range(0..(seeds.len() + pool.len()).max(1));
    seeds.get(index).copied().or_else(|| pool.get(index - seeds.len()).map(Vec::as_slice)).unwrap_or_default()
}

/// While there is room, all; then one in so many, in another's place.
fn keep(pool: &mut Vec<Vec<u8>>, input: &[u8], rng: &mut SmallRng) {
    if pool.len() < POOL {
        pool.push(input.to_vec());
    } else if rng.random_range(0..POOL) == 0 {
        let place = rng.random_range(0..POOL);
        pool[place].clear();
        pool[place].extend_from_slice(input);
    }
}

fn change(input: &mut Vec<u8>, words: &[&[u8]], other: &[u8], rng: &mut SmallRng) {
    let length = input.len();
    let at = rng.random_range(0..=length);
    match rng.random_range(0..14) {
        0 | 1 if at < length => input[at] ^= 1 << rng.random_range(0..8),
        2 if at < length => input[at] = rng.random(),
        3 if at < length => input[at] = ODD_BYTES[rng.random_range(0..ODD_BYTES.len())],
        4 => input.insert(at, rng.random()),
        5 if at < length => {
            input.drain(at..length.min(at + rng.random_range(1..9)));
        }
        6 if at < length => {
            let piece = input[at..length.min(at + rng.random_range(1..17))].to_vec();
            let to = rng.random_range(0..=length);
            input.splice(to..to, piece);
        }
        7 => input.truncate(at.max(1)),
        // A number, in place of one that may be there.
        8 if at < length => {
            let number = ODD_NUMBERS[rng.random_range(0..ODD_NUMBERS.len())].wrapping_add(rng.random_range(0..3)).wrapping_sub(1);
            let bytes = if rng.random() { number.to_be_bytes() } else { number.to_le_bytes() };
            let width = [1, 2, 4, 8][rng.random_range(0..4)];
            let piece = if rng.random() { &bytes[..width] } else { &bytes[8 - width..] };
            let end = length.min(at + width);
            input[at..end].copy_from_slice(&piece[..end - at]);
        }
        // A word, in between or over what is there.
        9 if !words.is_empty() => {
            let word = words[rng.random_range(0..words.len())];
            let end = if rng.random() { at } else { length.min(at + word.len()) };
            input.splice(at..end, word.iter().copied());
        }
        // From here on like another.
        10 => {
            let from = rng.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        // A part of another in between.
        11 => {
            let from = rng.random_range(0..=other.len());
            let piece = &other[from..other.len().min(from + rng.random_range(1..33))];
            input.splice(at..at, piece.iter().copied());
        }
        // Like for like, which keeps text what it is.
        12 | 13 => {
            let marks = || input.iter().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric());
            if let Some(nth) = marks().count().checked_sub(1)
                && let Some((index, byte)) = marks().nth(rng.random_range(0..=nth)).map(|(index, byte)| (index, *byte))
            {
                let (first, number) = match byte {
                    b'0'..=b'9' => (b'0', 10),
                    b'a'..=b'z' => (b'a', 26),
                    _ => (b'A', 26),
                };
                input[index] = first + rng.random_range(0..number);
            }
        }
        _ => input.extend_from_slice(&rng.next_u32().to_ne_bytes()[..2]),
    }
    input.truncate(LONGEST_INPUT);
}
