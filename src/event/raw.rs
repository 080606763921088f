//! `raw`: the body is the event, the output is the body.

use bytes::Bytes;

use super::{Call, Reply};

pub(super) fn encode(call: &Call) -> Bytes {
    call.body.clone()
}

pub(super) fn decode(output: Bytes) -> Reply {
    let json = serde_json::from_slice::<serde::de::IgnoredAny>(&output).is_ok();
    let content_type = if json { "application/json" } else { "application/octet-stream" };
    Reply { status: 200, headers: vec![("content-type".to_owned(), content_type.to_owned())], body: output }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_the_body_and_its_type_is_what_it_is() {
        for (output, content_type) in [("{}", "application/json"), ("hello", "application/octet-stream")] {
            let reply = decode(Bytes::from(output));
            assert_eq!((reply.status, &*reply.headers[0].1, &reply.body[..]), (200, content_type, output.as_bytes()));
        }
    }
}
