//! Payload format 2.0, which HTTP APIs and function URLs share but for a handful of values.
//!
//! Source: "Working with AWS Lambda proxy integrations for HTTP APIs" (API Gateway developer guide),
//! "Invoking Lambda function URLs" (Lambda developer guide), and captures of both.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde::Serialize;

use super::{
    Malformed, Reply,
    authorizer::{Authorizer, Keyed},
    body::{Body, is_text},
    call::Call,
    envelope::{Envelope, Output},
    fields::Fields,
    head::{Head, Merge, Values},
    json,
    moment::Moment,
    multimap::Joined,
    query,
};

/// Where the two front doors differ.
pub(super) struct FrontDoor<'a> {
    pub(super) fields: Fields<'a>,
    pub(super) cookie: Option<Cow<'a, str>>,
    /// The path, decoded.
    pub(super) path: Cow<'a, str>,
    /// `rawPath` where it is not the decoded one.
    pub(super) raw_path: Option<&'a str>,
    pub(super) route_key: Cow<'a, str>,
    pub(super) stage: &'a str,
    pub(super) account_id: &'a str,
    pub(super) authorizer: Option<Authorizer<'a>>,
    pub(super) path_parameters: BTreeMap<&'a str, Cow<'a, str>>,
    pub(super) stage_variables: Option<&'a BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'e, 'a> {
    version: &'static str,
    route_key: &'e str,
    raw_path: &'e str,
    raw_query_string: &'e str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<&'e str>,
    headers: Joined<'e, 'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<Joined<'e, 'a>>,
    request_context: Context<'e>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'e>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    path_parameters: &'e BTreeMap<&'a str, Cow<'a, str>>,
    is_base64_encoded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage_variables: Option<&'e BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'e> {
    account_id: &'e str,
    api_id: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<Keyed<'e>>,
    domain_name: &'e str,
    domain_prefix: &'e str,
    http: Http<'e>,
    request_id: &'e str,
    route_key: &'e str,
    stage: &'e str,
    time: String,
    time_epoch: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'e> {
    method: &'e str,
    path: &'e str,
    protocol: &'e str,
    source_ip: &'e str,
    user_agent: &'e str,
}

pub(super) fn encode<'a>(call: &'a Call, door: FrontDoor<'a>) -> Bytes {
    let text = is_text(door.fields.get("content-type"));
    let body = (!call.body.is_empty()).then(|| Body::new(&call.body, text));
    let user_agent = door.fields.get("user-agent").unwrap_or_default().to_owned();
    let headers = door.fields.into_map();
    let parameters = query::decoded(&call.query);
    let moment = Moment::of(call.received);
    let event = Event {
        version: "2.0",
        route_key: &door.route_key,
        raw_path: door.raw_path.unwrap_or(&door.path),
        raw_query_string: &call.query,
        cookies: door
            .cookie
            .iter()
            .flat_map(|cookie| cookie.split(';'))
            .map(str::trim)
            .filter(|cookie| !cookie.is_empty())
            .collect(),
        headers: Joined(&headers),
        query_string_parameters: (!parameters.is_empty()).then_some(Joined(&parameters)),
        request_context: Context {
            account_id: door.account_id,
            api_id: call.api(),
            authorizer: door.authorizer.map(Authorizer::keyed),
            domain_name: call.domain(),
            domain_prefix: call.domain_prefix(),
            http: Http {
                method: &call.method,
                path: &door.path,
                protocol: call.protocol(),
                source_ip: &call.source_ip,
                user_agent: &user_agent,
            },
            request_id: &call.request_id,
            route_key: &door.route_key,
            stage: door.stage,
            time: moment.to_string(),
            time_epoch: moment.millis(),
        },
        body,
        path_parameters: &door.path_parameters,
        is_base64_encoded: body.is_some_and(|body| body.is_base64()),
        stage_variables: door.stage_variables,
    };
    json::write(call, body, &event)
}

/// An output that may be more than a body: only an object can be a response, and only a string has quotes to
/// lose, so nothing else is read. What is not JSON is none either.
pub(super) fn read(output: &Bytes) -> Option<Output<'_>> {
    let first = output.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'{' | b'"')).then(|| Output::read(output).ok()).flatten()
}

/// The reply to an output without a status.
pub(super) fn inferred(body: Bytes) -> Reply {
    Head::new(200).reply(body, "application/json")
}

/// Status and headers; some pass under another name, see [`Merge::remapping`].
pub(super) fn head(status: u16, envelope: &Envelope<'_>, remapped: &'static [&'static str]) -> Result<Head, Malformed> {
    let mut merge = Merge::new(Values::ScalarOrNull).remapping(remapped);
    merge.single_values(envelope.headers)?;
    merge.cookies(envelope.cookies)?;
    merge.into_head(status)
}
