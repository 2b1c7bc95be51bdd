//! Relative links in Markdown.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// A link that leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The file with the link, and the line.
    pub at: String,
    /// The target as it is written.
    pub target: String,
}

/// The targets of all inline links in `markdown` outside code, with their line numbers.
#[must_use]
pub fn targets(markdown: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in markdown.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // What is between backticks is code.
            let prose: Vec<&str> =
                line.split('`').enumerate().map(|(part, text)| if part % 2 == 0 { text } else { "" }).collect();
            let prose = prose.join("`");
            for part in prose.split("](").skip(1) {
                if let Some(end) = part.find(')') {
                    let target = part[..end].split_whitespace().next().unwrap_or_default();
                    found.push((number + 1, target.to_owned()));
                }
            }
        }
    }
    found
}

/// The anchors that a forge makes of the headings in `markdown`.
#[must_use]
pub fn anchors(markdown: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            anchors.insert(anchor(line.trim_start_matches('#').trim()));
        }
    }
    anchors
}

fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The links of the file at `path` that lead nowhere. `exists` and `read` see the repository.
pub fn broken(path: &Path, markdown: &str, exists: impl Fn(&Path) -> bool, read: impl Fn(&Path) -> String) -> Vec<Broken> {
    let leads_somewhere = |target: &str| {
        if target.contains("://") || target.starts_with("mailto:") {
            return true;
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() { path.to_owned() } else { beside(path, file) };
        let has_heading = || {
            let is_markdown = file.extension().is_some_and(|extension| extension == "md");
            heading.is_empty() || !is_markdown || anchors(&read(&file)).contains(heading)
        };
        exists(&file) && has_heading()
    };
    let broken = |(line, target): (usize, String)| Broken { at: format!("{}:{line}", path.display()), target };
    targets(markdown).into_iter().filter(|(_, target)| !leads_somewhere(target)).map(broken).collect()
}

/// `target` as seen from the folder of the file at `path`.
fn beside(path: &Path, target: &str) -> PathBuf {
    let mut whole = path.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::Normal(part) => whole.push(part),
            _ => {}
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    #[test]
    fn relative_links_of_the_repository_lead_somewhere() {
        let root = tree::root();
        let files = tree::files_below(root, &["md"]);
        assert!(files.len() > 10, "{files:?}");
        let broken: Vec<_> =
            files.iter().flat_map(|path| broken(path, &tree::read(path), |file| root.join(file).exists(), tree::read)).collect();
        assert_eq!(broken, []);
    }

    #[test]
    fn every_document_is_on_the_site() {
        let folder = tree::root().join("docs");
        let listed: BTreeSet<String> =
            targets(&tree::read(Path::new("docs/SUMMARY.md"))).into_iter().map(|(_, target)| target).collect();
        let documents = tree::files_below(&folder, &["md"]).into_iter().map(|path| path.display().to_string());
        let missing: Vec<String> = documents.filter(|path| path != "SUMMARY.md" && !listed.contains(path)).collect();
        assert_eq!(missing, Vec::<String>::new(), "docs/SUMMARY.md does not list these");
    }

    #[test]
    fn a_link_to_nowhere_and_a_heading_that_is_not_there_are_found() {
        let text = "[a](b.md) [c](gone.md)\n[d](b.md#two-words)\n[e](b.md#three) [f](https://x.example/)\n`[g](h)`\n";
        let exists = |path: &Path| path == Path::new("docs/b.md");
        let read = |_: &Path| "## Two words!\n```\n# three\n```\n".to_owned();
        let found = broken(Path::new("docs/a.md"), text, exists, read);
        let expected = [("docs/a.md:1", "gone.md"), ("docs/a.md:3", "b.md#three")];
        assert_eq!(found, expected.map(|(at, target)| Broken { at: at.to_owned(), target: target.to_owned() }));
    }

    #[test]
    fn a_link_is_seen_from_the_folder_of_its_file() {
        assert_eq!(beside(Path::new("docs/a/b.md"), "../../README.md"), Path::new("README.md"));
        assert_eq!(beside(Path::new("README.md"), "docs/"), Path::new("docs"));
    }
}
