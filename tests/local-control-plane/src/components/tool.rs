//! Runs the package clients that make components.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use super::ComponentsError;

/// As much of a failed tool's output as helps: the end, where errors are.
const SHOWN_LINES: usize = 40;

/// Runs `command` to its end and gives back its standard output. `what` completes "failed to";
/// `install` says how to come by the tool.
///
/// # Errors
/// Where the tool is missing or fails; the error has the end of its output.
pub fn run(command: &mut Command, what: &str, install: &'static str) -> Result<String, ComponentsError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(ComponentsError::NoTool { tool, install }),
        Err(source) => return Err(ComponentsError::Run { tool, source }),
    };
    let standard_output = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(standard_output);
    }
    let all = format!("{standard_output}{}", String::from_utf8_lossy(&output.stderr));
    Err(ComponentsError::Tool { what: what.to_owned(), tool, status: output.status, output: last_lines(&all) })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_itself_and_the_remedy() {
        let error = run(&mut Command::new("no-such-tool"), "build", "install it").unwrap_err();
        assert_eq!(error.to_string(), "failed to find the tool no-such-tool: install it");
    }

    #[test]
    fn a_failure_shows_the_end_of_the_output() {
        let error = run(Command::new("sh").args(["-c", "seq 100; echo wrong >&2; exit 3"]), "count", "").unwrap_err().to_string();
        assert!(error.starts_with("failed to count: sh ended with exit status: 3\n"), "{error}");
        assert!(error.ends_with("100\nwrong"), "{error}");
        assert!(!error.contains("\n50\n"), "{error}");
    }
}
