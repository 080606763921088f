//! Whatever a function returns is a valid reply or malformed, in every format; nothing panics.
#![no_main]

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use lambda_policy::event::{
    Failure, Format,
    fault::Fault,
    picks::Picks,
    rules::{self, Rule},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let output = Bytes::copy_from_slice(data);
    for format in Format::ALL {
        if let Ok(reply) = format.decode(output.clone()) {
            valid(reply.status, &reply.headers);
            let length = reply.body.len().to_string();
            let bodiless = matches!(reply.status, 204 | 304);
            assert!(bodiless || reply.header("content-length") == Some(&*length));
            assert!(!bodiless || reply.body.is_empty());
        }
        if let Ok(head) = format.prelude(&output) {
            valid(head.status, &head.headers);
        }
    }
    for header in ["Handled", "Unhandled"] {
        let fault = Fault::new(header, &output);
        let rule = Rule::new([], 503).expect("503 is a status").body(rules::Body::Payload);
        let front = || Format::RestApi.refusal(Failure::Function, "id");
        assert!(rules::apply(&[rule], &fault, &output, front).is_some());
    }
    let picks = Picks::new([("body", "/body"), ("first", "/0"), ("deep", "/a/b/0/c")]).expect("these are pointers");
    picks.apply(&output);
});

fn valid(status: u16, headers: &[(String, String)]) {
    assert!((200..600).contains(&status));
    for (name, value) in headers {
        assert!(HeaderName::from_bytes(name.as_bytes()).is_ok());
        assert!(HeaderValue::from_bytes(value.as_bytes()).is_ok());
        assert!(!["connection", "transfer-encoding", "upgrade"].iter().any(|hop| name.eq_ignore_ascii_case(hop)));
    }
}
