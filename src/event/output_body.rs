//! The body of a function's response.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    Malformed,
    envelope::{Envelope, is_null, share, text as string},
};

/// Base64 whose padding may be missing; line breaks, as in mails, it may not have (ALB is reported to refuse them).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The body, which must be text, decoded if it is base64. It shares the output's memory unless it has
/// to be decoded or has escapes.
pub(super) fn text(output: &Bytes, envelope: &Envelope<'_>) -> Result<Bytes, Malformed> {
    body(output, envelope, |_| Err(Malformed::BodyType))
}

/// The body as above, but null is no text either.
pub(super) fn text_not_null(output: &Bytes, envelope: &Envelope<'_>) -> Result<Bytes, Malformed> {
    if is_null(envelope.body) { Err(Malformed::BodyType) } else { text(output, envelope) }
}

/// The body as above, but a body that is not text is its JSON.
pub(super) fn text_or_json(output: &Bytes, envelope: &Envelope<'_>) -> Result<Bytes, Malformed> {
    body(output, envelope, |json| Ok(share(output, json.get().into())))
}

fn body<'a>(
    output: &Bytes,
    envelope: &Envelope<'a>,
    other: impl FnOnce(&'a RawValue) -> Result<Bytes, Malformed>,
) -> Result<Bytes, Malformed> {
    let is_base64 = envelope.is_base64()?;
    let Some(json) = envelope.body.filter(|json| json.get() != "null") else {
        return Ok(Bytes::new());
    };
    if !json.get().starts_with('"') {
        return other(json);
    }
    let text = string(json).ok_or(Malformed::BodyType)?;
    if is_base64 {
        let decoded = BASE64.decode(&*text).map_err(|_| Malformed::Base64)?;
        Ok(Bytes::from(decoded))
    } else {
        Ok(share(output, text))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::envelope::Output, *};

    #[test]
    fn bodies() {
        for (output, expected, why) in [
            (r#"{"body":"a\"b"}"#, Ok(&b"a\"b"[..]), "escapes"),
            (r#"{"body":"\ud83d\ude00"}"#, Ok("😀".as_bytes()), "a surrogate pair"),
            (r#"{"body":"\ud83d"}"#, Err(Malformed::BodyType), "half of a pair is no text"),
            (r#"{"body":"YQ==","isBase64Encoded":true}"#, Ok(b"a"), "base64"),
            (r#"{"body":"YQ","isBase64Encoded":true}"#, Ok(b"a"), "base64 without padding"),
            (r#"{"body":"\u0059Q==","isBase64Encoded":true}"#, Ok(b"a"), "base64 with an escape"),
            (r#"{"body":"YQ=","isBase64Encoded":true}"#, Ok(b"a"), "base64 with half of its padding"),
            (r#"{"body":"-_8=","isBase64Encoded":true}"#, Err(Malformed::Base64), "the URL alphabet"),
            (r#"{"body":"YQ==","isBase64Encoded":false}"#, Ok(b"YQ=="), "not base64"),
            (r#"{"body":"YQ==","isBase64Encoded":null}"#, Ok(b"YQ=="), "null is no"),
            (r#"{"body":"","isBase64Encoded":true}"#, Ok(b""), "nothing"),
            (r#"{"isBase64Encoded":1}"#, Err(Malformed::Base64Flag), "a number is no flag"),
            (r#"{"body":3}"#, Err(Malformed::BodyType), "a number is no text"),
        ] {
            let output = Bytes::from(output.to_owned());
            let envelope = Output::read(&output).unwrap().object().unwrap();
            assert_eq!(text(&output, &envelope).as_deref(), expected.as_ref().copied(), "{why}");
        }
    }
}
