//! What a suite says of its tests, line by line. Pure.
//!
//! A suite is a program made by `go test -c`, run with `-test.v=test2json`: what Go's test runner
//! says of a test begins with the control character SYN and comes as soon as it is so, in between
//! whatever the tests themselves print.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What stands before everything that Go's test runner itself says.
const MARK: char = '\u{16}';

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // The names say it.
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
        })
    }
}

/// Something that was said of a test, or of a part of one: `Test/part`.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// It begins. One that runs beside others soon pauses, until its turn has come.
    Began {
        /// Its name.
        name: String,
    },
    /// It waits for its turn.
    Paused {
        /// Its name.
        name: String,
    },
    /// Its turn has come.
    Continued {
        /// Its name.
        name: String,
    },
    /// It is over.
    Ended {
        /// Its name.
        name: String,
        /// How.
        outcome: Outcome,
        /// How long it took, without the time that it waited for its turn.
        seconds: f64,
    },
}

impl Line {
    /// The name of the test.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Line::Began { name } | Line::Paused { name } | Line::Continued { name } | Line::Ended { name, .. } => name,
        }
    }

    /// The same of a part of `test`, by the part's own name; nothing when it is about anything
    /// else.
    #[must_use]
    pub fn within(self, test: &str) -> Option<Self> {
        let part = |name: &str| Some(name.strip_prefix(test)?.strip_prefix('/')?.to_owned());
        Some(match self {
            Line::Began { name } => Line::Began { name: part(&name)? },
            Line::Paused { name } => Line::Paused { name: part(&name)? },
            Line::Continued { name } => Line::Continued { name: part(&name)? },
            Line::Ended { name, outcome, seconds } => Line::Ended { name: part(&name)?, outcome, seconds },
        })
    }
}

/// What `line` says, if it is about a test.
#[must_use]
pub fn read_line(line: &str) -> Option<Line> {
    let line = line.strip_prefix(MARK)?;
    if let Some((word, name)) = line.strip_prefix("=== ").and_then(|said| said.split_once(' ')) {
        let name = name.trim().to_owned();
        return match word {
            "RUN" => Some(Line::Began { name }),
            "PAUSE" => Some(Line::Paused { name }),
            "CONT" => Some(Line::Continued { name }),
            _ => None,
        };
    }
    let (word, rest) = line.strip_prefix("--- ")?.split_once(": ")?;
    let outcome = match word {
        "PASS" => Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "SKIP" => Outcome::Skipped,
        _ => return None,
    };
    let (name, seconds) = rest.trim_end().rsplit_once(" (")?;
    let seconds: f64 = seconds.strip_suffix("s)")?.parse().ok()?;
    Some(Line::Ended { name: name.to_owned(), outcome, seconds })
}

/// What is known of the tests so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    ended: BTreeMap<String, (Outcome, f64)>,
}

impl Results {
    /// Notes what was said.
    pub fn take(&mut self, line: Line) {
        if let Line::Ended { name, outcome, seconds } = line {
            self.ended.insert(name, (outcome, seconds));
        }
    }

    /// How many tests have ended.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ended.len()
    }

    /// How the test called `name` ended, and the seconds that it took; nothing when it never did.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<(Outcome, f64)> {
        self.ended.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_runner_says_is_told_from_what_tests_print() {
        let ended = |name: &str, outcome, seconds| Some(Line::Ended { name: name.to_owned(), outcome, seconds });
        let name = "TestIngressConformance/grpc".to_owned();
        let cases = [
            ("\u{16}--- PASS: TestMinScale (1.25s)", ended("TestMinScale", Outcome::Passed, 1.25)),
            ("\u{16}--- FAIL: TestA/visibility/split (600.00s)", ended("TestA/visibility/split", Outcome::Failed, 600.0)),
            ("\u{16}--- SKIP: TestRetry (0.00s)", ended("TestRetry", Outcome::Skipped, 0.0)),
            ("\u{16}=== CONT  TestIngressConformance/grpc", Some(Line::Continued { name: name.clone() })),
            ("\u{16}=== RUN   TestIngressConformance/grpc", Some(Line::Began { name: name.clone() })),
            ("\u{16}=== PAUSE TestIngressConformance/grpc", Some(Line::Paused { name })),
            ("\u{16}=== NAME  TestIngressConformance/grpc", None),
            ("--- PASS: TestIngressConformance/basics (1.25s)", None),
            ("    basic.go:34: [ingress-conformance-basics-mrvhrgbn] Using port 93", None),
            ("PASS", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(read_line(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_part_is_known_by_its_own_name() {
        let ended = |name: &str| Line::Ended { name: name.to_owned(), outcome: Outcome::Passed, seconds: 1.0 };
        assert_eq!(ended("TestA/b/c").within("TestA"), Some(ended("b/c")));
        assert_eq!(ended("TestA").within("TestA"), None);
        assert_eq!(ended("TestAB/c").within("TestA"), None);
    }

    proptest! {
        #[test]
        fn nothing_that_a_test_prints_breaks_it(line in "\u{16}?(=== CONT  |--- PASS: )?.*") {
            let _ = read_line(&line);
        }

        #[test]
        fn a_name_comes_back_as_it_is(name in "[a-z0-9_/()-]{1,20}( [a-z]{1,3})?", seconds in 0_u32..100_000) {
            let seconds = f64::from(seconds) / 100.0;
            let line = format!("{MARK}--- PASS: {name} ({seconds:.2}s)");
            prop_assert_eq!(read_line(&line), Some(Line::Ended { name, outcome: Outcome::Passed, seconds }));
        }
    }
}
