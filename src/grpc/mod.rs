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
mod foreign;
mod handshake;
pub mod json;
mod limits;
mod load;
mod measured;
mod no_call;
mod parting;
mod plugin;
mod reception;
mod renewal;
mod service;
mod status;
mod stream;
mod tls;
mod tyk;
mod unread;
mod web;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use http::{HeaderMap, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use tonic::{
    service::{LayerExt, Routes},
    transport::Server,
};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::{
    Service,
    util::{MapRequestLayer, MapResponseLayer},
};

use self::{
    foreign::Foreign,
    load::Load,
    parting::Parting,
    renewal::Renewal,
    stream::{Connection, Stream},
    web::Web,
};
pub use self::{
    load::Capacity,
    stream::Socket,
    tls::{ClientCa, Current, Tls, TlsError},
};
use crate::{
    admission::{Connections, Place, Refusal},
    execute::{Encrypted, Engine},
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
    policy::callers::{self, Identified, Presented},
    trace,
};

/// The largest message that is read: Lambda's 6 MB, and room for what stands around it.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Tyk sends a body that is text twice.
const MAX_OBJECT: usize = 2 * MAX_MESSAGE;
/// How many handshakes of TLS a worker has in hand at once; each ends within ten seconds.
const MOST_HANDSHAKES: usize = 4096;

/// How the front serves its connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// After this time a connection gets a GOAWAY and ends with its last call, so that load spreads again.
    pub max_connection_age: Duration,
    /// How many connections there may be at once.
    pub max_connections: usize,
    /// How many calls one connection may have at once.
    pub max_streams: u32,
    /// Serve TLS instead of plaintext.
    pub tls: Option<Current>,
    /// Report the load of what there is so much of with each call of the contract.
    pub load_reports: Option<Capacity>,
}

/// The front, ready to serve, and the switch of its health. Each worker serves with a clone.
#[derive(Clone)]
pub struct Front {
    engine: Arc<Engine>,
    routes: Routes,
    server: Server,
    health: Health,
    tls: Option<Current>,
    measured: measured::Measured,
    foreign: Foreign,
    parting: Parting,
}

/// Why the front cannot serve.
#[derive(Debug)]
pub struct Error(tonic::transport::Error);

/// Turns `grpc.health.v1` on and off.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    leaving: Arc<AtomicBool>,
}

impl Front {
    /// A front for an engine, with HTTP routes beside it. Its health is SERVING.
    pub async fn new(engine: Arc<Engine>, options: Options, http: impl Into<Routes>) -> Self {
        let reporter = HealthReporter::new();
        let health = Health { reporter: reporter.clone(), leaving: Arc::default() };
        health.set(true).await;
        let measured = measured::Measured::new(&engine, options.tls.is_some());
        let policies = PolicyServiceServer::new(service::Service::new(Arc::clone(&engine)));
        let tyk = DispatcherServer::new(tyk::Service::new(Arc::clone(&engine)));
        let apigee = ExternalCalloutServiceServer::new(apigee::Service::new(Arc::clone(&engine)));
        let ext_proc = ExternalProcessorServer::new(ext_proc::Service::new(Arc::clone(&engine)));
        let ext_authz = AuthorizationServer::new(ext_authz::Service::new(Arc::clone(&engine)));
        let told = unread::Unread(Arc::clone(&engine));
        let policies = told.named_layer(policies.max_decoding_message_size(MAX_MESSAGE));
        let routes = match options.load_reports {
            None => http.into().add_service(Web::new(policies)),
            Some(capacity) => {
                let load = Load::start(Arc::clone(&engine), capacity);
                let reported = MapResponseLayer::new(move |response| load.append(response));
                http.into().add_service(Web::new(reported.named_layer(policies)))
            }
        };
        let routes = routes
            .add_service(told.named_layer(tyk.max_decoding_message_size(MAX_OBJECT)))
            .add_service(told.named_layer(apigee.max_decoding_message_size(MAX_MESSAGE)))
            .add_service(told.named_layer(ext_proc.max_decoding_message_size(MAX_MESSAGE)))
            .add_service(told.named_layer(ext_authz.max_decoding_message_size(MAX_MESSAGE)))
            .add_service(HealthServer::new(HealthService::from_health_reporter(reporter)))
            .add_service(reflection_v1())
            .add_service(reflection_v1alpha());

        let age = spread(options.max_connection_age);
        let parting = Parting::new(&health.leaving, age);
        let server = limits::bounded(Server::builder(), options.max_streams)
            .accept_http1(true)
            .tcp_nodelay(true)
            .max_connection_age(age);
        engine.admission().connections().bound(options.max_connections);
        let foreign = Foreign(measured::services().into());
        Self { routes, server, health, engine, tls: options.tls, measured, foreign, parting }
    }

    /// The switch of this front's health.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Answers a request that came over no connection: for fuzzing.
    #[doc(hidden)]
    pub async fn answer(&self, request: http::Request<Vec<u8>>) -> http::Response<Vec<u8>> {
        let request = request.map(|body| tonic::body::Body::new(Full::from(body)));
        let request = reception::counted(introduce(&self.engine, request), self.engine.admission().bodies());
        let Ok(response) = Service::call(&mut self.routes.clone(), request).await;
        let (head, body) = response.into_parts();
        // A body that breaks off has said why before.
        let body = body.collect().await.map(|whole| whole.to_bytes().to_vec()).unwrap_or_default();
        http::Response::from_parts(head, body)
    }

    /// Serves connections until `shutdown`, then sends GOAWAY, and ends with the last call.
    ///
    /// # Errors
    /// If a connection cannot be taken over.
    pub async fn serve(
        self,
        sockets: impl futures::Stream<Item = io::Result<Socket>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let Self { routes, server, engine, tls, measured, foreign, parting, .. } = self;
        let connections = Arc::clone(engine.admission().connections());
        let entered = Arc::clone(&connections);
        let sockets = sockets.filter_map(move |socket| std::future::ready(enter(&entered, socket)));
        let bodies = Arc::clone(engine.admission().bodies());
        let renewal = Renewal::new(&engine);
        let introduced = MapRequestLayer::new(move |request| introduce(&engine, request));
        let counted = MapRequestLayer::new(move |request| reception::counted(request, &bodies));
        let server = server.layer(measured).layer(parting).layer(foreign).layer(introduced).layer(renewal);
        let router = server.layer(counted).add_routes(routes);
        match tls {
            None => {
                let streams = sockets.map(|socket| socket.map(|(socket, place)| Stream::plain(socket, place)));
                router.serve_with_incoming_shutdown(streams, shutdown).await
            }
            Some(tls) => router.serve_with_incoming_shutdown(encrypted(sockets, tls, connections), shutdown).await,
        }
        .map_err(Error)
    }
}

/// A connection with its place. Without one there is no other answer than to close it: nothing was read of it yet.
fn enter(connections: &Arc<Connections>, socket: io::Result<Socket>) -> Option<io::Result<(Socket, Place)>> {
    let place = connections.enter();
    if place.is_none()
        && let Some(refused) = connections.refuse(Refusal::Full)
    {
        let peer = socket.as_ref().ok().and_then(stream::origin).map(tracing::field::display);
        let most = connections.most();
        tracing::warn!(connections = most, peer, refused, "connections are refused: server.max_connections");
    }
    place.map(|place| socket.map(|socket| (socket, place)))
}

/// The connections whose handshake went well, in the order in which they were done with it.
fn encrypted(
    sockets: impl futures::Stream<Item = io::Result<(Socket, Place)>>,
    tls: Current,
    connections: Arc<Connections>,
) -> impl futures::Stream<Item = io::Result<Stream>> {
    let handshakes = sockets.map(move |socket| {
        let (tls, connections) = (tls.clone(), Arc::clone(&connections));
        async move {
            let (socket, place) = socket?;
            Ok(handshake::shake(&tls, &connections, socket, place).await)
        }
    });
    handshakes.buffer_unordered(MOST_HANDSHAKES).filter_map(|shaken| std::future::ready(shaken.transpose()))
}

impl Health {
    /// SERVING or NOT_SERVING, for the server as a whole and for the contract's service.
    pub async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.leaving.store(!serving, Ordering::Relaxed);
        self.reporter.set_service_status("", status).await;
        self.reporter.set_service_status(SERVICE_NAME, status).await;
    }

    /// Ends the watches, which would keep their connections open for ever. From now on the service is NOT_SERVING.
    pub async fn end_watches(&self) {
        let mut reporter = self.reporter.clone();
        for service in ["", SERVICE_NAME] {
            reporter.clear_service_status(service).await;
        }
        self.set(false).await;
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

/// Tells the services behind who calls, until when and in which trace, in terms of the product's own.
fn introduce<B>(engine: &Engine, mut request: http::Request<B>) -> http::Request<B> {
    if let Some(Connection { origin: Some(origin), tls, .. }) = request.extensions().get() {
        let (origin, tls) = (*origin, *tls);
        request.extensions_mut().insert(origin);
        if tls {
            request.extensions_mut().insert(Encrypted);
        }
    }
    if let Some(deadline) = deadline::Deadline::of(request.headers()) {
        request.extensions_mut().insert(deadline);
    }
    if let Some(context) = trace::Context::of(request.headers()) {
        request.extensions_mut().insert(context);
    }
    if engine.has_callers() {
        identify(engine, &mut request);
    }
    request
}

/// Tells who calls, by what the request presents now.
fn identify<B>(engine: &Engine, request: &mut http::Request<B>) {
    let proven = request.extensions().get::<Connection>().and_then(|connection| connection.proven.clone());
    let Identified { caller, by_authorization } = engine.identify(&Presented {
        own: one(request.headers(), callers::HEADER),
        authorization: one(request.headers(), AUTHORIZATION.as_str()),
        peer: proven.as_deref(),
    });
    request.extensions_mut().insert(caller);
    if by_authorization {
        // With it the function could make this caller's calls.
        request.headers_mut().remove(AUTHORIZATION);
    }
}

/// A header's value; of several none, as one of them may be a client's.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.as_bytes()),
        (Some(_), Some(_)) => Some(b""),
    }
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
