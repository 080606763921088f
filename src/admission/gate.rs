//! Places for calls in flight, shared by policies: who finds one takes it at the cost of two additions; who does not
//! waits in its policy's line, and places that come free go to the lines in turn.
//!
//! A policy takes a place only while it has less than [`SHARE`] times as many as are free (the dynamic threshold of
//! Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998). Alone it gets three
//! quarters, two get three sevenths each, and so on: whatever busy policies hold, and for however long, the next one
//! finds a place at once.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Figures, bodies::Held};

/// How long a call waits for its turn at the most: a burst passes, an overload does not.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(250);
/// How many times as many places as are free a policy may have.
const SHARE: usize = 3;

/// All places.
#[derive(Debug)]
pub(super) struct Gate {
    limit: usize,
    in_flight: AtomicUsize,
    waiting: AtomicUsize,
    /// How many bytes the large bodies of calls in flight have.
    bytes: AtomicUsize,
    /// Whether there is one policy only, which need not leave places to others.
    alone: AtomicBool,
    /// The policies whose calls wait, in the order of their turns.
    turns: Mutex<VecDeque<Arc<Places>>>,
}

/// The places of one policy.
#[derive(Debug)]
pub(super) struct Places {
    gate: Arc<Gate>,
    limit: AtomicUsize,
    in_flight: AtomicUsize,
    waiting: AtomicUsize,
    refused: AtomicU64,
    /// How many bytes the large bodies of its calls in flight have.
    bytes: AtomicUsize,
    /// How long its calls hold a place, in microseconds, lately.
    typical: AtomicU64,
    /// Whom the next places go to; those who have gone stay in it for a while. Locked under the lock of the turns only.
    line: Mutex<VecDeque<oneshot::Sender<Permit>>>,
}

/// The right to be in flight; it ends when it is dropped.
#[derive(Debug)]
pub struct Permit {
    /// Nothing once the place is given back.
    places: Option<Arc<Places>>,
    since: Instant,
    /// Whether its call had to wait for it.
    waited: bool,
    /// Of a large body.
    held: Option<Held>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The policy has as many as its own limit allows.
    Policy,
    /// It has its share of the service's, and what is left is kept for other policies.
    Share,
    /// The service has as many as it may.
    Service,
}

impl Gate {
    /// `limit` places, and as many to wait.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            alone: AtomicBool::new(false),
            turns: Mutex::default(),
        })
    }

    /// Says whether there is one policy only.
    pub(super) fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
        self.hand_out();
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a policy that has `own` of `all` of these may have one more.
    fn fits(&self, own: usize, all: usize) -> bool {
        let free = self.limit.saturating_sub(all);
        // The last one is for who has none.
        let others = || own == 0 || own < SHARE.saturating_mul(free.saturating_sub(1));
        free > 0 && (self.alone.load(Ordering::Relaxed) || others())
    }

    /// Gives the places that are free to those who wait, one policy after the other.
    fn hand_out(&self) {
        self.hand_out_to(&mut self.turns());
    }

    fn hand_out_to(&self, turns: &mut VecDeque<Arc<Places>>) {
        let mut passed_over = 0;
        while passed_over < turns.len() && self.in_flight() < self.limit {
            let Some(places) = turns.pop_front() else { return };
            let mut line = places.line();
            while line.front().is_some_and(oneshot::Sender::is_closed) {
                line.pop_front();
            }
            if line.is_empty() {
                continue;
            }
            if places.take() {
                passed_over = 0;
                let permit = Permit::new(&places, true);
                // Who went away in this moment gives it back without a turn of its own: this loop is it.
                if let Some(Err(mut unwanted)) = line.pop_front().map(|next| next.send(permit)) {
                    unwanted.places = None;
                    places.put_back();
                }
            } else {
                passed_over += 1;
            }
            let more = !line.is_empty();
            drop(line);
            if more {
                turns.push_back(places);
            }
        }
    }

    fn turns(&self) -> MutexGuard<'_, VecDeque<Arc<Places>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    pub(super) fn new(gate: &Arc<Gate>) -> Arc<Self> {
        Arc::new(Self {
            gate: Arc::clone(gate),
            limit: AtomicUsize::new(usize::MAX),
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            typical: AtomicU64::new(0),
            line: Mutex::default(),
        })
    }

    /// Sets how many there may be.
    pub(super) fn set_limit(&self, limit: Option<NonZeroUsize>) {
        self.limit.store(limit.map_or(usize::MAX, NonZeroUsize::get), Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn figures(&self) -> Figures {
        Figures { in_flight: self.in_flight(), waiting: self.waiting(), refused: self.refused.load(Ordering::Relaxed) }
    }

    pub(super) fn note_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A place: at once if there is one and nobody waits, else in turn. Nobody waits for a place that would come too
    /// late: when the deadline is nearer than the time that the policy's calls take.
    pub(super) async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Permit, Full> {
        let nobody_waits = self.gate.waiting() == 0;
        if nobody_waits && self.take() {
            return Ok(Permit::new(self, false));
        }
        let now = Instant::now();
        let typical = Duration::from_micros(self.typical.load(Ordering::Relaxed));
        let until = deadline.checked_sub(typical).unwrap_or(now).min(now + MAX_WAIT);
        let (sender, place) = oneshot::channel();
        let Some(_waiting) = Waiting::join(self) else {
            if nobody_waits {
                // While this call tried it stood in the way of others, who may have begun to wait for that.
                self.gate.hand_out();
            }
            return Err(self.full());
        };
        {
            let mut turns = self.gate.turns();
            let mut line = self.line();
            // Those who have gone are not many more than those who wait.
            if line.len() > 2 * self.waiting() + 16 {
                line.retain(|next| !next.is_closed());
            }
            if line.is_empty() {
                turns.push_back(Arc::clone(self));
            }
            line.push_back(sender);
            drop(line);
            // A place may have come free before there was anybody to give it to.
            self.gate.hand_out_to(&mut turns);
        }
        // The place is looked for before the clock, so that one that is there already is taken.
        match timeout_at(until, place).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.full()),
        }
    }

    /// Takes a place, if it may be had.
    fn take(&self) -> bool {
        // Both are ordered with `waiting`: of one who puts back and one who begins to wait, one sees the other.
        let all = self.gate.in_flight.fetch_add(1, Ordering::SeqCst);
        let own = self.in_flight.fetch_add(1, Ordering::SeqCst);
        let limited = own >= self.limit.load(Ordering::Relaxed);
        if !limited && self.gate.fits(own, all) {
            return true;
        }
        self.put_back();
        false
    }

    fn put_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.gate.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    fn full(&self) -> Full {
        let (own, all) = (self.in_flight(), self.gate.in_flight());
        if own >= self.limit.load(Ordering::Relaxed) {
            Full::Policy
        } else if all < self.gate.limit && !self.gate.fits(own, all) {
            Full::Share
        } else {
            Full::Service
        }
    }

    /// Takes note of how long a place was held: an eighth of what is known of it is the last one.
    fn note(&self, held: Duration) {
        let before = self.typical.load(Ordering::Relaxed);
        let held = u64::try_from(held.as_micros()).unwrap_or(u64::MAX / 8);
        self.typical.store(before - before / 8 + held / 8, Ordering::Relaxed);
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<Permit>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    fn new(places: &Arc<Places>, waited: bool) -> Self {
        Self { places: Some(Arc::clone(places)), since: Instant::now(), waited, held: None }
    }

    /// Holds a large body until the call ends, unless its policy has its share of the `limit` already.
    pub(super) fn hold(&mut self, held: Held, limit: usize) -> bool {
        let Some(places) = &self.places else { return false };
        let bytes = held.bytes();
        self.held = Some(held);
        let all = places.gate.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let own = places.bytes.fetch_add(bytes, Ordering::Relaxed);
        let free = limit.saturating_sub(all);
        own == 0 || places.gate.alone.load(Ordering::Relaxed) || own < SHARE.saturating_mul(free)
    }

    /// When its call goes on, which asks as soon as it does. One that waited does so a little after it was given its place:
    /// when a worker has time for it. That is a part of the wait.
    pub fn goes_on(&self) -> Instant {
        if self.waited { Instant::now() } else { self.since }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(places) = self.places.take() else { return };
        if let Some(held) = &self.held {
            places.bytes.fetch_sub(held.bytes(), Ordering::Relaxed);
            places.gate.bytes.fetch_sub(held.bytes(), Ordering::Relaxed);
        }
        places.note(self.since.elapsed());
        places.put_back();
        if places.gate.waiting() > 0 {
            places.gate.hand_out();
        }
    }
}

/// A place among those who wait, given back when the wait ends, however it ends. Busy policies leave some to others.
struct Waiting<'a>(&'a Places);

impl<'a> Waiting<'a> {
    fn join(places: &'a Places) -> Option<Self> {
        let all = places.gate.waiting.fetch_add(1, Ordering::SeqCst);
        let own = places.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(places);
        places.gate.fits(own, all).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.gate.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::{task::JoinHandle, time::sleep};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn gate<const N: usize>(limit: usize) -> (Arc<Gate>, [Arc<Places>; N]) {
        let gate = Gate::new(limit);
        gate.set_alone(N == 1);
        let places = std::array::from_fn(|_| Places::new(&gate));
        (gate, places)
    }

    fn waits(places: &Arc<Places>) -> JoinHandle<Result<Permit, Full>> {
        let places = Arc::clone(places);
        tokio::spawn(async move { places.enter(soon()).await })
    }

    /// As many permits as there are at once.
    async fn all(places: &Arc<Places>) -> Vec<Permit> {
        let mut permits = Vec::new();
        while let Ok(permit) = places.enter(Instant::now()).await {
            permits.push(permit);
        }
        permits
    }

    fn is_empty(gate: &Gate) {
        assert_eq!((gate.in_flight(), gate.waiting()), (0, 0), "every place was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_worker_has_no_time_for_a_call_that_was_given_its_place_is_a_part_of_its_wait() {
        let gate = Gate::new(1);
        let places = Places::new(&gate);
        gate.set_alone(true);
        let first = places.enter(soon()).await.unwrap();
        let began = first.goes_on();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(first.goes_on(), began, "who did not wait goes on at once");
        let mut waiting = std::pin::pin!(places.enter(soon()));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        let given = Instant::now();
        sleep(Duration::from_millis(100)).await;
        let second = waiting.await.unwrap();
        assert_eq!((second.since, second.goes_on() - given), (given, Duration::from_millis(100)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_comes_free_in_time_is_given_to_who_waits() {
        let (gate, [places]) = gate(1);
        let first = places.enter(soon()).await.unwrap();
        let waiting = waits(&places);
        sleep(MAX_WAIT / 2).await;
        drop(first);
        drop(waiting.await.unwrap().unwrap());
        is_empty(&gate);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_bound_or_for_a_place_that_would_come_too_late() {
        let (_gate, [places]) = gate(1);
        let held = places.enter(soon()).await.unwrap();
        let waited = async |left: Duration| {
            let asked = Instant::now();
            assert_eq!(places.enter(asked + left).await.unwrap_err(), Full::Service);
            asked.elapsed()
        };
        let nearly = |waited: Duration, expected: Duration| {
            assert!(waited >= expected && waited <= expected + Duration::from_millis(2), "{waited:?}");
        };
        nearly(waited(Duration::from_secs(10)).await, MAX_WAIT);
        nearly(waited(Duration::from_millis(20)).await, Duration::from_millis(20));
        tokio::time::sleep_until(held.since + Duration::from_secs(8)).await;
        drop(held);
        let _held = places.enter(soon()).await.unwrap();
        // A call takes a second by now, as far as is known: an eighth of the last one's eight.
        nearly(waited(Duration::from_millis(900)).await, Duration::ZERO);
        nearly(waited(Duration::from_millis(1200)).await, Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn when_too_many_wait_the_next_one_is_told_at_once() {
        let (gate, [places]) = gate(1);
        let _held = places.enter(soon()).await.unwrap();
        let waiting = waits(&places);
        tokio::task::yield_now().await;
        let asked = Instant::now();
        assert_eq!(places.enter(soon()).await.unwrap_err(), Full::Service);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        assert!(waiting.await.unwrap().is_err());
        assert_eq!(gate.waiting(), 0, "every place was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn busy_policies_leave_places_to_the_next_one() {
        for (limit, expected) in [(1, [1, 0, 0]), (2, [1, 1, 0]), (4, [3, 1, 0]), (1024, [768, 192, 48])] {
            let (gate, places) = gate::<3>(limit);
            let mut held = Vec::new();
            for (places, expected) in places.iter().zip(expected) {
                held.push(all(places).await);
                assert_eq!(places.in_flight(), expected, "of {limit}");
            }
            drop(held);
            is_empty(&gate);
        }
        let (_gate, [alone]) = gate(1024);
        assert_eq!(all(&alone).await.len(), 1024, "one policy alone has all");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_while_there_are_places_is_told_of_its_share() {
        let (_gate, [busy, ..]) = gate::<2>(8);
        let held = all(&busy).await;
        assert_eq!((held.len(), busy.enter(soon()).await.unwrap_err()), (6, Full::Share));
        assert!(Full::Share.error().to_string().contains("share"));
        let (_gate, [alone]) = gate(8);
        let held = all(&alone).await;
        assert_eq!((held.len(), alone.enter(soon()).await.unwrap_err()), (8, Full::Service));
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_has_no_more_than_its_own_limit() {
        let (gate, [limited, other]) = gate(100);
        limited.set_limit(NonZeroUsize::new(3));
        let mut held = all(&limited).await;
        assert_eq!((held.len(), limited.enter(soon()).await.unwrap_err()), (3, Full::Policy));
        let waiting = waits(&limited);
        tokio::task::yield_now().await;
        drop(other.enter(Instant::now()).await.unwrap());
        assert!(!waiting.is_finished(), "a place of another policy is none of its own");
        held.pop();
        waiting.await.unwrap().unwrap();
        drop(held);
        is_empty(&gate);
    }

    #[tokio::test(start_paused = true)]
    async fn places_go_to_policies_in_turn_and_to_calls_in_the_order_in_which_they_came() {
        let (gate, places) = gate::<5>(4);
        let mut held = Vec::new();
        for places in &places[..4] {
            held.extend(places.enter(Instant::now()).await);
        }
        assert_eq!(held.len(), 4);
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = [(0, "first"), (0, "second"), (4, "first"), (1, "first")].map(|(n, call)| {
            let (places, order) = (Arc::clone(&places[n]), Arc::clone(&order));
            tokio::spawn(async move {
                let permit = places.enter(soon()).await.unwrap();
                order.lock().unwrap().push((n, call));
                sleep(Duration::from_millis(10)).await;
                drop(permit);
            })
        });
        tokio::task::yield_now().await;
        held.pop();
        sleep(Duration::from_millis(5)).await;
        assert_eq!(*order.lock().unwrap(), [(4, "first")], "who has none comes first");
        drop(held);
        for call in waiting {
            call.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [(4, "first"), (0, "first"), (1, "first"), (0, "second")]);
        is_empty(&gate);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_policy_does_not_keep_another_waiting() {
        let (gate, [noisy, quiet]) = gate(64);
        let flood: Vec<_> = (0..20)
            .map(|_| {
                let noisy = Arc::clone(&noisy);
                tokio::spawn(async move {
                    let mut refused = 0;
                    for _ in 0..500 {
                        match noisy.enter(soon()).await {
                            // They hang, as those of a function that is down do.
                            Ok(permit) => drop(tokio::spawn(async move {
                                sleep(Duration::from_secs(10)).await;
                                drop(permit);
                            })),
                            Err(_) => refused += 1,
                        }
                        sleep(Duration::from_millis(1)).await;
                    }
                    refused
                })
            })
            .collect();
        for _ in 0..1000 {
            let asked = Instant::now();
            let permit = quiet.enter(soon()).await.unwrap();
            assert_eq!(asked.elapsed(), Duration::ZERO);
            sleep(Duration::from_millis(5)).await;
            drop(permit);
        }
        for one in flood {
            assert!(one.await.unwrap() > 0, "there was an overload");
        }
        sleep(Duration::from_secs(11)).await;
        is_empty(&gate);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_go_away_while_they_wait_leave_nothing_behind() {
        let (gate, [places, _other]) = gate(4);
        let held = all(&places).await;
        for _ in 0..10_000 {
            let waiting = waits(&places);
            tokio::task::yield_now().await;
            waiting.abort();
            let _ = waiting.await;
        }
        assert!(places.line().len() < 100, "{}", places.line().len());
        drop(held);
        is_empty(&gate);
        assert!(places.enter(soon()).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_among_threads() {
        let (gate, places) = gate::<3>(5);
        let calls: Vec<_> = (0..60)
            .map(|n| {
                let places = Arc::clone(&places[n % 3]);
                tokio::spawn(async move {
                    let mut entered = 0;
                    for _ in 0..200 {
                        if let Ok(permit) = places.enter(soon()).await {
                            entered += 1;
                            tokio::task::yield_now().await;
                            drop(permit);
                        }
                    }
                    entered
                })
            })
            .collect();
        let mut entered = 0;
        for call in calls {
            entered += call.await.unwrap();
        }
        assert!(entered > 0);
        is_empty(&gate);
        assert!(places.iter().all(|places| places.in_flight() == 0));
    }
}
