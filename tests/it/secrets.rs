//! No secret of a run is in anything that the process gave to anybody: logs, answers, the admin port, its memory to others.

use std::fmt::Write as _;

use lambda_policy::{
    local::Lambda,
    pb::{LambdaPolicy, ListPoliciesRequest},
};
use rcgen::ExtendedKeyUsagePurpose;
use tonic::{
    Request,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::{
    binary::Process,
    support::{Directory, client_of, collector::Collector, config, eventually, lambda, request},
    tls::{Authority, connect},
};

/// `printf %s secret-token-of-kong | sha256sum`
fn digest(token: &str) -> String {
    ring::digest::digest(&ring::digest::SHA256, token.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

const POLICIES: &str = "  fails: {function: fail, log: tail, callers: kong, credentials: {access_key_id: AKIDFILE, secret_access_key: {file: secret}, \
                        assume_role: {role_arn: 'arn:aws:iam::123456789012:role/r', external_id: external-secret}}}
  rejected: {function: echo, callers: kong, credentials: {access_key_id: AKIDENV, secret_access_key: {env: SECRET_OF_B}}}
  literal: {function: echo, callers: kong, credentials: {access_key_id: AKIDTEXT, secret_access_key: secret-of-the-text, \
                        session_token: secret-session-token}}
  others: {function: echo}
";

/// Everything that anybody was answered.
struct Heard(String);

impl Heard {
    fn note(&mut self, answer: impl std::fmt::Debug) {
        write!(self.0, "{answer:?}").unwrap();
    }
}

fn with<T>(message: T, authorization: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    request
}

async fn call_all(channel: Channel, heard: &mut Heard) {
    let mut client = client_of(channel.clone());
    for authorization in [
        "Bearer secret-token-of-kong",
        "Bearer secret-token-that-is-wrong",
        "Bearer eyJhbGciOiJFUzI1NiJ9.secret-claims.secret-signature",
        "secret-without-a-scheme",
        "Basic secret-basic",
    ] {
        for policy in ["fails", "rejected", "literal", "others", "nobody"] {
            let call = request(policy, r#"{"payload": "secret-payload"}"#);
            heard.note(
                client
                    .execute_policy(with(call, authorization))
                    .await
                    .map(|response| response.into_inner().error.map(|error| error.kind)),
            );
        }
        let mut inline = request("", "{}");
        inline.lambda = Some(LambdaPolicy {
            function: "echo".into(),
            aws_access_key_id: "AKIDINLINE".into(),
            aws_secret_access_key: "secret-of-the-call".into(),
            aws_session_token: "secret-token-of-the-call".into(),
            external_id: "secret-external-id".into(),
            ..Default::default()
        });
        heard.note(client.execute_policy(with(inline.clone(), authorization)).await);
        if let Some(lambda) = &mut inline.lambda {
            lambda.external_id.clear();
        }
        heard.note(client.execute_policy(with(inline, authorization)).await);
        heard.note(client.list_policies(with(ListPoliciesRequest::default(), authorization)).await);
    }
    heard.note(HealthClient::new(channel.clone()).check(HealthCheckRequest { service: String::new() }).await);
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("lambdapolicy.v1.PolicyService".to_owned())),
    ];
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter(asked))
        .await
        .unwrap()
        .into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        heard.note(answer);
    }
}

#[tokio::test]
async fn nothing_that_the_process_gives_has_a_secret_in_it() {
    let lambda = lambda().await;
    lambda.set_key("AKIDFILE", "secret-of-the-file".into());
    let directory = Directory::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    directory.write("server.pem", &certificate);
    directory.write("server.key", &key);
    directory.write("secret", "secret-of-the-file\n");
    let callers = format!("callers: {{kong: {{tokens: {}, inline: true}}}}\n", digest("secret-token-of-kong"));
    let server = "inline_policies: allow, tls: {certificate: server.pem, key: server.key}";
    let (collector, telemetry) = Collector::start("{ratio: 1}").await;
    let text = format!("{telemetry}{callers}{}", config(&lambda, server, POLICIES));
    let mut process =
        Process::serve(&directory.write("f.yaml", &text), &[("SECRET_OF_B", "secret-of-the-environment")]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let mut heard = Heard(String::new());
    call_all(connect(&address, tls).await.unwrap(), &mut heard).await;
    let admin = process.address("admin").unwrap();
    for path in ["/livez", "/readyz", "/metrics", "/policies", "/config", "/log-level", "/debug", "/"] {
        let answer = get(&admin, path).await;
        heard.note(answer);
    }
    // A reload that fails tells of what is wrong, and of no more.
    directory.write(
        "f.yaml",
        &text.replace("secret-of-the-text", "\"secret-of\\nthe-text\"").replace("AKIDTEXT", "AKID TEXT"),
    );
    process.signal("HUP");
    eventually("the complaint", async || process.said().contains("not reloaded").then_some(())).await;
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        // What is not dumpable belongs to root, whoever runs it (proc(5)).
        let environment = std::fs::metadata(format!("/proc/{}/environ", process.id())).unwrap();
        assert_eq!(environment.uid(), 0);
    }
    process.signal("TERM");
    eventually("the end", async || process.exit_code()).await;

    let said = process.said();
    assert!(said.contains("CREDENTIALS_REJECTED") && said.contains("CALLER_UNAUTHENTICATED"), "{said}");
    let key_lines: Vec<_> = key.lines().filter(|line| !line.starts_with("---")).map(str::to_owned).collect();
    let mut secrets: Vec<_> = ["secret-", Lambda::SECRET, "AKIDFILE", "AKIDENV", "AKIDTEXT", "AKID TEXT", "AKIDINLINE"]
        .map(str::to_owned)
        .into();
    secrets.push(digest("secret-token-of-kong"));
    secrets.extend(key_lines);
    let spans = collector.text();
    assert!(spans.contains("CREDENTIALS_REJECTED") && spans.contains("Lambda.Invoke"), "{spans}");
    assert!(said.contains(r#""caller":"kong""#) && said.contains(r#""trace_id":"#), "{said}");
    for (what, text) in [("the log", &said), ("the answers", &heard.0), ("the spans", &spans)] {
        for secret in &secrets {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{secret} is in {what}: {line:?}");
        }
    }
}

async fn get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
