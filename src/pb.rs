//! The protobuf contract, and the protocols of gateways that have one of their own, as Rust types, made by `build.rs`;
//! only the fronts know them.
//!
//! The two messages that can carry a secret have a `Debug` of their own that prints none.

use std::fmt;

pub use self::generated::*;

#[allow(missing_docs, clippy::all, reason = "not written by hand; the documentation is the proto's")]
mod generated {
    tonic::include_proto!("lambdapolicy.v1");
}

/// Tyk's rich plugins.
#[allow(missing_docs, clippy::all, reason = "not written by hand; the documentation is the proto's")]
pub mod tyk {
    tonic::include_proto!("coprocess");
}

/// Apigee's ExternalCallout.
#[allow(missing_docs, clippy::all, reason = "not written by hand; the documentation is the proto's")]
pub mod apigee {
    tonic::include_proto!("apigee");
}

/// The descriptor set of the contract and of the gateways' protocols, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

impl fmt::Debug for LambdaPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LambdaPolicy")
            .field("function", &self.function)
            .field("region", &self.region)
            .field("aws_access_key_id", &"[redacted]")
            .field("aws_secret_access_key", &"[redacted]")
            .field("aws_session_token", &"[redacted]")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ExecutePolicyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutePolicyRequest")
            .field("policy", &self.policy)
            .field("lambda", &self.lambda)
            .field("qualifier", &self.qualifier)
            .finish_non_exhaustive()
    }
}
