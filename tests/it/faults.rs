//! What breaks at each point of a call, on the way to Lambda and on the way from the caller: what is said of it, and how
//! often the function really ran. Nobody is told that it did not run if it did, and it never runs twice.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use lambda_policy::{
    local::{Builtin, Function, Lambda, Options},
    pb::{ExecutePolicyRequest, execute_policy_stream_response::Part},
};
use tokio::task::JoinSet;

use crate::support::{
    Failed, Service, config, eventually, execute, full, lambda, lambda_with,
    load::Load,
    output,
    proxy::{
        End::{Close, Open, Reset, Stall},
        Fault::{self, After, AtOnce, Instead, Late, Say},
        Proxy,
        Way::{Down, Up},
    },
    request,
};

/// Reason, `ran`, and how often the function really ran.
type Told = (&'static str, &'static str, u64);

const ANSWERED: Told = ("", "", 1);
const BROKEN_BEFORE: Told = ("LAMBDA_FAILED", "maybe", 0);
const BROKEN_AFTER: Told = ("LAMBDA_FAILED", "maybe", 1);
const LATE_BEFORE: Told = ("TIMEOUT", "maybe", 0);
const LATE_AFTER: Told = ("TIMEOUT", "maybe", 1);
const UNREACHABLE: Told = ("LAMBDA_UNREACHABLE", "no", 0);

/// How long a call may take where it must hang: longer than it takes to blame the network.
const TIMEOUT: &str = "1300ms";

/// The policies of these addresses, in this order, each with a function of its own.
fn policies(urls: impl Iterator<Item = String>, more: &str) -> String {
    urls.enumerate()
        .map(|(n, url)| {
            format!("  p{n}: {{function: f{n}, timeout: {TIMEOUT}, breaker: none, endpoint: {{url: '{url}'}}{more}}}\n")
        })
        .collect()
}

async fn functions(count: usize, function: Builtin) -> Lambda {
    let functions = (0..count).map(|n| Function::builtin(&format!("f{n}"), function)).collect();
    lambda_with(Options { functions, ..Options::default() }).await
}

fn of_size(policy: &str, bytes: usize) -> ExecutePolicyRequest {
    request(policy, &format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes)))
}

#[tokio::test]
async fn a_connection_to_lambda_that_breaks_is_told_as_what_it_is_at_every_point() {
    const SMALL: usize = 10;
    const LARGE: usize = 300_000;
    static ROWS: &[(&str, Fault, usize, &[Told])] = &[
        ("closed when it is made", AtOnce(Close), SMALL, &[BROKEN_BEFORE]),
        // Whether connecting failed or what came then depends on when the RST comes.
        ("reset when it is made", AtOnce(Reset), SMALL, &[BROKEN_BEFORE, UNREACHABLE]),
        ("never read", AtOnce(Stall), SMALL, &[LATE_BEFORE]),
        ("closed at the request", After(Up, 0, Close), SMALL, &[BROKEN_BEFORE]),
        ("reset at the request", After(Up, 0, Reset), SMALL, &[BROKEN_BEFORE]),
        ("stalled at the request", After(Up, 0, Stall), SMALL, &[LATE_BEFORE]),
        ("closed in the request's head", After(Up, 100, Close), SMALL, &[BROKEN_BEFORE]),
        ("reset in the request's head", After(Up, 100, Reset), SMALL, &[BROKEN_BEFORE]),
        ("stalled in the request's head", After(Up, 100, Stall), SMALL, &[LATE_BEFORE]),
        ("closed in the request's body", After(Up, 100_000, Close), LARGE, &[BROKEN_BEFORE]),
        ("reset in the request's body", After(Up, 100_000, Reset), LARGE, &[BROKEN_BEFORE]),
        ("stalled in the request's body", After(Up, 100_000, Stall), LARGE, &[LATE_BEFORE]),
        ("closed before the answer", After(Down, 0, Close), SMALL, &[BROKEN_AFTER]),
        ("reset before the answer", After(Down, 0, Reset), SMALL, &[BROKEN_AFTER]),
        ("stalled before the answer", After(Down, 0, Stall), SMALL, &[LATE_AFTER]),
        ("closed in the answer's head", After(Down, 40, Close), SMALL, &[BROKEN_AFTER]),
        ("reset in the answer's head", After(Down, 40, Reset), SMALL, &[BROKEN_AFTER]),
        ("stalled in the answer's head", After(Down, 40, Stall), SMALL, &[LATE_AFTER]),
        ("closed in the answer's body", After(Down, 100_000, Close), LARGE, &[BROKEN_AFTER]),
        ("reset in the answer's body", After(Down, 100_000, Reset), LARGE, &[BROKEN_AFTER]),
        ("stalled in the answer's body", After(Down, 100_000, Stall), LARGE, &[LATE_AFTER]),
        ("answered by what is no HTTP", Instead(b"\0\x01\x02 not HTTP \r\n\r\n", Close), SMALL, &[BROKEN_AFTER]),
        ("answered by HTTP/2", Instead(b"\0\0\0\x04\0\0\0\0\0", Stall), SMALL, &[BROKEN_AFTER]),
        ("answered by TLS", Instead(b"\x15\x03\x01\0\x02\x02\x28", Close), SMALL, &[BROKEN_AFTER]),
        (
            "shorter than its content-length",
            Instead(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\":1}", Close),
            SMALL,
            &[BROKEN_AFTER],
        ),
        (
            "shorter than its content-length, and silent",
            Instead(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\":1}", Stall),
            SMALL,
            &[LATE_AFTER],
        ),
        (
            "longer than any answer",
            Instead(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999\r\n\r\n{\"a\":1}", Close),
            SMALL,
            &[BROKEN_AFTER],
        ),
        (
            "a content-length that is none",
            Instead(b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n{}", Close),
            SMALL,
            &[BROKEN_AFTER],
        ),
        (
            "two content-lengths",
            Instead(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ", Close),
            SMALL,
            &[BROKEN_AFTER],
        ),
        (
            "a chunk that is cut",
            Instead(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"a\"", Close),
            SMALL,
            &[BROKEN_AFTER],
        ),
        (
            "chunks without an end",
            Instead(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", Close),
            SMALL,
            &[BROKEN_AFTER],
        ),
        (
            "a refusal that is cut",
            Instead(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 100\r\n\r\n{", Close),
            SMALL,
            &[BROKEN_AFTER],
        ),
        ("slow in every piece", Late(Duration::from_millis(30)), SMALL, &[ANSWERED]),
    ];
    // Each on a new connection, and on one that has served a call.
    let cases: Vec<_> = ROWS.iter().flat_map(|row| [(row, false), (row, true)]).collect();
    let lambda = functions(cases.len(), Builtin::Echo).await;
    let mut proxies = Vec::new();
    for _ in &cases {
        proxies.push(Proxy::start(lambda.url()).await);
    }
    let text = config(&lambda, "", &policies(proxies.iter().map(|proxy| format!("http://{}", proxy.address)), ""));
    let service = Service::start_with(&text, None).await;

    let mut calls = JoinSet::new();
    for (n, ((((what, fault, bytes, expected), warm), proxy), client)) in
        cases.into_iter().zip(proxies).zip(std::iter::repeat(service.client.clone())).enumerate()
    {
        let what = format!("{what}, {}", if warm { "a used connection" } else { "a new one" });
        calls.spawn(async move {
            let policy = format!("p{n}");
            if warm {
                execute(&client, request(&policy, "{}")).await.unwrap();
            }
            proxy.arm(fault.clone());
            let failed = execute(&client, of_size(&policy, *bytes)).await.err();
            (n, what, expected, failed, (warm, matches!(fault, AtOnce(_)), proxy))
        });
    }
    let mut proxies = Vec::new();
    while let Some(called) = calls.join_next().await {
        let (n, what, expected, failed, (warm, new_only, proxy)) = called.unwrap();
        let runs = lambda.runs(&format!("f{n}")) - u64::from(warm);
        let expected = if warm && new_only { &[ANSWERED] } else { *expected };
        is_among(&what, failed.as_ref(), runs, expected);
        proxies.push((n, runs, proxy));
    }
    // Whoever looks at what had come of the call late finds no further run.
    for (n, runs, proxy) in proxies {
        let policy = format!("p{n}");
        proxy.arm(Fault::Nothing);
        execute(&service.client, request(&policy, "{}")).await.unwrap();
        assert!(lambda.runs(&format!("f{n}")) <= runs + 2, "{policy}: no call was made twice");
    }
}

fn is_among(what: &str, failed: Option<&Failed>, runs: u64, expected: &[Told]) {
    let told = failed.map_or(("", ""), |failed| (failed.reason.as_str(), failed.ran.as_str()));
    assert!(
        expected.iter().any(|(reason, ran, ran_really)| (*reason, *ran, *ran_really) == (told.0, told.1, runs)),
        "{what}: {told:?}, and it ran {runs} times, but expected {expected:?}: {failed:?}"
    );
}

#[tokio::test]
async fn what_is_not_connected_did_not_run() {
    let lambda = functions(12, Builtin::Echo).await;
    let (full, _held) = full().await;
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let untrusted = untrusted().await;
    let mut proxies = Vec::new();
    for fault in [
        Fault::Nothing,
        Say(b"HTTP/1.1 400 Bad Request\r\n\r\n", Close),
        Say(b"\x15\x03\x03\0\x02\x02\x28", Close),
        After(Up, 0, Close),
        After(Up, 0, Reset),
        After(Up, 0, Stall),
        After(Down, 100, Close),
        After(Down, 100, Reset),
        After(Down, 100, Stall),
    ] {
        let proxy = Proxy::start(&untrusted).await;
        proxy.arm(fault);
        proxies.push(proxy);
    }
    let rows = [
        "a certificate of nobody's",
        "HTTP instead of TLS",
        "an alert of TLS",
        "closed in the handshake",
        "reset in the handshake",
        "stalled in the handshake",
        "closed in the server's handshake",
        "reset in the server's handshake",
        "stalled in the server's handshake",
        "refused",
        "no answer to SYN",
        "no such name",
    ];
    let urls = proxies.iter().map(|proxy| format!("https://{}", proxy.address));
    let urls = urls.chain([format!("http://{closed}"), format!("http://{full}"), "http://nobody.invalid".to_owned()]);
    let service = Service::start(&lambda, &policies(urls, "")).await;
    let mut calls = JoinSet::new();
    for (n, what) in rows.into_iter().enumerate() {
        let client = service.client.clone();
        calls.spawn(async move { (what, n, execute(&client, request(&format!("p{n}"), "{}")).await.err()) });
    }
    while let Some(called) = calls.join_next().await {
        let (what, n, failed) = called.unwrap();
        is_among(what, failed.as_ref(), lambda.runs(&format!("f{n}")), &[UNREACHABLE]);
    }
    assert!(lambda.requests().is_empty());
}

/// The address of a TLS server whose certificate nobody has signed.
async fn untrusted() -> String {
    lambda_policy::lambda::install_crypto();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).unwrap());
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, config) = (stream.unwrap(), Arc::clone(&config));
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let mut tls = rustls::ServerConnection::new(config).unwrap();
                let shaken = tls.complete_io(&mut stream);
                // Nobody trusts it; if somebody did, it would answer.
                if shaken.is_ok() {
                    let mut tls = rustls::Stream::new(&mut tls, &mut stream);
                    let _ = tls.read(&mut [0; 4096]);
                    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_stream_that_breaks_ends_as_broken_wherever_that_is() {
    // The head has some 400 bytes, each of the three chunks 64 KiB.
    static ROWS: &[(&str, Fault, Told)] = &[
        ("closed at the request", After(Up, 0, Close), BROKEN_BEFORE),
        ("closed before the answer", After(Down, 0, Close), BROKEN_AFTER),
        ("reset before the answer", After(Down, 0, Reset), BROKEN_AFTER),
        ("stalled before the answer", After(Down, 0, Stall), LATE_AFTER),
        ("closed in the head", After(Down, 40, Close), BROKEN_AFTER),
        ("stalled in the head", After(Down, 40, Stall), LATE_AFTER),
        ("closed in the middle", After(Down, 100_000, Close), BROKEN_AFTER),
        ("reset in the middle", After(Down, 100_000, Reset), BROKEN_AFTER),
        ("stalled in the middle", After(Down, 100_000, Stall), LATE_AFTER),
        (
            "no frames",
            Instead(b"HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\nthese bytes are no frames.", Close),
            BROKEN_AFTER,
        ),
        (
            "an end that is none",
            Instead(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Close),
            BROKEN_AFTER,
        ),
        ("slow in every piece", Late(Duration::from_millis(30)), ANSWERED),
    ];
    let lambda = functions(ROWS.len(), Builtin::Stream).await;
    let mut proxies = Vec::new();
    for (_, fault, _) in ROWS {
        let proxy = Proxy::start(lambda.url()).await;
        proxy.arm(fault.clone());
        proxies.push(proxy);
    }
    let urls = proxies.iter().map(|proxy| format!("http://{}", proxy.address));
    let service = Service::start(&lambda, &policies(urls, ", idle_timeout: 700ms")).await;
    let mut calls = JoinSet::new();
    for (n, row) in ROWS.iter().enumerate() {
        let mut client = service.client.clone();
        let call = request(&format!("p{n}"), r#"{"chunks": 3, "bytes": 65536, "every": 10}"#);
        calls.spawn(async move {
            let mut stream = match client.execute_policy_stream(call).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => return (n, row, Err(Failed::from(status))),
            };
            loop {
                match stream.message().await {
                    Ok(Some(message)) if matches!(message.part, Some(Part::End(_))) => return (n, row, Ok(())),
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{}: a stream has an end or an error", row.0),
                    Err(status) => return (n, row, Err(Failed::from(status))),
                }
            }
        });
    }
    while let Some(called) = calls.join_next().await {
        let (n, (what, _, expected), ended) = called.unwrap();
        is_among(what, ended.err().as_ref(), lambda.runs(&format!("f{n}")), &[*expected]);
    }
}

#[tokio::test]
async fn what_comes_after_the_end_of_an_answer_harms_neither_it_nor_the_next_call() {
    let lambda = lambda().await;
    let proxy = Proxy::start(lambda.url()).await;
    let policies =
        format!("  echo: {{function: echo, breaker: none, endpoint: {{url: 'http://{}'}}}}\n", proxy.address);
    let service = Service::start(&lambda, &policies).await;
    for (what, more) in [
        (
            "an answer that nobody asked for",
            &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"n\":\"old\"}"[..],
        ),
        ("more than the content-length", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{} and more"),
    ] {
        proxy.arm(Instead(more, Open));
        assert_eq!(output(&service.json("echo", r#"{"n":1}"#).await.unwrap()), serde_json::json!({}), "{what}");
        proxy.arm(Fault::Nothing);
        let next = service.json("echo", r#"{"n":2}"#).await;
        // The connection may have been taken for the next call before what came too much was seen.
        match next {
            Ok(answer) => assert_eq!(output(&answer)["n"], 2, "{what}: no call gets another one's answer"),
            Err(failed) => assert_eq!((failed.reason.as_str(), failed.ran.as_str()), ("LAMBDA_FAILED", "maybe")),
        }
        assert_eq!(output(&service.json("echo", r#"{"n":3}"#).await.unwrap())["n"], 3, "{what}");
    }
    for end in [Close, Reset] {
        service.json("echo", "{}").await.unwrap();
        let (connections, runs) = (proxy.accepted(), lambda.runs("echo"));
        proxy.end_all(end);
        eventually("the connection's end", async || (lambda.open() == 0).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        service.json("echo", "{}").await.unwrap();
        assert_eq!((proxy.accepted(), lambda.runs("echo")), (connections + 1, runs + 1), "{end:?}: a new connection");
    }
}

/// Connections end while others take them: each call is answered, or said to have run perhaps, and runs once at the most.
#[tokio::test]
async fn connections_that_end_just_as_they_are_used_let_no_call_run_twice() {
    let lambda = lambda().await;
    let proxy = Proxy::start(lambda.url()).await;
    let policies =
        format!("  echo: {{function: echo, breaker: none, endpoint: {{url: 'http://{}'}}}}\n", proxy.address);
    let service = Service::start(&lambda, &policies).await;
    let load = Load::of(vec![service.client.clone(); 8], "echo");
    for n in 0..100 {
        tokio::time::sleep(Duration::from_millis(7)).await;
        proxy.end_all(if n % 2 == 0 { Close } else { Reset });
    }
    // On a slow machine most calls before were cut off; these go well.
    load.more(150).await;
    let tally = load.stop().await;
    assert!(proxy.accepted() > 50, "{}", proxy.accepted());
    let mut maybe = 0;
    for failed in &tally.failed {
        match (failed.reason.as_str(), failed.ran.as_str()) {
            ("LAMBDA_FAILED", "maybe") => maybe += 1,
            // Reset while it was made, and no more attempts left.
            ("LAMBDA_UNREACHABLE", "no") => {}
            other => panic!("{other:?}"),
        }
    }
    let runs = lambda.runs("echo");
    assert!((tally.answered..=tally.answered + maybe).contains(&runs), "{runs} runs of {} and {maybe}", tally.answered);
    assert!(tally.answered > 100, "{}", tally.answered);
}

#[tokio::test]
async fn a_caller_that_breaks_off_leaves_nothing_behind_and_nothing_runs_twice() {
    let lambda = lambda().await;
    let policies = "  slow: {function: slow, max_in_flight: 1}\n  echo: {function: echo, max_in_flight: 1}\n  \
                    stream: {function: stream, max_in_flight: 1}\n";
    let service = Service::start(&lambda, policies).await;
    let large = of_size("echo", 300_000);
    let slow = || request("slow", r#"{"ms": 300}"#);
    let stream = request("stream", r#"{"chunks": 200, "every": 10, "bytes": 5000}"#);
    for (what, fault, call, runs) in [
        ("closed at once", AtOnce(Close), slow(), 0),
        ("reset at once", AtOnce(Reset), slow(), 0),
        ("closed in the preface", After(Up, 10, Close), slow(), 0),
        ("no HTTP/2 for an answer", Say(b"HTTP/1.1 200 OK\r\n\r\n", Close), slow(), 0),
        ("closed in the request", After(Up, 50_000, Close), large.clone(), 0),
        ("reset in the request", After(Up, 50_000, Reset), large.clone(), 0),
        ("stalled in the request", After(Up, 50_000, Stall), large.clone(), 0),
        ("closed in the answer", After(Down, 50_000, Close), large.clone(), 1),
        ("reset in the answer", After(Down, 50_000, Reset), large.clone(), 1),
        ("stalled in the answer", After(Down, 50_000, Stall), large.clone(), 1),
        ("closed in a stream", After(Down, 50_000, Close), stream.clone(), 1),
        ("reset in a stream", After(Down, 50_000, Reset), stream.clone(), 1),
    ] {
        let proxy = Proxy::start(&service.address).await;
        proxy.arm(fault);
        let before = lambda.runs(&call.policy);
        let (policy, streamed) = (call.policy.clone(), call.policy == "stream");
        let address = proxy.address.to_string();
        let ended = tokio::time::timeout(Duration::from_millis(700), async move {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
            let mut client = crate::support::client_of(endpoint.connect_lazy());
            if !streamed {
                return client.execute_policy(call).await.map(drop).is_ok();
            }
            let Ok(stream) = client.execute_policy_stream(call).await else { return false };
            let mut stream = stream.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                if matches!(message.part, Some(Part::End(_))) {
                    return true;
                }
            }
            false
        })
        .await;
        assert!(!ended.unwrap_or(false), "{what}: the caller has no answer");
        drop(proxy);
        // The only place of the policy comes free, so nothing is left of the call.
        let short = |policy: &str| if policy == "stream" { r#"{"chunks": 1}"# } else { r#"{"ms": 0}"# };
        eventually(what, async || service.json(&policy, short(&policy)).await.ok()).await;
        let ran = lambda.runs(&policy) - before - 1;
        assert_eq!(ran, runs, "{what}");
        eventually(what, async || (lambda.streams_open() == 0).then_some(())).await;
    }
}
