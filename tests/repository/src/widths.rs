//! How long the README is, and how wide lines are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::{rust_source, tree};

/// The widest that a line of a comment may be, in columns.
pub const COMMENT_COLUMNS: usize = 100;
/// The widest that a line of a README or a document may be, in columns.
pub const DOCUMENT_COLUMNS: usize = 120;
/// The longest that the README may be, in lines.
pub const README_LINES: usize = 90;

/// A package or another part of the tree, and how many of its lines are too wide.
pub type Counts = BTreeMap<String, usize>;

/// Comments that are too wide, by part of the tree. Parts with none are not listed.
#[must_use]
pub fn wide_comments() -> Counts {
    let mut counts = Counts::new();
    for path in tree::files_below(tree::root(), &["rs"]) {
        let text = tree::read(&path);
        let wide = text.lines().filter(|line| rust_source::is_comment(line) && columns(line) > COMMENT_COLUMNS).count();
        add(&mut counts, &path, wide);
    }
    counts
}

/// Lines of Markdown that are too wide, by part of the tree. Tables and code, which cannot be
/// broken, do not count.
#[must_use]
pub fn wide_document_lines() -> Counts {
    let mut counts = Counts::new();
    for path in tree::files_below(tree::root(), &["md"]) {
        let text = tree::read(&path);
        let mut fenced = false;
        let is_prose = |line: &&str| {
            let is_fence = line.trim_start().starts_with("```");
            fenced ^= is_fence;
            !fenced && !is_fence && !line.starts_with('|')
        };
        let wide = text.lines().filter(is_prose).filter(|line| columns(line) > DOCUMENT_COLUMNS).count();
        add(&mut counts, &path, wide);
    }
    counts
}

fn columns(line: &str) -> usize {
    line.chars().count()
}

fn add(counts: &mut Counts, path: &Path, wide: usize) {
    if wide > 0 {
        *counts.entry(part_of(path)).or_insert(0) += wide;
    }
}

/// The package that a file belongs to, as its folder; `.` for what is in none.
fn part_of(path: &Path) -> String {
    let package = path.ancestors().skip(1).find(|folder| tree::root().join(folder).join("Cargo.toml").exists());
    package.filter(|folder| !folder.as_os_str().is_empty()).map_or_else(|| ".".to_owned(), |folder| folder.display().to_string())
}

/// Reads counts from lines of `count part`. Lines that begin with `#` are comments.
///
/// # Errors
/// With the line that is neither.
pub fn parse(text: &str) -> Result<Counts, String> {
    let is_count = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    text.lines()
        .filter(is_count)
        .map(|line| {
            let (count, part) = line.split_once(' ').ok_or_else(|| line.to_owned())?;
            Ok((part.to_owned(), count.parse().map_err(|_| line.to_owned())?))
        })
        .collect()
}

/// Writes counts down as [`parse`] reads them.
#[must_use]
pub fn format(comment: &str, counts: &Counts) -> String {
    let mut text = String::new();
    for line in comment.lines() {
        let _ = writeln!(text, "# {line}");
    }
    for (part, count) in counts.iter().filter(|(_, count)| **count > 0) {
        let _ = writeln!(text, "{count} {part}");
    }
    text
}

/// What there is more of than is allowed. A part that is not among the allowed may have none.
#[must_use]
pub fn exceeding(allowed: &Counts, found: &Counts) -> Vec<String> {
    let limit = |part: &str| allowed.get(part).copied().unwrap_or(0);
    let over = found.iter().filter(|(part, count)| **count > limit(part));
    over.map(|(part, count)| format!("{part}: {count} lines are too wide, {} are allowed", limit(part))).collect()
}

/// The counts to allow from now on: what there is now, unless that is more in all than before. When
/// code moves between packages, its wide lines move with it.
#[must_use]
pub fn tightened(allowed: &Counts, found: &Counts) -> Option<Counts> {
    (found.values().sum::<usize>() <= allowed.values().sum()).then(|| found.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMENTS: &str = "How many lines of comments are wider than 100 columns, by package. The goal is none, and no count\n\
        may rise. `KANTAI_BLESS=1 cargo test -p repository-checks --lib` writes down what there is now, unless\n\
        that is more in all.";
    const DOCUMENTS: &str = "How many lines of Markdown outside tables and code are wider than 120 columns, by package. The goal is none,\n\
        and no count may rise. `KANTAI_BLESS=1 cargo test -p repository-checks --lib` writes down what there is\n\
        now, unless that is more in all.";

    fn check(file: &str, comment: &str, found: &Counts) {
        let path = Path::new("tests/repository").join(file);
        let allowed = parse(&tree::read(&path)).unwrap();
        if std::env::var_os("KANTAI_BLESS").is_some() {
            let tightened = tightened(&allowed, found).expect("there are more lines that are too wide than before");
            std::fs::write(tree::root().join(&path), format(comment, &tightened)).unwrap();
            return;
        }
        assert_eq!(exceeding(&allowed, found), Vec::<String>::new(), "see {}", path.display());
    }

    #[test]
    fn no_more_comments_are_too_wide_than_before() {
        check("wide-comments.txt", COMMENTS, &wide_comments());
    }

    #[test]
    fn no_more_lines_of_documents_are_too_wide_than_before() {
        check("wide-documents.txt", DOCUMENTS, &wide_document_lines());
    }

    #[test]
    fn the_readme_is_short_and_narrow() {
        let text = tree::read(Path::new("README.md"));
        assert!(text.lines().count() <= README_LINES, "{} lines", text.lines().count());
        let wide: Vec<&str> = text.lines().filter(|line| columns(line) > DOCUMENT_COLUMNS).collect();
        assert_eq!(wide, Vec::<&str>::new());
    }

    #[test]
    fn a_count_may_fall_and_not_rise_and_a_new_part_starts_at_none() {
        let counts = |text| parse(text).unwrap();
        let allowed = counts("# comment\n3 crates/a\n2 crates/b\n");
        assert_eq!(exceeding(&allowed, &counts("3 crates/a\n1 crates/b\n")), Vec::<String>::new());
        let over = exceeding(&allowed, &counts("4 crates/a\n1 crates/new\n"));
        assert_eq!(over.len(), 2, "{over:?}");
        let moved = counts("1 crates/a\n3 crates/new\n");
        assert_eq!(tightened(&allowed, &moved), Some(moved.clone()));
        assert_eq!(tightened(&allowed, &counts("6 crates/a\n")), None);
        assert_eq!(parse(&format("c", &moved)).unwrap(), moved);
    }
}
