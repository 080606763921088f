//! The gRPC front: the contract's service, those of gateways with a protocol of their own, health and reflection on one
//! listener.

mod apigee;
pub mod client;
mod deadline;
mod decode;
pub mod descriptor;
mod encode;
mod envoy;
mod ext_authz;
mod ext_proc;
pub mod json;
mod plugin;
mod reception;
mod service;
mod status;
mod stream;
mod tls;
mod tyk;
mod undecodable;
mod web;

use std::{fmt, io, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::{
    service::{LayerExt, Routes},
    transport::{
        Server,
        server::{TcpConnectInfo, TlsConnectInfo},
    },
};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::util::{MapRequestLayer, MapResponseLayer};

pub use self::tls::{Tls, TlsError};
use self::{stream::Stream, web::Web};
use crate::{
    execute::{Engine, Peer},
    pb::{
        self,
        apigee::external_callout_service_server::ExternalCalloutServiceServer,
        envoy::service::{
            auth::v3::authorization_server::AuthorizationServer,
            ext_proc::v3::external_processor_server::ExternalProcessorServer,
        },
        policy_service_server::{PolicyServiceServer, SERVICE_NAME},
        tyk::dispatcher_server::DispatcherServer,
    },
};

/// The largest message that is read: Lambda's 6 MB, and room for what stands around it.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Tyk sends a body that is text twice.
const MAX_OBJECT: usize = 2 * MAX_MESSAGE;
/// How often an idle connection is asked whether anybody is there, and how long for an answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// How the front serves its connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// After this time a connection gets a GOAWAY and ends with its last call, so that load spreads again.
    pub max_connection_age: Duration,
    /// Serve TLS instead of plaintext.
    pub tls: Option<Tls>,
}

/// The front, ready to serve, and the switch of its health. Each worker serves with a clone.
#[derive(Clone)]
pub struct Front {
    engine: Arc<Engine>,
    routes: Routes,
    server: Server,
    health: Health,
}

/// Why the front cannot serve.
#[derive(Debug)]
pub struct Error(tonic::transport::Error);

/// Turns `grpc.health.v1` on and off.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Front {
    /// A front for an engine, with HTTP routes beside it. Its health is SERVING.
    ///
    /// # Errors
    /// If the certificate and key do not make a TLS server.
    pub async fn new(engine: Arc<Engine>, options: &Options, http: impl Into<Routes>) -> Result<Self, Error> {
        let reporter = HealthReporter::new();
        let health = Health(reporter.clone());
        health.set(true).await;
        let policies = PolicyServiceServer::new(service::Service::new(Arc::clone(&engine)));
        let tyk = DispatcherServer::new(tyk::Service::new(Arc::clone(&engine)));
        let apigee = ExternalCalloutServiceServer::new(apigee::Service::new(Arc::clone(&engine)));
        let ext_proc = ExternalProcessorServer::new(ext_proc::Service::new(Arc::clone(&engine)));
        let ext_authz = AuthorizationServer::new(ext_authz::Service::new(Arc::clone(&engine)));
        let told = MapResponseLayer::new(undecodable::answer);
        let routes = http
            .into()
            .add_service(Web::new(told.named_layer(policies.max_decoding_message_size(MAX_MESSAGE))))
            .add_service(told.named_layer(tyk.max_decoding_message_size(MAX_OBJECT)))
            .add_service(told.named_layer(apigee.max_decoding_message_size(MAX_MESSAGE)))
            .add_service(ext_proc.max_decoding_message_size(MAX_MESSAGE))
            .add_service(ext_authz.max_decoding_message_size(MAX_MESSAGE))
            .add_service(HealthServer::new(HealthService::from_health_reporter(reporter)))
            .add_service(reflection_v1())
            .add_service(reflection_v1alpha());

        let mut server = Server::builder()
            .accept_http1(true)
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .max_connection_age(spread(options.max_connection_age));
        if let Some(tls) = &options.tls {
            server = server.tls_config(tls.config()).map_err(Error)?;
        }
        Ok(Self { engine, routes, server, health })
    }

    /// The switch of this front's health.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves connections until `shutdown`, then sends GOAWAY, and ends with the last call.
    ///
    /// # Errors
    /// If a connection cannot be taken over.
    pub async fn serve(
        self,
        connections: impl tokio_stream::Stream<Item = io::Result<TcpStream>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let bodies = Arc::clone(self.engine.admission().bodies());
        self.server
            .clone()
            .layer(MapRequestLayer::new(move |request| reception::counted(introduce(request), &bodies)))
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(connections.map(|tcp| tcp.map(Stream::new)), shutdown)
            .await
            .map_err(Error)
    }
}

impl Health {
    /// SERVING or NOT_SERVING, for the server as a whole and for the contract's service.
    pub async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.0.set_service_status("", status).await;
        self.0.set_service_status(SERVICE_NAME, status).await;
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error: &dyn std::error::Error = &self.0;
        write!(f, "{error}")?;
        while let Some(cause) = error.source() {
            write!(f, ": {cause}")?;
            error = cause;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Tells the services behind who calls and until when, in terms of the product's own.
fn introduce<B>(mut request: http::Request<B>) -> http::Request<B> {
    let extensions = request.extensions();
    let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let peer = match tls {
        Some(info) => info.get_ref().remote_addr().map(|address| Peer { ip: address.ip(), tls: true }),
        None => extensions
            .get::<TcpConnectInfo>()
            .and_then(TcpConnectInfo::remote_addr)
            .map(|address| Peer { ip: address.ip(), tls: false }),
    };
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    if let Some(deadline) = deadline::Deadline::of(request.headers()) {
        request.extensions_mut().insert(deadline);
    }
    request
}

/// Up to a tenth more, so that replicas that were started together do not send their callers away together.
fn spread(age: Duration) -> Duration {
    age.mul_f64(1.0 + fastrand::f64() / 10.0)
}

macro_rules! reflection {
    ($name:ident, $build:ident, $version:ident) => {
        fn $name() -> tonic_reflection::server::$version::ServerReflectionServer<
            impl tonic_reflection::server::$version::ServerReflection,
        > {
            match tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(pb::CONTRACT)
                .register_encoded_file_descriptor_set(pb::GATEWAYS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .$build()
            {
                Ok(service) => service,
                Err(error) => unreachable!("the descriptors are compiled in: {error}"),
            }
        }
    };
}

reflection!(reflection_v1, build_v1, v1);
reflection!(reflection_v1alpha, build_v1alpha, v1alpha);
