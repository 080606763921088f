//! What is encoded for a function is what the function's libraries read, and no output breaks a decoder.
//!
//! The oracles are `aws_lambda_events` and `lambda_http`, the crates that functions in Rust are written with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use aws_lambda_events::{
    alb::AlbTargetGroupRequest,
    apigw::{ApiGatewayProxyRequest, ApiGatewayV2httpRequest},
    lambda_function_urls::LambdaFunctionUrlRequest,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use lambda_http::RequestExt;
use lambda_policy::event::{
    Call, Failure, Format, Front, Reply,
    fault::{Fault, Kind},
    picks::Picks,
    rules::{self, Rule},
};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use proptest::{collection::vec, option, prelude::*, sample::select};

const FRONT: Front<'_> = Front { region: "eu-central-1", target_group_arn: None };

/// The pieces that a call is made of, before they are encoded for the wire.
#[derive(Clone, Debug)]
struct Sent {
    segments: Vec<String>,
    parameters: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    call: Call,
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

prop_compose! {
    /// A call that a gateway may send. Paths have none of the few characters that `lambda_http` cannot
    /// put back into a URL once API Gateway has decoded them (`?`, `#`, `%`, `\`, dots that climb,
    /// white space at the end).
    fn sent()(
        method in select(vec!["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND"]),
        segments in vec("[a-zA-Z0-9äöü&~_-]([a-z0-9äöü +&=;,@~_-]{0,4}[a-z0-9ö])?", 0..4),
        parameters in vec(("[a-zäß ]{1,3}", "[ -~äöü€😀]{0,6}"), 0..6),
        headers in vec(
            (
                select(vec!["X-Probe", "x-probe", "Accept", "X-Other", "Authorization", "x-amz-date", "Cookie",
                    "TE", "Keep-Alive", "X-Hop", "Upgrade", "Content-Encoding"]),
                "[!-~]([ -~]{0,10}[!-~])?",
            ),
            0..8,
        ),
        content_type in option::of(select(vec!["application/json", "text/plain; charset=utf-8", "image/png",
            "application/x-www-form-urlencoded", "APPLICATION/XML"])),
        body in prop_oneof![vec(any::<u8>(), 0..64), "\\PC{0,32}".prop_map(String::into_bytes)],
        stage in select(vec!["live", "$default", ""]),
        hop in any::<bool>(),
        secure in any::<bool>(),
        seconds in 0_u64..4_000_000_000,
    ) -> Sent {
        let path = format!("/{}", segments.iter().map(|s| encoded(s)).collect::<Vec<_>>().join("/"));
        let query = parameters
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect::<Vec<_>>()
            .join("&");
        let mut headers: Vec<(String, String)> =
            headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        headers.extend(content_type.map(|value| ("Content-Type".to_owned(), value.to_owned())));
        if hop {
            headers.insert(0, ("Connection".to_owned(), "keep-alive, X-HOP".to_owned()));
        }
        let call = Call {
            method: method.to_owned(),
            path,
            query,
            headers: headers.clone(),
            body: Bytes::from(body),
            source_ip: "192.0.2.7".to_owned(),
            scheme: if secure { "https" } else { "http" }.to_owned(),
            authority: "api.example.com".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            route: format!("{method} /{{rest+}}"),
            stage: stage.to_owned(),
            path_parameters: [("rest".to_owned(), segments.iter().map(|s| encoded(s)).collect::<Vec<_>>().join("/"))].into(),
            stage_variables: [("table".to_owned(), "orders".to_owned())].into(),
            request_id: "0c9b1bb1-7d3a-4a4e-9c56-0f3f8a3fd1ab".to_owned(),
            authorizer: serde_json::from_str(r#"{"who":"me"}"#).ok(),
            account_id: "123456789012".to_owned(),
            api_id: "abc123".to_owned(),
            received: UNIX_EPOCH + Duration::from_secs(seconds),
        };
        Sent { segments, parameters, headers, call }
    }
}

impl Sent {
    /// The headers that must arrive, by lower-case name.
    fn headers(&self) -> BTreeMap<String, Vec<String>> {
        let named = self.headers.iter().any(|(name, _)| name == "Connection");
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &self.headers {
            let name = name.to_ascii_lowercase();
            let gone = ["connection", "te", "keep-alive", "upgrade"].contains(&&*name) || (named && name == "x-hop");
            if !gone {
                expected.entry(name).or_default().push(value.clone());
            }
        }
        if let Some(crumbs) = expected.get_mut("cookie") {
            *crumbs = vec![crumbs.join("; ")];
        }
        expected
    }

    fn parameters(&self) -> BTreeMap<String, Vec<String>> {
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &self.parameters {
            expected.entry(name.clone()).or_default().push(value.clone());
        }
        expected
    }

    /// What an HTTP API has before the path.
    fn prefix(&self) -> &'static str {
        if self.call.stage == "live" { "/live" } else { "" }
    }

    fn decoded_path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }

    fn event(&self, format: Format) -> Bytes {
        format.encode(&self.call, FRONT).unwrap()
    }
}

fn body(body: Option<&str>, is_base64: bool) -> Vec<u8> {
    let text = body.unwrap_or_default();
    if is_base64 { STANDARD.decode(text).unwrap() } else { text.as_bytes().to_vec() }
}

/// The headers that a front door adds.
const ADDED: [&str; 5] = ["host", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-amzn-trace-id"];

/// Checks that each header arrived with the values that `spell` makes of those sent, and no other did.
fn arrived(sent: &Sent, headers: &HeaderMap, except: &[&str], spell: impl Fn(&[String]) -> Vec<String>) {
    let expected = sent.headers();
    for (name, values) in expected.iter().filter(|(name, _)| !except.contains(&&***name)) {
        let got: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(got, spell(values), "{name}");
    }
    for name in headers.keys() {
        assert!(expected.contains_key(name.as_str()) || ADDED.contains(&name.as_str()), "{name}");
    }
    assert_eq!(headers.get("host").unwrap(), "api.example.com");
    assert_eq!(headers.get("x-forwarded-for").unwrap(), "192.0.2.7");
    assert_eq!(headers.get("x-forwarded-proto").unwrap(), &sent.call.scheme);
}

fn last(values: &[String]) -> Vec<String> {
    values.last().cloned().into_iter().collect()
}

fn joined(values: &[String]) -> Vec<String> {
    vec![values.join(",")]
}

fn all(values: &[String]) -> Vec<String> {
    values.to_vec()
}

proptest! {
    #[test]
    fn payload_1_is_read_by_aws_lambda_events(sent in sent()) {
        for format in [Format::RestApi, Format::HttpApiV1] {
            let event: ApiGatewayProxyRequest = serde_json::from_slice(&sent.event(format)).unwrap();
            assert_eq!(event.http_method.as_str(), sent.call.method);
            let (prefix, unnamed) = if format == Format::RestApi { ("", "prod") } else { (sent.prefix(), "$default") };
            assert_eq!(event.path, Some(format!("{prefix}{}", sent.call.path)));
            assert_eq!(event.resource.as_deref(), Some("/{rest+}"));
            arrived(&sent, &event.headers, &[], last);
            arrived(&sent, &event.multi_value_headers, &[], all);
            for (name, values) in sent.parameters() {
                assert_eq!(event.query_string_parameters.first(&name), values.last().map(String::as_str));
                assert_eq!(event.multi_value_query_string_parameters.all(&name).unwrap(), values);
            }
            let rest = if format == Format::RestApi { sent.call.path[1..].to_owned() } else { sent.segments.join("/") };
            assert_eq!(event.path_parameters["rest"], rest);
            assert_eq!(event.stage_variables["table"], "orders");
            assert_eq!(body(event.body.as_deref(), event.is_base64_encoded), sent.call.body);
            let context = event.request_context;
            assert_eq!(context.request_id.as_deref(), Some(&*sent.call.request_id));
            let stage = if sent.call.stage.is_empty() { unnamed } else { &sent.call.stage };
            assert_eq!(context.stage.as_deref(), Some(stage));
            assert_eq!(context.identity.source_ip.as_deref(), Some("192.0.2.7"));
            assert_eq!(context.domain_name.as_deref(), Some("api.example.com"));
            assert_eq!(context.request_time_epoch, i64::try_from(sent.call.received.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap());
            assert_eq!(context.authorizer.fields["who"], "me");
        }
    }

    #[test]
    fn payload_2_is_read_by_aws_lambda_events(sent in sent()) {
        let event: ApiGatewayV2httpRequest = serde_json::from_slice(&sent.event(Format::HttpApi)).unwrap();
        assert_eq!(event.version.as_deref(), Some("2.0"));
        let path = format!("{}{}", sent.prefix(), sent.decoded_path());
        assert_eq!(event.raw_path.as_deref(), Some(&*path));
        assert_eq!(event.raw_query_string.as_deref(), Some(&*sent.call.query));
        assert_eq!(event.path_parameters["rest"], sent.segments.join("/"));
        assert_eq!(event.stage_variables["table"], "orders");
        assert!(!event.headers.contains_key("cookie"));
        arrived(&sent, &event.headers, &["cookie"], joined);
        let cookies = sent.headers().get("cookie").map(|crumbs| crumbs.join("; "));
        let cookies: Vec<_> = cookies.iter().flat_map(|c| c.split(';')).map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(event.cookies.unwrap_or_default(), cookies);
        assert_eq!(body(event.body.as_deref(), event.is_base64_encoded), sent.call.body);
        let context = event.request_context;
        assert_eq!(context.http.method.as_str(), sent.call.method);
        assert_eq!(context.http.path.as_deref(), Some(&*path));
        assert_eq!(context.route_key.as_deref(), Some(&*sent.call.route));
        assert_eq!(context.authorizer.unwrap().fields["who"], "me");

        let event: LambdaFunctionUrlRequest = serde_json::from_slice(&sent.event(Format::FunctionUrl)).unwrap();
        assert_eq!(event.raw_path.as_deref(), Some(&*sent.call.path));
        arrived(&sent, &event.headers, &[], joined);
        for (name, values) in sent.parameters() {
            assert_eq!(event.query_string_parameters[&name], values.join(","));
        }
        assert_eq!(body(event.body.as_deref(), event.is_base64_encoded), sent.call.body);
        assert_eq!(event.request_context.account_id.as_deref(), Some("anonymous"));
        assert_eq!(event.request_context.http.method.as_deref(), Some(&*sent.call.method));
    }

    #[test]
    fn load_balancer_events_are_read_by_aws_lambda_events(sent in sent()) {
        let undecoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        for format in [Format::Alb, Format::AlbMultiValue] {
            let event: AlbTargetGroupRequest = serde_json::from_slice(&sent.event(format)).unwrap();
            assert_eq!(event.http_method.as_str(), sent.call.method);
            assert_eq!(event.path.as_deref(), Some(&*sent.call.path));
            assert_eq!(body(event.body.as_deref(), event.is_base64_encoded), sent.call.body);
            let arn = event.request_context.elb.target_group_arn.unwrap();
            assert!(arn.starts_with("arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/abc123/"));
            let (headers, parameters) = if format == Format::Alb {
                arrived(&sent, &event.headers, &[], last);
                (event.multi_value_headers, event.query_string_parameters)
            } else {
                arrived(&sent, &event.multi_value_headers, &[], all);
                (event.headers, event.multi_value_query_string_parameters)
            };
            assert!(headers.is_empty());
            let got: BTreeMap<String, Vec<String>> = parameters
                .iter()
                .map(|(name, _)| name)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .map(|name| (undecoded(name), parameters.all(name).unwrap().into_iter().map(undecoded).collect()))
                .collect();
            let expected: BTreeMap<_, _> = sent.parameters().into_iter()
                .map(|(name, values)| (name, if format == Format::Alb { last(&values) } else { values }))
                .collect();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn lambda_http_sees_the_call_that_was_made(sent in sent()) {
        for format in [Format::RestApi, Format::HttpApiV1, Format::HttpApi, Format::FunctionUrl, Format::AlbMultiValue, Format::KongGateway] {
            let event = sent.event(format);
            let request = lambda_http::request::from_str(std::str::from_utf8(&event).unwrap()).unwrap();
            assert_eq!(request.method().as_str(), sent.call.method);
            assert_eq!(request.body().as_ref(), &*sent.call.body, "{format}");

            let decoded = percent_decode_str(request.uri().path()).decode_utf8().unwrap().into_owned();
            // lambda_http puts a REST API's stage before the path; there it has a name even if the call has none.
            let path = ["/live", "/prod"].iter().find_map(|stage| decoded.strip_prefix(stage)).unwrap_or(&decoded);
            assert_eq!(path, sent.decoded_path(), "{format}");
            // Kong adds no x-forwarded-proto, and of multi-value headers lambda_http makes no host.
            if !matches!(format, Format::KongGateway | Format::AlbMultiValue) {
                assert_eq!(request.uri().scheme_str(), Some(&*sent.call.scheme), "{format}");
                assert_eq!(request.uri().host(), Some("api.example.com"), "{format}");
            }

            let parameters = request.query_string_parameters();
            // ALB leaves decoding to the function, and lambda_http decodes in a way that loses `+`, `&`, `=` and `%`.
            if format != Format::AlbMultiValue {
                for (name, values) in sent.parameters() {
                    assert_eq!(parameters.all(&name).unwrap_or_default(), values, "{format} {name}");
                }
            }
            match format {
                Format::RestApi | Format::HttpApiV1 => {
                    // lambda_http puts the single values over the lists that say more.
                    arrived(&sent, request.headers(), &[], last);
                }
                Format::AlbMultiValue => arrived(&sent, request.headers(), &[], all),
                Format::HttpApi | Format::FunctionUrl => arrived(&sent, request.headers(), &["cookie"], joined),
                _ => {}
            }
            if let Some(crumbs) = sent.headers().get("cookie") && format != Format::KongGateway {
                let spelled = |text: &str| text.split(';').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect::<Vec<_>>();
                let got = request.headers().get("cookie").map(|value| value.to_str().unwrap().to_owned());
                assert_eq!(spelled(&got.unwrap_or_default()), spelled(&crumbs.join("; ")), "{format}");
            }
        }
    }

    #[test]
    fn every_event_is_json_whatever_the_call_says(
        texts in vec("\\PC{0,12}", 8),
        query in "[a-c=&%+\\PC]{0,24}",
        headers in vec(("\\PC{0,8}", "\\PC{0,8}"), 0..6),
        body in vec(any::<u8>(), 0..32),
    ) {
        let mut texts = texts.into_iter();
        let mut text = || texts.next().unwrap_or_default();
        let call = Call {
            method: text(), path: text(), query, headers, body: Bytes::from(body), source_ip: text(), scheme: text(),
            authority: text(), protocol: text(), route: text(), stage: text(), path_parameters: BTreeMap::new(),
            stage_variables: BTreeMap::new(), request_id: "id".to_owned(), authorizer: None, account_id: String::new(),
            api_id: String::new(), received: UNIX_EPOCH,
        };
        for format in Format::ALL {
            if let Ok(event) = format.encode(&call, FRONT) {
                let json: serde_json::Value = serde_json::from_slice(&event).unwrap();
                let (field, flag) = match format {
                    Format::Raw => continue,
                    Format::Envoy => ("body", "is_base64_encoded"),
                    Format::Kong => ("request_body", "request_body_base64"),
                    _ => ("body", "isBase64Encoded"),
                };
                let is_base64 = json.get(flag).and_then(serde_json::Value::as_bool).unwrap_or_default();
                let text = json.get(field).and_then(serde_json::Value::as_str);
                prop_assert_eq!(self::body(text, is_base64), call.body.to_vec(), "{}", format);
            }
        }
    }

    #[test]
    fn any_output_is_a_valid_reply_or_malformed(output in vec(any::<u8>(), 0..64)) {
        check(&output);
    }

    #[test]
    fn anything_like_a_response_is_a_valid_reply_or_malformed(
        status in select(vec!["200", "204", "0", "\"404\"", "1e2", "200.0", "99999", "null", "[]", "\"\""]),
        name in "[a-zA-Z:\\-\\PC]{0,8}",
        value in "\\PC{0,8}|[\r\n\t a-z]{0,4}",
        other in select(vec!["null", "true", "1.5", "{}", "[]", "[\"a\",null]", "\"x\\r\\ny: z\"", "\"YQ==\""]),
    ) {
        let pair = serde_json::json!({ name.clone(): value.clone(), "Transfer-Encoding": "chunked" });
        let lists = serde_json::json!({ name: [value] });
        check(format!(
            r#"{{"statusCode":{status},"headers":{pair},"multiValueHeaders":{lists},"cookies":{other},"body":{other},"isBase64Encoded":{other}}}"#
        ).as_bytes());
        check(format!(r#"{{"statusCode":{status},"headers":{other},"body":"YQ==","isBase64Encoded":true}}"#).as_bytes());
        check(format!(r#"{{"statusCode":{status},"headers":{pair},"body":"a\"b"}}"#).as_bytes());
    }
}

/// Runs an output through everything that reads outputs; the fuzz target `decode_output` does the same.
fn check(output: &[u8]) {
    let output = Bytes::copy_from_slice(output);
    for format in Format::ALL {
        match format.decode(output.clone()) {
            Ok(reply) => valid(&reply),
            Err(malformed) => {
                assert!(!malformed.to_string().is_empty());
                valid(&format.refusal(Failure::Malformed, "id-1"));
            }
        }
        if let Ok(head) = format.prelude(&output) {
            valid_headers(head.status, &head.headers);
        }
    }
    for header in ["Handled", "Unhandled"] {
        let fault = Fault::new(header, &output);
        assert_eq!(fault.kind == Kind::Handled, header == "Handled");
        let rule = Rule::new([fault.kind], 503).unwrap().body(rules::Body::Payload);
        let reply = rules::apply(&[rule], &fault, &output, || Format::Alb.refusal(Failure::Function, "id-1"));
        valid(&reply.unwrap());
    }
    let picks = Picks::new([("all", ""), ("body", "/body"), ("first", "/0"), ("deep", "/a/b/0/c")]).unwrap();
    for json in picks.apply(&output).values() {
        serde_json::from_str::<&serde_json::value::RawValue>(json).unwrap();
    }
}

fn valid(reply: &Reply) {
    valid_headers(reply.status, &reply.headers);
    let lengths: Vec<_> =
        reply.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).collect();
    if matches!(reply.status, 204 | 304) {
        assert!(reply.body.is_empty() && lengths.is_empty());
    } else {
        assert_eq!(lengths.len(), 1);
        assert_eq!(lengths[0].1, reply.body.len().to_string());
    }
}

fn valid_headers(status: u16, headers: &[(String, String)]) {
    assert!((200..600).contains(&status));
    for (name, value) in headers {
        HeaderName::from_bytes(name.as_bytes()).unwrap();
        HeaderValue::from_bytes(value.as_bytes()).unwrap();
        assert!(!["connection", "transfer-encoding", "upgrade"].contains(&&*name.to_ascii_lowercase()));
    }
}

#[test]
fn the_fuzzing_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/decode_output");
    let mut seeds = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        check(&fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds >= 20, "only {seeds} seeds");
}

#[test]
fn six_megabytes_go_both_ways() {
    let size = 6 * 1024 * 1024;
    for body in [Bytes::from(vec![b'a'; size]), Bytes::from(vec![0xff; size])] {
        let call = Call {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
            body: body.clone(),
            source_ip: String::new(),
            scheme: String::new(),
            authority: "a.example.com".to_owned(),
            protocol: String::new(),
            route: String::new(),
            stage: String::new(),
            path_parameters: BTreeMap::new(),
            stage_variables: BTreeMap::new(),
            request_id: "id".to_owned(),
            authorizer: None,
            account_id: String::new(),
            api_id: String::new(),
            received: UNIX_EPOCH,
        };
        let event = Format::HttpApi.encode(&call, FRONT).unwrap();
        let event: ApiGatewayV2httpRequest = serde_json::from_slice(&event).unwrap();
        assert_eq!(self::body(event.body.as_deref(), event.is_base64_encoded), body);
        let output = serde_json::json!({"statusCode": 200, "body": STANDARD.encode(&body), "isBase64Encoded": true});
        assert_eq!(Format::HttpApi.decode(Bytes::from(output.to_string())).unwrap().body, body);
    }
}
