//! HTTP calls become function events, and functions' outputs become HTTP replies. Pure functions, a format a file.

mod raw;

use std::{collections::BTreeMap, fmt, str::FromStr, time::SystemTime};

use bytes::Bytes;
use serde_json::value::RawValue;

/// An HTTP call as the gateway received it; an empty text means that the gateway did not say.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The path as received, without the query.
    pub path: String,
    /// The query as received, without the question mark.
    pub query: String,
    /// The headers in their order, repeats kept.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The caller's address.
    pub source_ip: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and perhaps port.
    pub authority: String,
    /// Such as `HTTP/1.1`.
    pub protocol: String,
    /// The route that matched.
    pub route: String,
    /// The deployment stage.
    pub stage: String,
    /// The route's parameters.
    pub path_parameters: BTreeMap<String, String>,
    /// The stage's variables.
    pub stage_variables: BTreeMap<String, String>,
    /// The gateway's id of this call.
    pub request_id: String,
    /// What the gateway's authorizer found out about the caller, as JSON.
    pub authorizer: Option<Box<RawValue>>,
    /// The AWS account that the event names.
    pub account_id: String,
    /// The API that the event names.
    pub api_id: String,
    /// When the call was received.
    pub received: SystemTime,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// What an HTTP call is made into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The body is the event, the output is the body.
    #[default]
    Raw,
}

/// No format has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFormat;

impl Format {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
        }
    }

    /// The event for a call.
    pub fn encode(self, call: &Call) -> Bytes {
        match self {
            Self::Raw => raw::encode(call),
        }
    }

    /// The answer for a function's output.
    pub fn decode(self, output: Bytes) -> Reply {
        match self {
            Self::Raw => raw::decode(output),
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "raw" => Ok(Self::Raw),
            _ => Err(UnknownFormat),
        }
    }
}

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not a format of events: expected `raw`")
    }
}

impl std::error::Error for UnknownFormat {}
