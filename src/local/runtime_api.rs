//! The Runtime API of one execution environment.
//!
//! Source: Lambda developer guide, "Using the Lambda runtime API", version 2018-06-01.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc, oneshot, watch},
};

use super::{
    functions::Given,
    output::{Broken, MAX_WHOLE},
    server::{self, Answer, Cut, full},
};

const PREFIX: &str = "/2018-06-01/runtime/";

/// An event for the process.
pub(super) struct Work {
    pub event: Bytes,
    pub given: Given,
    pub timeout: Duration,
    pub reply: oneshot::Sender<Outcome>,
}

/// What the process said.
pub(super) enum Outcome {
    Answer(Bytes),
    Error(Bytes),
    Stream(Writing),
}

/// An answer that the process is writing.
pub(super) struct Writing {
    pub content_type: Option<HeaderValue>,
    /// What it writes, read from its connection when it is asked for. Without an end the answer broke off.
    pub parts: mpsc::Receiver<Part>,
}

/// A part of an answer.
pub(super) enum Part {
    Chunk(Bytes),
    End(Option<Broken>),
}

/// The one environment's state: events to come, and the one that is under way.
struct State {
    queue: AsyncMutex<mpsc::Receiver<Work>>,
    under_way: Mutex<Option<(String, oneshot::Sender<Outcome>)>>,
    init_error: InitError,
}

/// What a process said when it could not start.
#[derive(Clone, Debug, Default)]
pub(super) struct InitError(watch::Sender<Option<Bytes>>);

impl InitError {
    pub(super) fn get(&self) -> Option<Bytes> {
        self.0.borrow().clone()
    }
}

/// Serves the process until it is dropped.
pub(super) async fn serve(listener: TcpListener, queue: mpsc::Receiver<Work>, init_error: InitError) {
    let state = Arc::new(State { queue: AsyncMutex::new(queue), under_way: Mutex::default(), init_error });
    let failing = Arc::clone(&state);
    let handler = Arc::new(move |request| handle(Arc::clone(&state), request));
    tokio::join!(server::serve(listener, handler, || {}), failing.fail_what_comes_after_init_error());
}

async fn handle(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
    match (request.method(), path.split('/').collect::<Vec<_>>()[..].as_ref()) {
        (&Method::GET, ["invocation", "next"]) => state.next().await,
        (&Method::POST, ["invocation", id, "response"]) if is_streamed(&request) => state.stream(id, request).await,
        (&Method::POST, ["invocation", id, "response"]) => {
            let body = server::read(request).await?.into_body();
            if body.len() > MAX_WHOLE {
                state.settle(id, Outcome::Error(Broken::too_large(MAX_WHOLE).details.into()));
                return said(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge");
            }
            state.answer(id, Outcome::Answer(body))
        }
        (&Method::POST, ["invocation", id, "error"]) => {
            let body = server::read(request).await?.into_body();
            state.answer(id, Outcome::Error(body))
        }
        (&Method::POST, ["init", "error"]) => {
            let body = server::read(request).await?.into_body();
            state.init_error.0.send_replace(Some(body));
            said(StatusCode::ACCEPTED, "OK")
        }
        _ => said(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// Lambda developer guide, "Building a custom runtime", "Custom runtime streaming responses".
fn is_streamed(request: &Request<Incoming>) -> bool {
    request.headers().get("lambda-runtime-function-response-mode").is_some_and(|mode| mode == "streaming")
}

impl State {
    /// Waits for the next event.
    async fn next(&self) -> Answer {
        let work = self.queue.lock().await.recv().await.ok_or(Cut)?;
        let given = &work.given;
        let deadline = SystemTime::now() + work.timeout;
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut response = Response::new(full(work.event));
        let headers = response.headers_mut();
        for (name, value) in [
            ("lambda-runtime-aws-request-id", Some(given.request_id.as_str())),
            ("lambda-runtime-deadline-ms", Some(deadline.to_string().as_str())),
            ("lambda-runtime-invoked-function-arn", Some(given.arn.as_str())),
            ("lambda-runtime-trace-id", given.trace.as_deref()),
            ("lambda-runtime-client-context", given.client_context.as_deref()),
            ("lambda-runtime-aws-tenant-id", given.tenant.as_deref()),
            ("content-type", Some("application/json")),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = Some((given.request_id.clone(), work.reply));
        Ok(response)
    }

    /// Reads an answer as the process writes it, and no faster than it is passed on.
    async fn stream(&self, id: &str, request: Request<Incoming>) -> Answer {
        let (parts, receiver) = mpsc::channel(1);
        let (head, mut body) = request.into_parts();
        let content_type = head.headers.get("content-type").cloned();
        if !self.settle(id, Outcome::Stream(Writing { content_type, parts: receiver })) {
            return said(StatusCode::BAD_REQUEST, "InvalidRequestID");
        }
        let mut error = None;
        while let Some(frame) = body.frame().await {
            match frame.map_err(|_| Cut)?.into_data() {
                Ok(chunk) if chunk.is_empty() => {}
                // Here and below: the process is about to be killed if nobody takes it.
                Ok(chunk) => parts.send(Part::Chunk(chunk)).await.map_err(|_| Cut)?,
                Err(frame) => error = frame.trailers_ref().and_then(Broken::from_trailers),
            }
        }
        parts.send(Part::End(error)).await.map_err(|_| Cut)?;
        said(StatusCode::ACCEPTED, "OK")
    }

    fn answer(&self, id: &str, outcome: Outcome) -> Answer {
        if self.settle(id, outcome) {
            said(StatusCode::ACCEPTED, "OK")
        } else {
            said(StatusCode::BAD_REQUEST, "InvalidRequestID")
        }
    }

    fn settle(&self, id: &str, outcome: Outcome) -> bool {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way.take_if(|(known, _)| known == id) {
            Some((_, reply)) => reply.send(outcome).is_ok(),
            None => false,
        }
    }

    /// A process that reported an init error never asks for the event that it was started for.
    async fn fail_what_comes_after_init_error(&self) {
        let mut said = self.init_error.0.subscribe();
        let Ok(Some(error)) = said.wait_for(Option::is_some).await.map(|said| said.clone()) else { return };
        while let Some(work) = self.queue.lock().await.recv().await {
            // Nobody waits any more if it cannot be sent.
            let _ = work.reply.send(Outcome::Error(error.clone()));
        }
    }
}

impl Broken {
    /// What a process says behind the answer that it could not end. The body is to be in base64.
    fn from_trailers(trailers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let (code, body) = (text("lambda-runtime-function-error-type"), text("lambda-runtime-function-error-body"));
        if code.is_none() && body.is_none() {
            return None;
        }
        let decoded = |body: String| {
            let bytes = BASE64_STANDARD.decode(&body).ok();
            bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(body)
        };
        let details = body.map(decoded).unwrap_or_default();
        Some(Self { code: code.unwrap_or_else(|| "Runtime.Unknown".to_owned()), details })
    }
}

fn said(status: StatusCode, word: &str) -> Answer {
    let body =
        if status.is_success() { json!({"status": word}) } else { json!({"errorType": word, "errorMessage": word}) };
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn send(address: std::net::SocketAddr, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {PREFIX}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn work(id: &str) -> (Work, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let given = Given { request_id: id.to_owned(), ..Given::default() };
        (Work { event: Bytes::from_static(b"{}"), given, timeout: Duration::from_secs(3), reply }, outcome)
    }

    #[tokio::test]
    async fn a_process_that_reports_an_init_error_fails_every_event_with_it() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (queue, events) = mpsc::channel(1);
        let serving = tokio::spawn(serve(listener, events, InitError::default()));
        let answer = send(address, "POST", "init/error", r#"{"errorType":"Init"}"#).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        for id in ["1", "2"] {
            let (work, outcome) = work(id);
            queue.send(work).await.unwrap_or_else(|_| panic!("the environment is gone"));
            let Outcome::Error(error) = outcome.await.unwrap() else { panic!("an error") };
            assert_eq!(error, r#"{"errorType":"Init"}"#);
        }
        serving.abort();
    }

    #[tokio::test]
    async fn only_the_event_that_is_under_way_can_be_answered() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (queue, events) = mpsc::channel(1);
        let serving = tokio::spawn(serve(listener, events, InitError::default()));
        let (work, outcome) = work("r-1");
        queue.send(work).await.unwrap_or_else(|_| panic!("the environment is gone"));
        let next = send(address, "GET", "invocation/next", "").await;
        assert!(next.contains("lambda-runtime-aws-request-id: r-1"), "{next}");
        for (path, status) in [
            ("invocation/r-2/response", "400"),
            ("invocation/r-1/elsewhere", "404"),
            ("invocation/r-1/response", "202"),
            ("invocation/r-1/response", "400"),
        ] {
            let answer = send(address, "POST", path, "1").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        }
        assert!(matches!(outcome.await.unwrap(), Outcome::Answer(output) if output == "1"));
        serving.abort();
    }
}
