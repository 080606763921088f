//! A collector that answers with a success, and takes only a part of what it is sent.

use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::{
    binary::Process,
    support::{Directory, admin, client, collector::telemetry, config, eventually, execute, lambda, request},
};

struct Picky;

#[tonic::async_trait]
impl TraceService for Picky {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        let rejected_spans = scopes.map(|scope| i64::try_from(scope.spans.len()).unwrap()).sum();
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: "the tenant is full".into() };
        Ok(Response::new(ExportTraceServiceResponse { partial_success: Some(partial) }))
    }
}

#[tonic::async_trait]
impl MetricsService for Picky {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let partial = ExportMetricsPartialSuccess { rejected_data_points: 5, error_message: "too many labels".into() };
        Ok(Response::new(ExportMetricsServiceResponse { partial_success: Some(partial) }))
    }
}

#[tokio::test]
async fn what_a_collector_refuses_in_a_success_is_lost_and_told() {
    let lambda = lambda().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let telemetry = telemetry(&listener.local_addr().unwrap().to_string(), "{ratio: 1}");
    let mut server = tonic::transport::Server::builder();
    let server = server.add_service(TraceServiceServer::new(Picky)).add_service(MetricsServiceServer::new(Picky));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let directory = Directory::new();
    let file = directory.write("f.yaml", &(telemetry + &config(&lambda, "", "  echo: {function: echo}\n")));
    // At this level, too, though nothing is written of it.
    let process =
        Process::serve(&file, &[("LAMBDA_POLICY_LOG", "error,lambda_policy::app=info,lambda_policy::telemetry=info")]);
    let address = eventually("the service", async || process.address("grpc")).await;
    execute(&client(&address).await, request("echo", "{}")).await.unwrap();
    let port = process.address("admin").unwrap();
    let status = eventually("the refusals", async || {
        let status = admin(&port, "GET", "/status", "*/*", "").await.2;
        let status: Value = serde_json::from_str(&status).unwrap();
        let failing = |signal: &str| !status["telemetry"]["otlp"][signal]["failing"].is_null();
        (failing("traces") && failing("metrics")).then_some(status)
    })
    .await;
    let telemetry = &status["telemetry"];
    for (signal, why) in [
        ("traces", "the collector refuses 2 spans of a push: the tenant is full"),
        ("metrics", "the collector refuses 5 data points of a push: too many labels"),
    ] {
        assert_eq!(telemetry["otlp"][signal]["failing"]["error"], why, "{telemetry}");
        assert!(telemetry["otlp"][signal]["failures"].as_u64().unwrap() > 0, "{telemetry}");
        let said = eventually("the line", async || Some(process.said()).filter(|said| said.contains(why))).await;
        assert_eq!(said.matches("telemetry cannot be pushed").count(), said.matches("refuses").count(), "{said}");
        assert_eq!(said.matches(why).count(), 1, "once a minute: {said}");
        assert!(!said.contains("PartialSuccess"), "{said}");
    }
    assert_eq!(telemetry["dropped"]["spans"]["count"], 2, "{telemetry}");
    let (_, _, metrics) = admin(&port, "GET", "/metrics", "*/*", "").await;
    assert!(metrics.contains("lambda_policy_telemetry_spans_dropped_total{reason=\"not_taken\"} 2.0\n"), "{metrics}");
}
