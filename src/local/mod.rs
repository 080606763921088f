//! The embedded Lambda: a loopback endpoint that speaks the Invoke API, streaming included, and STS's AssumeRole,
//! checks signatures, and runs functions, built in or real processes. For tests, `dev` and `demo`; a leaf that nothing
//! else depends on.

mod chunks;
mod environment;
mod faults;
mod frames;
mod functions;
mod invoke;
mod options;
mod output;
mod process;
mod runtime_api;
mod sample;
mod server;
mod sigv4;
mod stream;
mod sts;

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use secrecy::SecretString;
use tokio::{net::TcpListener, task::JoinHandle};

pub use self::{
    faults::{Fault, FaultError, FaultRule},
    functions::Builtin,
    options::{Function, Options, Source},
    sample::serve_sample,
    sts::Role,
};
use self::{functions::Given, invoke::Api, output::Ran, process::Process, server::Answer, sigv4::Key, stream::Streams};

/// How many requests are remembered.
const REMEMBERED: usize = 1000;

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The access key id whose signature was right.
    pub signed_by: Option<String>,
}

/// A running endpoint. Dropped, it closes every connection and kills every process.
#[derive(Debug)]
pub struct Lambda {
    url: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Runnable {
    name: String,
    qualifiers: Vec<String>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Builtin(Builtin),
    Process(Process),
}

#[derive(Debug)]
struct State {
    account: String,
    roles: Vec<Role>,
    lifetime: Mutex<Option<Duration>>,
    functions: HashMap<String, Arc<Runnable>>,
    keys: Mutex<HashMap<String, Key>>,
    faults: Mutex<Vec<FaultRule>>,
    sts_down: Mutex<bool>,
    sts_silent: Mutex<bool>,
    ahead: Mutex<Duration>,
    requests: Mutex<VecDeque<Recorded>>,
    runs: Mutex<HashMap<String, u64>>,
    connections: AtomicU64,
    open: Arc<AtomicU64>,
    assumed: AtomicU64,
    streams: Arc<Streams>,
}

impl Lambda {
    /// The access key id that is accepted unless others are given.
    pub const KEY_ID: &str = "AKIDLOCAL";
    /// Its secret, which protects nothing.
    pub const SECRET: &str = "the-secret-of-the-embedded-lambda";

    /// Starts the endpoint.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn start(listener: TcpListener, options: Options) -> io::Result<Self> {
        let url = format!("http://{}", listener.local_addr()?);
        let runnable = |function: Function| {
            let body = match function.source {
                Source::Builtin(builtin) => Body::Builtin(builtin),
                Source::Process(command) => Body::Process(Process::new(&function.name, command, options.timeout)),
            };
            let runnable = Runnable { name: function.name.clone(), qualifiers: function.qualifiers, body };
            (function.name, Arc::new(runnable))
        };
        let key = |(id, secret)| (id, Key { secret, token: None, expires: None });
        let state = Arc::new(State {
            functions: options.functions.into_iter().map(runnable).collect(),
            keys: Mutex::new(options.keys.into_iter().map(key).collect()),
            account: options.account,
            roles: options.roles,
            lifetime: Mutex::new(options.lifetime),
            faults: Mutex::default(),
            sts_down: Mutex::default(),
            sts_silent: Mutex::default(),
            ahead: Mutex::default(),
            requests: Mutex::default(),
            runs: Mutex::default(),
            connections: AtomicU64::new(0),
            open: Arc::default(),
            assumed: AtomicU64::new(0),
            streams: Arc::default(),
        });
        let (answering, counting) = (Arc::clone(&state), Arc::clone(&state));
        let handler = Arc::new(move |request| handle(Arc::clone(&answering), request));
        let accepted = move || {
            counting.connections.fetch_add(1, Ordering::Relaxed);
            server::Open::count(&counting.open)
        };
        let serving = tokio::spawn(server::serve(listener, handler, accepted));
        Ok(Self { url, state, serving })
    }

    /// Where it is, for `endpoint.url` and `sts_endpoint`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a fault; the first that fits a call is taken.
    pub fn add_fault(&self, rule: FaultRule) {
        locked(&self.state.faults).push(rule);
    }

    /// Takes every fault back.
    pub fn clear_faults(&self) {
        locked(&self.state.faults).clear();
    }

    /// Lets STS fail with 503, or work again.
    pub fn set_sts_down(&self, down: bool) {
        *locked(&self.state.sts_down) = down;
    }

    /// Lets STS never answer, or work again.
    pub fn set_sts_silent(&self, silent: bool) {
        *locked(&self.state.sts_silent) = silent;
    }

    /// Sets this endpoint's clock ahead of the machine's.
    pub fn set_clock_ahead(&self, by: Duration) {
        *locked(&self.state.ahead) = by;
    }

    /// How long credentials that are assumed from now on live.
    pub fn set_lifetime(&self, lifetime: Option<Duration>) {
        *locked(&self.state.lifetime) = lifetime;
    }

    /// Accepts a key, or another secret for it.
    pub fn set_key(&self, id: &str, secret: SecretString) {
        locked(&self.state.keys).insert(id.to_owned(), Key { secret, token: None, expires: None });
    }

    /// Accepts a key no more.
    pub fn remove_key(&self, id: &str) {
        locked(&self.state.keys).remove(id);
    }

    /// Makes every temporary key that was given out expire now.
    pub fn expire_sessions(&self) {
        for key in locked(&self.state.keys).values_mut().filter(|key| key.token.is_some()) {
            key.expires = Some(SystemTime::UNIX_EPOCH);
        }
    }

    /// How often a function really ran.
    pub fn runs(&self, function: &str) -> u64 {
        locked(&self.state.runs).get(function).copied().unwrap_or_default()
    }

    /// The last thousand requests.
    pub fn requests(&self) -> Vec<Recorded> {
        locked(&self.state.requests).iter().cloned().collect()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub fn open(&self) -> u64 {
        self.state.open.load(Ordering::Relaxed)
    }

    /// How many streamed answers are under way.
    pub fn streams_open(&self) -> u64 {
        self.state.streams.open()
    }

    /// How many streamed answers ended before the function did: the client went away, or a fault cut them.
    pub fn streams_abandoned(&self) -> u64 {
        self.state.streams.abandoned()
    }

    /// How many bytes of a function's outputs went into streamed answers; what is not read is not written.
    pub fn written(&self, function: &str) -> u64 {
        self.state.streams.written(function)
    }

    /// How many times a role was assumed.
    pub fn assumed(&self) -> u64 {
        self.state.assumed.load(Ordering::Relaxed)
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn handle(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let request = server::read(request).await?;
    let function = invoke::function_of(&request);
    let service = if function.is_some() { "lambda" } else { "sts" };
    let (uri, headers) = (request.uri(), request.headers());
    let signed = sigv4::Request { method: request.method().as_str(), uri, headers, body: request.body() };
    let now = SystemTime::now() + *locked(&state.ahead);
    let verified = sigv4::verify(&signed, service, now, |id| locked(&state.keys).get(id).cloned());
    state.record(&request, verified.as_ref().ok().cloned());
    let mut answer = match (verified, function) {
        (Err(error), Some(_)) => invoke::refuse(StatusCode::FORBIDDEN, error.code, &error.message, &request_id()),
        (Err(error), None) => {
            // STS has older names for some of them (STS API reference, Common errors).
            let code = match error.code {
                "UnrecognizedClientException" => "InvalidClientTokenId",
                "InvalidSignatureException" => "SignatureDoesNotMatch",
                "ExpiredTokenException" => "ExpiredToken",
                other => other,
            };
            sts::Refused { status: StatusCode::FORBIDDEN, code, message: error.message }.answer()
        }
        (Ok(_), Some((api, function))) => invoke::invoke(Arc::clone(&state), api, &function, &request).await,
        (Ok(_), None) => {
            let silent = *locked(&state.sts_silent);
            if silent {
                std::future::pending::<()>().await;
            }
            state.assume_role(&request)
        }
    }?;
    // By which a client whose clock is wrong can set it.
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
        answer.headers_mut().insert("date", date);
    }
    Ok(answer)
}

impl State {
    fn fault_for(&self, function: &str, api: Api) -> Option<Fault> {
        let streaming = api == Api::Stream;
        locked(&self.faults).iter_mut().find_map(|rule| rule.takes(function, streaming).then_some(rule.fault))
    }

    /// Runs a function; nothing comes of it if all its environments are busy.
    async fn run(&self, function: &Runnable, event: &Bytes, given: &Given) -> Option<Ran> {
        *locked(&self.runs).entry(function.name.clone()).or_default() += 1;
        match &function.body {
            Body::Builtin(builtin) => Some(builtin.run(event, given).await),
            Body::Process(process) => process.run(event, given).await.ok(),
        }
    }

    fn assume_role(&self, request: &Request<Bytes>) -> Answer {
        if *locked(&self.sts_down) {
            let message = "STS is down".to_owned();
            return sts::Refused { status: StatusCode::SERVICE_UNAVAILABLE, code: "ServiceUnavailable", message }
                .answer();
        }
        let lifetime = *locked(&self.lifetime);
        let issued = sts::AssumeRole::parse(request.body())
            .and_then(|assume| assume.issue(&self.roles, lifetime, SystemTime::now()));
        match issued {
            Ok(issued) => {
                self.assumed.fetch_add(1, Ordering::Relaxed);
                let answer = issued.answer();
                locked(&self.keys).insert(issued.id, issued.key);
                answer
            }
            Err(refused) => refused.answer(),
        }
    }

    fn record(&self, request: &Request<Bytes>, signed_by: Option<String>) {
        let mut requests = locked(&self.requests);
        if requests.len() == REMEMBERED {
            requests.pop_front();
        }
        requests.push_back(Recorded {
            method: request.method().clone(),
            target: request.uri().to_string(),
            headers: request.headers().clone(),
            body: request.body().clone(),
            signed_by,
        });
    }
}

/// A poisoned lock means that a test failed elsewhere; what it guards is still whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random id, as Lambda gives each request.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod streaming_tests;
