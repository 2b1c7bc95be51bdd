//! Rust sources as far as these checks need them: what is a comment, and which string literals
//! there are.

/// A string literal and the code around it on the way to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Literal<'a> {
    /// What is between the quotes, escapes as they are written.
    pub text: &'a str,
    /// The code before it, back to the beginning of the file.
    pub before: &'a str,
    /// The code after it.
    pub after: &'a str,
}

/// `source` without its unit tests, which by the custom of this repository end the file, and
/// without lines that are comments.
#[must_use]
pub fn without_tests_and_comments(source: &str) -> String {
    let end = source.find("\n#[cfg(test)]\nmod ").unwrap_or(source.len());
    source[..end].lines().filter(|line| !is_comment(line)).fold(String::new(), |mut text, line| {
        text.push_str(line);
        text.push('\n');
        text
    })
}

/// Whether a line is a comment as a whole.
#[must_use]
pub fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The ordinary string literals in `code`. Raw strings are not among them.
#[must_use]
pub fn literals(code: &str) -> Vec<Literal<'_>> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\'' if bytes.get(at + 1) == Some(&b'"') => at += 3,
            b'\'' if bytes.get(at + 1) == Some(&b'\\') => at += 4,
            b'r' if bytes[at..].starts_with(b"r#\"") => {
                at = code[at + 3..].find("\"#").map_or(bytes.len(), |end| at + 3 + end + 2);
            }
            b'"' => {
                let begin = at + 1;
                let mut end = begin;
                while end < bytes.len() && bytes[end] != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                let end = end.min(bytes.len());
                if let (Some(text), Some(after)) = (code.get(begin..end), code.get(end + 1..)) {
                    found.push(Literal { text, before: &code[..at], after });
                }
                at = end + 1;
            }
            _ => at += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found_with_escapes_and_beside_quotes_in_characters() {
        let code = r####"f("a\"b", '"', r#"raw "x""#, '\'', "c");"####;
        let texts: Vec<&str> = literals(code).iter().map(|literal| literal.text).collect();
        assert_eq!(texts, [r#"a\"b"#, "c"]);
    }

    #[test]
    fn tests_and_comments_are_left_out() {
        let source = "//! x\nfn a() {} // \"kept\"\n    // \"gone\"\n\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(without_tests_and_comments(source), "fn a() {} // \"kept\"\n");
    }
}
