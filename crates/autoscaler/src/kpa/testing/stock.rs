//! The stock autoscaler's rules, written down once more: from knative/serving 1.15's behaviour, in
//! none of the ways and with none of the code that the crate itself has. Plain rather than fast.

use std::collections::BTreeMap;

use super::case::Case;
use crate::kpa::SourceDemand;

/// The stock autoscaler of one revision.
pub(super) struct Stock {
    rps: bool,
    target: f64,
    total: f64,
    burst: Option<f64>,
    activator_capacity: f64,
    threshold: f64,
    up: f64,
    down: f64,
    activation: i64,
    delay: u64,
    min: u32,
    max: u32,
    initial: u32,
    stable: Buckets,
    panic: Buckets,
    panic_since: Option<u64>,
    panic_most: i64,
    /// Highest count by slot of two seconds.
    slots: BTreeMap<u64, i64>,
}

pub(super) struct Decision {
    pub(super) stable: f64,
    pub(super) panic: f64,
    pub(super) want: u32,
    pub(super) panicking: bool,
    pub(super) excess: f64,
}

impl Stock {
    /// A new autoscaler that meets so many ready pods.
    pub(super) fn new(case: &Case, now: u64, ready: u32) -> Self {
        let limit = f64::from(case.container_concurrency);
        let (mut total, mut utilization) = if case.rps {
            (case.rps_default.unwrap_or(200.0), 0.7)
        } else {
            let default = case.concurrency_default.unwrap_or(100.0);
            // Up to one it is a share, beyond it percent.
            let share = case.utilization_default.map_or(0.7, |share| if share > 1.0 { share / 100.0 } else { share });
            (if limit == 0.0 { default } else { limit }, share)
        };
        if let Some(own) = case.target {
            total = if !case.rps && limit > 0.0 && limit < own { limit } else { own };
        }
        if let Some(own) = case.utilization {
            utilization = own / 100.0;
        }
        let window = case.window.annotation.or(case.window.cluster).unwrap_or(60);
        let percentage = case.panic_window.annotation.or(case.panic_window.cluster).unwrap_or(10.0);
        // Half a second is rounded up, and less than a second is one.
        let milliseconds = window as f64 * 1e9 * percentage / 100.0 / 1e6;
        let panic_window = ((milliseconds / 1000.0 + 0.5).floor() as u64).max(1);
        Self {
            rps: case.rps,
            target: f64::max(0.01, total * utilization),
            total,
            burst: case.burst.annotation.or(case.burst.cluster),
            activator_capacity: case.activator_capacity.unwrap_or(100.0),
            threshold: case.threshold.annotation.or(case.threshold.cluster).unwrap_or(200.0) / 100.0,
            up: case.up.unwrap_or(1000.0),
            down: case.down.unwrap_or(2.0),
            activation: i64::from(case.activation.unwrap_or(0)),
            delay: case.delay.annotation.or(case.delay.cluster).unwrap_or(0),
            min: case.min.annotation.or(case.min.cluster).unwrap_or(0),
            max: case.max.annotation.or(case.max.cluster).unwrap_or(0),
            initial: case.initial.annotation.or(case.initial.cluster).unwrap_or(1),
            stable: Buckets::new(window, case.exponential),
            panic: Buckets::new(panic_window, case.exponential),
            panic_since: (ready > 1).then_some(now),
            panic_most: i64::from(ready),
            slots: BTreeMap::new(),
        }
    }

    pub(super) fn stable_seconds(&self) -> u64 {
        self.stable.values.len() as u64
    }

    /// For so long a count can be delayed.
    pub(super) fn delay_seconds(&self) -> u64 {
        self.delay.div_ceil(2) * 2
    }

    /// What the pods and activators of all sources together show of a second.
    pub(super) fn record(&mut self, now: u64, sources: &BTreeMap<u8, SourceDemand>) {
        let mut value = 0.0;
        for demand in sources.values() {
            value += if self.rps { demand.requests_per_second } else { demand.concurrency };
        }
        self.stable.record(now, value);
        self.panic.record(now, value);
    }

    /// `None` without data.
    pub(super) fn decide(&mut self, now: u64, ready: u32, reachable: bool) -> Option<Decision> {
        if self.stable.is_empty(now) {
            return None;
        }
        let (stable, panic) = (self.stable.average(now), self.panic.average(now));
        let pods = f64::from(if ready == 0 { 1 } else { ready });
        let highest = (self.up * pods).ceil();
        let lowest = if reachable { (pods / self.down).floor() } else { 0.0 };
        let for_stable = (stable / self.target).ceil();
        let for_panic = (panic / self.target).ceil();
        let within_rates = |count: f64| {
            let count = if count < lowest { lowest } else { count };
            (if count > highest { highest } else { count }) as i64
        };
        let (mut wanted_stable, mut wanted_panic) = (within_rates(for_stable), within_rates(for_panic));
        if self.activation > 1 {
            if for_stable > 0.0 {
                wanted_stable = wanted_stable.max(self.activation);
            }
            if for_panic > 0.0 {
                wanted_panic = wanted_panic.max(self.activation);
            }
        }
        let over = for_panic / pods >= self.threshold;
        match self.panic_since {
            _ if over => self.panic_since = Some(now),
            Some(since) if since + self.stable_seconds() < now => {
                self.panic_since = None;
                self.panic_most = 0;
            }
            _ => {}
        }
        let mut wanted = wanted_stable;
        if self.panic_since.is_some() {
            self.panic_most = self.panic_most.max(wanted_stable).max(wanted_panic);
            wanted = self.panic_most;
        }
        if self.delay > 0 && reachable {
            let slot = self.slots.entry(now / 2).or_insert(0);
            *slot = (*slot).max(wanted);
            let slots = self.delay.div_ceil(2);
            wanted = self.slots.iter().filter(|(slot, _)| *slot + slots > now / 2).map(|(_, most)| *most).max().unwrap_or(0);
        }
        let burst = self.burst.unwrap_or(0.0);
        let excess = if burst == 0.0 {
            0.0
        } else if burst > 0.0 {
            (f64::from(ready) * self.total - burst - panic).floor()
        } else {
            -1.0
        };
        let want = u32::try_from(wanted).unwrap_or(0);
        Some(Decision { stable, panic, want, panicking: self.panic_since.is_some(), excess })
    }

    pub(super) fn activators(&self, ready: u32) -> u32 {
        let burst = self.burst.unwrap_or(211.0);
        if burst == 0.0 {
            return 2;
        }
        let covered = f64::from(ready) * self.total + if burst > 0.0 { burst } else { 0.0 };
        ((covered / self.activator_capacity).ceil() as u32).max(2)
    }

    pub(super) fn bounded(&self, want: u32, initialized: bool, reachable: bool) -> u32 {
        let mut least = if reachable { self.min } else { 0 };
        if !initialized && reachable && self.initial > 1 && self.initial > least {
            least = self.initial;
        }
        if want < least {
            least
        } else if self.max > 0 && want > self.max {
            self.max
        } else {
            want
        }
    }
}

/// One window: a value per second, by the second modulo the window.
struct Buckets {
    values: Vec<f64>,
    exponential: bool,
    first: u64,
    last: Option<u64>,
    sum: f64,
}

impl Buckets {
    fn new(window: u64, exponential: bool) -> Self {
        Self { values: vec![0.0; window as usize], exponential, first: 0, last: None, sum: 0.0 }
    }

    fn length(&self) -> u64 {
        self.values.len() as u64
    }

    fn at(&mut self, second: u64) -> &mut f64 {
        let index = (second % self.length()) as usize;
        &mut self.values[index]
    }

    fn record(&mut self, now: u64, value: f64) {
        match self.last {
            Some(last) if now - last < self.length() => {
                for second in last + 1..=now {
                    let old = std::mem::replace(self.at(second), 0.0);
                    self.sum -= old;
                }
            }
            _ => {
                self.values.fill(0.0);
                self.sum = 0.0;
                self.first = now;
            }
        }
        self.last = Some(now);
        *self.at(now) += value;
        self.sum += value;
    }

    fn is_empty(&self, now: u64) -> bool {
        self.last.is_none_or(|last| now - last > self.length())
    }

    fn average(&self, now: u64) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let missing = now - last;
        if self.exponential { self.weighted(last, missing) } else { self.linear(last, missing) }
    }

    fn linear(&self, last: u64, missing: u64) -> f64 {
        if missing >= self.length() {
            return 0.0;
        }
        let mut sum = self.sum;
        for second in last + 1..=last + missing {
            sum -= self.values[(second % self.length()) as usize];
        }
        let counted = (last - self.first + 1).min(self.length() - missing);
        let millionths = (sum / counted as f64 * 1_000_000.0).floor();
        millionths / 1_000_000.0
    }

    fn weighted(&self, last: u64, missing: u64) -> f64 {
        if missing > self.length() {
            return 0.0;
        }
        let share = f64::max(0.2, 1.0 - f64::powf(1e-4, 1.0 / self.length() as f64));
        let mut weight = share * (1.0 - share).powi(missing as i32);
        let mut average = 0.0;
        for age in 0..self.length() - missing {
            // Before the first second there is nothing to look at.
            let Some(second) = last.checked_sub(age) else { break };
            average += self.values[(second % self.length()) as usize] * weight;
            weight *= 1.0 - share;
        }
        average
    }
}
