//! An event's JSON, written into one buffer.

use bytes::Bytes;
use serde::Serialize;

use super::{body::Body, call::Call};

/// What the keys and the context of the largest envelope take.
const FRAME: usize = 1536;

/// Writes `event` into a buffer that is, as a rule, large enough from the start: headers appear up to
/// twice, a body once.
pub(super) fn write(call: &Call, body: Option<Body<'_>>, event: &impl Serialize) -> Bytes {
    let headers: usize = call.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let request = call.path.len() + call.query.len();
    let body = body.map_or(0, |body| body.size());
    let mut json = Vec::with_capacity(FRAME + 2 * headers + 3 * request + body);
    serde_json::to_writer(&mut json, event).expect("a Vec takes every byte, and events have text keys only");
    Bytes::from(json)
}
