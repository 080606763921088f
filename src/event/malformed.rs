//! Why a function's output is no reply.

use std::{error, fmt};

/// Why a function's output is no reply, for the operator: it names fields and never shows what was in
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The output is not UTF-8.
    NotUtf8,
    /// The output is larger than the front door takes.
    TooLarge,
    /// The output is not JSON, or not one value.
    NotJson,
    /// The output is JSON but no object.
    NotObject,
    /// A key that the front door refuses.
    UnknownField,
    /// There is an error in the place of a response.
    ErrorReturned,
    /// There is no status.
    StatusMissing,
    /// The status is no whole number from 200 to 599.
    StatusInvalid,
    /// This map of headers is none, or has values of a type that is none of a header.
    HeadersType(&'static str),
    /// The cookies are no list of strings.
    CookiesType,
    /// A header's name is none in HTTP.
    HeaderName,
    /// A header's value is none in HTTP.
    HeaderValue,
    /// The body is no string.
    BodyType,
    /// The flag that says whether the body is base64 is no bool.
    Base64Flag,
    /// The body is not base64 although it should be.
    Base64,
    /// A streamed output is neither a response nor begins with a prelude.
    Unbegun,
    /// A callout's path is none.
    Path,
    /// An authorizer's answer is none.
    NotAuthorizer,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("the output is not UTF-8"),
            Self::TooLarge => f.write_str("the output has more than the 1 MB that a load balancer takes"),
            Self::NotJson => f.write_str("the output is not JSON"),
            Self::NotObject => f.write_str("the output is no JSON object"),
            Self::UnknownField => f.write_str(
                "the output has a key other than statusCode, headers, multiValueHeaders, body and isBase64Encoded",
            ),
            Self::ErrorReturned => f.write_str("the output has errorMessage but no statusCode"),
            Self::StatusMissing => f.write_str("statusCode is missing"),
            Self::StatusInvalid => f.write_str("statusCode is no whole number from 200 to 599"),
            Self::HeadersType(field @ "multiValueHeaders") => write!(f, "{field} is no object of lists of strings"),
            Self::HeadersType(field) => write!(f, "{field} is no object of strings"),
            Self::CookiesType => f.write_str("cookies is no list of strings"),
            Self::HeaderName => f.write_str("a header has a name that HTTP forbids"),
            Self::HeaderValue => f.write_str("a header has a value that HTTP forbids, such as one with a line break"),
            Self::BodyType => f.write_str("body is no string"),
            Self::Base64Flag => f.write_str("isBase64Encoded is neither true nor false"),
            Self::Base64 => f.write_str("body is not base64 although isBase64Encoded is true"),
            Self::Unbegun => f.write_str(
                "the stream is neither a response nor begins with a prelude: expected JSON, eight NUL bytes and a body",
            ),
            Self::Path => f.write_str("the path is no string that begins with a slash and is a path in HTTP"),
            Self::NotAuthorizer => f.write_str(
                "the output is no authorizer's answer: expected isAuthorized (http-api only) or a policyDocument",
            ),
        }
    }
}

impl error::Error for Malformed {}
