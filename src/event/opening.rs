//! The beginning of a streamed response: where status and headers end and the body begins.
//!
//! A function that streams writes the prelude, JSON with status and headers, then eight NUL bytes, then the body, and
//! any of it may come in any piece (Lambda developer guide, "Response streaming for Lambda functions"; API Gateway
//! developer guide, "Stream the integration response"). One that does not stream writes the response of its format, which
//! is told from a prelude only by its end: JSON has no NUL byte.

use bytes::{Bytes, BytesMut};

use super::{Format, Head, Malformed, Reply};

/// What stands between prelude and body.
const DELIMITER: [u8; 8] = [0; 8];
/// The largest response of a function that does not stream, 6 MB, and thus the most that is held back.
const MOST: usize = 6 * 1024 * 1024;
/// The type of a body whose function named none.
const UNTYPED: &str = "application/octet-stream";
/// The longest number or literal that is waited for.
const LONGEST_WORD: usize = 32;
/// The type that says that there is a prelude, and nothing of the body.
const INTEGRATION: &str = "application/vnd.awslambda.http-integration-response";

/// What has come of a response that has not begun.
#[derive(Debug)]
pub struct Opening {
    format: Format,
    content_type: Option<String>,
    held: BytesMut,
    /// How much of it has no NUL byte.
    looked: usize,
}

impl Opening {
    /// For a response in a format; `content_type` is what the function calls its stream.
    pub fn new(format: Format, content_type: Option<String>) -> Self {
        let content_type = content_type.filter(|given| given != INTEGRATION);
        Self { format, content_type, held: BytesMut::new(), looked: 0 }
    }

    /// Takes a piece. Once the response has begun, gives its head and what there is of its body.
    ///
    /// # Errors
    /// If what has come cannot become a response.
    pub fn push(&mut self, piece: Bytes) -> Result<Option<(Head, Bytes)>, Malformed> {
        if self.format == Format::Raw {
            // As of a whole output, the type says whether it is JSON; of one in pieces the first must tell.
            let head = self.typed(self.format.decode(piece.clone())?.header("content-type"));
            return Ok(Some((head, piece)));
        }
        self.held.extend_from_slice(&piece);
        if self.is_bare() {
            return Ok(Some(self.bare()));
        }
        let Some(at) = self.held.iter().skip(self.looked).position(|byte| *byte == 0) else {
            self.looked = self.held.len();
            return match self.held.len() {
                // No response of a function that does not stream is so large.
                more if more > MOST && self.takes_bare() => Ok(Some(self.bare())),
                more if more > MOST => Err(Malformed::Unbegun),
                _ => Ok(None),
            };
        };
        let at = self.looked + at;
        self.looked = at;
        let behind = self.held.get(at..).unwrap_or_default();
        let delimited = behind.len().min(DELIMITER.len());
        if behind.get(..delimited) != DELIMITER.get(..delimited) {
            return if self.takes_bare() { Ok(Some(self.bare())) } else { Err(Malformed::Unbegun) };
        }
        if delimited < DELIMITER.len() {
            return Ok(None);
        }
        let head = self.format.prelude(self.held.get(..at).unwrap_or_default())?;
        let body = self.held.split_off(at + DELIMITER.len()).freeze();
        self.held.clear();
        Ok(Some((self.complete(head), body)))
    }

    /// All that has come, where the function ended before a response began: it is the whole output.
    pub fn end(self) -> Bytes {
        self.held.freeze()
    }

    /// The reply to an output that is there as a whole, and has a NUL byte.
    pub(super) fn whole(format: Format, output: Bytes) -> Result<Reply, Malformed> {
        match Self::new(format, None).push(output)? {
            Some((head, body)) => Ok(head.reply(body, UNTYPED)),
            // Half a delimiter is none.
            None => Err(Malformed::Unbegun),
        }
    }

    /// Whether a body may come without a prelude: as function URLs stream what a function writes, whatever it is.
    fn takes_bare(&self) -> bool {
        matches!(self.format, Format::FunctionUrl | Format::HttpApi)
    }

    /// Whether what comes is neither a prelude nor any other JSON.
    fn is_bare(&self) -> bool {
        let begun = self.held.trim_ascii_start();
        let is_json = match begun.first() {
            None | Some(b'{' | b'[' | b'"') => true,
            // So short that it is known at once.
            Some(b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => begun.len() <= LONGEST_WORD && is_word(begun),
            Some(_) => false,
        };
        self.takes_bare() && !is_json
    }

    fn bare(&mut self) -> (Head, Bytes) {
        (self.typed(None), self.held.split().freeze())
    }

    fn typed(&mut self, inferred: Option<&str>) -> Head {
        let own = self.content_type.take().filter(|given| http::HeaderValue::from_str(given).is_ok());
        let content_type = own.as_deref().or(inferred).unwrap_or(UNTYPED);
        Head { status: 200, headers: vec![("content-type".to_owned(), content_type.to_owned())] }
    }

    fn complete(&mut self, mut head: Head) -> Head {
        let typed = head.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !typed && !head.is_bodiless() {
            head.headers.extend(self.typed(None).headers);
        }
        head
    }
}

/// Whether this is, or may become, `true`, `false`, `null` or a number, and nothing else.
fn is_word(begun: &[u8]) -> bool {
    let word = begun.trim_ascii_end();
    let ended = word.len() < begun.len();
    let names = [&b"true"[..], b"false", b"null"];
    names.into_iter().any(|name| word == name || (!ended && name.starts_with(word)))
        || word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of pieces: the head and the whole body, or the output if nothing began.
    fn opened(format: Format, pieces: &[&[u8]]) -> Result<(Option<Head>, Vec<u8>), Malformed> {
        let (mut opening, mut begun, mut body) = (Opening::new(format, None), None, Vec::new());
        for piece in pieces {
            match &begun {
                Some(_) => body.extend_from_slice(piece),
                None => {
                    if let Some((head, first)) = opening.push(Bytes::copy_from_slice(piece))? {
                        begun = Some(head);
                        body.extend_from_slice(&first);
                    }
                }
            }
        }
        Ok(if begun.is_some() { (begun, body) } else { (None, opening.end().to_vec()) })
    }

    const PRELUDE: &[u8] = br#"{"statusCode":201,"headers":{"content-type":"text/html"},"cookies":["a=1"]}"#;

    fn written(body: &[u8]) -> Vec<u8> {
        [PRELUDE, &DELIMITER, body].concat()
    }

    #[test]
    fn what_begins_is_told_from_what_does_not() {
        let untyped = vec![("content-type".to_owned(), UNTYPED.to_owned())];
        let bare = Some(Head { status: 200, headers: untyped });
        for (format, output, expected, why) in [
            (Format::FunctionUrl, &b"hello"[..], bare.clone(), "text is a body"),
            (Format::HttpApi, b"\x89PNG\0", bare.clone(), "so are bytes"),
            (Format::FunctionUrl, b"{\"a\":1}\0\0\x01", bare.clone(), "a NUL that delimits nothing"),
            (Format::FunctionUrl, b"{\"statusCode\":200}", None, "a response of a function that does not stream"),
            (Format::FunctionUrl, b"\"hello\"", None, "so is a string"),
            (Format::FunctionUrl, b"true \n", None, "and a literal"),
            (Format::FunctionUrl, b"-1.5e3", None, "and a number"),
            (Format::FunctionUrl, b"the weather", bare.clone(), "but not text that begins as one"),
            (Format::FunctionUrl, b"nul l", bare.clone(), "nor what is one no more"),
            (Format::FunctionUrl, b"1 hello", bare.clone(), "nor text behind one"),
            (Format::RestApi, b"{\"statusCode\":200,\"body\":\"x\"}", None, "in a REST API too"),
            (Format::Raw, b"hello", bare.clone(), "there is no envelope to wait for"),
            (Format::Raw, b"{\"statusCode\":200}\0\0\0\0\0\0\0\0x", bare, "nor a prelude"),
        ] {
            let (head, body) = opened(format, &[output]).unwrap();
            assert_eq!((head, body.as_slice()), (expected, output), "{format}: {why}");
        }
        let json = opened(Format::Raw, &[b"{\"a\":1}"]).unwrap().0.unwrap();
        assert_eq!(json.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    }

    #[test]
    fn what_can_be_no_response_is_refused() {
        for (output, expected) in [
            (&b"{\"statusCode\":200}\0\0x"[..], Malformed::Unbegun),
            (b"{\"statusCode\":99}\0\0\0\0\0\0\0\0x", Malformed::StatusInvalid),
            (b"{\"statusCode\":200,}\0\0\0\0\0\0\0\0x", Malformed::NotJson),
            (b"\0\0\0\0\0\0\0\0x", Malformed::NotJson),
        ] {
            assert_eq!(opened(Format::RestApi, &[output]), Err(expected), "{output:?}");
        }
        let endless = vec![b' '; MOST + 1];
        assert_eq!(opened(Format::RestApi, &[&endless]), Err(Malformed::Unbegun));
        let (head, body) = opened(Format::FunctionUrl, &[&endless]).unwrap();
        assert!(head.is_some() && body.len() == endless.len(), "a function URL sends it as it is");
    }

    #[test]
    fn a_whole_output_may_have_a_prelude_too() {
        for format in [Format::FunctionUrl, Format::HttpApi, Format::RestApi] {
            let reply = format.decode(written(b"hello").into()).unwrap();
            assert_eq!((reply.status, &reply.body[..]), (201, &b"hello"[..]), "{format}");
            assert_eq!(
                (reply.header("content-length"), reply.header("set-cookie")),
                (Some("5"), Some("a=1")),
                "{format}"
            );
            let half = [PRELUDE, b"\0\0"].concat();
            assert_eq!(format.decode(half.into()), Err(Malformed::Unbegun), "{format}");
        }
    }

    #[test]
    fn the_function_names_the_type_of_what_has_no_prelude() {
        for (given, expected) in [("text/event-stream", "text/event-stream"), (INTEGRATION, UNTYPED), ("a\nb", UNTYPED)]
        {
            let mut opening = Opening::new(Format::FunctionUrl, Some(given.to_owned()));
            let (head, _) = opening.push(Bytes::from_static(b"hello")).unwrap().unwrap();
            assert_eq!(head.headers, [("content-type".to_owned(), expected.to_owned())], "{given}");
        }
    }

    proptest! {
        #[test]
        fn a_prelude_may_be_cut_anywhere(
            body in prop::collection::vec(any::<u8>(), 0..40),
            piece in 1..90usize,
            format in prop::sample::select(vec![Format::FunctionUrl, Format::HttpApi, Format::RestApi]),
        ) {
            let written = written(&body);
            let pieces: Vec<_> = written.chunks(piece).collect();
            let (head, streamed) = opened(format, &pieces).unwrap();
            let head = head.unwrap();
            prop_assert_eq!((head.status, head.headers.len()), (201, 2));
            prop_assert_eq!(streamed, body);
        }

        #[test]
        fn no_output_makes_a_panic_or_loses_a_byte(
            output in prop::collection::vec(prop::sample::select(b"{}\"\0a1 ".to_vec()), 0..40),
            piece in 1..10usize,
        ) {
            let pieces: Vec<_> = output.chunks(piece).collect();
            if let Ok((None, whole)) = opened(Format::FunctionUrl, &pieces) {
                prop_assert_eq!(whole, output);
            }
        }
    }
}
