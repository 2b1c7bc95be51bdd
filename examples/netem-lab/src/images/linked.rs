//! The libraries that a program is linked with.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ImagesError;
use local_control_plane::components::ComponentsError;

/// The libraries that `program` loads when it starts, its loader among them, at the paths where it
/// looks for them. None if it is static.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>, ImagesError> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output();
    let output = output.map_err(|source| ComponentsError::Run { tool: "ldd".to_owned(), source })?;
    // It ends with an error for a static program, and says why on standard error.
    parse(&String::from_utf8_lossy(&output.stdout))
        .map_err(|library| ImagesError::NoLibrary { program: program.to_owned(), library: library.to_owned() })
}

/// Reads what `ldd` prints; the name of a library that it did not find is the error.
fn parse(printed: &str) -> Result<Vec<PathBuf>, &str> {
    let mut found = Vec::new();
    for line in printed.lines().map(str::trim) {
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place.starts_with("not found") {
            return Err(name);
        }
        // The kernel's own library has no path.
        if let Some(path) = place.split_whitespace().next().filter(|path| path.starts_with('/')) {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_counts_and_the_kernels_library_does_not() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f1)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(printed).unwrap(), expected);
    }

    #[test]
    fn a_static_program_needs_nothing() {
        assert_eq!(parse("\tstatically linked\n"), Ok(Vec::new()));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn a_missing_library_is_named() {
        assert_eq!(parse("\tlibssl.so.3 => not found\n"), Err("libssl.so.3"));
    }
}
