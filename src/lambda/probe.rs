//! Everything that reads what Lambda sends, without a connection: for fuzzing.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::{answer, stream};

/// Reads bytes as frames of a streamed answer.
pub fn frames(bytes: &[u8], piece: usize) -> usize {
    stream::read_all(bytes, piece.max(1))
}

/// Reads bytes as the headers and the body of an answer, and of a refusal.
pub fn answer(bytes: &[u8]) {
    let (value, body) = bytes.split_at(bytes.len().min(64) / 2);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(value) {
        for name in ["x-amzn-errortype", "x-amz-function-error", "x-amz-log-result", "retry-after"] {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
        value.to_str().ok().and_then(answer::pause);
    }
    let mut response = Response::new(Bytes::copy_from_slice(body));
    *response.headers_mut() = headers;
    answer::Refusal::read(&response);
    answer::answer(response);
}
