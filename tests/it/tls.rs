//! TLS, and callers that must have a certificate.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{
    binary::{Process, run},
    support::{Directory, config, eventually, execute, lambda, request},
};

/// A certificate authority, and what it issues.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

async fn connect(address: &str, tls: ClientTlsConfig) -> Option<Channel> {
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

    let trusting = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let identity = |authority: &Authority| {
        let (certificate, key) = authority.issue("gateway", ExtendedKeyUsagePurpose::ClientAuth);
        Identity::from_pem(certificate, key)
    };
    let channel = connect(&address, trusting().identity(identity(&authority))).await.unwrap();
    execute(&crate::support::client_of(channel), request("echo", "{}")).await.unwrap();

    for (who, tls) in [
        ("a caller without a certificate", trusting()),
        ("a caller with a stranger's", trusting().identity(identity(&stranger))),
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
}

#[test]
fn a_key_that_is_none_keeps_the_service_from_starting() {
    let directory = Directory::new();
    for name in ["c.pem", "k.pem"] {
        directory.write(name, "no PEM\n");
    }
    let text =
        "server: {listen: '127.0.0.1:0', tls: {certificate: c.pem, key: k.pem}}\nadmin: {listen: '127.0.0.1:0'}\n";
    let output = run(&["serve", "--config", directory.write("f.yaml", text).to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("server.tls: the certificate and key do not make a TLS server"), "{said}");
}
