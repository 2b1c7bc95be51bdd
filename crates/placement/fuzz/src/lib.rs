//! The targets of the example `fuzz`, with inputs that libFuzzer makes.

#[path = "../../examples/fuzz/input.rs"]
mod input;
#[path = "../../examples/fuzz/targets.rs"]
mod targets;

use input::Input;

/// Runs a target on these bytes.
///
/// # Panics
/// When something happened that must not, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.expect("there is no such target");
    if let Err(finding) = target(&mut Input::of(data)) {
        panic!("{name}: {finding}");
    }
}
