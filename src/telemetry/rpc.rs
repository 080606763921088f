//! How long the RPCs of a server take, by method and code.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::{KeyValue, metrics::BoundHistogram};

use super::{
    metrics::Metrics,
    names::{self, GRPC_CODES, GRPC_ERRORS},
};

/// Stands for every method that a server does not have (semantic conventions, RPC).
const OTHER: &str = "_OTHER";

/// The methods of a server, and what was measured of them.
pub struct Rpcs {
    metrics: Arc<Metrics>,
    methods: Vec<Method>,
}

struct Method {
    /// `service/method`.
    name: String,
    codes: [OnceLock<BoundHistogram<f64>>; GRPC_CODES.len()],
}

impl Rpcs {
    /// For a server with these methods, each as `service/method`; those that are called most come first.
    pub fn new(metrics: Arc<Metrics>, methods: impl IntoIterator<Item = String>) -> Self {
        let methods = methods.into_iter().chain([OTHER.to_owned()]);
        let methods = methods.map(|name| Method { name, codes: [const { OnceLock::new() }; GRPC_CODES.len()] });
        Self { metrics, methods: methods.collect() }
    }

    /// The number of a path's method.
    pub fn method(&self, path: &str) -> usize {
        let name = path.strip_prefix('/').unwrap_or(path);
        self.methods.iter().position(|method| method.name == name).unwrap_or(self.methods.len() - 1)
    }

    /// Whether a path's number is that of a method of the server.
    pub fn has(&self, method: usize) -> bool {
        method + 1 < self.methods.len()
    }

    /// Records an RPC that has ended with this code; one that gRPC does not have is 2, UNKNOWN.
    pub fn ended(&self, method: usize, code: usize, took: Duration) {
        let Some(method) = self.methods.get(method) else { return };
        let code = if code < GRPC_CODES.len() { code } else { 2 };
        let (Some(bound), Some(name)) = (method.codes.get(code), GRPC_CODES.get(code)) else { return };
        let bind = || {
            let attribute = |label: &names::Label, value: &str| KeyValue::new(label.name, value.to_owned());
            let mut labels = vec![
                attribute(&names::RPC_SYSTEM, "grpc"),
                attribute(&names::RPC_METHOD, &method.name),
                attribute(&names::RPC_STATUS, name),
            ];
            if GRPC_ERRORS.contains(name) {
                labels.push(attribute(&names::RPC_ERROR, name));
            }
            self.metrics.instruments.server.bind(&labels)
        };
        bound.get_or_init(bind).record(took.as_secs_f64());
    }
}
