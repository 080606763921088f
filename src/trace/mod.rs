//! The trace that a call belongs to, what is told of it to Lambda, and what happened on the call's way.
//!
//! A call that came without a trace and was not chosen for one has none: it costs a null pointer.

mod context;
mod hex;
mod reached;
mod way;

use std::{sync::Arc, time::Instant};

pub use self::{
    context::Context,
    hex::Hex,
    reached::{Answer, Reached},
    way::{Came, Step, Way},
};
use self::{hex::push, way::Noted};

/// A call's trace, if it has one.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<Traced>>);

#[derive(Debug)]
struct Traced {
    context: Context,
    /// What Lambda is told.
    header: String,
    /// If spans are made of the call.
    spans: Option<Spans>,
}

/// The spans that are made of a call when it has ended.
#[derive(Debug)]
pub struct Spans {
    /// The id of the one that serves the call.
    pub server: u64,
    /// The id of the one that invokes the function.
    pub client: u64,
    noted: Noted,
}

impl Trace {
    /// The trace of a call: its caller's, or one that begins here. With spans it is sampled, whatever nobody had decided.
    pub fn new(context: Option<Context>, with_spans: bool) -> Self {
        let mut context = context.unwrap_or_else(Context::random);
        let spans = with_spans.then(|| {
            context.sampled = Some(true);
            Spans { server: hex::random(), client: hex::random(), noted: Noted::default() }
        });
        let header = header(&context, spans.as_ref().map(|spans| spans.client).or(context.parent));
        Self(Some(Arc::new(Traced { context, header, spans })))
    }

    /// What Lambda is told in `X-Amzn-Trace-Id` (X-Ray developer guide, "Tracing header").
    pub fn header(&self) -> Option<&str> {
        self.0.as_ref().map(|traced| traced.header.as_str())
    }

    /// The beginning of the [`header`](Self::header), which says only which trace it is: `Root=1-…`.
    pub fn root(&self) -> Option<&str> {
        self.header()?.get(..ROOT.len() + 1 + 8 + 1 + 24)
    }

    /// The trace's id as W3C writes it: 32 digits.
    pub fn id(&self) -> Option<Hex<32>> {
        self.0.as_ref().map(|traced| Hex::of(traced.context.id))
    }

    /// Whose trace it is.
    pub fn context(&self) -> Option<&Context> {
        self.0.as_ref().map(|traced| &traced.context)
    }

    /// The spans that are made of the call, if there are any.
    pub fn spans(&self) -> Option<&Spans> {
        self.0.as_ref()?.spans.as_ref()
    }

    /// Notes that something happened just now, if spans are made of the call.
    pub fn note(&self, step: Step) {
        if let Some(spans) = self.spans() {
            spans.noted.add(Instant::now(), step);
        }
    }

    /// Notes what the call came as, if spans are made of it.
    pub fn came(&self, came: impl FnOnce() -> Came) {
        if let Some(spans) = self.spans() {
            spans.noted.came(came());
        }
    }
}

impl Spans {
    /// Notes where the request goes.
    pub fn goes_to(&self, host: &str, port: u16) {
        self.noted.goes_to(host, port);
    }

    /// What was noted, once.
    pub fn take(&self) -> Way {
        self.noted.take()
    }
}

const ROOT: &str = "Root=1";

/// A trace id of W3C is one of X-Ray, with its first eight digits for the time (X-Ray developer guide, "Sending traces").
fn header(context: &Context, parent: Option<u64>) -> String {
    let id = Hex::<32>::of(context.id);
    let (time, unique) = id.as_str().split_at(8);
    let mut header = String::with_capacity(74);
    for part in [ROOT, "-", time, "-", unique] {
        header.push_str(part);
    }
    if let Some(parent) = parent {
        header.push_str(";Parent=");
        push(&mut header, parent);
    }
    // What nobody has decided is left to Lambda.
    if let Some(sampled) = context.sampled {
        header.push_str(if sampled { ";Sampled=1" } else { ";Sampled=0" });
    }
    header
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ID: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn context(parent: Option<u64>, sampled: Option<bool>) -> Context {
        Context { id: ID, parent, sampled, state: None }
    }

    #[test]
    fn lambda_is_told_the_callers_trace() {
        let root = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736";
        for (context, expected) in [
            (context(Some(0xf0_67aa_0ba9_02b7), Some(true)), ";Parent=00f067aa0ba902b7;Sampled=1"),
            (context(Some(7), Some(false)), ";Parent=0000000000000007;Sampled=0"),
            (context(Some(7), None), ";Parent=0000000000000007"),
            (context(None, None), ""),
        ] {
            let trace = Trace::new(Some(context), false);
            assert_eq!(trace.header(), Some(format!("{root}{expected}").as_str()));
            assert_eq!(trace.root(), Some(root));
        }
    }

    #[test]
    fn with_spans_the_parent_is_the_span_that_invokes() {
        for context in [Some(context(Some(7), Some(true))), Some(context(None, None)), None] {
            let trace = Trace::new(context, true);
            let spans = trace.spans().unwrap();
            assert_ne!(spans.server, spans.client);
            let parent = format!(";Parent={};Sampled=1", Hex::<16>::of(spans.client.into()).as_str());
            assert!(trace.header().unwrap().ends_with(&parent));
            assert_eq!(trace.header().unwrap().len(), 74);
        }
    }

    #[test]
    fn a_call_without_a_trace_has_nothing_to_say() {
        let trace = Trace::default();
        trace.note(Step::Admitted);
        assert!(trace.header().is_none() && trace.id().is_none() && trace.spans().is_none());
        assert_eq!(size_of::<Trace>(), size_of::<usize>());
    }

    #[test]
    fn a_trace_that_begins_here_begins_with_the_time() {
        let trace = Trace::new(None, true);
        let seconds = u32::from_str_radix(trace.id().unwrap().as_str().get(..8).unwrap(), 16).unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(now - u64::from(seconds) < 60, "as X-Ray had it before it took any id");
    }
}
