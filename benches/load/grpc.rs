//! The least of a gRPC service with the product's contract: one method, and tonic's defaults.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use lambda_policy::pb::{ExecutePolicyRequest, ExecutePolicyResponse, execute_policy_request::Input};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::Outcome;

/// As the product's.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// Whoever can have a function answer.
pub(crate) trait Invoke: Send + Sync + 'static {
    fn invoke(&self, function: &str, payload: Bytes) -> impl Future<Output = Outcome<ExecutePolicyResponse>> + Send;
}

/// The method, over any way to invoke.
#[derive(Debug)]
struct ExecutePolicy<I>(Arc<I>);

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves on a free port, whose address is printed, until the process ends.
#[expect(clippy::print_stdout, reason = "the starter reads the address")]
pub(crate) async fn serve(invoke: impl Invoke) -> Outcome<()> {
    crate::process::end_with_parent();
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(ExecutePolicy(Arc::new(invoke))).serve_with_incoming(incoming).await?)
}

impl<I> Clone for ExecutePolicy<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I> NamedService for ExecutePolicy<I> {
    const NAME: &'static str = lambda_policy::pb::policy_service_server::SERVICE_NAME;
}

impl<I: Invoke> Service<http::Request<Body>> for ExecutePolicy<I> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            let mut grpc =
                Grpc::new(ProstCodec::default()).apply_max_message_size_config(Some(MAX_MESSAGE), Some(MAX_MESSAGE));
            Ok(grpc.unary(method, request).await)
        })
    }
}

impl<I: Invoke> UnaryService<ExecutePolicyRequest> for ExecutePolicy<I> {
    type Response = ExecutePolicyResponse;
    type Future = Answering<Result<Response<ExecutePolicyResponse>, Status>>;

    fn call(&mut self, request: Request<ExecutePolicyRequest>) -> Self::Future {
        let invoke = Arc::clone(&self.0);
        Box::pin(async move {
            let request = request.into_inner();
            let Some(Input::Payload(payload)) = request.input else {
                return Err(Status::invalid_argument("only payloads are measured"));
            };
            let answer = invoke.invoke(&request.policy, payload).await;
            answer.map(Response::new).map_err(|error| Status::internal(error.to_string()))
        })
    }
}
