//! Nothing: what is tested is a package of Python (`crates/placement-python`), which cargo does not
//! know of.
