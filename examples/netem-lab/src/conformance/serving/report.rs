//! `report.json`: what passes with the stock class, and what with ours.
//!
//! Results are kept per part and suite, in files of their own beside the report, so that a part or
//! a suite can be run alone and the report is still about all that is known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::enactment;
use super::suites::{Part, ServingSuite};
use super::tracker::TestResult;
use crate::conformance::results::Outcome;
use crate::report::ReportError;

/// The results of one suite in one part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteResults {
    /// The part.
    pub part: Part,
    /// The suite.
    pub suite: ServingSuite,
    /// The release of Serving.
    pub serving: String,
    /// The class of revisions that name none.
    pub autoscaling_class: String,
    /// The class of ingress.
    pub ingress_class: String,
    /// How many tests ran at the same time.
    pub parallel: usize,
    /// When it was over, in seconds since 1970.
    pub ended_at_unix_seconds: f64,
    /// How long it took.
    pub seconds: f64,
    /// The tests.
    pub tests: Vec<TestResult>,
}

impl SuiteResults {
    /// Where the results of a suite are kept.
    #[must_use]
    pub fn path(folder: &Path, part: Part, suite: ServingSuite) -> PathBuf {
        folder.join(part.name()).join(format!("{suite}.json"))
    }

    /// Those that were kept, if they are of the same release.
    #[must_use]
    pub fn read(folder: &Path, part: Part, suite: ServingSuite) -> Option<Self> {
        let bytes = std::fs::read(Self::path(folder, part, suite)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        write(&Self::path(folder, self.part, self.suite), self)
    }

    /// These, and what `earlier` knows of tests that did not run now.
    #[must_use]
    pub fn over(mut self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier.filter(|earlier| earlier.serving == self.serving) else { return self };
        let untouched = |test: &TestResult| self.tests.iter().all(|new| new.name != test.name);
        let kept: Vec<_> = earlier.tests.into_iter().filter(untouched).collect();
        self.tests.extend(kept);
        self.tests.sort_by(|one, other| one.name.cmp(&other.name));
        self
    }
}

/// The results of one part.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PartReport {
    /// How many tests passed.
    pub passed: usize,
    /// How many failed, those that never came to an end among them.
    pub failed: usize,
    /// How many the suites skipped.
    pub skipped: usize,
    /// All of them, in order of name.
    pub tests: Vec<TestResult>,
}

impl PartReport {
    fn new(suites: &[SuiteResults], part: Part) -> Self {
        let of_part = suites.iter().filter(|results| results.part == part);
        let mut tests: Vec<_> = of_part.flat_map(|results| results.tests.iter().cloned()).collect();
        tests.sort_by(|one, other| one.name.cmp(&other.name));
        let count = |outcome| tests.iter().filter(|test| test.result == outcome).count();
        Self { passed: count(Outcome::Passed), failed: count(Outcome::Failed), skipped: count(Outcome::Skipped), tests }
    }
}

/// A test that fits the stock class alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByConstruction {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// How a suite was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServingRunFacts {
    part: Part,
    suite: ServingSuite,
    autoscaling_class: String,
    ingress_class: String,
    parallel: usize,
    ended_at_unix_seconds: f64,
    seconds: f64,
}

/// The comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServingReport {
    /// The release of Serving.
    pub serving: String,
    /// With the stock class as the default.
    pub stock: PartReport,
    /// With our class as the default.
    pub ours: PartReport,
    /// The tests that fit the stock class alone, enacted again for ours.
    pub enacted: Vec<TestResult>,
    /// Tests, or parts of tests, that pass with the stock class and not with ours.
    pub regressions: Vec<String>,
    /// The tests that fit the stock class alone by construction. Of these `enacted` counts.
    pub by_construction: Vec<ByConstruction>,
    /// Tests of which nothing is known in some part.
    pub not_run: Vec<String>,
    /// How the suites were run.
    pub runs: Vec<ServingRunFacts>,
}

impl ServingReport {
    /// The report of what is known.
    #[must_use]
    pub fn new(serving: &str, suites: &[SuiteResults]) -> Self {
        let suites: Vec<_> = suites.iter().filter(|results| results.serving == serving).cloned().collect();
        let stock = PartReport::new(&suites, Part::Stock);
        let ours = PartReport::new(&suites, Part::Ours);
        let enacted = PartReport::new(&suites, Part::Enacted).tests;
        let by_construction: Vec<_> =
            enactment::tests().map(|(name, reason)| ByConstruction { name: in_e2e(name), reason: reason.to_owned() }).collect();
        let (regressions, not_run) = compare(&stock.tests, &ours.tests, &enacted, &by_construction);
        let runs = suites
            .into_iter()
            .map(|results| ServingRunFacts {
                part: results.part,
                suite: results.suite,
                autoscaling_class: results.autoscaling_class,
                ingress_class: results.ingress_class,
                parallel: results.parallel,
                ended_at_unix_seconds: results.ended_at_unix_seconds,
                seconds: results.seconds,
            })
            .collect();
        Self { serving: serving.to_owned(), stock, ours, enacted, regressions, by_construction, not_run, runs }
    }

    /// The report of what is kept in `folder`.
    #[must_use]
    pub fn read(folder: &Path, serving: &str) -> Self {
        let kept = Part::ALL.iter().flat_map(|part| ServingSuite::ALL.iter().map(move |suite| (*part, *suite)));
        let suites: Vec<_> = kept.filter_map(|(part, suite)| SuiteResults::read(folder, part, suite)).collect();
        Self::new(serving, &suites)
    }

    /// Whether everything ran, and nothing that passes with the stock class does not with ours.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.stock.passed > 0 && self.regressions.is_empty() && self.not_run.is_empty()
    }

    /// Writes `report.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        write(&folder.join("report.json"), self)
    }
}

fn in_e2e(test: &str) -> String {
    format!("{}/{test}", ServingSuite::E2e.package())
}

/// The regressions, and the tests of which nothing is known with our class.
///
/// A test that fits the stock class alone is judged by its enactment, whether or not it passes with
/// the stock class: its loads and bounds are an autoscaler's business.
fn compare(
    stock: &[TestResult],
    ours: &[TestResult],
    enacted: &[TestResult],
    by_construction: &[ByConstruction],
) -> (Vec<String>, Vec<String>) {
    fn by_name(tests: &[TestResult]) -> BTreeMap<&str, &TestResult> {
        tests.iter().map(|test| (test.name.as_str(), test)).collect()
    }
    let (stock, ours, enacted) = (by_name(stock), by_name(ours), by_name(enacted));
    let (mut regressions, mut not_run) = (Vec::new(), Vec::new());
    let exempt = |name: &str| by_construction.iter().any(|test| test.name == name);
    for (name, test) in &stock {
        if exempt(name) {
            continue;
        }
        match ours.get(name) {
            Some(same) => regressions.extend(lost(test, same)),
            None => not_run.push((*name).to_owned()),
        }
    }
    for test in by_construction {
        match (stock.get(test.name.as_str()), enacted.get(test.name.as_str())) {
            (Some(before), Some(after)) => regressions.extend(lost(before, after)),
            _ => not_run.push(test.name.clone()),
        }
    }
    regressions.sort();
    not_run.sort();
    (regressions, not_run)
}

/// What passed `before` and does not `after`: the test, or where it failed before already, parts.
fn lost(before: &TestResult, after: &TestResult) -> Vec<String> {
    match (before.result, after.result) {
        (Outcome::Passed, Outcome::Passed) => Vec::new(),
        (Outcome::Passed, _) => vec![before.name.clone()],
        _ => {
            let passed_before = |name: &str| before.parts.iter().any(|part| part.name == name && part.result == Outcome::Passed);
            let failed = after.parts.iter().filter(|part| part.result == Outcome::Failed);
            failed.filter(|part| passed_before(&part.name)).map(|part| format!("{}/{}", before.name, part.name)).collect()
        }
    }
}

fn write(path: &Path, what: &impl Serialize) -> Result<(), ReportError> {
    let failed = |source| ReportError { path: path.to_owned(), source };
    let json = serde_json::to_string_pretty(what).map_err(|error| failed(error.into()))?;
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    std::fs::write(path, json + "\n").map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EXEMPT: &str = "TestTargetBurstCapacity";

    fn test(name: &str, result: Outcome) -> TestResult {
        TestResult { name: in_e2e(name), result, seconds: Some(1.0), note: None, parts: Vec::new() }
    }

    fn of(part: Part, tests: Vec<TestResult>) -> SuiteResults {
        SuiteResults {
            part,
            suite: ServingSuite::E2e,
            serving: "1.15.2".to_owned(),
            autoscaling_class: part.class().to_owned(),
            ingress_class: "an.ingress".to_owned(),
            parallel: 4,
            ended_at_unix_seconds: 1.0,
            seconds: 2.0,
            tests,
        }
    }

    /// Every test that fits the stock class alone, ended in that way.
    fn exempt(result: Outcome) -> Vec<TestResult> {
        enactment::tests().map(|(name, _)| test(name, result)).collect()
    }

    fn report(stock: Vec<TestResult>, ours: Vec<TestResult>, enacted: Vec<TestResult>) -> ServingReport {
        ServingReport::new("1.15.2", &[of(Part::Stock, stock), of(Part::Ours, ours), of(Part::Enacted, enacted)])
    }

    #[test]
    fn what_passes_with_the_stock_class_and_not_with_ours_is_a_regression() {
        use Outcome::{Failed, Passed, Skipped};
        let mut stock = vec![test("TestA", Passed), test("TestB", Failed), test("TestC", Passed), test("TestD", Passed)];
        stock.extend(exempt(Passed));
        let mut ours = vec![test("TestA", Failed), test("TestB", Failed), test("TestC", Passed), test("TestD", Skipped)];
        ours.extend(exempt(Failed));
        let report = report(stock, ours, exempt(Passed));
        assert_eq!(report.regressions, [in_e2e("TestA"), in_e2e("TestD")]);
        assert!(report.not_run.is_empty() && !report.holds());
    }

    #[test]
    fn a_test_that_fits_the_stock_class_alone_is_judged_by_its_enactment() {
        let mut enacted = exempt(Outcome::Passed);
        for test in &mut enacted {
            if test.name.ends_with(EXEMPT) {
                test.result = Outcome::Failed;
            }
        }
        let judged = report(exempt(Outcome::Passed), exempt(Outcome::Passed), enacted);
        assert_eq!(judged.regressions, [in_e2e(EXEMPT)]);
        let unjudged = report(exempt(Outcome::Passed), exempt(Outcome::Passed), Vec::new());
        assert_eq!(unjudged.not_run.len(), enactment::tests().count());
        assert!(!unjudged.holds());
        assert!(report(exempt(Outcome::Passed), exempt(Outcome::Failed), exempt(Outcome::Passed)).holds());
    }

    #[test]
    fn of_a_test_that_failed_before_parts_count() {
        let with = |outcomes: [Outcome; 2]| {
            let parts = ["one", "two"].into_iter().zip(outcomes);
            let parts = parts.map(|(name, result)| TestResult { name: name.to_owned(), ..test(name, result) });
            TestResult { parts: parts.collect(), ..test("TestA", Outcome::Failed) }
        };
        let (before, after) = (with([Outcome::Failed, Outcome::Passed]), with([Outcome::Failed, Outcome::Failed]));
        assert_eq!(lost(&before, &after), [in_e2e("TestA/two")]);
        assert_eq!(lost(&after, &after), Vec::<String>::new());
    }

    #[test]
    fn nothing_that_ran_is_no_success() {
        assert!(!report(Vec::new(), Vec::new(), Vec::new()).holds());
    }

    #[test]
    fn what_was_not_run_again_is_still_known_and_of_another_release_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let first = of(Part::Stock, vec![test("TestA", Outcome::Failed), test("TestB", Outcome::Passed)]);
        first.write(folder.path()).unwrap();
        let again = of(Part::Stock, vec![test("TestA", Outcome::Passed)]);
        let merged = again.over(SuiteResults::read(folder.path(), Part::Stock, ServingSuite::E2e));
        assert_eq!(merged.tests, [test("TestA", Outcome::Passed), test("TestB", Outcome::Passed)]);
        merged.write(folder.path()).unwrap();
        assert_eq!(ServingReport::read(folder.path(), "1.15.2").stock.passed, 2);
        assert_eq!(ServingReport::read(folder.path(), "1.16.0").stock.passed, 0);
    }

    #[test]
    fn the_report_has_the_form_that_others_read() {
        let mut report = report(vec![test("TestA", Outcome::Passed)], vec![test("TestA", Outcome::Failed)], Vec::new());
        report.not_run.clear();
        report.by_construction.clear();
        report.runs.clear();
        let part = |result: &str, passed: u32| {
            json!({
                "passed": passed, "failed": 1 - passed, "skipped": 0,
                "tests": [{"name": "test/e2e/TestA", "result": result, "seconds": 1.0}],
            })
        };
        let expected = json!({
            "serving": "1.15.2",
            "stock": part("passed", 1),
            "ours": part("failed", 0),
            "enacted": [],
            "regressions": ["test/e2e/TestA"],
            "by_construction": [], "not_run": [], "runs": [],
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }
}
