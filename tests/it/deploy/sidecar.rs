//! The service beside Envoy, with the files of `deploy/kubernetes/overlays/sidecar`.

use std::{fs, os::unix::fs::MetadataExt};

use http::Method;
use lambda_policy::local::Lambda;

use super::read;
use crate::{
    binary::Process,
    support::{
        Directory,
        envoy::{self, Envoy},
        eventually, lambda,
    },
};

/// The embedded Lambda in the place of AWS's.
fn at(lambda: &Lambda) -> String {
    let (url, id, secret) = (lambda.url(), Lambda::KEY_ID, Lambda::SECRET);
    format!("  endpoint: {{url: '{url}'}}\n  credentials: {{access_key_id: {id}, secret_access_key: {secret}}}")
}

#[tokio::test]
async fn the_sidecars_envoy_calls_through_the_socket() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let user = fs::metadata(&directory.0).unwrap().uid();
    let function = "arn:aws:lambda:us-east-1:123456789012:function:orders";
    let mut policies = read("kubernetes/overlays/sidecar/policies.yaml");
    for (from, to) in [
        ("/run/lambda-policy/", ""),
        ("['65532']", &*format!("[{user}]")),
        ("0.0.0.0:9464", "127.0.0.1:0"),
        ("  credentials: default", &*at(&lambda)),
        (function, "greet"),
        ("    qualifier: live\n", ""),
    ] {
        policies = envoy::replace(&policies, from, to);
    }
    let process = Process::serve(&directory.write("policies.yaml", &policies), &[]);
    eventually("the service", async || process.address("grpc")).await;

    let socket = directory.0.join("grpc.sock").to_string_lossy().into_owned();
    let [http, ready, admin] = [(); 3].map(|()| envoy::free_address());
    let mut text = read("kubernetes/overlays/sidecar/envoy-config.yaml");
    for (from, to) in [
        ("/run/lambda-policy/grpc.sock", socket),
        ("port_value: 10000", format!("port_value: {}", http.port())),
        ("port_value: 9902", format!("port_value: {}", ready.port())),
        ("port_value: 9901", format!("port_value: {}", admin.port())),
    ] {
        text = envoy::replace(&text, from, &to);
    }
    let gateway = Envoy::run(&text, http).await;
    let answer = gateway.get("/orders?name=Ada").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.body).contains("Ada"), "{answer:?}");
    assert_eq!(gateway.get("/invoices").await.status, 404);
    assert_eq!(envoy::send(ready, Method::GET, "/ready", &[], "").await.status, 200);
}
