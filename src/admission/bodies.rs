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

/// The bytes that all bodies hold.
#[derive(Debug)]
pub struct Bodies {
    limit: usize,
    held: AtomicUsize,
}

/// The bytes of one call, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    bodies: Arc<Bodies>,
    bytes: usize,
}

impl Bodies {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    /// A call that has no bytes yet.
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { bodies: Arc::clone(self), bytes: 0 }
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
    pub(super) fn bytes(&self) -> usize {
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
            ..=SMALL => return Ok(()),
            all if before <= SMALL => all,
            _ => bytes,
        };
        let all = self.bodies.held.fetch_add(counted, Ordering::Relaxed) + counted;
        if all <= self.bodies.limit { Ok(()) } else { Err(full()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > SMALL {
            self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

pub(super) fn full() -> Error {
    Error::new(Kind::Overloaded, "the bodies in flight are as large as `server.max_mib_in_flight` allows")
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
}
