//! The caller's deadline, from the `grpc-timeout` header.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

/// How much earlier than the caller the service stops waiting, so that the caller still gets the answer that says
/// why; tonic would end the call at the deadline itself, without a reason.
const MARGIN: Duration = Duration::from_millis(5);

/// When the caller stops waiting, kept with the request from the moment it is received: a busy service may come to
/// its body late, and tonic's clock runs already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(pub Instant);

impl Deadline {
    /// The deadline of a request that was received now.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let timeout = parse(headers.get("grpc-timeout")?.to_str().ok()?)?;
        let margin = MARGIN.min(timeout / 10);
        Instant::now().checked_add(timeout - margin).map(Self)
    }
}

/// At most eight digits and a unit (gRPC over HTTP/2, `Timeout`).
fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.len().checked_sub(1)?;
    let (digits, unit) = text.split_at_checked(unit_at)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, millis) in [
            ("1S", Some(1000)),
            ("2M", Some(120_000)),
            ("1H", Some(3_600_000)),
            ("250m", Some(250)),
            ("99999999u", Some(99_999)),
            ("5000000n", Some(5)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("123456789S", None),
            ("1\u{e9}", None),
        ] {
            assert_eq!(parse(text).map(|d| d.as_millis()), millis, "{text}");
        }
    }
}
