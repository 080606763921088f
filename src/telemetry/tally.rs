//! What became of one policy's calls, for people who look at it now: totals, the last minutes, and the last failures.
//!
//! It is counted apart from the metrics, whose series are bounded, and which are dear to read as a whole. A policy that
//! was never called has nothing; one that was takes less than 800 bytes, and what its last failures say.

use std::{
    array,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    failures::{Failure, Failures},
    meters::End,
    names::{FUNCTION_ERRORS, GIVEN_UP, OUTCOMES},
    spread::{self, BUCKETS, Counts},
};

/// How often a sample is to be taken.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// How many intervals are remembered: ten minutes.
const POINTS: usize = 60;
/// The intervals that rates are told of: a minute.
const RECENT: usize = 6;
/// What a call weighs in the quantiles after an interval, compared with before: half after a minute.
const FADES: f32 = 0.891;
/// How calls end that are told apart here: by [`OUTCOMES`], but given up by their callers while Lambda was asked, and with an error
/// that is the callers' own, for themselves.
const WAYS: usize = OUTCOMES.len() + 2;
const GIVEN_UP_WAY: usize = 4;
const OWN_WAY: usize = 5;
/// A latency's steps within a bucket, as it is remembered; `u8::MAX` is none.
const STEPS: f32 = 6.0;

/// One policy's, once it was called.
#[derive(Debug, Default)]
pub(super) struct Tally(OnceLock<Box<Counted>>);

#[derive(Debug)]
struct Counted {
    ended: [AtomicU64; WAYS],
    /// How long the calls since the last sample took.
    fresh: [AtomicU32; BUCKETS],
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    reasons: Vec<(&'static str, u64)>,
    failures: Failures,
    /// How long the calls before took, weighed.
    lately: Counts,
    /// What there was at the last sample.
    seen: Seen,
    ring: Ring,
}

/// The last intervals. Counts are floats without their lower half, which are exact up to 256.
#[derive(Debug)]
struct Ring {
    calls: [u16; POINTS],
    errors: [u16; POINTS],
    slow: [u8; POINTS],
    /// Of the last of them, in no order.
    given_up: [u16; RECENT],
    own: [u16; RECENT],
    next: u8,
    len: u8,
}

/// Calls, errors, those that were given up, and errors that are the callers' own: of each number the lower half, as what has come
/// since is less.
type Seen = [u32; 4];

/// When the last sample was taken, and how many there were.
#[derive(Debug)]
pub(super) struct Clock(Mutex<(Instant, u64)>);

/// Calls, and those that went wrong, in a second, over the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    /// Calls that ended, however they did.
    pub calls: f64,
    /// Calls without an answer, or with one that is the function's error.
    pub errors: f64,
    /// Calls that their callers gave up while Lambda was asked.
    pub given_up: f64,
    /// Errors that are the callers' own doing.
    pub own: f64,
}

/// What became of a policy's calls, or of all.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Calls since the start, in the order of [`OUTCOMES`].
    pub ended: [u64; OUTCOMES.len()],
    /// The failures among them by reason.
    pub reasons: Vec<(&'static str, u64)>,
    /// The last minute.
    pub recent: Recent,
    /// The last failures, the latest first.
    pub last_errors: Vec<Failure>,
    /// How many intervals are known, the one that runs among them.
    known: usize,
    calls: [f32; POINTS + 1],
    errors: [f32; POINTS + 1],
    slow: Vec<Option<f32>>,
    lately: Counts,
}

impl Tally {
    /// Counts a call that has ended.
    pub(super) fn count(&self, end: End, took: Duration) {
        let counted = self.0.get_or_init(Box::default);
        let way = match end {
            End::Error(_) if end.is_own() => OWN_WAY,
            End::GivenUp => GIVEN_UP_WAY,
            End::Ok | End::FunctionError(_) | End::Error(_) | End::Cancelled => end.place(),
        };
        if let (Some(ended), Some(fresh)) = (counted.ended.get(way), counted.fresh.get(spread::bucket(took))) {
            ended.fetch_add(1, Ordering::Relaxed);
            fresh.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(reason) = end.reason().filter(|reason| *reason != GIVEN_UP) {
            let mut kept = counted.kept();
            match kept.reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => kept.reasons.push((reason, 1)),
            }
        }
    }

    /// How many calls ended in which way, with a reason of those that have one: of each outcome but `cancelled` also if there were
    /// none, as a rate begins with a 0.
    pub(super) fn ended(&self, mut tell: impl FnMut(&'static str, Option<&'static str>, u64)) {
        let counted = self.0.get();
        let of = |way| counted.map_or(0, |counted| counted.ended(way));
        let [ok, function_error, error, cancelled] = OUTCOMES;
        tell(ok, None, of(0));
        tell(function_error, None, 0);
        tell(error, None, 0);
        if of(3) > 0 {
            tell(cancelled, None, of(3));
        }
        if of(GIVEN_UP_WAY) > 0 {
            tell(cancelled, Some(GIVEN_UP), of(GIVEN_UP_WAY));
        }
        for (reason, count) in counted.map(|counted| counted.kept().reasons.clone()).unwrap_or_default() {
            tell(if FUNCTION_ERRORS.contains(&reason) { function_error } else { error }, Some(reason), count);
        }
    }

    /// Keeps a failure as one of the last ones.
    pub(super) fn keep(&self, failure: Failure) {
        let counted = self.0.get_or_init(Box::default);
        counted.kept().failures.keep(failure, counted.ended(0));
    }

    /// Ends an interval.
    pub(super) fn sample(&self) {
        let Some(counted) = self.0.get() else { return };
        let mut kept = counted.kept();
        let fresh: Counts = array::from_fn(|at| counted.fresh.get(at).map_or(0, take) as f32);
        let before = std::mem::replace(&mut kept.seen, counted.seen());
        let new = since(kept.seen, before);
        kept.ring.push(new, spread::place(&fresh, 0.99));
        for (lately, fresh) in kept.lately.iter_mut().zip(fresh) {
            *lately = *lately * FADES + fresh;
        }
    }

    /// The last minute's rates; `None` if it was never called.
    pub(super) fn recent(&self, clock: &Clock) -> Option<Recent> {
        let counted = self.0.get()?;
        let kept = counted.kept();
        let [calls, errors, given_up, own] = since(counted.seen(), kept.seen).map(f64::from);
        let span = clock.span();
        let before = kept.ring.newest_first().take(RECENT);
        let [calls, errors] = before.fold([calls, errors], |[calls, errors], point| {
            [calls + f64::from(point.calls), errors + f64::from(point.errors)]
        });
        let lately = |counts: &[u16; RECENT]| counts.iter().map(|count| f64::from(long(*count))).sum::<f64>();
        let given_up = given_up + lately(&kept.ring.given_up);
        let own = own + lately(&kept.ring.own);
        Some(Recent { calls: calls / span, errors: errors / span, given_up: given_up / span, own: own / span })
    }

    /// All of it; `None` if it was never called.
    pub(super) fn figures(&self, clock: &Clock) -> Option<Figures> {
        let mut figures = Figures::default();
        self.add_to(&mut figures, clock)?;
        let kept = self.0.get()?.kept();
        figures.last_errors = kept.failures.iter().cloned().collect();
        figures.slow = kept.ring.newest_first().map(|point| point.slow).collect();
        drop(kept);
        figures.slow.reverse();
        let counted = self.0.get()?;
        let fresh = array::from_fn(|at| counted.fresh.get(at).map_or(0, read) as f32);
        figures.slow.push(spread::place(&fresh, 0.99).map(spread::seconds));
        Some(figures)
    }

    /// Puts its last failures among those of others, of which as many are kept as of one policy.
    pub(super) fn add_failures(&self, policy: &str, all: &mut Vec<(String, Failure)>) {
        if let Some(counted) = self.0.get() {
            counted.kept().failures.add_to(policy, all);
        }
    }

    /// Adds what can be added.
    pub(super) fn add_to(&self, figures: &mut Figures, clock: &Clock) -> Option<()> {
        let recent = self.recent(clock)?;
        figures.recent.calls += recent.calls;
        figures.recent.errors += recent.errors;
        figures.recent.given_up += recent.given_up;
        figures.recent.own += recent.own;
        let counted = self.0.get()?;
        let given_up = counted.ended(GIVEN_UP_WAY);
        for (sum, ended) in figures.ended.iter_mut().zip(counted.by_outcome()) {
            *sum += ended;
        }
        let kept = counted.kept();
        for (reason, count) in kept.reasons.iter().chain(&[(GIVEN_UP, given_up)]).filter(|(_, count)| *count > 0) {
            match figures.reasons.iter_mut().find(|(known, _)| known == reason) {
                Some((_, sum)) => *sum += count,
                None => figures.reasons.push((reason, *count)),
            }
        }
        let sums = figures.lately.iter_mut().zip(kept.lately).zip(&counted.fresh);
        sums.for_each(|((sum, lately), fresh)| *sum += lately + read(fresh) as f32);
        let [calls, errors, ..] = since(counted.seen(), kept.seen).map(|count| count as f32);
        let running = Point { calls, errors, slow: None };
        let sums = figures.calls.iter_mut().zip(&mut figures.errors).rev();
        for ((calls, errors), point) in sums.zip([running].into_iter().chain(kept.ring.newest_first())) {
            *calls += point.calls;
            *errors += point.errors;
        }
        figures.known = figures.known.max(1 + usize::from(kept.ring.len));
        Some(())
    }
}

/// What has come since.
fn since(mut now: Seen, before: Seen) -> Seen {
    now.iter_mut().zip(before).for_each(|(now, before)| *now = now.wrapping_sub(before));
    now
}

fn take(count: &AtomicU32) -> u32 {
    count.swap(0, Ordering::Relaxed)
}

fn read(count: &AtomicU32) -> u32 {
    count.load(Ordering::Relaxed)
}

impl Counted {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is now.
    fn seen(&self) -> Seen {
        let [ok, function, error, cancelled, given_up, own]: [u64; WAYS] = array::from_fn(|way| self.ended(way));
        let errors = function + error + own;
        [ok + errors + cancelled + given_up, errors, given_up, own].map(|count| count as u32)
    }

    fn by_outcome(&self) -> [u64; OUTCOMES.len()] {
        let [ok, function, error, cancelled, given_up, own]: [u64; WAYS] = array::from_fn(|way| self.ended(way));
        [ok, function, error + own, cancelled + given_up]
    }

    fn ended(&self, way: usize) -> u64 {
        self.ended.get(way).map_or(0, |ended| ended.load(Ordering::Relaxed))
    }
}

impl Default for Counted {
    fn default() -> Self {
        let (counts, slow) = ([0; POINTS], [u8::MAX; POINTS]);
        let ring =
            Ring { calls: counts, errors: counts, slow, given_up: [0; RECENT], own: [0; RECENT], next: 0, len: 0 };
        let kept = Kept {
            reasons: Vec::new(),
            failures: Failures::default(),
            lately: [0.0; BUCKETS],
            seen: Seen::default(),
            ring,
        };
        Self { ended: Default::default(), fresh: [const { AtomicU32::new(0) }; BUCKETS], kept: Mutex::new(kept) }
    }
}

struct Point {
    calls: f32,
    errors: f32,
    /// The 99th percentile in seconds.
    slow: Option<f32>,
}

impl Ring {
    fn push(&mut self, [calls, errors, given_up, own]: Seen, place: Option<f32>) {
        let at = usize::from(self.next);
        if let (Some(g), Some(o)) = (self.given_up.get_mut(at % RECENT), self.own.get_mut(at % RECENT)) {
            (*g, *o) = (short(given_up), short(own));
        }
        if let (Some(c), Some(e), Some(s)) = (self.calls.get_mut(at), self.errors.get_mut(at), self.slow.get_mut(at)) {
            (*c, *e) = (short(calls), short(errors));
            *s = place.map_or(u8::MAX, |place| (place * STEPS) as u8);
        }
        self.next = (self.next + 1) % POINTS as u8;
        self.len = (self.len + 1).min(POINTS as u8);
    }

    fn newest_first(&self) -> impl Iterator<Item = Point> {
        let (next, len) = (usize::from(self.next), usize::from(self.len));
        (1..=len).filter_map(move |back| {
            let at = (next + POINTS - back) % POINTS;
            let slow = self.slow.get(at).filter(|slow| **slow != u8::MAX);
            Some(Point {
                calls: long(*self.calls.get(at)?),
                errors: long(*self.errors.get(at)?),
                slow: slow.map(|slow| spread::seconds(f32::from(*slow) / STEPS)),
            })
        })
    }
}

fn short(count: u32) -> u16 {
    ((count as f32).to_bits().saturating_add(0x8000) >> 16) as u16
}

fn long(short: u16) -> f32 {
    f32::from_bits(u32::from(short) << 16)
}

impl Clock {
    pub(super) fn start() -> Self {
        Self(Mutex::new((Instant::now(), 0)))
    }

    pub(super) fn sampled(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (Instant::now(), state.1 + 1);
    }

    /// How many seconds rates are told of: a minute, unless it has just started.
    fn span(&self) -> f64 {
        let (last, samples) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = INTERVAL.as_secs_f64() * samples.min(RECENT as u64) as f64;
        (before + last.elapsed().as_secs_f64()).max(1.0)
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            ended: Default::default(),
            reasons: Vec::new(),
            recent: Recent::default(),
            last_errors: Vec::new(),
            known: 0,
            calls: [0.0; POINTS + 1],
            errors: [0.0; POINTS + 1],
            slow: Vec::new(),
            lately: [0.0; BUCKETS],
        }
    }
}

impl Figures {
    /// A quantile of how long calls took in the last minutes, in seconds: within a third, between a millisecond and six
    /// minutes. `None` without a call.
    pub fn quantile(&self, quantile: f32) -> Option<f32> {
        spread::place(&self.lately, quantile).map(spread::seconds)
    }

    /// Calls in each interval of [`INTERVAL`], the oldest first, up to the one that runs.
    pub fn calls(&self) -> &[f32] {
        last(&self.calls, self.known)
    }

    /// Errors among them.
    pub fn errors(&self) -> &[f32] {
        last(&self.errors, self.known)
    }

    /// The 99th percentile of how long they took, in seconds; nothing for all policies together, as it is not remembered
    /// finely enough to be put together.
    pub fn slow(&self) -> &[Option<f32>] {
        &self.slow
    }
}

fn last<T>(points: &[T], known: usize) -> &[T] {
    points.get(points.len().saturating_sub(known)..).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::error::Kind;

    const FAILED: End = End::Error(Kind::Timeout);

    async fn interval(tally: &Tally, clock: &Clock) {
        advance(INTERVAL).await;
        tally.sample();
        clock.sampled();
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_is_remembered_for_ten_minutes() {
        let (tally, clock) = (Tally::default(), Clock::start());
        interval(&tally, &clock).await;
        assert!(tally.figures(&clock).is_none(), "nothing is kept of what is not called");
        for number in 0..100 {
            for _ in 0..number {
                tally.count(End::Ok, Duration::from_millis(20));
            }
            tally.count(FAILED, Duration::from_secs(3));
            interval(&tally, &clock).await;
        }
        tally.count(End::GivenUp, Duration::from_millis(1));
        let figures = tally.figures(&clock).unwrap();
        assert_eq!(figures.ended, [4950, 0, 100, 1]);
        assert_eq!(figures.reasons, [("TIMEOUT", 100), (GIVEN_UP, 1)]);
        let expected: Vec<_> = (41..=100).chain([1]).map(|calls| calls as f32).collect();
        assert_eq!(figures.calls(), expected);
        assert_eq!((figures.errors()[0], figures.errors()[POINTS]), (1.0, 0.0));
        let slow = figures.slow();
        assert!(slow[0].is_some_and(|slow| (2.0..4.0).contains(&slow)), "{slow:?}");
        let rate = figures.recent.calls;
        assert!((rate - (95 + 96 + 97 + 98 + 99 + 100 + 1) as f64 / 60.0).abs() < 0.01, "{rate}");
        assert!((figures.recent.errors - 0.1).abs() < 0.01);
        assert_eq!((figures.recent.given_up, figures.recent.own), (1.0 / 60.0, 0.0));
        for left in [1, 0] {
            (0..5 + left).for_each(|_| tally.count(End::GivenUp, Duration::ZERO));
            for _ in 0..6 {
                interval(&tally, &clock).await;
            }
            let given_up = tally.recent(&clock).unwrap().given_up;
            assert_eq!(given_up, f64::from(5 + 2 * left) / 60.0, "of a minute");
        }
        tally.count(End::Error(Kind::InvalidRequest), Duration::ZERO);
        let recent = tally.recent(&clock).unwrap();
        assert_eq!((recent.errors, recent.own), (1.0 / 60.0, 1.0 / 60.0), "an error all the same");
        assert_eq!(tally.figures(&clock).unwrap().ended, [4950, 0, 101, 12]);
    }

    #[tokio::test(start_paused = true)]
    async fn quantiles_follow_what_is_now() {
        let (tally, clock) = (Tally::default(), Clock::start());
        for _ in 0..1000 {
            tally.count(End::Ok, Duration::from_secs(2));
        }
        let p50 = || tally.figures(&clock).unwrap().quantile(0.5);
        assert!(p50().unwrap() > 1.0, "at once");
        for _ in 0..12 {
            interval(&tally, &clock).await;
            (0..100).for_each(|_| tally.count(End::Ok, Duration::from_millis(30)));
        }
        assert!(p50().unwrap() < 0.1, "{:?}", p50());
        for _ in 0..200 {
            interval(&tally, &clock).await;
        }
        assert_eq!(p50(), None, "of what was not called for half an hour nothing is known");
        assert_eq!(tally.figures(&clock).unwrap().recent, Recent::default());
    }

    #[test]
    fn ten_thousand_policies_take_less_than_eight_megabytes() {
        assert!(size_of::<Counted>() + size_of::<Tally>() < 800, "{}", size_of::<Counted>());
    }

    #[test]
    fn counts_are_remembered_well_enough_to_be_drawn() {
        for count in [0, 1, 2, 255, 256, 1000, 123_456, 4_000_000_000_u32] {
            let error = f64::from(long(short(count))) - f64::from(count);
            assert!(error.abs() <= f64::from(count) / 256.0, "{count}");
            assert!(count > 256 || error == 0.0, "{count}");
        }
    }
}
