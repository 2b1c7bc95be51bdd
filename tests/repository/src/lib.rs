//! Checks of the repository as text. They read the working tree, build within seconds and need no
//! tool: `cargo test -p repository-checks --lib`.
//!
//! - [`links`]: relative links in Markdown lead somewhere.
//! - [`widths`]: the README stays short; the number of too wide comment lines may only fall.
//! - [`produced`]: the operator's page names every metric, condition and event that the code can
//!   produce.
//! - [`commands`]: cargo commands in documents name packages, targets and aliases that exist.
//! - [`cli`]: the reference of a command line is what the program says of itself.

pub mod cli;
pub mod commands;
pub mod links;
pub mod produced;
pub mod rust_source;
pub mod tree;
pub mod widths;
