//! A collector that keeps the spans that it is sent, by OTLP.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// A collector, and the configuration of a service that pushes there.
    pub(crate) async fn start(traces: &str) -> (Self, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let telemetry = telemetry(&listener.local_addr().unwrap().to_string(), traces);
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, telemetry)
    }

    /// Every span that has come.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).cloned().collect()
    }

    /// What the first request says of who sends.
    pub(crate) fn resource(&self) -> Vec<KeyValue> {
        self.0.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap().attributes
    }

    /// All that has come, as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for request in &*self.0.lock().unwrap() {
            write!(text, "{request:?}").unwrap();
        }
        text
    }
}

pub(crate) fn telemetry(address: &str, traces: &str) -> String {
    format!("telemetry: {{otlp: {{endpoint: 'http://{address}', interval: 1s}}, traces: {traces}}}\n")
}

/// An attribute as text; nothing if there is none.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == name).and_then(|found| found.value.clone());
    match value {
        Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(any_value::Value::IntValue(number)) }) => number.to_string(),
        Some(AnyValue { value: Some(any_value::Value::DoubleValue(number)) }) => number.to_string(),
        None => String::new(),
        other => panic!("{name}: {other:?}"),
    }
}
