//! The reference of a program's command line, made of what the program itself says.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tree;

/// Compares `docs/cli/NAME.md` with what `program` says of itself, and writes the page anew where
/// `KANTAI_BLESS` is set.
///
/// # Panics
/// Where they differ, or the program does not print its help.
pub fn check(program: &Path, name: &str) {
    let page = Path::new("docs/cli").join(name).with_extension("md");
    let reference = reference(program, name);
    if std::env::var_os("KANTAI_BLESS").is_some() {
        std::fs::write(tree::root().join(&page), reference)
            .unwrap_or_else(|error| panic!("failed to write {}: {error}", page.display()));
        return;
    }
    let page_text = tree::read(&page);
    assert!(
        page_text == reference,
        "{} is not what {name} says; set KANTAI_BLESS=1 and run this test again. The program says:\n{reference}",
        page.display()
    );
}

/// The help of the program and of each of its commands, as Markdown.
fn reference(program: &Path, name: &str) -> String {
    let mut text =
        format!("# {name}\n\nMade from `{name} --help`; a test compares the two. Flags win over environment variables.\n");
    add_sections(&mut text, program, name, &[]);
    text
}

/// The section of one command, and those of its own commands after it.
fn add_sections(text: &mut String, program: &Path, title: &str, path: &[&str]) {
    let help = help(program, path);
    section(text, title, &help);
    for command in commands(&help) {
        add_sections(text, program, &format!("{title} {command}"), &[path, &[command]].concat());
    }
}

fn section(text: &mut String, title: &str, help: &str) {
    let _ = write!(text, "\n## `{title}`\n\n```text\n");
    for line in help.trim().lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str("```\n");
}

fn help(program: &Path, command: &[&str]) -> String {
    // Help shows what the environment sets, which must not get into the reference.
    let child = Command::new(program).args(command).arg("--help").env_clear().stdout(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("failed to start {}: {error}", program.display()));
    let pid = child.id();
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("failed to read from {}: {error}", program.display()));
    assert!(output.status.success(), "{} {command:?} --help: {}", program.display(), output.status);
    // A default may be made of the process's number.
    String::from_utf8_lossy(&output.stdout).replace(&format!("-{pid}]"), "-PID]")
}

/// The commands that a help text lists, but for `help` itself.
fn commands(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_from_the_list_and_not_from_their_descriptions() {
        let help = "Does it.\n\nUsage: it\n\nCommands:\n  run   Runs it\n        for long\n  help  Help\n\nOptions:\n  -h\n";
        assert_eq!(commands(help), ["run"]);
    }
}
