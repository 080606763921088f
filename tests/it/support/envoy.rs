//! The real Envoy with a configuration of `deploy/gateways/envoy`, and an application behind it.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use axum::{Router, body::to_bytes, extract::Request, response::IntoResponse};
use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{Directory, envoy_package, eventually};

/// A running Envoy; it ends when it is dropped.
pub(crate) struct Envoy {
    pub address: SocketAddr,
    child: Child,
    _directory: Directory,
}

/// What came back over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An upstream that remembers what reached it.
pub(crate) struct Application {
    pub address: SocketAddr,
    reached: Arc<Mutex<Vec<Reached>>>,
    serving: JoinHandle<()>,
}

/// A request as it reached the application.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Envoy {
    /// Starts it with a file, of which the ports and these texts are replaced.
    pub(crate) async fn start(file: &str, service: &str, application: &Application, replaced: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/gateways/envoy").join(file);
        let mut text = std::fs::read_to_string(path).unwrap();
        let (address, admin) = (free_address(), free_address());
        let service = service.parse::<SocketAddr>().unwrap();
        for (port, other) in
            [(10000, address.port()), (9901, admin.port()), (50051, service.port()), (8080, application.address.port())]
        {
            text = replace(&text, &format!("port_value: {port}"), &format!("port_value: {other}"));
        }
        for (from, to) in replaced {
            text = replace(&text, from, to);
        }
        Self::run(&text, address).await
    }

    /// Starts it with a configuration that listens at an address.
    pub(crate) async fn run(text: &str, address: SocketAddr) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
        let program = tokio::task::spawn_blocking(move || envoy_package::install(&target)).await.unwrap().unwrap();
        let directory = Directory::new();
        let file = directory.write("envoy.yaml", text);
        let child = Command::new(program)
            .args([
                "--config-path",
                &file.to_string_lossy(),
                "--concurrency",
                "1",
                "--log-level",
                "warn",
                "--disable-hot-restart",
            ])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let envoy = Self { address, child, _directory: directory };
        eventually("envoy listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        envoy
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, &[], "").await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        send(self.address, method, target, headers, body).await
    }
}

/// What a text is replaced by must be there, or a test would test another thing.
pub(crate) fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the configuration has no `{from}`");
    text.replace(from, to)
}

/// An address that nobody has, and that nobody is given twice: of two Envoys at one port each would get a part of the
/// connections. The ports are not those that the system gives to whoever asks for any.
pub(crate) fn free_address() -> SocketAddr {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 60) as u16 * 200;
    let mut ports = std::iter::from_fn(|| Some(first + TRIED.fetch_add(1, Ordering::Relaxed))).take(500);
    let free = ports.find_map(|port| StdListener::bind(("127.0.0.1", port)).ok()).expect("a free port");
    free.local_addr().unwrap()
}

/// One call over a connection of its own.
pub(crate) async fn send(
    address: SocketAddr,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder().method(method).uri(format!("http://{address}{target}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Application {
    /// It answers 200 with the path, and remembers the rest.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let reached = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reached);
        let routes = Router::new().fallback(move |request: Request| {
            let seen = Arc::clone(&seen);
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                let target = head.uri.to_string();
                seen.lock().unwrap().push(Reached { headers: head.headers, body });
                ([("x-from", "application")], format!(r#"{{"target":"{target}"}}"#)).into_response()
            }
        });
        let serving = tokio::spawn(async { axum::serve(listener, routes).await.unwrap() });
        Self { address, reached, serving }
    }

    pub(crate) fn reached(&self) -> Vec<Reached> {
        self.reached.lock().unwrap().clone()
    }
}

impl Reached {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
