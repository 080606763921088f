//! Whose trace a call belongs to, as headers say it: W3C's `traceparent` and `tracestate`, or X-Ray's `X-Amzn-Trace-Id`.
//!
//! OpenTelemetry's propagator reads the first two as well, but takes what the recommendation refuses (ids that are too
//! short, a dash at the end), and allocates for each call, also for those of which nobody makes a span. So they are read
//! here: W3C, "Trace Context", 3.2 and 3.3; X-Ray developer guide, "Tracing header".

use std::time::UNIX_EPOCH;

use http::HeaderMap;

use super::hex::{parse, random};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
const AMAZON: &str = "x-amzn-trace-id";
/// As much of a `tracestate` as everybody has to pass on; more is dropped.
const MOST_STATE: usize = 512;
/// The length of version 00.
const LENGTH: usize = 55;

/// The trace that a caller says its call belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub id: u128,
    /// The caller's span.
    pub parent: Option<u64>,
    /// Whether the caller makes spans, if it has decided.
    pub sampled: Option<bool>,
    /// What other systems have to say of it, as it came; kept only of a call that is sampled.
    pub state: Option<Box<str>>,
}

impl Context {
    /// What the headers of a request say, or gRPC's metadata. What is malformed or said twice counts as not said.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        // Most calls have none, and this is all they pay.
        let mut parents = headers.get_all(PARENT).iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        let states = headers.get_all(STATE).iter().map(|state| state.to_str().unwrap_or("?"));
        Self::w3c(parent.to_str().ok()?, states)
    }

    /// What the headers of an HTTP call say that a gateway passes on: W3C's, else X-Ray's, which a load balancer before the
    /// gateway adds.
    pub fn among<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let (mut parents, mut states, mut amazon) = (Vec::new(), Vec::new(), None);
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(PARENT) {
                parents.push(value);
            } else if name.eq_ignore_ascii_case(STATE) {
                states.push(value);
            } else if name.eq_ignore_ascii_case(AMAZON) {
                amazon = Some(value);
            }
        }
        let told = match parents.as_slice() {
            [parent] => Self::w3c(parent, states.into_iter()),
            _ => None,
        };
        told.or_else(|| Self::amazon(amazon?))
    }

    /// A trace that begins here. Its id begins with the time, as X-Ray's do.
    pub(super) fn random() -> Self {
        let seconds = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let id = u128::from(seconds & 0xffff_ffff) << 96 | u128::from(fastrand::u32(..)) << 64 | u128::from(random());
        Self { id, parent: None, sampled: None, state: None }
    }

    fn w3c<'a>(parent: &str, states: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (id, parent, sampled) = traceparent(parent)?;
        let state = if sampled { tracestate(states) } else { None };
        Some(Self { id, parent: Some(parent), sampled: Some(sampled), state })
    }

    /// Parts in any order, of which `Root` is needed; a load balancer writes `Self` before it, and Lambda `Lineage` behind.
    fn amazon(header: &str) -> Option<Self> {
        let part = |wanted: &str| {
            let mut parts = header.split(';').filter_map(|part| part.trim().split_once('='));
            parts.find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let (time, unique) = part("Root")?.strip_prefix("1-")?.split_once('-')?;
        if time.len() != 8 {
            return None;
        }
        let id = parse(&format!("{time}{unique}"), 32)?;
        let parent = part("Parent").and_then(|parent| parse(parent, 16)).and_then(|id| u64::try_from(id).ok());
        let sampled = match part("Sampled") {
            Some("1") => Some(true),
            Some("0") => Some(false),
            // A question mark leaves it to whoever comes next.
            _ => None,
        };
        Some(Self { id, parent, sampled, state: None })
    }
}

/// The trace, the caller's span, and whether it is sampled.
fn traceparent(text: &str) -> Option<(u128, u64, bool)> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let mut fields = known.split('-');
    let (version, id, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let hex = |text: &str| text.len() == 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    // A later version may have more behind a further dash, and 255 is none.
    let ends = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if !ends || !hex(version) || version == "ff" || !hex(flags) || fields.next().is_some() {
        return None;
    }
    let parent = u64::try_from(parse(parent, 16)?).ok()?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((parse(id, 32)?, parent, flags & 1 == 1))
}

/// The headers as one list. Whether its members are right is seen to where a span is made of the call.
fn tracestate<'a>(states: impl Iterator<Item = &'a str>) -> Option<Box<str>> {
    let mut all = String::new();
    for state in states {
        if all.len() + state.len() >= MOST_STATE {
            return None;
        }
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(state);
    }
    (!all.is_empty()).then(|| all.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PARENT_OF: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const ID: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn of(headers: &[(&'static str, &str)]) -> Option<Context> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Context::of(&map)
    }

    #[test]
    fn a_traceparent_is_taken_as_w3c_has_it() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let span = "00f067aa0ba902b7";
        for (what, text, sampled) in [
            ("sampled", format!("00-{id}-{span}-01"), Some(true)),
            ("not sampled", format!("00-{id}-{span}-00"), Some(false)),
            ("flags that nobody knows yet", format!("00-{id}-{span}-ff"), Some(true)),
            ("the same without the one that counts", format!("00-{id}-{span}-fe"), Some(false)),
            ("a later version", format!("01-{id}-{span}-01"), Some(true)),
            ("a later version with more", format!("cc-{id}-{span}-01-what-the-future-will-be-like"), Some(true)),
            ("a later version that runs on", format!("cc-{id}-{span}-01.what"), None),
            ("the version that is none", format!("ff-{id}-{span}-01"), None),
            ("more than version 00 has", format!("00-{id}-{span}-01-more"), None),
            ("a dash at the end", format!("00-{id}-{span}-01-"), None),
            ("no flags", format!("00-{id}-{span}"), None),
            ("no trace", format!("00-{}-{span}-01", "0".repeat(32)), None),
            ("no span", format!("00-{id}-{}-01", "0".repeat(16)), None),
            ("upper case", format!("00-{}-{span}-01", id.to_uppercase()), None),
            ("upper case in the version", format!("0A-{id}-{span}-01"), None),
            ("upper case in the flags", format!("00-{id}-{span}-0F"), None),
            ("a short trace with a long span", format!("00-{}-{span}00-01", &id[2..]), None),
            ("a sign", format!("00-+{}-{span}-01", &id[1..]), None),
            ("a space", format!(" 00-{id}-{span}-01"), None),
            ("no dashes", "0".repeat(55), None),
            ("nothing", String::new(), None),
        ] {
            let found = of(&[(PARENT, &text)]);
            assert_eq!(found.as_ref().map(|context| context.sampled.unwrap()), sampled, "{what}");
            assert!(found.is_none_or(|found| found.id == ID && found.parent == Some(0xf0_67aa_0ba9_02b7)), "{what}");
        }
        assert_eq!(of(&[(PARENT, PARENT_OF), (PARENT, PARENT_OF)]), None, "said twice");
    }

    #[test]
    fn a_tracestate_is_kept_if_everybody_has_to() {
        let long = format!("a={}", "x".repeat(510));
        let longest = "x".repeat(511);
        for (what, states, kept) in [
            ("none", &[][..], None),
            ("one", &["a=1,b=2"], Some("a=1,b=2")),
            ("several headers are one list", &["a=1", "b=2"], Some("a=1,b=2")),
            ("as much as there may be", &[&longest], Some(longest.as_str())),
            ("more", &[&long], None),
        ] {
            let headers: Vec<_> = [(PARENT, PARENT_OF)].into_iter().chain(states.iter().map(|s| (STATE, *s))).collect();
            assert_eq!(of(&headers).unwrap().state.as_deref(), kept, "{what}");
        }
        let unsampled = PARENT_OF.replace("-01", "-00");
        assert_eq!(of(&[(PARENT, &unsampled), (STATE, "a=1")]).unwrap().state, None, "nobody would write it");
        assert_eq!(of(&[(STATE, "a=1")]), None, "without a parent it says nothing");
    }

    #[test]
    fn an_http_call_may_have_a_trace_of_its_own() {
        let root = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736";
        let full = format!("{root};Parent=00f067aa0ba902b7;Sampled=1");
        let balanced = format!("Self=1-67891234-12456789abcdef012345678;{root}");
        let span = Some(0xf0_67aa_0ba9_02b7);
        let other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let other_id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<(u128, Option<u64>, Option<bool>)>);
        let rows: [Row<'_>; 9] = [
            ("W3C's", &[("Traceparent", PARENT_OF)], Some((ID, span, Some(true)))),
            ("X-Ray's", &[("X-Amzn-Trace-Id", &full)], Some((ID, span, Some(true)))),
            ("a load balancer's", &[("x-amzn-trace-id", &balanced)], Some((ID, None, None))),
            (
                "W3C's first",
                &[("x-amzn-trace-id", root), (PARENT, other)],
                Some((other_id, Some(0xb7ad_6b71_6920_3331), Some(false))),
            ),
            ("X-Ray's where W3C's is none", &[("x-amzn-trace-id", root), (PARENT, "x")], Some((ID, None, None))),
            ("undecided", &[(AMAZON, "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Sampled=?")], Some((ID, None, None))),
            ("no root", &[(AMAZON, "Parent=00f067aa0ba902b7")], None),
            ("a root that is none", &[(AMAZON, "Root=1-4bf92f3-577b34da6a3ce929d0e0e4736")], None),
            ("nothing", &[("accept", "*/*")], None),
        ];
        for (what, headers, expected) in rows {
            let found = Context::among(headers.iter().copied());
            assert_eq!(found.map(|found| (found.id, found.parent, found.sampled)), expected, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_a_panic(text in "\\PC{0,80}", version in "[0-9a-f-]{0,70}") {
            for text in [&text, &version] {
                let _ = traceparent(text);
                let _ = Context::amazon(text);
                let _ = Context::among([(PARENT, text.as_str()), (AMAZON, text.as_str())].into_iter());
            }
        }

        #[test]
        fn what_is_written_is_read(id in 1..=u128::MAX, parent in 1..=u64::MAX, flags in any::<u8>()) {
            let text = format!("00-{id:032x}-{parent:016x}-{flags:02x}");
            prop_assert_eq!(traceparent(&text), Some((id, parent, flags & 1 == 1)));
            let amazon = format!("Root=1-{};Parent={parent:016x};Sampled={}", format!("{id:032x}").split_at(8).0.to_owned() + "-" + format!("{id:032x}").split_at(8).1, flags & 1);
            let found = Context::amazon(&amazon).unwrap();
            prop_assert_eq!((found.id, found.parent, found.sampled), (id, Some(parent), Some(flags & 1 == 1)));
        }
    }
}
