//! Payload format 1.0, which REST APIs and HTTP APIs share but for a handful of values.
//!
//! Source: "Input format of a Lambda function for proxy integration" and "Working with AWS Lambda proxy
//! integrations for HTTP APIs" (API Gateway developer guide), and captures of both.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    authorizer::Authorizer,
    body::Body,
    call::Call,
    fields::Fields,
    json,
    moment::Moment,
    multimap::{All, Last},
    query,
};

/// Where the two kinds of API differ.
pub(super) struct Api<'a> {
    /// HTTP APIs say `1.0`; REST APIs have no version.
    pub(super) version: Option<&'static str>,
    pub(super) fields: Fields<'a>,
    /// The resource's path, such as `/pets/{id}`.
    pub(super) resource: &'a str,
    pub(super) resource_id: Cow<'a, str>,
    /// Only REST APIs have deployments that they tell of.
    pub(super) deployment_id: Option<String>,
    pub(super) stage: &'a str,
    /// The path, still encoded.
    pub(super) path: Cow<'a, str>,
    /// The path in the request context.
    pub(super) context_path: Cow<'a, str>,
    pub(super) path_parameters: BTreeMap<&'a str, Cow<'a, str>>,
    pub(super) body: Option<Body<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'e, 'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    resource: &'e str,
    path: &'e str,
    http_method: &'e str,
    headers: Option<Last<'e, 'a>>,
    multi_value_headers: Option<All<'e, 'a>>,
    query_string_parameters: Option<Last<'e, 'a>>,
    multi_value_query_string_parameters: Option<All<'e, 'a>>,
    path_parameters: Option<&'e BTreeMap<&'a str, Cow<'a, str>>>,
    stage_variables: Option<&'e BTreeMap<String, String>>,
    request_context: Context<'e>,
    body: Option<Body<'e>>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'e> {
    account_id: &'e str,
    api_id: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment_id: Option<&'e str>,
    domain_name: &'e str,
    domain_prefix: &'e str,
    extended_request_id: &'e str,
    http_method: &'e str,
    identity: Identity<'e>,
    path: &'e str,
    protocol: &'e str,
    request_id: &'e str,
    request_time: String,
    request_time_epoch: u64,
    resource_id: &'e str,
    resource_path: &'e str,
    stage: &'e str,
}

/// A value that is there and perhaps null.
type Nullable<'e> = Option<&'e RawValue>;

/// Who called. What only IAM or Cognito could tell is null, as AWS has it without them; an API key is not there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'e> {
    access_key: Nullable<'e>,
    account_id: Nullable<'e>,
    caller: Nullable<'e>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cognito_amr: Option<Nullable<'e>>,
    cognito_authentication_provider: Nullable<'e>,
    cognito_authentication_type: Nullable<'e>,
    cognito_identity_id: Nullable<'e>,
    cognito_identity_pool_id: Nullable<'e>,
    principal_org_id: Nullable<'e>,
    source_ip: &'e str,
    user: Nullable<'e>,
    user_agent: Option<&'e str>,
    user_arn: Nullable<'e>,
}

pub(super) fn encode<'a>(call: &'a Call, api: Api<'a>) -> Bytes {
    let is_rest = api.version.is_none();
    let user_agent = api.fields.get("user-agent").map(str::to_owned);
    // A REST API has null for what is missing, an HTTP API an empty text.
    let user_agent = if is_rest { user_agent } else { user_agent.or_else(|| Some(String::new())) };
    let headers = api.fields.into_map();
    let parameters = query::decoded(&call.query);
    let moment = Moment::of(call.received);
    let authorizer = Authorizer::of(call.authorizer.as_deref());
    let iam = authorizer.and_then(Authorizer::iam).unwrap_or_default();
    let cognito = iam.cognito_identity.unwrap_or_default();
    let event = Event {
        version: api.version,
        resource: api.resource,
        path: &api.path,
        http_method: &call.method,
        headers: (!headers.is_empty()).then_some(Last(&headers)),
        multi_value_headers: (!headers.is_empty()).then_some(All(&headers)),
        query_string_parameters: (!parameters.is_empty()).then_some(Last(&parameters)),
        multi_value_query_string_parameters: (!parameters.is_empty()).then_some(All(&parameters)),
        path_parameters: (!api.path_parameters.is_empty()).then_some(&api.path_parameters),
        stage_variables: (!call.stage_variables.is_empty()).then_some(&call.stage_variables),
        request_context: Context {
            account_id: call.account(),
            api_id: call.api(),
            authorizer: authorizer.and_then(Authorizer::flat),
            deployment_id: api.deployment_id.as_deref(),
            domain_name: call.domain(),
            domain_prefix: call.domain_prefix(),
            extended_request_id: &call.request_id,
            http_method: &call.method,
            identity: Identity {
                access_key: iam.access_key,
                account_id: iam.account_id,
                caller: iam.caller_id,
                // This one is HTTP APIs' own.
                cognito_amr: (!is_rest).then_some(cognito.amr),
                cognito_authentication_provider: None,
                cognito_authentication_type: None,
                cognito_identity_id: cognito.identity_id,
                cognito_identity_pool_id: cognito.identity_pool_id,
                principal_org_id: iam.principal_org_id,
                source_ip: &call.source_ip,
                user: iam.user_id,
                user_agent: user_agent.as_deref(),
                user_arn: iam.user_arn,
            },
            path: &api.context_path,
            protocol: call.protocol(),
            request_id: &call.request_id,
            request_time: moment.to_string(),
            request_time_epoch: moment.millis(),
            resource_id: &api.resource_id,
            resource_path: api.resource,
            stage: api.stage,
        },
        body: api.body,
        is_base64_encoded: api.body.is_some_and(|body| body.is_base64()),
    };
    json::write(call, api.body, &event)
}
