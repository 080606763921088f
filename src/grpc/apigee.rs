//! Apigee's ExternalCallout: a context's request becomes the policy's call, and the answer flow variables. What the
//! function did not answer is a fault, which Apigee raises.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::{
    deadline::Deadline,
    plugin::{self, Answer, Asked, header, path_and_query, sorted},
};
use crate::{
    error::Error,
    event,
    execute::Engine,
    pb::apigee::{
        self, Fault, FlowVariable, MessageContext, external_callout_service_server::ExternalCalloutService,
        flow_variable::Value,
    },
    policy::Caller,
};

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
impl ExternalCalloutService for Service {
    async fn process_message(&self, request: Request<MessageContext>) -> Result<Response<MessageContext>, Status> {
        let deadline = request.extensions().get::<Deadline>().copied();
        let caller = Caller::of(request.extensions());
        let told = request.extensions().get().cloned();
        let mut context = request.into_inner();
        let headers = headers(&context);
        let id = id(&context, &headers);
        let asked = asked(&context, headers, &id);
        match plugin::execute(&self.engine, "ProcessMessage", caller, &id, asked, deadline, told).await {
            Ok(Some(answer)) => context.additional_flow_variables.extend(variables(answer)),
            Ok(None) => {}
            Err(error) => fail(&mut context, &error),
        }
        Ok(Response::new(context))
    }
}

fn headers(context: &MessageContext) -> Vec<(String, String)> {
    let given = context.request.iter().flat_map(|request| pairs(&request.headers));
    given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn id(context: &MessageContext, headers: &[(String, String)]) -> String {
    match header(headers, "x-request-id") {
        None if !context.message_id.is_empty() => context.message_id.clone(),
        _ => plugin::request_id(headers),
    }
}

fn asked(context: &MessageContext, headers: Vec<(String, String)>, id: &str) -> Result<Asked, Error> {
    let policy = policy(&context.additional_flow_variables)?;
    let Some(request) = &context.request else {
        return Err(Error::field("request", "is missing: the policy belongs into a request flow"));
    };
    if request.verb.is_empty() {
        return Err(Error::field("request.verb", "is missing"));
    }
    let (path, mut query) = path_and_query(&request.uri);
    let parameters;
    if query.is_empty() && !request.query_params.is_empty() {
        parameters = plugin::query(pairs(&request.query_params));
        query = &parameters;
    }
    // The proxy's is the client's own address, the client's that of the system before Apigee.
    let addresses = [context.proxy.as_ref().map(|proxy| &proxy.client_ip), context.client.as_ref().map(|c| &c.ip)];
    let address = addresses.into_iter().flatten().map(String::as_str).find(|address| !address.is_empty());
    let source_ip = address.map(str::to_owned).or_else(|| plugin::forwarded_for(&headers)).unwrap_or_default();
    let call = event::Call {
        method: request.verb.clone(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: Bytes::copy_from_slice(request.content.as_bytes()),
        source_ip,
        scheme: context.client.as_ref().map(|client| client.scheme.clone()).unwrap_or_default(),
        authority: header(&headers, "host").unwrap_or_default().to_owned(),
        headers,
        protocol: protocol(&request.http_version),
        route: String::new(),
        stage: String::new(),
        path_parameters: Default::default(),
        stage_variables: Default::default(),
        request_id: id.to_owned(),
        authorizer: None,
        account_id: String::new(),
        api_id: context.api_proxy.as_ref().map(|proxy| proxy.name.clone()).unwrap_or_default(),
        received: SystemTime::now(),
    };
    Ok(Asked { policy, call })
}

fn policy(variables: &HashMap<String, FlowVariable>) -> Result<Option<String>, Error> {
    match variables.get("lambda.policy").and_then(|variable| variable.value.as_ref()) {
        None => Ok(None),
        Some(Value::String(name)) => Ok((!name.is_empty()).then(|| name.clone())),
        Some(_) => Err(Error::field("lambda.policy", "is no string")),
    }
}

/// Names and values, a name with several values several times.
fn pairs(map: &HashMap<String, apigee::Strings>) -> impl Iterator<Item = (&str, &str)> {
    sorted(map)
        .into_iter()
        .flat_map(|(name, values)| values.strings.iter().map(move |value| (name.as_str(), value.as_str())))
}

/// `HTTP/1.1` of `1.1`.
fn protocol(version: &str) -> String {
    match version.bytes().next() {
        Some(first) if first.is_ascii_digit() => format!("HTTP/{version}"),
        _ => version.to_owned(),
    }
}

/// The flow variables that an answer sets.
fn variables(answer: Answer) -> Vec<(String, FlowVariable)> {
    let Answer { text, reply } = answer;
    let mut set = vec![
        variable("lambda.status", Value::Int32(i32::from(text.status))),
        variable("lambda.body", Value::String(text.body)),
        variable("lambda.request", Value::String(reply.request_id)),
    ];
    for (name, value) in text.headers {
        set.push(variable(format!("lambda.headers.{name}"), Value::String(value)));
    }
    for (name, json) in reply.variables {
        set.push(variable(format!("lambda.variables.{name}"), Value::String(plain(json))));
    }
    if let Some(error) = reply.error {
        set.push(variable("lambda.error.kind", Value::String(error.kind.as_str().to_owned())));
        set.push(variable("lambda.error.type", Value::String(error.error_type)));
        set.push(variable("lambda.error.message", Value::String(error.message)));
    }
    set
}

fn variable(name: impl Into<String>, value: Value) -> (String, FlowVariable) {
    (name.into(), FlowVariable { value: Some(value) })
}

/// A text without its quotes, which no condition of a flow could take off; any other JSON as it is.
fn plain(json: String) -> String {
    serde_json::from_str::<String>(&json).unwrap_or(json)
}

fn fail(context: &mut MessageContext, error: &Error) {
    let fault = context.fault.get_or_insert_with(Fault::default);
    fault.name = error.kind().reason().to_owned();
    fault.fault_string = error.message().to_owned();
    if let Some(id) = error.aws_request_id() {
        context.additional_flow_variables.extend([variable("lambda.request", Value::String(id.to_owned()))]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        error::Kind,
        execute::{FunctionError, FunctionErrorKind, Output, Reply},
        grpc::plugin::Text,
        pb::apigee::{ApiProxy, Client, Proxy, Strings},
    };

    fn ask(context: &MessageContext) -> Result<Asked, Error> {
        let headers = headers(context);
        let id = id(context, &headers);
        asked(context, headers, &id)
    }

    fn strings(values: &[&str]) -> Strings {
        Strings { strings: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    fn request() -> apigee::Request {
        apigee::Request {
            uri: "/orders/7?a=1&a=2".into(),
            verb: "POST".into(),
            http_version: "1.1".into(),
            headers: [
                ("Host".to_owned(), strings(&["api.example.com"])),
                ("X-List".to_owned(), strings(&["a", "b"])),
                ("X-Forwarded-For".to_owned(), strings(&["203.0.113.9, 10.0.0.1"])),
            ]
            .into(),
            content: "text".into(),
            ..Default::default()
        }
    }

    fn context() -> MessageContext {
        MessageContext { request: Some(request()), message_id: "m-1".into(), ..Default::default() }
    }

    #[test]
    fn a_call_has_what_the_context_says() {
        let mut context = context();
        let call = ask(&context).unwrap().call;
        assert_eq!((call.method.as_str(), call.protocol.as_str()), ("POST", "HTTP/1.1"));
        assert_eq!((call.path.as_str(), call.query.as_str()), ("/orders/7", "a=1&a=2"));
        assert_eq!((call.authority.as_str(), call.request_id.as_str()), ("api.example.com", "m-1"));
        assert_eq!((&call.body[..], call.source_ip.as_str()), (&b"text"[..], "10.0.0.1"));
        let list: Vec<_> = call.headers.iter().filter(|(name, _)| name == "X-List").map(|(_, v)| v.as_str()).collect();
        assert_eq!(list, ["a", "b"], "repeats are kept");

        let request = context.request.as_mut().unwrap();
        request.uri = "/orders".into();
        request.query_params = [("x".to_owned(), strings(&["1", "2"]))].into();
        request.headers.insert("X-Request-Id".into(), strings(&["r-1"]));
        context.client = Some(Client { ip: "10.0.0.1".into(), scheme: "https".into(), ..Default::default() });
        context.api_proxy = Some(ApiProxy { name: "orders-v1".into(), revision: "3".into() });
        let call = ask(&context).unwrap().call;
        assert_eq!((call.query.as_str(), call.request_id.as_str()), ("x=1&x=2", "r-1"));
        assert_eq!((call.source_ip.as_str(), call.scheme.as_str()), ("10.0.0.1", "https"));
        assert_eq!(call.api_id, "orders-v1");

        context.proxy = Some(Proxy { client_ip: "203.0.113.7".into(), ..Default::default() });
        assert_eq!(ask(&context).unwrap().call.source_ip, "203.0.113.7");
    }

    #[test]
    fn a_flow_variable_names_the_policy() {
        for (value, policy) in [
            (None, Ok(None)),
            (Some(Value::String("orders".into())), Ok(Some("orders"))),
            (Some(Value::String(String::new())), Ok(None)),
            (Some(Value::Int32(1)), Err("lambda.policy")),
        ] {
            let mut context = context();
            context.additional_flow_variables.insert("lambda.policy".into(), FlowVariable { value });
            let found = ask(&context).map(|asked| asked.policy).map_err(|e| e.violations()[0].field.clone());
            assert_eq!(found.as_ref().map(Option::as_deref).map_err(String::as_str), policy);
        }
    }

    #[test]
    fn what_is_no_request_is_told() {
        for (request, field) in
            [(None, "request"), (Some(apigee::Request { verb: String::new(), ..request() }), "request.verb")]
        {
            let error = ask(&MessageContext { request, ..Default::default() }).unwrap_err();
            assert_eq!(error.violations()[0].field, field);
        }
    }

    #[test]
    fn an_answer_is_flow_variables() {
        let error = FunctionError {
            kind: FunctionErrorKind::Unhandled,
            error_type: "OrderError".into(),
            message: "sold out".into(),
            payload: Bytes::new(),
        };
        let picked = [("count", "7"), ("id", "\"o-1\""), ("order", r#"{"id":"o-1"}"#)];
        let reply = Reply {
            status: 200,
            output: Output::None,
            error: Some(error),
            version: String::new(),
            request_id: "aws-1".into(),
            log: String::new(),
            timing: Default::default(),
            sizes: Default::default(),
            variables: picked.map(|(name, json)| (name.to_owned(), json.to_owned())).into(),
            room: None,
        };
        let headers = [("content-type".to_owned(), "text/plain".to_owned())].into();
        let text = Text { status: 404, headers, body: "gone".into() };
        let set: HashMap<_, _> = variables(Answer { text, reply }).into_iter().collect();
        assert_eq!(set["lambda.status"].value, Some(Value::Int32(404)));
        for (name, value) in [
            ("lambda.body", "gone"),
            ("lambda.request", "aws-1"),
            ("lambda.headers.content-type", "text/plain"),
            ("lambda.variables.count", "7"),
            ("lambda.variables.id", "o-1"),
            ("lambda.variables.order", r#"{"id":"o-1"}"#),
            ("lambda.error.kind", "unhandled"),
            ("lambda.error.type", "OrderError"),
            ("lambda.error.message", "sold out"),
        ] {
            assert_eq!(set[name].value, Some(Value::String(value.to_owned())), "{name}");
        }
        assert_eq!(set.len(), 10);
    }

    #[test]
    fn a_failure_is_a_fault() {
        let mut context = context();
        let error =
            Error::new(Kind::FunctionThrottled, "busy").with_aws_request_id(Some("aws-1")).with_detail("secret");
        fail(&mut context, &error);
        let fault = context.fault.unwrap();
        assert_eq!((fault.name.as_str(), fault.fault_string.as_str()), ("FUNCTION_THROTTLED", "busy"));
        let id = context.additional_flow_variables["lambda.request"].value.clone();
        assert_eq!(id, Some(Value::String("aws-1".into())));
    }
}
