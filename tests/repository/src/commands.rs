//! Cargo commands in documents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::tree;

/// Commands that cargo or a common plugin has.
const KNOWN: [&str; 11] = ["add", "bench", "build", "clippy", "deny", "doc", "fmt", "fuzz", "run", "rustc", "test"];

/// What a command names that is to exist.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The subcommand, or an alias.
    pub subcommand: String,
    /// The package, if one is named.
    pub package: Option<String>,
    /// Targets: a kind (`example`, `bin`, `test`, `bench`) and a name.
    pub targets: Vec<(String, String)>,
}

/// The cargo commands in `markdown`: in fenced blocks, one per line, and between backticks.
#[must_use]
pub fn commands(markdown: &str) -> Vec<Command> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let line = line.trim_start_matches(['$', '#', ' ']);
            found.extend(command(line.split(" #").next().unwrap_or(line)));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).filter_map(command));
        }
    }
    found
}

/// Reads one command; nothing if it is another program's, or none.
fn command(text: &str) -> Option<Command> {
    let mut words = text.split_whitespace().skip_while(|word| word.contains('=')).peekable();
    if words.next() != Some("cargo") {
        return None;
    }
    let mut command = Command { subcommand: words.find(|word| !word.starts_with('+'))?.to_owned(), ..Command::default() };
    while let Some(word) = words.next() {
        match word {
            "--" => break,
            "-p" | "--package" => command.package = words.next().map(str::to_owned),
            "--example" | "--bin" | "--test" | "--bench" => {
                let kind = word.trim_start_matches('-').to_owned();
                command.targets.extend(words.next().map(|name| (kind, name.to_owned())));
            }
            _ => {}
        }
    }
    Some(command)
}

/// What a command names and does not exist. Words in capitals stand for any name.
#[must_use]
pub fn missing(command: &Command, aliases: &str, packages: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let mut missing = Vec::new();
    let stands_for_any = |name: &str| name.chars().all(|c| !c.is_ascii_lowercase());
    let is_alias = aliases.lines().any(|line| line.split(" = ").next() == Some(&command.subcommand));
    if !KNOWN.contains(&command.subcommand.as_str()) && !is_alias {
        missing.push(format!("cargo {}", command.subcommand));
    }
    let Some(package) = command.package.as_deref().filter(|name| !stands_for_any(name)) else { return missing };
    let Some(folder) = packages.get(package) else {
        missing.push(format!("package {package}"));
        return missing;
    };
    for (kind, name) in command.targets.iter().filter(|(_, name)| !stands_for_any(name)) {
        let targets = match kind.as_str() {
            "bin" if name == package => continue,
            "bin" => "src/bin",
            "example" => "examples",
            "bench" => "benches",
            _ => "tests",
        };
        if !folder_has(&tree::root().join(folder).join(targets), name) {
            missing.push(format!("{kind} {name} of {package} ({})", folder.display()));
        }
    }
    missing
}

fn folder_has(folder: &Path, name: &str) -> bool {
    folder.join(name).with_extension("rs").exists() || folder.join(name).join("main.rs").exists()
}

/// The packages of the repository by name, each with its folder.
#[must_use]
pub fn packages() -> BTreeMap<String, PathBuf> {
    let manifests = tree::files_below(tree::root(), &["toml"]);
    let manifests = manifests.into_iter().filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml"));
    let named = manifests.filter_map(|path| {
        let text = tree::read(&path);
        let package = text.split("[package]").nth(1)?;
        let line = package.lines().find(|line| line.starts_with("name = "))?;
        Some((line.split('"').nth(1)?.to_owned(), path.parent()?.to_owned()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_commands_in_documents_name_what_exists() {
        let aliases = tree::read(Path::new(".cargo/config.toml"));
        let packages = packages();
        let mut count = 0;
        let mut all_missing = Vec::new();
        for path in tree::files_below(tree::root(), &["md"]) {
            for command in commands(&tree::read(&path)) {
                count += 1;
                let missing = missing(&command, &aliases, &packages);
                all_missing.extend(missing.into_iter().map(|what| format!("{}: {what}", path.display())));
            }
        }
        assert!(count > 30, "{count} commands were found");
        assert_eq!(all_missing, Vec::<String>::new());
    }

    #[test]
    fn commands_are_read_with_their_package_and_targets() {
        let text = "`A=1 cargo run --release -p one --example two -- --bin no` and `cargo-deny`\n```console\n\
            # cargo lab -- up   # cargo no\n$ cargo +nightly fuzz run x\nls\n```\n";
        let command = |subcommand: &str, package: Option<&str>, targets: &[(&str, &str)]| Command {
            subcommand: subcommand.to_owned(),
            package: package.map(str::to_owned),
            targets: targets.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect(),
        };
        let expected =
            [command("run", Some("one"), &[("example", "two")]), command("lab", None, &[]), command("fuzz", None, &[])];
        assert_eq!(commands(text), expected);
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let packages = BTreeMap::from([("one".to_owned(), PathBuf::from("tests/repository"))]);
        let of = |text: &str| missing(&command(text).unwrap(), "lab = \"run\"", &packages);
        assert_eq!(of("cargo lab"), Vec::<String>::new());
        assert_eq!(of("cargo run -p PART --example scorecard"), Vec::<String>::new());
        assert_eq!(of("cargo frob"), ["cargo frob"]);
        assert_eq!(of("cargo run -p two"), ["package two"]);
        assert_eq!(of("cargo test -p one --test gone"), ["test gone of one (tests/repository)"]);
    }
}
