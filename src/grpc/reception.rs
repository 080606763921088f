//! Bodies are counted as they are received, for every front and before anybody has read them: above what they may hold,
//! a call ends with OVERLOADED, and what was received of it is given back. Once a call is put together, admission counts
//! its event.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::status::status;
use crate::{
    admission::{Bodies, Held},
    error::Error,
    policy::Caller,
};

/// As much is read of somebody who is unknown: gateways' protocols begin with a call's headers, and want their answer to
/// these in their own words.
const MOST_OF_A_STRANGER: usize = 64 * 1024;

/// A body that counts what it receives.
#[derive(Debug)]
struct Counted {
    body: Body,
    held: Held,
    /// Who is unknown, where one must be known, and how much more is read of them.
    stranger: Option<(Caller, usize)>,
}

/// The same request, with a body that counts.
pub(super) fn counted(request: http::Request<Body>, bodies: &Arc<Bodies>) -> http::Request<Body> {
    if request.body().is_end_stream() {
        return request;
    }
    let caller = request.extensions().get::<Caller>().filter(|caller| matches!(caller, Caller::Unknown(_)));
    let stranger = caller.cloned().map(|caller| (caller, MOST_OF_A_STRANGER));
    request.map(|body| Body::new(Counted { body, held: bodies.hold(), stranger }))
}

impl Counted {
    fn add(&mut self, bytes: usize) -> Result<(), Error> {
        if let Some((caller, left)) = &mut self.stranger {
            match left.checked_sub(bytes) {
                Some(less) => *left = less,
                None => return caller.name().map(|_| ()),
            }
        }
        self.held.add(bytes)
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(received))) = &frame else { return frame };
        match received.data_ref().map_or(Ok(()), |data| self.add(data.len())) {
            Ok(()) => frame,
            Err(full) => {
                let mut refused = status(&full);
                // For fronts that speak another protocol.
                refused.set_source(Arc::new(full));
                Poll::Ready(Some(Err(refused)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::{
        admission::{Admission, Limits},
        error::Kind,
        policy::Policies,
    };

    #[tokio::test]
    async fn a_body_beyond_what_there_may_be_ends_with_the_reason_and_gives_back_what_it_had() {
        let admission = Admission::new(Limits { in_flight: 1, bytes: 1 << 20 }, &Policies::default());
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
        let admission = Admission::new(Limits { in_flight: 1, bytes: 1 << 20 }, &Policies::default());
        let read = async |caller: Option<Caller>, bytes: usize| {
            let mut request = http::Request::new(Body::new(Full::new(Bytes::from(vec![0; bytes]))));
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            let refused = counted(request, admission.bodies()).into_body().collect().await.err();
            refused.and_then(|refused| Error::among(&refused).map(Error::kind))
        };
        let known = Caller::Known(crate::policy::Name::parse("kong").unwrap());
        for (caller, bytes, refused) in [
            (None, 500 << 10, None),
            (Some(known), 500 << 10, None),
            (Some(Caller::default()), 60 << 10, None),
            (Some(Caller::default()), 70 << 10, Some(Kind::CallerUnauthenticated)),
        ] {
            assert_eq!(read(caller, bytes).await, refused);
        }
    }
}
