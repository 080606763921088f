//! API Connect's Lambda policy as a gRPC service: any API gateway invokes AWS Lambda functions.
//!
//! # One call's walk
//!
//! ```text
//! gateway --gRPC--> grpc (decode, who is calling) -> execute (policy, admission, deadline)
//!     -> event (HTTP call -> function event) -> lambda (client from the pool, one Invoke) -> AWS
//! gateway <--gRPC-- grpc (encode, status)         <- execute (settle, classify)
//!     <- event (function output -> HTTP reply)    <- lambda
//! ```
//!
//! Every front turns its call into the same [`execute::Request`] and calls the same [`execute::Engine`].
//!
//! # Floors
//!
//! A module imports only from lower floors, and on the lowest from those to its right; a test reads `src/` and checks it.
//!
//! ```text
//! 5 main
//! 4 app cli config
//! 3 grpc http
//! 2 execute
//! 1 lambda admission telemetry
//! 0 trace policy event error pb
//! ```
//!
//! `cli` is above `app` and `config`, which `app` knows. `local` is a leaf that only `cli` and tests know.

pub mod admission;
pub mod app;
pub mod cli;
pub mod config;
pub mod error;
pub mod event;
pub mod execute;
pub mod grpc;
pub mod http;
pub mod lambda;
pub mod local;
pub mod pb;
pub mod policy;
pub mod telemetry;
pub mod trace;
