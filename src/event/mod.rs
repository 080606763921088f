//! HTTP calls become function events, and functions' outputs become HTTP replies, as AWS's own front doors
//! do it.
//!
//! A function that was written for a REST API, an HTTP API, a function URL or a load balancer must not notice
//! that another gateway calls it. So each format is a room of its own, with both directions in it and its
//! front door's rules, which agree on next to nothing:
//!
//! | | `rest-api` | `http-api` | `function-url` | `alb` |
//! |---|---|---|---|---|
//! | path | encoded | decoded | encoded | encoded |
//! | query | decoded | decoded, joined | decoded, joined | as it came |
//! | a repeated name | last, and all | joined by commas | joined by commas | last, or all |
//! | header names | as sent, a few in title case | lower case | lower case | lower case |
//! | cookies | in the header | in a list | in both | in the header |
//! | what is missing | `null` | has no key | has no key | is empty |
//! | an output without a status | 200 | is the body | is the body | 502 |
//!
//! The shared pieces are rooms too: `fields` and `forwarded` (the caller's headers), `multimap` and `query`
//! (names with several values), `body` (text or base64), `v1` and `v2` (payload formats), `authorizer`, and on the way back
//! `envelope` (an output taken apart), `head` (status and headers) and `output_body`.
//!
//! Everything here is a pure function of its arguments: no clock, no randomness, no I/O. Events are written
//! into one buffer, outputs are read in place, and a body that needs no decoding shares the output's memory.

mod alb;
pub mod authorization;
mod authorizer;
mod body;
mod call;
pub mod caller;
pub mod callout;
mod envelope;
mod envoy;
pub mod exchange;
pub mod fault;
mod fields;
mod format;
mod forwarded;
mod function_url;
mod head;
mod http_api;
mod http_api_v1;
mod iam;
mod json;
mod kong;
mod kong_gateway;
mod malformed;
mod moment;
mod multimap;
mod opening;
mod output_body;
pub mod picks;
mod query;
mod raw;
mod reply;
mod rest_api;
pub mod rules;
#[cfg(test)]
mod testing;
mod v1;
mod v2;

pub use call::{Call, Front};
pub use format::{Format, Unencodable, UnknownFormat};
pub use head::Head;
pub use malformed::Malformed;
pub use opening::Opening;
pub use reply::{Marks, Reply, accepted, problem};

/// Why a front door answers itself: to all of them these are one. Where no function answered there is an error
/// of the service, which keeps its meaning ([`problem`]), and not what AWS makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The function failed, in whatever way: to every front door a function's own timeout is a failure as
    /// any other.
    Function,
    /// The function's output is no reply.
    Malformed,
}
