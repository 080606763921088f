//! The service as its users see it: real gRPC in, real signed HTTP out, real function processes.

#![allow(clippy::unwrap_used)]

mod admin;
mod admission;
mod binary;
mod breaker;
mod callers;
mod check_aws;
mod cluster;
mod credentials;
mod deploy;
mod drain;
mod envoy;
mod events;
mod execute;
mod ext_proc;
mod failures;
mod faults;
mod fuzz;
mod gateways;
mod health;
mod hostile;
mod house;
mod http;
mod identities;
mod import;
mod inline;
mod json;
mod lifecycle;
mod lines;
mod load_reports;
mod metrics;
mod observability;
mod page;
mod readme;
mod reflection;
mod reload;
mod requests;
mod secrets;
mod soak;
mod stream;
mod support;
mod tls;
mod traces;
mod unix;
mod words;
