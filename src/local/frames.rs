//! The event stream of InvokeWithResponseStream: what is written as frames of `application/vnd.amazon.eventstream`.
//!
//! Source: Smithy 2.0, "Amazon Event Stream Specification"; Lambda API reference, InvokeWithResponseStream.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::json;

use super::server::Cut;

/// The content type of the whole.
pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// What the last event says; nothing of it if all went well and nobody asked for the log.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Complete {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_details: Option<String>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_result: Option<String>,
}

/// A part of the function's output, as it is.
pub(super) fn chunk(payload: Bytes) -> Result<Bytes, Cut> {
    frame([(":event-type", "PayloadChunk"), (":content-type", "application/octet-stream")], "event", payload)
}

/// The last event.
pub(super) fn complete(complete: &Complete) -> Result<Bytes, Cut> {
    let payload = serde_json::to_vec(complete).map_err(|_| Cut)?;
    frame([(":event-type", "InvokeComplete"), (":content-type", "application/json")], "event", payload.into())
}

/// An error of the service in the place of an event.
pub(super) fn exception(code: &'static str, message: &str) -> Result<Bytes, Cut> {
    let payload = json!({"Type": "Service", "message": message}).to_string();
    frame([(":exception-type", code), (":content-type", "application/json")], "exception", payload.into())
}

/// The same frame with a checksum that is wrong.
pub(super) fn corrupt(frame: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(&frame[..]);
    if let Some(last) = bytes.last_mut() {
        *last ^= 0xff;
    }
    bytes.freeze()
}

fn frame(headers: [(&'static str, &'static str); 2], kind: &'static str, payload: Bytes) -> Result<Bytes, Cut> {
    let headers = headers.into_iter().chain([(":message-type", kind)]);
    let headers = headers.map(|(name, value)| Header::new(name, HeaderValue::String(value.into()))).collect();
    // The headers take about 90 bytes.
    let mut frame = BytesMut::with_capacity(payload.len() + 128);
    write_message_to(&Message::new_from_parts(headers, payload), &mut frame).map_err(|_| Cut)?;
    Ok(frame.freeze())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};

    use super::*;

    /// Every frame that a body holds; an error if one of them is damaged or the last is not whole.
    pub(in crate::local) fn decode(mut body: &[u8]) -> Result<Vec<Message>, String> {
        let mut decoder = MessageFrameDecoder::new();
        let mut messages = Vec::new();
        while !body.is_empty() {
            match decoder.decode_frame(&mut body).map_err(|error| error.to_string())? {
                DecodedFrame::Complete(message) => messages.push(message),
                DecodedFrame::Incomplete => return Err("it breaks off".to_owned()),
            }
        }
        Ok(messages)
    }

    /// A header's text.
    pub(in crate::local) fn header(message: &Message, name: &str) -> String {
        let header = message.headers().iter().find(|header| header.name().as_str() == name).unwrap();
        header.value().as_string().unwrap().as_str().to_owned()
    }

    #[test]
    fn events_are_framed_as_the_service_model_says() {
        let complete_of =
            Complete { error_code: Some("Broken".into()), error_details: Some("{}".into()), log_result: None };
        for (what, frame, kind, name, content_type, payload) in [
            ("a chunk", chunk("\0\u{1}two".into()), "event", "PayloadChunk", "application/octet-stream", "\0\u{1}two"),
            ("an empty end", complete(&Complete::default()), "event", "InvokeComplete", "application/json", "{}"),
            (
                "an error",
                complete(&complete_of),
                "event",
                "InvokeComplete",
                "application/json",
                r#"{"ErrorCode":"Broken","ErrorDetails":"{}"}"#,
            ),
            (
                "an exception",
                exception("ServiceException", "no"),
                "exception",
                "ServiceException",
                "application/json",
                r#"{"Type":"Service","message":"no"}"#,
            ),
        ] {
            let messages = decode(&frame.unwrap()).unwrap();
            let [message] = &messages[..] else { panic!("{what}: one frame") };
            assert_eq!(header(message, ":message-type"), kind, "{what}");
            assert_eq!(header(message, &format!(":{kind}-type")), name, "{what}");
            assert_eq!(header(message, ":content-type"), content_type, "{what}");
            assert_eq!(message.payload(), payload, "{what}");
        }
    }

    #[test]
    fn a_corrupt_frame_is_found_out_by_its_checksum() {
        let frame = corrupt(&chunk("one".into()).unwrap());
        assert!(decode(&frame).unwrap_err().contains("checksum"));
    }
}
