//! The built-in function that streams: chunks of text, at the pace and of the size that the event asks for.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut, BytesMut};
use futures_util::{StreamExt, stream};
use http::HeaderValue;
use serde_json::{Value, json};

use super::{
    functions::Given,
    output::{Broken, End, Output, Piece},
};

/// How long a chunk may be.
const MAX_CHUNK: usize = 1 << 20;
/// What separates an HTTP answer's head from its body (Lambda developer guide, "Response streaming").
const DELIMITER: [u8; 8] = [0; 8];

/// What the event asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    chunks: u64,
    /// The length of a chunk, without what server-sent events put around it; as short as it can be unless it is said.
    bytes: Option<usize>,
    every: Duration,
    /// After so many chunks the function fails.
    fail_after: Option<u64>,
    /// What comes first is written in pieces of so many bytes.
    split: Option<usize>,
    sse: bool,
    /// The status of an HTTP answer, if the event is an HTTP call.
    status: Option<u16>,
}

/// Where the function is.
struct Writing {
    asked: Asked,
    /// Not yet written.
    ready: BytesMut,
    chunks: u64,
    log: Vec<u8>,
}

/// Begins to write. Nothing is made before it is asked for.
pub(super) fn stream(event: &Value, given: &Given) -> Output {
    let asked = Asked::read(event);
    let content_type = asked.status.map(|_| "application/vnd.awslambda.http-integration-response");
    let writing = Writing::begin(asked, given.log());
    Output {
        content_type: content_type.map(HeaderValue::from_static),
        pieces: stream::unfold(Some(writing), |writing| async {
            let mut writing = writing?;
            Some(match writing.next().await {
                Piece::End(end) => (Piece::End(end), None),
                chunk => (chunk, Some(writing)),
            })
        })
        .boxed(),
    }
}

impl Asked {
    /// An HTTP call asks in its query or, in JSON, in its body; any other event in itself.
    fn read(event: &Value) -> Self {
        let http = event["requestContext"].is_object() || event["httpMethod"].is_string();
        let body = if http { body(event) } else { Value::Null };
        let value = |name: &str| {
            if !http {
                return event[name].clone();
            }
            let query = [&event["queryStringParameters"][name], &event["multiValueQueryStringParameters"][name][0]];
            query.into_iter().find(|value| !value.is_null()).unwrap_or(&body[name]).clone()
        };
        let number = |name: &str| match value(name) {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        };
        let size = |name: &str| number(name).map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let status = number("status").and_then(|status| status.try_into().ok()).unwrap_or(200);
        Self {
            chunks: number("chunks").unwrap_or(5),
            bytes: size("bytes").map(|bytes| bytes.min(MAX_CHUNK)),
            every: Duration::from_millis(number("every").unwrap_or(100)),
            fail_after: number("fail_after"),
            split: size("split").map(|split| split.max(1)),
            sse: matches!(value("sse"), Value::Bool(true)) || value("sse") == "true",
            status: http.then_some(status),
        }
    }
}

impl Writing {
    fn begin(asked: Asked, log: Vec<u8>) -> Self {
        let mut writing = Self { asked, ready: BytesMut::new(), chunks: 0, log };
        if writing.asked.fail_after == Some(0) {
            return writing;
        }
        if let Some(status) = writing.asked.status {
            let content_type = if writing.asked.sse { "text/event-stream" } else { "text/plain" };
            let prelude = json!({"statusCode": status, "headers": {"content-type": content_type}});
            writing.ready.put(prelude.to_string().as_bytes());
            writing.ready.put(&DELIMITER[..]);
        }
        // A piece may hold the end of the prelude and the beginning of the body.
        if writing.asked.split.is_some() && writing.asked.chunks > 0 {
            writing.make_chunk();
        }
        writing
    }

    async fn next(&mut self) -> Piece {
        if self.ready.is_empty() {
            let fails = self.asked.fail_after == Some(self.chunks);
            if self.chunks >= self.asked.chunks && !fails {
                return Piece::End(End { error: None, log: std::mem::take(&mut self.log) });
            }
            if self.chunks > 0 {
                tokio::time::sleep(self.asked.every).await;
            }
            if fails {
                let message = format!("the stream broke off after {} chunks", self.chunks);
                return Piece::End(End {
                    error: Some(Broken::new("StreamError", &message)),
                    log: std::mem::take(&mut self.log),
                });
            }
            self.make_chunk();
        }
        let length = self.asked.split.unwrap_or(usize::MAX).min(self.ready.len());
        let piece = self.ready.split_to(length).freeze();
        if self.ready.is_empty() {
            self.ready = BytesMut::new();
            self.asked.split = None;
        }
        Piece::Chunk(piece)
    }

    /// `chunk 1`, filled with dots to the length that was asked for, and the end of the line or of the event.
    fn make_chunk(&mut self) {
        self.chunks += 1;
        let text = format!("chunk {}", self.chunks);
        let (before, after) = if self.asked.sse { ("data: ", "\n\n") } else { ("", "\n") };
        // The end of a line is one of the bytes of a chunk, that of an event is not.
        let end = if self.asked.sse { 0 } else { 1 };
        let length = self.asked.bytes.map_or(text.len(), |bytes| bytes.saturating_sub(end));
        self.ready.put(before.as_bytes());
        self.ready.put(&text.as_bytes()[..text.len().min(length)]);
        self.ready.put_bytes(b'.', length.saturating_sub(text.len()));
        self.ready.put(after.as_bytes());
    }
}

/// The JSON that an HTTP call's body is, if it is.
fn body(event: &Value) -> Value {
    let text = event["body"].as_str().unwrap_or_default();
    let body = match event["isBase64Encoded"].as_bool() {
        Some(true) => BASE64_STANDARD.decode(text).unwrap_or_default(),
        _ => text.as_bytes().to_vec(),
    };
    serde_json::from_slice(&body).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// The pieces, and the error if there is one.
    async fn written(event: Value) -> (Vec<Bytes>, Option<Broken>) {
        let given = Given::default();
        let mut pieces = stream(&event, &given).pieces;
        let mut chunks = Vec::new();
        loop {
            match pieces.next().await.unwrap() {
                Piece::Chunk(chunk) => chunks.push(chunk),
                Piece::End(end) => {
                    assert!(pieces.next().await.is_none(), "nothing comes after the end");
                    return (chunks, end.error);
                }
            }
        }
    }

    const HTTP: &str = "{\"headers\":{\"content-type\":\"text/plain\"},\"statusCode\":200}\0\0\0\0\0\0\0\0";
    const SSE: &str = "{\"headers\":{\"content-type\":\"text/event-stream\"},\"statusCode\":200}\0\0\0\0\0\0\0\0";

    #[tokio::test(start_paused = true)]
    async fn the_event_says_what_is_written() {
        for (what, event, expected) in [
            ("two chunks", json!({"chunks": 2}), vec!["chunk 1\n", "chunk 2\n"]),
            ("longer chunks", json!({"chunks": 1, "bytes": 12}), vec!["chunk 1....\n"]),
            ("shorter chunks", json!({"chunks": 1, "bytes": 4}), vec!["chu\n"]),
            ("the shortest chunks", json!({"chunks": 1, "bytes": 0}), vec!["\n"]),
            ("server-sent events", json!({"chunks": 1, "sse": true, "bytes": 9}), vec!["data: chunk 1..\n\n"]),
            ("pieces of the first", json!({"chunks": 2, "split": 5}), vec!["chunk", " 1\n", "chunk 2\n"]),
            ("nothing", json!({"chunks": 0}), vec![]),
            (
                "an HTTP call's query",
                json!({"httpMethod": "GET", "queryStringParameters": {"chunks": "1"}}),
                vec![HTTP, "chunk 1\n"],
            ),
            (
                "a load balancer's query",
                json!({"httpMethod": "GET", "multiValueQueryStringParameters": {"chunks": ["1"], "sse": ["true"]}}),
                vec![SSE, "data: chunk 1\n\n"],
            ),
            (
                "an HTTP call's body",
                json!({"requestContext": {}, "body": "eyJjaHVua3MiOiAwfQ==", "isBase64Encoded": true}),
                vec![HTTP],
            ),
        ] {
            let (chunks, error) = written(event).await;
            assert_eq!(chunks, expected, "{what}");
            assert!(error.is_none(), "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_fails_where_it_is_told_to() {
        for (fail_after, chunks) in [(0, 0), (2, 2), (5, 5)] {
            let (written, error) = written(json!({"fail_after": fail_after})).await;
            assert_eq!(written.len(), chunks, "after {fail_after}");
            let error = error.unwrap();
            assert_eq!(error.code, "StreamError");
            assert!(error.details.contains(&format!("after {chunks} chunks")), "{}", error.details);
        }
        let (_, error) = written(json!({"fail_after": 6})).await;
        assert!(error.is_none(), "it has come to its end before");
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_come_at_their_pace() {
        let begun = tokio::time::Instant::now();
        written(json!({"chunks": 4, "every": 1000})).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(3), "nobody waits for the first, or after the last");
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_are_the_same_answer(split in 1_usize..200, chunks in 0_u64..4) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let event = |split: Option<usize>| json!({
                "requestContext": {}, "queryStringParameters": {"chunks": chunks, "bytes": 30, "split": split},
            });
            let (whole, _) = runtime.block_on(written(event(None)));
            let (pieces, _) = runtime.block_on(written(event(Some(split))));
            prop_assert_eq!(pieces.concat(), whole.concat());
            prop_assert!(pieces[0].len() <= split);
        }
    }
}
