//! What connections may take: how many there may be, and what each may ask of HTTP/2.
//!
//! The rest is set by h2 and hyper themselves, and `tests/it/hostile.rs` keeps watch over it: answers to PING and SETTINGS
//! wait for each other, CONTINUATION frames are counted, small DATA frames have a budget, and HTTP/1 has 100 headers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::Server;

/// The largest head of a request in HTTP/2, as RFC 9113 counts it (6.5.2). It is answered with 431.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that the client ended before they were looked at (rapid reset, CVE-2023-44487), at once.
const MAX_RESETS: usize = 20;
/// Streams that were ended here because the client broke the protocol (CVE-2025-8671), in a connection's life. Without
/// a number tonic asks for no limit.
const MAX_ERRORS: usize = 1024;
/// How often an idle connection is asked whether anybody is there, and how long for an answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// How often the log says that connections are refused.
const PAUSE: Duration = Duration::from_secs(10);

/// A server whose connections are bounded. Without a number tonic asks for no limit of the streams either.
pub(super) fn bounded(server: Server, max_streams: u32) -> Server {
    server
        .max_concurrent_streams(max_streams)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_ERRORS))
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
}

/// The connections that there may be. Its clones are one.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places: Arc<Semaphore>,
    most: usize,
    began: Instant,
    /// When the log last said so, in milliseconds since it began.
    told: AtomicU64,
}

/// A connection's place, which is free again when this is dropped.
pub(super) type Place = OwnedSemaphorePermit;

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Inner { places, most, began: Instant::now(), told: AtomicU64::new(0) }))
    }

    /// A place for one more. There is no other answer than to close it: nothing was read of it yet.
    pub(super) fn enter(&self) -> Option<Place> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().ok();
        if place.is_none() {
            self.tell();
        }
        place
    }

    fn tell(&self) {
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        // From one pause on, so that zero is "never".
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(pause);
        let due = |told: u64| (now >= told.saturating_add(pause)).then_some(now);
        if self.0.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok() {
            tracing::warn!(connections = self.0.most, "connections are refused: server.max_connections");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_connection_has_ended() {
        let connections = Connections::new(2);
        let (first, second) = (connections.enter().unwrap(), connections.clone().enter().unwrap());
        assert!(connections.enter().is_none());
        drop(first);
        let third = connections.enter();
        assert!(third.is_some() && connections.enter().is_none());
        drop((second, third));
    }
}
