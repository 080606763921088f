//! The native RPCs: `ExecutePolicy`, `ExecutePolicyStream` and `ListPolicies`.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::{deadline::Deadline, decode, encode, envoy::given, no_call, status::status};
use crate::{
    error::Error,
    execute::{self, Engine},
    pb::{self, execute_policy_request::Input, policy_service_server::PolicyService},
    policy::Caller,
    telemetry::access::Line,
};

/// The contract's service over the engine.
#[derive(Debug)]
pub(super) struct Service {
    engine: Arc<Engine>,
}

impl Service {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    fn line(&self, rpc: &'static str, request: &mut Request<pb::ExecutePolicyRequest>) -> Line {
        identify(request);
        let wire = request.get_ref();
        let (id, headers) = match &wire.input {
            Some(Input::Http(call)) => (call.request_id.as_str(), call.headers.as_slice()),
            Some(Input::Payload(_) | Input::Json(_)) | None => (given(request.metadata()).unwrap_or_default(), &[][..]),
        };
        let headers = headers.iter().map(|header| (header.name.as_str(), header.value.as_str()));
        let trace = self.engine.trace(request.extensions().get().cloned(), headers);
        self.engine.line(rpc, &wire.policy).of(id).by(&Caller::of(request.extensions())).within(trace)
    }

    fn decode(&self, request: Request<pb::ExecutePolicyRequest>) -> Result<execute::Request, Error> {
        let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        let caller = Caller::of(request.extensions());
        let inline = || self.engine.inline(&caller);
        let about = |name: &str, error| self.engine.about(&caller, name, error);
        decode::request(request.into_inner(), caller.clone(), deadline, inline, about)
    }
}

/// Gives an HTTP call that says nothing of its id the one that the gateway gave the RPC, as Envoy does by itself.
fn identify(request: &mut Request<pb::ExecutePolicyRequest>) {
    if !matches!(&request.get_ref().input, Some(Input::Http(call)) if call.request_id.is_empty()) {
        return;
    }
    if let Some(id) = given(request.metadata()).map(str::to_owned)
        && let Some(Input::Http(call)) = &mut request.get_mut().input
    {
        call.request_id = id;
    }
}

#[tonic::async_trait]
impl PolicyService for Service {
    async fn execute_policy(
        &self,
        mut request: Request<pb::ExecutePolicyRequest>,
    ) -> Result<Response<pb::ExecutePolicyResponse>, Status> {
        let line = self.line("ExecutePolicy", &mut request);
        let result = match self.decode(request) {
            Ok(request) => self.engine.execute(request.told_by(&line)).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(reply) => {
                line.answered(reply.answered());
                Ok(Response::new(encode::reply(reply)))
            }
            Err(error) => {
                line.failed(&error);
                Err(status(&error))
            }
        }
    }

    type ExecutePolicyStreamStream =
        Pin<Box<dyn Stream<Item = Result<pb::ExecutePolicyStreamResponse, Status>> + Send>>;

    async fn execute_policy_stream(
        &self,
        mut request: Request<pb::ExecutePolicyRequest>,
    ) -> Result<Response<Self::ExecutePolicyStreamStream>, Status> {
        let line = self.line("ExecutePolicyStream", &mut request);
        let request = match self.decode(request) {
            Ok(request) => request.told_by(&line),
            Err(error) => {
                line.failed(&error);
                return Err(status(&error));
            }
        };
        let mut answer = self.engine.stream(request, line).await.map_err(|error| status(&error))?;
        let start = encode::start(&mut answer);
        let parts = futures::stream::unfold(answer, |mut answer| async {
            let part = answer.next().await?;
            Some((part.map(encode::part).map_err(|error| status(&error)), answer))
        });
        Ok(Response::new(Box::pin(futures::stream::once(async { Ok(start) }).chain(parts))))
    }

    async fn list_policies(
        &self,
        request: Request<pb::ListPoliciesRequest>,
    ) -> Result<Response<pb::ListPoliciesResponse>, Status> {
        let caller = Caller::of(request.extensions());
        encode::policies(&self.engine.policies(), &caller).map(Response::new).map_err(|error| {
            no_call::refused("ListPolicies", &caller, &error);
            status(&error)
        })
    }
}
