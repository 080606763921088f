//! What the service says of itself.

pub mod access;
mod certificates;
mod durations;
mod exemplars;
mod failures;
mod json;
mod level;
pub mod log;
mod losses;
mod meters;
mod metrics;
pub mod names;
mod otlp;
mod outlet;
mod partial;
mod policies;
mod process;
mod readers;
mod requests;
mod rpc;
mod runtime;
mod scrape;
mod spans;
mod spread;
mod tally;
mod traces;
pub mod writer;

pub use self::{
    certificates::{Certificate, Certificates},
    failures::Failure,
    losses::Loss,
    meters::{End, Invoked},
    metrics::{Metrics, Readings},
    otlp::{Failing, Otlp, Pushes},
    requests::{Asked, Ending, Requests, came},
    rpc::Rpcs,
    scrape::Form,
    tally::{Figures, INTERVAL, Recent},
};
