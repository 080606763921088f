//! A service and a Lambda on free ports, and calls that say what they found.

pub(crate) mod browser;
pub(crate) mod churn;
pub(crate) mod collector;
pub(crate) mod envoy;
pub(crate) mod envoy_package;
pub(crate) mod linters;
pub(crate) mod load;
pub(crate) mod proxy;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lambda_policy::{
    app::{self, Listeners},
    config::Config,
    local::{Lambda, Options},
    pb::{
        ExecutePolicyRequest, ExecutePolicyResponse, execute_policy_request::Input, execute_policy_response::Output,
        policy_service_client::PolicyServiceClient,
    },
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

/// A running service; it stops when it is dropped.
pub(crate) struct Service {
    pub client: PolicyServiceClient<Channel>,
    pub address: String,
    pub admin: String,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), app::Error>>,
}

/// What a failed call said.
#[derive(Debug)]
pub(crate) struct Failed {
    pub code: Code,
    pub reason: String,
    pub ran: String,
    pub status: Status,
}

pub(crate) async fn lambda() -> Lambda {
    lambda_with(Options::default()).await
}

pub(crate) async fn lambda_with(options: Options) -> Lambda {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    Lambda::start(listener, options).unwrap()
}

/// A configuration whose policies sign with the embedded Lambda's key unless they say otherwise.
pub(crate) fn config(lambda: &Lambda, server: &str, policies: &str) -> String {
    let url = lambda.url();
    format!(
        "server: {{listen: '127.0.0.1:0', drain_delay: 0s, {server}}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
         defaults:\n  region: us-east-1\n  endpoint: {{url: '{url}'}}\n  sts_endpoint: '{url}'\n  \
         credentials: {{access_key_id: {}, secret_access_key: {}}}\npolicies:\n{policies}",
        Lambda::KEY_ID,
        Lambda::SECRET,
    )
}

impl Service {
    pub(crate) async fn start(lambda: &Lambda, policies: &str) -> Self {
        Self::start_with(&config(lambda, "", policies), None).await
    }

    pub(crate) async fn start_with(text: &str, file: Option<PathBuf>) -> Self {
        let config =
            Config::parse(text, file.as_deref().unwrap_or("test.yaml".as_ref())).unwrap_or_else(|f| panic!("{f}"));
        Self::run(config, file).await
    }

    pub(crate) async fn run(config: Config, file: Option<PathBuf>) -> Self {
        let listeners = Listeners::bind(&config).await.unwrap();
        let address = listeners.grpc.local_addr().unwrap().to_string();
        let admin = listeners.admin.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(app::run(config, file.map(Into::into), listeners, async {
            let _ = stopped.await;
        }));
        let client = client(&address).await;
        Self { client, address, admin, stop: Some(stop), running }
    }

    /// Stops it, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
            (&mut self.running).await.unwrap().unwrap();
        }
    }

    pub(crate) async fn call(&self, request: ExecutePolicyRequest) -> Result<ExecutePolicyResponse, Failed> {
        execute(&self.client, request).await
    }

    /// Calls a policy with JSON.
    pub(crate) async fn json(&self, policy: &str, json: &str) -> Result<ExecutePolicyResponse, Failed> {
        self.call(request(policy, json)).await
    }
}

pub(crate) async fn channel(address: &str) -> Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    eventually("a connection", async || endpoint.connect().await.ok()).await
}

pub(crate) async fn client(address: &str) -> PolicyServiceClient<Channel> {
    client_of(channel(address).await)
}

pub(crate) fn client_of(channel: Channel) -> PolicyServiceClient<Channel> {
    PolicyServiceClient::new(channel).max_decoding_message_size(16 << 20).max_encoding_message_size(64 << 20)
}

pub(crate) async fn execute(
    client: &PolicyServiceClient<Channel>,
    request: impl tonic::IntoRequest<ExecutePolicyRequest>,
) -> Result<ExecutePolicyResponse, Failed> {
    client.clone().execute_policy(request).await.map(tonic::Response::into_inner).map_err(Failed::from)
}

/// A call that fails.
pub(crate) async fn fail_raw(address: &str, timeout: &str, request: ExecutePolicyRequest) -> Failed {
    let response = raw(address, "lambdapolicy.v1.PolicyService/ExecutePolicy", timeout, &request).await;
    Failed::from(Status::from_header_map(response.headers()).expect("an error is in the headers, as gateways need it"))
}

/// A call made without tonic's client: that one ends a call at its deadline by itself, and then nobody sees what the
/// service says.
pub(crate) async fn raw(
    address: &str,
    method: &str,
    timeout: &str,
    request: &impl prost::Message,
) -> http::Response<hyper::body::Incoming> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let message = request.encode_to_vec();
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&message);
    let call = http::Request::post(format!("http://{address}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    sender.send_request(call).await.unwrap()
}

pub(crate) fn request(policy: &str, json: &str) -> ExecutePolicyRequest {
    ExecutePolicyRequest { policy: policy.into(), input: Some(Input::Json(json.into())), ..Default::default() }
}

/// The JSON that came out of the function.
pub(crate) fn output(response: &ExecutePolicyResponse) -> serde_json::Value {
    match response.output.as_ref() {
        Some(Output::Json(text)) => serde_json::from_str(text).unwrap(),
        other => panic!("no JSON: {other:?}"),
    }
}

/// An answer of the admin port: its status, its media type, and its body.
pub(crate) async fn admin(address: &str, method: &str, path: &str, accept: &str, body: &str) -> (u16, String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n");
    let request = format!("{head}content-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut headers);
    let start = parsed.parse(&answer).unwrap().unwrap();
    let text = |name: &str| {
        let header = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.map(|header| String::from_utf8(header.value.to_vec()).unwrap())
    };
    let status = parsed.code.unwrap();
    let kind = text("content-type").unwrap_or_default();
    let body = match text("transfer-encoding").as_deref() {
        Some("chunked") => chunks(&answer[start..]),
        _ => answer[start..].to_vec(),
    };
    (status, kind, String::from_utf8(body).unwrap())
}

fn chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Ok(httparse::Status::Complete((start, length @ 1..))) = httparse::parse_chunk_size(rest) {
        let end = start + usize::try_from(length).unwrap();
        whole.extend_from_slice(&rest[start..end]);
        rest = &rest[end + 2..];
    }
    whole
}

/// Waits until there is a value, for ten seconds at the most.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within ten seconds")
}

/// An address whose backlog is full, so that connecting hangs, and what fills it.
pub(crate) async fn full() -> (std::net::SocketAddr, impl Sized) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    let short = Duration::from_millis(200);
    while let Ok(connected) = tokio::time::timeout(short, tokio::net::TcpStream::connect(address)).await {
        held.push(connected.unwrap());
    }
    (address, (listener, held))
}

/// A directory of the test's own, removed when it is dropped.
pub(crate) struct Directory(pub PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lambda-policy-it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        // A rename, as editors and configuration management do it: no half-written file is seen.
        let new = self.0.join(format!(".{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let metadata = |key: &str| info.as_ref().and_then(|info| info.metadata.get(key).cloned()).unwrap_or_default();
        Self {
            code: status.code(),
            reason: info.as_ref().map(|info| info.reason.clone()).unwrap_or_default(),
            ran: metadata("ran"),
            status,
        }
    }
}
