//! A Lambda authorizer: the event that asks whether a call may pass, and the answer.
//!
//! Both of API Gateway's formats: the request authorizer of REST APIs (1.0, answered by an IAM policy), and that of HTTP
//! APIs (2.0, answered by yes or no, or by an IAM policy). Source: "Input to an API Gateway Lambda authorizer", "Output
//! from an API Gateway Lambda authorizer", "Control access to HTTP APIs with AWS Lambda authorizers".

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Format, Front, Malformed, Reply,
    call::{Call, or},
    envelope::text,
    iam::Document,
    query,
};

/// How a function decides for a policy's callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorizer {
    /// Which kind of API it thinks it guards.
    pub payload: Payload,
    /// What identifies a caller; who lacks one of them is not let in.
    pub identity: Vec<Source>,
    /// How long an answer holds for the same identity; nothing is kept without one.
    pub ttl: Duration,
    /// Headers for the upstream, each with the key of the answer's context.
    pub headers: Vec<(String, String)>,
}

/// The authorizer's formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// 2.0.
    #[default]
    HttpApi,
    /// 1.0.
    RestApi,
}

/// Where a part of a caller's identity stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A header.
    Header(String),
    /// A parameter of the query.
    Query(String),
}

/// What an authorizer answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    rule: Rule,
    /// Whom the answer names; empty if nobody.
    pub principal: String,
    /// What it says of the caller, each value as its JSON.
    pub context: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Plain(bool),
    Document(Document),
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The call does not say who makes it, or the function said `Unauthorized`.
    Unauthenticated,
    /// The answer is no.
    Denied,
    /// There is no answer that can be read.
    Broken,
}

/// The text is no source of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError(String);

impl Payload {
    /// The formats under their names in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("http-api", Self::HttpApi), ("rest-api", Self::RestApi)];
}

impl Source {
    /// Reads `header.NAME` or `query.NAME`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        match text.split_once('.') {
            Some(("header", name)) if http::HeaderName::from_bytes(name.as_bytes()).is_ok() => {
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            _ => Err(SourceError(text.to_owned())),
        }
    }

    fn read(&self, call: &Call) -> Option<String> {
        let value = match self {
            Self::Header(name) => {
                call.headers.iter().rfind(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
            }
            Self::Query(name) => query::value(&call.query, name),
        };
        value.filter(|value| !value.is_empty())
    }
}

impl Authorizer {
    /// The values that identify the caller; nothing if one of them is missing.
    pub fn identify(&self, call: &Call) -> Option<Vec<String>> {
        self.identity.iter().map(|source| source.read(call)).collect()
    }

    /// The event that asks for this call. It has everything of the front door's own event but the body.
    ///
    /// # Panics
    /// Never: an event is a JSON object.
    pub fn encode(&self, call: &Call, identity: &[String], front: Front<'_>) -> Bytes {
        let bodiless = Call { body: Bytes::new(), ..call.clone() };
        let format = match self.payload {
            Payload::HttpApi => Format::HttpApi,
            Payload::RestApi => Format::RestApi,
        };
        let event = format.encode(&bodiless, front).unwrap_or_default();
        let mut event: BTreeMap<&str, &RawValue> = serde_json::from_slice(&event).unwrap_or_default();
        event.remove("body");
        event.remove("isBase64Encoded");
        let quoted = |text: &str| serde_json::value::to_raw_value(text).unwrap_or_default();
        let (kind, arn) = (quoted("REQUEST"), quoted(&self.arn(call, front)));
        let sources = serde_json::value::to_raw_value(identity).unwrap_or_default();
        event.insert("type", &kind);
        match self.payload {
            Payload::HttpApi => {
                event.insert("routeArn", &arn);
                event.insert("identitySource", &sources);
            }
            Payload::RestApi => {
                event.insert("methodArn", &arn);
            }
        }
        Bytes::from(serde_json::to_vec(&event).expect("a map of JSON is JSON"))
    }

    /// What the call is called in policies.
    pub fn arn(&self, call: &Call, front: Front<'_>) -> String {
        let stage = match self.payload {
            Payload::HttpApi => or(&call.stage, "$default"),
            Payload::RestApi => or(&call.stage, "prod"),
        };
        let region = or(front.region, "us-east-1");
        let path = call.path().trim_start_matches('/');
        format!("arn:aws:execute-api:{region}:{}:{}/{stage}/{}/{path}", call.account(), call.api(), call.method)
    }

    /// The function's output as an answer.
    ///
    /// # Errors
    /// If it is none: then nobody passes.
    pub fn decode(&self, output: &[u8]) -> Result<Verdict, Malformed> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Output<'a> {
            is_authorized: Option<bool>,
            #[serde(borrow)]
            policy_document: Option<&'a RawValue>,
            principal_id: Option<String>,
            #[serde(borrow)]
            context: Option<BTreeMap<String, &'a RawValue>>,
        }
        let output: Output<'_> = serde_json::from_slice(output).map_err(|_| Malformed::NotAuthorizer)?;
        let rule = match (self.payload, output.is_authorized, output.policy_document) {
            (Payload::HttpApi, Some(authorized), None) => Rule::Plain(authorized),
            (_, None, Some(document)) => Rule::Document(Document::read(document).ok_or(Malformed::NotAuthorizer)?),
            _ => return Err(Malformed::NotAuthorizer),
        };
        let context = output.context.unwrap_or_default();
        Ok(Verdict {
            rule,
            principal: output.principal_id.unwrap_or_default(),
            context: context.into_iter().map(|(key, json)| (key, json.get().to_owned())).collect(),
        })
    }

    /// The headers that the upstream gets; nothing for what the answer does not say, or HTTP forbids.
    pub fn headers_of(&self, verdict: &Verdict) -> Vec<(String, String)> {
        let value = |key: &String| verdict.text(key).filter(|text| http::HeaderValue::from_str(text).is_ok());
        self.headers.iter().filter_map(|(name, key)| Some((name.clone(), value(key)?))).collect()
    }

    /// What API Gateway answers in the place of the API.
    pub fn refusal(&self, denial: Denial, request_id: &str) -> Reply {
        let (body, kind) = match (self.payload, denial) {
            (_, Denial::Unauthenticated) => (r#"{"message":"Unauthorized"}"#, "UnauthorizedException"),
            (Payload::HttpApi, Denial::Denied) => (r#"{"message":"Forbidden"}"#, ""),
            (Payload::RestApi, Denial::Denied) => {
                (r#"{"Message":"User is not authorized to access this resource"}"#, "AccessDeniedException")
            }
            (Payload::HttpApi, Denial::Broken) => (r#"{"message":"Internal Server Error"}"#, ""),
            (Payload::RestApi, Denial::Broken) => (r#"{"message":null}"#, "AuthorizerConfigurationException"),
        };
        let reply = Reply::own(denial.status(), "application/json", body);
        match self.payload {
            Payload::HttpApi => reply.with("apigw-requestid", request_id),
            Payload::RestApi => reply.with("x-amzn-RequestId", request_id).with("x-amzn-ErrorType", kind),
        }
    }
}

impl Denial {
    /// The status of HTTP that it is told with.
    pub fn status(self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::Denied => 403,
            Self::Broken => 500,
        }
    }
}

impl Verdict {
    /// Whether the call of this ARN may pass.
    pub fn allows(&self, arn: &str) -> bool {
        match &self.rule {
            Rule::Plain(authorized) => *authorized,
            Rule::Document(document) => document.allows(arn),
        }
    }

    /// A value of the context: text as it is, anything else as its JSON.
    fn text(&self, key: &str) -> Option<String> {
        if key == "principalId" && !self.principal.is_empty() {
            return Some(self.principal.clone());
        }
        let json: &RawValue = serde_json::from_str(self.context.get(key)?).ok()?;
        Some(text(json).map_or_else(|| json.get().to_owned(), std::borrow::Cow::into_owned))
            .filter(|text| text != "null")
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no source of an identity: expected `header.NAME` or `query.NAME`", self.0)
    }
}

impl std::error::Error for SourceError {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::call::sample, *};
    use serde_json::{Value, json};

    fn authorizer(payload: Payload) -> Authorizer {
        Authorizer {
            payload,
            identity: vec![Source::parse("header.Cookie").unwrap(), Source::parse("query.repeat").unwrap()],
            ttl: Duration::ZERO,
            headers: vec![("x-user".into(), "user".into()), ("x-level".into(), "level".into())],
        }
    }

    #[test]
    fn the_event_is_the_front_doors_without_a_body() {
        let (call, front) = (sample::captured(), Front { region: "eu-central-1", target_group_arn: None });
        for (payload, arn_key, absent) in
            [(Payload::HttpApi, "routeArn", "methodArn"), (Payload::RestApi, "methodArn", "routeArn")]
        {
            let authorizer = authorizer(payload);
            let identity = authorizer.identify(&call).unwrap();
            let event: Value = serde_json::from_slice(&authorizer.encode(&call, &identity, front)).unwrap();
            assert_eq!(event["type"], "REQUEST");
            assert_eq!(event[arn_key], authorizer.arn(&call, front));
            for absent in [absent, "body", "isBase64Encoded"] {
                assert!(event.get(absent).is_none(), "{absent}");
            }
            assert_eq!(event["requestContext"]["requestId"], call.request_id);
        }
        let authorizer = authorizer(Payload::HttpApi);
        let identity = authorizer.identify(&call).unwrap();
        let event: Value = serde_json::from_slice(&authorizer.encode(&call, &identity, front)).unwrap();
        assert_eq!((&event["version"], &event["identitySource"]), (&json!("2.0"), &json!(identity)));
        assert!(authorizer.arn(&call, front).starts_with("arn:aws:execute-api:eu-central-1:"));
    }

    #[test]
    fn who_lacks_a_part_of_the_identity_is_nobody() {
        let mut call = sample::captured();
        assert_eq!(authorizer(Payload::HttpApi).identify(&call).unwrap()[1], "two", "the last of a repeated one");
        call.query = "repeat=".into();
        assert_eq!(authorizer(Payload::HttpApi).identify(&call), None, "an empty one is none");
        for text in ["cookie", "header.", "header.a b", "query.", "body.x"] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn answers_are_yes_or_no_or_a_policy_and_anything_else_is_none() {
        let allow = r#""policyDocument": {"Statement": [{"Action": "*", "Effect": "Allow", "Resource": "*"}]}"#;
        for (payload, output, expected, why) in [
            (Payload::HttpApi, r#"{"isAuthorized": true}"#.to_owned(), Some(true), "yes"),
            (Payload::HttpApi, r#"{"isAuthorized": false}"#.into(), Some(false), "no"),
            (Payload::HttpApi, format!(r#"{{"principalId": "u", {allow}}}"#), Some(true), "a policy"),
            (Payload::RestApi, format!(r#"{{"principalId": "u", {allow}}}"#), Some(true), "a policy"),
            (Payload::RestApi, r#"{"isAuthorized": true}"#.into(), None, "REST APIs know no plain yes"),
            (Payload::HttpApi, format!(r#"{{"isAuthorized": true, {allow}}}"#), None, "both"),
            (Payload::HttpApi, r#"{"isAuthorized": "true"}"#.into(), None, "a text is no yes"),
            (Payload::HttpApi, r#"{"isAuthorized": null}"#.into(), None, "null is no answer"),
            (Payload::HttpApi, "{}".into(), None, "nothing said"),
            (Payload::HttpApi, "true".into(), None, "no object"),
            (Payload::RestApi, r#"{"principalId": "u", "policyDocument": {}}"#.into(), None, "an empty policy"),
        ] {
            let verdict = authorizer(payload).decode(output.as_bytes());
            assert_eq!(verdict.map(|verdict| verdict.allows("arn")).ok(), expected, "{why}: {output}");
        }
    }

    #[test]
    fn the_context_becomes_headers() {
        let authorizer = authorizer(Payload::HttpApi);
        let output = br#"{"isAuthorized": true, "context": {"user": "a\"b", "level": 3, "other": null}}"#;
        let verdict = authorizer.decode(output).unwrap();
        assert_eq!(authorizer.headers_of(&verdict), [("x-user".into(), "a\"b".into()), ("x-level".into(), "3".into())]);
        let split = authorizer.decode(br#"{"isAuthorized": true, "context": {"user": "a\r\nb"}}"#).unwrap();
        assert_eq!(authorizer.headers_of(&split), [], "no value splits the request");
    }
}
