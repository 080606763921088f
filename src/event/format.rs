//! The formats by name, and the way from each to its room.

use std::{error, fmt, str::FromStr};

use bytes::Bytes;

use super::{
    Call, Failure, Front, Head, Malformed, Marks, Opening, Reply, alb, envelope::Output, envoy, function_url, http_api,
    http_api_v1, kong, kong_gateway, raw, rest_api, v2,
};

/// How an HTTP call becomes an event and an output becomes a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// No envelope: the body is the event, the output is the body.
    #[default]
    Raw,
    /// A REST API of API Gateway: payload format 1.0.
    RestApi,
    /// An HTTP API of API Gateway with payload format 1.0.
    HttpApiV1,
    /// An HTTP API of API Gateway with payload format 2.0.
    HttpApi,
    /// A Lambda function URL.
    FunctionUrl,
    /// An Application Load Balancer.
    Alb,
    /// An Application Load Balancer with multi-value headers enabled.
    AlbMultiValue,
    /// Envoy's `aws_lambda` filter.
    Envoy,
    /// Kong's `aws-lambda` plugin, forwarding method, headers, URI and body.
    Kong,
    /// Kong's `aws-lambda` plugin with `awsgateway_compatible`.
    KongGateway,
}

/// Why a call cannot become an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unencodable {
    /// Without an envelope the body is the event, and Lambda takes JSON only.
    NotJson,
    /// The front door takes no such body, although Lambda may.
    TooLarge {
        /// The most bytes that it takes.
        most: usize,
    },
}

impl fmt::Display for Unencodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => f.write_str("the body is not JSON, which it must be in the format `raw`"),
            Self::TooLarge { most } => {
                write!(f, "the body has more than {most} bytes, as many as a load balancer takes")
            }
        }
    }
}

impl error::Error for Unencodable {}

/// A name that is no format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat;

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Format::ALL.map(Format::as_str).join(", ");
        write!(f, "is no event format; the formats are {names}")
    }
}

impl error::Error for UnknownFormat {}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.as_str() == name).ok_or(UnknownFormat)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 10] = [
        Self::Raw,
        Self::RestApi,
        Self::HttpApiV1,
        Self::HttpApi,
        Self::FunctionUrl,
        Self::Alb,
        Self::AlbMultiValue,
        Self::Envoy,
        Self::Kong,
        Self::KongGateway,
    ];

    /// The name in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RestApi => "rest-api",
            Self::HttpApiV1 => "http-api-v1",
            Self::HttpApi => "http-api",
            Self::FunctionUrl => "function-url",
            Self::Alb => "alb",
            Self::AlbMultiValue => "alb-multi-value",
            Self::Envoy => "envoy",
            Self::Kong => "kong",
            Self::KongGateway => "kong-gateway",
        }
    }

    /// The HTTP call as the event that the front door would send. Only `raw` and load balancers refuse a body.
    pub fn encode(self, call: &Call, front: Front<'_>) -> Result<Bytes, Unencodable> {
        Ok(match self {
            Self::Raw => raw::encode(call)?,
            Self::RestApi => rest_api::encode(call),
            Self::HttpApiV1 => http_api_v1::encode(call),
            Self::HttpApi => http_api::encode(call),
            Self::FunctionUrl => function_url::encode(call),
            Self::Alb => alb::encode(call, front, alb::Mode::Single)?,
            Self::AlbMultiValue => alb::encode(call, front, alb::Mode::Multi)?,
            Self::Envoy => envoy::encode(call),
            Self::Kong => kong::encode(call),
            Self::KongGateway => kong_gateway::encode(call),
        })
    }

    /// Whether the front door tells the function in the event which trace the call belongs to.
    pub fn tells_trace(self) -> bool {
        match self {
            Self::RestApi | Self::HttpApiV1 | Self::HttpApi | Self::FunctionUrl | Self::Alb | Self::AlbMultiValue => {
                true
            }
            Self::Raw | Self::Envoy | Self::Kong | Self::KongGateway => false,
        }
    }

    /// What the front door writes into the function's replies to this call.
    pub fn marks(self, call: &Call) -> Marks {
        match self {
            Self::RestApi => rest_api::marks(call),
            Self::HttpApiV1 | Self::HttpApi => http_api::marks(call),
            Self::FunctionUrl => function_url::marks(call),
            Self::Raw | Self::Alb | Self::AlbMultiValue | Self::Envoy | Self::Kong | Self::KongGateway => {
                Marks::default()
            }
        }
    }

    /// The function's output as the reply that the front door would give. Where that would be an error of
    /// its own, [`refusal`](Self::refusal) with [`Failure::Malformed`] gives it.
    ///
    /// A function that streams writes its prelude also where its answer is wanted as a whole.
    pub fn decode(self, output: Bytes) -> Result<Reply, Malformed> {
        // No JSON has a NUL byte.
        if self != Self::Raw && output.contains(&0) {
            return Opening::whole(self, output);
        }
        match self {
            Self::Raw => Ok(raw::decode(output)),
            Self::RestApi => rest_api::decode(&output),
            Self::HttpApiV1 => http_api_v1::decode(&output),
            Self::HttpApi => http_api::decode(&output),
            Self::FunctionUrl => function_url::decode(&output),
            Self::Alb => alb::decode(&output, alb::Mode::Single),
            Self::AlbMultiValue => alb::decode(&output, alb::Mode::Multi),
            Self::Envoy => envoy::decode(&output),
            Self::Kong | Self::KongGateway => kong::decode(&output),
        }
    }

    /// Status and headers of a streamed response, from the JSON in front of its body. A prelude without a
    /// status means 200.
    pub fn prelude(self, json: &[u8]) -> Result<Head, Malformed> {
        let envelope = match self {
            Self::Envoy => Output::read_proto(json),
            _ => Output::read(json),
        }?
        .object()?;
        let status = match (self, envelope.status) {
            (Self::Envoy, _) => envoy::status(&envelope)?,
            (_, None) => 200,
            (_, Some(_)) => envelope.status()?,
        };
        match self {
            Self::Raw | Self::HttpApi => v2::head(status, &envelope, &[]),
            Self::FunctionUrl => function_url::head(status, &envelope),
            Self::RestApi => rest_api::head(status, &envelope),
            Self::HttpApiV1 => http_api_v1::head(status, &envelope),
            Self::Alb => alb::head(status, &envelope, alb::Mode::Single),
            Self::AlbMultiValue => alb::head(status, &envelope, alb::Mode::Multi),
            Self::Envoy => envoy::head(status, &envelope),
            Self::Kong | Self::KongGateway => kong::head(status, &envelope),
        }
    }

    /// The front door's own answer where the function gave none that it could use.
    pub fn refusal(self, failure: Failure, request_id: &str) -> Reply {
        match self {
            Self::Raw => raw::refusal(failure, request_id),
            Self::RestApi => rest_api::refusal(request_id),
            Self::HttpApiV1 | Self::HttpApi => http_api::refusal(request_id),
            Self::FunctionUrl => function_url::refusal(request_id),
            Self::Alb | Self::AlbMultiValue => alb::refusal(),
            Self::Envoy => envoy::refusal(),
            Self::Kong | Self::KongGateway => kong::refusal(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_by_their_names() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "http-api-v2".parse::<Format>().unwrap_err().to_string();
        assert!(error.starts_with("is no event format; the formats are raw, rest-api, "), "{error}");
    }

    #[test]
    fn no_refusal_is_a_success_and_each_knows_its_length() {
        for format in Format::ALL {
            for failure in [Failure::Function, Failure::Malformed] {
                let reply = format.refusal(failure, "id-1");
                assert!((500..600).contains(&reply.status), "{format} {failure:?}");
                assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()), "{format}");
            }
        }
    }

    #[test]
    fn a_prelude_has_status_headers_and_cookies() {
        let json =
            br#"{"statusCode":201,"headers":{"Content-Type":"text/html","Content-Length":"3"},"cookies":["a=1"]}"#;
        let html = ("Content-Type".to_owned(), "text/html".to_owned());
        let cookie = ("set-cookie".to_owned(), "a=1".to_owned());
        let length = ("x-amzn-Remapped-Content-Length".to_owned(), "3".to_owned());
        for (format, headers) in [
            (Format::RestApi, vec![html.clone(), length, cookie.clone()]),
            (Format::HttpApi, vec![html.clone(), cookie.clone()]),
            (Format::FunctionUrl, vec![html, cookie]),
        ] {
            assert_eq!(format.prelude(json), Ok(Head { status: 201, headers }), "{format}");
        }
        for format in Format::ALL {
            assert_eq!(format.prelude(b"{}"), Ok(Head { status: 200, headers: vec![] }), "{format}");
            assert_eq!(format.prelude(br#"{"statusCode":0}"#), Err(Malformed::StatusInvalid), "{format}");
            assert_eq!(format.prelude(b"[]"), Err(Malformed::NotObject), "{format}");
        }
    }
}
