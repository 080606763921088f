//! A client of the contract, for the command line: calls, and failures with their details taken apart.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use bytes::Bytes;
use rustls::RootCertStore;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use tonic::{
    Request, Status, Streaming,
    metadata::AsciiMetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::pb::{
    self, InvocationType, execute_policy_request::Input, execute_policy_response::Output, function_error,
    policy_service_client::PolicyServiceClient,
};

/// The largest answer that is read, as the service's own limit.
const MAX_MESSAGE: usize = super::MAX_MESSAGE;

/// A connection to a service.
#[derive(Debug)]
pub struct Client {
    calls: PolicyServiceClient<Channel>,
    authorization: Option<AsciiMetadataValue>,
}

/// How a service that speaks TLS is trusted, and how it knows the caller. In PEM.
#[derive(Debug, Default)]
pub struct Trust {
    /// The authorities of the service's certificate; the system's without.
    pub ca: Option<Vec<u8>>,
    /// The caller's certificate and key.
    pub identity: Option<(Vec<u8>, SecretSlice<u8>)>,
    /// A bearer token to be known by.
    pub token: Option<SecretString>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// What was asked for cannot be.
    Wrong(String),
    /// Nobody listens there, or nobody to be trusted.
    Unreachable(String),
}

/// A part of an answer that comes as the function writes it.
#[derive(Debug)]
pub enum Part {
    /// The status and the type of an HTTP answer; nothing but the first part.
    Start {
        /// Lambda's status.
        status: i32,
        /// The version that runs.
        version: String,
        /// AWS's id of the request.
        request: String,
    },
    /// What the function wrote.
    Chunk(Bytes),
    /// The last part.
    End {
        /// Kind, type and message of the function's own failure.
        error: Option<(&'static str, String, String)>,
        /// The end of the log.
        log: String,
        /// How long the service took.
        total_ms: i64,
    },
}

/// The parts of an answer.
#[derive(Debug)]
pub struct Parts(Streaming<pb::ExecutePolicyStreamResponse>);

/// An answer of the function.
#[derive(Debug)]
pub struct Outcome {
    /// Lambda's status.
    pub status: i32,
    /// The function's output as text, if there is one.
    pub output: Option<String>,
    /// Kind, type and message of the function's own failure.
    pub error: Option<(&'static str, String, String)>,
    /// The version that ran.
    pub version: String,
    /// AWS's id of the request.
    pub request: String,
    /// The end of the log.
    pub log: String,
    /// How long the service took.
    pub total_ms: i64,
}

/// No answer of the function.
#[derive(Debug)]
pub struct Failure {
    /// The contract's reason, or the gRPC code's name where there is none.
    pub reason: String,
    /// The gRPC code's name.
    pub code: String,
    /// The message.
    pub message: String,
    /// The fields that are wrong.
    pub violations: Vec<(String, String)>,
    /// Policy, function, region, and whether the function may have run.
    pub metadata: BTreeMap<String, String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Client {
    /// Connects: by TLS if the address says `https`, or says neither and there is something to trust.
    ///
    /// # Errors
    /// If the address or a certificate is none, or nobody listens there who can be trusted.
    pub async fn connect(address: &str, trust: Trust) -> Result<Self, ConnectError> {
        let authorization = trust.token.as_ref().map(bearer).transpose()?;
        let channel = channel(address, trust).await?;
        let calls = PolicyServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { calls, authorization })
    }

    /// Calls a policy with JSON.
    ///
    /// # Errors
    /// If there is no answer of the function.
    pub async fn call_json(
        &mut self,
        policy: &str,
        json: String,
        invocation: Option<&str>,
        qualifier: &str,
        timeout: Option<Duration>,
    ) -> Result<Outcome, Failure> {
        let request = self.known(request(policy, json, invocation, qualifier, timeout));
        match self.calls.execute_policy(request).await {
            Ok(response) => Ok(Outcome::from(response.into_inner())),
            Err(status) => Err(Failure::from(status)),
        }
    }

    /// Calls a policy with JSON, and gives the answer as it comes.
    ///
    /// # Errors
    /// If there is no answer of the function.
    pub async fn stream_json(
        &mut self,
        policy: &str,
        json: String,
        invocation: Option<&str>,
        qualifier: &str,
        timeout: Option<Duration>,
    ) -> Result<Parts, Failure> {
        let request = self.known(request(policy, json, invocation, qualifier, timeout));
        match self.calls.execute_policy_stream(request).await {
            Ok(response) => Ok(Parts(response.into_inner())),
            Err(status) => Err(Failure::from(status)),
        }
    }
}

impl Client {
    fn known<T>(&self, mut request: Request<T>) -> Request<T> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

impl Parts {
    /// The next part; none after the end.
    ///
    /// # Errors
    /// If the answer breaks off: what came is not the whole of it.
    pub async fn next(&mut self) -> Result<Option<Part>, Failure> {
        use pb::execute_policy_stream_response::Part as Wire;
        while let Some(message) = self.0.message().await? {
            match message.part {
                Some(Wire::Start(start)) => {
                    return Ok(Some(Part::Start {
                        status: start.status,
                        version: start.version,
                        request: start.request,
                    }));
                }
                Some(Wire::Chunk(chunk)) => return Ok(Some(Part::Chunk(chunk))),
                Some(Wire::End(end)) => {
                    let total_ms = end.timing.map_or(0, |timing| timing.total_us / 1000);
                    return Ok(Some(Part::End { error: end.error.map(function_error), log: end.log, total_ms }));
                }
                // A part that came after this was written.
                None => {}
            }
        }
        Ok(None)
    }
}

/// Asks gRPC's health service whether the service as a whole wants calls.
///
/// # Errors
/// Why it does not, or cannot be asked.
pub async fn ready(address: &str, trust: Trust) -> Result<(), String> {
    let channel = channel(address, trust).await.map_err(|error| error.to_string())?;
    let request = HealthCheckRequest { service: String::new() };
    match HealthClient::new(channel).check(request).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(format!("{address}: not ready: {}", other.as_str_name())),
        },
        Err(status) => Err(format!("{address}: {:?}: {}", status.code(), status.message())),
    }
}

async fn channel(address: &str, trust: Trust) -> Result<Channel, ConnectError> {
    let given = trust.ca.is_some() || trust.identity.is_some();
    let address = match address.split_once("://") {
        _ if address.starts_with("unix:") && given => {
            return Err(ConnectError::Wrong(format!("{address}: has no TLS to use certificates for")));
        }
        None if address.starts_with("unix:") => address.to_owned(),
        Some(("http", _)) if given => {
            return Err(ConnectError::Wrong(format!("{address}: has no TLS to use certificates for: say https")));
        }
        Some(_) => address.to_owned(),
        None => format!("http{}://{address}", if given { "s" } else { "" }),
    };
    let told = |error: tonic::transport::Error| {
        let mut told = format!("{address}: {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let _ = write!(told, ": {cause}");
            source = cause.source();
        }
        told
    };
    let mut endpoint = Endpoint::from_shared(address.clone()).map_err(|error| ConnectError::Wrong(told(error)))?;
    if address.starts_with("https://") {
        endpoint = endpoint.tls_config(trust.config()).map_err(|error| ConnectError::Wrong(told(error)))?;
    }
    let endpoint = endpoint.connect_timeout(Duration::from_secs(5));
    endpoint.connect().await.map_err(|error| ConnectError::Unreachable(told(error)))
}

fn request(
    policy: &str,
    json: String,
    invocation: Option<&str>,
    qualifier: &str,
    timeout: Option<Duration>,
) -> Request<pb::ExecutePolicyRequest> {
    let invocation = match invocation {
        None => InvocationType::Unspecified,
        Some("event") => InvocationType::Event,
        Some("dry-run") => InvocationType::DryRun,
        Some(_) => InvocationType::RequestResponse,
    };
    let mut request = Request::new(pb::ExecutePolicyRequest {
        policy: policy.to_owned(),
        input: Some(Input::Json(json)),
        invocation: invocation.into(),
        qualifier: qualifier.to_owned(),
        ..Default::default()
    });
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}

fn function_error(error: pb::FunctionError) -> (&'static str, String, String) {
    let kind = match error.kind() {
        function_error::Kind::Handled => "handled",
        function_error::Kind::Malformed => "malformed",
        function_error::Kind::Unhandled | function_error::Kind::Unspecified => "unhandled",
    };
    (kind, error.r#type, error.message)
}

/// The header of a token. A debug print does not show it, nor does the connection remember it for compression.
fn bearer(token: &SecretString) -> Result<AsciiMetadataValue, ConnectError> {
    let mut value: AsciiMetadataValue = format!("Bearer {}", token.expose_secret())
        .parse()
        .map_err(|_| ConnectError::Wrong("the token has characters that no header has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Trust {
    fn config(self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new();
        let config = match self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(ca)),
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                config.trust_anchors(roots.roots)
            }
        };
        match self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key.expose_secret())),
            None => config,
        }
    }
}

impl From<pb::ExecutePolicyResponse> for Outcome {
    fn from(response: pb::ExecutePolicyResponse) -> Self {
        let output = response.output.map(|output| match output {
            Output::Json(text) => text,
            Output::Payload(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Output::Http(http) => format!("HTTP {}\n{}", http.status, String::from_utf8_lossy(&http.body)),
        });
        let error = response.error.map(function_error);
        Self {
            status: response.status,
            output,
            error,
            version: response.version,
            request: response.request,
            log: response.log,
            total_ms: response.timing.map_or(0, |timing| timing.total_us / 1000),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let code = format!("{:?}", status.code());
        Self {
            reason: info.map_or_else(|| code.clone(), |info| info.reason.clone()),
            code,
            message: status.message().to_owned(),
            violations: details
                .bad_request()
                .map(|bad| bad.field_violations.iter().map(|v| (v.field.clone(), v.description.clone())).collect())
                .unwrap_or_default(),
            metadata: info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Wrong(told) | Self::Unreachable(told)) = self;
        f.write_str(told)
    }
}

impl std::error::Error for ConnectError {}
