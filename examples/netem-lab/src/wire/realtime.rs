//! Makes the calling thread one that is woken on time: real-time priority, no swapping, no timer
//! slack.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use tracing::info;

use super::sys;

/// Middle of the real-time range: above other programs, below the kernel's own threads.
const PRIORITY: i32 = 50;

/// The share of each second that a control group may run real-time threads, most first. All groups
/// share what the kernel allows altogether (0.95 of a second), so that a second lab beside this one
/// gets less, or none.
const GROUP_BUDGETS_MICROS: [u32; 4] = [400_000, 200_000, 100_000, 50_000];

/// Does what the system lets us do. Answers with what it refused, empty when all went well.
pub(super) fn prepare_thread() -> Vec<String> {
    let mut refused = Vec::new();
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        refused.push(format!("memory could not be locked ({error})"));
    }
    if let Err(error) = prctl::set_timerslack(1) {
        refused.push(format!("timer slack could not be set ({error})"));
    }
    if let Err(first) = sys::run_first_in_first_out(PRIORITY) {
        // With real-time group scheduling, a group has no real-time budget until it is given one.
        let granted = grant_budget();
        match sys::run_first_in_first_out(PRIORITY) {
            Ok(()) => info!(groups = ?granted, "gave our control group a real-time budget"),
            Err(_) => refused.push(format!("real-time scheduling was refused ({first})")),
        }
    }
    refused
}

/// Gives every control group from the top of the `cpu` hierarchy down to ours a real-time budget,
/// as far as we may.
fn grant_budget() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let groups = groups_to_grant(&own, &mounts);
    let grant = |budget: u32| {
        let granted = |group: &PathBuf| fs::write(group.join("cpu.rt_runtime_us"), budget.to_string()).is_ok();
        groups.iter().all(granted)
    };
    if GROUP_BUDGETS_MICROS.into_iter().any(grant) { groups } else { Vec::new() }
}

/// Our groups in the `cpu` hierarchy, outermost first, without its root. None where there is no
/// such hierarchy (cgroup v2 has no budget).
fn groups_to_grant(own_cgroups: &str, mounts: &str) -> Vec<PathBuf> {
    let has_cpu = |controllers: &str| controllers.split(',').any(|controller| controller == "cpu");
    let Some(own) = own_cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        has_cpu(controllers).then_some(path)
    }) else {
        return Vec::new();
    };
    let Some(root) = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, mount_point, "cgroup", options, ..] = fields[..] else { return None };
        has_cpu(options).then_some(mount_point)
    }) else {
        return Vec::new();
    };
    let mut groups: Vec<PathBuf> = Path::new(own.trim_start_matches('/'))
        .ancestors()
        .filter(|part| !part.as_os_str().is_empty())
        .map(|part| Path::new(root).join(part))
        .collect();
    groups.reverse();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str =
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n";

    #[test]
    fn groups_from_the_outside_in() {
        let groups = groups_to_grant("9:memory:/m\n1:cpu,cpuacct:/lab/wire\n0::/\n", MOUNTS);
        assert_eq!(groups, [Path::new("/sys/fs/cgroup/cpu,cpuacct/lab"), Path::new("/sys/fs/cgroup/cpu,cpuacct/lab/wire")]);
    }

    #[test]
    fn nothing_to_grant_at_the_root_or_without_the_hierarchy() {
        assert!(groups_to_grant("1:cpu:/\n", MOUNTS).is_empty());
        assert!(groups_to_grant("0::/lab\n", MOUNTS).is_empty());
        assert!(groups_to_grant("1:cpuset:/lab\n", MOUNTS).is_empty());
        assert!(groups_to_grant("1:cpu:/lab\n", "").is_empty());
    }
}
