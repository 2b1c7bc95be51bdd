//! Runs one suite, in rounds, and follows what it says.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use super::tracker::{TestResult, Tracker};
use super::{Part, ServingSettings, ServingSuite, ServingSuiteError, enactment};
use crate::cluster::{Cluster, ClusterError, launch};
use crate::conformance::process::SuiteProcess;
use crate::conformance::results::{Line, read_line};
use crate::report::ReportError;
use local_control_plane::progress::Progress;

/// The Service of our gateways, to which the tests send requests.
const GATEWAY: (&str, &str) = ("kantai-system", "kantai-gateway");
/// Where Knative runs.
const SYSTEM_NAMESPACE: &str = "knative-serving";
/// How often it is looked for tests that take too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The tests to run.
pub(super) struct Work<'a> {
    pub(super) program: &'a Path,
    pub(super) part: Part,
    pub(super) suite: ServingSuite,
    pub(super) names: Vec<String>,
    pub(super) image_template: &'a str,
}

/// The names of the tests in `program`, of those that match `only`.
pub(super) async fn list_tests(program: &Path, only: Option<&str>) -> Result<Vec<String>, ServingSuiteError> {
    let failed = |source| ServingSuiteError::Run { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.arg(format!("-test.list={}", only.unwrap_or("."))).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(failed)?;
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ServingSuiteError::List { program: program.to_owned(), problem });
    }
    Ok(listed(&String::from_utf8_lossy(&output.stdout)))
}

/// The tests among what a suite prints when it is asked for its list.
fn listed(printed: &str) -> Vec<String> {
    printed.lines().filter(|line| line.starts_with("Test")).map(str::to_owned).collect()
}

/// Runs the tests, and gives back how each ended and how long all took.
pub(super) async fn run(
    cluster: &mut Cluster,
    work: Work<'_>,
    settings: &ServingSettings,
    progress: &Progress,
) -> Result<(Vec<TestResult>, f64), ServingSuiteError> {
    let log_file = settings.folder.join(work.part.name()).join(format!("{}.log", work.suite));
    let log_failed = |source| ReportError { path: log_file.clone(), source };
    std::fs::create_dir_all(log_file.parent().unwrap_or(Path::new("/"))).map_err(log_failed)?;
    let mut log = File::create(&log_file).map_err(log_failed)?;
    let began = Instant::now();
    let total = work.names.len();
    let mut tracker = Tracker::new(work.names.clone());
    loop {
        let mut process = start(cluster, &work, &tracker.remaining(), settings)?;
        tracker.begin_round();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let line = tokio::select! {
                line = process.lines.recv() => line,
                _ = look.tick() => {
                    let late = tracker.overdue(began.elapsed(), settings.test_limit).map(str::to_owned);
                    if let Some(name) = late {
                        progress.line(format_args!("{}/{name}: given up", work.part));
                        tracker.give_up(&name, format!("not over after {} s", settings.test_limit.as_secs()));
                        process.kill().await.map_err(failed_to_run(work.program))?;
                    }
                    continue;
                }
            };
            let Some(line) = line else { break };
            writeln!(log, "{}", line.trim_start_matches('\u{16}')).map_err(log_failed)?;
            let Some(heard) = read_line(&line) else { continue };
            let told = heard.clone();
            tracker.take(heard, began.elapsed());
            if let Line::Ended { name, outcome, seconds } = told
                && !name.contains('/')
            {
                let (part, suite, done) = (work.part, work.suite, tracker.count());
                progress.line(format_args!("{part} {suite} {name}: {outcome} after {seconds:.1} s ({done} of {total})"));
            }
        }
        let ended = process.wait().await.map_err(failed_to_run(work.program))?;
        if !tracker.end_round(&ended.to_string()) {
            break;
        }
        progress.line(format_args!(
            "{} {}: goes on with {} tests after {ended}",
            work.part,
            work.suite,
            tracker.remaining().len()
        ));
    }
    Ok((tracker.results(work.suite.package()), began.elapsed().as_secs_f64()))
}

fn failed_to_run(program: &Path) -> impl FnOnce(std::io::Error) -> ServingSuiteError + use<> {
    let program = program.to_owned();
    move |source| ServingSuiteError::Run { program, source }
}

fn start(
    cluster: &mut Cluster,
    work: &Work<'_>,
    names: &[&str],
    settings: &ServingSettings,
) -> Result<SuiteProcess, ServingSuiteError> {
    let kubeconfig = cluster.kubeconfig().ok_or(ClusterError::Down)?.to_owned();
    let node = cluster.nodes().first().cloned().ok_or(ClusterError::Down)?;
    let mut command = launch::inside(&settings.lab_binary, &cluster.helpers_cgroup(), Some(&node.netns), work.program);
    command
        // Marks what is said about tests, and says it at once.
        .arg("-test.v=test2json")
        .arg(format!("-test.run={}", pattern(names)))
        .arg(format!("-test.parallel={}", settings.parallel))
        // Each test has its own limit.
        .arg("-test.timeout=0")
        .args(["-enable-beta", "-enable-alpha", "-disable-logstream"])
        .arg(format!("-kubeconfig={}", kubeconfig.display()))
        .arg(format!("-ingress-class={}", settings.ingress_class))
        .arg(format!("-ingressendpoint={}", node.ip))
        .arg(format!("-imagetemplate={}", work.image_template))
        .env("GATEWAY_NAMESPACE_OVERRIDE", GATEWAY.0)
        .env("GATEWAY_OVERRIDE", GATEWAY.1)
        .env("SYSTEM_NAMESPACE", SYSTEM_NAMESPACE)
        .env(enactment::CLASS_VARIABLE, work.part.class());
    let process = SuiteProcess::start(command).map_err(failed_to_run(work.program))?;
    if let Some(pid) = process.id() {
        cluster.state().record_process("conformance suite", pid)?;
    }
    Ok(process)
}

/// What Go's test runner takes to run these and no others.
fn pattern(names: &[&str]) -> String {
    format!("^({})$", names.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_chosen_by_their_whole_names() {
        assert_eq!(pattern(&["TestA", "TestB"]), "^(TestA|TestB)$");
    }

    #[test]
    fn the_tests_of_a_program_are_those_it_lists() {
        assert_eq!(listed("TestA\nTestB\nExampleC\nok\n"), ["TestA", "TestB"]);
    }
}
