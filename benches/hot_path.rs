//! What the engine does for one warm call, for `callgrind` to count: `.ci/instructions` runs this and compares.
//!
//! Only [`counted`] is collected: from the parsed request to the reply, with policy, admission, credentials, client,
//! signature, the policy's figures and the access line in it, and without the gRPC server and the sockets, whose share depends on how the kernel wakes tasks.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use lambda_policy::{
    admission::Limits,
    config::Config,
    execute::{Choice, Engine, Input, Request},
    lambda,
    policy::Caller,
    telemetry::{Metrics, log, writer},
};
use tracing_subscriber::filter::LevelFilter;

const WARM_UP: usize = 200;
/// As many as `.ci/instructions` divides by.
const CALLS: usize = 2000;

/// Counts what its future does, once the caches are warm.
struct Counted<F>(Pin<Box<F>>);

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        counted(self.0.as_mut(), cx)
    }
}

#[inline(never)]
fn counted<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}

/// Answers every request on a connection with the same 200 bytes.
fn answer(mut stream: TcpStream) {
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(192));
    let answer = format!(
        "HTTP/1.1 200 OK\r\nx-amzn-requestid: 00000000-0000-0000-0000-000000000000\r\nx-amz-executed-version: $LATEST\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        read.extend_from_slice(&buffer[..count]);
        // The requests of this bench end with their payload's closing brace.
        if read.ends_with(b"}") {
            read.clear();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    }
}

/// A call as a front has it made.
async fn call(engine: &Engine, payload: &Bytes) {
    let line = engine.line("ExecutePolicy", "orders");
    let policy = Choice::Named("orders".to_owned());
    let request = Request::new(Caller::default(), policy, Input::Payload(payload.clone()), None);
    let reply = engine.execute(request.told_by(&line)).await.unwrap();
    line.answered(reply.answered());
}

fn main() {
    lambda::install_crypto();
    log::start(log::Form::Json, LevelFilter::INFO);
    // As on a worker.
    writer::keep();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| answer(stream)))));
    let text = format!(
        "policies: {{orders: {{function: orders, region: us-east-1, endpoint: {{url: '{url}'}}, credentials: {{access_key_id: \
         AKIDEXAMPLE, secret_access_key: wJalrXUtnFEMI}}}}}}"
    );
    let config = Config::parse(&text, Path::new("hot_path")).unwrap();
    let limits = Limits { in_flight: 1024, bytes: 256 << 20 };
    let engine = Engine::new(config.policies, limits, 1, Metrics::new(true, None, 0).unwrap());
    let payload = Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(192)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..WARM_UP {
            call(&engine, &payload).await;
        }
        for _ in 0..CALLS {
            Counted(Box::pin(call(&engine, &payload))).await;
        }
    });
}
