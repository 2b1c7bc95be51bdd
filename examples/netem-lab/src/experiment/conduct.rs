//! Runs an experiment on a cluster that is up.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::column::Column;
use super::countdown::Countdown;
use super::measure::{self, Sample, Stretch};
use super::report::{Machine, Report};
use super::site::Site;
use super::{Experiment, ExperimentError, Phase, START_PHASE, Starts, Work};
use crate::cluster::Cluster;
use crate::faults;
use crate::run::unix_seconds;
use crate::wire::WireClient;

/// About how long a column takes beside its phases: settings, services, and their end.
const AROUND_A_COLUMN_SECONDS: f64 = 30.0;

/// About how long a service takes to be at zero again, and a start.
const TO_ZERO_SECONDS: f64 = 40.0;
const START_SECONDS: f64 = 1.0;

/// How long a start may take.
const START_TIMEOUT_SECONDS: f64 = 60.0;

/// Pods that are kept warm are given so long to be where they are wanted.
const WARM_SETTLES: Duration = Duration::from_secs(10);

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often all columns are run, instead of as often as the experiment says.
    pub repeat: Option<u32>,
    /// Says which column is the first one.
    pub seed: u64,
    /// Component to version, for the report.
    pub components: BTreeMap<String, String>,
}

/// Runs an experiment. `countdown` is told how long it is going to take.
///
/// # Errors
/// When it cannot be run at all. Requests that fail and goals that are not reached are in the
/// report.
pub async fn run(
    experiment: &Experiment,
    settings: &Settings,
    (cluster, lab, wire): (&Cluster, &faults::Lab, WireClient),
    countdown: &Countdown,
) -> Result<Report, ExperimentError> {
    let began_at_unix_seconds = unix_seconds();
    let began = Instant::now();
    let repeat = settings.repeat.unwrap_or(experiment.repeat);
    countdown.plan(f64::from(repeat) * experiment.columns.iter().map(|column| experiment.seconds_of(*column)).sum::<f64>());
    let site = Site::new(cluster, lab, wire, &experiment.name)?;
    let mut runner = Runner { experiment, site, countdown, samples: Vec::new(), stretches: Vec::new() };
    countdown.say("waiting for the probers to measure what is injected");
    let measured_rtt_ms = runner.site.latency(&experiment.links).await?;
    let mut order = Vec::new();
    for repetition in 1..=repeat {
        for column in rotated(&experiment.columns, settings.seed + u64::from(repetition) - 1) {
            countdown.say(format_args!("repetition {repetition} of {repeat}: {}", column.name()));
            runner.site.choose_policy(column).await?;
            let already = countdown.done();
            match &experiment.work {
                Work::Phases(phases) => runner.phases(column, repetition, phases).await?,
                Work::Starts(starts) => runner.starts(column, repetition, starts).await?,
            }
            countdown.is_at(already + experiment.seconds_of(column));
            order.push(column);
        }
    }
    let phases = experiment.phase_names();
    let Runner { samples, stretches, .. } = runner;
    let rows = measure::rows(&experiment.columns, &phases, experiment.links.nodes(), &samples, &stretches);
    Ok(Report {
        name: experiment.name.clone(),
        title: experiment.title.clone(),
        reproduces: experiment.reproduces.clone(),
        differs: experiment.differs.clone(),
        began_at_unix_seconds,
        seconds: began.elapsed().as_secs_f64(),
        machine: Machine::this_one(),
        components: settings.components.clone(),
        seed: settings.seed,
        repeat,
        order,
        columns: experiment.columns.clone(),
        nodes: experiment.links.nodes().to_vec(),
        phases,
        injected_rtt_ms: crate::report::injected_rtt_ms(&experiment.links),
        measured_rtt_ms,
        figures: experiment.goals.iter().map(|goal| goal.judge(&rows)).collect(),
        rows,
        stretches,
        samples,
    })
}

/// The columns, beginning with another one.
fn rotated(columns: &[Column], by: u64) -> Vec<Column> {
    let mut columns = columns.to_vec();
    let length = u64::try_from(columns.len()).unwrap_or(1).max(1);
    columns.rotate_left(usize::try_from(by % length).unwrap_or(0));
    columns
}

struct Runner<'a> {
    experiment: &'a Experiment,
    site: Site<'a>,
    countdown: &'a Countdown,
    samples: Vec<Sample>,
    stretches: Vec<Stretch>,
}

impl Runner<'_> {
    async fn phases(&mut self, column: Column, repetition: u32, phases: &[Phase]) -> Result<(), ExperimentError> {
        let Experiment { service, links, .. } = self.experiment;
        let name = self.experiment.service_name(column, repetition);
        self.site.apply(column, &name, service).await?;
        self.site.until_ready(column, &name, service).await?;
        let url = column.url(&name);
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut sent = Vec::new();
        let site = &self.site;
        let mut under_way = FuturesUnordered::new();
        for phase in phases {
            if phase.from_zero && column.reaches_zero() {
                close(&mut stretches);
                // What is still under way keeps pods.
                while let Some(done) = under_way.next().await {
                    sent.push(done?);
                }
                site.until_no_pods(column, &name).await?;
            }
            self.countdown.say(format_args!("{}: {} for {} s", column.name(), phase.name, phase.seconds));
            if let Some(fault) = &phase.fault {
                site.make(fault, links).await?;
            }
            close(&mut stretches);
            stretches.push(begin(column, repetition, &phase.name));
            for load in &phase.loads {
                let answers = site.send(load, &url, phase.seconds);
                let label = (phase.name.clone(), load.timeout_seconds);
                under_way.push(async move { answers.await.map(|outcomes| (label, outcomes)) });
            }
            let ends = tokio::time::sleep(Duration::from_secs_f64(phase.seconds));
            tokio::pin!(ends);
            // Sending goes on only while it is waited for.
            loop {
                tokio::select! {
                    () = &mut ends => break,
                    Some(done) = under_way.next() => sent.push(done?),
                }
            }
            if let Some(fault) = &phase.fault {
                site.mend(fault, links).await?;
            }
            self.countdown.passed(phase.seconds);
        }
        close(&mut stretches);
        while let Some(done) = under_way.next().await {
            sent.push(done?);
        }
        for stretch in &mut stretches {
            site.complete(stretch, &name).await?;
        }
        drop(under_way);
        for ((phase, timeout_seconds), outcomes) in sent {
            self.samples.extend(outcomes.into_iter().map(|outcome| Sample {
                column,
                repetition,
                phase: phase.clone(),
                timeout_seconds,
                outcome,
                pod_seconds: None,
                ready_seconds: None,
            }));
        }
        self.stretches.extend(stretches);
        self.site.delete(column, &name, service).await
    }

    async fn starts(&mut self, column: Column, repetition: u32, starts: &Starts) -> Result<(), ExperimentError> {
        let service = &self.experiment.service;
        let base = self.experiment.service_name(column, repetition);
        let names: Vec<String> = (1..=starts.services).map(|number| format!("{base}-{number}")).collect();
        for name in &names {
            self.site.apply(column, name, service).await?;
        }
        for name in &names {
            self.site.until_ready(column, name, service).await?;
        }
        let mut froms = starts.from.iter().cycle();
        for round in 1..=starts.rounds {
            self.at_rest(column, &names).await?;
            self.countdown.say(format_args!("{}: round {round} of {}", column.name(), starts.rounds));
            let mut stretch = begin(column, repetition, START_PHASE);
            let mut woken = Vec::new();
            for (name, from) in names.iter().zip(&mut froms) {
                woken.push((name, self.site.send_one(from, &column.url(name), START_TIMEOUT_SECONDS).await?));
                tokio::time::sleep(Duration::from_secs_f64(starts.pause_seconds)).await;
            }
            stretch.to_unix_seconds = unix_seconds();
            for (name, outcome) in woken {
                let at = outcome.at_unix_seconds;
                let pods: Vec<_> =
                    self.site.pods(column, name).into_iter().filter(|pod| pod.made_unix_seconds >= at - 0.05).collect();
                let first = |times: &mut dyn Iterator<Item = f64>| times.min_by(f64::total_cmp).map(|time| (time - at).max(0.0));
                self.samples.push(Sample {
                    column,
                    repetition,
                    phase: START_PHASE.to_owned(),
                    timeout_seconds: START_TIMEOUT_SECONDS,
                    pod_seconds: first(&mut pods.iter().map(|pod| pod.made_unix_seconds)),
                    ready_seconds: first(&mut pods.iter().filter_map(|pod| pod.ready_unix_seconds)),
                    outcome,
                });
            }
            self.site.complete(&mut stretch, &base).await?;
            stretch.pods = names.iter().flat_map(|name| self.site.pods(column, name)).collect();
            self.stretches.push(stretch);
            self.countdown.passed(self.experiment.seconds_of(column) / f64::from(starts.rounds));
        }
        for name in &names {
            self.site.delete(column, name, service).await?;
        }
        Ok(())
    }

    /// Waits until services are as they are before a request wakes them.
    async fn at_rest(&self, column: Column, names: &[String]) -> Result<(), ExperimentError> {
        for name in names {
            match column {
                Column::Warm => self.site.until_a_pod_serves(column, name).await?,
                _ => self.site.until_no_pods(column, name).await?,
            }
        }
        if column == Column::Warm {
            tokio::time::sleep(WARM_SETTLES).await;
        }
        Ok(())
    }
}

fn begin(column: Column, repetition: u32, phase: &str) -> Stretch {
    let now = unix_seconds();
    Stretch {
        column,
        repetition,
        phase: phase.to_owned(),
        from_unix_seconds: now,
        // Until it is closed.
        to_unix_seconds: f64::INFINITY,
        pods: Vec::new(),
        cpu: None,
        emulator_late_p99_ms: None,
    }
}

/// Ends the last stretch now, if it has not ended.
fn close(stretches: &mut [Stretch]) {
    if let Some(last) = stretches.last_mut().filter(|last| last.to_unix_seconds.is_infinite()) {
        last.to_unix_seconds = unix_seconds();
    }
}

impl Experiment {
    /// About how long one repetition of a column takes.
    #[must_use]
    pub fn seconds_of(&self, column: Column) -> f64 {
        let work: f64 = match &self.work {
            Work::Phases(phases) => phases
                .iter()
                .map(|phase| phase.seconds + if phase.from_zero && column.reaches_zero() { TO_ZERO_SECONDS } else { 0.0 })
                .sum(),
            Work::Starts(starts) => {
                let each = f64::from(starts.services) * (starts.pause_seconds + START_SECONDS);
                f64::from(starts.rounds) * (each + TO_ZERO_SECONDS)
            }
        };
        work + AROUND_A_COLUMN_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_repetition_begins_with_another_column() {
        let columns = [Column::Ours, Column::Stock, Column::Rival];
        assert_eq!(rotated(&columns, 0), columns);
        assert_eq!(rotated(&columns, 4), [Column::Stock, Column::Rival, Column::Ours]);
        assert_eq!(rotated(&[Column::Warm], 7), [Column::Warm]);
    }
}
