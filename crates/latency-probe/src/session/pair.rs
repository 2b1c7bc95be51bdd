//! Statistics of one pair of nodes in bounded memory. Pure: time is an argument.
//!
//! A ring holds the newest outcomes (8 bytes each), beside two running averages. Percentiles are
//! exact over the window: sorting some sixty outcomes on demand is cheaper than a sketch on every
//! probe.

use std::collections::VecDeque;
use std::time::Duration;

use latency_matrix::StateKind;

use crate::clock::Mono;
use crate::protocol::wire::Sequence;
use crate::session::round_trip::RttSample;
pub(crate) use crate::session::summary::{RttSummary, Summary, loss, percentile};

/// The window: the newest `samples` outcomes that are not older than `span`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Largest number of outcomes.
    pub samples: usize,
    /// Largest age of an outcome.
    pub span: Duration,
}

/// Limits between the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Number of probes lost in a row that make a peer silent: unreachable if a second opinion
    /// agrees, else unknown.
    pub unreachable_after: u32,
    /// Age of the last reply beyond which a pair is stale.
    pub stale_after: Duration,
}

/// What the silence of a peer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSilence {
    /// Nothing beyond the responder: the pair is unknown.
    Unexplained,
    /// A second opinion agrees: the peer is unreachable.
    Confirmed,
}

/// Weight of the newest RTT in the average, as in TCP's smoothed RTT.
const EWMA_WEIGHT: f64 = 1.0 / 8.0;
/// Weight of the newest difference in the jitter (RFC 3550).
const JITTER_WEIGHT: f64 = 1.0 / 16.0;

/// Number of newest RTTs that prove a change of the route.
const EVIDENCE: usize = 11;

#[derive(Clone, Copy, Debug)]
struct ProbeOutcome {
    /// Milliseconds of the monotonic clock modulo 2^32 (49 days). Ages within a window are far
    /// smaller.
    at_millis: u32,
    /// None if lost.
    rtt: Option<RttSample>,
}

/// Outcomes of the probes of one pair, and the averages over them.
#[derive(Clone, Debug)]
pub struct PairWindow {
    outcomes: VecDeque<ProbeOutcome>,
    /// Number of outcomes that are answers.
    answers: usize,
    /// Number of answers whose RTTs count.
    counted: usize,
    /// Number of oldest outcomes from before the route changed: their losses count, their RTTs do
    /// not.
    outdated: usize,
    last_outcome: Option<Mono>,
    last_answer: Option<(Mono, RttSample)>,
    ewma_seconds: f64,
    jitter_seconds: f64,
    lost_in_a_row: u32,
    latest_answered: Option<Sequence>,
    reordered: u32,
    duplicates: u32,
}

impl PairWindow {
    /// Empty statistics with capacity for a window.
    #[must_use]
    pub fn new(window: WindowLimits) -> Self {
        Self {
            outcomes: VecDeque::with_capacity(window.samples),
            answers: 0,
            counted: 0,
            outdated: 0,
            last_outcome: None,
            last_answer: None,
            ewma_seconds: 0.0,
            jitter_seconds: 0.0,
            lost_in_a_row: 0,
            latest_answered: None,
            reordered: 0,
            duplicates: 0,
        }
    }

    /// Records the first reply to a probe, with or without an RTT. Returns whether it was overtaken
    /// by the reply to a later probe.
    pub fn replied(&mut self, sequence: Sequence) -> bool {
        let reordered = self.latest_answered.is_some_and(|latest| latest > sequence);
        self.latest_answered = self.latest_answered.max(Some(sequence));
        self.reordered = self.reordered.saturating_add(u32::from(reordered));
        reordered
    }

    /// Records a further reply to an answered probe.
    pub const fn replied_again(&mut self) {
        self.duplicates = self.duplicates.saturating_add(1);
    }

    /// Records an RTT.
    pub fn answered(&mut self, window: WindowLimits, at: Mono, rtt: RttSample) {
        self.make_room(window, at);
        let seconds = rtt.as_seconds();
        // Averages continue only from RTTs that still count; after a silence as long as the window
        // they restart.
        let previous = self.last_answer.filter(|_| self.answers > 0);
        if let Some((_, previous)) = previous {
            self.ewma_seconds += EWMA_WEIGHT * (seconds - self.ewma_seconds);
            self.jitter_seconds += JITTER_WEIGHT * ((seconds - previous.as_seconds()).abs() - self.jitter_seconds);
        } else {
            self.ewma_seconds = seconds;
            self.jitter_seconds = 0.0;
        }
        self.last_answer = Some((at, rtt));
        self.lost_in_a_row = 0;
        self.outcomes.push_back(ProbeOutcome { at_millis: millis(at), rtt: Some(rtt) });
        self.answers += 1;
        self.counted += 1;
        self.look_for_change();
    }

    /// When a route or link changes, a median over the window would show the old one until half of
    /// the window is new. So once the newest RTTs are all above three quarters of the older ones,
    /// or all below three quarters, the older ones no longer count. A quarter may deviate, because
    /// a busy link has spikes. On a full window chance alone does that once in about 130,000
    /// answers, and only shortens the window.
    fn look_for_change(&mut self) {
        let Some(number) = self.counted.checked_sub(EVIDENCE).filter(|number| *number >= EVIDENCE) else { return };
        let counted = self.answers_from(self.outdated);
        let Some((since, low, high)) = newest(counted.clone(), EVIDENCE) else { return };
        let older = counted.take_while(|(index, _)| *index < since);
        let spared = number / 4;
        let (mut not_below, mut not_above) = (0, 0);
        for (_, rtt) in older {
            not_below += usize::from(rtt >= low);
            not_above += usize::from(rtt <= high);
            // The common case, on the path of every answer.
            if not_below > spared && not_above > spared {
                return;
            }
        }
        self.outdated = since;
        self.counted = EVIDENCE;
        self.restart_averages();
    }

    /// The answers from this index on, oldest first, with their indices.
    fn answers_from(&self, first: usize) -> impl DoubleEndedIterator<Item = (usize, RttSample)> + Clone {
        self.outcomes.iter().enumerate().skip(first).filter_map(|(index, outcome)| Some((index, outcome.rtt?)))
    }

    /// Recomputes the averages from the RTTs that still count. Averages that remember the old route
    /// would lie outside the RTTs reported beside them.
    fn restart_averages(&mut self) {
        let mut times = self.outcomes.iter().skip(self.outdated).filter_map(|outcome| outcome.rtt).map(RttSample::as_seconds);
        let Some(mut previous) = times.next() else { return };
        let (mut ewma, mut jitter) = (previous, 0.0);
        for seconds in times {
            ewma += EWMA_WEIGHT * (seconds - ewma);
            jitter += JITTER_WEIGHT * ((seconds - previous).abs() - jitter);
            previous = seconds;
        }
        (self.ewma_seconds, self.jitter_seconds) = (ewma, jitter);
    }

    /// Records a loss.
    pub fn lost(&mut self, window: WindowLimits, at: Mono) {
        self.make_room(window, at);
        self.lost_in_a_row = self.lost_in_a_row.saturating_add(1);
        self.outcomes.push_back(ProbeOutcome { at_millis: millis(at), rtt: None });
    }

    fn make_room(&mut self, window: WindowLimits, now: Mono) {
        // Ages are relative to the last outcome, and wrap with `at_millis`. A ring without outcomes
        // for longer than the window is emptied as a whole.
        let newest = match self.last_outcome {
            Some(last) if now.since(last) <= window.span => millis(now),
            Some(_) => {
                self.outcomes.clear();
                self.answers = 0;
                self.counted = 0;
                self.outdated = 0;
                millis(now)
            }
            None => millis(now),
        };
        let span = span_millis(window);
        while self.outcomes.front().is_some_and(|oldest| newest.wrapping_sub(oldest.at_millis) > span) {
            self.drop_oldest();
        }
        while self.outcomes.len() >= window.samples.max(1) {
            self.drop_oldest();
        }
        self.last_outcome = Some(now);
    }

    fn drop_oldest(&mut self) {
        let oldest = self.outcomes.pop_front();
        let is_answer = oldest.is_some_and(|oldest| oldest.rtt.is_some());
        self.answers -= usize::from(is_answer);
        self.counted -= usize::from(is_answer && self.outdated == 0);
        self.outdated = self.outdated.saturating_sub(1);
    }

    /// Whether the last `number` probes were all lost.
    #[must_use]
    pub const fn lost_lately(&self, number: u32) -> bool {
        self.lost_in_a_row >= number
    }

    /// The state at `now`. Cheaper than a summary, with the same result.
    #[must_use]
    pub fn state(&self, window: WindowLimits, limits: StateLimits, silence: PeerSilence, now: Mono) -> StateKind {
        if self.lost_lately(limits.unreachable_after) {
            return match silence {
                PeerSilence::Unexplained => StateKind::Unknown,
                PeerSilence::Confirmed => StateKind::Unreachable,
            };
        }
        match self.last_answer {
            // The last answer is in the window unless time or later losses pushed it out. This
            // avoids touching the ring, which is rarely in the processor's cache.
            Some((at, _)) if self.answers > 0 && self.age_millis(millis(at), now) <= span_millis(window) => {
                if now.since(at) > limits.stale_after { StateKind::Stale } else { StateKind::Known }
            }
            _ => StateKind::Unknown,
        }
    }

    /// Age in milliseconds of an outcome that ended at `at_millis`.
    fn age_millis(&self, at_millis: u32, now: Mono) -> u32 {
        let idle = self.last_outcome.map_or(Duration::MAX, |last| now.since(last));
        let newest = self.last_outcome.map_or(0, millis);
        newest.wrapping_sub(at_millis).saturating_add(u32::try_from(idle.as_millis()).unwrap_or(u32::MAX))
    }

    fn within(&self, window: WindowLimits, now: Mono) -> impl Iterator<Item = (usize, &ProbeOutcome)> {
        let span = span_millis(window);
        self.outcomes.iter().enumerate().filter(move |(_, outcome)| self.age_millis(outcome.at_millis, now) <= span)
    }

    /// The kept RTTs, oldest first, including those from before the route changed.
    pub fn times(&self) -> impl Iterator<Item = RttSample> {
        self.outcomes.iter().filter_map(|outcome| outcome.rtt)
    }

    /// The statistics at `now`.
    #[must_use]
    pub fn summary(&self, window: WindowLimits, limits: StateLimits, silence: PeerSilence, now: Mono) -> Summary {
        let (mut ended, mut lost) = (0, 0);
        let mut times: Vec<RttSample> = Vec::with_capacity(self.outcomes.len());
        for (index, outcome) in self.within(window, now) {
            ended += 1;
            lost += u64::from(outcome.rtt.is_none());
            times.extend(outcome.rtt.filter(|_| index >= self.outdated));
        }
        times.sort_unstable();
        let state = self.state(window, limits, silence, now);
        let rtt = matches!(state, StateKind::Known | StateKind::Stale).then(|| {
            Some(RttSummary {
                min: *times.first()?,
                p50: percentile(&times, 50)?,
                p90: percentile(&times, 90)?,
                p99: percentile(&times, 99)?,
                // The average still contains a trace of RTTs that have left the window, which may
                // lie outside its range.
                ewma_seconds: self.ewma_seconds.clamp(times.first()?.as_seconds(), times.last()?.as_seconds()),
                jitter_seconds: self.jitter_seconds,
            })
        });
        Summary {
            state,
            rtt: rtt.flatten(),
            loss: loss(lost, ended),
            age: self.last_answer.map(|(at, _)| now.since(at)),
            samples: times.len() as u64,
            reordered: self.reordered,
            duplicates: self.duplicates,
        }
    }
}

/// Index of the oldest of the `number` newest answers, and the shortest and longest RTT among them.
fn newest(answers: impl DoubleEndedIterator<Item = (usize, RttSample)>, number: usize) -> Option<(usize, RttSample, RttSample)> {
    let mut found = None;
    let mut missing = number;
    for (index, rtt) in answers.rev().take(number) {
        let (_, low, high) = found.unwrap_or((index, rtt, rtt));
        found = Some((index, rtt.min(low), rtt.max(high)));
        missing -= 1;
    }
    found.filter(|_| missing == 0)
}

#[expect(clippy::cast_possible_truncation, reason = "modulo 2^32 is meant")]
const fn millis(at: Mono) -> u32 {
    (at.as_nanos() / 1_000_000) as u32
}

/// At most half the period of `at_millis` (24 days), beyond which ages are ambiguous.
fn span_millis(window: WindowLimits) -> u32 {
    u32::try_from(window.span.as_millis()).unwrap_or(u32::MAX).min(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: WindowLimits = WindowLimits { samples: 60, span: Duration::from_secs(60) };
    const LIMITS: StateLimits = StateLimits { unreachable_after: 5, stale_after: Duration::from_secs(10) };

    fn second(second: u64) -> Mono {
        Mono::from_nanos(second * 1_000_000_000)
    }

    fn ms(millis: u64) -> RttSample {
        RttSample::from_nanos(millis * 1_000_000).unwrap()
    }

    #[test]
    fn from_unknown_to_known_to_stale_to_unknown() {
        let mut pair = PairWindow::new(WINDOW);
        assert_eq!(pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(0)).state, StateKind::Unknown);
        pair.answered(WINDOW, second(1), ms(3));
        let known = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(2));
        assert_eq!((known.state, known.rtt.unwrap().p50, known.samples), (StateKind::Known, ms(3), 1));
        let stale = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(12));
        assert_eq!((stale.state, stale.rtt.unwrap().p50, stale.age), (StateKind::Stale, ms(3), Some(Duration::from_secs(11))));
        let forgotten = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(62));
        assert_eq!((forgotten.state, forgotten.rtt, forgotten.loss), (StateKind::Unknown, None, None));
        assert_eq!(pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(60 * 60 * 24 * 365)).state, StateKind::Unknown);
    }

    #[test]
    fn loss_is_loss_and_never_a_time() {
        let mut pair = PairWindow::new(WINDOW);
        pair.answered(WINDOW, second(1), ms(3));
        for at in 2..6 {
            pair.lost(WINDOW, second(at));
        }
        let shaky = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(6));
        assert_eq!((shaky.state, shaky.rtt.unwrap().p99, shaky.loss.unwrap().ratio), (StateKind::Known, ms(3), 0.8));
        pair.lost(WINDOW, second(6));
        let gone = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(6));
        assert_eq!((gone.state, gone.rtt), (StateKind::Unreachable, None));
        let silent = pair.summary(WINDOW, LIMITS, PeerSilence::Unexplained, second(6));
        assert_eq!((silent.state, silent.rtt, silent.loss), (StateKind::Unknown, None, gone.loss));
        pair.answered(WINDOW, second(7), ms(4));
        assert_eq!(pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(7)).state, StateKind::Known);
    }

    #[test]
    fn averages_begin_anew_after_a_long_silence() {
        let mut pair = PairWindow::new(WINDOW);
        pair.answered(WINDOW, second(1), ms(100));
        pair.answered(WINDOW, second(100), ms(1));
        let summary = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(100)).rtt.unwrap();
        assert_eq!((summary.ewma_seconds, summary.jitter_seconds), (0.001, 0.0));
    }

    #[test]
    fn a_way_that_changed_shows_within_fifteen_answers_and_loss_goes_on_being_counted() {
        for (before, after) in [(50, 55), (55, 50)] {
            let mut pair = PairWindow::new(WINDOW);
            for at in 0..60 {
                if at % 10 == 9 {
                    pair.lost(WINDOW, second(at));
                } else {
                    pair.answered(WINDOW, second(at), RttSample::from_nanos(before * 1_000_000 + at % 7 * 1_000).unwrap());
                }
            }
            for at in 60..75 {
                pair.answered(WINDOW, second(at), RttSample::from_nanos(after * 1_000_000 + at % 7 * 1_000).unwrap());
            }
            let summary = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(75));
            let p50 = summary.rtt.unwrap().p50.as_millis();
            assert!((p50 - after as f64).abs() < 0.1, "{p50}");
            assert!(summary.samples < 20 && (summary.loss.unwrap().ratio - 5.0 / 60.0).abs() < 0.02, "{summary:?}");
        }
    }

    #[test]
    fn a_change_shows_on_a_busy_wire_too() {
        let mut pair = PairWindow::new(WINDOW);
        for at in 0..75 {
            // Every fifth time is a spike, far above both ways.
            let spike = if at % 5 == 0 { 40 } else { 0 };
            pair.answered(WINDOW, second(at), ms(if at < 60 { 10 } else { 15 } + spike));
        }
        assert_eq!(pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(75)).rtt.unwrap().p50, ms(15));
    }

    #[test]
    fn a_single_spike_is_no_change() {
        let mut pair = PairWindow::new(WINDOW);
        for at in 0..300 {
            let spike = if at % 7 < 2 { 40 } else { 0 };
            pair.answered(WINDOW, second(at), ms(10 + spike));
        }
        assert_eq!(pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(300)).samples, 60);
    }

    /// A reader that checks `min <= ewma` must be able to believe every row, also just after the
    /// way became longer.
    #[test]
    fn the_average_lies_among_the_times_while_a_way_changes() {
        for (before, after) in [(5, 50), (50, 55), (50, 5)] {
            let mut pair = PairWindow::new(WINDOW);
            for at in 0..60 {
                pair.answered(WINDOW, second(at), ms(before));
            }
            for at in 60..140 {
                pair.answered(WINDOW, second(at), ms(after));
                let rtt = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(at)).rtt.unwrap();
                assert!(rtt.min.as_seconds() <= rtt.ewma_seconds, "{before} to {after} ms, answer {at}: {rtt:?}");
                if at >= 75 {
                    if at >= 70 {
                        assert_eq!(rtt.p50, ms(after), "the eleventh answer is proof");
                    }
                    let off = (rtt.ewma_seconds * 1e3 - after as f64).abs();
                    assert!(off < 1e-6 && rtt.jitter_seconds == 0.0, "the old way is forgotten: {rtt:?}");
                }
            }
        }
    }

    #[test]
    fn the_average_lies_among_the_times_of_a_short_window() {
        let window = WindowLimits { samples: 2, ..WINDOW };
        let mut pair = PairWindow::new(window);
        for (at, millis) in [1, 1, 1, 9, 9].into_iter().enumerate() {
            pair.answered(window, second(at as u64), ms(millis));
        }
        assert_eq!(pair.summary(window, LIMITS, PeerSilence::Confirmed, second(5)).rtt.unwrap().ewma_seconds, 0.009);
    }

    #[derive(Clone, Copy, Debug)]
    struct Step {
        gap_millis: u64,
        rtt_micros: Option<u32>,
    }

    fn trace() -> impl Strategy<Value = Vec<Step>> {
        let gap = prop_oneof![8 => 900_u64..1_100, 1 => 0_u64..10, 1 => 5_000_u64..100_000];
        // Two ways, so that changes happen.
        let rtt = proptest::option::weighted(0.8, prop_oneof![20 => 1_000_u32..1_100, 1 => 1_u32..3_900_000]);
        let step = (gap, rtt).prop_map(|(gap_millis, rtt_micros)| Step { gap_millis, rtt_micros });
        let stretch = (proptest::collection::vec(step, 0..60), 0_u32..3).prop_map(|(steps, way)| {
            let farther = |step: Step| Step { rtt_micros: step.rtt_micros.map(|micros| micros + way * 50_000), ..step };
            steps.into_iter().map(farther).collect::<Vec<_>>()
        });
        proptest::collection::vec(stretch, 0..5).prop_map(|stretches| stretches.concat())
    }

    /// The same, from the whole history, in the plainest way. `counts_from` is the place in it from
    /// which on times count.
    fn reference(history: &[(u64, Option<f64>)], counts_from: usize, now_millis: u64) -> (StateKind, Vec<f64>, usize, usize) {
        let start = history.len().saturating_sub(WINDOW.samples);
        let window: Vec<_> = (0..).zip(history).skip(start).filter(|(_, (at, _))| now_millis - at <= 60_000).collect();
        let mut times: Vec<f64> =
            window.iter().filter(|(index, _)| *index >= counts_from).filter_map(|(_, (_, rtt))| *rtt).collect();
        times.sort_by(f64::total_cmp);
        let lost_in_a_row = history.iter().rev().take_while(|(_, rtt)| rtt.is_none()).count();
        let last = history.iter().rev().find(|(_, rtt)| rtt.is_some());
        let state = match last {
            _ if lost_in_a_row >= 5 => StateKind::Unreachable,
            _ if times.is_empty() => StateKind::Unknown,
            Some((at, _)) if now_millis - at > 10_000 => StateKind::Stale,
            _ => StateKind::Known,
        };
        let lost = window.iter().filter(|(_, (_, rtt))| rtt.is_none()).count();
        (state, times, lost, window.len())
    }

    /// From which place in the history on times count, if the newest answers are of another way
    /// than the ones before.
    fn change(history: &[(u64, Option<f64>)], counts_from: usize) -> Option<usize> {
        let (now, _) = history.last()?;
        let start = history.len().saturating_sub(WINDOW.samples).max(counts_from);
        // A silence as long as the window empties it for good.
        let awake = (1..history.len()).rev().find(|index| history[*index].0 - history[index - 1].0 > 60_000).unwrap_or(0);
        let answers: Vec<(usize, f64)> = (start.max(awake)..history.len())
            .filter(|index| now - history[*index].0 <= 60_000)
            .filter_map(|index| Some((index, history[index].1?)))
            .collect();
        let (older, newest) = answers.split_at(answers.len().checked_sub(11)?);
        let mut sorted: Vec<f64> = older.iter().map(|(_, rtt)| *rtt).collect();
        sorted.sort_by(f64::total_cmp);
        let most = (sorted.len() * 3).div_ceil(4);
        let enough = sorted.len() >= 11;
        let above = enough && newest.iter().all(|(_, rtt)| *rtt > sorted[most - 1]);
        let below = enough && newest.iter().all(|(_, rtt)| *rtt < sorted[sorted.len() - most]);
        (above || below).then_some(newest[0].0)
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_reference(trace in trace(), start in 0_u64..10_000_000_000, rest in 0_u64..120_000) {
            let mut pair = PairWindow::new(WINDOW);
            let mut history = Vec::new();
            let mut counts_from = 0;
            let mut now = start;
            for step in trace {
                now += step.gap_millis;
                let at = Mono::from_nanos(now * 1_000_000);
                match step.rtt_micros {
                    Some(micros) => {
                        pair.answered(WINDOW, at, RttSample::from_nanos(u64::from(micros) * 1_000).unwrap());
                        history.push((now, Some(f64::from(micros) / 1e6)));
                        counts_from = change(&history, counts_from).unwrap_or(counts_from);
                    }
                    None => {
                        pair.lost(WINDOW, at);
                        history.push((now, None));
                    }
                }
            }
            now += rest;
            let said = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, Mono::from_nanos(now * 1_000_000));
            let (state, times, lost, ended) = reference(&history, counts_from, now);
            prop_assert_eq!(said.state, state);
            prop_assert_eq!(said.samples, times.len() as u64);
            let last = history.iter().rev().find(|(_, rtt)| rtt.is_some());
            prop_assert_eq!(said.age, last.map(|(at, _)| Duration::from_millis(now - at)));
            prop_assert_eq!(said.loss.is_some(), ended > 0);
            if let Some(loss) = said.loss {
                let ratio = lost as f64 / ended as f64;
                prop_assert!((loss.ratio - ratio).abs() < 1e-12);
                prop_assert!(0.0 <= loss.low && loss.low <= ratio + 1e-12 && ratio <= loss.high + 1e-12 && loss.high <= 1.0);
            }
            prop_assert_eq!(said.rtt.is_some(), matches!(state, StateKind::Known | StateKind::Stale));
            if let Some(rtt) = said.rtt {
                let rank = |p: f64| times[((p * times.len() as f64).ceil() as usize).max(1) - 1];
                for (ours, theirs) in [(rtt.min, times[0]), (rtt.p50, rank(0.5)), (rtt.p90, rank(0.9)), (rtt.p99, rank(0.99))] {
                    prop_assert!((ours.as_seconds() - theirs).abs() < 1e-9, "{ours:?} {theirs}");
                }
                prop_assert!(rtt.ewma_seconds > 0.0 && rtt.ewma_seconds <= 4.0);
                let longest = times.last().copied().unwrap_or_default();
                prop_assert!(rtt.min.as_seconds() <= rtt.ewma_seconds && rtt.ewma_seconds <= longest + 1e-9, "{rtt:?}");
            }
            prop_assert!(pair.outcomes.len() <= WINDOW.samples && pair.outcomes.capacity() <= WINDOW.samples);
        }

        /// Wilson's interval are the shares from which the observed one is just so many standard
        /// deviations away.
        #[test]
        fn the_interval_of_loss_solves_its_equation(a in 0_u64..5_000, b in 1_u64..5_000) {
            let (lost, ended) = (a.min(b), b);
            let said = loss(lost, ended).unwrap();
            let (n, observed) = (ended as f64, lost as f64 / ended as f64);
            for end in [said.low, said.high] {
                let deviations = (observed - end).abs() / (end * (1.0 - end) / n).sqrt();
                // At 0 and 1 the interval ends because shares do.
                let at_the_edge = (lost == 0 && end < 1e-12) || (lost == ended && end > 1.0 - 1e-12);
                prop_assert!(at_the_edge || (deviations - 1.959_964).abs() < 1e-4, "{end} {deviations}");
            }
            prop_assert_eq!((said.lost, said.ended, said.ratio), (lost, ended, observed));
        }

        /// Reordered are the replies with an earlier number than any reply before them.
        #[test]
        fn reordered_replies_agree_with_their_definition(arrivals in proptest::collection::vec(0_u64..200, 0..200)) {
            let mut pair = PairWindow::new(WINDOW);
            let mut distinct: Vec<u64> = Vec::new();
            for number in arrivals {
                if distinct.contains(&number) {
                    pair.replied_again();
                } else {
                    let said = pair.replied(Sequence(number));
                    prop_assert_eq!(said, distinct.iter().any(|before| *before > number));
                    distinct.push(number);
                }
            }
            let reordered = (0..distinct.len()).filter(|place| distinct[..*place].iter().any(|before| *before > distinct[*place])).count();
            prop_assert_eq!(pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(0)).reordered as usize, reordered);
        }

        /// Running values against their definitions, over answers without long gaps. They begin
        /// anew where the way changed, which short random traces show now and then.
        #[test]
        fn running_values_agree(times in proptest::collection::vec(1_u32..4_000_000, 1..100)) {
            let mut pair = PairWindow::new(WINDOW);
            let (mut history, mut counts_from) = (Vec::new(), 0);
            for (at, micros) in (0..).zip(&times) {
                history.push((at * 1_000, Some(f64::from(*micros) / 1e6)));
                counts_from = change(&history, counts_from).unwrap_or(counts_from);
                pair.answered(WINDOW, second(at), RttSample::from_nanos(u64::from(*micros) * 1_000).unwrap());
            }
            let seconds: Vec<f64> = times[counts_from..].iter().map(|micros| f64::from(*micros) / 1e6).collect();
            let ewma = seconds.iter().copied().reduce(|average, next| average * 7.0 / 8.0 + next / 8.0).unwrap();
            let jitter = seconds.windows(2).fold(0.0, |jitter, pair| jitter * 15.0 / 16.0 + (pair[1] - pair[0]).abs() / 16.0);
            let said = pair.summary(WINDOW, LIMITS, PeerSilence::Confirmed, second(times.len() as u64)).rtt.unwrap();
            prop_assert!((said.ewma_seconds - ewma).abs() < 1e-9 && (said.jitter_seconds - jitter).abs() < 1e-9);
        }
    }
}
