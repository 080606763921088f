//! Tyk's rich plugins: a request hook's object becomes the policy's call, and the answer the object's `return_overrides`.
//!
//! A hook that authenticates a key (`CustomKeyCheck`) gets its object back, and without a session Tyk refuses the call;
//! a response hook gets its object back as well, and the response goes on as it is.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::{
    deadline::Deadline,
    plugin::{self, Asked, Text, header, path_and_query, sorted},
    status::status,
};
use crate::{
    error::Error,
    event,
    execute::{self, Engine},
    pb::tyk::{Event, EventReply, HookType, MiniRequestObject, Object, ReturnOverrides, dispatcher_server::Dispatcher},
    policy::Caller,
};

const RPC: &str = "Dispatch";

/// The gateway's service over the engine.
#[derive(Debug)]
pub(super) struct Service {
    engine: Arc<Engine>,
}

impl Service {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl Dispatcher for Service {
    async fn dispatch(&self, request: Request<Object>) -> Result<Response<Object>, Status> {
        let deadline = request.extensions().get::<Deadline>().copied();
        let caller = Caller::of(request.extensions());
        let told = request.extensions().get().cloned();
        let mut object = request.into_inner();
        let known = match HookType::try_from(object.hook_type) {
            Ok(HookType::Pre | HookType::Post | HookType::PostKeyAuth) => Ok(()),
            Ok(HookType::CustomKeyCheck | HookType::Response) => return Ok(Response::new(object)),
            // Tyk tells its client of an error; an object that came back would go on to the upstream.
            Ok(HookType::Unknown) | Err(_) => Err(Error::field("hook_type", "is none that this service knows")),
        };
        let headers = object.request.as_ref().map(|request| headers(&request.headers)).unwrap_or_default();
        let request = known.and_then(|()| object.request.as_mut().ok_or_else(|| Error::field("request", "is missing")));
        let request = match request {
            Ok(request) => request,
            // The object has no place for an answer.
            Err(error) => {
                let trace =
                    self.engine.trace(told, headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
                let id = header(&headers, "x-request-id").unwrap_or_default();
                self.engine.line(RPC, execute::NO_POLICY).of(id).by(&caller).within(trace).by_status().failed(&error);
                return Err(status(&error));
            }
        };
        let id = plugin::request_id(&headers);
        let asked = asked(request, headers, &object.spec, &id);
        let text = match plugin::execute(&self.engine, RPC, caller, &id, asked, deadline, told).await {
            Ok(Some(answer)) => answer.text,
            Ok(None) => return Ok(Response::new(object)),
            Err(error) => Text::problem(&error, &id),
        };
        request.return_overrides = Some(overrides(text));
        Ok(Response::new(object))
    }

    async fn dispatch_event(&self, _: Request<Event>) -> Result<Response<EventReply>, Status> {
        Ok(Response::new(EventReply {}))
    }
}

fn headers(headers: &HashMap<String, String>) -> Vec<(String, String)> {
    sorted(headers).into_iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn asked(
    request: &MiniRequestObject,
    headers: Vec<(String, String)>,
    spec: &HashMap<String, String>,
    id: &str,
) -> Result<Asked, Error> {
    if request.method.is_empty() {
        return Err(Error::field("request.method", "is missing"));
    }
    // The URL is what the gateway's own changes have made of the URI.
    let (path, mut query) = path_and_query(if request.url.is_empty() { &request.request_uri } else { &request.url });
    let parameters;
    if query.is_empty() && !request.params.is_empty() {
        query = path_and_query(&request.request_uri).1;
        if query.is_empty() {
            parameters = plugin::query(request.params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            query = &parameters;
        }
    }
    let body = if request.raw_body.is_empty() {
        Bytes::copy_from_slice(request.body.as_bytes())
    } else {
        request.raw_body.clone()
    };
    // Tyk itself believes `X-Real-Ip` before `X-Forwarded-For`; its log and the function shall agree.
    let source_ip = header(&headers, "x-real-ip")
        .map(str::to_owned)
        .or_else(|| plugin::forwarded_for(&headers))
        .unwrap_or_default();
    let call = event::Call {
        method: request.method.clone(),
        path: path.to_owned(),
        query: query.to_owned(),
        body,
        source_ip: source_ip.to_owned(),
        scheme: request.scheme.clone(),
        authority: header(&headers, "host").unwrap_or_default().to_owned(),
        headers,
        protocol: String::new(),
        route: String::new(),
        stage: String::new(),
        path_parameters: Default::default(),
        stage_variables: Default::default(),
        request_id: id.to_owned(),
        authorizer: None,
        account_id: String::new(),
        api_id: spec.get("APIID").cloned().unwrap_or_default(),
        received: SystemTime::now(),
    };
    Ok(Asked { policy: spec.get("config_data").and_then(|json| policy(json)), call })
}

/// The policy that an API's configuration names. `policy` may be another plugin's word for something else, so
/// `x-lambda-policy` counts first, and what is no text does not count.
fn policy(config_data: &str) -> Option<String> {
    let config: HashMap<String, serde_json::Value> = serde_json::from_str(config_data).ok()?;
    let text = |key| config.get(key).and_then(serde_json::Value::as_str).filter(|name| !name.is_empty());
    text("x-lambda-policy").or_else(|| text("policy")).map(str::to_owned)
}

fn overrides(text: Text) -> ReturnOverrides {
    ReturnOverrides {
        response_code: i32::from(text.status),
        response_error: String::new(),
        headers: text.headers.into_iter().collect(),
        // Without it a 404 of the function would count as a failed authentication, and have Tyk's words.
        override_error: true,
        response_body: text.body,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn ask(request: &MiniRequestObject, spec: &[(&str, &str)]) -> Result<Asked, Error> {
        asked(request, headers(&request.headers), &map(spec), "r-1")
    }

    #[test]
    fn the_configuration_of_an_api_names_the_policy() {
        for (config, policy, why) in [
            (r#"{"policy": "orders"}"#, Some("orders"), "by our key"),
            (r#"{"x-lambda-policy": "orders"}"#, Some("orders"), "or the longer one"),
            (r#"{"x-lambda-policy": "orders", "policy": "gold"}"#, Some("orders"), "which nobody else has"),
            (r#"{"x-lambda-policy": "orders", "policy": {"tier": 1}}"#, Some("orders"), "whatever the other is"),
            (r#"{"policy": {"tier": 1}}"#, None, "an object is no name"),
            (r#"{"policy": ""}"#, None, "nor is nothing"),
            ("{}", None, "an API without configuration"),
            ("[1]", None, "no object"),
            ("", None, "no JSON"),
        ] {
            assert_eq!(super::policy(config).as_deref(), policy, "{why}");
        }
    }

    #[test]
    fn path_and_query_are_the_gateways_last_word() {
        for (url, uri, params, path, query, why) in [
            ("/a%2Fb?x=1&x=2", "/old?x=1", &[("x", "1")][..], "/a%2Fb", "x=1&x=2", "the URL as it is"),
            ("", "/a?x=1", &[("x", "1")], "/a", "x=1", "without a URL the URI"),
            ("/a", "/a?x=1&x=2", &[("x", "1")], "/a", "x=1&x=2", "a query that the URL has lost"),
            ("/a", "/a", &[("x", "1 2")], "/a", "x=1%202", "or that only the parameters have"),
            ("/a", "/a?x=1", &[], "/a", "", "but not one that was taken away"),
            ("http://upstream:80/a", "/a", &[], "/a", "", "a URL with a host"),
        ] {
            let request = MiniRequestObject {
                method: "GET".into(),
                url: url.into(),
                request_uri: uri.into(),
                params: map(params),
                ..Default::default()
            };
            let call = ask(&request, &[]).unwrap().call;
            assert_eq!((call.path.as_str(), call.query.as_str()), (path, query), "{why}");
        }
    }

    #[test]
    fn a_call_has_what_the_object_says() {
        let mut request = MiniRequestObject {
            method: "POST".into(),
            url: "/orders".into(),
            scheme: "https".into(),
            headers: map(&[("Host", "api.example.com"), ("X-Forwarded-For", "203.0.113.7, 10.0.0.1")]),
            body: "text".into(),
            raw_body: Bytes::from_static(b"\xff\x00"),
            ..Default::default()
        };
        let call = ask(&request, &[("APIID", "api-1")]).unwrap().call;
        assert_eq!((call.method.as_str(), call.scheme.as_str()), ("POST", "https"));
        assert_eq!((call.authority.as_str(), call.source_ip.as_str()), ("api.example.com", "10.0.0.1"));
        assert_eq!((call.api_id.as_str(), call.request_id.as_str()), ("api-1", "r-1"));
        assert_eq!(&call.body[..], b"\xff\x00", "the bytes, not the text");
        assert_eq!(call.headers[0].0, "Host", "headers have an order");

        request.raw_body = Bytes::new();
        request.headers.insert("X-Real-Ip".into(), "203.0.113.8".into());
        let call = ask(&request, &[]).unwrap().call;
        assert_eq!((&call.body[..], call.source_ip.as_str()), (&b"text"[..], "203.0.113.8"));

        request.method.clear();
        assert_eq!(ask(&request, &[]).unwrap_err().violations()[0].field, "request.method");
    }

    #[test]
    fn every_status_is_the_answer_itself() {
        for status in [200, 202, 404, 503] {
            let headers = [("x-a".to_owned(), "b".to_owned())].into();
            let overrides = overrides(Text { status, headers, body: "body".into() });
            assert_eq!(overrides.response_code, i32::from(status));
            assert!(overrides.override_error && overrides.response_error.is_empty());
            assert_eq!((overrides.headers["x-a"].as_str(), overrides.response_body.as_str()), ("b", "body"));
        }
    }
}
