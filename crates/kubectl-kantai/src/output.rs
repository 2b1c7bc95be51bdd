//! What reaches the terminal: lines, tables and JSON without control characters of others.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::error::PluginError;

/// Where answers go.
pub(crate) struct Output<'a> {
    to: &'a mut dyn Write,
    pub(crate) is_terminal: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn new(to: &'a mut dyn Write, is_terminal: bool) -> Self {
        Self { to, is_terminal }
    }

    /// One line, cleaned.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.to, "{}", clean(text))
    }

    /// One line whose text is cleaned already, and may have colours of ours.
    pub(crate) fn coloured(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.to, "{text}")
    }

    /// What is made of our own program alone, such as a script.
    pub(crate) fn ours(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// Empties the terminal.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        write!(self.to, "\u{1b}[H\u{1b}[2J")
    }

    /// A table in kubectl's manner: columns and no lines between them.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING).set_header(head.iter().copied());
        for row in rows {
            table.add_row(row.iter().map(|cell| clean(cell).into_owned()));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        table.lines().try_for_each(|line| self.line(line.trim_end()))
    }

    /// A value as JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), PluginError> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        Ok(writeln!(self.to, "{}", escaped_json(&text))?)
    }
}

/// Whether a character acts on a terminal instead of being shown, or changes the order in which
/// others are shown.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Text with every character that acts on a terminal written as its escape.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        if acts(character) {
            cleaned.extend(character.escape_unicode());
        } else {
            cleaned.push(character);
        }
    }
    Cow::Owned(cleaned)
}

/// JSON whose strings hold no character that acts on a terminal: they are written as escapes, so
/// the value stays the same.
fn escaped_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        // Line feeds are between values; those in strings are escaped already.
        if character != '\n' && acts(character) {
            // All of them are in the Basic Multilingual Plane. Writing to a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// A duration as kubectl writes ages: the largest unit, or two for small counts of it.
///
/// ```text
/// 45s, 3m20s, 15m, 5h10m, 2d
/// ```
pub(crate) fn age(seconds: i64) -> String {
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 > 0 => format!("{}m{}s", seconds / 60, seconds % 60),
        120..10_800 => format!("{}m", seconds / 60),
        10_800..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(write: impl FnOnce(&mut Output<'_>)) -> String {
        let mut bytes = Vec::new();
        write(&mut Output::new(&mut bytes, false));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn names_that_clear_the_screen_are_shown_as_they_are_written() {
        let evil = "node\u{1b}[2J\u{9b}1m\r\nline\u{202e}".to_owned();
        let line = printed(|out| out.line(&evil).unwrap());
        assert_eq!(line, "node\\u{1b}[2J\\u{9b}1m\\u{d}\\u{a}line\\u{202e}\n");
        let table = printed(|out| out.table(&["NAME", "READY"], &[vec![evil.clone(), "1/1".to_owned()]]).unwrap());
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.contains("\\u{1b}[2J") && !table.contains('\u{1b}'), "{table}");
        let json = printed(|out| out.json(&vec![&evil]).unwrap());
        assert!(!json.contains('\u{9b}') && json.contains("\\u009b"), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [evil]);
    }

    #[test]
    fn columns_stand_under_their_heads() {
        let table =
            printed(|out| out.table(&["NAME", "READY"], &[vec!["extra-controller".to_owned(), "1/1".to_owned()]]).unwrap());
        assert_eq!(table, "NAME               READY\nextra-controller   1/1\n");
    }

    #[test]
    fn ages_are_as_kubectl_writes_them() {
        assert_eq!([5, 119, 200, 600, 900, 18_600, 200_000].map(age), ["5s", "119s", "3m20s", "10m", "15m", "5h10m", "2d"]);
    }

    proptest! {
        #[test]
        fn nothing_that_acts_gets_out(text: String) {
            let line = printed(|out| out.line(&text).unwrap());
            prop_assert!(!line.trim_end_matches('\n').chars().any(acts));
            let json = printed(|out| out.json(&text).unwrap());
            prop_assert!(!json.trim_end_matches('\n').chars().any(acts));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
