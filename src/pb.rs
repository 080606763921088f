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

/// Envoy's external processing and external authorization. The modules are nested as the packages are, for they name
/// each other.
#[allow(missing_docs, clippy::all, reason = "not written by hand; the documentation is the proto's")]
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub mod extensions {
        pub mod filters {
            pub mod http {
                pub mod ext_proc {
                    pub mod v3 {
                        tonic::include_proto!("envoy.extensions.filters.http.ext_proc.v3");
                    }
                }
            }
        }
    }
    pub mod service {
        pub mod auth {
            pub mod v3 {
                tonic::include_proto!("envoy.service.auth.v3");
            }
        }
        pub mod ext_proc {
            pub mod v3 {
                tonic::include_proto!("envoy.service.ext_proc.v3");
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            tonic::include_proto!("envoy.r#type.v3");
        }
    }
}

/// The load reports of xDS.
#[allow(missing_docs, clippy::all, reason = "not written by hand; the documentation is the proto's")]
pub mod xds {
    pub mod data {
        pub mod orca {
            pub mod v3 {
                tonic::include_proto!("xds.data.orca.v3");
            }
        }
    }
}

/// What Envoy's protocols take from googleapis.
#[allow(missing_docs, clippy::all, reason = "not written by hand; the documentation is the proto's")]
pub mod google {
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
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

/// The descriptor set of the contract and what it imports, the contract's own file first.
pub const CONTRACT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.bin"));
/// The same with the imports before the files that import them.
pub const CONTRACT_LAST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract_last.bin"));
/// The descriptor set of the gateways' protocols.
pub const GATEWAYS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gateways.bin"));

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
