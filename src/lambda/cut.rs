//! The end of all calls at once, when the service stops and they do not end by themselves.
//!
//! A call registers nowhere: each connection to Lambda has a place here from when it is made, and fails when it is cut,
//! so that its call ends as one whose connection broke. What waits for something else waits for this beside it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::sync::Notify;

/// Whether calls are cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    done: AtomicBool,
    waiting: Notify,
    connections: Mutex<Vec<Weak<Reader>>>,
}

/// The task that reads from a connection.
#[derive(Debug)]
struct Reader {
    cut: Cut,
    waker: AtomicWaker,
}

/// A connection that fails once calls are cut.
#[derive(Debug)]
pub(super) struct Cuttable<S> {
    stream: S,
    reader: Arc<Reader>,
}

impl Cut {
    /// Cuts everything that there is and will be.
    pub(super) fn cut(&self) {
        self.0.done.store(true, Ordering::SeqCst);
        self.0.waiting.notify_waiters();
        let connections = std::mem::take(&mut *self.0.connections.lock().unwrap_or_else(PoisonError::into_inner));
        connections.iter().filter_map(Weak::upgrade).for_each(|reader| reader.waker.wake());
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.done.load(Ordering::SeqCst)
    }

    /// Waits until calls are cut.
    pub(super) async fn wait(&self) {
        let waiting = self.0.waiting.notified();
        // What is notified between the look and the wait is not lost: the future was made before.
        if !self.is_done() {
            waiting.await;
        }
    }

    /// A connection that ends with the others.
    pub(super) fn over<S>(&self, stream: S) -> Cuttable<S> {
        let reader = Arc::new(Reader { cut: self.clone(), waker: AtomicWaker::new() });
        let mut connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        // Closed ones leave when there are twice as many as there were open ones last time.
        if connections.len() == connections.capacity() {
            connections.retain(|reader| reader.strong_count() > 0);
            let open = connections.len();
            connections.reserve(open + 1);
        }
        connections.push(Arc::downgrade(&reader));
        Cuttable { stream, reader }
    }
}

impl<S: Read + Unpin> Read for Cuttable<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if read.is_ready() {
            return read;
        }
        this.reader.waker.register(cx.waker());
        if this.reader.cut.is_done() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the service stops")));
        }
        Poll::Pending
    }
}

impl<S: Write + Unpin> Write for Cuttable<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }
}

impl<S: Connection> Connection for Cuttable<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn closed_connections_leave_their_place() {
        let cut = Cut::default();
        let open: Vec<_> = (0..10).map(|_| cut.over(())).collect();
        for _ in 0..10_000 {
            drop(cut.over(()));
        }
        let places = cut.0.connections.lock().unwrap().len();
        assert!((open.len()..100).contains(&places), "{places}");
    }

    #[tokio::test]
    async fn who_waits_and_who_comes_later_is_told() {
        let cut = Cut::default();
        let waits = tokio::spawn({
            let cut = cut.clone();
            async move { cut.wait().await }
        });
        tokio::task::yield_now().await;
        cut.cut();
        waits.await.unwrap();
        cut.wait().await;
    }
}
