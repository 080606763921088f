//! What a connection may ask of HTTP/2.
//!
//! The rest is set by h2 and hyper themselves, and `tests/it/hostile.rs` keeps watch over it: answers to PING and SETTINGS
//! wait for each other, CONTINUATION frames are counted, small DATA frames have a budget, and HTTP/1 has 100 headers.

use std::time::Duration;

use tonic::transport::Server;

/// The largest head of a request in HTTP/2, as RFC 9113 counts it (6.5.2). It is answered with 431.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that the client ended before they were looked at (rapid reset, CVE-2023-44487), at once.
const MAX_RESETS: usize = 20;
/// Streams that were ended here because the client broke the protocol (CVE-2025-8671), in a connection's life. Without
/// a number tonic asks for no limit.
const MAX_ERRORS: usize = 1024;
/// How often an idle connection is asked whether anybody is there, and how long for an answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// A server whose connections are bounded. Without a number tonic asks for no limit of the streams either.
pub(super) fn bounded(server: Server, max_streams: u32) -> Server {
    server
        .max_concurrent_streams(max_streams)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_ERRORS))
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
}
