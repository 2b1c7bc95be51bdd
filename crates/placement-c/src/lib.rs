//! The library `placement` for C, and for all that can call C.
//!
//! `include/kantai_placement.h` declares what is here; `docs/embed-c.md` shows it in use. Four
//! rules hold for all functions:
//!
//! - **Handles** are made by functions that end in `_new`, `_from_...`, `_by_site`, `_solve` or
//!   `_plan`, and given back by the `_free` of their kind. Costs, problems and plans never change:
//!   several threads may use one at a time. A matrix or planner belongs to one thread at a time.
//!   Handles do not depend on each other's life: each keeps what it needs.
//! - **Errors** are statuses. Where the last argument `error` is not NULL, it gets a text in
//!   English, or NULL where all went well; the caller gives the text back by `kantai_string_free`.
//!   No text belongs to a thread, so that languages which move their work between threads lose
//!   none.
//! - **Nothing panics across the border.** A panic becomes `KANTAI_STATUS_PANIC`; that is a fault
//!   of this library. Results are written only where the status is `KANTAI_STATUS_OK`.
//! - **Unknown is a value of its own**: NaN where a number is expected, `KANTAI_PAIR_UNKNOWN` as
//!   a state, `KANTAI_NO_POSITION` for a node that is not listed. It is never 0, and never better
//!   than what is known.
//!
//! # Safety
//!
//! A pointer is NULL, where its function says that it may be, or points to as many properly aligned
//! objects as the count beside it says. Texts end with a zero byte. Handles are those that this
//! library made and nobody has given back. Buffers for results overlap nothing else. NULL where it
//! is not allowed, unaligned pointers, counts that cannot be, and text that is not UTF-8 are
//! refused with a status; all else cannot be seen from here.
#![allow(unsafe_code, reason = "C hands over raw pointers; `edge` is where they are looked at")]
#![allow(clippy::too_many_arguments, reason = "a list is two arguments in C, and a result one more")]
#![allow(clippy::missing_safety_doc, reason = "the same contract holds for all functions: see above")]

mod costs;
mod edge;
mod matrix;
mod plan;
mod problem;
mod score;

pub use costs::*;
pub use edge::{KantaiStatus, kantai_string_free};
pub use matrix::*;
pub use plan::*;
pub use problem::*;
pub use score::*;

/// The version of this interface. It rises with every change that a compiled caller would notice.
pub const KANTAI_ABI_VERSION: u32 = 1;

/// The version of the library that is linked. A caller should refuse to go on where this is not the
/// KANTAI_ABI_VERSION that it was compiled with.
#[unsafe(no_mangle)]
pub extern "C" fn kantai_abi_version() -> u32 {
    KANTAI_ABI_VERSION
}
