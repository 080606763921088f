//! Who is measured, and how each is started and called.

use std::{fmt, net::SocketAddr};

use serde::Serialize;

use crate::{
    Outcome, drive, envoy,
    process::{Cores, Process},
    service,
};

/// What a part needs to know.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the upstream is
    #[arg(long)]
    pub upstream: SocketAddr,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    Floor,
    Sdk,
    Envoy,
    Service,
}

/// A target that answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub target: Target,
    pub process: Process,
    pub address: SocketAddr,
}

impl Target {
    pub(crate) const ALL: [Self; 4] = [Self::Floor, Self::Sdk, Self::Envoy, Self::Service];

    /// Starts the target on these cores, in front of this upstream.
    pub(crate) fn start(self, cores: &Cores, upstream: SocketAddr) -> Outcome<Running> {
        let part = |name: &str| Process::part(cores, &[name.to_owned(), "--upstream".to_owned(), upstream.to_string()]);
        let (process, address) = match self {
            Self::Floor => part("floor")?,
            Self::Sdk => part("sdk")?,
            Self::Envoy => envoy::start(cores, upstream)?,
            Self::Service => {
                let started = service::start(cores, upstream, service::POLICIES)?;
                (started.process, started.address)
            }
        };
        Ok(Running { target: self, process, address })
    }

    /// How it is called.
    pub(crate) fn lane(self) -> drive::Lane {
        match self {
            Self::Envoy => drive::Lane::Http2,
            _ => drive::Lane::Grpc,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "floor",
            Self::Sdk => "sdk",
            Self::Envoy => "envoy",
            Self::Service => "service",
        })
    }
}
