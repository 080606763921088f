//! How far a call has come, for what is said of one that has no end of its own: nobody is left to tell it then.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Ran, Spent},
    policy::Target,
};

/// What a call and whoever writes its line share of it.
#[derive(Clone, Debug)]
pub struct Reached(Arc<Marks>);

/// Each time is in nanoseconds after the beginning, and one more, so that nothing is not yet.
#[derive(Debug)]
struct Marks {
    began: Instant,
    invoked: OnceLock<Target>,
    asked: AtomicU64,
    admitted: AtomicU64,
    authorized: AtomicU64,
    event_bytes: AtomicUsize,
    sent: AtomicBool,
    answer: OnceLock<Answer>,
    handed_on: AtomicUsize,
    refused: OnceLock<(u16, Error)>,
}

/// What Lambda said when an answer that comes in pieces began.
#[derive(Debug)]
pub struct Answer {
    /// AWS's id of the request.
    pub aws_request_id: String,
    /// The version that runs.
    pub version: String,
}

impl Reached {
    /// Of a call that began then.
    pub fn new(began: Instant) -> Self {
        let (asked, admitted, authorized) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (event_bytes, sent) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (invoked, answer, refused) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let handed_on = AtomicUsize::new(0);
        Self(Arc::new(Marks {
            began,
            invoked,
            asked,
            admitted,
            authorized,
            event_bytes,
            sent,
            answer,
            handed_on,
            refused,
        }))
    }

    /// Which function it invokes, in the version that was chosen for it.
    pub fn invokes(&self, target: Target) {
        // A call has one.
        let _ = self.0.invoked.set(target);
    }

    /// The function that it invokes, once that is known.
    pub fn invoked(&self) -> Option<&Target> {
        self.0.invoked.get()
    }

    /// Its event is made, and it asks for a place: its wait for that began at `at`.
    pub fn asked(&self, at: Instant, event_bytes: usize) {
        self.0.event_bytes.store(event_bytes, Ordering::Relaxed);
        self.set(&self.0.asked, at);
    }

    /// It has its place.
    pub fn admitted(&self, at: Instant) {
        self.set(&self.0.admitted, at);
    }

    /// There are credentials.
    pub fn authorized(&self, at: Instant) {
        self.set(&self.0.authorized, at);
    }

    /// A connection has taken the request: the function may run from now on.
    pub fn sent(&self) {
        self.0.sent.store(true, Ordering::Release);
    }

    /// Before another attempt: the last one provably ran nothing.
    pub fn unsent(&self) {
        self.0.sent.store(false, Ordering::Release);
    }

    /// Whether a connection has taken the request.
    pub fn is_sent(&self) -> bool {
        self.0.sent.load(Ordering::Acquire)
    }

    /// Lambda has answered, and the pieces follow.
    pub fn answered(&self, answer: Answer) {
        // A call is answered once.
        let _ = self.0.answer.set(answer);
    }

    /// The answer that comes in pieces, once it has begun.
    pub fn answer(&self) -> Option<&Answer> {
        self.0.answer.get()
    }

    /// So much more of its body has been read and is handed on.
    pub fn hands_on(&self, bytes: usize) {
        self.0.handed_on.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How much that was in all.
    pub fn handed_on(&self) -> usize {
        self.0.handed_on.load(Ordering::Relaxed)
    }

    /// Whether the function may have run, as far as is known here.
    pub fn ran(&self) -> Ran {
        if self.is_sent() { Ran::Maybe } else { Ran::No }
    }

    /// Its front ends it now, and tells its caller of this error by this status.
    pub fn refuse(&self, status: u16, error: Error) {
        let error = error.with_ran(self.ran());
        let error = match self.spent(Instant::now()) {
            Some(spent) => error.with_spent(spent),
            None => error,
        };
        // It ends once.
        let _ = self.0.refused.set((status, error));
    }

    /// Why its front has ended it, if it has.
    pub fn refused(&self) -> Option<&(u16, Error)> {
        self.0.refused.get()
    }

    /// Where the time went until now; nothing if the call did not come to ask for a place.
    pub fn spent(&self, now: Instant) -> Option<Spent> {
        let asked = self.get(&self.0.asked)?;
        let (admitted, authorized) = (self.get(&self.0.admitted), self.get(&self.0.authorized));
        let until = |at: Option<Instant>| at.unwrap_or(now);
        Some(Spent {
            queue: Some(until(admitted).saturating_duration_since(asked)),
            credentials: admitted.map(|at| until(authorized).saturating_duration_since(at)),
            lambda: authorized.map(|at| now.saturating_duration_since(at)),
            event_bytes: self.0.event_bytes.load(Ordering::Relaxed),
        })
    }

    fn set(&self, mark: &AtomicU64, at: Instant) {
        let after = at.saturating_duration_since(self.0.began).as_nanos();
        mark.store(u64::try_from(after).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
    }

    fn get(&self, mark: &AtomicU64) -> Option<Instant> {
        let after = mark.load(Ordering::Acquire).checked_sub(1)?;
        self.0.began.checked_add(Duration::from_nanos(after))
    }
}

impl Default for Reached {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_ends_where_the_next_begins_and_the_last_goes_on() {
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let told = |reached: &Reached| {
            let of = |duration: Duration| duration.as_millis();
            reached.spent(after(1000)).map(|spent| {
                (spent.queue.map(of), spent.credentials.map(of), spent.lambda.map(of), spent.event_bytes, reached.ran())
            })
        };
        let reached = Reached::new(began);
        assert_eq!((told(&reached), reached.ran()), (None, Ran::No), "it was received, at the most");
        reached.asked(after(0), 7);
        assert_eq!(told(&reached), Some((Some(1000), None, None, 7, Ran::No)));
        reached.admitted(after(100));
        assert_eq!(told(&reached), Some((Some(100), Some(900), None, 7, Ran::No)));
        reached.authorized(after(300));
        assert_eq!(told(&reached), Some((Some(100), Some(200), Some(700), 7, Ran::No)));
        reached.sent();
        assert_eq!(told(&reached), Some((Some(100), Some(200), Some(700), 7, Ran::Maybe)));
        reached.unsent();
        assert_eq!(reached.ran(), Ran::No, "what was refused is sent again");
    }
}
