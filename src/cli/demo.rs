//! `demo`: the whole way in a minute. Real gRPC, real signatures, a real function process; nothing leaves the machine.

use std::{
    env,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, sync::oneshot};

use super::{print, wrong};
use crate::{
    app::{self, Listeners},
    config::Config,
    grpc::client::{Client, Failure, Outcome, Part, Trust},
    local::{Function, Lambda, Options, Role},
};

const ROLE: &str = "arn:aws:iam::123456789012:role/gateway";

pub(super) async fn run() -> ExitCode {
    match Demo::start().await {
        Ok(mut demo) => {
            let right = demo.play().await;
            demo.stop().await;
            if right {
                print("\nevery answer was right. Next: `lambda-policy dev`, or the README.");
                ExitCode::SUCCESS
            } else {
                print("\nan answer was wrong: see above");
                ExitCode::FAILURE
            }
        }
        Err(error) => wrong(&format!("the demo cannot start: {error}")),
    }
}

struct Demo {
    lambda: Lambda,
    client: Client,
    stop: oneshot::Sender<()>,
    service: tokio::task::JoinHandle<Result<(), app::Error>>,
}

type Error = Box<dyn std::error::Error>;
type Called = Result<Outcome, Failure>;

impl Demo {
    async fn start() -> Result<Self, Error> {
        let mut options = Options::default();
        let program = env::current_exe()?.to_string_lossy().into_owned();
        options.functions.push(Function::process("order", vec![program, "function".to_owned()]));
        options.roles.push(Role { arn: ROLE.to_owned(), external_id: Some("acme".to_owned()) });
        let lambda = Lambda::start(TcpListener::bind(("127.0.0.1", 0)).await?, options)?;

        let text = policies(lambda.url());
        let config = Config::parse(&text, Path::new("demo"))?;
        let listeners = Listeners::bind(&config).await?;
        let address = listeners.grpc.local_addr()?;
        print(&format!(
            "the embedded lambda listens at {}, the service at {address}\n\n{}",
            lambda.url(),
            text.trim_end()
        ));

        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let service = tokio::spawn(app::run(config, None, listeners, shutdown));
        let client = Client::connect(&address.to_string(), Trust::default()).await?;
        Ok(Self { lambda, client, stop, service })
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.service.await;
    }

    async fn play(&mut self) -> bool {
        let mut right = true;

        let called = self.call("a JSON call", "greet", r#"{"name": "Ada"}"#, None).await;
        right &= check(is_output(&called, r#"{"message":"hello, Ada"}"#));

        let called = self.call("a role that the policy's keys assume, with its external id", "audit", "{}", None).await;
        let signer = self.lambda.requests().last().and_then(|request| request.signed_by.clone());
        print(&format!("    lambda saw the signature of {}", signer.as_deref().unwrap_or("nobody")));
        let by_role = signer.is_some_and(|id| id.starts_with("ASIA")) && self.lambda.assumed() == 1;
        right &= check(called.is_ok_and(|outcome| outcome.error.is_none()) && by_role);

        let called =
            self.call("a function that fails: its error is an answer, not a gRPC error", "fail", "{}", None).await;
        let error_type = called.ok().and_then(|outcome| outcome.error).map(|(_, error_type, _)| error_type);
        right &= check(error_type.as_deref() == Some("OrderError"));

        let called = self.call("an asynchronous call: accepted, then run", "echo", r#"{"n": 1}"#, Some("event")).await;
        let accepted = called.is_ok_and(|outcome| outcome.status == 202 && outcome.output.is_none());
        right &= check(accepted && self.ran("echo").await);

        let order = r#"{"item": "book", "quantity": 2}"#;
        let called =
            self.call("a real function: a process that speaks Lambda's Runtime API", "order", order, None).await;
        let first = process_of(&called);
        right &= check(first.is_some_and(|id| id != u64::from(std::process::id())));

        let called = self.call("once more, in the same warm process", "order", order, None).await;
        right &= check(first.is_some() && process_of(&called) == first);

        let called = self.call("a process that crashes", "order", r#"{"crash": true}"#, None).await;
        let error_type = called.ok().and_then(|outcome| outcome.error).map(|(_, error_type, _)| error_type);
        right &= check(error_type.as_deref() == Some("Runtime.ExitError"));

        right &= check(self.stream().await);

        if let Ok(fault) = "greet=throttle:2*1".parse() {
            self.lambda.add_fault(fault);
        }
        let called =
            self.call("lambda has enough: a gRPC error that says when to try again", "greet", "{}", None).await;
        right &= check(is_failure(&called, "FUNCTION_THROTTLED"));

        let called = self.call("a policy that does not exist", "oders", "{}", None).await;
        right &= check(is_failure(&called, "POLICY_NOT_FOUND"));
        right
    }

    async fn call(&mut self, what: &str, policy: &str, json: &str, invocation: Option<&str>) -> Called {
        let how = invocation.map(|how| format!(" --invocation {how}")).unwrap_or_default();
        print(&format!("\n{what}\n  lambda-policy call {policy} --data '{json}'{how}"));
        let called =
            self.client.call_json(policy, json.to_owned(), invocation, "", Some(Duration::from_secs(30))).await;
        match &called {
            Ok(outcome) => {
                let output = outcome.output.as_deref().unwrap_or("(no output)");
                print(&format!("    {} {output}", outcome.status));
                if let Some((kind, error_type, message)) = &outcome.error {
                    print(&format!("    the function failed ({kind}): {error_type}: {message}"));
                }
            }
            Err(failure) => {
                print(&format!("    {} ({}): {}", failure.reason, failure.code, failure.message));
                if let Some(after) = failure.retry_after {
                    print(&format!("    try again after {}", humantime::format_duration(after)));
                }
            }
        }
        called
    }

    /// An answer in pieces, each printed when it comes.
    async fn stream(&mut self) -> bool {
        let json = r#"{"chunks": 3, "every": 150}"#;
        print(&format!(
            "\nan answer that comes as the function writes it\n  lambda-policy call stream --stream --data '{json}'"
        ));
        let asked = Instant::now();
        let timeout = Some(Duration::from_secs(30));
        let Ok(mut parts) = self.client.stream_json("stream", json.to_owned(), None, "", timeout).await else {
            return false;
        };
        let mut came = Vec::new();
        loop {
            match parts.next().await {
                Ok(Some(Part::Start { .. })) => {}
                Ok(Some(Part::Chunk(chunk))) => {
                    came.push(asked.elapsed());
                    let text = String::from_utf8_lossy(&chunk);
                    print(&format!("    after {} ms: {}", asked.elapsed().as_millis(), text.trim_end()));
                }
                Ok(Some(Part::End { error, .. })) => {
                    let [first, .., last] = came.as_slice() else { return false };
                    return error.is_none() && *last - *first >= Duration::from_millis(200);
                }
                Ok(None) | Err(_) => return false,
            }
        }
    }

    async fn ran(&self, function: &str) -> bool {
        for _ in 0..500 {
            if self.lambda.runs(function) > 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

fn policies(url: &str) -> String {
    let (id, secret) = (Lambda::KEY_ID, Lambda::SECRET);
    format!(
        "server: {{listen: '127.0.0.1:0', drain_delay: 0s}}
admin: {{listen: '127.0.0.1:0'}}
defaults:
  region: us-east-1
  endpoint: {{url: '{url}'}}
  sts_endpoint: '{url}'
  credentials: {{access_key_id: {id}, secret_access_key: {secret}}}
policies:
  greet: {{function: greet}}
  fail: {{function: fail}}
  echo: {{function: echo}}
  stream: {{function: stream}}
  order: {{function: 'arn:aws:lambda:us-east-1:123456789012:function:order'}}
  audit:
    function: context
    credentials:
      access_key_id: {id}
      secret_access_key: {secret}
      assume_role: {{role_arn: '{ROLE}', external_id: acme}}
"
    )
}

fn check(right: bool) -> bool {
    if !right {
        print("    WRONG");
    }
    right
}

fn is_output(called: &Called, expected: &str) -> bool {
    called.as_ref().is_ok_and(|outcome| outcome.error.is_none() && outcome.output.as_deref() == Some(expected))
}

fn is_failure(called: &Called, reason: &str) -> bool {
    called.as_ref().is_err_and(|failure| failure.reason == reason)
}

fn process_of(called: &Called) -> Option<u64> {
    let output = called.as_ref().ok()?.output.as_deref()?;
    serde_json::from_str::<serde_json::Value>(output).ok()?["process"].as_u64()
}
