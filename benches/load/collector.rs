//! An OTLP collector that takes everything and keeps nothing.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    Outcome,
    process::{Cores, Process},
};

/// Where a collector is.
#[derive(Debug)]
pub(crate) struct Collector {
    pub address: SocketAddr,
    _process: Process,
}

struct Taken;

impl Collector {
    pub(crate) fn start(cores: &Cores) -> Outcome<Self> {
        let (process, address) = Process::part(cores, &["collector".to_owned()])?;
        Ok(Self { address, _process: process })
    }
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "the starter reads the address")]
pub(crate) async fn main() -> Outcome<()> {
    crate::process::end_with_parent();
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("{}", listener.local_addr()?);
    let server =
        Server::builder().add_service(MetricsServiceServer::new(Taken)).add_service(TraceServiceServer::new(Taken));
    Ok(server.serve_with_incoming(TcpIncoming::from(listener)).await?)
}

#[tonic::async_trait]
impl MetricsService for Taken {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
