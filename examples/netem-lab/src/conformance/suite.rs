//! Which tests the suite consists of. Pure, but for one file that is read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The suite's one Go test; what we call tests are its subtests.
pub(super) const GO_TEST: &str = "TestIngressConformance";

/// The file of the suite's package that lists its tests.
const LIST: &str = "run.go";

/// How settled the behaviour is that a test asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // The names are Knative's own.
pub enum Level {
    Stable,
    Beta,
    Alpha,
}

/// Why it is not known which tests there are.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// There is no list.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The list is written in another way than we know.
    #[error("failed to find {what} in {}", path.display())]
    NoTests {
        /// What was looked for.
        what: String,
        /// The file.
        path: PathBuf,
    },
}

/// The tests of the suite by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressSuite {
    levels: BTreeMap<String, Level>,
    /// Prefix of the names of tests to run; `None` for all.
    only: Option<String>,
}

impl IngressSuite {
    /// Reads the list in the folder of the suite's package.
    ///
    /// # Errors
    /// [`SuiteError`] when it is not there, or not what we take it for.
    pub fn read(package: &Path) -> Result<Self, SuiteError> {
        let path = package.join(LIST);
        let text = std::fs::read_to_string(&path).map_err(|source| SuiteError::Read { path: path.clone(), source })?;
        parse(&text).map_err(|what| SuiteError::NoTests { what, path })
    }

    /// Those whose names begin with `only`.
    #[must_use]
    pub fn only(mut self, only: Option<&str>) -> Self {
        if let Some(only) = only {
            self.levels.retain(|name, _| name.starts_with(only));
        }
        Self { only: only.map(str::to_owned), ..self }
    }

    /// How many tests there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// The tests with their levels, in order of name.
    pub fn tests(&self) -> impl Iterator<Item = (&str, Level)> {
        self.levels.iter().map(|(name, level)| (name.as_str(), *level))
    }

    /// The level of a test; nothing for what is none, such as a part of one.
    #[must_use]
    pub fn level_of(&self, name: &str) -> Option<Level> {
        self.levels.get(name).copied()
    }

    /// How the names of the tests begin, where not all are run.
    #[must_use]
    pub fn selection(&self) -> Option<&str> {
        self.only.as_deref()
    }

    /// What Go's test runner takes to run these and no others. It matches the parts of a name
    /// between slashes one by one.
    #[must_use]
    pub fn pattern(&self) -> String {
        let names: Vec<_> = self.levels.keys().map(|name| format!("^{GO_TEST}$/^{}$", name.replace('/', "$/^"))).collect();
        names.join("|")
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Stable => "stable",
            Level::Beta => "beta",
            Level::Alpha => "alpha",
        })
    }
}

/// The tests in the suite's list: per level one Go map, whose keys are the names. What was not
/// found is the error.
fn parse(text: &str) -> Result<IngressSuite, String> {
    let mut levels = BTreeMap::new();
    for level in [Level::Stable, Level::Beta, Level::Alpha] {
        let head = format!("var {level}Tests = map[string]func(t *testing.T){{");
        let (_, map) = text.split_once(&head).ok_or_else(|| format!("the {level} tests"))?;
        let (map, _) = map.split_once("\n}").ok_or_else(|| format!("the end of the {level} tests"))?;
        let before = levels.len();
        for line in map.lines().map(str::trim) {
            if let Some((name, _)) = line.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                levels.insert(name.to_owned(), level);
            }
        }
        if levels.len() == before {
            return Err(format!("any {level} test"));
        }
    }
    Ok(IngressSuite { levels, only: None })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// In the shape of the suite's own list.
    pub(in crate::conformance) const LISTED: &str = "package ingress\n\
        var stableTests = map[string]func(t *testing.T){\n\t\"basics\":       TestBasics,\n\t\"basics/http2\": TestBasicsHTTP2,\n\t\"retry\": TestRetry,\n}\n\n\
        var betaTests = map[string]func(t *testing.T){\n\t// Add your conformance test for beta features\n\t\"host-rewrite\": TestRewriteHost,\n}\n\n\
        var alphaTests = map[string]func(t *testing.T){\n\t\"httpoption\": TestHTTPOption,\n}\n";

    #[test]
    fn tests_and_levels_are_read_from_the_suites_source() {
        let suite = parse(LISTED).unwrap();
        let expected = [
            ("basics", Level::Stable),
            ("basics/http2", Level::Stable),
            ("host-rewrite", Level::Beta),
            ("httpoption", Level::Alpha),
            ("retry", Level::Stable),
        ];
        assert_eq!(suite.tests().collect::<Vec<_>>(), expected);
        assert_eq!(suite.level_of("basics/http3"), None);
    }

    #[test]
    fn a_list_that_is_not_understood_is_an_error_and_not_an_empty_suite() {
        assert_eq!(parse("package ingress").unwrap_err(), "the stable tests");
        assert_eq!(parse(&LISTED.replace("\"httpoption\"", "httpOption")).unwrap_err(), "any alpha test");
    }

    #[test]
    fn some_of_the_tests_can_be_chosen() {
        let suite = parse(LISTED).unwrap().only(Some("basics"));
        assert_eq!(suite.len(), 2);
        assert_eq!(suite.pattern(), "^TestIngressConformance$/^basics$|^TestIngressConformance$/^basics$/^http2$");
    }
}
