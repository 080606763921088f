//! The connections of callers: as many as there may be, and how many were refused, for what.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::seldom::Seldom;

/// What there is of them.
#[derive(Debug)]
pub struct Connections {
    most: AtomicUsize,
    open: AtomicUsize,
    refused: [Seldom; Refusal::ALL.len()],
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Connections>);

macro_rules! refusals {
    ($($(#[$doc:meta])* $id:ident = $word:literal,)*) => {
        /// Why a connection is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refusal { $($(#[$doc])* $id,)* }

        impl Refusal {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$id),*];

            /// A word for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$id => $word,)* }
            }
        }
    };
}

refusals! {
    /// There are as many as there may be.
    Full = "full",
    /// A certificate is asked for, and there is none.
    NoCertificate = "no_certificate",
    /// The caller's certificate has expired.
    CertificateExpired = "certificate_expired",
    /// The caller's certificate is of no authority that counts.
    UnknownAuthority = "unknown_authority",
    /// The caller's certificate is wrong in another way.
    Certificate = "certificate",
    /// The caller does not trust the service's certificate.
    Distrusted = "distrusted",
    /// What came is no TLS, or none that both sides speak.
    Protocol = "protocol",
    /// The caller went away in the middle of the handshake.
    Closed = "closed",
    /// The handshake took too long.
    Timeout = "timeout",
}

impl Default for Connections {
    /// Without a limit.
    fn default() -> Self {
        Self { most: AtomicUsize::new(usize::MAX), open: AtomicUsize::new(0), refused: Default::default() }
    }
}

impl Connections {
    /// From now on there may be so many.
    pub fn bound(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A place for one more, if there is one.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let more = |open| (open < self.most()).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(Arc::clone(self)))
    }

    /// Counts one that is refused. Tells how many there were since the log spoke of them, if it is to do so again.
    pub fn refuse(&self, why: Refusal) -> Option<u64> {
        self.refused.get(why as usize)?.add()
    }

    /// How many were refused for what.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = Refusal::ALL.iter().zip(&self.refused);
        counted.map(|(why, refused)| (why.as_str(), refused.count()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_connection_has_ended() {
        let connections = Arc::new(Connections::default());
        connections.bound(2);
        let (first, second) = (connections.enter().unwrap(), connections.enter().unwrap());
        assert!(connections.enter().is_none());
        drop(first);
        let third = connections.enter();
        assert!(third.is_some() && connections.enter().is_none());
        assert_eq!(connections.open(), 2);
        drop((second, third));
        assert_eq!(connections.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_speaks_of_each_reason_once_a_minute_and_of_all_since() {
        let connections = Connections::default();
        assert_eq!(connections.refuse(Refusal::Full), Some(1), "at once");
        for _ in 0..1000 {
            tokio::time::advance(Duration::from_millis(59)).await;
            assert_eq!(connections.refuse(Refusal::Full), None);
        }
        assert_eq!(connections.refuse(Refusal::Timeout), Some(1), "another one hides behind none");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((connections.refuse(Refusal::Full), connections.refuse(Refusal::Full)), (Some(1001), None));
        let refused: Vec<_> = connections.refused().filter(|(_, count)| *count > 0).collect();
        assert_eq!(refused, [("full", 1003), ("timeout", 1)]);
    }
}
