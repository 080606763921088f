//! What the log and the admin port say in the words of others, or of what others sent: none of what a call carries.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use lambda_policy::pb::{ExecutePolicyRequest, execute_policy_request::Input};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    binary::Process,
    support::{Directory, admin, client, eventually, execute, request},
};

const KEYS: &str = "access_key_id: AKIDX, secret_access_key: secret-key, session_token: secret-token";
const POLICIES: [&str; 7] = ["unsigned", "unread", "html", "long", "hang", "role", "unassumed"];

/// What answers in AWS's place, and quotes as it does.
fn answer(head: &str, body: &str) -> Option<String> {
    let json = |status: &str, code: &str, message: String| {
        let body = serde_json::json!({ "message": message }).to_string();
        (status.to_owned(), format!("x-amzn-errortype: {code}\r\n"), body)
    };
    let xml = |code: &str, message: &str| {
        format!("<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>")
    };
    let unsigned = format!(
        "The request signature we calculated is another one. Check your key.\n\nThe Canonical String is\n'{head}'"
    );
    let (status, headers, body) = match head {
        _ if body.contains("Action=AssumeRole") && body.contains("unassumed") => {
            ("500 Error".to_owned(), String::new(), xml("InternalFailure", "later"))
        }
        _ if body.contains("Action=AssumeRole") => {
            ("403 Forbidden".to_owned(), String::new(), xml("SignatureDoesNotMatch", &unsigned))
        }
        _ if head.contains("/unsigned/") => json("403 Forbidden", "InvalidSignatureException", unsigned),
        _ if head.contains("/unread/") => {
            let source = format!("at [Source: (byte[])\"{body}\"; line: 1, column: 10]");
            let message = format!("Could not parse request body into json: Unrecognized token '{body}'\n {source}");
            json("400 Bad Request", "InvalidRequestContentException", message)
        }
        _ if head.contains("/long/") => json("400 Bad Request", "InvalidParameterValueException", "x".repeat(20_000)),
        _ if head.contains("/html/") => ("503 Unavailable".to_owned(), String::new(), format!("<html>{body}</html>")),
        _ => return None,
    };
    Some(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()))
}

async fn serve(mut stream: TcpStream, hangs: Arc<AtomicBool>) {
    let mut read = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            break (head.to_owned(), body.to_owned());
        }
    };
    match answer(&head, &body) {
        Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
        // Until the service goes away.
        None => {
            hangs.store(true, Ordering::SeqCst);
            drop(stream.read_buf(&mut read).await);
        }
    }
}

struct Told {
    process: Process,
    grpc: String,
    admin: String,
    /// Whether a call waits for an answer that does not come.
    hangs: Arc<AtomicBool>,
    _directory: Directory,
}

impl Told {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hangs = Arc::new(AtomicBool::new(false));
        let hang = Arc::clone(&hangs);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&hang)));
            }
        });
        let mut text = format!(
            "server: {{listen: '127.0.0.1:0', drain_delay: 0s, drain_timeout: 300ms, inline_policies: allow}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
             defaults: {{region: us-east-1, endpoint: {{url: '{url}'}}, sts_endpoint: '{url}', breaker: {{failures: 1}}, \
             credentials: {{{KEYS}}}}}\npolicies:\n"
        );
        for name in POLICIES {
            let role = match name {
                "role" | "unassumed" => format!(", assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/{name}'}}"),
                _ => String::new(),
            };
            text.push_str(&format!(
                "  {name}: {{function: {name}, context: '{{\"a\": \"secret-context\"}}', credentials: {{{KEYS}{role}}}}}\n"
            ));
        }
        let directory = Directory::new();
        let process = Process::serve(&directory.write("f.yaml", &text), &[("LAMBDA_POLICY_LOG", "info")]);
        let grpc = eventually("the service", async || process.address("grpc")).await;
        let admin = process.address("admin").unwrap();
        Self { process, grpc, admin, hangs, _directory: directory }
    }

    fn lines(&self) -> Vec<Value> {
        self.process.lines("call")
    }

    async fn line(&self, number: usize) -> Value {
        eventually("the line", async || self.lines().get(number).cloned()).await
    }

    /// Sends a request, and goes away if there is less of it than it says.
    async fn send(&self, path: &str, body: &str, length: usize) {
        let mut stream = TcpStream::connect(&self.grpc).await.unwrap();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        if body.len() < length {
            stream.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("secret-"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn nothing_that_a_call_carries_is_told_in_the_words_of_others() {
    let told = Told::start().await;
    let caller = client(&told.grpc).await;
    let mut expected = Vec::new();
    for (policy, detail) in [
        (
            "unsigned",
            "lambda answered 403 InvalidSignatureException: The request signature we calculated is another one",
        ),
        ("unread", "lambda answered 400 InvalidRequestContentException at line 1 column 10"),
        ("html", "lambda answered 503 without an AWS error code"),
        (
            "role",
            "assuming arn:aws:iam::123456789012:role/role failed: STS answered 403 SignatureDoesNotMatch: The request \
             signature we calculated is another one",
        ),
        (
            "unassumed",
            "assuming arn:aws:iam::123456789012:role/unassumed failed: STS answered 500 InternalFailure: later",
        ),
    ] {
        let payload = Input::Payload("secret-payload".into());
        let call = ExecutePolicyRequest { policy: policy.into(), input: Some(payload), ..Default::default() };
        execute(&caller, call).await.unwrap_err();
        expected.push(detail);
    }
    told.line(expected.len() - 1).await;
    let details: Vec<_> =
        told.lines().iter().map(|line| line["detail"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(details, expected);
    execute(&caller, request("long", "{}")).await.unwrap_err();
    let long = told.line(5).await;
    assert!(long["detail"].as_str().unwrap().len() <= 512, "{long}");

    for (policy, body) in [
        ("html", r#"{"json": "secret-word"#),
        ("html", r#"{"secret-word": 1}"#),
        ("html", r#"{"invocation": "secret-word"}"#),
        ("html", r#"{"json": "{}", "qualifier": ["secret-word"]}"#),
        ("html", r#"{"http": "secret-word"}"#),
        ("html", r#"{"json": "{\"a\": secret-word}"}"#),
        ("-", r#"{"json": "{}", "lambda": {"event": "secret-word", "function": "secret-word!"}}"#),
    ] {
        told.send(&format!("/v1/policies/{policy}:execute"), body, body.len()).await;
    }
    let wrong = told.line(12).await;
    assert_eq!(wrong["reason"], "INVALID_REQUEST", "{wrong}");

    for (number, path) in [(13, "/v1/policies/html/http/x"), (14, "/v1/policies/html:execute")] {
        told.send(path, "abc", 20).await;
        let line = told.line(number).await;
        assert_eq!((&line["outcome"], &line["reason"]), (&"cancelled".into(), &Value::Null), "{line}");
    }

    let mut said = told.process.said();
    for path in ["/policies", "/status", "/policies?history=true"] {
        said.push_str(&admin(&told.admin, "GET", path, "application/json", "").await.2);
    }
    for word in ["secret-", "hyper::", "unable to mark the connection", "Canonical"] {
        let at = said.lines().find(|line| line.contains(word));
        assert_eq!(at, None, "{word}");
    }
}

#[tokio::test]
async fn the_services_own_stop_opens_no_breaker() {
    let mut told = Told::start().await;
    let caller = client(&told.grpc).await;
    let call = tokio::spawn(async move { execute(&caller, request("hang", "{}")).await });
    eventually("the call in flight", async || told.hangs.load(Ordering::SeqCst).then_some(())).await;
    told.process.signal("TERM");
    assert_eq!(call.await.unwrap().unwrap_err().reason, "LAMBDA_FAILED");
    eventually("the end", async || told.process.exit_code()).await;
    let said = told.process.said();
    assert!(said.contains("the service stopped before lambda answered"), "{said}");
    assert!(!said.contains("a breaker opens"), "{said}");
}
