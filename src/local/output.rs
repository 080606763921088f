//! What comes of a run: an output that is whole, or one that is written as it is made.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::HeaderValue;
use serde_json::json;

/// The largest output that is not streamed (Lambda quotas: 6 MB synchronous).
pub(super) const MAX_WHOLE: usize = 6 * 1024 * 1024 + 100;
/// The largest that is (Lambda quotas: 200 MB for streamed responses).
pub(super) const MAX_STREAM: usize = 200 * 1024 * 1024;
/// How much of the log is returned.
const TAIL: usize = 4096;

/// What came of a run.
pub(super) enum Ran {
    Whole(Run),
    Stream(Output),
}

/// An output that is whole.
#[derive(Debug)]
pub(super) struct Run {
    pub output: Bytes,
    /// `Handled` or `Unhandled` if the output is an error.
    pub error: Option<&'static str>,
    pub log: Vec<u8>,
}

/// An output that is being written. Dropped, a built-in function ends; a process goes on, and nobody reads what it
/// writes.
pub(super) struct Output {
    /// What the function says that it is.
    pub content_type: Option<HeaderValue>,
    /// Chunks and one end, made or read when they are asked for. Without an end the function was taken away.
    pub pieces: BoxStream<'static, Piece>,
}

/// A part of an output.
#[derive(Debug)]
pub(super) enum Piece {
    Chunk(Bytes),
    End(End),
}

/// How an output ended.
#[derive(Debug)]
pub(super) struct End {
    pub error: Option<Broken>,
    pub log: Vec<u8>,
}

/// Why an output is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The error's type; `Handled` or `Unhandled` where there is an error and no output.
    pub code: String,
    /// The error, in JSON unless a process says it otherwise.
    pub details: String,
}

impl Ran {
    /// All of it, as Invoke answers, or the error that it is too much.
    pub(super) async fn whole(self) -> Run {
        let mut pieces = match self {
            Self::Whole(run) => return run.within_limit(),
            Self::Stream(output) => output.pieces,
        };
        let mut output = BytesMut::new();
        let end = loop {
            match pieces.next().await {
                Some(Piece::Chunk(chunk)) => output.extend_from_slice(&chunk),
                Some(Piece::End(end)) => break end,
                None => break End { error: Some(Broken::taken_away()), log: Vec::new() },
            }
            if output.len() > MAX_WHOLE {
                break End { error: None, log: Vec::new() };
            }
        };
        match end.error {
            None => Run { output: output.freeze(), error: None, log: end.log }.within_limit(),
            Some(error) => Run { output: error.details.into(), error: Some("Unhandled"), log: end.log },
        }
    }

    /// The same as InvokeWithResponseStream answers: an output that is whole is one chunk, an error none.
    pub(super) fn streamed(self) -> Output {
        let run = match self {
            Self::Whole(run) => run.within_limit(),
            Self::Stream(output) => return output,
        };
        let (chunk, error) = match run.error {
            None => (Some(run.output).filter(|output| !output.is_empty()), None),
            Some(word) => {
                let details = String::from_utf8_lossy(&run.output).into_owned();
                (None, Some(Broken { code: word.to_owned(), details }))
            }
        };
        let end = Piece::End(End { error, log: run.log });
        Output { content_type: None, pieces: stream::iter(chunk.map(Piece::Chunk).into_iter().chain([end])).boxed() }
    }
}

impl Run {
    fn within_limit(self) -> Self {
        if self.output.len() <= MAX_WHOLE {
            return self;
        }
        let error = Broken::too_large(MAX_WHOLE);
        Self { output: error.details.into(), error: Some("Unhandled"), log: self.log }
    }
}

impl Broken {
    pub(super) fn new(error_type: &str, message: &str) -> Self {
        let details = json!({"errorType": error_type, "errorMessage": message}).to_string();
        Self { code: error_type.to_owned(), details }
    }

    /// The output has more bytes than it may have.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("Response payload size exceeded maximum allowed payload size ({limit} bytes).");
        Self::new("Function.ResponseSizeTooLarge", &message)
    }

    fn taken_away() -> Self {
        Self::new("Runtime.Unknown", "the function was stopped")
    }
}

/// The end of a log in base64, as `X-Amz-Log-Type: Tail` asks for it.
pub(super) fn tail(mut log: Vec<u8>, id: &str) -> String {
    log.extend_from_slice(format!("REPORT RequestId: {id}\tMemory Size: 128 MB\n").as_bytes());
    let end = log.split_off(log.len().saturating_sub(TAIL));
    BASE64_STANDARD.encode(end)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stream(chunks: Vec<Bytes>, error: Option<Broken>) -> Ran {
        let end = Piece::End(End { error, log: b"log".to_vec() });
        let pieces = chunks.into_iter().map(Piece::Chunk).chain([end]);
        Ran::Stream(Output { content_type: None, pieces: stream::iter(pieces).boxed() })
    }

    #[tokio::test]
    async fn invoke_answers_with_all_of_a_stream() {
        let run = stream(vec!["one ".into(), "two".into()], None).whole().await;
        assert_eq!((&run.output[..], run.error, &run.log[..]), (&b"one two"[..], None, &b"log"[..]));
        let run = stream(vec!["one".into()], Some(Broken::new("Odd", "no"))).whole().await;
        assert_eq!(
            (&run.output[..], run.error),
            (&br#"{"errorMessage":"no","errorType":"Odd"}"#[..], Some("Unhandled"))
        );
        let endless = stream::repeat_with(|| Piece::Chunk(Bytes::from_static(&[b'x'; 64 * 1024])));
        let run = Ran::Stream(Output { content_type: None, pieces: endless.boxed() }).whole().await;
        assert!(run.output.starts_with(br#"{"errorMessage":"Response payload size exceeded"#), "and no more is read");
    }

    #[tokio::test]
    async fn what_is_whole_is_one_chunk_and_an_error_none() {
        for (what, output, error, chunks, code) in [
            ("an output", "{}", None, 1, None),
            ("nothing", "", None, 0, None),
            ("an error", "{}", Some("Handled"), 0, Some("Handled")),
        ] {
            let run = Run { output: output.into(), error, log: Vec::new() };
            let pieces: Vec<_> = Ran::Whole(run).streamed().pieces.collect().await;
            assert_eq!(pieces.len(), chunks + 1, "{what}");
            let Some(Piece::End(end)) = pieces.last() else { panic!("{what}: the end comes last") };
            assert_eq!(end.error.as_ref().map(|error| error.code.as_str()), code, "{what}");
        }
    }
}
