//! What a gateway says of a call in the messages of its stream.

use bytes::Bytes;

use crate::{
    event, execute,
    grpc::envoy::{self, Hints, last},
    pb::envoy::service::ext_proc::v3::{ProcessingRequest, processing_request::Request as Message},
};

/// What attributes say of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    route: Option<String>,
    source: Option<String>,
    protocol: Option<String>,
    pub request_id: String,
}

impl Attributes {
    /// Of the stream's first message; `given` is the id that the gateway gave the stream.
    pub(super) fn read(first: &ProcessingRequest, given: Option<&str>) -> Self {
        let text = |key: &str| first.attributes.values().find_map(|fields| envoy::text(fields, key));
        let given = || given.filter(|id| !id.is_empty()).map(str::to_owned);
        let request_id = header(first, "x-request-id").or_else(|| text("request.id")).or_else(given);
        Self {
            route: text("xds.route_name"),
            source: text("source.address"),
            protocol: text("request.protocol"),
            request_id: request_id.unwrap_or_else(execute::request_id),
        }
    }
}

/// The last value of a request's header.
fn header(first: &ProcessingRequest, name: &str) -> Option<String> {
    let Some(Message::RequestHeaders(message)) = &first.request else { return None };
    let header = message.headers.as_ref()?.headers.iter().rfind(|header| header.key.eq_ignore_ascii_case(name))?;
    Some(envoy::header_text(header).trim().to_owned()).filter(|text| !text.is_empty())
}

/// What the first message says of the call's policy; `named` is what the stream's metadata does.
pub(super) fn hints(named: Option<String>, first: &ProcessingRequest, attributes: &Attributes) -> Hints {
    let path = header(first, ":path").unwrap_or_default();
    Hints {
        named: named.or_else(|| envoy::named_in_metadata(first.metadata_context.as_ref())),
        route: attributes.route.clone(),
        host: header(first, ":authority").unwrap_or_default(),
        path: path.split('?').next().unwrap_or_default().to_owned(),
    }
}

/// The call, of which the pseudo-headers say what it is.
pub(super) fn call(mut headers: Vec<(String, String)>, body: Bytes, attributes: &Attributes) -> event::Call {
    let source_ip = envoy::source_ip(attributes.source.as_deref(), &headers);
    let mut pseudo = |name: &str| {
        let at = headers.iter().position(|(given, _)| given == name)?;
        Some(headers.remove(at).1)
    };
    let (method, path) = (pseudo(":method").unwrap_or_default(), pseudo(":path").unwrap_or_default());
    let (authority, scheme) = (pseudo(":authority").unwrap_or_default(), pseudo(":scheme"));
    let (path, query) = path.split_once('?').map_or((path.as_str(), ""), |(path, query)| (path, query));
    event::Call {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        source_ip,
        scheme: last(&headers, "x-forwarded-proto").map(str::to_owned).or(scheme).unwrap_or_default(),
        authority,
        protocol: attributes.protocol.clone().unwrap_or_default(),
        body,
        route: String::new(),
        stage: String::new(),
        path_parameters: Default::default(),
        stage_variables: Default::default(),
        request_id: attributes.request_id.clone(),
        authorizer: None,
        account_id: String::new(),
        api_id: String::new(),
        received: std::time::SystemTime::now(),
        // The last one, as others are read off them.
        headers,
    }
}
