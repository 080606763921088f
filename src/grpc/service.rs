//! The native RPCs: `ExecutePolicy` and `ListPolicies`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{deadline::Deadline, decode, encode, status::status};
use crate::{
    execute::Engine,
    pb::{self, policy_service_server::PolicyService},
    telemetry::access,
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
}

#[tonic::async_trait]
impl PolicyService for Service {
    async fn execute_policy(
        &self,
        request: Request<pb::ExecutePolicyRequest>,
    ) -> Result<Response<pb::ExecutePolicyResponse>, Status> {
        let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        let line = access::Line::start("ExecutePolicy", &request.get_ref().policy);
        let inline = || self.engine.policies().inline.clone();
        let about = |name: &str, error| self.engine.about(name, error);
        let result = match decode::request(request.into_inner(), deadline, inline, about) {
            Ok(request) => self.engine.execute(request).await,
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

    async fn list_policies(
        &self,
        _: Request<pb::ListPoliciesRequest>,
    ) -> Result<Response<pb::ListPoliciesResponse>, Status> {
        let policies = self.engine.policies();
        let mut policies: Vec<_> = policies.named.values().map(|policy| encode::policy(policy)).collect();
        policies.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Response::new(pb::ListPoliciesResponse { policies }))
    }
}
