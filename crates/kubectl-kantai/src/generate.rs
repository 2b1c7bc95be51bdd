//! What is made of the command line itself: completions and manual pages.

use std::io::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::error::PluginError;
use crate::options::{CompleteOptions, CompletionOf, CompletionOptions, ManOptions, Options};
use crate::output::Output;

/// As what the shells know the program.
const PROGRAM: &str = "kubectl-kantai";
/// What kubectl runs to complete `kubectl kantai ...`, if it finds it on the path.
const FOR_KUBECTL: &str = "#!/bin/sh\n# kubectl runs this to complete `kubectl kantai`. Save it as kubectl_complete-kantai on the path.\n\
    exec kubectl-kantai complete -- \"$@\"\n";
/// Tells kubectl not to propose files.
const NO_FILES: &str = ":4";

/// Prints a script of completions.
pub(crate) fn completion(options: CompletionOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    let mut script = Vec::new();
    match options.shell {
        CompletionOf::Kubectl => script.extend_from_slice(FOR_KUBECTL.as_bytes()),
        CompletionOf::Bash => clap_complete::generate(clap_complete::Shell::Bash, &mut Options::command(), PROGRAM, &mut script),
        CompletionOf::Zsh => clap_complete::generate(clap_complete::Shell::Zsh, &mut Options::command(), PROGRAM, &mut script),
        CompletionOf::Fish => clap_complete::generate(clap_complete::Shell::Fish, &mut Options::command(), PROGRAM, &mut script),
        CompletionOf::Powershell => {
            clap_complete::generate(clap_complete::Shell::PowerShell, &mut Options::command(), PROGRAM, &mut script);
        }
    }
    Ok(out.ours(&script)?)
}

/// Prints what kubectl may propose after the words so far, of which the last is being typed.
pub(crate) fn complete(options: &CompleteOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    for candidate in candidates(&Options::command(), &options.words) {
        out.line(&candidate)?;
    }
    Ok(out.line(NO_FILES)?)
}

/// The commands, flags and values that the last word may become.
fn candidates(root: &Command, words: &[String]) -> Vec<String> {
    let (last, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut root = root.clone();
    root.build();
    let mut command = &root;
    for word in before {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let values = before.last().and_then(|flag| {
        let long = flag.strip_prefix("--");
        let short = flag.strip_prefix('-').and_then(|rest| rest.chars().next());
        let is_it = |argument: &&clap::Arg| {
            long.map_or(argument.get_short() == short && short.is_some(), |long| argument.get_long() == Some(long))
        };
        let argument = command.get_arguments().find(is_it)?;
        argument.get_action().takes_values().then(|| argument.get_possible_values())
    });
    let all: Vec<String> = match values {
        Some(values) => values.iter().map(|value| value.get_name().to_owned()).collect(),
        None if last.starts_with('-') => command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
            .collect(),
        None => command.get_subcommands().filter(|one| !one.is_hide_set()).map(|one| one.get_name().to_owned()).collect(),
    };
    all.into_iter().filter(|candidate| candidate.starts_with(last)).collect()
}

/// Prints the manual page, or writes one per command into a folder.
pub(crate) fn man(options: &ManOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    match &options.folder {
        Some(folder) => Ok(write_pages(folder)?),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Options::command()).render(&mut page)?;
            Ok(out.ours(&page)?)
        }
    }
}

fn write_pages(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Options::command(), folder)?;
    std::io::stderr().flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(words: &str) -> Vec<String> {
        candidates(&Options::command(), &words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn printed(write: impl FnOnce(&mut Output<'_>) -> Result<(), PluginError>) -> String {
        let mut bytes = Vec::new();
        write(&mut Output::new(&mut bytes, false)).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn scripts_and_pages_know_the_commands() {
        for shell in [CompletionOf::Bash, CompletionOf::Zsh, CompletionOf::Fish, CompletionOf::Powershell] {
            let script = printed(|out| completion(CompletionOptions { shell }, out));
            assert!(script.contains("kubectl-kantai") && script.contains("hand-back"), "{shell:?}");
        }
        let script = printed(|out| completion(CompletionOptions { shell: CompletionOf::Kubectl }, out));
        assert!(script.starts_with("#!/bin/sh\n") && script.contains("exec kubectl-kantai complete"), "{script}");
        let words = ["rou".to_owned()].to_vec();
        assert_eq!(printed(|out| complete(&CompleteOptions { words }, out)), "routes\n:4\n");
        assert!(printed(|out| man(&ManOptions { folder: None }, out)).contains(".TH"));
    }

    #[test]
    fn commands_flags_and_values_are_proposed_where_they_fit() {
        assert_eq!(proposed("ex"), ["explain"]);
        assert!(proposed("").contains(&"status".to_owned()) && !proposed("").contains(&"complete".to_owned()));
        assert_eq!(proposed("check --pr"), ["--pre", "--prometheus-url"]);
        assert_eq!(proposed("status -o "), ["text", "json"]);
        assert_eq!(proposed("status --output j"), ["json"]);
        assert!(proposed("status --cont").contains(&"--context".to_owned()));
        assert_eq!(proposed("status -n "), Vec::<String>::new(), "nothing is known of namespaces here");
    }
}
