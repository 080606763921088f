//! The SDK alone: a service that calls `aws-sdk-lambda` with its defaults, retries off, over one pool of connections.

use std::fmt;

use aws_sdk_lambda::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    operation::RequestId,
    primitives::Blob,
};
use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use hyper_util::{
    client::legacy::{self, connect},
    rt::TokioExecutor,
};
use lambda_policy::pb::{ExecutePolicyResponse, execute_policy_response::Output};

use crate::{
    Outcome,
    grpc::{self, Invoke},
    signed,
    target::Args,
};

#[derive(Clone, Debug)]
struct Sdk(Client);

/// The SDK's own connector would bring another TLS; this one is as plain as the floor's.
#[derive(Clone)]
struct Pool(legacy::Client<connect::HttpConnector, SdkBody>);

#[tokio::main]
pub(crate) async fn serve(args: &Args) -> Outcome<()> {
    let mut tcp = connect::HttpConnector::new();
    tcp.set_nodelay(true);
    let config = aws_sdk_lambda::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(signed::REGION))
        .credentials_provider(Credentials::new(signed::KEY_ID, signed::SECRET, None, None, "load"))
        .retry_config(RetryConfig::disabled())
        .http_client(Pool(legacy::Client::builder(TokioExecutor::new()).build(tcp)))
        .endpoint_url(format!("http://{}", args.upstream))
        .build();
    grpc::serve(Sdk(Client::from_conf(config))).await
}

impl Invoke for Sdk {
    async fn invoke(&self, function: &str, payload: Bytes) -> Outcome<ExecutePolicyResponse> {
        let answer = self.0.invoke().function_name(function).payload(Blob::from_maybe_shared(payload)).send().await?;
        Ok(ExecutePolicyResponse {
            status: answer.status_code,
            request: answer.request_id().unwrap_or_default().to_owned(),
            version: answer.executed_version.unwrap_or_default(),
            output: answer.payload.map(|blob| Output::Payload(blob.into_inner().into())),
            ..Default::default()
        })
    }
}

impl HttpConnector for Pool {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let response = client.request(request).await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

impl HttpClient for Pool {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}
