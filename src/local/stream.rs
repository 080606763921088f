//! The answer of InvokeWithResponseStream, made as the client reads it, and what can go wrong with it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::{
    faults::Fault,
    frames::{self, Complete},
    locked,
    output::{Broken, End, MAX_STREAM, Output, Piece, tail},
    server::{Answer, Cut},
};

/// What the answer says besides the output.
pub(super) struct Head<'a> {
    pub id: &'a str,
    pub version: &'a str,
    /// Whether the log was asked for.
    pub tail: bool,
    pub fault: Option<Fault>,
}

/// The streams of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: AtomicU64,
    abandoned: AtomicU64,
    written: Mutex<HashMap<String, u64>>,
}

/// One of them.
struct Counted {
    streams: Arc<Streams>,
    function: String,
    ended: bool,
}

type Frames = BoxStream<'static, Result<Bytes, Cut>>;

/// The answer; the client has its head at once.
pub(super) fn answer(output: Output, head: &Head<'_>) -> Answer {
    let content_type = output.content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let completes = !matches!(head.fault, Some(Fault::NoComplete | Fault::Exception));
    let log_of = head.tail.then(|| head.id.to_owned());
    let frames = wrong(framed(output.pieces, MAX_STREAM, completes, log_of), head.fault);
    let mut response = Response::new(StreamBody::new(frames.map(|frame| frame.map(Frame::data))).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(frames::CONTENT_TYPE));
    headers.insert("x-amzn-remapped-content-type", content_type);
    for (name, value) in [("x-amzn-requestid", head.id), ("x-amz-executed-version", head.version)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

/// Chunks, and the end if the stream is to have one.
fn framed(pieces: BoxStream<'static, Piece>, limit: usize, completes: bool, log_of: Option<String>) -> Frames {
    stream::unfold(Some((pieces, limit)), move |rest| {
        let log_of = log_of.clone();
        async move {
            let (mut pieces, left) = rest?;
            let end = match pieces.next().await {
                Some(Piece::Chunk(chunk)) => match left.checked_sub(chunk.len()) {
                    Some(left) => return Some((frames::chunk(chunk), Some((pieces, left)))),
                    None => End { error: Some(Broken::too_large(limit)), log: Vec::new() },
                },
                Some(Piece::End(end)) => end,
                None => return Some((Err(Cut), None)),
            };
            let (error_code, error_details) = end.error.map(|error| (error.code, error.details)).unzip();
            let log_result = log_of.map(|id| tail(end.log, &id));
            completes.then(|| (frames::complete(&Complete { error_code, error_details, log_result }), None))
        }
    })
    .boxed()
}

/// The same frames with what goes wrong with them.
fn wrong(frames: Frames, fault: Option<Fault>) -> Frames {
    match fault {
        Some(Fault::CutMid) => {
            frames.take(1).map(|frame| frame.map(|frame| frame.slice(..frame.len() / 2))).chain(cut()).boxed()
        }
        Some(Fault::CutStream(bytes)) => frames
            .scan(bytes, |left, frame| {
                let frame = frame.map(|frame| frame.slice(..frame.len().min(*left)));
                *left -= frame.as_ref().map_or(0, Bytes::len);
                std::future::ready(Some((frame, *left)))
            })
            .flat_map(|(frame, left)| {
                let frame = stream::iter([frame]);
                if left == 0 { frame.chain(cut()).boxed() } else { frame.boxed() }
            })
            .boxed(),
        Some(Fault::Stall(time)) => frames
            .enumerate()
            .then(move |(number, frame)| async move {
                if number == 1 {
                    tokio::time::sleep(time).await;
                }
                frame
            })
            .boxed(),
        Some(Fault::Garbage) => frames
            .enumerate()
            .map(|(number, frame)| frame.map(|frame| if number == 1 { frames::corrupt(&frame) } else { frame }))
            .boxed(),
        Some(Fault::Exception) => frames
            .take(1)
            .chain(stream::once(async { frames::exception("ServiceException", "Service error.") }))
            .boxed(),
        _ => frames,
    }
}

/// The connection is cut, after what has been written is sent.
fn cut() -> Frames {
    stream::once(async {
        // The server sends what it has whenever it has to wait.
        tokio::task::yield_now().await;
        Err(Cut)
    })
    .boxed()
}

impl Streams {
    pub(super) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self, function: &str) -> u64 {
        locked(&self.written).get(function).copied().unwrap_or_default()
    }

    /// The same output, counted.
    pub(super) fn count(self: &Arc<Self>, function: &str, output: Output) -> Output {
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut counted = Counted { streams: Arc::clone(self), function: function.to_owned(), ended: false };
        Output { pieces: output.pieces.inspect(move |piece| counted.note(piece)).boxed(), ..output }
    }
}

impl Counted {
    fn note(&mut self, piece: &Piece) {
        match piece {
            Piece::Chunk(chunk) => {
                let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                *locked(&self.streams.written).entry(self.function.clone()).or_default() += bytes;
            }
            Piece::End(_) => self.ended = true,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.ended {
            self.streams.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::{
        super::frames::tests::{decode, header},
        *,
    };

    fn output(chunks: &[&'static str]) -> Output {
        let end = Piece::End(End { error: None, log: b"hello\n".to_vec() });
        let pieces: Vec<_> = chunks.iter().map(|chunk| Piece::Chunk(Bytes::from_static(chunk.as_bytes()))).collect();
        Output { content_type: None, pieces: stream::iter(pieces.into_iter().chain([end])).boxed() }
    }

    /// What a client reads, and whether the connection is cut then.
    async fn read(frames: Frames) -> (Vec<u8>, bool) {
        let frames: Vec<_> = frames.collect().await;
        let cut = frames.iter().any(Result::is_err);
        (frames.into_iter().flatten().flatten().collect(), cut)
    }

    #[tokio::test]
    async fn the_answer_is_an_event_stream() {
        let head = Head { id: "r-1", version: "7", tail: true, fault: None };
        let mut response = answer(output(&["one", "two"]), &head).unwrap();
        for (name, value) in [
            ("content-type", "application/vnd.amazon.eventstream"),
            ("x-amzn-remapped-content-type", "application/octet-stream"),
            ("x-amzn-requestid", "r-1"),
            ("x-amz-executed-version", "7"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        let body = response.body_mut().collect().await.unwrap().to_bytes();
        let messages = decode(&body).unwrap();
        let kinds: Vec<_> = messages.iter().map(|message| header(message, ":event-type")).collect();
        assert_eq!(kinds, ["PayloadChunk", "PayloadChunk", "InvokeComplete"]);
        assert_eq!((&messages[0].payload()[..], &messages[1].payload()[..]), (&b"one"[..], &b"two"[..]));
        let complete: serde_json::Value = serde_json::from_slice(messages[2].payload()).unwrap();
        assert_eq!(complete, serde_json::json!({"LogResult": tail(b"hello\n".to_vec(), "r-1")}));
    }

    #[tokio::test]
    async fn an_output_that_is_too_large_ends_with_an_error() {
        let (body, cut) = read(framed(output(&["12345", "67890", "1"]).pieces, 10, true, None)).await;
        let messages = decode(&body).unwrap();
        assert!(!cut && messages.len() == 3);
        assert!(messages[2].payload().starts_with(br#"{"ErrorCode":"Function.ResponseSizeTooLarge""#));
        let (body, _) = read(framed(output(&["12345", "67890"]).pieces, 10, true, None)).await;
        assert_eq!(decode(&body).unwrap()[2].payload(), "{}");
    }

    #[tokio::test]
    async fn a_function_that_is_taken_away_cuts_the_connection() {
        let pieces = stream::iter([Piece::Chunk("one".into())]).boxed();
        let (body, cut) = read(framed(pieces, 10, true, None)).await;
        assert!(cut && decode(&body).unwrap().len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_goes_wrong_in_its_own_way() {
        let long = Duration::from_secs(60);
        // A frame has 102 bytes more than the chunk in it.
        for (what, fault, events, damage, is_cut) in [
            ("cut in the first event", Fault::CutMid, 0, Some("it breaks off"), true),
            ("cut at once", Fault::CutStream(0), 0, None, true),
            ("cut in the first event", Fault::CutStream(100), 0, Some("it breaks off"), true),
            ("cut in the second event", Fault::CutStream(150), 1, Some("it breaks off"), true),
            ("not cut, as it ends before", Fault::CutStream(10_000), 3, None, false),
            ("late", Fault::Stall(long), 3, None, false),
            ("garbage", Fault::Garbage, 1, Some("checksum"), false),
            ("an exception", Fault::Exception, 2, None, false),
            ("no end", Fault::NoComplete, 2, None, false),
        ] {
            let begun = tokio::time::Instant::now();
            let completes = !matches!(fault, Fault::NoComplete | Fault::Exception);
            let frames = framed(output(&["one", "two"]).pieces, 100, completes, None);
            let (body, cut) = read(wrong(frames, Some(fault))).await;
            assert_eq!(cut, is_cut, "{what}");
            let (whole, rest) = body.split_at(whole_frames(&body, events));
            assert_eq!(decode(whole).unwrap().len(), events, "{what}");
            match (decode(rest), damage) {
                (Ok(messages), None) => assert!(messages.is_empty(), "{what}: {messages:?}"),
                (Err(error), Some(damage)) => assert!(error.contains(damage), "{what}: {error}"),
                (other, _) => panic!("{what}: {other:?}"),
            }
            assert_eq!(begun.elapsed(), if fault == Fault::Stall(long) { long } else { Duration::ZERO }, "{what}");
        }
    }

    /// The length of so many frames, by what they say of it.
    fn whole_frames(body: &[u8], count: usize) -> usize {
        (0..count)
            .fold(0, |at, _| at + usize::try_from(u32::from_be_bytes(body[at..at + 4].try_into().unwrap())).unwrap())
    }

    #[tokio::test]
    async fn streams_are_counted_until_they_end_or_are_dropped() {
        let streams = Arc::new(Streams::default());
        let mut whole = streams.count("f", output(&["one", "two"])).pieces;
        let mut dropped = streams.count("f", output(&["one", "two"])).pieces;
        assert_eq!((streams.open(), streams.written("f")), (2, 0), "nothing is written that nobody reads");
        dropped.next().await.unwrap();
        assert_eq!(streams.written("f"), 3);
        drop(dropped);
        assert_eq!((streams.open(), streams.abandoned()), (1, 1));
        while whole.next().await.is_some() {}
        drop(whole);
        assert_eq!((streams.open(), streams.abandoned(), streams.written("f")), (0, 1, 9));
    }
}
