//! Requests are counted as they are received, for every front and before anybody has read them: above what they may hold,
//! a call ends with OVERLOADED, and what was received of it is given back. Once a call is put together, admission counts
//! its event. Who sends too slowly is not waited for.
//!
//! Here it is said only why a request is not received. Whoever reads it writes the line of its call.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

use super::{deadline::Deadline, status::status};
use crate::{
    admission::{Bodies, Held},
    error::{Error, Kind, Ran},
    pb::envoy::service::ext_proc::v3::external_processor_server::SERVICE_NAME as EXT_PROC,
    policy::Caller,
};

/// As much is read of somebody who is unknown: gateways' protocols begin with a call's headers, and want their answer to
/// these in their own words.
const MOST_OF_A_STRANGER: usize = 64 * 1024;
/// How long a body may take: enough for the largest at one megabit a second.
const WHOLE: Duration = Duration::from_secs(60);

/// A body that counts what it receives.
struct Counted {
    body: Body,
    /// Why it is not received, if there was no room for it.
    held: Result<Held, Option<Error>>,
    /// Who is unknown, where one must be known, and how much more is read of them.
    stranger: Option<(Caller, usize)>,
    /// Whether its service waits for its first message, and for the rest as long as the call lasts.
    stream: bool,
    /// When its caller stops waiting. tonic would end the call then without a reason.
    deadline: Option<Instant>,
    /// None until there is something to wait for, as most bodies are there at once.
    late: Option<Pin<Box<Sleep>>>,
}

/// The same request, with a body that counts.
pub(super) fn counted(request: http::Request<Body>, bodies: &Arc<Bodies>) -> http::Request<Body> {
    if request.body().is_end_stream() {
        return request;
    }
    let stream = request.uri().path().get(1..).is_some_and(|path| path.starts_with(EXT_PROC));
    let caller = request.extensions().get::<Caller>().filter(|caller| caller.known().is_none());
    let stranger = caller.cloned().map(|caller| (caller, MOST_OF_A_STRANGER));
    let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
    let held = bodies.receive().map_err(Some);
    request.map(|body| Body::new(Counted { body, held, stranger, stream, deadline, late: None }))
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, held, stranger, stream, deadline, late } = &mut *self;
        let held = match held {
            Ok(held) => held,
            Err(full) => return Poll::Ready(full.take().map(|full| Err(refused(full)))),
        };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(broken))) => return Poll::Ready(Some(Err(refused(broke(&broken))))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending if *stream => return Poll::Pending,
            Poll::Pending => {
                let late = late.get_or_insert_with(|| Box::pin(sleep_until(latest(*deadline))));
                return late.as_mut().poll(cx).map(|()| Some(Err(refused(too_slow(*deadline)))));
            }
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        Poll::Ready(Some(match known(stranger, bytes).and_then(|()| held.add(bytes)) {
            Ok(()) => Ok(frame),
            Err(full) => Err(refused(full)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_ok() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether so many more bytes may be read of somebody.
fn known(stranger: &mut Option<(Caller, usize)>, bytes: usize) -> Result<(), Error> {
    let Some((caller, left)) = stranger else { return Ok(()) };
    match left.checked_sub(bytes) {
        Some(less) => {
            *left = less;
            Ok(())
        }
        None => caller.name().map(|_| ()),
    }
}

/// Until when a request that begins now is waited for.
pub(super) fn latest(deadline: Option<Instant>) -> Instant {
    let whole = Instant::now() + WHOLE;
    deadline.map_or(whole, |deadline| deadline.min(whole))
}

/// Why it is not waited for any longer.
pub(super) fn too_slow(deadline: Option<Instant>) -> Error {
    let message = match deadline {
        Some(deadline) if deadline <= Instant::now() => "the request did not come before its deadline".to_owned(),
        _ => format!("the request did not come within {} seconds", WHOLE.as_secs()),
    };
    Error::new(Kind::Timeout, message).with_ran(Ran::No)
}

/// Why no more comes. Mostly the caller has gone away; but who gets HTTP/1 wrong is still there.
fn broke(status: &Status) -> Error {
    let mut causes = std::iter::successors(Some(status as &dyn std::error::Error), |error| error.source());
    match causes.find_map(|error| error.downcast_ref::<io::Error>()) {
        Some(wrong) if matches!(wrong.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            // What hyper says behind that may quote a trailer.
            let detail = wrong.to_string().split(": ").next().map(str::to_owned).unwrap_or_default();
            Error::field("body", "is none that HTTP/1.1 knows: its chunks are wrong").with_detail(detail)
        }
        _ => Error::broken_off(),
    }
}

/// The error for gRPC, with itself as the source for fronts that speak another protocol.
fn refused(error: Error) -> Status {
    let mut refused = status(&error);
    refused.set_source(Arc::new(error));
    refused
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;
    use crate::{
        admission::{Admission, Limits},
        policy::Policies,
    };

    fn admission(bytes: usize) -> Admission {
        Admission::new(Limits { in_flight: 1, bytes }, &Policies::default())
    }

    #[tokio::test]
    async fn a_body_beyond_what_there_may_be_ends_with_the_reason_and_gives_back_what_it_had() {
        let admission = admission(1 << 20);
        let request = |bytes: usize| {
            let body = Body::new(Full::new(Bytes::from(vec![0; bytes])));
            counted(http::Request::new(body), admission.bodies())
        };
        let mut first = request(900 << 10).into_body();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap().len(), 900 << 10);
        assert_eq!(admission.bodies().held(), 900 << 10);
        let refused = request(200 << 10).into_body().collect().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        assert_eq!(Error::among(&refused).map(Error::kind), Some(Kind::Overloaded));
        assert!(request(60 << 10).into_body().collect().await.is_ok(), "small ones pass");
        drop(first);
        assert!(request(200 << 10).into_body().collect().await.is_ok());
        assert_eq!(admission.bodies().held(), 0);
    }

    #[tokio::test]
    async fn little_is_read_of_somebody_who_is_unknown() {
        let admission = admission(1 << 20);
        let read = async |caller: Option<Caller>, bytes: usize| {
            let mut request = http::Request::new(Body::new(Full::new(Bytes::from(vec![0; bytes]))));
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            let refused = counted(request, admission.bodies()).into_body().collect().await.err();
            refused.and_then(|refused| Error::among(&refused).map(Error::kind))
        };
        let known = Caller::from(crate::policy::Name::parse("kong").unwrap());
        for (caller, bytes, refused) in [
            (None, 500 << 10, None),
            (Some(known), 500 << 10, None),
            (Some(Caller::default()), 60 << 10, None),
            (Some(Caller::default()), 70 << 10, Some(Kind::CallerUnauthenticated)),
        ] {
            assert_eq!(read(caller, bytes).await, refused);
        }
    }

    #[tokio::test]
    async fn a_request_for_which_there_is_no_room_is_not_read() {
        let admission = admission(20 << 10);
        let request = || counted(http::Request::new(Body::new(Full::new(Bytes::from("x")))), admission.bodies());
        let first = request();
        let refused = request().into_body().collect().await.unwrap_err();
        assert_eq!(Error::among(&refused).map(Error::kind), Some(Kind::Overloaded));
        drop(first);
        assert!(request().into_body().collect().await.is_ok());
    }

    #[tokio::test]
    async fn who_breaks_off_is_told_nothing_and_who_gets_http_wrong_is_told() {
        for (kind, broken_off) in [
            (io::ErrorKind::UnexpectedEof, true),
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::InvalidInput, false),
            (io::ErrorKind::InvalidData, false),
        ] {
            let mut cause = Status::unknown("the body");
            cause.set_source(Arc::new(io::Error::from(kind)));
            let body = StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(cause)]));
            let request = counted(http::Request::new(Body::new(body)), admission(1 << 20).bodies());
            let told = request.into_body().collect().await.unwrap_err();
            let error = Error::among(&told).unwrap();
            assert_eq!((error.kind(), error.is_broken_off()), (Kind::InvalidRequest, broken_off), "{kind}");
        }
    }

    /// A byte each 20 seconds, for this many times, and then the end, or silence; perhaps with a deadline after so many seconds.
    async fn slow(path: &str, bytes: usize, ends: bool, deadline: Option<u64>) -> (Result<usize, Kind>, Duration) {
        let admission = admission(1 << 20);
        let frames = stream::unfold(0, move |sent| async move {
            if sent == bytes && !ends {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
            (sent < bytes).then(|| (Ok::<_, Status>(Frame::data(Bytes::from_static(b"x"))), sent + 1))
        });
        let body = Body::new(StreamBody::new(frames.boxed()));
        let mut request = http::Request::builder().uri(path).body(body).unwrap();
        if let Some(seconds) = deadline {
            request.extensions_mut().insert(Deadline(Instant::now() + Duration::from_secs(seconds)));
        }
        let began = Instant::now();
        let collected =
            tokio::time::timeout(Duration::from_secs(3600), counted(request, admission.bodies()).into_body().collect());
        let result = match collected.await {
            Ok(Ok(whole)) => Ok(whole.to_bytes().len()),
            Ok(Err(error)) => Err(Error::among(&error).unwrap().kind()),
            // Nobody ends it.
            Err(_) => Ok(usize::MAX),
        };
        (result, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_too_slowly_is_not_waited_for() {
        let ext_proc = format!("/{EXT_PROC}/Process");
        for (what, path, bytes, ends, deadline, result, seconds) in [
            ("slow, but in time", "/x", 1, true, None, Ok(1), 40),
            ("a byte now and then", "/x", 100, true, None, Err(Kind::Timeout), 60),
            ("nothing", "/x", 0, false, None, Err(Kind::Timeout), 60),
            ("nothing before its deadline", "/x", 0, false, Some(5), Err(Kind::Timeout), 5),
            ("with a deadline that is later", "/x", 100, true, Some(100), Err(Kind::Timeout), 60),
            ("a stream that lasts", &ext_proc, 100, true, None, Ok(100), 2020),
            ("a stream that waits for its upstream", &ext_proc, 1, false, None, Ok(usize::MAX), 3600),
        ] {
            assert_eq!(slow(path, bytes, ends, deadline).await, (result, Duration::from_secs(seconds)), "{what}");
        }
    }
}
