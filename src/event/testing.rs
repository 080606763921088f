//! What the formats' tests share.

use bytes::Bytes;
use serde_json::Value;

use super::{Malformed, Reply};

/// An event as JSON.
#[allow(clippy::unwrap_used)]
pub(super) fn value(event: &Bytes) -> Value {
    serde_json::from_slice(event).unwrap()
}

/// Checks that `output` is this reply, header by header, in order.
#[track_caller]
pub(super) fn decoded(
    decode: impl Fn(&Bytes) -> Result<Reply, Malformed>,
    output: &str,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
    why: &str,
) {
    let expected = Reply {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: Bytes::copy_from_slice(body),
    };
    assert_eq!(decode(&Bytes::from(output.to_owned())), Ok(expected), "{why}");
}

/// Checks that `output` is no reply, for this reason.
#[track_caller]
pub(super) fn malformed(
    decode: impl Fn(&Bytes) -> Result<Reply, Malformed>,
    output: &str,
    expected: Malformed,
    why: &str,
) {
    assert_eq!(decode(&Bytes::from(output.to_owned())), Err(expected), "{why}");
}
