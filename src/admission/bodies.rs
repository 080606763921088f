//! How many bytes the bodies of requests hold, from the first byte that is read until the call has ended.
//!
//! Whoever has a body counts it: the front what it receives, admission the event that was made of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::error::{Error, Kind};

/// Up to this size a body is not counted: as many as there are calls hold little, and no flood of large ones keeps
/// them out.
pub(super) const SMALL: usize = 64 * 1024;

/// What a request is taken to hold before the first byte of its body: its headers and the task that reads it.
const HEAD: usize = 16 * 1024;

/// The bytes that all bodies hold.
#[derive(Debug)]
pub struct Bodies {
    limit: usize,
    held: AtomicUsize,
    /// Of requests that are being received, apart: large bodies leave them their room.
    received: AtomicUsize,
}

/// The bytes of one call, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    bodies: Arc<Bodies>,
    bytes: usize,
    /// Of the room for requests that are being received.
    received: usize,
}

impl Bodies {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0), received: AtomicUsize::new(0) })
    }

    /// A call that has no bytes yet.
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { bodies: Arc::clone(self), bytes: 0, received: 0 }
    }

    /// A request that is about to be received. Until it is a call, nothing else limits how many there are.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] if as many are being received as there is room for.
    pub fn receive(self: &Arc<Self>) -> Result<Held, Error> {
        let mut held = self.hold();
        held.grow(HEAD)?;
        Ok(held)
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }
}

impl Held {
    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes note of bytes that have come.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] if bodies hold more than they may: then the rest of this one must not be read.
    pub fn add(&mut self, bytes: usize) -> Result<(), Error> {
        let before = self.bytes;
        self.bytes += bytes;
        // What was not counted while the body was small counts from now on.
        let counted = match self.bytes {
            ..=SMALL if self.received == 0 => return Ok(()),
            small @ ..=SMALL => return self.grow(small),
            all if before <= SMALL => {
                self.shrink();
                all
            }
            _ => bytes,
        };
        let all = self.bodies.held.fetch_add(counted, Ordering::Relaxed) + counted;
        if all <= self.bodies.limit { Ok(()) } else { Err(full()) }
    }

    fn grow(&mut self, to: usize) -> Result<(), Error> {
        let more = to.saturating_sub(self.received);
        if more == 0 {
            return Ok(());
        }
        self.received += more;
        let all = self.bodies.received.fetch_add(more, Ordering::Relaxed) + more;
        if all <= self.bodies.limit { Ok(()) } else { Err(crowded()) }
    }

    fn shrink(&mut self) {
        let less = self.received.saturating_sub(HEAD);
        self.received -= less;
        self.bodies.received.fetch_sub(less, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > SMALL {
            self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        if self.received > 0 {
            self.bodies.received.fetch_sub(self.received, Ordering::Relaxed);
        }
    }
}

fn full() -> Error {
    Error::new(Kind::Overloaded, "the bodies in flight are as large as `server.max_mib_in_flight` allows")
}

/// While there is room left.
pub(super) fn shared() -> Error {
    Error::new(
        Kind::Overloaded,
        "the policy's bodies have their share of what `server.max_mib_in_flight` allows: the rest is for others",
    )
}

fn crowded() -> Error {
    Error::new(Kind::Overloaded, "as many requests are being received as `server.max_mib_in_flight` has room for")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_held_until_the_call_ends_and_small_bodies_always_pass() {
        let bodies = Bodies::new(10 * SMALL);
        let mut large = bodies.hold();
        large.add(SMALL).unwrap();
        assert_eq!(bodies.held(), 0);
        large.add(8 * SMALL).unwrap();
        assert_eq!(bodies.held(), 9 * SMALL);
        let mut next = bodies.hold();
        next.add(SMALL).unwrap();
        assert_eq!(next.add(SMALL).unwrap_err().kind(), Kind::Overloaded);
        drop(next);
        assert_eq!(bodies.held(), 9 * SMALL);
        let mut next = bodies.hold();
        next.add(10).unwrap();
        drop((large, next));
        assert_eq!(bodies.held(), 0);
    }

    #[test]
    fn requests_are_received_as_far_as_there_is_room_whatever_large_bodies_hold() {
        let bodies = Bodies::new(4 * SMALL);
        let mut large = bodies.receive().unwrap();
        large.add(4 * SMALL).unwrap();
        let idle: Vec<_> = (1..4 * SMALL / HEAD).map(|_| bodies.receive().unwrap()).collect();
        assert_eq!(bodies.receive().unwrap_err().kind(), Kind::Overloaded, "each has its head");
        drop(idle);
        let mut some = bodies.receive().unwrap();
        some.add(HEAD).unwrap();
        assert_eq!(bodies.received.load(Ordering::Relaxed), 2 * HEAD, "which a small body fits into");
        some.add(SMALL - HEAD).unwrap();
        assert_eq!(bodies.received.load(Ordering::Relaxed), HEAD + SMALL, "and a larger one does not");
        let more: Vec<_> = (0..2).map(|_| bodies.receive().unwrap()).collect();
        let mut last = bodies.receive().unwrap();
        last.add(2 * SMALL).unwrap_err();
        drop((large, some, more, last));
        assert_eq!((bodies.held(), bodies.received.load(Ordering::Relaxed)), (0, 0));
    }
}
