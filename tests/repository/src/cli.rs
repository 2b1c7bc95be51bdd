//! The reference of a program's command line, made of what the program itself says.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tree;

/// Compares `docs/cli/NAME.md` with the help of the daemon `program`, or writes the page if
/// `KANTAI_BLESS` is set. Every flag must have a help text and an environment variable.
///
/// # Panics
/// Where they differ, a flag lacks one of the two, or the program does not print its help.
pub fn check(program: &Path, name: &str) {
    compare(program, name, true);
}

/// The same for a program that people start by hand: its flags need no environment variable.
///
/// # Panics
/// Where they differ, a flag lacks a help text, or the program does not print its help.
pub fn check_tool(program: &Path, name: &str) {
    compare(program, name, false);
}

fn compare(program: &Path, name: &str, needs_variables: bool) {
    let page = Path::new("docs/cli").join(name).with_extension("md");
    let reference = reference(program, name);
    assert_eq!(
        incomplete_flags(&reference, needs_variables),
        Vec::<&str>::new(),
        "flags of {name} without a help text or variable"
    );
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

/// The flags in a reference that have no help text, or no environment variable where they need one.
fn incomplete_flags(reference: &str, needs_variables: bool) -> Vec<&str> {
    let lines: Vec<&str> = reference.lines().map(str::trim).collect();
    let begins = |line: &str| line.starts_with("--") || (line.starts_with('-') && line.contains(", --"));
    let starts = lines.iter().enumerate().filter(|(_, line)| begins(line)).map(|(index, _)| index);
    let incomplete = starts.filter(|start| {
        let more = lines[start + 1..].iter().take_while(|line| !begins(line) && !line.starts_with("```"));
        let text = std::iter::once(&lines[*start]).chain(more).copied().collect::<Vec<_>>().join(" ");
        let flag = text.split_once("--").map_or("", |(_, rest)| rest);
        let help = flag.split_once(' ').map_or("", |(_, help)| help.split("[env: ").next().unwrap_or(help));
        let is_builtin = flag.starts_with("help") || flag.starts_with("version");
        let has_variable = !needs_variables || text.contains("[env: ");
        let is_complete = has_variable && help.split_whitespace().count() > 2;
        !is_builtin && !is_complete
    });
    incomplete.map(|start| lines[start]).collect()
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
    fn a_flag_without_a_variable_or_a_help_text_is_found() {
        let listen = "      --listen <LISTEN>\n          Where to listen on [env: LISTEN=] [default: 1]\n";
        let others =
            "  -x, --silent <X>\n          [env: X=]\n      --bare  Does the same again\n  -h, --help  Print help\n```\n";
        assert_eq!(
            incomplete_flags(&format!("Options:\n{listen}{others}"), true),
            ["-x, --silent <X>", "--bare  Does the same again"]
        );
    }

    #[test]
    fn commands_are_read_from_the_list_and_not_from_their_descriptions() {
        let help = "Does it.\n\nUsage: it\n\nCommands:\n  run   Runs it\n        for long\n  help  Help\n\nOptions:\n  -h\n";
        assert_eq!(commands(help), ["run"]);
    }
}
