//! What a gateway says of a call in the messages of its stream.

use bytes::Bytes;

use crate::{
    event, execute,
    grpc::envoy::{self, Hints, last, pairs},
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
    pub(super) fn read(first: &ProcessingRequest) -> Self {
        let text = |key: &str| first.attributes.values().find_map(|fields| envoy::text(fields, key));
        let header = match &first.request {
            Some(Message::RequestHeaders(message)) => {
                let headers = message.headers.iter().flat_map(|map| &map.headers);
                let mut ids = headers.filter(|header| header.key.eq_ignore_ascii_case("x-request-id"));
                ids.next().map(envoy::header_text)
            }
            _ => None,
        };
        let request_id = header.or_else(|| text("request.id")).filter(|id| !id.is_empty());
        Self {
            route: text("xds.route_name"),
            source: text("source.address"),
            protocol: text("request.protocol"),
            request_id: request_id.unwrap_or_else(execute::request_id),
        }
    }
}

pub(super) fn hints(named: Option<String>, first: &mut ProcessingRequest, attributes: &Attributes) -> Hints {
    let headers = match &first.request {
        Some(Message::RequestHeaders(message)) => pairs(message.headers.clone()),
        _ => Vec::new(),
    };
    let pseudo = |name: &str| last(&headers, name).unwrap_or_default().to_owned();
    let path = pseudo(":path");
    Hints {
        named: named.or_else(|| envoy::named_in_metadata(first.metadata_context.as_ref())),
        route: attributes.route.clone(),
        host: pseudo(":authority"),
        path: path.split('?').next().unwrap_or_default().to_owned(),
    }
}

pub(super) fn call(mut headers: Vec<(String, String)>, body: Bytes, attributes: &Attributes) -> event::Call {
    let source_ip = envoy::source_ip(attributes.source.as_deref(), &headers);
    let mut pseudo = |name: &str| {
        let at = headers.iter().position(|(given, _)| given == name)?;
        Some(headers.remove(at).1)
    };
    let (method, path) = (pseudo(":method").unwrap_or_default(), pseudo(":path").unwrap_or_default());
    let (authority, scheme) = (pseudo(":authority").unwrap_or_default(), pseudo(":scheme"));
    let (path, query) = path.split_once('?').map_or((path.as_str(), ""), |(path, query)| (path, query));
    let call = event::Call {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        source_ip,
        scheme: last(&headers, "x-forwarded-proto").map(str::to_owned).or(scheme).unwrap_or_default(),
        authority,
        protocol: attributes.protocol.clone().unwrap_or_default(),
        body,
        headers: Vec::new(),
        route: String::new(),
        stage: String::new(),
        path_parameters: Default::default(),
        stage_variables: Default::default(),
        request_id: attributes.request_id.clone(),
        authorizer: None,
        account_id: String::new(),
        api_id: String::new(),
        received: std::time::SystemTime::now(),
    };
    event::Call { headers, ..call }
}
