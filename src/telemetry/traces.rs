//! Chooses the calls of which spans are made, and has them made apart from the calls.
//!
//! A span takes some twenty small pieces of memory that live until it is pushed. Made on a worker, they lie between the pieces
//! that calls take and give back at once, and drive these out of the caches. So a thread of its own makes them, a few times
//! a second.

use std::{
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use opentelemetry_sdk::Resource;

use super::{
    otlp::{Otlp, Pushes},
    spans::{Ended, Lost, Spans},
};
use crate::trace::{Step, Trace, Way};

/// So many calls wait for their spans; of more there are none.
const MOST: usize = 1_024;
/// As many are not kept waiting.
const MANY: usize = 256;
/// How often the spans of fewer are made.
const EVERY: Duration = Duration::from_millis(200);
/// How often a call is chosen whatever the share, so that there are traces of few calls too. Such are X-Ray's own rules ("Configuring
/// sampling rules").
const ONE: Duration = Duration::from_secs(1);

/// Chooses the calls of which spans are made.
#[derive(Debug)]
pub(super) struct Traces {
    choice: Arc<Choice>,
    chosen: Arc<Chosen>,
    spans: Arc<Spans>,
    maker: Mutex<Option<JoinHandle<()>>>,
}

/// Which calls are chosen.
#[derive(Debug)]
struct Choice {
    ratio: f64,
    /// Whether the next call is, whatever the share.
    one: AtomicBool,
}

/// Calls that have ended and whose spans are to be made.
#[derive(Debug, Default)]
struct Chosen {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<(Trace, Way, Ended)>,
    ends: bool,
}

impl Traces {
    pub(super) fn new(to: &Otlp, ratio: f64, resource: &Resource, pushes: &Arc<Pushes>) -> Result<Self, String> {
        let (chosen, spans) = (Arc::<Chosen>::default(), Arc::new(Spans::new(to, resource, pushes)?));
        let (waiting, made) = (Arc::clone(&chosen), Arc::clone(&spans));
        let choice = Arc::new(Choice::new(ratio));
        let renewed = Arc::clone(&choice);
        let maker = thread::Builder::new().name("spans".to_owned()).spawn(move || {
            let (mut calls, mut more, mut second) = (Vec::new(), true, Instant::now());
            while more {
                more = waiting.next(&mut calls);
                calls.drain(..).for_each(|(trace, way, ended)| made.end(&trace, &way, &ended));
                // Here the time is looked at anyway, and not for each call.
                if second.elapsed() >= ONE {
                    second = Instant::now();
                    renewed.renew();
                }
            }
        });
        let maker = Mutex::new(Some(maker.map_err(|error| error.to_string())?));
        Ok(Self { choice, chosen, spans, maker })
    }

    /// Whether a call is chosen about which nobody has decided.
    pub(super) fn chooses(&self) -> bool {
        self.choice.chooses()
    }

    pub(super) fn lost(&self) -> &Arc<Lost> {
        self.spans.lost()
    }

    /// Has the spans made of a call that has ended and was chosen.
    pub(super) fn end(&self, trace: &Trace, ended: Ended) {
        let Some(spans) = trace.spans() else { return };
        let way = spans.take();
        let spans = spans_of(&way);
        if !self.chosen.add((trace.clone(), way, ended)) {
            self.lost().full.add(spans);
        }
    }

    /// Pushes what waits, and ends.
    pub(super) fn shut_down(&self, within: Duration) {
        self.chosen.end();
        let maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It does not panic, and makes what it has within milliseconds.
        let _ = maker.map(JoinHandle::join);
        self.spans.shut_down(within);
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.chosen.end();
    }
}

impl Choice {
    fn new(ratio: f64) -> Self {
        Self { ratio, one: AtomicBool::new(ratio > 0.0) }
    }

    fn chooses(&self) -> bool {
        let one = self.one.load(Ordering::Relaxed) && self.one.swap(false, Ordering::Relaxed);
        one || fastrand::f64() < self.ratio
    }

    fn renew(&self) {
        self.one.store(self.ratio > 0.0, Ordering::Relaxed);
    }
}

impl Chosen {
    /// Whether there was room for it, and somebody is there to take it.
    fn add(&self, call: (Trace, Way, Ended)) -> bool {
        let mut state = self.state();
        let room = !state.ends && state.calls.len() < MOST;
        if room {
            state.calls.push(call);
            if state.calls.len() == MANY {
                self.bell.notify_one();
            }
        }
        room
    }

    /// Takes the calls that wait, after a while if they are few, and gives room for others. `false` at the end.
    fn next(&self, calls: &mut Vec<(Trace, Way, Ended)>) -> bool {
        let few = |state: &mut State| state.calls.len() < MANY && !state.ends;
        let waited = self.bell.wait_timeout_while(self.state(), EVERY, few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::swap(calls, &mut state.calls);
        !state.ends
    }

    fn end(&self) {
        self.state().ends = true;
        self.bell.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many spans there are of a call: one of it, and one of its invocation if it came to that.
fn spans_of(way: &Way) -> u64 {
    1 + u64::from(way.at(Step::Authorized).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> (Trace, Way, Ended) {
        (Trace::default(), Way::default(), Ended::well())
    }

    #[test]
    fn what_finds_no_room_or_nobody_to_take_it_is_told_apart() {
        let (chosen, mut calls) = (Chosen::default(), Vec::new());
        assert!((0..MOST).all(|_| chosen.add(call())));
        assert!(!chosen.add(call()), "full");
        assert!(chosen.next(&mut calls), "there may be more");
        assert_eq!(calls.drain(..).count(), MOST);
        assert!(chosen.add(call()));
        chosen.end();
        assert!(!chosen.add(call()), "nobody will come for it");
        assert!(!chosen.next(&mut calls), "these are the last");
        assert_eq!(calls.len(), 1);
    }

    #[test]
    fn of_few_calls_the_first_in_a_while_is_chosen() {
        let count = |choice: &Choice| (0..100).filter(|_| choice.chooses()).count();
        let choice = Choice::new(1e-12);
        assert_eq!((count(&choice), count(&choice)), (1, 0));
        choice.renew();
        choice.renew();
        assert_eq!((count(&choice), count(&choice)), (1, 0));
        let none = Choice::new(0.0);
        none.renew();
        assert_eq!(count(&none), 0, "nobody wants any");
        assert_eq!(count(&Choice::new(1.0)), 100);
    }

    #[test]
    fn a_call_that_never_came_to_its_invocation_has_one_span() {
        let way = |step| Way { steps: vec![(Instant::now(), step)], ..Way::default() };
        assert_eq!(spans_of(&way(Step::Admitted)), 1);
        assert_eq!(spans_of(&way(Step::Authorized)), 2);
    }
}
