//! A request's body, which knows whether a connection has taken the request: until then nothing has been sent.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

use crate::trace::Reached;

/// A body that is there as a whole, or one of the SDK's.
#[derive(Debug)]
pub(super) struct Body {
    data: Data,
    call: Option<Reached>,
}

#[derive(Debug)]
enum Data {
    Whole(Bytes),
    Sdk(SdkBody),
}

impl Body {
    /// The body of a call, which notes there when a connection takes it.
    pub(super) fn new(whole: Bytes, call: &Reached) -> Self {
        Self { data: Data::Whole(whole), call: Some(call.clone()) }
    }

    fn tell(&self) {
        if let Some(call) = &self.call {
            call.sent();
        }
    }
}

impl From<SdkBody> for Body {
    fn from(body: SdkBody) -> Self {
        Self { data: Data::Sdk(body), call: None }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.tell();
        match &mut self.get_mut().data {
            Data::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Data::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            Data::Sdk(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        // The connection asks this first of all when it takes a request, before a byte is written, and nobody asks it
        // earlier; of an empty body it asks nothing else. The tests for calls whose time is up hold hyper to it.
        self.tell();
        match &self.data {
            Data::Whole(bytes) => bytes.is_empty(),
            Data::Sdk(body) => HttpBody::is_end_stream(body),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.data {
            Data::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Data::Sdk(body) => HttpBody::size_hint(body),
        }
    }
}
