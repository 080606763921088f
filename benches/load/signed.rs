//! The least of a signed call: `aws-sigv4` and a pool of HTTP/1.1 connections.

use std::{net::SocketAddr, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use lambda_policy::pb::{ExecutePolicyResponse, execute_policy_response::Output};

use crate::{Outcome, grpc::Invoke};

/// What all targets sign with.
pub(crate) const KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(crate) const REGION: &str = "us-east-1";

/// An upstream that is called directly.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    client: Client<HttpConnector, Full<Bytes>>,
    identity: Identity,
    url: String,
}

impl Signed {
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(tcp),
            identity: Credentials::new(KEY_ID, SECRET, None, None, "load").into(),
            url: format!("http://{upstream}/2015-03-31/functions/"),
        }
    }

    fn request(&self, function: &str, payload: Bytes) -> Outcome<Request<Full<Bytes>>> {
        let url = format!("{}{function}/invocations", self.url);
        let params = v4::SigningParams::builder()
            .identity(&self.identity)
            .region(REGION)
            .name("lambda")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = [("content-type", "application/json")];
        let signable = SignableRequest::new("POST", &*url, headers.into_iter(), SignableBody::Bytes(&payload))?;
        let (instructions, _) = sign(signable, &params)?.into_parts();
        let mut request = Request::post(url).header("content-type", "application/json").body(Full::new(payload))?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

impl Invoke for Signed {
    async fn invoke(&self, function: &str, payload: Bytes) -> Outcome<ExecutePolicyResponse> {
        let response = self.client.request(self.request(function, payload)?).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(format!("the upstream answered {status}").into());
        }
        let payload = response.into_body().collect().await?.to_bytes();
        Ok(ExecutePolicyResponse {
            status: i32::from(status.as_u16()),
            output: Some(Output::Payload(payload)),
            ..Default::default()
        })
    }
}
