//! TLS, and callers that must have a certificate.

use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tower::Service;

use crate::{
    binary::{Process, run},
    support::{
        Directory, admin,
        collector::{Collector, attribute},
        config, eventually, execute, lambda, request,
    },
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate authority, and what it issues.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn until(end: SystemTime) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = end.into();
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        self.issue_until(name, purpose, SystemTime::now() + 90 * DAY)
    }

    fn issue_until(&self, name: &str, purpose: ExtendedKeyUsagePurpose, end: SystemTime) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let own = name.to_owned().try_into().unwrap();
        params.subject_alt_names = vec![if name.contains("://") { SanType::URI(own) } else { SanType::DnsName(own) }];
        params.extended_key_usages = vec![purpose];
        params.not_after = end.into();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

pub(crate) async fn connect(address: &str, tls: ClientTlsConfig) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls.domain_name("localhost")).unwrap().connect().await.ok()
}

#[tokio::test]
async fn calls_are_encrypted_and_only_callers_with_a_certificate_come_in() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    directory.write("server.pem", &certificate);
    directory.write("server.key", &key);
    directory.write("ca.pem", &authority.pem());
    let tls = "tls: {certificate: server.pem, key: server.key, client_ca: ca.pem}";
    let file = directory.write("f.yaml", &config(&lambda, tls, "  echo: {function: echo}\n"));
    let process = Process::serve(&file, &[]);
    let address = eventually("the service", async || process.address("grpc")).await;

    // As a load balancer's probe does.
    drop(tokio::net::TcpStream::connect(&address).await.unwrap());
    let trusting = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let identity = |authority: &Authority| {
        let (certificate, key) = authority.issue("gateway", ExtendedKeyUsagePurpose::ClientAuth);
        Identity::from_pem(certificate, key)
    };
    let expired = {
        let end = SystemTime::now() - DAY;
        let (certificate, key) = authority.issue_until("gateway", ExtendedKeyUsagePurpose::ClientAuth, end);
        Identity::from_pem(certificate, key)
    };
    let channel = connect(&address, trusting().identity(identity(&authority))).await.unwrap();
    execute(&crate::support::client_of(channel), request("echo", "{}")).await.unwrap();

    for (who, tls) in [
        ("a caller without a certificate", trusting()),
        ("a caller with a stranger's", trusting().identity(identity(&stranger))),
        ("a caller with one of yesterday", trusting().identity(expired)),
    ] {
        // With TLS 1.3 the client learns of the refusal at its first call only.
        let answered = match connect(&address, tls).await {
            None => false,
            Some(channel) => execute(&crate::support::client_of(channel), request("echo", "{}")).await.is_ok(),
        };
        assert!(!answered, "{who}");
    }
    let fooled = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(stranger.pem()));
    assert!(connect(&address, fooled).await.is_none(), "the server's certificate is checked");
    assert_eq!(lambda.runs("echo"), 1);

    let told = |reason: &str| {
        let said = process.said();
        let is =
            |line: &&str| line.contains("their handshakes fail") && line.contains(&format!(r#""reason":"{reason}""#));
        said.lines().filter(is).map(str::to_owned).collect::<Vec<_>>()
    };
    let port = process.address("admin").unwrap();
    for reason in ["no_certificate", "unknown_authority", "certificate_expired", "distrusted"] {
        let lines = eventually(reason, async || Some(told(reason)).filter(|lines| !lines.is_empty())).await;
        assert_eq!(lines.len(), 1, "once a minute: {lines:?}");
        assert!(lines[0].contains(r#""peer":"127.0.0.1""#) && lines[0].contains(r#""refused":1"#), "{lines:?}");
        let (_, _, metrics) = admin(&port, "GET", "/metrics", "*/*", "").await;
        let counted = format!("lambda_policy_server_connections_refused_total{{reason=\"{reason}\"}} ");
        assert!(metrics.contains(&counted) && !metrics.contains(&(counted + "0.0\n")), "{metrics}");
    }
    for reason in ["closed", "protocol", "timeout"] {
        assert!(told(reason).is_empty(), "{:?}", told(reason));
    }
}

#[tokio::test]
async fn a_call_by_plain_http_knows_that_its_connection_is_encrypted() {
    let (lambda, directory, authority) = (lambda().await, Directory::new(), Authority::new());
    let (collector, telemetry) = Collector::start("{ratio: 1}").await;
    let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let [certificate, key] = [("server.pem", certificate), ("server.key", key)]
        .map(|(name, text)| directory.write(name, &text).display().to_string());
    let server = format!("tls: {{certificate: '{certificate}', key: '{key}'}}");
    let text = telemetry + &config(&lambda, &server, "  echo: {function: echo, event: http-api}\n");
    let process = Process::serve(&directory.write("f.yaml", &text), &[]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let mut channel = connect(&address, trusting).await.unwrap();
    let asked =
        http::Request::get(format!("https://{address}/v1/policies/echo/http/")).body(tonic::body::Body::empty());
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let answer = channel.call(asked.unwrap()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let event: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(event["headers"]["x-forwarded-proto"], "https", "{event}");
    let span =
        eventually("its span", async || collector.spans().into_iter().find(|span| span.kind() == SpanKind::Server))
            .await;
    assert_eq!(attribute(&span.attributes, "url.scheme"), "https", "{span:?}");
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_or_not_for_long_is_told_of_and_served_all_the_same() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let authority = Authority::until(SystemTime::now() + 5 * DAY - DAY / 2);
    let write = |end| {
        let (certificate, key) = authority.issue_until("localhost", ExtendedKeyUsagePurpose::ServerAuth, end);
        directory.write("server.key", &key);
        directory.write("server.pem", &certificate);
    };
    write(SystemTime::UNIX_EPOCH + 18_262 * DAY);
    directory.write("ca.pem", &authority.pem());
    let tls = "tls: {certificate: server.pem, key: server.key, client_ca: ca.pem}";
    let file = directory.write("f.yaml", &config(&lambda, tls, "  echo: {function: echo}\n"));
    let expired = "server.tls.certificate: the file's certificate has expired, at 2020-01-01T00:00:00Z";
    let soon = "server.tls.client_ca: an authority's certificate in the file expires in 4 days, at 20";
    let checked = run(&["check", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && said.contains(expired) && said.contains(soon), "{said}");

    let process = Process::serve(&file, &[]);
    let address = eventually("the service", async || process.address("grpc")).await;
    assert!(process.said().contains(expired) && process.said().contains(soon), "{}", process.said());
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    assert!(connect(&address, trusting).await.is_none());
    let port = process.address("admin").unwrap();
    let metric = async |name: &str| {
        let (_, _, metrics) = admin(&port, "GET", "/metrics", "*/*", "").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().parse::<f64>());
        value.unwrap_or_else(|| panic!("{name}: {metrics}")).unwrap()
    };
    let left = |role: &str| format!("lambda_policy_tls_certificate_expiry_seconds{{certificate=\"{role}\"}}");
    assert!(metric(&left("server")).await < 0.0);
    assert_eq!((metric(&left("client_ca")).await / DAY.as_secs_f64()).floor(), 4.0);
    let (_, _, status) = admin(&port, "GET", "/status", "*/*", "").await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["certificates"][0]["role"], "server");
    assert!(status["certificates"][0]["trouble"].as_str().unwrap().starts_with("has expired"), "{status}");
    assert_eq!(status["connections"]["refused"]["distrusted"], 1);
    assert_eq!(status["connections"]["limit"], metric("lambda_policy_server_connections_limit").await as u64);

    write(SystemTime::now() + 90 * DAY);
    eventually("the new certificate", async || {
        (metric(&left("server")).await > 80.0 * DAY.as_secs_f64()).then_some(())
    })
    .await;
    assert!(process.said().matches(soon).count() >= 2, "a reload warns too");
}

#[test]
fn a_key_that_is_none_is_told_by_the_check_and_keeps_the_service_from_starting() {
    let directory = Directory::new();
    let authority = Authority::new();
    let (certificate, _) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let (_, other) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    for (name, text) in [("c.pem", &*certificate), ("k.pem", &*other), ("none.pem", "no PEM\n")] {
        directory.write(name, text);
    }
    for (tls, expected) in [
        ("{certificate: c.pem, key: k.pem}", &["server.tls.key: the file is not the certificate's key"][..]),
        (
            "{certificate: none.pem, key: none.pem, client_ca: none.pem}",
            &[
                "server.tls.certificate: the file has no certificate: expected PEM with `BEGIN CERTIFICATE`",
                "server.tls.key: the file has no private key: expected PEM",
                "server.tls.client_ca: the file has no certificate",
            ],
        ),
    ] {
        let text = format!("server: {{listen: '127.0.0.1:0', tls: {tls}}}\nadmin: {{listen: '127.0.0.1:0'}}\n");
        let file = directory.write("f.yaml", &text);
        for command in ["check", "serve"] {
            let output = run(&[command, "--config", file.to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(2), "{command} {tls}");
            let said = String::from_utf8(output.stderr).unwrap();
            for expected in expected {
                assert!(said.contains(expected), "{command} {tls}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn the_command_line_calls_by_tls_too() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let (own, own_key) = authority.issue("gateway", ExtendedKeyUsagePurpose::ClientAuth);
    let ca = authority.pem();
    let files =
        [("server.pem", &certificate), ("server.key", &key), ("ca.pem", &ca), ("own.pem", &own), ("own.key", &own_key)];
    let file = |name: &str| directory.0.join(name).display().to_string();
    for (name, text) in files {
        directory.write(name, text);
    }
    let tls = "tls: {certificate: server.pem, key: server.key, client_ca: ca.pem}";
    let process = Process::serve(&directory.write("f.yaml", &config(&lambda, tls, "  echo: {function: echo}\n")), &[]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let port = address.rsplit_once(':').unwrap().1.to_owned();
    let (https, bare) = (format!("https://localhost:{port}"), format!("localhost:{port}"));
    let http = format!("http://{bare}");
    let (ca, own, own_key) = (file("ca.pem"), file("own.pem"), file("own.key"));
    for (what, arguments, code) in [
        (
            "a certificate and whom to trust",
            &["--address", &https, "--ca", &ca, "--cert", &own, "--key", &own_key][..],
            0,
        ),
        ("without a scheme", &["--address", &bare, "--ca", &ca, "--cert", &own, "--key", &own_key], 0),
        ("no certificate", &["--address", &https, "--ca", &ca], 1),
        ("the system's authorities", &["--address", &https, "--cert", &own, "--key", &own_key], 1),
        ("a certificate for plain http", &["--address", &http, "--ca", &ca], 2),
        ("a file that is not there", &["--address", &https, "--ca", "/not/there"], 2),
        ("a certificate without its key", &["--address", &https, "--cert", &own], 2),
    ] {
        let arguments: Vec<_> = ["call", "echo"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let called =
            tokio::task::spawn_blocking(move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
        let output = called.await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{what}: {said}");
    }
    for (arguments, code) in [(&["--ca", &ca, "--cert", &own, "--key", &own_key][..], 0), (&["--ca", &ca], 1)] {
        let arguments: Vec<_> =
            ["health", "--grpc", &https].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let asked = tokio::task::spawn_blocking(move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
        let output = asked.await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn a_changed_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let (old, new) = (Authority::new(), Authority::new());
    // As Kubernetes mounts a secret: the files are links through one link that is swapped.
    let version = |number: &str, authority: &Authority| {
        let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        std::fs::create_dir_all(directory.0.join(number)).unwrap();
        for (name, text) in [("server.pem", certificate), ("server.key", key), ("ca.pem", authority.pem())] {
            std::fs::write(directory.0.join(number).join(name), text).unwrap();
        }
    };
    let swap = |number: &str| {
        std::os::unix::fs::symlink(number, directory.0.join("..tmp")).unwrap();
        std::fs::rename(directory.0.join("..tmp"), directory.0.join("..data")).unwrap();
    };
    version("1", &old);
    swap("1");
    for name in ["server.pem", "server.key", "ca.pem"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), directory.0.join(name)).unwrap();
    }
    let tls = "tls: {certificate: server.pem, key: server.key, client_ca: ca.pem}";
    let process = Process::serve(&directory.write("f.yaml", &config(&lambda, tls, "  echo: {function: echo}\n")), &[]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let call = async |authority: &Authority| {
        let (certificate, key) = authority.issue("gateway", ExtendedKeyUsagePurpose::ClientAuth);
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
        let client =
            crate::support::client_of(connect(&address, tls.identity(Identity::from_pem(certificate, key))).await?);
        execute(&client, request("echo", "{}")).await.ok().map(|_| client)
    };
    let before = call(&old).await.unwrap();

    version("2", &old);
    std::fs::write(directory.0.join("2/server.key"), "no key").unwrap();
    swap("2");
    eventually("the complaint", async || {
        process.said().contains("server.tls.key: the file has no private key").then_some(())
    })
    .await;
    assert!(call(&old).await.is_some(), "the old one keeps serving");

    version("3", &new);
    swap("3");
    eventually("the new certificate, and the callers of its authority", async || call(&new).await).await;
    assert!(call(&old).await.is_none(), "callers of the old authority come in no more");
    execute(&before, request("echo", "{}")).await.unwrap();
    assert!(!process.said().contains("need a restart"));
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_keeps_nobody_waiting() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    directory.write("server.pem", &certificate);
    directory.write("server.key", &key);
    let server = "workers: 1, tls: {certificate: server.pem, key: server.key}";
    let process =
        Process::serve(&directory.write("f.yaml", &config(&lambda, server, "  echo: {function: echo}\n")), &[]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let client = crate::support::client_of(connect(&address, tls).await.unwrap());
    execute(&client, request("echo", "{}")).await.unwrap();
}
