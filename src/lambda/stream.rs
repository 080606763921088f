//! An answer that comes as the function writes it: the frames of `InvokeWithResponseStream`.
//!
//! Source: Lambda API reference, `InvokeWithResponseStream`; Smithy, "Amazon Event Stream Specification". The frames
//! are read by the SDK's own crate; what is around them is here, so that the call itself is the one of buffered Invoke.

use std::{fmt, time::Duration};

use aws_smithy_eventstream::{frame::read_message_from, smithy::parse_response_headers};
use aws_smithy_types::event_stream::Message;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;

use super::{
    answer::{decode_log, request_id, text, version},
    classify,
    connector::MAX_ANSWER,
    cut::Cut,
};
use crate::{
    error::{Error, unread},
    event::fault::Fault,
};

/// The least that a frame has: two lengths and two checksums.
const LEAST_FRAME: usize = 16;
/// The largest frame that is read: a function that does not stream answers with one.
const MOST_FRAME: usize = MAX_ANSWER;
/// How long the end of the connection's message is waited for once the answer is complete, so that the connection can be
/// used again.
const LINGER: Duration = Duration::from_millis(500);

/// An answer that has begun. Dropped before its end, it closes its connection.
#[derive(Debug)]
pub struct Stream {
    /// The version that runs.
    pub version: String,
    /// AWS's id of the request.
    pub request_id: String,
    /// The type of what the function writes, if it named one.
    pub content_type: Option<String>,
    headers: HeaderMap,
    body: Incoming,
    frames: Frames,
    cut: Cut,
}

/// What comes of an answer, in this order: some chunks, and one end.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// What the function wrote.
    Chunk(Bytes),
    /// The function has ended.
    End {
        /// How it failed, if it did, and the error's payload.
        fault: Option<(Fault, Bytes)>,
        /// The end of the log, if asked for.
        log: String,
    },
}

/// Why frames make no sense.
#[derive(Debug)]
enum Broken {
    /// The connection.
    Body(hyper::Error),
    /// It ended in order, and the answer had not.
    Short,
    /// A frame says that it is as long as none is.
    Length(usize),
    /// A frame is none, or its checksum is wrong.
    Frame(aws_smithy_eventstream::error::Error),
    /// The last frame is no JSON.
    End(serde_json::Error),
    /// Lambda says that it failed.
    Exception(String),
}

/// Frames as they come, and what has come of the next one.
#[derive(Debug, Default)]
struct Frames(BytesMut);

impl Stream {
    pub(super) fn new(response: Response<Incoming>, cut: Cut) -> Self {
        let (head, body) = response.into_parts();
        Self {
            version: version(&head.headers).to_owned(),
            request_id: request_id(&head.headers).unwrap_or_default().to_owned(),
            // The header of this name has the type of the frames.
            content_type: text(&head.headers, "x-amzn-remapped-content-type").map(str::to_owned),
            headers: head.headers,
            body,
            frames: Frames::default(),
            cut,
        }
    }

    /// The next part, as soon as it is there. After the end nothing is to be asked for.
    ///
    /// # Errors
    /// [`Kind::LambdaFailed`](crate::error::Kind::LambdaFailed) if the answer breaks off: the function has run, at least
    /// in part.
    pub async fn next(&mut self) -> Result<Part, Error> {
        match self.part().await {
            Ok(part) => Ok(part),
            Err(_) if self.cut.is_done() => Err(classify::stopped(crate::error::Ran::Maybe)),
            Err(broken) => Err(classify::broken(&self.headers, &broken)),
        }
    }

    /// Waits a moment for the end of the message behind the answer, which gives the connection back.
    pub async fn close(mut self) {
        let rest = async { while let Some(Ok(_)) = self.body.frame().await {} };
        // A connection that does not end its message is closed, and nothing is lost by it.
        let _ = tokio::time::timeout(LINGER, rest).await;
    }

    async fn part(&mut self) -> Result<Part, Broken> {
        loop {
            while let Some(message) = self.frames.next()? {
                if let Some(part) = read(&message)? {
                    return Ok(part);
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.frames.0.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Broken::Body(error)),
                None => return Err(Broken::Short),
            }
        }
    }
}

/// Reads frames that come in pieces of a length, up to the first that makes no sense.
pub(super) fn read_all(bytes: &[u8], piece: usize) -> usize {
    let (mut frames, mut parts) = (Frames::default(), 0);
    for piece in bytes.chunks(piece) {
        frames.0.extend_from_slice(piece);
        loop {
            match frames.next().and_then(|message| message.map(|message| read(&message)).transpose()) {
                Ok(Some(part)) => parts += usize::from(part.is_some()),
                Ok(None) => break,
                Err(_) => return parts,
            }
        }
    }
    parts
}

impl Frames {
    /// The next frame, if it is there as a whole. A length that no frame has is refused before it is waited for.
    fn next(&mut self) -> Result<Option<Message>, Broken> {
        let Some(mut length) = self.0.get(..4) else { return Ok(None) };
        let length = usize::try_from(length.get_u32()).unwrap_or(usize::MAX);
        if !(LEAST_FRAME..=MOST_FRAME).contains(&length) {
            return Err(Broken::Length(length));
        }
        if self.0.len() < length {
            // Not by doubling, which would take up to twice as much.
            self.0.reserve(length - self.0.len());
            return Ok(None);
        }
        let frame = self.0.split_to(length).freeze();
        read_message_from(frame).map(Some).map_err(Broken::Frame)
    }
}

/// What a frame means; nothing if it is of a kind that came after this was written.
fn read(message: &Message) -> Result<Option<Part>, Broken> {
    let headers = parse_response_headers(message).map_err(Broken::Frame)?;
    let kind = (headers.message_type.as_str(), headers.smithy_type.as_str());
    Ok(match kind {
        ("event", "PayloadChunk") if message.payload().is_empty() => None,
        ("event", "PayloadChunk") => Some(Part::Chunk(message.payload().clone())),
        ("event", "InvokeComplete") => Some(end(message.payload()).map_err(Broken::End)?),
        ("event", _) => None,
        (_, name) => return Err(Broken::Exception(name.to_owned())),
    })
}

fn end(payload: &[u8]) -> serde_json::Result<Part> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Complete {
        error_code: Option<String>,
        error_details: Option<String>,
        log_result: Option<String>,
    }
    let Complete { error_code, error_details, log_result } =
        if payload.is_empty() { Complete::default() } else { serde_json::from_slice(payload)? };
    let fault = error_code.filter(|code| !code.is_empty()).map(|code| {
        let details = Bytes::from(error_details.unwrap_or_default());
        let mut fault = match serde_json::from_slice::<IgnoredAny>(&details) {
            Ok(_) => Fault::new(&code, &details),
            // Lambda's own failures come as plain text, or without any.
            Err(_) => {
                let said = String::from_utf8_lossy(&details);
                Fault::new(&code, json!({"errorType": code, "errorMessage": said}).to_string().as_bytes())
            }
        };
        if fault.error_type.is_empty() {
            fault.error_type = code;
        }
        (fault, details)
    });
    Ok(Part::End { fault, log: log_result.as_deref().map(decode_log).unwrap_or_default() })
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(error) => write!(f, "{}", super::identity::chain_of(error)),
            Self::Short => f.write_str("the connection's message ended and the function's answer had not"),
            Self::Length(length) => write!(f, "a frame of {length} bytes, which none has"),
            Self::Frame(error) => write!(f, "a frame is none: {error}"),
            Self::End(error) => write!(f, "the last frame is no JSON: {}", unread(error)),
            Self::Exception(name) => write!(f, "lambda says {name}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::event::fault::Kind;

    fn frame(kind: &'static str, name: &'static str, payload: &[u8]) -> Vec<u8> {
        let header = |name: &'static str, value: &'static str| Header::new(name, HeaderValue::String(value.into()));
        let typed = if kind == "event" { ":event-type" } else { ":exception-type" };
        let message = Message::new(Bytes::copy_from_slice(payload))
            .add_header(header(":message-type", kind))
            .add_header(header(typed, name));
        let mut written = Vec::new();
        write_message_to(&message, &mut written).unwrap();
        written
    }

    /// What comes of bytes that arrive in pieces of a length.
    fn parts(bytes: &[u8], piece: usize) -> Result<Vec<Part>, Broken> {
        let (mut frames, mut parts) = (Frames::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            frames.0.extend_from_slice(piece);
            while let Some(message) = frames.next()? {
                parts.extend(read(&message)?);
            }
        }
        if frames.0.is_empty() { Ok(parts) } else { Err(Broken::Short) }
    }

    fn ended(complete: &str) -> (Option<(Fault, Bytes)>, String) {
        match end(complete.as_bytes()).unwrap() {
            Part::End { fault, log } => (fault, log),
            Part::Chunk(_) => panic!("a chunk"),
        }
    }

    #[test]
    fn the_end_tells_how_the_function_failed() {
        let error = r#"{"errorType":"OrderError","errorMessage":"no stock"}"#;
        let quoted = serde_json::to_string(error).unwrap();
        for (complete, expected) in [
            (String::new(), None),
            ("{}".to_owned(), None),
            (r#"{"ErrorCode":"","ErrorDetails":""}"#.to_owned(), None),
            (
                format!(r#"{{"ErrorCode":"Unhandled","ErrorDetails":{quoted}}}"#),
                Some((Kind::Unhandled, "OrderError", "no stock")),
            ),
            (
                format!(r#"{{"ErrorCode":"Handled","ErrorDetails":{quoted}}}"#),
                Some((Kind::Handled, "OrderError", "no stock")),
            ),
            (
                r#"{"ErrorCode":"Function.ResponseSizeTooLarge"}"#.to_owned(),
                Some((Kind::Unhandled, "Function.ResponseSizeTooLarge", "")),
            ),
            (
                r#"{"ErrorCode":"Unhandled","ErrorDetails":"Task timed out after 3.00 seconds"}"#.to_owned(),
                Some((Kind::Timeout, "Unhandled", "Task timed out after 3.00 seconds")),
            ),
        ] {
            let (fault, log) = ended(&complete);
            let fault = fault.map(|(fault, _)| fault);
            let told = fault.as_ref().map(|f| (f.kind, f.error_type.as_str(), f.message.as_str()));
            assert_eq!((told, log.as_str()), (expected, ""), "{complete}");
        }
        assert_eq!(ended(r#"{"LogResult":"SGVsbG8="}"#).1, "Hello");
        assert!(end(b"{").is_err() && end(b"7").is_err());
    }

    #[test]
    fn what_is_no_frame_is_told_before_it_is_waited_for() {
        let whole = frame("event", "PayloadChunk", b"hello");
        let with = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(matches!(parts(&with(0, 0x7f), 4), Err(Broken::Length(_))), "two gigabytes");
        assert!(matches!(parts(&[0, 0, 0, 15], 4), Err(Broken::Length(15))), "shorter than any frame");
        assert!(matches!(parts(&with(8, 1), 7), Err(Broken::Frame(_))), "the first checksum");
        assert!(matches!(parts(&with(whole.len() - 1, 1), 7), Err(Broken::Frame(_))), "the last checksum");
        assert!(matches!(parts(&whole[..whole.len() - 1], 7), Err(Broken::Short)), "half a frame");
        let exception = frame("exception", "TooManyRequestsException", b"{}");
        assert!(matches!(parts(&exception, 7), Err(Broken::Exception(name)) if name == "TooManyRequestsException"));
        assert_eq!(parts(&frame("event", "SomethingNew", b"{}"), 7).unwrap(), [], "it is passed over");
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            piece in 1..400usize,
        ) {
            let mut bytes: Vec<u8> = chunks.iter().flat_map(|chunk| frame("event", "PayloadChunk", chunk)).collect();
            bytes.extend(frame("event", "InvokeComplete", b"{}"));
            let expected: Vec<_> = chunks
                .into_iter()
                .map(|chunk| Part::Chunk(Bytes::from(chunk)))
                .chain([Part::End { fault: None, log: String::new() }])
                .collect();
            prop_assert_eq!(parts(&bytes, piece).unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parts(&bytes, 16);
        }
    }
}
