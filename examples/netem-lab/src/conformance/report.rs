//! `report.json` of a run of the suite.

use std::path::Path;

use serde::Serialize;

use super::results::{Outcome, Results};
use super::suite::{IngressSuite, Level};
use crate::report::ReportError;

/// A run of the suite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IngressReport {
    /// Every test, in order of name.
    pub tests: Vec<Test>,
    /// How many passed.
    pub passed: usize,
    /// How many failed, those that never came to an end among them.
    pub failed: usize,
    /// How many the suite skipped.
    pub skipped: usize,
    /// How long the whole took, in seconds. Tests run beside each other, so theirs add up to more.
    pub seconds: f64,
    /// How the names of the tests begin, where not all were run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
}

/// One test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Test {
    /// Its name, as the suite has it.
    pub name: String,
    /// How settled the behaviour is that it asks for.
    pub level: Level,
    /// How it ended.
    pub result: Outcome,
    /// How long it took, in seconds; nothing when it never came to an end.
    pub seconds: Option<f64>,
}

impl IngressReport {
    /// The report of `results`. A test of the suite that never ended has failed.
    #[must_use]
    pub fn new(suite: &IngressSuite, results: &Results, seconds: f64) -> Self {
        let tests: Vec<_> = suite
            .tests()
            .map(|(name, level)| {
                let ended = results.of(name);
                let result = ended.map_or(Outcome::Failed, |(outcome, _)| outcome);
                Test { name: name.to_owned(), level, result, seconds: ended.map(|(_, seconds)| seconds) }
            })
            .collect();
        let count = |outcome| tests.iter().filter(|test| test.result == outcome).count();
        Self {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
            seconds,
            only: suite.selection().map(str::to_owned),
            tests,
        }
    }

    /// Whether every test passed, and there was one.
    #[must_use]
    pub fn all_passed(&self) -> bool {
        self.passed == self.tests.len() && self.passed > 0
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), ReportError> {
        let failed = |source| ReportError { path: path.to_owned(), source };
        let json = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        std::fs::write(path, json + "\n").map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::results::read_line;
    use super::super::suite::GO_TEST;
    use super::*;

    #[test]
    fn a_test_that_never_ended_has_failed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.go"), super::super::suite::tests::LISTED).unwrap();
        let suite = IngressSuite::read(folder.path()).unwrap();
        let mut results = Results::default();
        for line in [
            "\u{16}=== CONT  TestIngressConformance/basics",
            "\u{16}--- PASS: TestIngressConformance/basics (1.50s)",
            "\u{16}--- PASS: TestIngressConformance/host-rewrite (2.00s)",
            "\u{16}--- SKIP: TestIngressConformance/httpoption (0.00s)",
            "\u{16}--- FAIL: TestIngressConformance/basics/http2 (3.25s)",
            "panic: runtime error",
        ] {
            read_line(line).and_then(|line| line.within(GO_TEST)).into_iter().for_each(|line| results.take(line));
        }
        let report = IngressReport::new(&suite, &results, 9.5);
        assert!(!report.all_passed());
        let expected = json!({
            "tests": [
                {"name": "basics", "level": "stable", "result": "passed", "seconds": 1.5},
                {"name": "basics/http2", "level": "stable", "result": "failed", "seconds": 3.25},
                {"name": "host-rewrite", "level": "beta", "result": "passed", "seconds": 2.0},
                {"name": "httpoption", "level": "alpha", "result": "skipped", "seconds": 0.0},
                {"name": "retry", "level": "stable", "result": "failed", "seconds": null},
            ],
            "passed": 2, "failed": 2, "skipped": 1, "seconds": 9.5,
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }

    #[test]
    fn nothing_that_ran_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.go"), super::super::suite::tests::LISTED).unwrap();
        let suite = IngressSuite::read(folder.path()).unwrap().only(Some("no such test"));
        assert!(!IngressReport::new(&suite, &Results::default(), 0.0).all_passed());
    }
}
