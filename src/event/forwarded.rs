//! The headers in which AWS's front doors say where a call came from.
//!
//! REST APIs, HTTP APIs, function URLs and ALB all add the same four; ALB's
//! are described under "HTTP headers and Application Load Balancers".

use std::net::{IpAddr, SocketAddr};

use super::{call::Call, fields::Fields, moment::Moment};

/// Adds `X-Forwarded-For`, `-Port` and `-Proto`, and `X-Amzn-Trace-Id` if the caller sent none.
///
/// The caller's address is appended, so that what a client claims stands before what is known. A gateway
/// that has appended it already is not repeated. Port and protocol are those of the call itself.
pub(super) fn add<'a>(fields: &mut Fields<'a>, call: &'a Call) {
    if !call.source_ip.is_empty() {
        let claimed = fields.all("x-forwarded-for").collect::<Vec<_>>().join(", ");
        let last = claimed.rsplit(',').next().unwrap_or_default().trim();
        let chain = if is_of(last, &call.source_ip) {
            claimed
        } else if claimed.is_empty() {
            call.source_ip.clone()
        } else {
            format!("{claimed}, {}", call.source_ip)
        };
        fields.set("X-Forwarded-For", chain);
    }
    if !call.scheme.is_empty() || fields.get("x-forwarded-proto").is_none() {
        fields.set("X-Forwarded-Proto", call.scheme());
    }
    if let (_, Some(port)) = call.host_and_port() {
        fields.set("X-Forwarded-Port", port);
    } else if fields.get("x-forwarded-port").is_none() {
        fields.set("X-Forwarded-Port", if call.scheme() == "http" { "80" } else { "443" });
    }
    if fields.get("x-amzn-trace-id").is_none() {
        fields.set("X-Amzn-Trace-Id", trace_id(call));
    }
}

/// The trace that the function is told of: the caller's, or the one that is begun.
pub(super) fn trace(call: &Call) -> String {
    let given = call.headers.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("x-amzn-trace-id"));
    given.map_or_else(|| trace_id(call), |(_, value)| value.clone())
}

impl Call {
    /// Says that the call belongs to a trace, `Root=1-…`. What the caller's own header says beside the same one stays.
    pub fn set_trace(&mut self, root: &str) {
        const NAME: &str = "X-Amzn-Trace-Id";
        let own = |name: &str| name.eq_ignore_ascii_case(NAME);
        let said = self.headers.iter().rfind(|(name, _)| own(name));
        if said.is_none_or(|(_, value)| !value.contains(root)) {
            self.headers.retain(|(name, _)| !own(name));
            self.headers.push((NAME.to_owned(), root.to_owned()));
        }
    }
}

/// Whether an entry of `X-Forwarded-For` is this address: perhaps with a port behind it, perhaps spelled otherwise.
fn is_of(entry: &str, ip: &str) -> bool {
    let address = |text: &str| {
        text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
    };
    entry == ip || address(entry).is_some_and(|entry| Some(entry) == address(ip))
}

/// A trace id in X-Ray's form, made from the time and the id of the call: the same call gives the
/// same trace, and no source of randomness is needed.
pub(super) fn trace_id(call: &Call) -> String {
    let id = fingerprint(call.request_id.as_bytes());
    let (high, low) = (id >> 64, id & u128::from(u64::MAX));
    let seconds = Moment::of(call.received).seconds() & u64::from(u32::MAX);
    format!("Root=1-{seconds:08x}-{:08x}{low:016x}", high & u128::from(u32::MAX))
}

/// 128 bits that tell texts apart (FNV-1a); no secret rests on them.
pub(super) fn fingerprint(text: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
    text.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{call::sample, fields::Spelling},
        *,
    };

    struct Row(
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
        [Option<&'static str>; 3],
    );

    #[test]
    fn where_a_call_came_from() {
        for Row(why, headers, scheme, authority, expected) in [
            Row("nothing claimed", &[], "https", "a.example.com", [Some("192.0.2.7"), Some("443"), Some("https")]),
            Row("plain HTTP", &[], "http", "a.example.com", [Some("192.0.2.7"), Some("80"), Some("http")]),
            Row(
                "a port of its own",
                &[],
                "http",
                "a.example.com:8080",
                [Some("192.0.2.7"), Some("8080"), Some("http")],
            ),
            Row(
                "a client claims an address",
                &[("x-forwarded-for", "10.0.0.1")],
                "https",
                "a",
                [Some("10.0.0.1, 192.0.2.7"), Some("443"), Some("https")],
            ),
            Row(
                "the gateway has appended it already",
                &[("X-Forwarded-For", "10.0.0.1"), ("x-forwarded-for", "192.0.2.7")],
                "https",
                "a",
                [Some("10.0.0.1, 192.0.2.7"), Some("443"), Some("https")],
            ),
            Row(
                "a client claims a protocol",
                &[("x-forwarded-proto", "https")],
                "http",
                "a",
                [Some("192.0.2.7"), Some("80"), Some("http")],
            ),
            Row(
                "the gateway knows what the call does not say",
                &[("x-forwarded-proto", "http"), ("x-forwarded-port", "8080")],
                "",
                "a",
                [Some("192.0.2.7"), Some("8080"), Some("http")],
            ),
        ] {
            let mut call = sample::bare("GET", "/");
            call.source_ip = "192.0.2.7".into();
            call.scheme = scheme.into();
            call.authority = authority.into();
            call.headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let mut fields = Fields::of(&call, Spelling::Lower);
            add(&mut fields, &call);
            for (name, expected) in ["x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"].iter().zip(expected) {
                assert_eq!(fields.get(name), expected, "{why}: {name}");
                assert_eq!(fields.all(name).count(), 1, "{why}: {name}");
            }
        }
    }

    #[test]
    fn an_address_is_appended_once_however_it_is_spelled() {
        for (claimed, ip, expected) in [
            ("10.0.0.1, 192.0.2.7:4711", "192.0.2.7", "10.0.0.1, 192.0.2.7:4711"),
            ("[2001:db8::1]:443", "2001:db8::1", "[2001:db8::1]:443"),
            ("2001:DB8:0::1", "2001:db8::1", "2001:DB8:0::1"),
            ("192.0.2.7, 10.0.0.1", "192.0.2.7", "192.0.2.7, 10.0.0.1, 192.0.2.7"),
            ("unknown", "192.0.2.7", "unknown, 192.0.2.7"),
        ] {
            let mut call = sample::bare("GET", "/");
            call.source_ip = ip.into();
            call.headers.push(("X-Forwarded-For".into(), claimed.into()));
            let mut fields = Fields::of(&call, Spelling::Lower);
            add(&mut fields, &call);
            assert_eq!(fields.get("x-forwarded-for"), Some(expected));
        }
    }

    #[test]
    fn a_trace_goes_on_or_is_begun() {
        let mut call = sample::bare("GET", "/");
        let begun = trace_id(&call);
        assert_eq!(begun.len(), "Root=1-5e5ff83e-0123456789abcdef01234567".len());
        assert!(begun.starts_with("Root=1-5e5ffb9e-"), "{begun}");
        assert_eq!(begun, trace_id(&call), "one call, one trace");
        call.request_id.push('x');
        assert_ne!(begun, trace_id(&call));

        call.headers.push(("X-Amzn-Trace-Id".into(), "Root=1-1-1".into()));
        let mut fields = Fields::of(&call, Spelling::AsSentBut(&[]));
        add(&mut fields, &call);
        assert_eq!(fields.get("x-amzn-trace-id"), Some("Root=1-1-1"));
        assert_eq!(trace(&call), "Root=1-1-1");

        call.headers.push(("x-amzn-trace-id".into(), "Self=1-2-2;Root=1-1-1".into()));
        call.set_trace("Root=1-1-1");
        assert_eq!(trace(&call), "Self=1-2-2;Root=1-1-1", "the same trace");
        call.set_trace("Root=1-3-3");
        assert_eq!(trace(&call), "Root=1-3-3", "another one");
        assert_eq!(call.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-amzn-trace-id")).count(), 1);
    }
}
