//! A small HTTP/1.1 server whose handlers can cut the connection instead of answering.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

/// The connection is closed without an answer.
#[derive(Debug)]
pub(super) struct Cut;

pub(super) type Answer = Result<Response<UnsyncBoxBody<Bytes, Cut>>, Cut>;

/// Larger requests are not read: what Lambda takes, and some more to be able to say that it is too much.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// Answers requests until it is dropped; then every connection is closed. A request's body is not read yet.
///
/// `accepted` is asked at each connection for what shall live as long as it.
pub(super) async fn serve<H, F, G>(listener: TcpListener, handler: Arc<H>, accepted: impl Fn() -> G + Send + 'static)
where
    G: Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            connection = listener.accept() => {
                let Ok((stream, _)) = connection else { continue };
                // A failure costs latency only.
                let _ = stream.set_nodelay(true);
                let guard = accepted();
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    let _guard = guard;
                    let service = service_fn(move |request| handler(request));
                    // An error is a client that went away, or a connection that was to be cut.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// One connection among those that are open.
pub(super) struct Open(Arc<AtomicU64>);

impl Open {
    pub(super) fn count(open: &Arc<AtomicU64>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The request with its body, or a cut connection if that is too large or breaks off.
pub(super) async fn read(request: Request<Incoming>) -> Result<Request<Bytes>, Cut> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST).collect().await.map_err(|_| Cut)?.to_bytes();
    Ok(Request::from_parts(head, body))
}

/// A body that is there at once.
pub(super) fn full(body: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, Cut> {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The first half of a body, and then the connection is cut.
pub(super) fn half(body: &Bytes) -> UnsyncBoxBody<Bytes, Cut> {
    let first = body.slice(..body.len() / 2);
    BodyExt::boxed_unsync(StreamBody::new(tokio_stream::iter([Ok(Frame::data(first)), Err(Cut)])))
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is cut on purpose")
    }
}

impl std::error::Error for Cut {}
