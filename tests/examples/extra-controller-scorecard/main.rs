//! Measures the decision-maker and compares with its goals:
//! `cargo run --release -p kantai-tests --example extra-controller-scorecard -- [PARTS...]`.
//!
//! Prints a line per figure, tab-separated: id, value, unit, goal, `ok` or `short` (`absent` for
//! what cannot be measured here, with the reason in a line that begins with `#`). Ends with an
//! error when one is short. Without parts all are measured, which takes about an hour;
//! `--chaos-points` and `--idle-seconds` make it shorter.
//!
//! `kpa`, `tick`, `before`, `few` and `memory` need no cluster; `before` needs the repository's
//! history. `wake`, `idle`, `takeover` and `chaos` run the daemons' own release binaries, under
//! their ServiceAccounts and rights, on a real control plane (etcd, kube-apiserver,
//! kube-controller-manager) in a network namespace of their own, which takes root. There are no
//! kubelets: nodes are objects, and a stand-in binds pods and says that they are ready. Nor are
//! there Knative's own controllers, probers and, but for `wake`, gateways: stand-ins write the same
//! objects and speak the same protocols.
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]

mod before;
mod binaries;
mod chaos;
mod idle;
mod takeover;
mod ticks;
mod wake;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use autoscaler::kpa::testing::equal_cases;
use clap::{Parser, ValueEnum};
use kantai_tests::knative::network::in_own_network;
use local_control_plane::components::{Component, Components};
use local_control_plane::progress::Progress;
use scorecards::{Goal, Report, note};

use self::binaries::Binaries;

/// What the program is called with to measure the memory of a process that has done nothing else.
const MEMORY_ALONE: &str = "memory-of-this-process";
const KPA_CASES: u32 = 100_000;
const KPA_SEED: u64 = 13;
/// What parts on a control plane need.
const COMPONENTS: [Component; 5] =
    [Component::KubeApiserver, Component::Etcd, Component::KubeControllerManager, Component::Envoy, Component::Ip];

/// Measures the decision-maker and compares with its goals.
#[derive(Parser)]
struct Arguments {
    /// Measures these parts only.
    parts: Vec<Part>,
    /// How many requests wake a revision each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=500))]
    wakes: u16,
    /// How long the idle daemon is watched.
    #[arg(long, default_value_t = 600)]
    idle_seconds: u64,
    /// How many disturbances there are in all.
    #[arg(long, default_value_t = 2_000)]
    chaos_points: usize,
    /// The seed of the first run of chaos; the others have the next ones. Random unless told.
    #[arg(long)]
    chaos_seed: Option<u64>,
    /// The folder with the daemons' release binaries; they are built unless told.
    #[arg(long)]
    binaries: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// kpa_equal_cases.
    Kpa,
    /// tick_1000_ms.
    Tick,
    /// tick_vs_before.
    Before,
    /// tick_5000_ms.
    Few,
    /// rss_1000_mib.
    Memory,
    /// wake_ms_p50, wake_ms_p99.
    Wake,
    /// idle_mcores, rss_mib, idle_writes.
    Idle,
    /// takeover_s, takeover_writes.
    Takeover,
    /// chaos_points, chaos_bad.
    Chaos,
}

impl Part {
    /// Figures of a part on a control plane, each with its unit.
    fn figures(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Kpa | Self::Tick | Self::Before | Self::Few | Self::Memory => &[],
            Self::Wake => &[("wake_ms_p50", "ms"), ("wake_ms_p99", "ms")],
            Self::Idle => &[("idle_mcores", "mcores"), ("rss_mib", "MiB"), ("idle_writes", "writes")],
            Self::Takeover => &[("takeover_s", "s"), ("takeover_writes", "writes")],
            Self::Chaos => &[("chaos_points", "disturbances"), ("chaos_bad", "runs")],
        }
    }
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

/// A part begins.
fn announce(part: Part) {
    if let Some(name) = part.to_possible_value() {
        eprintln!("{} ...", name.get_name());
    }
}

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).is_some_and(|part| part == MEMORY_ALONE) {
        println!("{}", ticks::memory_after_an_hour()?);
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    let mut report = Report::default();
    without_cluster(&arguments, &mut report)?;

    let on_a_control_plane = [Part::Wake, Part::Idle, Part::Takeover, Part::Chaos];
    let wanted: Vec<Part> = on_a_control_plane.into_iter().filter(|part| arguments.wants(*part)).collect();
    if !wanted.is_empty() && nix::unistd::geteuid().is_root() {
        let binaries = Binaries::of(arguments.binaries.clone())?;
        // Making them may need the machine's network.
        let components = Components::ensure(&COMPONENTS, &Progress::to_stderr())?;
        for part in wanted {
            announce(part);
            in_own_network(&components, async || measure(part, &arguments, &components, &binaries, &mut report).await)?;
        }
    } else {
        let figures = wanted.iter().flat_map(|part| part.figures());
        figures.for_each(|(id, unit)| report.absent(id, unit, "a network namespace of its own takes root"));
    }
    Ok(report.exit_code())
}

fn without_cluster(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    if arguments.wants(Part::Kpa) {
        announce(Part::Kpa);
        let equal = match equal_cases(KPA_CASES, KPA_SEED) {
            Ok(tally) => tally.cases,
            Err(difference) => {
                note(&difference.replace('\n', " "));
                0
            }
        };
        report.figure("kpa_equal_cases", equal as f64, "cases", Goal::AtLeast(f64::from(KPA_CASES)));
    }
    let (wants_tick, wants_before) = (arguments.wants(Part::Tick), arguments.wants(Part::Before));
    if wants_tick || wants_before {
        announce(Part::Tick);
        let ours = ticks::all_changed(ticks::THOUSAND);
        report.figure("tick_1000_ms", ours, "ms", Goal::AtMost(100.0));
        if wants_before {
            announce(Part::Before);
            match before::milliseconds_per_revision(ticks::THOUSAND.nodes)? {
                Some(each) => {
                    let before = each * ticks::THOUSAND.revisions as f64;
                    note(&format!(
                        "tick_vs_before: {each:.1} ms per revision before, scaled to a thousand of them: {before:.0} ms"
                    ));
                    report.figure("tick_vs_before", before / ours, "x", Goal::AtLeast(300.0));
                }
                None => report.absent("tick_vs_before", "x", "the repository's history does not reach back to 678750a"),
            }
        }
    }
    if arguments.wants(Part::Few) {
        announce(Part::Few);
        report.figure("tick_5000_ms", ticks::few_changed(), "ms", Goal::AtMost(50.0));
    }
    if arguments.wants(Part::Memory) {
        announce(Part::Memory);
        let output = std::process::Command::new(std::env::current_exe()?)
            .arg(MEMORY_ALONE)
            .output()
            .context("failed to start this program again")?;
        anyhow::ensure!(output.status.success(), "failed to measure memory: {}", String::from_utf8_lossy(&output.stderr));
        let mib: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        note("rss_1000_mib: picture and memory of decisions, without what the API server's stores hold");
        report.figure("rss_1000_mib", mib, "MiB", Goal::AtMost(100.0));
    }
    Ok(())
}

async fn measure(
    part: Part,
    arguments: &Arguments,
    components: &Components,
    binaries: &Binaries,
    report: &mut Report,
) -> anyhow::Result<()> {
    match part {
        Part::Kpa | Part::Tick | Part::Before | Part::Few | Part::Memory => {}
        Part::Wake => {
            let taken = wake::measure(components, binaries, arguments.wakes.into()).await?;
            let share = |share: f64| taken[((taken.len() as f64 * share).ceil() as usize).clamp(1, taken.len()) - 1];
            report.figure("wake_ms_p50", share(0.5), "ms", Goal::AtMost(20.0));
            report.figure("wake_ms_p99", share(0.99), "ms", Goal::AtMost(100.0));
        }
        Part::Idle => {
            let idle = idle::measure(components, binaries, arguments.idle_seconds).await?;
            report.figure("idle_mcores", idle.millicores, "mcores", Goal::AtMost(3.0));
            report.figure("rss_mib", idle.rss_mib, "MiB", Goal::AtMost(20.0));
            report.figure("idle_writes", idle.writes, "writes", Goal::AtMost(0.0));
        }
        Part::Takeover => {
            let takeover = takeover::measure(components, binaries).await?;
            report.figure("takeover_s", takeover.seconds, "s", Goal::AtMost(10.0));
            report.figure("takeover_writes", takeover.writes, "writes", Goal::AtMost(0.0));
        }
        Part::Chaos => {
            let seed = arguments.chaos_seed.unwrap_or_else(rand::random);
            note(&format!("chaos from seed {seed}: --chaos-seed {seed} has the same disturbances again"));
            let toll = chaos::unleash(components, binaries, arguments.chaos_points, seed).await?;
            report.figure("chaos_points", toll.points as f64, "disturbances", Goal::AtLeast(2_000.0));
            report.figure("chaos_bad", toll.bad.len() as f64, "runs", Goal::AtMost(0.0));
        }
    }
    Ok(())
}
