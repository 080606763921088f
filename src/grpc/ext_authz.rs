//! Envoy's external authorization: the function decides whether a call may pass. Whatever goes wrong, it may not.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use tonic::{Code, Request, Response, Status};

use super::{
    deadline::Deadline,
    envoy::{self, Hints, Place, last, set},
};
use crate::{
    error::{Error, Kind},
    event,
    execute::{self, Asking, Decision, Engine, answer::problem},
    pb::{
        envoy::{
            config::core::v3::address::Address,
            service::auth::v3::{
                AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
                authorization_server::Authorization, check_response::HttpResponse,
            },
            r#type::v3::HttpStatus,
        },
        google::rpc,
    },
    policy::Caller,
    trace::Context,
};

const RPC: &str = "ext_authz";

/// The gateway's service over the engine.
#[derive(Debug)]
pub(super) struct Service {
    engine: Arc<Engine>,
}

impl Service {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    async fn check(
        &self,
        caller: Caller,
        named: Option<String>,
        attributes: AttributeContext,
        deadline: Option<Deadline>,
        told: Option<Context>,
    ) -> CheckResponse {
        let (hints, call) = read(named, attributes);
        let headers = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let trace = self.engine.trace(told, headers);
        let request_id = call.request_id.clone();
        let refuse = |error: Error| denied(problem(&error, &request_id), "no authorizer is found");
        // To pass by default is for functions that answer, and not for those that guard.
        let chosen = envoy::choose(&self.engine.policies(), &caller, &hints).and_then(|policy| {
            policy.ok_or_else(|| Error::new(Kind::PolicyNotFound, "no policy is named, and no route fits"))
        });
        let policy = match chosen {
            Ok(policy) => policy,
            Err(error) => {
                let line = self.engine.line(RPC, hints.named.as_deref().unwrap_or(execute::NO_POLICY));
                line.of(&request_id).by(&caller).within(trace).failed(&error);
                return refuse(error);
            }
        };
        let Some(authorizer) = policy.authorizer.clone() else {
            let error =
                Error::field("policy", "is no authorizer: its `authorizer` is not set").with_about(policy.about());
            let line = self.engine.line(RPC, policy.name.as_str()).of(&request_id);
            line.by(&caller).within(trace).failed(&error);
            return refuse(error);
        };
        let asking = Asking { caller, deadline: deadline.map(|deadline| deadline.0), rpc: RPC, trace };
        match self.engine.authorize(asking, Arc::clone(&policy), &authorizer, call).await {
            Ok(Decision::Allowed(verdict)) => {
                let headers = authorizer.headers_of(&verdict);
                // What the answer does not say must not come from the client.
                let unsaid = authorizer.headers.iter().map(|(name, _)| name);
                let unsaid = unsaid.filter(|name| !headers.iter().any(|(said, _)| said == *name)).cloned().collect();
                let principal = ("principalId".to_owned(), serde_json::json!(verdict.principal).to_string());
                let principal = Some(principal).filter(|_| !verdict.principal.is_empty());
                let said = verdict.context.iter().chain(principal.iter().map(|(name, json)| (name, json)));
                CheckResponse {
                    status: Some(rpc::Status { code: Code::Ok.into(), ..rpc::Status::default() }),
                    dynamic_metadata: envoy::dynamic_metadata(said),
                    http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
                        headers: set(headers, Place::Text),
                        headers_to_remove: unsaid,
                    })),
                }
            }
            Ok(Decision::Refused(reply)) => denied(reply, "the authorizer does not let the call pass"),
            Err(error) => refuse(error),
        }
    }
}

#[tonic::async_trait]
impl Authorization for Service {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let deadline = request.extensions().get::<Deadline>().copied();
        let caller = Caller::of(request.extensions());
        let told = request.extensions().get().cloned();
        let named = envoy::named(request.metadata());
        let attributes = request.into_inner().attributes.unwrap_or_default();
        Ok(Response::new(self.check(caller, named, attributes, deadline, told).await))
    }
}

/// Envoy tells the client this in the upstream's place.
fn denied(reply: event::Reply, why: &str) -> CheckResponse {
    let event::Reply { status, mut headers, body } = reply;
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
    let code = if status == 401 { Code::Unauthenticated } else { Code::PermissionDenied };
    CheckResponse {
        status: Some(rpc::Status { code: code.into(), message: why.to_owned(), details: Vec::new() }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: u32::from(status) }),
            headers: set(headers, Place::Text),
            // The service's own answers are JSON.
            body: String::from_utf8_lossy(&body).into_owned(),
        })),
    }
}

/// What the gateway says of a call.
fn read(named: Option<String>, attributes: AttributeContext) -> (Hints, event::Call) {
    let AttributeContext { source, request, mut context_extensions, metadata_context, route_metadata_context } =
        attributes;
    let request = request.unwrap_or_default();
    let received = request.time.and_then(|time| SystemTime::try_from(time).ok()).unwrap_or_else(SystemTime::now);
    let http = request.http.unwrap_or_default();
    let mut headers = match http.header_map {
        Some(map) => envoy::pairs(Some(map)),
        None => {
            let mut headers: Vec<_> = http.headers.into_iter().collect();
            headers.sort_unstable();
            headers
        }
    };
    headers.retain(|(name, _)| !name.starts_with(':'));
    let (path, query) = http.path.split_once('?').unwrap_or((&http.path, ""));
    let peer = source.and_then(|source| source.address).and_then(|address| address.address);
    let address = peer.map(|Address::SocketAddress(address)| address.address).filter(|address| !address.is_empty());
    let id = last(&headers, "x-request-id").map(str::to_owned).or(Some(http.id)).filter(|id| !id.is_empty());
    let named = named
        .or_else(|| context_extensions.remove("policy").filter(|name| !name.is_empty()))
        .or_else(|| envoy::named_in_metadata(metadata_context.as_ref()))
        .or_else(|| envoy::named_in_metadata(route_metadata_context.as_ref()));
    let hints = Hints { named, route: None, host: http.host.clone(), path: path.to_owned() };
    let call = event::Call {
        method: http.method,
        path: path.to_owned(),
        query: query.to_owned(),
        source_ip: address.unwrap_or_else(|| envoy::source_ip(None, &headers)),
        scheme: last(&headers, "x-forwarded-proto").map(str::to_owned).unwrap_or(http.scheme),
        authority: http.host,
        protocol: http.protocol,
        body: if http.raw_body.is_empty() { Bytes::from(http.body) } else { http.raw_body },
        headers,
        route: String::new(),
        stage: String::new(),
        path_parameters: Default::default(),
        stage_variables: Default::default(),
        request_id: id.unwrap_or_else(execute::request_id),
        authorizer: None,
        account_id: String::new(),
        api_id: String::new(),
        received,
    };
    (hints, call)
}
