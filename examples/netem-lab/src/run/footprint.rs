//! What each component costs: memory and processor time of the processes in the lab's control
//! groups, by program.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};

use crate::report::Footprint;

/// Rare enough to cost nothing; what lives shorter than this may be missed.
const EVERY: Duration = Duration::from_secs(3);

/// One look at one process.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    component: String,
    /// Tells it from a later process of the same number.
    identity: (i32, u64),
    cpu_ticks: u64,
    rss_pages: u64,
}

/// Sums over time.
#[derive(Debug, Default)]
struct Account {
    last_ticks: BTreeMap<(i32, u64), u64>,
    used_ticks: BTreeMap<String, u64>,
    rss_pages: BTreeMap<String, u64>,
    began: Option<Instant>,
    looked: Option<Instant>,
}

impl Account {
    fn add(&mut self, processes: &[Process], now: Instant) {
        let first = self.began.is_none();
        self.began.get_or_insert(now);
        self.looked = Some(now);
        self.rss_pages.clear();
        for process in processes {
            *self.rss_pages.entry(process.component.clone()).or_default() += process.rss_pages;
            // What was used before the first look does not count; a process that is new since the
            // last look began at zero.
            let before =
                self.last_ticks.insert(process.identity, process.cpu_ticks).unwrap_or(if first { process.cpu_ticks } else { 0 });
            *self.used_ticks.entry(process.component.clone()).or_default() += process.cpu_ticks.saturating_sub(before);
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn footprint(&self, ticks_per_second: f64, page_bytes: f64) -> BTreeMap<String, Footprint> {
        let (Some(began), Some(looked)) = (self.began, self.looked) else { return BTreeMap::new() };
        let seconds = (looked - began).as_secs_f64();
        if seconds <= 0.0 {
            return BTreeMap::new();
        }
        self.rss_pages
            .iter()
            .map(|(component, pages)| {
                let ticks = self.used_ticks.get(component).copied().unwrap_or(0) as f64;
                let footprint = Footprint {
                    rss_mib: round(*pages as f64 * page_bytes / f64::from(1 << 20)),
                    mcores: round(ticks / ticks_per_second / seconds * 1e3),
                };
                (component.clone(), footprint)
            })
            .collect()
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Looks at the processes now and then; ends when dropped.
#[derive(Debug)]
pub(super) struct FootprintWatch {
    account: Arc<Mutex<Account>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FootprintWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FootprintWatch {
    /// Watches all processes whose control group is this one or below it.
    pub(super) fn start(cgroup: String) -> Self {
        let account: Arc<Mutex<Account>> = Arc::default();
        let shared = Arc::clone(&account);
        let task = tokio::spawn(async move {
            loop {
                let processes = processes(Path::new("/proc"), &cgroup);
                shared.lock().unwrap_or_else(PoisonError::into_inner).add(&processes, Instant::now());
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { account, task }
    }

    /// Memory at the last look, processor time since the first.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn so_far(&self) -> BTreeMap<String, Footprint> {
        let value = |variable, usual: i64| sysconf(variable).ok().flatten().unwrap_or(usual) as f64;
        let (ticks, page) = (value(SysconfVar::CLK_TCK, 100), value(SysconfVar::PAGE_SIZE, 4_096));
        self.account.lock().unwrap_or_else(PoisonError::into_inner).footprint(ticks, page)
    }
}

fn processes(proc: &Path, cgroup: &str) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    // A process may end while it is looked at: then it is not there.
    entries.flatten().filter_map(|entry| look_at(&entry.path(), cgroup)).collect()
}

fn look_at(folder: &Path, cgroup: &str) -> Option<Process> {
    let pid = folder.file_name()?.to_str()?.parse().ok()?;
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    if !is_below(&read("cgroup")?, cgroup) {
        return None;
    }
    let (cpu_ticks, start_ticks, rss_pages) = figures(&read("stat")?)?;
    let arguments = std::fs::read(folder.join("cmdline")).ok()?;
    let mut component = component(&arguments)?;
    if component == "exe" {
        // Started as /proc/self/exe, as node's first processes are.
        component = std::fs::read_link(folder.join("exe")).ok()?.file_name()?.to_string_lossy().into_owned();
    }
    Some(Process { component, identity: (pid, start_ticks), cpu_ticks, rss_pages })
}

/// Whether one of a process's control groups is this one or below it.
fn is_below(cgroups: &str, group: &str) -> bool {
    cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .any(|path| path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Processor time used (user and system), start time and resident pages, of a line of
/// `/proc/<pid>/stat`.
fn figures(stat: &str) -> Option<(u64, u64, u64)> {
    // The name, in parentheses, may hold anything; what follows it are fields 3 and up.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?, field(24)?))
}

/// The program's name; for this program, what it is at. None for what has no command line: kernel
/// threads and the dead.
fn component(arguments: &[u8]) -> Option<String> {
    let mut arguments = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = arguments.next().filter(|program| !program.is_empty())?;
    // A program that renames itself puts everything into its first argument.
    let first_word = program.split(' ').next().unwrap_or_default();
    let name = first_word.rsplit('/').next().unwrap_or_default().trim_end_matches(':');
    if name == env!("CARGO_PKG_NAME") {
        return Some(format!("lab {}", arguments.next().unwrap_or_default()));
    }
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_labs_own_groups_count() {
        let cgroups = "5:cpu,cpuacct:/lab1/node1/kubepods/x\n0::/\n";
        assert!(is_below(cgroups, "/lab1"));
        assert!(!is_below(cgroups, "/lab"));
        assert!(!is_below("0::/\n", "/lab1"));
    }

    #[test]
    fn figures_of_a_process_whose_name_is_odd() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 3 0 0 20 0 5 0 9999 1000000 250 18446744073709551615";
        assert_eq!(figures(stat), Some((10, 9999, 250)));
        assert_eq!(figures("nonsense"), None);
    }

    #[test]
    fn components_are_named_by_their_programs() {
        assert_eq!(component(b"/ko-app/extra-controller\0--x\0").as_deref(), Some("extra-controller"));
        assert_eq!(component(b"/a/netem-lab\0wire\0--config\0x\0").as_deref(), Some("lab wire"));
        assert_eq!(component(b"etcd: running\0").as_deref(), Some("etcd"));
        assert_eq!(component(b""), None);
    }

    #[test]
    fn time_is_counted_from_the_first_look_on() {
        let process = |identity, cpu_ticks| Process { component: "x".to_owned(), identity, cpu_ticks, rss_pages: 256 };
        let mut account = Account::default();
        let begin = Instant::now();
        account.add(&[process((1, 1), 1_000)], begin);
        account.add(&[process((1, 1), 1_100), process((2, 2), 50)], begin + Duration::from_secs(10));
        let footprint = account.footprint(100.0, 4_096.0)["x"];
        assert_eq!(footprint, Footprint { rss_mib: 2.0, mcores: 150.0 });
    }
}
