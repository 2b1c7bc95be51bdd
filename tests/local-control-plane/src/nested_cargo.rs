//! The cargo that built us, started again from a program that it runs.

use std::process::Command;

/// The cargo that built us, as a person would start it.
///
/// The variables that cargo sets for the programs it runs are removed: some build scripts run again
/// whenever they change, and everything that depends on their crates is rebuilt.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_told_by_cargo) {
            command.env_remove(name);
        }
    }
    command
}

fn is_told_by_cargo(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
        || matches!(name, "CARGO" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_user_are_passed_on() {
        assert!(is_told_by_cargo("CARGO_PKG_VERSION"));
        assert!(!is_told_by_cargo("CARGO_TARGET_DIR"));
        assert!(!is_told_by_cargo("CARGO_HOME"));
    }
}
